"""Batches: the pictures of some ticks go to the detector together, and each tick is told its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tiler.batches import Batches, Found
from tiler.crowd import DetectionBatch
from tiler.infer.base import Answer
from tiler.memory import TENSORS
from tiler.types import Batch, Detections, Frame

PLANES = np.zeros((2, 2), np.uint8), np.zeros((1, 1), np.uint8), np.zeros((1, 1), np.uint8)


class Pictures:
    """Preprocessor and detector: sees the pts of a picture in it."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.due = 0

    def prepare(self, frames: Sequence[Frame]) -> Batch:
        pts = np.array([frame.pts for frame in frames], np.float32)
        return Batch(pts, np.zeros((len(frames), 4)), np.zeros((len(frames), 2)), tuple(f.stream for f in frames))

    def submit(self, batch: Batch) -> Answer:
        self.sizes.append(len(batch))
        self.due += 1
        assert self.due <= TENSORS

        def answer() -> DetectionBatch:
            self.due -= 1
            one, none = np.ones(1, np.float32), np.zeros(1, np.int32)
            return DetectionBatch.of([Detections(np.full((1, 4), pts), one, none) for pts in batch.tensor])

        return answer

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(name)


@given(st.lists(st.integers(0, 3), max_size=30), st.integers(1, 3), st.data())
def test_each_tick_is_told_what_was_seen_in_its_pictures(counts: list[int], ticks: int, data: st.DataObject) -> None:
    """Asked for in order, as late as the stages do or sooner: so many ticks later, with pictures or without."""
    device = Pictures()
    batches = Batches(device, device, ticks)
    waiting: deque[tuple[list[int], Found | None]] = deque()

    def ask() -> None:
        pts, found = waiting.popleft()
        if found is not None:
            streams, detections = found()
            assert streams == list(range(len(pts)))
            assert [int(seen.xyxy[0, 0]) for seen in detections.pictures()] == pts

    for tick, count in enumerate(counts):
        pts = [10 * tick + stream for stream in range(count)]
        found = batches.add([Frame(stream, value, *PLANES) for stream, value in enumerate(pts)])
        assert (found is None) == (count == 0)
        waiting.append((pts, found))
        while len(waiting) >= 2 * ticks or (waiting and data.draw(st.integers(0, 9)) == 0):
            ask()
    while waiting:
        ask()
    assert sum(device.sizes) == sum(counts)


def test_a_batch_is_submitted_once_its_ticks_are_there() -> None:
    device = Pictures()
    batches = Batches(device, device, 3)
    asked = [batches.add([Frame(0, pts, *PLANES), Frame(1, pts, *PLANES)]) for pts in range(4)]
    assert device.sizes == [6]
    assert asked[3] is not None
    assert asked[3]().streams == [0, 1]
    assert device.sizes == [6, 2]
