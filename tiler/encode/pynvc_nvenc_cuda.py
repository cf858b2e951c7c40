"""NVENC through PyNvVideoCodec: for a GPU that is not cuda:0, and where PyAV's FFmpeg has no NVENC.

Its packets come three pictures late whatever the tuning, and it cannot say how the stream encodes colour:
a bitstream filter writes that in. It copies each picture into memory of its own.
"""

from __future__ import annotations

import threading
from typing import Any

import av
import av.error
import cupy

from tiler.closing import Closing
from tiler.config.models import EncoderConfig, MosaicConfig
from tiler.encode.ffmpeg import BT709, take
from tiler.encode.nvenc import NvencMissingError, failure
from tiler.encode.parameters import Settings, resolve
from tiler.errors import StageError
from tiler.types import Mosaic, Packet

LAG = 3
"""Pictures that must follow before a packet comes out; no parameter changes it."""
_FORCE_IDR = 2 | 4  # NV_ENC_PIC_FLAG_FORCEIDR, NV_ENC_PIC_FLAG_OUTPUT_SPSPPS
_IDR = 3  # NV_ENC_PIC_TYPE_IDR
_TUNINGS = {"hq": "high_quality", "ll": "low_latency", "ull": "ultra_low_latency"}
_FILTERS = {
    "h264": "h264_metadata=colour_primaries={0}:transfer_characteristics={0}:matrix_coefficients={0}"
    ":video_full_range_flag=0",
    "hevc": "hevc_metadata=colour_primaries={0}:transfer_characteristics={0}:matrix_coefficients={0}"
    ":video_full_range_flag=0",
    "av1": "av1_metadata=color_primaries={0}:transfer_characteristics={0}:matrix_coefficients={0}:color_range=tv",
}


class PynvcNvencEncoder(Closing):
    """One NVENC session (see `tiler.encode.base.Encoder`); its packets are three pictures late.

    There are no B-frames: packets come in the order of the pictures.
    """

    def __init__(self, mosaic: MosaicConfig, config: EncoderConfig, device: int) -> None:
        """Open the session.

        Args:
            mosaic: size and rate of the pictures.
            config: every key of it is honoured or refused.
            device: index of the CUDA device.

        Raises:
            NvencMissingError: no NVENC, or none that this library can use.
            InputError: parameters refused, or no session left.
        """
        settings = resolve(mosaic, config, "pynvvideocodec")
        library = _library()
        self._errors = (library.PyNvVCException, library.PyNvVCExceptionUnsupported, RuntimeError)
        self.name = f"{settings.codec}_nvenc (PyNvVideoCodec)"
        self.sessions = 0
        self._keyframe = threading.Event()
        self._ticks: dict[int, int] = {}
        self._submitted = 0
        self._tag = av.BitStreamFilterContext(_FILTERS[settings.codec].format(BT709), settings.codec)
        self._device = cupy.cuda.Device(device)
        with self._device:
            self._stream = cupy.cuda.Stream(non_blocking=True)
            self._copied = cupy.cuda.Event(block=True, disable_timing=True)
            try:
                self._encoder = library.CreateEncoder(
                    mosaic.width,
                    mosaic.height,
                    "NV12",
                    False,
                    cudastream=int(self._stream.ptr),
                    gpu_id=device,
                    **parameters(mosaic, settings),
                )
            except self._errors as error:
                raise failure(str(error), settings.codec) from error
        self.sessions += 1

    def encode(self, mosaic: Mosaic) -> list[Packet]:
        """See `Encoder.encode`; returns when the library has copied the picture."""
        with self._device, self._stream:
            if mosaic.ready is not None:
                self._stream.wait_event(mosaic.ready)
            self._ticks[self._submitted] = mosaic.tick
            self._submitted += 1
            picture = _Picture(mosaic.nv12)
            try:
                found = (
                    self._encoder.Encode(picture, _FORCE_IDR) if take(self._keyframe) else self._encoder.Encode(picture)
                )
            except self._errors as error:
                raise StageError("encode", f"{self.name} failed: {error}") from error
            self._copied.record(self._stream)
            self._copied.synchronize()
        return self._packets(found)

    def flush(self) -> list[Packet]:
        """See `Encoder.flush`."""
        with self._device, self._stream:
            try:
                found = self._encoder.EndEncode()
            except self._errors as error:
                raise StageError("encode", f"{self.name} failed: {error}") from error
        return self._packets(found)

    def request_keyframe(self) -> None:
        """See `Encoder.request_keyframe`."""
        self._keyframe.set()

    def _packets(self, found: list[dict[str, Any]]) -> list[Packet]:
        """Its dictionaries as ours: `timestamp` is the index of the picture as submitted, from 0."""
        out = []
        for one in found:
            packet = av.Packet(one["data"])
            tick = self._ticks.pop(one["timestamp"])
            try:
                data = b"".join(bytes(part) for part in self._tag.filter(packet))
            except (av.error.FFmpegError, ValueError) as error:
                raise StageError("encode", f"{self.name} wrote no valid stream: {error}") from error
            out.append(Packet(data, tick, tick, one["picture_type"] == _IDR))
        return out

    def close(self) -> None:
        """See `Encoder.close`."""
        if self._encoder is not None:
            with self._device:
                self._encoder = None


class _Picture:
    """A CuPy array as the library wants it: `cuda()`, and a `__dlpack__` that takes the stream by position."""

    def __init__(self, nv12: Any) -> None:
        self._nv12 = nv12

    def cuda(self) -> _Picture:
        return self

    def __dlpack_device__(self) -> Any:
        return self._nv12.__dlpack_device__()

    def __dlpack__(self, stream: int) -> Any:
        return self._nv12.__dlpack__(stream=stream)


def parameters(mosaic: MosaicConfig, settings: Settings) -> dict[str, Any]:
    """Keyword arguments of CreateEncoder: only ones that were seen to reach NVENC; it drops others unsaid."""
    chosen: dict[str, Any] = {
        "codec": settings.codec,
        "preset": settings.preset.upper(),  # a small letter would silently mean the default
        "tuning_info": _TUNINGS[settings.tuning],
        "rc": "cbr" if settings.rate_control == "cbr" else "vbr",
        "fps": str(mosaic.fps),
        "gop": settings.gop,
        "idrperiod": settings.gop,
        "bf": 0,
        "repeatspspps": 1,
    }
    if settings.codec == "av1":
        chosen["use_ivf_container"] = 0
    if settings.bitrate is None:
        chosen |= {"cq": settings.quality, "bitrate": 0, "maxbitrate": 0}
    else:
        chosen |= {"bitrate": settings.bitrate, "maxbitrate": settings.peak, "vbvbufsize": settings.buffer_bits}
    return chosen


def _library() -> Any:
    """PyNvVideoCodec, whose import looks for the driver's NVENC library.

    Raises:
        NvencMissingError: not installed, or the driver has no NVENC that it can use.
    """
    try:
        import PyNvVideoCodec
    except ModuleNotFoundError as error:
        raise NvencMissingError('PyNvVideoCodec is not installed: pip install "tiler[cuda]"', final=False) from error
    except (ImportError, RuntimeError) as error:
        reason = failure(str(error).partition("\n")[0], "")
        if isinstance(reason, NvencMissingError):
            raise reason from error
        raise NvencMissingError(f"PyNvVideoCodec cannot be imported: {error}", final=False) from error
    return PyNvVideoCodec
