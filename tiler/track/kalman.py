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

from tiler.kernels import track_cpu
from tiler.kernels.track_cpu import STATE_COLUMNS, Float64, V

Mask = npt.NDArray[np.bool_]


def from_corners(xyxy: Float64) -> Float64:
    """(n, 4) corners x0, y0, x1, y1 as (n, 4) cx, cy, w, h."""
    size = xyxy[:, 2:] - xyxy[:, :2]
    return np.concatenate((xyxy[:, :2] + size / 2, size), axis=1)


class BoxFilter:
    """The state of n boxes; rows are kept in the order in which they were added."""

    def __init__(self) -> None:
        self._states = np.empty((0, STATE_COLUMNS))

    def __len__(self) -> int:
        return len(self._states)

    def corners(self) -> Float64:
        """The boxes now: (n, 4) x0, y0, x1, y1, at least one pixel wide and high."""
        boxes: Float64 = track_cpu.corners(self._states, len(self))
        return boxes

    def add(self, boxes: Float64) -> None:
        """Append boxes (n, 4) cx, cy, w, h, at rest as far as anyone knows."""
        first = len(self)
        self._states = np.concatenate((self._states, np.zeros((len(boxes), STATE_COLUMNS))))
        for n in range(len(boxes)):
            track_cpu.begin(self._states, first + n, boxes, n)

    def keep(self, rows: Mask) -> None:
        """Forget the boxes that are False in `rows` (n,)."""
        self._states = self._states[rows]

    def predict(self, seconds: float) -> None:
        """Move every box on by `seconds` (0 or more)."""
        track_cpu.predict(self._states, len(self), seconds)

    def hold_size(self, rows: Mask) -> None:
        """Stop the boxes that are True in `rows` (n,) from growing or shrinking."""
        self._states[rows, V + 2 : V + 4] = 0.0

    def correct(self, rows: npt.NDArray[np.intp], boxes: Float64) -> None:
        """Take in the measured boxes (m, 4) cx, cy, w, h of the m different `rows`."""
        for n, row in enumerate(rows.tolist()):
            track_cpu.correct(self._states, row, boxes, n)
