"""Short calls of the driver, against one that notes what it is asked."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tiler.kernels import enqueue_cuda
from tiler.types import Frame

NOT_READY, ILLEGAL_ADDRESS = 600, 700
STREAM = SimpleNamespace(ptr=0x51)


class Event:
    def __init__(self, ptr: int) -> None:
        self.ptr, self.waited = ptr, 0

    def synchronize(self) -> None:
        self.waited += 1


class Driver:
    """Notes its calls; `state` is what it says of an event by its address."""

    def __init__(self) -> None:
        self.state: dict[int, int] = {}
        self.waits: list[tuple[int, int]] = []
        self.launches: list[dict[str, Any]] = []
        self.result = 0

    def cuEventQuery(self, event: int) -> int:  # noqa: N802
        return self.state.get(event, 0)

    def cuStreamWaitEvent(self, stream: int, event: int, flags: int) -> int:  # noqa: N802
        assert flags == 0
        self.waits.append((stream, event))
        return self.result

    def cuLaunchKernel(self, function: int, *numbers: Any) -> int:  # noqa: N802
        *places, shared, stream, arguments, extra = numbers
        assert extra is None
        self.launches.append({
            "grid": tuple(places[:3]), "block": tuple(places[3:]), "shared": shared, "stream": stream,
            "function": function,
            "arguments": [ctypes.c_int32.from_address(arguments[k]).value for k in range(len(arguments))],
        })  # fmt: skip
        return self.result


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    made = Driver()
    monkeypatch.setattr(enqueue_cuda, "_driver", lambda: made)
    monkeypatch.setattr(enqueue_cuda, "_current_stream", lambda: STREAM)
    return made


def picture(ready: Event | None) -> Frame:
    grey = np.zeros((2, 2), np.uint8)
    return Frame(0, 0, grey, grey[:1, :1], grey[:1, :1], ready=ready)


@pytest.fixture
def launch(driver: Driver) -> enqueue_cuda.Launch:
    kernel = SimpleNamespace(kernel=SimpleNamespace(ptr=0xF))
    return enqueue_cuda.Launch(kernel, (128,), (np.int32(3), np.int32(4)), shared=64)


def test_a_stream_waits_for_pictures_that_are_under_way_and_nobody_asks_again(driver: Driver) -> None:
    passed, pending, other = (picture(Event(k)) for k in (1, 2, 3))
    driver.state = {2: NOT_READY, 3: NOT_READY}
    enqueue_cuda.wait(STREAM, [pending, picture(None), passed, other])
    assert driver.waits == [(0x51, 2), (0x51, 3)]
    assert (passed.ready, other.ready.ptr) == (None, 3)
    driver.state = {1: NOT_READY}   # of the next picture that lies there
    enqueue_cuda.wait(STREAM, [passed, pending])
    assert len(driver.waits) == 2
    assert pending.ready is None


def test_the_host_waits_only_for_what_is_under_way(driver: Driver) -> None:
    passed, pending = Event(1), Event(2)
    driver.state = {2: NOT_READY}
    enqueue_cuda.finish(passed)
    enqueue_cuda.finish(pending)
    assert (passed.waited, pending.waited) == (0, 1)
    assert (enqueue_cuda.passed(passed), enqueue_cuda.passed(pending)) == (True, False)


@pytest.mark.parametrize(
    "ask", [enqueue_cuda.passed, enqueue_cuda.finish, lambda event: enqueue_cuda.wait(STREAM, [picture(event)])]
)
def test_what_failed_on_the_device_is_no_event_that_passed(driver: Driver, ask: Callable[[Event], object]) -> None:
    driver.state = {1: ILLEGAL_ADDRESS}
    with pytest.raises(RuntimeError, match="cuEventQuery fails with CUDA driver error 700"):
        ask(Event(1))


def test_a_launch_takes_what_was_put_last(driver: Driver, launch: enqueue_cuda.Launch) -> None:
    launch(5, 6)
    launch.put(1, 9)
    launch(7)
    usual = {"block": (128, 1, 1), "shared": 64, "stream": 0x51, "function": 0xF}
    assert driver.launches == [
        usual | {"grid": (5, 6, 1), "arguments": [3, 4]},
        usual | {"grid": (7, 1, 1), "arguments": [3, 9]},
    ]


def test_a_launch_that_is_refused_says_so(driver: Driver, launch: enqueue_cuda.Launch) -> None:
    driver.result = 719
    with pytest.raises(RuntimeError, match="cuLaunchKernel fails with CUDA driver error 719"):
        launch(1)
