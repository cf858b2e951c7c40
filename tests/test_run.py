"""Whole runs on small pictures: results, determinism, clocks, and how a run ends."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pictures
import pytest
from click.testing import CliRunner

from tiler import stages
from tiler.cli import main
from tiler.config.loader import load
from tiler.errors import InputError, RunError
from tiler.infer.base import Answer
from tiler.observe.run import RunObserver
from tiler.pipeline import Run
from tiler.stages import Stages
from tiler.track.appearance import CpuEmbedder
from tiler.track.bytetrack import ByteTracker
from tiler.track.reid import ReId
from tiler.types import Batch, Detections, Frame

FRAMES = 20


class CornerDetector:
    """Finds one person in the top left quarter of every picture."""

    input_size = (64, 64)
    class_names = ("person",)

    def submit(self, batch: Batch) -> Answer:
        return lambda: self.infer(batch)

    def infer(self, batch: Batch) -> list[Detections]:
        found = []
        for width, height in batch.sizes:
            box = np.array([[4, 4, width / 2, height / 2]], np.float32)
            found.append(Detections(box, np.array([0.9], np.float32), np.zeros(1, np.int32)))
        return found

    def close(self) -> None: ...


class FirstPixels:
    """A preprocessor that only looks at the sizes."""

    def prepare(self, frames: list[Frame]) -> Batch:
        sizes = np.array([frame.picture_size for frame in frames], np.int32)
        letterbox = np.tile(np.array([1, 1, 0, 0], np.float32), (len(frames), 1))
        return Batch(np.zeros((len(frames), 3, 1, 1)), letterbox, sizes, tuple(frame.stream for frame in frames))

    def close(self) -> None: ...


@pytest.fixture
def config(tmp_path: Path) -> Path:
    pictures.write(tmp_path / "a.mp4", FRAMES, rate=25)
    pictures.write(tmp_path / "b.mp4", FRAMES // 2, rate=10, size=(96, 160))
    path = tmp_path / "c.yaml"
    path.write_text(
        "sources: [{id: a, uri: a.mp4}, {id: b, uri: b.mp4}]\n"
        "mosaic: {width: 320, height: 192, fps: 25, grid: [2, 1]}\n"
        "outputs: [{file: out.mp4}, {tracks: out.jsonl}]\n",
        encoding="utf-8",
    )
    return path


@pytest.fixture(params=[False, True], ids=["threads", "one thread"])
def queued(request: pytest.FixtureRequest) -> bool:
    """Whether the stages before the encoder share a thread, as they do on a device."""
    return bool(request.param)


THREADS, ONE, BATCHES = {"queued": False}, {"queued": True}, {"queued": True, "batch_ticks": 3}
"""Ways for a run to go; in the last, three ticks are a batch."""


def build(
    path: Path, *overrides: str, queued: bool = False, batch_ticks: int = 1
) -> tuple[Any, Stages, RunObserver]:
    loaded = load(path, ["detector=none", *overrides])
    built = stages.build(loaded)
    loaded = load(path, overrides)
    trackers = tuple(ByteTracker(loaded.config.tracker, 0.35) for _ in loaded.config.sources)
    built = replace(
        built, preprocessor=FirstPixels(), detector=CornerDetector(), trackers=trackers, queued=queued,
        batch_ticks=batch_ticks,
    )  # fmt: skip
    observer = RunObserver(loaded.config, stages.choose(loaded), built.feeds, built.encoder)
    return loaded, built, observer


def run(path: Path, *overrides: str, **shape: Any) -> dict[str, Any]:
    loaded, built, observer = build(path, *overrides, **shape)
    with Run(loaded, built, observer, overwrite=True) as runner:
        runner.start()
        runner.wait()
    return observer.report()


def decoded(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray() for frame in container.decode(video=0)])


def test_offline_run_counts_every_picture_and_encodes_once(config: Path, queued: bool) -> None:
    report = run(config, queued=queued)
    a, b = report["streams"]
    ticks = 25  # b lasts one second
    assert report["frames"] == ticks
    assert (a["read"], a["skipped"], a["dropped"]) == (FRAMES, 0, 0)
    assert (b["read"], b["skipped"], b["repeated"]) == (FRAMES // 2, 0, ticks - FRAMES // 2)
    assert report["encoder"]["sessions"] == 1
    assert report["clock"] == "offline"
    assert set(report["stages"]) == set(stages.STAGES)
    assert report["end_to_end"]["count"] == report["stages"]["track"]["count"] == ticks
    assert decoded(config.parent / "out.mp4").shape == (ticks, 288, 320)


def test_tile_shows_the_picture_of_its_time(config: Path) -> None:
    run(config, "overlay.boxes=false", "overlay.labels=false", "overlay.trails=false", "overlay.titles=false",
        "overlay.fps=false", "encoder.bitrate=20M")  # fmt: skip
    for tick, picture in enumerate(decoded(config.parent / "out.mp4")[:FRAMES]):
        assert pictures.number_of(picture[48:144, 0:160]) == tick


def test_tracks_carry_the_number_of_the_source_picture(config: Path) -> None:
    run(config)
    rows = [json.loads(line) for line in (config.parent / "out.jsonl").read_text().splitlines()]
    assert [row["frame"] for row in rows if row["stream"] == "b"] == list(range(FRAMES // 2))
    assert {track["id"] for row in rows for track in row["tracks"]} == {1}


def test_the_report_says_how_much_was_looked_at_whom(config: Path) -> None:
    loaded, built, observer = build(config)
    built = replace(built, reid=ReId(CpuEmbedder(), len(loaded.config.sources), loaded.config.tracker))
    with Run(loaded, built, observer, overwrite=True) as runner:
        runner.start()
        runner.wait()
    a, b = observer.report()["streams"]
    assert 0 < a["reid"]["crops"] < FRAMES
    assert 0 < a["reid"]["duty"] < 1
    assert (a["reid"]["exchanged"], b["reid"]["returned"]) == (0, 0)
    rows = [json.loads(line) for line in (config.parent / "out.jsonl").read_text().splitlines()]
    assert {track["id"] for row in rows for track in row["tracks"]} == {1}
    assert "reid" not in run(config)["streams"][0]


@pytest.mark.parametrize("every", [1, 4])
def test_two_runs_are_equal_to_the_bit(config: Path, every: int) -> None:
    outcomes = []
    for way in (THREADS, THREADS, ONE, BATCHES):
        report = run(config, f"detector={{every: {every}}}", **way)
        outcomes.append((decoded(config.parent / "out.mp4"), (config.parent / "out.jsonl").read_bytes()))
        batches, asked = (report["stages"][stage]["count"] for stage in ("preprocess", "infer"))
        assert 0 < batches <= asked
        assert (batches < asked) == (way is BATCHES and every == 1)
    for pixels, lines in outcomes[1:]:
        assert np.array_equal(outcomes[0][0], pixels)
        assert outcomes[0][1] == lines


def test_people_are_known_again_alike_on_threads_and_on_one(tmp_path: Path) -> None:
    """Of a crowd: who is looked at depends on who was known in the picture before."""
    path = tmp_path / "c.yaml"
    path.write_text(
        "device: cpu\nduration_s: 3\nmosaic: {width: 640, height: 360}\nsources:\n"
        "  - {id: a, uri: 'sample://plaza?size=640x360'}\n  - {id: b, uri: 'sample://duo?size=640x360'}\n"
        "outputs: [{file: out.mp4}, {tracks: out.jsonl}]\n",
        encoding="utf-8",
    )
    loaded, outcomes = load(path, []), []
    for queued in (False, True):
        built = replace(stages.build(loaded), queued=queued)
        observer = RunObserver(loaded.config, built.choices, built.feeds, built.encoder)
        with Run(loaded, built, observer, overwrite=True) as runner:
            runner.start()
            runner.wait()
        crops = [stream["reid"]["crops"] for stream in observer.report()["streams"]]
        outcomes.append((crops, (tmp_path / "out.jsonl").read_bytes(), decoded(tmp_path / "out.mp4").tobytes()))
    assert min(outcomes[0][0]) > 0
    assert outcomes[0] == outcomes[1]


def test_live_run_keeps_its_clock_and_never_queues(config: Path, queued: bool) -> None:
    began = time.monotonic()
    report = run(config, "sources[0].realtime=true", "duration_s=1.2", queued=queued)
    assert time.monotonic() - began > 1.1
    assert report["clock"] == "live"
    assert report["frames"] + report["dropped_ticks"] == 30


def test_a_live_run_that_is_too_slow_leaves_ticks_out(config: Path, queued: bool) -> None:
    loaded, built, observer = build(config, "sources[0].realtime=true", "duration_s=1.2", queued=queued)

    class Slow:
        def compose(self, *arguments: Any) -> Any:
            time.sleep(0.12)  # three ticks
            return built.compositor.compose(*arguments)

        def __getattr__(self, name: str) -> Any:
            return getattr(built.compositor, name)

    began = time.monotonic()
    with Run(loaded, replace(built, compositor=Slow()), observer, overwrite=True) as runner:
        runner.start()
        runner.wait()
    report = observer.report()
    assert report["frames"] + report["dropped_ticks"] == 30
    assert report["dropped_ticks"] >= 10
    assert 1.1 < time.monotonic() - began < 3.0


def test_sources_that_hang_hold_up_neither_the_last_pictures_nor_each_other(tmp_path: Path) -> None:
    """FFmpeg lets go of a network in its own time: each is given a second, and all of them the same one."""
    path = tmp_path / "c.yaml"
    sources = ", ".join(f"{{id: c{i}, uri: 'rtsp://camera{i}/main'}}" for i in range(6))
    path.write_text(
        f"sources: [{sources}]\nmosaic: {{width: 320, height: 192, fps: 25}}\ndetector: none\nduration_s: 0.4\n"
        "outputs: [{file: out.mp4}]\n",
        encoding="utf-8",
    )
    over = threading.Event()

    def hangs(*_: object) -> Any:
        over.wait()
        raise InputError("nobody is there")

    loaded = load(path)
    built = stages.build(loaded, opener=hangs)
    observer = RunObserver(loaded.config, built.choices, built.feeds, built.encoder)
    try:
        with Run(loaded, built, observer) as runner:
            runner.start()
            runner.wait()
            ended_s = time.monotonic()
        assert time.monotonic() - ended_s < 0.9  # they had their second when the run ended
    finally:
        over.set()
    assert observer.report()["end_to_end"]["p99_ms"] < 900
    assert observer.report()["seconds"] < 0.4 + 2


def test_what_is_for_cuda_alone_is_said_to_be_unused(config: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(config, "scaled_decode=true", "decode_processes=2")
    assert caplog.text.count("scaled_decode, decode_processes: for CUDA only; this run is on the CPU") == 1


class Breaks:
    """Any stage, failing at the n-th call of one method."""

    def __init__(self, inner: Any, method: str, at: int) -> None:
        self._inner, self._method, self._left = inner, method, at

    def __getattr__(self, name: str) -> Any:
        if name == "submit" and self._method == "infer":
            return lambda batch: lambda: self.infer(batch)
        if name != self._method:
            return getattr(self._inner, name)
        if self._left == 0:
            raise OSError("injected")
        self._left -= 1
        return getattr(self._inner, name)


@pytest.mark.parametrize("way", [THREADS, ONE, BATCHES], ids=["threads", "one thread", "batches"])
@pytest.mark.parametrize("at", [0, 7, FRAMES - 1], ids=["first", "middle", "last"])
@pytest.mark.parametrize(
    ("field", "method", "stage"),
    [
        ("feeds", "at", "decode"),
        ("preprocessor", "prepare", "preprocess"),
        ("detector", "submit", "preprocess"),
        ("detector", "infer", "infer"),
        ("trackers", "update", "track"),
        ("compositor", "compose", "compose"),
        ("encoder", "encode", "encode"),
        ("output", "write", "output: file .*out.mp4"),
    ],
)
def test_a_failing_stage_ends_the_run_and_the_file_plays(
    config: Path, field: str, method: str, stage: str, at: int, way: dict[str, Any]
) -> None:
    loaded, built, observer = build(config, **way)
    at //= built.batch_ticks if field in ("preprocessor", "detector") else 1  # is called once for a batch
    if field != "output":
        part = getattr(built, field)
        broken = (Breaks(part[0], method, at), *part[1:]) if isinstance(part, tuple) else Breaks(part, method, at)
        built = replace(built, **{field: broken})
    began = time.monotonic()
    with Run(loaded, built, observer, overwrite=True) as runner:
        if field == "output":
            outlet = next(iter(runner.outputs))
            outlet._output = Breaks(outlet._output, method, at)
        runner.start()
        with pytest.raises(RunError, match=f"{stage}.*injected"):
            runner.wait()
    assert time.monotonic() - began < 5
    if at >= 7:
        assert len(decoded(config.parent / "out.mp4")) >= at - 4


def test_a_broken_source_shows_the_slate_and_the_run_goes_on(config: Path) -> None:
    whole = (config.parent / "a.mp4").read_bytes()
    pictures.write(config.parent / "a.mkv", 60, rate=25, options={"preset": "ultrafast", "g": "5"})
    whole = (config.parent / "a.mkv").read_bytes()
    (config.parent / "a.mkv").write_bytes(whole[: len(whole) // 2])
    report = run(config, "sources[0].uri=a.mkv", "duration_s=2")
    assert report["frames"] == 50
    assert report["streams"][1]["read"] == FRAMES // 2


def test_outputs_are_not_replaced_unless_told(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is said before anything is opened: that may take a minute on a new machine."""
    monkeypatch.delattr(stages, "build")
    (config.parent / "out.mp4").write_bytes(b"precious")
    result = CliRunner().invoke(main, ["run", str(config), "--set", "detector=none"])
    assert result.exit_code == 2
    assert "--overwrite" in result.output
    assert (config.parent / "out.mp4").read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-o", "a.mp4"], "-o: is the file of source 'a'; another name is needed (got"),
        (["--set", "outputs[0].file=a.mp4"], "outputs[0].file: is the file of source 'a'; another name is needed (got"),
        (["--set", "outputs[0].file=link.mp4"], "outputs[0].file: is the file of source 'a'"),
        (["--set", "outputs[0].file=hard.mp4"], "outputs[0].file: is the file of source 'a'"),
        (["--set", "sources[0].uri=file://FOLDER/a.mp4", "-o", "hard.mp4"], "-o: is the file of source 'a'"),
        (["--set", "sources[0].realtime=true", "-o", "a.mp4"], "-o: is the file of source 'a'"),
        (["--report", "a.mp4"], "--report: is the file of source 'a'"),
        (["--report", "c.yaml"], "--report: is the config itself"),
        (["--report", "out.mp4"], "--report: is where outputs[0] writes"),
        (["-o", "o.mp4", "--report", "o.mp4"], "--report: is where -o writes"),
        (["--tracks", "t.txt", "--report", "t.b.txt"], "--report: is where --tracks writes"),
        (["--set", "sources[0].uri=t.a.txt", "--tracks", "t.txt"], "--tracks: its t.a.txt is the file of source 'a'"),
        (["--set", "sources[0].uri=link.jsonl", "--tracks", "a.jsonl"], "--tracks: is the file of source 'a'"),
        (["--set", "detector.model=m.onnx", "--report", "m.onnx"], "--report: is the file of the model"),
        (["--set", "sources[0].uri=h/init.mp4", "--set", "outputs[0]={hls: h}"], "hls: its init.mp4 is the file of"),
    ],
)
def test_what_a_run_reads_or_writes_already_is_never_replaced(
    config: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    folder = config.parent
    monkeypatch.chdir(folder)
    monkeypatch.delattr(stages, "build")
    (folder / "h").mkdir()
    for name in ("a.jsonl", "t.a.txt", "m.onnx", "h/init.mp4"):
        (folder / name).write_bytes(b"precious")
    (folder / "link.mp4").symlink_to("a.mp4")
    (folder / "link.jsonl").symlink_to("a.jsonl")
    (folder / "hard.mp4").hardlink_to(folder / "a.mp4")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    arguments = [argument.replace("FOLDER", str(folder)) for argument in arguments]
    result = CliRunner().invoke(main, ["run", "c.yaml", "--overwrite", *arguments])
    assert result.exit_code == 2, result.output
    assert said in result.output
    assert len(result.output.splitlines()) == 1
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_device_may_be_written_twice_and_a_url_is_no_file_of_this_machine(config: Path) -> None:
    (config.parent / "x.mkv").symlink_to("/dev/null")
    args = ["run", str(config), "--set", "detector=none", "-o", str(config.parent / "x.mkv"), "--duration", "0.4",
            "--overwrite", "--report", "/dev/null"]  # fmt: skip
    assert CliRunner().invoke(main, args).exit_code == 0
    text = config.read_text().replace("uri: b.mp4", "uri: 'http://127.0.0.1:9/out.mp4'")
    config.write_text(text, encoding="utf-8")
    assert load(config).config.sources[1].uri.endswith("/out.mp4")


def test_command_line_run_reports_what_it_did(config: Path, tmp_path: Path) -> None:
    args = ["run", str(config), "--set", "detector=none", "-o", str(tmp_path / "x.mkv"), "--duration", "0.4",
            "--report", str(tmp_path / "r.json")]  # fmt: skip
    result = CliRunner().invoke(main, args)
    assert result.exit_code == 0, result.output
    assert "10 frames" in result.output
    assert "1 encoder session" in result.output
    assert len(decoded(tmp_path / "x.mkv")) == 10
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["versions"]["tiler"]


@pytest.mark.parametrize("more", [[], ["--overwrite"]])
def test_a_run_without_a_picture_says_so_and_claims_no_file(config: Path, more: list[str]) -> None:
    old = config.parent / "out.mp4"
    if more:
        old.write_bytes(b"of an earlier run")
    begins = [f"--set=sources[{index}].start_s={last}" for index, last in enumerate((0.79, 0.95))]  # after the last
    result = CliRunner().invoke(main, ["run", str(config), "--set", "detector=none", *begins, *more])
    assert result.exit_code == 1
    assert "wrote" not in result.output
    assert "stream a: decode (a): no picture from 0.79 s on\n" in result.output
    assert result.output.splitlines()[-1].startswith("no picture: nothing is written; start_s, end_s and duration_s ")
    assert old.exists() == bool(more)


@pytest.mark.parametrize("command", ["check", "run"])
@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["sources[0].start_s=100"], "source a: start_s: the file is over before; it has 0.8 s (got 100)\n"),
        (["sources[0].start_s=100", "sources[0].loop=true"], "source a: start_s: the file is over before; it has 0.8"),
        (
            ["sources[1].uri=sample://duo?seconds=2", "sources[1].start_s=2"],
            "--set sources[1].start_s: the sample is over before; it has 2.0 s (got 2)\n",
        ),
        (["duration_s=0.01"], "duration_s: 0.01 s is shorter than one picture (0.04 s at 25 fps)\n"),
        (["mosaic.fps=1", "duration_s=0.5"], "duration_s: 0.5 s is shorter than one picture (1 s at 1 fps)\n"),
    ],
)
def test_what_leaves_no_picture_is_refused_where_it_is_known(
    config: Path, command: str, overrides: list[str], said: str
) -> None:
    given = [f"--set={override}" for override in ("detector=none", *overrides)]
    result = CliRunner().invoke(main, [command, str(config), *given])
    assert result.exit_code == 2, result.output
    assert said in result.output
    assert result.output.count("\n") == 1
    assert not (config.parent / "out.mp4").exists()


