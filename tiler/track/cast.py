"""Slots that stay with their people.

For each picture the best of all pairings of slots and tracks is taken, those that leave somebody
out among them (an assignment; with so few it is the same as trying each). A pair is worth a
constant, as everybody is one of the cast, less what speaks against it:

* motion: how far the track is from where the slot's person would be now, and how much larger or
  smaller, in deviations that grow with the time unseen. Who walks out of the picture is expected at
  the edge where they left; as time goes by it matters less and less;
* another id than that of the slot's last track;
* a track that was there while the slot's person was seen elsewhere;
* appearance: against the slot's gallery, a mean of what the person looked like while apart.

People who overlap, and people who are unseen at once, are in *doubt* together: when they part, or come
back, ids and motion do not say who is who. From then on the looks of their tracks against their
galleries are summed up, crop by crop, each of bounded weight, and join the worth of the pairs. A doubt
is settled when the best pairing leads every other by `_LEAD` and all are in view and apart; until it leads,
those people have no slot: a name that comes a few pictures late is better than another's. While somebody is
hidden, whoever is in view may turn out to be them, as a track may slide from one person to the other: so
evidence goes on, is bounded, and is forgotten for those who come so close that a tracker may exchange them.
Where there is no appearance, or it is heard and does not decide within `_PATIENCE_S`, motion decides. While
one box covers two and nobody can look, nothing does. Galleries are not fed in doubt, nor by who has just come
(`tiler/track/arrivals.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tiler.kernels.assign_cpu import best_pairs, lead
from tiler.kernels.cover_cpu import covers
from tiler.track.arrivals import MOST, SHARPNESS, Arrivals, Crop
from tiler.track.gallery import Gallery, cosines, units
from tiler.types import CLOCK_HZ, Appearance, Float32, Int32

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_BASE = 40.0
"""Worth of a pair: more than all that can speak against it."""
_NEW = 32.0
"""Worth of a pair with a slot that nobody has had yet."""
_SAME_ID = 8.0
_SAME_ID_IN_DOUBT = 0.5
"""Where people cross, what a tracker says is worth little."""
_ELSEWHERE = 6.0
_FARTHEST = 6.0
"""Most that motion can speak against a pair, and size alone half of it."""
_DRIFT_S = 0.5
"""Time constant with which somebody unseen is expected to stop."""
_SPREAD, _SPREAD_PER_S = 0.2, 0.8
"""Deviation of a place, in heights of the person: at once, and for each second unseen."""
_SIZE_SPREAD, _SIZE_SPREAD_PER_S = 0.15, 0.2
_SMOOTH_S = 0.25
"""Time constant of velocities."""
_HEIGHT_S, _SLIVER = 1.0, 0.6
"""As much for the usual height. Below this part of it a box is a sliver, as is the last one of who walks out."""
_FAR = 1e6
"""Pixels: nothing is farther off, so that a box of 1 pixel stays one."""

_TOUCH, _APART = 0.2, 0.05
"""Part of the smaller box that two share: above the first they overlap, below the second they have parted."""
_HIDING_S = 0.5
"""For so long somebody unseen is thought to be where they were going, and to overlap others."""
_DEEP = 0.5
"""Above this part the tracker may exchange them."""
_CLEAR = 0.3
"""A crop that another covers by more than this part is no evidence."""

_MOST_SAID = 8.0
"""Bound of the sum of a track's crops: with another person in its place, it turns within some ten crops."""
_LEAD = 9.0
"""A pairing is sure when it leads by this: five crops of one person, or three of two."""
_PATIENCE_S = 1.0
_ARRIVAL_S = 0.5
"""Who comes within this time of the first is sorted from left to right with them; until then none has a name."""


