"""The trails that tracks leave."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from track_parts import add, ticks
from track_reference import ReferenceTrails

from tiler.crowd import People, TrackBatch
from tiler.track.trails import POINTS, Trails
from tiler.types import Tracks


def at(pts: int, **foot: tuple[float, float]) -> Tracks:
    """Tracks `t1=(x, y)`: foot points of the ids."""
    table = sorted((int(name[1:]), x, y) for name, (x, y) in foot.items())
    xyxy = np.array([[x - 20, y - 100, x + 20, y] for _, x, y in table], np.float32).reshape(-1, 4)
    n = len(table)
    track_id = np.array([row[0] for row in table], np.int32)
    return Tracks(pts, track_id, xyxy, np.ones(n, np.float32), np.zeros(n, np.int32))


def test_a_trail_is_the_foot_points_newest_first() -> None:
    trails = Trails(2.0)
    assert add(trails, at(0)).shape == (0, 4)
    for k in range(4):
        add(trails, at(ticks(k * 0.25), t2=(10.0 * k, 200), t7=(500, 300 + k)))
    rows = add(trails, at(ticks(1.0)))
    assert rows.dtype == np.float32
    expected = [[2, 10.0 * k, 200, 1 - k * 0.25] for k in (3, 2, 1, 0)]
    expected += [[7, 500, 300 + k, 1 - k * 0.25] for k in (3, 2, 1, 0)]
    np.testing.assert_allclose(rows, expected, atol=1e-6)


def test_the_trail_of_a_vanished_track_fades_out() -> None:
    trails = Trails(1.0)
    for k in range(31):
        add(trails, at(ticks(k / 30), t1=(k, 0)))
    for later in (0.25, 0.5, 0.75):
        rows = add(trails, at(ticks(1 + later)))
        assert rows[0].tolist() == [1, 30, 0, later]
        assert rows[:, 3].max() <= 1.0
    assert len(add(trails, at(ticks(2.1)))) == 0


who_when = st.tuples(st.integers(0, 40_000), st.sets(st.integers(1, 6)))


@given(st.lists(who_when, max_size=120), st.floats(0.1, 3))
@settings(max_examples=50)
def test_trails_are_bounded_sorted_and_not_too_old(steps: list[tuple[int, set[int]]], seconds: float) -> None:
    trails, reference = Trails(seconds), ReferenceTrails(seconds)
    pts = 0
    for step, present in steps:
        pts += step
        tracks = at(pts, **{f"t{track_id}": (track_id, pts % 1000) for track_id in present})
        rows = add(trails, tracks)
        reference.add(tracks)
        np.testing.assert_array_equal(rows, reference.rows(pts))
        assert (rows[:, 3] <= np.float32(seconds)).all()
        found, counts = np.unique(rows[:, 0], return_counts=True)
        assert (counts <= POINTS).all()
        assert present <= set(found.astype(int).tolist())
        assert np.lexsort((rows[:, 3], rows[:, 0])).tolist() == list(range(len(rows)))
        for track_id in present:
            assert rows[rows[:, 0] == track_id][0].tolist() == [track_id, track_id, pts % 1000, 0]


@given(st.lists(st.tuples(st.integers(0, 2), who_when), max_size=60))
def test_streams_leave_trails_each_as_if_alone(steps: list[tuple[int, tuple[int, set[int]]]]) -> None:
    together, alone, pts = Trails(0.5, 3), [Trails(0.5) for _ in range(3)], [0, 0, 0]
    for stream, (step, present) in steps:
        pts[stream] += step
        tracks = at(pts[stream], **{f"t{track_id}": (track_id, stream) for track_id in present})
        other = (stream + 1) % 3
        batch = TrackBatch.of((stream, other), (tracks, at(pts[other])))
        crowd = together.add(batch)
        for k, s in enumerate((stream, other)):
            people = People(crowd, k)
            np.testing.assert_array_equal(people.history, add(alone[s], people.tracks))
    together.begin(0)
    assert len(add(together, at(pts[0]))) == 0


def test_a_long_run_of_ever_new_ids_does_not_grow_and_covers_the_whole_time() -> None:
    trails = Trails(2.0)
    most = 0
    for k in range(3000):
        new = k // 10 + 2
        rows = add(trails, at(k * 1500, t1=(k, 0), **{f"t{new}": (0.0, 0.0)}))
        most = max(most, len(rows))
        if k >= 120:
            own = rows[rows[:, 0] == 1]
            assert own[-1, 3] > 1.8
    assert most <= POINTS + 13 * 11
