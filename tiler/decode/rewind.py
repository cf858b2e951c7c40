"""Back to where a container began, without opening it anew, where that is known to give the same pictures."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import av
from av.container import InputContainer
from av.video.stream import VideoStream


class _Mark(NamedTuple):
    """What tells a packet from others of its container.

    Attributes:
        dts, pts: in units of the stream's time base.
        size: in bytes.
        position: in bytes, from the container's beginning.
    """

    dts: int | None
    pts: int | None
    size: int
    position: int | None


class Beginning:
    """The packet that a container begins with, from when it is opened."""

    def __init__(self, uri: str) -> None:
        """
        Args:
            uri: what is opened: a path, or a URL.
        """
        self._uri, self._file = uri, _file_at(uri)
        self._mark: _Mark | None = None
        self._changes = False

    def note(self, packet: av.Packet[Any]) -> None:
        """This packet was read; every one of the video is told."""
        if self._mark is None:
            self._mark = _mark(packet)
        else:
            self._changes |= packet.has_sidedata("new_extradata")

    def rewind(self, container: InputContainer, video: VideoStream) -> bool:
        """Go back to it, which takes a hundredth of the time to open the container anew.

        False where that is not known to lead there; where the file is another one by now, or is no file, so that this
        cannot be told; and where the container has changed the parameters of the video on the way, as FFmpeg does not
        say the first ones again: it is to be opened anew.
        """
        mark = self._mark
        if mark is None or mark.position is None or self._changes:
            return False
        if self._file is None or _file_at(self._uri) != self._file:
            return False
        times = [time for time in (mark.dts, mark.pts) if time is not None]
        return any(_leads_to(container, video, time, mark) for time in times)  # they are sought by one or the other


def _leads_to(container: InputContainer, video: VideoStream, time: int, mark: _Mark) -> bool:
    """Whether what is read next is that packet, after going to this time."""
    try:
        container.seek(time, stream=video)
        if _mark(next(container.demux(video))) != mark:
            return False
        container.seek(time, stream=video)
    except (av.FFmpegError, StopIteration, IndexError):
        return False
    return True


def _mark(packet: av.Packet[Any]) -> _Mark:
    return _Mark(packet.dts, packet.pts, packet.size, packet.pos)


def _file_at(uri: str) -> tuple[int, ...] | None:
    """What tells a file from one that has taken its place; None when there is none there, as of a URL."""
    try:
        found = os.stat(uri)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
