"""Tracking on the CPU: all that the new pictures of all streams ask of their trackers, in one call.

A stream has few boxes, so with NumPy, or a call for each stream, the calls would be most of the cost. This matters as
many streams share one interpreter.

Note [Order]: rows of tracks are in the order in which the tracks began, and so are the ids. Detections
are sorted before anything is done with them, so their own order does not matter.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from numba import njit

from tiler.kernels.assign_cpu import best_pairs, box_iou, compiled, inner
from tiler.kernels.kalman_cpu import FILTER_COLUMNS, V, begin, corners, correct, predict
from tiler.types import CLOCK_HZ, Float32, Int32

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Shown = tuple[int, Int64, int, Int32, Float32, Float32, Int32, Int32]

# Columns of `states`: the filter's, the score of the last detection, and its box x0, y0, x1, y1.
SCORE, BOX, STATE_COLUMNS = FILTER_COLUMNS, FILTER_COLUMNS + 1, FILTER_COLUMNS + 5

# Columns of `tracks`. ID: 0 while tentative. SEEN: pts of the last detection. HITS: detections in a
# row since the track began. LOST: 1 when the last run of the detector did not see it.
ID, CLASS, SEEN, HITS, LOST, TRACK_COLUMNS = range(6)

# Columns of `clocks`, a row for each stream: tracks there are; the highest id given so far; pts of the last picture,
# NEVER before the first; 1 once the detector has run.
COUNT, LAST_ID, PTS, DETECTED, CLOCK_COLUMNS = range(5)
NEVER = -(1 << 62)

# `limits`: scores that a detection needs, to count at all, to be high, and to begin a track; and the
# similarity that a pair must exceed in each step.
LOW_SCORE, HIGH_SCORE, NEW_SCORE, GATE = range(4)

# The steps of `tiler/track/bytetrack.py`, in their order.
_HIGH, _LOW, _TENTATIVE, _FIND, STEPS = range(5)

_BUFFER = 0.5
_SAME_HEIGHT = 0.85
"""To find a lost track again boxes grow by this much of their size on each side, and the lower of the two heights is at
least so much of the other."""

_EXTENT = 1e6
"""Coordinates are clamped to this many pixels: sums and squares of them stay exact enough."""

_SCORE, _CLASS, _BOX, _KEY_COLUMNS = 0, 1, 2, 6
"""A detection as it is sorted: minus its score, class, x0, y0, x1, y1."""


@compiled
def _sort(xyxy: Float32, score: Float32, class_id: Int32, low_score: float, keys: Float64) -> int:
    """Usable detections in an order of their own: best score first, then by class and place.

    Args:
        keys: (n + 1, _KEY_COLUMNS) float64, takes them.

    Returns:
        Their number: boxes without area or with a value that is not a number are left out.
    """
    count = 0
    for n in range(score.shape[0]):
        at = count
        keys[at, _SCORE] = -score[n] if score[n] < 1 else -1.0
        keys[at, _CLASS] = class_id[n]
        for k in range(4):
            value = float(xyxy[n, k])
            if value > _EXTENT:
                value = _EXTENT
            if value < -_EXTENT:
                value = -_EXTENT
            keys[at, _BOX + k] = value
        if not (score[n] >= low_score and keys[at, 4] > keys[at, 2] and keys[at, 5] > keys[at, 3]):
            continue
        count += 1
        while at > 0:  # insertion: detectors give the best first already
            k = 0
            while k < _KEY_COLUMNS - 1 and keys[at, k] == keys[at - 1, k]:
                k += 1
            if keys[at, k] >= keys[at - 1, k]:
                break
            for k in range(_KEY_COLUMNS):
                key = keys[at, k]
                keys[at, k] = keys[at - 1, k]
                keys[at - 1, k] = key
            at -= 1
    return count


@compiled
def _overlap(a: Float64, i: int, b: Float64, j: int, buffer: float) -> float:
    """IoU of the corner boxes `a[i]` and `b[j]`, each grown by `buffer` of its size on each side."""
    wide_a, high_a = buffer * (a[i, 2] - a[i, 0]), buffer * (a[i, 3] - a[i, 1])
    wide_b, high_b = buffer * (b[j, 2] - b[j, 0]), buffer * (b[j, 3] - b[j, 1])
    w = min(a[i, 2] + wide_a, b[j, 2] + wide_b) - max(a[i, 0] - wide_a, b[j, 0] - wide_b)
    h = min(a[i, 3] + high_a, b[j, 3] + high_b) - max(a[i, 1] - high_a, b[j, 1] - high_b)
    if not (w > 0 and h > 0):
        return 0.0
    grown = (1 + 2 * buffer) * (1 + 2 * buffer)
    both = (a[i, 2] - a[i, 0]) * (a[i, 3] - a[i, 1]) + (b[j, 2] - b[j, 0]) * (b[j, 3] - b[j, 1])
    overlap: float = w * h / (grown * both - w * h)
    return overlap


@compiled
def _upright(a: Float64, i: int, b: Float64, j: int) -> float:
    """IoU of the vertical extents of the corner boxes `a[i]` and `b[j]`, which overlap."""
    shared = min(a[i, 3], b[j, 3]) - max(a[i, 1], b[j, 1])
    overlap: float = shared / (max(a[i, 3], b[j, 3]) - min(a[i, 1], b[j, 1]))
    return overlap


@njit(inline="always")
def _associate(
    states: Float64,
    tracks: Int64,
    count: int,
    pts: int,
    keys: Float64,
    boxes: Float64,
    limits: Float64,
    partner: Int64,
) -> None:
    """The four steps of `tiler/track/bytetrack.py`.

    Args:
        pts: of the picture.
        keys, boxes: the sorted detections and their corners.
        partner: (count + detections,) takes the detection of each track, then the track of each
            detection; -1 for none.
    """
    found = boxes.shape[0]
    for k in range(count + found):
        partner[k] = -1
    now, last = corners(states, count), states[:, BOX : BOX + 4]
    iou = box_iou(now, boxes)
    rows, columns = np.empty(count, np.int64), np.empty(found, np.int64)
    for step in range(STEPS):
        n = 0
        for i in range(count):
            confirmed, lost = tracks[i, ID] > 0, tracks[i, LOST] == 1
            if partner[i] < 0 and confirmed == (step != _TENTATIVE) and not (lost and step == _LOW):
                rows[n] = i
                n += 1
        m = 0
        for j in range(found):
            if partner[count + j] < 0 and (-keys[j, _SCORE] >= limits[HIGH_SCORE]) == (step != _LOW):
                columns[m] = j
                m += 1
        if n == 0 or m == 0:
            continue
        gate = limits[GATE + step]
        gain = np.zeros((n, m))
        for a in range(n):
            i = rows[a]
            waits = tracks[i, LOST] == 1 and pts > tracks[i, SEEN]
            patience = 1 + (pts - tracks[i, SEEN]) / CLOCK_HZ if waits else 1.0
            for b in range(m):
                j = columns[b]
                similarity = iou[i, j]
                if step == _FIND:
                    high, higher = last[i, 3] - last[i, 1], boxes[j, 3] - boxes[j, 1]
                    if min(high, higher) < _SAME_HEIGHT * max(high, higher):
                        continue
                    similarity = max(_overlap(now, i, boxes, j, _BUFFER), _overlap(last, i, boxes, j, _BUFFER))
                if similarity <= gate or tracks[i, CLASS] != keys[j, _CLASS]:
                    continue
                if step != _LOW:
                    similarity *= -keys[j, _SCORE]
                if step in (_HIGH, _TENTATIVE):
                    similarity *= math.sqrt(math.sqrt(_upright(now, i, boxes, j)))
                if similarity > gate:
                    gain[a, b] = (similarity - gate) / patience
        pairs = best_pairs(gain)
        for a in range(n):
            if pairs[a] >= 0:
                i, j = rows[a], columns[pairs[a]]
                partner[i] = j
                partner[count + j] = i


@compiled
def _apart(keys: Float64, boxes: Float64, partner: Int64, count: int, j: int) -> float:
    """What Soft-NMS leaves of the score of detection `j`: less half the IoU with the one that a track took and that
    overlaps it most; `partner` as in `_associate`."""
    most = 0.0
    for other in range(boxes.shape[0]):
        if partner[count + other] >= 0 and keys[other, _CLASS] == keys[j, _CLASS]:
            most = max(most, _overlap(boxes, other, boxes, j, 0.0))
    left: float = -keys[j, _SCORE] * (1 - most / 2)
    return left


@compiled
def _see(states: Float64, tracks: Int64, row: int, keys: Float64, j: int, pts: int) -> None:
    """Note when, where and how surely detection `j` was seen."""
    states[row, SCORE] = -keys[j, _SCORE]
    for k in range(4):
        states[row, BOX + k] = keys[j, _BOX + k]
    tracks[row, SEEN] = pts
    tracks[row, LOST] = 0


@compiled
def _move(states: Float64, tracks: Int64, source: int, target: int) -> None:
    for k in range(STATE_COLUMNS):
        states[target, k] = states[source, k]
    for k in range(TRACK_COLUMNS):
        tracks[target, k] = tracks[source, k]


@compiled
def update(
    streams: Int64,
    pts: Int64,
    numbers: Int64,
    detection_ends: Int64,
    xyxy: Float32,
    score: Float32,
    class_id: Int32,
    states: Float64,
    tracks: Int64,
    clocks: Int64,
    limits: Float64,
    lost_ticks: int,
    confirm: int,
) -> Shown:
    """Take the tracks of some streams to their next pictures, each on its own.

    Args:
        streams: (m,) int64, one after the other; none twice.
        pts: (m,) int64, of their pictures.
        numbers: (m,) int64, which of the detections' pictures each is; -1 when the detector did not run.
        detection_ends, xyxy, score, class_id: as in `DetectionBatch`.
        states: (all streams, capacity, STATE_COLUMNS) float64; capacity is for the tracks and the detections of any.
        tracks: (all streams, capacity, TRACK_COLUMNS) int64.
        clocks: (all streams, CLOCK_COLUMNS) int64.
        limits: (GATE + STEPS,) float64.
        lost_ticks: a track not seen for longer than this ends.
        confirm: detections in a row with which a track gets an id.

    Returns:
        How many tracks a stream has at most; where those to show of each picture end, (m,) int64, and how many there
        are in one at most; and track_id, xyxy, score, class_id of them all, and slot, which is none.
    """
    room = score.shape[0]
    for k in range(streams.shape[0]):
        room += clocks[streams[k], COUNT]
    shown_id, shown_class = np.empty(room, np.int32), np.empty(room, np.int32)
    shown_box, shown_score = np.empty((room, 4), np.float32), np.empty(room, np.float32)
    ends = np.empty(streams.shape[0], np.int64)
    at = most = tracked = 0
    for k in range(streams.shape[0]):
        own_states, own_tracks, clock = states[streams[k]], tracks[streams[k]], clocks[streams[k]]
        before = pts[k] if clock[PTS] == NEVER else clock[PTS]
        clock[PTS] = max(pts[k], before)
        n, first, end = numbers[k], 0, 0
        if n >= 0:
            first, end = detection_ends[n - 1] if n > 0 else 0, detection_ends[n]
        _take(
            own_states, own_tracks, clock, pts[k], (clock[PTS] - before) / CLOCK_HZ, n >= 0,
            xyxy[first:end], score[first:end], class_id[first:end], limits, lost_ticks, confirm,
        )  # fmt: skip
        now, shown = corners(own_states, clock[COUNT]), at
        for row in range(clock[COUNT]):
            if own_tracks[row, ID] > 0 and own_tracks[row, LOST] == 0:
                shown_id[at] = own_tracks[row, ID]
                shown_class[at] = own_tracks[row, CLASS]
                shown_score[at] = own_states[row, SCORE]
                for j in range(4):
                    shown_box[at, j] = now[row, j]
                at += 1
        ends[k], most, tracked = at, max(most, at - shown), max(tracked, clock[COUNT])
    slot = np.full(at, -1, np.int32)
    return tracked, ends, most, shown_id[:at], shown_box[:at], shown_score[:at], shown_class[:at], slot


@inner
def _take(
    states: Float64,
    tracks: Int64,
    clock: Int64,
    pts: int,
    seconds: float,
    detected: bool,
    xyxy: Float32,
    score: Float32,
    class_id: Int32,
    limits: Float64,
    lost_ticks: int,
    confirm: int,
) -> None:
    """Take the tracks of one stream to its next picture, `seconds`, 0 or more, later."""
    count, gone = clock[COUNT], 0
    for row in range(count):
        if pts - tracks[row, SEEN] > lost_ticks:
            gone += 1
        elif gone > 0:
            _move(states, tracks, row, row - gone)
    count -= gone
    if seconds > 0:
        predict(states, count, seconds)
    if detected:
        keys = np.empty((score.shape[0] + 1, _KEY_COLUMNS))
        found = _sort(xyxy, score, class_id, limits[LOW_SCORE], keys)
        boxes, measured = np.empty((found, 4)), np.empty((found, 4))
        for j in range(found):
            for k in range(4):
                boxes[j, k] = keys[j, _BOX + k]
            for k in range(2):
                size = boxes[j, 2 + k] - boxes[j, k]
                measured[j, k] = boxes[j, k] + size / 2
                measured[j, 2 + k] = size
        partner = np.empty(count + found, np.int64)
        _associate(states, tracks, count, pts, keys, boxes, limits, partner)
        gone = 0
        for row in range(count):
            j = partner[row]
            if j < 0 and tracks[row, ID] == 0:
                gone += 1
                continue
            at = row - gone
            _move(states, tracks, row, at)
            if j >= 0:
                correct(states, at, measured, j)
                _see(states, tracks, at, keys, j, pts)
                tracks[at, HITS] += 1
            else:
                states[at, V + 2] = 0.0  # it stops growing and shrinking
                states[at, V + 3] = 0.0
                tracks[at, LOST] = 1
        first = count
        count -= gone
        for j in range(found):
            if partner[first + j] >= 0 or -keys[j, _SCORE] < max(limits[HIGH_SCORE], limits[NEW_SCORE]):
                continue
            if _apart(keys, boxes, partner, first, j) >= limits[NEW_SCORE]:
                begin(states, count, measured, j)
                _see(states, tracks, count, keys, j, pts)
                tracks[count, ID] = 0
                tracks[count, CLASS] = np.int64(keys[j, _CLASS])
                tracks[count, HITS] = 1 if clock[DETECTED] else confirm  # those of the first picture are sure
                count += 1
        for row in range(count):
            if tracks[row, ID] == 0 and tracks[row, HITS] >= confirm:
                clock[LAST_ID] += 1
                tracks[row, ID] = clock[LAST_ID]
        clock[DETECTED] = 1
    clock[COUNT] = count
