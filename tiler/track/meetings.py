"""Meetings: when the tracks of one stream may have been exchanged, and when somebody should look who is who.

A state machine with hysteresis. Each track of a picture is in one phase:

    ALONE  --another comes close-->  NEAR  --their boxes share a part-->  MEETING  --none do-->  PARTED
      ^                                                                                            |
      +--------------------- it was but a brush, is settled, or took too long --------------------+

Tracks in one meeting are in it together: each who touches one of them joins, and who is lost while touching is
thought to stay in its place. It is *deep* once a box was hidden so far behind another, or a track was lost so, that a
tracker that knows motion only may have exchanged them. Who has parted leaves: at once if the meeting never was deep,
else when it is settled who is who, or after `PATIENCE_S`.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tiler.kernels import meetings_cpu
from tiler.kernels.meetings_cpu import MEETING_COLUMNS, MEMBER_COLUMNS, SAID_COLUMNS, meet
from tiler.types import CLOCK_HZ, Bool, Tracks

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

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
    """Those of one stream. Deterministic; two instances share nothing.

    Attributes:
        rows: (capacity, MEETING_COLUMNS) int64, of `kernels/meetings_cpu.py`.
        said, says, said_count: what crops have said of who is who in those that are deep; likewise.
    """

    def __init__(self) -> None:
        self._members, self._places = np.zeros((0, MEMBER_COLUMNS), np.int64), np.zeros((0, 4), np.float32)
        self.rows = np.zeros((0, MEETING_COLUMNS), np.int64)
        self._count = self._last_number = 0
        self.said, self.says, self.said_count = np.zeros((0, SAID_COLUMNS), np.int64), np.zeros(0), 0

    @property
    def members(self) -> Int64:
        """(n, MEMBER_COLUMNS) int64: who is in one, or was until it was settled."""
        return self._members[: self._count]

    def update(self, tracks: Tracks) -> Scene:
        """Take the tracks of the next picture; pts never decrease."""
        room = self._count + len(tracks)
        if room > len(self._members):
            # What is there comes first, and again in the rows to spare, where it does no harm; to meetings it would.
            self._members = np.resize(self._members, (2 * room, MEMBER_COLUMNS))
            self._places = np.resize(self._places, (2 * room, 4))
            more = np.zeros((2 * room - len(self.rows), MEETING_COLUMNS), np.int64)
            self.rows = np.concatenate([self.rows, more])
        self._count, self._last_number, self.said_count, phase, hidden, deep = meet(
            self._members, self._places, self._count, self.rows, self._last_number,
            self.said, self.says, self.said_count, tracks.pts, tracks.track_id, tracks.xyxy, tracks.class_id, _LIMITS,
        )  # fmt: skip
        return Scene(phase, hidden, deep)

    def reserve(self, more: int) -> None:
        """Room for so much more that is said."""
        if self.said_count + more > len(self.says):
            room = 2 * (self.said_count + more)
            self.said, self.says = np.resize(self.said, (room, SAID_COLUMNS)), np.resize(self.says, room)
