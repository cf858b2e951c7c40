"""What a run says of its pace."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tiler.config.models import Config, Source
from tiler.observe import run
from tiler.observe.progress import Progress
from tiler.types import Packet


def test_the_time_that_is_left_follows_the_pace_and_not_the_wait_for_the_first_picture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = 100.0
    monkeypatch.setattr(run.time, "monotonic", lambda: now_s)
    encoder = SimpleNamespace(name="x264", sessions=1)
    observer = run.RunObserver(Config(sources=[Source(id="a", uri="x")]), (), (), encoder)
    observer.started()
    assert observer.left_s(300) is None
    now_s += 20  # a compiler
    for tick in range(11):
        observer.delivered(Packet(b"", tick, tick, True))
        now_s += 0.1
    now_s -= 0.1
    assert observer.left_s(300) == pytest.approx(28.9)
    assert observer.left_s(11) == 0


def test_a_line_tells_pace_latency_queue_and_drops(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now_s = 100.0
    monkeypatch.setattr(run.time, "monotonic", lambda: now_s)
    observer = run.RunObserver(
        Config(sources=[Source(id="a", uri="x")]), (), (), SimpleNamespace(name="x264", sessions=1)
    )
    observer.started()
    with Progress(observer, 200) as progress:
        for tick in range(100):
            observer.submitted(tick, now_s)
            now_s += 0.1 if tick >= 98 else 0.04 if tick >= 90 else 0.02
            observer.delivered(Packet(b"", tick, tick, True))
        observer.encoder_wait.add(0.003)
        observer.dropped_ticks = 7
        progress.update()
    line = capsys.readouterr().err
    assert "mosaic 100/200 frames" in line
    assert "tick to packet p50/95/99 20/40/100 ms" in line
    assert "encoder waits p95 3.0 ms" in line
    assert "drops 7" in line


def test_nothing_is_said_before_there_is_something_to_say(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now_s = 100.0
    monkeypatch.setattr(run.time, "monotonic", lambda: now_s)
    observer = run.RunObserver(
        Config(sources=[Source(id="a", uri="x")]), (), (), SimpleNamespace(name="x264", sessions=1)
    )
    observer.started()
    with Progress(observer, None) as progress:
        said = []
        for later_s in (1.2, 2.0, 2.0, 2.0, 4.0):
            now_s += later_s
            progress.update()
            said.append(capsys.readouterr().err)
        observer.submitted(0, now_s)
        observer.delivered(Packet(b"", 0, 0, True))
        progress.update()
    assert said[:2] == ["", ""]
    assert "no picture yet after 5 s; a first run compiles" in said[2]
    assert said[3] == ""
    assert "no picture yet after 11 s" in said[4]
