"""Parameter sets: found in containers and packets, and told apart."""

from __future__ import annotations

from pathlib import Path

import av
import pytest
from pictures import write

from tiler.decode.keyframe import headers_of, parameters_of


@pytest.mark.parametrize(("codec", "name"), [("libx264", "h264"), ("libx265", "hevc")])
def test_parameter_sets_of_the_container_are_those_in_band(tmp_path: Path, codec: str, name: str) -> None:
    with av.open(str(write(tmp_path / "a.mp4", 3, codec=codec))) as container:
        video = container.streams.video[0]
        headers = headers_of(name, video.codec_context.extradata)
        packet = next(container.demux(video))
        (filtered,) = av.BitStreamFilterContext(f"{name}_mp4toannexb", video).filter(packet)
    assert headers.startswith(b"\0\0\0\1")
    found = parameters_of(name, memoryview(headers))
    assert len(found) > 10
    assert found == parameters_of(name, memoryview(filtered))
    assert parameters_of(name, memoryview(b"\0\0\0\1\x26\x01" + bytes(20))) == b""


@pytest.mark.parametrize(("codec", "name", "suffix"), [("libvpx-vp9", "vp9", "webm"), ("libsvtav1", "av1", "mp4")])
def test_parameters_change_with_the_size_only(tmp_path: Path, codec: str, name: str, suffix: str) -> None:
    found = []
    for size in ((160, 96), (160, 98)):
        path = write(tmp_path / f"{size[1]}.{suffix}", 12, codec=codec, size=size, options={"g": "4"})
        with av.open(str(path)) as container:
            packets = [packet for packet in container.demux(video=0) if packet.is_keyframe]
        assert len(packets) > 1
        found.append({parameters_of(name, memoryview(packet)) for packet in packets})
    assert [len(parameters) for parameters in found] == [1, 1]
    assert found[0] != found[1]
    assert b"" not in found[0]
