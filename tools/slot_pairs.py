"""Two people who cross, each with a slot: does the name stay? `tools/eval_tracking.py --pairs ... --slots`.

The boxes are those of `tools/tracking_pairs.py`. The tracker that ships runs on them and `Slots` of two in
`mode: person` runs on its tracks, alone or with a simulated cue: each crop, which is a track that lies on a
person in a picture, gets that person's 128-D vector with the probability that is the cue's accuracy, else the
other's, independent of every other crop. The two vectors have a cosine of 0.5. They go in as an `Appearance`;
crops of the same person do not differ otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
from tracking_pairs import SCORE, SHOWN_IOU, Boxes, Pair, Rows, detected

from tiler.config.models import DetectorConfig, SlotsConfig, TrackerConfig
from tiler.kernels.assign_cpu import best_pairs, box_iou
from tiler.track.bytetrack import ByteTracker
from tiler.track.slots import Slots
from tiler.types import APPEARANCE, CLOCK_HZ, Appearance, Detections, Tracks

_COSINE = 0.5


@dataclass
class SlotTally:
    """What became of the names in all pairs, once both people had one.

    Attributes:
        changes: a person is shown with another name than when last shown.
        takeovers: of those, with the name with which the other person was last shown.
        exchanged: overlaps after which somebody is shown with the name that the other had before.
        overlaps: times that the true boxes of the two touched and parted, both being named before.
        seen: pictures in which a person is tracked, summed over people.
        named: of those, how many with a name.
        right: of those, how many with the name that the person had first.
    """

    changes: int = 0
    takeovers: int = 0
    exchanged: int = 0
    overlaps: int = 0
    seen: int = 0
    named: int = 0
    right: int = 0

    def add(self, other: SlotTally) -> None:
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))


def score_slots(
    pairs: Sequence[Pair],
    truth: Mapping[str, tuple[Rows, float]],
    accuracies: Sequence[float | None],
    seeds: int,
    jobs: int,
) -> dict[float | None, list[SlotTally]]:
    """The tallies of each accuracy of the cue (None: no cue), one per seed.

    Args:
        pairs: whom to look at.
        truth: MOT rows and frames a second of each sequence.
        seeds: of the noise and the cue.
        jobs: processes to share the work.
    """
    tallies: dict[float | None, list[SlotTally]] = {p: [SlotTally() for _ in range(seeds)] for p in accuracies}
    with ProcessPoolExecutor(jobs) as pool:
        running = [
            (seed, pool.submit(_tally, pair, *truth[pair.sequence], accuracies, [seed, number]))
            for seed in range(seeds)
            for number, pair in enumerate(pairs)
        ]
        for seed, task in running:
            for accuracy, tally in task.result().items():
                tallies[accuracy][seed].add(tally)
    return tallies


def _tally(
    pair: Pair, rows: Rows, fps: float, accuracies: Sequence[float | None], seed: list[int]
) -> dict[float | None, SlotTally]:
    scene = list(detected(rows, pair, np.random.default_rng(seed)))
    touching = _touching(rows, pair)
    return {p: _run(scene, touching, fps, p, np.random.default_rng([*seed, 1])) for p in accuracies}


def _run(
    scene: list[tuple[list[int], Boxes]],
    touching: list[bool],
    fps: float,
    accuracy: float | None,
    rng: np.random.Generator,
) -> SlotTally:
    tally = SlotTally()
    tracker = ByteTracker(TrackerConfig(), DetectorConfig().score)
    slots = Slots(SlotsConfig(names=["a", "b"]))
    first: list[int | None] = [None, None]
    last: list[int | None] = [None, None]
    before: list[int | None] = [None, None]
    apart = True
    told = True
    for index, (there, boxes) in enumerate(scene):
        count = len(there)
        detections = Detections(
            boxes.astype(np.float32), np.full(count, SCORE, np.float32), np.zeros(count, np.int32)
        )
        tracks = tracker.update(detections, round(index * CLOCK_HZ / fps))
        row_of = _rows_of(there, boxes, tracks)
        looks = None if accuracy is None else _cue(row_of, len(tracks), accuracy, rng)
        slot = slots.update(tracks, looks).slot
        now = list(last)
        for person, row in row_of.items():
            if slot[row] >= 0:
                now[person] = int(slot[row])
        if None in first and None not in now and now[0] != now[1]:
            first = list(now)
        if None not in first:
            for person, row in row_of.items():
                tally.seen += 1
                tally.named += slot[row] >= 0
                tally.right += slot[row] == first[person]
        for person in (0, 1):
            if None not in last and now[person] != last[person]:
                tally.changes += 1
                tally.takeovers += now[person] == last[1 - person]
        if touching[index]:
            if apart:
                before, apart, told = list(last), False, None in last
                tally.overlaps += not told
        else:
            apart = True
            # Somebody with the other's name at any time until they overlap again.
            if not told and any(slot[row] >= 0 and slot[row] == before[1 - person] for person, row in row_of.items()):
                tally.exchanged += 1
                told = True
        last = now
    return tally


def _rows_of(there: list[int], boxes: Boxes, tracks: Tracks) -> dict[int, int]:
    """The row of the track that is shown on each person."""
    if not len(tracks) or not there:
        return {}
    overlap = box_iou(boxes, tracks.xyxy.astype(np.float64))
    pairs = best_pairs(np.maximum(overlap - SHOWN_IOU, 0))
    return {person: int(row) for person, row in zip(there, pairs, strict=True) if row >= 0}


def _cue(row_of: dict[int, int], count: int, accuracy: float, rng: np.random.Generator) -> Appearance:
    vectors, known = np.zeros((count, APPEARANCE), np.float32), np.zeros(count, np.bool_)
    for person, row in row_of.items():
        looks_like = person if rng.random() < accuracy else 1 - person
        vectors[row, 0], vectors[row, 1 + looks_like] = np.sqrt(_COSINE), np.sqrt(1 - _COSINE)
        known[row] = True
    return Appearance(vectors, known)


def _touching(rows: Rows, pair: Pair) -> list[bool]:
    """For each frame of `detected`: whether the true boxes of the two overlap."""
    own = [{int(row[0]): row[2:6] for row in rows[rows[:, 1] == person]} for person in pair.ids]
    frames = [frame for boxes in own for frame in boxes]
    touching, state = [], False
    for frame in range(min(frames), max(frames) + 1):
        if frame in own[0] and frame in own[1]:
            a, b = (_corners(boxes[frame]) for boxes in own)
            state = bool(box_iou(a, b)[0, 0] > 0)
        touching.append(state)
    return touching


def _corners(box: npt.NDArray[np.float64]) -> Boxes:
    return np.array([[box[0], box[1], box[0] + box[2], box[1] + box[3]]])
