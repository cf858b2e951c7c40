"""Counting and timing: percentiles in bounded memory, rates without wall clocks."""

from __future__ import annotations

import math
import threading
import time
from collections import deque

import numpy as np

from tiler.types import CLOCK_HZ

_STEP = math.log(1.01)  # buckets are 1 % wide: a percentile is off by less than that
_SMALLEST_MS = 1e-3
_AT_ONCE = 2048


class Span:
    """Times one block for a `Timing`. A class, since a generator takes as long as some of the blocks."""

    __slots__ = ("_start", "_timing")

    def __init__(self, timing: Timing) -> None:
        self._timing = timing

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._timing.add(time.perf_counter() - self._start)


class Timing:
    """Durations of one thing, kept as a histogram of 1 % wide buckets. Thread-safe.

    >>> timing = Timing()
    >>> for ms in range(1, 101):
    ...     timing.add(ms / 1000)
    >>> round(timing.percentile_ms(50)), round(timing.percentile_ms(99)), timing.count
    (50, 99, 100)
    """

    def __init__(self) -> None:
        self._new: list[float] = []   # not in a bucket yet: a thousand are sorted as fast as ten
        self._count, self._total_s = 0, 0.0
        self._buckets: dict[int, int] = {}
        self._lock = threading.Lock()

    def add(self, seconds: float) -> None:
        self._new.append(seconds)
        if len(self._new) >= _AT_ONCE:
            with self._lock:
                self._sort()

    @property
    def count(self) -> int:
        """Durations that were added."""
        with self._lock:
            self._sort()
            return self._count

    def measure(self) -> Span:
        """A context that adds the time that the block takes."""
        return Span(self)

    def percentile_ms(self, percent: float) -> float:
        """The duration that `percent` of them do not exceed, in milliseconds; 0 when there are none."""
        with self._lock:
            self._sort()
            rank = math.ceil(self._count * percent / 100)
            seen = 0
            for bucket in sorted(self._buckets):
                seen += self._buckets[bucket]
                if seen >= rank:
                    return math.exp(bucket * _STEP)
        return 0.0

    def summary(self) -> dict[str, float | int]:
        """count, mean and p50/p95/p99 in milliseconds, as the report shows them."""
        count = self.count
        return {
            "count": count,
            "mean_ms": round(self._total_s / count * 1000, 3) if count else 0.0,
            "p50_ms": round(self.percentile_ms(50), 3),
            "p95_ms": round(self.percentile_ms(95), 3),
            "p99_ms": round(self.percentile_ms(99), 3),
        }

    def _sort(self) -> None:
        """Put what is new into buckets, with the lock; others may add meanwhile."""
        new = self._new[:]
        del self._new[: len(new)]
        if not new:
            return
        self._count += len(new)
        self._total_s += sum(new)
        buckets = np.rint(np.log(np.maximum(np.array(new) * 1000, _SMALLEST_MS)) / _STEP)
        for bucket, times in zip(*np.unique(buckets, return_counts=True), strict=True):
            self._buckets[int(bucket)] = self._buckets.get(int(bucket), 0) + int(times)


class RateMeter:
    """Pictures a second over the last seconds of the mosaic's clock: (n - 1) / span of their pts."""

    def __init__(self, window_s: float = 2.0) -> None:
        self._window = round(window_s * CLOCK_HZ)
        self._times: deque[int] = deque()

    def add(self, pts: int) -> None:
        """A picture with this time (1/90000 s) was shown; times never go back."""
        self._times.append(pts)

    def rate(self, now: int) -> float:
        """Pictures a second in the window that ends now; 0 with fewer than two."""
        while self._times and self._times[0] < now - self._window:
            self._times.popleft()
        if len(self._times) < 2 or self._times[-1] == self._times[0]:
            return 0.0
        return (len(self._times) - 1) * CLOCK_HZ / (self._times[-1] - self._times[0])
