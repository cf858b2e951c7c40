"""Packets to record, and what plays of the files made of them."""

from __future__ import annotations

import contextlib
from fractions import Fraction
from pathlib import Path

import av
import av.error
import pictures
from test_encode import encode

from tiler.config.models import MosaicConfig
from tiler.types import Packet

FPS = 10
_CACHE: dict[tuple[int, float], tuple[list[Packet], MosaicConfig]] = {}


def stream(count: int, gop_s: float = 1.0) -> tuple[list[Packet], MosaicConfig]:
    """Packets of `count` pictures at 10 fps."""
    if (count, gop_s) not in _CACHE:
        parts, mosaic = encode(count, FPS, gop_s=gop_s)
        _CACHE[count, gop_s] = [packet for part in parts for packet in part], mosaic
    return _CACHE[count, gop_s]


def hevc_stream(count: int) -> tuple[list[Packet], MosaicConfig]:
    """The same in HEVC, as NVENC would give it: parameter sets in front of every keyframe."""
    mosaic = MosaicConfig(width=320, height=192, fps=Fraction(FPS))
    context = av.CodecContext.create("libx265", "w")
    assert isinstance(context, av.VideoCodecContext)
    context.width, context.height, context.pix_fmt = mosaic.width, mosaic.height, "yuv420p"
    context.time_base, context.framerate = 1 / mosaic.fps, mosaic.fps
    keyframes = f"keyint={FPS}:min-keyint={FPS}:open-gop=0:repeat-headers=1"
    context.options = {"x265-params": f"log-level=none:{keyframes}:pools=2"}
    encoded = []
    for number in range(count):
        frame = pictures.video_frame(number, mosaic.width, mosaic.height)
        frame.pts, frame.time_base = number, context.time_base
        encoded += context.encode(frame)
    encoded += context.encode(None)
    return [Packet(bytes(each), each.pts or 0, each.dts or 0, each.is_keyframe) for each in encoded], mosaic


def counted(path: Path) -> tuple[int, bool, float]:
    """Pictures that decode, whether the first is a keyframe, and the time of the first."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        return len(frames), bool(frames[0].key_frame), float(frames[0].time or 0)


def playable(path: Path) -> int:
    """Pictures up to the place where a file is cut off."""
    frames = 0
    with av.open(str(path)) as container, contextlib.suppress(av.error.InvalidDataError):
        for _ in container.decode(video=0):
            frames += 1
    return frames
