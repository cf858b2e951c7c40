"""What was seen, and who is where, in the new pictures of a tick: all streams together, and what one of them shows.

A stream has few people, and a call for each stream would cost more than what is done in it. So the boxes of a tick lie
one picture after the other, and stay so from the detector to the overlay.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tiler.types import Detections, Float32, Int32, Tracks

Int64 = npt.NDArray[np.int64]


def slices(ends: Int64) -> list[slice]:
    """The rows of each picture, which begin where those of the one before end."""
    each = ends.tolist()
    return [slice(a, b) for a, b in zip([0, *each], each, strict=False)]


class DetectionBatch(NamedTuple):
    """What was seen in some pictures: what `Detections` holds, one picture after the other.

    Attributes:
        ends: (m,) int64, where the rows of each picture end; they begin where those of the one before end.
        xyxy, score, class_id: as in `Detections`, of all pictures.
    """

    ends: Int64
    xyxy: Float32
    score: Float32
    class_id: Int32

    def pictures(self) -> list[Detections]:
        """The detections of each picture, in the same memory."""
        return [Detections(self.xyxy[own], self.score[own], self.class_id[own]) for own in slices(self.ends)]

    def part(self, first: int, count: int) -> DetectionBatch:
        """Those of some pictures that follow one another, in the same memory."""
        ends = self.ends[first : first + count]
        a, b = (self.ends[first - 1] if first else 0), (ends[-1] if count else 0)
        return DetectionBatch(ends - a, self.xyxy[a:b], self.score[a:b], self.class_id[a:b])

    @staticmethod
    def of(pictures: Sequence[Detections]) -> DetectionBatch:
        """Those of these pictures."""
        every = (*pictures, Detections.empty())
        return DetectionBatch(
            np.cumsum([len(one) for one in pictures], dtype=np.int64),
            np.concatenate([one.xyxy for one in every], dtype=np.float32),
            np.concatenate([one.score for one in every], dtype=np.float32),
            np.concatenate([one.class_id for one in every], dtype=np.int32),
        )


class Seen(NamedTuple):
    """What was seen at a tick: in the pictures of these streams."""

    streams: Sequence[int]
    detections: DetectionBatch


NOTHING = Seen((), DetectionBatch.of(()))


class TrackBatch(NamedTuple):
    """Who is where in some pictures, each of another stream: what `Tracks` holds, one picture after the other.

    Attributes:
        streams: (m,) int64, the stream of each picture.
        pts: (m,) int64, its time.
        ends: (m,) int64, where its rows end; they begin where those of the one before end.
        most: rows of the picture that has most.
        track_id, xyxy, score, class_id, slot: as in `Tracks`, of all pictures.
    """

    streams: Int64
    pts: Int64
    ends: Int64
    most: int
    track_id: Int32
    xyxy: Float32
    score: Float32
    class_id: Int32
    slot: Int32

    def counts(self) -> list[int]:
        """Rows of each picture."""
        return [own.stop - own.start for own in slices(self.ends)]

    def pictures(self) -> list[Tracks]:
        """The tracks of each picture, in the same memory."""
        return [self.picture(k) for k in range(len(self.ends))]

    def picture(self, k: int) -> Tracks:
        """The tracks of one picture, in the same memory."""
        own = slice(self.ends[k - 1] if k else 0, self.ends[k])
        columns = self.track_id[own], self.xyxy[own], self.score[own], self.class_id[own], self.slot[own]
        return Tracks(int(self.pts[k]), *columns)

    @staticmethod
    def of(streams: Sequence[int], tracks: Sequence[Tracks]) -> TrackBatch:
        """Those of one picture of each of these streams."""
        every = (*tracks, Tracks.empty())
        columns = zip(*((one.track_id, one.xyxy, one.score, one.class_id, one.slot) for one in every), strict=True)
        counts = [len(one) for one in tracks]
        return TrackBatch(
            np.array(streams, np.int64), np.array([one.pts for one in tracks], np.int64),
            np.cumsum(counts, dtype=np.int64), max(counts, default=0), *map(np.concatenate, columns),
        )  # fmt: skip

    @staticmethod
    def empty() -> TrackBatch:
        """No pictures."""
        return TrackBatch.of((), ())


class Crowd(NamedTuple):
    """Who is where in some pictures, and where they came from.

    Attributes:
        tracks: who is where.
        history: (n, 4) float32, as `People.history`, of all pictures.
        history_ends: (m,) int64, where the rows of each picture end.
    """

    tracks: TrackBatch
    history: Float32
    history_ends: Int64


class People(NamedTuple):
    """Who is where in one picture of a crowd, or with a negative number nobody anywhere."""

    crowd: Crowd
    number: int

    @property
    def tracks(self) -> Tracks:
        """In the same memory."""
        return self.crowd.tracks.picture(self.number) if self.number >= 0 else Tracks.empty()

    @property
    def history(self) -> Float32:
        """(n, 4) float32 rows of track_id, x, y, age_s for the trails: the foot point (bottom centre) of each track in
        picture pixels, newest first per id; in the same memory."""
        ends, k = self.crowd.history_ends, self.number
        return self.crowd.history[ends[k - 1] if k > 0 else 0 : ends[k] if k >= 0 else 0]

    @staticmethod
    def of(tracks: Tracks, history: Float32) -> People:
        """A crowd that is in one picture."""
        rows = np.ascontiguousarray(history, np.float32)
        return People(Crowd(TrackBatch.of((0,), (tracks,)), rows, np.array([len(rows)], np.int64)), 0)


NOBODY = People(Crowd(TrackBatch.empty(), np.empty((0, 4), np.float32), np.empty(0, np.int64)), -1)


def together(everyone: Sequence[People]) -> tuple[Crowd, list[int]]:
    """One crowd that they all are of, and which picture of it each is: mostly it is the tick's.

    Those who are of others were in an earlier picture, which is shown once more.
    """
    crowds = {id(people.crowd): people.crowd for people in everyone if people.number >= 0}
    if not crowds:
        return NOBODY.crowd, [-1] * len(everyone)
    if len(crowds) == 1:
        (crowd,) = crowds.values()
        return crowd, [people.number for people in everyone]
    history = [people.history for people in everyone]
    ends = np.cumsum([len(rows) for rows in history], dtype=np.int64)
    tracks = TrackBatch.of([0] * len(everyone), [people.tracks for people in everyone])
    return Crowd(tracks, np.concatenate(history), ends), list(range(len(everyone)))