def test_a_report_that_the_disk_does_not_take_hides_no_result(config: Path, tmp_path: Path) -> None:
    args = ["run", str(config), "--set", "detector=none", "--duration", "0.4", "--overwrite", "--report", "/dev/full"]
    result = CliRunner().invoke(main, args)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)  # and no traceback
    assert "report /dev/full: cannot be written: No space left on device\n" in result.output
    assert f"wrote {tmp_path / 'out.mp4'}\n" in result.output
    assert len(decoded(tmp_path / "out.mp4")) == 10


def test_a_report_that_the_disk_does_not_take_hides_no_error(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("broken on purpose")

    monkeypatch.setattr("tiler.encode.cpu.X264Encoder.encode", fail)
    result = CliRunner().invoke(
        main, ["run", str(config), "--set", "detector=none", "--overwrite", "--report", "/dev/full"]
    )
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert "report /dev/full: cannot be written: No space left on device\n" in result.output
    assert result.output.splitlines()[-1].startswith("encode: ")
    assert "broken on purpose" in result.output.splitlines()[-1]


def endless(config: Path) -> list[str]:
    """The command of a run that goes on until it is told to stop."""
    text = config.read_text() + "duration_s: 60\n"
    config.write_text(text.replace("uri: a.mp4", "uri: a.mp4, loop: true, realtime: true"), encoding="utf-8")
    return [sys.executable, "-m", "tiler", "run", str(config), "--set", "detector=none"]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=["int", "term", "hup"]
)
def test_signals_finalise_the_file(config: Path, number: int, code: int) -> None:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(endless(config), stderr=subprocess.PIPE, env=environment, text=True)
    assert process.stderr is not None
    assert any("frames" in line for line in process.stderr)  # a line of progress: the run is on
    process.send_signal(number)
    process.communicate(timeout=20)
    assert process.returncode == code
    assert len(decoded(config.parent / "out.mp4")) > 10


