"""Colour matrices: the one place that knows what the samples of a YCbCr picture mean.

Note [Colour]: a picture says how it encodes colour with a matrix (BT.601, BT.709 or
BT.2020, which fix Kr and Kb) and a range. With codes Y, U, V of 8 bits

    limited   y = (Y - 16) / 219    cb = (U - 128) / 224    cr = (V - 128) / 224
    full      y =  Y       / 255    cb = (U - 128) / 255    cr = (V - 128) / 255

and Kg = 1 - Kr - Kb, the non-linear RGB in 0..1 is (ITU-R BT.709-6, items 3.2 to 3.4)

    R = y                                 + 2 (1 - Kr) cr
    G = y - 2 (1 - Kb) Kb / Kg * cb       - 2 (1 - Kr) Kr / Kg * cr
    B = y + 2 (1 - Kb) * cb

The mosaic is BT.709, limited. To reach it, decode with the picture's matrix and encode
with BT.709's: the product of two 3x3 matrices. A grey picture stays grey (cb = cr = 0
on both sides), so U' and V' depend on U and V only:

    Y' = a Y + b U + c V + d        U' = e U + f V + g        V' = h U + i V + j

Only the encoding is converted. Primaries and transfer function are left as they are:
BT.2020 and BT.709 share the transfer function, and mapping the wider gamut (or HDR) to
a display is a choice that a mosaic does not make.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from tiler.types import Float32, Int32, Matrix

COEFFICIENT_BITS = 14
"""Fraction bits of the integer coefficients."""

_KR_KB = {Matrix.BT601: (0.299, 0.114), Matrix.BT709: (0.2126, 0.0722), Matrix.BT2020: (0.2627, 0.0593)}

_Float64 = npt.NDArray[np.float64]


def _rgb_from_codes(matrix: Matrix, full_range: bool) -> tuple[_Float64, _Float64]:
    """M (3, 3) and o (3,): rgb in 0..1 = M @ (Y, U, V) + o."""
    kr, kb = _KR_KB[matrix]
    kg = 1 - kr - kb
    decode = np.array(
        [
            [1, 0, 2 * (1 - kr)],
            [1, -2 * (1 - kb) * kb / kg, -2 * (1 - kr) * kr / kg],
            [1, 2 * (1 - kb), 0],
        ]
    )
    black, luma, chroma = (0, 255, 255) if full_range else (16, 219, 224)
    m = decode / np.array([luma, chroma, chroma])
    return m, -m @ np.array([black, 128, 128])


def yuv_to_rgb(matrix: Matrix, full_range: bool) -> tuple[Float32, Float32]:
    """Coefficients that take 8-bit codes to RGB in 0..255.

    Returns:
        M (3, 3) and o (3,), float32: (R, G, B) = M @ (Y, U, V) + o, not clamped.
    """
    m, o = _rgb_from_codes(matrix, full_range)
    return (255 * m).astype(np.float32), (255 * o).astype(np.float32)


def rgb_to_yuv(rgb: tuple[int, int, int]) -> tuple[int, int, int]:
    """An RGB colour of 0..255 per channel as BT.709 limited (Y, Cb, Cr).

    >>> rgb_to_yuv((255, 255, 255)), rgb_to_yuv((255, 0, 0))
    ((235, 128, 128), (63, 102, 240))
    """
    m, o = _rgb_from_codes(Matrix.BT709, False)
    y, cb, cr = np.rint(np.linalg.solve(m, np.asarray(rgb, np.float64) / 255 - o)).astype(int)
    return int(y), int(cb), int(cr)


def to_bt709(matrix: Matrix, full_range: bool) -> tuple[_Float64, _Float64]:
    """C (3, 3) and k (3,): codes as BT.709 limited = C @ (Y, U, V) + k."""
    m, o = _rgb_from_codes(matrix, full_range)
    target, origin = _rgb_from_codes(Matrix.BT709, False)
    return np.asarray(np.linalg.solve(target, m), np.float64), np.asarray(
        np.linalg.solve(target, o - origin), np.float64
    )


@lru_cache
def to_bt709_int(matrix: Matrix, full_range: bool) -> Int32:
    """`to_bt709` as the integers that the compositor uses.

    Returns:
        (10,) int32: a, b, c, d, e, f, g, h, i, j of Note [Colour], scaled by
        `1 << COEFFICIENT_BITS`; d, g and j hold the half that rounds. A result is
        `sum >> COEFFICIENT_BITS`, clamped to 0..255.
    """
    c, k = to_bt709(matrix, full_range)
    one = 1 << COEFFICIENT_BITS
    k = k + 0.5
    rows = [*c[0], k[0], c[1, 1], c[1, 2], k[1], c[2, 1], c[2, 2], k[2]]
    coefficients: Int32 = np.rint(np.array(rows) * one).astype(np.int32)
    coefficients.setflags(write=False)
    return coefficients


def is_identity(matrix: Matrix, full_range: bool) -> bool:
    """Whether codes are the mosaic's already."""
    return matrix == Matrix.BT709 and not full_range
