"""Numba kernels: draw shaded parts and polygons into a canvas with depth and ownership.

A *part* is a tapered tube with elliptical caps, already projected to the picture: limbs,
torsos, heads, coats, poles and leaf clusters are all parts. Each pixel of a part gets a
surface normal from its place on the tube, hence roundness, texture coordinates and a
depth, so that parts and people intersect where they should. The distance to a tapered
capsule follows the usual signed-distance construction (I. Quilez, "2D distance
functions"), the caps use its first-order form, value over gradient.

One `Canvas` belongs to one thread. All kernels release the GIL.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

X0, Y0, X1, Y1, R0, RM, R1, C0, C1, D0, D1, THICK, MAT, LON, LEN, V0, AO0, AO1, SQUARE, WIDTH = range(20)
PART_COLUMNS = 20
"""Ends and radii in px, caps in px along the axis, depths and texture lengths in metres."""

SOLID, HSTRIPE, VSTRIPE, PLAID, BLOTCH, LOGO, OPEN, FACE, HAIR, ZIP, DOTS, LEAF = range(12)
MATERIAL_COLUMNS = 12
"""r g b kind r2 g2 b2 scale_m fold extra gloss emit; colours 0..255."""

LIGHT_COLUMNS = 8
"""x y z (towards the light, camera axes: right, down, towards the viewer) ambient diffuse r g b."""

COUNT, VISIBLE, LEFT, TOP, RIGHT, BOTTOM = range(6)
NOISE_SIZE = 512
FAR = np.float32(1e9)
MELT_M = 0.008


class Canvas(NamedTuple):
    """What one picture is drawn into.

    Attributes:
        rgb: (H, W, 3) uint8.
        depth: (H, W) float32, metres along the optical axis.
        stamp: (H, W) int16, the last person whose body covers the pixel, seen or not.
        owner: (H, W) int16, the person seen at the pixel, -1 for the scene.
        shade: (H, W) uint8, shadow strength that waits to be applied.
        stats: (P, 6) int64, of each person: body pixels, visible pixels, left, top,
            right and bottom of the body (half-open).
    """

    rgb: npt.NDArray[np.uint8]
    depth: npt.NDArray[np.float32]
    stamp: npt.NDArray[np.int16]
    owner: npt.NDArray[np.int16]
    shade: npt.NDArray[np.uint8]
    stats: npt.NDArray[np.int64]


def new_canvas(width: int, height: int, people: int) -> Canvas:
    """An empty canvas for up to `people` figures."""
    shape = (height, width)
    canvas = Canvas(
        np.zeros((height, width, 3), np.uint8), np.full(shape, FAR, np.float32),
        np.full(shape, -1, np.int16), np.full(shape, -1, np.int16),
        np.zeros(shape, np.uint8), np.zeros((max(people, 1), 6), np.int64),
    )  # fmt: skip
    clear_stats(canvas.stats)
    return canvas


def clear_stats(stats: npt.NDArray[np.int64]) -> None:
    """Forget all people's counts."""
    stats[:] = (0, 0, 1 << 30, 1 << 30, -1, -1)


def _make_noise() -> npt.NDArray[np.float32]:
    """(512, 512) float32 in -1..1: periodic value noise of five octaves, the same everywhere."""
    rng = np.random.default_rng(20240229)
    total = np.zeros((NOISE_SIZE, NOISE_SIZE), np.float64)
    for octave, weight in ((8, 0.30), (16, 0.30), (64, 0.25), (128, 0.2), (512, 0.15)):
        lattice = rng.uniform(-1, 1, (octave, octave))
        at = np.arange(NOISE_SIZE) * octave / NOISE_SIZE
        low = at.astype(int)
        blend = at - low
        blend = blend * blend * (3 - 2 * blend)
        rows = lattice[low] * (1 - blend)[:, None] + lattice[(low + 1) % octave] * blend[:, None]
        total += weight * (rows[:, low] * (1 - blend) + rows[:, (low + 1) % octave] * blend)
    return np.clip(total * 1.6, -1, 1).astype(np.float32)


NOISE = _make_noise()


@njit(nogil=True, cache=True, error_model="numpy")
def noise_at(noise: Any, u: float, v: float) -> float:
    """Bilinear look-up, the tile repeats; u and v in samples."""
    iu, iv = math.floor(u), math.floor(v)
    fu, fv = u - iu, v - iv
    a, b = int(iu) & 511, int(iv) & 511
    c, d = (a + 1) & 511, (b + 1) & 511
    top = noise[b, a] + (noise[b, c] - noise[b, a]) * fu
    return float(top + (noise[d, a] + (noise[d, c] - noise[d, a]) * fu - top) * fv)


