"""Who is to be looked at in the new pictures of all streams, on the CPU, in one call.

The rule is that of `tiler/track/reid.py`. Rows of arrays, as in `meetings_cpu.py`.
"""

from __future__ import annotations

import numpy as np

from tiler.kernels.assign_cpu import Float64, Int64, compiled, inner
from tiler.kernels.meetings_cpu import MET
from tiler.types import Bool, Float32, Int32

# Columns of `looked`: pts of a track's last crop, and how many there were.
LOOKED, LAST, CROPS, LOOKED_COLUMNS = range(4)

# Columns of `duty`, a row for each stream: rows of `looked` that there are; pictures in which the detector ran, and in
# how many of them a crop was taken; tracks in all those pictures, and how many of them were looked at.
TRACKS_LOOKED, PICTURES, WITH_CROPS, TRACKS, TAKEN, DUTY_COLUMNS = range(6)

# `rules` of `choose`: most that may be hidden; part of the width at the picture's ends; ticks between two crops of who
# begins, and of who is wanted; crops of who begins; part of a pause after which one goes along; pause in each phase.
CLEAR, EDGE, NEW_PAUSE, WANTED_PAUSE, NEW_CROPS, ALONG, PAUSE = range(7)


@compiled
def choose(
    streams: Int64,
    pts: Int64,
    ends: Int64,
    ids: Int32,
    xyxy: Float32,
    widths: Float64,
    phase: Int64,
    hidden: Float64,
    deep: Bool,
    new: Int64,
    new_counts: Int64,
    wanted: Int64,
    wanted_ends: Int64,
    looked: Int64,
    duty: Int64,
    rules: Float64,
) -> tuple[int, Int64, Bool, Float32]:
    """Which tracks of some pictures are to be looked at.

    Args:
        streams, pts, ends, ids, xyxy: as in `TrackBatch`.
        widths: (m,) float64, of the pictures; 0 where nobody is to be looked at.
        phase, hidden, deep: of `meet`.
        new, new_counts: (all streams, capacity, any) int64, in the first column tracks of which it is not known who
            they are; and (all streams,) int64, how many there are.
        wanted, wanted_ends: tracks whose looks somebody else wants to know, of all pictures; where each one's end.
        looked: (all streams, capacity, LOOKED_COLUMNS) int64, those that have been looked at; capacity is for those
            there are and all tracks.
        duty: (all streams, DUTY_COLUMNS) int64.
        rules: (10,) float64, see above.

    Returns:
        Of how many tracks of a stream it is known at most when they were looked at; how many of each picture are to be
        looked at, which tracks these are, and their boxes.
    """
    crops, chosen = np.empty(streams.shape[0], np.int64), np.zeros(ids.shape[0], np.bool_)
    begin = wanted_begin = total = most = 0
    for k in range(streams.shape[0]):
        s, end = streams[k], ends[k]
        crops[k] = 0
        if widths[k] > 0:
            crops[k] = _choose(
                looked[s], duty[s], pts[k], ids[begin:end], xyxy[begin:end], widths[k], phase[begin:end],
                hidden[begin:end], deep[begin:end], new[s, : new_counts[s], 0], wanted[wanted_begin : wanted_ends[k]],
                rules, chosen[begin:end],
            )  # fmt: skip
            total += crops[k]
        begin, wanted_begin, most = end, wanted_ends[k], max(most, duty[s, TRACKS_LOOKED])
    boxes, at = np.empty((total, 4), np.float32), 0
    for i in range(ids.shape[0]):
        if chosen[i]:
            for k in range(4):
                boxes[at, k] = xyxy[i, k]
            at += 1
    return most, crops, chosen, boxes


@inner
def _choose(
    looked: Int64,
    duty: Int64,
    pts: int,
    ids: Int32,
    xyxy: Float32,
    width: float,
    phase: Int64,
    hidden: Float64,
    deep: Bool,
    new: Int64,
    wanted: Int64,
    rules: Float64,
    chosen: Bool,
) -> int:
    """How many tracks of one picture are to be looked at; which, is written to `chosen`."""
    n, count = ids.shape[0], duty[TRACKS_LOOKED]
    due, before = np.empty(n), np.empty(n, np.int64)
    least = np.inf
    for i in range(n):
        due[i], before[i] = np.inf, -1
        for k in range(count):
            if looked[k, LOOKED] == ids[i]:
                before[i] = k
        if before[i] >= 0:
            pause = rules[PAUSE + phase[i]]
            if phase[i] == MET:
                pause = pause if deep[i] else np.inf
            elif looked[before[i], CROPS] < rules[NEW_CROPS] or _among(new, ids[i]):
                pause = min(pause, rules[NEW_PAUSE])
            if _among(wanted, ids[i]):
                pause = min(pause, rules[WANTED_PAUSE])
            due[i] = (pts - looked[before[i], LAST]) / pause
        seen = hidden[i] <= rules[CLEAR] and xyxy[i, 0] > rules[EDGE] * width
        if not (seen and xyxy[i, 2] < (1 - rules[EDGE]) * width):
            due[i] = -1.0
        elif due[i] >= 1:
            least = rules[ALONG]
    crops, at = 0, count
    for i in range(n):
        chosen[i] = due[i] >= least
        crops += chosen[i]
        if chosen[i] or before[i] >= 0:
            looked[at, LOOKED] = ids[i]
            looked[at, LAST] = pts if chosen[i] else looked[before[i], LAST]
            looked[at, CROPS] = (looked[before[i], CROPS] if before[i] >= 0 else 0) + chosen[i]
            at += 1
    for k in range(count, at):
        for column in range(LOOKED_COLUMNS):
            looked[k - count, column] = looked[k, column]
    duty[TRACKS_LOOKED] = at - count
    duty[PICTURES] += 1
    duty[WITH_CROPS] += crops > 0
    duty[TRACKS] += n
    duty[TAKEN] += crops
    return crops


@inner
def _among(tracks: Int64, track: int) -> bool:
    found = False
    for k in range(tracks.shape[0]):
        found |= tracks[k] == track
    return found
