"""The places of the sample scenes, and random ones for training."""

from __future__ import annotations

import math

import numpy as np

from tiler.samples import background as b
from tiler.samples.background import Array, Place

Rng = np.random.Generator
_FAR = 1000.0


def _light(x: float, y: float, z: float, ambient: float, diffuse: float, tint: tuple[float, float,
    float]) -> np.ndarray[
    tuple[int], np.dtype[np.float32]
]:
    norm = math.sqrt(x * x + y * y + z * z)
    return np.array([x / norm, y / norm, z / norm, ambient, diffuse, *tint], np.float32)


def _ground(surface: int = 0) -> list[float]:
    return [0, 1, 0, 0, -_FAR, _FAR, -_FAR, _FAR, surface]


def _wall(nx: float, nz: float, distance: float, top: float, surface: int, low: float = -_FAR,
          high: float = _FAR) -> list[float]:
    """A wall where nx x + nz z = distance; its u runs along x for nz = 1."""
    return [nx, 0, nz, distance, low, high, 0, top, surface]


def _rows(rows: list[list[float]], columns: int) -> Array:
    return np.array(rows, np.float64).reshape(len(rows), columns)


def plaza() -> Place:
    """A paved square on a bright day: lawn to the left, brick and glass behind."""
    surfaces = [
        [b.PAVING, 182, 174, 162, 138, 132, 124, 0.8, 0.8, 0.018, 0.055, 0.07, 0.5, 0, 0, 0],
        [b.GRASS, 104, 128, 66, 74, 104, 46, 1, 1, 0, 0, 0.22, 0, 0, 0, 0],
        [b.WINDOWS, 172, 122, 96, 128, 150, 172, 2.8, 3.3, 0.01, 0.1, 0.05, 0.62, 0.58, 0.08, 0.62],
        [b.PAVING, 150, 116, 98, 112, 92, 82, 0.24, 0.12, 0.012, 0.10, 0.06, 0.5, 0, 0, 0],
        [b.WINDOWS, 206, 200, 190, 104, 132, 156, 1.6, 3.1, 0, 0, 0.03, 0.88, 0.72, 0.05, 0.5],
        [b.PLAIN, 190, 186, 178, 190, 186, 178, 1, 1, 0, 0, 0.05, 0, 0, 0, 0],
    ]
    planes = [_ground(), _wall(0, 1, 30, 13.2, 2, -_FAR, 4.0), _wall(0, 1, 37, 10.5, 4, 4.0, _FAR),
              _wall(1, 0, 4, 13.2, 2, -37, -30)]
    zones = [[-0.55, 0.0, -5.2, 0.0, 5], [-0.55, 0.0, -5.32, 0.0, 1], [0.0, 1.0, -24.5, 0.0, 3]]
    return Place(
        _rows(planes, 9), _rows(zones, 5), _rows(surfaces, b.SURFACE_COLUMNS), np.zeros((0, 5)),
        np.array([112, 154, 206, 206, 222, 234, 0.8, 1.0]), _light(-0.55, -0.65, 0.45, 0.62, 0.50, (1.02,
            1.0, 0.96)),
        np.array([0.8, -0.35, 0.34, 0.42]),
    )  # fmt: skip


def campus() -> Place:
    """A path before a low building, close by."""
    surfaces = [
        [b.STAINS, 158, 154, 148, 136, 133, 130, 1.5, 1.5, 0, 0, 0.09, 0.6, 0, 0, 0],
        [b.GRASS, 98, 118, 62, 78, 96, 50, 1, 1, 0, 0, 0.25, 0, 0, 0, 0],
        [b.WINDOWS, 196, 186, 168, 96, 116, 128, 3.4, 3.6, 0, 0, 0.04, 0.78, 0.62, 0.18, 0.55],
        [b.PAVING, 172, 150, 132, 130, 116, 104, 0.5, 0.25, 0.014, 0.08, 0.06, 0.5, 0, 0, 0],
    ]
    planes = [_ground(), _wall(0, 1, 16.5, 7.4, 2)]
    zones = [[0.0, 1.0, -10.8, 0.25, 1], [0.02, 1.0, -14.2, 0.0, 3], [0.0, -1.0, 3.6, 0.5, 1]]
    return Place(
        _rows(planes, 9), _rows(zones, 5), _rows(surfaces, b.SURFACE_COLUMNS), np.zeros((0, 5)),
        np.array([150, 172, 196, 214, 220, 226, 0.9, 0.97]), _light(0.5, -0.75, 0.5, 0.68, 0.40, (1.0, 1.0,
            0.99)),
        np.array([-0.5, -0.3, 0.20, 0.45]),
    )  # fmt: skip


