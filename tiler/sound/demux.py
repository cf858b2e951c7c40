"""The packets of a source's sound with their times beside its pictures.

Of the pictures nothing is decoded; their times are looked at, since those of the sound count from the first
picture that is shown, and a file that is looped is as long as its pictures.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import av
from av.container import InputContainer

from tiler.closing import Closing
from tiler.config.models import Source
from tiler.decode.container import in_time, open_container
from tiler.decode.demuxed import DEFAULT_FPS, said_by
from tiler.decode.picture import exact
from tiler.errors import InputError, mask_uri
from tiler.types import CLOCK_HZ

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.video.stream import VideoStream

_EARLIER_S = 1
"""A file is read from this much before `start_s`: sound lies up to that far behind the pictures of its time."""
_SLACK = CLOCK_HZ // 1000  # as the decoders have it: Matroska rounds to 1 ms
_REORDERED = 32
"""Pictures among which the first one shown is looked for: they come in decoding order."""
_HELD = 4096
"""Packets that may wait to be known to lie within the pictures' time, in a file that stores its sound first."""


class SoundInput(Closing):
    """One source, opened for its sound."""

    def __init__(self, source: Source, uri: str) -> None:
        """Open the source.

        Args:
            source: id, start_s, end_s, timeout_s and options are read from it.
            uri: as for `tiler.decode.source.open_decoder`.

        Raises:
            InputError: it cannot be opened, or has no sound that FFmpeg can decode.
        """
        self._source, self._uri = source, uri
        self._container: InputContainer | None = None
        self._zero: int | None = None
        self.length = 0
        self._open()

    @property
    def stream(self) -> AudioStream:
        """The one that is read; another one after each `lap`."""
        return self._audio

    def packets(self) -> Iterator[Any]:
        """Those of a live source, of its sound and of its pictures, until it ends or breaks.

        Raises:
            av.FFmpegError: it broke.
        """
        assert self._container is not None
        with in_time(self._source):
            for packet in self._container.demux(self._audio, *([self._video] if self._video is not None else [])):
                if packet.size:
                    yield packet

    def lap(self) -> Iterator[Any]:
        """Those of a file, from its start to its end; `length` is known then.

        It begins with packets from before the start, for decoders to settle: `time_of` is negative for them.

        Raises:
            InputError: the file cannot be opened again.
            av.FFmpegError: it broke.
        """
        if self._zero is None:
            self._zero = self._first_picture()
        self._begin()
        assert self._container is not None
        begin, end = self._limits()
        waiting: deque[Any] = deque()
        shown: list[int] = []  # the last two pictures
        for packet in self._container.demux(self._video, self._audio):
            if not packet.size or packet.is_discard:
                continue
            if packet.stream is self._audio:
                waiting.append(packet)
            else:
                at = self._of_picture(packet)
                if at is None or not begin <= at < end:
                    if at is not None and at >= end + _EARLIER_S * CLOCK_HZ:
                        break  # sound of the end would have come by now
                    continue
                shown = sorted([*shown, at - self._zero])[-2:]
            until = shown[-1] if shown else -1
            while waiting and (self.time_of(waiting[0]) <= until or len(waiting) > _HELD):
                yield waiting.popleft()
        self.length = self._length(shown, end)
        while waiting:
            packet = waiting.popleft()
            if self.time_of(packet) < self.length:
                yield packet

    def time_of(self, item: Any) -> int:
        """Time of a packet or a frame of a lap in 1/90000 s, 0 with the first picture."""
        pts = item.pts if item.pts is not None else item.dts or 0
        return in_ticks(pts, item) - self._origin - (self._zero or 0)

    def close(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None

    def _open(self) -> None:
        self.close()
        where = f"source {self._source.id}"
        try:
            self._container = open_container(self._source, self._uri)
        except (av.FFmpegError, OSError, ValueError) as error:
            raise InputError(f"{where}: cannot open {mask_uri(self._uri)}: {said_by(error)}") from error
        audio: Any = self._container.streams.best("audio")
        video: Any = self._container.streams.best("video")
        if audio is None or audio.codec_context is None:
            what = "no sound" if audio is None else "no sound that FFmpeg can decode"
            self.close()
            raise InputError(
                f"audio: {where} has {what} ({mask_uri(self._uri)}); another source is needed, or no `audio`"
            )
        self._audio: AudioStream = audio
        self._video: VideoStream = video
        start = None if video is None else video.start_time
        self._origin = in_ticks(start, video) if start else 0

    def _begin(self) -> None:
        """From the start of the file, or somewhat before `start_s`."""
        self._open()
        assert self._container is not None
        if self._source.start_s > _EARLIER_S:
            target_s = self._origin / CLOCK_HZ + self._source.start_s - _EARLIER_S
            try:
                self._container.seek(int(target_s * av.time_base))
            except av.FFmpegError:
                self._open()

    def _first_picture(self) -> int:
        """The time of the first picture shown, from the file's first one."""
        begin, end = self._limits()
        self._begin()
        assert self._container is not None
        first: int | None = None
        seen = 0
        for packet in self._container.demux(self._video):
            at = self._of_picture(packet) if packet.size and not packet.is_discard else None
            if at is not None and begin <= at < end:
                first = at if first is None else min(first, at)
            seen += first is not None
            if seen > _REORDERED:
                break
        return first or 0

    def _of_picture(self, packet: Any) -> int | None:
        pts = packet.pts if packet.pts is not None else packet.dts
        return None if pts is None else in_ticks(pts, packet) - self._origin

    def _limits(self) -> tuple[int, int]:
        """Times of the pictures that are shown, from the file's first one."""
        end_s = self._source.end_s
        begin = round(self._source.start_s * CLOCK_HZ) - _SLACK
        return begin, round(end_s * CLOCK_HZ) if end_s is not None else 1 << 62

    def _length(self, shown: list[int], end: int) -> int:
        """Of the lap, with the last picture's duration, as `tiler.decode.source` has it."""
        if not shown:
            return 0
        usual = round(CLOCK_HZ / (exact(self._video.average_rate) or DEFAULT_FPS))
        duration = shown[-1] - shown[0] if len(shown) == 2 else usual
        room = end - round(self._source.start_s * CLOCK_HZ) - shown[-1]
        return shown[-1] + max(1, min(duration, room))


def in_ticks(count: int, item: Any) -> int:
    """A time of a packet, frame or stream as 1/90000 s."""
    return round(count * (exact(item.time_base) or 0) * CLOCK_HZ)
