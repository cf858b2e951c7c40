"""Appearance on the CPU: crops of 4:2:0 pictures -> unit vectors, alike for pictures of one person.

Note [Appearance]: the maths, which the CUDA twin repeats.

1. The box, in samples of luma, is cut into ROWS x COLUMNS cells. Luma of a cell is the rounded mean of the four
   samples nearest to the centres of its quarters, chroma the samples over its own centre. Sample p lies in
   [p, p + 1); one outside the picture is replaced by the nearest inside. Of 16 bits the high byte counts.
2. A cell has five values: luma, Cb, Cr, and how far luma changes to the cell to the right and to the one below
   (texture; at the edge: 0). Each goes into the two bins whose centres are nearest, by linear interpolation, and
   in the same way into the two stripes of the body that are nearest to its row, weighted by its column: little at
   the sides, where the background is. Weights are integers, so that sums do not depend on their order.
3. h = sqrt(share of the bin in its stripe): with the root, a dot product of two is how far two histograms agree
   (Hellinger; Arandjelovic and Zisserman, "Three things everyone should know", CVPR 2012).
4. v = W h + b, then v / |v|. W is learned, see `tools/train_appearance.py`: it weighs up what differs between
   people, and down what differs between two pictures of the same one.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from numba import njit

from tiler.kernels.addresses import bytes_at
from tiler.kernels.appearance import (
    ADDRESSES,
    BINS,
    CHROMA,
    COLUMNS,
    FEATURES,
    LUMA,
    PART,
    ROWS,
    SIZE,
    STEP,
    STRIDES,
    VECTOR,
)
from tiler.types import Float32, Int32

Int64 = npt.NDArray[np.int64]
Tables = tuple[Int32, Int32, Int32, Float32]

_CB = len(LUMA)
_CR = _CB + len(CHROMA)
_ACROSS = _CR + len(CHROMA)
_DOWN = _ACROSS + len(STEP)


@njit(inline="always")
def _sample(low: np.float32, step: np.float32, at: float, size: int) -> int:
    """The sample `at` steps behind `low`, inside the picture."""
    place = math.floor(low + np.float32(at) * step)
    return int(min(max(place, 0), size - 1))


@njit(inline="always")
def _add(row: Int32, first: int, share: int, weight: int) -> None:
    bin_, part = first + share // PART, share % PART
    row[bin_] += weight * (PART - part)
    row[bin_ + 1] += weight * part  # behind the last bin part is 0


@njit(nogil=True, cache=True)
def histograms(places: Int64, boxes: Float32, tables: Tables, out: Float32) -> None:
    """h of Note [Appearance].

    Args:
        places: (n, PLACE_COLUMNS) int64, see there.
        boxes: (n, 4) float32 x0, y0, x1, y1 in samples of luma, of a positive area.
        tables: of `tiler.kernels.appearance.tables`.
        out: (n, FEATURES) float32, is written.
    """
    bins, columns, rows, scale = tables
    luma = np.empty((ROWS, COLUMNS), np.int32)
    row = np.empty(BINS + 1, np.int32)
    counts = np.empty(FEATURES + BINS, np.int32)
    left, right, middle = np.empty(COLUMNS, np.int64), np.empty(COLUMNS, np.int64), np.empty(COLUMNS, np.int64)
    for n in range(places.shape[0]):
        place = places[n]
        y, u, v = bytes_at(place[ADDRESSES]), bytes_at(place[ADDRESSES + 1]), bytes_at(place[ADDRESSES + 2])
        luma_x, luma_y, chroma_x, chroma_y = place[STRIDES], place[STRIDES + 1], place[STRIDES + 2], place[STRIDES + 3]
        width, height = place[SIZE], place[SIZE + 1]
        x0, y0 = boxes[n, 0], boxes[n, 1]
        step_x, step_y = (boxes[n, 2] - x0) / np.float32(COLUMNS), (boxes[n, 3] - y0) / np.float32(ROWS)
        for j in range(COLUMNS):
            left[j] = _sample(x0, step_x, j + 0.25, width) * luma_x
            right[j] = _sample(x0, step_x, j + 0.75, width) * luma_x
            middle[j] = _sample(x0, step_x, j + 0.5, width) // 2 * chroma_x
        for i in range(ROWS):
            above = _sample(y0, step_y, i + 0.25, height) * luma_y
            below = _sample(y0, step_y, i + 0.75, height) * luma_y
            for j in range(COLUMNS):
                total = np.int32(y[above + left[j]]) + np.int32(y[above + right[j]])
                total += np.int32(y[below + left[j]]) + np.int32(y[below + right[j]])
                luma[i, j] = (total + 2) >> 2
        counts[:] = 0
        for i in range(ROWS):
            row[:] = 0
            line = _sample(y0, step_y, i + 0.5, height) // 2 * chroma_y
            under = min(i + 1, ROWS - 1)
            for j in range(COLUMNS):
                weight, here = columns[j], luma[i, j]
                _add(row, 0, bins[0, here], weight)
                _add(row, _CB, bins[1, u[line + middle[j]]], weight)
                _add(row, _CR, bins[1, v[line + middle[j]]], weight)
                _add(row, _ACROSS, bins[2, abs(luma[i, min(j + 1, COLUMNS - 1)] - here)], weight)
                _add(row, _DOWN, bins[2, abs(luma[under, j] - here)], weight)
            at = rows[i, 0] * BINS
            for k in range(BINS):
                counts[at + k] += rows[i, 1] * row[k]
                counts[at + BINS + k] += rows[i, 2] * row[k]
        for k in range(FEATURES):
            out[n, k] = math.sqrt(np.float32(counts[k]) * scale[k // BINS])


@njit(nogil=True, cache=True, fastmath={"contract"})
def embed(histogram: Float32, matrix: Float32, out: Float32) -> None:
    """v of Note [Appearance].

    Args:
        histogram: (n, FEATURES) float32.
        matrix: (FEATURES + 1, VECTOR) float32: W transposed, then b.
        out: (n, VECTOR) float32, unit rows, is written.
    """
    for n in range(histogram.shape[0]):
        vector = out[n]
        for k in range(VECTOR):
            vector[k] = matrix[FEATURES, k]
        for f in range(FEATURES):
            value, line = histogram[n, f], matrix[f]
            if value > 0:
                for k in range(VECTOR):
                    vector[k] += value * line[k]
        square = np.float32(0)
        for k in range(VECTOR):
            square += vector[k] * vector[k]
        gain = np.float32(1) / math.sqrt(square) if square > 0 else np.float32(0)
        for k in range(VECTOR):
            vector[k] *= gain
