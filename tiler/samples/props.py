"""Street furniture, plants and vehicles, each a short recipe for `background.Builder`."""

from __future__ import annotations

import math

import numpy as np

from tiler.samples import raster as r
from tiler.samples.background import Array, Builder, Prop

Rng = np.random.Generator


def _color(rng: Rng, low: float = 30, high: float = 220, spread: float = 30) -> Array:
    return np.clip(rng.uniform(low, high) + rng.normal(0, spread, 3), 5, 250)


def tree(cam: Array, x: float, z: float, rng: Rng, *, clusters: int = 26, size: float = 1.0) -> Prop:
    """A broad-leaved tree with a crown of leaf clusters."""
    build = Builder(cam, x, z)
    height = rng.uniform(4.5, 7.5) * size
    bark = build.material(np.array([84, 70, 58]) * rng.uniform(0.7, 1.2), fold=0.3)
    green = np.array([rng.uniform(58, 104), rng.uniform(92, 128), rng.uniform(36, 62)])
    leaves = [build.material(green * k, kind=r.LEAF, fold=0.45) for k in (0.62, 0.82, 1.0, 1.18)]
    build.tube((0, height * 0.62, 0), (0, 0, 0), 0.11 * size, bark, end_radius=0.2 * size)
    crown = rng.uniform(1.4, 2.3) * size
    for _ in range(3):
        a = rng.uniform(0, 2 * math.pi)
        build.tube((math.cos(a) * crown * 0.6, height * 0.75, math.sin(a) * crown * 0.6), (0,
            height * 0.45, 0), 0.04 * size, bark,
                   end_radius=0.09 * size)  # fmt: skip
    for _ in range(clusters):
        a, e, d = rng.uniform(0, 2 * math.pi), rng.uniform(-0.5, 1.0), crown * rng.uniform(0.25, 1.0)
        at = (math.cos(a) * d, height * 0.72 + e * crown * 0.8, math.sin(a) * d * 0.5)
        shade = leaves[int(np.clip((e + 0.5) * 2.2 + rng.normal(0, 0.6), 0, 3))]
        radius = rng.uniform(0.30, 0.55) * crown
        build.tube(at, (at[0] + 0.05, at[1] - radius * 0.3, at[2]), radius, shade, cap=radius * 0.8)
    return build.build()


def bush(cam: Array, x: float, z: float, rng: Rng, *, wide: float = 1.2, clusters: int = 14) -> Prop:
    """A low, wide shrub."""
    build = Builder(cam, x, z)
    green = np.array([rng.uniform(50, 90), rng.uniform(84, 120), rng.uniform(36, 64)])
    leaves = [build.material(green * k, kind=r.LEAF, fold=0.5) for k in (0.6, 0.85, 1.1)]
    for i in range(clusters):
        at = (rng.uniform(-wide, wide), rng.uniform(0.15, 0.75), rng.uniform(-0.3, 0.3))
        radius = rng.uniform(0.22, 0.42)
        build.tube(at, (at[0], at[1] - 0.1, at[2]), radius, leaves[i % 3], cap=radius * 0.9)
    return build.build()


def planter(cam: Array, x: float, z: float, rng: Rng) -> Prop:
    """A concrete box with a shrub."""
    build = Builder(cam, x, z, rng.uniform(-0.3, 0.3))
    build.box((-0.7, 0, -0.45), (0.7, 0.5, 0.45), _color(rng, 120, 190, 8), grain=0.1)
    green = np.array([70, 105, 52]) * rng.uniform(0.8, 1.2)
    leaves = [build.material(green * k, kind=r.LEAF, fold=0.5) for k in (0.65, 0.9, 1.15)]
    for i in range(10):
        at = (rng.uniform(-0.55, 0.55), rng.uniform(0.55, 0.95), rng.uniform(-0.3, 0.1))
        radius = rng.uniform(0.18, 0.32)
        build.tube(at, (at[0], at[1] - 0.08, at[2]), radius, leaves[i % 3], cap=radius * 0.9)
    return build.build()


