"""Threads that keep to a core, and those that they start."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable

import pytest

from tiler.cores import OneCore, any_core
from tiler.worker import Channel, Step, Worker

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="affinity is Linux's")
WAIT_S = 10.0


def _in_a_thread(work: Callable[[], None]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(WAIT_S)
    assert not thread.is_alive()


def test_workers_share_a_core_and_leave_the_others_alone() -> None:
    ours = os.sched_getaffinity(0)
    core, channel, found = OneCore(), Channel[int](1), list[set[int]]()

    def note(item: int) -> int:
        found.append(os.sched_getaffinity(0))
        return item

    workers = [Worker(range(3), [Step("a", note)], channel, core), Worker(channel, [Step("b", note)], core=core)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(WAIT_S)
    assert len(found) == 6
    assert len(found[0]) == 1
    assert found[0] <= ours
    assert all(cores == found[0] for cores in found)
    assert os.sched_getaffinity(0) == ours
    _in_a_thread(lambda: found.append(os.sched_getaffinity(0)))
    assert found[-1] == ours


def test_a_thread_that_such_a_thread_starts_may_run_anywhere() -> None:
    found: list[set[int]] = []

    def started() -> None:
        found.append(os.sched_getaffinity(0))
        any_core()
        found.append(os.sched_getaffinity(0))

    def work() -> None:
        OneCore().keep()
        _in_a_thread(started)

    _in_a_thread(work)
    assert len(found[0]) == 1
    assert found[1] == os.sched_getaffinity(0)


def test_what_is_refused_is_said_and_the_thread_goes_on(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(pid: int, cores: set[int]) -> None:
        raise OSError("Operation not permitted")

    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {pid})
    OneCore().keep()
    assert "do not keep to a core: Operation not permitted" in caplog.text
    any_core()
