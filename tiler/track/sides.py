"""Slots that stay with the side of the picture.

The width is cut into as many zones as there are slots, the first on the left. People and slots are
paired so that the squares of the distances to the middle of each slot's zone are least: with all of
the cast in view that is their order from left to right, and who is alone has the slot of the zone.
Of more people than slots, somebody of each zone is paired before a second one of any: who has its slot,
then who has another, then the nearest. The slot of a zone with people is then for one of them.
Another pairing must be better by what `hysteresis` of the width is worth, for `dwell_s` without a
break: then it is taken. Somebody new takes at once a slot whose owner is not in view; an owner who comes
back to a slot that nobody has taken has it again.
"""

from __future__ import annotations

import numpy as np

from tiler.kernels.assign_cpu import Float64, Int64, best_pairs, total
from tiler.types import CLOCK_HZ, Bool, Float32, Int32

_MORE = 16.0
"""What it is worth to give out one slot more, in squares of the picture's width."""
_INSIDE = 8.0
"""What it is worth that somebody of a slot's own zone has it: more than all distances of six slots."""


class Sides:
    """The slots of one stream by side; see `tiler.track.slots.Slots`.

    Args:
        count: slots.
        hysteresis: part of the picture's width.
        dwell_s: seconds.
    """

    def __init__(self, count: int, hysteresis: float, dwell_s: float) -> None:
        self.revised = 0
        self._centres = (np.arange(count) + 0.5) / count
        self._worth = 2 * hysteresis / count
        self._reach = 0.5 / count + hysteresis
        self._dwell = round(dwell_s * CLOCK_HZ)
        self._owner = np.zeros(count, np.int64)  # track id; 0: nobody yet
        self._since: int | None = None
        self._right = 1.0

    def assign(self, track_id: Int32, xyxy: Float32, pts: int, width_px: float | None) -> Int32:
        """Slot of each track, -1 for none. Without its width, the picture is as wide as anybody was seen."""
        slot: Int32 = np.full(len(track_id), -1, np.int32)
        if not len(track_id):
            self._since = None
            return slot
        boxes = xyxy.astype(np.float64)
        self._right = width_px or max(self._right, float(boxes[:, 2].max()))
        rows = np.argsort(track_id, kind="stable")
        middle = ((boxes[rows, 0] + boxes[rows, 2]) / (2 * self._right)).clip(0, 1)
        size = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))[rows]
        gain = _MORE - (middle - self._centres[:, None]) ** 2
        owners = self._owner[:, None] == track_id[rows]
        held = np.where(owners.any(axis=1), owners.argmax(axis=1), -1)
        people = np.arange(len(rows))
        if len(people) > len(held):
            zone = self._zones(middle, owners)
            gain[zone, people] += _INSIDE
            people = self._first(zone, size, owners)
        held, best = self._filled(gain, held, people), self._filled(gain, np.full_like(held, -1), people)
        if total(gain, best) - total(gain, held) <= self._worth:
            self._since = None
        elif self._since is None:
            self._since = pts
        if self._since is not None and pts - self._since >= self._dwell:
            held, self._since = best, None
            self.revised += 1
        taken = held >= 0
        now = track_id[rows[held[taken]]]
        self._owner[np.isin(self._owner, now)] = 0
        self._owner[taken] = now
        slot[rows[held[taken]]] = np.flatnonzero(taken)
        return slot

    def _zones(self, middle: Float64, owners: Bool) -> Int64:
        """The zone of each person; that of the slot they have, until they are out of it by the hysteresis."""
        count = len(self._centres)
        zone: Int64 = (middle * count).astype(np.int64).clip(0, count - 1)
        own = owners & (np.abs(middle - self._centres[:, None]) <= self._reach)
        slots, people = np.nonzero(own)
        zone[people] = slots
        return zone

    def _first(self, zone: Int64, size: Float64, owners: Bool) -> Int64:
        """As many people as there are slots: one of each zone, then who has a slot already, then the nearest."""
        people = np.arange(len(zone))
        named = owners.any(axis=0)
        order = np.lexsort((-size, ~named, ~owners[zone, people], zone))
        leads = order[np.unique(zone[order], return_index=True)[1]]
        first: Int64 = np.lexsort((-size, ~named, ~np.isin(people, leads)))[: len(owners)]
        return np.sort(first)

    def _filled(self, gain: Float64, held: Int64, people: Int64) -> Int64:
        """The pairing as it is, with free slots given to those of these people who have none."""
        slots = np.flatnonzero(held < 0)
        people = np.setdiff1d(people, held)
        if not len(slots) or not len(people):
            return held
        held = held.copy()
        pairs = best_pairs(np.ascontiguousarray(gain[np.ix_(slots, people)]))
        held[slots] = [people[p] if p >= 0 else -1 for p in pairs]
        return held
