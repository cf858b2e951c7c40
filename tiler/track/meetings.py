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

from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tiler.kernels import meetings_cpu
from tiler.kernels.meetings_cpu import (
    IS_DEEP,
    MEETING,
    MEETING_COLUMNS,
    MEMBER_COLUMNS,
    NUMBER,
    SEEN,
    SINCE,
    TRACK,
    meet,
)
from tiler.types import CLOCK_HZ, Bool, Tracks

Int64 = npt.NDArray[np.int64]
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

    ALONE = meetings_cpu.ALONE
    NEAR = meetings_cpu.NEAR
    MEETING = meetings_cpu.MET
    PARTED = meetings_cpu.PARTED


_LIMITS = np.array((TOUCH, APART, DEEP, REACH, GHOST_S * CLOCK_HZ, PATIENCE_S * CLOCK_HZ))


@dataclass(frozen=True, slots=True, eq=False)
class Meeting:
    """Tracks that have met, as of the last picture.

    Attributes:
        number: from 1, in the order in which meetings began; those that join begin anew.
        tracks: their ids.
        seen: those whom the last picture showed.
        apart: of those, who shares no part with any other of them, and the pts since when.
        deep: the tracker may have exchanged them.
        said: by track and identity, what crops have said for the two to belong together since the track was hidden
            or hid another: what was seen before says nothing of who is who after. Lasts as long as the meeting.
    """

    number: int
    tracks: set[int]
    seen: set[int]
    apart: dict[int, int]
    deep: bool
    said: dict[tuple[int, int], float]

    @property
    def parted(self) -> bool:
        """All who are seen are apart."""
        return bool(self.seen) and len(self.apart) == len(self.seen)


class Scene(NamedTuple):
    """One picture, track by track.

    Attributes:
        phase: (n,) int64, a `Phase`.
        hidden: (n,) float64 in 0..1, the most of each box that somebody nearer covers.
        deep: (n,) bool, the track is in a deep meeting.
    """

    phase: Int64
    hidden: Float64
    deep: Bool


class Meetings:
    """Those of one stream. Deterministic; two instances share nothing."""

    def __init__(self) -> None:
        self._members, self._places = np.zeros((0, MEMBER_COLUMNS), np.int64), np.zeros((0, 4), np.float32)
        self._meetings = np.zeros((0, MEETING_COLUMNS), np.int64)
        self._count = self._last_number = 0
        self._said: dict[int, dict[tuple[int, int], float]] = {}

    def __iter__(self) -> Iterator[Meeting]:
        """In the order in which they began."""
        return self._views(row for row in self._meetings.tolist() if row[NUMBER])

    def deep(self, tracks: Set[int]) -> Iterator[Meeting]:
        """The deep ones that some of these tracks are in, in the order in which they began."""
        numbers = {row[MEETING] for row in self._members[: self._count].tolist() if row[TRACK] in tracks} - {0}
        return self._views(row for row in self._meetings.tolist() if row[IS_DEEP] and row[NUMBER] in numbers)

    def _views(self, rows: Iterable[list[int]]) -> Iterator[Meeting]:
        members = self._members[: self._count].tolist()
        for number, deep, _ in sorted(rows):
            own = [row for row in members if row[MEETING] == number]
            tracks, seen = {row[TRACK] for row in own}, {row[TRACK] for row in own if row[SEEN]}
            apart = {row[TRACK]: row[SINCE] for row in own if row[SINCE] >= 0}
            yield Meeting(number, tracks, seen, apart, bool(deep), self._said.setdefault(number, {}))

    def settle(self, meeting: Meeting) -> None:
        """It is known who is who."""
        members = self._members[: self._count]
        members[members[:, MEETING] == meeting.number, MEETING] = 0
        numbers = self._meetings[:, NUMBER]
        numbers[numbers == meeting.number] = 0
        self._said.pop(meeting.number, None)

    def update(self, tracks: Tracks) -> Scene:
        """Take the tracks of the next picture; pts never decrease."""
        room = self._count + len(tracks)
        if room > len(self._members):
            # What is there comes first, and again in the rows to spare, where it does no harm; to meetings it would.
            self._members = np.resize(self._members, (2 * room, MEMBER_COLUMNS))
            self._places = np.resize(self._places, (2 * room, 4))
            more = np.zeros((2 * room - len(self._meetings), MEETING_COLUMNS), np.int64)
            self._meetings = np.concatenate([self._meetings, more])
        self._count, self._last_number, phase, hidden, deep, joined, hid = meet(
            self._members, self._places, self._count, self._meetings, self._last_number, tracks.pts,
            tracks.track_id, tracks.xyxy, tracks.class_id, _LIMITS,
        )  # fmt: skip
        if self._said:
            for old, new in joined.tolist():
                self._said.setdefault(new, {}).update(self._said.pop(old, {}))
            for number, track in hid.tolist():
                said = self._said.get(number, {})
                for key in [key for key in said if key[0] == track]:
                    del said[key]
            there = set(self._meetings[:, NUMBER].tolist())
            for number in self._said.keys() - there:
                del self._said[number]
        return Scene(phase, hidden, deep)
