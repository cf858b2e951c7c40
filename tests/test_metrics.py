"""Durations as the report and the progress line tell them."""

from __future__ import annotations

import threading

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tiler.observe.metrics import Timing


@given(st.lists(st.floats(1e-5, 100), min_size=1, max_size=60), st.integers(1, 80), st.integers(1, 100))
@settings(max_examples=60)
def test_a_percentile_is_within_a_hundredth(seconds: list[float], times: int, percent: int) -> None:
    """Also while durations go on coming after it was asked for, and for thousands of them."""
    timing = Timing()
    added: list[float] = []
    for part in (seconds, seconds * times):
        for one in part:
            timing.add(one)
        added += part
        expected = np.percentile(added, percent, method="inverted_cdf") * 1000
        assert abs(timing.percentile_ms(percent) / expected - 1) < 0.01
        summary = timing.summary()
        assert summary["count"] == timing.count == len(added)
        assert abs(summary["mean_ms"] - np.mean(added) * 1000) <= 1e-3 + 1e-9 * np.mean(added) * 1000


def test_nothing_is_lost_that_some_threads_add_while_another_asks() -> None:
    timing, threads, each = Timing(), 4, 20_000
    begin = threading.Barrier(threads + 1)

    def work(ms: float) -> None:
        begin.wait()
        for _ in range(each):
            timing.add(ms / 1000)

    workers = [threading.Thread(target=work, args=(ms,)) for ms in (1.0, 2.0, 4.0, 8.0)]
    for worker in workers:
        worker.start()
    begin.wait()
    before = 0
    while any(worker.is_alive() for worker in workers):
        now = timing.count
        assert now >= before
        before = now
    assert timing.count == threads * each
    assert [round(timing.percentile_ms(percent)) for percent in (25, 50, 75, 100)] == [1, 2, 4, 8]


def test_there_is_no_percentile_of_nothing() -> None:
    assert Timing().percentile_ms(99) == 0.0
    assert Timing().summary() == {"count": 0, "mean_ms": 0.0, "p50_ms": 0.0, "p95_ms": 0.0, "p99_ms": 0.0}
