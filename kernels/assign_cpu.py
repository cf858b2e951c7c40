"""Boxes on the CPU: how much they overlap, and the best way to pair them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

compiled = njit(cache=True, no_cfunc_wrapper=True)
"""The interpreter lock is kept: a call of some 10 us that gave it up would queue behind every other thread to get it
back. Without a wrapper for callers in C: there are none, and it takes a while to compile."""
inner = njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""For what compiled functions alone call."""


@compiled
def box_iou(a: Float64, b: Float64) -> Float64:
    """Intersection over union of corner boxes of a positive area, a (n, 4) and b (m, 4): (n, m)."""
    iou = np.empty((a.shape[0], b.shape[0]))
    for i in range(a.shape[0]):
        x0, y0, x1, y1 = a[i, 0], a[i, 1], a[i, 2], a[i, 3]
        area = (x1 - x0) * (y1 - y0)
        for j in range(b.shape[0]):
            w = (x1 if x1 < b[j, 2] else b[j, 2]) - (x0 if x0 > b[j, 0] else b[j, 0])
            h = (y1 if y1 < b[j, 3] else b[j, 3]) - (y0 if y0 > b[j, 1] else b[j, 1])
            shared = w * h if w > 0 and h > 0 else 0.0
            iou[i, j] = shared / (area + (b[j, 2] - b[j, 0]) * (b[j, 3] - b[j, 1]) - shared)
    return iou


@compiled
def best_pairs(gain: Float64) -> Int64:
    """The pairing of rows and columns with the largest sum of gains.

    Shortest augmenting paths, after Crouse, "On implementing 2D rectangular assignment algorithms",
    IEEE TAES 52(4), 2016. Ties fall as in SciPy's `linear_sum_assignment`: the search looks at the
    columns from the last to the first, and of equally near ones prefers one that is free.

    Args:
        gain: (n, m) float64, 0 or more.

    Returns:
        (n,) int64: the column of each row; -1 where the pair would gain nothing.
    """
    n, m = gain.shape
    turned = n > m  # the short side is assigned, row by row
    rows = m if turned else n
    columns = n if turned else m
    pairs, cost = np.empty(n, np.int64), np.empty((rows, columns))
    hopeless = True
    for i in range(n):
        pairs[i] = -1
        for j in range(m):
            cost[j if turned else i, i if turned else j] = -gain[i, j]
            if gain[i, j] > 0:
                hopeless = False
    if hopeless:
        return pairs
    reals, wholes = np.empty((3, columns)), np.empty((4, columns), np.int64)
    u, v, distance = reals[0], reals[1], reals[2]
    row_of, column_of, back, ahead = wholes[0], wholes[1], wholes[2], wholes[3]
    for k in range(columns):
        u[k] = v[k] = 0.0
        row_of[k] = column_of[k] = -1
    for start in range(rows):
        for k in range(columns):
            ahead[k] = columns - 1 - k
            distance[k] = np.inf
        left = columns
        row = start
        far = 0.0
        sink = -1
        while sink < 0:
            nearest = np.inf
            at = -1
            for k in range(left):
                column = ahead[k]
                along = far + cost[row, column] - u[row] - v[column]
                if along < distance[column]:
                    distance[column] = along
                    back[column] = row
                if distance[column] < nearest or (distance[column] == nearest and row_of[column] < 0):
                    nearest = distance[column]
                    at = k
            far = nearest
            column = ahead[at]
            left -= 1
            ahead[at] = ahead[left]
            ahead[left] = column  # from `left` on: those reached
            row = row_of[column]
            if row < 0:
                sink = column
        u[start] += far
        for k in range(left, columns):
            column = ahead[k]
            if column != sink:
                u[row_of[column]] += far - distance[column]
            v[column] -= far - distance[column]
        column = sink
        row = -1
        while row != start:
            row = back[column]
            row_of[column] = row
            following = column_of[row]
            column_of[row] = column
            column = following
    for k in range(rows):
        i = column_of[k] if turned else k
        j = k if turned else column_of[k]
        if gain[i, j] > 0:
            pairs[i] = j
    return pairs


@compiled
def total(gain: Float64, pairs: Int64) -> float:
    """The sum of the gains of these pairs, as `best_pairs` gives them."""
    found = 0.0
    for i in range(len(pairs)):
        if pairs[i] >= 0:
            found += gain[i, pairs[i]]
    return found


@compiled
def lead(gain: Float64, pairs: Int64) -> float:
    """By how much these pairs lead the best pairing that lacks one of them."""
    next_best = 0.0
    for i in range(len(pairs)):
        if pairs[i] >= 0:
            other = gain.copy()
            other[i, pairs[i]] = 0.0
            next_best = max(next_best, total(other, best_pairs(other)))
    ahead: float = total(gain, pairs) - next_best
    return ahead
