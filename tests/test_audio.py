"""The sound of one source: in sync, in every container, and never in the way of the pictures."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import beeps
import numpy as np
import pytest
from beeps import run, text
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from tiler.cli import main
from tiler.config.loader import load
from tiler.config.outputs import ClipOutput, SegmentsOutput
from tiler.errors import ConfigError, InputError
from tiler.output.clip import Preroll
from tiler.output.segments import SegmentWriter
from tiler.sound import demux, reader
from tiler.sound.encoder import SoundEncoder
from tiler.types import CLOCK_HZ, Packet

FPS = beeps.FPS
PICTURE_S = 1 / FPS


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return beeps.write_all(tmp_path_factory.mktemp("clips"))


def worst_s(path: Path, count: int) -> float:
    """The largest time between a flash and its beep; there are `count` of each."""
    flashes, heard = beeps.flashes_of(path), beeps.beeps_of(path)
    assert len(flashes) == len(heard) == count, (flashes, heard)
    return max(abs(flash - beep) for flash, beep in zip(flashes, heard, strict=True))


@pytest.mark.parametrize(
    ("clip", "source", "more", "count"),
    [
        ("a.mp4", "", "", 4),
        ("a.mkv", "", "", 4),
        ("a.ts", "", "", 4),
        ("camera.mov", "", "", 4),
        ("a.mp4", ", start_s: 0.8", "", 3),
        ("a.ts", ", start_s: 1.7, end_s: 3.5", "", 2),
        ("a.mp4", ", loop: true", "duration_s: 11", 11),
        ("long.mp4", ", loop: true", "duration_s: 11", 11),
        ("short.mp4", ", loop: true", "duration_s: 11", 11),
        ("a.mkv", ", loop: true, start_s: 1.0, end_s: 3.02", "duration_s: 7", 7),
    ],
)
@pytest.mark.parametrize("codec", ["aac", "opus", "copy"])
def test_the_beep_is_at_the_flash(tmp_path: Path, clips: Path, clip: str, source: str, more: str, count: int,
                                  codec: str) -> None:  # fmt: skip
    name = "o.mov" if clip == "camera.mov" and codec == "copy" else "o.mkv"  # MKV takes no G.711
    run(tmp_path, text(clips, f"{{file: {name}}}", clip=clip, source=source, more=more, audio=f"codec: {codec}"))
    assert worst_s(tmp_path / name, count) < PICTURE_S


_OUTPUTS = "{file: o.mp4}, {file: o.mov}, {file: o.mkv}, {segments: 's-{index}.mp4'}, {hls: h}, {clip: 'c-{index}.mkv'}"


@pytest.mark.parametrize("codec", ["aac", "opus", "copy"])
def test_every_container_plays_with_pictures_and_sound(tmp_path: Path, clips: Path, codec: str) -> None:
    outputs = _OUTPUTS if codec != "opus" else _OUTPUTS.replace("{file: o.mov}, ", "")
    path = tmp_path / "c.yaml"
    path.write_text(text(clips, f"{outputs}, {{pipe: stdout}}", audio=f"codec: {codec}"), encoding="utf-8")
    done = subprocess.run(command(path), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    (tmp_path / "piped.ts").write_bytes(done.stdout)
    names = ["o.mp4", "o.mkv", "s-000000.mp4", "h/index.m3u8", "piped.ts", *(["o.mov"] if codec != "opus" else [])]
    for name in names:
        assert worst_s(tmp_path / name, 4) < PICTURE_S, name
        with av.open(str(tmp_path / name)) as container:
            assert container.streams.audio[0].codec.canonical_name == ("opus" if codec == "opus" else "aac")
            assert sum(1 for _ in container.decode(video=0)) == 100
    assert "clip" not in done.stderr.decode()


def command(path: Path) -> list[str]:
    return [sys.executable, "-c", "from tiler.cli import main; main()", "run", str(path)]


def test_a_packet_of_another_codec_is_copied_where_the_container_takes_it(tmp_path: Path, clips: Path) -> None:
    run(tmp_path, text(clips, "{file: o.mp4}", clip="mp3.mp4", audio="codec: copy"))
    assert worst_s(tmp_path / "o.mp4", 4) < PICTURE_S
    message = r"\.mkv cannot carry pcm_alaw sound; accepted for it: aac, opus, "
    with pytest.raises(InputError, match=message):
        run(tmp_path, text(clips, "{file: o.mkv}", clip="camera.mov", audio="codec: copy"))


def _delivered(folder: Path, config: str, monkeypatch: pytest.MonkeyPatch) -> list[Packet]:
    taken: list[Packet] = []
    write = reader.Sound.join

    def join(self: reader.Sound, packets: list[Packet]) -> list[Packet]:
        taken.extend(joined := write(self, packets))
        return joined

    monkeypatch.setattr(reader.Sound, "join", join)
    run(folder, config)
    return taken


@pytest.mark.parametrize("profile", ["quality", "low_latency"])
def test_a_group_of_pictures_has_exactly_the_sound_of_its_time(
    tmp_path: Path, clips: Path, profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = f"encoder: {{profile: {profile}, gop_s: 0.5}}"
    packets = _delivered(tmp_path, text(clips, "{file: o.mkv}", more=more), monkeypatch)
    assert sum(packet.keyframe for packet in packets) >= 8
    starts = [packet.pts for packet in packets if packet.keyframe]
    group, heard = -1, []
    for packet in packets:
        group += packet.keyframe
        first = starts[group] * CLOCK_HZ // FPS
        last = starts[group + 1] * CLOCK_HZ // FPS if group + 1 < len(starts) else 100 * CLOCK_HZ // FPS
        assert all(first <= sound.pts < last for sound in packet.sound)
        heard += [sound.pts for sound in packet.sound]
    assert heard == [index * 1024 * 15 // 8 for index in range(len(heard))]
    assert heard[-1] >= 100 * CLOCK_HZ // FPS - 1920


@pytest.mark.parametrize("name", ["c-000000.mp4", "named.mkv"])
def test_a_clip_and_a_segment_have_the_sound_of_their_pictures(
    tmp_path: Path, clips: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = text(clips, "{file: all.mp4}", more="encoder: {gop_s: 0.4}")
    packets = _delivered(tmp_path, config, monkeypatch)
    mosaic = load(tmp_path / "c.yaml").config.mosaic
    sound = SoundEncoder("aac", 128_000).format
    keeper = Preroll(ClipOutput(clip="c-{index}.mp4", preroll_s=2), tmp_path / "c-{index}.mp4", mosaic, "h264", sound)
    output = SegmentsOutput(segments="s-{index}.mp4", every_s=1.7)  # not at a flash
    row = SegmentWriter(output, tmp_path / "s-{index}.mp4", tmp_path / "s.jsonl", mosaic, "h264", sound)
    for packet in packets:
        keeper.write(packet)
        row.write(packet)
    row.close()
    keeper.save(None if name.startswith("c-") else tmp_path / name)
    assert worst_s(tmp_path / name, 2) < PICTURE_S  # at 2.2 and 3.2 s
    assert worst_s(tmp_path / "s-000000.mp4", 2) < PICTURE_S
    assert worst_s(tmp_path / "s-000001.mp4", 2) < PICTURE_S


@pytest.mark.parametrize("codec", ["aac", "copy"])
def test_sound_that_breaks_leaves_the_pictures_whole_and_is_said(
    tmp_path: Path, clips: Path, codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lap = demux.SoundInput.lap

    def broken(self: demux.SoundInput) -> Iterator[Any]:
        for index, packet in enumerate(lap(self)):
            if index == 40:
                raise av.error.InvalidDataError(1, "damaged beyond repair")
            yield packet

    monkeypatch.setattr(demux.SoundInput, "lap", broken)
    report = run(tmp_path, text(clips, "{file: o.mp4}", audio=f"codec: {codec}"))
    assert report["frames"] == 100
    assert report["audio"]["state"] == "stopped"
    assert report["audio"]["errors"] == 1
    assert "damaged beyond repair" in report["audio"]["error"]
    assert report["outputs"][0]["error"] is None
    assert beeps.flashes_of(tmp_path / "o.mp4") == pytest.approx([at / FPS for at in beeps.FLASHES])
    assert len(beeps.beeps_of(tmp_path / "o.mp4")) == 1
    if codec == "aac":  # the rest is silence, which players need not wait for
        assert report["audio"]["packets"] == 188


def test_damaged_sound_is_counted_and_the_pictures_are_whole(tmp_path: Path, clips: Path) -> None:
    data = bytearray((clips / "a.mp4").read_bytes())
    with av.open(str(clips / "a.mp4")) as container:
        pieces = [(packet.pos, packet.size) for packet in container.demux(audio=0) if packet.size]
    random = np.random.default_rng(7)
    for at, size in pieces[60:]:
        data[at : at + size] = random.bytes(size)
    (tmp_path / "damaged.mp4").write_bytes(data)
    report = run(tmp_path, text(tmp_path, "{file: o.mp4}", clip="damaged.mp4"))
    assert report["audio"]["errors"] > 20
    assert report["audio"]["packets"] == 188
    assert beeps.flashes_of(tmp_path / "o.mp4") == pytest.approx([at / FPS for at in beeps.FLASHES])


@given(
    pieces=st.lists(st.tuples(st.integers(-9000, 200_000), st.integers(1, 5000)), max_size=12),
    codec=st.sampled_from(["aac", "opus"]),
)
@settings(max_examples=40)
def test_whatever_comes_when_the_encoder_leaves_no_gap(pieces: list[tuple[int, int]], codec: str) -> None:
    encoder = SoundEncoder(codec, 64_000)
    packets = [packet for pts, count in pieces for packet in encoder.add(np.zeros((2, count), np.float32), pts)]
    packets += encoder.silence(220_000)
    assert packets[0].pts <= 1920
    assert all(after.pts == packet.pts + packet.duration for packet, after in pairwise(packets))
    assert packets[-1].pts >= 220_000


def test_a_file_that_gives_nothing_any_more_does_not_hold_the_run_up(
    tmp_path: Path, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hung = threading.Event()

    def hanging(self: demux.SoundInput) -> Iterator[Any]:
        hung.wait()
        return iter(())

    monkeypatch.setattr(reader, "_PATIENCE_S", 0.2)
    monkeypatch.setattr(demux.SoundInput, "lap", hanging)
    try:
        report = run(tmp_path, text(clips, "{file: o.mp4}"))
    finally:
        hung.set()
    assert report["frames"] == 100
    assert report["audio"]["error"] == "the file gave nothing for 0.2 s"
    assert len(beeps.flashes_of(tmp_path / "o.mp4")) == 4


@pytest.mark.parametrize("subcommand", ["run", "check"])
def test_a_source_without_sound_is_one_line(tmp_path: Path, clips: Path, subcommand: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text(clips, "{file: o.mp4}", clip="still.mp4"), encoding="utf-8")
    result = CliRunner().invoke(main, [subcommand, str(path)])
    assert result.exit_code == 2
    expected = f"audio: source a has no sound ({clips}/still.mp4); another source is needed, or no `audio`\n"
    assert result.output == expected
    assert not (tmp_path / "o.mp4").exists()


@pytest.mark.parametrize(
    ("audio", "output", "expected"),
    [
        ("{source: b}", "{file: a.mp4}", ":4: audio.source: no source has this id; accepted: a (got 'b')"),
        ("{source: a, codec: mp3}", "{file: a.mp4}", ":4: audio.codec: must be 'aac', 'opus' or 'copy'"),
        ("{source: a, bitrate: 1M}", "{file: a.mp4}", ":4: audio.bitrate: expected 16k to 512k bits per second"),
        ("{source: a, codec: copy, bitrate: 64k}", "{file: a.mp4}", ":4: audio.bitrate: copy takes the sound as it"),
        ("{source: a, codec: opus}", "{push: 'rtmp://h/live/x'}",
         ":5: outputs[0].push: rtmp cannot carry opus sound; accepted for it: aac, mp3 (audio.codec is opus)"),
        ("{source: a, codec: opus}", "{file: a.mov}", ":5: outputs[0].file: .mov cannot carry opus sound; accepted"),
        ("{codec: aac}", "{file: a.mp4}", ":4: audio.source: is needed"),
    ],
)  # fmt: skip
def test_sound_that_cannot_be_is_told_with_what_is_accepted(
    tmp_path: Path, clips: Path, audio: str, output: str, expected: str
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        f"sources: [{{id: a, uri: {clips}/a.mp4}}]\n\n\naudio: {audio}\noutputs: [{output}]\n", encoding="utf-8"
    )
    with pytest.raises(ConfigError) as caught:
        load(path)
    (line,) = caught.value.findings
    assert line.startswith(f"{path}{expected}"), line


def test_without_the_key_nothing_of_it_is_loaded(tmp_path: Path, clips: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        text(clips, "{file: o.mp4}").replace("audio: {source: a, codec: aac}", ""), encoding="utf-8"
    )
    code = "import sys; from click.testing import CliRunner; from tiler.cli import main; " \
           "print(CliRunner().invoke(main, sys.argv[1:]).exit_code, [m for m in sys.modules if 'tiler.sound' in m])"
    done = subprocess.run([sys.executable, "-c", code, "run", str(path)], capture_output=True, text=True, check=False)
    assert done.stdout == "0 []\n"
    with av.open(str(tmp_path / "o.mp4")) as container:
        assert not container.streams.audio
