"""Channel and Worker: items in order, bounded, and an end that reaches everybody."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiler.worker import Channel, Worker

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

    workers = [Worker("give", counted(), lambda item: item, channel), Worker("take", channel, take)]
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
        Worker("one", iter(range(10**9)), lambda item: stage(0, item), first),
        Worker("two", first, lambda item: stage(1, item), second),
        Worker("three", second, last),
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(WAIT_S)
        assert not worker.is_alive()
    assert [type(worker.failure) for worker in workers] == [OSError if i == broken else type(None) for i in range(3)]
    assert done == list(range(5))
