"""Anything FFmpeg opens -> Frame: all but the decoding, which each backend does in its own way.

`DemuxedDecoder` opens the source, reads its packets, trims the pictures and stamps them.

`read` runs on one thread at a time. FFmpeg cannot be stopped from outside while it waits
for a network, except by its timeouts: `close` from another thread then returns at once,
and the thread that reads frees everything as soon as FFmpeg comes back.
"""

from __future__ import annotations

import logging
import threading
from abc import abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator
from fractions import Fraction
from typing import Generic, Protocol, TypeVar

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from tiler.closing import Closing
from tiler.config.models import Source
from tiler.decode.base import StreamInfo
from tiler.decode.clock import FileClock
from tiler.decode.container import VideoPacket as VideoPacket
from tiler.decode.container import VideoPackets, open_container
from tiler.decode.picture import exact, sample_aspect_of
from tiler.decode.rewind import Beginning
from tiler.errors import InputError, StageError, mask_uri
from tiler.types import CLOCK_HZ, Frame

logger = logging.getLogger(__name__)

MAX_ERRORS_IN_A_ROW = 250
"""Packets in a row that FFmpeg may refuse before the stream counts as broken (10 s at 25 fps)."""
DEFAULT_FPS = Fraction(25)
"""The rate of a stream that says nothing about it: FFmpeg's own default for raw streams."""
_START_SLACK_S = Fraction(1, 1000)
"""Matroska rounds timestamps to 1 ms: a picture this much before `start_s` still belongs to it."""
_HIGHEST_FPS = 1000
_NO_TIMESTAMPS = 0x80  # AVFMT_NOTIMESTAMPS
_DISCONTINUOUS = 0x200  # AVFMT_TS_DISCONT: MPEG-TS, MPEG-PS, HLS, Ogg


class Picture(Protocol):
    """What the passage of time needs of a decoded picture; both in units of its time base."""

    @property
    def pts(self) -> int | None: ...

    @property
    def duration(self) -> int | None: ...


PictureT = TypeVar("PictureT", bound=Picture)


