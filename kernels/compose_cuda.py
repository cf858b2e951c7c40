"""Compose on CUDA: the launch of `compose.cu`. The maths is Note [Compose] of `compose_cpu.py`."""

from __future__ import annotations

from typing import Any

import numpy as np

from tiler.kernels.enqueue_cuda import Launch
from tiler.kernels.module_cuda import kernel

_THREADS = 128


def prepare() -> None:
    """Compile the kernel for the current device now, not with the first mosaic."""
    kernel("compose", "compose")


class Compose:
    """The launch that draws a whole mosaic, for one set of arrays on the device."""

    def __init__(
        self,
        nv12: Any,
        background: tuple[int, int, int],
        plan: Any,
        tiles: Any,
        tables: Any,
        rows: Any,
        atlas: Any,
        colours: Any,
    ) -> None:
        """
        Args:
            nv12: (H * 3 / 2, W) uint8, C-contiguous, H and W even; every byte is written.
            background: Y, Cb, Cr behind everything.
            plan: (blocks,) uint32, as `Plan.blocks`; after it in its memory comes all else that a launch is told.
            tiles: (n, TILE_WORDS) int64, in drawing order, on an address divisible by 16.
            tables: the packed axes of all tiles, int32.
            rows: (m, ROW_WORDS) int32, the primitives.
            atlas: (BESIDE_ATLAS + h + BESIDE_ATLAS, w) uint8 coverage of glyphs.
            colours: (6, 10) int32, COLOURS of compose_cpu.py.
        """
        self.arrays = nv12, plan, tiles, tables, rows, atlas
        width, height = nv12.shape[1], nv12.shape[0] * 2 // 3
        shade = np.uint32(background[0] | background[1] << 8 | background[2] << 16)
        zero = np.int32(0)   # what each launch puts; and `rows` where its heads and lists come
        self._launch = Launch(
            kernel("compose", "compose"), (_THREADS,),
            (nv12, np.int32(width), np.int32(height), shade, plan, zero, zero, zero, rows, rows, tiles, zero, tables,
             rows, atlas, np.int32(atlas.shape[1]), colours),
        )  # fmt: skip

    def made_of(self, *arrays: Any) -> bool:
        """Whether it is for these: nv12, plan, tiles, tables, rows, atlas."""
        return all(one is other for one, other in zip(self.arrays, arrays, strict=True))

    def __call__(
        self, told: int, blocks: int, lead: int, drawn: int, heads: int, lists: int, tile_count: int
    ) -> None:
        """Draw the first tiles with all their primitives, on the current stream.

        Args:
            told: bytes from the plan's first to the last of the lists.
            blocks, lead, drawn: of the `Plan`.
            heads, lists: addresses of these on the device; that of the heads is divisible by 8.
            tile_count: how many of the tiles.
        """
        for index, value in ((5, told), (6, lead), (7, drawn), (8, heads), (9, lists), (11, tile_count)):
            self._launch.put(index, value)
        self._launch(blocks)
