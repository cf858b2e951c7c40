"""Inference on the CPU with ONNX Runtime: one call per tick for all streams."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import onnxruntime as ort

from tiler.closing import Closing
from tiler.config.models import DetectorConfig
from tiler.crowd import DetectionBatch
from tiler.engines.registry import ORT_ERRORS, ModelSpec, open_session
from tiler.errors import StageError
from tiler.infer.base import Answer
from tiler.infer.heads import HeadDecoder
from tiler.types import Batch, Detections

_log = logging.getLogger(__name__)


class OrtDetector(Closing):
    """A model in ONNX Runtime's CPU provider. One thread uses it at a time.

    Args:
        model: what to run.
        config: nms_iou, classes and max_detections are used.
        threads: of the runtime's own pool.
        batch_sizes: run once with each of these now, so that no later tick pays for first use.
        min_score: lowest score to report; `config.score` when absent. ByteTrack wants
            `tracker.low_score`: it continues tracks with detections too weak to be shown.

    Raises:
        InputError: the model does not load, or `config.classes` has a name it does not know.
    """

    def __init__(
        self,
        model: ModelSpec,
        config: DetectorConfig,
        threads: int,
        batch_sizes: Sequence[int] = (),
        *,
        min_score: float | None = None,
    ) -> None:
        self.input_size = model.input_size
        self.class_names = model.class_names
        self._model = model
        self._decoder = HeadDecoder(model, config, config.score if min_score is None else min_score)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.use_deterministic_compute = True
        # Spinning workers take the cores that decode, compose and encode need between two calls.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session: ort.InferenceSession | None = open_session(model.path, options)
        self._dtype = np.float16 if model.precision == "fp16" else np.float32
        if not model.dynamic_batch:
            _log.warning("%s has a batch axis fixed at 1: streams are inferred one by one", model.name)
        for size in sorted(set(batch_sizes)):
            self._warm_up(size)

    def submit(self, batch: Batch) -> Answer:
        """See `Detector.submit`: the work is done when the answer is asked for."""
        return lambda: DetectionBatch.of(self.infer(batch))

    def infer(self, batch: Batch) -> list[Detections]:
        """Detections of each entry of the batch, in its order, in picture pixels.

        Raises:
            StageError: the runtime failed, or the detector is closed.
        """
        step = len(batch) if self._model.dynamic_batch else 1
        found: list[Detections] = []
        for first in range(0, len(batch), max(step, 1)):
            raw = self._run(batch.tensor[first : first + step])
            found += self._decoder.decode(raw, batch, first)
        return found

    def close(self) -> None:
        """Free the session; may be called twice."""
        self._session = None

    def _run(self, tensor: np.ndarray) -> np.ndarray:
        if self._session is None:
            raise StageError("infer", f"{self._model.name} is closed")
        feed = {self._model.input_name: np.ascontiguousarray(tensor, self._dtype)}
        try:
            output: np.ndarray = self._session.run([self._model.output_name], feed)[0]
        except ORT_ERRORS as error:
            raise StageError("infer", f"{self._model.name}: ONNX Runtime: {error}") from error
        return output

    def _warm_up(self, size: int) -> None:
        width, height = self.input_size
        letterbox = np.tile(np.array([1, 1, 0, 0], np.float32), (size, 1))
        sizes = np.tile(np.array([width, height], np.int32), (size, 1))
        blank = np.zeros((size, 3, height, width), np.float32)
        self.infer(Batch(blank, letterbox, sizes, tuple(range(size))))
