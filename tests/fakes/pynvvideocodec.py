"""PyNvVideoCodec 2.2's decoder, decoding with FFmpeg on the CPU, as far as tiler calls it.

Signatures, defaults and enumerations are those of the real module; a wrong name or type
raises TypeError, as pybind11 does. What hurts is copied, too: the memory of a picture is
overwritten by the next `Decode` of its decoder (in the order of its CUDA stream), NATIVE
latency is two packets, and a change of size is scaled to the first one without a word.
`setReconfigParams` has no effect on a sequence that has begun.
"""

from __future__ import annotations

import ctypes
import weakref
from collections import deque
from enum import IntEnum
from types import ModuleType
from typing import Any

import av
import numpy as np
from av.video.reformatter import Interpolation

from fakes.cupy_host import FREED, HostCupy

Codec = IntEnum("Codec", {"MPEG1": 0, "MPEG2": 1, "MPEG4": 2, "H264": 4, "HEVC": 8, "VP8": 9, "VP9": 10, "AV1": 11})
Chroma = IntEnum("Chroma", {"Monochrome": 0, "420": 1, "422": 2, "444": 3})
Latency = IntEnum("Latency", {"NATIVE": 0, "LOW": 1, "ZERO": 2})
Flag = IntEnum("Flag", {"ENDOFSTREAM": 1, "TIMESTAMP": 2, "DISCONTINUITY": 4, "ENDOFPICTURE": 8, "NOTIFY_EOS": 16})
Color = IntEnum("Color", {"NATIVE": 0, "RGB": 1, "RGBP": 2})
DECODERS = {Codec.H264: "h264", Codec.HEVC: "hevc", Codec.VP9: "vp9", Codec.AV1: "libdav1d"}
NO_PTS = -(1 << 63)


class PyNvVCException(Exception):  # noqa: N818
    """The library's name."""


class PyNvVCExceptionUnsupported(Exception):  # noqa: N818
    """Not derived from the other one."""


class PacketData:
    """Integers in and out; nothing else can be set."""

    __slots__ = ("_values",)
    _FIELDS = ("bsl", "bsl_data", "decode_flag", "dts", "duration", "key", "pos", "pts")

    def __init__(self) -> None:
        object.__setattr__(self, "_values", dict.fromkeys(self._FIELDS, 0))

    def __getattr__(self, name: str) -> int:
        try:
            return self._values[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: int) -> None:
        if name not in self._FIELDS:
            raise AttributeError(f"PacketData has no {name}")
        if type(value) is not int or not -(1 << 63) <= value < 1 << 63:
            raise TypeError(f"{name} takes an int64, not {value!r}")
        self._values[name] = value


class DecodedFrame:
    def __init__(self, ptr: int, luma_bytes: int, pts: int) -> None:
        self._planes = (ptr, ptr + luma_bytes)
        self._pts = pts

    def GetPtrToPlane(self, plane: int, /) -> int:  # noqa: N802
        if type(plane) is not int:
            raise TypeError("plane is an int")
        return self._planes[plane]

    def getPTS(self) -> int:  # noqa: N802
        return self._pts


