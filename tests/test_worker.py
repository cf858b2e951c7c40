"""Channel and Worker: items in order, bounded, and an end that reaches everybody."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiler.worker import Channel, Step, Worker

WAIT_S = 10.0


@given(st.lists(st.integers(), max_size=50), st.integers(1, 4))
def test_all_items_arrive_in_order_and_no_more_than_depth_wait(items: list[int], depth: int) -> None:
    channel: Channel[int] = Channel(depth)
    most = 0
    given, taken = [], []

    def counted() -> Iterator[int]:
        nonlocal most
        for item in items:
            yield item
            given.append(item)

    def take(item: int) -> None:
        nonlocal most
        taken.append(item)
        most = max(most, len(given) + 1 - len(taken))  # one more may be on its way into the channel

    workers = [
        Worker(counted(), [Step("give", lambda item: item)], channel),
        Worker(channel, [Step("take", take)]),
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(WAIT_S)
        assert not worker.is_alive()
    assert taken == items
    assert most <= depth + 1


def test_what_is_inside_is_taken_after_the_end() -> None:
    channel: Channel[str] = Channel(3)
    assert channel.put("a")
    assert channel.put("b")
    assert not channel.full()
    assert channel.put("c")
    assert channel.full()
    channel.close()
    assert list(channel) == ["a", "b", "c"]
    assert list(channel) == []


def test_cancel_wakes_who_waits_to_give_and_drops_what_waits() -> None:
    channel: Channel[int] = Channel(1)
    assert channel.put(1)
    answers: list[bool] = []
    giver = threading.Thread(target=lambda: answers.append(channel.put(2)))
    giver.start()
    channel.cancel()
    giver.join(WAIT_S)
    assert answers == [False]
    assert not channel.put(3)
    assert list(channel) == []


def test_the_wait_of_each_item_is_told() -> None:
    waits: list[float] = []
    channel: Channel[int] = Channel(2, waits.append)
    channel.put(1)
    channel.put(2)
    channel.close()
    assert len(list(channel)) == len(waits) == 2
    assert min(waits) >= 0


@pytest.mark.parametrize("broken", [0, 1, 2])
def test_a_failure_ends_the_stages_before_and_behind_it(broken: int) -> None:
    """Whichever stage fails: nobody waits for it, what was behind it is still worked on, and only it has failed."""
    first, second = Channel[int](1), Channel[int](1)
    done: list[int] = []

    def stage(number: int, item: int) -> int:
        if number == broken and item == 5:
            raise OSError("disk")
        return item

    def last(item: int) -> None:
        done.append(stage(2, item))

    workers = [
        Worker(iter(range(10**9)), [Step("one", lambda item: stage(0, item))], first),
        Worker(first, [Step("two", lambda item: stage(1, item))], second),
        Worker(second, [Step("three", last)]),
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(WAIT_S)
        assert not worker.is_alive()
    assert [type(worker.failure) for worker in workers] == [OSError if i == broken else type(None) for i in range(3)]
    assert done == list(range(5))


steps_behind = st.lists(st.integers(0, 1), min_size=1, max_size=5).map(lambda more: list(accumulate([0, *more])))


@given(st.integers(0, 12), steps_behind)
def test_items_under_way_together_take_their_steps_oldest_first(count: int, behind: list[int]) -> None:
    """Each waits until so many have begun after it, and a younger one is never further than an older one."""
    taken = [0] * count
    begun = 0
    outbox: Channel[int] = Channel(count + 1)

    def inbox() -> Iterator[int]:
        nonlocal begun
        for item in range(count):
            assert sum(0 < steps < len(behind) for steps in taken) <= behind[-1]
            begun += 1
            yield item
        begun += behind[-1]  # at the end nothing is waited for

    def work(step: int, item: int) -> int:
        assert taken[item] == step
        assert begun > item + behind[step]
        taken[item] += 1
        assert taken == sorted(taken, reverse=True)
        return item

    worker = Worker(inbox(), [Step("s", partial(work, step), wait) for step, wait in enumerate(behind)], outbox)
    worker.run()
    assert worker.failure is None
    assert list(outbox) == list(range(count))


@pytest.mark.parametrize("broken", [0, 1, 2, "inbox"])
def test_what_began_before_a_failure_is_delivered(broken: int | str) -> None:
    outbox: Channel[int] = Channel(20)

    def inbox() -> Iterator[int]:
        yield from range(7)
        if broken == "inbox":
            raise OSError("network")
        yield from range(7, 10)

    def work(step: int, item: int) -> int:
        if step == broken and item == 7:
            raise OSError("disk")
        return item

    steps = [Step(name, partial(work, step), behind) for step, name, behind in ((0, "a", 0), (1, "b", 3), (2, "c", 4))]
    worker = Worker(inbox(), steps, outbox)
    worker.run()
    assert isinstance(worker.failure, OSError)
    assert not worker.advance()  # nothing is under way any more
    assert worker.stage == "a" if broken == "inbox" else worker.stage == "abc"[int(broken)]
    assert list(outbox) == list(range(7))


def test_an_inbox_that_has_to_wait_lets_what_is_under_way_go_on() -> None:
    outbox: Channel[int] = Channel(2)

    def inbox() -> Iterator[int]:
        yield 1
        assert not worker.full()
        yield 2
        assert worker.full()
        while worker.advance():
            pass
        assert not worker.full()
        yield 3

    worker = Worker(inbox(), [Step("a", int), Step("b", int, 1), Step("c", int, 2)], outbox)
    worker.start()
    taken = list(outbox)
    worker.join(WAIT_S)
    assert (taken, worker.failure) == ([1, 2, 3], None)


def test_nothing_more_is_worked_on_when_nobody_takes_it() -> None:
    outbox: Channel[int] = Channel(5)
    outbox.cancel()
    done: list[int] = []
    worker = Worker(iter(range(10)), [Step("a", lambda item: done.append(item) or item)], outbox)
    worker.run()
    assert (done, worker.failure) == ([0], None)
