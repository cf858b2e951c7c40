"""Overlay primitives on the CPU, strip by strip: two luma rows and their chroma row at a time.

The maths is Note [Blending] of `kernels/primitives.py`. Two points that it leaves open are
fixed here: the coverage of a LINE is float32, rounded half up, in the order of `_line_strip`;
and a quotient (v + 127) // 255 is computed as (w + 1 + (w >> 8)) >> 8 with w = v + 127,
which is the same for every w that can occur.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from tiler.kernels.primitives import (
    ALPHA,
    CB,
    CLIP_X0,
    CLIP_X1,
    CLIP_Y0,
    CLIP_Y1,
    CR,
    KIND,
    LUMA,
    X0,
    X1,
    Y0,
    Y1,
    A,
    B,
    Kind,
)
from tiler.types import Int32, UInt8

_SHORT = 24
"""Samples below which taking a slice costs more than it gives."""

FILL, FRAME, LINE, GLYPH = (int(kind) for kind in (Kind.FILL, Kind.FRAME, Kind.LINE, Kind.GLYPH))


@njit(nogil=True, cache=True)
def draw_rows(
    y: UInt8, u: UInt8, v: UInt8, top: int, bottom: int, rows: Int32, atlas: UInt8, cover: UInt8
) -> None:
    """Draw primitives over the rows [top, bottom) of an I420 picture, in order.

    Args:
        y, u, v: the whole picture, C-contiguous, of even size.
        top, bottom: luma rows, even.
        rows: (n, COLUMNS) int32.
        atlas: (H, W) uint8 coverage that GLYPH rows refer to.
        cover: scratch (2, width of y).
    """
    width = y.shape[1]
    for n in range(rows.shape[0]):
        row = rows[n]
        kind, alpha = row[KIND], row[ALPHA]
        x0, y0, x1, y1 = row[X0], row[Y0], row[X1], row[Y1]
        left, above, right, below = x0, y0, x1, y1
        if kind == LINE:
            reach = row[A] // 2 + 16
            left, right = (min(x0, x1) - reach) // 16, (max(x0, x1) + reach) // 16 + 1
            above, below = (min(y0, y1) - reach) // 16, (max(y0, y1) + reach) // 16 + 1
        left, right = max(left, row[CLIP_X0], 0), min(right, row[CLIP_X1], width)
        above, below = max(above, row[CLIP_Y0], top), min(below, row[CLIP_Y1], bottom)
        if left >= right or above >= below or alpha <= 0:
            continue
        luma, cb, cr = np.uint32(row[LUMA]), np.uint32(row[CB]), np.uint32(row[CR])
        for strip in range(above >> 1, (below + 1) >> 1):
            first, last = max(2 * strip, above), min(2 * strip + 2, below)
            if kind == FILL:
                _span(y, u, v, strip, first, last, left, right, alpha, luma, cb, cr)
                continue
            if kind == FRAME:
                line = row[A]
                upper = first < y0 + line or first >= y1 - line
                lower = last - 1 < y0 + line or last - 1 >= y1 - line
                inner_left, inner_right = x0 + line, x1 - line
                if (upper and lower) or inner_left >= inner_right:
                    _span(y, u, v, strip, first, last, left, right, alpha, luma, cb, cr)
                    continue
                if not upper and not lower and (inner_left - 1) >> 1 < inner_right >> 1:
                    end, begin = min(inner_left, right), max(inner_right, left)
                    if left < end:
                        _span(y, u, v, strip, first, last, left, end, alpha, luma, cb, cr)
                    if begin < right:
                        _span(y, u, v, strip, first, last, begin, right, alpha, luma, cb, cr)
                    continue
            begin, end = left, right
            if kind == LINE:
                begin, end = _line_extent(x0, y0, x1, y1, row[A], 2 * strip, left, right)
                if begin >= end:
                    continue
            cover[:, begin & ~1 : end + (end & 1)] = 0
            for at in range(first, last):
                line_cover = cover[at - 2 * strip]
                if kind == GLYPH:
                    texture = atlas[at - y0 + row[B], row[A] + begin - x0 : row[A] + end - x0]
                    for i in range(end - begin):
                        line_cover[begin + i] = (texture[i] * alpha + 127) // 255
                elif kind == LINE:
                    _line_row(line_cover, at, begin, end, x0, y0, x1, y1, row[A], alpha)
                elif at < y0 + row[A] or at >= y1 - row[A]:
                    line_cover[begin:end] = alpha
                else:
                    line_cover[begin : max(begin, min(x0 + row[A], end))] = alpha
                    line_cover[min(end, max(x1 - row[A], begin)) : end] = alpha
            _covered(y, u, v, strip, begin >> 1, (end + 1) >> 1, cover, luma, cb, cr)


@njit(nogil=True, cache=True)
def _span(y, u, v, strip, first, last, left, right, c, luma, cb, cr):  # type: ignore[no-untyped-def]
    """Blend with the constant weight c over [left, right) of the luma rows [first, last) of a strip."""
    for at in range(first, last):
        _run(y, at, left, right, luma, c)
    whole = np.uint32((2 * c * (last - first) + 2) // 4)
    half = np.uint32((c * (last - first) + 2) // 4)
    begin, end = (left + 1) >> 1, right >> 1
    for plane, value in ((u, cb), (v, cr)):
        _run(plane, strip, begin, end, value, whole)
        if left & 1:
            plane[strip, left >> 1] = _mix(plane[strip, left >> 1], value, half)
        if right & 1 and (right >> 1 != left >> 1 or not left & 1):
            plane[strip, right >> 1] = _mix(plane[strip, right >> 1], value, half)


@njit(nogil=True, cache=True)
def _run(plane, at, begin, end, value, weight):  # type: ignore[no-untyped-def]
    """Blend a value over [begin, end) of a row with a weight of weight / 255."""
    c = np.uint32(weight)
    if end - begin < _SHORT:
        for x in range(begin, end):
            plane[at, x] = _mix(plane[at, x], value, c)
        return
    out = plane[at, begin:end]
    if c == 255:
        for x in range(out.shape[0]):
            out[x] = value
        return
    for x in range(out.shape[0]):
        out[x] = _mix(out[x], value, c)


@njit(nogil=True, cache=True)
def _covered(y, u, v, strip, begin, end, cover, luma, cb, cr):  # type: ignore[no-untyped-def]
    """Blend with the weights in `cover` over the chroma columns [begin, end) of a strip."""
    above, below = cover[0, 2 * begin : 2 * end], cover[1, 2 * begin : 2 * end]
    for k in range(2):
        weights, out = (below if k else above), y[2 * strip + k, 2 * begin : 2 * end]
        for i in range(2 * (end - begin)):
            out[i] = _mix(out[i], luma, np.uint32(weights[i]))
    row_u, row_v = u[strip, begin:end], v[strip, begin:end]
    for i in range(end - begin):
        total = np.uint32(above[2 * i]) + np.uint32(above[2 * i + 1])
        total += np.uint32(below[2 * i]) + np.uint32(below[2 * i + 1])
        c = np.uint32(np.uint32(total) + np.uint32(2)) >> np.uint32(2)
        row_u[i] = _mix(row_u[i], cb, np.uint32(c))
        row_v[i] = _mix(row_v[i], cr, np.uint32(c))


@njit(nogil=True, cache=True)
def _mix(old, value, c):  # type: ignore[no-untyped-def]
    w = np.uint32(np.uint32(old) * (np.uint32(255) - c) + value * c + np.uint32(127))
    return np.uint8(np.uint32(w + np.uint32(1) + (w >> np.uint32(8))) >> np.uint32(8))


@njit(nogil=True, cache=True)
def _line_extent(x0, y0, x1, y1, width, at, left, right):  # type: ignore[no-untyped-def]
    """Columns within [left, right) that a line may touch in the luma rows at, at + 1."""
    dx, dy = (x1 - x0) / 16, (y1 - y0) / 16
    if abs(dy) < 1:
        return left, right
    slope = dx / dy
    reach = (width / 32 + 1) * np.sqrt(1 + slope * slope) + 1
    upper, lower = x0 / 16 + (at - y0 / 16) * slope, x0 / 16 + (at + 2 - y0 / 16) * slope
    begin = max(float(left), min(upper, lower) - reach)
    end = min(float(right), max(upper, lower) + reach + 1)
    return (int(begin), int(end)) if begin < end else (left, left)


@njit(nogil=True, cache=True)
def _line_row(cover, at, begin, end, x0, y0, x1, y1, width, alpha):  # type: ignore[no-untyped-def]
    """Weights of a line in one luma row: float32 throughout, in this order."""
    sixteenth, half, one = np.float32(1 / 16), np.float32(0.5), np.float32(1)
    ax, ay = np.float32(x0) * sixteenth, np.float32(y0) * sixteenth
    dx, dy = np.float32(x1 - x0) * sixteenth, np.float32(y1 - y0) * sixteenth
    length = dx * dx + dy * dy
    scale = one / length if length > 0 else np.float32(0)
    edge = np.float32(width) * sixteenth * half + half
    py = np.float32(at) + half - ay
    for x in range(begin, end):
        px = np.float32(x) + half - ax
        along = min(max((px * dx + py * dy) * scale, np.float32(0)), one)
        ex, ey = px - along * dx, py - along * dy
        inside = min(max(edge - np.sqrt(ex * ex + ey * ey), np.float32(0)), one)
        coverage = np.int32(inside * np.float32(255) + half)
        cover[x] = (coverage * alpha + 127) // 255