class PyNvDecoder:
    def __init__(self, host: HostCupy, codec: Codec, stream: int, most: tuple[int, int], latency: Latency) -> None:
        self._host = host
        self._stream = stream
        self._most = most
        self._latency = latency
        self._annex_b = codec in (Codec.H264, Codec.HEVC)
        self._context = av.CodecContext.create(DECODERS[codec], "r")
        self._context.thread_count = 1
        self._size: tuple[int, int] | None = None
        self._deep = False
        self._pool: list[ctypes.Array[Any]] = []
        self._queue: deque[tuple[int, av.VideoFrame]] = deque()
        self._packets = 0
        self._began = False
        self.flags: list[int] = []
        self._scaled: tuple[int, int] | None = None
        weakref.finalize(self, _destroyed, self._pool, host)

    def setReconfigParams(self, width: int, height: int, /) -> int:  # noqa: N802
        if type(width) is not int or type(height) is not int:
            raise TypeError("incompatible function arguments")
        if width > self._most[0] or height > self._most[1]:
            raise RuntimeError(
                "Resize dimensions must be lower than max width and height, please recreate decoder instance"
            )
        if width % 2 or height % 2:
            raise TypeError("cuvid aligns targets to 2 samples")
        if self._size is None:
            self._scaled = width, height
        return 1

    def Decode(self, packet: PacketData, /) -> list[DecodedFrame]:  # noqa: N802
        if type(packet) is not PacketData:
            raise TypeError("Decode takes a PacketData")
        if packet.bsl == 0:
            self._take(self._context.decode(None))
            self._context.flush_buffers()
            return self._given(0)
        self._packets += 1
        self.flags.append(packet.decode_flag)
        data = ctypes.string_at(packet.bsl_data, packet.bsl)
        if self._annex_b and not data.startswith((b"\0\0\1", b"\0\0\0\1")):
            return []  # the parser finds no start code
        sent = av.Packet(data)
        sent.pts = None if packet.pts == NO_PTS else packet.pts
        try:
            pictures = self._context.decode(sent)
        except av.FFmpegError as error:
            if not self._began:
                return []  # no parameter sets yet
            raise PyNvVCException(f"cuvidParseVideoData returned error: {error}") from error
        self._began = True
        self._take(pictures)
        late = {Latency.NATIVE: 2, Latency.LOW: 1, Latency.ZERO: 0}[self._latency]
        return self._given(max(0, late - (packet.decode_flag & Flag.ENDOFPICTURE > 0)))

    def _take(self, pictures: list[av.VideoFrame]) -> None:
        for picture in pictures:
            size, deep = (picture.width, picture.height), picture.format.name != "yuv420p"
            if self._size is None:
                self._size, self._deep = size, deep
            if deep != self._deep:
                raise PyNvVCException("Reconfigure Not supported for bit depth change, error 801")
            if size != self._size and (size[0] > self._most[0] or size[1] > self._most[1]):
                raise PyNvVCException("Reconfigure Not supported when width/height > maxwidth/maxheight, error 801")
            target = self._scaled or self._size
            if size != target:
                picture = picture.reformat(width=target[0], height=target[1], interpolation=Interpolation.AREA)
            self._queue.append((self._packets, picture))

    def _given(self, late: int) -> list[DecodedFrame]:
        frames: list[DecodedFrame] = []
        while self._queue and (late == 0 or self._queue[0][0] + late <= self._packets):
            _, picture = self._queue.popleft()
            surface, luma_bytes = _surface(picture)
            if len(frames) == len(self._pool):
                self._pool.append((ctypes.c_uint8 * len(surface))())
            place = ctypes.addressof(self._pool[len(frames)])

            def write(place: int = place, surface: bytes = surface) -> None:
                ctypes.memmove(place, surface, len(surface))

            if self._stream == 0:
                write()
            else:
                self._host.run_on(self._stream, write)
            frames.append(DecodedFrame(place, luma_bytes, NO_PTS if picture.pts is None else picture.pts))
        return frames


def _destroyed(pool: list[ctypes.Array[Any]], host: HostCupy) -> None:
    """A copy that is still on its way reads rubbish from now on."""
    for memory in pool:
        ctypes.memset(memory, FREED, len(memory))
        host.freed.append(memory)


