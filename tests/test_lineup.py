"""Runs whose sources come and go: what the mosaic shows, what is written, and that nothing stops meanwhile."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import groupby, pairwise
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import pytest
from colours import PURPLE, YELLOW, clip_server
from served import COLOURS, write_config
from test_run import CornerDetector, FirstPixels
from test_source import silent_server

from tiler import stages
from tiler.config.added import added_source
from tiler.config.loader import load
from tiler.config.models import Source
from tiler.errors import InputError
from tiler.observe.run import RunObserver
from tiler.observe.streams import StreamSeen
from tiler.pipeline import Run
from tiler.track.appearance import CpuEmbedder
from tiler.track.bytetrack import ByteTracker
from tiler.track.reid import ReId
from tiler.types import State

WAIT_S = 20.0
NAMES = list(COLOURS)


class Going(NamedTuple):
    """A run that is going on."""

    run: Run
    observer: RunObserver

    def until(self, condition: Callable[[], object]) -> None:
        """Wait for something that the run does."""
        deadline, pause = time.monotonic() + WAIT_S, threading.Event()
        while not condition():
            assert time.monotonic() < deadline, "waited too long"
            pause.wait(0.005)

    def frames(self, count: int) -> None:
        """Let so many pictures go by."""
        wanted = self.observer.frames + count
        self.until(lambda: self.observer.frames >= wanted)

    def row(self, source: str) -> StreamSeen:
        (row,) = (row for row in self.observer.streams if row.source.id == source)
        return row

    def add(self, name: str, uri: str) -> None:
        """Add a source and wait for its picture."""
        self.run.lineup.add(added_source(name, uri, None))
        self.until(lambda: self.row(name).tile.state is State.LIVE)

    def remove(self, name: str) -> None:
        """Remove a source and wait until its place is free."""
        spare = self.run.control.spare
        assert spare is not None
        self.run.lineup.remove(name)
        self.until(lambda: self.run.control.spare == spare + 1)


@contextlib.contextmanager
def going(folder: Path, more: str, detects: bool = False, queued: bool = False) -> Iterator[Going]:
    """Four plain colours in a grid, with a detector that finds somebody in every picture if it `detects`; with stages
    that share a thread, as they do on a device, if they are `queued`."""
    path = write_config(folder, more)
    loaded = load(path)
    built = stages.build(loaded)
    if detects:
        path.write_text(path.read_text().replace("detector: none\n", ""))
        loaded = load(path)
        config = loaded.config
        tracker = ByteTracker(config.tracker, 0.35, config.places)
        reid = ReId(CpuEmbedder(), config.places, config.tracker)
        built = replace(built, preprocessor=FirstPixels(), detector=CornerDetector(), tracker=tracker, reid=reid)
    built = replace(built, queued=queued)
    observer = RunObserver(loaded.config, stages.choose(loaded), built.feeds, built.encoder)
    with Run(loaded, built, observer, overwrite=True) as run:
        run.start()
        now = Going(run, observer)
        now.frames(5)
        yield now
        now.frames(5)
        run.stop()
        run.wait()


@pytest.fixture(scope="module", name="server")
def http_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server with clips of one colour each."""
    with clip_server(tmp_path_factory.mktemp("clips")) as server:
        yield f"http://{server}"


def decoded(path: Path) -> tuple[np.ndarray, list[int]]:
    """(n, 288, 320) I420 pictures, and the tick of each."""
    with av.open(str(path)) as container:
        tick = 1 / container.streams.video[0].average_rate  # type: ignore[operator]
        frames = list(container.decode(video=0))
    return np.stack([frame.to_ndarray() for frame in frames]), [round(frame.time / tick) for frame in frames]


