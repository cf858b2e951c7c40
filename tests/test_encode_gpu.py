"""The CUDA encoders on a real GPU: what comes out is what went in, whichever encoder the chip allows."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import av
import numpy as np
import pytest

from tests.gpu import needs_gpu
from tiler.config.models import EncoderConfig, MosaicConfig
from tiler.encode.base import Encoder
from tiler.encode.cpu import X264Encoder
from tiler.encode.cuda import open_cuda_encoder
from tiler.errors import InputError
from tiler.observe.copies import Copies
from tiler.types import Mosaic, Packet

WIDTH, HEIGHT, COUNT = 640, 384, 40
MOSAIC = MosaicConfig(width=WIDTH, height=HEIGHT)
THREADS = 2


pytestmark = needs_gpu


def picture(tick: int) -> np.ndarray:
    """NV12 (HEIGHT * 3 / 2, WIDTH): a ramp that moves, and chroma that changes."""
    y = (np.add.outer(np.arange(HEIGHT), np.arange(WIDTH) + 3 * tick) % 200 + 20).astype(np.uint8)
    uv = np.empty((HEIGHT // 2, WIDTH), np.uint8)
    uv[:, 0::2], uv[:, 1::2] = 100 + tick % 30, 150 - tick % 30
    return np.concatenate([y, uv])


def encode(encoder: Encoder, keyframes: tuple[int, ...] = ()) -> list[Packet]:
    """All pictures through two mosaics in turn, each overwritten by the stream that made it once it may be."""
    import cupy

    with cupy.cuda.Device(0), cupy.cuda.Stream(non_blocking=True) as stream:
        pictures = [cupy.asarray(picture(tick)) for tick in range(COUNT)]
        ring = [cupy.empty((HEIGHT * 3 // 2, WIDTH), cupy.uint8) for _ in range(2)]
        packets = []
        for tick, made in enumerate(pictures):
            if tick in keyframes:
                encoder.request_keyframe()
            nv12 = ring[tick % 2]
            cupy.copyto(nv12, made)
            ready = cupy.cuda.Event(disable_timing=True)
            ready.record(stream)
            y, uv = nv12[:HEIGHT], nv12[HEIGHT:]
            packets += encoder.encode(Mosaic(tick, (y, uv[:, 0::2], uv[:, 1::2]), (), nv12, ready))
            nv12.fill(0xEE)
        return packets + encoder.flush()


def from_host(config: EncoderConfig) -> list[Packet]:
    packets = []
    with X264Encoder(MOSAIC, config, THREADS) as encoder:
        for tick in range(COUNT):
            nv12 = picture(tick)
            y, u, v = nv12[:HEIGHT], nv12[HEIGHT:, 0::2], nv12[HEIGHT:, 1::2]
            packets += encoder.encode(Mosaic(tick, (y, u, v), ()))
        return packets + encoder.flush()


@pytest.mark.parametrize("profile", ["quality", "low_latency"])
def test_read_back_gives_the_packets_that_libx264_makes_of_the_same_pictures(profile: Any) -> None:
    from tiler.encode.readback_cuda import COPY, ReadbackEncoder

    copies, config = Copies(), EncoderConfig(profile=profile)
    with ReadbackEncoder(MOSAIC, config, THREADS, 0, copies) as encoder:
        assert encode(encoder) == from_host(config)
    assert copies.summary(COUNT)["by_name"][COPY]["bytes_per_tick"] == WIDTH * HEIGHT * 3 // 2


@pytest.mark.parametrize("driver", ["auto", "pyav", "pynvvideocodec"])
@pytest.mark.parametrize("profile", ["quality", "low_latency"])
def test_the_encoder_of_this_chip_encodes_every_picture_or_says_why_it_cannot(driver: Any, profile: Any) -> None:
    config, copies = EncoderConfig(driver=driver, profile=profile, quality=12), Copies()
    refusal = ""
    try:
        encoder, name, reason = open_cuda_encoder(MOSAIC, config, THREADS, 0, copies)
    except InputError as error:
        refusal = str(error)
    if refusal:  # only where a driver was insisted on
        assert refusal.startswith(f"encoder.driver: {driver} cannot be used: ")
        return
    try:
        packets = encode(encoder, keyframes=(13,))
    finally:
        encoder.close()
    assert encoder.sessions == 1
    assert reason
    if name == "libx264":
        assert "this GPU has no NVENC" in reason
    else:
        assert copies.summary(COUNT)["device_to_host_bytes"] == 0
    assert sorted(packet.pts for packet in packets) == list(range(COUNT))
    assert [packet.dts for packet in packets] == sorted({packet.dts for packet in packets})
    assert [packet.pts for packet in packets if packet.keyframe] == [0, 13]
    with av.open(BytesIO(b"".join(packet.data for packet in packets)), format="h264") as container:
        stream = container.streams.video[0]
        frames = [frame.reformat(format="nv12").to_ndarray() for frame in container.decode(stream)]
        codec = stream.codec_context
        assert (codec.color_primaries, codec.color_trc, codec.colorspace, codec.color_range) == (1, 1, 1, 1)
    assert len(frames) == COUNT
    for tick, frame in enumerate(frames):
        assert np.abs(frame.astype(int) - picture(tick)).mean() < 3, tick