@njit(nogil=True, cache=True, error_model="numpy")
def _texture_mix(kind: int, material: Any, noise: Any, lon: float, v: float, u: float) -> float:
    """How much of the second colour shows, 0..1, at longitude `lon`, `v` and `u` metres along and around."""
    scale = material[7]
    if kind == HSTRIPE:
        return 1.0 if v / scale - math.floor(v / scale) < material[9] else 0.0
    if kind == VSTRIPE:
        return 1.0 if u / scale - math.floor(u / scale) < material[9] else 0.0
    if kind == PLAID:
        a = 0.5 if u / scale - math.floor(u / scale) < material[9] else 0.0
        return a + (0.5 if v / scale - math.floor(v / scale) < material[9] else 0.0)
    if kind == BLOTCH:
        return 1.0 if noise[int(v / scale * 24.0) & 511, int(u / scale * 24.0) & 511] > material[9] else 0.0
    if kind == DOTS:
        a, b = u / scale, v / scale
        a, b = a - math.floor(a) - 0.5, b - math.floor(b) - 0.5
        return 1.0 if a * a + b * b < material[9] * material[9] * 0.25 else 0.0
    if kind == LOGO:
        inside = abs(lon) < material[9] and 0.1 < v < 0.1 + scale
        return 1.0 if inside and noise[int(v * 90.0) & 511, int(lon * 14.0) & 511] > -0.25 else 0.0
    if kind == OPEN:
        return 1.0 if abs(lon) < material[9] * (0.35 + v * scale) else 0.0
    if kind == ZIP:
        return 1.0 if abs(lon) < 0.06 else 0.0
    return 0.0


@njit(nogil=True, cache=True, error_model="numpy")
def _face_mix(lon: float, q: float) -> float:
    """Hairline, eyes, brows, nose and mouth at longitude `lon`; q < 0 is the forehead, 1 the mouth."""
    side = abs(lon)
    if q < -0.34 + 0.10 * math.cos(3.0 * lon) or (side > 1.3 and q < 0.5):
        return 1.0
    if side > 1.2:
        return 0.0
    eye = math.exp(-(((side - 0.42) / 0.17) ** 2) - ((q - 0.36) / 0.075) ** 2)
    brow = 0.55 * math.exp(-(((side - 0.42) / 0.25) ** 2) - ((q - 0.17) / 0.05) ** 2)
    mouth = 0.5 * math.exp(-((side / 0.3) ** 2) - ((q - 1.0) / 0.07) ** 2)
    nose = 0.28 * math.exp(-((side / 0.2) ** 2) - ((q - 0.74) / 0.06) ** 2)
    return min(0.8, eye + brow + mouth + nose)


