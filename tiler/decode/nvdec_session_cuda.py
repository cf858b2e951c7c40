"""PyNvVideoCodec's decoder: a session of the hardware, fed with packets that carry their times.

What it gives out lies in memory that the next call overwrites, and it knows nothing of a packet but its bytes and
its pts: durations, and pictures that are not to be shown, are kept here.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import av
from av.video.codeccontext import VideoCodecContext

from tiler.decode.demuxed import VideoPacket, said_by
from tiler.decode.keyframe import CODECS, Look, RefusedError

_NO_PTS = -(1 << 63)  # AV_NOPTS_VALUE, which PyNvVideoCodec's own demuxer gives, too
_MOST_IN_FLIGHT = 500  # packets whose picture never came are forgotten


class NvPicture(NamedTuple):
    """A picture in PyNvVideoCodec's memory, `size` in samples: valid until the next `Decode` of its decoder."""

    decoded: Any
    pts: int | None
    duration: int
    look: Look
    size: tuple[int, int]


class NvdecSession:
    """Decodes pictures of one look, given out in one size."""

    def __init__(
        self,
        library: Any,
        device: int,
        stream: int,
        codec: str,
        look: Look,
        size: tuple[int, int],
        context: VideoCodecContext,
        low_latency: bool,
    ) -> None:
        self.look = look
        self.size = size
        self.began = False
        kind = library.cudaVideoCodec.__members__[CODECS[codec]]
        width = max(look.width, context.coded_width)
        height = max(look.height, context.coded_height)
        _check_capabilities(library, device, kind, codec, width, height, look.bits)
        latency = library.DisplayDecodeLatencyType
        self._decoder = library.CreateDecoder(
            gpuid=device,
            codec=kind,
            cudastream=stream,
            usedevicememory=True,
            maxwidth=width,
            maxheight=height,
            latency=latency.LOW if low_latency else latency.NATIVE,
        )
        if size != (look.width, look.height):
            self._decoder.setReconfigParams(*size)  # before the first packet, or it has no effect
        self._sent = library.PacketData()
        if low_latency:  # each packet is a whole picture: do not wait for the next one to see that it ends
            self._sent.decode_flag = int(library.VideoPacketFlag.ENDOFPICTURE)
        self._end = library.PacketData()
        self._durations: dict[int, int] = {}
        self._hidden: set[int] = set()

    def decode(self, packet: VideoPacket, data: av.Packet[Any]) -> list[NvPicture]:
        """The pictures that come out when `data` goes in, stamped as `packet`."""
        self.began = True
        sent = self._sent
        sent.bsl_data = data.buffer_ptr
        sent.bsl = data.size
        pts = packet.pts
        if pts is None:
            sent.pts = _NO_PTS
        else:
            sent.pts = pts
            if len(self._durations) > _MOST_IN_FLIGHT:
                self._durations.clear()
            self._durations[pts] = packet.duration or 0
            if packet.is_discard:  # an edit list begins behind it; FFmpeg's decoders drop such pictures, too
                self._hidden.add(pts)
        return self._taken(self._decoder.Decode(sent))

    def flush(self) -> list[NvPicture]:
        """What the decoder still holds. A keyframe may come next, of another stream of the same look, too."""
        if not self.began:
            return []
        self.began = False
        left = self._taken(self._decoder.Decode(self._end))
        self._durations.clear()
        self._hidden.clear()
        return left

    def _taken(self, decoded: list[Any]) -> list[NvPicture]:
        pictures = []
        for picture in decoded:
            pts = picture.getPTS()
            if pts in self._hidden:
                self._hidden.discard(pts)
                continue
            duration = self._durations.pop(pts, 0)
            pictures.append(NvPicture(picture, None if pts == _NO_PTS else pts, duration, self.look, self.size))
        return pictures


def library() -> Any:
    """The module PyNvVideoCodec, imported when it is first needed.

    Raises:
        RefusedError: it is not installed, or does not find what it needs of the driver.
    """
    try:
        import PyNvVideoCodec
    except ImportError as error:
        if error.name == "PyNvVideoCodec":
            raise RefusedError('PyNvVideoCodec is not installed: pip install "tiler[cuda]"') from error
        raise RefusedError(f"PyNvVideoCodec cannot be imported: {said_by(error)}") from error
    except Exception as error:
        if "libnvidia-encode" in str(error):
            raise RefusedError(
                "PyNvVideoCodec needs the driver's NVENC library even to decode, and libnvidia-encode.so.1 is not "
                "here (in a container: NVIDIA_DRIVER_CAPABILITIES=compute,utility,video)"
            ) from error
        raise RefusedError(f"PyNvVideoCodec cannot be imported: {said_by(error).split(' === ')[0]}") from error
    return PyNvVideoCodec


def _check_capabilities(
    library: Any, device: int, kind: Any, codec: str, width: int, height: int, bits: int
) -> None:
    """
    Raises:
        RefusedError: the GPU's NVDEC does not know the codec at this depth and size.
    """
    caps = _capabilities(library, device, kind, bits)
    if not caps.get("supported", True):
        raise RefusedError(f"this GPU's NVDEC does not decode {codec} with {bits} bits")
    least = (caps.get("width_min", 0), caps.get("height_min", 0))
    most = (caps.get("width_max", width), caps.get("height_max", height))
    if not (least[0] <= width <= most[0] and least[1] <= height <= most[1]):
        accepted = f"{least[0]}x{least[1]} to {most[0]}x{most[1]}"
        raise RefusedError(f"it is {width}x{height}; this GPU's NVDEC decodes {codec} of {accepted}")
    blocks = -(-width // 16) * -(-height // 16)
    if blocks > caps.get("mb_num_max", blocks):
        raise RefusedError(f"{width}x{height} are {blocks} macroblocks; this GPU's NVDEC takes {caps['mb_num_max']}")


@cache
def _capabilities(library: Any, device: int, kind: Any, bits: int) -> dict[str, Any]:
    """Of a GPU's NVDEC, for 4:2:0. To ask takes nearly a tenth of a second, and no other thread of Python runs."""
    chroma = library.cudaVideoChromaFormat.__members__["420"]
    return dict(library.GetDecoderCaps(gpuid=device, codec=kind, chromaformat=chroma, bitdepth=bits))
