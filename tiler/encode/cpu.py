"""libx264 through PyAV: the encoder of a machine with no NVENC."""

from __future__ import annotations

import threading

import av
import av.error
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType, VideoFrame

from tiler.closing import Closing
from tiler.config.models import EncoderConfig, MosaicConfig
from tiler.encode.ffmpeg import check_consumed, packet_of, signal_bt709, take
from tiler.encode.parameters import resolve
from tiler.errors import InputError, StageError
from tiler.types import Mosaic, Packet

_PRESETS = {
    "p1": "ultrafast", "p2": "superfast", "p3": "veryfast", "p4": "faster", "p5": "fast", "p6": "medium", "p7": "slow",
}  # fmt: skip
_THREADING = {"quality": "FRAME", "low_latency": "SLICE"}
"""Threads that share a picture add no delay but cost a quarter of the speed and some quality; PyAV's default."""


class X264Encoder(Closing):
    """One libx264 session (see `tiler.encode.base.Encoder`).

    The stream is Annex-B with parameter sets in front of every IDR, so that it can be cut
    and joined at any keyframe. At constant quality it depends on the pictures and on `threads` alone; with a bitrate,
    on which of libx264's threads is ahead, too.
    """

    name = "libx264"

    def __init__(self, mosaic: MosaicConfig, config: EncoderConfig, threads: int, *, nv12: bool = False) -> None:
        """Open the session.

        Args:
            mosaic: size and rate of the pictures.
            config: profile, rate control and GOP.
            threads: encoder threads.
            nv12: take `Mosaic.nv12` (a NumPy array here) and not the planes; the packets are the same.

        Raises:
            InputError: libx264 refuses the parameters, or the config has keys that it cannot honour.
        """
        self._shape = (mosaic.height * 3 // 2, mosaic.width)
        self._pixels = "nv12" if nv12 else "yuv420p"
        self._keyframe = threading.Event()
        self._context = self._open(mosaic, config, threads, self._pixels)
        self.sessions = 1

    @staticmethod
    def _open(mosaic: MosaicConfig, config: EncoderConfig, threads: int, pixels: str) -> VideoCodecContext:
        settings = resolve(mosaic, config, "libx264")
        context = av.CodecContext.create("libx264", "w")
        assert isinstance(context, VideoCodecContext)
        context.width, context.height, context.pix_fmt = mosaic.width, mosaic.height, pixels
        context.framerate, context.time_base = mosaic.fps, 1 / mosaic.fps
        context.thread_count, context.thread_type = threads, _THREADING[config.profile]
        context.gop_size = settings.gop
        context.max_b_frames = settings.b_frames
        signal_bt709(context)
        options = {"preset": _PRESETS[settings.preset], "forced-idr": "1"}
        if settings.low_latency:
            options["tune"] = "zerolatency"  # no lookahead: packet k leaves with picture k
        if settings.bitrate is None:
            options["crf"] = str(settings.quality)
        else:
            context.bit_rate = settings.bitrate
            options["maxrate"] = str(settings.peak)
            options["bufsize"] = str(settings.buffer_bits)
        context.options = options
        try:
            context.open()
        except av.error.FFmpegError as error:
            raise InputError(
                f"encoder: libx264 refuses {mosaic.width}x{mosaic.height} at {mosaic.fps} fps: {error}"
            ) from error
        check_consumed(context)
        return context

    def encode(self, mosaic: Mosaic) -> list[Packet]:
        """See `Encoder.encode`; x264 copies the picture before this returns."""
        pixels = mosaic.nv12 if self._pixels == "nv12" else _contiguous(mosaic, self._shape)
        picture = VideoFrame.from_numpy_buffer(pixels, format=self._pixels)
        picture.pts = mosaic.tick
        picture.time_base = self._context.time_base
        if take(self._keyframe):
            picture.pict_type = PictureType.I
        return self._packets(picture)

    def flush(self) -> list[Packet]:
        """See `Encoder.flush`."""
        return self._packets(None)

    def request_keyframe(self) -> None:
        """See `Encoder.request_keyframe`."""
        self._keyframe.set()

    def _packets(self, picture: VideoFrame | None) -> list[Packet]:
        try:
            packets = self._context.encode(picture)
        except (av.error.FFmpegError, ValueError) as error:
            raise StageError("encode", f"libx264 failed: {error}") from error
        return [packet_of(packet) for packet in packets]

    def close(self) -> None:
        """The session's memory goes with the context."""


def _contiguous(mosaic: Mosaic, shape: tuple[int, int]) -> np.ndarray:
    """The I420 picture as one (H * 3 / 2, W) array: a view where the planes lie so, else a copy."""
    y, u, v = mosaic.planes
    base = y.base
    if (
        base is not None
        and base.shape == (shape[0] * shape[1],)
        and y.ctypes.data == base.ctypes.data
        and u.ctypes.data == y.ctypes.data + y.nbytes
        and v.ctypes.data == u.ctypes.data + u.nbytes
    ):
        view: np.ndarray = base.reshape(shape)
        return view
    return np.concatenate([plane.reshape(-1) for plane in (y, u, v)]).reshape(shape)
