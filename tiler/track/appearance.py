"""Appearance on the CPU: what people look like in a picture, as vectors that can be compared.

The matrix that makes vectors of histograms is learned from drawn people (`tools/train_appearance.py`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tiler.kernels import looks_cpu
from tiler.kernels.appearance import FEATURES, PLACE_COLUMNS, VECTOR, tables
from tiler.kernels.appearance_cpu import embed, histograms
from tiler.track.base import Embedder
from tiler.types import Float32, Frame, Plane

Int64 = npt.NDArray[np.int64]

_EXTENT = 1e6
"""Boxes are clamped to this many samples."""


class CpuEmbedder(Embedder):
    """Crops of frames in host memory -> unit vectors. One thread calls it."""

    def __init__(self) -> None:
        self._matrix = load_matrix()
        self.embed([(_SMALLEST, np.array([[0, 0, 1, 1]], np.float32))])  # the first crop must not wait for a compiler

    def embed(self, crops: Sequence[tuple[Frame, Float32]]) -> Float32:
        """The vectors of all boxes, in order; see `Embedder`."""
        places, boxes = lay_out(crops, host_place)
        histogram, vectors = np.empty((len(boxes), FEATURES), np.float32), np.empty((len(boxes), VECTOR), np.float32)
        histograms(places, boxes, tables(), histogram)
        embed(histogram, self._matrix, vectors)
        return vectors


@cache
def load_matrix() -> Float32:
    """(FEATURES + 1, VECTOR) float32: W transposed and b of Note [Appearance]."""
    with (files("tiler.engines") / "models" / "appearance.npy").open("rb") as file:
        matrix = np.load(file)
    return np.ascontiguousarray(matrix, np.float32)


class Place(NamedTuple):
    """A picture as the kernels read it, upright.

    Attributes:
        row: (PLACE_COLUMNS,) int64.
        scale: (4,) samples of luma in a picture pixel, for x0, y0, x1, y1.
    """

    row: Int64
    scale: npt.NDArray[np.float64]


def lay_out(crops: Sequence[tuple[Frame, Float32]], place_of: Callable[[Frame], Place]) -> tuple[Int64, Float32]:
    """What the kernels ask of each crop.

    Args:
        crops: pictures, and boxes (n, 4) x0, y0, x1, y1 in picture pixels; any values.
        place_of: see `place`.

    Returns:
        places: (n, PLACE_COLUMNS) int64, of all crops in order.
        boxes: (n, 4) float32 in samples of luma, finite and at least one sample wide and high.
    """
    pictures, counts = [place_of(frame) for frame, _ in crops], np.array([len(own) for _, own in crops], np.int64)
    count = int(counts.sum())
    places, boxes = np.empty((count, PLACE_COLUMNS), np.int64), np.empty((count, 4), np.float32)
    if count:
        rows, scales = np.array([place.row for place in pictures]), np.array([place.scale for place in pictures])
        xyxy = np.concatenate([own for _, own in crops])
        looks_cpu.lay_out(rows, scales, counts, np.asarray(xyxy, np.float32), _EXTENT, places, boxes)
    return places, boxes


def place(frame: Frame, address: Callable[[Plane], int]) -> Place:
    """Where a picture lies; u and v share their strides.

    Args:
        frame: the picture.
        address: of the 8-bit value of a plane's first sample.
    """
    luma_at, luma_x, luma_y = _upright(frame.y, frame.rotation)
    chroma_at, chroma_x, chroma_y = _upright(frame.u, frame.rotation)
    starts = address(frame.y) + luma_at, address(frame.u) + chroma_at, address(frame.v) + chroma_at
    row = np.array([*starts, luma_x, luma_y, chroma_x, chroma_y, *frame.plane_size], np.int64)
    return Place(row, np.tile(np.array(frame.plane_size) / frame.picture_size, 2))


def host_place(frame: Frame) -> Place:
    """`place` of a picture in host memory."""
    return place(frame, lambda plane: int(plane.ctypes.data) + (plane.itemsize == 2 and sys.byteorder == "little"))


def _upright(plane: Plane, rotation: int) -> tuple[int, int, int]:
    """Bytes from the first stored sample to the first upright one, and from there to the right and downwards."""
    (height, width), (down, right) = plane.shape, plane.strides
    bottom, end = (height - 1) * down, (width - 1) * right
    return {0: (0, right, down), 90: (bottom, -down, right), 180: (bottom + end, -right, -down),
            270: (end, down, -right)}[rotation]  # fmt: skip


_GREY = np.full((1, 1), 128, np.uint8)
_SMALLEST = Frame(0, 0, _GREY, _GREY, _GREY)
