"""Non-maximum suppression on the CPU: exact, greedy, per class."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]


def nms(xyxy: Float32, score: Float32, class_id: Int32, iou_limit: float, limit: int) -> Int64:
    """Keep the best box, drop the boxes of its class that overlap it, and so on.

    Stopping at `limit` is exact: candidates come in order of score, so whatever would follow is
    weaker than all that were kept. The cost is candidates x limit, never candidates squared.

    Args:
        xyxy: (n, 4) float32 boxes, x0 < x1 and y0 < y1, any unit.
        score: (n,) float32.
        class_id: (n,) int32.
        iou_limit: a box goes when its intersection over union with a kept one is above this.
        limit: boxes to keep at most.

    Returns:
        (kept,) int64 indices, best score first; of equal scores, the lower index first.
    """
    order = np.argsort(-score, kind="stable")  # in NumPy: Numba's sort takes a second to compile
    kept: Int64 = _suppress(xyxy, class_id, order, iou_limit, limit)
    return kept


@njit(nogil=True, cache=True)
def _suppress(xyxy: Float32, class_id: Int32, order: Int64, iou_limit: float, limit: int) -> Int64:
    kept = np.empty(min(limit, len(order)), np.int64)
    count = 0
    for candidate in order:
        if count == len(kept):
            break
        x0, y0, x1, y1 = xyxy[candidate]
        area = (x1 - x0) * (y1 - y0)
        free = True
        for other in kept[:count]:
            if class_id[other] != class_id[candidate]:
                continue
            width = min(x1, xyxy[other, 2]) - max(x0, xyxy[other, 0])
            height = min(y1, xyxy[other, 3]) - max(y0, xyxy[other, 1])
            if width <= 0 or height <= 0:
                continue
            shared = width * height
            rest = (xyxy[other, 2] - xyxy[other, 0]) * (xyxy[other, 3] - xyxy[other, 1])
            if shared > iou_limit * (area + rest - shared):
                free = False
                break
        if free:
            kept[count] = candidate
            count += 1
    return kept[:count]
