"""NVENC through PyAV: FFmpeg's h264_nvenc, hevc_nvenc and av1_nvenc, straight from the mosaic's device memory.

FFmpeg registers our pointers with NVENC and copies nothing: a picture must stay as it is until its own
packet is out. At low latency that is when `encode` returns, so the mosaic itself is encoded. With B-frames
pictures wait inside; each is then copied, device to device, to a buffer of a ring, which is free again when
the packet with its time stamp comes out.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import av.error
import av.logging
import cupy
from av.codec import CodecContext
from av.video.codeccontext import VideoCodecContext
from av.video.frame import CudaContext, PictureType, VideoFrame

from tiler.closing import Closing
from tiler.config.models import EncoderConfig, MosaicConfig
from tiler.encode.ffmpeg import check_consumed, packet_of, signal_bt709, take
from tiler.encode.nvenc import DELAY, NvencMissingError, device_buffers, failure
from tiler.encode.parameters import Settings, resolve
from tiler.errors import StageError
from tiler.types import Mosaic, Packet

_OPENING = -1
"""Time stamp of the picture that opens the session; its packet goes nowhere."""
_GREY = 128


class PyavNvencEncoder(Closing):
    """One NVENC session (see `tiler.encode.base.Encoder`).

    The stream has parameter sets in front of every IDR, says that it is BT.709 limited, and its times are ticks.
    """

    def __init__(self, mosaic: MosaicConfig, config: EncoderConfig, device: int) -> None:
        """Open the session, with a grey picture that is encoded and thrown away: FFmpeg opens with the first one.

        Args:
            mosaic: size and rate of the pictures.
            config: every key of it is honoured or refused.
            device: index of the CUDA device.

        Raises:
            NvencMissingError: no NVENC, or none that this library can use.
            InputError: parameters refused, or no session left.
        """
        if device != 0:
            raise NvencMissingError(
                f"PyAV shares a stream with cuda:0 alone, not with cuda:{device}; "
                f"CUDA_VISIBLE_DEVICES={device} makes this GPU cuda:0",
                final=False,
            )
        self._settings = resolve(mosaic, config, "pyav")
        self.name = f"{self._settings.codec}_nvenc (PyAV)"
        self.sessions = 0
        self._size = (mosaic.width, mosaic.height)
        self._keyframe = threading.Event()
        self._device = cupy.cuda.Device(device)
        with self._device:
            self._stream = cupy.cuda.Stream(non_blocking=True)
            self._copied = cupy.cuda.Event(block=True, disable_timing=True)
        self._free: list[Any] = []
        self._held: dict[int, Any] = {}
        self._registered: dict[int, Any] = {}
        self._cuda = CudaContext(
            device_id=device, primary_ctx=False, current_ctx=True, cuda_stream=int(self._stream.ptr)
        )
        self._context: VideoCodecContext | None = None
        self._open(mosaic)

    def _buffer(self) -> Any:
        return cupy.empty((self._size[1] * 3 // 2, self._size[0]), cupy.uint8)

    def _open(self, mosaic: MosaicConfig) -> None:
        with self._device, self._stream:
            grey = self._buffer()
            grey.data.memset_async(_GREY, grey.nbytes, self._stream)
            for b_frames in dict.fromkeys((self._settings.b_frames, 0)):
                context = _context(mosaic, self._settings, b_frames)
                try:
                    with _messages() as said:
                        packets = context.encode(self._frame(grey, _OPENING, context))
                except av.error.FFmpegError as error:
                    text = "; ".join(said) or str(error)
                    if b_frames and "b-frames" in text.lower():
                        continue  # the chip has none: the profile does without
                    raise failure(text, self._settings.codec) from error
                break
            check_consumed(context)
            self._free += [self._buffer() for _ in range(device_buffers(self._settings) - 1)]
        self._context = context
        self.sessions += 1
        self._held[_OPENING] = grey
        self._release(packets)
        self._keyframe.set()

    def encode(self, mosaic: Mosaic) -> list[Packet]:
        """See `Encoder.encode`; returns when the GPU no longer needs the mosaic."""
        assert self._context is not None
        with self._device, self._stream:
            if mosaic.ready is not None:
                self._stream.wait_event(mosaic.ready)
            nv12 = mosaic.nv12
            if not self._settings.low_latency:
                nv12 = self._free.pop() if self._free else self._buffer()
                nv12.data.copy_from_device_async(mosaic.nv12.data, nv12.nbytes, self._stream)
                self._copied.record(self._stream)
            self._held[mosaic.tick] = nv12
            frame = self._frame(nv12, mosaic.tick, self._context)
            if take(self._keyframe):
                frame.pict_type = PictureType.I
            packets = self._packets(frame)
            if not self._settings.low_latency:
                self._copied.synchronize()
        if self._settings.low_latency and mosaic.tick in self._held:
            raise StageError("encode", f"{self.name} holds a picture back at low latency; its memory cannot be reused")
        return packets

    def _frame(self, nv12: Any, pts: int, context: VideoCodecContext) -> VideoFrame:
        """Both planes as one CUDA frame; NVENC finds the chroma right behind the luma."""
        width, height = self._size
        self._registered[nv12.data.ptr] = nv12  # NVENC knows the address until the session ends
        frame = VideoFrame.from_dlpack(
            (nv12[:height], nv12[height:].reshape(height // 2, width // 2, 2)),
            format="nv12",
            stream=int(self._stream.ptr),
            cuda_context=self._cuda,
        )
        frame.pts = pts
        frame.time_base = context.time_base
        return frame

    def flush(self) -> list[Packet]:
        """See `Encoder.flush`."""
        with self._device, self._stream:
            return self._packets(None)

    def request_keyframe(self) -> None:
        """See `Encoder.request_keyframe`."""
        self._keyframe.set()

    def _packets(self, frame: VideoFrame | None) -> list[Packet]:
        assert self._context is not None
        try:
            packets = self._context.encode(frame)
        except av.error.FFmpegError as error:
            raise StageError("encode", f"{self.name} failed: {error}") from error
        return self._release(packets)

    def _release(self, packets: list[Any]) -> list[Packet]:
        """The packets as ours; the buffers of their pictures are free again."""
        out = [packet_of(packet) for packet in packets]
        for packet in out:
            buffer = self._held.pop(packet.pts, None)
            if buffer is not None and not self._settings.low_latency:
                self._free.append(buffer)
        return [packet for packet in out if packet.pts != _OPENING]

    def close(self) -> None:
        """See `Encoder.close`."""
        if self._context is not None:
            with self._device:
                self._context = None  # ends the session; the CUDA context and the stream must outlive it
        for arrays in (self._held, self._free, self._registered):
            arrays.clear()


def options(settings: Settings) -> dict[str, str]:
    """FFmpeg's private options of an NVENC encoder; every one that it does not consume is an error."""
    chosen = {
        "preset": settings.preset,
        "tune": settings.tuning,
        "rc": "cbr" if settings.rate_control == "cbr" else "vbr",
        "forced-idr": "1",
        # FFmpeg turns lookahead off when the delay leaves no room for it, also that of presets p6 and p7.
        "delay": "0" if settings.low_latency else str(DELAY),
    }
    if settings.low_latency:
        chosen["zerolatency"] = "1"
    if settings.codec == "h264":
        chosen["profile"] = "high"  # FFmpeg's own default is main
    else:
        chosen["split_encode_mode"] = "disabled" if settings.split == "none" else str(settings.split)
    if settings.bitrate is None:
        chosen["cq"] = str(settings.quality)
    else:
        chosen["maxrate"] = str(settings.peak)
        chosen["bufsize"] = str(settings.buffer_bits)
    return chosen


def _context(mosaic: MosaicConfig, settings: Settings, b_frames: int) -> VideoCodecContext:
    context = cast(VideoCodecContext, CodecContext.create(f"{settings.codec}_nvenc", "w"))
    context.width, context.height, context.pix_fmt = mosaic.width, mosaic.height, "cuda"
    context.framerate, context.time_base = mosaic.fps, 1 / mosaic.fps
    context.gop_size = settings.gop
    context.max_b_frames = b_frames
    context.bit_rate = settings.bitrate or 0
    signal_bt709(context)
    context.options = options(settings)
    return context


@contextmanager
def _messages() -> Iterator[list[str]]:
    """What FFmpeg logs meanwhile: its exceptions do not say which parameter the driver refused."""
    said: list[str] = []
    level, skip = av.logging.get_level(), av.logging.get_skip_repeated()
    av.logging.set_skip_repeated(False)
    av.logging.set_level(av.logging.WARNING)
    try:
        with av.logging.Capture(False) as lines:
            try:
                yield said
            finally:
                said += [message.strip() for _, _, message in lines]
    finally:
        av.logging.set_level(level)
        av.logging.set_skip_repeated(skip)
