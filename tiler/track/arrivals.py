"""Those who come into view, and what people looked like: a name is given once looks say that it is theirs.

Who is away comes back as a track that nobody has had. So may begin a stranger, or a thing taken for a person. Each
crop of such a track says for each slot how much more it is like that slot's gallery than a thing is, and than it is
like any other gallery. The name is shown once both speak for it; and never, once the first speaks against it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tiler.track.gallery import Gallery, cosines, units
from tiler.types import CLOCK_HZ, Float32

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

Crop = tuple[int, Float32]
"""The id of a track, and the vector of its crop."""

SHARPNESS, MOST = 5.0, 1.0
"""Weight of a difference of two cosines, and the most that a crop speaks for or against a slot."""
_STRANGER = 0.4
"""Cosine to a gallery that a stranger, or a thing taken for a person, is thought to have. Low: people in other light
come down to that, and they would stay without their names."""
_WELCOME, _REFUSED = 1.0, 3.0
"""Who comes is shown with a name when so much speaks for it, and never has it once so much speaks against it."""
_ENOUGH = 3
"""Crops that a gallery must have been made of before who comes is compared with it."""
_PATIENCE_S = 1.0
"""Who cannot be seen clearly for so long is believed to be who is away."""


class _Said(NamedTuple):
    """What the crops of a track that has come said for each slot.

    Attributes:
        since: pts at which it came.
        alike: (slots,) that it is like the slot's gallery.
        rather: (slots,) that it is so more than like any other's.
    """

    since: int
    alike: Float64
    rather: Float64


class Arrivals:
    """The tracks of one stream that have come and of whom it is not known who they are.

    Args:
        galleries: of the slots, in their order; whoever changes them changes this list.
    """

    def __init__(self, galleries: list[Gallery]) -> None:
        self._galleries = galleries
        self._said: dict[int, _Said] = {}

    def __contains__(self, track: int) -> bool:
        return track in self._said

    def come(self, tracks: Iterable[int], pts: int) -> None:
        """These tracks begin."""
        for track in tracks:
            self._said[track] = _Said(pts, *np.zeros((2, len(self._galleries))))

    def forget(self, keep: Iterable[int]) -> None:
        """Let go of all tracks but these."""
        self._said = {track: self._said[track] for track in keep if track in self._said}

    def known(self, track: int) -> None:
        """Others see to it who this is."""
        self._said.pop(track, None)

    def hear(self, crops: Iterable[Crop]) -> None:
        """Add what the crops of a picture say."""
        slots = np.array([k for k, gallery in enumerate(self._galleries) if gallery.crops >= _ENOUGH], np.int64)
        galleries = units([self._galleries[k] for k in slots])
        for track, vector in crops:
            if track not in self._said or not len(slots):
                continue
            likeness = cosines(vector, galleries)
            rivals = np.where(np.eye(len(slots), dtype=np.bool_), -np.inf, likeness).max(axis=1).clip(_STRANGER)
            _, alike, rather = self._said[track]
            for said, than in ((alike, np.full(len(slots), _STRANGER)), (rather, rivals)):
                says = np.clip(SHARPNESS * (likeness - than), -MOST, MOST)
                said[slots] = np.clip(said[slots] + says, -_REFUSED, _REFUSED)

    def refused(self, track: int) -> npt.NDArray[np.bool_]:
        """(slots,) whose person the track is not."""
        if track not in self._said:
            return np.zeros(len(self._galleries), np.bool_)
        return self._said[track].alike <= -_REFUSED

    def waits(self, track: int, slot: int, pts: int) -> bool:
        """Whether it is too early to show the track as that slot's; once it is not, it never is again."""
        if track not in self._said:
            return False
        since, alike, rather = self._said[track]
        unseen = not alike.any() and pts - since > _PATIENCE_S * CLOCK_HZ
        if unseen or self._galleries[slot].crops < _ENOUGH or (alike[slot] >= _WELCOME and rather[slot] > 0):
            del self._said[track]
            return False
        return True
