"""Compose on the CPU: one launch of bands of rows on a few threads, without allocating a picture.

A tick's launch is described by a table of tiles and a list of primitives (Note [Compose] in
`kernels/compose_cpu.py`). The first row of the table restores the background where nothing
opaque will cover what an earlier tick left in this buffer; the last draws over the whole mosaic.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from itertools import count
from typing import Any, NamedTuple, Self

import numpy as np

from tiler.compose.layout import PlacedTile, View, fit_picture, place_tiles
from tiler.compose.overlay import OverlayBuilder
from tiler.compose.palette import Ycc, ycc
from tiler.config.models import Config
from tiler.kernels.compose_cpu import (
    COLOURS,
    END,
    OVER,
    PLANES,
    TILE_COLUMNS,
    UNDER,
    compose_rows,
    pack_picture,
)
from tiler.kernels.primitives import (
    ALPHA,
    CLIP_X0,
    CLIP_X1,
    CLIP_Y0,
    CLIP_Y1,
    COLUMNS,
    CR,
    KIND,
    LUMA,
    X0,
    X1,
    Y0,
    Y1,
    A,
    Kind,
)
from tiler.kernels.scale_cpu import Scratch, scratch
from tiler.kernels.scaling import Geometry, geometry
from tiler.types import Frame, Int32, Mosaic, State, TileInput, UInt8

RING = 4
"""Mosaics in the ring: the call of `compose` that comes this many later reuses a mosaic's memory."""

BAND = 128
"""Rows of a task at most: few enough for a 4K band to stay in a core's cache while it is drawn on."""

_SLATES = (State.WAITING, State.NO_SIGNAL)

Bounds = tuple[int, int, int, int]
"""x0, y0, x1, y1 in mosaic pixels, half-open."""


_Kind = tuple[tuple[int, int], Fraction, int]
"""Size, pixel aspect and rotation of a picture."""


class _Placement(NamedTuple):
    """How a tile shows pictures of one kind: kept until the kind changes."""

    kind: _Kind | None
    view: View | None
    geometry: Geometry | None
    bars: Int32


class _Buffer(NamedTuple):
    """One mosaic of the ring."""

    y: UInt8
    u: UInt8
    v: UInt8