def corridor() -> Place:
    """An office corridor: doors on both sides, light panels, a shiny floor."""
    surfaces = [
        [b.PAVING, 150, 152, 150, 124, 126, 126, 0.6, 0.6, 0.01, 0.03, 0.05, 0.0, 0, 0, 0],
        [b.DOORS, 214, 212, 202, 128, 96, 68, 3.4, 3.0, 0, 0, 0.025, 0.95, 2.1, 1.0, 0.86],
        [b.PANELS, 206, 206, 202, 255, 252, 240, 0.6, 1.2, 0, 0, 0.02, 0, 0, 0, 0],
        [b.WINDOWS, 186, 188, 190, 196, 214, 226, 1.4, 2.8, 0, 0, 0.02, 0.86, 0.85, 1.0, 0.5],
    ]
    planes = [
        _ground(), _wall(1, 0, -1.6, 2.8, 1), _wall(-1, 0, -1.6, 2.8, 1), _wall(0, 1, 26, 2.8, 3),
        [0, -1, 0, -2.8, -1.6, 1.6, -_FAR, _FAR, 2],
    ]  # fmt: skip
    lamps = [[0, 2.7, z, 0.30, 2.6] for z in (1.2, 4.8, 8.4, 12.0, 15.6, 19.2, 22.8)]
    return Place(
        _rows(planes, 9), np.zeros((0, 5)), _rows(surfaces, b.SURFACE_COLUMNS), _rows(lamps, 5),
        np.array([200, 205, 210, 200, 205, 210, 0.0, 0.60]), _light(0.1, -0.9, 0.45, 0.62, 0.38, (1.0,
            0.99, 0.95)),
        np.array([0.0, 0.0, 0.0, 0.36]),
    )  # fmt: skip


def night() -> Place:
    """A street after dark: pools of lamp light, lit windows."""
    surfaces = [
        [b.PAVING, 150, 146, 140, 104, 100, 96, 0.6, 0.6, 0.016, 0.06, 0.08, 0.5, 0, 0, 0],
        [b.STAINS, 92, 92, 94, 78, 78, 80, 2, 2, 0, 0, 0.14, 0.7, 0, 0, 0],
        [b.WINDOWS, 116, 98, 88, 236, 190, 112, 2.6, 3.2, 0.01, 0.1, 0.05, 0.55, 0.56, 0.30, 0.6],
        [b.STRIPES, 92, 92, 94, 190, 188, 180, 60, 3.0, 0, 0, 0.12, 1.0, 0.5, 0, 0],
        [b.PLAIN, 150, 148, 144, 150, 148, 144, 1, 1, 0, 0, 0.06, 0, 0, 0, 0],
        [b.STRIPES, 92, 92, 94, 196, 194, 188, 1.0, 90, 0, 0, 0.10, 0.5, 1.0, 0, 0],
    ]
    planes = [_ground(), _wall(0, 1, 25, 12.8, 2), _wall(1, 0, -17, 9.6, 2)]
    zones = [[0, 1, -9.0, 0, 4], [0, 1, -9.15, 0, 1], [0, 1, -16.0, 0, 4], [0, 1, -16.15, 0, 0]]
    lamps = [[-7.5, 5.0, 7.4, 1.5, 5.0], [4.2, 5.0, 7.4, 1.5, 5.0], [-2.0, 5.0, 17.4, 1.5, 5.2], [11.0,
        5.0, 17.4, 1.5, 5.0],
             [15.5, 5.0, 7.4, 1.4, 5.0]]  # fmt: skip
    return Place(
        _rows(planes, 9), _rows(zones, 5), _rows(surfaces, b.SURFACE_COLUMNS), _rows(lamps, 5),
        np.array([8, 12, 26, 30, 32, 44, 0.0, 0.17]), _light(0.2, -0.85, 0.45, 0.55, 0.45, (1.06, 0.93,
            0.74)),
        np.array([0.0, 0.0, 0.0, 0.5]),
    )  # fmt: skip


def _random_surface(rng: Rng, kinds: tuple[int, ...]) -> list[float]:
    kind = int(rng.choice(kinds))
    grey = rng.uniform(45, 225)
    color = np.clip(grey + rng.normal(0, 1, 3) * rng.choice((5, 14, 40)), 8, 250)
    second = np.clip(color * rng.uniform(0.4, 1.3) + rng.normal(0, 12, 3), 5, 250)
    su, sv, joint, a, bb, c, d = rng.uniform(0.3, 1.6), rng.uniform(0.3, 1.6), 0.0, 0.5, 0.5, 0.0, 0.6
    if kind == b.GRASS:
        color = np.array([rng.uniform(60, 140), rng.uniform(90, 150), rng.uniform(30, 80)])
        second = color * rng.uniform(0.6, 0.9)
    elif kind == b.PAVING:
        joint, a = rng.uniform(0.005, 0.04), rng.choice((0.0, 0.5, 0.33))
        if rng.random() < 0.3:
            su, sv = rng.uniform(0.06, 0.14), rng.uniform(1.0, 2.5)
    elif kind == b.WINDOWS:
        su, sv, joint = rng.uniform(0.9, 5), rng.uniform(2.6, 4.2), rng.choice((0.0, 0.01))
        a, bb = rng.uniform(0.4, 0.95), rng.uniform(0.35, 0.9)
        c, d = rng.choice((0.0, 0.1, 0.5)), rng.uniform(0.4, 1.3)
    elif kind == b.STRIPES:
        su, sv = rng.uniform(0.15, 8), rng.uniform(0.5, 8)
        a, bb = rng.uniform(0.05, 0.6), rng.uniform(0.3, 1.0)
    elif kind == b.STAINS:
        su, sv, a = rng.uniform(0.3, 6), rng.uniform(0.3, 6), rng.uniform(0.3, 3)
    elif kind == b.DOORS:
        su, a, bb = rng.uniform(2.2, 5), rng.uniform(0.8, 1.4), 2.1
        c, d = rng.uniform(0.0, 1.3), rng.uniform(0.6, 1.1)
    return [kind, *color, *second, su, sv, joint, rng.uniform(0, 0.14), rng.uniform(0.01, 0.2), a, bb, c, d]


