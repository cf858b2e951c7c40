"""What a tile shows at a time: offline exactly, live what came last."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from tiler.config.models import MosaicConfig
from tiler.decode.base import Reader
from tiler.decode.source import SourceReader, frame_duration
from tiler.types import CLOCK_HZ, Frame, State


class Shown(NamedTuple):
    """What a source shows at one tick.

    Attributes:
        frame: the picture; None before the first one and on a NO_SIGNAL slate.
        new: it was not shown at an earlier tick.
        state: how to show it.
    """

    frame: Frame | None
    new: bool
    state: State


class Hold:
    """Keeps the picture of a source while it is paused. One thread uses it."""

    def __init__(self) -> None:
        self._kept: Frame | None = None

    def apply(self, now: Shown, paused: bool) -> Shown:
        """What to show: `now`, or while paused what was shown when that began. Each picture is new once."""
        kept = self._kept
        if paused and kept is not None:
            return Shown(kept, False, State.PAUSED)
        self._kept = now.frame if paused else None
        if now.frame is None:
            return now
        if paused:
            return Shown(now.frame, now.new, State.PAUSED)
        if kept is None or kept is now.frame:
            return now
        return Shown(now.frame, True, now.state)  # it may have come while paused


@dataclass(frozen=True, slots=True)
class FeedCounts:
    """What became of a source's frames.

    Attributes:
        read: frames taken from the decoder.
        skipped: frames never shown, because a newer one was due, or came live, for the same tick.
        repeated: ticks that showed the same frame once more.
        dropped: frames never shown, because a newer one came while the run left ticks out (live).
        reconnects: times that a URL was opened again with success.
        errors: packets and pictures found damaged, and outages.
    """

    read: int
    skipped: int
    repeated: int
    dropped: int
    reconnects: int
    errors: int


class OfflineFeed:
    """The newest frame with pts <= the tick's time, to the millisecond: the same on a machine of any speed."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self._shown: Frame | None = None
        self._next: Frame | None = None
        self._exhausted = False
        self._over = False
        self._end = 0
        self._now = 0
        self._read = self._skipped = self._repeated = 0

    def at(self, pts: int) -> Shown:
        """What to show at `pts` (1/90000 s, never decreasing); waits until that is certain.

        After its last frame's duration a file is ENDED, or NO_SIGNAL when it broke.

        Raises:
            ValueError: `pts` lies before the last one asked for.
            Exception: whatever the reading thread raised that is not a StageError.
        """
        if pts < self._now:
            raise ValueError(f"pts must not decrease, got {pts} after {self._now}")
        self._now = pts
        due = self._due(pts)
        ended = self._exhausted and _reached(self._end, pts)
        over = ended and not self.reader.endless
        self._over = ended or (self._exhausted and self.reader.endless)
        new = due is not None and due is not self._shown
        if due is not None:
            self._shown = due
        if over:
            if self.reader.failure is not None or self._shown is None:
                return Shown(None, False, State.NO_SIGNAL)
            return Shown(self._shown, new, State.ENDED)
        if self._shown is None:
            return Shown(None, False, State.WAITING)
        self._repeated += not new
        return Shown(self._shown, new, State.LIVE)

    @property
    def finished(self) -> bool:
        """At the last tick asked for, the source had ended or broken, or was a still image."""
        return self._over

    @property
    def index(self) -> int:
        """Which of the source's pictures is shown, from 0; -1 before the first."""
        return self._read - (self._next is not None) - 1

    @property
    def counts(self) -> FeedCounts:
        read = self.reader.counts
        return FeedCounts(self._read, self._skipped, self._repeated, 0, read.reconnects, read.errors)

    def close(self) -> None:
        self.reader.close()

    def _due(self, pts: int) -> Frame | None:
        """The newest frame not shown yet that is due, None if there is none."""
        due: Frame | None = None
        while not self._exhausted:
            if self._next is None:
                self._next = self.reader.next()
                if self._next is None:
                    self._exhausted = True
                    break
                self._read += 1
                before = due if due is not None else self._shown
                lasts = frame_duration(self.reader.info) if before is None else self._next.pts - before.pts
                self._end = self._next.pts + lasts
            if not _reached(self._next.pts, pts):
                break
            self._skipped += due is not None
            due, self._next = self._next, None
        return due


def _reached(time: int, pts: int) -> bool:
    """Whether it is so late at `pts`, to the millisecond.

    Matroska, WebM and FLV round to one: of 30 pictures a second every third would come after its tick, and be skipped.
    """
    return time < pts + CLOCK_HZ // 1000


class LiveFeed:
    """The frame that came last; never waits.

    A live source that is silent for `stale_after_s` is STALE, for `no_signal_after_s`
    NO_SIGNAL, also when it has not come since the first tick. A file paced in real time is neither: it ends.
    """

    def __init__(
        self, reader: SourceReader, mosaic: MosaicConfig, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """
        Args:
            reader: made with live=True.
            mosaic: stale_after_s and no_signal_after_s are read from it.
            clock: seconds, the clock of Frame.arrival_s.
        """
        self.reader = reader
        self._mosaic = mosaic
        self._clock = clock
        self._first_s: float | None = None  # of the first tick; the stages after this one may take minutes to build
        self._shown: Frame | None = None
        self._pts: int | None = None
        self._gap = round(3 * CLOCK_HZ / (2 * mosaic.fps))  # more than a tick, less than two
        self._repeated = self._replaced = self._dropped = 0

    def at(self, pts: int) -> Shown:
        """What to show now; `pts` only tells whether ticks were left out since the last call.

        Raises:
            Exception: whatever the reading thread raised that is not a StageError.
        """
        replaced = self.reader.counts.dropped
        if self._pts is not None and pts - self._pts > self._gap:
            self._dropped += replaced - self._replaced
        self._pts, self._replaced = pts, replaced
        newest = self.reader.latest()
        new = newest is not None
        if newest is not None:
            self._shown = newest
        now_s = self._clock()
        if self._first_s is None:
            self._first_s = now_s
        state = self._state(now_s - (self._first_s if self._shown is None else self._shown.arrival_s))
        self._repeated += state == State.LIVE and not new
        if state == State.NO_SIGNAL:
            return Shown(None, False, state)
        return Shown(self._shown, new, state)

    def _state(self, silent_s: float) -> State:
        if self.reader.finished:
            if self.reader.failure is not None or self._shown is None:
                return State.NO_SIGNAL
            return State.LIVE if self.reader.endless else State.ENDED
        if not self.reader.remote:
            return State.WAITING if self._shown is None else State.LIVE
        if silent_s >= self._mosaic.no_signal_after_s:
            return State.NO_SIGNAL
        if self._shown is None:
            return State.WAITING
        return State.STALE if silent_s >= self._mosaic.stale_after_s else State.LIVE

    @property
    def finished(self) -> bool:
        """The source has ended or broken, or is a still image."""
        return self.reader.finished

    @property
    def index(self) -> int:
        """Which of the source's pictures came last, from 0; -1 before the first."""
        return self.reader.counts.read - 1

    @property
    def counts(self) -> FeedCounts:
        read = self.reader.counts
        skipped = read.dropped - self._dropped
        return FeedCounts(read.read, skipped, self._repeated, self._dropped, read.reconnects, read.errors)

    def close(self) -> None:
        self.reader.close()
