"""Which pictures go to the detector together: those of one tick, or of some ticks that follow one another.

A small batch does not fill a device, which takes twice as long for twelve pictures as for four (docs/adr/013), and the
host takes little longer to submit a large one: a run that need not keep to a clock gathers some ticks
(`MemoryPlan.batch_ticks`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

from tiler.crowd import DetectionBatch, Seen
from tiler.errors import StageError
from tiler.infer.base import Answer, Detector
from tiler.preprocess.base import Preprocessor
from tiler.types import Frame

Found = Callable[[], Seen]
"""Waits for what was seen in the pictures of a tick; to be called once."""


class Batches:
    """Submits pictures to a detector, a batch for so many ticks.

    Where that is more than one, one thread gives pictures and asks what was found; where it is one, one thread
    gives and one asks.
    """

    def __init__(
        self,
        preprocessor: Preprocessor,
        detector: Detector,
        ticks: int,
        timed: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """
        Args:
            preprocessor, detector: of the run.
            ticks: see above.
            timed: a context around what it takes to submit a batch.
        """
        self._preprocessor, self._detector, self._ticks, self._timed = preprocessor, detector, ticks, timed
        self._gathering: _Batch | None = None

    def add(self, frames: Sequence[Frame]) -> Found | None:
        """The pictures of the next tick that are to be looked at; None when there are none.

        What is returned waits for a batch that is not complete no longer: it is submitted then.

        Raises:
            StageError: see `Detector.submit`; so does what is returned, for all ticks of the batch.
        """
        batch = self._gathering
        if batch is None or batch.submitted:
            batch = self._gathering = _Batch()
        first = len(batch.frames)
        batch.frames += frames
        batch.ticks += 1
        if batch.ticks == self._ticks:
            self._gathering = None
            self._submit(batch)
        if not frames:
            return None
        streams = [frame.stream for frame in frames]
        return lambda: Seen(streams, self._found(batch).part(first, len(streams)))

    def _submit(self, batch: _Batch) -> None:
        frames, batch.frames, batch.submitted = batch.frames, [], True
        if frames:
            with self._timed():
                batch.answer = self._detector.submit(self._preprocessor.prepare(frames))

    def _found(self, batch: _Batch) -> DetectionBatch:
        if not batch.submitted:
            self._submit(batch)
        if batch.found is None:
            if batch.answer is None:
                raise StageError("preprocess", "the pictures could not be submitted")
            batch.found = batch.answer()
        return batch.found


class _Batch:
    """The pictures of a batch until it is submitted, and then what became of it."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.ticks = 0
        self.submitted = False
        self.answer: Answer | None = None
        self.found: DetectionBatch | None = None
