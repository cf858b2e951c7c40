"""ReID: people keep their ids through meetings and absences, and nothing is looked at in vain. Looks are faked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.test_meetings import FPS, TALL, WIDE
from tiler.config.models import TrackerConfig
from tiler.crowd import TrackBatch
from tiler.kernels.people_cpu import MOST_AWAY
from tiler.track.base import Embedder
from tiler.track.reid import ReId
from tiler.types import APPEARANCE, CLOCK_HZ, Float32, Frame, Tracks

WIDTH, HEIGHT = 1000, 400
Seen = dict[int, tuple[int, float]]
"""By track id: which person it is, and the x of the box."""


class Faces(Embedder):
    """An embedder that knows which person is in a box: the top row of a box names the person.

    Args:
        blur: deviation of the vectors of one person, against a length of 1.
    """

    def __init__(self, blur: float = 0.3) -> None:
        self.calls: list[int] = []
        self.closed = 0
        self._blur, self._rng = blur, np.random.default_rng(0)

    def embed(self, crops: Sequence[tuple[Frame, Float32]]) -> Float32:
        people = [round(float(box[1])) for _, boxes in crops for box in boxes]
        self.calls.append(len(people))
        looks = np.stack([np.random.default_rng(person).normal(0, 1, APPEARANCE) for person in people])
        looks /= np.linalg.norm(looks, axis=1, keepdims=True)
        looks += self._rng.normal(0, self._blur / np.sqrt(APPEARANCE), looks.shape)
        return (looks / np.linalg.norm(looks, axis=1, keepdims=True)).astype(np.float32)

    def close(self) -> None:
        self.closed += 1


def frame_at(picture: int, stream: int = 0) -> Frame:
    grey, half = np.full((HEIGHT, WIDTH), 99, np.uint8), np.full((HEIGHT // 2, WIDTH // 2), 128, np.uint8)
    return Frame(stream, round(picture * CLOCK_HZ / FPS), grey, half, half)


def tracks_of(picture: int, seen: Seen) -> Tracks:
    """A person's number is the top of the box, and the feet of higher numbers are lower."""
    ids = sorted(seen)
    xyxy = np.array([[x, who, x + WIDE, who + TALL] for who, x in (seen[k] for k in ids)], np.float32).reshape(-1, 4)
    ones = np.ones(len(ids), np.float32)
    pts = round(picture * CLOCK_HZ / FPS)
    return Tracks(pts, np.array(ids, np.int32), xyxy, ones, np.zeros(len(ids), np.int32))


def know(reid: ReId, frame: Frame, tracks: Tracks, detected: bool = True, wanted: Iterable[int] = ()) -> Tracks:
    """Who the tracks of the only stream are, which has another picture."""
    batch = TrackBatch.of((0,), (tracks,))
    (known,) = reid.recognise(batch, reid.look([frame], batch, [detected], [wanted])).pictures()
    return known


class Story:
    """One stream, told picture by picture; says which id each person is shown with."""

    def __init__(self, faces: Faces | None = None, **config: float) -> None:
        self.faces = faces or Faces()
        self.reid = ReId(self.faces, 1, TrackerConfig(**config))  # type: ignore[arg-type]
        self.picture = 0

    def tell(self, seen: Callable[[int], Seen] | Seen, pictures: int = 1, detected: bool = True) -> dict[int, int]:
        shown: dict[int, int] = {}
        for k in range(pictures):
            tracks = tracks_of(self.picture, seen(k) if callable(seen) else seen)
            known = know(self.reid, frame_at(self.picture), tracks, detected)
            shown = {round(float(box[1])): int(who) for who, box in zip(known.track_id, known.xyxy, strict=True)}
            assert len(known) == len(tracks)
            self.picture += 1
        return shown

    def meet(self, before: tuple[int, int], after: tuple[int, int]) -> dict[int, int]:
        """Persons 10 and 12 cross; the tracker has them as `before`, and afterwards as `after`."""
        (a, b), (c, d) = before, after
        self.tell({a: (10, 200), b: (12, 600)}, 60)
        self.tell(lambda k: {a: (10, 200 + 8 * k), b: (12, 600 - 8 * k)}, 25)
        return self.tell(lambda k: {c: (10, 400 + 8 * k), d: (12, 400 - 8 * k)}, 30)


def test_people_who_were_exchanged_get_their_ids_back_within_a_second() -> None:
    story = Story()
    assert story.meet((1, 2), (2, 1)) == {10: 1, 12: 2}
    assert story.reid.duty(0).exchanged == 1


def test_people_who_were_not_exchanged_keep_their_ids() -> None:
    story = Story()
    assert story.meet((1, 2), (1, 2)) == {10: 1, 12: 2}
    assert story.reid.duty(0).exchanged == 0


def test_an_exchange_holds_when_they_meet_again() -> None:
    story = Story()
    story.meet((1, 2), (2, 1))
    assert story.meet((2, 1), (1, 2)) == {10: 1, 12: 2}
    assert story.meet((1, 2), (1, 2)) == {10: 1, 12: 2}


