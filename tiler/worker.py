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
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
U = TypeVar("U")


class Channel(Generic[T]):
    """A bounded queue with an end: iterate to take, `put` to give."""

    def __init__(self, depth: int, on_wait: Callable[[float], None] | None = None) -> None:
        """
        Args:
            depth: items that may wait; more make `put` block.
            on_wait: is told for each item how many seconds it waited to be taken.
        """
        self._items: deque[tuple[T, float]] = deque()
        self._depth = depth
        self._on_wait = on_wait
        self._closed = self._cancelled = False
        self._changed = threading.Condition()

    def put(self, item: T) -> bool:
        """Give an item, waiting for room. False when nobody will take it any more."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._items) < self._depth or self._cancelled)
            if self._cancelled:
                return False
            self._items.append((item, time.monotonic()))
            self._changed.notify_all()
            return True

    def full(self) -> bool:
        """Whether `put` would have to wait."""
        with self._changed:
            return len(self._items) >= self._depth

    def close(self) -> None:
        """Nothing more will be put; what is inside is still taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def cancel(self) -> None:
        """Nothing more will be taken; what is inside is dropped and `put` returns False."""
        with self._changed:
            self._cancelled = True
            self._items.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[T]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._items or self._closed or self._cancelled)
                if not self._items:
                    return
                item, since = self._items.popleft()
                self._changed.notify_all()
            if self._on_wait is not None:
                self._on_wait(time.monotonic() - since)
            yield item


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
