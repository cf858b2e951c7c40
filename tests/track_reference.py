"""The tracker and its trails as NumPy and SciPy say them: slow, and plain. The compiled ones are held to these."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from tiler.config.models import TrackerConfig
from tiler.track.trails import POINTS
from tiler.types import CLOCK_HZ, Detections, Float32, Int32, Tracks

Float64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]

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


class ReferenceFilter:
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
        xx += 2 * seconds * xv + seconds**2 * vv + _POSITION_NOISE * height2 * seconds + q * (seconds**2 * seconds / 3)
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


def box_iou(a: Float64, b: Float64) -> Float64:
    """Intersection over union of corner boxes a (n, 4) and b (m, 4): (n, m) in 0..1.

    Boxes must have a positive area.
    """
    size = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    np.maximum(size, 0.0, out=size)
    shared = size[..., 0] * size[..., 1]
    area_a = (a[:, 2] - a[:, 0]) * (a[:, 3] - a[:, 1])
    area_b = (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])
    iou: Float64 = shared / (area_a[:, None] + area_b[None, :] - shared)
    return iou


def buffered_iou(a: Float64, b: Float64, buffer: float) -> Float64:
    """`box_iou` of boxes that were grown by `buffer` of their size on each side."""

    def grow(boxes: Float64) -> Float64:
        margin = buffer * (boxes[:, 2:] - boxes[:, :2])
        return np.concatenate((boxes[:, :2] - margin, boxes[:, 2:] + margin), axis=1)

    return box_iou(grow(a), grow(b))


def upright(a: Float64, b: Float64) -> Float64:
    """IoU of the vertical extents of corner boxes a (n, 4) and b (m, 4): (n, m), 0 or more."""
    shared = np.minimum(a[:, None, 3], b[None, :, 3]) - np.maximum(a[:, None, 1], b[None, :, 1])
    overlap: Float64 = shared / (np.maximum(a[:, None, 3], b[None, :, 3]) - np.minimum(a[:, None, 1], b[None, :, 1]))
    return np.maximum(overlap, 0.0)


def assign(similarity: Float64, gate: float, patience: Float64) -> tuple[Indices, Indices]:
    """The pairs (row, column) that maximise the total of (similarity - gate) / patience.

    A pair at or below the gate is never made, nor does it stand in the way of another:
    the sum runs over what exceeds the gate, which is the same as a linear assignment
    where staying alone costs half a gate on each side.

    Args:
        similarity: (n, m), higher is better.
        patience: (n,), 1 or more.

    Returns:
        Rows and columns, equally long, rows ascending.
    """
    if similarity.size == 0:
        none = np.empty(0, np.intp)
        return none, none
    gain = np.maximum(similarity - gate, 0.0) / patience[:, None]
    rows, columns = linear_sum_assignment(gain, maximize=True)
    made = gain[rows, columns] > 0
    return rows[made], columns[made]


_LOW_IOU = 0.5
_TENTATIVE_SIMILARITY = 0.3
_FIND_SIMILARITY = 0.3
"""Gates of steps 2, 3 and 4; `match_iou` is that of step 1."""

_BUFFER = 0.5
_SAME_HEIGHT = 0.85

_EXTENT = 1e6
"""Coordinates are clamped to this many pixels: sums and squares of them stay exact enough."""

_TRACK = np.dtype(
    [
        ("id", np.int32),  # 0 while tentative
        ("class_id", np.int32),
        ("score", np.float32),
        ("seen", np.int64),  # pts of the last detection
        ("hits", np.int32),  # detections in a row since the track began
        ("lost", np.bool_),  # the last run of the detector did not see it
        ("box", np.float64, 4),  # of the last detection
    ]
)


class ReferenceTracker:
    """The identities of one stream.

    Deterministic, and independent of the order of the detections. Not thread-safe; two
    instances share nothing.

    Args:
        config: gates and times.
        score: lowest score of a high detection (`detector.score`).
    """

    def __init__(self, config: TrackerConfig, score: float) -> None:
        self._config = config
        self._high_score = score
        self._lost_ticks = round(config.lost_s * CLOCK_HZ)
        self._filter = ReferenceFilter()
        self._tracks: npt.NDArray[np.void] = np.empty(0, _TRACK)
        self._pts: int | None = None
        self._detected = False
        self._last_id = 0

    def update(self, detections: Detections | None, pts: int) -> Tracks:
        """Tracks at `pts` (1/90000 s, never decreasing).

        None means that the detector did not run for this picture: what was seen when it
        last ran is predicted. Boxes without area or with a value that is not a number
        are ignored.
        """
        self._advance(pts)
        if detections is not None:
            self._associate(detections, pts)
            self._detected = True
        return self._shown(pts)

    def _advance(self, pts: int) -> None:
        """Drop what has not been seen for too long; move the rest on to `pts`."""
        self._keep(pts - self._tracks["seen"] <= self._lost_ticks)
        if self._pts is not None and pts > self._pts and len(self._tracks):
            self._filter.predict((pts - self._pts) / CLOCK_HZ)
        self._pts = pts if self._pts is None else max(pts, self._pts)

    def _associate(self, detections: Detections, pts: int) -> None:
        xyxy, score, class_id = _canonical(detections, min(self._config.low_score, self._high_score))
        tracks = self._tracks
        now = self._filter.corners()
        same = tracks["class_id"][:, None] == class_id[None, :]
        iou = box_iou(now, xyxy) * same
        likeness = iou * score * np.sqrt(np.sqrt(upright(now, xyxy)))
        near = np.maximum(buffered_iou(now, xyxy, _BUFFER), buffered_iou(tracks["box"], xyxy, _BUFFER)) * same * score
        heights, offered_heights = (boxes[:, 3] - boxes[:, 1] for boxes in (tracks["box"], xyxy))
        lower, higher = (pick.outer(heights, offered_heights) for pick in (np.minimum, np.maximum))
        near[lower < _SAME_HEIGHT * higher] = 0.0
        patience = 1 + tracks["lost"] * np.maximum(pts - tracks["seen"], 0) / CLOCK_HZ
        confirmed = tracks["id"] > 0
        high = score >= self._high_score
        gate = self._config.match_iou
        steps = (
            (likeness, gate, confirmed, high),
            (iou, max(gate, _LOW_IOU), confirmed & ~tracks["lost"], ~high),
            (likeness, max(gate, _TENTATIVE_SIMILARITY), ~confirmed, high),
            (near, max(gate, _FIND_SIMILARITY), confirmed, high),
        )
        partner = np.full(len(tracks), -1)
        free = np.ones(len(score), np.bool_)
        for similarity, step_gate, candidates, offered in steps:
            rows, columns = _among(similarity, step_gate, patience, candidates & (partner < 0), offered & free)
            partner[rows] = columns
            free[columns] = False

        seen = partner >= 0
        rows, columns = np.flatnonzero(seen), partner[seen]
        self._filter.correct(rows, from_corners(xyxy[columns]))
        tracks["seen"][rows] = pts
        tracks["score"][rows] = score[columns]
        tracks["box"][rows] = xyxy[columns]
        tracks["hits"][rows] += 1
        tracks["lost"] = ~seen
        self._filter.hold_size(~seen)
        self._keep(confirmed | seen)
        explained = box_iou(xyxy[~free], xyxy) * (class_id[~free][:, None] == class_id[None, :])
        apart = score * (1 - explained.max(axis=0, initial=0.0) / 2)
        new = free & high & (apart >= self._config.new_score)
        self._begin(xyxy[new], score[new], class_id[new], pts)
        self._confirm()

    def _begin(self, xyxy: Float64, score: Float64, class_id: Int32, pts: int) -> None:
        born = np.zeros(len(xyxy), _TRACK)
        born["class_id"] = class_id
        born["score"] = score
        born["box"] = xyxy
        born["seen"] = pts
        born["hits"] = 1 if self._detected else self._config.confirm
        self._tracks = np.concatenate((self._tracks, born))
        self._filter.add(from_corners(xyxy))

    def _confirm(self) -> None:
        """Ids for the tentative tracks seen often enough, in the order in which they began."""
        rows = np.flatnonzero((self._tracks["id"] == 0) & (self._tracks["hits"] >= self._config.confirm))
        self._tracks["id"][rows] = self._last_id + 1 + np.arange(len(rows))
        self._last_id += len(rows)

    def _keep(self, rows: Mask) -> None:
        if not rows.all():
            self._tracks = self._tracks[rows]
            self._filter.keep(rows)

    def _shown(self, pts: int) -> Tracks:
        rows = np.flatnonzero((self._tracks["id"] > 0) & ~self._tracks["lost"])
        rows = rows[np.argsort(self._tracks["id"][rows])]
        tracks = self._tracks[rows]
        return Tracks(
            pts=pts,
            track_id=tracks["id"].copy(),
            xyxy=self._filter.corners()[rows].astype(np.float32),
            score=tracks["score"].copy(),
            class_id=tracks["class_id"].copy(),
        )


def _among(
    similarity: Float64, gate: float, patience: Float64, rows: Mask, columns: Mask
) -> tuple[Indices, Indices]:
    """`assign` among the rows and columns that are True, in indices of the whole matrix."""
    row_indices, column_indices = np.flatnonzero(rows), np.flatnonzero(columns)
    taken_rows, taken_columns = assign(
        similarity[np.ix_(row_indices, column_indices)], gate, patience[row_indices]
    )
    return row_indices[taken_rows], column_indices[taken_columns]


def _canonical(detections: Detections, low_score: float) -> tuple[Float64, Float64, Int32]:
    """Usable boxes in an order of their own: best score first, then by class and place."""
    xyxy = np.clip(detections.xyxy.astype(np.float64), -_EXTENT, _EXTENT)
    score = np.minimum(detections.score.astype(np.float64), 1.0)
    usable = (xyxy[:, 2] > xyxy[:, 0]) & (xyxy[:, 3] > xyxy[:, 1]) & (score >= low_score)
    order = np.lexsort((*xyxy.T[::-1], detections.class_id, -score))
    order = order[usable[order]]
    return xyxy[order], score[order], detections.class_id[order]


_TX, _TY, _PTS = range(3)


class ReferenceTrails:
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
        self._points[rows, 0, _TX] = (tracks.xyxy[:, 0] + tracks.xyxy[:, 2]) / 2
        self._points[rows, 0, _TY] = tracks.xyxy[:, 3]
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
