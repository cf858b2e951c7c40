"""One encoder session and its file: what leaves when, what the file says of itself, and what a kill leaves."""

from __future__ import annotations

import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tiler.config.models import EncoderConfig, MosaicConfig
from tiler.config.outputs import FileOutput
from tiler.encode.cpu import X264Encoder
from tiler.errors import InputError
from tiler.output.file import FileWriter
from tiler.types import Mosaic, Packet

WIDTH, HEIGHT = 320, 192


def mosaic_of(tick: int, value: int = 0) -> Mosaic:
    """A picture that moves, its planes in memory of their own."""
    y = (np.add.outer(np.arange(HEIGHT), np.arange(WIDTH) + 3 * tick) % 200 + 20 + value).astype(np.uint8)
    u, v = (np.full((HEIGHT // 2, WIDTH // 2), level, np.uint8) for level in (100, 150))
    return Mosaic(tick, (y, u, v), (0,))


def encode(count: int, fps: Any = 30, **config: Any) -> tuple[list[list[Packet]], MosaicConfig]:
    """What each picture gives out, and last what the flush does."""
    mosaic = MosaicConfig(width=WIDTH, height=HEIGHT, fps=fps)
    with X264Encoder(mosaic, EncoderConfig.model_validate(config), threads=2) as encoder:
        out = [encoder.encode(mosaic_of(tick)) for tick in range(count)]
        return [*out, encoder.flush()], mosaic


def write(path: Path, packets: list[Packet], mosaic: MosaicConfig, **output: Any) -> None:
    with FileWriter(FileOutput(file=path.name, **output), path, mosaic, "h264", overwrite=True) as file:
        for packet in packets:
            file.write(packet)


def test_low_latency_gives_out_each_picture_at_once() -> None:
    out, _ = encode(20, profile="low_latency")
    assert [[packet.pts for packet in packets] for packets in out] == [*([tick] for tick in range(20)), []]
    assert all(packet.pts == packet.dts for packets in out for packet in packets)


@pytest.mark.parametrize("profile", ["quality", "low_latency"])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
@pytest.mark.parametrize("fps", [Fraction(25), Fraction(30000, 1001)])
def test_a_file_has_every_picture_at_its_time_and_says_its_colours(
    tmp_path: Path, profile: str, suffix: str, fps: Fraction
) -> None:
    out, mosaic = encode(40, fps, profile=profile)
    packets = [packet for part in out for packet in part]
    assert sorted(packet.pts for packet in packets) == list(range(40))
    assert [packet.dts for packet in packets] == sorted(packet.dts for packet in packets)
    path = tmp_path / f"a{suffix}"
    write(path, packets, mosaic)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        times = [frame.pts * Fraction(frame.time_base.numerator, frame.time_base.denominator) for frame in frames]
        assert len(frames) == 40
        tolerance = Fraction(1, 1000) if suffix == ".mkv" else Fraction(1, 10_000)
        assert all(abs((time - times[0]) - tick / fps) <= tolerance for tick, time in enumerate(times))
        codec = stream.codec_context
        assert (codec.color_primaries, codec.color_trc, codec.colorspace) == (1, 1, 1)  # BT.709
        assert codec.color_range == 1  # limited


def test_keyframes_come_as_often_as_asked(tmp_path: Path) -> None:
    out, _ = encode(60, gop_s=0.5)
    keys = [packet.pts for part in out for packet in part if packet.keyframe]
    assert keys == [0, 15, 30, 45]


@pytest.mark.parametrize("bitrate", [300_000, 2_000_000])
def test_bitrate_is_kept(bitrate: int) -> None:
    mosaic = MosaicConfig(width=WIDTH, height=HEIGHT)
    rng = np.random.default_rng(1)
    bits = 0
    with X264Encoder(mosaic, EncoderConfig(bitrate=bitrate), threads=2) as encoder:
        for tick in range(90):  # noise: far more than either rate can hold
            y = rng.integers(16, 235, (HEIGHT, WIDTH), np.uint8)
            picture = Mosaic(tick, (y, *mosaic_of(tick).planes[1:]), (0,))
            bits += 8 * sum(len(packet.data) for packet in encoder.encode(picture))
        bits += 8 * sum(len(packet.data) for packet in encoder.flush())
    assert 0.5 * bitrate < bits / 3 < 1.7 * bitrate  # the two seconds of buffer allow for the excess


def test_two_sessions_of_the_same_pictures_are_equal() -> None:
    assert encode(30)[0] == encode(30)[0]


def test_a_killed_run_leaves_a_file_that_plays(tmp_path: Path) -> None:
    path = tmp_path / "killed.mp4"
    code = (
        "import os, signal, sys; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path\n"
        "from test_encode import encode, FileWriter, FileOutput\n"
        "out, mosaic = encode(120)\n"
        "file = FileWriter(FileOutput(file='x.mp4'), Path(sys.argv[1]), mosaic, 'h264', overwrite=True)\n"
        "for part in out:\n"
        "    for packet in part: file.write(packet)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    result = subprocess.run([sys.executable, "-c", code, str(path), str(Path(__file__).parent)], check=False)
    assert result.returncode == -signal.SIGKILL
    with av.open(str(path)) as container:
        assert sum(1 for _ in container.decode(video=0)) >= 90  # at most the last second is lost


def test_a_file_in_the_way_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a file")
    with pytest.raises(InputError, match="its folder cannot be made"):
        write(tmp_path / "a" / "b.mp4", [], MosaicConfig())


def test_an_output_that_no_disk_takes_is_named_before_the_run() -> None:
    with pytest.raises(InputError, match="cannot be written: No such file"):
        write(Path("/proc/a.mp4"), [], MosaicConfig())
