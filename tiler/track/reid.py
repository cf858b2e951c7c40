"""Conditional ReID: who is looked at, when, and what comes of it. All streams of a run.

    tracks of each stream --> whom to look at --> one batch on the device --> ids given back
                                                                  |
                                                                  +--> slots

To look costs little, but not nothing, and a look at somebody half hidden is worse than none. So a crop is taken only
of who begins, is near or parts from others, in the time that `_EVERY_S` says, of whom the slots want to know, and now
and then of everybody else.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

import numpy as np

from tiler.config.models import TrackerConfig
from tiler.kernels.assign_cpu import lead
from tiler.track.base import Embedder
from tiler.track.identities import Identities
from tiler.track.meetings import GHOST_S, Meetings, Phase, Scene
from tiler.types import APPEARANCE, CLOCK_HZ, Appearance, Bool, Frame, Tracks

_EVERY_S: dict[int, float] = {Phase.ALONE: 2.0, Phase.NEAR: 0.8, Phase.MEETING: 0.4, Phase.PARTED: 0.06}
_NEW_EVERY_S, _NEW_CROPS = 0.06, 3
"""Seconds between two crops of a track in each phase; and of one that begins, so many crops, or until it is known."""
_WANTED_EVERY_S = 0.06
"""As often is looked at whom the slots want to know."""
_WITH = 0.5
"""Who has waited for this part of the pause is looked at when another is, so that fewer pictures have crops."""
_CLEAR = 0.3
"""A crop that somebody nearer covers by more than this part is none."""
_EDGE = 0.005
"""Who is this part of the picture's width from its left or right end is cut off by it."""


@dataclass
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
        Meetings().update(Tracks.empty())  # the first picture must not wait for a compiler
        lead(np.zeros((1, 1)), np.zeros(1, np.int64))

    @property
    def duties(self) -> list[Duty]:
        """Of each stream."""
        return [stream.duty for stream in self._streams]

    def begin(self, stream: int) -> Duty:
        """Another source's pictures come from now on: nobody of the last one's is known. How much is looked at whom."""
        self._streams[stream] = _Stream(self._memory_s)
        return self._streams[stream].duty

    def look(self, seen: Sequence[Sight]) -> list[Appearance]:
        """What is known of the looks of these tracks, row by row: one batch for some streams."""
        rows = [self._streams[now.frame.stream].ask(now) for now in seen]
        crops = [(now.frame, now.tracks.xyxy[own]) for now, own in zip(seen, rows, strict=True) if own.any()]
        vectors = self._embedder.embed(crops) if crops else _NONE
        known, end = [], 0
        for own in rows:
            start, end = end, end + int(own.sum())
            looks = Appearance(np.zeros((len(own), APPEARANCE), np.float32), own)
            looks.vectors[own] = vectors[start:end]
            known.append(looks)
        return known

    def recognise(self, stream: int, tracks: Tracks, looks: Appearance) -> Tracks:
        """The tracks that were looked at under the ids of who they are, and in their order."""
        return self._streams[stream].tell(tracks, looks)

    def close(self) -> None:
        """Free what is on the device; may be called twice."""
        self._embedder.close()


class _Stream:
    """One stream: asks for crops, then is told what they look like."""

    def __init__(self, memory_s: float) -> None:
        self.duty = Duty()
        self._meetings = Meetings()
        self._identities = Identities(memory_s)
        self._scene: Scene | None = None
        self._looked: dict[int, tuple[int, int]] = {}  # by track: pts of the last crop, and how many there were

    def ask(self, now: Sight) -> Bool:
        """(n,) the tracks to look at."""
        frame, tracks, detected, wanted = now
        self._scene = self._meetings.update(tracks)
        rows = np.zeros(len(tracks), np.bool_)
        if not detected:
            return rows
        width = frame.picture_size[0]
        clear = (self._scene.hidden <= _CLEAR) & (tracks.xyxy[:, 0] > _EDGE * width)
        clear &= tracks.xyxy[:, 2] < (1 - _EDGE) * width
        due = np.zeros(len(tracks))  # part of the pause that is over
        phases = self._scene.phase.tolist()
        for row, track in enumerate(tracks.track_id.tolist()):
            last, crops = self._looked.get(track, (None, 0))
            pause = min(self._pause(track, phases[row], crops), _WANTED_EVERY_S if track in wanted else inf)
            due[row] = inf if last is None else (tracks.pts - last) / (pause * CLOCK_HZ)
        if (clear & (due >= 1)).any():
            rows = clear & (due >= _WITH)
        looked = {k: self._looked[k] for k in tracks.track_id.tolist() if k in self._looked}
        for track in tracks.track_id[rows].tolist():
            looked[track] = tracks.pts, looked.get(track, (None, 0))[1] + 1
        self._looked = looked
        self.duty.pictures += 1
        self.duty.tracks += len(tracks)
        self.duty.crops += int(rows.sum())
        self.duty.looked += bool(rows.any())
        return rows

    def _pause(self, track: int, phase: int, crops: int) -> float:
        """Seconds from one crop to the next."""
        if phase == Phase.MEETING:
            meeting = self._meetings.of(track)
            return _EVERY_S[phase] if meeting is not None and meeting.deep else inf
        begins = crops < _NEW_CROPS or self._identities.is_new(track)
        return min(_EVERY_S[phase], _NEW_EVERY_S) if begins else _EVERY_S[phase]

    def tell(self, tracks: Tracks, looks: Appearance) -> Tracks:
        """The tracks by the ids of who they are."""
        assert self._scene is not None
        who = self._identities.update(tracks, self._scene, self._meetings, looks)
        self.duty.exchanged, self.duty.returned = self._identities.exchanged, self._identities.returned
        if who is not tracks and (who.track_id[1:] < who.track_id[:-1]).any():
            order = np.argsort(who.track_id)
            who = Tracks(who.pts, *(getattr(who, name)[order] for name in _COLUMNS))
        return who


_COLUMNS = ("track_id", "xyxy", "score", "class_id", "slot")
_NONE = np.empty((0, APPEARANCE), np.float32)
