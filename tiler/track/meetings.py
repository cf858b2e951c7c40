"""Meetings: when the tracks of one stream may have been exchanged, and when somebody should look who is who.

A state machine with hysteresis. Each track of a picture is in one phase:

    ALONE  --another comes close-->  NEAR  --their boxes share a part-->  MEETING  --none do-->  PARTED
      ^                                                                                            |
      +--------------------- it was but a brush, is settled, or took too long --------------------+

Tracks in one meeting are in it together: each who touches one of them joins, and who is lost while touching is
thought to stay in its place. It is *deep* once a box was hidden so far behind another, or a track was lost so, that a
tracker that knows motion only may have exchanged them. Who has parted leaves: at once if the meeting never was deep,
else when `settle` is told who is who, or after `PATIENCE_S`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tiler.kernels.cover_cpu import covers, pairs_above
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
"""Who has parted for so long leaves, whatever is known."""


class Phase(IntEnum):
    """What a track is doing; higher ones matter more."""

    ALONE = 0
    NEAR = 1
    MEETING = 2
    PARTED = 3


_MEETING, _PARTED = int(Phase.MEETING), int(Phase.PARTED)


@dataclass(eq=False)
class Meeting:
    """Tracks that have met.

    Attributes:
        tracks: their ids.
        seen: those whom the last picture showed.
        apart: of those, who shares no part with any other of them, and the pts since when.
        deep: the tracker may have exchanged them.
        hidden: pts at which somebody was last hidden.
        said: by track and identity, what crops have said for the two to belong together since the track was hidden
            or hid another: what was seen before says nothing of who is who after.
    """

    tracks: set[int]
    seen: set[int] = field(default_factory=set)
    apart: dict[int, int] = field(default_factory=dict)
    deep: bool = False
    hidden: int = 0
    said: dict[tuple[int, int], float] = field(default_factory=dict)

    @property
    def parted(self) -> bool:
        """All who are seen are apart."""
        return bool(self.seen) and len(self.apart) == len(self.seen)

    def hide(self, tracks: set[int], pts: int) -> None:
        """The tracker may have exchanged these."""
        self.deep, self.hidden = True, pts
        self.said = {(track, who): value for (track, who), value in self.said.items() if track not in tracks}


class Scene(NamedTuple):
    """One picture.

    Attributes:
        phase: of each track, a `Phase`.
        hidden: (n,) float64 in 0..1, the most of each box that somebody nearer covers.
    """

    phase: list[int]
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
        for track in [k for k in ghosts if tracks.pts - self._last[k].pts > GHOST_S * CLOCK_HZ]:
            ghosts.remove(track)
            for meeting in self:
                meeting.tracks.discard(track)
        xyxy, class_id = tracks.xyxy, tracks.class_id
        if ghosts:
            xyxy = np.concatenate([xyxy, [self._last[track].xyxy for track in ghosts]])
            class_id = np.append(class_id, [self._last[track].class_id for track in ghosts]).astype(np.int32)
        shared, hidden, near = covers(xyxy, class_id, REACH)
        seen = len(ids)
        for i, j in pairs_above(shared[:seen, :seen], TOUCH):
            self._join({ids[i], ids[j]})
        phase = near[:seen].view(np.int8).tolist()
        if ghosts:  # what is unseen there may be in front or behind
            hidden = np.maximum(hidden, shared[:, seen:].max(axis=1))
        last, there = self._last, ids + ghosts
        self._last = {}
        part = shared.tolist() if self._all else []  # of so few, single numbers are had faster from lists
        for meeting in self:
            rows = [row for row, track in enumerate(there) if track in meeting.tracks]
            most = {there[row]: max([part[row][other] for other in rows]) for row in rows}
            if not self._goes_on(meeting, most, ids, tracks.pts):
                self.settle(meeting)
                continue
            for row in rows:
                track = there[row]
                if track not in meeting.tracks:
                    continue
                if row < seen:
                    phase[row] = _PARTED if track in meeting.apart else _MEETING
                    last[track] = _Place(xyxy[row], int(class_id[row]), tracks.pts)
                self._last[track] = last[track]
        return Scene(phase, hidden[:seen])

    def _join(self, tracks: set[int]) -> None:
        met = [meeting for meeting in self._all if meeting.tracks & tracks]
        if len(met) == 1 and tracks <= met[0].tracks:
            return
        joined = Meeting(tracks.union(*(meeting.tracks for meeting in met)))
        for meeting in met:
            joined.seen |= meeting.seen
            joined.apart |= meeting.apart
            joined.said |= meeting.said
            joined.deep |= meeting.deep
            joined.hidden = max(joined.hidden, meeting.hidden)
        self._all = [meeting for meeting in self._all if meeting not in met] + [joined]

    @staticmethod
    def _goes_on(meeting: Meeting, shared: dict[int, float], ids: list[int], pts: int) -> bool:
        """Whether it does, after a picture with the tracks `ids` in which each shares so much with another of it."""
        here = meeting.tracks.intersection(ids)
        lost = meeting.seen - here
        left = lost.intersection(meeting.apart)  # out of the picture: nobody hid them
        hidden = {track for track, most in shared.items() if most > DEEP}
        if lost - left:
            hidden |= meeting.tracks.difference(meeting.apart)
        if hidden:
            meeting.hide(hidden, pts)
        if not here:
            meeting.seen, meeting.apart = here, {}
            return pts - meeting.hidden <= PATIENCE_S * CLOCK_HZ
        since = {track: meeting.apart.get(track, pts) for track in here if shared[track] <= APART}
        patience = PATIENCE_S * CLOCK_HZ if meeting.deep else -1
        meeting.apart = {track: began for track, began in since.items() if pts - began <= patience}
        gone = since.keys() - meeting.apart.keys()
        meeting.seen = here - gone
        meeting.tracks -= left | gone
        return len(meeting.tracks) > 1
