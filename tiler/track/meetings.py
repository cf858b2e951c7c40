"""Meetings: when the tracks of one stream may have been exchanged, and when somebody should look who is who.

A state machine with hysteresis. Each track of a picture is in one phase:

    ALONE  --another comes close-->  NEAR  --their boxes share a part-->  MEETING
      ^                                                                      |
      +--it was a brush, is settled, or took too long--  PARTED  <--none of them share a part--+

Tracks in one meeting are in it together: each who touches one of them joins, and who is lost in it is thought to
stay where it was. It is *deep* once a box was hidden so
far behind another, or a track was lost in it, that a tracker that knows motion only may have exchanged them; a
meeting that never was ends when they part. A deep one ends when `settle` is told so, or after `PATIENCE_S`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tiler.kernels.cover_cpu import covers
from tiler.types import CLOCK_HZ, Float32, Tracks

Float64 = npt.NDArray[np.float64]

TOUCH, APART = 0.15, 0.03
"""Part of the smaller box that two share: above the first they meet, below the second they have parted."""
DEEP = 0.45
"""Above this part the tracker may have exchanged them."""
REACH = 0.5
"""Widths to either side within which somebody is near."""
GHOST_S = 2.0
"""For so long somebody lost in a meeting is thought to be where they were seen last, in front or behind."""
PATIENCE_S = 1.5
"""A meeting that has parted for so long ends, whatever is known."""


class Phase(IntEnum):
    """What a track is doing; higher ones matter more."""

    ALONE = 0
    NEAR = 1
    MEETING = 2
    PARTED = 3


@dataclass(eq=False)
class Meeting:
    """Tracks that have met.

    Attributes:
        tracks: their ids.
        deep: the tracker may have exchanged them.
        hidden: pts at which somebody was last hidden; what was seen before it says nothing of who is who after.
        parted: pts since when no two of them share a part; None while some do, or none is seen.
        seen: how many of them the last picture showed.
        said: by track and identity, what crops have said for the two to belong together since somebody was hidden.
    """

    tracks: set[int]
    deep: bool = False
    hidden: int = 0
    parted: int | None = None
    seen: int = 0
    said: dict[tuple[int, int], float] = field(default_factory=dict)


class Scene(NamedTuple):
    """One picture.

    Attributes:
        phase: (n,) int64, a `Phase` for each track.
        hidden: (n,) float64 in 0..1, the most of each box that somebody nearer covers.
    """

    phase: npt.NDArray[np.int64]
    hidden: Float64


class _Place(NamedTuple):
    """Where somebody in a meeting was seen last."""

    xyxy: Float32
    class_id: int
    pts: int


class Meetings:
    """Those of one stream. Deterministic; two instances share nothing."""

    def __init__(self) -> None:
        self._all: list[Meeting] = []
        self._last: dict[int, _Place] = {}

    def __iter__(self) -> Iterator[Meeting]:
        return iter(tuple(self._all))

    def of(self, track_id: int) -> Meeting | None:
        """The meeting that a track is in."""
        return next((meeting for meeting in self._all if track_id in meeting.tracks), None)

    def settle(self, meeting: Meeting) -> None:
        """It is known who is who."""
        self._all = [other for other in self._all if other is not meeting]

    def update(self, tracks: Tracks) -> Scene:
        """Take the tracks of the next picture; pts never decrease."""
        ids = tracks.track_id.tolist()
        ghosts = [track for track in self._last if track not in ids]
        xyxy, class_id = tracks.xyxy, tracks.class_id
        if ghosts:
            xyxy = np.concatenate([xyxy, [self._last[track].xyxy for track in ghosts]])
            class_id = np.append(class_id, [self._last[track].class_id for track in ghosts]).astype(np.int32)
        shared, hidden, near = covers(xyxy, class_id, REACH)
        seen = len(ids)
        for i, j in np.argwhere(np.tril(shared[:seen, :seen]) > TOUCH).tolist():
            self._join({ids[i], ids[j]})
        phase = near[:seen].astype(np.int64)
        if ghosts:  # what is unseen there may be in front or behind
            hidden = np.maximum(hidden, shared[:, seen:].max(axis=1))
        last, there = self._last, ids + ghosts
        self._last = {}
        for meeting in self:
            rows = [row for row, track in enumerate(there) if track in meeting.tracks]
            here = [row for row in rows if row < seen]
            if not self._goes_on(meeting, float(shared[np.ix_(rows, rows)].max(initial=0)), len(here), tracks.pts):
                self.settle(meeting)
                continue
            phase[here] = Phase.MEETING if meeting.parted is None else Phase.PARTED
            for row in rows:
                place = _Place(xyxy[row], int(class_id[row]), tracks.pts) if row < seen else last[there[row]]
                if tracks.pts - place.pts <= GHOST_S * CLOCK_HZ:
                    self._last[there[row]] = place
        return Scene(phase, hidden[:seen])

    def _join(self, tracks: set[int]) -> None:
        met = [meeting for meeting in self._all if meeting.tracks & tracks]
        if len(met) == 1 and tracks <= met[0].tracks:
            return
        joined = Meeting(tracks.union(*(meeting.tracks for meeting in met)))
        joined.deep = any(meeting.deep for meeting in met)
        joined.hidden = max((meeting.hidden for meeting in met), default=0)
        self._all = [meeting for meeting in self._all if meeting not in met] + [joined]

    @staticmethod
    def _goes_on(meeting: Meeting, shared: float, seen: int, pts: int) -> bool:
        """Whether it does, after a picture in which so many of them are seen and two share so much."""
        if shared > DEEP or seen < meeting.seen:
            meeting.deep, meeting.hidden = True, pts
            meeting.said.clear()
        meeting.seen = seen
        if shared > APART or not seen:
            meeting.parted = None
        elif meeting.parted is None:
            meeting.parted = pts
        if seen and not meeting.deep:
            return meeting.parted is None
        since = meeting.parted if meeting.parted is not None else pts if seen else meeting.hidden
        return pts - since <= PATIENCE_S * CLOCK_HZ
