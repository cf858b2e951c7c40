"""Compose on the CPU: one launch of bands of rows on a few threads, without allocating a picture.

A tick's launch is described by a table of tiles and a list of primitives (Note [Compose] in
`kernels/compose_cpu.py`). The first row of the table restores the background where nothing
opaque will cover what an earlier tick left in this buffer; the last draws over the whole mosaic.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any, NamedTuple

import numpy as np

from tiler.closing import Closing
from tiler.compose.rows import Rows
from tiler.compose.scene import Bounds, Scene, bounds, fills, shown_pts
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
from tiler.kernels.overlay_cpu import PART_END, UNDER_END
from tiler.kernels.primitives import (
    CLIP_X0,
    CLIP_X1,
    CLIP_Y0,
    CLIP_Y1,
    KIND,
    X0,
    X1,
    Y0,
    Y1,
    A,
    Kind,
)
from tiler.kernels.scale_cpu import Scratch, scratch
from tiler.memory import MOSAICS
from tiler.types import Int32, Mosaic, TileInput, UInt8

RING = MOSAICS
"""Mosaics in the ring: the call of `compose` that comes this many later reuses a mosaic's memory."""

BAND = 128
"""Rows of a task at most: few enough for a 4K band to stay in a core's cache while it is drawn on."""


class _Buffer(NamedTuple):
    """One mosaic of the ring."""

    y: UInt8
    u: UInt8
    v: UInt8


class CpuCompositor(Closing):
    """Frames in host memory -> I420 mosaic. One thread calls it; it has workers of its own.

    Args:
        config: `mosaic`, `sources`, `tiles` and `overlay` are used.
        threads: threads that draw, the caller's among them.
        class_names: what the detector calls its classes, for labels.

    Raises:
        InputError: the layout or the font is refused.
    """

    def __init__(self, config: Config, threads: int, class_names: tuple[str, ...] = ()) -> None:
        self._scene = Scene(config, class_names)
        self._size = self._scene.size
        self._ring = [_new_buffer(*self._size) for _ in range(RING)]
        self._turn = -1
        self._rows = Rows()
        self._axes = np.zeros(1, np.int32)
        self._samples = 1
        self._threads = max(1, threads)
        self._workers = [scratch(1, self._size[0]) for _ in range(self._threads)]
        self._band = max(16, min(BAND, self._size[1] // (4 * self._threads) & ~1))
        self._pool = ThreadPoolExecutor(self._threads - 1, "compose") if self._threads > 1 else None
        self._lay_out()

    def arrange(self, config: Config) -> None:
        """Take other sources, layout, titles or overlay; see `Compositor`."""
        self._scene.arrange(config)
        self._lay_out()

    def _lay_out(self) -> None:
        """What depends on the tiles; every buffer is drawn anew all over."""
        self.tiles = self._scene.tiles
        whole = (0, 0, *self._size)
        self._stained: list[Bounds | None] = [whole] * RING
        self._translucent = [bounds(tile) for tile in self.tiles if tile.opacity < 1]
        self._table = np.zeros((len(self.tiles) + 2, TILE_COLUMNS), np.int64)
        self._axes_at = [0] * len(self.tiles)

    def compose(self, tick: int, sources: Sequence[TileInput], clock: str = "") -> Mosaic:
        """Draw the mosaic of one tick; see `Compositor`."""
        # Not tick % RING: a live run leaves ticks out, and a mosaic that waits must keep its memory.
        self._turn = turn = (self._turn + 1) % RING
        buffer, table = self._ring[turn], self._table
        if self._scene.place(sources):
            self._pack_tables()

        rows = self._rows
        rows.clear()
        rows.add(self._restore(turn))
        table[:, PLANES] = 0
        table[0, OVER] = table[0, END] = rows.count
        frames, parts = self._scene.draw(sources, rows)
        table[1:-1, OVER], table[1:-1, END] = parts[:, UNDER_END], parts[:, PART_END]
        table[1:-1, UNDER] = table[:-2, END]
        for i, frame in enumerate(frames):
            geometry = self._scene.placements[i].geometry
            if frame is not None and geometry is not None:
                pack_picture(table[1 + i], frame, geometry, self._axes_at[i], self._scene.opacities[i])
        table[-1, UNDER] = table[-1, OVER] = rows.count
        self._scene.overlay.draw_mosaic(clock, rows)
        table[-1, END] = rows.count
        self._stained[turn] = extent(rows.array[table[-1, OVER] : rows.count], self._size)

        self._draw(buffer, rows.written)
        return Mosaic(tick, (buffer.y, buffer.u, buffer.v), shown_pts(sources))

    def close(self) -> None:
        """End the workers; may be called twice."""
        if self._pool:
            self._pool.shutdown()

    def _pack_tables(self) -> None:
        """Put the axes of all tiles one after the other, and have scratch for the longest."""
        packed, at = [np.zeros(1, np.int32)], 1
        for i, placed in enumerate(self._scene.placements):
            self._axes_at[i] = at
            if placed.geometry is not None:
                packed.append(placed.geometry.tables)
                at += len(placed.geometry.tables)
        self._axes = np.concatenate(packed)
        lengths = (placed.geometry.samples for placed in self._scene.placements if placed.geometry)
        longest = max(lengths, default=0)
        if longest > self._samples:
            self._samples = longest
            self._workers = [scratch(longest, self._size[0]) for _ in range(self._threads)]

    def _draw(self, buffer: _Buffer, primitives: Int32) -> None:
        """Every band, on all threads: each takes the next one until none is left."""
        height, atlas = self._size[1], self._scene.overlay.atlas.texture
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
        return fills([*([stained] if stained else []), *self._translucent], self._scene.background)


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
