"""Infer: Batch -> Detections of each entry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from tiler.crowd import DetectionBatch
from tiler.types import Batch, Detections

Answer = Callable[[], DetectionBatch]
"""Waits for the detections of a batch; to be called once."""


class Detector(Protocol):
    """One model, one call per batch for all streams."""

    input_size: tuple[int, int]
    """(width, height) of the tensor that `infer` takes."""
    class_names: tuple[str, ...]

    def submit(self, batch: Batch) -> Answer:
        """Begin with a batch: a device works on it, and on the next one, while the host does other things.

        At most `TENSORS` answers may be due, and they are asked for in the order of the batches. One thread submits,
        one asks.

        Raises:
            StageError: the runtime failed, or the detector is closed; also when the answer is asked for.
        """
        ...

    def infer(self, batch: Batch) -> list[Detections]:
        """Detections of each entry of the batch, in its order, in picture pixels: `submit`, and its answer in parts."""
        ...

    def close(self) -> None: ...
