"""H.264 and HEVC as in MP4, NAL units behind their length, made Annex B where they lie.

FFmpeg's filters do that, too, and keyframes go through them: they know which parameter sets belong there.
But a filter lets go of the interpreter three times a packet, and each time the thread queues with those of
every other stream to get it back; of the packets between keyframes only the lengths have to be overwritten.
"""

from __future__ import annotations

from tiler.decode.keyframe import DamagedError, is_length_prefixed

_START = b"\x00\x00\x00\x01"
_LENGTH_AT = {"h264": 4, "hevc": 21}
"""Where avcC and hvcC (ISO/IEC 14496-15, 5.3.3.1 and 8.3.3.1) have the bytes of a length, less one, in two bits."""


def has_room(codec: str, extradata: bytes | None) -> bool:
    """Whether the lengths of a stream have four bytes, as long as a start code; nearly all have.

    Args:
        codec: h264 or hevc.
        extradata: avcC, hvcC or Annex B.
    """
    at = _LENGTH_AT[codec]
    return is_length_prefixed(extradata) and extradata is not None and len(extradata) > at and extradata[at] & 3 == 3


def put_start_codes(data: memoryview) -> None:
    """Overwrite each length of four bytes with a start code.

    Raises:
        DamagedError: the lengths do not add up to the packet, which is left as it is.
    """
    starts, at, end = [], 0, len(data)
    while at < end:
        starts.append(at)
        at += 4 + int.from_bytes(data[at : at + 4], "big")
    if at != end:
        raise DamagedError(f"its NAL units take {at} bytes of {end}")
    for at in starts:
        data[at : at + 4] = _START
