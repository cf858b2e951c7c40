"""The tracker, what it sees and shows in a few words, and its compiled parts one by one, for tests of each alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tiler.config.models import TrackerConfig
from tiler.crowd import People, TrackBatch
from tiler.kernels import assign_cpu, kalman_cpu
from tiler.kernels.assign_cpu import Float64
from tiler.kernels.kalman_cpu import FILTER_COLUMNS, V
from tiler.track.bytetrack import ByteTracker
from tiler.track.trails import Trails
from tiler.types import CLOCK_HZ, Detections, Float32, Tracks

Mask = npt.NDArray[np.bool_]


def from_corners(xyxy: Float64) -> Float64:
    """(n, 4) corners x0, y0, x1, y1 as (n, 4) cx, cy, w, h."""
    size = xyxy[:, 2:] - xyxy[:, :2]
    return np.concatenate((xyxy[:, :2] + size / 2, size), axis=1)


SCORE = 0.35
Row = tuple[float, float, float, float, float, int]
"""x0, y0, x1, y1, score, class_id."""


def tracker(**config: float) -> ByteTracker:
    return ByteTracker(TrackerConfig.model_validate(config), SCORE)


def see(*rows: Row) -> Detections:
    table = np.array(rows, np.float64).reshape(-1, 6)
    xyxy, score = table[:, :4].astype(np.float32), table[:, 4].astype(np.float32)
    return Detections(xyxy, score, table[:, 5].astype(np.int32))


def person(x: float, y: float = 100.0, score: float = 0.9, class_id: int = 0) -> Row:
    return (x, y, x + 40, y + 100, score, class_id)


def ids(tracks: Tracks) -> list[int]:
    return [int(track_id) for track_id in tracks.track_id]


class BoxFilter:
    """The state of n boxes; rows are kept in the order in which they were added."""

    def __init__(self) -> None:
        self._states = np.empty((0, FILTER_COLUMNS))

    def __len__(self) -> int:
        return len(self._states)

    def corners(self) -> Float64:
        """The boxes now: (n, 4) x0, y0, x1, y1, at least one pixel wide and high."""
        boxes: Float64 = kalman_cpu.corners(self._states, len(self))
        return boxes

    def add(self, boxes: Float64) -> None:
        """Append boxes (n, 4) cx, cy, w, h, at rest as far as anyone knows."""
        first = len(self)
        self._states = np.concatenate((self._states, np.zeros((len(boxes), FILTER_COLUMNS))))
        for n in range(len(boxes)):
            kalman_cpu.begin(self._states, first + n, boxes, n)

    def keep(self, rows: Mask) -> None:
        """Forget the boxes that are False in `rows` (n,)."""
        self._states = self._states[rows]

    def predict(self, seconds: float) -> None:
        """Move every box on by `seconds` (0 or more)."""
        kalman_cpu.predict(self._states, len(self), seconds)

    def hold_size(self, rows: Mask) -> None:
        """Stop the boxes that are True in `rows` (n,) from growing or shrinking."""
        self._states[rows, V + 2 : V + 4] = 0.0

    def correct(self, rows: npt.NDArray[np.intp], boxes: Float64) -> None:
        """Take in the measured boxes (m, 4) cx, cy, w, h of the m different `rows`."""
        for n, row in enumerate(rows.tolist()):
            kalman_cpu.correct(self._states, row, boxes, n)


Indices = npt.NDArray[np.intp]


def box_iou(a: Float64, b: Float64) -> Float64:
    """Intersection over union of corner boxes a (n, 4) and b (m, 4): (n, m) in 0..1.

    Boxes must have a positive area.
    """
    iou: Float64 = assign_cpu.box_iou(a, b)
    return iou


def assign(similarity: Float64, gate: float) -> tuple[Indices, Indices]:
    """The pairs (row, column) that maximise the total of similarity - gate.

    A pair at or below the gate is never made, nor does it stand in the way of another:
    the sum runs over what exceeds the gate, which is the same as a linear assignment
    where staying alone costs half a gate on each side.

    Args:
        similarity: (n, m), higher is better.

    Returns:
        Rows and columns, equally long, rows ascending.
    """
    pairs = assign_cpu.best_pairs(np.maximum(similarity - gate, 0.0))
    rows = np.flatnonzero(pairs >= 0)
    return rows, pairs[rows]


def add(trails: Trails, tracks: Tracks) -> Float32:
    """The trails of the only stream, which has another picture."""
    return People(trails.add(TrackBatch.of((0,), (tracks,))), 0).history


def ticks(seconds: float) -> int:
    return round(seconds * CLOCK_HZ)