def lamp(cam: Array, x: float, z: float, rng: Rng, *, height: float = 5.0, lit: float = 0.0,
         side: float = 1.0) -> Prop:
    """A street lamp with an arm; `lit` makes its head glow."""
    build = Builder(cam, x, z)
    metal = build.material(_color(rng, 60, 150, 6), fold=0.02)
    head = build.material((255, 236, 190) if lit else (190, 192, 190), fold=0.0, emit=lit)
    build.tube((0, height, 0), (0, 0, 0), 0.045, metal, end_radius=0.075)
    build.tube((0, 0.7, 0), (0, 0, 0), 0.10, metal, end_radius=0.12)
    build.tube((0, height, 0), (side * 0.8, height + 0.12, 0), 0.035, metal)
    build.tube((side * 0.7, height + 0.1, 0), (side * 1.2, height + 0.12, 0), 0.08, head, cap=0.06)
    return build.build()


def pole(cam: Array, x: float, z: float, rng: Rng) -> Prop:
    """A bare post, a signpost, a bollard, a ball-topped post or a tripod: what thin things there are."""
    build = Builder(cam, x, z, rng.uniform(-1, 1))
    paint = build.material(_color(rng), fold=0.05)
    style = int(rng.integers(6))
    height = rng.uniform(1.9, 4.5)
    if style == 0:
        build.tube((0, height, 0), (0, 0, 0), rng.uniform(0.03, 0.15), paint)
    elif style == 1:
        build.tube((0, height, 0), (0, 0, 0), 0.04, paint)
        color, w, h = _color(rng, spread=70), rng.uniform(0.2, 0.5), rng.uniform(0.2, 0.8)
        build.face([(-w, height - h, 0.14), (w, height - h, 0.14), (w, height, 0.14), (-w, height, 0.14)],
                   color)
        build.face([(-w * 0.6, height - h * 0.7, 0.15), (w * 0.6, height - h * 0.7, 0.15), (w * 0.6,
            height - h * 0.4, 0.15),
                    (-w * 0.6, height - h * 0.4, 0.15)], 255 - color)  # fmt: skip
    elif style == 2:
        for side in range(int(rng.integers(1, 5))):
            build.tube((side * 1.2, rng.uniform(0.8, 1.0), 0), (side * 1.2, 0, 0), 0.08, paint)
    elif style == 3:
        top = rng.uniform(1.0, 1.9)
        build.tube((0, top, 0), (0, 0, 0), rng.uniform(0.06, 0.2), paint, end_radius=rng.uniform(0.06, 0.3))
        build.tube((0, top + 0.15, 0), (0, top + 0.1, 0), rng.uniform(0.1, 0.16),
                   build.material(_color(rng)), cap=0.1)
    elif style == 4:
        for k in range(3):
            a = k * 2.1 + rng.uniform(0, 1)
            build.tube((0, 1.4, 0), (0.5 * math.cos(a), 0, 0.5 * math.sin(a)), 0.025, paint)
        build.tube((0, 1.65, 0), (0, 1.4, 0), 0.06, paint)
    else:
        orange = build.material((226, 96, 40), fold=0.05)
        build.tube((0, 0.65, 0), (0, 0.03, 0), 0.04, orange, end_radius=0.17)
        build.tube((0, 0.42, 0), (0, 0.3, 0), 0.095, build.material((235, 235, 232)), end_radius=0.125)
    return build.build()


def bench(cam: Array, x: float, z: float, rng: Rng, *, yaw: float = 0.0) -> Prop:
    """A wooden bench with a back; it faces `yaw`."""
    build = Builder(cam, x, z, yaw)
    wood = np.array([142, 104, 70]) * rng.uniform(0.7, 1.2)
    for side in (-0.75, 0.65):
        build.box((side, 0, -0.2), (side + 0.1, 0.42, 0.22), (60, 62, 64))
    build.box((-0.9, 0.52, -0.26), (0.9, 0.62, -0.22), wood)
    build.box((-0.9, 0.68, -0.28), (0.9, 0.82, -0.24), wood)
    build.box((-0.9, 0.42, -0.22), (0.9, 0.47, 0.25), wood * 1.05)
    return build.build()


