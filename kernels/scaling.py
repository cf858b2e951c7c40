"""Scaling tables: which source samples make an output sample, and with what weights.

Scaling is separable. For each axis a table says, for output i, the first source sample
and the fixed-point weights of the samples from there on; the weights of an output sum to
exactly 1 << WEIGHT_BITS. The compositors only multiply and add what the tables say.

With s = source extent / output size on that axis, output i is

    s > 1   the exact area average of [start + i s, start + (i + 1) s)
    s < 1   linear between the two samples whose centres surround start + (i + 1/2) s
    s = 1   the sample itself when start is whole, else as for s < 1

and a sample that would lie outside the picture is replaced by the nearest inside.
Positions are exact: rectangles are taken to 1/256 sample and the rest is rational
arithmetic, so that a ratio such as 3:2 gives weights that repeat exactly.

Note [Chroma siting]: in 4:2:0, as H.264 and MPEG-2 place it, chroma sample j of a row
lies over the centre of luma sample 2j (left-sited: luma position 2j + 1/2, a luma sample
being one wide and the first starting at 0), and vertically in the middle between two
(position 2j + 1). Take phi as the 1/2 or 1. Output chroma J of the mosaic is then at
source luma position x0 + s (2J + phi_out), which in units of source chroma samples is
(x0 + s (2J + phi_out) - phi_in) / 2 + 1/2, and it covers s of them. Turning a picture
swaps the axes and may reverse one: reversed, the phi of an axis of n luma samples becomes
n - 2 ceil(n / 2) + 2 - phi.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import lcm
from typing import Any, NamedTuple

import numpy as np

from tiler.types import Int32

WEIGHT_BITS = 14
"""Fraction bits of a weight."""
POSITION = 256
"""Rectangles are taken to this fraction of a sample."""

MAX_P, MAX_Q = 5, 4
"""Ratios of source : output samples p : q up to these have a vectorised horizontal pass on the CPU."""

Rect = tuple[float, float, float, float]
Box = tuple[int, int, int, int]


class Axis(NamedTuple):
    """The table of one axis.

    Attributes:
        first: (n,) int32, first source sample of each output; first + taps never passes
            the end of the picture.
        weights: (n, taps) int32, each row summing to 1 << WEIGHT_BITS.
        step: source samples per output.
        inner: [lo, hi) of the outputs that no edge touches: only these repeat.
    """

    first: Int32
    weights: Int32
    step: Fraction
    inner: tuple[int, int]


def axis(start: Fraction, step: Fraction, size: int, low: int, high: int) -> Axis:
    """Table of the outputs [low, high) of an axis over a picture of `size` samples.

    Args:
        start: position in the picture at which output 0 begins; sample j covers [j, j + 1).
        step: source samples per output, > 0.
    """
    unit = 2 * lcm(start.denominator, step.denominator)
    origin, stride = int(start * unit), int(step * unit)
    index = np.arange(low, high, dtype=np.int64)
    if step > 1:
        begin = origin + index * stride
        first = begin // unit
        taps = -((-(stride + unit - 1)) // unit)
        # Coverage of everything left of each sample border, cumulated so that rounding never loses a unit.
        borders = (first[:, None] + np.arange(taps + 1)) * unit
        covered = np.clip(borders - begin[:, None], 0, stride)
        cumulative = (2 * (covered << WEIGHT_BITS) + stride) // (2 * stride)
        weights = np.diff(cumulative, axis=1)
    else:
        centre = origin + index * stride + (stride - unit) // 2
        first = centre // unit
        right = (2 * ((centre - first * unit) << WEIGHT_BITS) + unit) // (2 * unit)
        weights = np.stack([(1 << WEIGHT_BITS) - right, right], axis=1)
    return _inside(first, weights, step, size)


def _inside(first: np.ndarray, weights: np.ndarray, step: Fraction, size: int) -> Axis:
    """Give the weights of samples outside the picture to its edge samples, and drop unused taps."""
    used = np.flatnonzero(weights.any(axis=0))
    first, weights = first + used[0], weights[:, used[0] : used[-1] + 1]
    taps = min(weights.shape[1], size)
    moved = np.clip(first, 0, size - taps)
    sample = np.clip(first[:, None] + np.arange(weights.shape[1]), 0, size - 1)
    folded = np.zeros((len(first), taps), np.int64)
    np.add.at(folded, (np.arange(len(first))[:, None], sample - moved[:, None]), weights)
    untouched = np.flatnonzero(moved == first) if taps == weights.shape[1] else np.empty(0, np.int64)
    inner = (int(untouched[0]), int(untouched[-1]) + 1) if len(untouched) else (0, 0)
    return Axis(moved.astype(np.int32), folded.astype(np.int32), step, inner)


N, TAPS, FIRST_SAMPLE, SAMPLES, P, Q, LOW, GROUPS, BASE, WINDOW, PERIODIC_AT = range(11)
HEADER = 11
"""A packed axis begins with these: n, taps; first source sample and number of samples that it
reads; then its periodic part: outputs LOW .. LOW + GROUPS * Q, of which each group of Q reads
at most WINDOW samples from BASE + group * P on (P = 0: there is none). At HEADER follow first
(n) and weights (n * taps), and at PERIODIC_AT for each of the Q phases: samples of the window
to skip, taps, and WINDOW weights, those after taps being 0."""


def pack_axis(table: Axis) -> Int32:
    """The table as the flat integers that the kernels read; `first` counts from FIRST_SAMPLE."""
    n, taps = table.weights.shape
    origin = int(table.first.min())
    samples = int(table.first.max()) + taps - origin
    first = table.first - origin
    head, phases = _periodic(table, first)
    at = HEADER + n + n * taps
    parts: list[Any] = [[n, taps, origin, samples, *head, at], first, table.weights.ravel(), *phases]
    return np.concatenate(parts).astype(np.int32)


def _periodic(table: Axis, first: Int32) -> tuple[tuple[int, ...], list[Int32]]:
    """P, Q, LOW, GROUPS, BASE, WINDOW and the phases of the part that no edge touches."""
    p, q = table.step.numerator, table.step.denominator
    low, high = table.inner
    groups = (high - low) // q
    if p > MAX_P or q > MAX_Q or groups < 4:
        return (0, 0, 0, 0, 0, 0), []
    used = [np.flatnonzero(table.weights[low + r]) for r in range(q)]
    base = int(first[low] + used[0][0])
    window = max(2, int(first[low + q - 1] + used[-1][-1]) + 1 - base)
    phases = []
    for r in range(q):
        begin, end = int(used[r][0]), int(used[r][-1]) + 1
        phase = np.zeros(2 + window, np.int32)
        phase[:2] = first[low + r] + begin - base, end - begin
        phase[2 : 2 + end - begin] = table.weights[low + r, begin:end]
        phases.append(phase)
    return (p, q, low, groups, base, window), phases


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where a picture goes: the tables of its visible part.

    Attributes:
        box: x, y, width, height of the visible part in the mosaic, all even.
        tables: the packed axes luma x, luma y, chroma x, chroma y, one after the other.
        offsets: where each begins in `tables`.
        samples: the longest row of samples that a pass holds.
        copy: source sample (x, y) of the box's top left when the picture is copied 1:1.
    """

    box: Box
    tables: Int32
    offsets: tuple[int, int, int, int]
    samples: int
    copy: bool