class CpuCompositor:
    """Frames in host memory -> I420 mosaic. One thread calls it; it has workers of its own.

    Args:
        config: `mosaic`, `sources`, `tiles` and `overlay` are used.
        threads: threads that draw, the caller's among them.
        class_names: what the detector calls its classes, for labels.

    Raises:
        InputError: the layout or the font is refused.
    """

    def __init__(self, config: Config, threads: int, class_names: tuple[str, ...] = ()) -> None:
        self.tiles = place_tiles(config)
        self._size = config.mosaic.width, config.mosaic.height
        self._background = ycc(config.mosaic.background)
        self._overlay = OverlayBuilder(config, self.tiles, class_names)
        self._ring = [_new_buffer(*self._size) for _ in range(RING)]
        whole = (0, 0, *self._size)
        self._stained: list[Bounds | None] = [whole] * RING
        self._translucent = [_bounds(tile) for tile in self.tiles if tile.opacity < 1]
        self._placements = [self._placement(tile, None) for tile in self.tiles]
        self._table = np.zeros((len(self.tiles) + 2, TILE_COLUMNS), np.int64)
        self._axes = np.zeros(1, np.int32)
        self._axes_at = [0] * len(self.tiles)
        self._samples = 1
        self._threads = max(1, threads)
        self._workers = [scratch(1, self._size[0]) for _ in range(self._threads)]
        self._band = max(16, min(BAND, self._size[1] // (4 * self._threads) & ~1))
        self._pool = ThreadPoolExecutor(self._threads - 1, "compose") if self._threads > 1 else None

    def compose(self, tick: int, sources: Sequence[TileInput], clock: str = "") -> Mosaic:
        """Draw the mosaic of one tick; see `Compositor`."""
        turn = tick % RING
        buffer, table = self._ring[turn], self._table
        visible = [None if shown.state in _SLATES else shown.frame for shown in sources]
        self._place([visible[tile.source] for tile in self.tiles])

        table[:, PLANES] = 0
        parts = [self._restore(turn)]
        at = table[0, OVER] = table[0, END] = len(parts[0])
        for i, (tile, placed) in enumerate(zip(self.tiles, self._placements, strict=True)):
            row, frame, opacity = table[i + 1], visible[tile.source], round(255 * tile.opacity)
            if frame is not None and placed.geometry is not None and opacity:
                pack_picture(row, frame, placed.geometry, self._axes_at[i], opacity)
            rows = self._overlay.tile_rows(i, tile, placed.view, sources[tile.source])
            parts += (placed.bars, rows)
            row[UNDER], row[OVER] = at, at + len(placed.bars)
            at = row[END] = at + len(placed.bars) + len(rows)
        over_all = self._overlay.mosaic_rows(clock)
        parts.append(over_all)
        table[-1, UNDER] = table[-1, OVER] = at
        table[-1, END] = at + len(over_all)
        self._stained[turn] = extent(over_all, self._size)

        self._draw(buffer, np.concatenate(parts))
        shown_pts = tuple(frame.pts if frame is not None else None for frame in visible)
        return Mosaic(tick, (buffer.y, buffer.u, buffer.v), shown_pts)

    def close(self) -> None:
        """End the workers; may be called twice."""
        if self._pool:
            self._pool.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _place(self, frames: list[Frame | None]) -> None:
        """Renew the placement of the tiles whose pictures changed size or shape."""
        changed = False
        for i, (tile, frame) in enumerate(zip(self.tiles, frames, strict=True)):
            kind = (frame.picture_size, frame.picture_aspect, frame.rotation) if frame else None
            if kind != self._placements[i].kind:
                self._placements[i] = self._placement(tile, kind)
                changed = True
        if not changed:
            return
        packed, at = [np.zeros(1, np.int32)], 1
        for i, placed in enumerate(self._placements):
            self._axes_at[i] = at
            if placed.geometry is not None:
                packed.append(placed.geometry.tables)
                at += len(placed.geometry.tables)
        self._axes = np.concatenate(packed)
        longest = max((placed.geometry.samples for placed in self._placements if placed.geometry), default=0)
        if longest > self._samples:
            self._samples = longest
            self._workers = [scratch(longest, self._size[0]) for _ in range(self._threads)]

    def _placement(self, tile: PlacedTile, kind: _Kind | None) -> _Placement:
        if kind is None:
            return _Placement(None, None, None, self._bars(tile, None))
        size, aspect, rotation = kind
        view = fit_picture(tile, size, aspect)
        tables = geometry(size, rotation, view.src, view.dst, self._size)
        return _Placement(kind, view, tables, self._bars(tile, view))

    def _draw(self, buffer: _Buffer, primitives: Int32) -> None:
        """Every band, on all threads: each takes the next one until none is left."""
        height, atlas = self._size[1], self._overlay.atlas.texture
        bands = count(0, self._band)

        def work(own: Scratch) -> None:
            while (top := next(bands)) < height:
                compose_rows(
                    *buffer, top, min(top + self._band, height), self._table, self._axes, primitives,
                    atlas, COLOURS, own,
                )  # fmt: skip

        others = [self._pool.submit(work, own) for own in self._workers[1:]] if self._pool else []
        try:
            work(self._workers[0])
        finally:
            for other in others:
                other.result()

    def _restore(self, turn: int) -> Int32:
        """Background under translucent tiles, and where this buffer's last mosaic was drawn over."""
        stained = self._stained[turn]
        return fills([*([stained] if stained else []), *self._translucent], self._background)

    def _bars(self, tile: PlacedTile, view: View | None) -> Int32:
        """Background around the picture of a tile; all over it without one."""
        x0, y0, x1, y1 = _bounds(tile)
        bars = [(x0, y0, x1, y1)]
        if view is not None:
            x, y, w, h = view.dst
            bars = [(x0, y0, x1, y), (x0, y + h, x1, y1), (x0, y, x, y + h), (x + w, y, x1, y + h)]
        return fills(bars, self._background, round(255 * tile.opacity))


def fills(areas: Sequence[Bounds], colour: Ycc, alpha: int = 255) -> Int32:
    """FILL rows for the areas that are not empty."""
    areas = [area for area in areas if area[0] < area[2] and area[1] < area[3]]
    rows = np.zeros((len(areas), COLUMNS), np.int32)
    if areas:
        rows[:, KIND] = Kind.FILL
        rows[:, X0 : Y1 + 1] = rows[:, CLIP_X0:] = areas
        rows[:, LUMA : CR + 1] = colour
        rows[:, ALPHA] = alpha
    return rows


def extent(rows: Int32, size: tuple[int, int]) -> Bounds | None:
    """The smallest even rectangle of a mosaic of `size` that holds all that the rows may draw on."""
    if not len(rows):
        return None
    line = rows[:, KIND] == Kind.LINE
    reach = np.where(line, rows[:, A] // 2 + 16, 0)
    unit = np.where(line, 16, 1)

    def edge(a: int, b: int, sign: int) -> Any:
        return (sign * np.maximum(sign * rows[:, a], sign * rows[:, b]) + sign * reach) // unit

    x0 = np.maximum(edge(X0, X1, -1), rows[:, CLIP_X0]).min()
    y0 = np.maximum(edge(Y0, Y1, -1), rows[:, CLIP_Y0]).min()
    x1 = np.minimum(edge(X0, X1, 1) + line, rows[:, CLIP_X1]).max()
    y1 = np.minimum(edge(Y0, Y1, 1) + line, rows[:, CLIP_Y1]).max()
    x0, y0 = max(0, int(x0)) & ~1, max(0, int(y0)) & ~1
    x1, y1 = min(size[0], int(x1) + 1 & ~1), min(size[1], int(y1) + 1 & ~1)
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def _bounds(tile: PlacedTile) -> Bounds:
    return tile.x, tile.y, tile.x + tile.w, tile.y + tile.h


def _new_buffer(width: int, height: int) -> _Buffer:
    """I420 in one piece of memory, as encoders like it."""
    luma, chroma = width * height, width * height // 4
    memory = np.empty(luma + 2 * chroma, np.uint8)
    half = (height // 2, width // 2)
    return _Buffer(
        memory[:luma].reshape(height, width),
        memory[luma : luma + chroma].reshape(half),
        memory[luma + chroma :].reshape(half),
    )
