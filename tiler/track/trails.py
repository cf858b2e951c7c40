"""Where the tracks of one stream came from: a short, thinned history of foot points."""

from __future__ import annotations

import numpy as np

from tiler.types import CLOCK_HZ, Float32, Tracks

POINTS = 32
"""Most points kept of one track."""

_X, _Y, _PTS = range(3)


class Trails:
    """Foot points (bottom centre of the box) of the last `seconds`, per track.

    Memory is bounded: a track that vanished is forgotten once its newest point is older
    than `seconds`, and of each track the newest point is kept, and before it only points
    that are `seconds / 30` or more apart.
    """

    def __init__(self, seconds: float) -> None:
        self._ticks = seconds * CLOCK_HZ
        self._spacing = self._ticks / (POINTS - 2)
        self._ids = np.empty(0, np.int32)
        self._points = np.empty((0, POINTS, 3))  # x, y, pts of each id, newest first; pts -inf: none

    def add(self, tracks: Tracks) -> None:
        """Take the tracks of one picture; pts never decrease."""
        fresh = tracks.pts - self._points[:, 0, _PTS] <= self._ticks
        new = np.setdiff1d(tracks.track_id, self._ids[fresh])
        blank = np.full((len(new), POINTS, 3), -np.inf)
        self._ids = np.concatenate((self._ids[fresh], new))
        self._points = np.concatenate((self._points[fresh], blank))

        order = np.argsort(self._ids)
        rows = order[np.searchsorted(self._ids, tracks.track_id, sorter=order)]
        # The newest point moves with the track until it is far enough in time from the one before.
        held = np.isfinite(self._points[rows, 0, _PTS])
        apart = held & ~(self._points[rows, 0, _PTS] - self._spacing < self._points[rows, 1, _PTS])
        self._points[rows[apart], 1:] = self._points[rows[apart], :-1].copy()
        self._points[rows, 0, _X] = (tracks.xyxy[:, 0] + tracks.xyxy[:, 2]) / 2
        self._points[rows, 0, _Y] = tracks.xyxy[:, 3]
        self._points[rows, 0, _PTS] = tracks.pts

    def rows(self, pts: int) -> Float32:
        """(m, 4) float32 track_id, x, y, age_s of the points no older than `seconds` at `pts`.

        Ids ascend; within an id the newest point comes first.
        """
        age = np.maximum(pts - self._points[..., _PTS], 0.0)
        row, column = np.nonzero(age <= self._ticks)
        order = np.argsort(self._ids[row], kind="stable")
        row, column = row[order], column[order]
        place = self._points[row, column, :_PTS]
        return np.column_stack((self._ids[row], place, age[row, column] / CLOCK_HZ)).astype(np.float32)
