"""The preview's video: fragments that a decoder takes at once, and queues that never hold the run up."""

from __future__ import annotations

import asyncio
import io
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiler.config.models import EncoderConfig, MosaicConfig
from tiler.encode.cpu import X264Encoder
from tiler.preview.fragments import LEAD_S, fragment, head
from tiler.preview.snapshot import snapshot
from tiler.preview.viewers import LATE_S, Audience, Coded, Viewer
from tiler.types import Mosaic, Packet

MOSAIC = MosaicConfig(width=320, height=192, fps=Fraction(30))


def encoded(count: int, **encoder: object) -> list[Packet]:
    """Pictures with a bright bar that moves."""
    with X264Encoder(MOSAIC, EncoderConfig(**encoder), 1) as session:  # type: ignore[arg-type]
        packets = []
        for tick in range(count):
            y = np.full((192, 320), 60, np.uint8)
            y[:, tick * 8 % 320 : tick * 8 % 320 + 16] = 200
            u, v = np.full((96, 160), 90, np.uint8), np.full((96, 160), 170, np.uint8)
            packets += session.encode(Mosaic(tick, (y, u, v), ()))
        return packets + session.flush()


@pytest.mark.parametrize("profile", ["low_latency", "quality"])
def test_fragments_play_with_their_times(profile: str) -> None:
    packets = encoded(40, profile=profile, gop_s=0.5)
    first = head(packets[0], MOSAIC, "h264")
    data = first.mp4 + b"".join(fragment(p, "h264", 1 / MOSAIC.fps, i + 1) for i, p in enumerate(packets))
    with av.open(io.BytesIO(data)) as container:
        frames = list(container.decode(video=0))
        times = [round((frame.time - LEAD_S) * 30) for frame in frames]
    assert times == list(range(40))
    assert first.codec.startswith("avc1.")
    assert len(first.codec) == 11


def test_a_fragment_needs_nothing_that_comes_later() -> None:
    packets = encoded(3, profile="low_latency")
    data = head(packets[0], MOSAIC, "h264").mp4 + fragment(packets[0], "h264", 1 / MOSAIC.fps, 1)
    with av.open(io.BytesIO(data)) as container:
        assert len(list(container.decode(video=0))) == 1


def test_a_delta_frame_has_no_head() -> None:
    with pytest.raises(ValueError, match="parameter sets"):
        head(encoded(3, profile="low_latency")[1], MOSAIC, "h264")


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_a_snapshot_is_the_newest_picture_in_its_colours(kind: str) -> None:
    from PIL import Image

    group = [Coded(packet, 0.0, 0.0) for packet in encoded(20, profile="quality", bitrate="8M", gop_s=2)]
    picture = Image.open(io.BytesIO(snapshot(group, "h264", None, kind)))
    assert picture.size == (320, 192)
    rgb = np.asarray(picture.convert("RGB")).astype(int)
    bar = 19 * 8 + 8
    assert rgb[100, bar].sum() - rgb[100, bar - 40].sum() > 300
    y, cb, cr = (60 - 16) / 219, (90 - 128) / 224, (170 - 128) / 224  # BT.709, limited range
    expected = [y + 1.5748 * cr, y - 0.1873 * cb - 0.4681 * cr, y + 1.8556 * cb]
    assert np.abs(rgb[100, 20] / 255 - np.clip(expected, 0, 1)).max() < 0.03
    part = Image.open(io.BytesIO(snapshot(group, "h264", (100, 0, 140, 50), kind)))
    assert part.size == (40, 50)


def test_no_snapshot_before_the_first_picture() -> None:
    with pytest.raises(ValueError, match="no picture"):
        snapshot([], "h264", None, "png")


def coded(index: int, *, keyframe: bool = False, size: int = 10) -> Coded:
    return Coded(Packet(bytes(size), index, index, keyframe), 0.0, 0.0)


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 4), st.floats(0, 0.7)), max_size=80),
    st.integers(0, 20),
)
def test_what_a_viewer_gets_can_always_be_decoded(steps: list[tuple[bool, int, float]], joins_at: int) -> None:
    """A keyframe first, and never a gap but before a keyframe, however slow the viewer is."""
    clock, audience = Clock(), Audience(4)
    viewer: Viewer | None = None
    got: list[Packet] = []
    published = 0
    for index, (keyframe, takes, seconds) in enumerate(steps):
        clock.now_s += seconds
        if index == joins_at:
            viewer = Viewer(audience.group, clock)
            audience.viewers.append(viewer)
        audience.publish(coded(index, keyframe=keyframe))
        published += viewer is not None
        for _ in range(takes if viewer is not None else 0):
            assert viewer is not None
            if (taken := viewer.take()) is not None:
                got.append(taken.packet)
    for before, after in zip([None, *got], got, strict=False):
        assert after.keyframe or (before is not None and after.pts == before.pts + 1)


def test_a_viewer_that_stalls_goes_on_at_the_next_keyframe_and_says_what_it_missed() -> None:
    clock = Clock()
    viewer = Viewer([coded(0, keyframe=True)], clock)
    for index in range(1, 60):
        clock.now_s = index / 30
        viewer.offer(coded(index, keyframe=index % 50 == 0))
    taken = []
    while (one := viewer.take()) is not None:
        taken.append(one.packet.pts)
    assert taken == list(range(50, 60))
    assert viewer.skipped == 50
    assert LATE_S < 50 / 30


def test_a_viewer_that_keeps_up_misses_nothing_and_others_do_not_matter() -> None:
    audience = Audience(2)
    audience.publish(coded(0, keyframe=True))
    audience.publish(coded(1))
    quick, stalled = audience.join(), audience.join()
    assert quick is not None
    assert stalled is not None
    assert audience.join() is None  # no room
    got = []
    for index in range(2, 300):
        audience.publish(coded(index, keyframe=index % 60 == 0, size=1 << 20))
        while (one := quick.take()) is not None:
            got.append(one.packet.pts)
    assert got == list(range(300))
    assert stalled.skipped > 0
    audience.leave(stalled)
    assert audience.join() is not None


def test_waiting_ends_with_a_picture_or_with_the_end() -> None:
    async def watch() -> list[int | None]:
        audience = Audience(1)
        viewer = audience.join()
        assert viewer is not None
        waiting = asyncio.create_task(viewer.next())
        await asyncio.sleep(0)
        audience.publish(coded(7, keyframe=True))
        first = await waiting
        waiting = asyncio.create_task(viewer.next())
        await asyncio.sleep(0)
        audience.close()
        return [first.packet.pts if first else None, None if await waiting is None else -1]

    assert asyncio.run(watch()) == [7, None]
