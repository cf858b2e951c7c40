"""Which detection continues which track: overlap, and the best assignment above a gate."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from tiler.track.kalman import Float64

Indices = npt.NDArray[np.intp]


def box_iou(a: Float64, b: Float64) -> Float64:
    """Intersection over union of corner boxes a (n, 4) and b (m, 4): (n, m) in 0..1.

    Boxes must have a positive area.
    """
    size = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    np.maximum(size, 0.0, out=size)
    shared = size[..., 0] * size[..., 1]
    area_a = (a[:, 2] - a[:, 0]) * (a[:, 3] - a[:, 1])
    area_b = (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])
    iou: Float64 = shared / (area_a[:, None] + area_b[None, :] - shared)
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
    if similarity.size == 0:
        none = np.empty(0, np.intp)
        return none, none
    gain = np.maximum(similarity - gate, 0.0)
    rows, columns = linear_sum_assignment(gain, maximize=True)
    made = gain[rows, columns] > 0
    return rows[made], columns[made]
