"""Two people who cross: does each keep the id? The yardstick of `tools/eval_tracking.py --pairs`.

Public sequences have many people and few crossings, and a tracker that gives two people each other's
id loses little of their measures. Here only the two people of a pair exist. Their boxes are the ground
truth with noise, scored the same; the farther one (whose feet are higher in the picture) is not
detected while the true boxes overlap by more than an IoU of 0.5. No pixels: motion alone decides.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tracking_peers import Entrant, entrants

from tiler.kernels.assign_cpu import best_pairs, box_iou
from tiler.types import Detections

Rows = npt.NDArray[np.float64]
Boxes = npt.NDArray[np.float64]

_NOISE = 0.02
"""Standard deviation of an edge, in widths or heights of the box."""
_HIDDEN_IOU = 0.5
SCORE = 0.9
SHOWN_IOU = 0.5
"""A track must overlap a person by more than this to be that person's, as in MOTA and IDF1."""


@dataclass(frozen=True)
class Pair:
    """Two people by their ids in the ground truth."""

    sequence: str
    ids: tuple[int, int]
    crossings: int


@dataclass
class Tally:
    """What went wrong in all pairs.

    An id change: a person is shown with another id than when last shown. A takeover: that id is the
    one with which the other person was last shown.
    """

    changes: int = 0
    takeovers: int = 0
    pairs_changed: int = 0
    pairs_taken: int = 0

    def row(self) -> tuple[int, int, int, int]:
        return self.changes, self.takeovers, self.pairs_changed, self.pairs_taken

    def add(self, changes: int, takeovers: int) -> None:
        self.changes += changes
        self.takeovers += takeovers
        self.pairs_changed += changes > 0
        self.pairs_taken += takeovers > 0


def read_pairs(path: Path, count: int) -> list[Pair]:
    """The `count` pairs with the most crossings; equal ones as in the file."""
    with path.open(encoding="utf-8", newline="") as file:
        pairs = [
            Pair(row["sequence"], (int(row["id_a"]), int(row["id_b"])), int(row["lr_crossings"]))
            for row in csv.DictReader(file)
        ]
    return sorted(pairs, key=lambda pair: -pair.crossings)[:count]


def score_pairs(
    pairs: Sequence[Pair],
    truth: Mapping[str, tuple[Rows, float]],
    names: Sequence[str],
    lost_s: float | None,
    seeds: int,
    jobs: int,
) -> dict[str, list[Tally]]:
    """The tallies of each tracker, one per seed: 0, 1 and so on.

    Args:
        pairs: whom to look at.
        truth: MOT rows and frames a second of each sequence.
        names: of the trackers; all are given the same boxes.
        lost_s: see `entrants`.
        seeds: of the noise.
        jobs: processes to share the work.
    """
    tallies = {name: [Tally() for _ in range(seeds)] for name in names}
    with ProcessPoolExecutor(jobs) as pool:
        running = [
            (seed, pool.submit(_mistakes, pair, *truth[pair.sequence], lost_s, names, [seed, number]))
            for seed in range(seeds)
            for number, pair in enumerate(pairs)
        ]
        for seed, task in running:
            for name, mistakes in task.result().items():
                tallies[name][seed].add(*mistakes)
    return tallies


def _mistakes(
    pair: Pair, rows: Rows, fps: float, lost_s: float | None, names: Sequence[str], seed: list[int]
) -> dict[str, tuple[int, int]]:
    """Id changes and takeovers of one pair by tracker."""
    scene = list(detected(rows, pair, np.random.default_rng(seed)))
    return {entrant.name: _count(scene, entrant, fps) for entrant in entrants(lost_s)[0] if entrant.name in names}


def detected(rows: Rows, pair: Pair, rng: np.random.Generator) -> Iterator[tuple[list[int], Boxes]]:
    """For each frame from the first to the last with either: who is detected (0, 1), and the boxes."""
    own = [{int(row[0]): row[2:6] for row in rows[rows[:, 1] == person]} for person in pair.ids]
    frames = [frame for boxes in own for frame in boxes]
    for frame in range(min(frames), max(frames) + 1):
        there = [person for person in (0, 1) if frame in own[person]]
        sizes = np.array([own[person][frame] for person in there]).reshape(-1, 4)
        corners = np.concatenate((sizes[:, :2], sizes[:, :2] + sizes[:, 2:]), axis=1)
        noisy = corners + rng.normal(0, _NOISE, corners.shape) * np.tile(sizes[:, 2:], 2)
        if len(there) == 2 and box_iou(corners[:1], corners[1:])[0, 0] > _HIDDEN_IOU:
            nearer = int(corners[1, 3] > corners[0, 3])
            there, noisy = [nearer], noisy[nearer : nearer + 1]
        yield there, noisy


def _count(scene: list[tuple[list[int], Boxes]], entrant: Entrant, fps: float) -> tuple[int, int]:
    """Id changes and takeovers of one pair."""
    update = entrant.start(fps)
    last: list[int | None] = [None, None]
    changes = takeovers = 0
    for there, boxes in scene:
        count = len(there)
        detections = Detections(
            boxes.astype(np.float32), np.full(count, SCORE, np.float32), np.zeros(count, np.int32)
        )
        track_id, xyxy, _ = update(detections)
        if not len(track_id) or not count:
            continue
        overlap = box_iou(boxes, xyxy.astype(np.float64))
        now = list(last)
        for person, column in zip(there, best_pairs(np.maximum(overlap - SHOWN_IOU, 0)), strict=True):
            if column >= 0:
                now[person] = int(track_id[column])
        for person in (0, 1):
            if last[person] is not None and now[person] != last[person]:
                changes += 1
                takeovers += now[person] == last[1 - person]
        last = now
    return changes, takeovers
