"""Track: Detections of each stream -> Tracks; and what those people look like."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from tiler.closing import Closing
from tiler.types import Detections, Float32, Frame, Int32, Tracks

Int64 = npt.NDArray[np.int64]


class TrackBatch(NamedTuple):
    """Who is where in some pictures, each of another stream: what `Tracks` holds, one picture after the other.

    Attributes:
        streams: (m,) int64, the stream of each picture.
        pts: (m,) int64, its time.
        ends: (m,) int64, where its rows end; they begin where those of the one before end.
        most: rows of the picture that has most.
        track_id, xyxy, score, class_id, slot: as in `Tracks`, of all pictures.
    """

    streams: Int64
    pts: Int64
    ends: Int64
    most: int
    track_id: Int32
    xyxy: Float32
    score: Float32
    class_id: Int32
    slot: Int32

    def pictures(self) -> list[Tracks]:
        """The tracks of each picture, in the same memory."""
        _, _, _, _, track_id, xyxy, score, class_id, slot = self
        a, each = 0, []
        for pts, b in zip(self.pts.tolist(), self.ends.tolist(), strict=True):
            each.append(Tracks(pts, track_id[a:b], xyxy[a:b], score[a:b], class_id[a:b], slot[a:b]))
            a = b
        return each

    @staticmethod
    def of(streams: Sequence[int], tracks: Sequence[Tracks]) -> TrackBatch:
        """Those of one picture of each of these streams."""
        every = (*tracks, Tracks.empty())
        columns = zip(*((one.track_id, one.xyxy, one.score, one.class_id, one.slot) for one in every), strict=True)
        counts = [len(one) for one in tracks]
        return TrackBatch(
            np.array(streams, np.int64), np.array([one.pts for one in tracks], np.int64),
            np.cumsum(counts, dtype=np.int64), max(counts, default=0), *map(np.concatenate, columns),
        )  # fmt: skip

    @staticmethod
    def empty() -> TrackBatch:
        """No pictures."""
        return TrackBatch.of((), ())


T = TypeVar("T", bound=np.generic)


def grown(rows: npt.NDArray[T], room: int) -> npt.NDArray[T]:
    """What is kept of each stream, (streams, rows, ...), with rows of zeros behind: so many in all."""
    return np.pad(rows, ((0, 0), (0, room - rows.shape[1]), *((0, 0),) * (rows.ndim - 2)))


class Tracker(Protocol):
    """The identities of all streams of a run; of each as if it were alone."""

    def begin(self, stream: int) -> None:
        """Another source's pictures come from now on: ids begin anew."""
        ...

    def update_all(
        self, streams: Sequence[int], pts: Sequence[int], detections: Sequence[Detections | None]
    ) -> TrackBatch:
        """The tracks of the next pictures of some streams.

        Args:
            streams: each once at most.
            pts: of their pictures, 1/90000 s; of a stream never decreasing.
            detections: of their pictures; None where the detector did not run: tracks are predicted.
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
