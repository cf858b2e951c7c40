"""libx264 through PyAV: the encoder of a machine with no NVENC."""

from __future__ import annotations

from fractions import Fraction
from types import TracebackType
from typing import Self

import av
import av.error
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from tiler.config.models import EncoderConfig, MosaicConfig
from tiler.errors import InputError, StageError
from tiler.types import Mosaic, Packet

_PROFILES: dict[str, dict[str, str]] = {
    # superfast: the slowest preset that keeps a 4K mosaic near 15 fps on two cores.
    "quality": {"preset": "superfast", "bf": "2"},
    # zerolatency: no lookahead, no B-frames: packet k leaves with picture k.
    "low_latency": {"preset": "ultrafast", "tune": "zerolatency", "bf": "0"},
}
_THREADING = {"quality": "FRAME", "low_latency": "SLICE"}
"""Threads that share a picture add no delay but cost a quarter of the speed and some quality; PyAV's default."""
_CRF = "22"
_BT709 = 1  # the same code point for primaries, transfer and matrix (ITU-T H.273)
_LIMITED = 1  # AVCOL_RANGE_MPEG


class X264Encoder:
    """One libx264 session (see `tiler.encode.base.Encoder`).

    The stream is Annex-B with parameter sets in front of every IDR, so that it can be cut
    and joined at any keyframe. It depends on the pictures and on `threads` alone.
    """

    name = "libx264"

    def __init__(self, mosaic: MosaicConfig, config: EncoderConfig, threads: int) -> None:
        """Open the session.

        Args:
            mosaic: size and rate of the pictures.
            config: profile, rate control and GOP.
            threads: encoder threads.

        Raises:
            InputError: libx264 refuses the parameters.
        """
        self._context = self._open(mosaic, config, threads)
        self.sessions = 1
        self._shape = (mosaic.height * 3 // 2, mosaic.width)

    @staticmethod
    def _open(mosaic: MosaicConfig, config: EncoderConfig, threads: int) -> VideoCodecContext:
        context = av.CodecContext.create("libx264", "w")
        assert isinstance(context, VideoCodecContext)
        context.width, context.height, context.pix_fmt = mosaic.width, mosaic.height, "yuv420p"
        context.framerate, context.time_base = mosaic.fps, 1 / mosaic.fps
        context.color_primaries = context.color_trc = context.colorspace = _BT709
        context.color_range = _LIMITED
        context.thread_count, context.thread_type = threads, _THREADING[config.profile]
        context.gop_size = max(1, round(config.gop_s * mosaic.fps))
        options = dict(_PROFILES[config.profile])
        if config.bitrate is None:
            options["crf"] = _CRF
        else:
            context.bit_rate = config.bitrate
            # One picture's worth of buffer keeps low latency honest; two seconds is kind to quality.
            seconds = 1 / mosaic.fps if config.profile == "low_latency" else Fraction(2)
            options["maxrate"] = str(config.bitrate)
            options["bufsize"] = str(max(1, int(config.bitrate * seconds)))
        context.options = options
        try:
            context.open()
        except av.error.FFmpegError as error:
            raise InputError(
                f"encoder: libx264 refuses {mosaic.width}x{mosaic.height} at {mosaic.fps} fps: {error}"
            ) from error
        return context

    def encode(self, mosaic: Mosaic) -> list[Packet]:
        """See `Encoder.encode`; x264 copies the picture before this returns."""
        picture = VideoFrame.from_numpy_buffer(_contiguous(mosaic, self._shape), format="yuv420p")
        picture.pts = mosaic.tick
        picture.time_base = self._context.time_base
        return self._packets(picture)

    def flush(self) -> list[Packet]:
        """See `Encoder.flush`."""
        return self._packets(None)

    def _packets(self, picture: VideoFrame | None) -> list[Packet]:
        try:
            packets = self._context.encode(picture)
        except (av.error.FFmpegError, ValueError) as error:
            raise StageError("encode", f"libx264 failed: {error}") from error
        return [
            Packet(bytes(packet), packet.pts or 0, packet.dts if packet.dts is not None else packet.pts or 0,
                   packet.is_keyframe)
            for packet in packets
        ]

    def close(self) -> None:
        """The session's memory goes with the context."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


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
