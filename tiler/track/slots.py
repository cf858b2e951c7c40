"""Slots: the names of a fixed cast over the tracks of one stream.

A stage of its own: any tracker may be under it, and its ids may change or be exchanged. That a
known number of people are there is what makes it simple: nobody needs to be told from strangers,
only from each other. `mode: person` is `tiler/track/cast.py`, `mode: side` `tiler/track/sides.py`.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import replace

import numpy as np
from pydantic import ValidationError

from tiler.config.explain import unknown_class
from tiler.config.models import SlotsConfig
from tiler.errors import InputError
from tiler.track.cast import Cast
from tiler.track.sides import Sides
from tiler.types import Appearance, Tracks


def slots_of(names: str) -> SlotsConfig:
    """The slots of `left,right`.

    Raises:
        InputError: not 1 to 6 different names.
    """
    try:
        return SlotsConfig(names=[name.strip() for name in names.split(",")])
    except ValidationError:
        raise InputError(
            f"--slots: {names!r}; accepted: 1 to 6 different names of letters, digits, '_', '-' or '.', as left,right"
        ) from None


class Slots:
    """The slots of one stream. Deterministic; not thread-safe; two instances share nothing.

    Args:
        config: names and mode.
        class_names: what the detector calls its classes.

    Raises:
        InputError: the detector does not know `class_name`.
    """

    def __init__(self, config: SlotsConfig, class_names: Sequence[str] = ()) -> None:
        self.names = tuple(config.names)
        self._class_id: int | None = None
        if config.class_name is not None:
            if (problem := unknown_class(config.class_name, class_names)) is not None:
                raise InputError(f"slots.class_name: {problem}")
            self._class_id = list(class_names).index(config.class_name)
        count = len(self.names)
        self._mode = Cast(count) if config.mode == "person" else Sides(count, config.hysteresis, config.dwell_s)

    @property
    def revised(self) -> int:
        """How often names went over: by person, tracks shown with another name than before; by side, changes."""
        return self._mode.revised

    @property
    def wanted(self) -> Set[int]:
        """Tracks of whom the next picture should say what they look like, as it is not known who they are."""
        return self._mode.wanted if isinstance(self._mode, Cast) else frozenset()

    def update(self, tracks: Tracks, appearance: Appearance | None = None, width_px: float | None = None) -> Tracks:
        """The same tracks with their slots; once for each picture that has tracks, none left out.

        Args:
            tracks: of the next picture; pts never decrease.
            appearance: of those tracks, row by row; None: no evidence for any.
            width_px: of the picture, for its sides; None: as far right as anybody was seen.

        Raises:
            ValueError: `appearance` is not that of `tracks`.
        """
        if appearance is not None and len(appearance) != len(tracks):
            raise ValueError(f"appearance of {len(appearance)} tracks beside {len(tracks)} tracks")
        rows = np.isfinite(tracks.xyxy).all(axis=1)
        if self._class_id is not None:
            rows &= tracks.class_id == self._class_id
        ids, xyxy = tracks.track_id[rows], tracks.xyxy[rows]
        slot = np.full(len(tracks), -1, np.int32)
        if isinstance(self._mode, Sides):
            slot[rows] = self._mode.assign(ids, xyxy, tracks.pts, width_px)
        else:
            looks = None if appearance is None else Appearance(appearance.vectors[rows], appearance.known[rows])
            slot[rows] = self._mode.assign(ids, xyxy, tracks.pts, looks)
        return replace(tracks, slot=slot)
