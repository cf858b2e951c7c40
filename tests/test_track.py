"""Tracking: identities over time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from track_parts import SCORE, BoxFilter, Row, add, assign, box_iou, from_corners, ids, person, see, ticks, tracker
from track_reference import ReferenceTracker, ReferenceTrails

from tiler.config.models import TrackerConfig
from tiler.crowd import DetectionBatch, Seen
from tiler.kernels.assign_cpu import best_pairs
from tiler.track.bytetrack import ByteTracker
from tiler.track.trails import Trails
from tiler.types import CLOCK_HZ, Detections, Tracks


def assert_equal(a: Tracks, b: Tracks) -> None:
    assert a.pts == b.pts
    for name in ("track_id", "xyxy", "score", "class_id"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


# Scenes: boxes that overlap a lot and often, so that every step of the association is taken.
places = st.tuples(
    st.integers(0, 120), st.integers(0, 60), st.integers(1, 60), st.integers(1, 90),
    st.sampled_from([0.05, 0.1, 0.2, 0.35, 0.4, 0.5, 0.9, 1.0]), st.integers(0, 1),
)


def boxes(rows: list[tuple[int, int, int, int, float, int]]) -> Detections:
    return see(*((x, y, x + w, y + h, score, class_id) for x, y, w, h, score, class_id in rows))


pictures = st.one_of(st.none(), st.lists(places, max_size=8).map(boxes))
scenes = st.lists(st.tuples(st.sampled_from([0, 1500, 3000, 9000, 200_000]), pictures), max_size=25)


def play(scene: list[tuple[int, Detections | None]], one: ByteTracker) -> list[Tracks]:
    pts = 0
    shown = []
    for step, detections in scene:
        pts += step
        shown.append(one.update(detections, pts))
    return shown


@given(scenes)
def test_ids_are_unique_in_a_picture_dense_from_1_and_never_come_back_for_another_class(
    scene: list[tuple[int, Detections | None]],
) -> None:
    class_of: dict[int, int] = {}
    highest = 0
    for tracks in play(scene, tracker()):
        assert ids(tracks) == sorted(set(ids(tracks)))
        new = [track_id for track_id in ids(tracks) if track_id not in class_of]
        assert new == list(range(highest + 1, highest + 1 + len(new)))
        highest += len(new)
        for track_id, class_id in zip(ids(tracks), tracks.class_id.tolist(), strict=True):
            assert class_of.setdefault(track_id, class_id) == class_id
        assert np.isfinite(tracks.xyxy).all()
        assert (tracks.xyxy[:, 2:] > tracks.xyxy[:, :2]).all()
        assert (tracks.score >= np.float32(0.1)).all()


@given(scenes, st.randoms(use_true_random=False))
def test_the_order_of_detections_changes_nothing(scene, random) -> None:  # type: ignore[no-untyped-def]
    shuffled = []
    for step, detections in scene:
        if detections is not None:
            order = list(range(len(detections)))
            random.shuffle(order)
            detections = Detections(
                detections.xyxy[order], detections.score[order], detections.class_id[order]
            )
        shuffled.append((step, detections))
    for a, b in zip(play(scene, tracker()), play(shuffled, tracker()), strict=True):
        assert_equal(a, b)


@given(scenes, scenes)
def test_two_trackers_interleaved_are_each_as_if_alone(
    first: list[tuple[int, Detections | None]], second: list[tuple[int, Detections | None]]
) -> None:
    alone = play(first, tracker()), play(second, tracker())
    a, b = tracker(), tracker()
    pts_a = pts_b = 0
    for index in range(max(len(first), len(second))):
        if index < len(first):
            pts_a += first[index][0]
            assert_equal(a.update(first[index][1], pts_a), alone[0][index])
        if index < len(second):
            pts_b += second[index][0]
            assert_equal(b.update(second[index][1], pts_b), alone[1][index])


@given(st.lists(scenes, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_streams_of_one_tracker_are_each_as_if_alone(told, random) -> None:  # type: ignore[no-untyped-def]
    alone = [play(scene, tracker()) for scene in told]
    together, pts, shown = ByteTracker(TrackerConfig(), SCORE, len(told) + 1), [0] * len(told), [0] * len(told)
    somebody = Seen([len(told)], DetectionBatch.of([see(person(0), person(90))]))
    together.update_all([len(told)], [0], somebody)  # a stream of which nothing more is seen
    while left := [s for s, scene in enumerate(told) if shown[s] < len(scene)]:
        now = random.sample(left, random.randint(1, len(left)))
        pictures = [told[s][shown[s]] for s in now]
        for s, (step, _) in zip(now, pictures, strict=True):
            pts[s] += step
        seen = {s: detections for s, (_, detections) in zip(now, pictures, strict=True) if detections is not None}
        order = random.sample(sorted(seen), len(seen))
        seen_now = Seen(order, DetectionBatch.of([seen[s] for s in order]))
        batch = together.update_all(now, [pts[s] for s in now], seen_now)
        assert batch.streams.tolist() == now
        assert batch.most == max(len(tracks) for tracks in batch.pictures())
        for s, tracks in zip(now, batch.pictures(), strict=True):
            assert_equal(tracks, alone[s][shown[s]])
            shown[s] += 1


@given(scenes, scenes)
def test_another_source_in_a_place_begins_anew(
    before: list[tuple[int, Detections | None]], after: list[tuple[int, Detections | None]]
) -> None:
    one = tracker()
    play(before, one)
    one.begin(0)
    for a, b in zip(play(after, one), play(after, tracker()), strict=True):
        assert_equal(a, b)


def assert_as_reference(scene: list[tuple[int, Detections | None]], **config: float) -> list[Tracks]:
    """Equal ids, scores and classes, and boxes to a rounding, all along the scene."""
    reference = ReferenceTracker(TrackerConfig.model_validate(config), SCORE)
    shown = play(scene, tracker(**config))
    pts = 0
    for (step, detections), tracks in zip(scene, shown, strict=True):
        pts += step
        expected = reference.update(detections, pts)
        assert ids(tracks) == ids(expected)
        np.testing.assert_array_equal(tracks.score, expected.score)
        np.testing.assert_array_equal(tracks.class_id, expected.class_id)
        np.testing.assert_allclose(tracks.xyxy, expected.xyxy, rtol=1e-6, atol=1e-6)
    return shown


@given(scenes, st.integers(1, 3))
def test_every_scene_is_that_of_the_reference(scene: list[tuple[int, Detections | None]], confirm: int) -> None:
    assert_as_reference(scene, confirm=confirm, lost_s=0.5)


def street(seed: int, pictures: int, every: int, people: int = 12) -> list[tuple[int, Detections | None]]:
    """People who come, cross, hide and go, seen by a detector that misses, doubts and invents."""
    rng = np.random.default_rng(seed)
    scene: list[tuple[int, Detections | None]] = []
    place, speed = rng.uniform(0, 500, (people, 2)), rng.normal(0, 90, (people, 2))
    size, class_id = rng.uniform(30, 120, (people, 2)), rng.integers(0, 3, people)
    for k in range(pictures):
        step = int(rng.choice([1500, 3000, 3000, 3003, 9000, 60_000], p=[0.2, 0.3, 0.2, 0.2, 0.09, 0.01]))
        place += speed * step / CLOCK_HZ
        gone = (np.abs(place - 250) > 300).any(axis=1) | (rng.random(people) < 0.003)
        place[gone], speed[gone] = rng.uniform(0, 500, (gone.sum(), 2)), rng.normal(0, 90, (gone.sum(), 2))
        boxes = np.concatenate((place, place + size), axis=1) + rng.normal(0, 2, (people, 4))
        score = np.clip(rng.normal(0.55, 0.25, people), 0.01, 1)
        seen = rng.random(people) > 0.1
        ghosts = rng.uniform(0, 500, (2, 2))
        rows = [(*box, s, c) for box, s, c in zip(boxes[seen], score[seen], class_id[seen], strict=True)]
        rows += [(*ghost, *(ghost + 60), rng.random(), 0) for ghost in ghosts]
        scene.append((step, see(*rows) if k % every == 0 else None))
    return scene


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("seed", range(4))
def test_a_busy_street_is_that_of_the_reference(seed: int, every: int) -> None:
    shown = assert_as_reference(street(seed, 400, every), confirm=1 + seed % 3)
    assert max(ids(tracks)[-1] for tracks in shown if len(tracks)) > 20
    trails, reference = Trails(0.7), ReferenceTrails(0.7)
    for tracks in shown:
        rows = add(trails, tracks)
        reference.add(tracks)
        np.testing.assert_array_equal(rows, reference.rows(tracks.pts))


def test_none_predicts_along_constant_velocity() -> None:
    one = tracker()
    speed = 90.0  # pixels a second
    for k in range(60):
        one.update(see(person(speed * k / 30)), ticks(k / 30))
    for ahead in (0.1, 0.25, 0.5):
        tracks = one.update(None, ticks(59 / 30 + ahead))
        assert ids(tracks) == [1]
        expected = person(speed * (59 / 30 + ahead))[:4]
        np.testing.assert_allclose(tracks.xyxy[0], expected, atol=1.5)


def test_predictions_end_when_the_detector_is_silent_for_longer_than_lost_s() -> None:
    one = tracker(lost_s=1.0)
    one.update(see(person(0)), 0)
    assert ids(one.update(None, ticks(1.0))) == [1]
    assert ids(one.update(None, ticks(1.0) + 1)) == []
    assert ids(one.update(see(person(0)), ticks(1.1))) == []  # somebody new, not yet confirmed


@pytest.mark.parametrize("fps", [7, 10, 15, 30, 60])
@pytest.mark.parametrize("every", [1, 2, 3])
def test_the_same_motion_keeps_its_ids_at_every_frame_rate(fps: int, every: int) -> None:
    one = tracker()
    for k in range(3 * fps):
        t = k / fps
        detections = see(person(20 + 45 * t), person(400 - 40 * t, y=300)) if k % every == 0 else None
        assert ids(one.update(detections, ticks(t))) == [1, 2]


def test_dropped_frames_and_a_variable_rate_keep_ids() -> None:
    one = tracker()
    rng = np.random.default_rng(1)
    t = 0.0
    for _ in range(100):
        t += float(rng.choice([1 / 60, 1 / 30, 1 / 10, 1 / 4]))
        assert ids(one.update(see(person(50 * t), person(1500 - 50 * t, y=250)), ticks(t))) == [1, 2]


@pytest.mark.parametrize("fps", [5, 30])
@pytest.mark.parametrize(("gap_s", "same"), [(0.6, True), (0.9, True), (1.5, False), (3.0, False)])
def test_a_gap_shorter_than_lost_s_keeps_the_id(fps: int, gap_s: float, same: bool) -> None:
    one = tracker(lost_s=1.0)
    for k in range(2 * fps):
        one.update(see(person(30 * k / fps)), ticks(k / fps))
    start = (2 * fps - 1) / fps
    for k in range(1, round(gap_s * fps)):
        assert ids(one.update(see(), ticks(start + k / fps))) == []
    for k in range(3):
        t = start + gap_s + k / fps
        tracks = one.update(see(person(30 * t)), ticks(t))
    assert ids(tracks) == ([1] if same else [2])


def test_low_scores_continue_a_track_but_begin_none() -> None:
    one = tracker()
    for k in range(30):
        score = 0.9 if k < 5 else 0.15
        tracks = one.update(see(person(2 * k, score=score), person(500, score=0.34)), ticks(k / 30))
        assert ids(tracks) == [1]
    assert tracks.score[0] == np.float32(0.15)


def test_scores_between_score_and_new_score_begin_none() -> None:
    one = tracker(new_score=0.6)
    for k in range(10):
        assert ids(one.update(see(person(0, score=0.5)), ticks(k / 30))) == []


def test_a_track_is_shown_after_confirm_detections_in_a_row() -> None:
    one = tracker(confirm=3)
    one.update(see(), 0)
    pattern = [True, True, False, True, True, True, True]
    seen = [see(person(0)) if there else see() for there in pattern]
    shown = [ids(one.update(detections, ticks((k + 1) / 30))) for k, detections in enumerate(seen)]
    assert shown == [[], [], [], [], [], [1], [1]]


def test_the_first_picture_shows_what_it_has() -> None:
    assert ids(tracker(confirm=3).update(see(person(0), person(300)), 0)) == [1, 2]


def test_crossing_people_in_separate_lanes_keep_their_ids() -> None:
    one = tracker()
    for k in range(90):
        left_to_right, right_to_left = person(10 * k, y=100), person(900 - 10 * k, y=260)
        tracks = one.update(see(left_to_right, right_to_left), ticks(k / 30))
        assert ids(tracks) == [1, 2]
        centre_y = (tracks.xyxy[:, 1] + tracks.xyxy[:, 3]) / 2
    np.testing.assert_allclose(sorted(centre_y), [150, 310], atol=1)
    np.testing.assert_allclose(np.abs(np.diff(tracks.xyxy[:, 0])), 880, atol=5)


def test_a_person_passing_behind_another_keeps_the_id() -> None:
    """The hidden one is not detected, or only with a low score, while they overlap."""
    one = tracker()
    for k in range(80):
        front, behind = person(300, y=100), person(100 + 5 * k, y=95, score=0.9)
        apart = abs(front[0] - behind[0])
        rows = [front] if apart < 12 else [front, (*behind[:4], 0.2 if apart < 40 else 0.9, 0)]
        tracks = one.update(see(*rows), ticks(k / 30))
    assert ids(tracks) == [1, 2]
    by_id = dict(zip(ids(tracks), tracks.xyxy[:, 0].tolist(), strict=True))
    assert sorted(by_id.values()) == pytest.approx([300, 495], abs=8)


def test_classes_never_meet() -> None:
    one = tracker()
    one.update(see(person(0, class_id=0), person(2, class_id=1)), 0)
    tracks = one.update(see(person(1, class_id=1), person(3, class_id=0)), ticks(1 / 30))
    assert ids(tracks) == [1, 2]
    assert tracks.class_id.tolist() == [0, 1]
    assert ids(one.update(see(person(1, class_id=2)), ticks(2 / 30))) == []


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [(0, 0, 0, 0, 0.9, 0)],  # a point
        [(50, 50, 10, 90, 0.9, 0)],  # inside out
        [(-3e38, -3e38, 3e38, 3e38, 0.9, 0)],
        [(np.nan, 0, 10, 10, 0.9, 0), (0, 0, 10, 10, np.nan, 0)],
        [(0, 0, 1e-3, 1e-3, 1.0, 0)],
        [(0, 0, np.inf, np.inf, np.inf, 0)],
        [person(0)] * 300,
    ],
    ids=["empty", "point", "inside out", "huge", "nan", "tiny", "infinite", "many equal"],
)
def test_odd_detections_are_survived(rows: list[Row]) -> None:
    one = tracker()
    for pts in (0, 0, 3000, ticks(0.9), ticks(1.0), ticks(100_000), 2**60):
        for detections in (see(*rows), None, Detections.empty()):
            tracks = one.update(detections, pts)
            assert np.isfinite(tracks.xyxy).all()
            assert len(tracks) <= len(rows)


@given(st.floats(0, 2), st.floats(0, 2), st.integers(1, 30))
def test_predicting_in_two_steps_is_predicting_in_one(a: float, b: float, measured: int) -> None:
    def moving() -> BoxFilter:
        boxes = BoxFilter()
        boxes.add(from_corners(np.array([[0.0, 0, 40, 100]])))
        for k in range(measured):
            boxes.predict(1 / 30)
            boxes.correct(np.array([0]), from_corners(np.array([[3.0 * k, k, 40 + 3 * k, 100 + k]])))
        return boxes

    once, twice = moving(), moving()
    once.predict(a + b)
    twice.predict(a)
    twice.predict(b)
    np.testing.assert_allclose(once.corners(), twice.corners(), atol=1e-6)
    for each in (once, twice):  # what a measurement changes tells the covariance
        each.correct(np.array([0]), np.array([[500.0, 600, 50, 120]]))
        each.predict(0.5)
    np.testing.assert_allclose(once.corners(), twice.corners(), rtol=1e-6, atol=1e-6)


def test_the_filter_equals_the_matrix_equations() -> None:
    """One box against the textbook 8 x 8 filter."""
    rng = np.random.default_rng(0)
    height, dt = 100.0, 0.04
    boxes = BoxFilter()
    start = np.array([50.0, 60.0, 40.0, height])
    boxes.add(start[None])
    mean = np.concatenate((start, np.zeros(4)))
    cov = np.diag([(height / 10) ** 2] * 4 + [(height / 16 * 30) ** 2] * 4)
    F = np.eye(8) + np.diag([dt] * 4, 4)
    H = np.eye(4, 8)
    for _ in range(20):
        measured = start + rng.normal(0, 3, 4) * [1, 1, 1, 0]
        h = mean[3]
        rate = (h / 160 * 30) ** 2 * 30
        eye = np.eye(4)
        Q = np.block([
            [eye * ((h / 20) ** 2 * 30 * dt + rate * dt**3 / 3), eye * rate * dt**2 / 2],
            [eye * rate * dt**2 / 2, eye * rate * dt],
        ])
        mean, cov = F @ mean, F @ cov @ F.T + Q
        gain = cov @ H.T @ np.linalg.inv(H @ cov @ H.T + np.eye(4) * (mean[3] / 20) ** 2)
        mean, cov = mean + gain @ (measured - H @ mean), (np.eye(8) - gain @ H) @ cov
        boxes.predict(dt)
        boxes.correct(np.array([0]), measured[None])
    np.testing.assert_allclose(from_corners(boxes.corners())[0], mean[:4], rtol=1e-9)


@given(st.integers(0, 6), st.integers(0, 6), st.floats(0, 0.9), st.integers(0, 2**32 - 1))
@settings(max_examples=60)
def test_assign_is_the_best_above_the_gate(n: int, m: int, gate: float, seed: int) -> None:
    similarity = np.random.default_rng(seed).uniform(0, 1, (n, m))
    rows, columns = assign(similarity, gate)
    assert len(set(rows.tolist())) == len(rows) == len(set(columns.tolist()))
    assert (similarity[rows, columns] > gate).all()
    # The same with "stay alone" spelled out: an extra row and column for each.
    padded = np.zeros((n + m, n + m))
    padded[:n, :m] = similarity - gate
    best = padded[linear_sum_assignment(padded, maximize=True)].sum()
    assert (similarity[rows, columns] - gate).sum() == pytest.approx(best)


@given(st.integers(0, 9), st.integers(0, 9), st.sampled_from([2, 3, 5, 0]), st.integers(0, 2**32 - 1))
def test_the_best_pairs_are_those_of_scipy_in_ties_too(n: int, m: int, values: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    gain = rng.integers(0, values, (n, m)).astype(float) if values else np.maximum(rng.uniform(-1, 1, (n, m)), 0)
    rows, columns = linear_sum_assignment(gain, maximize=True)
    expected = np.full(n, -1)
    expected[rows] = np.where(gain[rows, columns] > 0, columns, -1)
    np.testing.assert_array_equal(best_pairs(gain), expected)


def test_box_iou() -> None:
    a = np.array([[0.0, 0, 10, 10]])
    b = np.array([[0.0, 0, 10, 10], [5, 0, 15, 10], [10, 0, 20, 10], [2, 2, 4, 4]])
    np.testing.assert_allclose(box_iou(a, b), [[1, 1 / 3, 0, 0.04]])
