"""Infer: Batch -> Detections of each entry."""

from __future__ import annotations

from typing import Protocol

from tiler.types import Batch, Detections


class Detector(Protocol):
    """One model, one call per tick for all streams."""

    input_size: tuple[int, int]
    """(width, height) of the tensor that `infer` takes."""
    class_names: tuple[str, ...]

    def infer(self, batch: Batch) -> list[Detections]:
        """Detections of each entry of the batch, in its order, in picture pixels."""
        ...

    def close(self) -> None: ...
