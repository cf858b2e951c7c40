"""What a stream says of its pictures in a keyframe, read before a GPU decodes it.

A GPU's decoder hands out samples and nothing else, and PyNvVideoCodec goes on with the
first size when a stream changes it. So a keyframe whose parameter sets are new (the first
one is) is decoded by itself on the CPU, once: that tells everything in one way for every
codec and container, also what no container says, such as a rotation in an SEI message.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import av
from av.video.codeccontext import VideoCodecContext

from tiler.decode.demuxed import VideoPacket, said_by
from tiler.decode.picture import colour_of, rotation_of
from tiler.types import Matrix

BITS = {"yuv420p": 8, "yuvj420p": 8, "nv12": 8, "yuv420p10le": 10, "yuv420p12le": 12}
"""The 4:2:0 formats, which GPUs decode to NV12 or P016."""
CODECS = {"h264": "H264", "hevc": "HEVC", "vp9": "VP9", "av1": "AV1"}
"""FFmpeg's names and PyNvVideoCodec's. NVDEC knows older codecs, too: FFmpeg's CUDA decoders serve those."""
MAX_WITHOUT_KEYFRAME = 1500
"""Packets to wait for a first keyframe (a minute at 25 fps) before a GPU backend gives up."""
MAX_DAMAGED_KEYFRAMES = 3
"""Keyframes in a row that cannot be decoded alone: with intra refresh, none can; FFmpeg on the CPU copes."""

_HEAD_BYTES = 4096
"""Parameter sets come first in a keyframe; with scaling lists they take at most about 1 KB each."""
_START = b"\x00\x00\x01"
_SPS = {"h264": (0, 0x1F, 7), "hevc": (1, 0x3F, 33)}
"""Shift and mask of the NAL unit type in the first byte of its header, and the type of an SPS."""
_AV1_SEQUENCE_HEADER = 1


class RefusedError(Exception):
    """A backend cannot decode this stream, for this reason; another backend may."""


class DamagedError(Exception):
    """A packet is of no use."""


@dataclass(frozen=True, slots=True)
class Look:
    """What holds for every picture until the parameter sets change.

    Attributes:
        width, height: of the luma plane, samples.
        bits: of a sample.
        matrix, full_range, rotation, sample_aspect: as in Frame.
    """

    width: int
    height: int
    bits: int
    matrix: Matrix
    full_range: bool
    rotation: int
    sample_aspect: Fraction


def look_of(picture: av.VideoFrame, metadata: dict[str, str], sample_aspect: Fraction) -> Look:
    """The Look of a picture decoded on the CPU, in a stream with this metadata.

    Raises:
        RefusedError: it is not a progressive 4:2:0 picture.
    """
    bits = BITS.get(picture.format.name)
    if bits is None:
        raise RefusedError(f"its samples are {picture.format.name}; only 4:2:0 is decoded there")
    if picture.interlaced_frame:
        raise RefusedError("it is interlaced, and only the CPU backend deinterlaces")
    colour = colour_of(picture)
    rotation = rotation_of(picture, metadata)
    return Look(picture.width, picture.height, bits, colour.matrix, colour.full_range, rotation, sample_aspect)


def decoded_alone(context: VideoCodecContext, packet: VideoPacket) -> av.VideoFrame:
    """The picture of a keyframe, decoded by FFmpeg on the CPU without its neighbours.

    Raises:
        DamagedError: it cannot be decoded.
    """
    said = "no picture"
    try:
        pictures = [*context.decode(packet), *context.decode(None)]
    except av.FFmpegError as error:
        pictures = []
        said = said_by(error)
    context.flush_buffers()
    if not pictures:
        raise DamagedError(f"a keyframe cannot be decoded by itself: {said}")
    return pictures[0]


def parameters_of(codec: str, data: memoryview) -> bytes:
    """The parameters that a keyframe carries, to be compared with the last ones; b"" when it carries none.

    Args:
        codec: h264, hevc (both as Annex B), vp9 or av1.
        data: the packet.
    """
    head = bytes(data[:_HEAD_BYTES])
    if codec == "vp9":  # up to the size: 8 bytes and 4 bits of the uncompressed header (profile 0)
        return head[:8] + bytes(byte & 0xF0 for byte in head[8:9])
    if codec == "av1":
        return _sequence_header(head)
    shift, mask, sps = _SPS[codec]
    at = head.find(_START)
    while 0 <= at < len(head) - 4:
        end = head.find(_START, at + 3)
        if head[at + 3] >> shift & mask == sps:
            return head[at + 3 : end if end >= 0 else None].rstrip(b"\x00")
        at = end
    return b""


def headers_of(codec: str, extradata: bytes | None) -> bytes:
    """The parameter sets of a container's header, as they would lie in a keyframe; b"" when there are none.

    Args:
        codec: as for `parameters_of`.
        extradata: avcC, hvcC or av1C, or Annex B as it is.
    """
    if not extradata or codec == "vp9":
        return b""
    if codec == "av1":
        return extradata[4:] if extradata[0] & 0x80 else b""
    if not is_length_prefixed(extradata):
        return extradata
    if codec == "h264":  # ISO/IEC 14496-15, 5.3.3.1: SPS, then PPS
        units, at = _units(extradata, 6, extradata[5] & 0x1F)
        return b"".join(units + _units(extradata, at + 1, extradata[at])[0])
    units, at = [], 23  # 8.3.3.1: arrays of one NAL unit type each
    for _ in range(extradata[22]):
        more, at = _units(extradata, at + 3, int.from_bytes(extradata[at + 1 : at + 3], "big"))
        units += more
    return b"".join(units)


def is_length_prefixed(extradata: bytes | None) -> bool:
    """Whether H.264 or HEVC comes as in MP4 (NAL units behind their length) and not as Annex B."""
    return extradata is not None and extradata[:1] == b"\x01"


def _units(extradata: bytes, at: int, count: int) -> tuple[list[bytes], int]:
    """`count` NAL units from `at` on, each with a start code, and where they end."""
    units = []
    for _ in range(count):
        size = int.from_bytes(extradata[at : at + 2], "big")
        units.append(b"\x00" + _START + extradata[at + 2 : at + 2 + size])
        at += 2 + size
    return units, at


def _sequence_header(data: bytes) -> bytes:
    """The sequence header OBU of a temporal unit (AV1 specification, 5.3)."""
    at = 0
    while at < len(data):
        header = data[at]
        at += 2 if header & 0x04 else 1
        size = len(data) - at
        if header & 0x02:
            size = shift = 0
            while at < len(data):
                byte = data[at]
                at += 1
                size |= (byte & 0x7F) << shift
                shift += 7
                if not byte & 0x80:
                    break
        if header >> 3 & 0x0F == _AV1_SEQUENCE_HEADER:
            return data[at : at + size]
        at += size
    return b""
