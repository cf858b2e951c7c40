"""Anything FFmpeg opens -> Frame, decoded on the CPU through PyAV."""

from __future__ import annotations

import time
from collections.abc import Iterator
from fractions import Fraction

import av

from tiler.config.models import Source
from tiler.decode.deinterlace import Deinterlacer
from tiler.decode.demuxed import DEFAULT_FPS as DEFAULT_FPS
from tiler.decode.demuxed import DemuxedDecoder, VideoPacket, said_by
from tiler.decode.picture import PlaneMaker, colour_of, exact, rotation_of
from tiler.types import Frame


class PyavDecoder(DemuxedDecoder[av.VideoFrame]):
    """A DemuxedDecoder that decodes on the CPU.

    Pictures that FFmpeg marks as damaged count in `errors`, too. Interlaced pictures are
    deinterlaced at their own rate.
    """

    def __init__(self, source: Source, uri: str, stream: int, threads: int) -> None:
        self._planes = PlaneMaker()
        super().__init__(source, uri, stream, threads)

    def _name(self) -> str:
        return f"pyav {self._video.codec_context.name}"

    def _pictures(self) -> Iterator[av.VideoFrame]:
        deinterlacer = Deinterlacer()
        guessed = self._guessed()
        late: int | None = None
        try:
            for picture in self._decoded(self._decode, (av.FFmpegError,)):
                self.errors += picture.is_corrupt
                if guessed:
                    if late is None and picture.dts is not None and picture.pts is not None:
                        late = picture.dts - picture.pts
                    picture.pts = None if late is None or picture.dts is None else picture.dts - late
                yield from deinterlacer.push(picture, self._tick_of(picture))
            yield from deinterlacer.flush()
        except av.FFmpegError as error:
            raise self._failure(f"cannot deinterlace: {said_by(error)}") from error

    def _guessed(self) -> bool:
        """Whether timestamps go in decoding order: FFmpeg's guess for B-frames of H.264 in AVI, which has none.

        Pictures are then as far apart as the packets upon which they came out.
        """
        assert self._container is not None
        context = self._video.codec_context
        return self._container.format.name == "avi" and context.name == "h264" and context.has_b_frames

    def _decode(self, packet: VideoPacket | None) -> list[av.VideoFrame]:
        try:
            return self._video.codec_context.decode(packet)
        except av.EOFError:
            return []

    def _tick_of(self, picture: av.VideoFrame) -> Fraction:
        return exact(picture.time_base) or self._tick

    def _frame(self, picture: av.VideoFrame, pts: int) -> Frame | None:
        colour = colour_of(picture)
        try:
            y, u, v, owner = self._planes.planes(picture)
        except av.FFmpegError as error:
            raise self._failure(f"cannot convert {picture.format.name} pictures: {said_by(error)}") from error
        return Frame(
            stream=self._stream,
            pts=pts,
            y=y,
            u=u,
            v=v,
            matrix=colour.matrix,
            full_range=colour.full_range,
            rotation=rotation_of(picture, self._video.metadata),
            sample_aspect=self._sample_aspect(),
            arrival_s=time.monotonic(),
            owner=owner,
        )
