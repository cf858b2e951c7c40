"""What is done with the looks of tracks, on the CPU: small steps that keep the interpreter.

NumPy lets go of it for some of them (to sort, to take rows by a mask), and of many threads another has it then.
"""

from __future__ import annotations

import numpy as np

from tiler.kernels.assign_cpu import Float64, Int64, compiled
from tiler.types import Bool, Float32


@compiled
def spread(found: Float32, known: Bool, vectors: Float32) -> None:
    """Put the rows of `found` (k, m) into those of `vectors` (n, m) that `known` (n,) bool says."""
    at = 0
    for i in range(known.shape[0]):
        if known[i]:
            for k in range(found.shape[1]):
                vectors[i, k] = found[at, k]
            at += 1


@compiled
def dots(vector: Float64, others: Float64) -> Float64:
    """(m,) float64: the dot product of a vector (k,) with each row of `others` (m, k)."""
    products = np.empty(others.shape[0])
    for i in range(others.shape[0]):
        total = 0.0
        for k in range(vector.shape[0]):
            total += vector[k] * others[i, k]
        products[i] = total
    return products


@compiled
def lay_out(
    rows: Int64, scales: Float64, counts: Int64, xyxy: Float32, extent: float, places: Int64, boxes: Float32
) -> None:
    """Repeat the row of each picture for its crops, and scale their boxes to its samples.

    Args:
        rows, scales: (f, k) int64 and (f, 4) float64, of each picture.
        counts: (f,) int64, crops of each.
        xyxy: (n, 4) float32, of all crops; any values.
        extent: boxes are clamped to it; what is no number is 0.
        places: (n, k) int64, is written.
        boxes: (n, 4) float32, is written: at least one sample wide and high.
    """
    at = 0
    for f in range(counts.shape[0]):
        for _ in range(counts[f]):
            for k in range(rows.shape[1]):
                places[at, k] = rows[f, k]
            for k in range(4):
                value = xyxy[at, k] * scales[f, k]
                boxes[at, k] = 0.0 if value != value else min(max(value, -extent), extent)
            for k in range(2):
                boxes[at, k + 2] = max(boxes[at, k + 2], boxes[at, k] + np.float32(1))
            at += 1
