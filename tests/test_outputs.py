"""What outputs leave on the disk: clips, HLS folders, recordings; and what a full disk or a kill leaves of them."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pictures
import pytest
from click.testing import CliRunner
from consumers import free_port
from recordings import FPS, counted, playable, stream

from tiler import stages
from tiler.cli import main
from tiler.config.loader import load
from tiler.config.outputs import ClipOutput, FileOutput
from tiler.errors import ConfigError, InputError, StageError
from tiler.observe.run import RunObserver
from tiler.output.clip import Preroll
from tiler.pipeline import Run
from tiler.types import Mosaic, Packet


@pytest.mark.parametrize("preroll_s", [1, 2.5, 4])
def test_a_clip_holds_at_least_the_last_seconds_and_starts_at_a_keyframe(tmp_path: Path, preroll_s: float) -> None:
    packets, mosaic = stream(75)
    keeper = Preroll(ClipOutput(clip="c-{index}.mp4", preroll_s=preroll_s), tmp_path / "c-{index}.mp4", mosaic, "h264")
    with pytest.raises(StageError, match="no picture yet"):
        keeper.save()
    for packet in packets:
        keeper.write(packet)
    paths = [keeper.save(), keeper.save(), keeper.save(tmp_path / "named.mkv")]
    assert [path.name for path in paths] == ["c-000000.mp4", "c-000001.mp4", "named.mkv"]
    for path in paths:
        frames, keyframe, first_s = counted(path)
        assert keyframe
        assert preroll_s * FPS <= frames <= (preroll_s + 1) * FPS
        assert first_s == pytest.approx(0, abs=0.11)
    with pytest.raises(InputError, match="exists already"):
        keeper.save(tmp_path / "named.mkv")


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_a_clip_that_the_disk_does_not_take_leaves_nothing_behind(tmp_path: Path, suffix: str) -> None:
    packets, mosaic = stream(75)
    keeper = Preroll(ClipOutput(clip="c-{index}.mp4"), tmp_path / "c-{index}.mp4", mosaic, "h264")
    list(map(keeper.write, packets))
    path = tmp_path / f"named.{suffix}"
    (tmp_path / f".named.part.{suffix}").symlink_to("/dev/full")
    with pytest.raises(StageError, match="No space left on device"):
        keeper.save(path)
    assert not list(tmp_path.iterdir())
    assert counted(keeper.save(path))[0] == 75  # there is room again


def test_a_recording_started_and_stopped_in_the_middle_of_a_run_plays_from_its_start(
    tmp_path: Path, config: Callable[..., Path]
) -> None:
    loaded = load(config("  - {file: all.mp4}\n", more="encoder: {gop_s: 60.0}\nduration_s: 2"))
    built = stages.build(loaded)
    observer = RunObserver(loaded.config, built.choices, built.feeds, built.encoder)
    with Run(loaded, built, observer) as runner:
        encode_picture = built.encoder.encode
        recordings = []

        def encode_and_record(mosaic: Mosaic) -> list[Packet]:
            if mosaic.tick == 10:
                recordings.append(runner.outputs.start_recording(FileOutput(file=str(tmp_path / "part.mp4"))))
            if mosaic.tick == 30:
                runner.outputs.stop_recording(recordings[0])
            return encode_picture(mosaic)

        built.encoder.encode = encode_and_record  # type: ignore[method-assign]
        runner.start()
        runner.wait()
    frames, keyframe, first_s = counted(tmp_path / "part.mp4")
    assert keyframe
    assert 5 <= frames <= 20  # less what the encoder held back
    assert first_s == pytest.approx(0, abs=0.09)
    assert counted(tmp_path / "all.mp4")[0] == 50
    assert [row["name"].rpartition("/")[2] for row in observer.report()["outputs"]] == ["all.mp4", "part.mp4"]


def test_a_push_that_nobody_ever_took_is_said_and_the_file_beside_it_is_whole(
    tmp_path: Path, config: Callable[..., Path]
) -> None:
    entry = f"  - {{push: 'rtmp://user:secret@127.0.0.1:{free_port()}/x'}}\n  - {{file: good.mp4}}\n"
    path = config(entry, realtime=True, more="duration_s: 8")
    done = subprocess.run(command(path), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "push rtmp://user:***@127.0.0.1" in done.stderr
    assert "Connection refused" in done.stderr
    assert "outputs 1 of 2 up" in done.stderr
    assert "secret" not in done.stderr + done.stdout
    assert counted(tmp_path / "good.mp4")[0] > 10


# Whole runs, as a user starts them


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., Path]:
    pictures.write(tmp_path / "a.mp4", 50, rate=25)

    def write(outputs: str, *, realtime: bool = False, more: str = "") -> Path:
        source = "{id: a, uri: a.mp4, loop: true, realtime: true}" if realtime else "{id: a, uri: a.mp4}"
        text = f"sources: [{source}]\nmosaic: {{width: 320, height: 192, fps: 25}}\ndetector: none\n{more}\n"
        path = tmp_path / "c.yaml"
        path.write_text(f"{text}outputs:\n{outputs}", encoding="utf-8")
        return path

    return write


def command(path: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-c", "from tiler.cli import main; main()", "run", str(path), *arguments]


def test_a_full_disk_stops_that_output_alone_and_the_exit_code_says_so(
    tmp_path: Path, config: Callable[..., Path]
) -> None:
    (tmp_path / "full.mkv").symlink_to("/dev/full")
    (tmp_path / "h").mkdir()
    (tmp_path / "h/index.m3u8.tmp").symlink_to("/dev/full")
    path = config(
        "  - {file: full.mkv}\n  - {file: good.mp4}\n  - {segments: 's-{index}.mkv', every_s: 1}\n  - {hls: h}\n"
    )
    done = subprocess.run(
        command(path, "--overwrite", "--report", str(tmp_path / "r.json")), capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "file /dev/full: " in done.stderr
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    full, good, row, folder = json.loads((tmp_path / "r.json").read_text())["outputs"]
    assert (full["kind"], full["state"]) == ("file", "stopped")
    assert "No space left on device" in full["error"]
    assert (good["packets"], good["dropped"], good["error"]) == (50, 0, None)
    assert row["packets"] == 50
    assert (folder["kind"], folder["state"]) == ("hls", "stopped")
    assert folder["error"] == f"{tmp_path / 'h/index.m3u8'}: No space left on device"
    assert counted(tmp_path / "good.mp4")[0] == 50


def test_what_was_recorded_before_the_disk_was_full_plays(tmp_path: Path, config: Callable[..., Path]) -> None:
    path = config("  - {file: big.mp4}\n", realtime=True, more="encoder: {quality: 1, gop_s: 0.2}\nduration_s: 60")
    limit = 150_000

    def small_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    began_s = time.monotonic()
    done = subprocess.run(command(path), capture_output=True, text=True, check=False, preexec_fn=small_disk)
    assert done.returncode == 1
    assert "File too large" in done.stderr
    assert time.monotonic() - began_s < 50  # with nobody left to run for, it ends
    assert (tmp_path / "big.mp4").stat().st_size <= limit
    assert playable(tmp_path / "big.mp4") > 5


def test_standard_output_carries_the_stream_and_nothing_else(tmp_path: Path, config: Callable[..., Path]) -> None:
    for container in ("mpegts", "mp4", "mkv"):
        path = config(f"  - {{pipe: stdout, format: {container}}}\n")
        done = subprocess.run(command(path), capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        assert b"50 frames" in done.stderr
        (tmp_path / "piped").write_bytes(done.stdout)
        assert counted(tmp_path / "piped")[0] == 50
        if container == "mpegts":
            assert len(done.stdout) % 188 == 0
            assert all(done.stdout[at] == 0x47 for at in range(0, len(done.stdout), 188))


def test_a_reader_that_goes_away_ends_the_run_without_a_traceback(config: Callable[..., Path]) -> None:
    path = config("  - {pipe: '-'}\n", realtime=True, more="duration_s: 60")
    with subprocess.Popen(command(path), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(188)
        process.stdout.close()
        said = process.stderr.read().decode()
    assert process.returncode == 1
    assert "Broken pipe" in said
    assert "Traceback" not in said


def test_sigusr1_saves_the_last_seconds_and_the_run_goes_on(tmp_path: Path, config: Callable[..., Path]) -> None:
    path = config("  - {clip: 'c-{index}.mp4', preroll_s: 1}\n", realtime=True, more="duration_s: 60")
    with subprocess.Popen(command(path), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any("frames" in line for line in process.stderr)
        process.send_signal(signal.SIGUSR1)
        assert any("wrote" in line for line in process.stderr)
        assert counted(tmp_path / "c-000000.mp4")[1]
        process.send_signal(signal.SIGINT)
        process.stderr.read()
    assert process.returncode == 130


_RECORD = """
import sys, time; sys.path.insert(0, sys.argv[2])
from fractions import Fraction
from pathlib import Path
from test_encode import *
from tiler.config.outputs import SegmentsOutput
from tiler.output.outlet import Outlet, policy
from tiler.output.segments import SegmentWriter
folder, size = Path(sys.argv[1]), MosaicConfig(width=WIDTH, height=HEIGHT, fps=25)
limits = policy(live=True, network=False, fps=size.fps)
row = SegmentsOutput(segments='s-{index}.mp4', every_s=2)
outlets = [
    Outlet('file', 'a', FileWriter(FileOutput(file='a.mp4'), folder / 'a.mp4', size, 'h264', overwrite=True), limits),
    Outlet('file', 'b', FileWriter(FileOutput(file='b.mkv'), folder / 'b.mkv', size, 'h264', overwrite=True), limits),
    Outlet('segments', 's', SegmentWriter(row, folder / row.segments, folder / 's.jsonl', size, 'h264'), limits),
]
encoder = X264Encoder(size, EncoderConfig(gop_s=1.0), threads=2)
begin = time.monotonic()
for tick in range(10_000):
    time.sleep(max(0, begin + tick / 25 - time.monotonic()))  # a camera's pace: what a kill costs is told in seconds
    for packet in encoder.encode(mosaic_of(tick)):
        for outlet in outlets: outlet.put(packet)
    print(tick + 1, flush=True)
