"""A constant-velocity Kalman filter for many boxes at once, in seconds.

A box is (cx, cy, w, h) in picture pixels, each with its velocity. The filter of SORT and
ByteTrack starts from a diagonal covariance and adds diagonal noise, and its motion model
couples a coordinate with its own velocity only; so its 8 x 8 covariance is four 2 x 2
blocks for ever, and the textbook equations become element-wise ones: no matrix is built
or inverted.

Noise grows with the height of the box (DeepSORT, Wojke et al. 2017): h / 20 for a
position and h / 160 per frame for a velocity. Those are read here at 30 frames a second
and turned into rates: white noise on position and on acceleration. Predicting by a and
then by b seconds is then the same as predicting by a + b, whatever the frame rate.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_FRAME_S = 1 / 30
_POSITION_STD = 1 / 20
_VELOCITY_STD = 1 / 160 / _FRAME_S
_POSITION_NOISE = _POSITION_STD**2 / _FRAME_S
_ACCELERATION_NOISE = _VELOCITY_STD**2 / _FRAME_S

_X, _V, _XX, _XV, _VV = range(5)
"""Planes of the state: position, velocity, and their variances and covariance."""


def from_corners(xyxy: Float64) -> Float64:
    """(n, 4) corners x0, y0, x1, y1 as (n, 4) cx, cy, w, h."""
    size = xyxy[:, 2:] - xyxy[:, :2]
    return np.concatenate((xyxy[:, :2] + size / 2, size), axis=1)


class BoxFilter:
    """The state of n boxes; rows are kept in the order in which they were added."""

    def __init__(self) -> None:
        self._state = np.empty((5, 0, 4))

    def __len__(self) -> int:
        return self._state.shape[1]

    def corners(self) -> Float64:
        """The boxes now: (n, 4) x0, y0, x1, y1, at least one pixel wide and high."""
        position = self._state[_X]
        half = np.maximum(position[:, 2:], 1.0) / 2
        return np.concatenate((position[:, :2] - half, position[:, :2] + half), axis=1)

    def add(self, boxes: Float64) -> None:
        """Append boxes (n, 4) cx, cy, w, h, at rest as far as anyone knows."""
        height = _height(boxes)
        born = np.zeros((5, len(boxes), 4))
        born[_X] = boxes
        born[_XX] = (2 * _POSITION_STD * height) ** 2
        born[_VV] = (10 * _VELOCITY_STD * height) ** 2
        self._state = np.concatenate((self._state, born), axis=1)

    def keep(self, rows: Mask) -> None:
        """Forget the boxes that are False in `rows` (n,)."""
        self._state = self._state[:, rows]

    def predict(self, seconds: float) -> None:
        """Move every box on by `seconds` (0 or more)."""
        x, v, xx, xv, vv = self._state
        height2 = _height(x) ** 2
        q = _ACCELERATION_NOISE * height2
        x += v * seconds
        xx += 2 * seconds * xv + seconds**2 * vv + _POSITION_NOISE * height2 * seconds + q * (seconds**3 / 3)
        xv += seconds * vv + q * (seconds**2 / 2)
        vv += q * seconds

    def hold_size(self, rows: Mask) -> None:
        """Stop the boxes that are True in `rows` (n,) from growing or shrinking."""
        self._state[_V, rows, 2:] = 0.0

    def correct(self, rows: npt.NDArray[np.intp], boxes: Float64) -> None:
        """Take in the measured boxes (m, 4) cx, cy, w, h of the m different `rows`."""
        x, v, xx, xv, vv = self._state[:, rows]
        noise = (_POSITION_STD * _height(x)) ** 2
        innovation = boxes - x
        gain_x = xx / (xx + noise)
        gain_v = xv / (xx + noise)
        self._state[:, rows] = (
            x + gain_x * innovation,
            v + gain_v * innovation,
            xx - gain_x * xx,
            xv - gain_x * xv,
            vv - gain_v * xv,
        )


def _height(boxes: Float64) -> Float64:
    """(n, 1) heights of boxes (n, 4), at least one pixel: the scale of all noise."""
    return np.maximum(boxes[:, 3:], 1.0)