def test_a_closed_terminal_finalises_the_file(config: Path) -> None:
    ours, terminal = pty.openpty()
    process = subprocess.Popen(
        endless(config), stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(terminal)
    said = b""
    while not re.search(rb"mosaic [1-9]\d+", said):  # in the table: the run is on
        said += os.read(ours, 65536)
    os.close(ours)
    assert process.wait(timeout=20) == 129
    assert len(decoded(config.parent / "out.mp4")) > 10


def test_a_run_under_nohup_outlives_its_terminal(config: Path) -> None:
    process = subprocess.Popen(
        endless(config), stderr=subprocess.PIPE, env={**os.environ, "PYTHONUNBUFFERED": "1"}, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )  # fmt: skip
    assert process.stderr is not None
    assert any("frames" in line for line in process.stderr)
    process.send_signal(signal.SIGHUP)
    assert any("frames" in line for line in process.stderr)  # another one: it goes on
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 143


def test_cuda_is_refused_with_the_reason(config: Path) -> None:
    result = CliRunner().invoke(main, ["run", str(config), "--set", "device=cuda"])
    assert result.exit_code == 2
    assert "device: cuda cannot be used" in result.output


def test_doctor_names_what_is_missing() -> None:
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 0
    assert "cuda" in result.output
    assert "libx264" in result.output or "encode H.264" in result.output
