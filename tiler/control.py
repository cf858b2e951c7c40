"""What people change while a run goes on: layout, overlays, titles, which sources there are, and which are on hold.

The changes make a new config, checked before it is taken. Each tick carries the config that was in
force when it began, so a change lands between two ticks, on both backends, with no picture left out.
"""

from __future__ import annotations

import threading
from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tiler.compose.layout import LayoutError, numbered_tiles
from tiler.config.models import Config, Source, Tile
from tiler.errors import InputError

Layout = Literal["configured", "grid", "spotlight", "pip"]

_PLACE = ("rect", "cell", "z", "opacity")
"""Keys of a tile that belong to its place; the others belong to what it shows."""
_MOST_ADDED = 1000
"""A run keeps the numbers of every source that it had, and an id for each."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What people want to see now.

    Attributes:
        config: the run's, with their changes in `mosaic.layout`, `tiles`, `overlay` and `sources`.
        places: of each of its sources, in their order, the place that it has for as long as it is in the run.
        layout: what they chose.
        paused: ids of the sources on hold.
        seated: how often a source came or went until then.
    """

    config: Config
    places: tuple[int, ...]
    layout: Layout = "configured"
    paused: frozenset[str] = frozenset()
    seated: int = 0


class Control:
    """Takes requests from any thread; the run reads `wanted` at each tick."""

    def __init__(self, config: Config) -> None:
        """
        Args:
            config: as the run starts.
        """
        self._began = config
        self._lock = threading.Lock()
        self._labels = {source.id: source.label for source in config.sources}  # of all that ever were in the run
        self._free = list(range(len(config.sources), config.places))
        self.wanted = Wanted(config, tuple(range(len(config.sources))))

    @property
    def spare(self) -> int | None:
        """Places that are free for a source to be added; None: none can be added to this run."""
        preview = self._began.preview
        planned = preview is not None and preview.spare_sources > 0
        return len(self._free) if planned and self._began.live else None

    def reserve(self, source: str) -> int:
        """Take a free place for a source of this id, which `add` is to show or `release` to give back.

        Raises:
            InputError: it cannot be added; says what is in the way.
        """
        with self._lock:
            if not self._began.live:
                raise InputError("sources are added to live runs only: with `realtime: true`, or in `tiler preview`")
            if self.spare is None:
                raise InputError("this run has no place for another source; set preview.spare_sources to keep some")
            if source in self._labels:
                raise InputError(
                    f"source {source!r}: this run has or had one of that id, and its numbers and tracks go by it; "
                    "accepted: another id"
                )
            if len(self._labels) - len(self._began.sources) >= _MOST_ADDED:
                raise InputError(f"{_MOST_ADDED} sources were added to this run; start it anew for more")
            if not self._free:
                closing = len(self.wanted.places) < self._began.places
                raise InputError(
                    f"all {self._began.places} places are taken; "
                    + ("one of them will be free when the source that was there is closed" if closing
                       else "remove a source, or plan for more with preview.spare_sources")
                )  # fmt: skip
            return self._free.pop(0)

    def release(self, place: int) -> None:
        """The place is empty: another source may have it."""
        with self._lock:
            insort(self._free, place)

    def add(self, source: Source, place: int) -> None:
        """Show one more source: its tile comes after the others'.

        Args:
            place: that was reserved for it.

        Raises:
            InputError: the tiles have no room.
        """
        with self._lock:
            self._seat([*self.wanted.config.sources, source], (*self.wanted.places, place))
            self._labels[source.id] = source.label

    def remove(self, source: str) -> None:
        """Show a source no more: its tiles go. Its place is free after `release`.

        Raises:
            InputError: there is no such source, or the run cannot do without it.
        """
        with self._lock:
            self._known(source)
            config = self.wanted.config
            left = [(s, place) for s, place in zip(config.sources, self.wanted.places, strict=True) if s.id != source]
            if not left:
                raise InputError(f"source {source!r}: it is the last one; add another first")
            if config.audio is not None and config.audio.source == source:
                raise InputError(f"source {source!r}: the sound is of this source; it can be paused")
            self._seat([s for s, _ in left], tuple(place for _, place in left))

    def arrange(self, layout: Layout) -> None:
        """Place the tiles anew: as the config says, or all of them in one of the built-in layouts.

        As the config says, a source that was added has the next free cell; there is no tile for it where the
        config's own have rectangles, or leave no cell.

        Raises:
            InputError: the tiles have no room in it.
        """
        with self._lock:
            config = self.wanted.config
            if layout == "configured":
                self._take({"tiles": self._own_tiles(config), "mosaic": self._began.mosaic}, layout)
            else:
                self._take(self._arranged(layout, config.sources), layout)

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
                tiles = _flowing(tiles)
                mosaic = mosaic.model_copy(update={"layout": layout, "grid": None})
            one, other = tiles[number], tiles[largest]
            tiles[largest], tiles[number] = _moved(one, other), _moved(other, one)
            self._take({"tiles": tiles, "mosaic": mosaic}, layout)

    def overlay(self, **shown: bool) -> None:
        """Show or hide parts of the overlay: boxes, labels, trails, titles, fps, clock."""
        with self._lock:
            self._take({"overlay": self.wanted.config.overlay.model_copy(update=shown)})

    def rename(self, source: str, label: str | None) -> None:
        """Give a source another title; None: the one that it came with.

        Raises:
            InputError: there is no such source.
        """
        with self._lock:
            self._known(source)
            sources = [
                s.model_copy(update={"label": self._labels[s.id] if label is None else label}) if s.id == source else s
                for s in self.wanted.config.sources
            ]
            self._take({"sources": sources})

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
        ids = [s.id for s in self.wanted.config.sources]
        if source not in ids:
            raise InputError(f"source {source!r}: there is none; accepted: {', '.join(ids)}")

    def _seat(self, sources: list[Source], places: tuple[int, ...]) -> None:
        """Take these sources, with the tiles where they are; where that cannot be, in a grid."""
        config, ids = self.wanted.config, {source.id for source in sources}
        before = {source.id for source in config.sources}
        added = [Tile(source=source.id) for source in sources if source.id not in before]
        tiles = [*(tile for tile in config.tiles if tile.source in ids), *added] if config.tiles else []
        paused, seated = self.wanted.paused & ids, self.wanted.seated + 1
        wanted = replace(self.wanted, places=places, paused=paused, seated=seated)
        try:
            if added and any(tile.rect for tile in tiles):
                raise LayoutError("tiles", "there is no next place among rectangles")
            self._take({"sources": sources, "tiles": tiles or None}, of=wanted)
        except LayoutError:
            self._take({"sources": sources, **self._arranged("grid", sources)}, "grid", of=wanted)

    def _arranged(self, layout: Layout, sources: Sequence[Source]) -> dict[str, object]:
        """All tiles in a built-in layout: the config's of these sources, and one for each that was added."""
        mosaic = self._began.mosaic.model_copy(update={"layout": layout, "grid": None})
        return {"tiles": _flowing([*self._first_tiles(sources), *self._added_tiles(sources)]) or None, "mosaic": mosaic}

    def _own_tiles(self, config: Config) -> list[Tile] | None:
        """Those of `layout: configured`."""
        if self._began.tiles is None:
            return None
        first, added = self._first_tiles(config.sources), self._added_tiles(config.sources)
        if added and first and not any(tile.rect for tile in first):
            try:
                numbered_tiles(config.model_copy(update={"tiles": first + added, "mosaic": self._began.mosaic}))
            except LayoutError:
                added = []
        elif first:
            added = []
        return first + added or None

    def _first_tiles(self, sources: Sequence[Source]) -> list[Tile]:
        ids = {source.id for source in sources}
        return [tile for tile in _tiles(self._began) if tile.source in ids]

    def _added_tiles(self, sources: Sequence[Source]) -> list[Tile]:
        first = {source.id for source in self._began.sources}
        return [Tile(source=source.id) for source in sources if source.id not in first]

    def _take(self, change: dict[str, object], layout: Layout | None = None, of: Wanted | None = None) -> None:
        wanted = of or self.wanted
        config = wanted.config.model_copy(update=change)
        numbered_tiles(config)  # raises before anything is changed
        self.wanted = replace(wanted, config=config, layout=layout or wanted.layout)


def _tiles(config: Config) -> Sequence[Tile]:
    """The tiles as written, or as they are taken without `tiles`."""
    return config.tiles or [Tile(source=source.id) for source in config.sources]


def _flowing(tiles: Sequence[Tile]) -> list[Tile]:
    """What the tiles show, wherever the layout puts them."""
    return [_moved(tile, Tile(source=tile.source)) for tile in tiles]


def _moved(tile: Tile, to: Tile) -> Tile:
    """What `tile` shows, in the place of `to`."""
    return tile.model_copy(update={key: getattr(to, key) for key in _PLACE})
