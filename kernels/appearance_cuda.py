"""Appearance on CUDA: the launch of `appearance.cu`. The maths is Note [Appearance]."""

from __future__ import annotations

from typing import Any

import numpy as np

from tiler.kernels.appearance import (
    CHROMA,
    COLUMNS,
    LUMA,
    PART,
    PLACE_COLUMNS,
    ROWS,
    STEP,
    STRIPES,
    VECTOR,
    tables,
)
from tiler.kernels.enqueue_cuda import Launch
from tiler.kernels.module_cuda import kernel
from tiler.types import Int32

CROP_BYTES = PLACE_COLUMNS * 8 + 4 * 4
"""Of a crop's place and box."""
_THREADS = 256
_MACROS = tuple(
    f"-D{name}={value}"
    for name, value in (
        *(("ROWS", ROWS), ("COLUMNS", COLUMNS), ("STRIPES", STRIPES), ("PART", PART), ("VECTOR", VECTOR)),
        *(("LUMA", len(LUMA)), ("CHROMA", len(CHROMA)), ("STEP", len(STEP))),
    )
)


def packed_tables() -> Int32:
    """The shared tables as the kernel reads them, one after the other."""
    bins, columns, rows, scale = tables()
    return np.concatenate([bins.ravel(), columns, rows.ravel(), scale.view(np.int32)])


class Embed:
    """The launch for one block of crops' places and boxes."""

    def __init__(self, crops: Any, tables: Any, matrix: Any, vectors: Any) -> None:
        """
        Args:
            crops: (n * CROP_BYTES,) uint8: of a launch's crops the places, PLACE_COLUMNS int64 each, then the boxes,
                float32 x0, y0, x1, y1 in samples of luma, of a positive area.
            tables: of `packed_tables`.
            matrix: (FEATURES + 1, VECTOR) float32.
            vectors: (n, VECTOR) float32, unit rows, is written. All on the device, or mapped.
        """
        self._address = crops.data.ptr
        arguments = (crops, crops, tables, matrix, vectors)
        self._launch = Launch(kernel("appearance", "appearance", *_MACROS), (_THREADS,), arguments)

    def __call__(self, count: int) -> None:
        """Vectors of this many crops, of all pictures at once, on the current stream; the pictures are read."""
        self._launch.put(1, self._address + count * PLACE_COLUMNS * 8)
        self._launch(count)
