"""Slots by side: the names of zones of the picture."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from test_slots import STEP, WIDTH, Person, cast, pictures_of, play, run, shown, tracks

from tiler.track.slots import Slots
from tiler.types import CLOCK_HZ


def side(*names: str, **config: Any) -> Slots:
    return cast(*names, mode="side", **config)


def test_names_stay_with_the_sides_when_two_change_places() -> None:
    slots = side("left", "right", dwell_s=0.4)
    before, after = ((1, 300), (2, 700)), ((1, 700), (2, 300))
    told = play(slots, *([before] * 20), *([after] * 11))
    assert told[0] == {"left": 1, "right": 2}
    assert told[-2] == {"left": 1, "right": 2}    # not before the time is over
    assert told[-1] == {"left": 2, "right": 1}
    assert slots.revised == 1


def test_who_is_alone_has_the_name_of_the_half_and_keeps_it_near_the_middle() -> None:
    slots = side("left", "right", hysteresis=0.1, dwell_s=0)
    told = play(slots, ((1, 700),), ((1, 410),), ((1, 390),), ((1, 590),), ((1, 610),))
    assert told == [{"right": 1}, {"right": 1}, {"left": 1}, {"left": 1}, {"right": 1}]


def test_a_break_begins_the_dwell_anew() -> None:
    slots = side("left", "right", dwell_s=0.4)
    before, after = ((1, 300), (2, 700)), ((1, 700), (2, 300))
    told = play(slots, before, *([after] * 9), before, *([after] * 9), (), *([after] * 9))
    assert all(names == {"left": 1, "right": 2} for names in told if names)


def test_all_gone_for_a_picture_come_back_to_their_names() -> None:
    slots = side("left", "right", dwell_s=10)
    told = play(slots, ((1, 480), (2, 520)), (), ((1, 520), (2, 480)))
    assert told[-1] == told[0] == {"left": 1, "right": 2}


def test_somebody_new_takes_at_once_what_is_free() -> None:
    slots = side("left", "right", dwell_s=10)
    assert play(slots, ((1, 300),), ((1, 300), (2, 400)))[-1] == {"left": 1, "right": 2}
    assert play(slots, ((3, 310), (2, 400)), begin=2)[-1] == {"left": 3, "right": 2}


def test_more_people_than_names_leave_the_smaller_ones_without() -> None:
    slots = side("left", "right")
    seen = tracks(0, (1, 200), (2, 500), (3, 800))
    seen.xyxy[1, 1] += 50
    assert shown(slots, slots.update(seen, None, WIDTH)) == {"left": 1, "right": 3}


def test_a_third_person_in_an_empty_half_gets_its_name_after_the_dwell() -> None:
    slots = side("left", "right", dwell_s=0.4)
    two, three = ((2, 240), (3, 220)), ((2, 250), (3, 230), (1, 800))
    told = play(slots, ((2, 240),), *([two] * 20), *([three] * 11))
    assert told[-2] == {"left": 2, "right": 3}    # not before the time is over
    assert told[-1] == {"left": 2, "right": 1}
    assert slots.revised == 1


def test_a_free_name_goes_to_somebody_of_its_half() -> None:
    slots = side("left", "right", dwell_s=10)
    four = ((1, 200), (2, 800), (3, 750), (4, 300))
    assert play(slots, four[:2], four, four[1:]) == [{"left": 1, "right": 2}] * 2 + [{"left": 4, "right": 2}]


def test_of_more_people_who_has_a_name_keeps_it_until_they_are_out_of_its_half() -> None:
    slots = side("left", "right", dwell_s=0.4, hysteresis=0.05)

    def there(x: float) -> list[tuple[Person, ...]]:
        return [((1, x), (2, 800), (3, 20))] * 11

    play(slots, ((1, 400), (2, 800)))
    assert play(slots, *there(400), *there(540), begin=1) == [{"left": 1, "right": 2}] * 22
    assert play(slots, *there(560), begin=23)[-1] == {"left": 3, "right": 2}
    assert play(slots, *there(400), begin=34) == [{"left": 3, "right": 2}] * 11


def crowds(count: int) -> st.SearchStrategy[tuple[int, list[Person]]]:
    """More people than the `count` zones, all further from the edges of theirs than the hysteresis."""
    person = st.tuples(st.integers(1, 9), st.integers(0, count - 1), st.floats(-0.06, 0.06))
    rows = st.lists(person, min_size=count + 1, max_size=8, unique_by=lambda row: row[0])
    return rows.map(lambda found: (count, [(track, WIDTH * ((k + 0.5) / count + off)) for track, k, off in found]))


@settings(max_examples=100)
@given(st.integers(1, 4).flatmap(crowds), pictures_of)
def test_names_of_zones_with_people_are_on_one_of_them_after_the_dwell(crowd, before) -> None:  # type: ignore[no-untyped-def]
    count, people = crowd
    slots = side(*"abcd"[:count], dwell_s=0.4)
    run(slots, before)
    begin = sum(step for step, _, _ in before) // STEP
    told = play(slots, *([tuple(people)] * 20), begin=begin)
    zone = {track: int(x * count / WIDTH) for track, x in people}
    assert told[10:] == [told[10]] * 10
    named = {name: zone[track] for name, track in told[10].items()}
    assert all(named["abcd"[k]] == k for k in zone.values())


@settings(max_examples=60)
@given(st.lists(st.tuples(*[st.integers(0, 1000)] * 3, st.sampled_from([2, 2, 0])), max_size=60),
       st.integers(0, 1), st.sampled_from([0.2, 0.5]))  # fmt: skip
def test_sides_never_change_twice_within_the_dwell(scene, more, dwell_s) -> None:  # type: ignore[no-untyped-def]
    slots = side("left", "right", hysteresis=0, dwell_s=dwell_s)
    told = play(slots, *(((1, a), (2, b), (3, c))[: there and there + more] for a, b, c, there in scene))
    changes = []
    last: dict[str, int] = {}
    for index, names in enumerate(told):
        if last and names and names != last:
            changes.append(index)
        last = names or last
    assert all((b - a) * STEP >= dwell_s * CLOCK_HZ for a, b in pairwise(changes))
