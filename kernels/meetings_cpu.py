"""Who meets whom in the new pictures of all streams, on the CPU, in one call.

The state machine is that of `tiler/track/meetings.py`. A stream has few people, and many streams share one interpreter:
rows of arrays, as in `track_cpu.py`.
"""

from __future__ import annotations

import numpy as np

from tiler.kernels.assign_cpu import Float64, Int64, compiled, inner
from tiler.kernels.cover_cpu import covers
from tiler.types import Bool, Float32, Int32

# Columns of `members`. MEETING: 0 for a track whose meeting was settled since the last picture. SEEN: the last picture
# showed it. SINCE: pts since when it shares no part with another of its meeting, -1 while it does. PTS: when it was
# seen last, where `places` has it.
TRACK, MEETING, SEEN, SINCE, CLASS, PTS, MEMBER_COLUMNS = range(7)

# Columns of `counts`, a row for each stream: how many are in `members` and in `said`; the highest number given so far.
MEMBERS, SAID, LAST_NUMBER, COUNTS = range(4)

# Columns of `meetings`: see `Meeting`. They are numbered from 1, in the order in which they began.
NUMBER, IS_DEEP, HIDDEN, MEETING_COLUMNS = range(4)

# Columns of `said`: a meeting's number, a track of it, and an identity; `says` is what crops have said for the two to
# belong together since the track was hidden or hid another: what was seen before says nothing of who is who after.
SAID_IN, SAID_OF, SAID_FOR, SAID_COLUMNS = range(4)

ALONE, NEAR, MET, PARTED = range(4)
"""Phases."""

# `limits` of `meet`: the parts of boxes that begin a meeting, end it, and make it deep; how many widths away somebody
# is near; ticks for which a ghost stays, and for which somebody who has parted does.
TOUCH, APART_BELOW, DEEP_ABOVE, REACH, GHOST, PATIENCE = range(6)

Met = tuple[int, int, Int64, Float64, Bool]


@inner
def find_row(rows: Int64, count: int, column: int, value: int) -> int:
    """The first of so many rows that has this value in a column; -1: none has."""
    for k in range(count):
        if rows[k, column] == value:
            return k
    return -1


@inner
def _put(boxes: Float32, at: int, others: Float32, of: int) -> None:
    for k in range(4):
        boxes[at, k] = others[of, k]


@inner
def _meeting_of(meetings: Int64, number: int) -> int:
    at: int = find_row(meetings, meetings.shape[0], NUMBER, number)
    return at


@compiled
def meet(
    streams: Int64,
    pts: Int64,
    ends: Int64,
    ids: Int32,
    xyxy: Float32,
    class_id: Int32,
    members: Int64,
    places: Float32,
    meetings: Int64,
    counts: Int64,
    said: Int64,
    says: Float64,
    limits: Float64,
) -> Met:
    """Take the tracks of the next pictures of some streams.

    Args:
        streams, pts, ends, ids, xyxy, class_id: as in `TrackBatch`.
        members: (all streams, capacity, MEMBER_COLUMNS) int64; capacity is for those there are and all tracks.
        places: (all streams, capacity, 4) float32, where each was seen last.
        meetings: (all streams, capacity, MEETING_COLUMNS) int64, those that there are have a NUMBER; as much capacity.
        counts: (all streams, COUNTS) int64.
        said, says: (all streams, capacity, SAID_COLUMNS) int64 and (all streams, capacity) float64; what was said in a
            meeting lasts as long as it does, or that which it joins.
        limits: (6,) float64, see above.

    Returns:
        How many members a stream has at most, and how much is said in one; and of each track its phase, the most of its
        box that somebody nearer covers, and whether its meeting is deep.
    """
    n, met, much = ids.shape[0], 0, 0
    phase, most, deep = np.empty(n, np.int64), np.empty(n), np.empty(n, np.bool_)
    begin = 0
    for k in range(streams.shape[0]):
        s, end = streams[k], ends[k]
        _meet(
            members[s], places[s], meetings[s], counts[s], said[s], says[s], pts[k], ids[begin:end], xyxy[begin:end],
            class_id[begin:end], limits, phase[begin:end], most[begin:end], deep[begin:end],
        )  # fmt: skip
        begin, met, much = end, max(met, counts[s, MEMBERS]), max(much, counts[s, SAID])
    return met, much, phase, most, deep


