"""What the encoders share that speak through PyAV."""

from __future__ import annotations

import threading

import av
from av.video.codeccontext import VideoCodecContext

from tiler.errors import InputError
from tiler.types import Packet

BT709 = 1
"""Code point of its primaries, its transfer and its matrix alike (ITU-T H.273)."""
_LIMITED = 1  # AVCOL_RANGE_MPEG


def signal_bt709(context: VideoCodecContext) -> None:
    """Have the stream say what every mosaic is: BT.709, limited range."""
    context.color_primaries = context.color_trc = context.colorspace = BT709
    context.color_range = _LIMITED


def check_consumed(context: VideoCodecContext) -> None:
    """FFmpeg leaves the options over that it does not know; none may be.

    Raises:
        InputError: this build of FFmpeg lacks an option that tiler sets.
    """
    if context.options:
        left = ", ".join(f"{name}={value}" for name, value in context.options.items())
        raise InputError(f"encoder: {context.name} of this FFmpeg does not know {left}")


def packet_of(packet: av.Packet) -> Packet:  # type: ignore[type-arg]
    """PyAV's packet as ours; its times are ticks already."""
    pts = packet.pts or 0
    return Packet(bytes(packet), pts, packet.dts if packet.dts is not None else pts, packet.is_keyframe)


def take(request: threading.Event) -> bool:
    """Whether something was requested since the last time; a request that comes meanwhile is kept."""
    asked = request.is_set()
    if asked:
        request.clear()
    return asked
