"""Short calls of the driver, against one that notes what it is asked."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tiler.kernels import enqueue_cuda

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

    def cuLaunchKernelEx(self, config: Any, function: int, arguments: Any, extra: None) -> int:  # noqa: N802
        assert extra is None
        # As cuda.h lays CUlaunchConfig out for 64 bits.
        raw = ctypes.string_at(ctypes.addressof(config._obj), 56)
        numbers = np.frombuffer(raw, np.uint32)
        attributes, count = int(np.frombuffer(raw, np.uint64)[5]), int(numbers[12])
        attribute = np.frombuffer(ctypes.string_at(attributes, 72), np.int32)
        self.launches.append({
            "grid": tuple(numbers[:3].tolist()), "block": tuple(numbers[3:6].tolist()), "shared": int(numbers[6]),
            "stream": int(np.frombuffer(raw, np.uint64)[4]), "function": function,
            "arguments": [ctypes.c_int32.from_address(arguments[k]).value for k in range(len(arguments))],
            "attributes": [(int(attribute[0]), int(attribute[2]))] * count,
        })  # fmt: skip
        return self.result


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    made = Driver()
    monkeypatch.setattr(enqueue_cuda, "_driver", lambda: made)
    monkeypatch.setattr(enqueue_cuda, "_current_stream", lambda: STREAM)
    return made


@pytest.fixture
def launch(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], enqueue_cuda.Launch]:
    def make(capability: str) -> enqueue_cuda.Launch:
        monkeypatch.setattr(enqueue_cuda, "_capability", lambda: int(capability))
        kernel = SimpleNamespace(kernel=SimpleNamespace(ptr=0xF))
        return enqueue_cuda.Launch(kernel, (128,), (np.int32(3), np.int32(4)), shared=64)

    return make


def test_a_stream_waits_for_what_is_under_way_and_once(driver: Driver) -> None:
    passed, pending, other = Event(1), Event(2), Event(3)
    driver.state = {2: NOT_READY, 3: NOT_READY}
    enqueue_cuda.wait(STREAM, [pending, None, passed, other, pending])
    assert sorted(driver.waits) == [(0x51, 2), (0x51, 3)]


def test_the_host_waits_only_for_what_is_under_way(driver: Driver) -> None:
    passed, pending = Event(1), Event(2)
    driver.state = {2: NOT_READY}
    enqueue_cuda.finish(passed)
    enqueue_cuda.finish(pending)
    assert (passed.waited, pending.waited) == (0, 1)
    assert (enqueue_cuda.passed(passed), enqueue_cuda.passed(pending)) == (True, False)


@pytest.mark.parametrize(
    "ask", [enqueue_cuda.passed, enqueue_cuda.finish, lambda event: enqueue_cuda.wait(STREAM, [event])]
)
def test_what_failed_on_the_device_is_no_event_that_passed(driver: Driver, ask: Callable[[Event], object]) -> None:
    driver.state = {1: ILLEGAL_ADDRESS}
    with pytest.raises(RuntimeError, match="cuEventQuery fails with CUDA driver error 700"):
        ask(Event(1))


@pytest.mark.parametrize(("capability", "early"), [("75", []), ("89", []), ("90", [(6, 1)]), ("120", [(6, 1)])])
def test_a_launch_begins_early_where_the_device_can(
    driver: Driver, launch: Callable[[str], enqueue_cuda.Launch], capability: str, early: list[tuple[int, int]]
) -> None:
    made = launch(capability)
    made(5, 6)
    made.put(1, 9)
    made(7, early=True)
    made(8)
    usual = {"block": (128, 1, 1), "shared": 64, "stream": 0x51, "function": 0xF}
    assert driver.launches == [
        usual | {"grid": (5, 6, 1), "arguments": [3, 4], "attributes": []},
        usual | {"grid": (7, 1, 1), "arguments": [3, 9], "attributes": early},
        usual | {"grid": (8, 1, 1), "arguments": [3, 9], "attributes": []},
    ]


def test_a_launch_that_is_refused_says_so(driver: Driver, launch: Callable[[str], enqueue_cuda.Launch]) -> None:
    driver.result = 719
    with pytest.raises(RuntimeError, match="cuLaunchKernelEx fails with CUDA driver error 719"):
        launch("90")(1)
