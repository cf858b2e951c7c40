"""Compose on CUDA: one launch a tick, on a stream of its own, into a ring of NV12 mosaics.

What goes up is the table of tiles and the overlay's primitives, in one copy from pinned memory; the
scaling tables and the glyphs go up when they change. Before a mosaic's turn comes again its launch
has long ended; that is waited for on the host, and lets go of the pictures it read.
"""

from __future__ import annotations

from collections.abc import Sequence

import cupy
import numpy as np

from tiler.closing import Closing
from tiler.compose.rows import Rows
from tiler.compose.scene import Drawn, Scene, bounds, shown_pts
from tiler.config.models import Config
from tiler.kernels import enqueue_cuda
from tiler.kernels.compose_cpu import COLOURS
from tiler.kernels.compose_cuda import Compose, prepare
from tiler.kernels.compose_plan import Plan
from tiler.kernels.compose_table import (
    BESIDE_ATLAS,
    COLOUR,
    END,
    OVER,
    PLANES,
    REACH,
    ROW_WORDS,
    TILE_COLUMNS,
    TILE_WORDS,
    UNDER,
    Int64,
    Mode,
    pack_launch,
    pack_picture,
    pack_placement,
    pack_tiles,
    planes_of,
    reach,
    scale_mode,
)
from tiler.kernels.overlay_cpu import PART_END, UNDER_END
from tiler.kernels.plane_cuda import PerPicture
from tiler.memory import MOSAICS
from tiler.observe.copies import Copies
from tiler.types import Frame, Int32, Mosaic, TileInput

RING = MOSAICS
"""Mosaics in the ring: the call of `compose` that comes this many later reuses a mosaic's memory."""
_FIRST_BYTES = 1 << 18


