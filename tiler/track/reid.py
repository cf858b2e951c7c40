"""Conditional ReID: who is looked at, when, and what comes of it. All streams of a run.

    tracks of each stream --> whom to look at --> one batch on the device --> ids given back
                                                                  |
                                                                  +--> slots

To look costs little, but not nothing, and a look at somebody half hidden is worse than none. So a crop is taken only
of who begins, is near or parts from others, in the time that `_EVERY_S` says, of whom the slots want to know, and now
and then of everybody else.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from tiler.config.models import TrackerConfig
from tiler.crowd import Int64, TrackBatch, slices
from tiler.kernels.choose_cpu import (
    DUTY_COLUMNS,
    LOOKED_COLUMNS,
    PICTURES,
    TAKEN,
    TRACKS,
    WITH_CROPS,
    choose,
)
from tiler.kernels.looks_cpu import spread
from tiler.kernels.people_cpu import EXCHANGED, RETURNED
from tiler.track.base import Embedder, Vectors, grown
from tiler.track.identities import Identities
from tiler.track.meetings import GHOST_S, Meetings, Scene
from tiler.types import APPEARANCE, CLOCK_HZ, Appearance, Bool, Float32, Frame

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


@dataclass(frozen=True, slots=True)
class Duty:
    """How much was looked at in one stream.

    Attributes:
        pictures: in which the detector ran.
        looked: of those, in how many a crop was taken.
        tracks: people in all those pictures, summed.
        crops: of those, how many were looked at.
        exchanged: meetings after which people were given back their ids.
        returned: tracks that were given back the id of somebody who had been away.
    """

    pictures: int = 0
    looked: int = 0
    tracks: int = 0
    crops: int = 0
    exchanged: int = 0
    returned: int = 0

    def report(self) -> dict[str, float | int]:
        """As the run's report shows it."""
        return {
            "duty": round(self.looked / self.pictures, 4) if self.pictures else 0.0,
            "crops": self.crops,
            "crops_of_tracks": round(self.crops / self.tracks, 4) if self.tracks else 0.0,
            "exchanged": self.exchanged,
            "returned": self.returned,
        }


class Looks(NamedTuple):
    """What is known of the tracks of some pictures.

    Attributes:
        scene: who meets whom.
        known: (n,) bool, who was looked at.
        vectors: (as many, APPEARANCE) float32, what they look like.
    """

    scene: Scene
    known: Bool
    vectors: Float32

    def pictures(self, tracks: TrackBatch) -> list[Appearance]:
        """The looks of the tracks of each picture."""
        vectors = np.zeros((len(self.known), APPEARANCE), np.float32)
        spread(self.vectors, self.known, vectors)
        return [Appearance(vectors[own], self.known[own]) for own in slices(tracks.ends)]


Looking = Callable[[], Looks]
"""Waits for the looks of the tracks of some pictures."""


class ReId:
    """Knows people again, in all streams. One thread calls it.

    Args:
        embedder: looks at them; it is closed with this.
        streams: how many there may be at once.
        config: for how long somebody away is remembered.
    """

    def __init__(self, embedder: Embedder, streams: int, config: TrackerConfig) -> None:
        self._embedder = embedder
        self._meetings = Meetings(streams)
        self._identities = Identities(max(config.memory_s, config.lost_s, GHOST_S), streams)
        self._looked = np.zeros((streams, 0, LOOKED_COLUMNS), np.int64)
        self._duty = np.zeros((streams, DUTY_COLUMNS), np.int64)
        self._most = 0   # tracks of a stream that were ever known to have been looked at
        nobody = TrackBatch.empty()
        self.recognise(nobody, self.look((), nobody, ()))  # the first picture must not wait for a compiler

    def duty(self, stream: int) -> Duty:
        """How much was looked at whom, so far."""
        looked, found = self._duty[stream].tolist(), self._identities.counts[stream].tolist()
        counted = looked[PICTURES], looked[WITH_CROPS], looked[TRACKS], looked[TAKEN]
        return Duty(*counted, found[EXCHANGED], found[RETURNED])

    def begin(self, stream: int) -> None:
        """Another source's pictures come from now on: nobody of the last one's is known."""
        self._meetings.begin(stream)
        self._identities.begin(stream)
        self._duty[stream] = 0

    def submit(
        self,
        frames: Sequence[Frame],
        tracks: TrackBatch,
        detected: Sequence[bool],
        wanted: Sequence[Collection[int]] = (),
    ) -> Looking:
        """Begin to look at the tracks of the next pictures of some streams: one batch for all.

        Args:
            frames: the pictures.
            tracks: as the tracker gives them, of these pictures.
            detected: the detector ran for the picture: predicted boxes are not looked at.
            wanted: of each picture, tracks that somebody else wants to know the looks of; () for nobody.

        Returns:
            What waits for their looks. To be called once, before the next are submitted.
        """
        scene = self._meetings.update(tracks)
        room = self._most + tracks.most
        if room > self._looked.shape[1]:
            self._looked = grown(self._looked, 2 * room)
        widths = [float(frame.picture_size[0]) if ran else 0.0 for frame, ran in zip(frames, detected, strict=True)]
        most, counts, known, boxes = choose(
            tracks.streams, tracks.pts, tracks.ends, tracks.track_id, tracks.xyxy, np.array(widths), *scene,
            *self._identities.new, *_laid_out(wanted, len(frames)), self._looked, self._duty, _RULES,
        )  # fmt: skip
        self._most = max(self._most, most)
        vectors: Vectors | None = None
        if len(boxes):
            each = zip(frames, counts.tolist(), accumulate(counts.tolist()), strict=True)
            vectors = self._embedder.submit([(frame, boxes[end - n : end]) for frame, n, end in each if n])
        return lambda: Looks(scene, known, vectors() if vectors is not None else _NOBODY)

    def look(
        self,
        frames: Sequence[Frame],
        tracks: TrackBatch,
        detected: Sequence[bool],
        wanted: Sequence[Collection[int]] = (),
    ) -> Looks:
        """What is known of the looks of these tracks: `submit` and what it gives."""
        return self.submit(frames, tracks, detected, wanted)()

    def recognise(self, tracks: TrackBatch, looks: Looks) -> TrackBatch:
        """The tracks that were looked at under the ids of who they are, and in their order."""
        return self._identities.update(tracks, looks.scene, self._meetings, looks.known, looks.vectors)

    def close(self) -> None:
        """Free what is on the device; may be called twice."""
        self._embedder.close()


def _laid_out(wanted: Sequence[Collection[int]], pictures: int) -> tuple[Int64, Int64]:
    """Who is wanted, one picture after the other, and where those of each end."""
    if not any(wanted):
        return np.zeros(0, np.int64), np.zeros(pictures, np.int64)
    each = [list(own) for own in wanted]
    ends = np.cumsum([len(own) for own in each], dtype=np.int64)
    return np.array([track for own in each for track in own], np.int64), ends


_NOBODY: Float32 = np.empty((0, APPEARANCE), np.float32)