def test_who_was_lost_behind_another_and_comes_out_as_a_new_track_gets_the_id_back() -> None:
    story = Story()
    story.tell({1: (10, 200), 2: (12, 600)}, 60)
    story.tell(lambda k: {1: (10, 200 + 8 * k), 2: (12, 600 - 8 * k)}, 24)
    story.tell(lambda k: {2: (12, 405 - k)}, 15)
    shown = story.tell(lambda k: {2: (12, 390 - 8 * k), 7: (10, 400 + 8 * k)}, 30)
    assert shown == {10: 1, 12: 2}


def test_who_comes_back_gets_the_id_back_and_a_stranger_gets_a_new_one() -> None:
    story = Story()
    story.tell({1: (10, 200), 2: (12, 600)}, 60)
    story.tell({2: (12, 600)}, 100)
    assert story.tell({2: (12, 600), 5: (10, 300)}, 12) == {10: 1, 12: 2}
    story.tell({2: (12, 600)}, 100)
    assert story.tell({2: (12, 600), 6: (20, 300)}, 60) == {20: 6, 12: 2}
    duty = story.reid.duty(0)
    assert (duty.returned, duty.exchanged) == (1, 0)


def test_who_was_away_for_longer_than_the_memory_is_somebody_new() -> None:
    story = Story(memory_s=2.0)
    story.tell({1: (10, 200), 2: (12, 600)}, 60)
    story.tell({2: (12, 600)}, 3 * FPS)
    assert story.tell({2: (12, 600), 5: (10, 300)}, 60) == {10: 5, 12: 2}


def test_of_many_who_are_away_those_who_left_first_are_forgotten() -> None:
    story = Story(memory_s=600.0)
    for who in range(1, MOST_AWAY + 30):
        story.tell({who: (who, 300)}, 10)
    assert story.tell({1001: (MOST_AWAY + 20, 300)}, 12) == {MOST_AWAY + 20: MOST_AWAY + 20}
    assert story.tell({1002: (40, 300)}, 12) == {40: 40}
    assert story.tell({1003: (5, 300)}, 60) == {5: 1003}


def test_two_who_look_the_same_stay_as_the_tracker_has_them() -> None:
    class Twins(Faces):
        def embed(self, crops: Sequence[tuple[Frame, Float32]]) -> Float32:
            return super().embed([(frame, np.full_like(boxes, 10)) for frame, boxes in crops])

    assert Story(Twins()).meet((1, 2), (2, 1)) == {10: 2, 12: 1}


def test_without_evidence_everything_stays_as_the_tracker_has_it() -> None:
    story = Story()
    story.tell({1: (10, 200), 2: (12, 600)}, 60, detected=False)
    assert story.tell(lambda k: {2: (10, 400 + 8 * k), 1: (12, 400 - 8 * k)}, 30, detected=False) == {10: 2, 12: 1}
    assert story.faces.calls == []
    cut = Story()  # at the edge of the picture nobody is seen whole
    assert cut.tell({1: (10, -1), 2: (12, WIDTH - WIDE + 1)}, 60) == {10: 1, 12: 2}
    assert cut.faces.calls == []


def test_who_was_given_an_id_back_and_is_lost_at_once_is_remembered_from_then_on() -> None:
    story = Story(memory_s=30.0)
    story.tell({1: (10, 200), 2: (12, 600)}, 60)
    story.tell({2: (12, 600)}, 25 * FPS)
    story.tell({2: (12, 600), 3: (10, 605)})
    while not story.reid.duty(0).exchanged and story.picture < 1000:
        story.tell({2: (12, 600), 3: (10, 640)})
    assert story.reid.duty(0).exchanged == 1
    story.tell({2: (12, 600)}, 6 * FPS)
    assert story.tell({2: (12, 600), 4: (10, 200)}, 30) == {10: 1, 12: 2}


def test_two_who_look_like_a_third_may_sit_beside_that_one_for_long() -> None:
    """However much is said against them: nobody is left without an identity."""

    class Triplets(Faces):
        alike = False

        def embed(self, crops: Sequence[tuple[Frame, Float32]]) -> Float32:
            if self.alike:
                crops = [(frame, np.full_like(boxes, 10)) for frame, boxes in crops]
            return super().embed(crops)

    faces = Triplets(blur=0.1)
    story = Story(faces)
    story.tell({1: (10, 100), 2: (12, 400), 3: (14, 800)}, 300)
    story.tell({1: (10, 400), 2: (12, 405), 3: (14, 410)})
    faces.alike = True
    story.tell({1: (10, 400), 2: (12, 436), 3: (14, 472)}, 8 * 60 * FPS)
    assert story.tell({1: (10, 400), 2: (12, 436), 3: (14, 472)}) == {10: 1, 12: 2, 14: 3}


def test_galleries_are_not_fed_while_people_cover_each_other() -> None:
    """One who is always seen behind somebody else is not known afterwards: nothing is exchanged for that one's sake."""
    story = Story()
    story.tell({1: (10, 200), 2: (12, 210)}, 100)
    shown = story.tell(lambda k: {2: (10, 205 - 4 * k), 1: (12, 210 + 4 * k)}, 30)
    assert shown == {10: 2, 12: 1}


