"""Whole runs on small pictures: results, determinism, clocks, and what fails on the way."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pictures
import pytest
from click.testing import CliRunner
from pictures import decoded

from tiler import stages
from tiler.cli import main
from tiler.config.loader import load
from tiler.crowd import DetectionBatch
from tiler.errors import InputError, RunError
from tiler.infer.base import Answer
from tiler.observe.run import RunObserver
from tiler.pipeline import Run
from tiler.stages import Stages
from tiler.track.appearance import CpuEmbedder
from tiler.track.bytetrack import ByteTracker
from tiler.track.reid import ReId
from tiler.types import Batch, Detections, Frame

pytest_plugins = ("fakes.run_fixtures",)

FRAMES = 20  # of its a.mp4


class CornerDetector:
    """Finds one person in the top left quarter of every picture."""

    input_size = (64, 64)
    class_names = ("person",)

    def submit(self, batch: Batch) -> Answer:
        return lambda: DetectionBatch.of(self.infer(batch))

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
    tracker = ByteTracker(loaded.config.tracker, 0.35, loaded.config.places)
    built = replace(
        built, preprocessor=FirstPixels(), detector=CornerDetector(), tracker=tracker, queued=queued,
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
            return lambda batch: lambda: DetectionBatch.of(self.infer(batch))
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
        ("tracker", "update_all", "track"),
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


def test_cuda_is_refused_with_the_reason(config: Path) -> None:
    result = CliRunner().invoke(main, ["run", str(config), "--set", "device=cuda"])
    assert result.exit_code == 2
    assert "device: cuda cannot be used" in result.output


def test_doctor_names_what_is_missing() -> None:
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 0
    assert "cuda" in result.output
    assert "libx264" in result.output or "encode H.264" in result.output