@inner
def _meet(
    members: Int64,
    places: Float32,
    meetings: Int64,
    counts: Int64,
    said: Int64,
    says: Float64,
    pts: int,
    ids: Int32,
    xyxy: Float32,
    class_id: Int32,
    limits: Float64,
    phase: Int64,
    most: Float64,
    deep: Bool,
) -> None:
    """Take the tracks of the next picture of a stream; `phase`, `most` and `deep` are written."""
    count, last_number, said_count = counts[MEMBERS], counts[LAST_NUMBER], counts[SAID]
    n = ids.shape[0]
    row_of = np.empty(members.shape[0], np.int64)  # of each member its track's row, of a ghost n or more, else -1
    there = n
    for k in range(count):
        row_of[k] = -1
        for i in range(n):
            if ids[i] == members[k, TRACK]:
                row_of[k] = i
        if row_of[k] < 0 and pts - members[k, PTS] <= limits[GHOST]:
            row_of[k] = there
            there += 1
    boxes, kinds = np.empty((there, 4), np.float32), np.empty(there, np.int32)
    for i in range(n):
        _put(boxes, i, xyxy, i)
        kinds[i] = class_id[i]
    for k in range(count):
        if row_of[k] >= n:
            _put(boxes, row_of[k], places, k)
            kinds[row_of[k]] = members[k, CLASS]
    shared, hidden, near = covers(boxes, kinds, limits[REACH])

    for i in range(n):
        for j in range(i):
            if shared[i, j] <= limits[TOUCH]:
                continue
            a, b = find_row(members, count, TRACK, ids[i]), find_row(members, count, TRACK, ids[j])
            first = members[a, MEETING] if a >= 0 else 0
            second = members[b, MEETING] if b >= 0 else 0
            if first == second and first > 0:
                continue
            last_number += 1
            new = _meeting_of(meetings, 0)
            meetings[new, NUMBER], meetings[new, IS_DEEP], meetings[new, HIDDEN] = last_number, 0, 0
            for which in range(2):
                number = max(first, second) if which else min(first, second)
                old = _meeting_of(meetings, number) if number > 0 else -1
                if old < 0:
                    continue
                meetings[new, IS_DEEP] |= meetings[old, IS_DEEP]
                meetings[new, HIDDEN] = max(meetings[new, HIDDEN], meetings[old, HIDDEN])
                meetings[old, NUMBER] = 0
                said_count = _carried_over(said, says, said_count, number, last_number)
                for k in range(count):
                    if members[k, MEETING] == number:
                        members[k, MEETING] = last_number
            for which in range(2):
                row = j if which else i
                k = find_row(members, count, TRACK, ids[row])
                if k < 0:
                    k = count
                    count += 1
                    members[k, TRACK], members[k, MEETING], row_of[k] = ids[row], 0, row
                if members[k, MEETING] == 0:
                    members[k, MEETING], members[k, SEEN], members[k, SINCE] = last_number, 0, -1

    for i in range(n):
        phase[i] = NEAR if near[i] else ALONE
        deep[i], most[i] = False, hidden[i]
        for ghost in range(n, there):  # what is unseen there may be in front or behind
            most[i] = max(most[i], shared[i, ghost])
    hid, hides = np.empty((count, 2), np.int64), 0
    for at in range(meetings.shape[0]):
        number = meetings[at, NUMBER]
        if number == 0:
            continue
        hides, goes_on = _goes_on(members, row_of, count, meetings, at, n, shared, pts, limits, hid, hides)
        if goes_on:
            continue
        for k in range(count):
            if members[k, MEETING] == number:
                members[k, MEETING] = 0
        meetings[at, NUMBER] = 0

    kept = 0
    for k in range(count):
        number, row = members[k, MEETING], row_of[k]
        if number == 0:
            continue
        if row < n:
            members[k, CLASS], members[k, PTS] = class_id[row], pts
            _put(places, k, xyxy, row)
            phase[row] = PARTED if members[k, SINCE] >= 0 else MET
            deep[row] = meetings[_meeting_of(meetings, number), IS_DEEP] > 0
        for column in range(MEMBER_COLUMNS):
            members[kept, column] = members[k, column]
        _put(places, kept, places, k)
        kept += 1
    counts[MEMBERS], counts[LAST_NUMBER] = kept, last_number
    counts[SAID] = _still_said(said, says, said_count, meetings, hid[:hides])


