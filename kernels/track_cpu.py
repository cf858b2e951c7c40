"""Tracking on the CPU: all that one picture asks of a tracker, and of its trails, in one call each.

A stream has few boxes, so what NumPy spends on a call would be most of the cost; here a picture
costs microseconds, which is what counts when many streams share one interpreter.

Note [Filter]: a box is (cx, cy, w, h), and each of the four has a position x, a velocity v, their
variances xx and vv and their covariance xv: the 8 x 8 filter of SORT falls apart into these (see
`tiler/track/kalman.py`). A row of `states` holds them by kind: x of the four, v of the four, and so on.

Note [Order]: rows of tracks are in the order in which the tracks began, and ids are given in that
order, so the ids of confirmed tracks ascend. Detections are sorted before anything is done with
them, so their own order does not matter.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from tiler.types import CLOCK_HZ, Float32, Int32

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]
Shown = tuple[int, int, Int32, Float32, Float32, Int32]

# Columns of `states`: Note [Filter], and the score of the last detection.
X, V, XX, XV, VV, SCORE, STATE_COLUMNS = 0, 4, 8, 12, 16, 20, 21

# Columns of `tracks`. ID: 0 while tentative. SEEN: pts of the last detection. HITS: detections in a
# row since the track began. LOST: 1 when the last run of the detector did not see it.
ID, CLASS, SEEN, HITS, LOST, TRACK_COLUMNS = range(6)

# `limits`: scores that a detection needs, to count at all, to be high, and to begin a track; and the
# similarity that a pair must exceed in each of the three steps.
LOW_SCORE, HIGH_SCORE, NEW_SCORE, GATE, LIMITS = 0, 1, 2, 3, 6

_FRAME_S = 1 / 30
_POSITION_STD = 1 / 20
_VELOCITY_STD = 1 / 160 / _FRAME_S
_POSITION_NOISE = _POSITION_STD**2 / _FRAME_S
_ACCELERATION_NOISE = _VELOCITY_STD**2 / _FRAME_S

_EXTENT = 1e6
"""Coordinates are clamped to this many pixels: sums and squares of them stay exact enough."""

_KEY_SCORE, _KEY_CLASS, _KEY_BOX, _KEY_COLUMNS = 0, 1, 2, 6
"""A sorted detection: minus its score, class, x0, y0, x1, y1."""


@njit(nogil=True, cache=True)
def begin(states: Float64, row: int, cx: float, cy: float, w: float, h: float) -> None:
    """A box at rest, as far as anyone knows."""
    height = max(h, 1.0)
    state = states[row]
    state[X], state[X + 1], state[X + 2], state[X + 3] = cx, cy, w, h
    for k in range(4):
        state[V + k] = 0.0
        state[XX + k] = (2 * _POSITION_STD * height) ** 2
        state[XV + k] = 0.0
        state[VV + k] = (10 * _VELOCITY_STD * height) ** 2


@njit(nogil=True, cache=True)
def predict(states: Float64, count: int, seconds: float) -> None:
    """Move the first `count` boxes on by `seconds`, 0 or more."""
    for row in range(count):
        state = states[row]
        height2 = max(state[X + 3], 1.0) ** 2
        q = _ACCELERATION_NOISE * height2
        for k in range(4):
            xv, vv = state[XV + k], state[VV + k]
            state[X + k] += state[V + k] * seconds
            state[XX + k] += (
                2 * seconds * xv + seconds**2 * vv + _POSITION_NOISE * height2 * seconds + q * (seconds**3 / 3)
            )
            state[XV + k] += seconds * vv + q * (seconds**2 / 2)
            state[VV + k] += q * seconds


@njit(nogil=True, cache=True)
def correct(states: Float64, row: int, cx: float, cy: float, w: float, h: float) -> None:
    """Take in a measured box."""
    state = states[row]
    noise = (_POSITION_STD * max(state[X + 3], 1.0)) ** 2
    for k, measured in enumerate((cx, cy, w, h)):
        xx, xv = state[XX + k], state[XV + k]
        gain_x, gain_v = xx / (xx + noise), xv / (xx + noise)
        innovation = measured - state[X + k]
        state[X + k] += gain_x * innovation
        state[V + k] += gain_v * innovation
        state[XX + k] -= gain_x * xx
        state[XV + k] -= gain_x * xv
        state[VV + k] -= gain_v * xv


@njit(nogil=True, cache=True)
def corners(states: Float64, row: int) -> tuple[float, float, float, float]:
    """A box now: x0, y0, x1, y1, at least one pixel wide and high."""
    cx, cy = states[row, X], states[row, X + 1]
    half_w, half_h = max(states[row, X + 2], 1.0) / 2, max(states[row, X + 3], 1.0) / 2
    return cx - half_w, cy - half_h, cx + half_w, cy + half_h


@njit(nogil=True, cache=True)
def box_iou(a: Float64, b: Float64) -> Float64:
    """Intersection over union of corner boxes of a positive area, a (n, 4) and b (m, 4): (n, m)."""
    iou = np.empty((a.shape[0], b.shape[0]))
    for i in range(a.shape[0]):
        x0, y0, x1, y1 = a[i, 0], a[i, 1], a[i, 2], a[i, 3]
        area = (x1 - x0) * (y1 - y0)
        for j in range(b.shape[0]):
            w = max(min(x1, b[j, 2]) - max(x0, b[j, 0]), 0.0)
            h = max(min(y1, b[j, 3]) - max(y0, b[j, 1]), 0.0)
            iou[i, j] = w * h / (area + (b[j, 2] - b[j, 0]) * (b[j, 3] - b[j, 1]) - w * h)
    return iou


@njit(nogil=True, cache=True)
def best_pairs(gain: Float64) -> Int64:
    """The pairing of rows and columns with the largest sum of gains.

    Shortest augmenting paths, after Crouse, "On implementing 2D rectangular assignment algorithms",
    IEEE TAES 52(4), 2016. Ties fall as in SciPy's `linear_sum_assignment`: the search looks at the
    columns from the last to the first, and of equally near ones prefers one that is free.

    Args:
        gain: (n, m) float64, 0 or more.

    Returns:
        (n,) int64: the column of each row; -1 where the pair would gain nothing.
    """
    n, m = gain.shape
    turned = n > m  # the short side is assigned, row by row
    rows, columns = min(n, m), max(n, m)
    pairs, cost = np.empty(n, np.int64), np.empty((rows, columns))
    hopeless = True
    for i in range(n):
        pairs[i] = -1
        for j in range(m):
            hopeless = hopeless and gain[i, j] <= 0
            cost[j if turned else i, i if turned else j] = -gain[i, j]
    if hopeless:
        return pairs
    u, v, distance = np.zeros(rows), np.zeros(columns), np.empty(columns)
    row_of, column_of = np.empty(columns, np.int64), np.empty(rows, np.int64)
    row_of[:] = -1
    column_of[:] = -1
    back, ahead = np.empty(columns, np.int64), np.empty(columns, np.int64)
    for start in range(rows):
        for k in range(columns):
            ahead[k] = columns - 1 - k
            distance[k] = np.inf
        left, row, far, sink = columns, start, 0.0, -1
        while sink < 0:
            nearest, at = np.inf, -1
            for k in range(left):
                column = ahead[k]
                along = far + cost[row, column] - u[row] - v[column]
                if along < distance[column]:
                    distance[column] = along
                    back[column] = row
                if distance[column] < nearest or (distance[column] == nearest and row_of[column] < 0):
                    nearest, at = distance[column], k
            far, column = nearest, ahead[at]
            left -= 1
            ahead[at], ahead[left] = ahead[left], column  # from `left` on: those reached
            row = row_of[column]
            if row < 0:
                sink = column
        u[start] += far
        for k in range(left, columns):
            column = ahead[k]
            if column != sink:
                u[row_of[column]] += far - distance[column]
            v[column] -= far - distance[column]
        column = sink
        row = -1
        while row != start:
            row = back[column]
            row_of[column] = row
            column_of[row], column = column, column_of[row]
    for row in range(rows):
        i, j = (column_of[row], row) if turned else (row, column_of[row])
        if gain[i, j] > 0:
            pairs[i] = j
    return pairs


@njit(nogil=True, cache=True)
def _sorted_keys(xyxy: Float32, score: Float32, class_id: Int32, low_score: float, keys: Float64) -> int:
    """Usable detections in an order of their own: best score first, then by class and place.

    Args:
        keys: (n, _KEY_COLUMNS) float64, takes them.

    Returns:
        Their number: boxes without area or with a value that is not a number are left out.
    """
    count = 0
    key = np.empty(_KEY_COLUMNS)
    for n in range(score.shape[0]):
        key[_KEY_SCORE] = -min(np.float64(score[n]), 1.0)
        key[_KEY_CLASS] = class_id[n]
        for k in range(4):
            value = np.float64(xyxy[n, k])
            key[_KEY_BOX + k] = -_EXTENT if value < -_EXTENT else _EXTENT if value > _EXTENT else value
        if not (score[n] >= low_score and key[4] > key[2] and key[5] > key[3]):
            continue
        at = count  # insertion: detectors give the best first already
        while at > 0:
            k = 0
            while k < _KEY_COLUMNS - 1 and key[k] == keys[at - 1, k]:
                k += 1
            if not key[k] < keys[at - 1, k]:
                break
            for k in range(_KEY_COLUMNS):
                keys[at, k] = keys[at - 1, k]
            at -= 1
        for k in range(_KEY_COLUMNS):
            keys[at, k] = key[k]
        count += 1
    return count


@njit(nogil=True, cache=True)
def _associate(
    states: Float64, tracks: Int64, count: int, keys: Float64, found: int, limits: Float64, partner: Int64, free: Bool
) -> None:
    """The three steps of `tiler/track/bytetrack.py`.

    Args:
        partner: (count,) takes the detection of each track, -1 for none.
        free: (found,) takes which detections nobody took.
    """
    boxes = np.empty((count, 4))
    for i in range(count):
        partner[i] = -1
        boxes[i, 0], boxes[i, 1], boxes[i, 2], boxes[i, 3] = corners(states, i)
    for j in range(found):
        free[j] = True
    iou = box_iou(boxes, keys[:found, _KEY_BOX:])
    rows, columns = np.empty(count, np.int64), np.empty(found, np.int64)
    for step in range(3):
        n = m = 0
        for i in range(count):
            confirmed, lost = tracks[i, ID] > 0, tracks[i, LOST] > 0
            if partner[i] < 0 and confirmed == (step < 2) and not (step == 1 and lost):
                rows[n] = i
                n += 1
        for j in range(found):
            high = -keys[j, _KEY_SCORE] >= limits[HIGH_SCORE]
            if free[j] and high == (step != 1):
                columns[m] = j
                m += 1
        if n == 0 or m == 0:
            continue
        gain = np.empty((n, m))
        for a in range(n):
            i = rows[a]
            for b in range(m):
                j = columns[b]
                similarity = iou[i, j] if step == 1 else iou[i, j] * -keys[j, _KEY_SCORE]
                same = tracks[i, CLASS] == keys[j, _KEY_CLASS]
                gain[a, b] = max(similarity - limits[GATE + step], 0.0) if same else 0.0
        pairs = best_pairs(gain)
        for a in range(n):
            if pairs[a] >= 0:
                j = columns[pairs[a]]
                partner[rows[a]] = j
                free[j] = False


@njit(nogil=True, cache=True)
def _move(states: Float64, tracks: Int64, source: int, target: int) -> None:
    if source != target:
        for k in range(STATE_COLUMNS):
            states[target, k] = states[source, k]
        for k in range(TRACK_COLUMNS):
            tracks[target, k] = tracks[source, k]


@njit(nogil=True, cache=True)
def update(
    states: Float64,
    tracks: Int64,
    count: int,
    last_id: int,
    pts: int,
    seconds: float,
    lost_ticks: int,
    detected: bool,
    xyxy: Float32,
    score: Float32,
    class_id: Int32,
    limits: Float64,
    first_hits: int,
    confirm: int,
) -> Shown:
    """Take the tracks of a stream to the next picture.

    Args:
        states: (capacity, STATE_COLUMNS) float64; capacity is for the tracks and all detections.
        tracks: (capacity, TRACK_COLUMNS) int64.
        count: tracks there are.
        last_id: highest id given so far.
        pts: of the picture.
        seconds: to move on by, 0 or more.
        lost_ticks: a track not seen for longer than this ends.
        detected: False when the detector did not run; then there are no detections.
        xyxy, score, class_id: as in `Detections`.
        limits: (LIMITS,) float64.
        first_hits: detections in a row that a track begins with.
        confirm: detections in a row with which it gets an id.

    Returns:
        count and last_id as they are now, and track_id, xyxy, score, class_id of the tracks to show.
    """
    kept = 0
    for row in range(count):
        if pts - tracks[row, SEEN] <= lost_ticks:
            _move(states, tracks, row, kept)
            kept += 1
    count = kept
    if seconds > 0:
        predict(states, count, seconds)
    if detected:
        keys = np.empty((score.shape[0], _KEY_COLUMNS))
        found = _sorted_keys(xyxy, score, class_id, limits[LOW_SCORE], keys)
        partner, free = np.empty(count, np.int64), np.empty(found, np.bool_)
        _associate(states, tracks, count, keys, found, limits, partner, free)
        kept = 0
        for row in range(count):
            j = partner[row]
            if j < 0 and tracks[row, ID] == 0:
                continue
            _move(states, tracks, row, kept)
            if j >= 0:
                w, h = keys[j, 4] - keys[j, 2], keys[j, 5] - keys[j, 3]
                correct(states, kept, keys[j, 2] + w / 2, keys[j, 3] + h / 2, w, h)
                states[kept, SCORE] = -keys[j, _KEY_SCORE]
                tracks[kept, SEEN] = pts
                tracks[kept, HITS] += 1
                tracks[kept, LOST] = 0
            else:
                states[kept, V + 2] = states[kept, V + 3] = 0.0  # it stops growing or shrinking
                tracks[kept, LOST] = 1
            kept += 1
        count = kept
        for j in range(found):
            if free[j] and -keys[j, _KEY_SCORE] >= max(limits[HIGH_SCORE], limits[NEW_SCORE]):
                w, h = keys[j, 4] - keys[j, 2], keys[j, 5] - keys[j, 3]
                begin(states, count, keys[j, 2] + w / 2, keys[j, 3] + h / 2, w, h)
                states[count, SCORE] = -keys[j, _KEY_SCORE]
                tracks[count, ID] = tracks[count, LOST] = 0
                tracks[count, CLASS] = np.int64(keys[j, _KEY_CLASS])
                tracks[count, SEEN] = pts
                tracks[count, HITS] = first_hits
                count += 1
        for row in range(count):
            if tracks[row, ID] == 0 and tracks[row, HITS] >= confirm:
                last_id += 1
                tracks[row, ID] = last_id

    shown = 0
    for row in range(count):
        shown += tracks[row, ID] > 0 and tracks[row, LOST] == 0
    track_id, class_of = np.empty(shown, np.int32), np.empty(shown, np.int32)
    boxes, score_of = np.empty((shown, 4), np.float32), np.empty(shown, np.float32)
    at = 0
    for row in range(count):
        if tracks[row, ID] > 0 and tracks[row, LOST] == 0:
            track_id[at], class_of[at], score_of[at] = tracks[row, ID], tracks[row, CLASS], states[row, SCORE]
            boxes[at, 0], boxes[at, 1], boxes[at, 2], boxes[at, 3] = corners(states, row)
            at += 1
    return count, last_id, track_id, boxes, score_of, class_of


@njit(nogil=True, cache=True)
def add_points(
    ids: Int64, points: Float64, count: int, track_id: Int32, xyxy: Float32, pts: int, ticks: float, spacing: float
) -> int:
    """Take the foot points of a picture's tracks into their trails.

    Args:
        ids: (capacity,) int64, ascending; capacity is for the trails and all tracks.
        points: (capacity, n, 3) float64 x, y, pts, newest first; pts -inf: none.
        count: trails there are.
        track_id, xyxy, pts: as in `Tracks`.
        ticks: a trail whose newest point is older ends.
        spacing: ticks between two points that are kept, at least.

    Returns:
        count as it is now.
    """
    length = points.shape[1]
    kept = 0
    for row in range(count):
        if pts - points[row, 0, 2] <= ticks:
            if row != kept:
                ids[kept] = ids[row]
                points[kept] = points[row]
            kept += 1
    count = kept
    for n in range(track_id.shape[0]):
        row = count
        while row > 0 and ids[row - 1] >= track_id[n]:
            row -= 1
        if row == count or ids[row] != track_id[n]:
            for other in range(count, row, -1):
                ids[other] = ids[other - 1]
                points[other] = points[other - 1]
            ids[row] = track_id[n]
            points[row] = -np.inf
            count += 1
        trail = points[row]
        # The newest point moves with the track until it is far enough in time from the one before.
        if trail[0, 2] > -np.inf and not trail[0, 2] - spacing < trail[1, 2]:
            for k in range(length - 1, 0, -1):
                trail[k] = trail[k - 1]
        trail[0, 0] = (xyxy[n, 0] + xyxy[n, 2]) / 2
        trail[0, 1] = xyxy[n, 3]
        trail[0, 2] = pts
    return count


@njit(nogil=True, cache=True)
def trail_rows(ids: Int64, points: Float64, count: int, pts: int, ticks: float) -> Float32:
    """(m, 4) float32 id, x, y, age in seconds of the points no older than `ticks` at `pts`."""
    m = 0
    for row in range(count):
        for k in range(points.shape[1]):
            m += max(pts - points[row, k, 2], 0.0) <= ticks
    rows = np.empty((m, 4), np.float32)
    m = 0
    for row in range(count):
        for k in range(points.shape[1]):
            age = max(pts - points[row, k, 2], 0.0)
            if age <= ticks:
                rows[m, 0], rows[m, 1] = ids[row], points[row, k, 0]
                rows[m, 2], rows[m, 3] = points[row, k, 1], age / CLOCK_HZ
                m += 1
    return rows
