"""Packets to record, and what plays of the files made of them."""

from __future__ import annotations

import contextlib
from pathlib import Path

import av
import av.error
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
