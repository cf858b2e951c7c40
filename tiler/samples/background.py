"""Places: ground, walls and sky by casting one ray a pixel, and the things that stand there.

Everything shares the figures' camera (see `figure`): f, cx, cy, height, sin and cos of
the pitch. Patterns fade to their mean where they get finer than a pixel.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from tiler.samples import raster as r
from tiler.samples.body import TUBE_COLUMNS, project_tubes

PLAIN, PAVING, GRASS, WINDOWS, STRIPES, CHECKER, STAINS, DOORS, PANELS = range(9)
SURFACE_COLUMNS = 16
"""kind r g b r2 g2 b2 su sv joint tint grain a b c d; sizes in metres, colours 0..255."""

Array = npt.NDArray[np.float64]


class Place(NamedTuple):
    """A static scene, ready to be cast.

    Attributes:
        planes: (n, 9): normal x y z, distance, u range, v range, surface row. The ground comes first.
        zones: (m, 5): a, b, c, wobble, surface; where a x + b z + c + wobble * noise > 0
            the ground has that surface instead, the last that holds.
        surfaces: (k, 16) rows.
        lamps: (l, 5): x y z strength reach.
        sky: (8,): top r g b, horizon r g b, cloud amount, brightness without lamps.
        light: (8,) float32: what lights people (see raster.LIGHT_COLUMNS).
        shadow: (4,): x and z on the ground for one metre of height, strength of cast and of contact shadow.
    """

    planes: Array
    zones: Array
    surfaces: Array
    lamps: Array
    sky: Array
    light: npt.NDArray[np.float32]
    shadow: Array


class Prop(NamedTuple):
    """A thing: polygons (points, depth, colour, second colour, grain) below tubes; `depth` orders props."""

    depth: float
    polygons: list[tuple[Array, float, Array, Array, float]]
    tubes: npt.NDArray[np.float32]
    materials: npt.NDArray[np.float32]


def camera(f: float, width: int, height: int, up_m: float, pitch: float) -> Array:
    """The camera row that figures, places and props use; `pitch` in radians downwards."""
    return np.array([f, width / 2, height / 2, up_m, math.sin(pitch), math.cos(pitch)])


def project(cam: Array, x: float, y: float, z: float) -> tuple[float, float, float]:
    """Pixel x, pixel y and depth in metres of a point of the world."""
    depth = z * cam[5] + (cam[3] - y) * cam[4]
    scale = cam[0] / max(depth, 1e-3)
    return cam[1] + x * scale, cam[2] + ((cam[3] - y) * cam[5] - z * cam[4]) * scale, depth


def ground_at(cam: Array, px: float, py: float) -> tuple[float, float] | None:
    """World x, z where a pixel sees the ground; None at or above the horizon."""
    u, v = (px - cam[1]) / cam[0], (py - cam[2]) / cam[0]
    fall = cam[5] * v + cam[4]
    if fall <= 1e-4:
        return None
    s = cam[3] / fall
    return float(u * s), float((cam[5] - cam[4] * v) * s)


def is_open(place: Place, x: float, z: float) -> bool:
    """True where no endless wall stands between the camera and a point of the ground."""
    planes = place.planes[np.abs(place.planes[:, 1]) < 0.5]
    side = planes[:, 0] * x + planes[:, 2] * z - planes[:, 3]
    return bool(np.all(np.where(planes[:, 3] > 0, side < -0.35, side > 0.35)))


def ground_depths(cam: Array, height: int) -> npt.NDArray[np.float32]:
    """(H,) depth of the ground at each row, FAR above the horizon."""
    fall = cam[5] * (np.arange(height) + 0.5 - cam[2]) / cam[0] + cam[4]
    return np.where(fall > 1e-4, cam[3] / np.maximum(fall, 1e-4), r.FAR).astype(np.float32)


@njit(nogil=True, cache=True, error_model="numpy")
def _hash(a: int, b: int) -> float:
    """0..1 from two integers."""
    h = (a * 374761393 + b * 668265263) & 0x7FFFFFFF
    h = ((h ^ (h >> 13)) * 1274126177) & 0x7FFFFFFF
    return ((h ^ (h >> 16)) & 0xFFFF) / 65535.0


@njit(nogil=True, cache=True, error_model="numpy")
def _joint(at: float, period: float, width: float, foot: float) -> float:
    """How much of a joint of `width` around multiples of `period` a footprint sees, 0..1."""
    soft = max(width, foot)
    d = abs(at - math.floor(at / period + 0.5) * period)
    return min(1.0, width / soft) * max(0.0, min(1.0, 1.3 - d / (0.5 * soft)))


@njit(nogil=True, cache=True, error_model="numpy")
def _surface(row: Any, u: float, v: float, foot: float, noise: Any, gloss: float, out: Any) -> None:
    """Colour of a surface at u, v metres for a pixel `foot` metres wide, into out[:3]; out[3]: it glows."""
    kind = int(row[0])
    su, sv, joint, tint, grain = row[7], row[8], row[9], row[10], row[11]
    mix, gain, glow = 0.0, 1.0, 0.0
    fade = max(0.0, min(1.0, 1.6 - 2.0 * foot / min(su, sv)))
    iu, iv = math.floor(u / su), math.floor(v / sv)
    if kind == PAVING:
        shifted = u + row[12] * su * (int(iv) & 1)
        iu = math.floor(shifted / su)
        mix = max(_joint(shifted, su, joint, foot), _joint(v, sv, joint, foot)) * (0.25 + 0.75 * fade)
        gain += tint * (_hash(int(iu), int(iv)) - 0.5) * 2.0 * fade
    elif kind == GRASS:
        mix = 0.5 + 0.5 * noise[int(v * 37.0) & 511, int(u * 37.0) & 511] * min(1.0, 0.1 / max(foot, 0.02))
    elif kind == WINDOWS:
        fu, fv = u / su - iu, v / sv - iv
        inside = abs(fu - 0.5) < 0.5 * row[12] and abs(fv - 0.55) < 0.5 * row[13]
        if joint > 0.0 and not inside:
            course = math.floor(v / 0.075)
            fade = max(0.0, min(1.0, 1.4 - foot / 0.05))
            brick = _hash(math.floor((u + 0.11 * (int(course) & 1)) / 0.22), int(course))
            gain += (brick - 0.5) * 0.3 * fade
            gain -= 0.2 * _joint(v, 0.075, 0.012, foot) * fade
        if inside:
            frame = abs(fu - 0.5) > 0.5 * row[12] - 0.06 / su or abs(fv - 0.55) > 0.5 * row[13] - 0.06 / sv
            frame = frame or abs(fu - 0.5) * su < 0.03
            lit = _hash(int(iu) + 17, int(iv) + 5)
            if frame:
                gain = row[15]
            elif lit < row[14]:
                mix, glow = 1.0, 0.8 + 0.4 * lit
            else:
                mix = 1.0
                gain = 0.55 + 0.9 * gloss * (fv - 0.1) + 0.25 * lit
                gain += 0.25 * noise[int(v * 20.0 + u * 6.0) & 511, int(u * 9.0) & 511]
    elif kind == STRIPES:
        band = u / su - math.floor(u / su)
        dash = v / sv - math.floor(v / sv)
        mix = (1.0 if band < row[12] and dash < row[13] else 0.0) * max(0.2, fade)
        mix *= 0.85 + 0.15 * noise[int(v * 31.0) & 511, int(u * 31.0) & 511]
    elif kind == CHECKER:
        mix = 0.5 + ((int(iu) + int(iv)) % 2 - 0.5) * fade
    elif kind == STAINS:
        mix = max(0.0, min(1.0, 0.5 + row[12] * noise[int(v / sv * 64.0) & 511, int(u / su * 64.0) & 511]))
    elif kind == DOORS:
        at = (u / su - iu - 0.5) * su
        gain = 0.80 if v < 0.10 else (row[15] if v < row[14] else 1.0)
        if abs(at) < 0.5 * row[12] + 0.07 and v < row[13] + 0.07:
            gain = 0.78
            if abs(at) < 0.5 * row[12] and v < row[13]:
                mix, gain = 1.0, 0.92 + 0.12 * _hash(int(iu), 3)
                if 0.30 * row[12] < at < 0.36 * row[12] and 0.95 < v < 1.10:
                    gain = 1.5
                if abs(at) < 0.12 * row[12] and 1.3 < v < 1.8:
                    gain = 0.45
    elif kind == PANELS:
        iu = math.floor(u / su + 0.5)
        fu, fv = u / su + 0.5 - iu, v / sv - iv
        if (int(iu) % 3) == 0 and (int(iv) % 2) == 0 and 0.1 < fu < 0.9 and 0.15 < fv < 0.85:
            mix, glow = 1.0, 1.0
        else:
            gain -= 0.16 * max(_joint(u + 0.5 * su, su, 0.02, foot), _joint(v, sv, 0.02, foot))
    coarse = noise[int(v * 3.1) & 511, int(u * 3.1) & 511]
    fine = noise[int(v * 83.0) & 511, int(u * 83.0) & 511] * min(1.0, 0.03 / max(foot, 0.006))
    gain *= 1.0 + grain * (0.5 * coarse + fine)
    for c in range(3):
        out[c] = (row[1 + c] + (row[4 + c] - row[1 + c]) * mix) * gain
    out[3] = glow


@njit(nogil=True, cache=True, error_model="numpy")
def lamp_light(lamps: Any, x: float, y: float, z: float) -> float:
    """Sum of what the lamps give at a point."""
    total = 0.0
    for i in range(lamps.shape[0]):
        dx, dy, dz = x - lamps[i, 0], y - lamps[i, 1], z - lamps[i, 2]
        d = (dx * dx + dy * dy + dz * dz) / (lamps[i, 4] * lamps[i, 4])
        total += lamps[i, 3] / (1.0 + d * d)
    return total


@njit(nogil=True, cache=True, error_model="numpy")
def _cast(rgb: Any, depth: Any, cam: Any, planes: Any, zones: Any, surfaces: Any, lamps: Any, sky: Any,
          noise: Any, samples: int, tint: Any) -> None:  # fmt: skip
    height, width = depth.shape
    f, cx, cy, h, sp, cp = cam[0], cam[1], cam[2], cam[3], cam[4], cam[5]
    color = np.zeros(4)
    inv = 1.0 / (samples * samples)
    for y in range(height):
        for x in range(width):
            r0, g0, b0, near = 0.0, 0.0, 0.0, 1e9
            for k in range(samples * samples):
                px = (x + (k % samples + 0.5) / samples - cx) / f
                py = (y + (k // samples + 0.5) / samples - cy) / f
                wx, wy, wz = px, -cp * py - sp, cp - sp * py
                best, hit, cosine = 1e8, -1, 1.0
                for i in range(planes.shape[0]):
                    fall = planes[i, 0] * wx + planes[i, 1] * wy + planes[i, 2] * wz
                    if abs(fall) < 1e-7:
                        continue
                    s = (planes[i, 3] - planes[i, 1] * h) / fall
                    if s < 0.05 or s >= best:
                        continue
                    hx, hy, hz = wx * s, h + wy * s, wz * s
                    if abs(planes[i, 1]) > 0.5:
                        u, v = hx, hz
                    else:
                        u, v = hx * planes[i, 2] - hz * planes[i, 0], hy
                    if planes[i, 4] <= u <= planes[i, 5] and planes[i, 6] <= v <= planes[i, 7]:
                        best, hit, cosine = s, i, abs(fall)
                if hit < 0:
                    elevation = min(1.0, max(0.0, wy * 1.8 + 0.05))
                    cloud = 0.0
                    if sky[6] > 0.0 and wy > 0.005:
                        reach = 60.0 / (wy + 0.12)
                        cloud = r.noise_at(noise, wx * reach + 50.0, wz * reach * 0.4)
                        cloud = sky[6] * max(0.0, min(1.0, 0.4 + cloud)) * min(1.0, wy * 12.0)
                    for c in range(3):
                        color[c] = sky[3 + c] + (sky[c] - sky[3 + c]) * elevation
                        color[c] += (245.0 * sky[7] - color[c]) * cloud * 0.8
                    r0, g0, b0 = r0 + color[0], g0 + color[1], b0 + color[2]
                    continue
                near = min(near, best)
                hx, hy, hz = wx * best, h + wy * best, wz * best
                row = int(planes[hit, 8])
                shade = sky[7]
                foot = best / f / max(0.05, math.sqrt(cosine)) / samples
                if abs(planes[hit, 1]) > 0.5:
                    u, v = hx, hz
                    if hit == 0:
                        for i in range(zones.shape[0]):
                            edge = zones[i, 0] * u + zones[i, 1] * v + zones[i, 2]
                            if zones[i, 3] > 0.0:
                                edge += zones[i, 3] * r.noise_at(noise, u * 4.0, v * 4.0)
                            if edge > 0.0:
                                row = int(zones[i, 4])
                        gap = 9.0
                        for i in range(1, planes.shape[0]):
                            at = hx * planes[i, 2] - hz * planes[i, 0]
                            if abs(planes[i, 1]) < 0.5 and planes[i, 4] <= at <= planes[i, 5]:
                                gap = min(gap, abs(planes[i, 0] * hx + planes[i, 2] * hz - planes[i, 3]))
                        shade *= 0.72 + 0.28 * min(1.0, gap * 0.9)
                else:
                    u, v = hx * planes[hit, 2] - hz * planes[hit, 0], hy
                    shade *= (0.78 + 0.22 * min(1.0, hy * 1.2)) * (0.86 + 0.14 * abs(planes[hit, 2]))
                if lamps.shape[0] > 0:
                    shade += lamp_light(lamps, hx, hy, hz)
                _surface(surfaces[row], u, v, foot, noise, 1.0, color)
                shade = max(shade, color[3])
                haze = min(0.35, best * 0.0022)
                r0 += color[0] * shade * (1.0 - haze) + sky[3] * haze
                g0 += color[1] * shade * (1.0 - haze) + sky[4] * haze
                b0 += color[2] * shade * (1.0 - haze) + sky[5] * haze
            rgb[y, x, 0] = np.uint8(min(255.0, max(0.0, r0 * inv * tint[0])))
            rgb[y, x, 1] = np.uint8(min(255.0, max(0.0, g0 * inv * tint[1])))
            rgb[y, x, 2] = np.uint8(min(255.0, max(0.0, b0 * inv * tint[2])))
            depth[y, x] = near


def cast(canvas: r.Canvas, cam: Array, place: Place, *, samples: int = 1) -> None:
    """Paint ground, walls and sky over the whole canvas, with samples x samples rays a pixel."""
    _cast(canvas.rgb, canvas.depth, cam, place.planes, place.zones, place.surfaces, place.lamps, place.sky,
          r.NOISE, samples, place.light[5:8].astype(np.float64))  # fmt: skip


@njit(nogil=True, cache=True, error_model="numpy")
def add_glow(rgb: Any, cx: float, cy: float, radius: float, color: Any, strength: float) -> None:
    """Add the halo of a lamp."""
    height, width = rgb.shape[0], rgb.shape[1]
    for y in range(max(0, int(cy - radius)), min(height, int(cy + radius) + 1)):
        for x in range(max(0, int(cx - radius)), min(width, int(cx + radius) + 1)):
            d = math.sqrt((x + 0.5 - cx) ** 2 + (y + 0.5 - cy) ** 2) / radius
            if d < 1.0:
                k = strength * (1.0 - d) ** 2 / (0.08 + d)
                for c in range(3):
                    rgb[y, x, c] = np.uint8(min(255.0, rgb[y, x, c] + color[c] * k))


class Builder:
    """Collects the polygons and tubes of one prop that stands at x, z and faces `yaw`."""

    def __init__(self, cam: Array, x: float, z: float, yaw: float = 0.0) -> None:
        self._cam, self._at = cam, (x, z)
        self._fwd = (math.sin(yaw), 0.0, -math.cos(yaw))
        self._lat = (math.cos(yaw), 0.0, math.sin(yaw))
        self._polygons: list[tuple[Array, float, Array, Array, float]] = []
        self._tubes = np.zeros((96, TUBE_COLUMNS))
        self._count = 0
        self._materials: list[list[float]] = []

    def _world(self, side: float, up: float, ahead: float) -> tuple[float, float, float]:
        x, z = self._at
        right, front = self._lat, self._fwd
        return x + side * right[0] + ahead * front[0], up, z + side * right[2] + ahead * front[2]

    def material(self, color: Any, *, kind: int = r.SOLID, fold: float = 0.08, emit: float = 0.0) -> int:
        """Add a material; returns its row."""
        self._materials.append([*color, kind, *color, 1.0, fold, 0.5, 0.0, emit])
        return len(self._materials) - 1

    def tube(self, start: tuple[float, float, float], end: tuple[float, float, float], radius: float,
             material: int, *, end_radius: float | None = None, ratio: float = 1.0,
             cap: float | None = None) -> None:  # fmt: skip
        """A tube between two points (side, up, ahead)."""
        last = radius if end_radius is None else end_radius
        cap = radius * 0.3 if cap is None else cap
        self._tubes[self._count] = (
            *self._world(*start), *self._world(*end), radius, 0.5 * (radius + last), last, ratio, cap, cap,
            *self._lat, *self._fwd, material, 0.0, 0.0, 0.15, 0.0,
        )  # fmt: skip
        self._count += 1

    def face(self, corners: list[tuple[float, float, float]], color: Any, second: Any = None,
             grain: float = 0.05) -> None:
        """A flat convex face through corners (side, up, ahead)."""
        points = np.array([project(self._cam, *self._world(*corner)) for corner in corners])
        if points[:, 2].min() < 0.3:
            return
        top = np.asarray(color, np.float64)
        low = top * 0.9 if second is None else np.asarray(second, np.float64)
        self._polygons.append((np.ascontiguousarray(points[:, :2]), float(points[:, 2].mean()), top, low,
                               grain))

    def box(self, low: tuple[float, float, float], high: tuple[float, float, float], color: Any, *,
            shrink: tuple[float, float] = (0.0, 0.0), grain: float = 0.05) -> None:  # fmt: skip
        """A box from `low` to `high` (side, up, ahead), its top narrower by `shrink` on each side."""
        color = np.asarray(color, np.float64)
        (a0, b0, c0), (a1, b1, c1) = low, high
        s, t = shrink
        base = [(a0, b0, c0), (a1, b0, c0), (a1, b0, c1), (a0, b0, c1)]
        roof = [(a0 + s, b1, c0 + t), (a1 - s, b1, c0 + t), (a1 - s, b1, c1 - t), (a0 + s, b1, c1 - t)]
        middle = self._world((a0 + a1) / 2, 0.0, (c0 + c1) / 2)
        for i, bright in enumerate((0.72, 0.88, 1.0, 0.80)):
            j = (i + 1) % 4
            p, q = self._world(*base[i]), self._world(*base[j])
            mx, mz = (p[0] + q[0]) / 2, (p[2] + q[2]) / 2
            if (mx - middle[0]) * -mx + (mz - middle[2]) * -mz > 0.0:
                self.face([base[i], base[j], roof[j], roof[i]], color * bright, color * bright * 0.85, grain)
        if self._cam[3] > b1:
            self.face(roof, np.minimum(color * 1.12, 255.0), None, grain)

    def build(self) -> Prop:
        """The finished prop."""
        depth = project(self._cam, self._at[0], 0.5, self._at[1])[2]
        # Far faces first; faces of one prop must not fight over depth.
        self._polygons.sort(key=lambda polygon: -polygon[1])
        rows = self._materials or [[0.0] * r.MATERIAL_COLUMNS]
        parts = np.zeros((self._count, r.PART_COLUMNS), np.float32)
        parts = parts[: project_tubes(self._tubes, self._count, self._cam, parts)]
        return Prop(depth, self._polygons, parts, np.array(rows, np.float32))


def draw_prop(canvas: r.Canvas, prop: Prop, light: npt.NDArray[np.float32], gain: float, soft: float) -> None:
    """Draw a prop; `gain` is the light where it stands."""
    tint = light[5:8].astype(np.float64) * gain
    for points, z, color, second, grain in prop.polygons:
        r.draw_polygon(canvas.rgb, canvas.depth, canvas.owner, canvas.stats, points, z,
                       color * tint, second * tint, r.NOISE, grain)  # fmt: skip
    lit = light.copy()
    lit[5:8] *= gain
    if len(prop.tubes):
        r.draw_parts(canvas, -1, prop.tubes, prop.materials, lit, soft)