def random_place(rng: Rng, *, view_m: float, up_m: float) -> Place:
    """Indoors or outdoors, day or night; the camera is `up_m` high and looks `view_m` far."""
    style = rng.choice(("street", "field", "indoor", "night"), p=(0.45, 0.17, 0.24, 0.14))
    floors: tuple[int, ...] = (b.PLAIN, b.PAVING, b.PAVING, b.GRASS, b.STRIPES, b.STAINS, b.STAINS)
    if style == "indoor":
        floors = (b.PLAIN, b.PAVING, b.PAVING, b.CHECKER, b.STAINS)
    walls = (b.WINDOWS, b.WINDOWS, b.DOORS, b.PLAIN, b.PAVING, b.STRIPES, b.STAINS)
    surfaces = [_random_surface(rng, floors) for _ in range(3)] + [_random_surface(rng,
        walls) for _ in range(3)]
    surfaces.append(_random_surface(rng, (b.PANELS, b.PLAIN)))
    planes, zones, lamps = [_ground()], [], []
    brightness = rng.uniform(0.75, 1.08)
    if style == "indoor":
        half, deep = rng.uniform(1.3, 9), max(4.0, view_m * rng.uniform(1.1, 3))
        top = max(rng.uniform(2.5, 4.5), up_m + rng.uniform(0.1, 1.5))
        planes += [_wall(1, 0, -half, top, 3), _wall(-1, 0, -half, top, 4), _wall(0, 1, deep, top, 5)]
        planes.append([0, -1, 0, -top, -_FAR, _FAR, -_FAR, _FAR, 6])
        if rng.random() < 0.6:
            brightness = rng.uniform(0.45, 0.8)
            lamps = [[rng.uniform(-half, half), top, z, rng.uniform(0.2, 0.5), 2.6] for z in np.arange(1,
                min(deep, 14), 3.5)]
    else:
        if style != "field" or rng.random() < 0.3:
            turn = rng.normal(0, 0.45)
            planes.append(_wall(math.sin(turn), math.cos(turn), max(6.0, view_m * rng.uniform(1.15, 5)),
                                rng.uniform(2.5, 16), 3))
            if rng.random() < 0.4:
                side = rng.choice((-1, 1))
                planes.append(_wall(-side, 0, -rng.uniform(3, 6 + view_m), rng.uniform(2.5, 14), 4))
        for row in (1, 2, 0)[: int(rng.integers(0, 4))]:
            a = rng.uniform(0, 2 * math.pi)
            z = view_m * rng.uniform(0.3, 2.5)
            zones.append([math.cos(a), math.sin(a), -math.sin(a) * z + rng.normal(0, 2), rng.choice((0.0,
                0.0, rng.uniform(0.2, 1.5))), row])
        if style == "night":
            brightness = rng.uniform(0.06, 0.4)
            lamps = [[rng.uniform(-15, 15), rng.uniform(3, 7), view_m * rng.uniform(0.4, 2.5),
                      rng.uniform(0.5, 1.3), rng.uniform(3, 7)]
                     for _ in range(int(rng.integers(1, 5)))]  # fmt: skip
    top = np.clip(rng.uniform(90, 230) + rng.normal(0, 25, 3) + np.array([-15, 0, 25]), 0, 255)
    low = np.clip(top + rng.uniform(0, 70), 0, 255)
    dim = 0.12 if style == "night" else 1.0
    sky = np.array([*(top * dim), *(low * dim), 0.0 if style == "night" else rng.uniform(0, 1.0), brightness])
    sun = rng.random() < 0.45 and style in ("street", "field")
    diffuse = rng.uniform(0.4, 0.75) if sun else rng.uniform(0.1, 0.45)
    tint = (1 + rng.normal(0, 0.05), 1.0, 1 + rng.normal(0, 0.07))
    light = _light(rng.normal(0, 0.7), -rng.uniform(0.2, 1.0), rng.uniform(0.1, 0.9), rng.uniform(0.75,
        1.0) - 0.5 * diffuse, diffuse, tint)
    shadow = np.array([rng.normal(0, 0.9), rng.normal(0, 0.6), rng.uniform(0.15, 0.6) if sun else 0.0,
                       rng.uniform(0.1, 0.6)])
    return Place(
        _rows(planes, 9), _rows(zones, 5), _rows(surfaces, b.SURFACE_COLUMNS), _rows(lamps, 5), sky, light,
        shadow
    )
