"""Raw output of a detector -> Detections: decode, filter, suppress, clip. Host arrays, any runtime."""

from __future__ import annotations

import numpy as np

from tiler.config.explain import unknown_class
from tiler.config.models import DetectorConfig
from tiler.engines.registry import ModelSpec
from tiler.errors import InputError
from tiler.kernels.decode_heads_cpu import decode_yolov8, decode_yolox
from tiler.kernels.nms_cpu import nms
from tiler.types import Batch, Detections, Float32


class HeadDecoder:
    """Reads one model's head. One thread uses it at a time.

    Args:
        model: its head, classes and input size.
        config: nms_iou, classes and max_detections are used.
        min_score: lowest score to report. A tracker wants weaker detections than are shown.

    Raises:
        InputError: `config.classes` has a name that the model does not know.
    """

    def __init__(self, model: ModelSpec, config: DetectorConfig, min_score: float) -> None:
        self._head = model.head
        self._width = model.input_size[0]
        self._min_score = min_score
        self._nms_iou = config.nms_iou
        self._limit = config.max_detections
        self._keep = wanted_classes(model, config)
        anchors = model.input_size[0] * model.input_size[1] * 21 // 1024
        self._xyxy = np.empty((anchors, 4), np.float32)
        self._score = np.empty(anchors, np.float32)
        self._class_id = np.empty(anchors, np.int32)

    def decode(self, raw: Float32, batch: Batch, first: int = 0) -> list[Detections]:
        """Detections of each picture, best first; of equal scores the lower anchor first.

        Args:
            raw: (n, A, 5 + C) or (n, 4 + C, A): the head's output.
            batch: what the model saw.
            first: entry of the batch that raw[0] belongs to.
        """
        raw = np.ascontiguousarray(raw, np.float32)
        return [
            self._decode_one(one, batch.letterbox[first + i], batch.sizes[first + i])
            for i, one in enumerate(raw)
        ]

    def _decode_one(self, raw: Float32, letterbox: Float32, size: np.ndarray) -> Detections:
        into = (self._xyxy, self._score, self._class_id)
        if self._head == "yolox":
            n = decode_yolox(raw, self._width, self._keep, self._min_score, letterbox, size, *into)
        else:
            n = decode_yolov8(raw, self._keep, self._min_score, letterbox, size, *into)
        best = nms(self._xyxy[:n], self._score[:n], self._class_id[:n], self._nms_iou, self._limit)
        width, height = size
        limit = np.array([width, height, width, height], np.float32)
        return Detections(np.clip(self._xyxy[best], 0, limit), self._score[best], self._class_id[best])


def wanted_classes(model: ModelSpec, config: DetectorConfig) -> np.ndarray:
    """(classes,) bool: which classes of the model the config asks for.

    Raises:
        InputError: a name that the model does not know.
    """
    names = model.class_names
    if config.classes is None:
        return np.ones(len(names), np.bool_)
    for name in config.classes:
        if (problem := unknown_class(name, names)) is not None:
            raise InputError(f"detector.classes: {problem}")
    return np.array([name in config.classes for name in names])
