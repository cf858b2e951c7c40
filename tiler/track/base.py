"""Track: Detections of one stream -> Tracks."""

from __future__ import annotations

from typing import Protocol

from tiler.types import Detections, Tracks


class Tracker(Protocol):
    """The identities of one stream. One instance per stream; nothing is shared."""

    def update(self, detections: Detections | None, pts: int) -> Tracks:
        """Tracks at `pts` (1/90000 s, never decreasing).

        None means that the detector did not run for this picture: tracks are predicted.
        """
        ...
