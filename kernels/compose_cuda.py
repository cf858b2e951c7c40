"""Compose on CUDA: the launches of `compose.cu`. The maths is Note [Compose] of `compose_cpu.py`."""

from __future__ import annotations

from typing import Any

import numpy as np

from tiler.kernels.enqueue_cuda import Launch
from tiler.kernels.module_cuda import kernel

_BIN_THREADS, _THREADS = 128, 128
_BIN_ROWS = 16
"""Primitives that a block of threads marks."""
_BLOCK = (128, 16)
"""Mosaic samples that a block of threads covers."""


def prepare() -> None:
    """Compile the kernels for the current device now, not with the first mosaic."""
    for function in ("bin_rows", "compose"):
        kernel("compose", function)


class Compose:
    """The two launches that draw a whole mosaic, for one set of arrays on the device; the second begins early."""

    def __init__(
        self,
        nv12: Any,
        background: tuple[int, int, int],
        tiles: Any,
        tables: Any,
        rows: Any,
        masks: Any,
        atlas: Any,
        colours: Any,
    ) -> None:
        """
        Args:
            nv12: (H * 3 / 2, W) uint8, C-contiguous, H and W even; every byte is written.
            background: Y, Cb, Cr behind everything.
            tiles: (n, TILE_WORDS) int64, in drawing order, on an address divisible by 16.
            tables: the packed axes of all tiles, int32.
            rows: (m, ROW_WORDS) int32, the primitives.
            masks: as many int64 as `pack_tiles` says, or more; all 0, and left so.
            atlas: (h, w) uint8 coverage of glyphs.
            colours: (6, 10) int32, COLOURS of compose_cpu.py.
        """
        self.arrays = nv12, tiles, tables, rows, masks, atlas
        width, height = nv12.shape[1], nv12.shape[0] * 2 // 3
        shade = np.uint32(background[0] | background[1] << 8 | background[2] << 16)
        self._grid = -(-width // _BLOCK[0]), -(-height // _BLOCK[1])
        self._bin = Launch(
            kernel("compose", "bin_rows"), (_BIN_THREADS,), (rows, np.int32(0), tiles, np.int32(0), masks)
        )
        self._draw = Launch(
            kernel("compose", "compose"), (_THREADS,),
            (nv12, np.int32(width), np.int32(height), shade, tiles, np.int32(0), tables, rows, masks, atlas,
             np.int32(atlas.shape[1]), colours),
        )  # fmt: skip

    def made_of(self, *arrays: Any) -> bool:
        """Whether it is for these: nv12, tiles, tables, rows, masks, atlas."""
        return all(one is other for one, other in zip(self.arrays, arrays, strict=True))

    def __call__(self, row_count: int, tile_count: int) -> None:
        """Draw the first tiles with all their primitives, on the current stream: mark these in the bins that they
        touch, then draw what is marked."""
        self._draw.put(5, tile_count)
        if not row_count:
            self._draw(*self._grid)
            return
        self._bin.put(1, row_count)  # `count` and `tile_count` of compose.cu
        self._bin.put(3, tile_count)
        self._bin(-(-row_count // _BIN_ROWS))
        self._draw(*self._grid, early=True)
