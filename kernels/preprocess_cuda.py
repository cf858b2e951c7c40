"""Preprocess on CUDA: what `preprocess.cu` takes, and its launch. The maths is Note [Preprocess]."""

from __future__ import annotations

from typing import Any

import numpy as np

from tiler.kernels.enqueue_cuda import Launch
from tiler.kernels.module_cuda import kernel

ENTRY = np.dtype(
    [
        ("planes", np.int64, 3),
        ("luma_row", np.int64),
        ("chroma_row", np.int64),
        ("luma_step", np.int32),
        ("chroma_step", np.int32),
        ("box", np.int32, 4),
        ("rotation", np.int32),
        ("axes", np.int32, 4),
        ("taps", np.int32, 4),
        ("outputs", np.int32, 4),
        ("to_rgb", np.float32, 12),
        ("pairs", np.int32),
        ("ratio", np.int32),
    ],
    align=True,
)
"""`struct Entry` of preprocess.cu: one picture of the batch."""

_BLOCK = (32, 8)


def ratio_of(
    size: tuple[int, int], box: tuple[int, int, int, int], luma: tuple[int, int, int], chroma: tuple[int, int, int]
) -> int:
    """2 or 3 when a picture shrinks by just that, and lies so that whole words can be read; else 0.

    Args:
        size: width, height of the luma plane, which is upright as stored.
        box: x, y, width, height in the tensor.
        luma: address, bytes to the next row and sample.
        chroma: the same of u, with v beside it.
    """
    for ratio in (2, 3):
        exact = (box[2] * ratio, box[3] * ratio) == size and box[0] % 4 == box[2] % 4 == 0
        words = all(address % 4 == row % 4 == 0 for address, row, _ in (luma, chroma))
        if exact and words and (luma[2], chroma[2]) == (1, 2) and box[3] % 2 == 0:
            return ratio
    return 0


class Preprocess:
    """The launch for one tensor and one table of entries."""

    def __init__(self, tensor: Any, entries: Any, tables: Any, affine: Any, pad: float) -> None:
        """
        Args:
            tensor: (N, 3, H, W) float16 or float32 on the device, C-contiguous.
            entries: N x ENTRY on the device.
            tables: int32 on the device: per axis `first` (outputs), then the float32 weights (taps, outputs).
            affine: (2, 3) float32 on the host: gain and bias of each channel.
            pad: value around the pictures, before `affine`.
        """
        _, _, height, width = tensor.shape
        element = "__half" if tensor.dtype == np.float16 else "float"
        self._grid = -(-width // (4 * _BLOCK[0])), -(-height // _BLOCK[1])
        numbers = [np.float32(value) for value in np.asarray(affine).ravel()]
        self._launch = Launch(
            kernel("preprocess", "preprocess", f"-DOUT={element}"), _BLOCK,
            (tensor, np.int32(width), np.int32(height), entries, tables, *numbers, np.float32(pad)),
        )  # fmt: skip

    def __call__(self, count: int) -> None:
        """Write the first `count` of the tensor on the current stream; the pictures that the entries name are read."""
        self._launch(*self._grid, count)
