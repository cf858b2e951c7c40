"""How boxes of one picture cover each other, on the CPU."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tiler.kernels.assign_cpu import Float64, compiled
from tiler.types import Float32, Int32

Bool = npt.NDArray[np.bool_]


@compiled
def covers(xyxy: Float32 | Float64, class_id: Int32, reach: float) -> tuple[Float64, Float64, Bool]:
    """What each two boxes share, and how much of each is behind somebody nearer.

    Who has the lower feet is nearer. Boxes of different classes do not meet, but they do hide each other.

    Args:
        xyxy: (n, 4) float32 or float64; one without area, or with a value that is not a number, shares nothing.
        class_id: (n,) int32.
        reach: two are near when their boxes would touch, were each this many of its widths wider on either side.

    Returns:
        shared: (n, n) float64 in 0..1, the part of the smaller box that both cover; 0 on the diagonal.
        hidden: (n,) float64 in 0..1, the most of the box that one nearer box covers.
        near: (n,) bool, whether somebody of the same class is near.
    """
    n = xyxy.shape[0]
    shared, hidden, near = np.zeros((n, n)), np.zeros(n), np.zeros(n, np.bool_)
    for i in range(n):
        for j in range(i):
            wide_i, wide_j = float(xyxy[i, 2] - xyxy[i, 0]), float(xyxy[j, 2] - xyxy[j, 0])
            area_i = wide_i * float(xyxy[i, 3] - xyxy[i, 1])
            area_j = wide_j * float(xyxy[j, 3] - xyxy[j, 1])
            if not (area_i > 0 and area_j > 0 and wide_i > 0 and wide_j > 0):
                continue
            w = min(xyxy[i, 2], xyxy[j, 2]) - max(xyxy[i, 0], xyxy[j, 0])
            h = min(xyxy[i, 3], xyxy[j, 3]) - max(xyxy[i, 1], xyxy[j, 1])
            if class_id[i] == class_id[j] and w + reach * (wide_i + wide_j) > 0 and h > 0:
                near[i] = near[j] = True
            if not (w > 0 and h > 0):
                continue
            common = float(w) * float(h)
            if class_id[i] == class_id[j]:
                shared[i, j] = shared[j, i] = min(common / min(area_i, area_j), 1.0)
            behind, area = (i, area_i) if xyxy[i, 3] < xyxy[j, 3] else (j, area_j)
            hidden[behind] = max(hidden[behind], min(common / area, 1.0))
    return shared, hidden, near
