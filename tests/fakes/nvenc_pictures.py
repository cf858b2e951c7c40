"""Configs and moving pictures for the tests of the encoders."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from types import ModuleType
from typing import Any

import av
import numpy as np

from fakes import nvenc_cupy
from tiler.config.models import EncoderConfig, MosaicConfig
from tiler.encode.base import Encoder
from tiler.encode.cpu import X264Encoder
from tiler.types import Mosaic, Packet

WIDTH, HEIGHT = 320, 192
Play = Callable[..., list[dict[str, Any]]]
"""Runs scenarios (see nvenc_scenario.py) and gives what happened."""
Load = Callable[[str], ModuleType]
"""Imports a module of tiler.encode on the fakes."""


def mosaic(**values: Any) -> MosaicConfig:
    return MosaicConfig.model_validate({"width": WIDTH, "height": HEIGHT, **values})


def config(**values: Any) -> EncoderConfig:
    return EncoderConfig.model_validate(values)


def picture(tick: int) -> np.ndarray:
    """NV12 (HEIGHT * 3 / 2, WIDTH): a ramp that moves, and chroma that changes."""
    y = (np.add.outer(np.arange(HEIGHT), np.arange(WIDTH) + 3 * tick) % 200 + 20).astype(np.uint8)
    uv = np.empty((HEIGHT // 2, WIDTH), np.uint8)
    uv[:, 0::2], uv[:, 1::2] = 100 + tick % 30, 150 - tick % 30
    return np.concatenate([y, uv])


def flat(tick: int, width: int, height: int) -> np.ndarray:
    """NV12 (height * 3 / 2, width) of two values: luma `50 + tick`, chroma one more."""
    nv12 = np.full((height * 3 // 2, width), 50 + tick, np.uint8)
    nv12[height:] += 1
    return nv12


def noise(tick: int, width: int, height: int) -> np.ndarray:
    """NV12 (height * 3 / 2, width) of every value, with runs of zeros and small ones, which H.264 must escape."""
    random = np.random.default_rng(tick)
    nv12 = random.integers(0, 256, (height * 3 // 2, width), np.uint8)
    small = random.random((height * 3 // 2, width)) < np.linspace(0, 1, width)
    return np.where(small, nv12 // 64, nv12)


class Compositor:
    """Two mosaics in turn, each overwritten as soon as it may be."""

    def __init__(self) -> None:
        with nvenc_cupy.Device(0):
            self.stream = nvenc_cupy.Stream(non_blocking=True)
            self._ring = [nvenc_cupy.empty((HEIGHT * 3 // 2, WIDTH), np.uint8) for _ in range(2)]

    def encode(self, encoder: Encoder, tick: int) -> list[Packet]:
        nv12 = self._ring[tick % 2]
        with nvenc_cupy.Device(0):
            self.stream.add(lambda: np.copyto(nv12.host, picture(tick)))
            ready = self.stream.record(nvenc_cupy.Event(disable_timing=True))
        packets = encoder.encode(Mosaic(tick, (nv12, nv12, nv12), (7,), nv12, ready))
        with nvenc_cupy.Device(0):
            self.stream.add(lambda: nv12.host.fill(0xEE))
            self.stream.run()
        return packets


def decoded(packets: list[Packet], codec: str = "h264") -> tuple[list[np.ndarray], Any]:
    """The pictures as NV12, and the decoder's context."""
    with av.open(BytesIO(b"".join(packet.data for packet in packets)), format=codec) as container:
        stream = container.streams.video[0]
        return [frame.reformat(format="nv12").to_ndarray() for frame in container.decode(stream)], stream.codec_context


def close_to_the_pictures(pictures: list[np.ndarray], count: int) -> None:
    assert len(pictures) == count
    for tick, found in enumerate(pictures):
        assert np.abs(found.astype(int) - picture(tick)).mean() < 3, tick


def from_planes(values: EncoderConfig, count: int, keyframes: tuple[int, ...] = ()) -> list[Packet]:
    """What libx264 makes of the same pictures as I420."""
    packets = []
    with X264Encoder(mosaic(), values, 2) as encoder:
        for tick in range(count):
            if tick in keyframes:
                encoder.request_keyframe()
            nv12 = picture(tick)
            y, u, v = nv12[:HEIGHT], nv12[HEIGHT:, 0::2], nv12[HEIGHT:, 1::2]
            packets += encoder.encode(Mosaic(tick, (y, u, v), ()))
        return packets + encoder.flush()
