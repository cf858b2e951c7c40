"""The boxes of a tick, one picture after the other: each picture's own come out of it again."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tiler.crowd import NOBODY, Crowd, DetectionBatch, People, TrackBatch, together
from tiler.kernels.decode_heads_cpu import gather
from tiler.types import Tracks


@given(st.lists(st.integers(0, 5), max_size=6), st.integers(0, 3))
def test_what_a_device_found_is_gathered_one_picture_after_the_other(kept: list[int], more: int) -> None:
    rng, limit = np.random.default_rng(len(kept)), 5
    box = np.dtype([("xyxy", np.float32, 4), ("score", np.float32), ("class_id", np.int32)])
    found = np.zeros((len(kept) + more, limit), box)   # a batch may be larger than its pictures
    found["xyxy"], found["score"] = rng.uniform(0, 999, (*found.shape, 4)), rng.random(found.shape)
    found["class_id"] = rng.integers(0, 80, found.shape)
    totals = rng.integers(0, 4096, (len(found), 2)).astype(np.int32)
    totals[: len(kept), 0] = kept
    words = found.view(np.float32).reshape(len(found), limit, 6)
    most, *columns = gather(totals, words, words.view(np.int32), len(kept))
    assert most == totals[: len(kept), 1].max(initial=0)
    batch = DetectionBatch(*columns)
    for picture, boxes, count in zip(batch.pictures(), found, kept, strict=False):
        for name in ("xyxy", "score", "class_id"):
            np.testing.assert_array_equal(getattr(picture, name), boxes[name][:count])
    for first in range(len(kept) + 1):
        part = batch.part(first, len(kept) - first)
        assert [len(picture) for picture in part.pictures()] == kept[first:]


def people(rng: np.random.Generator, count: int) -> People:
    """Somebody's tracks and trails in one picture."""
    ids = np.arange(1, count + 1, dtype=np.int32)
    xyxy, score = rng.random((count, 4)).astype(np.float32), rng.random(count).astype(np.float32)
    kinds, slot = rng.integers(0, 9, count, np.int32), rng.permutation(count).astype(np.int32)
    tracks = Tracks(int(rng.integers(0, 1 << 40)), ids, xyxy, score, kinds, slot)
    return People.of(tracks, rng.random((int(rng.integers(0, 4)), 4)).astype(np.float32))


def crowded(rng: np.random.Generator, counts: list[int]) -> list[People]:
    """Those of a tick, who lie together."""
    apart = [people(rng, count) for count in counts]
    history = np.concatenate([np.zeros((0, 4), np.float32), *(one.history for one in apart)])
    ends = np.cumsum([len(one.history) for one in apart], dtype=np.int64)
    crowd = Crowd(TrackBatch.of(range(len(counts)), [one.tracks for one in apart]), history, ends)
    both = [People(crowd, k) for k in range(len(counts))]
    for one, other in zip(apart, both, strict=True):
        assert_same(one, other)
    return both


def assert_same(a: People, b: People) -> None:
    assert a.tracks.pts == b.tracks.pts
    for name in ("track_id", "xyxy", "score", "class_id", "slot"):
        np.testing.assert_array_equal(getattr(a.tracks, name), getattr(b.tracks, name))
    np.testing.assert_array_equal(a.history, b.history)


@given(st.lists(st.lists(st.integers(0, 4), max_size=4), min_size=1, max_size=3), st.randoms(use_true_random=False))
def test_people_of_several_ticks_come_together_and_stay_who_they_are(ticks: list[list[int]], random) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(random.randint(0, 999))
    everyone = [one for counts in ticks for one in crowded(rng, counts)] + [NOBODY]
    shown = [random.choice(everyone) for _ in range(random.randint(0, 6))]
    crowd, numbers = together(shown)
    for one, number in zip(shown, numbers, strict=True):
        if number < 0:
            assert one is NOBODY
        else:
            assert_same(one, People(crowd, number))


def test_those_of_one_tick_are_not_copied() -> None:
    first, second = crowded(np.random.default_rng(1), [2, 3])
    assert together([second, NOBODY, first]) == (first.crowd, [1, -1, 0])
