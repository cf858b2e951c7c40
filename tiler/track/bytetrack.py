"""ByteTrack: every detection box counts, the doubtful ones too.

Zhang et al., "ByteTrack: Multi-Object Tracking by Associating Every Detection Box",
ECCV 2022. Each picture with detections is worked off in this order:

1. Confirmed tracks, lost ones too, take detections of a high score; the similarity is
   IoU with the predicted box times score, times the fourth root of how much their
   heights in the picture overlap (a).
2. Confirmed tracks seen at the last detection that got nothing take detections of a low
   score by IoU: a person half hidden scores low but has not gone.
3. Tentative tracks take the high detections that are left by the similarity of 1, or end.
4. Confirmed tracks that got nothing are looked for further away among the high detections
   that are left (b).
5. High detections nobody took begin tentative tracks, unless a track explains them (c).
   They get an id, and are shown, once seen `confirm` times in a row; those of the first
   picture are shown at once.

A confirmed track that gets nothing is lost: predicted on, not shown, found again in steps
1 and 4 until it has not been seen for `lost_s`. A claim is what a similarity exceeds its
gate by; that of a lost track counts half after a second (d). Detections of different
classes never meet.

Unlike the published code, time is counted in seconds of the picture's pts, so that
dropped frames, variable frame rates and detection on every k-th picture change nothing;
sizes are tracked as (w, h); tracks are rows of arrays; and ids are dense. What is added:

(a) Vertical overlap: who stands further back stands higher in the picture, and people of
    different height differ at the top. After the height-modulated IoU of Hybrid-SORT
    (Yang et al., AAAI 2024); the root leaves it a weak cue, as boxes of detectors that see
    only half a person need it.
(b) Recovery: the prediction of who is hidden goes astray, and who stopped is where they
    were. The IoU is that with the predicted box or with the last one seen, the higher
    (observation-centric recovery of OC-SORT, Cao et al., CVPR 2023), of boxes that were
    grown by half their size on each side (buffered IoU of C-BIoU, Yang et al., WACV 2023).
    As that reaches far, the detection must be as tall as the track was, to 15 %.
(c) Doubles: a second box on somebody who is tracked begins a second track, and the id
    goes to and fro between the two. Half the IoU with what a track took is taken off its
    score (Soft-NMS, Bodla et al., ICCV 2017) before `new_score` is asked for.
(d) Who was just seen comes first, as in the cascade of DeepSORT (Wojke et al., 2017), but
    by degrees: where two meet and one is hidden, the one in view keeps the detection.

docs/bench/tracking.md has what each is worth, and what was tried in vain.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tiler.config.models import TrackerConfig
from tiler.crowd import NOTHING, DetectionBatch, Seen, TrackBatch
from tiler.kernels.track_cpu import CLOCK_COLUMNS, NEVER, PTS, STATE_COLUMNS, TRACK_COLUMNS, update
from tiler.track.base import Tracker, grown
from tiler.types import CLOCK_HZ, Detections, Tracks

_LOW_IOU = 0.5
_TENTATIVE_SIMILARITY = 0.3
_FIND_SIMILARITY = 0.3
"""Gates of steps 2 and 3, as published, and 4; `match_iou` is that of step 1, and the least of all."""


class ByteTracker(Tracker):
    """The identities of some streams.

    Deterministic, and independent of the order of the detections and of what other streams show. Not thread-safe.

    Args:
        config: gates and times.
        score: lowest score of a high detection (`detector.score`).
        streams: how many there may be at once.
    """

    def __init__(self, config: TrackerConfig, score: float, streams: int = 1) -> None:
        gate = config.match_iou
        gates = (gate, max(gate, _LOW_IOU), max(gate, _TENTATIVE_SIMILARITY), max(gate, _FIND_SIMILARITY))
        self._limits = np.array((min(config.low_score, score), score, config.new_score, *gates), np.float64)
        self._lost_ticks = round(config.lost_s * CLOCK_HZ)
        self._confirm = config.confirm
        self._states = np.empty((streams, 0, STATE_COLUMNS))
        self._tracks = np.empty((streams, 0, TRACK_COLUMNS), np.int64)
        self._clocks = np.zeros((streams, CLOCK_COLUMNS), np.int64)
        self._clocks[:, PTS] = NEVER
        self._most = 0   # tracks that a stream ever had
        self.update(None, 0)  # the first picture must not wait for a compiler
        self.begin(0)

    def begin(self, stream: int) -> None:
        """See `Tracker.begin`."""
        self._clocks[stream] = 0
        self._clocks[stream, PTS] = NEVER

    def update_all(self, streams: Sequence[int], pts: Sequence[int], seen: Seen) -> TrackBatch:
        """See `Tracker.update_all`.

        Where the detector did not run, what was seen when it last ran is predicted. Boxes without area or with a value
        that is not a number are ignored.
        """
        if not streams:
            return TrackBatch.empty()
        number = {stream: k for k, stream in enumerate(seen.streams)}
        places, times = np.array(streams, np.int64), np.array(pts, np.int64)
        numbers = np.array([number.get(stream, -1) for stream in streams], np.int64)
        self._make_room(self._most + len(seen.detections.score))
        tracked, *columns = update(
            places,
            times,
            numbers,
            *seen.detections,
            self._states,
            self._tracks,
            self._clocks,
            self._limits,
            self._lost_ticks,
            self._confirm,
        )
        self._most = max(self._most, tracked)
        return TrackBatch(places, times, *columns)

    def update(self, detections: Detections | None, pts: int) -> Tracks:
        """The tracks of the first stream, which has another picture."""
        seen = NOTHING if detections is None else Seen((0,), DetectionBatch.of((detections,)))
        (tracks,) = self.update_all((0,), (pts,), seen).pictures()
        return tracks

    def _make_room(self, room: int) -> None:
        """For so many tracks of a stream."""
        if room > self._tracks.shape[1]:
            self._states, self._tracks = grown(self._states, 2 * room), grown(self._tracks, 2 * room)
