"""The Kalman filter of the tracker on the CPU: rows of numbers, without a matrix.

Note [Filter]: a constant-velocity Kalman filter in seconds. A box is (cx, cy, w, h) in picture pixels.
The filter of SORT and ByteTrack starts from a diagonal covariance and adds diagonal noise, and its
motion model couples a coordinate with its own velocity only; so its 8 x 8 covariance is four 2 x 2
blocks for ever, and no matrix is built or inverted. Each coordinate has a position x, a velocity v,
their variances xx and vv and their covariance xv; a row of `states` holds x of the four, v of the four,
and so on. Noise grows with the height of the box (DeepSORT, Wojke et al. 2017): h / 20 for a position
and h / 160 per frame for a velocity, read at 30 frames a second and turned into rates: white noise on
position and on acceleration. Predicting by a and then by b seconds is then predicting by a + b.
"""

from __future__ import annotations

import numpy as np

from tiler.kernels.assign_cpu import Float64, compiled

# Columns of `states`, see Note [Filter]; more may follow.
X, V, XX, XV, VV, FILTER_COLUMNS = 0, 4, 8, 12, 16, 20

_FRAME_S = 1 / 30
_POSITION_STD = 1 / 20
_VELOCITY_STD = 1 / 160 / _FRAME_S
_POSITION_NOISE = _POSITION_STD**2 / _FRAME_S
_ACCELERATION_NOISE = _VELOCITY_STD**2 / _FRAME_S


@compiled
def begin(states: Float64, row: int, boxes: Float64, n: int) -> None:
    """A state for the box `boxes[n]`, (m, 4) cx, cy, w, h: at rest, as far as anyone knows."""
    height = boxes[n, 3] if boxes[n, 3] > 1 else 1.0
    position_std, velocity_std = 2 * _POSITION_STD * height, 10 * _VELOCITY_STD * height
    for k in range(4):
        states[row, X + k] = boxes[n, k]
        states[row, V + k] = 0.0
        states[row, XX + k] = position_std * position_std
        states[row, XV + k] = 0.0
        states[row, VV + k] = velocity_std * velocity_std


@compiled
def predict(states: Float64, count: int, seconds: float) -> None:
    """Move the first `count` boxes on by `seconds`, 0 or more."""
    seconds2 = seconds * seconds
    for row in range(count):
        height = states[row, X + 3] if states[row, X + 3] > 1 else 1.0
        p, q = _POSITION_NOISE * (height * height), _ACCELERATION_NOISE * (height * height)
        for k in range(4):
            xv, vv = states[row, XV + k], states[row, VV + k]
            states[row, X + k] += states[row, V + k] * seconds
            states[row, XX + k] += 2 * seconds * xv + seconds2 * vv + p * seconds + q * (seconds2 * seconds / 3)
            states[row, XV + k] += seconds * vv + q * (seconds2 / 2)
            states[row, VV + k] += q * seconds


@compiled
def correct(states: Float64, row: int, boxes: Float64, n: int) -> None:
    """Take in the measured box `boxes[n]`, (m, 4) cx, cy, w, h."""
    std = _POSITION_STD * (states[row, X + 3] if states[row, X + 3] > 1 else 1.0)
    noise = std * std
    for k in range(4):
        xx, xv = states[row, XX + k], states[row, XV + k]
        gain_x = xx / (xx + noise)
        gain_v = xv / (xx + noise)
        innovation = boxes[n, k] - states[row, X + k]
        states[row, X + k] += gain_x * innovation
        states[row, V + k] += gain_v * innovation
        states[row, XX + k] -= gain_x * xx
        states[row, XV + k] -= gain_x * xv
        states[row, VV + k] -= gain_v * xv


@compiled
def corners(states: Float64, count: int) -> Float64:
    """The boxes now: (count, 4) x0, y0, x1, y1, at least one pixel wide and high."""
    boxes = np.empty((count, 4))
    for row in range(count):
        for k in range(2):
            size = states[row, X + 2 + k]
            half = size / 2 if size > 1 else 0.5
            boxes[row, k] = states[row, X + k] - half
            boxes[row, 2 + k] = states[row, X + k] + half
    return boxes
