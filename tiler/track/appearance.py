"""Appearance on the CPU: what people look like in a picture, as vectors that can be compared.

The matrix that makes vectors of histograms is learned from drawn people (`tools/train_appearance.py`).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

import numpy as np
import numpy.typing as npt

from tiler.kernels.appearance import FEATURES, PLACE_COLUMNS, VECTOR, tables
from tiler.kernels.appearance_cpu import embed, histograms
from tiler.types import Float32, Frame, Plane

Int64 = npt.NDArray[np.int64]


class CpuEmbedder:
    """Crops of frames in host memory -> unit vectors. One thread calls it."""

    def __init__(self) -> None:
        self._matrix = load_matrix()
        self.embed([(_SMALLEST, np.array([[0, 0, 1, 1]], np.float32))])  # the first crop must not wait for a compiler

    def embed(self, crops: Sequence[tuple[Frame, Float32]]) -> Float32:
        """The vectors of all boxes, in order; see `Embedder`."""
        count = sum(len(boxes) for _, boxes in crops)
        places, boxes = np.empty((count, PLACE_COLUMNS), np.int64), np.empty((count, 4), np.float32)
        at = 0
        for frame, own in crops:
            places[at : at + len(own)] = place_of(frame, [plane.ctypes.data for plane in (frame.y, frame.u, frame.v)])
            boxes[at : at + len(own)] = own
            at += len(own)
        histogram, vectors = np.empty((count, FEATURES), np.float32), np.empty((count, VECTOR), np.float32)
        histograms(places, boxes, tables(), histogram)
        embed(histogram, self._matrix, vectors)
        return vectors

    def close(self) -> None:
        """Nothing to free; may be called twice."""


@cache
def load_matrix() -> Float32:
    """(FEATURES + 1, VECTOR) float32: W transposed and b of Note [Appearance]."""
    with (files("tiler.engines") / "models" / "appearance.npy").open("rb") as file:
        matrix = np.load(file)
    return np.ascontiguousarray(matrix, np.float32)


def place_of(frame: Frame, addresses: Sequence[int]) -> Int64:
    """A picture as the kernels read it, upright: (PLACE_COLUMNS,) int64.

    Args:
        frame: on any device; u and v share their strides.
        addresses: of the first sample of y, u and v.
    """
    high = frame.y.dtype.itemsize == 2 and sys.byteorder == "little"
    (y_at, luma_x, luma_y), (_, chroma_x, chroma_y) = (_upright(plane, frame.rotation) for plane in (frame.y, frame.u))
    chroma_at = _upright(frame.u, frame.rotation)[0]
    places = [addresses[0] + y_at, addresses[1] + chroma_at, addresses[2] + chroma_at]
    return np.array([*(at + high for at in places), luma_x, luma_y, chroma_x, chroma_y, *frame.picture_size], np.int64)


def _upright(plane: Plane, rotation: int) -> tuple[int, int, int]:
    """Bytes from the first stored sample to the first upright one, and from there to the right and downwards."""
    (height, width), (down, right) = plane.shape, plane.strides
    bottom, end = (height - 1) * down, (width - 1) * right
    return {0: (0, right, down), 90: (bottom, -down, right), 180: (bottom + end, -right, -down),
            270: (end, down, -right)}[rotation]  # fmt: skip


_SMALLEST = Frame(0, 0, *(np.full((1, 1), 128, np.uint8) for _ in range(3)))