"""


def test_a_kill_costs_at_most_the_last_second_and_finished_files_play(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", _RECORD, str(tmp_path), str(Path(__file__).parent)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any(int(line) >= 140 for line in process.stdout)
        os.kill(process.pid, signal.SIGKILL)
        recorded = 140 + len(process.stdout.read().split())
    kept = counted(tmp_path / "a.mp4")[0]
    print(f"{recorded} pictures encoded, {kept} kept in MP4, {counted(tmp_path / 'b.mkv')[0]} in Matroska")
    assert recorded - kept <= 25
    assert recorded - counted(tmp_path / "b.mkv")[0] <= 25
    rows = [json.loads(line) for line in (tmp_path / "s.jsonl").read_text().splitlines()]
    assert [counted(tmp_path / row["name"])[0] for row in rows] == [50, 50]
    assert counted(tmp_path / ".s-000002.part.mp4")[1]


def test_what_was_written_is_said_although_another_output_failed_and_a_stream_key_never(
    config: Callable[..., Path], tmp_path: Path
) -> None:
    path = config(f"  - {{file: b.mp4}}\n  - {{push: 'rtmp://127.0.0.1:{free_port()}/live/hunter2'}}\n")
    report = tmp_path / "r.json"
    done = subprocess.run(command(path, "--report", str(report)), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"wrote {tmp_path / 'b.mp4'}" in done.stdout
    assert counted(tmp_path / "b.mp4")[0] == 50
    check = [*command(path)[:-2], "check", str(path)]
    checked = subprocess.run(check, capture_output=True, text=True, check=True)
    assert "/live/***" in checked.stdout
    assert "hunter2" not in done.stdout + done.stderr + report.read_text() + checked.stdout + checked.stderr


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("{push: 'srt://h:9000'}", "outputs[0].push: the PyAV wheels have no SRT"),
        ("{push: 'h:9000'}", "outputs[0].push: a URL that begins with rtsp://"),
        ("{segments: 'a.mp4'}", "outputs[0].segments: {time} or {index} is needed in the file name"),
        ("{segments: 'a-{date}.mp4'}", "outputs[0].segments: {time} or {index} is needed"),
        ("{segments: '{index}/a-{time}.mp4'}", "outputs[0].segments: {time} and {index} are accepted, in the file"),
        ("{segments: 'a-{time}.avi'}", "outputs[0].segments: a file name ending in .mp4, .mov, .mkv is needed"),
        ("{segments: 'a-{time}.mp4', keep_bytes: 3}", "outputs[0].keep_bytes: expected 100k bytes or more"),
        ("{segments: 'a-{time}.mp4', keep: 3}", "outputs[0].keep: unknown key; did you mean"),
        ("{pipe: out.ts}", "outputs[0].pipe: must be 'stdout' or '-'"),
        ("{clip: 'a-{time}.mp4', preroll_s: 0}", "outputs[0].preroll_s: must be greater than or equal to 1"),
        (
            "{segments: 'o/cam-{time}.mp4'}, {tracks: o/cam.jsonl}",
            "outputs[1].tracks: is the index of outputs[0], which gives no `index:`; another name is needed (got ",
        ),
        (
            "{tracks: o/cam.jsonl}, {segments: 'o/cam-{time}.mp4'}",
            "outputs[1].segments: its index cam.jsonl is where outputs[0] writes; another name is needed, given by "
            "`index:` (got 'o/cam-{time}.mp4')",
        ),
        (
            "{segments: 'cam-{time}.mp4', keep_count: 3}, {segments: 'cam-{time}.mkv', keep_count: 3}",
            "outputs[1].segments: its index cam.jsonl is the index of outputs[0]",
        ),
        (
            "{segments: 'a-{time}.mp4', index: i.jsonl}, {segments: 'b-{time}.mp4', index: ./i.jsonl}",
            "outputs[1].index: is the index of outputs[0]; another name is needed (got './i.jsonl')",
        ),
        ("{segments: 'a-{time}.mp4', index: c.yaml}", "outputs[0].index: is the config itself; another name is needed"),
        ("{file: a.mp4}, {file: ./a.mp4}", "outputs[1].file: is where outputs[0] writes; another name is needed"),
        ("{pipe: '-'}, {pipe: stdout}", "outputs[1].pipe: is where outputs[0] writes"),
        ("[1]", "outputs[0]: must be a mapping such as {file: NAME.mp4}; the kinds are file, segments, hls, push, "),
    ],
)
def test_outputs_that_cannot_be_are_told_with_what_is_accepted(tmp_path: Path, entry: str, expected: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"sources: [{{id: a, uri: 'sample://plaza'}}]\noutputs: [{entry}]\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(path)
    (line,) = caught.value.findings
    assert line.startswith(f"{path}:2: {expected}")


def test_rows_of_files_beside_each_other_have_a_list_each_once_one_names_its_own(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    rows = "{segments: 'cam-{time}.mp4'}, {segments: 'cam-{time}.mkv', index: mkv.jsonl}, {tracks: tracks.jsonl}"
    path.write_text(f"sources: [{{id: a, uri: 'sample://plaza'}}]\noutputs: [{rows}]\n", encoding="utf-8")
    loaded = load(path)
    with pytest.raises(InputError, match=r"--tracks: is the index of outputs\[0\], which gives no `index:`;"):
        loaded.with_outputs(None, tmp_path / "cam.jsonl")
    with pytest.raises(InputError, match=r"--report: is the index of outputs\[1\]; another name is needed"):
        loaded.with_outputs(None, None, tmp_path / "mkv.jsonl")


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("closed/x", "cannot be written: Permission denied\n"),
        ("x" * 300, "cannot be written: File name too long\n"),
        ("loop/x", "cannot be written: Too many levels of symbolic links\n"),
    ],
    ids=["a folder that may not be entered", "a long name", "links in a circle"],
)
@pytest.mark.parametrize(
    "arguments",
    [
        ["-o", "PLACE.mp4"],
        ["-o", "o.mp4", "--report", "PLACE.json"],
        ["-o", "o.mp4", "--tracks", "PLACE.txt"],
        ["--set", "outputs=[{hls: PLACE}]"],
        ["--set", "outputs=[{segments: 'PLACE-{index}.mp4'}]"],
        ["--set", "outputs=[{clip: 'PLACE-{index}.mp4'}]"],
    ],
    ids=["-o", "--report", "--tracks", "hls", "segments", "clip"],
)
def test_a_place_that_takes_no_file_is_said_before_anything_is_opened(
    closed: Path, config: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, arguments: list[str], place: str,
    said: str,
) -> None:
    monkeypatch.delattr(stages, "build")
    path = config("  - {file: a.mkv}\n")
    monkeypatch.chdir(path.parent)
    (path.parent / "loop").symlink_to("loop")
    result = CliRunner().invoke(main, ["run", "c.yaml", *(part.replace("PLACE", place) for part in arguments)])
    assert result.exit_code == 2, result.exception
    assert result.output.startswith("output ")
    assert result.output.endswith(said)
    assert result.output.count("\n") == 1
