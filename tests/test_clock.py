"""Timestamps made sound: of files in fractions and in whole numbers, and of live sources."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tiler.decode.clock import FileClock, LiveClock, TickClock
from tiler.types import CLOCK_HZ


@given(
    st.lists(
        st.tuples(
            st.one_of(st.none(), st.fractions(min_value=-50, max_value=50, max_denominator=1000)),
            st.fractions(min_value=Fraction(1, 240), max_value=2, max_denominator=1000),
        ),
        max_size=40,
    )
)
def test_file_clock_never_goes_back(pictures: list[tuple[Fraction | None, Fraction]]) -> None:
    clock = FileClock()
    stamps = [clock.stamp(time_s, duration_s) for time_s, duration_s in pictures]
    kept = [stamp for stamp in stamps if stamp is not None]
    assert kept[:1] in ([], [0])
    assert all(b > a for a, b in pairwise(kept))


def test_file_clock_repairs() -> None:
    def stamps(*frames: float) -> list[int | None]:
        clock = FileClock()
        return [clock.stamp(Fraction(frame) / 10, Fraction(1, 10)) for frame in frames]

    assert stamps(0, 1, 2, 3) == [0, 9000, 18000, 27000]
    assert stamps(0, 1, 1, 2) == [0, 9000, None, 18000]
    assert stamps(0, 2, 1, 3) == [0, 18000, 18001, 27000]
    assert stamps(50, 51, 0, 1) == [0, 9000, 18000, 27000]


def test_file_clock_follows_on_where_streams_were_joined() -> None:
    def stamps(joined: bool, *frames: float) -> list[int | None]:
        clock = FileClock(joined=joined)
        return [clock.stamp(Fraction(frame) / 10, Fraction(1, 10)) for frame in frames]

    assert stamps(True, 0, 1, 36000, 36001, 2, 3) == [0, 9000, 18000, 27000, 36000, 45000]
    assert stamps(False, 0, 1, 36000, 36001, 2, 3) == [0, 9000, 324_000_000, 324_009_000, 324_018_000, 324_027_000]
    assert stamps(True, 0, 1, 100) == [0, 9000, 900_000], "a camera that was away for some seconds"


def test_live_clock_smooths_jitter_and_follows_jumps() -> None:
    clock = LiveClock()
    assert [clock.stamp(3000 * k, 7 + k / 30 + (k % 3) * 0.02) for k in range(6)] == [
        3000 * k for k in range(6)
    ]
    again = clock.stamp(0, 7 + 10.0)
    assert again == 10 * CLOCK_HZ
    assert clock.stamp(3000, 7 + 10.1) == again + 3000


ticks = st.fractions(min_value=Fraction(1, 100_000), max_value=1, max_denominator=100_000)


@given(
    st.lists(st.tuples(st.one_of(st.none(), st.integers(-50_000, 50_000)), st.integers(0, 5_000)), max_size=40),
    ticks,
    ticks,
    st.one_of(st.none(), st.integers(-1000, 1000)),
    st.booleans(),
)
def test_the_tick_clock_is_the_file_clock(
    pictures: list[tuple[int | None, int]], tick_s: Fraction, usual_s: Fraction, origin: int | None, joined: bool
) -> None:
    ours = TickClock(tick_s, usual_s, origin, joined=joined)
    theirs = FileClock(None if origin is None else origin * tick_s, joined=joined)
    for pts, duration in pictures:
        expected = theirs.stamp(None if pts is None else pts * tick_s, duration * tick_s or usual_s)
        assert ours.stamp(pts, duration) == expected