@lru_cache(maxsize=512)
def geometry(size: tuple[int, int], rotation: int, src: Rect, dst: Box, mosaic: tuple[int, int]) -> Geometry | None:
    """Tables that scale the `src` part of a picture into `dst`, cut to the mosaic.

    Args:
        size: width, height of the upright picture, samples.
        rotation: degrees clockwise that turned it upright; decides where its chroma lies.
        src: x0, y0, x1, y1 in samples, inside the picture.
        dst: x, y, width, height in the mosaic, all even; may hang over its edge.
        mosaic: width, height of the mosaic, both even.

    Returns:
        None when nothing of it is visible.

    Raises:
        ValueError: a rectangle is empty, odd, or outside the picture.
    """
    if any(v % 2 for v in (*dst, *mosaic)) or min(dst[2:]) <= 0:
        raise ValueError(f"dst and mosaic must be even and not empty, got {dst = } {mosaic = }")
    x0, y0, x1, y1 = (Fraction(round(v * POSITION), POSITION) for v in src)
    if not (0 <= x0 < x1 <= size[0] and 0 <= y0 < y1 <= size[1]):
        raise ValueError(f"src must be a part of the picture of {size}, got {src}")
    phases = chroma_phases(size, rotation)
    visible = []
    axes: list[Axis] = []
    chroma: list[Axis] = []
    for k, (begin, end) in enumerate(((x0, x1), (y0, y1))):
        low, high = max(0, -dst[k]), min(dst[2 + k], mosaic[k] - dst[k])
        if low >= high:
            return None
        step = (end - begin) / dst[2 + k]
        axes.append(axis(begin, step, size[k], low, high))
        phase_out = (Fraction(1, 2), Fraction(1))[k]
        start = (begin + step * phase_out - phases[k]) / 2 + Fraction(1, 2) - step / 2
        chroma.append(axis(start, step, (size[k] + 1) // 2, low // 2, high // 2))
        visible.append((dst[k] + low, high - low))
    packed = [pack_axis(table) for table in (*axes, *chroma)]
    offsets = np.cumsum([0, *(len(table) for table in packed)]).tolist()
    tables = np.concatenate(packed)
    tables.setflags(write=False)
    (x, width), (y, height) = visible
    copy = all(table.step == 1 and table.weights.shape[1] == 1 for table in (*axes, *chroma))
    return Geometry(
        (x, y, width, height), tables, (offsets[0], offsets[1], offsets[2], offsets[3]),
        max(int(packed[0][SAMPLES]), int(packed[2][SAMPLES])), copy,
    )


def chroma_phases(size: tuple[int, int], rotation: int) -> tuple[Fraction, Fraction]:
    """phi of Note [Chroma siting] along x and y of an upright picture of `size`."""
    left, centre = Fraction(1, 2), Fraction(1)

    def reverse(phi: Fraction, n: int) -> Fraction:
        return n - 2 * ((n + 1) // 2) + 2 - phi

    width, height = size
    return {
        0: (left, centre),
        90: (reverse(centre, width), left),
        180: (reverse(left, width), reverse(centre, height)),
        270: (centre, reverse(left, height)),
    }[rotation]
