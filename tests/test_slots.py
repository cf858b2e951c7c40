"""Slots: the names of a fixed cast, by person; and what holds by person and by side."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiler.config.models import SlotsConfig
from tiler.errors import InputError
from tiler.track.slots import Slots, slots_of
from tiler.types import APPEARANCE, CLOCK_HZ, Appearance, Tracks

STEP = CLOCK_HZ // 25
WIDTH = 1000
Person = tuple[int, float]
"""Track id and the middle of the box, pixels from the left; all are 40 wide and 100 high."""


def cast(*names: str, **config: Any) -> Slots:
    return Slots(SlotsConfig(names=list(names), **config), ("person", "car"))


def tracks(pts: int, *people: Person, y: float = 100) -> Tracks:
    ids = np.array([track for track, _ in people], np.int32)
    boxes = np.array([(x - 20, y, x + 20, y + 100) for _, x in people], np.float32).reshape(-1, 4)
    return Tracks(pts, ids, boxes, np.full(len(ids), 0.9, np.float32), np.zeros(len(ids), np.int32))


def looks(*kinds: int | None) -> Appearance:
    """Rows that look like person 0, 1 and so on, each unlike the others; None: no crop."""
    vectors = np.zeros((len(kinds), APPEARANCE), np.float32)
    for row, kind in enumerate(kinds):
        vectors[row, 0 if kind is None else kind] = 1
    return Appearance(vectors, np.array([kind is not None for kind in kinds]))


def shown(slots: Slots, result: Tracks) -> dict[str, int]:
    """Track id by name."""
    return {
        slots.names[slot]: track
        for slot, track in zip(result.slot.tolist(), result.track_id.tolist(), strict=True)
        if slot >= 0
    }


def play(slots: Slots, *pictures: tuple[Person, ...], kinds: list[tuple[int | None, ...]] | None = None,
         begin: int = 0) -> list[dict[str, int]]:  # fmt: skip
    told = []
    for index, people in enumerate(pictures):
        seen = looks(*kinds[index]) if kinds else None
        told.append(shown(slots, slots.update(tracks((begin + index) * STEP, *people), seen, WIDTH)))
    return told


# By person


def test_the_first_names_go_from_left_to_right() -> None:
    slots = cast("left", "mid", "right")
    assert play(slots, ((1, 700), (2, 500), (3, 200))) == [{"left": 3, "mid": 2, "right": 1}]


def test_who_comes_a_moment_later_is_sorted_in_and_who_comes_much_later_takes_what_is_free() -> None:
    slots = cast("left", "right")
    assert play(slots, ((1, 500),), ((1, 500), (2, 200)))[-1] == {"left": 2, "right": 1}
    slots = cast("left", "right")
    told = play(slots, *([((1, 500),)] * 25), ((1, 500), (2, 200)))
    assert told[0] == {}  # somebody may still come who stands further left
    assert told[24] == {"left": 1}
    assert told[-1] == {"left": 1, "right": 2}


def test_a_name_stays_through_a_new_id_and_through_an_exit() -> None:
    slots = cast("a", "b")
    still = ((1, 200), (2, 800))
    assert play(slots, *([still] * 30), ((7, 203), (2, 800)))[-1] == {"a": 7, "b": 2}
    away = play(slots, *([((2, 800),)] * 50), ((2, 800), (8, 210)), begin=31)
    assert away[0] == {"b": 2}
    assert away[-1] == {"a": 8, "b": 2}
    assert slots.revised == 0


def crossing(frames: int, hidden: range, swapped: bool) -> tuple[list[tuple[Person, ...]], list[tuple[int, ...]]]:
    """Two walk through each other; in `hidden` only one is tracked. Swapped: the tracker exchanges their ids."""
    pictures, kinds = [], []
    for index in range(frames):
        x = 100 + 800 * index / (frames - 1)
        first, second = (1, 2) if not swapped or index < hidden.start else (2, 1)
        both = ((first, x), (second, 1000 - x))
        pictures.append(both[:1] if index in hidden else both)
        kinds.append((0,) if index in hidden else (0, 1))
    return pictures, kinds


@pytest.mark.parametrize("swapped", [False, True])
def test_two_who_cross_keep_their_names_whatever_the_tracker_says(swapped: bool) -> None:
    slots = cast("a", "b")
    pictures, kinds = crossing(101, range(48, 53), swapped)
    told = play(slots, *pictures, kinds=kinds)
    assert told[0] == {"a": 1, "b": 2}
    assert told[-1] == ({"a": 2, "b": 1} if swapped else {"a": 1, "b": 2})
    for names, people in zip(told, pictures, strict=True):   # late, but never another's
        moving_right = {people[0][0]: "a", **({people[1][0]: "b"} if len(people) > 1 else {})}
        assert all(moving_right[track] == name for name, track in names.items())
    shown_after = next(index for index in range(60, 101) if len(told[index]) == 2)
    assert shown_after <= 66


def test_no_evidence_is_no_penalty_and_motion_alone_still_names_everybody() -> None:
    pictures, _ = crossing(101, range(48, 53), False)
    slots = cast("a", "b")
    blind = play(cast("a", "b"), *pictures)
    assert play(slots, *pictures, kinds=[(None,) * len(people) for people in pictures]) == blind
    assert blind[-1] == {"a": 1, "b": 2}


def test_those_who_look_the_same_get_their_names_back_after_a_second() -> None:
    pictures, kinds = crossing(131, range(62, 68), False)
    told = play(cast("a", "b"), *pictures, kinds=[(0,) * len(kind) for kind in kinds])
    assert told[-1] == {"a": 1, "b": 2}


def test_a_track_that_slides_to_the_hidden_person_loses_the_name_and_gets_the_right_one() -> None:
    slots = cast("a", "b")
    apart = [((1, 300.0), (2, 700.0))] * 30
    closing = [((1, 300 + 8.0 * k), (2, 700 - 8.0 * k)) for k in range(24)]
    alone = [((1, 500.0),)] * 60
    kinds: list[tuple[int | None, ...]] = [(0, 1)] * 54 + [(0,)] * 20 + [(1,)] * 40
    told = play(slots, *apart, *closing, *alone, kinds=kinds)
    assert told[73] == {"a": 1}      # sure of who covers whom
    assert told[-1] == {"b": 1}      # the track went over to the other one
    wrong = sum(names == {"a": 1} for names in told[74:])
    assert wrong <= 5


def test_who_comes_back_with_a_new_id_is_known_by_looks() -> None:
    slots = cast("a", "b")
    play(slots, *([((1, 300), (2, 700))] * 30), kinds=[(0, 1)] * 30)
    play(slots, *([()] * 50), kinds=[()] * 50, begin=30)   # both gone; they come back on the other's side
    told = play(slots, *([((3, 300), (4, 700))] * 10), kinds=[(1, 0)] * 10, begin=80)
    assert told[0] == {}
    assert told[-1] == {"a": 4, "b": 3}


LAMP = 9
"""What nobody looks like."""


def test_a_thing_taken_for_a_person_never_has_the_name_of_who_is_away() -> None:
    slots = cast("a", "b")
    play(slots, *([((1, 300), (2, 700))] * 30), kinds=[(0, 1)] * 30)
    told = play(slots, *([((1, 300), (3, 500))] * 60), kinds=[(0, LAMP)] * 60, begin=30)
    assert all(names == {"a": 1} for names in told)
    told = play(slots, *([((1, 300), (3, 500), (4, 900))] * 20), kinds=[(0, LAMP, 1)] * 20, begin=90)
    assert told[-1] == {"a": 1, "b": 4}
    assert all(names.get("b", 4) == 4 for names in told)


def test_things_alone_in_the_picture_leave_the_names_to_those_who_come_back() -> None:
    slots = cast("a", "b")
    play(slots, *([((1, 300), (2, 700))] * 30), kinds=[(0, 1)] * 30)
    assert play(slots, *([((3, 500),)] * 60), kinds=[(LAMP,)] * 60, begin=30) == [{}] * 60
    told = play(slots, *([((3, 500), (4, 100), (5, 900))] * 15), kinds=[(LAMP, 1, 0)] * 15, begin=90)
    assert told[-1] == {"a": 5, "b": 4}
    assert all(names.get("a", 5) == 5 and names.get("b", 4) == 4 for names in told)


def test_a_second_box_on_somebody_has_not_the_name_of_who_is_away() -> None:
    slots = cast("a", "b")
    play(slots, *([((1, 300), (2, 700))] * 30), kinds=[(0, 1)] * 30)
    told = play(slots, *([((1, 300), (3, 345))] * 40), kinds=[(0, 0)] * 40, begin=30)
    assert all(names == {"a": 1} for names in told)


def test_who_comes_and_cannot_be_seen_clearly_is_named_after_a_second() -> None:
    slots = cast("a", "b")
    play(slots, *([((1, 300), (2, 700))] * 30), kinds=[(0, 1)] * 30)
    told = play(slots, *([((1, 300), (3, 980))] * 30), kinds=[(0, None)] * 30, begin=30)
    assert told[24] == {"a": 1}
    assert told[-1] == {"a": 1, "b": 3}


def test_two_under_one_box_have_no_name_until_they_are_seen_apart() -> None:
    """However long they embrace: what is not seen is no evidence."""
    slots = cast("a", "b")
    closing = [((1, 300 + 8.0 * k), (2, 700 - 8.0 * k)) for k in range(24)]
    play(slots, *([((1, 300.0), (2, 700.0))] * 30), *closing, kinds=[(0, 1)] * 54)
    assert play(slots, *([((1, 500),)] * 80), kinds=[(None,)] * 80, begin=54) == [{}] * 80
    told = play(slots, *([((1, 470), (3, 540))] * 12), kinds=[(1, 0)] * 12, begin=134)   # and 1 is the other one now
    assert told[-1] == {"a": 3, "b": 1}
    assert all(names.get("a", 3) == 3 and names.get("b", 1) == 1 for names in told)


def test_slots_want_to_see_those_of_whom_they_do_not_know_who_they_are() -> None:
    slots = cast("a", "b")
    play(slots, *([((1, 300), (2, 700))] * 30), kinds=[(0, 1)] * 30)
    assert slots.wanted == set()
    play(slots, ((1, 300), (3, 700)), kinds=[(None, None)], begin=30)
    assert slots.wanted == {3}
    play(slots, *([((1, 300), (3, 700))] * 10), kinds=[(0, 1)] * 10, begin=31)
    assert slots.wanted == set()
    assert cast("a", "b", mode="side").wanted == set()


def test_who_left_by_a_side_comes_back_by_it_though_last_seen_as_a_sliver() -> None:
    slots = cast("a", "b")

    def strip(pts: int, track: int, x0: float, x1: float, height: float) -> Tracks:
        seen = tracks(pts, (track, 0))
        seen.xyxy[0] = x0, 200 - height, x1, 200
        return seen

    play(slots, *([((1, 300), (2, 800))] * 40))
    pts = 40 * STEP
    for x in range(780, 1000, 8):                       # b leaves to the right first
        slots.update(tracks(pts, (1, 300), (2, x)), None, WIDTH)
        pts += STEP
    for x in range(300, 20, -8):                        # then a to the left
        slots.update(tracks(pts, (1, x)), None, WIDTH)
        pts += STEP
    slots.update(strip(pts, 1, 0, 4, 20), None, WIDTH)  # the last of it
    slots.update(tracks(pts + CLOCK_HZ), None, WIDTH)
    back = slots.update(strip(pts + 3 * CLOCK_HZ // 2, 5, 0, 20, 90), None, WIDTH)
    assert shown(slots, back) == {"a": 5}


def test_only_the_class_of_the_cast_gets_names() -> None:
    slots = cast("a", class_name="car")
    seen = tracks(0, (1, 100), (2, 300), (3, 500))
    seen.class_id[:] = 0, 1, 0
    assert slots.update(seen).slot.tolist() == [-1, 0, -1]


def test_a_class_that_the_detector_does_not_know_is_refused() -> None:
    with pytest.raises(InputError, match=r"slots.class_name: the detector has no such class; accepted: person, car"):
        cast("a", class_name="horse")


def test_appearance_of_other_tracks_is_refused() -> None:
    with pytest.raises(ValueError, match="appearance of 1 tracks beside 2 tracks"):
        cast("a").update(tracks(0, (1, 10), (2, 200)), looks(0))


# Properties: few people in little room, so that they overlap, vanish, come back and change ids all the time.

people = st.lists(
    st.tuples(st.integers(1, 9), st.integers(0, 300)), max_size=8, unique_by=lambda person: person[0]
).map(lambda rows: tuple(sorted((track, float(x)) for track, x in rows)))
steps = st.sampled_from([0, STEP, 3 * STEP, 20 * STEP])
pictures_of = st.lists(st.tuples(steps, people, st.lists(st.none() | st.integers(0, 3), min_size=8, max_size=8)),
                       max_size=20)  # fmt: skip
modes = st.sampled_from(["person", "side"])
counts = st.integers(1, 6)


def run(slots: Slots, scene: list[Any], order: Any = None) -> list[dict[int, int]]:
    """Slot by track id for each picture."""
    pts, told = 0, []
    for step, there, kinds in scene:
        pts += step
        seen, crops = tracks(pts, *there), looks(*kinds[: len(there)])
        rows = np.arange(len(there)) if order is None else np.array(order(len(there)), np.intp)
        mixed = Tracks(pts, seen.track_id[rows], seen.xyxy[rows], seen.score[rows], seen.class_id[rows])
        result = slots.update(mixed, Appearance(crops.vectors[rows], crops.known[rows]), WIDTH)
        assert result.track_id.tolist() == mixed.track_id.tolist()
        told.append(dict(zip(result.track_id.tolist(), result.slot.tolist(), strict=True)))
    return told


@settings(max_examples=60)
@given(pictures_of, counts, modes)
def test_a_name_is_on_one_track_at_most_and_a_track_has_one_of_the_names(scene, count, mode) -> None:  # type: ignore[no-untyped-def]
    for told in run(cast(*"abcdef"[:count], mode=mode), scene):
        given_out = [slot for slot in told.values() if slot >= 0]
        assert len(set(given_out)) == len(given_out)
        assert all(slot < count for slot in given_out)


@settings(max_examples=50)
@given(pictures_of, counts, modes, st.randoms(use_true_random=False))
def test_the_order_of_tracks_changes_nothing(scene, count, mode, random) -> None:  # type: ignore[no-untyped-def]
    names = "abcdef"[:count]
    mixed = run(cast(*names, mode=mode), scene, lambda n: random.sample(range(n), n))
    assert mixed == run(cast(*names, mode=mode), scene)


@settings(max_examples=30)
@given(pictures_of, pictures_of, modes)
def test_two_casts_interleaved_are_each_as_if_alone(first, second, mode) -> None:  # type: ignore[no-untyped-def]
    alone = run(cast("a", "b", mode=mode), first)
    a, b = cast("a", "b", mode=mode), cast("a", "b", mode=mode)
    pts, told = 0, []
    for index, (step, there, kinds) in enumerate(first):
        pts += step
        if index < len(second):
            run(b, second[index : index + 1])
        result = a.update(tracks(pts, *there), looks(*kinds[: len(there)]), WIDTH)
        told.append(dict(zip(result.track_id.tolist(), result.slot.tolist(), strict=True)))
    assert told == alone


wild = st.floats(-(2.0**90), 2.0**90, width=32) | st.sampled_from([float("nan"), float("inf"), -float("inf"), 0.0])


@settings(max_examples=50)
@given(st.lists(st.lists(st.tuples(wild, wild, wild, wild), max_size=4), max_size=8), modes)
def test_boxes_that_make_no_sense_are_survived(scene, mode) -> None:  # type: ignore[no-untyped-def]
    slots = cast("a", "b", mode=mode)
    for index, rows in enumerate(scene):
        boxes = np.array(rows, np.float32).reshape(-1, 4)
        ids = np.arange(1, len(rows) + 1, dtype=np.int32)
        none = np.zeros(len(rows), np.float32)
        result = slots.update(Tracks(index * STEP, ids, boxes, none, none.astype(np.int32)))
        unseen = ~np.isfinite(boxes).all(axis=1)
        assert (result.slot[unseen] == -1).all()


# The command line's names


def test_slots_of_reads_names() -> None:
    assert slots_of("left, right").names == ["left", "right"]
    assert slots_of("왼쪽").mode == "person"


@pytest.mark.parametrize("text", ["", "a,a", "a,,b", "a b", "a,b,c,d,e,f,g", "a/b", "x" * 25])
def test_slots_of_refuses_what_are_no_names(text: str) -> None:
    with pytest.raises(InputError, match=r"^--slots: .*accepted: 1 to 6 different names"):
        slots_of(text)
