"""Meetings: phases with hysteresis, from boxes alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tiler.crowd import Int64, TrackBatch
from tiler.kernels.meetings_cpu import MEETING, MEMBERS, NUMBER, SAID, SEEN, SINCE, TRACK, settle
from tiler.track.meetings import DEEP, GHOST_S, PATIENCE_S, Meetings, Phase, Scene
from tiler.types import CLOCK_HZ, Tracks

FPS = 25
WIDE, TALL = 40.0, 100.0


def tracks_at(picture: int, places: dict[int, float], classes: Sequence[int] | None = None) -> Tracks:
    """People of one size by id, at an x; the feet of higher ids are lower: they are nearer."""
    ids = sorted(places)
    xyxy = np.array([[places[k], 10 + k, places[k] + WIDE, 10 + k + TALL] for k in ids], np.float32).reshape(-1, 4)
    class_id = np.zeros(len(ids), np.int32) if classes is None else np.array(classes, np.int32)
    pts = round(picture * CLOCK_HZ / FPS)
    return Tracks(pts, np.array(ids, np.int32), xyxy, np.full(len(ids), 0.9, np.float32), class_id)


def meet(meetings: Meetings, tracks: Tracks) -> Scene:
    """The only stream has another picture."""
    return meetings.update(TrackBatch.of((0,), (tracks,)))


def members_of(meetings: Meetings) -> Int64:
    members: Int64 = meetings.members[0, : meetings.counts[0, MEMBERS]]
    return members


def people_of(meetings: Meetings) -> dict[int, list[int]]:
    """Of each meeting that there is its number, and the tracks in it."""
    people = {int(row[NUMBER]): list[int]() for row in meetings.rows[0] if row[NUMBER]}
    for row in members_of(meetings):
        if row[MEETING]:  # else it was settled
            people[int(row[MEETING])].append(int(row[TRACK]))
    return people


def say(meetings: Meetings, number: int, track: int, who: int) -> None:
    """Crops say in a meeting that the two belong together."""
    meetings.reserve(1)
    at = meetings.counts[0, SAID]
    meetings.said[0, at] = number, track, who
    meetings.says[0, at] = 3.0
    meetings.counts[0, SAID] += 1
    meetings.most_said = max(meetings.most_said, at + 1)


class Story:
    """Meetings, told one picture after the other."""

    def __init__(self) -> None:
        self.meetings, self.picture = Meetings(), 0

    def tell(self, places: dict[int, float], pictures: int = 1) -> list[Phase]:
        for _ in range(pictures):
            scene = meet(self.meetings, tracks_at(self.picture, places))
            self.picture += 1
        return [Phase(phase) for phase in scene.phase.tolist()]


def test_who_is_far_is_alone_and_who_comes_close_is_near() -> None:
    story = Story()
    assert story.tell({1: 0, 2: 300}) == [Phase.ALONE, Phase.ALONE]
    assert story.tell({1: 0, 2: 1.5 * WIDE, 3: 300}) == [Phase.NEAR, Phase.NEAR, Phase.ALONE]


def test_a_brush_is_over_when_they_part() -> None:
    story = Story()
    assert story.tell({1: 0, 2: 0.7 * WIDE}) == [Phase.MEETING, Phase.MEETING]
    assert story.tell({1: 0, 2: 1.2 * WIDE}) == [Phase.NEAR, Phase.NEAR]
    assert people_of(story.meetings) == {}


def test_between_the_two_limits_everything_stays_as_it_is() -> None:
    story = Story()
    between = {1: 0, 2: 0.92 * WIDE}
    assert story.tell(between, 10) == [Phase.NEAR, Phase.NEAR]
    story.tell({1: 0, 2: 0.7 * WIDE})
    assert story.tell(between, 10) == [Phase.MEETING, Phase.MEETING]


def test_who_hid_another_stays_parted_until_patience_ends() -> None:
    story = Story()
    story.tell({1: 0, 2: (1 - DEEP) * WIDE - 4})
    apart = {1: 0, 2: 3 * WIDE}
    assert story.tell(apart) == [Phase.PARTED, Phase.PARTED]
    assert story.tell(apart, round(PATIENCE_S * FPS) - 1) == [Phase.PARTED, Phase.PARTED]
    assert story.tell(apart, 2) == [Phase.ALONE, Phase.ALONE]


def test_who_hid_another_is_alone_once_it_is_settled() -> None:
    story = Story()
    story.tell({1: 0, 2: 5})
    story.tell({1: 0, 2: 3 * WIDE})
    meetings = story.meetings
    (number,) = people_of(meetings)
    say(meetings, number, 1, 2)
    said = meetings.counts[0, SAID]
    meetings.counts[0, SAID] = settle(
        members_of(meetings), meetings.rows[0], meetings.said[0], meetings.says[0], said, number
    )
    assert people_of(meetings) == {}
    assert meetings.counts[0, SAID] == 0
    assert story.tell({1: 0, 2: 3 * WIDE}) == [Phase.ALONE, Phase.ALONE]


def test_who_is_lost_behind_another_is_thought_to_be_there_still() -> None:
    story = Story()
    story.tell({1: 0, 2: 20})
    assert story.tell({2: 20}, 10) == [Phase.MEETING]
    assert meet(story.meetings, tracks_at(story.picture, {2: 20})).hidden[0] > DEEP
    assert story.tell({2: 3 * WIDE}) == [Phase.PARTED]


def test_who_was_lost_is_given_up_after_a_while() -> None:
    story = Story()
    story.tell({1: 0, 2: 20})
    assert story.tell({2: 20}, round((GHOST_S + PATIENCE_S) * FPS) + 5) == [Phase.ALONE]
    assert people_of(story.meetings) == {}


def test_who_leaves_after_parting_hid_nobody() -> None:
    story = Story()
    story.tell({1: 0, 2: 5})
    story.tell({1: 0, 2: 3 * WIDE})
    (number,) = people_of(story.meetings)
    say(story.meetings, number, 1, 1)
    assert story.tell({1: 0}) == [Phase.ALONE]
    assert story.meetings.counts[0, SAID] == 0


def test_what_was_said_before_somebody_was_hidden_again_is_forgotten() -> None:
    story = Story()
    story.tell({1: 0, 2: 5})
    (number,) = people_of(story.meetings)
    say(story.meetings, number, 1, 1)
    story.tell({1: 0, 2: 0.7 * WIDE})
    assert story.meetings.counts[0, SAID] == 1
    story.tell({1: 0, 2: 5})
    assert story.meetings.counts[0, SAID] == 0


def test_what_was_said_in_a_meeting_is_said_in_the_one_that_it_joins() -> None:
    story = Story()
    story.tell({1: 0, 2: 5, 3: 500, 4: 505})
    one, other = people_of(story.meetings)
    for number, track, who in ((one, 1, 2), (one, 1, 3), (other, 3, 4), (other, 1, 2)):
        say(story.meetings, number, track, who)
    story.meetings.says[0, 3] = 5.0  # 1 was in both, one after the other: what was said later holds
    story.tell({1: 100, 2: 100 + 0.7 * WIDE, 3: 100 + 1.4 * WIDE, 4: 100 + 2.1 * WIDE})
    meetings = story.meetings
    ((number, tracks),) = people_of(meetings).items()
    assert sorted(tracks) == [1, 2, 3, 4]
    said = zip(meetings.said[0].tolist(), meetings.says[0].tolist(), strict=True)
    assert sorted((*row, value) for row, value in list(said)[: meetings.counts[0, SAID]]) == [
        (number, 1, 2, 5.0), (number, 1, 3, 3.0), (number, 3, 4, 3.0)
    ]  # fmt: skip


def test_people_and_cars_do_not_meet() -> None:
    scene = meet(Meetings(), tracks_at(0, {1: 0, 2: 5}, classes=[0, 2]))
    assert scene.phase.tolist() == [Phase.ALONE, Phase.ALONE]
    assert scene.hidden[0] > DEEP  # but a car does hide who is behind it
    assert scene.hidden[1] == 0


places = st.dictionaries(st.integers(1, 6), st.floats(0, 400), max_size=6)


@given(st.lists(places, min_size=1, max_size=40))
def test_each_track_is_in_one_meeting_at_most_and_its_phase_says_so(told: list[dict[int, float]]) -> None:
    meetings, shuffled = Meetings(), Meetings()
    for picture, people in enumerate(told):
        tracks = tracks_at(picture, people)
        scene = meet(meetings, tracks)
        members = [track for tracks in people_of(meetings).values() for track in tracks]
        assert len(members) == len(set(members))
        assert all(len(tracks) > 1 for tracks in people_of(meetings).values())
        seen = {int(row[TRACK]) for row in members_of(meetings) if row[SEEN]}
        assert seen <= set(people)
        assert {int(row[TRACK]) for row in members_of(meetings) if row[SINCE] >= 0} <= seen
        inside = [int(track) in members for track in tracks.track_id]
        assert [phase >= Phase.MEETING for phase in scene.phase] == inside
        assert ((scene.hidden >= 0) & (scene.hidden <= 1)).all()
        order = np.random.default_rng(picture).permutation(len(tracks))
        columns = (tracks.track_id, tracks.xyxy, tracks.score, tracks.class_id)
        other = meet(shuffled, Tracks(tracks.pts, *(rows[order] for rows in columns)))
        assert np.array_equal(other.phase, scene.phase[order])


@given(st.lists(places, min_size=1, max_size=20))
def test_whatever_happened_is_over_once_everybody_has_long_been_alone(told: list[dict[int, float]]) -> None:
    story = Story()
    for people in told:
        story.tell(people)
    alone = {k: 1000.0 * k for k in range(1, 7)}
    assert set(story.tell(alone, round((GHOST_S + 2 * PATIENCE_S) * FPS))) == {Phase.ALONE}
    assert people_of(story.meetings) == {}


@given(st.lists(st.lists(st.floats(width=32), min_size=4, max_size=4), max_size=5))
def test_any_boxes_are_safe(boxes: list[list[float]]) -> None:
    meetings = Meetings()
    xyxy = np.array(boxes, np.float32).reshape(-1, 4)
    n = len(xyxy)
    tracks = Tracks(0, np.arange(1, n + 1, dtype=np.int32), xyxy, np.ones(n, np.float32), np.zeros(n, np.int32))
    for _ in range(3):
        scene = meet(meetings, tracks)
    assert scene.phase.shape == scene.hidden.shape == (n,)
