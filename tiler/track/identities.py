"""Identities: who the tracks of a stream are, by what they look like.

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

from tiler.crowd import Int64, TrackBatch
from tiler.kernels.identities_cpu import identify
from tiler.kernels.people_cpu import COUNTS, NEW, NEW_COLUMNS, PERSON_COLUMNS
from tiler.track.base import grown
from tiler.track.meetings import Meetings, Scene
from tiler.types import APPEARANCE, CLOCK_HZ, Bool, Float32


class Identities:
    """Those of some streams. Deterministic; not thread-safe; no stream knows of another.

    Attributes:
        counts: (streams, COUNTS) int64 of `kernels/people_cpu.py`: people there are, exchanges, and who has returned.

    Args:
        memory_s: seconds for which somebody away is remembered; no shorter than the tracker remembers a lost track,
            and than a meeting does (`GHOST_S`).
        streams: how many there may be at once.
    """

    def __init__(self, memory_s: float, streams: int = 1) -> None:
        self._memory = round(memory_s * CLOCK_HZ)
        self._people = np.zeros((streams, 0, PERSON_COLUMNS), np.int64)
        self._galleries = np.zeros((streams, 2, 0, APPEARANCE))
        self._new, self._new_means = np.zeros((streams, 0, NEW_COLUMNS), np.int64), np.zeros((streams, 0, APPEARANCE))
        self.counts = np.zeros((streams, COUNTS), np.int64)
        self._most = 0, 0   # people and newcomers that a stream ever had

    def begin(self, stream: int) -> None:
        """Another source's tracks come from now on: nobody is known."""
        self.counts[stream] = 0

    @property
    def new(self) -> tuple[Int64, Int64]:
        """The tracks of each stream that still wait to be told from those who are away, in the first column; and how
        many they are."""
        return self._new, self.counts[:, NEW].copy()

    def update(
        self, tracks: TrackBatch, scene: Scene, meetings: Meetings, known: Bool, vectors: Float32
    ) -> TrackBatch:
        """The tracks of the next pictures under the ids of who they are, and in their order.

        Args:
            tracks: as the tracker gives them.
            scene: what `meetings` says of these pictures.
            meetings: those whose people are known leave it.
            known: (n,) bool, which tracks were looked at.
            vectors: (as many, APPEARANCE) float32, what they look like.
        """
        people, new = (most + tracks.most for most in self._most)
        if people > self._people.shape[1]:
            self._people = grown(self._people, 2 * people)
            self._galleries = grown(self._galleries, 2 * people, axis=2)
        if new > self._new.shape[1]:
            self._new, self._new_means = grown(self._new, 2 * new), grown(self._new_means, 2 * new)
        meetings.reserve(tracks.most * (people + 1))
        most_people, most_new, most_said, *columns = identify(
            tracks.streams, tracks.pts, tracks.ends, *tracks[4:], known, vectors, scene.phase, scene.deep,
            meetings.members, meetings.rows, meetings.counts, meetings.said, meetings.says,
            self._people, self._galleries, self._new, self._new_means, self.counts, self._memory,
        )  # fmt: skip
        self._most = max(self._most[0], most_people), max(self._most[1], most_new)
        meetings.most_said = max(meetings.most_said, most_said)
        return TrackBatch(*tracks[:4], *columns)
