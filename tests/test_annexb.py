"""NAL units behind their length made Annex B in place: as FFmpeg's filter makes them, and damage is refused."""

from __future__ import annotations

from pathlib import Path

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import write

from tiler.decode.annexb import has_room, put_start_codes
from tiler.decode.keyframe import DamagedError


@pytest.mark.parametrize(("codec", "name"), [("libx264", "h264"), ("libx265", "hevc")])
def test_packets_are_as_ffmpegs_filter_makes_them(tmp_path: Path, codec: str, name: str) -> None:
    path = write(tmp_path / "a.mp4", 12, codec=codec)
    compared = 0
    with av.open(str(path)) as ours, av.open(str(path)) as theirs:
        video = theirs.streams.video[0]
        assert has_room(name, video.codec_context.extradata)
        ffmpeg = av.BitStreamFilterContext(f"{name}_mp4toannexb", video)
        for mine, other in zip(ours.demux(ours.streams.video[0]), theirs.demux(video), strict=True):
            if not mine.size:
                continue
            (filtered,) = ffmpeg.filter(other)
            if mine.is_keyframe:
                continue
            put_start_codes(memoryview(mine))
            assert bytes(mine).replace(b"\0\0\0\1", b"\0\0\1") == bytes(filtered).replace(b"\0\0\0\1", b"\0\0\1")
            compared += 1
    assert compared > 5


@given(st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=9))
def test_every_unit_gets_a_start_code(units: list[bytes]) -> None:
    data = bytearray(b"".join(len(unit).to_bytes(4, "big") + unit for unit in units))
    put_start_codes(memoryview(data))
    assert bytes(data) == b"".join(b"\0\0\0\1" + unit for unit in units)


@given(st.binary(max_size=64))
def test_what_does_not_add_up_is_refused_and_left(data: bytes) -> None:
    changed = bytearray(data)
    try:
        put_start_codes(memoryview(changed))
    except DamagedError:
        assert bytes(changed) == data
    else:
        assert len(changed) == len(data)


def test_streams_with_other_lengths_or_none_are_left_to_the_filter() -> None:
    assert not has_room("h264", None)
    assert not has_room("h264", b"\0\0\0\1\x67")
    assert not has_room("h264", bytes((1, 100, 0, 40, 0xFC | 1)))
    assert not has_room("hevc", bytes((1, 100, 0, 40, 0xFF)))
    assert has_room("h264", bytes((1, 100, 0, 40, 0xFF)))