def test_somebody_alone_is_looked_at_now_and_then_only() -> None:
    story = Story()
    story.tell({1: (10, 200)}, 20 * FPS)
    duty = story.reid.duty(0)
    assert (duty.pictures, duty.tracks) == (500, 500)
    assert duty.looked == duty.crops <= 15
    assert duty.report()["duty"] == pytest.approx(duty.looked / 500, abs=1e-4)


def test_who_is_wanted_is_looked_at_and_others_with_them_when_nearly_due() -> None:
    story = Story()
    story.tell({1: (10, 200), 2: (12, 700)}, 60)
    before = story.reid.duty(0)
    for _ in range(10):
        tracks = tracks_of(story.picture, {1: (10, 200), 2: (12, 700)})
        know(story.reid, frame_at(story.picture), tracks, wanted={2})
        story.picture += 1
    duty = story.reid.duty(0)
    assert duty.looked - before.looked == 5
    assert 5 <= duty.crops - before.crops <= 6


def test_all_streams_share_one_call() -> None:
    faces = Faces()
    reid = ReId(faces, 3, TrackerConfig())
    tracks = TrackBatch.of((0, 2), [tracks_of(0, {1: (10, 200), 2: (12, 600)})] * 2)
    looks = reid.look([frame_at(0, stream) for stream in (0, 2)], tracks, [True, True])
    assert faces.calls == [4]
    assert looks.known.all()
    assert [len(own) for own in looks.pictures(tracks)] == [2, 2]
    assert reid.look([], TrackBatch.empty(), []).pictures(TrackBatch.empty()) == []
    reid.close()
    reid.close()
    assert faces.closed >= 1


def test_nobody_of_a_source_that_has_left_is_known_in_the_one_that_comes_into_its_place() -> None:
    story = Story()
    story.tell({1: (10, 200), 2: (12, 600)}, 60)
    story.tell({2: (12, 600)}, 40)
    before = story.reid.duty(0)
    story.reid.begin(0)
    assert story.tell({1: (12, 600)}, 12) == {12: 1}
    assert story.tell({1: (12, 600), 2: (10, 200)}, 60) == {12: 1, 10: 2}  # or 10 would come back as 1
    duty = story.reid.duty(0)
    assert (duty.returned, duty.pictures) == (0, 72)
    assert before.pictures == 100


stories = st.lists(
    st.dictionaries(st.integers(1, 8), st.tuples(st.integers(0, 5), st.floats(0, 500)), max_size=5), max_size=50
)


@settings(max_examples=60)
@given(stories, stories)
def test_ids_are_unique_and_streams_beside_each_other_are_each_alone(one: list[Seen], two: list[Seen]) -> None:
    both, alone = ReId(Faces(blur=0), 2, TrackerConfig()), ReId(Faces(blur=0), 1, TrackerConfig())
    for picture in range(max(len(one), len(two))):
        streams = [stream for stream, story in enumerate((one, two)) if picture < len(story)]
        told = [tracks_of(picture, (one, two)[stream][picture]) for stream in streams]
        batch = TrackBatch.of(streams, told)
        seen = both.look([frame_at(picture, stream) for stream in streams], batch, [True] * len(streams))
        known = both.recognise(batch, seen).pictures()
        for tracks, looks in zip(known, seen.pictures(batch), strict=True):
            assert (np.diff(tracks.track_id) > 0).all()
            assert set(tracks.track_id.tolist()) <= set(range(1, 9))
            assert np.allclose(np.linalg.norm(looks.vectors[looks.known], axis=1), 1, atol=1e-5)
        if picture < len(one):
            tracks = know(alone, frame_at(picture), told[0])
            assert np.array_equal(tracks.track_id, known[0].track_id)
            assert np.array_equal(tracks.xyxy, known[0].xyxy)


@settings(max_examples=60)
@given(stories, st.lists(st.floats(0, 4), min_size=50, max_size=50), st.floats(0.1, 3))
def test_ids_stay_unique_while_people_are_forgotten(story: list[Seen], gaps_s: list[float], memory_s: float) -> None:
    """As a tracker gives ids: one that was not seen for `lost_s` is never used again."""
    config = TrackerConfig(lost_s=1.0, memory_s=memory_s)
    reid, now, raw, last = ReId(Faces(blur=0), 1, config), 0, dict[int, int](), dict[int, int]()
    for gap_s, people in zip(gaps_s, story, strict=False):
        now += round(gap_s * CLOCK_HZ)
        for k in people:
            if k not in raw or now - last[k] > config.lost_s * CLOCK_HZ:
                raw[k] = max(raw.values(), default=0) + 1
            last[k] = now
        tracks = replace(tracks_of(0, {raw[k]: place for k, place in people.items()}), pts=now)
        known = know(reid, replace(frame_at(0), pts=now), tracks)
        assert (np.diff(known.track_id) > 0).all()
        assert set(known.track_id.tolist()) <= set(range(1, max(raw.values(), default=0) + 1))
