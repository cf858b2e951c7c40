"""Track: Detections of one stream -> Tracks; and what those people look like."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Protocol

from tiler.closing import Closing
from tiler.types import Detections, Float32, Frame, Tracks


class Tracker(Protocol):
    """The identities of one stream. One instance per stream; nothing is shared."""

    def update(self, detections: Detections | None, pts: int) -> Tracks:
        """Tracks at `pts` (1/90000 s, never decreasing).

        None means that the detector did not run for this picture: tracks are predicted.
        """
        ...


Vectors = Callable[[], Float32]
"""Waits for what boxes look like."""


class Embedder(Closing):
    """Looks at people: one instance for all streams, called by one thread."""

    @abstractmethod
    def embed(self, crops: Sequence[tuple[Frame, Float32]]) -> Float32:
        """What is in some boxes of some pictures, in one batch.

        Args:
            crops: pictures on the embedder's device, and boxes (n, 4) x0, y0, x1, y1 in picture pixels.

        Returns:
            (sum of n, APPEARANCE) float32, unit rows on the host, of all boxes in order.
        """

    def submit(self, crops: Sequence[tuple[Frame, Float32]]) -> Vectors:
        """The same as a device does it, while the host does other things; on the host, when its result is asked for.

        Returns:
            What gives what `embed` does. To be called once, before the next boxes are submitted.
        """
        return lambda: self.embed(crops)

    def close(self) -> None:
        """Free what is on the device; may be called twice."""
