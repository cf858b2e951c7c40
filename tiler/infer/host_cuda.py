"""The last rung of the ladder: batches are made on the device, and inferred on the CPU."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cupy
import numpy as np

from tiler.closing import Closing
from tiler.crowd import DetectionBatch
from tiler.infer.base import Answer, Detector
from tiler.observe.copies import Copies
from tiler.types import Batch, Detections


class HostDetector(Closing):
    """A detector of the CPU backend behind one copy down a tick. One thread uses it at a time.

    Args:
        detector: takes float32 batches on the host.
        max_batch: entries of a batch at most.
        device: index of the CUDA device.
        stream: the preprocessor's.
        copies: the ledger.
    """

    def __init__(self, detector: Detector, max_batch: int, device: int, stream: Any, copies: Copies) -> None:
        self.input_size, self.class_names = detector.input_size, detector.class_names
        self._detector, self._copies = detector, copies
        self._device, self._stream = cupy.cuda.Device(device), stream
        shape = (max_batch, 3, self.input_size[1], self.input_size[0])
        with self._device:
            self._pinned = cupy.cuda.alloc_pinned_memory(int(np.prod(shape)) * 4)
        self._host = np.frombuffer(self._pinned, np.float32, int(np.prod(shape))).reshape(shape)

    def submit(self, batch: Batch) -> Answer:
        """See `Detector.submit`: the work is done when the answer is asked for."""
        return lambda: DetectionBatch.of(self.infer(batch))

    def infer(self, batch: Batch) -> list[Detections]:
        """See `Detector.infer`; waits for the copy."""
        host = self._host[: len(batch)]
        self._device.use()
        batch.tensor.get(stream=self._stream, out=host)
        self._stream.synchronize()
        self._copies.add("detector's input", "down", host.nbytes)
        return self._detector.infer(replace(batch, tensor=host))

    def close(self) -> None:
        self._detector.close()
