"""What people change while a run goes on: layout, overlays, titles, and sources on hold.

The changes make a new config, checked before it is taken. Each tick carries the config that was in
force when it began, so a change lands between two ticks, on both backends, with no picture left out.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tiler.compose.layout import numbered_tiles
from tiler.config.models import Config, Tile
from tiler.decode.feed import Shown
from tiler.errors import InputError
from tiler.types import State

Layout = Literal["configured", "grid", "spotlight", "pip"]

_PLACE = ("rect", "cell", "z", "opacity")
"""Keys of a tile that belong to its place; the others belong to what it shows."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What people want to see now.

    Attributes:
        config: the run's, with their changes in `mosaic.layout`, `tiles`, `overlay` and `sources[].label`.
        layout: what they chose.
        paused: ids of the sources on hold.
    """

    config: Config
    layout: Layout = "configured"
    paused: frozenset[str] = frozenset()


class Control:
    """Takes requests from any thread; the run reads `wanted` at each tick."""

    def __init__(self, config: Config) -> None:
        """
        Args:
            config: as the run starts.
        """
        self._began = config
        self._lock = threading.Lock()
        self.wanted = Wanted(config)

    def arrange(self, layout: Layout) -> None:
        """Place the tiles anew: as the config says, or all of them in one of the built-in layouts.

        Raises:
            InputError: the tiles have no room in it.
        """
        with self._lock:
            tiles, mosaic = self._began.tiles, self._began.mosaic
            if layout != "configured":
                tiles = [_moved(tile, Tile(source=tile.source)) for tile in _tiles(self._began)]
                mosaic = mosaic.model_copy(update={"layout": layout, "grid": None})
            self._take(layout, tiles=tiles, mosaic=mosaic)

    def promote(self, number: int) -> None:
        """Show a tile large: it changes places with the largest one.

        In a grid, where none is larger, the layout becomes `spotlight` with this tile as the large one.

        Args:
            number: of the tile, from 0, as `numbered_tiles` counts them.

        Raises:
            InputError: there is no such tile.
        """
        with self._lock:
            layout, config = self.wanted.layout, self.wanted.config
            tiles = list(_tiles(config))
            if not 0 <= number < len(tiles):
                raise InputError(f"tile {number}: there is none; accepted: 0 to {len(tiles) - 1}")
            areas = [placed.w * placed.h for placed in numbered_tiles(config)]
            largest, mosaic = areas.index(max(areas)), config.mosaic
            if areas[number] * 1.2 > areas[largest] and number != largest:  # cells of a grid differ by a few pixels
                layout, largest = "spotlight", 0
                tiles = [_moved(tile, Tile(source=tile.source)) for tile in tiles]
                mosaic = mosaic.model_copy(update={"layout": layout, "grid": None})
            one, other = tiles[number], tiles[largest]
            tiles[largest], tiles[number] = _moved(one, other), _moved(other, one)
            self._take(layout, tiles=tiles, mosaic=mosaic)

    def overlay(self, **shown: bool) -> None:
        """Show or hide parts of the overlay: boxes, labels, trails, titles, fps, clock."""
        with self._lock:
            self._take(overlay=self.wanted.config.overlay.model_copy(update=shown))

    def rename(self, source: str, label: str | None) -> None:
        """Give a source another title; None: the one of the config.

        Raises:
            InputError: there is no such source.
        """
        with self._lock:
            self._known(source)
            first = {s.id: s.label for s in self._began.sources}
            sources = [
                s.model_copy(update={"label": first[s.id] if label is None else label}) if s.id == source else s
                for s in self.wanted.config.sources
            ]
            self._take(sources=sources)

    def pause(self, source: str, paused: bool = True) -> None:
        """Hold a source's picture, or let it go on.

        Raises:
            InputError: there is no such source.
        """
        with self._lock:
            self._known(source)
            held = self.wanted.paused
            self.wanted = replace(self.wanted, paused=held | {source} if paused else held - {source})

    def _known(self, source: str) -> None:
        ids = [s.id for s in self._began.sources]
        if source not in ids:
            raise InputError(f"source {source!r}: there is none; accepted: {', '.join(ids)}")

    def _take(self, layout: Layout | None = None, **update: object) -> None:
        config = self.wanted.config.model_copy(update=update)
        numbered_tiles(config)  # raises before anything is changed
        self.wanted = replace(self.wanted, config=config, layout=layout or self.wanted.layout)


class Holds:
    """Keeps the pictures of paused sources. One thread uses it."""

    def __init__(self, config: Config) -> None:
        self._ids = [source.id for source in config.sources]
        self._kept: list[Shown | None] = [None] * len(self._ids)

    def apply(self, shown: Sequence[Shown], paused: frozenset[str]) -> list[Shown]:
        """`shown`, with paused sources as they were when they were paused."""
        result = []
        for i, now in enumerate(shown):
            if self._ids[i] not in paused:
                self._kept[i] = None
                result.append(now)
                continue
            kept = self._kept[i] or now
            if kept.frame is not None:
                self._kept[i] = kept
                kept = Shown(kept.frame, False, State.PAUSED)
            result.append(kept)
        return result


def _tiles(config: Config) -> Sequence[Tile]:
    """The tiles as written, or as they are taken without `tiles`."""
    return config.tiles or [Tile(source=source.id) for source in config.sources]


def _moved(tile: Tile, to: Tile) -> Tile:
    """What `tile` shows, in the place of `to`."""
    return tile.model_copy(update={key: getattr(to, key) for key in _PLACE})
