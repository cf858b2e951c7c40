"""The compositor's scaling and colour, slow and obvious, in float64: what "correct" means.

Used by tests only. The kernels differ by how their steps round; see `kernels/scaling.py`
for the definition of each scaler and Note [Colour] in `kernels/color.py`.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt

from tiler.kernels.color import to_bt709
from tiler.kernels.scaling import POSITION, Box, Rect, chroma_phases
from tiler.types import Frame, UInt8

Float64 = npt.NDArray[np.float64]


def scaling_matrix(start: Fraction, step: Fraction, size: int, n: int) -> Float64:
    """(n, size) weights: output i = sum over j of weights[i, j] * sample j."""
    weights = np.zeros((n, size))
    for i in range(n):
        low, high = start + i * step, start + (i + 1) * step
        if step > 1:
            for j in range(low.__floor__(), high.__ceil__()):
                covered = min(high, Fraction(j + 1)) - max(low, Fraction(j))
                weights[i, min(max(j, 0), size - 1)] += float(covered / step)
        else:
            centre = (low + high) / 2 - Fraction(1, 2)
            left = centre.__floor__()
            right_share = float(centre - left)
            weights[i, min(max(left, 0), size - 1)] += 1 - right_share
            weights[i, min(max(left + 1, 0), size - 1)] += right_share
    return weights


def picture(frame: Frame, src: Rect, dst: Box) -> tuple[Float64, Float64, Float64]:
    """The whole of `dst` (also what hangs over the edge): y, u, v before rounding, BT.709 limited."""
    eight = [plane >> 8 if plane.dtype == np.uint16 else plane for plane in (frame.y, frame.u, frame.v)]
    y, u, v = (np.rot90(plane, -(frame.rotation // 90)).astype(np.float64) for plane in eight)
    begin = [Fraction(round(value * POSITION), POSITION) for value in src]
    phases_in = chroma_phases(frame.plane_size, frame.rotation)
    phases_out = chroma_phases((2, 2), 0)
    luma, chroma = [], []
    for k in range(2):
        step = (begin[2 + k] - begin[k]) / dst[2 + k]
        luma.append(scaling_matrix(begin[k], step, y.shape[1 - k], dst[2 + k]))
        start = (begin[k] + step * phases_out[k] - phases_in[k]) / 2 + Fraction(1, 2) - step / 2
        chroma.append(scaling_matrix(start, step, u.shape[1 - k], dst[2 + k] // 2))
    y = luma[1] @ y @ luma[0].T
    u, v = (chroma[1] @ plane @ chroma[0].T for plane in (u, v))
    c, o = to_bt709(frame.matrix, frame.full_range)
    wide_u, wide_v = (np.repeat(np.repeat(plane, 2, 0), 2, 1) for plane in (u, v))
    converted = (
        c[0, 0] * y + c[0, 1] * wide_u + c[0, 2] * wide_v + o[0],
        c[1, 1] * u + c[1, 2] * v + o[1],
        c[2, 1] * u + c[2, 2] * v + o[2],
    )
    clipped = tuple(np.clip(plane, 0, 255) for plane in converted)
    return clipped[0], clipped[1], clipped[2]


def blend(old: UInt8, new: Float64, opacity: int) -> Float64:
    """`new` over `old` with opacity / 255."""
    return old + (new - old) * (opacity / 255)