@njit(nogil=True, cache=True, error_model="numpy")
def _draw_parts(
    rgb: Any, depth: Any, stamp: Any, owner: Any, stats: Any, person: int,
    parts: Any, order: Any, materials: Any, noise: Any, light: Any, soft: float,
) -> None:  # fmt: skip
    height, width = depth.shape
    for which in order:
        part = parts[which]
        ax, ay, bx, by = float(part[X0]), float(part[Y0]), float(part[X1]), float(part[Y1])
        r0, rm, r1 = max(float(part[R0]), 0.05), float(part[RM]), max(float(part[R1]), 0.05)
        c0, c1 = max(float(part[C0]), 0.05), max(float(part[C1]), 0.05)
        dx, dy = bx - ax, by - ay
        length = math.sqrt(dx * dx + dy * dy)
        ux, uy = 0.0, 1.0
        if length > 1e-6:
            ux, uy = dx / length, dy / length
        else:
            length = 1e-6
        reach = max(max(r0, rm), max(r1, max(c0, c1))) + soft
        left, right = max(0, int(min(ax, bx) - reach)), min(width, int(max(ax, bx) + reach) + 1)
        top, bottom = max(0, int(min(ay, by) - reach)), min(height, int(max(ay, by) + reach) + 1)
        if left >= right or top >= bottom:
            continue
        material = materials[int(part[MAT])]
        kind = int(material[3])
        bulge = 4.0 * (rm - 0.5 * (r0 + r1))
        d0, d1, thick = float(part[D0]), float(part[D1]), float(part[THICK])
        lon0, length_m, v0, width_m = float(part[LON]), float(part[LEN]), float(part[V0]), float(part[WIDTH])
        ao0, ao1, square = float(part[AO0]), float(part[AO1]), part[SQUARE] > 0.5
        lx, ly, lz = float(light[0]), float(light[1]), float(light[2])
        ambient, diffuse = float(light[3]), float(light[4])
        fold, gloss = float(material[8]), float(material[10])
        fine = 256.0 / max(0.05, 2.2 * width_m)
        seed = int(part[MAT]) * 37 + person * 91
        # Patterns finer than about three pixels turn to their mean: no moire on far people.
        pixel_m = length_m / max(length, 1e-6) if length_m > 0.0 else 1.0
        pattern = min(1.0, max(0.0, material[7] / max(pixel_m, 1e-6) / 3.0 - 0.4))
        edge = 1.0 / soft
        for y in range(top, bottom):
            py = y + 0.5 - ay
            for x in range(left, right):
                px = x + 0.5 - ax
                t = px * ux + py * uy
                s = px * uy - py * ux
                if t < 0.0 or t > length:
                    radius, cap = (r0, c0) if t < 0.0 else (r1, c1)
                    over = t if t < 0.0 else t - length
                    nt, ns = over / cap, s / radius
                    if nt > 1.6 + soft / cap or nt < -1.6 - soft / cap:
                        continue
                    if square:
                        a, b = nt * nt, ns * ns
                        value = math.sqrt(math.sqrt(a * a + b * b))
                        cube = max(value * value * value, 1e-9)
                        ga, gb = a * abs(nt) / cap / cube, b * abs(ns) / radius / cube
                        slope = math.sqrt(ga * ga + gb * gb)
                    else:
                        value = math.sqrt(nt * nt + ns * ns)
                        ga, gb = nt / cap, ns / radius
                        slope = math.sqrt(ga * ga + gb * gb) / max(value, 1e-9)
                    gap = (value - 1.0) / max(slope, 1e-9)
                    q = 0.0 if t < 0.0 else 1.0
                    along = q + over / length if kind == FACE else q
                else:
                    q = t / length
                    radius = r0 + (r1 - r0) * q + bulge * q * (1.0 - q)
                    gap = abs(s) - radius
                    ns, nt = s / max(radius, 1e-3), 0.0
                    along = q
                cover = 0.5 - gap * edge
                if cover <= 0.0:
                    continue
                if cover > 1.0:
                    cover = 1.0
                ns = min(1.0, max(-1.0, ns))
                nt = min(1.0, max(-1.0, nt))
                nz = math.sqrt(max(0.0, 1.0 - ns * ns - nt * nt))
                z = d0 + (d1 - d0) * q - thick * nz
                phi = ns * (1.0 + ns * ns * (0.17 + 0.3 * ns * ns))
                v = v0 + q * length_m + nt * 0.4 * width_m
                u = phi * width_m
                if kind == LEAF:
                    mottle = noise_at(noise, (u + width_m) * fine * 0.5 + seed,
                                      (v + nt * width_m) * fine * 0.5 + seed)
                    cover = min(cover, (mottle - 1.6 * (1.0 - nz) + 0.95) * 3.0)
                    if cover <= 0.0:
                        continue
                if person >= 0 and cover >= 0.5 and stamp[y, x] != person:
                    stamp[y, x] = person
                    stats[person, COUNT] += 1
                    stats[person, LEFT] = min(stats[person, LEFT], x)
                    stats[person, TOP] = min(stats[person, TOP], y)
                    stats[person, RIGHT] = max(stats[person, RIGHT], x + 1)
                    stats[person, BOTTOM] = max(stats[person, BOTTOM], y + 1)
                behind = depth[y, x] - z
                if person >= 0 and owner[y, x] == person:
                    # Parts of one body melt into each other where they meet, or joints look like a puppet's.
                    if behind <= -MELT_M:
                        continue
                    if behind < MELT_M:
                        cover *= 0.5 + 0.5 * behind / MELT_M
                elif behind < -1e-4:
                    continue
                mix = 0.0
                if kind == FACE:
                    lon = lon0 + phi
                    if lon > math.pi:
                        lon -= 2.0 * math.pi
                    mix = _face_mix(lon, along)
                elif (0 < kind < HAIR) or kind in (ZIP, DOTS):
                    lon = lon0 + phi
                    if lon > math.pi:
                        lon -= 2.0 * math.pi
                    mix = _texture_mix(kind, material, noise, lon, v, lon * width_m)
                    if kind != OPEN and kind != LOGO:
                        mix = mix * pattern + 0.4 * (1.0 - pattern)
                nx = ns * uy + nt * ux
                ny = -ns * ux + nt * uy
                lit = nx * lx + ny * ly + nz * lz
                shade = ambient * (0.86 - 0.14 * ny) * (0.72 + 0.28 * nz)
                if lit > 0.0:
                    shade += diffuse * lit
                    if gloss > 0.0:
                        shade += gloss * lit**12
                if fold > 0.0:
                    wrinkle = noise[int((v * 0.55 + 3.0) * fine + seed) & 511,
                                    int((u * 0.8 + 3.0) * fine + seed) & 511]
                    shade *= 1.0 + fold * wrinkle
                if q < 0.3:
                    shade *= 1.0 - ao0 * (1.0 - q / 0.3)
                elif q > 0.7:
                    shade *= 1.0 - ao1 * (q - 0.7) / 0.3
                for c in range(3):
                    base = material[c] + (material[4 + c] - material[c]) * mix
                    value = base * (shade * light[5 + c] + material[11])
                    value = min(255.0, max(0.0, value))
                    old = rgb[y, x, c]
                    rgb[y, x, c] = np.uint8(old + (value - old) * cover + 0.5)
                if cover >= 0.5:
                    depth[y, x] = min(z, depth[y, x])
                    before = owner[y, x]
                    if before != person:
                        owner[y, x] = person
                        if before >= 0:
                            stats[before, VISIBLE] -= 1
                        if person >= 0:
                            stats[person, VISIBLE] += 1


