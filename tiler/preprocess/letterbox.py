"""Where a picture lies in the detector's input, and the numbers that take it there, on any device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Literal

import numpy as np

from tiler.kernels.color import yuv_to_rgb
from tiler.kernels.preprocess_cpu import axis_table
from tiler.types import Float32, Frame, Int32, Matrix

Table = tuple[Int32, Float32]


@dataclass(frozen=True, slots=True)
class Letterbox:
    """Where a picture lies in the tensor: x, y, width, height in tensor pixels."""

    x: int
    y: int
    width: int
    height: int


@lru_cache(maxsize=256)
def letterbox(
    picture_size: tuple[int, int],
    picture_aspect: Fraction,
    input_size: tuple[int, int],
    align: Literal["center", "top-left"],
) -> Letterbox:
    """Fit a picture into the tensor, with the shape that a viewer sees.

    >>> letterbox((1920, 1080), Fraction(1), (640, 384), "center")
    Letterbox(x=0, y=12, width=640, height=360)
    """
    wide, high = picture_size[0] * picture_aspect, Fraction(picture_size[1])
    scale = min(input_size[0] / wide, input_size[1] / high)
    width, height = max(1, round(wide * scale)), max(1, round(high * scale))
    if align == "top-left":
        return Letterbox(0, 0, width, height)
    return Letterbox((input_size[0] - width) // 2, (input_size[1] - height) // 2, width, height)


@lru_cache(maxsize=256)
def axis_tables(stored: tuple[int, int], result: tuple[int, int]) -> tuple[Table, Table, Table, Table]:
    """Luma rows, luma columns, chroma rows, chroma columns for (height, width) -> (height, width)."""
    luma = [axis_table(n, n, m) for n, m in zip(stored, result, strict=True)]
    chroma = [axis_table((n + 1) // 2, n / 2, m) for n, m in zip(stored, result, strict=True)]
    return luma[0], luma[1], chroma[0], chroma[1]


@lru_cache
def coefficients(matrix: Matrix, full_range: bool, channels: str) -> Float32:
    """(3, 4) float32 [M | o], rows in the order of the tensor's channels."""
    m, o = yuv_to_rgb(matrix, full_range)
    table = np.concatenate([m, o[:, None]], axis=1)
    return np.ascontiguousarray(table if channels == "rgb" else table[::-1])


def places(frames: Sequence[Frame], boxes: Sequence[Letterbox]) -> tuple[Float32, Int32]:
    """`letterbox` (N, 4) and `sizes` (N, 2) of a `Batch`."""
    sizes = np.array([frame.picture_size for frame in frames], np.int32).reshape(-1, 2)
    transform = np.array([(b.width, b.height, b.x, b.y) for b in boxes], np.float32).reshape(-1, 4)
    transform[:, :2] /= sizes
    return transform, sizes
