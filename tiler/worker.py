"""Threads that carry items from stage to stage, and end together.

Each stage is a step of a `Worker`, which takes items from a bounded `Channel`, works on them, and puts
the results into the next one. The end of the stream travels downstream as a closed channel,
so that what is on its way is still delivered. A failure travels both ways by the same means:
the failing worker closes its outbox (downstream finishes what it has) and cancels its inbox
(upstream stops), so no thread waits for one that is gone.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Channel(Generic[T]):
    """A bounded queue with an end: iterate to take, `put` to give. One thread each.

    Two queues of the interpreter's own, one of items and one of the room that is left: a thread that has
    to wait sleeps once and is woken once, which a condition variable does not achieve among many threads.
    """

    def __init__(self, depth: int, on_wait: Callable[[float], None] | None = None) -> None:
        """
        Args:
            depth: items that may wait; more make `put` block.
            on_wait: is told for each item how many seconds it waited to be taken.
        """
        self._items: SimpleQueue[tuple[T, float] | None] = SimpleQueue()
        self._room: SimpleQueue[None] = SimpleQueue()
        for _ in range(depth):
            self._room.put(None)
        self._on_wait = on_wait
        self._cancelled = threading.Event()

    def put(self, item: T) -> bool:
        """Give an item, waiting for room. False when nobody will take it any more."""
        self._room.get()
        if self._cancelled.is_set():
            self._room.put(None)
            return False
        self._items.put((item, time.monotonic()))
        if self._cancelled.is_set():  # since then: whoever cancelled may not have seen it
            self._drop()
            return False
        return True

    def full(self) -> bool:
        """Whether `put` would have to wait."""
        return self._room.empty()

    def close(self) -> None:
        """Nothing more will be put; what is inside is still taken."""
        self._items.put(None)

    def cancel(self) -> None:
        """Nothing more will be taken; what is inside is dropped and `put` returns False."""
        self._cancelled.set()
        self._drop()
        self._room.put(None)

    def __iter__(self) -> Iterator[T]:
        while True:
            taken = self._items.get()
            if taken is None:
                self._items.put(None)  # whoever asks again is told again
                return
            item, since = taken
            self._room.put(None)
            if self._on_wait is not None:
                self._on_wait(time.monotonic() - since)
            yield item

    def _drop(self) -> None:
        with suppress(Empty):
            while True:
                self._items.get_nowait()
        self._items.put(None)


class Step(NamedTuple):
    """What a worker does with an item.

    Attributes:
        name: of the stage that this is, or is part of.
        work: takes the item, and gives what the next step takes.
        behind: an item waits for this step until so many others have begun after it. Never fewer than for the step
            before, and at most one more.
    """

    name: str
    work: Callable[[Any], Any]
    behind: int = 0


class _UnderWay:
    """An item between its steps."""

    __slots__ = ("item", "number", "step")

    def __init__(self, item: Any, number: int) -> None:
        self.item, self.number, self.step = item, number, 0


class Worker(threading.Thread):
    """A thread that takes items from an inbox through its steps, and puts what comes of them into an outbox.

    Where a device does the work and the host enqueues it, steps are `behind` one another: items are under way together,
    and the host seldom waits. The oldest item always goes first.
    """

    def __init__(self, inbox: Iterable[Any], steps: Sequence[Step], outbox: Channel[Any] | None = None) -> None:
        """
        Args:
            inbox: where items come from; it ends.
            steps: in order; the thread is called by their stage, "stages" where they are of more than one.
            outbox: what the last step gives goes there.
        """
        stages = {step.name for step in steps}
        super().__init__(name=f"tiler-{steps[0].name if len(stages) == 1 else 'stages'}", daemon=True)
        self.stage = steps[0].name
        self.failure: BaseException | None = None
        self._inbox = inbox
        self._steps = steps
        self._outbox = outbox
        self._under_way: deque[_UnderWay] = deque()
        self._begun = 0
        self._at: _UnderWay | None = None
        self._refused = False

    def full(self) -> bool:
        """Whether an item more would be more than shall be under way; or, where none shall, wait for the outbox."""
        most = self._steps[-1].behind
        return len(self._under_way) >= most if most else self._outbox is not None and self._outbox.full()

    def advance(self) -> bool:
        """Take the oldest item one step on; False when none is under way. The inbox may call this while it waits."""
        if self._refused or not self._under_way:
            return False
        self._take_on(self._under_way[0])
        return True

    def run(self) -> None:
        try:
            for item in self._inbox:
                self._begun += 1
                self._under_way.append(_UnderWay(item, self._begun))
                self._go_on()
                if self._refused:
                    break
            while self.advance():
                pass
        except BaseException as error:  # re-raised by the pipeline from `failure`
            self.failure = error
            self._finish_older()
        finally:
            self._under_way.clear()  # a device's memory is not to outlive the device's part of a run
            if isinstance(self._inbox, Channel):
                self._inbox.cancel()
            elif isinstance(self._inbox, Generator):
                self._inbox.close()
            if self._outbox is not None:
                self._outbox.close()

    def _go_on(self) -> None:
        """Every item takes the steps whose turn has come."""
        for one in tuple(self._under_way):
            while (
                one.step < len(self._steps)
                and self._steps[one.step].behind <= self._begun - one.number
                and not self._refused
            ):
                self._take_on(one)

    def _take_on(self, one: _UnderWay) -> None:
        """An item takes its next step; after the last one it is the oldest, and leaves."""
        step = self._steps[one.step]
        self.stage, self._at = step.name, one
        one.item = step.work(one.item)
        one.step += 1
        self.stage, self._at = self._steps[0].name, None
        if one.step == len(self._steps):
            self._under_way.popleft()
            if self._outbox is not None and not self._outbox.put(one.item):
                self._refused = True

    def _finish_older(self) -> None:
        """What began before the item that failed has passed the step that did, and is delivered if it can be."""
        stage = self.stage
        with suppress(Exception):  # the first failure is the one that is told
            failed = self._at
            while self._under_way and self._under_way[0] is not failed and self.advance():
                pass
        self.stage = stage
