"""Heads and NMS on CUDA: what `decode_heads.cu` takes, and its launches. The maths is Note [Heads]."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from tiler.kernels.enqueue_cuda import Launch
from tiler.kernels.module_cuda import kernel

CAPACITY = 4096
"""Candidates of one picture that are sorted; there is a warning when there were more."""
CANDIDATE_BYTES = 32
FOUND = np.dtype([("xyxy", np.float32, 4), ("score", np.float32), ("class_id", np.int32)])
"""`struct Found`: a box that is left."""
PLACE = np.dtype([("letterbox", np.float32, 4), ("size", np.int32, 2)])
"""`struct Place`: sx, sy, dx, dy of `Batch.letterbox` and the picture's width and height."""
HEADS = {"yolox": 0, "yolov8": 1}
_THREADS = 1024


class Detect:
    """The launches for one array of heads."""

    def __init__(
        self,
        heads: Any,
        kind: Literal["yolox", "yolov8"],
        input_width: int,
        min_score: float,
        keep: Any,
        places: Any,
        iou_limit: float,
        limit: int,
        candidates: Any,
        counts: Any,
        found: Any,
        totals: Any,
    ) -> None:
        """
        Args:
            heads: (N, A, 5 + C) yolox or (N, 4 + C, A) yolov8, float16 or float32, C-contiguous.
            input_width: of the tensor, pixels.
            min_score: lowest score of a box.
            keep: (max(C, 1),) uint8: classes that are wanted.
            places: N x PLACE.
            iou_limit, limit: as for `nms`; limit at most 1000: shared memory holds no more everywhere.
            candidates: (>= N * CAPACITY * CANDIDATE_BYTES,) uint8, scratch.
            counts: (>= N,) int32, zero; it is zero again afterwards.
            found: (>= N, limit) x FOUND and totals (>= N, 2) int32: boxes kept and candidates; are written. They may be
                mapped.
        """
        _, first, second = heads.shape
        anchors, classes = (first, second - 5) if kind == "yolox" else (second, first - 4)
        macros = f"-DIN={'__half' if heads.dtype == np.float16 else 'float'}", f"-DCAPACITY={CAPACITY}"
        self._across = -(-anchors // 256)
        self._select = Launch(
            kernel("decode_heads", "select", *macros), (256,),
            (heads, np.int32(HEADS[kind]), np.int32(anchors), np.int32(classes), np.int32(input_width),
             np.float32(min_score), keep, places, candidates, counts),
        )  # fmt: skip
        self._suppress = Launch(
            kernel("decode_heads", "suppress", *macros), (_THREADS,),
            (candidates, counts, places, np.float64(iou_limit), np.int32(limit), found, totals),
            shared=CAPACITY * 8 + limit * 4,
        )  # fmt: skip

    def __call__(self, count: int) -> None:
        """Boxes of the first `count` pictures, on the current stream."""
        self._select(self._across, count)
        self._suppress(count)
