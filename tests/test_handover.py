"""Where decoded pictures lie, said from one process to another: in order, and no surface in two hands at once."""

from __future__ import annotations

import copy
import multiprocessing
import threading
import time
from collections import deque

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiler.decode.handover import BLOCKS, Handover

SPAWN = multiprocessing.get_context("spawn")
SLOTS, PICTURES = 5, 400


def decode(handover: Handover) -> None:
    """What a process that decodes does with it."""
    for number in range(PICTURES):
        while (slot := handover.lend(0, SLOTS)) is None:
            handover.wait_for_room(10)
        handover.report(number, number / 4)
        handover.put(number * 3000, number / 8, number // 100, slot)
    handover.end()


def test_another_processs_pictures_come_in_order_each_in_a_surface_that_is_free() -> None:
    handover = Handover(SPAWN)
    other = SPAWN.Process(target=decode, args=(handover,))
    other.start()
    rng = np.random.default_rng()
    held: deque[int] = deque()
    for number in range(PICTURES):
        handed = handover.take()
        assert handed is not None
        assert (handed.pts, handed.arrival_s, handed.look) == (number * 3000, number / 8, number // 100)
        assert handed.slot not in held
        held.append(handed.slot)
        for _ in range(int(rng.integers(0, 3)) if len(held) < SLOTS else 1):
            if held:
                handover.give_back(0, held.popleft())
    last = handover.take()
    assert last is not None
    assert last.last
    assert (handover.errors, handover.lag_s) == (PICTURES - 1, (PICTURES - 1) / 4)
    other.join(10)
    assert other.exitcode == 0


@given(st.lists(st.sampled_from(["put", "take", "give back first", "give back last", "wake"]), max_size=120))
def test_both_sides_agree_whatever_the_order(steps: list[str]) -> None:
    """Against a plain queue; with several blocks, and a taker that is woken for nothing now and then."""
    run = Handover(SPAWN)
    other = copy.copy(run)  # the same memory, a count of its own
    sent: deque[tuple[int, int]] = deque()
    held: list[tuple[int, int]] = []
    number = woken = 0
    for step in steps:
        block = number // 7 % BLOCKS
        lent = {slot for at, slot in [*sent, *held] if at == block}
        if step == "put":
            slot = other.lend(block, SLOTS)
            assert (slot is None) == (len(lent) == SLOTS)
            if slot is not None:
                assert slot not in lent
                other.put(number, 0.0, block, slot)
                sent.append((block, slot))
                number += 1
        elif step == "take" and (sent or woken):
            handed = run.take()
            if sent:
                assert handed is not None
                assert (handed.look, handed.slot) == sent[0]
                held.append(sent.popleft())
            else:
                assert handed is None
                woken -= 1
        elif step.startswith("give back") and held:
            run.give_back(*held.pop(0 if step.endswith("first") else -1))
        elif step == "wake":
            run.wake()
            woken += 1


@pytest.mark.parametrize("by", ["several surfaces", "one surface, as the run waits for a picture", "a block"])
def test_whoever_waits_for_room_is_woken(by: str) -> None:
    run = Handover(SPAWN)
    other = copy.copy(run)
    other.map(0)
    assert [other.lend(0, 4) for _ in range(5)] == [0, 1, 2, 3, None]

    def wait() -> None:
        other.wait_for_room(60)
        slot = other.lend(0, 4)
        other.put(1, 0.0, 0, -9 if slot is None else slot)

    waiting = threading.Thread(target=wait)
    waiting.start()
    began_s = time.monotonic()
    if by == "a block":
        run.unmap(0)
    for slot in {"several surfaces": [2, 0, 3, 1], "a block": []}.get(by, [2]):
        run.give_back(0, slot)
    handed = run.take()
    assert handed is not None
    assert handed.slot == {"several surfaces": 0, "a block": -9}.get(by, 2)
    assert not other.is_mapped(0) if by == "a block" else other.is_mapped(0)
    waiting.join(10)
    assert time.monotonic() - began_s < 30
