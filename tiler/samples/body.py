"""From a look and a pose to tubes in metres, and from tubes to parts in pixels.

A body is some thirty tubes: limbs of two each, chest, pelvis, shoulders, head, hair, and
what is worn or carried. `figure` says which axes and proportions are meant.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from tiler.samples.figure import Look

MAX_PARTS = 48
"""No figure has more."""

TUBE_COLUMNS = 23
"""Top x y z, end x y z, half widths (top, middle, end), depth ratio, caps, lateral x y z, forward x y z,
material, texture offset, occlusion at both ends, squareness of the caps."""


Vec = tuple[float, float, float]


def _put(tubes: list[tuple[float, ...]], top: Vec, end: Vec, a0: float, am: float, a1: float, ratio: float,
         cap0: float, cap1: float, lat: Vec, fwd: Vec, mat: int, v0: float, ao0: float, ao1: float,
         square: float) -> None:  # fmt: skip
    tubes.append((*top, *end, a0, am, a1, ratio, cap0, cap1, *lat, *fwd, mat, v0, ao0, ao1, square))


@njit(nogil=True, cache=True, error_model="numpy")
def project_tubes(tubes: Any, count: int, cam: Any, parts: Any) -> int:
    """Turn tubes in metres into parts in pixels; returns how many lie before the camera.

    cam: f, cx, cy, height, sin pitch, cos pitch.
    """
    f, cx, cy, h, sp, cp = cam[0], cam[1], cam[2], cam[3], cam[4], cam[5]
    n = 0
    for i in range(count):
        t = tubes[i]
        z0 = t[2] * cp + (h - t[1]) * sp
        z1 = t[5] * cp + (h - t[4]) * sp
        if z0 < 0.25 or z1 < 0.25:
            continue
        s0, s1 = f / z0, f / z1
        row = parts[n]
        row[0], row[1] = cx + t[0] * s0, cy + ((h - t[1]) * cp - t[2] * sp) * s0
        row[2], row[3] = cx + t[3] * s1, cy + ((h - t[4]) * cp - t[5] * sp) * s1
        dx, dy, dz = t[3] - t[0], t[4] - t[1], t[5] - t[2]
        length = math.sqrt(dx * dx + dy * dy + dz * dz) + 1e-9
        dx, dy, dz = dx / length, dy / length, dz / length
        # The section stands square to the axis, whatever frame the caller had at hand.
        along = t[12] * dx + t[13] * dy + t[14] * dz
        lx, ly, lz = t[12] - along * dx, t[13] - along * dy, t[14] - along * dz
        norm = math.sqrt(lx * lx + ly * ly + lz * lz)
        if norm < 0.35:
            lx, ly, lz = dy * t[17] - dz * t[16], dz * t[15] - dx * t[17], dx * t[16] - dy * t[15]
            norm = math.sqrt(lx * lx + ly * ly + lz * lz) + 1e-9
        lx, ly, lz = lx / norm, ly / norm, lz / norm
        fx, fy, fz = dy * lz - dz * ly, dz * lx - dx * lz, dx * ly - dy * lx
        if fx * t[15] + fy * t[16] + fz * t[17] < 0.0:
            fx, fy, fz = -fx, -fy, -fz
        vx, vy, vz = -0.5 * (t[0] + t[3]), h - 0.5 * (t[1] + t[4]), -0.5 * (t[2] + t[5])
        norm = math.sqrt(vx * vx + vy * vy + vz * vz) + 1e-9
        vx, vy, vz = vx / norm, vy / norm, vz / norm
        sin_a = dx * vx + dy * vy + dz * vz
        px, py, pz = dy * vz - dz * vy, dz * vx - dx * vz, dx * vy - dy * vx
        norm = math.sqrt(px * px + py * py + pz * pz)
        if norm < 1e-4:
            px, py, pz, norm = lx, ly, lz, 1.0
        px, py, pz = px / norm, py / norm, pz / norm
        ratio = t[9]
        lp, fp = lx * px + ly * py + lz * pz, (fx * px + fy * py + fz * pz) * ratio
        wide = math.sqrt(lp * lp + fp * fp)
        lv, fv = lx * vx + ly * vy + lz * vz, fx * vx + fy * vy + fz * vz
        deep = math.sqrt(lv * lv + fv * fv * ratio * ratio)
        cos_a = math.sqrt(max(0.0, 1.0 - sin_a * sin_a))
        row[4], row[5], row[6] = t[6] * wide * s0, t[7] * wide * 0.5 * (s0 + s1), t[8] * wide * s1
        # Seen end on, a tube shows the true section of its caps.
        section = math.sqrt(max(lv * lv,
                                1e-12) * ratio * ratio + fv * fv) / max(math.sqrt(lv * lv + fv * fv), 1e-6)
        row[7] = math.sqrt((t[10] * cos_a) ** 2 + (t[6] * section * sin_a) ** 2) * s0
        row[8] = math.sqrt((t[11] * cos_a) ** 2 + (t[8] * section * sin_a) ** 2) * s1
        row[9], row[10], row[11] = z0, z1, max(deep, 0.2) * t[7]
        row[12], row[13], row[14], row[15] = t[18], math.atan2(lv, fv), length, t[19]
        row[16], row[17], row[18], row[19] = t[20], t[21], t[22], t[7]
        n += 1
    return n


def _move(p: Vec, d: Vec, k: float) -> Vec:
    return (p[0] + d[0] * k, p[1] + d[1] * k, p[2] + d[2] * k)


def _mix(a: Vec, ka: float, b: Vec, kb: float, c: Vec, kc: float) -> Vec:
    return (a[0] * ka + b[0] * kb + c[0] * kc, a[1] * ka + b[1] * kb + c[1] * kc,
            a[2] * ka + b[2] * kb + c[2] * kc)


def build_tubes(posed: npt.NDArray[np.float64], look: Look) -> list[tuple[float, ...]]:
    """The figure in world metres: rows of TUBE_COLUMNS.

    Plain Python on purpose: a tenth of a millisecond a figure, and nothing to compile.
    """
    pose, dims, options = posed.tolist(), look.dims.tolist(), look.options.tolist()
    tubes: list[tuple[float, ...]] = []
    H, g, cloth = dims[0], dims[1], dims[4]
    shoulder, hem, flare, legw = dims[2], dims[8], dims[9], dims[10] * (0.5 + 0.5 * g)
    lower, outer, carry, headwear = options[0], options[1], options[2], options[3]
    whole = options[4] == 0
    cy, sy = math.cos(pose[2]), math.sin(pose[2])
    up, fwd, lat = (0.0, 1.0, 0.0), (sy, 0.0, -cy), (cy, 0.0, sy)
    thigh, shank, foot_h = 0.245 * H, 0.246 * H, 0.035 * H
    # The lower foot stands on the ground: that sets the height of the hips.
    reach = 0.0
    for side in range(2):
        a = pose[8 + side]
        b = a - pose[10 + side]
        reach = max(reach, thigh * math.cos(a) + max(0.0, shank * math.cos(b)) + foot_h
                    + 0.05 * H * max(0.0, -math.sin(b) - 0.25))  # fmt: skip
    hip = (pose[0], pose[22] + reach, pose[1])
    cp, sp = math.cos(pose[3]), math.sin(pose[3])
    spine = _mix(up, cp, fwd, sp, lat, pose[4])
    front = _mix(up, -sp, fwd, cp, lat, 0.0)
    ct, st = math.cos(pose[5]), math.sin(pose[5])
    across = _mix(lat, ct, front, -st, up, 0.0)
    chest_fwd = _mix(front, ct, lat, st, up, 0.0)
    neck = _move(hip, spine, 0.300 * H)
    chest_top = _move(hip, spine, 0.262 * H)
    waist_a, hip_a = 0.074 * H * g + cloth, 0.088 * H * (0.45 + 0.55 * g) + cloth * 0.7
    chest_a = 0.094 * H * (0.6 + 0.4 * g) * shoulder + cloth
    sleeve = dims[7]
    spread = 0.0
    knees_fwd = 0.0
    for side in range(2):
        sign = 1.0 if side == 0 else -1.0
        a, k, s = pose[8 + side], pose[10 + side], pose[12 + side] + 0.03
        joint = _move(_move(hip, lat, sign * 0.048 * H), up, -0.005 * H)
        thigh_d = _mix(up, -math.cos(a), fwd, math.sin(a), lat, sign * s)
        knee = _move(joint, thigh_d, thigh)
        b = a - k
        shank_d = _mix(up, -math.cos(b), fwd, math.sin(b), lat, sign * s * 0.3)
        ankle = _move(knee, shank_d, shank)
        tilt = b + 0.25 if b < -0.25 else (b - 0.1 if b > 0.1 else 0.0)
        foot_d = _mix(fwd, math.cos(tilt), up, math.sin(tilt), lat, sign * 0.12)
        heel = _move(_move(ankle, up, -0.015 * H), foot_d, -0.018 * H)
        toe = _move(heel, foot_d, 0.105 * H)
        if not whole:
            continue
        legs = 5 if lower == 0 or lower == 1 else 0
        spread = max(spread, abs(math.sin(a)))
        knees_fwd += 0.5 * math.sin(a)
        _put(tubes, joint, knee, 0.052 * H * legw, 0.047 * H * legw, 0.036 * H * legw, 1.05,
                 0.05 * H, 0.034 * H, lat, fwd, legs, 0.0, 0.12, 0.0, 0.0)  # fmt: skip
        if lower == 0:
            wide = max(0.022 * H, (0.030 if dims[10] > 1.05 else 0.024) * H * legw)
            _put(tubes, knee, ankle, 0.035 * H * legw, 0.036 * H * legw, wide, 1.1,
                     0.034 * H, 0.012 * H, lat, fwd, 5, 0.4, 0.0, 0.18, 0.0)  # fmt: skip
        else:
            if lower == 1:
                _put(tubes, _move(joint, thigh_d, 0.08 * H), _move(joint, thigh_d, 0.215 * H),
                     0.058 * H * legw,
                         0.056 * H * legw, 0.052 * H * legw, 1.05, 0.02 * H, 0.01 * H, lat, fwd, 5, 0.0,
                         0.0, 0.1, 0.0)  # fmt: skip
                _put(tubes, _move(joint, thigh_d, 0.215 * H), knee, 0.040 * H, 0.038 * H, 0.034 * H, 1.0,
                         0.01 * H, 0.034 * H, lat, fwd, 0, 0.0, 0.25, 0.0, 0.0)  # fmt: skip
            _put(tubes, knee, ankle, 0.035 * H, 0.033 * H, 0.019 * H, 1.1,
                     0.03 * H, 0.02 * H, lat, fwd, 0, 0.4, 0.0, 0.0, 0.0)  # fmt: skip
        _put(tubes, heel, toe, 0.024 * H, 0.027 * H, 0.022 * H, 0.8, 0.022 * H, 0.024 * H, lat, up, 6,
                 0.0, 0.15, 0.0, 0.0)  # fmt: skip
    if lower == 2 and whole:
        below = _move(_move(hip, up, -(0.16 + 0.10 * (dims[10] - 0.9)) * H), fwd, knees_fwd * 0.17 * H)
        _put(tubes, _move(hip, spine, 0.05 * H), below, waist_a, 0.092 * H * flare,
             (0.10 * flare + 0.10 * spread) * H,
                 0.85 + 0.9 * spread, 0.02 * H, 0.012 * H, lat, fwd, 5, 0.0, 0.1, 0.1, 1.0)  # fmt: skip
    elif whole:
        _put(tubes, _move(hip, spine, 0.05 * H), _move(hip, up, -0.02 * H), waist_a * 0.93, hip_a * 0.94,
             hip_a * 0.9,
                 0.62, 0.01 * H, 0.04 * H, lat, fwd, 5, 0.0, 0.0, 0.0, 0.0)  # fmt: skip
    # Torso: shoulders to waist to hem; a coat goes on down over the thighs.
    skirt = 0.02 * H + hem * H
    tail = _move(_move(hip, up, -skirt + 0.02 * H), fwd, knees_fwd * hem * 0.7 * H)
    if outer == 1 or not whole:
        _put(tubes, hip, tail, hip_a * 1.03, hip_a * (1.05 + 0.3 * hem),
             hip_a * (1.0 + 0.6 * hem * flare + spread * hem * 1.5),
                 0.76 + 0.9 * spread * hem / 0.24, 0.03 * H, 0.012 * H, lat, fwd, 3, 0.25 * H, 0.0, 0.12, 1.0)
    _put(tubes, chest_top, _move(hip, spine, -0.020 * H), chest_a, waist_a * 1.02 + 0.012 * H,
         hip_a * 1.02, 0.66,
             0.032 * H, 0.012 * H, across, chest_fwd, 3, 0.0, 0.05, 0.08, 1.0)  # fmt: skip
    left = _move(_move(hip, spine, 0.282 * H), across, 0.098 * H * shoulder)
    right = _move(_move(hip, spine, 0.282 * H), across, -0.098 * H * shoulder)
    _put(tubes, left, right, 0.029 * H + cloth, 0.038 * H + cloth, 0.029 * H + cloth, 1.0,
             0.03 * H, 0.03 * H, up, chest_fwd, 4, 0.0, 0.0, 0.0, 0.0)  # fmt: skip
    _put(tubes, _move(neck, spine, 0.005 * H), _move(left, across, -0.045 * H), 0.034 * H, 0.034 * H,
         0.030 * H, 1.0,
             0.02 * H, 0.02 * H, up, chest_fwd, 4, 0.0, 0.0, 0.0, 0.0)  # fmt: skip
    _put(tubes, _move(neck, spine, 0.005 * H), _move(right, across, 0.045 * H), 0.034 * H, 0.034 * H,
         0.030 * H, 1.0,
             0.02 * H, 0.02 * H, up, chest_fwd, 4, 0.0, 0.0, 0.0, 0.0)  # fmt: skip
    for side in range(2):
        sign = 1.0 if side == 0 else -1.0
        a, b = pose[14 + side], pose[16 + side] + 0.10 + 0.05 * (g - 1.0)
        e, inward = pose[18 + side], pose[20 + side]
        joint = left if side == 0 else right
        upper = _mix(spine, -math.cos(a) * math.cos(b), chest_fwd, math.sin(a) * math.cos(b), across,
                     sign * math.sin(b))
        elbow = _move(joint, upper, 0.172 * H)
        ci, si = math.cos(inward), math.sin(inward)
        bend = a + e
        fore = _mix(spine, -math.cos(bend), chest_fwd, math.sin(bend) * ci, across,
                    sign * (0.4 * math.sin(b) - si * abs(math.sin(e))))
        norm = 1.0 / math.sqrt(fore[0] ** 2 + fore[1] ** 2 + fore[2] ** 2 + 1e-9)
        wrist = _move(elbow, fore, 0.140 * H * norm)
        hand = _move(wrist, fore, 0.050 * H * norm)
        au, af = 0.029 * H * (0.6 + 0.4 * g) + cloth, 0.023 * H * (0.7 + 0.3 * g) + cloth * 0.8
        if sleeve > 0.9:
            _put(tubes, joint, elbow, au * 1.02, au, af, 1.0, au, af, across, chest_fwd, 4, 0.0, 0.0, 0.0,
                 0.0)
            _put(tubes, elbow, wrist, af, af * 1.02, 0.019 * H + cloth * 0.6, 1.0, af, 0.008 * H, across,
                 chest_fwd, 4,
                     0.3, 0.0, 0.1, 0.0)  # fmt: skip
        else:
            end = _move(joint, upper, 0.172 * H * (0.35 + 0.6 * sleeve))
            _put(tubes, joint, elbow, 0.027 * H, 0.026 * H, 0.021 * H, 1.0, 0.027 * H, 0.021 * H, across,
                 chest_fwd, 0,
                     0.0, 0.0, 0.0, 0.0)  # fmt: skip
            _put(tubes, joint, end, au * 1.12, au * 1.12, au * 1.1, 1.0, au, 0.008 * H, across, chest_fwd, 4,
                     0.0, 0.0, 0.1, 0.0)  # fmt: skip
            _put(tubes, elbow, wrist, 0.021 * H, 0.022 * H, 0.015 * H, 1.0, 0.021 * H, 0.014 * H, across,
                 chest_fwd, 0,
                     0.3, 0.0, 0.0, 0.0)  # fmt: skip
        if not whole:
            continue
        _put(tubes, wrist, hand, 0.015 * H, 0.020 * H, 0.014 * H, 0.75, 0.014 * H, 0.018 * H, across,
             chest_fwd, 0,
                 0.0, 0.15, 0.0, 0.0)  # fmt: skip
        if side == 1 and carry >= 3:
            if carry == 3 or carry == 5:
                low = _move(hand, up, -0.17 * H if carry == 3 else -0.12 * H)
                _put(tubes, hand, _move(hand, up, -0.07 * H), 0.006 * H, 0.022 * H, 0.04 * H, 0.3,
                             0.005 * H, 0.01 * H, fwd, lat, 7, 0.0, 0.0, 0.3, 0.0)  # fmt: skip
                _put(tubes, _move(hand, up, -0.06 * H), low, 0.085 * H, 0.09 * H, 0.08 * H, 0.3,
                         0.015 * H, 0.015 * H, fwd, lat, 7, 0.0, 0.0, 0.0, 1.0)  # fmt: skip
            else:
                base = (hand[0] - fwd[0] * 0.12 * H, 0.0, hand[2] - fwd[2] * 0.12 * H)
                _put(tubes, _move(base, up, 0.30 * H), _move(base, up, 0.04 * H), 0.10 * H, 0.11 * H,
                     0.11 * H, 0.6,
                         0.015 * H, 0.02 * H, fwd, lat, 7, 0.0, 0.0, 0.2, 1.0)  # fmt: skip
                _put(tubes, hand, _move(base, up, 0.3 * H), 0.007 * H, 0.007 * H, 0.007 * H, 1.0,
                         0.007 * H, 0.007 * H, fwd, lat, 6, 0.0, 0.0, 0.0, 0.0)  # fmt: skip
    if not whole:
        return tubes
    if carry == 1:
        back = _move(chest_top, chest_fwd, -0.092 * H - cloth)
        _put(tubes, _move(back, spine, 0.012 * H), _move(back, spine, -0.16 * H), 0.060 * H, 0.076 * H,
             0.078 * H, 0.75,
                 0.03 * H, 0.02 * H, across, chest_fwd, 7, 0.0, 0.0, 0.15, 1.0)  # fmt: skip
        for side in range(2):
            sign = 0.058 * H if side == 0 else -0.058 * H
            strap = _move(_move(chest_top, across, sign), chest_fwd, 0.058 * H + cloth)
            _put(tubes, _move(_move(strap, spine, 0.045 * H), chest_fwd, -0.03 * H), _move(strap, spine,
                -0.11 * H),
                     0.012 * H, 0.012 * H, 0.010 * H, 0.6, 0.01 * H, 0.01 * H, across, chest_fwd, 7, 0.0,
                     0.0, 0.0, 0.0)  # fmt: skip
    elif carry == 2:
        bag = _move(_move(hip, lat, 0.115 * H * (0.5 + 0.5 * g) + cloth), up, 0.02 * H)
        _put(tubes, bag, _move(bag, up, -0.10 * H), 0.070 * H, 0.085 * H, 0.08 * H, 0.4, 0.015 * H, 0.02 * H,
                 fwd, lat, 7, 0.0, 0.0, 0.1, 1.0)  # fmt: skip
        strap = _move(_move(right, across, 0.03 * H), spine, 0.03 * H)
        for side in range(2):
            dist = (0.068 * H + cloth) * (1.0 if side == 0 else -1.0)
            _put(tubes, _move(strap, chest_fwd, dist * 0.4), _move(bag, chest_fwd, dist * 0.7), 0.009 * H,
                 0.009 * H,
                     0.009 * H, 1.0, 0.008 * H, 0.008 * H, across, chest_fwd, 7, 0.0, 0.0, 0.0, 0.0)
    # Head: its own yaw and pitch on top of the chest's.
    hy, hp = pose[6], pose[7]
    head_f0 = _mix(chest_fwd, math.cos(hy), across, math.sin(hy), up, 0.0)
    head_l = _mix(across, math.cos(hy), chest_fwd, -math.sin(hy), up, 0.0)
    level = _mix(spine, 0.6, up, 0.4, up, 0.0)
    head_u = _mix(level, math.cos(hp), head_f0, math.sin(hp), up, 0.0)
    head_f = _mix(head_f0, math.cos(hp), level, -math.sin(hp), up, 0.0)
    k = H * dims[3]
    skull = _move(_move(neck, head_u, 0.115 * k), head_f, 0.014 * k)
    _put(tubes, _move(skull, head_u, -0.03 * k), _move(neck, spine, -0.01 * H), 0.030 * k, 0.028 * k,
         0.034 * k, 1.0,
             0.02 * k, 0.01 * k, head_l, head_f, 0, 0.0, 0.45, 0.2, 0.0)  # fmt: skip
    _put(tubes, _move(skull, head_u, 0.022 * k), _move(_move(skull, head_u, -0.032 * k), head_f,
                                                       0.008 * k), 0.0435 * k,
             0.043 * k, 0.031 * k, 1.2, 0.042 * k, 0.034 * k, head_l, head_f, 1, 0.0, 0.0, 0.1, 0.0)
    for side in range(2):
        ear = _move(_move(skull, head_l, 0.043 * k if side == 0 else -0.043 * k), head_f, -0.008 * k)
        _put(tubes, _move(ear, head_u, 0.004 * k), _move(ear, head_u, -0.012 * k), 0.008 * k, 0.009 * k,
             0.006 * k, 1.4,
                 0.007 * k, 0.006 * k, head_l, head_f, 0, 0.0, 0.2, 0.2, 0.0)  # fmt: skip
    nose = _move(_move(skull, head_f, 0.054 * k), head_u, -0.014 * k)
    _put(tubes, _move(_move(nose, head_u, 0.014 * k), head_f, -0.006 * k), nose, 0.003 * k, 0.005 * k,
         0.007 * k, 1.0,
             0.005 * k, 0.006 * k, head_l, head_f, 0, 0.0, 0.0, 0.0, 0.0)  # fmt: skip
    vol = dims[6]
    if headwear != 3:
        crown = _move(_move(skull, head_u, 0.038 * k), head_f, -0.011 * k)
        nape = _move(_move(skull, head_u, -0.018 * k), head_f, -0.030 * k)
        _put(tubes, crown, nape, 0.0465 * k * vol, 0.0475 * k, 0.036 * k, 1.08, 0.040 * k * vol, 0.02 * k,
             head_l, head_f,
                 2, 0.0, 0.0, 0.15, 0.0)  # fmt: skip
    if dims[5] > 0.0 and headwear != 3:
        nape = _move(_move(skull, head_u, 0.01 * k), head_f, -0.036 * k)
        tip = _move(_move(neck, spine, (0.05 - dims[5]) * H), chest_fwd, -0.060 * H)
        _put(tubes, nape, tip, 0.047 * k * vol, 0.050 * k * vol, 0.032 * k, 0.65, 0.03 * k, 0.02 * k,
             head_l, head_f, 2,
                 0.0, 0.0, 0.2, 0.0)  # fmt: skip
        if dims[5] > 0.1:
            for side in range(2):
                lock = _move(_move(skull, head_l, 0.041 * k if side == 0 else -0.041 * k), head_f, -0.012 * k)
                out = -0.05 * k if side else 0.05 * k
                end = _move(_move(neck, head_l, out), spine, (0.06 - 0.6 * dims[5]) * H)
                _put(tubes, _move(lock, head_u, 0.03 * k), end, 0.012 * k, 0.015 * k, 0.009 * k, 1.6,
                     0.01 * k, 0.012 * k, head_l, head_f, 2, 0.0, 0.0, 0.1, 0.0)
    if headwear == 1 or headwear == 2 or headwear == 4:
        crown = _move(_move(skull, head_u, 0.040 * k), head_f, -0.006 * k)
        _put(tubes, _move(crown, head_u, 0.012 * k), _move(crown, head_u, -0.014 * k), 0.048 * k,
             0.053 * k, 0.0535 * k, 1.14,
                 0.03 * k, 0.006 * k, head_l, head_f, 8, 0.0, 0.0, 0.1, 0.0)  # fmt: skip
        if headwear == 1:
            peak = _move(_move(crown, head_u, -0.010 * k), head_f, 0.048 * k)
            _put(tubes, peak, _move(_move(peak, head_f, 0.035 * k), head_u, -0.006 * k), 0.036 * k,
                 0.036 * k, 0.028 * k, 0.12,
                     0.01 * k, 0.012 * k, head_l, head_u, 8, 0.0, 0.2, 0.0, 0.0)  # fmt: skip
        elif headwear == 4:
            _put(tubes, _move(crown, head_u, -0.010 * k), _move(crown, head_u, -0.016 * k), 0.078 * k,
                 0.082 * k, 0.082 * k, 1.05,
                     0.004 * k, 0.004 * k, head_l, head_f, 8, 0.0, 0.2, 0.2, 0.0)  # fmt: skip
    elif headwear == 3:
        crown = _move(_move(skull, head_u, 0.028 * k), head_f, -0.022 * k)
        _put(tubes, crown, _move(_move(neck, spine, 0.01 * H), chest_fwd, -0.02 * H), 0.052 * k, 0.058 * k,
             0.055 * k, 1.1,
                 0.044 * k, 0.02 * k, head_l, head_f, 8, 0.0, 0.0, 0.2, 0.0)  # fmt: skip
    return tubes


def build_parts(
    pose: npt.NDArray[np.float64], look: Look, cam: npt.NDArray[np.float64], parts: npt.NDArray[np.float32]
) -> int:
    """Fill `parts` (48, 20) with the figure as the camera sees it; returns how many rows."""
    tubes = np.array(build_tubes(pose, look))
    return int(project_tubes(tubes, len(tubes), cam, parts))
