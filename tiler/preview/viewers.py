"""Who watches: the pictures since the last keyframe, and a bounded queue for each viewer.

All of it runs on the server's thread. Nobody waits for a viewer: one that falls behind loses what
it has not taken and goes on at the next keyframe.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from tiler.types import Packet

LATE_S = 1.0
"""How long a picture may wait for its viewer."""
RING_BYTES = 64 << 20
"""Most that is kept of one group of pictures, and of one viewer's queue."""


class Coded(NamedTuple):
    """A packet and its times.

    Attributes:
        packet: as the encoder gave it.
        began_ms: Unix time in milliseconds at which the tick's pictures were taken.
        media_s: when it is shown, in the media's time.
    """

    packet: Packet
    began_ms: float
    media_s: float


class Viewer:
    """One viewer's queue. What it gives begins with a keyframe and has no gap but before a keyframe.

    Attributes:
        sent: pictures given.
        skipped: pictures lost because the viewer was slow.
    """

    def __init__(self, start: list[Coded], clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            start: the pictures since the last keyframe; empty: wait for the next one.
            clock: seconds.
        """
        self._clock = clock
        self._queue: deque[tuple[Coded, float]] = deque((coded, clock()) for coded in start)
        self._bytes = sum(len(coded.packet.data) for coded in start)
        self._waiting = not start
        self._missed = False
        self._closed = False
        self._ready = asyncio.Event()
        self._update()
        self.sent = self.skipped = 0

    def offer(self, coded: Coded) -> None:
        """Take a picture if the viewer can still use it; never waits."""
        now_s = self._clock()
        if self._queue and (now_s - self._queue[0][1] > LATE_S or self._bytes > RING_BYTES):
            self.lose()
        if self._waiting and not coded.packet.keyframe:
            self.skipped += self._missed
        else:
            self._waiting = self._missed = False
            self._queue.append((coded, now_s))
            self._bytes += len(coded.packet.data)
        self._update()

    def lose(self) -> None:
        """Pictures are missing: go on at the next keyframe."""
        self.skipped += len(self._queue)
        self._queue.clear()
        self._bytes = 0
        self._waiting = self._missed = True
        self._update()

    def take(self) -> Coded | None:
        """The next picture, None if there is none now."""
        if not self._queue:
            return None
        coded, _ = self._queue.popleft()
        self._bytes -= len(coded.packet.data)
        self.sent += 1
        self._update()
        return coded

    async def next(self) -> Coded | None:
        """The next picture, waiting for it; None after `close`."""
        while not self._closed:
            coded = self.take()
            if coded is not None:
                return coded
            await self._ready.wait()
        return None

    def close(self) -> None:
        """Wake whoever waits in `next`."""
        self._closed = True
        self._update()

    def _update(self) -> None:
        if self._queue or self._closed:
            self._ready.set()
        else:
            self._ready.clear()


class Audience:
    """All viewers, and what a new one starts with."""

    def __init__(self, most: int) -> None:
        """
        Args:
            most: viewers at once.
        """
        self.viewers: list[Viewer] = []
        self._most = most
        self._group: list[Coded] = []
        self._bytes = 0

    @property
    def group(self) -> list[Coded]:
        """The pictures since the last keyframe, that first."""
        return list(self._group)

    def publish(self, coded: Coded) -> None:
        """A picture left the encoder."""
        if coded.packet.keyframe:
            self._group, self._bytes = [], 0
        if coded.packet.keyframe or self._group:
            self._bytes += len(coded.packet.data)
            self._group.append(coded)
            if self._bytes > RING_BYTES:
                self._group = []
        for viewer in self.viewers:
            viewer.offer(coded)

    def join(self, *, late: bool = True) -> Viewer | None:
        """A new viewer; None when there are too many.

        Args:
            late: start with the last keyframe and what followed; else with the next one.
        """
        if len(self.viewers) >= self._most:
            return None
        viewer = Viewer(self.group if late else [])
        self.viewers.append(viewer)
        return viewer

    def leave(self, viewer: Viewer) -> None:
        """A viewer went; may be called twice."""
        viewer.close()
        if viewer in self.viewers:
            self.viewers.remove(viewer)

    def close(self) -> None:
        """Send everybody away."""
        for viewer in list(self.viewers):
            self.leave(viewer)
