"""Identities: who the tracks of one stream are, by what they look like.

A tracker that knows motion only may exchange two people who meet, and takes somebody who comes back for somebody
new. The ids it gives are therefore names that can be passed on: here is a permutation of them, so that no two
tracks ever have one. Each identity has a *gallery*, a mean of the crops taken while it was apart from others.

* After a meeting (`tiler/track/meetings.py`) every crop says how much more it is like one of their galleries than
  like the others, and what it says is of bounded weight. When another pairing of tracks and identities leads the
  present one by `_LEAD`, they are exchanged; when the present one leads every other, the meeting is settled.
* A track that begins is compared with those who are away. The more it is like one of them, and
  the less like the next or like strangers are, the fewer crops it takes; after `_CROPS` it is somebody new.

What is not seen, or not clearly, is no evidence: then everything stays as the tracker has it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import compress

import numpy as np
import numpy.typing as npt

from tiler.kernels.assign_cpu import best_pairs, lead, total
from tiler.kernels.looks_cpu import in_order
from tiler.track.gallery import Gallery, cosines, units
from tiler.track.meetings import Meeting, Meetings, Phase, Scene
from tiler.types import CLOCK_HZ, Appearance, Float32, Int32, Tracks

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

_SHARPNESS, _MOST = 4.0, 1.0
"""Weight of a difference of two cosines, and the most that a crop says for or against an identity."""
_BASE = 1000.0
"""Worth of a pair: more than all that can be said against it."""
_LEAD = 10.0
_ROUNDING = 1e-6
"""More than sums of such numbers are off."""
_CROPS = 4
"""Who is not recognised by so many crops is somebody new."""
_SURE = 0.4
"""By how much the cosine to the most alike gallery must lead the next, or a stranger's: one crop by this much, two by
half of it."""
_NEW_S = 2.0
"""Who has not been seen clearly for so long is taken for somebody new."""
_STRANGER = 0.6
"""Cosine that a stranger is thought to have."""
_THERE = 0.2
"""Who begins in a meeting is mostly one who was lost there: their cosines count for so much more."""
_ENOUGH = 3
"""Crops that a gallery must have been made of to be compared with."""
_MOST_AWAY = 256
"""Of so many who are away it is remembered what they looked like."""

_NOBODY = np.empty(0, np.int64)
_FOR_EVER = 1 << 62


@dataclass(eq=False)
class _Person:
    """An identity: when it was seen last, and what it looked like."""

    class_id: int
    seen: int
    gallery: Gallery = field(default_factory=Gallery)

    @property
    def known(self) -> bool:
        return self.gallery.crops >= _ENOUGH


@dataclass(eq=False)
class _New:
    """A track of which it is not known whether it is somebody who was away."""

    since: int
    gallery: Gallery = field(default_factory=Gallery)


class Identities:
    """Those of one stream. Deterministic; not thread-safe; two instances share nothing.

    Attributes:
        exchanged: how often people were given back their ids after a meeting.
        returned: how often somebody was, after being away.

    Args:
        memory_s: seconds for which somebody away is remembered; no shorter than the tracker remembers a lost track,
            and than a meeting does (`GHOST_S`).
    """

    def __init__(self, memory_s: float) -> None:
        self.exchanged = self.returned = 0
        self._memory = round(memory_s * CLOCK_HZ)
        self._id_of: dict[int, int] = {}
        self._track_of: dict[int, int] = {}
        self._people: dict[int, _Person] = {}
        self._new: dict[int, _New] = {}
        # Of the last picture that changed anything, which most do not: its tracks, the pts until which nothing changes
        # while they stay, nobody is looked at and these rows stay in their meetings, their ids, and in which order
        # these ascend.
        self._there: list[int] = []
        self._still_until = -1
        self._deep_rows: list[int] = []
        self._ids: Int32 | None = None
        self._order: Int64 | None = None
        self._pts = 0
        self._kept_until = 0  # nobody has been away for too long before that
        self._away_now: dict[int, dict[int, _Person]] = {}  # by class, in the picture that is worked on

    @property
    def new(self) -> Int64:
        """The tracks that still wait to be told from those who are away."""
        return np.array(list(self._new), np.int64) if self._new else _NOBODY

    def of(self, track: int) -> int:
        """The identity of a track."""
        return self._id_of.get(track, track)

    def update(self, tracks: Tracks, scene: Scene, meetings: Meetings, looks: Appearance) -> Tracks:
        """The tracks of the next picture under the ids of who they are, and in their order.

        Args:
            tracks: as the tracker gives them.
            scene: what `meetings` says of this picture.
            looks: of those tracks, row by row.
        """
        there = tracks.track_id.tolist()
        if (
            there != self._there
            or tracks.pts > self._still_until
            or True in looks.known.tolist()  # quicker than NumPy, which would let go of the interpreter
            or not all(scene.deep[row] for row in self._deep_rows)
        ):
            self._catch_up()
            self._change(there, tracks, scene, meetings, looks)
        self._pts = tracks.pts
        return self._named(tracks)

    def _change(
        self, there: list[int], tracks: Tracks, scene: Scene, meetings: Meetings, looks: Appearance
    ) -> None:
        """A picture in which somebody comes, goes or is looked at."""
        rows = {track: row for row, track in enumerate(there)}
        self._away_now.clear()
        self._meet(rows, tracks)
        seen = dict(compress(rows.items(), looks.known.tolist()))
        settled: set[int] = set()
        if seen:
            for meeting in meetings.deep(seen.keys()):
                self._hear(meeting, rows, seen, looks)
                if self._decide(meeting, rows):
                    meetings.settle(meeting)
                    settled |= meeting.tracks
        deep = {track for track in compress(there, scene.deep.tolist()) if track not in settled}
        self._greet(rows, seen, deep, tracks, looks)
        phases = scene.phase.tolist()
        for track, row in seen.items():
            if phases[row] < Phase.MEETING and track not in self._new:
                self._people[self.of(track)].gallery.feed(looks.vectors[row])
        self._there = there
        self._ids = self._order = None
        if self._id_of:
            self._ids = np.array([self.of(track) for track in there], np.int32)
            ids = self._ids.tolist()
            if ids != sorted(ids):
                self._order = np.array(sorted(range(len(ids)), key=ids.__getitem__), np.int64)

    def _catch_up(self) -> None:
        """The pictures since the last change have shown the same people."""
        for track in self._there:
            self._people[self.of(track)].seen = self._pts
        self._forget(self._there, self._pts)

    def _named(self, tracks: Tracks) -> Tracks:
        """The tracks under the ids of the last change."""
        if self._ids is None:  # nobody has another's id
            return tracks
        if (order := self._order) is None:
            return Tracks(tracks.pts, self._ids, tracks.xyxy, tracks.score, tracks.class_id, tracks.slot)
        return Tracks(
            tracks.pts, *in_order(order, self._ids, tracks.xyxy, tracks.score, tracks.class_id, tracks.slot)
        )

    def _meet(self, rows: dict[int, int], tracks: Tracks) -> None:
        """Take note of who is there."""
        pts, people, id_of = tracks.pts, self._people, self._id_of
        for track, row in rows.items():
            who = id_of.get(track, track)
            if who in people:
                people[who].seen = pts
            else:
                people[who] = _Person(int(tracks.class_id[row]), pts)
                self._new[track] = _New(pts)

    # Meetings

    def _hear(self, meeting: Meeting, rows: dict[int, int], seen: dict[int, int], looks: Appearance) -> None:
        """Add up what the crops of this picture say of a meeting."""
        met = [who for who in map(self.of, sorted(meeting.tracks)) if self._knows(who)]
        galleries = units([self._people[who].gallery for who in met])
        said = meeting.said
        for track in sorted(meeting.tracks.intersection(seen)):
            crop = looks.vectors[seen[track]]
            alike = dict(zip(met, cosines(crop, galleries).tolist(), strict=True))
            if track in self._new:
                alike = {who: value + _THERE for who, value in alike.items()}
                away = self._away(track, rows)
                alike |= _likeness(crop, {who: person for who, person in away.items() if who not in alike})
                alike[self.of(track)] = _STRANGER
            mean = sum(alike.values()) / max(len(alike), 1)
            for who, value in alike.items():
                says = min(max(_SHARPNESS * (value - mean), -_MOST), _MOST)
                said[track, who] = said.get((track, who), 0.0) + says

    def _decide(self, meeting: Meeting, rows: dict[int, int]) -> bool:
        """Exchange the people of a meeting once the evidence leads by enough; whether it speaks for who they are."""
        here = sorted(meeting.tracks.intersection(rows))
        met = [self.of(track) for track in here + sorted(meeting.tracks.difference(rows))]
        come = {track: self._away(track, rows) for track in here if track in self._new}
        others = sorted(set().union(*come.values()).difference(met)) if come else []
        whose, said = met + others, meeting.said
        worth = [
            [_BASE + said.get((track, who), 0.0) for who in met]
            + [_BASE + said.get((track, who), 0.0) if who in come.get(track, ()) else 0.0 for who in others]
            for track in here
        ]
        # No pairing is worth more than each track's best identity: mostly that does not lead, and is told soon.
        may_lead = sum(max(row) - row[k] for k, row in enumerate(worth)) >= _LEAD - _ROUNDING
        parted = meeting.parted and len(whose) > 1
        if not may_lead and not parted:
            return False
        gain, now = np.array(worth), np.arange(len(here))
        best = best_pairs(gain)
        if total(gain, best) - total(gain, now) >= _LEAD:
            tracks = [self._track_of.get(who, who) for who in whose]
            rest = [who for k, who in enumerate(whose) if k not in best.tolist()]
            self._pass_on(tracks, [whose[k] for k in best.tolist()] + rest)
            self.exchanged += 1
            for track in here:
                if self._knows(self.of(track)):
                    self._new.pop(track, None)
            return False
        return parted and lead(gain, now) >= _LEAD

    def _knows(self, who: int) -> bool:
        return who in self._people and self._people[who].known

    def _away(self, track: int, rows: dict[int, int]) -> dict[int, _Person]:
        """Whom a track that begins could be: those known who are not in the picture."""
        class_id = self._people[self.of(track)].class_id
        away = self._away_now.get(class_id)
        if away is None:
            here = {self.of(other) for other in rows}
            away = {k: p for k, p in self._people.items() if p.class_id == class_id and k not in here and p.known}
            self._away_now[class_id] = away
        return away

    # Those who come, and come back

    def _greet(
        self, rows: dict[int, int], seen: dict[int, int], deep: set[int], tracks: Tracks, looks: Appearance
    ) -> None:
        """Tell those who begin from those who are away."""
        self._still_until, self._deep_rows = _FOR_EVER, []
        for track in [track for track in self._new if track in rows]:
            if track in deep:
                self._deep_rows.append(rows[track])
                continue  # who met there comes first
            new = self._new[track]
            if track in seen:
                new.gallery.feed(looks.vectors[seen[track]])
            away = self._away(track, rows)
            who = self._recognise(new, away) if track in seen else None
            waits = new.gallery.crops < _CROPS and tracks.pts - new.since <= _NEW_S * CLOCK_HZ
            if away and who is None and waits:
                self._still_until = min(self._still_until, new.since + round(_NEW_S * CLOCK_HZ), self._kept_until)
                continue
            del self._new[track]
            if who is not None:
                self._pass_on([track, self._track_of.get(who, who)], [who, self.of(track)])
                self._people[who].seen = tracks.pts
                self.returned += 1
            if new.gallery.crops:
                self._people[self.of(track)].gallery.feed(new.gallery.mean, new.gallery.crops)

    @staticmethod
    def _recognise(new: _New, away: dict[int, _Person]) -> int | None:
        """Which of those away it is; None: none of them."""
        if not away:
            return None
        alike = sorted(((value, who) for who, value in _likeness(new.gallery.unit, away).items()), reverse=True)
        next_best = max(_STRANGER, alike[1][0] if len(alike) > 1 else _STRANGER)
        return alike[0][1] if (alike[0][0] - next_best) * new.gallery.crops >= _SURE else None

    def _pass_on(self, tracks: list[int], ids: list[int]) -> None:
        """Give these tracks those ids, which are theirs in another order."""
        self._away_now.clear()
        for track, who in zip(tracks, ids, strict=True):
            self._id_of[track], self._track_of[who] = who, track

    def _forget(self, there: list[int], pts: int) -> None:
        """Let go of those who have been away for too long, and of the longest away when they are many."""
        away = len(self._people) - len(there)
        if not away or (away <= _MOST_AWAY and pts <= self._kept_until):
            return
        self._kept_until = min(person.seen for person in self._people.values()) + self._memory
        if away <= _MOST_AWAY and pts <= self._kept_until:
            return
        here = {self.of(track) for track in there}
        longest = sorted((person.seen, who) for who, person in self._people.items() if who not in here)
        for k, (seen, who) in enumerate(longest):
            if pts - seen > self._memory:
                del self._people[who]
                track = self._track_of.pop(who, who)
                self._id_of.pop(track, None)
                self._new.pop(track, None)
            elif k < away - _MOST_AWAY and self._people[who].gallery.crops:
                self._people[who] = _Person(self._people[who].class_id, seen)


def _likeness(crop: Float32 | Float64, people: dict[int, _Person]) -> dict[int, float]:
    """The cosine of a crop, or of a mean of some, of length 1, and the gallery of each."""
    values = cosines(crop, units([person.gallery for person in people.values()]))
    return dict(zip(people, values.tolist(), strict=True))