class DemuxedDecoder(Closing, Generic[PictureT]):
    """A Decoder for files, raw streams, devices and URLs, but for the decoding itself.

    Pictures begin at the first one at or after `source.start_s` (pts 0) and end before
    `source.end_s`. Data that is refused is skipped and counted in `errors`; the stream
    fails when nothing but errors comes.

    A picture is made into a Frame before the next packet is decoded, so it may lie in
    memory that the next packet overwrites.
    """

    def __init__(self, source: Source, uri: str, stream: int, threads: int) -> None:
        """Open the source and decode its first picture.

        Args:
            source: id, start_s, end_s, timeout_s and options are read from it.
            uri: what FFmpeg opens: an absolute path, or a URL.
            stream: index of the source in the config.
            threads: for FFmpeg's frame and slice threads; 0 leaves it to FFmpeg.

        Raises:
            InputError: it cannot be opened, has no video, or has a codec unknown to FFmpeg.
        """
        self.errors = 0
        self._opening = True
        self._source = source
        self._stream = stream
        self._uri = uri
        self._threads = threads
        self._lock = threading.Lock()
        self._closed = False
        self._container: InputContainer | None = None
        self._newest: int | None = None
        self._told = False
        self._shown: tuple[int | None, int | None, Fraction] = None, None, Fraction(0)
        self._open()
        self._frames = self._trimmed()
        self._first: Frame | StageError | None
        try:
            self._first = next(self._frames, None)
        except StageError as error:
            self._first = error
        except BaseException:
            self.close()
            raise
        self.info = self._describe()
        self._opening = False

    @abstractmethod
    def _pictures(self) -> Iterator[PictureT]:
        """Progressive pictures in display order, from where the container stands to its end."""

    @abstractmethod
    def _frame(self, picture: PictureT, pts: int) -> Frame | None:
        """The picture as a Frame; None when `close` was called meanwhile."""

    @abstractmethod
    def _name(self) -> str:
        """What decodes, for StreamInfo.decoder."""

    def _release(self) -> None:
        """Free what `_pictures` and `_frame` hold; nobody reads any more."""

    def read(self) -> Frame | None:
        """The next picture, or None at the end (and after `close`).

        Raises:
            StageError: nothing can be decoded, or FFmpeg lost the source.
        """
        try:
            with self._lock:
                if self._closed:
                    return None
                first, self._first = self._first, None
                if isinstance(first, StageError):
                    raise first
                return first if first is not None else next(self._frames, None)
        finally:
            if self._closed:
                self._free()

    def restart(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._frames.close()
            if self._container is None or not self._beginning.rewind(self._container, self._video):
                self._reopen()
            self._frames, self._first = self._trimmed(), None
            self.errors = 0

    def close(self) -> None:
        self._closed = True
        self._free()

    def _free(self) -> None:
        if not self._lock.acquire(blocking=False):
            return  # a thread is reading: it comes by here when FFmpeg lets it go
        try:
            if self._container is not None:
                self._frames.close()
                self._release()
                self._container.close()
                self._container = None
        finally:
            self._lock.release()

    # Opening

    def _open(self) -> None:
        source = self._source
        self._beginning = Beginning(self._uri)
        try:
            self._container = open_container(source, self._uri)
            self._video = self._select(self._container)
        except (av.FFmpegError, OSError, ValueError) as error:
            self._discard()
            where = f"source {source.id}: cannot open {mask_uri(self._uri)}"
            raise InputError(f"{where}: {said_by(error)}") from error
        except InputError:
            self._discard()
            raise
        context = self._video.codec_context
        context.thread_type = "AUTO"
        context.thread_count = self._threads
        stored, coded = exact(self._video.sample_aspect_ratio), exact(context.sample_aspect_ratio)
        self._stored_aspect = None if stored == coded else stored
        self._tick = exact(self._video.time_base) or Fraction(1, CLOCK_HZ)
        # A raw stream: what FFmpeg says of its timestamps and durations is made up, and partly wrong.
        self._untimed = bool(self._container.format.flags & _NO_TIMESTAMPS)
        self._joined = bool(self._container.format.flags & _DISCONTINUOUS)

    def _select(self, container: InputContainer) -> VideoStream:
        video = container.streams.best("video")
        if not isinstance(video, VideoStream):
            raise InputError(f"source {self._source.id}: no video in {mask_uri(self._uri)}")
        if video.codec_context is None:
            raise InputError(
                f"source {self._source.id}: FFmpeg has no decoder for the video in {mask_uri(self._uri)}"
            )
        return video

    def _discard(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None

    def _describe(self) -> StreamInfo:
        video = self._video
        first = self._first
        size = first.picture_size if isinstance(first, Frame) else (video.width, video.height)
        return StreamInfo(
            size=size,
            fps=self._fps() or Fraction(0),
            duration_s=self._duration_s(),
            codec=video.codec.canonical_name,
            decoder=self._name(),
            sixteen_bit=isinstance(first, Frame) and first.y.dtype.itemsize == 2,
            plane_size=_plane_size(first),
        )

    def _fps(self) -> Fraction | None:
        """The average rate; a raw stream's is in its own header, if anywhere."""
        coded = exact(self._video.codec_context.framerate)
        container = exact(self._video.average_rate) or exact(self._video.guessed_rate)
        fps = coded or container if self._untimed else container or coded
        return fps if fps is not None and fps < _HIGHEST_FPS else None

    def _duration_s(self) -> float | None:
        length: Fraction | None = None
        if self._video.duration:
            length = self._video.duration * self._tick
        elif self._container is not None and self._container.duration:
            length = Fraction(self._container.duration, av.time_base)
        end_s = self._source.end_s
        if length is not None and end_s is not None:
            length = min(length, Fraction(end_s))
        elif end_s is not None and not self._untimed:
            length = Fraction(end_s)
        return None if length is None else max(0.0, float(length - Fraction(self._source.start_s)))

    # Decoding: packets -> pictures -> progressive pictures -> frames

    def _trimmed(self) -> Generator[Frame, None, None]:
        """The frames from start_s to end_s, stamped from 0."""
        begin = round((Fraction(self._source.start_s) - _START_SLACK_S) * CLOCK_HZ)
        end_s = self._source.end_s
        end = None if end_s is None else round(end_s * CLOCK_HZ)
        stamp = self._stamper()
        first: int | None = None
        for picture in self._from_start():
            pts = stamp(picture)
            self._shown = self._newest, picture.pts, self._tick_of(picture)
            if pts is None or pts < begin:
                continue
            if end is not None and pts >= end:
                break
            first = pts if first is None else first
            frame = self._frame(picture, pts - first)
            if frame is None:
                return
            yield frame
        if first is None and not self._closed:
            raise self._failure(f"no picture from {self._source.start_s:g} s on")

    def _stamper(self) -> Callable[[PictureT], int | None]:
        """Gives each picture its pts, or None to a duplicate; see FileClock."""
        clock = FileClock(self._origin_s(), joined=self._joined)
        usual_s = 1 / (self._fps() or DEFAULT_FPS)

        def stamp(picture: PictureT) -> int | None:
            stated_s = Fraction(0) if self._untimed else (picture.duration or 0) * self._tick_of(picture)
            return clock.stamp(self._time_s(picture), stated_s or usual_s)

        return stamp

    def _from_start(self) -> Iterator[PictureT]:
        """Pictures in display order from start_s, or somewhat before it."""
        pictures = self._pictures()
        if self._seek():
            target_s = (self._origin_s() or 0) + Fraction(self._source.start_s)
            try:
                first = next(pictures, None)
            except StageError:  # nothing from there on can be decoded on its own
                first = None
            time_s = None if first is None else self._time_s(first)
            if first is not None and time_s is not None and time_s <= target_s:
                yield first
            else:  # no usable index: read the file up to there
                self._reopen()
                pictures = self._pictures()
        yield from pictures

    def _seek(self) -> bool:
        origin_s, start_s = self._origin_s(), self._source.start_s
        if not start_s or origin_s is None or self._container is None:
            return False
        try:
            self._container.seek(int((origin_s + Fraction(start_s)) / self._tick), stream=self._video)
        except av.FFmpegError:
            self._reopen()
            return False
        return True

    def _reopen(self) -> None:
        self._discard()
        try:
            self._open()
        except InputError as error:
            raise self._failure(str(error)) from error

    def _decoded(
        self, decode: Callable[[VideoPacket | None], Iterable[PictureT]], refusals: tuple[type[Exception], ...]
    ) -> Iterator[PictureT]:
        """The pictures of every packet; packets that `decode` refuses are skipped, within bounds."""
        count = refused = 0
        said = "it holds no video data"
        for packet in self._packets():
            pictures: Iterable[PictureT] = ()
            try:
                pictures = decode(packet)
            except refusals as error:
                said = said_by(error)
                refused += 1
                self.errors += 1
            for picture in pictures:
                refused = 0
                count += 1
                yield picture
            if refused >= MAX_ERRORS_IN_A_ROW:
                raise self._failure(f"{refused} packets in a row could not be decoded: {said}")
        if count == 0 and not self._closed:
            raise self._failure(f"no picture could be decoded: {said}")

    def _packets(self) -> Iterator[VideoPacket | None]:
        """The packets, then None, for which the decoder gives out what it still holds."""
        assert self._container is not None
        packets = VideoPackets(self._source, self._container, self._video)
        try:
            for packet in packets.read(lambda: self._closed):
                self._beginning.note(packet)
                self._newest = packet.pts if packet.dts is None else packet.dts
                yield packet
        except av.FFmpegError as error:
            yield None
            raise self._failure(f"cannot read on: {said_by(error)}") from error
        if packets.rest and not self._told and not self._closed:
            self._told = True
            logger.warning(
                "stream %s: the video of %s ends, and %s", self._source.id, mask_uri(self._uri), packets.rest
            )
        yield None

    @property
    def lag_s(self) -> float:
        """How far the last picture's time lay behind what had been taken from the stream (its decoding time), in s."""
        newest, pts, tick = self._shown
        return 0.0 if pts is None or newest is None else float(newest * self._tick - pts * tick)

    def _tick_of(self, picture: PictureT) -> Fraction:
        """The picture's time base."""
        return self._tick

    def _sample_aspect(self) -> Fraction:
        """The container's, where it overrules what is coded; else what is coded, which may change with any keyframe."""
        return sample_aspect_of(self._stored_aspect or self._video.codec_context.sample_aspect_ratio)

    def _time_s(self, picture: PictureT) -> Fraction | None:
        return None if self._untimed or picture.pts is None else picture.pts * self._tick_of(picture)

    def _origin_s(self) -> Fraction | None:
        start = self._video.start_time
        return None if self._untimed or start is None else start * self._tick

    def _failure(self, message: str) -> StageError:
        return StageError("decode", message, stream=self._source.id)


def _plane_size(first: Frame | StageError | None) -> tuple[int, int] | None:
    if not isinstance(first, Frame) or first.source_size is None:
        return None
    height, width = first.y.shape
    return width, height


def said_by(error: Exception) -> str:
    """What FFmpeg said, in one line and without secrets."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return mask_uri(" ".join(str(text).split()))
