"""Inference on CUDA: network, heads and suppression on one stream; only boxes come down, written by the last."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import cupy
import numpy as np

from tiler.closing import Closing
from tiler.config.models import DetectorConfig
from tiler.crowd import DetectionBatch
from tiler.engines.registry import ModelSpec
from tiler.errors import StageError
from tiler.infer.base import Answer
from tiler.infer.heads import wanted_classes
from tiler.kernels import enqueue_cuda
from tiler.kernels.decode_heads_cpu import gather
from tiler.kernels.decode_heads_cuda import CANDIDATE_BYTES, CAPACITY, FOUND, PLACE, Detect
from tiler.kernels.mapped_cuda import Mapped
from tiler.memory import TENSORS
from tiler.observe.copies import Copies
from tiler.types import Batch, Detections

if TYPE_CHECKING:
    from tiler.infer.network_cuda import Network

_log = logging.getLogger(__name__)


class _Turn:
    """Where the answer to one batch arrives on the host, and its places depart from."""

    def __init__(self, limit: int, max_batch: int) -> None:
        size = max_batch * PLACE.itemsize
        self.places = np.frombuffer(cupy.cuda.alloc_pinned_memory(size), PLACE, max_batch)
        self.totals = Mapped((max_batch, 2), np.int32)
        self.found = Mapped((max_batch, limit, FOUND.itemsize // 4), np.float32)
        self.done = cupy.cuda.Event(block=True, disable_timing=True)  # the host sleeps meanwhile


class CudaDetector(Closing):
    """A model on the device. One thread submits, one asks for answers; see `Detector.submit`.

    Args:
        model: what the network runs; its head and classes are read.
        network: runs it.
        config: nms_iou, classes and max_detections are used.
        min_score: lowest score to report.
        max_batch: entries of a batch at most.
        device: index of the CUDA device.
        stream: the preprocessor's: batches are read where they were written.
        copies: the ledger.

    Raises:
        InputError: `config.classes` has a name that the model does not know.
    """

    def __init__(
        self,
        model: ModelSpec,
        network: Network,
        config: DetectorConfig,
        min_score: float,
        max_batch: int,
        device: int,
        stream: Any,
        copies: Copies,
    ) -> None:
        self.input_size = model.input_size
        self.class_names = model.class_names
        self._model, self._network, self._copies = model, network, copies
        self._limit = config.max_detections
        self._device, self._stream = cupy.cuda.Device(device), stream
        with self._device, stream:
            self._head = cupy.empty((max_batch, *network.output_shape), network.output_dtype)
            self._keep = cupy.asarray(wanted_classes(model, config).astype(np.uint8))
            self._candidates = cupy.empty(max_batch * CAPACITY * CANDIDATE_BYTES, cupy.uint8)
            self._counts = cupy.zeros(max_batch, cupy.int32)
            self._places = cupy.empty(max_batch * PLACE.itemsize, cupy.uint8)
            self._ring = [_Turn(self._limit, max_batch) for _ in range(TENSORS)]
            self._detect = [
                Detect(
                    self._head, model.head, self.input_size[0], min_score, self._keep, self._places, config.nms_iou,
                    self._limit, self._candidates, self._counts, turn.found, turn.totals,
                )
                for turn in self._ring
            ]  # fmt: skip
        self._placed: Batch | None = None
        self._turn = 0
        self._warned = self._closed = False

    def submit(self, batch: Batch) -> Answer:
        """See `Detector.submit`: all that the device has to do is enqueued."""
        if self._closed:
            raise StageError("infer", f"{self._model.name} is closed")
        count = len(batch)
        self._turn = (self._turn + 1) % TENSORS
        turn = self._ring[self._turn]
        self._device.use()
        with self._stream:
            head = self._head[:count]
            self._network.run(batch.tensor, head, self._stream)
            self._upload_places(batch, turn)
            self._detect[self._turn](count)
            enqueue_cuda.record(turn.done, self._stream)

        def answer() -> DetectionBatch:
            self._device.use()
            enqueue_cuda.finish(turn.done)
            return self._read(turn, count)

        return answer

    def infer(self, batch: Batch) -> list[Detections]:
        """See `Detector.infer`."""
        return self.submit(batch)().pictures()

    def warm_up(self, tensors: Sequence[Any]) -> None:
        """Run the network once on each of the tensors that batches come in, so that no tick pays for first use."""
        self._device.use()
        with self._stream:
            for tensor in tensors:
                self._network.prepare(tensor, self._head)
        self._stream.synchronize()
        self._read(self._ring[0], 0)  # compiles

    def close(self) -> None:
        """Free the network; may be called twice."""
        if not self._closed:
            self._closed = True
            self._network.close()

    def _upload_places(self, batch: Batch, turn: _Turn) -> None:
        """Where the pictures lie in the tensor, unless they lie as those of the last batch."""
        before, self._placed = self._placed, batch
        if before is not None and before.letterbox is batch.letterbox and before.sizes is batch.sizes:
            return
        places = turn.places[: len(batch)]
        places["letterbox"], places["size"] = batch.letterbox, batch.sizes
        enqueue_cuda.copy(self._places.data.ptr, places.ctypes.data, places.nbytes, self._stream)
        self._copies.add("pictures' places", "up", places.nbytes)

    def _read(self, turn: _Turn, count: int) -> DetectionBatch:
        boxes = turn.found.host
        most, ends, xyxy, score, class_id = gather(turn.totals.host, boxes, boxes.view(np.int32), count)
        self._copies.add("detections", "down", 8 * count + len(score) * FOUND.itemsize)
        if most > CAPACITY and not self._warned:
            self._warned = True
            _log.warning(
                "%s: more than %d candidate boxes in one picture; some were left out. Raise tracker.low_score",
                self._model.name, CAPACITY,
            )  # fmt: skip
        return DetectionBatch(ends, xyxy, score, class_id)
