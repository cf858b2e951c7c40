"""Conditional ReID: who is looked at, when, and what comes of it. All streams of a run.

    tracks of each stream --> whom to look at --> one batch on the device --> ids given back
                                                                  |
                                                                  +--> slots

To look costs little, but not nothing, and a look at somebody half hidden is worse than none. So a crop is taken only
of who begins, is near or parts from others, in the time that `_EVERY_S` says, of whom the slots want to know, and now
and then of everybody else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from tiler.config.models import TrackerConfig
from tiler.kernels.looks_cpu import boxes_of, spread
from tiler.kernels.meetings_cpu import LOOKED_COLUMNS, choose
from tiler.kernels.people_cpu import EXCHANGED, RETURNED
from tiler.track.base import Embedder, Vectors
from tiler.track.identities import Identities
from tiler.track.meetings import GHOST_S, Int64, Meetings, Scene
from tiler.types import APPEARANCE, CLOCK_HZ, Appearance, Bool, Frame, Tracks

_EVERY_S = (2.0, 0.8, 0.4, 0.06)
_NEW_EVERY_S, _NEW_CROPS = 0.06, 3
"""Seconds between two crops of a track in each `Phase`; and of one that begins, so many crops, or until it is known."""
_WANTED_EVERY_S = 0.06
"""As often is looked at whom the slots want to know."""
_WITH = 0.5
"""Who has waited for this part of the pause is looked at when another is, so that fewer pictures have crops."""
_CLEAR = 0.3
"""A crop that somebody nearer covers by more than this part is none."""
_EDGE = 0.005
"""Who is this part of the picture's width from its left or right end is cut off by it."""
_TICKS = [s * CLOCK_HZ for s in (_NEW_EVERY_S, _WANTED_EVERY_S, *_EVERY_S)]
_RULES = np.array((_CLEAR, _EDGE, *_TICKS[:2], _NEW_CROPS, _WITH, *_TICKS[2:]))


@dataclass
class Duty:
    """How much was looked at in one stream.

    Attributes:
        counts: (COUNTS,) int64 of the stream's identities, which count for themselves.
        pictures: in which the detector ran.
        looked: of those, in how many a crop was taken.
        tracks: people in all those pictures, summed.
        crops: of those, how many were looked at.
        exchanged: meetings after which people were given back their ids.
        returned: tracks that were given back the id of somebody who had been away.
    """

    counts: Int64
    pictures: int = 0
    looked: int = 0
    tracks: int = 0
    crops: int = 0

    @property
    def exchanged(self) -> int:
        return int(self.counts[EXCHANGED])

    @property
    def returned(self) -> int:
        return int(self.counts[RETURNED])

    def report(self) -> dict[str, float | int]:
        """As the run's report shows it."""
        return {
            "duty": round(self.looked / self.pictures, 4) if self.pictures else 0.0,
            "crops": self.crops,
            "crops_of_tracks": round(self.crops / self.tracks, 4) if self.tracks else 0.0,
            "exchanged": self.exchanged,
            "returned": self.returned,
        }


Looks = Callable[[], list[Appearance]]
"""Waits for the looks of the tracks of some pictures."""


class Sight(NamedTuple):
    """The next picture of a stream.

    Attributes:
        frame: the picture.
        tracks: as the tracker gives them.
        detected: the detector ran for it: predicted boxes are not looked at.
        wanted: tracks that somebody else wants to know the looks of.
    """

    frame: Frame
    tracks: Tracks
    detected: bool
    wanted: Set[int] = frozenset()


