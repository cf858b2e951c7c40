"""Preprocess: frames that are new -> one letterboxed Batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tiler.types import Batch, Frame


class Preprocessor(Protocol):
    """Frames of any size, rotation and colour -> (N, 3, H, W)."""

    def prepare(self, frames: Sequence[Frame]) -> Batch:
        """Letterbox and colour-convert all frames at once.

        The tensor is one of a ring of preallocated buffers: it is valid until
        `RING` further calls.
        """
        ...

    def close(self) -> None: ...
