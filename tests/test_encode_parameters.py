"""The keys of `encoder`: refused by name where an encoder has them not, and there in libx264 where it has."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from fakes.nvenc_pictures import HEIGHT, WIDTH, config, decoded, from_planes, mosaic, picture

from tiler.config.outputs import FileOutput
from tiler.encode.cpu import X264Encoder
from tiler.encode.ffmpeg import packet_of, signal_bt709
from tiler.encode.parameters import Backend, refused, resolve
from tiler.errors import InputError
from tiler.output.file import FileWriter
from tiler.types import Mosaic


@pytest.mark.parametrize(
    ("values", "backend", "expected"),
    [
        pytest.param({"codec": "hevc"}, "libx264", "encoder.codec: hevc needs NVENC", id="hevc on libx264"),
        pytest.param({"codec": "av1"}, "libx264", "encoder.codec: av1 needs NVENC", id="av1 on libx264"),
        pytest.param({"tuning": "hq"}, "libx264", "encoder.tuning: libx264 has none", id="tuning on libx264"),
        pytest.param({"driver": "pyav"}, "libx264", "encoder.driver: pyav drives NVENC", id="driver on libx264"),
        pytest.param({"split": 2}, "libx264", "encoder.split: libx264 has no engines", id="split on libx264"),
        pytest.param({"split": 2}, "pyav", "encoder.split: NVENC cannot split H.264", id="split of H.264"),
        pytest.param(
            {"split": 2, "codec": "hevc"}, "pynvvideocodec", "encoder.split: PyNvVideoCodec cannot set", id="split"
        ),
        pytest.param(
            {"split": "none", "codec": "av1"}, "pynvvideocodec", "encoder.split: PyNvVideoCodec", id="no split"
        ),
        pytest.param({"quality": 20, "bitrate": "9M"}, "pyav", "encoder.quality: constant quality has no", id="both"),
        pytest.param({"rate_control": "cbr"}, "pyav", "encoder.rate_control: cbr needs encoder.bitrate", id="cbr"),
        pytest.param({"rate_control": "vbr"}, "libx264", "encoder.rate_control: vbr needs encoder.bitrate", id="vbr"),
        pytest.param({"rate_control": "cq", "bitrate": "9M"}, "pyav", "encoder.rate_control: cq is", id="cq, bitrate"),
        pytest.param({"tuning": "ull"}, "pyav", "encoder.tuning: ull is for profile low_latency", id="ull quality"),
    ],
)
def test_a_key_that_cannot_be_honoured_is_refused_by_name(
    values: dict[str, Any], backend: Backend, expected: str
) -> None:
    (line,) = refused(config(**values), backend)
    assert line.startswith(expected)
    with pytest.raises(InputError, match=expected.partition(":")[0]):
        resolve(mosaic(), config(**values), backend)


@pytest.mark.parametrize("backend", ["libx264", "pyav", "pynvvideocodec"])
@pytest.mark.parametrize("values", [{}, {"profile": "low_latency", "bitrate": "20M"}, {"split": "none"}])
def test_what_every_encoder_does_is_accepted_by_all(values: dict[str, Any], backend: Backend) -> None:
    assert refused(config(**values), backend) == ()


def test_low_latency_has_fixed_parameters() -> None:
    low = resolve(mosaic(fps=25), config(profile="low_latency", bitrate="5M"), "pyav")
    assert (low.b_frames, low.buffer_bits, low.rate_control, low.tuning) == (0, 200_000, "cbr", "ull")
    quality = resolve(mosaic(fps=25), config(bitrate="5M"), "pyav")
    assert (quality.b_frames, quality.buffer_bits, quality.rate_control, quality.tuning) == (2, 10_000_000, "vbr", "hq")


# libx264, which has the same keys


def x264_says(**values: Any) -> str:
    """What libx264 writes of its own parameters into the stream."""
    with X264Encoder(mosaic(), config(**values), 1) as encoder:
        nv12 = picture(0)
        y, u, v = nv12[:HEIGHT], nv12[HEIGHT:, 0::2], nv12[HEIGHT:, 1::2]
        data = b"".join(packet.data for packet in encoder.encode(Mosaic(0, (y, u, v), ())) + encoder.flush())
    start = data.index(b"x264 - core")
    return data[start : data.index(b"\0", start)].decode()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, ("rc=crf", "crf=22.0", "bframes=2", "subme=1", "keyint=60")),
        ({"quality": 30}, ("crf=30.0",)),
        ({"preset": "p7"}, ("subme=8",)),
        ({"gop_s": 0.5}, ("keyint=15",)),
        ({"bitrate": "3M"}, ("rc=abr", "bitrate=3000", "vbv_maxrate=4500", "vbv_bufsize=6000")),
        ({"bitrate": "3M", "rate_control": "cbr"}, ("rc=cbr", "vbv_maxrate=3000", "nal_hrd=none")),
        ({"bitrate": "3M", "profile": "low_latency"}, ("bframes=0", "rc=cbr", "vbv_bufsize=100", "rc_lookahead=0")),
    ],
)
def test_every_key_reaches_libx264(values: dict[str, Any], expected: tuple[str, ...]) -> None:
    said = x264_says(**values).split()
    assert [word for word in expected if word not in said] == []


@pytest.mark.parametrize("profile", ["quality", "low_latency"])
def test_libx264_makes_a_keyframe_of_the_next_picture_when_asked(profile: str) -> None:
    packets = from_planes(config(profile=profile), 20, keyframes=(7,))
    assert [packet.pts for packet in packets if packet.keyframe] == [0, 7]
    pictures, _ = decoded(packets[[packet.pts for packet in packets].index(7) :])
    assert len(pictures) == 13  # it can be cut there


# Files


@pytest.mark.parametrize(("codec", "library"), [("hevc", "libx265"), ("av1", "libsvtav1")])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_files_hold_hevc_and_av1(codec: str, library: str, suffix: str, tmp_path: Path) -> None:
    context = av.CodecContext.create(library, "w")
    context.width, context.height, context.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    context.time_base = Fraction(1, 30)
    context.framerate = Fraction(30)
    signal_bt709(context)
    context.options = {"preset": "ultrafast", "x265-params": "log-level=none"} if codec == "hevc" else {"preset": "12"}
    packets = []
    for tick in range(25):
        frame = av.VideoFrame.from_ndarray(picture(tick), format="nv12").reformat(format="yuv420p")
        frame.pts = tick
        packets += context.encode(frame)
    packets += context.encode(None)
    path = tmp_path / f"a{suffix}"
    with FileWriter(FileOutput(file=path.name), path, mosaic(), codec, overwrite=True) as file:
        for packet in packets:
            file.write(packet_of(packet))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name.removeprefix("lib"), stream.codec_context.color_primaries) in (
            ("hevc", 1), ("dav1d", 1), ("av1", 1),
        )  # fmt: skip
        assert sum(1 for _ in container.decode(stream)) == 25


def test_a_format_that_cannot_hold_the_codec_is_refused_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot hold AV1; accepted for it: \.mp4, \.mkv"):
        FileWriter(FileOutput(file="a.mov"), tmp_path / "a.mov", mosaic(), "av1", overwrite=True)