def seen_in(picture: np.ndarray, x: int, y: int, colour: tuple[int, int, int]) -> bool:
    """Whether an I420 picture of 320x192 has this colour at a place."""
    u = picture[192:240].reshape(96, 160)[y // 2, x // 2]
    v = picture[240:].reshape(96, 160)[y // 2, x // 2]
    return bool(np.abs(np.array([picture[y, x], u, v], int) - colour).max() < 12)


@pytest.mark.parametrize("queued", [False, True], ids=["threads", "one thread"])
def test_a_source_comes_and_goes_and_the_mosaic_goes_on(tmp_path: Path, server: str, queued: bool) -> None:
    more = "preview: {spare_sources: 1}\noutputs: [{file: out.mp4}]\nduration_s: 60\n"
    with going(tmp_path, more, queued=queued) as now:
        now.add("yellow", f"{server}/yellow.mp4")
        now.frames(10)
        now.remove("yellow")
        now.frames(10)
        now.add("purple", f"{server}/purple.mp4")
        now.frames(10)
        now.run.lineup.remove("red")
    pictures, ticks = decoded(tmp_path / "out.mp4")
    report = now.observer.report()
    assert report["encoder"]["sessions"] == 1
    assert len(pictures) == report["frames"]
    gaps = sum(after - before - 1 for before, after in pairwise(ticks))
    assert gaps <= report["dropped_ticks"]  # no gap that is not the run's own
    # Five sources are in three rows, and the last one below on the left; four in two rows, with the blue one there.
    below = [seen_in(p, 80, 160, YELLOW) + 2 * seen_in(p, 80, 160, PURPLE) for p in pictures]
    assert [found for found, _ in groupby(below)] == [0, 1, 0, 2, 0]
    four = [bool(p[160, 240] > 180) for p in pictures]  # white at the lower right
    assert [found for found, _ in groupby(four)] == [True, False, True, False]
    assert seen_in(pictures[-1], 240, 160, PURPLE)  # red has gone
    report_rows = {row["id"]: row for row in report["streams"]}
    assert list(report_rows) == [*NAMES, "yellow", "purple"]
    assert report_rows["yellow"]["removed"]
    assert report_rows["yellow"]["read"] >= 1
    assert not report_rows["purple"]["removed"]


def test_the_tile_is_there_at_once_and_says_that_it_waits(tmp_path: Path) -> None:
    more = "preview: {spare_sources: 1}\noutputs: [{file: out.mp4}]\nduration_s: 60\n"
    with silent_server() as (port, accepted), going(tmp_path, more) as now:
        uri = f"tcp://127.0.0.1:{port}"
        began = now.observer.frames
        now.run.lineup.add(Source(id="slow", uri=uri, timeout_s=3))
        assert accepted.wait(WAIT_S)
        now.frames(10)
        assert now.row("slow").tile.state is State.WAITING
        now.run.lineup.remove("slow")
        now.frames(10)  # nobody waits for the connection
        with pytest.raises(InputError, match="will be free when the source that was there is closed"):
            now.run.lineup.add(Source(id="next", uri=uri, timeout_s=3))
        now.until(lambda: now.run.control.spare == 1)
    pictures, _ = decoded(tmp_path / "out.mp4")
    five = [bool(picture[160, 240] < 180) for picture in pictures]  # with four, white is there
    assert [found for found, _ in groupby(five)] == [False, True, False]
    assert five.index(True) - began < 10
    slate = pictures[five.index(True) + 3][128:192, :160]
    assert slate.max() > 150  # words on it


def test_why_a_source_does_not_come_is_said_without_its_secrets(
    tmp_path: Path, server: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO), going(tmp_path, "preview: {spare_sources: 2}\nduration_s: 60\n") as now:
        now.run.lineup.add(added_source("none", server.replace("//", "//user:hunter2@") + "/none.mp4", None))
        now.run.lineup.add(added_source("away", "rtsp://user:hunter2@127.0.0.1:1/main", None))
        now.until(lambda: all(now.row(name).report()["failure"] for name in ("none", "away")))
        now.frames(5)
        assert now.row("none").tile.state is State.NO_SIGNAL
    rows = {row["id"]: row for row in now.observer.report()["streams"]}
    assert "404" in rows["none"]["failure"] or "cannot open" in rows["none"]["failure"]
    assert "refused" in rows["away"]["failure"]
    assert "hunter2" not in json.dumps(rows) + caplog.text
    assert "source away was added: rtsp://user:***@127.0.0.1:1/main" in caplog.text


@pytest.mark.parametrize("queued", [False, True], ids=["threads", "one thread"])
def test_what_is_remembered_of_a_source_goes_with_it(tmp_path: Path, server: str, queued: bool) -> None:
    """Tracks and ids of the next one in its place begin anew, under its own id."""
    more = "preview: {spare_sources: 1}\noutputs: [{tracks: t.jsonl}, {tracks: t.txt}]\nduration_s: 60\n"
    with going(tmp_path, more, detects=True, queued=queued) as now:
        for name in ("yellow", "purple"):
            now.add(name, f"{server}/{name}.mp4")
            now.until(lambda name=name: now.row(name).tracks == 1)  # type: ignore[misc]
            now.frames(10)
            now.remove(name)
        assert now.row("yellow").reid is not now.row("purple").reid
    rows = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    for name in ("yellow", "purple"):
        own = [row for row in rows if row["stream"] == name]
        assert {track["id"] for row in own for track in row["tracks"]} == {1}
        numbers, stamps = [row["frame"] for row in own], [row["pts"] for row in own]
        assert numbers[0] < 5
        assert numbers == sorted(set(numbers))
        assert stamps == sorted(set(stamps))
        assert (tmp_path / f"t.{name}.txt").read_text().startswith(f"{numbers[0] + 1},1,")
    assert sorted(path.name for path in tmp_path.glob("t.*.txt")) == sorted(
        f"t.{name}.txt" for name in (*NAMES, "yellow", "purple")
    )
    streams = {row["id"]: row for row in now.observer.report()["streams"]}
    assert streams["yellow"]["tracks_now"] == 0
    assert streams["yellow"]["reid"]["crops"] >= 1


def test_a_file_that_exists_is_not_replaced_by_who_is_added(tmp_path: Path, server: str) -> None:
    (tmp_path / "t.yellow.txt").write_text("precious")
    more = "preview: {spare_sources: 1}\noutputs: [{tracks: t.txt}]\nduration_s: 60\n"
    with going(tmp_path, more, detects=True) as now:
        with pytest.raises(InputError, match=r"t\.yellow\.txt: exists"):
            now.add("yellow", f"{server}/yellow.mp4")
        assert now.run.control.spare == 1
        assert [row.source.id for row in now.observer.streams] == NAMES
        now.add("purple", f"{server}/purple.mp4")
    assert (tmp_path / "t.yellow.txt").read_text() == "precious"
    (row,) = now.observer.report()["outputs"]
    assert row["name"] == str(tmp_path / "t.ID.txt")  # there is no t.txt


def test_a_run_that_has_ended_takes_nobody(tmp_path: Path, server: str) -> None:
    with going(tmp_path, "preview: {spare_sources: 2}\nduration_s: 60\n") as now:
        now.add("yellow", f"{server}/yellow.mp4")
    with pytest.raises(InputError, match="the run has ended"):
        now.run.lineup.add(added_source("purple", f"{server}/purple.mp4", None))
    assert not any(thread.name == "tiler-decode-yellow" for thread in threading.enumerate())


@pytest.mark.parametrize("queued", [False, True], ids=["threads", "one thread"])
def test_who_comes_and_goes_between_two_ticks_leaves_nothing_behind(tmp_path: Path, server: str, queued: bool) -> None:
    with going(tmp_path, "preview: {spare_sources: 2}\nduration_s: 60\n", queued=queued) as now:
        for turn in range(12):
            now.until(lambda: now.run.control.spare)
            now.run.lineup.add(added_source(f"n{turn}", f"{server}/yellow.mp4", None))
            now.run.lineup.remove(f"n{turn}")
        now.until(lambda: now.run.control.spare == 2)
        assert [row.removed for row in now.observer.streams] == [False] * 4 + [True] * 12
        now.add("yellow", f"{server}/yellow.mp4")
    names = {thread.name for thread in threading.enumerate()}
    assert not any(name.startswith(("tiler-close-", "tiler-decode-n")) for name in names)
