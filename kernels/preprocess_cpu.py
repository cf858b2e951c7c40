"""Preprocess on the CPU: one band of rows of one 4:2:0 picture -> rows of a normalised RGB tensor.

Note [Preprocess]: the maths, which the CUDA twin repeats.

1. Samples are read as 8 bits; of 16-bit samples that is the high byte (`sample >> 8`).
2. Along each axis a picture of `extent` samples becomes `outputs` samples; `ratio = extent / outputs`.
   Shrinking (ratio >= 1) averages the area [i * ratio, (i + 1) * ratio); growing interpolates between
   the two samples around (i + 0.5) * ratio - 0.5, edges repeated. Chroma planes have half the extent
   of luma (w / 2 even when w is odd) and are taken as centred on their four luma samples: the error
   against left-sited chroma is half a source pixel of colour, which no detector sees.
3. rgb = clip(M @ (Y, U, V) + o, 0, 255), not rounded; `kernels/color.py` defines M and o.
4. tensor = rgb * gain + bias per channel; around the picture, the padding value treated alike.

The picture is scaled as it is stored and turned upright while it is written, by the steps in
`target`, so that a rotated picture costs no second pass.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
UInt8 = npt.NDArray[np.uint8]


def axis_table(samples: int, extent: float, outputs: int) -> tuple[Int32, Float32]:
    """Taps that scale one axis of one plane; see Note [Preprocess].

    Args:
        samples: length of the plane along the axis.
        extent: length of the picture along it, in samples of this plane (> 0).
        outputs: length of the result.

    Returns:
        first (outputs,) int32 and weights (taps, outputs) float32: output i is
        `sum_k weights[k, i] * plane[first[i] + k]`; no index leaves the plane.
    """
    ratio = extent / outputs
    index = np.arange(outputs, dtype=np.float64)
    if ratio >= 1:
        low, high = index * ratio, (index + 1) * ratio
        start = np.floor(low + 1e-9).astype(np.int64)
        count = int((np.ceil(high - 1e-9).astype(np.int64) - start).max())
        tap = start + np.arange(count)[:, None]
        weights = np.clip(np.minimum(high, tap + 1) - np.maximum(low, tap), 0, None)
    else:
        centre = (index + 0.5) * ratio - 0.5
        start = np.floor(centre).astype(np.int64)
        tap = start + np.arange(2)[:, None]
        weights = 1 - np.abs(centre - tap)
        count = 2
    taps = min(count, samples)
    first = np.clip(start, 0, samples - taps)
    column = np.broadcast_to(np.arange(outputs), tap.shape)
    table = np.zeros((taps, outputs))
    np.add.at(table, (np.clip(tap, 0, samples - 1) - first, column), weights)
    table /= table.sum(axis=0)
    return first.astype(np.int32), np.ascontiguousarray(table, np.float32)


@njit(nogil=True, cache=True, fastmath={"contract"})
def _gather_rows(
    plane: UInt8, row_step: int, step: int, first: int, weights: Float32, column: int, line: Float32
) -> None:
    """line[x] = the weighted sum of the plane's rows at x; the loops are written for the vectoriser."""
    width = line.shape[0]
    line[:] = 0
    for tap in range(weights.shape[0]):
        weight = weights[tap, column]
        if weight == 0:
            continue
        base = (first + tap) * row_step
        row = plane[base : base + (width - 1) * step + 1]
        if step == 1:
            for x in range(width):
                line[x] += weight * np.float32(row[x])
        elif step == 2:
            for x in range(width):
                line[x] += weight * np.float32(row[2 * x])
        else:
            for x in range(width):
                line[x] += weight * np.float32(row[x * step])


@njit(nogil=True, cache=True, fastmath={"contract"})
def _gather_columns(line: Float32, first: Int32, weights: Float32, out: Float32) -> None:
    """out[x] = the weighted sum of the line's samples from first[x] on."""
    out[:] = 0
    for tap in range(weights.shape[0]):
        row = weights[tap]
        for x in range(out.shape[0]):
            out[x] += row[x] * line[first[x] + tap]


@njit(nogil=True, cache=True, fastmath={"contract"})
def preprocess_rows(
    y: UInt8,
    u: UInt8,
    v: UInt8,
    layout: Int64,
    luma_rows: tuple[Int32, Float32],
    luma_columns: tuple[Int32, Float32],
    chroma_rows: tuple[Int32, Float32],
    chroma_columns: tuple[Int32, Float32],
    to_rgb: Float32,
    affine: Float32,
    row0: int,
    row1: int,
    tensor: Float32,
    target: Int64,
) -> None:
    """Scale, convert, normalise and write the rows [row0, row1) of the result, as stored.

    Args:
        y, u, v: (bytes,) uint8, contiguous: each plane from its first sample to its last.
        layout: (5,) luma row step, luma column step, chroma row step, chroma column step (bytes),
            and luma width in samples.
        luma_rows, luma_columns, chroma_rows, chroma_columns: of `axis_table`.
        to_rgb: (3, 4) float32: [M | o], one row for each channel of the tensor, in its order.
        affine: (2, 3) float32: gain and bias of each channel.
        tensor: (floats,) float32: the whole batch, flat.
        target: (4,) index of the first result, then the steps to the next channel, row, column.
    """
    height, width = row1 - row0, luma_columns[0].shape[0]
    luma_line = np.empty(layout[4], np.float32)
    chroma_line = np.empty((layout[4] + 1) // 2, np.float32)
    luma, cb, cr = np.empty((3, width), np.float32)
    for i in range(height):
        row = row0 + i
        _gather_rows(y, layout[0], layout[1], luma_rows[0][row], luma_rows[1], row, luma_line)
        _gather_columns(luma_line, luma_columns[0], luma_columns[1], luma)
        _gather_rows(u, layout[2], layout[3], chroma_rows[0][row], chroma_rows[1], row, chroma_line)
        _gather_columns(chroma_line, chroma_columns[0], chroma_columns[1], cb)
        _gather_rows(v, layout[2], layout[3], chroma_rows[0][row], chroma_rows[1], row, chroma_line)
        _gather_columns(chroma_line, chroma_columns[0], chroma_columns[1], cr)
        for channel in range(3):
            m = to_rgb[channel]
            my, mu, mv, offset = m[0], m[1], m[2], m[3]
            gain, bias = affine[0, channel], affine[1, channel]
            start, step = target[0] + channel * target[1] + row * target[2], target[3]
            if step == 1:
                out = tensor[start : start + width]
                for x in range(width):
                    value = my * luma[x] + mu * cb[x] + mv * cr[x] + offset
                    value = min(max(value, np.float32(0)), np.float32(255))
                    out[x] = value * gain + bias
            else:
                for x in range(width):
                    value = my * luma[x] + mu * cb[x] + mv * cr[x] + offset
                    value = min(max(value, np.float32(0)), np.float32(255))
                    tensor[start + x * step] = value * gain + bias
