"""Threads that carry items from stage to stage, and end together.

Each stage is one `Worker`: it takes items from a bounded `Channel`, works on them, and puts
the results into the next one. The end of the stream travels downstream as a closed channel,
so that what is on its way is still delivered. A failure travels both ways by the same means:
the failing worker closes its outbox (downstream finishes what it has) and cancels its inbox
(upstream stops), so no thread waits for one that is gone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")
U = TypeVar("U")


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


class Worker(threading.Thread):
    """One stage: `for item in inbox: outbox.put(work(item))` on a named thread."""

    def __init__(
        self, name: str, inbox: Iterable[T], work: Callable[[T], U], outbox: Channel[U] | None = None
    ) -> None:
        super().__init__(name=f"tiler-{name}", daemon=True)
        self.stage = name
        self.failure: BaseException | None = None
        self._inbox = inbox
        self._work = work
        self._outbox = outbox

    def run(self) -> None:
        try:
            for item in self._inbox:
                result = self._work(item)
                if self._outbox is not None and not self._outbox.put(result):
                    break
        except BaseException as error:  # re-raised by the pipeline from `failure`
            self.failure = error
        finally:
            if isinstance(self._inbox, Channel):
                self._inbox.cancel()
            if self._outbox is not None:
                self._outbox.close()