@dataclass(eq=False)
class _Doubt:
    """Slots of which it is not known who is who.

    Attributes:
        slots: those.
        said: by track id, the sum of what its crops said for each slot.
        heard: pts of the last crop.
        apart: nobody in view overlaps another.
        unsure: pts since when they are apart, with the same tracks, and no pairing is sure; None while that is not so.
        tracks: those of the slots.
        hidden: it matters: the tracker may have exchanged them.
    """

    slots: Int64
    said: dict[int, Float64] = field(default_factory=dict)
    heard: int | None = None
    apart: bool = False
    unsure: int | None = None
    tracks: list[int] = field(default_factory=list)
    hidden: bool = False


class Cast:
    """The slots of one stream by person; see `tiler.track.slots.Slots`.

    Attributes:
        revised: how often a track was shown with another name than before.
        wanted: ids of the tracks of whom it is not known who they are.

    Args:
        count: slots.
    """

    def __init__(self, count: int) -> None:
        self.revised = 0
        self.wanted: frozenset[int] = frozenset()
        self._looking = False
        self._count = count
        self._track = np.zeros(count, np.int64)
        self._seen = np.full(count, -1, np.int64)
        self._first = np.zeros(count, np.int64)
        self._box = np.ones((count, 4))
        self._height = np.ones(count)
        self._velocity = np.zeros((count, 2))
        self._galleries = [Gallery() for _ in range(count)]
        self._arrivals = Arrivals(self._galleries)
        self._doubts: list[_Doubt] = []
        self._told: dict[int, int] = {}
        self._born: dict[int, int] = {}
        self._now = -1
        self._extent = np.array((np.inf, np.inf, -np.inf, -np.inf))
        _shared(np.zeros((0, 4)))  # the first picture must not wait for a compiler
        lead(np.zeros((1, 1)), np.zeros(1, np.int64))

    def assign(self, track_id: Int32, xyxy: Float32, pts: int, looks: Appearance | None) -> Int32:
        """Slot of each track, -1 for none or not known."""
        order = np.argsort(track_id, kind="stable")
        ids, corners = track_id[order].astype(np.int64), xyxy[order].astype(np.float64).clip(-_FAR, _FAR)
        corners[:, 2:] = np.maximum(corners[:, 2:], corners[:, :2] + 1)
        boxes = np.concatenate(((corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]), axis=1)
        self._meet(ids, corners, pts)
        shared = _shared(corners)
        crops: list[Crop] = []
        if looks is not None and len(ids):
            self._looking = True
            clear = looks.known[order] & (shared.max(axis=1) <= _CLEAR)
            crops = [(int(ids[row]), looks.vectors[order[row]]) for row in np.flatnonzero(clear).tolist()]
        self._hear(crops, self._doubts, pts)
        self._arrivals.hear(crops)
        pairs = best_pairs(self._worth(ids, boxes, pts)) if len(ids) else np.full(self._count, -1)
        pairs = self._sort_arrivals(ids, boxes, pairs, pts)
        back = (pairs >= 0) & (self._seen < self._now)
        self._move(ids, boxes, pairs, pts)
        doubted = list(self._doubts)
        self._doubt(ids, shared, pairs, pts, back)
        self._hear(crops, [doubt for doubt in self._doubts if doubt not in doubted], pts)
        held = self._settle(ids, pairs, pts)
        if self._looking:
            held |= {k for k, row in enumerate(pairs.tolist())
                     if row >= 0 and self._arrivals.waits(int(ids[row]), k, pts)}  # fmt: skip
        held |= self._may_move(pairs, pts)
        self.wanted = frozenset(int(ids[pairs[k]]) for k in held if pairs[k] >= 0)
        if looks is not None:
            self._feed(held, shared, pairs, looks, order)
        slot = np.full(len(ids), -1, np.int32)
        told = {track: k for track, k in self._told.items() if track in self._born}
        for k, row in enumerate(pairs.tolist()):
            if row >= 0 and k not in held:
                slot[order[row]] = k
                track = int(ids[row])
                self.revised += told.get(track, k) != k
                told[track] = k
        self._told, self._now = told, pts
        return slot

    def _meet(self, ids: Int64, corners: Float64, pts: int) -> None:
        """Take note of who is new, and of how far people get."""
        known = self._born
        self._born = {track: known.get(track, pts) for track in ids.tolist()}
        self._arrivals.forget(self._born)
        self._arrivals.come(self._born.keys() - known.keys(), pts)
        for track in self._track.tolist():
            if track in known:
                self._born[track] = known[track]
        if len(ids):
            np.minimum(self._extent[:2], corners[:, :2].min(axis=0), out=self._extent[:2])
            np.maximum(self._extent[2:], corners[:, 2:].max(axis=0), out=self._extent[2:])

    def _worth(self, ids: Int64, boxes: Float64, pts: int) -> Float64:
        """(slots, tracks) what a pair is worth; 0 for those that cannot be."""
        known = self._seen >= 0
        gap = ((pts - self._seen) / CLOCK_HZ)[:, None]
        place = self._expected(pts)
        height = np.maximum(self._box[:, 3:], _SLIVER * self._height[:, None])
        spread = height * (_SPREAD + _SPREAD_PER_S * gap)
        away = ((boxes[None, :, :2] - place[:, None]) ** 2).sum(axis=2) / spread**2
        growth: Float64 = np.log(boxes[None, :, 3] / height) / (_SIZE_SPREAD + _SIZE_SPREAD_PER_S * gap)
        worth: Float64 = _BASE - np.minimum(away / 2 + np.minimum(growth**2 / 2, _FARTHEST / 2), _FARTHEST)
        same = ids == self._track[:, None]
        bonus = np.full(self._count, _SAME_ID)
        for doubt in self._doubts:
            if doubt.hidden:
                bonus[doubt.slots] = _SAME_ID_IN_DOUBT
        worth += np.where(same, bonus[:, None], 0.0)
        born = np.array([self._born[track] for track in ids.tolist()])
        elsewhere = ~same & (born < self._seen[:, None])
        for doubt in self._doubts:
            own = np.isin(ids, self._track[doubt.slots])
            elsewhere[np.ix_(doubt.slots, np.flatnonzero(own))] = False
            for column, track in enumerate(ids.tolist()):
                if track in doubt.said:
                    worth[doubt.slots, column] += doubt.said[track]
                    elsewhere[doubt.slots, column] = False
        worth -= _ELSEWHERE * elsewhere
        for column, track in enumerate(ids.tolist()):
            worth[self._arrivals.refused(track), column] = 0
        if self._looking:  # who is in view and not in doubt cannot be driven out by who comes
            sure = same & known[:, None] & np.array([track not in self._arrivals for track in ids.tolist()])
            for doubt in self._doubts:
                if doubt.hidden:
                    sure[doubt.slots] = False
            worth[(sure.any(axis=1)[:, None] | sure.any(axis=0)) & ~sure] = 0
        if not known.all():
            fresh = np.flatnonzero(~known)
            rank = np.argsort(np.argsort(boxes[:, 0], kind="stable"), kind="stable")
            tall = boxes[:, 3] / boxes[:, 3].max()
            worth[fresh] = _NEW + tall - 1e-3 * (np.arange(len(fresh))[:, None] - rank) ** 2
        return worth

    def _expected(self, pts: int) -> Float64:
        """(slots, 2) where the middle of each slot's person would be now, within what was seen of the picture."""
        gap = ((pts - self._seen) / CLOCK_HZ)[:, None]
        drift = _DRIFT_S * (1 - np.exp(-gap / _DRIFT_S))
        place = self._box[:, :2] + self._velocity * drift
        np.minimum(np.maximum(place, self._extent[:2], out=place), self._extent[2:], out=place)
        return place

    def _sort_arrivals(self, ids: Int64, boxes: Float64, pairs: Int64, pts: int) -> Int64:
        """From left to right: whoever has come within a moment of the first of those in view."""
        come = [k for k, row in enumerate(pairs.tolist()) if row >= 0 and self._seen[k] < 0]
        if not come:
            return pairs
        self._first[come] = pts
        lately = (pairs >= 0) & (pts - self._first <= _ARRIVAL_S * CLOCK_HZ)
        for doubt in self._doubts:
            lately[doubt.slots] = False
        slots = np.flatnonzero(lately)
        left_to_right = slots[np.argsort(boxes[pairs[slots], 0], kind="stable")]
        pairs = pairs.copy()
        for values in (self._track, self._seen, self._first, self._box, self._height, self._velocity, pairs):
            values[slots] = values[left_to_right]
        for slot, gallery in zip(slots, [self._galleries[k] for k in left_to_right], strict=True):
            self._galleries[slot] = gallery
        return pairs

    def _may_move(self, pairs: Int64, pts: int) -> set[int]:
        """Slots of those who have just come first, while others may come and be sorted with them."""
        lately = (pairs >= 0) & (pts - self._first <= _ARRIVAL_S * CLOCK_HZ) & bool((self._seen < 0).any())
        return set(np.flatnonzero(lately).tolist())

    def _move(self, ids: Int64, boxes: Float64, pairs: Int64, pts: int) -> None:
        """Each slot goes to its track."""
        for k, row in enumerate(pairs.tolist()):
            if row < 0:
                continue
            seconds = (pts - self._seen[k]) / CLOCK_HZ
            part = 1 - np.exp(-seconds / _HEIGHT_S) if self._seen[k] >= 0 else 1.0
            self._height[k] += part * (boxes[row, 3] - self._height[k])
            if self._seen[k] >= 0 and self._track[k] == ids[row] and seconds > 0:
                share = 1 - np.exp(-seconds / _SMOOTH_S)
                self._velocity[k] += share * ((boxes[row, :2] - self._box[k, :2]) / seconds - self._velocity[k])
            elif self._track[k] != ids[row]:
                self._velocity[k] = 0
            self._box[k], self._track[k], self._seen[k] = boxes[row], ids[row], pts

    # Doubt

    def _doubt(self, ids: Int64, shared: Float64, pairs: Int64, pts: int, back: Mask) -> None:
        """Begin, widen and mark doubts: overlaps, and people gone from view in them or together."""
        seen, away = pairs >= 0, (pairs < 0) & (self._seen >= 0)
        lately = (self._seen >= 0) & (self._seen > pts - _HIDING_S * CLOCK_HZ)
        if lately.sum() > 1:
            place = self._expected(pts)
            half = self._box[:, 2:] / 2
            close = _shared(np.concatenate((place - half, place + half), axis=1))
            close[~lately] = close[:, ~lately] = 0
            for a, b in zip(*np.nonzero(np.tril(close > _TOUCH)), strict=True):
                if seen[a] or seen[b]:
                    doubt = self._join((int(a), int(b)))
                    doubt.hidden |= bool(close[a, b] > _DEEP)
                    if seen[a] and seen[b] and (close[a, b] > _DEEP or back[a] or back[b]):
                        for k in (a, b):
                            doubt.said.pop(int(self._track[k]), None)
                            self._arrivals.known(int(self._track[k]))
        if away.sum() > 1:   # whoever comes back first could be any of them
            self._join(tuple(np.flatnonzero(away).tolist())).hidden = True
        for doubt in self._doubts:
            doubt.hidden |= bool(away[doubt.slots].any())
            rows = pairs[doubt.slots][seen[doubt.slots]]
            doubt.apart = bool(len(rows) and shared[np.ix_(rows, rows)].max() <= _APART)

    def _join(self, slots: tuple[int, ...]) -> _Doubt:
        """The one doubt that all these are in."""
        met = [doubt for doubt in self._doubts if np.isin(slots, doubt.slots).any()]
        if len(met) == 1 and np.isin(slots, met[0].slots).all():
            return met[0]
        joined = _Doubt(np.unique(np.concatenate([np.array(slots), *(doubt.slots for doubt in met)])))
        joined.hidden = any(doubt.hidden for doubt in met)
        self._doubts = [doubt for doubt in self._doubts if doubt not in met] + [joined]
        return joined

    def _settle(self, ids: Int64, pairs: Int64, pts: int) -> set[int]:
        """End the doubts that are decided; the slots that must not be shown yet."""
        held: set[int] = set()
        kept = []
        for doubt in self._doubts:
            rows, tracks = pairs[doubt.slots], self._track[doubt.slots].tolist()
            if tracks != doubt.tracks:
                doubt.tracks, doubt.unsure = tracks, None
            met = doubt.apart and bool((rows >= 0).all())
            if not doubt.hidden:   # a tracker keeps apart those who only brush past each other
                ended = doubt.apart
            elif sum(self._galleries[k].crops > 0 for k in doubt.slots) < 2:   # nobody to compare with
                ended = met
            elif self._lead(doubt, ids, pairs) >= _LEAD:
                doubt.unsure = None
                ended = met
            else:
                heard = met or not self._looking or any(int(ids[row]) in doubt.said for row in rows[rows >= 0])
                waits = doubt.apart and heard
                doubt.unsure = (pts if doubt.unsure is None else doubt.unsure) if waits else None
                waited = 0 if doubt.unsure is None else pts - doubt.unsure
                if waited < _PATIENCE_S * CLOCK_HZ:
                    held |= set(doubt.slots.tolist())
                    ended = False
                else:
                    ended = doubt.heard is None or pts - doubt.heard > _PATIENCE_S * CLOCK_HZ
                    ended &= met or not self._looking
            if not ended:
                kept.append(doubt)
        self._doubts = kept
        return held

    def _lead(self, doubt: _Doubt, ids: Int64, pairs: Int64) -> float:
        """By how much the pairing leads the next best of these slots and their tracks."""
        slots = doubt.slots
        rows = pairs[slots][pairs[slots] >= 0]
        if not len(rows):
            return 0.0
        gain = np.full((len(slots), len(rows)), _BASE)
        for column, row in enumerate(rows.tolist()):
            gain[:, column] += doubt.said.get(int(ids[row]), 0.0)
        place = {row: column for column, row in enumerate(rows.tolist())}
        now = np.array([place.get(row, -1) for row in pairs[slots].tolist()])
        return float(lead(gain, now))

    # Appearance

    def _hear(self, crops: list[Crop], doubts: list[_Doubt], pts: int) -> None:
        """Add what the crops of this picture say to the doubts that they are about."""
        taken = set(self._track.tolist())
        for doubt in doubts:
            about = doubt.slots[[self._galleries[k].crops > 0 for k in doubt.slots]]
            if not doubt.hidden or len(about) < 2:
                continue
            galleries = units([self._galleries[k] for k in about])
            own = {int(track) for track in self._track[doubt.slots]}
            for track, vector in crops:
                if track in taken and track not in own:
                    continue
                likeness = cosines(vector, galleries)
                said = doubt.said.setdefault(track, np.zeros(len(doubt.slots)))
                said[np.isin(doubt.slots, about)] += np.clip(SHARPNESS * (likeness - likeness.mean()), -MOST, MOST)
                np.clip(said, -_MOST_SAID, _MOST_SAID, out=said)
                doubt.heard = pts

    def _feed(
        self, held: set[int], shared: Float64, pairs: Int64, looks: Appearance, order: npt.NDArray[np.intp]
    ) -> None:
        """Galleries take the crops of people apart, of whom it is known who they are."""
        doubted = held | {int(k) for doubt in self._doubts for k in doubt.slots}
        for k, row in enumerate(pairs.tolist()):
            if row >= 0 and k not in doubted and looks.known[order[row]] and shared[row].max(initial=0) <= _APART:
                self._galleries[k].feed(looks.vectors[order[row]])


def _shared(corners: Float64) -> Float64:
    """(n, n) the part of the smaller of two boxes that both cover; 0 on the diagonal."""
    shared: Float64 = covers(corners, np.zeros(len(corners), np.int32), 0.0)[0]
    return shared
