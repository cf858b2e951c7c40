"""People: who they are (`Look`), how their joints stand (`Pose`), and the walk between.

Body proportions are fractions of stature after Drillis and Contini (1966). The walk cycle
follows the shape of published sagittal joint angles (D. A. Winter, "Biomechanics and
Motor Control of Human Movement"): hip close to a cosine, knee with a small bump in
stance and a large one in swing, arms against the legs.

World axes: x to the right, y up, z away from the camera, metres. A figure with yaw 0
faces the camera and turns towards +x as yaw grows.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tiler.samples import raster as r

(X, Z, YAW, PITCH, ROLL, TWIST, HEAD_YAW, HEAD_PITCH, HIP_L, HIP_R, KNEE_L, KNEE_R, SPREAD_L, SPREAD_R,
 ARM_L, ARM_R, OUT_L, OUT_R, ELBOW_L, ELBOW_R, IN_L, IN_R, BASE) = range(23)  # fmt: skip
POSE_COLUMNS = 23

STATURE, GIRTH, SHOULDER, HEAD, CLOTH, HAIR_LENGTH, HAIR_VOLUME, SLEEVE, HEM, FLARE, LEG_WIDTH = range(11)
DIM_COLUMNS = 11

SKIN, FACE, HAIR, TOP, SLEEVES, BOTTOM, SHOES, BAG, HAT = range(9)
MATERIALS = 9

LOWER, OUTER, CARRY, HEADWEAR, BODY = range(5)
TROUSERS, SHORTS, SKIRT = range(3)
NO_BAG, BACKPACK, SHOULDER_BAG, HAND_BAG, SUITCASE, FOLDER = range(6)
BARE, CAP, BEANIE, HOOD, BRIM = range(5)
WHOLE, COAT_ONLY = range(2)


class Look(NamedTuple):
    """One person's build and clothes.

    Attributes:
        dims: (11,) float64, indexed by STATURE .. LEG_WIDTH; metres or fractions.
        options: (5,) int64: LOWER, OUTER, CARRY, HEADWEAR, BODY.
        materials: (9, 12) float32 rows for `raster`.
    """

    dims: npt.NDArray[np.float64]
    options: npt.NDArray[np.int64]
    materials: npt.NDArray[np.float32]


_SKINS = ((238, 200, 176), (224, 178, 148), (205, 156, 122), (176, 126, 92), (134, 90, 64), (92, 60, 44))
_HAIRS = ((28, 22, 20), (40, 30, 24), (70, 46, 30), (112, 76, 44), (176, 140, 88), (150, 150, 150), (90,
    42, 26))
_CLOTHS = (
    (24, 24, 28), (38, 40, 46), (58, 60, 66), (92, 94, 98), (140, 140, 142), (196, 196, 194), (232, 230, 224),
    (26, 34, 62), (40, 62, 108), (70, 104, 150), (128, 158, 190), (104, 32, 36), (168, 40, 44), (206, 70, 50),
    (48, 70, 46), (84, 104, 62), (132, 138, 88), (120, 90, 60), (168, 136, 98), (206, 182, 144), (222, 168,
        60),
    (230, 196, 60), (112, 70, 120), (196, 120, 146), (40, 120, 124), (72, 160, 120), (66, 50, 40), (226,
        110, 40),
)  # fmt: skip
_TROUSERS = (
    (22, 22, 26), (32, 34, 42), (44, 52, 74), (58, 74, 108), (84, 102, 136), (70, 70, 72), (104, 100, 96),
    (146, 130, 106), (182, 168, 142), (54, 44, 38), (62, 70, 54), (212, 208, 200),
)  # fmt: skip


def _tint(rng: np.random.Generator, palette: tuple[tuple[int, int, int], ...]) -> npt.NDArray[np.float64]:
    color = np.array(palette[rng.integers(len(palette))], np.float64)
    return np.clip(color * rng.uniform(0.85, 1.15) + rng.normal(0, 7, 3), 6, 248)


def _cloth(rng: np.random.Generator, color: npt.NDArray[np.float64], *, plain: float) -> list[float]:
    """A material row of cloth: plain with probability `plain`, else one of the patterns."""
    kind, scale, extra = r.SOLID, 0.1, 0.5
    second = np.clip(color + rng.choice((-1, 1)) * rng.uniform(35, 110) + rng.normal(0, 25, 3), 4, 250)
    if rng.random() > plain:
        kind = int(rng.choice((r.HSTRIPE, r.VSTRIPE, r.PLAID, r.BLOTCH, r.LOGO, r.OPEN, r.OPEN, r.ZIP,
                               r.DOTS)))
        scale = {
            r.HSTRIPE: rng.uniform(0.04, 0.2), r.VSTRIPE: rng.uniform(0.03, 0.1),
            r.PLAID: rng.uniform(0.05, 0.14),
            r.BLOTCH: rng.uniform(0.5, 1.6), r.LOGO: rng.uniform(0.08, 0.25), r.OPEN: rng.uniform(-0.3, 0.9),
            r.ZIP: 0.1, r.DOTS: rng.uniform(0.04, 0.1),
        }[kind]  # fmt: skip
        extra = {r.LOGO: rng.uniform(0.25, 0.6), r.OPEN: rng.uniform(0.2, 0.6), r.BLOTCH: 0.1}.get(
            kind, rng.uniform(0.25, 0.6)
        )
        if kind == r.OPEN:
            second = _tint(rng, _CLOTHS)
    return [*color, kind, *second, scale, rng.uniform(0.05, 0.2), extra, rng.choice((0.0, 0.0, 0.1)), 0.0]


def random_look(rng: np.random.Generator, *, child: float = 0.05) -> Look:
    """Draw a person; the same generator state gives the same person."""
    dims = np.zeros(DIM_COLUMNS)
    dims[STATURE] = float(np.clip(rng.normal(1.71, 0.09), 1.48, 1.98))
    if rng.random() < child:
        dims[STATURE] = rng.uniform(1.0, 1.45)
    dims[GIRTH] = float(np.clip(rng.normal(1.0, 0.13), 0.78, 1.5))
    dims[SHOULDER] = rng.uniform(0.92, 1.08)
    dims[HEAD] = rng.uniform(0.95, 1.06) * (1.0 + 0.35 * max(0.0, 1.6 - dims[STATURE]))
    coat = rng.random() < 0.3
    dims[CLOTH] = rng.uniform(0.01, 0.03) if coat else rng.uniform(0.0, 0.014)
    long_hair = rng.random() < 0.38
    dims[HAIR_LENGTH] = rng.uniform(0.06, 0.24) if long_hair else 0.0
    dims[HAIR_VOLUME] = rng.uniform(0.85, 1.15)
    dims[SLEEVE] = 1.0 if coat or rng.random() < 0.6 else rng.uniform(0.15, 0.6)
    lower = int(rng.choice(3, p=(0.80, 0.08, 0.12)))
    dims[HEM] = rng.uniform(0.06, 0.24) if coat else rng.choice((0.0, 0.0, 0.02, 0.04))
    if lower == SKIRT:
        dims[HEM] = max(0.0, min(dims[HEM], 0.1))
    dims[FLARE] = rng.uniform(0.95, 1.35)
    dims[LEG_WIDTH] = rng.uniform(0.9, 1.3)
    carry = int(rng.choice(6, p=(0.56, 0.16, 0.10, 0.09, 0.04, 0.05)))
    headwear = int(rng.choice(5, p=(0.76, 0.08, 0.06, 0.06, 0.04)))
    skin = np.clip(np.array(_SKINS[rng.choice(6, p=(0.22, 0.25, 0.2, 0.14, 0.11, 0.08))]) + rng.normal(0,
        6, 3), 20, 250)
    hair = np.array(_HAIRS[rng.choice(7, p=(0.3, 0.22, 0.16, 0.1, 0.09, 0.08, 0.05))]) + rng.normal(0, 5, 3)
    hair = np.clip(hair, 8, 240)
    top = _tint(rng, _CLOTHS if rng.random() < 0.7 else _CLOTHS[:10])
    row_top = _cloth(rng, top, plain=0.5)
    row_sleeve = list(row_top)
    if row_top[3] in (r.LOGO, r.OPEN, r.ZIP):
        row_sleeve[3] = r.SOLID
    if rng.random() < 0.08:
        row_sleeve[:3] = list(_tint(rng, _CLOTHS))
    rows = [
        [*skin, r.SOLID, *skin, 1.0, 0.03, 0, 0.1, 0],
        [*skin, r.FACE, *(hair * 0.8), 1.0, 0.02, 0, 0.15, 0],
        [*hair, r.HAIR, *hair, 1.0, 0.22, 0, 0.25, 0],
        row_top,
        row_sleeve,
        _cloth(rng, _tint(rng, _TROUSERS if rng.random() < 0.85 else _CLOTHS),
               plain=0.93 if lower != SKIRT else 0.6),
        [*_tint(rng, _CLOTHS[:3] + _CLOTHS[5:7] + _CLOTHS[16:19]), r.SOLID, 0, 0, 0, 1.0, 0.05, 0, 0.3, 0],
        _cloth(rng, _tint(rng, _CLOTHS), plain=0.8),
        _cloth(rng, top if headwear == HOOD else _tint(rng, _CLOTHS), plain=0.9),
    ]
    if headwear == HOOD:
        rows[HAT][3] = r.SOLID
    return Look(dims, np.array([lower, int(coat), carry, headwear, WHOLE]), np.array(rows, np.float32))


def stride_m(look: Look) -> float:
    """Metres walked in one full cycle (two steps) at normal amplitude."""
    return float(0.80 * look.dims[STATURE])


def _bump(cycle: float, centre: float, width: float) -> float:
    d = abs((cycle - centre + 0.5) % 1.0 - 0.5) / width
    return math.exp(-d * d)


def walk(pose: npt.NDArray[np.float64], cycle: float, amplitude: float, swing: float = 1.0) -> None:
    """Set the joints of a walk at `cycle` in 0..1 (0: left heel strikes).

    An amplitude of 0 stands, 1 walks, 1.6 runs.
    """
    a = min(amplitude, 1.8)
    for hip, knee, arm, elbow, at in (
        (HIP_L, KNEE_L, ARM_R, ELBOW_R, cycle), (HIP_R, KNEE_R, ARM_L, ELBOW_L, cycle + 0.5),
    ):  # fmt: skip
        at %= 1.0
        angle = math.cos(2 * math.pi * at)
        pose[hip] = a * (0.08 + 0.40 * angle + 0.05 * math.sin(4 * math.pi * at))
        pose[knee] = 0.04 + a * (0.05 + 0.22 * _bump(at, 0.14, 0.09) + 0.95 * _bump(at, 0.72, 0.13))
        pose[arm] = swing * a * (0.02 + 0.40 * angle)
        pose[elbow] = 0.16 + swing * a * (0.16 + 0.20 * angle) + max(0.0, a - 1.1) * 1.4
    pose[PITCH] += 0.04 * a + max(0.0, a - 1.1) * 0.2
    pose[TWIST] += -0.10 * a * math.cos(2 * math.pi * cycle)
    pose[ROLL] += 0.02 * a * math.sin(2 * math.pi * cycle)


# Joint targets of still postures, blended over the walk by weight.
POSTURES: dict[str, dict[int, float]] = {
    "stand": {},
    "sit": {HIP_L: 1.5, HIP_R: 1.48, KNEE_L: 1.5, KNEE_R: 1.45, PITCH: -0.05, ARM_L: 0.5, ARM_R: 0.5,
            ELBOW_L: 0.9,
            ELBOW_R: 0.9, IN_L: 0.3, IN_R: 0.3, SPREAD_L: 0.08, SPREAD_R: 0.08},
    "bend": {HIP_L: 0.6, HIP_R: 0.5, KNEE_L: 0.6, KNEE_R: 0.5, PITCH: 1.15, ARM_L: 1.1, ARM_R: 1.0,
             ELBOW_L: 0.2,
             ELBOW_R: 0.3, HEAD_PITCH: 0.2},
    "crouch": {HIP_L: 1.9, HIP_R: 1.6, KNEE_L: 2.2, KNEE_R: 2.2, PITCH: 0.4, ARM_L: 0.9, ARM_R: 0.8,
               ELBOW_L: 0.8,
               ELBOW_R: 0.9},
    "wave": {ARM_R: 2.5, OUT_R: 0.55, ELBOW_R: 0.6, HEAD_PITCH: -0.08},
    "embrace": {ARM_L: 1.25, ARM_R: 1.35, OUT_L: 0.15, OUT_R: 0.15, ELBOW_L: 0.75, ELBOW_R: 0.7, IN_L: 0.9,
                IN_R: 0.9,
                PITCH: 0.10, HEAD_PITCH: 0.15},
    "phone": {ARM_R: 0.5, ELBOW_R: 1.75, IN_R: 0.5, HEAD_PITCH: 0.35},
    "call": {ARM_R: 0.65, OUT_R: 0.3, ELBOW_R: 2.35, IN_R: 0.1, HEAD_YAW: 0.1},
    "pockets": {ARM_L: -0.1, ARM_R: -0.1, OUT_L: 0.2, OUT_R: 0.2, ELBOW_L: 0.65, ELBOW_R: 0.65, IN_L: 0.5,
                IN_R: 0.5},
    "crossed": {ARM_L: 0.35, ARM_R: 0.3, ELBOW_L: 1.6, ELBOW_R: 1.55, IN_L: 1.2, IN_R: 1.15},
    "hips": {OUT_L: 0.7, OUT_R: 0.7, ELBOW_L: 1.3, ELBOW_R: 1.3, IN_L: 1.2, IN_R: 1.2, ARM_L: -0.3,
             ARM_R: -0.3},
    "talk": {ARM_R: 0.5, ELBOW_R: 1.2, OUT_R: 0.25, IN_R: 0.1, ARM_L: 0.1, ELBOW_L: 0.4},
    "reach": {ARM_L: 1.5, ARM_R: 1.4, ELBOW_L: 0.2, ELBOW_R: 0.3, OUT_L: 0.1, OUT_R: 0.1},
    "cheer": {ARM_L: 2.8, ARM_R: 2.7, OUT_L: 0.3, OUT_R: 0.35, ELBOW_L: 0.3, ELBOW_R: 0.3},
    "kneel": {HIP_L: 1.45, KNEE_L: 1.5, HIP_R: 0.05, KNEE_R: 1.5, PITCH: 0.2, ARM_L: 0.6, ARM_R: 0.5,
              ELBOW_L: 0.7,
              ELBOW_R: 0.9},
}  # fmt: skip


def blend(pose: npt.NDArray[np.float64], posture: str, weight: float) -> None:
    """Move the joints that `posture` names towards it by `weight` in 0..1."""
    for joint, target in POSTURES[posture].items():
        pose[joint] += (target - pose[joint]) * weight
