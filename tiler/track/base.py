"""Track: Detections of one stream -> Tracks; and what those people look like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tiler.types import Detections, Float32, Frame, Tracks


class Tracker(Protocol):
    """The identities of one stream. One instance per stream; nothing is shared."""

    def update(self, detections: Detections | None, pts: int) -> Tracks:
        """Tracks at `pts` (1/90000 s, never decreasing).

        None means that the detector did not run for this picture: tracks are predicted.
        """
        ...


class Embedder(Protocol):
    """Looks at people: one instance for all streams, called by one thread."""

    def embed(self, crops: Sequence[tuple[Frame, Float32]]) -> Float32:
        """What is in some boxes of some pictures, in one batch.

        Args:
            crops: pictures on the embedder's device, and boxes (n, 4) x0, y0, x1, y1 in picture pixels.

        Returns:
            (sum of n, APPEARANCE) float32, unit rows on the host, of all boxes in order.
        """
        ...

    def close(self) -> None:
        """Free what is on the device; may be called twice."""
        ...
