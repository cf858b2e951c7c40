"""Meetings: when tracks of a stream may have been exchanged, and when somebody should look who is who.

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

from tiler.crowd import Int64, TrackBatch
from tiler.kernels import meetings_cpu
from tiler.kernels.meetings_cpu import COUNTS, MEETING_COLUMNS, MEMBER_COLUMNS, SAID_COLUMNS, meet
from tiler.track.base import grown
from tiler.types import CLOCK_HZ, Bool

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


class Scene(NamedTuple):
    """Some pictures, track by track.

    Attributes:
        phase: (n,) int64, a `Phase`.
        hidden: (n,) float64 in 0..1, the most of each box that somebody nearer covers.
        deep: (n,) bool, the track is in a deep meeting.
    """

    phase: Int64
    hidden: Float64
    deep: Bool


class Meetings:
    """Those of some streams. Deterministic; no stream knows of another.

    Attributes: of `kernels/meetings_cpu.py`, in the first place each the stream
        counts: (streams, COUNTS) int64.
        members: (streams, capacity, MEMBER_COLUMNS) int64: who is in one, or was until it was settled.
        rows: (streams, capacity, MEETING_COLUMNS) int64.
        said, says: what crops have said of who is who in those that are deep.
        most_said: how much was ever said in one stream; who says more sets it.
    """

    def __init__(self, streams: int = 1) -> None:
        """
        Args:
            streams: how many there may be at once.
        """
        self.counts = np.zeros((streams, COUNTS), np.int64)
        self.members = np.zeros((streams, 0, MEMBER_COLUMNS), np.int64)
        self._places = np.zeros((streams, 0, 4), np.float32)
        self.rows = np.zeros((streams, 0, MEETING_COLUMNS), np.int64)
        self.said, self.says = np.zeros((streams, 0, SAID_COLUMNS), np.int64), np.zeros((streams, 0))
        self._most = self.most_said = 0

    def begin(self, stream: int) -> None:
        """Another source's tracks come from now on."""
        self.counts[stream] = 0
        self.rows[stream] = 0

    def update(self, tracks: TrackBatch) -> Scene:
        """Take the tracks of the next pictures; pts of a stream never decrease."""
        room = self._most + tracks.most
        if room > self.members.shape[1]:
            self.members, self._places = grown(self.members, 2 * room), grown(self._places, 2 * room)
            self.rows = grown(self.rows, 2 * room)
        members, said, *scene = meet(
            tracks.streams, tracks.pts, tracks.ends, tracks.track_id, tracks.xyxy, tracks.class_id,
            self.members, self._places, self.rows, self.counts, self.said, self.says, _LIMITS,
        )  # fmt: skip
        self._most, self.most_said = max(self._most, members), max(self.most_said, said)
        return Scene(*scene)

    def reserve(self, more: int) -> None:
        """Room for so much more that is said."""
        room = self.most_said + more
        if room > self.says.shape[1]:
            self.said, self.says = grown(self.said, 2 * room), grown(self.says, 2 * room)
