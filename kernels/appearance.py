"""Appearance: the constants and tables that its twins share. The maths is Note [Appearance] of appearance_cpu.py."""

from __future__ import annotations

from functools import cache

import numpy as np

from tiler.types import APPEARANCE, Float32, Int32

ROWS, COLUMNS = 64, 32
"""Cells of a crop."""
STRIPES = 12
LUMA = (16, 24, 32, 42, 55, 75, 100, 130, 170, 220)
CHROMA = (88, 108, 118, 123, 126.5, 129.5, 133, 138, 148, 168)
STEP = (0, 6, 20, 60)
"""Centres of the bins, in code values: dense where clothes are, dark and hardly coloured."""
BINS = len(LUMA) + 2 * (len(CHROMA) + len(STEP))
FEATURES = STRIPES * BINS
VECTOR = APPEARANCE
"""Length of what comes out."""

PART = 64
"""A sample is shared between two bins in this many parts."""
_WIDTH = 0.2
"""Standard deviation of the columns' weight, in widths of the box."""

ADDRESSES, STRIDES, SIZE, PLACE_COLUMNS = 0, 3, 7, 9
"""Columns of a crop's place: address of the first y, u and v sample (of 16 bits the high byte); bytes to the
next luma sample to the right and downwards, and of chroma the same; width and height in samples of luma. All as seen
upright, so that a stride may be negative."""


def _shares(centres: tuple[float, ...]) -> Int32:
    """(256,) int32: PART times where a code value lies among the centres, from 0 to the last one."""
    index = np.arange(len(centres))
    return np.rint(PART * np.interp(np.arange(256), centres, index)).astype(np.int32)


@cache
def tables() -> tuple[Int32, Int32, Int32, Float32]:
    """What both twins look up.

    Returns:
        bins: (3, 256) int32: of luma, chroma and steps, see `_shares`.
        columns: (COLUMNS,) int32, the weight of each column of cells.
        rows: (ROWS, 3) int32: the upper of the two stripes that a row of cells is shared between (the other is
            the next), and the weight in each; a weight is 0 where there is no such stripe.
        scale: (STRIPES,) float32: 1 / what the counts of one kind in a stripe add up to.
    """
    bins = np.stack([_shares(LUMA), _shares(CHROMA), _shares(STEP)])
    across = (np.arange(COLUMNS) + 0.5) / COLUMNS - 0.5
    columns = np.rint(32 * np.exp(-0.5 * (across / _WIDTH) ** 2)).astype(np.int32)
    place = (np.arange(ROWS) + 0.5) / ROWS * STRIPES - 0.5
    upper = np.floor(place).astype(np.int64)
    lower_weight = np.rint(32 * (place - upper)).astype(np.int64)
    weights = np.stack([32 - lower_weight, lower_weight], 1)
    first, last = upper < 0, upper >= STRIPES - 1  # half a stripe at either end goes to the stripe there is
    upper[first] = 0
    weights[first] = 32, 0
    weights[last] = 32, 0
    rows = np.concatenate([upper[:, None], weights], 1).astype(np.int32)
    total = np.zeros(STRIPES + 1, np.int64)
    np.add.at(total, upper, weights[:, 0])
    np.add.at(total, upper + 1, weights[:, 1])
    scale = (1 / (total[:STRIPES] * int(columns.sum()) * PART)).astype(np.float32)
    for table in (bins, columns, rows, scale):
        table.setflags(write=False)
    return bins, columns, rows, scale
