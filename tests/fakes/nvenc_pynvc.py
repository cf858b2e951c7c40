"""PyNvVideoCodec 2.2.4's encoder without a GPU: its signatures, its lag, its silences made loud.

What the real library drops or misreads without a word (a key it does not know, `p4` in small letters) fails
here. The pictures are encoded by libx264 or libx265, so that what comes out can be decoded and compared.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from fractions import Fraction
from types import ModuleType
from typing import Any

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType

from fakes import nvenc_cupy

LAG = 3
_FORCE_IDR, _SPS_PPS = 2, 4
_LIBRARIES = {
    "h264": ("libx264", {"preset": "ultrafast", "tune": "zerolatency", "crf": "8", "forced-idr": "1"}),
    "hevc": (
        "libx265",
        {"preset": "ultrafast", "tune": "zerolatency", "forced-idr": "1", "x265-params": "crf=8:log-level=none"},
    ),
}
_KEYS: dict[str, Callable[[Any], bool]] = {
    # every key that was seen to reach NVENC, and the values that mean what they say
    "codec": lambda v: v in ("h264", "hevc", "av1"),
    "preset": lambda v: v in {f"P{i}" for i in range(1, 8)},
    "tuning_info": lambda v: v in ("high_quality", "low_latency", "ultra_low_latency", "lossless", "uhq"),
    "rc": lambda v: v in ("cbr", "vbr", "constqp"),
    "bitrate": lambda v: isinstance(v, int),  # "25M" would be 25 * 1024 * 1024
    "maxbitrate": lambda v: isinstance(v, int),
    "vbvbufsize": lambda v: isinstance(v, int),
    "gop": lambda v: isinstance(v, int) and v > 0,
    "idrperiod": lambda v: isinstance(v, int) and v > 0,
    "bf": lambda v: v == 0,
    "fps": lambda v: re.fullmatch(r"[0-9]+(/[0-9]+)?", v) is not None,
    "cq": lambda v: isinstance(v, int) and 1 <= v <= 51,
    "repeatspspps": lambda v: v == 1,
    "use_ivf_container": lambda v: v == 0,
    "gpu_id": lambda v: isinstance(v, int),
}

created: list[dict[str, Any]] = []
"""Arguments of every CreateEncoder."""


class PyNvVCException(Exception):  # noqa: N818
    """As in the library: no base of its own."""


class PyNvVCExceptionUnsupported(Exception):  # noqa: N818
    """As in the library: not related to the other."""


def CreateEncoder(  # noqa: N802
    width: int, height: int, fmt: str, usecpuinputbuffer: bool, **kwargs: Any
) -> PyNvEncoder:
    assert (fmt, usecpuinputbuffer) == ("NV12", False)
    stream = nvenc_cupy.streams[kwargs.pop("cudastream")]
    assert kwargs.pop("cudacontext", 0) == 0
    for key, value in kwargs.items():
        assert key in _KEYS, f"the library would ignore {key} without a word"
        assert _KEYS[key](value), f"the library would misread {key}={value!r} without a word"
    assert kwargs["gpu_id"] == nvenc_cupy.current_device()
    assert kwargs["codec"] != "av1" or kwargs.get("use_ivf_container") == 0, "AV1 comes in IVF unless told otherwise"
    created.append({"width": width, "height": height, **kwargs})
    return PyNvEncoder(width, height, stream, kwargs)


class PyNvEncoder:
    """Copies each picture on its stream, and gives the packet of the one three before."""

    def __init__(self, width: int, height: int, stream: nvenc_cupy.Stream, parameters: dict[str, Any]) -> None:
        self._shape = (height * 3 // 2, width)
        self._stream = stream
        self._copies: list[tuple[np.ndarray, int]] = []
        self._given = 0
        name, options = _LIBRARIES[parameters["codec"]]
        self._context = av.CodecContext.create(name, "w")
        assert isinstance(self._context, VideoCodecContext)
        self._context.width, self._context.height, self._context.pix_fmt = width, height, "yuv420p"
        self._context.framerate = Fraction(parameters["fps"])
        self._context.time_base = 1 / Fraction(parameters["fps"])
        self._context.gop_size = parameters["gop"]
        self._context.options = dict(options)
        self._context.open()

    def Encode(self, frame: Any, flags: int = 0, /) -> list[dict[str, Any]]:  # noqa: N802
        assert flags in (0, _FORCE_IDR | _SPS_PPS)
        if not hasattr(frame, "cuda"):
            raise PyNvVCException("incorrect usage of CPU input buffer")
        picture = frame.cuda()
        assert picture.__dlpack_device__() == (2, 0)
        copy = np.empty(self._shape, np.uint8)
        source, capsule = _view(picture.__dlpack__(self._stream.ptr), self._shape)  # by position, as the library does

        def run() -> None:
            assert capsule is not None  # keeps the memory
            np.copyto(copy, source)

        self._stream.add(run)
        self._copies.append((copy, flags))
        return self._packets(len(self._copies) - LAG)

    def EndEncode(self) -> list[dict[str, Any]]:  # noqa: N802
        return self._packets(len(self._copies))

    def _packets(self, until: int) -> list[dict[str, Any]]:
        out = []
        while self._given < until:
            self._stream.run()
            nv12, flags = self._copies[self._given]
            picture = av.VideoFrame.from_ndarray(nv12, format="nv12").reformat(format="yuv420p")
            picture.pts, picture.pict_type = self._given, PictureType.I if flags else PictureType.NONE
            for packet in self._context.encode(picture):
                kind = 3 if packet.is_keyframe else 0
                out.append({"data": bytes(packet), "timestamp": self._given, "picture_type": kind})
            self._given += 1
        return out


def _view(capsule: Any, shape: tuple[int, int]) -> tuple[np.ndarray, Any]:
    """The memory of a DLPack capsule as an array, and what keeps it alive."""
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    address = pointer(capsule, b"dltensor")
    data = ctypes.c_void_p.from_address(address).value
    dimensions = ctypes.POINTER(ctypes.c_int64).from_address(address + 24)
    assert (dimensions[0], dimensions[1]) == shape
    memory = (ctypes.c_uint8 * (shape[0] * shape[1])).from_address(data)
    return np.ctypeslib.as_array(memory).reshape(shape), capsule


def module() -> ModuleType:
    """`PyNvVideoCodec` for sys.modules."""
    made = ModuleType("PyNvVideoCodec")
    for name in ("CreateEncoder", "PyNvVCException", "PyNvVCExceptionUnsupported"):
        setattr(made, name, globals()[name])
    return made