def draw_parts(
    canvas: Canvas, person: int, parts: npt.NDArray[np.float32], materials: npt.NDArray[np.float32],
    light: npt.NDArray[np.float32], soft: float,
) -> None:  # fmt: skip
    """Draw the parts of `person` (-1: of the scene); `soft` is the width of an edge in px."""
    # Far to near, so that edges blend with what is behind.
    order = np.argsort(parts[:, THICK] - parts[:, D0] - parts[:, D1], kind="stable")
    rgb, depth, stamp, owner, _, stats = canvas
    _draw_parts(rgb, depth, stamp, owner, stats, person, parts, order, materials, NOISE, light, soft)


@njit(nogil=True, cache=True, error_model="numpy")
def draw_polygon(
    rgb: Any, depth: Any, owner: Any, stats: Any, points: Any, z: float,
    color: Any, second: Any, noise: Any, grain: float,
) -> None:  # fmt: skip
    """Fill a convex polygon (n, 2) at one depth, shaded from `color` at the top to `second` below."""
    height, width = depth.shape
    n = points.shape[0]
    left, right, top, bottom, area = 1e9, -1e9, 1e9, -1e9, 0.0
    for i in range(n):
        j = (i + 1) % n
        left, right = min(left, points[i, 0]), max(right, points[i, 0])
        top, bottom = min(top, points[i, 1]), max(bottom, points[i, 1])
        area += points[i, 0] * points[j, 1] - points[j, 0] * points[i, 1]
    turn = 1.0 if area > 0.0 else -1.0
    for y in range(max(0, int(top - 1.0)), min(height, int(bottom + 2.0))):
        for x in range(max(0, int(left - 1.0)), min(width, int(right + 2.0))):
            gap = -1e9
            for i in range(n):
                j = (i + 1) % n
                ex, ey = points[j, 0] - points[i, 0], points[j, 1] - points[i, 1]
                norm = math.sqrt(ex * ex + ey * ey)
                if norm > 1e-6:
                    side = ((x + 0.5 - points[i, 0]) * ey - (y + 0.5 - points[i, 1]) * ex) / norm * turn
                    gap = max(gap, side)
            cover = min(1.0, 0.5 - gap)
            if cover <= 0.0 or z > depth[y, x] + 1e-4:
                continue
            q = min(1.0, max(0.0, (y + 0.5 - top) / max(bottom - top, 1e-6)))
            gain = 1.0 + grain * noise[(y * 3) & 511, (x * 3) & 511]
            for c in range(3):
                value = min(255.0, max(0.0, (color[c] + (second[c] - color[c]) * q) * gain))
                rgb[y, x, c] = np.uint8(rgb[y, x, c] + (value - rgb[y, x, c]) * cover + 0.5)
            if cover >= 0.5:
                depth[y, x] = z
                if owner[y, x] >= 0:
                    stats[owner[y, x], VISIBLE] -= 1
                owner[y, x] = -1


TILE = 16


@njit(nogil=True, cache=True, error_model="numpy")
def restore(rgb: Any, depth: Any, stamp: Any, owner: Any, back_rgb: Any, back_depth: Any, tiles: Any) -> None:
    """Put the background back where `tiles` (one bool a 16 x 16 block) is set; rgb as (H, 3 W)."""
    height, width = depth.shape
    for j in range(tiles.shape[0]):
        i = 0
        while i < tiles.shape[1]:
            first = i
            while i < tiles.shape[1] and tiles[j, i]:
                i += 1
            left, right = first * TILE, min(width, i * TILE)
            if i > first:
                for y in range(j * TILE, min(height, (j + 1) * TILE)):
                    for x in range(3 * left, 3 * right):
                        rgb[y, x] = back_rgb[y, x]
                    for x in range(left, right):
                        depth[y, x] = back_depth[y, x]
                    for x in range(left, right):
                        stamp[y, x] = -1
                    for x in range(left, right):
                        owner[y, x] = -1
            i += 1