def bin_(cam: Array, x: float, z: float, rng: Rng) -> Prop:
    """A litter bin."""
    build = Builder(cam, x, z)
    paint = build.material(_color(rng, 30, 120, 18), fold=0.06)
    build.tube((0, 0.78, 0), (0, 0.02, 0), 0.21, paint, end_radius=0.18, cap=0.05)
    build.tube((0, 0.84, 0), (0, 0.79, 0), 0.225, build.material((50, 52, 54)), cap=0.04)
    return build.build()


def car(cam: Array, x: float, z: float, rng: Rng, *, yaw: float = 1.57, van: bool = False) -> Prop:
    """A parked car or van, its nose towards `yaw`."""
    build = Builder(cam, x, z, yaw)
    paint = np.array(((200, 202, 204), (40, 42, 48), (150, 30, 34), (48, 76, 128), (232, 232, 228), (110,
        114, 118),
                      (90, 104, 84))[rng.integers(7)], np.float64) * rng.uniform(0.85, 1.05)  # fmt: skip
    half, wide = (2.5, 0.95) if van else (2.1, 0.86)
    waist, roof = (1.15, 2.05) if van else (0.92, 1.42)
    tyre, hub = build.material((24, 24, 26), fold=0.02), build.material((140, 142, 146), fold=0.0)
    build.box((-wide, 0.28, -half), (wide, waist, half), paint, shrink=(0.04, 0.12), grain=0.01)
    back, front = (-half + 0.1, half - 1.2) if van else (-half + 0.45, half - 1.05)
    build.box((-wide + 0.05, waist, back), (wide - 0.05, roof, front), (44, 52, 60), shrink=(0.14,
        0.08 if van else 0.5), grain=0.03)
    inset = 0.17 if van else 0.52
    build.box((-wide + 0.18, roof - 0.05, back + inset), (wide - 0.18, roof + 0.02, front - inset), paint,
              grain=0.01)
    for ahead in (-half * 0.62, half * 0.62):
        for side in (-wide, wide):
            build.tube((side, 0.33, ahead), (side * 0.97, 0.33, ahead), 0.33, tyre, cap=0.02)
            build.tube((side * 1.03, 0.33, ahead), (side * 1.02, 0.33, ahead), 0.19, hub, cap=0.02)
    for side in (-wide * 0.7, wide * 0.7):
        build.face([(side - 0.16, 0.62, half + 0.02), (side + 0.16, 0.62, half + 0.02), (side + 0.16, 0.78,
            half), (side - 0.16, 0.78, half)],
                   (236, 236, 220))  # fmt: skip
        build.face([(side - 0.12, 0.66, -half - 0.02), (side + 0.12, 0.66, -half - 0.02), (side + 0.12,
            0.84, -half), (side - 0.12, 0.84, -half)],
                   (190, 30, 30))  # fmt: skip
    return build.build()


def crate(cam: Array, x: float, z: float, rng: Rng) -> Prop:
    """A box of any proportion: cabinet, kiosk, machine, table."""
    build = Builder(cam, x, z, rng.uniform(-0.8, 0.8))
    w, h, d = rng.uniform(0.15, 0.9), rng.uniform(0.3, 2.2), rng.uniform(0.15, 0.6)
    color = _color(rng, spread=40)
    build.box((-w, 0, -d), (w, h, d), color, grain=rng.uniform(0.0, 0.15))
    for _ in range(int(rng.integers(0, 4))):
        a, b = np.sort(rng.uniform(-w, w, 2)), np.sort(rng.uniform(0, h, 2))
        build.face([(a[0], b[0], d + 0.01), (a[1], b[0], d + 0.01), (a[1], b[1], d + 0.01), (a[0], b[1],
            d + 0.01)],
                   _color(rng, spread=60))  # fmt: skip
    return build.build()
