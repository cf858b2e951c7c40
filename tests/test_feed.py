"""What a tile shows at a time: OfflineFeed exactly, LiveFeed by silence."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import number_of, write
from PIL import Image

from tiler.config.models import MosaicConfig, Source
from tiler.decode.feed import LiveFeed, OfflineFeed, Shown
from tiler.decode.source import ReaderCounts, SourceReader
from tiler.errors import StageError
from tiler.types import Frame, State


def tiny(pts: int, arrival_s: float = 0.0) -> Frame:
    y, c = np.zeros((4, 4), np.uint8), np.zeros((2, 2), np.uint8)
    return Frame(0, pts, y, c, c, arrival_s=arrival_s)


class FakeReader(SourceReader):
    """A reader without a thread: gives what it is told to."""

    def __init__(self, stamps: list[int], *, endless: bool = False, remote: bool = False) -> None:
        self.queue = [tiny(pts) for pts in stamps]
        self._counts = ReaderCounts()
        self.failure: StageError | None = None
        self.info = None
        self.endless = endless
        self.remote = remote
        self.over = False

    def next(self) -> Frame | None:
        return self.queue.pop(0) if self.queue else None

    def latest(self) -> Frame | None:
        return self.next()

    @property
    def finished(self) -> bool:
        return self.over and not self.queue


def feed_of(stamps: list[int], *, broken: bool = False, endless: bool = False) -> OfflineFeed:
    reader = FakeReader(stamps, endless=endless)
    if broken:
        reader.failure = StageError("decode", "broke", stream="cam")
    return OfflineFeed(reader)


def told(shown: Shown) -> tuple[int | None, bool, State]:
    return (None if shown.frame is None else shown.frame.pts, shown.new, shown.state)


def test_same_rate_shows_each_frame_once() -> None:
    feed = feed_of([0, 3000, 6000])
    assert [told(feed.at(pts)) for pts in (0, 3000, 6000)] == [
        (0, True, State.LIVE),
        (3000, True, State.LIVE),
        (6000, True, State.LIVE),
    ]
    assert not feed.finished
    assert told(feed.at(9000)) == (6000, False, State.ENDED)
    assert told(feed.at(90000)) == (6000, False, State.ENDED)
    assert feed.finished
    counts = feed.counts
    assert (counts.read, counts.skipped, counts.repeated) == (3, 0, 0)


def test_slower_source_repeats_and_faster_one_skips() -> None:
    slow = feed_of([0, 6000])
    assert [told(slow.at(pts))[:2] for pts in (0, 3000, 6000)] == [(0, True), (0, False), (6000, True)]
    assert (slow.counts.skipped, slow.counts.repeated) == (0, 1)
    fast = feed_of([0, 1000, 2000, 3000, 4000, 5000, 6000])
    assert [told(fast.at(pts))[:2] for pts in (0, 3000, 6000)] == [(0, True), (3000, True), (6000, True)]
    assert (fast.counts.skipped, fast.counts.repeated) == (4, 0)


@pytest.mark.parametrize("fps", [Fraction(24), Fraction(30000, 1001), Fraction(30), Fraction(60), Fraction(120)])
def test_times_in_whole_milliseconds_show_each_frame_once(fps: Fraction) -> None:
    """As Matroska, WebM and FLV have them."""
    ticks = [round(90000 * tick / fps) for tick in range(500)]
    feed = feed_of([90 * round(1000 * tick / fps) for tick in range(500)])
    assert all(feed.at(tick).new for tick in ticks)
    assert (feed.counts.read, feed.counts.skipped, feed.counts.repeated) == (500, 0, 0)
    assert feed.at(round(90000 * 500 / fps)).state == State.ENDED


def test_last_frame_lasts_as_long_as_the_one_before() -> None:
    feed = feed_of([0, 9000])
    assert feed.at(9000).state == State.LIVE
    assert feed.at(17910).state == State.LIVE
    assert not feed.finished
    assert feed.at(18000).state == State.ENDED


def test_frames_jumped_over_at_the_end_still_show_the_last() -> None:
    feed = feed_of([0, 3000, 6000])
    assert told(feed.at(90000)) == (6000, True, State.ENDED)
    assert feed.counts.skipped == 2


def test_broken_stream_shows_what_there_was_then_a_slate() -> None:
    feed = feed_of([0, 3000], broken=True)
    assert told(feed.at(3000)) == (3000, True, State.LIVE)
    assert told(feed.at(6000)) == (None, False, State.NO_SIGNAL)
    assert feed.finished
    nothing = feed_of([], broken=True)
    assert told(nothing.at(0)) == (None, False, State.NO_SIGNAL)


def test_image_stays_live_but_keeps_nobody_waiting() -> None:
    feed = feed_of([0], endless=True)
    assert told(feed.at(0)) == (0, True, State.LIVE)
    assert feed.finished
    assert told(feed.at(10**9)) == (0, False, State.LIVE)


def test_time_must_not_go_back() -> None:
    feed = feed_of([0])
    feed.at(100)
    with pytest.raises(ValueError, match="must not decrease"):
        feed.at(99)


@given(
    st.lists(st.integers(0, 2000), unique=True, max_size=30).map(sorted),
    st.lists(st.integers(0, 2500), max_size=30).map(sorted),
)
def test_offline_shows_the_newest_frame_that_is_due(stamps: list[int], ticks: list[int]) -> None:
    feed = feed_of(stamps)
    seen: set[int] = set()
    for tick in ticks:
        shown = feed.at(tick)
        due = max((pts for pts in stamps if pts < tick + 90), default=None)
        assert (None if shown.frame is None else shown.frame.pts) == due
        assert shown.new == (due is not None and due not in seen)
        if due is not None:
            seen.add(due)
    passed = {pts for pts in stamps if ticks and pts < ticks[-1] + 90}
    assert feed.counts.skipped == len(passed) - len(seen)


def clip(path: Path, **keys: object) -> SourceReader:
    source = Source.model_validate({"id": "cam", "uri": str(path), **keys})
    return SourceReader(source, str(path), 0, 1, live=False)


def test_offline_is_the_same_every_time(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", 25, rate=25)

    def run() -> list[tuple[int, bool, int]]:
        with clip(path) as reader:
            reader.start()
            feed = OfflineFeed(reader)
            shown = [feed.at(3000 * tick) for tick in range(32)]
        return [(number_of(s.frame.y), s.new, int(s.state)) for s in shown if s.frame is not None]

    first = run()
    assert [number for number, _, _ in first] == [min(24, tick * 25 // 30) for tick in range(32)]
    assert [state for _, _, state in first] == [int(State.LIVE)] * 30 + [int(State.ENDED)] * 2
    assert run() == first


def test_loop_never_ends(tmp_path: Path) -> None:
    with clip(write(tmp_path / "a.mp4", 5), loop=True) as reader:
        reader.start()
        feed = OfflineFeed(reader)
        shown = [feed.at(3600 * tick) for tick in range(23)]
        assert [number_of(s.frame.y) for s in shown if s.frame] == [tick % 5 for tick in range(23)]
        assert all(s.new and s.state == State.LIVE for s in shown)
        assert not feed.finished


def test_an_image_through_a_reader(tmp_path: Path) -> None:
    path = tmp_path / "logo.png"
    Image.new("RGB", (20, 10)).save(path)
    with clip(path) as reader:
        reader.start()
        feed = OfflineFeed(reader)
        assert told(feed.at(0)) == (0, True, State.LIVE)
        assert told(feed.at(900000)) == (0, False, State.LIVE)


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def live_feed(*, endless: bool = False, remote: bool = True) -> tuple[LiveFeed, FakeReader, Clock]:
    clock = Clock()
    reader = FakeReader([], endless=endless, remote=remote)
    return LiveFeed(reader, MosaicConfig(stale_after_s=2, no_signal_after_s=10), clock), reader, clock


def test_only_pictures_that_came_while_ticks_were_left_out_are_drops() -> None:
    """A source that is faster than the mosaic loses none by that: they are skipped, as of a file."""
    feed, reader, _ = live_feed()
    for pts, replaced in ((0, 1), (3000, 3), (6000, 5), (15000, 11), (18000, 13)):
        reader.counts.dropped = replaced
        feed.at(pts)
    assert (feed.counts.skipped, feed.counts.dropped) == (7, 6)


def test_live_goes_stale_then_dark_and_comes_back() -> None:
    feed, reader, clock = live_feed()
    assert told(feed.at(0)) == (None, False, State.WAITING)
    reader.queue.append(tiny(0, clock.now_s))
    assert told(feed.at(1)) == (0, True, State.LIVE)
    clock.now_s += 1.9
    assert told(feed.at(2)) == (0, False, State.LIVE)
    clock.now_s += 0.2
    assert told(feed.at(3)) == (0, False, State.STALE)
    clock.now_s += 8
    assert told(feed.at(4)) == (None, False, State.NO_SIGNAL)
    reader.queue.append(tiny(7, clock.now_s))
    assert told(feed.at(5)) == (7, True, State.LIVE)
    assert feed.counts.repeated == 1
    assert not feed.finished


def test_live_source_that_never_comes_is_a_slate() -> None:
    feed, _, clock = live_feed()
    assert feed.at(0).state == State.WAITING
    clock.now_s += 9.9
    assert feed.at(0).state == State.WAITING
    clock.now_s += 0.2
    assert told(feed.at(0)) == (None, False, State.NO_SIGNAL)


def test_live_source_is_waited_for_from_the_first_tick_on() -> None:
    feed, _, clock = live_feed()
    clock.now_s += 45  # an engine was built
    assert told(feed.at(0)) == (None, False, State.WAITING)
    clock.now_s += 10
    assert feed.at(0).state == State.NO_SIGNAL


def test_paced_file_is_never_stale_and_ends() -> None:
    feed, reader, clock = live_feed(remote=False)
    reader.queue.append(tiny(0, clock.now_s))
    assert feed.at(0).state == State.LIVE
    clock.now_s += 60
    assert feed.at(0).state == State.LIVE
    reader.over = True
    assert told(feed.at(0)) == (0, False, State.ENDED)
    assert feed.finished


def test_image_in_a_live_mosaic_stays() -> None:
    feed, reader, clock = live_feed(endless=True, remote=False)
    reader.queue.append(tiny(0, clock.now_s))
    reader.over = True
    assert told(feed.at(0)) == (0, True, State.LIVE)
    clock.now_s += 60
    assert told(feed.at(0)) == (0, False, State.LIVE)


def test_broken_file_in_a_live_mosaic_is_a_slate() -> None:
    feed, reader, clock = live_feed(remote=False)
    reader.queue.append(tiny(0, clock.now_s))
    assert feed.at(0).state == State.LIVE
    reader.over = True
    reader.failure = StageError("decode", "broke", stream="cam")
    assert told(feed.at(0)) == (None, False, State.NO_SIGNAL)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.floats(0, 5), st.booleans()), max_size=30))
def test_live_state_follows_silence(steps: list[tuple[float, bool]]) -> None:
    feed, reader, clock = live_feed()
    feed.at(0)
    last_s = clock.now_s
    came = False
    for pause_s, arrives in steps:
        clock.now_s += pause_s
        if arrives:
            reader.queue.append(tiny(0, clock.now_s))
            last_s, came = clock.now_s, True
        shown = feed.at(0)
        silent_s = clock.now_s - last_s
        assert shown.new == arrives
        if silent_s >= 10:
            assert shown.state == State.NO_SIGNAL
        elif came:
            assert shown.state == (State.STALE if silent_s >= 2 else State.LIVE)
        else:
            assert shown.state == State.WAITING
