"""Which detection continues which track: overlap, and the best assignment above a gate."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tiler.kernels import assign_cpu
from tiler.kernels.assign_cpu import Float64

Indices = npt.NDArray[np.intp]


def box_iou(a: Float64, b: Float64) -> Float64:
    """Intersection over union of corner boxes a (n, 4) and b (m, 4): (n, m) in 0..1.

    Boxes must have a positive area.
    """
    iou: Float64 = assign_cpu.box_iou(a, b)
    return iou


def assign(similarity: Float64, gate: float) -> tuple[Indices, Indices]:
    """The pairs (row, column) that maximise the total of similarity - gate.

    A pair at or below the gate is never made, nor does it stand in the way of another:
    the sum runs over what exceeds the gate, which is the same as a linear assignment
    where staying alone costs half a gate on each side.

    Args:
        similarity: (n, m), higher is better.

    Returns:
        Rows and columns, equally long, rows ascending.
    """
    pairs = assign_cpu.best_pairs(np.maximum(similarity - gate, 0.0))
    rows = np.flatnonzero(pairs >= 0)
    return rows, pairs[rows]
