"""Anything FFmpeg opens -> Frame on the device, decoded by NVDEC through PyNvVideoCodec.

Packets come from FFmpeg, so that options, timeouts, reconnection and seeking are the CPU
decoder's. What PyNvVideoCodec decodes lies in memory that its next `Decode` overwrites,
even while the picture is held: each picture is copied into a surface of the stream's ring
before that. Decoder, copies and the event `Frame.ready` share the ring's CUDA stream, so
nothing here waits for the device.

PyNvVideoCodec scales to the first size, silently, when a stream changes its size. So the
parameter sets of every keyframe are compared with the last ones; new ones are read by
decoding that keyframe on the CPU (`keyframe.py`), and when they change the picture, the
old decoder is flushed and the keyframe goes into a new one. A VP9 stream that changes its
size between keyframes keeps the first size, scaled by NVDEC.

Where the run needs fewer samples than the source has, NVDEC's output stage can scale them down
before they reach memory: `Frame.source_size` then says what they were.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import av
import cupy

from tiler.config.models import Source, is_live, is_remote
from tiler.decode.annexb import has_room, put_start_codes
from tiler.decode.base import Needed
from tiler.decode.clock import TickClock
from tiler.decode.demuxed import DEFAULT_FPS, DemuxedDecoder, VideoPacket, said_by
from tiler.decode.keyframe import (
    CODECS,
    MAX_DAMAGED_KEYFRAMES,
    MAX_WITHOUT_KEYFRAME,
    DamagedError,
    Look,
    RefusedError,
    decoded_alone,
    headers_of,
    is_length_prefixed,
    look_of,
    parameters_of,
)
from tiler.decode.nvdec_session_cuda import NvdecSession, NvPicture, library
from tiler.decode.surfaces_cuda import SurfaceRing
from tiler.errors import StageError
from tiler.kernels import enqueue_cuda
from tiler.types import Frame

FILTERS = {"h264": "h264_mp4toannexb", "hevc": "hevc_mp4toannexb"}


class NvdecDecoder(DemuxedDecoder[NvPicture]):
    """A DemuxedDecoder on NVDEC: H.264, HEVC, VP9 and AV1 where the GPU knows them, progressive 4:2:0.

    NVDEC conceals damage without saying so: `errors` counts packets that it, FFmpeg's
    bitstream filter or the network refused, no pictures.
    """

    def __init__(
        self, source: Source, uri: str, stream: int, ring: SurfaceRing, device: int, needed: Needed | None = None
    ) -> None:
        """Open the source and decode its first picture.

        Args:
            source, uri, stream: as for DemuxedDecoder.
            ring: surfaces for the pictures; sized here.
            device: index of the CUDA device.
            needed: says how small the pictures may be; without it they are as large as the source's.

        Raises:
            InputError: it cannot be opened, or has no video.
            RefusedError: PyNvVideoCodec or NVDEC cannot decode it.
        """
        self._device = device
        self._ring = ring
        self._needed = needed
        self._library = library()
        self._nvdec: NvdecSession | None = None
        self._retired: NvdecSession | None = None
        self._refusals = (
            av.FFmpegError,
            DamagedError,
            self._library.PyNvVCException,
            self._library.PyNvVCExceptionUnsupported,
            RuntimeError,
        )
        self._thread = 0
        with cupy.cuda.Device(device):
            super().__init__(source, uri, stream, 1)

    def read(self) -> Frame | None:
        if self._thread != threading.get_ident():  # the constructor's at first, the reader's from then on
            self._thread = threading.get_ident()
            cupy.cuda.Device(self._device).use()
        return super().read()

    @property
    def proven(self) -> bool:
        """A keyframe came, and NVDEC takes it."""
        return self._nvdec is not None

    def _name(self) -> str:
        nvdec = self._nvdec
        scaled = nvdec is not None and nvdec.size != (nvdec.look.width, nvdec.look.height)
        return f"nvdec {self._codec}" + (f" at {nvdec.size[0]}x{nvdec.size[1]}" if nvdec and scaled else "")

    def _release(self) -> None:
        self._ring.stream.synchronize()  # its copies read from the decoder's memory
        self._nvdec = self._retired = None

    def _open(self) -> None:
        super()._open()
        # Of the last keyframe, and whether one could not be decoded. If none, they are known when the container begins
        # again.
        self._parameters, self._refused = b"", False

    # Packets -> pictures

    def _pictures(self) -> Iterator[NvPicture]:
        self._codec = self._video.codec.canonical_name
        if self._codec not in CODECS:
            raise RefusedError(f"it is {self._codec}; NVDEC is used for {', '.join(CODECS)}")
        extradata = self._video.codec_context.extradata
        name = FILTERS.get(self._codec) if is_length_prefixed(extradata) else None
        self._filter = av.BitStreamFilterContext(name, self._video) if name else None
        self._in_place = name is not None and has_room(self._codec, extradata)
        self._headers = headers_of(self._codec, extradata)
        self._waiting = True
        self._skipped = self._damaged = 0
        if self._refused:
            self._parameters = b""
        if self._nvdec is not None:  # begun again: the hardware's session stays, as to open one takes long
            self._nvdec.flush()
        yield from self._decoded(self._decode, self._refusals)

    def _decode(self, packet: VideoPacket | None) -> list[NvPicture]:
        """What NVDEC gives out for a packet; for None, all that it still holds."""
        if self._retired is not None:
            self._ring.stream.synchronize()
            self._retired = None
        if packet is None:
            if self._nvdec is None and self._skipped:
                raise self._without_keyframe(ended=True)
            return [] if self._nvdec is None else self._nvdec.flush()
        self.errors += packet.is_corrupt
        keyframe = packet.is_keyframe
        if self._waiting and not keyframe:
            return self._skip()
        stored = packet
        if self._in_place and not keyframe:
            put_start_codes(_bytes_of(packet))
        elif self._filter is not None:
            stored = _copy_of(packet) if keyframe else packet
            filtered = self._filter.filter(packet)  # takes the data out of the packet
            if not filtered:
                return []
            packet = cast(VideoPacket, filtered[0])
        before = self._look_at(stored, packet) if keyframe else []
        assert self._nvdec is not None
        if not self._nvdec.began:
            return before + self._begun(self._nvdec, packet)
        return self._nvdec.decode(packet, packet)

    def _look_at(self, stored: VideoPacket, packet: VideoPacket) -> list[NvPicture]:
        """Prepare for a keyframe; returns what is left of the pictures before it, if its decoder is a new one.

        Args:
            stored: as it lay in the container, for FFmpeg's decoder.
            packet: as Annex B, for NVDEC.
        """
        found = parameters_of(self._codec, _bytes_of(packet))
        known = found == self._parameters if found else not self._waiting
        if self._nvdec is not None and known and not self._damaged:  # not: after one that could not be decoded
            self._waiting, self._skipped = False, 0
            return []
        context = self._video.codec_context
        try:
            picture = decoded_alone(context, stored)
        except DamagedError as error:
            self._waiting = self._refused = True
            self._damaged += 1
            if self._damaged < MAX_DAMAGED_KEYFRAMES or not self._opening:
                raise
            raise self._refusal(str(error)) from error
        try:
            look = look_of(picture, self._video.metadata, self._sample_aspect())
        except RefusedError as error:
            raise self._refusal(str(error)) from error
        self._waiting = False
        self._skipped = self._damaged = 0
        self._parameters = found
        if self._nvdec is not None and look == self._nvdec.look:
            return []
        before = [] if self._nvdec is None else self._nvdec.flush()
        self._retired, self._nvdec = self._nvdec, None  # keeps the memory of what was flushed
        low_latency = is_live(self._source) and not context.has_b_frames and self._codec in FILTERS
        stream = int(self._ring.stream.ptr)
        try:
            self._nvdec = NvdecSession(
                self._library, self._device, stream, self._codec, look, self._size_of(look), context, low_latency
            )
        except (*self._refusals, RefusedError) as error:
            raise self._refusal(said_by(error)) from error
        return before

    def _size_of(self, look: Look) -> tuple[int, int]:
        """Width and height, before rotation, in which NVDEC shall give out pictures of a look."""
        if self._needed is None:
            return look.width, look.height
        if look.rotation in (90, 270):
            height, width = self._needed(self._source.id, (look.height, look.width), 1 / look.sample_aspect)
            return width, height
        return self._needed(self._source.id, (look.width, look.height), look.sample_aspect)

    def _begun(self, nvdec: NvdecSession, packet: VideoPacket) -> list[NvPicture]:
        """The first packet of a decoder: the CPU has decoded it, so whatever NVDEC objects to is not the data."""
        data: av.Packet[Any] = packet
        if self._headers and not parameters_of(self._codec, _bytes_of(packet)):
            data = av.Packet(self._headers + bytes(_bytes_of(packet)))
        try:
            return nvdec.decode(packet, data)
        except self._refusals as error:
            raise self._refusal(said_by(error)) from error

    def _skip(self) -> list[NvPicture]:
        self._skipped += 1
        if self._skipped >= MAX_WITHOUT_KEYFRAME:
            raise self._without_keyframe(ended=False)
        return []

    def _without_keyframe(self, *, ended: bool) -> RefusedError | StageError:
        """None came yet; but a live source that ended may begin with one when it is opened again."""
        why = f"no keyframe in {self._skipped} packets"
        return self._failure(f"{why}, then it ended") if ended and is_remote(self._source) else self._refusal(why)

    def _refusal(self, why: str) -> RefusedError | StageError:
        """Once a picture has been given out, no other backend can take over."""
        return RefusedError(why) if self._opening else self._failure(f"NVDEC cannot go on: {why}")

    # Pictures -> frames

    def _stamper(self) -> Callable[[NvPicture], int | None]:
        start = None if self._untimed else self._video.start_time
        clock = TickClock(self._tick, 1 / (self._fps() or DEFAULT_FPS), start, joined=self._joined)
        if self._untimed:
            return lambda picture: clock.stamp(None, 0)
        return lambda picture: clock.stamp(picture.pts, picture.duration)

    def _frame(self, picture: NvPicture, pts: int) -> Frame | None:
        decoded, _, _, look, (width, height) = picture
        ring = self._ring
        try:
            ring.fit(width, height, look.bits > 8)
        except MemoryError as error:
            size = f"{ring.slots} surfaces of {width}x{height}"
            raise self._failure(f"no room on the GPU for {size}: {said_by(error)}") from error
        lease = ring.acquire(lambda: self._closed)
        if lease is None:
            return None
        surface = lease.surface
        luma = decoded.GetPtrToPlane(0)
        if decoded.GetPtrToPlane(1) - luma != surface.luma_bytes:
            raise self._refusal(f"its pictures are not {width}x{height} with {look.bits} bits, as they should be")
        enqueue_cuda.copy(surface.ptr, luma, surface.size_bytes, ring.stream)
        enqueue_cuda.record(surface.ready, ring.stream)
        if surface.look is not look:
            surface.take_on(
                look,
                self._stream,
                matrix=look.matrix,
                full_range=look.full_range,
                rotation=look.rotation,
                sample_aspect=look.sample_aspect,
                source_size=None if (width, height) == (look.width, look.height) else (look.width, look.height),
            )
        return surface.template.at(pts, time.monotonic(), lease)


def _bytes_of(packet: av.Packet[Any]) -> memoryview:
    data: Any = packet  # has the buffer protocol, which its type cannot say before Python 3.12
    return memoryview(data)


def _copy_of(packet: VideoPacket) -> VideoPacket:
    """The data of a packet, and what tells a decoder of new parameter sets."""
    copy = av.Packet(bytes(_bytes_of(packet)))
    if packet.has_sidedata("new_extradata"):
        copy.set_sidedata(packet.get_sidedata("new_extradata"))
    return cast(VideoPacket, copy)
