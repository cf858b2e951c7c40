"""Slots that stay with the side of the picture.

The width is cut into as many zones as there are slots, the first on the left. People and slots are
paired so that the squares of the distances to the middle of each slot's zone are least: with all of
the cast in view that is their order from left to right, and who is alone has the slot of the zone.
Another pairing must be better by what `hysteresis` of the width is worth, for `dwell_s` without a
break: then it is taken. Somebody new takes at once a slot whose owner is not in view; an owner who comes
back to a slot that nobody has taken has it again.
"""

from __future__ import annotations

import numpy as np

from tiler.kernels.assign_cpu import Float64, Int64, best_pairs, total
from tiler.types import CLOCK_HZ, Float32, Int32

_MORE = 16.0
"""What it is worth to give out one slot more, in squares of the picture's width."""


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
        middle = ((boxes[:, 0] + boxes[:, 2]) / (2 * self._right)).clip(0, 1)
        size = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        # Of more than the cast, who is of it already, then the nearest.
        first = np.lexsort((track_id, -size, ~np.isin(track_id, self._owner)))[: len(self._owner)]
        rows = first[np.argsort(track_id[first])]
        gain = _MORE - (middle[rows] - self._centres[:, None]) ** 2
        best = best_pairs(gain)
        owners = self._owner[:, None] == track_id[rows]
        held = self._filled(gain, np.where(owners.any(axis=1), owners.argmax(axis=1), -1))
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

    def _filled(self, gain: Float64, held: Int64) -> Int64:
        """The pairing as it is, with free slots given to who has none."""
        slots = np.flatnonzero(held < 0)
        people = np.setdiff1d(np.arange(gain.shape[1]), held)
        if not len(slots) or not len(people):
            return held
        held = held.copy()
        pairs = best_pairs(np.ascontiguousarray(gain[np.ix_(slots, people)]))
        held[slots] = [people[p] if p >= 0 else -1 for p in pairs]
        return held