@inner
def _carried_over(said: Int64, says: Float64, said_count: int, old: int, new: int) -> int:
    """What was said in a meeting was said in the one that it became; how much there is in all."""
    kept = 0
    for k in range(said_count):
        replaced = False
        if said[k, SAID_IN] == new:  # of another that joined: who came from there to here is spoken of here
            for i in range(said_count):
                same = said[i, SAID_OF] == said[k, SAID_OF] and said[i, SAID_FOR] == said[k, SAID_FOR]
                replaced |= same and said[i, SAID_IN] == old
        if not replaced:
            _keep(said, says, k, kept)
            kept += 1
    for k in range(kept):
        if said[k, SAID_IN] == old:
            said[k, SAID_IN] = new
    return kept


@inner
def _still_said(said: Int64, says: Float64, said_count: int, meetings: Int64, hid: Int64) -> int:
    """Forget what was said in meetings that are over, and of tracks that `hid` names with their meetings."""
    kept = 0
    for k in range(said_count):
        over = _meeting_of(meetings, said[k, SAID_IN]) < 0
        for i in range(hid.shape[0]):
            over |= hid[i, 0] == said[k, SAID_IN] and hid[i, 1] == said[k, SAID_OF]
        if not over:
            _keep(said, says, k, kept)
            kept += 1
    return kept


@compiled
def settle(members: Int64, meetings: Int64, said: Int64, says: Float64, said_count: int, number: int) -> int:
    """It is known who is who in a meeting; how much is `said` then. `members` and `meetings` are those there are."""
    for k in range(members.shape[0]):
        if members[k, MEETING] == number:
            members[k, MEETING] = 0
    meetings[_meeting_of(meetings, number), NUMBER] = 0
    left: int = _still_said(said, says, said_count, meetings, members[:0])
    return left


@inner
def _keep(said: Int64, says: Float64, k: int, at: int) -> None:
    for column in range(SAID_COLUMNS):
        said[at, column] = said[k, column]
    says[at] = says[k]


@inner
def _goes_on(
    members: Int64,
    row_of: Int64,
    count: int,
    meetings: Int64,
    at: int,
    n: int,
    shared: Float64,
    pts: int,
    limits: Float64,
    hid: Int64,
    hides: int,
) -> tuple[int, bool]:
    """How many are in `hid` then, and whether the meeting `meetings[at]` does. Those who leave it get no MEETING."""
    number = meetings[at, NUMBER]
    lost, here, most = False, 0, np.empty(count)
    for k in range(count):
        most[k] = 0.0
        if members[k, MEETING] != number:
            continue
        if 0 <= row_of[k] < n:
            here += 1
        elif members[k, SEEN] and members[k, SINCE] < 0:  # one who was apart has left: nobody hid that one
            lost = True
        for other in range(count):
            if members[other, MEETING] == number and row_of[k] >= 0 and row_of[other] >= 0:
                most[k] = max(most[k], shared[row_of[k], row_of[other]])
    for k in range(count):
        behind = most[k] > limits[DEEP_ABOVE] or (lost and members[k, SINCE] < 0)
        if behind and members[k, MEETING] == number and row_of[k] >= 0:
            hid[hides, 0], hid[hides, 1] = number, members[k, TRACK]
            hides += 1
            meetings[at, IS_DEEP], meetings[at, HIDDEN] = 1, pts
    patience = limits[PATIENCE] if meetings[at, IS_DEEP] else -1.0
    left = 0
    for k in range(count):
        if members[k, MEETING] != number:
            continue
        seen, row = members[k, SEEN], row_of[k]
        goes = row < 0
        if 0 <= row < n:
            members[k, SEEN] = 1
            if most[k] > limits[APART_BELOW]:
                members[k, SINCE] = -1
            elif members[k, SINCE] < 0:
                members[k, SINCE] = pts
            goes = members[k, SINCE] >= 0 and pts - members[k, SINCE] > patience
        else:
            goes |= here > 0 and seen > 0 and members[k, SINCE] >= 0
            members[k, SEEN], members[k, SINCE] = 0, -1
        if goes:
            members[k, MEETING] = 0
        else:
            left += 1
    if here == 0:  # until somebody who was lost is seen again
        return hides, left > 0 and pts - meetings[at, HIDDEN] <= limits[PATIENCE]
    return hides, left > 1
