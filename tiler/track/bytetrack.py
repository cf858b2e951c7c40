"""ByteTrack: every detection box counts, the doubtful ones too.

Zhang et al., "ByteTrack: Multi-Object Tracking by Associating Every Detection Box",
ECCV 2022. Each picture with detections is worked off in this order:

1. Confirmed tracks, lost ones too, take detections of a high score; the similarity is
   IoU with the predicted box times score.
2. Confirmed tracks seen at the last detection that got nothing take detections of a low
   score by IoU: a person half hidden scores low but has not gone.
3. Tentative tracks take the high detections that are left, or end.
4. High detections nobody took begin tentative tracks. They get an id, and are shown, once
   seen `confirm` times in a row; those of the first picture are shown at once.

A confirmed track that gets nothing is lost: predicted on, not shown, found again in step 1
until it has not been seen for `lost_s`. Detections of different classes never meet.

Unlike the published code, time is counted in seconds of the picture's pts, so that
dropped frames, variable frame rates and detection on every k-th picture change nothing;
sizes are tracked as (w, h); tracks are rows of arrays; and ids are dense.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tiler.config.models import TrackerConfig
from tiler.track.assignment import Indices, assign, box_iou
from tiler.track.kalman import BoxFilter, Float64, Mask, from_corners
from tiler.types import CLOCK_HZ, Detections, Int32, Tracks

_LOW_IOU = 0.5
_TENTATIVE_SIMILARITY = 0.3
"""Gates of steps 2 and 3, as published; `match_iou` is that of step 1."""

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
    ]
)


class ByteTracker:
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
        self._filter = BoxFilter()
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
        iou = box_iou(self._filter.corners(), xyxy)
        iou[tracks["class_id"][:, None] != class_id[None, :]] = 0.0
        likeness = iou * score
        confirmed = tracks["id"] > 0
        high = score >= self._high_score
        gate = self._config.match_iou
        steps = (
            (likeness, gate, confirmed, high),
            (iou, max(gate, _LOW_IOU), confirmed & ~tracks["lost"], ~high),
            (likeness, max(gate, _TENTATIVE_SIMILARITY), ~confirmed, high),
        )
        partner = np.full(len(tracks), -1)
        free = np.ones(len(score), np.bool_)
        for similarity, step_gate, candidates, offered in steps:
            rows, columns = _among(similarity, step_gate, candidates & (partner < 0), offered & free)
            partner[rows] = columns
            free[columns] = False

        seen = partner >= 0
        rows, columns = np.flatnonzero(seen), partner[seen]
        self._filter.correct(rows, from_corners(xyxy[columns]))
        tracks["seen"][rows] = pts
        tracks["score"][rows] = score[columns]
        tracks["hits"][rows] += 1
        tracks["lost"] = ~seen
        self._filter.hold_size(~seen)
        self._keep(confirmed | seen)
        new = free & high & (score >= self._config.new_score)
        self._begin(xyxy[new], score[new], class_id[new], pts)
        self._confirm()

    def _begin(self, xyxy: Float64, score: Float64, class_id: Int32, pts: int) -> None:
        born = np.zeros(len(xyxy), _TRACK)
        born["class_id"] = class_id
        born["score"] = score
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


def _among(similarity: Float64, gate: float, rows: Mask, columns: Mask) -> tuple[Indices, Indices]:
    """`assign` among the rows and columns that are True, in indices of the whole matrix."""
    row_indices, column_indices = np.flatnonzero(rows), np.flatnonzero(columns)
    taken_rows, taken_columns = assign(similarity[np.ix_(row_indices, column_indices)], gate)
    return row_indices[taken_rows], column_indices[taken_columns]


def _canonical(detections: Detections, low_score: float) -> tuple[Float64, Float64, Int32]:
    """Usable boxes in an order of their own: best score first, then by class and place."""
    xyxy = np.clip(detections.xyxy.astype(np.float64), -_EXTENT, _EXTENT)
    score = np.minimum(detections.score.astype(np.float64), 1.0)
    usable = (xyxy[:, 2] > xyxy[:, 0]) & (xyxy[:, 3] > xyxy[:, 1]) & (score >= low_score)
    order = np.lexsort((*xyxy.T[::-1], detections.class_id, -score))
    order = order[usable[order]]
    return xyxy[order], score[order], detections.class_id[order]
