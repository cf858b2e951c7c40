"""Trails on the CPU: foot points come in with each picture, and leave as rows to draw.

A trail is a row of float64: x, y, pts of its points, the newest first, pts -inf where there is none.
Trails are kept in the order of their ids.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tiler.kernels.assign_cpu import compiled
from tiler.types import CLOCK_HZ, Float32, Int32

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

X, Y, PTS, POINT_COLUMNS = 0, 1, 2, 3


@compiled
def _copy(ids: Int64, points: Float64, source: int, target: int) -> None:
    ids[target] = ids[source]
    for k in range(points.shape[1]):
        points[target, k] = points[source, k]


@compiled
def trail_rows(ids: Int64, points: Float64, count: int, pts: int, ticks: float) -> Float32:
    """(m, 4) float32 id, x, y, age in seconds of the points no older than `ticks` at `pts`."""
    rows = np.empty((count * points.shape[1] // POINT_COLUMNS, 4), np.float32)
    m = 0
    for row in range(count):
        for k in range(0, points.shape[1], POINT_COLUMNS):
            age = max(pts - points[row, k + PTS], 0.0)
            if age <= ticks:
                rows[m, 0], rows[m, 1] = ids[row], points[row, k + X]
                rows[m, 2], rows[m, 3] = points[row, k + Y], age / CLOCK_HZ
                m += 1
    return rows[:m]


@compiled
def add_points(
    ids: Int64, points: Float64, count: int, track_id: Int32, xyxy: Float32, pts: int, ticks: float, spacing: float
) -> tuple[int, Float32]:
    """Take the foot points of a picture's tracks into their trails.

    Args:
        ids: (capacity,) int64; capacity is for the trails and all tracks.
        points: (capacity, n * POINT_COLUMNS) float64.
        count: trails there are.
        track_id, xyxy, pts: as in `Tracks`.
        ticks: a trail whose newest point is older ends.
        spacing: ticks between two points that are kept, at least.

    Returns:
        The number of trails now, and what `trail_rows` gives of them at `pts`.
    """
    gone = 0
    for row in range(count):
        if pts - points[row, PTS] > ticks:
            gone += 1
        elif gone > 0:
            _copy(ids, points, row, row - gone)
    count -= gone
    for n in range(track_id.shape[0]):
        row = count
        while row > 0 and ids[row - 1] >= track_id[n]:
            row -= 1
        if row == count or ids[row] != track_id[n]:
            for later in range(count, row, -1):
                _copy(ids, points, later - 1, later)
            ids[row] = track_id[n]
            for k in range(points.shape[1]):
                points[row, k] = -np.inf
            count += 1
        # The newest point moves with the track until it is far enough in time from the one before.
        newest, before = points[row, PTS], points[row, POINT_COLUMNS + PTS]
        if newest > -np.inf and newest - spacing >= before:
            for k in range(points.shape[1] - 1, POINT_COLUMNS - 1, -1):
                points[row, k] = points[row, k - POINT_COLUMNS]
        points[row, X] = (xyxy[n, 0] + xyxy[n, 2]) / 2
        points[row, Y] = xyxy[n, 3]
        points[row, PTS] = pts
    return count, trail_rows(ids, points, count, pts, ticks)
