"""Compose: what each source shows at a tick -> Mosaic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tiler.config.models import Config
from tiler.types import Mosaic, TileInput


class Compositor(Protocol):
    """Pure: no I/O, no clock, no thread of its own beyond a worker pool."""

    def compose(self, tick: int, sources: Sequence[TileInput], clock: str = "") -> Mosaic:
        """Draw the mosaic of one tick.

        Args:
            tick: index of the tick.
            sources: one entry per source of the config, in its order.
            clock: text of the wall clock, drawn when `overlay.clock` is set.

        Returns:
            A mosaic in one of a ring of preallocated buffers: valid until `RING` further calls.
        """
        ...

    def arrange(self, config: Config) -> None:
        """Compose by another config from the next call on: other sources, layout, titles or overlay, nothing else.

        Raises:
            InputError: the layout is refused; nothing is changed.
        """
        ...

    def close(self) -> None: ...