def _surface(picture: av.VideoFrame) -> tuple[bytes, int]:
    """A 4:2:0 picture as NV12, or P016 with the value in the high bits, rows of even length; and its luma's bytes."""
    height, width = picture.height, picture.width
    bits = picture.format.components[0].bits
    sample = np.dtype(np.uint8 if bits == 8 else np.uint16)
    half = ((height + 1) // 2, (width + 1) // 2)
    planes = []
    for plane, (rows, columns) in zip(picture.planes, ((height, width), half, half), strict=True):
        lines = np.frombuffer(plane, sample).reshape(-1, plane.line_size // sample.itemsize)
        planes.append(lines[:rows, :columns] << (0 if bits == 8 else 16 - bits))
    packed = np.zeros((height + half[0], 2 * half[1]), sample)
    packed[:height, :width] = planes[0]
    packed[height:, 0::2], packed[height:, 1::2] = planes[1], planes[2]
    return packed.tobytes(), 2 * half[1] * height * sample.itemsize


class HostNvdec:
    """The module, and what a test wants to know of it or to change.

    Attributes:
        module: goes into sys.modules as "PyNvVideoCodec".
        created: the arguments of each CreateDecoder call.
        decoders: weak references to the decoders that they made.
        unsupported: (codec's name, bits) that GetDecoderCaps denies.
        refuses: CreateDecoder raises this.
    """

    def __init__(self, host: HostCupy) -> None:
        self.created: list[dict[str, Any]] = []
        self.decoders: list[weakref.ref[PyNvDecoder]] = []
        self.unsupported: set[tuple[str, int]] = set()
        self.refuses: Exception | None = None
        self.module = _module(self, host)


def _module(nvdec: HostNvdec, host: HostCupy) -> ModuleType:
    def CreateDecoder(  # noqa: N802
        gpuid: int = 0,
        codec: Codec = Codec.H264,
        cudacontext: int = 0,
        cudastream: int = 0,
        usedevicememory: bool = False,
        maxwidth: int = 0,
        maxheight: int = 0,
        outputColorType: Color = Color.NATIVE,
        enableSEIMessage: bool = False,
        bWaitForSessionWarmUp: bool = False,
        latency: Latency = Latency.NATIVE,
        enableDecodeStats: bool = False,
    ) -> PyNvDecoder:
        arguments = dict(locals())
        for name in ("nvdec", "host"):
            arguments.pop(name, None)
        for name in ("gpuid", "cudacontext", "cudastream", "maxwidth", "maxheight"):
            if type(arguments[name]) is not int or arguments[name] < 0:
                raise TypeError(f"{name} takes an int, not {arguments[name]!r}")
        if not (isinstance(codec, Codec) and isinstance(latency, Latency) and isinstance(outputColorType, Color)):
            raise TypeError("incompatible function arguments")
        if not usedevicememory:
            raise TypeError("the pictures would lie in host memory")
        if nvdec.refuses is not None:
            raise nvdec.refuses
        if cudastream and cudastream not in host.streams:
            raise PyNvVCException("cudastream input argument does not correspond to cudacontext argument")
        nvdec.created.append(arguments)
        decoder = PyNvDecoder(host, codec, cudastream, (maxwidth, maxheight), latency)
        nvdec.decoders.append(weakref.ref(decoder))
        return decoder

    def GetDecoderCaps(  # noqa: N802
        gpuid: int = 0, codec: Codec = Codec.H264, chromaformat: Chroma = Chroma["420"], bitdepth: int = 8
    ) -> dict[str, int]:
        if not (type(gpuid) is int and isinstance(codec, Codec) and isinstance(chromaformat, Chroma)):
            raise TypeError("incompatible function arguments")
        known = (codec.name, bitdepth) not in nvdec.unsupported and chromaformat.name == "420"
        caps = {"supported": int(known), "num_decoder_engines": 1, "width_max": 4096, "height_max": 4096}
        return caps | {"mb_num_max": 65536, "width_min": 48, "height_min": 16}

    module = ModuleType("PyNvVideoCodec")
    module.__dict__.update(
        CreateDecoder=CreateDecoder,
        DisplayDecodeLatencyType=Latency,
        GetDecoderCaps=GetDecoderCaps,
        OutputColorType=Color,
        PacketData=PacketData,
        PyNvVCException=PyNvVCException,
        PyNvVCExceptionUnsupported=PyNvVCExceptionUnsupported,
        VideoPacketFlag=Flag,
        cudaVideoChromaFormat=Chroma,
        cudaVideoCodec=Codec,
    )
    return module
