"""What FFmpeg opens, and the packets of its video among those of its other streams.

All streams are asked for, and the others passed over here: PyAV skips what it is not asked for without giving back
control, and each packet sets back its timeout. A video that stops while the sound goes on would neither be missed nor
could it be closed. (Streams that turn up once the container is open are still skipped in there.)
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from tiler.config.models import Source, is_live
from tiler.decode.picture import exact

_PYAV = int(av.__version__.split(".")[0])
_ANY_METADATA: dict[str, Any] = {"metadata_errors": "replace"} if _PYAV < 19 else {}
"""PyAV takes tags that are not UTF-8 as they are since 19, before only when asked."""

_LONG_REST_S = 5
"""Sound may end a little after the video; from this much on something is amiss."""
_RTSP = ("rtsp://", "rtsps://")

VideoPacket: TypeAlias = "av.Packet[VideoStream]"


def open_container(source: Source, uri: str) -> InputContainer:
    """What FFmpeg opens, with the source's options and timeout.

    Raises:
        av.FFmpegError, OSError, ValueError: it cannot.
    """
    options = {key: str(value) for key, value in source.options.items()}
    timeout: tuple[float, float] | None = (source.timeout_s, source.timeout_s)
    file_format = options.pop("format", "v4l2" if uri.startswith("/dev/video") else "") or None
    if uri.startswith(_RTSP):
        options.setdefault("rtsp_transport", "tcp")  # UDP loses packets under load
    if "://" not in uri and Path(uri).is_file():
        uri, timeout = f"file:{uri}", None  # a colon in a file name is not a protocol
    asked_s = time.monotonic()
    try:
        with in_time(source):
            container: InputContainer = av.open(
                uri, "r", format=file_format, options=options, timeout=timeout, **_ANY_METADATA
            )
    except av.InvalidDataError as error:  # what FFmpeg makes of an RTSP server that it gave up
        if uri.startswith(_RTSP) and time.monotonic() - asked_s >= source.timeout_s:
            raise _no_answer(source) from error
        raise
    return container


@contextmanager
def in_time(source: Source) -> Iterator[None]:
    """Where FFmpeg may wait for a source: it says "Immediate exit requested" when that takes longer than it may.

    Raises:
        av.TimeoutError: nobody answered in time.
    """
    try:
        yield
    except av.ExitError as error:
        raise _no_answer(source) from error


def _no_answer(source: Source) -> av.TimeoutError:
    return av.TimeoutError(errno.ETIMEDOUT, f"no answer within {source.timeout_s:g} s (timeout_s)")


class VideoPackets:
    """Reads the video of a container, from where it stands."""

    def __init__(self, source: Source, container: InputContainer, video: VideoStream) -> None:
        """
        Args:
            source: timeout_s is read from it: how long FFmpeg waits, and a live one may go on without its video.
            container: of the source.
            video: the stream of it whose packets are read.
        """
        self._source, self._container, self._video = source, container, video
        self._timeout_s = source.timeout_s if is_live(source) and container.read_timeout is not None else None
        self._ticks_s = {stream.index: float(exact(stream.time_base) or 0) for stream in container.streams}
        self._times_s: dict[int, float] = {}
        self._ahead_s: dict[int, float] = {}

    @property
    def rest(self) -> str:
        """What is to be told of the other streams once the video has ended; empty when they end with it."""
        rest_s = max(self._ahead_s.values(), default=0.0)
        if rest_s < _LONG_REST_S:
            return ""
        joins = "; options: {merge_pmt_versions: 1} reads on where other PIDs take over"
        return f"other streams of it go on for {rest_s:.0f} s" + joins * (self._container.format.name == "mpegts")

    def read(self, closed: Callable[[], bool]) -> Iterator[VideoPacket]:
        """The packets that hold data, until the container ends or `closed` says that nobody wants more.

        Raises:
            av.FFmpegError: FFmpeg lost the source; av.TimeoutError when for too long nothing came, or nothing but other
                streams.
        """
        packets: Iterator[av.Packet[Any]] = self._container.demux()
        index, several = self._video.index, len(self._container.streams) > 1
        asked_s = time.monotonic()
        with in_time(self._source):
            while not closed():
                try:
                    packet = next(packets)
                except (StopIteration, IndexError):  # IndexError: PyAV's, when a stream turned up on the way
                    return
                if packet.size and several:
                    self._follow(packet)
                if packet.stream_index == index and packet.size:
                    yield packet
                    asked_s = time.monotonic()
                elif self._timeout_s is not None and time.monotonic() - asked_s >= self._timeout_s:
                    missing = f"no video within {self._timeout_s:g} s (timeout_s), while other streams go on"
                    raise av.TimeoutError(errno.ETIMEDOUT, missing)

    def _follow(self, packet: av.Packet[Any]) -> None:
        """Keep account of how far each stream went, whatever its timestamps begin with and go back to."""
        if packet.dts is None:
            return
        index = packet.stream_index
        time_s = packet.dts * self._ticks_s.get(index, 0.0)
        last_s = self._times_s.get(index)
        self._times_s[index] = time_s
        step_s = 0.0 if last_s is None else max(0.0, time_s - last_s)
        if index != self._video.index:
            self._ahead_s[index] = self._ahead_s.get(index, 0.0) + step_s
        elif last_s is None:  # others may begin long before it
            self._ahead_s.clear()
        else:
            for other in self._ahead_s:
                self._ahead_s[other] -= step_s
