"""Decode: uri -> Frame."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from types import TracebackType
from typing import Protocol, Self

from tiler.closing import Closing
from tiler.config.models import Source
from tiler.errors import InputError, StageError
from tiler.types import Frame


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """What is known of a stream before its first picture.

    Attributes:
        size: (width, height) in picture pixels (upright).
        fps: average rate, 0 when unknown.
        duration_s: length of a file in seconds (after start_s / end_s), None when unknown or endless.
        codec: FFmpeg's name of the codec.
        decoder: what decodes it, for report and plan, e.g. "pyav h264".
        sixteen_bit: a sample of its frames is uint16.
        plane_size: (width, height) of its frames' luma, before rotation, where the decoder scales; else None.
    """

    size: tuple[int, int]
    fps: Fraction
    duration_s: float | None
    codec: str
    decoder: str
    sixteen_bit: bool = False
    plane_size: tuple[int, int] | None = None


Needed = Callable[[str, tuple[int, int], Fraction], tuple[int, int]]
"""Id of a source, size in picture pixels, aspect of one -> the size in which the run needs its pictures, no larger."""


class UndecodableError(InputError):
    """No decoder that the config allows takes this source: trying again would not help."""


class Decoder(Protocol):
    """Pictures of one source in display order. One thread uses it at a time."""

    info: StreamInfo

    def read(self) -> Frame | None:
        """The next picture, or None at the end of the stream.

        Raises:
            StageError: the stream broke (corrupt, connection lost, timed out).
        """
        ...

    def restart(self) -> None:
        """Begin again: the next picture read is the first one.

        Raises:
            StageError: the source cannot be opened again.
        """
        ...

    def close(self) -> None:
        """Free everything; may be called twice, and from another thread to end a blocking read."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@dataclass(slots=True)
class ReaderCounts:
    """What happened to a source so far.

    Attributes:
        read: frames that the decoder gave out.
        dropped: frames that a newer one replaced before anybody took them (live).
        reconnects: times that a URL was opened again with success.
        errors: packets and pictures that FFmpeg reported as damaged.
    """

    read: int = 0
    dropped: int = 0
    reconnects: int = 0
    errors: int = 0


class Reader(Closing):
    """The pictures of one source, read ahead of whoever shows them. One thread takes them.

    Attributes:
        source: its entry in the config.
        failure: why the stream broke, None while it has not.
        outage: why a live source is away and looked for, None while it is there.
        info: of the decoder; None before a live source was first reached.
        endless: nothing more may come, and yet what is shown stays (an image).
        remote: the source delivers in its own time.
    """

    source: Source
    failure: StageError | None
    outage: str | None
    info: StreamInfo | None
    endless: bool
    remote: bool

    @abstractmethod
    def start(self) -> None:
        """Begin to read; once."""

    @abstractmethod
    def next(self) -> Frame | None:
        """The next frame in order, waiting for it; None at the end or after a failure."""

    @property
    @abstractmethod
    def counts(self) -> ReaderCounts:
        """What happened to it so far."""

    @property
    @abstractmethod
    def lag_s(self) -> float:
        """Of the decoder at its last picture; see `DemuxedDecoder.lag_s`."""

    @abstractmethod
    def stop(self) -> None:
        """Take no more pictures: what `close` begins with. Never waits; may be called twice."""

    @abstractmethod
    def wait(self) -> None:
        """Until nothing of a closed source is in use any more."""


def close_readers(readers: Iterable[Reader]) -> None:
    """Close them all, which takes as long as the slowest of them does."""
    every = list(readers)
    for reader in every:
        reader.stop()
    for reader in every:
        reader.close()
