"""Overlay primitives on the CPU, strip by strip: two luma rows and their chroma row at a time.

The maths is Note [Blending] of `kernels/primitives.py`. Two points that it leaves open are
fixed here: the weight of a LINE is float32, in the order and with the fused operations of
`_line_row`; and a quotient (v + 127) // 255 is computed as (w + 1 + (w >> 8)) >> 8
with w = v + 127, which is the same for every w that can occur.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

from tiler.kernels.primitives import (
    AFTER,
    ALPHA,
    CB,
    CLIP_X0,
    CLIP_X1,
    CLIP_Y0,
    CLIP_Y1,
    CR,
    EDGE,
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
_DARK_Y, _DARK_CB, _DARK_CR = (np.uint32(value) for value in EDGE)


@intrinsic
def _fma(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c in float32, rounded once: a fused multiply-add, as the GPU's."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fma(*arguments)

    return types.float32(types.float32, types.float32, types.float32), generate


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
    n = 0
    while n < rows.shape[0]:
        begin, seen = n, False
        while n == begin or (n < rows.shape[0] and rows[n, AFTER] > 0):
            box = touched(rows, n, top, bottom, y.shape[1])
            seen |= box[1] < box[3]
            n += 1
        if not seen:   # most are not: a band has few of them
            continue
        if rows[begin, KIND] == FILL:
            _fill(y, u, v, box, rows[begin])
        elif rows[begin, KIND] == FRAME:
            _frame(y, u, v, box, rows[begin])
        else:
            _stroke(y, u, v, top, bottom, rows[begin:n], atlas, cover)


@njit(nogil=True, inline="always")
def touched(rows, n, top, bottom, width):  # type: ignore[no-untyped-def]
    """What a primitive may touch of the luma rows [top, bottom) of a picture: x0, y0, x1, y1; empty where y0 >= y1.

    It is read value by value: a view of its row would cost more than the rest.
    """
    left, above, right, below = rows[n, X0], rows[n, Y0], rows[n, X1], rows[n, Y1]
    if rows[n, KIND] == LINE:
        reach = rows[n, A] // 2 + 16
        left, right = (min(left, right) - reach) // 16, (max(left, right) + reach) // 16 + 1
        above, below = (min(above, below) - reach) // 16, (max(above, below) + reach) // 16 + 1
    left, right = max(left, rows[n, CLIP_X0], 0), min(right, rows[n, CLIP_X1], width)
    above, below = max(above, rows[n, CLIP_Y0], top), min(below, rows[n, CLIP_Y1], bottom)
    # Not `or`, and not an `if`: to foresee where these go takes longer than all the rest.
    return left, above, right, above if (left >= right) | (rows[n, ALPHA] <= 0) else below


@njit(nogil=True, cache=True)
def _fill(y, u, v, box, row):  # type: ignore[no-untyped-def]
    left, above, right, below = box
    luma, cb, cr = np.uint32(row[LUMA]), np.uint32(row[CB]), np.uint32(row[CR])
    for strip in range(above >> 1, (below + 1) >> 1):
        first, last = max(2 * strip, above), min(2 * strip + 2, below)
        _span(y, u, v, strip, first, last, left, right, row[ALPHA], luma, cb, cr)


@njit(nogil=True, cache=True)
def _frame(y, u, v, box, row):  # type: ignore[no-untyped-def]
    left, above, right, below = box
    x0, y0, x1, y1, line = row[X0], row[Y0], row[X1], row[Y1], row[A]
    inner_left, inner_right = x0 + line, x1 - line
    apart = inner_left < inner_right and (inner_left - 1) >> 1 < inner_right >> 1   # no chroma sample is on both sides
    for strip in range(above >> 1, (below + 1) >> 1):
        first, last = max(2 * strip, above), min(2 * strip + 2, below)
        if apart and first >= y0 + line and last <= y1 - line:
            _frame_span(y, u, v, strip, first, last, left, min(inner_left, right), row)
            _frame_span(y, u, v, strip, first, last, max(inner_right, left), right, row)
        else:
            _frame_span(y, u, v, strip, first, last, left, right, row)


@njit(nogil=True, cache=True)
def _frame_span(y, u, v, strip, first, last, left, right, row):  # type: ignore[no-untyped-def]
    """A frame over [left, right) of the luma rows [first, last) of a strip, by how deep a pixel lies in it."""
    x0, y0, x1, y1, line = row[X0], row[Y0], row[X1], row[Y1], row[A]
    alpha, edge = np.uint32(row[ALPHA]), np.uint32(row[B])
    begin, end = (1, line - 1) if row[B] > 0 else (0, line)
    luma, cb, cr = np.uint32(row[LUMA]), np.uint32(row[CB]), np.uint32(row[CR])
    for x in range(left >> 1, (right + 1) >> 1):
        lines, edges = np.uint32(2), np.uint32(2)
        for column in range(max(2 * x, left), min(2 * x + 2, right)):
            deep_x = min(column - x0, x1 - 1 - column)
            for at in range(first, last):
                deep = min(min(at - y0, y1 - 1 - at), deep_x)
                if begin <= deep < end:
                    y[at, column] = _mix(y[at, column], luma, alpha)
                    lines += alpha
                elif deep < line:
                    y[at, column] = _mix(y[at, column], _DARK_Y, edge)
                    edges += edge
        if edges > 2:
            u[strip, x] = _mix(u[strip, x], _DARK_CB, edges >> np.uint32(2))
            v[strip, x] = _mix(v[strip, x], _DARK_CR, edges >> np.uint32(2))
        if lines > 2:
            u[strip, x] = _mix(u[strip, x], cb, lines >> np.uint32(2))
            v[strip, x] = _mix(v[strip, x], cr, lines >> np.uint32(2))


@njit(nogil=True, cache=True)
def _stroke(y, u, v, top, bottom, rows, atlas, cover):  # type: ignore[no-untyped-def]
    """The rows of one stroke, of kind LINE or GLYPH: the greatest weight of each pixel, then once over the picture."""
    count, width = rows.shape[0], y.shape[1]
    bounds, above, below = np.empty((count, 4), np.int64), bottom, top
    for n in range(count):
        box = touched(rows, n, top, bottom, width)
        for k in range(4):
            bounds[n, k] = box[k]
        if box[1] < box[3]:
            above, below = min(above, box[1]), max(below, box[3])
    luma, cb, cr = np.uint32(rows[0, LUMA]), np.uint32(rows[0, CB]), np.uint32(rows[0, CR])
    for strip in range(above >> 1, (below + 1) >> 1):
        left, right = width, 0
        for n in range(count):
            begin, end = _stroke_extent(rows[n], bounds[n], strip)
            if begin < end:
                left, right = min(left, begin), max(right, end)
        if left >= right:
            continue
        cover[:, left & ~1 : right + (right & 1)] = 0
        for n in range(count):
            row = rows[n]
            begin, end = _stroke_extent(row, bounds[n], strip)
            if begin >= end:
                continue
            for at in range(max(2 * strip, bounds[n, 1]), min(2 * strip + 2, bounds[n, 3])):
                out = cover[at - 2 * strip]
                if row[KIND] == LINE:
                    _line_row(out, at, begin, end, row)
                else:
                    texture = atlas[at - row[Y0] + row[B], row[A] + begin - row[X0] : row[A] + end - row[X0]]
                    alpha = row[ALPHA]
                    for i in range(end - begin):
                        out[begin + i] = max(out[begin + i], np.uint8((texture[i] * alpha + 127) // 255))
        _covered(y, u, v, strip, left >> 1, (right + 1) >> 1, cover, luma, cb, cr)


@njit(nogil=True, cache=True)
def _stroke_extent(row, bounds, strip):  # type: ignore[no-untyped-def]
    """Columns that a row of a stroke may touch in a strip."""
    if bounds[1] >= min(2 * strip + 2, bounds[3]) or bounds[3] <= 2 * strip:
        return np.int64(0), np.int64(0)
    if row[KIND] == LINE:
        return _line_extent(row[X0], row[Y0], row[X1], row[Y1], row[A], 2 * strip, bounds[0], bounds[2])
    return bounds[0], bounds[2]


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
def _line_row(cover, at, begin, end, row):  # type: ignore[no-untyped-def]
    """Weights of a line in one luma row, where they are greater: float32 throughout, in this order."""
    sixteenth, half, zero, one = np.float32(1 / 16), np.float32(0.5), np.float32(0), np.float32(1)
    ax, ay = np.float32(row[X0]) * sixteenth, np.float32(row[Y0]) * sixteenth
    dx, dy = np.float32(row[X1] - row[X0]) * sixteenth, np.float32(row[Y1] - row[Y0]) * sixteenth
    width, alpha = np.float32(row[A]) * sixteenth, np.float32(row[ALPHA])
    length = np.sqrt(_fma(dx, dx, dy * dy))
    share = one / length if length > zero else zero
    nx, ny = dx * share, dy * share
    edge = half * width + half
    fall = alpha / max(width, one)
    most = edge * edge * fall
    py = np.float32(at) + half - ay
    along_y = py * ny
    for x in range(begin, end):
        px = np.float32(x) + half - ax
        along = min(max(_fma(px, nx, along_y), zero), length)
        ex, ey = _fma(-along, nx, px), _fma(-along, ny, py)
        weight = max(min(_fma(_fma(ey, ey, ex * ex), -fall, most), alpha), zero)
        cover[x] = max(cover[x], np.uint8(np.rint(weight)))