class _Turn:
    """One mosaic of the ring and all that its launch uses.

    What the launch is told travels in one piece: the blocks of the plan, the tiles, the primitives, and for the blocks
    that draw their heads and lists.
    """

    def __init__(self, size: tuple[int, int], blocks: int, tiles: int) -> None:
        width, height = size
        self.nv12 = cupy.empty((height * 3 // 2, width), cupy.uint8)
        chroma = self.nv12[height:].reshape(height // 2, width // 2, 2)
        self.planes = self.nv12[:height], chroma[:, :, 0], chroma[:, :, 1]
        self.ready = cupy.cuda.Event(block=True, disable_timing=True)
        self.frames: list[Frame] = []
        self.launch: Compose | None = None
        self.used, self.arguments = 0, (0, 0, 0, 0, 0, 0)   # bytes to copy up; what else `Compose` takes
        self._blocks = blocks
        self._reserve(tiles, _FIRST_BYTES)

    def _reserve(self, tiles: int, rest: int) -> None:
        """Room for this many tiles and bytes of what follows them: pinned, and on the device."""
        self._most_tiles = tiles
        self._tiles_at = _aligned(self._blocks * 4)
        self._rows_at = self._tiles_at + _aligned(tiles * TILE_WORDS * 8)
        size = self._rows_at + rest
        host = np.frombuffer(cupy.cuda.alloc_pinned_memory(size), np.uint8, size)
        self._words, self._longs, self.host_address = host.view(np.int32), host.view(np.int64), host.ctypes.data
        self.device = cupy.empty(size, cupy.uint8)
        self.device_blocks = self.device[: self._tiles_at]
        self.device_tiles = self.device[self._tiles_at : self._rows_at]
        self.device_rows = self.device[self._rows_at :]

    def write(self, tiles: Int64, rows: Int32, plan: Plan) -> None:
        """Put all that into pinned memory."""
        heads_at = len(rows) * ROW_WORDS * 4
        lists_at = heads_at + plan.heads.nbytes
        size = lists_at + plan.lists.nbytes
        if len(tiles) > self._most_tiles or self._rows_at + size > self.device.nbytes:
            self._reserve(max(len(tiles), self._most_tiles), _aligned(max(2 * size, _FIRST_BYTES)))
        self.used = 4 * pack_launch(
            self._words, self._longs, self._tiles_at // 8, self._rows_at // 4,
            plan.blocks, tiles, rows, plan.heads, plan.lists,
        )  # fmt: skip
        device = self.device_rows.data.ptr
        self.arguments = len(plan.blocks), plan.lead, plan.drawn, device + heads_at, device + lists_at, len(tiles)


def _aligned(size: int) -> int:
    """Bytes after which something else may begin."""
    return -(-size // 256) * 256


class CudaCompositor(Closing):
    """Frames in device memory -> NV12 mosaic. One thread calls it.

    Args:
        config: `mosaic`, `sources`, `tiles` and `overlay` are used.
        device: index of the CUDA device.
        copies: the ledger.
        class_names: what the detector calls its classes, for labels.

    Raises:
        InputError: the layout or the font is refused.
    """

    def __init__(self, config: Config, device: int, copies: Copies, class_names: tuple[str, ...] = ()) -> None:
        self._device = cupy.cuda.Device(device)
        self._copies = copies
        self._scene = Scene(config, class_names)
        self._size = self._scene.size
        self._plan = Plan(self._size)
        with self._device:
            self._stream = cupy.cuda.Stream(non_blocking=True)
            most = len(self._scene.tiles) + config.places - len(config.sources)  # tiles of sources that may be added
            self._ring = [_Turn(self._size, len(self._plan.blocks), most + 1) for _ in range(RING)]
            self._colours = cupy.asarray(COLOURS)
            self._tables = cupy.zeros(1, cupy.int32)
            self._atlas = cupy.zeros((1, 1), cupy.uint8)
            prepare()
            cupy.cuda.get_current_stream().synchronize()
        self._turn = -1
        self._rows = Rows()
        self._lay_out()
        self._pack(self._ring[0])   # no tick is to pay for first use

    def arrange(self, config: Config) -> None:
        """Take other sources, layout, titles or overlay; see `Compositor`."""
        self._scene.arrange(config)
        self._lay_out()

    def _lay_out(self) -> None:
        """What depends on the tiles."""
        self.tiles = self._scene.tiles
        self._atlas_version = -1
        self._table = np.zeros((len(self.tiles) + 1, TILE_COLUMNS), np.int64)
        self._packed = np.zeros((len(self._table), TILE_WORDS), np.int64)
        self._modes = [Mode(0)] * len(self.tiles)
        self._planes_of = PerPicture(planes_of)
        self._table[:, COLOUR] = -1
        for row, tile in zip(self._table, self.tiles, strict=False):
            row[REACH : REACH + 4] = reach(bounds(tile), self._size)
        self._table[-1, REACH : REACH + 4] = 0, 0, *self._size

    def compose(self, tick: int, sources: Sequence[TileInput], clock: str = "") -> Mosaic:
        """Enqueue the mosaic of one tick; see `Compositor`. It is there after `Mosaic.ready`."""
        self._device.use()
        with self._stream:
            # Not tick % RING: a live run leaves ticks out, and a mosaic that waits must keep its memory.
            self._turn = (self._turn + 1) % RING
            turn = self._ring[self._turn]
            enqueue_cuda.finish(turn.ready)
            self._let_go()
            if self._scene.place(sources):
                self._upload_tables()
            self._rows.clear()
            drawn = self._scene.draw(sources, self._rows)
            self._scene.overlay.draw_mosaic(clock, self._rows)
            frames = [frame for frame in drawn.frames if frame is not None]
            enqueue_cuda.wait(self._stream, frames)
            self._fill(turn, drawn)
            self._upload_glyphs()
            self._upload(turn)
            self._launch(turn)
            enqueue_cuda.record(turn.ready, self._stream)
        turn.frames = frames
        return Mosaic(tick, turn.planes, shown_pts(sources), turn.nv12, turn.ready)

    def close(self) -> None:
        """Wait for the last launch and let go of its pictures; may be called twice."""
        self._device.use()
        self._stream.synchronize()
        self._let_go()

    def _let_go(self) -> None:
        """Drop the pictures of every launch that has ended."""
        for turn in self._ring:
            if turn.frames and enqueue_cuda.passed(turn.ready):
                turn.frames = []

    def _fill(self, turn: _Turn, drawn: Drawn) -> None:
        """Write this tick's tiles, primitives and plan to pinned memory."""
        table, parts = self._table, drawn.parts
        table[:, PLANES] = 0
        for row, frame, mode in zip(table, drawn.frames, self._modes, strict=False):
            if frame is not None:
                pack_picture(row, self._planes_of(frame), mode)
        table[:-1, OVER], table[:-1, END] = parts[:, UNDER_END], parts[:, PART_END]
        table[1:, UNDER] = parts[:, PART_END]
        table[-1, OVER], table[-1, END] = table[-1, UNDER], self._rows.count
        self._pack(turn)

    def _pack(self, turn: _Turn) -> None:
        rows = self._rows.written
        pack_tiles(self._table, rows, self._packed)
        self._plan.make(self._table, self._packed, rows)
        turn.write(self._packed, rows, self._plan)

    def _launch(self, turn: _Turn) -> None:
        """The GPU's part of a tick, on the current stream."""
        arrays = turn.device_blocks, turn.device_tiles, self._tables, turn.device_rows, self._atlas
        launch = turn.launch
        if launch is None or not launch.made_of(turn.nv12, *arrays):
            launch = turn.launch = Compose(turn.nv12, self._scene.background, *arrays, self._colours)
        launch(turn.used, *turn.arguments)

    def _upload(self, turn: _Turn) -> None:
        enqueue_cuda.copy(turn.device.data.ptr, turn.host_address, turn.used, self._stream)
        self._copies.add("overlays and tiles", "up", turn.used)

    def _upload_tables(self) -> None:
        """The scaling tables of all tiles, when a picture's size or shape changed."""
        packed, at = [np.zeros(1, np.int32)], 1
        for i, placed in enumerate(self._scene.placements):
            if placed.geometry is not None:
                self._modes[i] = scale_mode(placed.geometry)
                opacity = round(255 * self.tiles[i].opacity)
                pack_placement(self._table[i], placed.geometry, self._modes[i], at, opacity)
                packed.append(placed.geometry.tables)
                at += len(placed.geometry.tables)
        self._tables = cupy.asarray(np.concatenate(packed))
        self._copies.add("scaling tables", "up", self._tables.nbytes)

    def _upload_glyphs(self) -> None:
        """The atlas, when a character was met for the first time."""
        atlas = self._scene.overlay.atlas
        if atlas.version != self._atlas_version:
            rows, width = atlas.texture.shape
            self._atlas = cupy.zeros((rows + 2 * BESIDE_ATLAS, width), cupy.uint8)
            self._atlas[BESIDE_ATLAS:-BESIDE_ATLAS].set(atlas.texture)
            self._atlas_version = atlas.version
            self._copies.add("glyphs", "up", self._atlas.nbytes)
