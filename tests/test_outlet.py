"""An outlet keeps what its output does to itself: errors, slowness, hanging."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiler.errors import StageError
from tiler.output.outlet import Outlet, Policy, policy
from tiler.types import Packet

GOP = 5
LOSSLESS = Policy(4, lossless=True, stall_s=0.3, finish_s=0.3)
LIVE = Policy(8, stall_s=0.3, finish_s=0.3)
NEWEST = Policy(8, newest=True, stall_s=0.3, finish_s=0.3)


def packet(tick: int) -> Packet:
    return Packet(bytes([tick % 256]), tick, tick, tick % GOP == 0)


class Fake:
    """An output that notes what it gets; `on` is called with each packet first."""

    def __init__(self, on: Callable[[Packet], None] = lambda packet: None) -> None:
        self.got: list[int] = []
        self.closed = threading.Event()
        self._on = on

    def write(self, packet: Packet) -> None:
        self._on(packet)
        self.got.append(packet.pts)

    def close(self) -> None:
        self.closed.set()


class Hangs(Fake):
    """Stays in its first `write` until the gate opens."""

    def __init__(self) -> None:
        self.entered, self.gate = threading.Event(), threading.Event()
        super().__init__(self._hang)

    def _hang(self, packet: Packet) -> None:
        self.entered.set()
        self.gate.wait()


def decodable(ticks: list[int]) -> bool:
    """Every picture follows the one before it, or begins a group."""
    return all(tick % GOP == 0 or tick == before + 1 for before, tick in zip([-2, *ticks], ticks, strict=False))


def wait(condition: Callable[[], Any], seconds: float = 5.0) -> None:
    """Until it holds; a fault if that takes too long."""
    ends_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends_s, "it never came"
        threading.Event().wait(0.005)


def test_back_pressure_loses_nothing() -> None:
    fake, patient = Hangs(), Policy(4, lossless=True)
    outlet = Outlet("file", "a", fake, patient)
    giver = threading.Thread(target=lambda: [outlet.put(packet(tick)) for tick in range(60)])
    giver.start()
    assert fake.entered.wait(5)
    wait(lambda: len(outlet._queue) == patient.depth)
    assert giver.is_alive()  # there is no room for the others
    fake.gate.set()
    giver.join(5)
    outlet.close()
    assert fake.got == list(range(60))
    assert fake.closed.is_set()
    assert outlet.report() == {"kind": "file", "name": "a", "state": "stopped", "packets": 60, "bytes": 60,
                               "dropped": 0, "restarts": 0, "error": None}  # fmt: skip
    assert not outlet.failed


@pytest.mark.parametrize("limits", [LIVE, NEWEST], ids=["live", "newest"])
@settings(max_examples=40)
@given(data=st.data())
def test_a_slow_output_loses_whole_groups_only(limits: Policy, data: st.DataObject) -> None:
    gate = threading.Semaphore(0)
    fake = Fake(lambda packet: gate.acquire() and None)  # type: ignore[func-returns-value]
    outlet = Outlet("push", "a", fake, limits)
    for tick in range(60):
        outlet.put(packet(tick))
        for _ in range(data.draw(st.integers(0, 2))):
            gate.release()
    for _ in range(200):
        gate.release()
    outlet.close()
    assert decodable(fake.got)
    assert len(fake.got) + outlet.report()["dropped"] == 60


def test_what_comes_is_worth_more_to_a_network_than_what_waits() -> None:
    fake = Hangs()
    outlet = Outlet("push", "a", fake, NEWEST)
    outlet.put(packet(0))
    assert fake.entered.wait(5)
    for tick in range(1, 46):
        outlet.put(packet(tick))
    fake.gate.set()
    outlet.close()
    assert fake.got == [0, *range(40, 46)]  # not the eight that came after the first


@pytest.mark.parametrize("limits", [LOSSLESS, LIVE, NEWEST], ids=["lossless", "live", "newest"])
def test_an_output_that_hangs_for_ever_costs_a_bounded_time_and_says_so(limits: Policy) -> None:
    fake = Hangs()
    outlet = Outlet("file", "a", fake, limits)
    began_s = time.monotonic()
    outlet.put(packet(0))
    assert fake.entered.wait(5)
    for tick in range(1, 40):
        outlet.put(packet(tick))
    wait(lambda: outlet.state in ("down", "stopped"))
    assert "has taken nothing for" in str(outlet.error)
    outlet.close()
    assert time.monotonic() - began_s < 3
    assert outlet.failed
    assert outlet.state == "stopped"
    fake.gate.set()


def test_an_output_that_hangs_in_close_costs_a_bounded_time() -> None:
    never = threading.Event()
    fake = Fake()
    fake.close = never.wait  # type: ignore[assignment, method-assign]
    outlet = Outlet("file", "a", fake, LOSSLESS)
    outlet.put(packet(0))
    began_s = time.monotonic()
    outlet.close()
    assert time.monotonic() - began_s < 2
    assert outlet.failed
    assert "did not finish" in str(outlet.error)
    never.set()


@pytest.mark.parametrize(
    "ask",
    [lambda outlet: outlet.put(packet(5)), lambda outlet: outlet.state, Outlet.report],
    ids=["put", "state", "report"],
)
def test_a_call_may_end_while_somebody_asks_how_long_it_takes(
    monkeypatch: pytest.MonkeyPatch, ask: Callable[[Outlet], Any]
) -> None:
    fake = Hangs()
    outlet = Outlet("file", "a", fake, Policy(4, lossless=True))
    outlet.put(packet(0))
    assert fake.entered.wait(5)
    for tick in range(1, 5):
        outlet.put(packet(tick))  # the next one finds no room

    def monotonic() -> float:
        if threading.current_thread() is threading.main_thread() and not fake.gate.is_set():
            fake.gate.set()
            wait(lambda: outlet._busy_since_s is None)
        return time.monotonic()

    monkeypatch.setattr("tiler.output.outlet.time", SimpleNamespace(monotonic=monotonic))
    ask(outlet)
    assert fake.gate.is_set()
    outlet.close()
    assert outlet.error is None
    assert fake.got[:5] == [0, 1, 2, 3, 4]


def raises(at: int, error: Exception) -> Callable[[Packet], None]:
    def on(packet: Packet) -> None:
        if packet.pts == at:
            raise error

    return on


@pytest.mark.parametrize("error", [StageError("output", "a: disk full"), OSError("disk full"), ValueError("disk full")])
def test_an_error_stops_the_output_finalises_it_and_stays_to_be_read(error: Exception) -> None:
    fake = Fake(raises(7, error))
    outlet = Outlet("file", "a", fake, LOSSLESS)
    for tick in range(30):
        outlet.put(packet(tick))
    wait(fake.closed.is_set)
    outlet.close()
    assert fake.got == list(range(7))
    assert outlet.failed
    assert str(outlet.error).endswith("disk full")
    assert not str(outlet.error).startswith(("output", "a:"))


class Server:
    """Something to connect to, that may be away."""

    def __init__(self) -> None:
        self.there = False
        self.attempts: list[float] = []
        self.connections: list[Fake] = []
        self.samples: list[int] = []

    def connect(self, sample: Packet) -> Fake:
        self.attempts.append(time.monotonic())
        self.samples.append(sample.pts)
        if not self.there:
            raise StageError("output", "Connection refused")
        self.connections.append(Fake(self._alive))
        return self.connections[-1]

    def _alive(self, packet: Packet) -> None:
        if not self.there:
            raise StageError("output", "Broken pipe")


def test_a_lost_connection_comes_back_with_a_keyframe() -> None:
    server, asked = Server(), threading.Event()
    outlet = Outlet("push", "rtmp://u:secret@h/live", None, NEWEST, reopen=server.connect, request_keyframe=asked.set)
    assert "secret" not in outlet.name
    outlet.put(packet(0))
    wait(lambda: outlet.error == "Connection refused")
    assert outlet.state == "down"
    assert server.samples[0] == 0
    server.there = True
    wait(lambda: outlet.state == "up")
    assert asked.is_set()
    for tick in range(3, 9):
        outlet.put(packet(tick))
    wait(lambda: server.connections[0].got == [5, 6, 7, 8])
    server.there = False
    outlet.put(packet(9))
    wait(lambda: outlet.state == "down")
    assert server.connections[0].closed.is_set()
    gone_s = time.monotonic()
    server.there = True
    wait(lambda: outlet.state == "up")
    assert time.monotonic() - gone_s < 3
    for tick in range(13, 17):
        outlet.put(packet(tick))
    wait(lambda: server.connections[1].got == [15, 16])
    outlet.close()
    assert outlet.report()["restarts"] == 1
    assert not outlet.failed


def test_attempts_grow_rarer_and_an_outlet_that_never_connected_failed() -> None:
    server = Server()
    outlet = Outlet("push", "a", None, NEWEST, reopen=server.connect)
    outlet.put(packet(0))
    wait(lambda: len(server.attempts) == 4)
    outlet.close()
    pauses = [after - before for before, after in zip(server.attempts, server.attempts[1:], strict=False)]
    assert pauses[0] < pauses[1] < pauses[2]
    assert outlet.failed


def test_a_run_that_ends_before_a_push_is_connected_sent_nothing_and_says_so() -> None:
    asked, gate = threading.Event(), threading.Event()

    def connect(sample: Packet) -> Fake:
        asked.set()
        gate.wait()
        return Fake()

    outlet = Outlet("push", "a", None, NEWEST, reopen=connect)
    for tick in range(6):
        outlet.put(packet(tick))
    wait(asked.is_set)
    assert not outlet.failed  # it may come yet
    outlet.finish()
    gate.set()
    outlet.close()
    assert outlet.failed
    assert outlet.error == "the run ended before a packet could go out"


def test_one_outlet_in_trouble_does_not_hold_up_the_others() -> None:
    good, hangs, turns = Fake(), Hangs(), threading.Semaphore(0)
    outlets = [
        Outlet("file", "good", good, Policy(64, lossless=True)),
        Outlet("push", "hangs", hangs, NEWEST),
        Outlet("file", "raises", Fake(raises(3, OSError("injected"))), LIVE),
        Outlet("push", "slow", Fake(lambda packet: turns.acquire() and None), NEWEST),  # type: ignore[func-returns-value]
        Outlet("push", "away", None, NEWEST, reopen=Server().connect),
    ]
    longest_s = 0.0
    for tick in range(500):
        began_s = time.monotonic()
        for outlet in outlets[1:]:
            outlet.put(packet(tick))
        longest_s = max(longest_s, time.monotonic() - began_s)
        outlets[0].put(packet(tick))
        if tick % 50 == 0:
            turns.release()
    turns.release(500)
    for outlet in outlets:
        outlet.close()
    assert good.got == list(range(500))
    assert longest_s < 0.5
    assert [outlet.failed for outlet in outlets] == [False, True, True, False, True]
    hangs.gate.set()


def test_policies_follow_clock_and_kind() -> None:
    fps = Fraction(30)
    assert policy(live=False, network=False, fps=fps).lossless
    assert not policy(live=True, network=False, fps=fps).lossless
    assert policy(live=False, network=True, fps=fps).newest
