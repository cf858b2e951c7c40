"""Anything FFmpeg opens -> Frame on the device, decoded by FFmpeg's CUDA decoders through PyAV.

Each picture lies in device memory of its own, which FFmpeg takes back when the picture is
dropped; nothing is copied here. FFmpeg fills it on the NULL stream, with which the
non-blocking streams of the other stages do not synchronise: an event recorded there is
`Frame.ready`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import av
import cupy
import numpy as np
from av.codec.hwaccel import HWAccel
from av.video.codeccontext import VideoCodecContext

from tiler.config.models import Source, is_remote
from tiler.decode.demuxed import DemuxedDecoder, VideoPacket, said_by
from tiler.decode.keyframe import (
    MAX_DAMAGED_KEYFRAMES,
    MAX_WITHOUT_KEYFRAME,
    DamagedError,
    Look,
    RefusedError,
    decoded_alone,
    look_of,
)
from tiler.decode.picture import colour_of, sample_aspect_of
from tiler.errors import StageError
from tiler.types import Frame

SAMPLES = {"nv12": np.uint8, "p010le": np.uint16, "p016le": np.uint16}


class PyavCudaDecoder(DemuxedDecoder[av.VideoFrame]):
    """A DemuxedDecoder on FFmpeg's CUDA decoders: progressive 4:2:0.

    `errors` counts packets that FFmpeg refused and pictures that it marks as damaged.
    """

    def __init__(self, source: Source, uri: str, stream: int, device: int) -> None:
        """Open the source and decode its first picture.

        Args:
            source, uri, stream: as for DemuxedDecoder.
            device: index of the CUDA device.

        Raises:
            InputError: it cannot be opened, or has no video.
            RefusedError: FFmpeg's CUDA decoders cannot decode it.
        """
        self._device = device
        self._context: VideoCodecContext | None = None
        with cupy.cuda.Device(device):
            super().__init__(source, uri, stream, 1)

    def read(self) -> Frame | None:
        with cupy.cuda.Device(self._device):
            return super().read()

    @property
    def proven(self) -> bool:
        """A keyframe came, and FFmpeg's CUDA decoder takes it."""
        return self._context is not None

    def _name(self) -> str:
        return f"pyav-cuda {self._video.codec.canonical_name}"

    def _release(self) -> None:
        self._context = None

    def _pictures(self) -> Iterator[av.VideoFrame]:
        self._context = None
        self._skipped = self._damaged = 0
        for picture in self._decoded(self._decode, (av.FFmpegError, DamagedError)):
            self.errors += picture.is_corrupt
            yield picture

    def _decode(self, packet: VideoPacket | None) -> list[av.VideoFrame]:
        if self._context is not None:
            try:
                return self._context.decode(packet)
            except av.EOFError:
                return []
        if packet is None or not packet.is_keyframe:
            self._skipped += packet is not None
            if self._skipped >= MAX_WITHOUT_KEYFRAME or (packet is None and self._skipped):
                raise self._without_keyframe(ended=packet is None)
            return []
        return self._begun(packet)

    def _begun(self, packet: VideoPacket) -> list[av.VideoFrame]:
        """The first keyframe, decoded on the CPU as well: whatever CUDA objects to then is not the data."""
        try:
            alone = decoded_alone(self._video.codec_context, packet)
        except DamagedError as error:
            self._damaged += 1
            if self._damaged < MAX_DAMAGED_KEYFRAMES:
                raise
            raise self._refusal(str(error)) from error
        try:
            aspect = sample_aspect_of(self._video.sample_aspect_ratio)
            self._look: Look = look_of(alone, self._video.metadata, aspect)
            self._context = self._cuda_context()
            return self._context.decode(packet)
        except (av.FFmpegError, RefusedError) as error:
            raise self._refusal(said_by(error)) from error

    def _cuda_context(self) -> VideoCodecContext:
        """A decoder in CuPy's context, which is this thread's current one.

        FFmpeg's own decoder for the codec, not the one that the container chose: that is
        a library without CUDA where there are both (AV1).

        Raises:
            RefusedError: FFmpeg has none with CUDA, or does not get on with the device.
        """
        name = self._video.codec.canonical_name
        accelerator = HWAccel(
            "cuda",
            device=str(self._device),
            allow_software_fallback=False,
            options={"current_ctx": "1", "primary_ctx": "0"},
            is_hw_owned=True,
        )
        try:
            context = av.CodecContext.create(name, "r", hwaccel=accelerator)
        except av.FFmpegError as error:
            raise RefusedError(f"FFmpeg cannot use the CUDA device: {said_by(error)}") from error
        if not isinstance(context, VideoCodecContext) or not context.is_hwaccel:
            raise RefusedError(f"FFmpeg has no CUDA decoder for {name}")
        context.extradata = self._video.codec_context.extradata
        context.thread_count = 1
        return context

    def _without_keyframe(self, *, ended: bool) -> RefusedError | StageError:
        """None came yet; but a live source that ended may begin with one when it is opened again."""
        why = f"no keyframe in {self._skipped} packets"
        return self._failure(f"{why}, then it ended") if ended and is_remote(self._source) else self._refusal(why)

    def _refusal(self, why: str) -> RefusedError | StageError:
        """Once a picture has been given out, no other backend can take over."""
        return RefusedError(why) if self._opening else self._failure(f"FFmpeg's CUDA decoder cannot go on: {why}")

    def _frame(self, picture: av.VideoFrame, pts: int) -> Frame | None:
        assert self._context is not None
        form = self._context.sw_format
        sample = None if form is None else SAMPLES.get(form.name)
        if sample is None or picture.format.name != "cuda":
            raise self._refusal(f"it gave out {picture.format.name if form is None else form.name}")
        height, width = picture.height, picture.width
        half = ((height + 1) // 2, (width + 1) // 2)
        y = self._plane(picture, 0, sample, (height, width))
        chroma = self._plane(picture, 1, sample, (half[0], 2 * half[1]))
        ready = cupy.cuda.Event(disable_timing=True)
        ready.record(cupy.cuda.Stream.null)
        colour = colour_of(picture)
        return Frame(
            stream=self._stream,
            pts=pts,
            y=y,
            u=chroma[:, 0::2],
            v=chroma[:, 1::2],
            matrix=colour.matrix,
            full_range=colour.full_range,
            rotation=self._look.rotation,
            sample_aspect=self._look.sample_aspect,
            arrival_s=time.monotonic(),
            owner=picture,
            ready=ready,
        )

    def _plane(self, picture: av.VideoFrame, index: int, sample: Any, shape: tuple[int, int]) -> Any:
        """A plane as a CuPy array on FFmpeg's memory. PyAV's own DLPack export cuts odd sizes short."""
        plane = picture.planes[index]
        memory = cupy.cuda.UnownedMemory(plane.buffer_ptr, plane.line_size * shape[0], picture, self._device)
        size = np.dtype(sample).itemsize
        return cupy.ndarray(shape, sample, cupy.cuda.MemoryPointer(memory, 0), (plane.line_size, size))