class ReId:
    """Knows people again, in all streams. One thread calls it.

    Args:
        embedder: looks at them; it is closed with this.
        streams: how many there may be at once.
        config: for how long somebody away is remembered.
    """

    def __init__(self, embedder: Embedder, streams: int, config: TrackerConfig) -> None:
        self._embedder = embedder
        self._memory_s = max(config.memory_s, config.lost_s, GHOST_S)
        self._streams = [_Stream(self._memory_s) for _ in range(streams)]
        self._vectors = np.zeros((0, APPEARANCE), np.float32)
        self._compile()

    def _compile(self) -> None:
        """Now, as the first picture must not wait for it."""
        nobody = Tracks.empty()
        stream = _Stream(self._memory_s)
        known, _ = stream.ask(Sight(_NO_PICTURE, nobody, True))
        stream.tell(nobody, Appearance(self._vectors, known))
        spread(self._vectors, known, self._vectors, 0)
        boxes_of(nobody.xyxy, known, 0)

    @property
    def duties(self) -> list[Duty]:
        """Of each stream."""
        return [stream.duty for stream in self._streams]

    def begin(self, stream: int) -> Duty:
        """Another source's pictures come from now on: nobody of the last one's is known. How much is looked at whom."""
        self._streams[stream] = _Stream(self._memory_s)
        return self._streams[stream].duty

    def submit(self, seen: Sequence[Sight]) -> Looks:
        """Begin to look at these tracks: one batch for some streams.

        Returns:
            What gives, row by row, what is known of the looks of the tracks; valid until the next. To be called once,
            before `recognise` for any of them.
        """
        asked = [self._streams[now.frame.stream].ask(now) for now in seen]
        crops = [(now.frame, boxes_of(now.tracks.xyxy, own, n)) for now, (own, n) in zip(seen, asked, strict=True) if n]
        vectors = self._embedder.submit(crops) if crops else None
        return lambda: self._looks(asked, vectors)

    def look(self, seen: Sequence[Sight]) -> list[Appearance]:
        """What is known of the looks of these tracks: `submit` and what it gives."""
        return self.submit(seen)()

    def _looks(self, asked: list[tuple[Bool, int]], vectors: Vectors | None) -> list[Appearance]:
        ends = list(accumulate(len(own) for own, _ in asked))
        if ends and ends[-1] > len(self._vectors):
            self._vectors = np.zeros((2 * ends[-1], APPEARANCE), np.float32)
        if vectors is not None:
            found, begin = vectors(), 0
            for end, (own, n) in zip(ends, asked, strict=True):
                spread(found[begin : begin + n], own, self._vectors, end - len(own))
                begin += n
        return [
            Appearance(self._vectors[end - len(own) : end], own) for end, (own, _) in zip(ends, asked, strict=True)
        ]

    def recognise(self, stream: int, tracks: Tracks, looks: Appearance) -> Tracks:
        """The tracks that were looked at under the ids of who they are, and in their order."""
        return self._streams[stream].tell(tracks, looks)

    def close(self) -> None:
        """Free what is on the device; may be called twice."""
        self._embedder.close()


class _Stream:
    """One stream: asks for crops, then is told what they look like."""

    def __init__(self, memory_s: float) -> None:
        self._meetings = Meetings()
        self._identities = Identities(memory_s)
        self.duty = Duty(self._identities.counts)
        self._scene: Scene | None = None
        self._looked, self._count = np.zeros((0, LOOKED_COLUMNS), np.int64), 0

    def ask(self, now: Sight) -> tuple[Bool, int]:
        """(n,) the tracks to look at, and how many those are."""
        frame, tracks, detected, wanted = now
        self._scene = scene = self._meetings.update(tracks)
        if not detected:
            return np.zeros(len(tracks), np.bool_), 0
        if (room := self._count + len(tracks)) > len(self._looked):
            self._looked = np.resize(self._looked, (2 * room, LOOKED_COLUMNS))
        self._count, crops, chosen = choose(
            self._looked, self._count, tracks.pts, tracks.track_id, tracks.xyxy, float(frame.picture_size[0]),
            *scene, *self._identities.new, np.array(list(wanted), np.int64) if wanted else _NOBODY, _RULES,
        )  # fmt: skip
        self.duty.pictures += 1
        self.duty.tracks += len(tracks)
        self.duty.crops += crops
        self.duty.looked += crops > 0
        return chosen, crops

    def tell(self, tracks: Tracks, looks: Appearance) -> Tracks:
        """The tracks by the ids of who they are."""
        assert self._scene is not None
        return self._identities.update(tracks, self._scene, self._meetings, looks)


_NOBODY = np.empty(0, np.int64)
_NO_PICTURE = Frame(0, 0, *(np.zeros((1, 1), np.uint8),) * 3)
