"""Packets as a browser's decoders take them: a codec string, and fragmented MP4 of one picture a fragment.

The head of the file, with the decoder's configuration, is made by FFmpeg's muxer. Its fragments come
one picture late (a fragment ends when the next picture comes), so those few boxes are written here:
ISO/IEC 14496-12, 8.8.4 to 8.8.12.
"""

from __future__ import annotations

import io
import re
import struct
from fractions import Fraction
from typing import NamedTuple

import av

from tiler.config.models import MosaicConfig
from tiler.types import CLOCK_HZ, Packet

LEAD_S = 10
"""Where the media's time starts: B-frames have decoding times before the first picture's."""

_HOLD_TICKS = 4
"""Ticks that a picture is said to last. A live run leaves ticks out when it is behind, and Media Source
Extensions take a gap of two durations for a break that only the next keyframe ends."""
_KEY, _DELTA = 0x02000000, 0x01010000
"""Sample flags: depends on no other; depends on others and is no sync sample."""
_START = re.compile(rb"\x00\x00\x01")
_HEADERS = {"h264": (7, 8, 9), "hevc": (32, 33, 34, 35)}
"""NAL unit types that the head of the file holds, and delimiters."""


class Head(NamedTuple):
    """What a viewer needs before the first picture.

    Attributes:
        codec: as browsers name it, such as avc1.640033.
        mp4: `ftyp` and `moov`.
    """

    codec: str
    mp4: bytes


def head(packet: Packet, mosaic: MosaicConfig, codec: str) -> Head:
    """The head of a stream.

    Args:
        packet: a keyframe, parameter sets in band.
        mosaic: size and rate.
        codec: h264 | hevc | av1.

    Raises:
        ValueError: the packet has no parameter sets.
    """
    file = io.BytesIO()
    options = {"movflags": "frag_every_frame+delay_moov+default_base_moof", "video_track_timescale": str(CLOCK_HZ)}
    with av.open(file, "w", format="mp4", options=options) as container:
        stream = container.add_mux_stream(codec, rate=mosaic.fps, width=mosaic.width, height=mosaic.height)
        stream.time_base = Fraction(1, CLOCK_HZ)
        first = av.Packet(packet.data)
        first.stream, first.time_base = stream, Fraction(1, CLOCK_HZ)
        first.pts = first.dts = 0
        first.duration, first.is_keyframe = CLOCK_HZ, True
        container.mux(first)
    data = file.getvalue()
    end = data.find(b"moof") - 4
    mp4 = data[:end]
    return Head(_codec_string(mp4, codec), mp4)


def fragment(packet: Packet, codec: str, tick: Fraction, sequence: int) -> bytes:
    """`moof` and `mdat` of one packet.

    Args:
        packet: as the encoder gave it.
        codec: h264 | hevc | av1.
        tick: seconds of a tick.
        sequence: number of the fragment, from 1.
    """
    sample = _sample(packet.data, codec)
    time, offset = media_time(packet.dts, tick), media_time(packet.pts, tick) - media_time(packet.dts, tick)
    duration = round(_HOLD_TICKS * tick * CLOCK_HZ)
    flags = _KEY if packet.keyframe else _DELTA

    def moof(data_offset: int) -> bytes:
        # default-base-is-moof; version 1: 64-bit time, signed offsets; data offset, duration, size, flags, offset
        track = _box(b"tfhd", struct.pack(">II", 0x020000, 1))
        track += _box(b"tfdt", struct.pack(">IQ", 0x01000000, time))
        run = struct.pack(">IIiIIIi", 0x01000F01, 1, data_offset, duration, len(sample), flags, offset)
        track += _box(b"trun", run)
        return _box(b"moof", _box(b"mfhd", struct.pack(">II", 0, sequence)) + _box(b"traf", track))

    return moof(len(moof(0)) + 8) + _box(b"mdat", sample)


def media_time(ticks: int, tick: Fraction) -> int:
    """A tick's time in the media, 1/90000 s."""
    return round((ticks * tick + LEAD_S) * CLOCK_HZ)


def _sample(data: bytes, codec: str) -> bytes:
    """Annex B -> NAL units with their lengths, without what the head holds; AV1 without its temporal delimiter."""
    if codec == "av1":
        return data.removeprefix(b"\x12\x00")
    units = []
    for unit in _START.split(data)[1:]:
        unit = unit.rstrip(b"\0")  # what follows belongs to the next start code
        kind = unit[0] & 31 if codec == "h264" else unit[0] >> 1 & 63
        if kind not in _HEADERS[codec]:
            units += [struct.pack(">I", len(unit)), unit]
    return b"".join(units)


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + kind + content


def _codec_string(mp4: bytes, codec: str) -> str:
    """RFC 6381 names (ISO/IEC 14496-15 Annex E; AV1 in ISOBMFF, section 5) from the decoder's configuration."""
    box = {"h264": b"avcC", "hevc": b"hvcC", "av1": b"av1C"}[codec]
    _, found, record = mp4.partition(box)
    if not found or not record or record[0] & 127 != 1:  # the version; AV1 has a marker in front
        raise ValueError(f"a keyframe without {codec} parameter sets")
    if codec == "h264":
        return f"avc1.{record[1:4].hex()}"
    if codec == "hevc":
        space, tier, profile = record[1] >> 6, record[1] >> 5 & 1, record[1] & 31
        flags = int(f"{int.from_bytes(record[2:6], 'big'):032b}"[::-1], 2)
        constraints = ".".join(f"{byte:X}" for byte in record[6:12].rstrip(b"\0"))
        name = f"hvc1.{'ABC'[space - 1] if space else ''}{profile}.{flags:X}.{'LH'[tier]}{record[12]}"
        return f"{name}.{constraints}" if constraints else name
    profile, level, tier = record[1] >> 5, record[1] & 31, record[2] >> 7
    depth = 8 if not record[2] >> 6 & 1 else 12 if record[2] >> 5 & 1 else 10
    return f"av01.{profile}.{level:02}{'MH'[tier]}.{depth:02}"
