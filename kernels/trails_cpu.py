"""Trails on the CPU: foot points come in with the new pictures of all streams, and leave as rows to draw.

A trail is a row of float64: x, y, pts of its points, the newest first, pts -inf where there is none.
Trails are kept in the order of their ids.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tiler.kernels.assign_cpu import compiled, inner
from tiler.types import CLOCK_HZ, Float32, Int32

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

X, Y, PTS, POINT_COLUMNS = 0, 1, 2, 3


@compiled
def add_points(
    streams: Int64,
    pts: Int64,
    ends: Int64,
    track_id: Int32,
    xyxy: Float32,
    ids: Int64,
    points: Float64,
    counts: Int64,
    ticks: float,
    spacing: float,
) -> tuple[int, Int64, Float32]:
    """Take the foot points of the tracks of some pictures into their trails.

    Args:
        streams, pts, ends, track_id, xyxy: as in `TrackBatch`.
        ids: (all streams, capacity) int64; capacity is for the trails and all tracks of a picture.
        points: (all streams, capacity, n * POINT_COLUMNS) float64.
        counts: (all streams,) int64, trails there are.
        ticks: a trail whose newest point is older ends.
        spacing: ticks between two points that are kept, at least.

    Returns:
        How many trails a stream has at most; where the rows of each picture end, (m,) int64; and the rows, (n, 4)
        float32 id, x, y, age in seconds of the points no older than `ticks`.
    """
    row_ends = np.empty(streams.shape[0], np.int64)
    begin = total = most = 0
    for k in range(streams.shape[0]):
        s, end = streams[k], ends[k]
        counts[s] = _add(track_id[begin:end], xyxy[begin:end], pts[k], ids[s], points[s], counts[s], ticks, spacing)
        for row in range(counts[s]):
            for column in range(PTS, points.shape[2], POINT_COLUMNS):
                total += pts[k] - points[s, row, column] <= ticks
        row_ends[k], begin, most = total, end, max(most, counts[s])
    rows, at = np.empty((total, 4), np.float32), 0
    for k in range(streams.shape[0]):
        s = streams[k]
        for row in range(counts[s]):
            for column in range(0, points.shape[2], POINT_COLUMNS):
                age = max(pts[k] - points[s, row, column + PTS], 0.0)
                if age <= ticks:
                    rows[at, 0], rows[at, 1] = ids[s, row], points[s, row, column + X]
                    rows[at, 2], rows[at, 3] = points[s, row, column + Y], age / CLOCK_HZ
                    at += 1
    return most, row_ends, rows


@inner
def _copy(ids: Int64, points: Float64, source: int, target: int) -> None:
    ids[target] = ids[source]
    for k in range(points.shape[1]):
        points[target, k] = points[source, k]


@inner
def _add(
    track_id: Int32, xyxy: Float32, pts: int, ids: Int64, points: Float64, count: int, ticks: float, spacing: float
) -> int:
    """Take those of one picture; the number of trails then."""
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
    return count
