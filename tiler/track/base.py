"""Track: Detections of each stream -> Tracks; and what those people look like."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from tiler.closing import Closing
from tiler.crowd import Seen, TrackBatch
from tiler.types import Float32, Frame

T = TypeVar("T", bound=np.generic)


def grown(rows: npt.NDArray[T], room: int, axis: int = 1) -> npt.NDArray[T]:
    """What is kept of each stream, (streams, rows, ...), with rows of zeros behind: so many in all.

    Memory that no stream comes to use is not touched: all have room for as many as the one that has most.
    """
    more = np.zeros((*rows.shape[:axis], room, *rows.shape[axis + 1 :]), rows.dtype)
    more[(*(slice(None),) * axis, slice(rows.shape[axis]))] = rows
    return more


class Tracker(Protocol):
    """The identities of all streams of a run; of each as if it were alone."""

    def begin(self, stream: int) -> None:
        """Another source's pictures come from now on: ids begin anew."""
        ...

    def update_all(self, streams: Sequence[int], pts: Sequence[int], seen: Seen) -> TrackBatch:
        """The tracks of the next pictures of some streams.

        Args:
            streams: each once at most.
            pts: of their pictures, 1/90000 s; of a stream never decreasing.
            seen: in those pictures; where the detector did not run, tracks are predicted.
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
