"""Identities: who the tracks of one stream are, by what they look like.

A tracker that knows motion only may exchange two people who meet, and takes somebody who comes back for somebody
new. The ids it gives are therefore names that can be passed on: here is a permutation of them, so that no two
tracks ever have one. Each identity has a *gallery*, a mean of the crops taken while it was apart from others.

* After a meeting (`tiler/track/meetings.py`) every crop says how much more it is like one of their galleries than
  like the others, and what it says is of bounded weight. When another pairing of tracks and identities leads the
  present one by `LEAD`, they are exchanged; when the present one leads every other, the meeting is settled.
* A track that begins is compared with those who are away. The more it is like one of them, and
  the less like the next or like strangers are, the fewer crops it takes; after `FEW_CROPS` it is somebody new.

What is not seen, or not clearly, is no evidence: then everything stays as the tracker has it.

It is worked out in `kernels/identities_cpu.py`, compiled; here is what is remembered from picture to picture.
"""

from __future__ import annotations

import numpy as np

from tiler.kernels.identities_cpu import identify
from tiler.kernels.people_cpu import COUNTS, NEW, NEW_COLUMNS, PEOPLE, PERSON_COLUMNS
from tiler.track.meetings import Int64, Meetings, Scene
from tiler.types import APPEARANCE, CLOCK_HZ, Appearance, Tracks


class Identities:
    """Those of one stream. Deterministic; not thread-safe; two instances share nothing.

    Attributes:
        counts: (COUNTS,) int64 of `kernels/people_cpu.py`: how many there are, were exchanged and have returned.

    Args:
        memory_s: seconds for which somebody away is remembered; no shorter than the tracker remembers a lost track,
            and than a meeting does (`GHOST_S`).
    """

    def __init__(self, memory_s: float) -> None:
        self._memory = round(memory_s * CLOCK_HZ)
        self._people, self._new = np.zeros((0, PERSON_COLUMNS), np.int64), np.zeros((0, NEW_COLUMNS), np.int64)
        self._galleries, self._new_means = np.zeros((2, 0, APPEARANCE)), np.zeros((0, APPEARANCE))
        self.counts = np.zeros(COUNTS, np.int64)

    @property
    def new(self) -> tuple[Int64, int]:
        """The tracks that still wait to be told from those who are away, in the first column; and how many they are."""
        return self._new, int(self.counts[NEW])

    def update(self, tracks: Tracks, scene: Scene, meetings: Meetings, looks: Appearance) -> Tracks:
        """The tracks of the next picture under the ids of who they are, and in their order.

        Args:
            tracks: as the tracker gives them.
            scene: what `meetings` says of this picture.
            meetings: those whose people are known leave it.
            looks: of those tracks, row by row.
        """
        n, people, new = len(tracks), int(self.counts[PEOPLE]), int(self.counts[NEW])
        if people + n > len(self._people) or new + n > len(self._new):
            self._reserve(people + n, new + n)
        meetings.reserve(n * (people + n + 1))
        *columns, meetings.said_count = identify(
            tracks.pts, tracks.track_id, tracks.xyxy, tracks.score, tracks.class_id, tracks.slot, looks.known,
            looks.vectors, scene.phase, scene.deep, meetings.members, meetings.rows, meetings.said, meetings.says,
            meetings.said_count, self._people, self._galleries, self._new, self._new_means, self.counts, self._memory,
        )  # fmt: skip
        return Tracks(tracks.pts, *columns)

    def _reserve(self, people: int, new: int) -> None:
        """Room for so many people and newcomers."""
        if people > len(self._people):
            self._people = np.resize(self._people, (2 * people, PERSON_COLUMNS))
            grown = np.zeros((2, 2 * people, APPEARANCE))
            grown[:, : self._galleries.shape[1]] = self._galleries
            self._galleries = grown
        if new > len(self._new):
            self._new = np.resize(self._new, (2 * new, NEW_COLUMNS))
            self._new_means = np.resize(self._new_means, (2 * new, APPEARANCE))
