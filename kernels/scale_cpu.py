"""Scaling on the CPU: one row of one plane at a time, as Note [Compose] in `compose_cpu.py` says.

Written for the vectoriser, without code for a particular machine. A row is scaled down into
`work.row` from whole source rows, then across. Across, output x of a ratio p:q needs the samples
from x // q * p on, and a load with a stride is slow. So the samples are dealt into p lanes; each
of the q phases is then a weighted sum of whole lanes, whatever the weights, and at last the
phases are woven together. Only dealing and weaving need a stride, and there it is a constant.

Functions marked `inline="always"` have one caller: Numba would otherwise optimise each of them
once alone and once more in every function around it. Numba's cache looks at the file of the
caller only: after an edit here, touch `compose_cpu.py`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import carray, njit

from tiler.kernels.addresses import bytes_at, prefetch, words_at
from tiler.kernels.scaling import (
    BASE,
    FIRST_SAMPLE,
    GROUPS,
    HEADER,
    LOW,
    MAX_P,
    MAX_Q,
    PERIODIC_AT,
    SAMPLES,
    TAPS,
    WINDOW,
    N,
    P,
    Q,
)
from tiler.types import Int32, UInt8

Int16 = npt.NDArray[np.int16]

_CHUNK, _BLOCK = 1024, 64
"""Groups of a periodic ratio that are scaled at once, so that their lanes stay in the first-level
cache, and the multiple to which their number is rounded up, so that no loop has a scalar rest."""
_LANE = _CHUNK + _BLOCK   # a lane reaches two samples into the groups that follow
_PAD = MAX_P * (_BLOCK + 2) + 2
"""Samples after the end of a row that may be read, and never matter."""
_DOWN_HALF, _DOWN_BITS = np.int32(64), np.int32(7)
_ACROSS_HALF, _ACROSS_BITS = np.int32(1 << 20), np.int32(21)


class Scratch(NamedTuple):
    """What one thread needs besides the mosaic; see `scratch`."""

    lines: UInt8
    sums: Int32
    row: Int16
    lanes: Int16
    phases: UInt8
    out: UInt8
    cover: UInt8


def scratch(samples: int, width: int) -> Scratch:
    """Scratch for sources that need `samples` per row (`Geometry.samples`) and a mosaic of `width`."""
    return Scratch(
        np.empty((4, samples + _PAD), np.uint8),
        np.empty(max(samples, _LANE) + _PAD, np.int32),
        np.empty(samples + _PAD, np.int16),
        np.empty((MAX_P, _LANE), np.int16),
        np.empty((MAX_Q, _LANE), np.uint8),
        np.empty((4, width), np.uint8),
        np.empty((2, width), np.uint8),
    )


@njit(nogil=True, inline="always")
def plane_row(plane, across, down, i, copy, out, work):  # type: ignore[no-untyped-def]
    """out = row i of a plane, scaled.

    Args:
        plane: (3,) int64: address of the first sample, bytes from row to row and from sample to sample.
        across, down: packed axes.
        copy: both axes are 1:1 and aligned.
        out: uint8, the outputs of `across`.
    """
    if copy and plane[2] == 1:
        source = down[FIRST_SAMPLE] + down[HEADER + i]
        line = carray(bytes_at(plane[0] + source * plane[1] + across[FIRST_SAMPLE]), out.shape[0])
        for x in range(out.shape[0]):
            out[x] = line[x]
        return
    _scale_down(plane, across, down, i, work)
    _scale_across(across, out, work)


@njit(nogil=True, inline="always")
def fetch_ahead(plane, across, down, i, following):  # type: ignore[no-untyped-def]
    """Ask for the source rows that output row `following` reads and row i has not.

    Hardware stops at the end of a page, and a row of 1080p is half of one.
    """
    if plane[2] != 1:
        return
    first = down[FIRST_SAMPLE] + down[TAPS]
    address = plane[0] + across[FIRST_SAMPLE]
    for row in range(down[HEADER + i] + first, down[HEADER + following] + first):
        for line in range(0, across[SAMPLES], 64):
            prefetch(address + row * plane[1] + line)


@njit(nogil=True, cache=True)
def _line(address, step, n, buffer):  # type: ignore[no-untyped-def]
    """n samples `step` bytes apart, next to each other: in place, or gathered into `buffer`."""
    if step == 1:
        return carray(bytes_at(address), n)
    out = buffer[:n]
    if step == 2:
        pairs = carray(bytes_at(address), (n, 2))   # constant stride: interleaved chroma, 16 bit
        for x in range(n - 1):
            out[x] = pairs[x, 0]
        out[n - 1] = pairs[n - 1, 0]
        return out
    for x in range(n):
        out[x] = carray(bytes_at(address + x * step), 1)[0]
    return out


@njit(nogil=True, inline="always")
def _scale_down(plane, across, down, i, work):  # type: ignore[no-untyped-def]
    """work.row = t of Note [Compose] for output row i."""
    n = across[SAMPLES]
    taps = down[TAPS]
    weights = down[HEADER + down[N] + i * taps :]
    pitch, step = plane[1], plane[2]
    address = plane[0] + (down[FIRST_SAMPLE] + down[HEADER + i]) * pitch + across[FIRST_SAMPLE] * step
    row = work.row[:n]
    a = _line(address, step, n, work.lines[0])
    if taps == 1:
        for x in range(n):
            row[x] = np.int16(a[x]) << np.int16(7)
        return
    b = _line(address + pitch, step, n, work.lines[1])
    if taps == 2:
        _sum2(a, b, weights, _DOWN_HALF, _DOWN_BITS, row)
        return
    c = _line(address + 2 * pitch, step, n, work.lines[2])
    if taps == 3:
        _sum3(a, b, c, weights, _DOWN_HALF, _DOWN_BITS, row)
        return
    sums = work.sums[:n]
    _begin(a, b, c, weights, sums)
    for k in range(3, taps):
        _add(_line(address + k * pitch, step, n, work.lines[0]), weights[k], sums)
    _finish(sums, _DOWN_HALF, _DOWN_BITS, row)


# Weighted sums of rows. Numba widens integers to 64 bits wherever it may: only with each product and
# sum cut to int32 again, of factors that fit 16 bits, do these loops become vpmaddwd and the like.


@njit(nogil=True, forceinline=True)
def product(w, a):  # type: ignore[no-untyped-def]
    return np.int32(np.int32(w) * np.int32(a))


@njit(nogil=True, forceinline=True)
def _sum2(a, b, weights, half, bits, out):  # type: ignore[no-untyped-def]
    wa, wb = np.int16(weights[0]), np.int16(weights[1])
    for x in range(out.shape[0]):
        total = np.int32(product(wa, a[x]) + product(wb, b[x]))
        out[x] = np.int32(total + half) >> bits


@njit(nogil=True, forceinline=True)
def _sum3(a, b, c, weights, half, bits, out):  # type: ignore[no-untyped-def]
    wa, wb, wc = np.int16(weights[0]), np.int16(weights[1]), np.int16(weights[2])
    for x in range(out.shape[0]):
        total = np.int32(product(wa, a[x]) + product(wb, b[x]))
        out[x] = np.int32(np.int32(total + product(wc, c[x])) + half) >> bits


@njit(nogil=True, forceinline=True)
def _begin(a, b, c, weights, sums):  # type: ignore[no-untyped-def]
    wa, wb, wc = np.int16(weights[0]), np.int16(weights[1]), np.int16(weights[2])
    for x in range(sums.shape[0]):
        total = np.int32(product(wa, a[x]) + product(wb, b[x]))
        sums[x] = np.int32(total + product(wc, c[x]))


@njit(nogil=True, forceinline=True)
def _add(a, weight, sums):  # type: ignore[no-untyped-def]
    w = np.int16(weight)
    for x in range(sums.shape[0]):
        sums[x] = np.int32(sums[x] + product(w, a[x]))


@njit(nogil=True, forceinline=True)
def _finish(sums, half, bits, out):  # type: ignore[no-untyped-def]
    for x in range(out.shape[0]):
        out[x] = np.int32(sums[x] + half) >> bits


@njit(nogil=True, inline="always")
def _scale_across(across, out, work):  # type: ignore[no-untyped-def]
    """out = value of Note [Compose] from t in work.row."""
    n, p, q = across[N], across[P], across[Q]
    row = work.row
    if across[TAPS] == 1 and p == 1 and q == 1:
        for x in range(n):
            out[x] = np.int16(row[x] + np.int16(64)) >> np.int16(7)
        return
    low, high = n, n
    if p > 0:
        low, groups = across[LOW], across[GROUPS]
        high = low + groups * q
        for group in range(0, groups, _CHUNK):
            count = min(_CHUNK, groups - group)
            begin = low + group * q
            _across_periodic(across, across[BASE] + group * p, count, out[begin : begin + count * q], work)
    for begin, end in ((0, low), (high, n)):
        _across_any(row, across, begin, end, out)


@njit(nogil=True, cache=True)
def _across_any(row, across, begin, end, out):  # type: ignore[no-untyped-def]
    taps = across[TAPS]
    first, weights = across[HEADER:], across[HEADER + across[N] :]
    for x in range(begin, end):
        total, at, w = _ACROSS_HALF, first[x], x * taps
        for k in range(taps):
            total = np.int32(total + product(weights[w + k], row[at + k]))
        out[x] = total >> _ACROSS_BITS


@njit(nogil=True, inline="always")
def _across_periodic(across, at, groups, out, work):  # type: ignore[no-untyped-def]
    """`groups` groups of q outputs from work.row[at:] on."""
    p, q = across[P], across[Q]
    table = across[across[PERIODIC_AT] :]
    pitch = across[WINDOW] + 2
    row, lanes = np.int64(work.row.ctypes.data) + 2 * at, np.int64(work.lanes.ctypes.data)
    phases = np.int64(work.phases.ctypes.data) if q > 1 else np.int64(out.ctypes.data)
    used, whole = groups, (groups + _BLOCK - 1) // _BLOCK * _BLOCK
    if p > 1:
        _deal(row, whole + 2, p, lanes)
    if q > 1:
        groups = whole
    for r in range(q):
        k, taps = table[r * pitch], table[r * pitch + 1]
        weights = table[r * pitch + 2 :]
        phase = carray(bytes_at(phases + r * _LANE), groups)
        a = _lane(row, lanes, p, k, groups)
        b = _lane(row, lanes, p, k + 1, groups)
        if taps <= 2:
            _sum2(a, b, weights, _ACROSS_HALF, _ACROSS_BITS, phase)
            continue
        c = _lane(row, lanes, p, k + 2, groups)
        if taps == 3:
            _sum3(a, b, c, weights, _ACROSS_HALF, _ACROSS_BITS, phase)
            continue
        sums = work.sums[:groups]
        _begin(a, b, c, weights, sums)
        for tap in range(3, taps):
            _add(_lane(row, lanes, p, k + tap, groups), weights[tap], sums)
        _finish(sums, _ACROSS_HALF, _ACROSS_BITS, phase)
    if q > 1:
        _weave(phases, used, q, np.int64(out.ctypes.data))


@njit(nogil=True, forceinline=True)
def _lane(row, lanes, p, k, groups):  # type: ignore[no-untyped-def]
    """Sample k of each group, as addresses: `row` and `lanes` are those of the samples dealt."""
    if p == 1:
        return carray(words_at(row + 2 * k), groups)
    lane, shift = k, 0
    while lane >= p:
        lane, shift = lane - p, shift + 1
    return carray(words_at(lanes + 2 * (lane * _LANE + shift)), groups)


@njit(nogil=True, cache=True)
def _deal(row, groups, p, lanes):  # type: ignore[no-untyped-def]
    if p == 2:
        _deal_by(row, groups, 2, lanes)
    elif p == 3:
        _deal_by(row, groups, 3, lanes)
    elif p == 4:
        _deal_by(row, groups, 4, lanes)
    else:
        _deal_by(row, groups, 5, lanes)


@njit(nogil=True, forceinline=True)
def _deal_by(row, groups, p, lanes):  # type: ignore[no-untyped-def]
    source = carray(words_at(row), (groups, p))
    target = carray(words_at(lanes), (p, _LANE))
    for m in range(groups):
        for k in range(p):
            target[k, m] = source[m, k]


@njit(nogil=True, cache=True)
def _weave(phases, groups, q, out):  # type: ignore[no-untyped-def]
    if q == 2:
        _weave_by(phases, groups, 2, out)
    elif q == 3:
        _weave_by(phases, groups, 3, out)
    else:
        _weave_by(phases, groups, 4, out)


@njit(nogil=True, forceinline=True)
def _weave_by(phases, groups, q, out):  # type: ignore[no-untyped-def]
    source = carray(bytes_at(phases), (q, _LANE))
    target = carray(bytes_at(out), (groups, q))
    for m in range(groups):
        for k in range(q):
            target[m, k] = source[k, m]
