"""Who is lost and found again, who meets, and boxes that somebody tracked explains."""

from __future__ import annotations

import pytest
from track_parts import ids, person, see, ticks, tracker


def test_who_stops_while_hidden_is_found_where_they_were_last_seen() -> None:
    """The prediction walks on: 1.2 s and 240 px later it has nothing to do with them."""
    one = tracker()
    for k in range(30):
        one.update(see(person(200 * k / 30)), ticks(k / 30))
    for k in range(30, 66):
        assert ids(one.update(see(), ticks(k / 30))) == []
    assert ids(one.update(see(person(200)), ticks(66 / 30))) == [1]


@pytest.mark.parametrize(("height", "same"), [(100, True), (90, True), (112, True), (70, False), (140, False)])
def test_only_somebody_as_tall_is_found_a_step_away(height: int, same: bool) -> None:
    """Where the predicted box is hardly reached, is somebody known if as tall, else somebody new."""
    one = tracker()
    for k in range(30):
        one.update(see(person(300)), ticks(k / 30))
    one.update(see(), ticks(1.0))
    for k in range(31, 33):
        tracks = one.update(see((330, 200 - height, 370, 200, 0.9, 0)), ticks(k / 30))
    assert ids(tracks) == ([1] if same else [2])


def test_who_is_in_view_keeps_the_detection_before_who_is_hidden() -> None:
    """Two stand side by side, one is hidden for a second; the box that is left lies nearer to the hidden one's."""
    one = tracker()
    for k in range(30):
        one.update(see(person(300), person(325)), ticks(k / 30))
    for k in range(30, 60):
        assert ids(one.update(see(person(300)), ticks(k / 30))) == [1]
    assert ids(one.update(see(person(314)), ticks(2.0))) == [1]


def test_of_two_who_overlap_each_keeps_the_box_at_its_own_height() -> None:
    """One stands further back: higher in the picture. They swap sides, and IoU alone would swap them."""
    one = tracker()
    front, back = (300, 130, 340, 230, 0.9, 0), (312, 100, 352, 200, 0.9, 0)
    for k in range(30):
        one.update(see(front, back), ticks(k / 30))
    tracks = one.update(see((313, 130, 353, 230, 0.9, 0), (299, 100, 339, 200, 0.9, 0)), ticks(1.0))
    by_id = dict(zip(ids(tracks), tracks.xyxy[:, 3].tolist(), strict=True))
    assert by_id == pytest.approx({1: 230, 2: 200}, abs=2)


@pytest.mark.parametrize(("score", "shown"), [(0.65, [1]), (0.95, [1, 2])])
def test_a_second_box_on_somebody_tracked_begins_a_track_only_if_it_is_sure(score: float, shown: list[int]) -> None:
    one = tracker()
    for k in range(10):
        upper_half = (300, 100, 340, 155, score, 0)
        tracks = one.update(see(person(300), *([upper_half] if k > 2 else [])), ticks(k / 30))
    assert ids(tracks) == shown
    alone = tracker()
    for k in range(10):
        tracks = alone.update(see(*([(300, 100, 340, 155, score, 0)] if k > 2 else [])), ticks(k / 30))
    assert ids(tracks) == [1]
