"""What a run says of its pace."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tiler.config.models import Config, Source
from tiler.observe import run
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
