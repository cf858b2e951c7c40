"""Detector heads on the CPU: one raw output -> candidate boxes above a score, in picture pixels.

Note [Heads]: two heads, both anchor free with strides 8, 16 and 32; anchors run through the levels
in that order, row by row.

* yolox (Ge et al. 2021, arXiv:2107.08430), output (A, 5 + C): centre offset from the cell's corner
  in cells, log of width and height in cells, objectness, class scores; both already through the
  sigmoid. x = (column + tx) * stride, width = exp(tw) * stride. The score is objectness times the
  best class score, or objectness alone when C = 0.
* yolov8 (exports of Ultralytics YOLOv8 and YOLO11), output (4 + C, A): centre, width and height in
  tensor pixels, class scores through the sigmoid. The score is the best class score.

Of equal class scores the lower class wins. A candidate with a value that is not finite, with no
area, or wholly outside the picture is dropped. Boxes are not clipped here: NMS compares whole boxes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from tiler.kernels.assign_cpu import Int64, compiled

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]
Bool = npt.NDArray[np.bool_]

STRIDES = (8, 16, 32)
"""Pixels of the tensor per cell of each level, in the order of the anchors."""


@njit(nogil=True, cache=True)
def _put(
    out: Float32, row: int, cx: float, cy: float, w: float, h: float, letterbox: Float32, size: Int32
) -> bool:
    """Write a box of the tensor as picture pixels; False when there is nothing of it in the picture."""
    sx, sy, dx, dy = letterbox
    x0, x1 = (cx - 0.5 * w - dx) / sx, (cx + 0.5 * w - dx) / sx
    y0, y1 = (cy - 0.5 * h - dy) / sy, (cy + 0.5 * h - dy) / sy
    if not (np.isfinite(x0) and np.isfinite(x1) and np.isfinite(y0) and np.isfinite(y1)):
        return False
    out[row, 0], out[row, 1], out[row, 2], out[row, 3] = x0, y0, x1, y1
    inside_x = min(out[row, 2], np.float32(size[0])) > max(out[row, 0], np.float32(0))
    inside_y = min(out[row, 3], np.float32(size[1])) > max(out[row, 1], np.float32(0))
    return bool(inside_x and inside_y)


@njit(nogil=True, cache=True)
def decode_yolox(
    raw: Float32,
    input_width: int,
    keep: Bool,
    min_score: float,
    letterbox: Float32,
    size: Int32,
    xyxy: Float32,
    score: Float32,
    class_id: Int32,
) -> int:
    """Candidates of one yolox head; see Note [Heads].

    Args:
        raw: (A, 5 + C) float32.
        input_width: width of the tensor in pixels; its height follows from A.
        keep: (max(C, 1),) bool: classes that are wanted.
        min_score: lowest score of a candidate.
        letterbox: (4,) float32 sx, sy, dx, dy of `Batch`.
        size: (2,) int32 picture width and height.
        xyxy (A, 4) float32, score (A,) float32, class_id (A,) int32: take the candidates.

    Returns:
        The number of candidates, written in the order of the anchors.
    """
    columns = input_width // 8
    rows = raw.shape[0] * 16 // (21 * columns)
    classes = raw.shape[1] - 5
    count = 0
    anchor = 0
    for level in range(3):
        stride = 8 << level
        width, height = columns >> level, rows >> level
        for row in range(height):
            for column in range(width):
                cell = raw[anchor]
                anchor += 1
                if not cell[4] >= min_score:  # no class score is above 1
                    continue
                best, value = 0, cell[4]
                if classes > 0:
                    for c in range(1, classes):
                        if cell[5 + c] > cell[5 + best]:
                            best = c
                    value *= cell[5 + best]
                if not (value >= min_score and keep[best]):
                    continue
                cx, cy = (column + cell[0]) * stride, (row + cell[1]) * stride
                w, h = np.exp(cell[2]) * stride, np.exp(cell[3]) * stride
                if _put(xyxy, count, cx, cy, w, h, letterbox, size):
                    score[count] = value
                    class_id[count] = best
                    count += 1
    return count


@njit(nogil=True, cache=True)
def decode_yolov8(
    raw: Float32,
    keep: Bool,
    min_score: float,
    letterbox: Float32,
    size: Int32,
    xyxy: Float32,
    score: Float32,
    class_id: Int32,
) -> int:
    """Candidates of one yolov8 head (4 + C, A); arguments and result as in `decode_yolox`."""
    classes, anchors = raw.shape[0] - 4, raw.shape[1]
    best = np.zeros(anchors, np.int32)
    value = raw[4].copy()
    for c in range(1, classes):
        row = raw[4 + c]
        for anchor in range(anchors):
            if row[anchor] > value[anchor]:
                value[anchor] = row[anchor]
                best[anchor] = c
    count = 0
    for anchor in range(anchors):
        if not (value[anchor] >= min_score and keep[best[anchor]]):
            continue
        cx, cy, w, h = raw[0, anchor], raw[1, anchor], raw[2, anchor], raw[3, anchor]
        if _put(xyxy, count, cx, cy, w, h, letterbox, size):
            score[count] = value[anchor]
            class_id[count] = best[anchor]
            count += 1
    return count


@compiled
def gather(
    totals: Int32, boxes: Float32, words: Int32, count: int
) -> tuple[int, Int64, Float32, Float32, Int32]:
    """What is left of the candidates of some pictures, one picture after the other.

    Args:
        totals: (N, 2) int32: boxes of each picture that are left, and candidates that there were.
        boxes: (N, limit, 6) float32: x0, y0, x1, y1 and score of a box.
        words: the same as int32, for the class, which comes last.
        count: pictures, the first ones.

    Returns:
        The most candidates of a picture; where the boxes of each picture end, (count,) int64; (n, 4), (n,) and (n,):
        xyxy, score and class of each.
    """
    ends, total, most = np.empty(count, np.int64), 0, 0
    for k in range(count):
        total += totals[k, 0]
        ends[k], most = total, max(most, totals[k, 1])
    xyxy, score, class_id = np.empty((total, 4), np.float32), np.empty(total, np.float32), np.empty(total, np.int32)
    at = 0
    for k in range(count):
        for i in range(totals[k, 0]):
            for j in range(4):
                xyxy[at, j] = boxes[k, i, j]
            score[at], class_id[at] = boxes[k, i, 4], words[k, i, 5]
            at += 1
    return most, ends, xyxy, score, class_id
