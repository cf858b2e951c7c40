"""Who is who in the new pictures of all streams, on the CPU, in one call.

What is decided, and why, is said in `tiler/track/identities.py`. A stream has few people, and many streams share one
interpreter: rows of arrays, as in `meetings_cpu.py` and `people_cpu.py`.
"""

from __future__ import annotations

import numpy as np

from tiler.kernels.assign_cpu import Float64, Int64, compiled, inner
from tiler.kernels.evidence_cpu import ascending, decide, has_parted, hear, next_deep, of_meeting
from tiler.kernels.meetings_cpu import MEMBERS, MET, SAID, find_row, settle
from tiler.kernels.people_cpu import (
    BEGAN,
    CLASS,
    HELD_BY,
    LAST,
    NEW,
    NEWCOMER,
    PEOPLE,
    RETURNED,
    STRANGER,
    TAKEN,
    WHO,
    cosine,
    drop_new,
    feed,
    find_tracks,
    forget,
    is_away,
    make_unit,
    mean_in,
    take_note,
)
from tiler.types import CLOCK_HZ, Bool, Float32, Int32

FEW_CROPS = 4
"""Who is not recognised by so many crops is somebody new."""
SURE = 0.4
"""By how much the cosine to the most alike gallery must lead the next, or a stranger's: one crop by this much, two by
half of it."""
NEW_FOR = 2.0 * CLOCK_HZ
"""Who has not been seen clearly for so long is taken for somebody new."""

Named = tuple[int, int, int, Int32, Float32, Float32, Int32, Int32]


@compiled
def identify(
    streams: Int64,
    pts: Int64,
    ends: Int64,
    track_id: Int32,
    xyxy: Float32,
    score: Float32,
    class_id: Int32,
    slot: Int32,
    known: Bool,
    vectors: Float32,
    phase: Int64,
    deep: Bool,
    members: Int64,
    meetings: Int64,
    meeting_counts: Int64,
    said: Int64,
    says: Float64,
    people: Int64,
    galleries: Float64,
    new: Int64,
    new_means: Float64,
    counts: Int64,
    memory: int,
) -> Named:
    """The tracks of the next pictures of some streams under the ids of who they are, and in their order.

    Args:
        streams, pts, ends, track_id, xyxy, score, class_id, slot: as in `TrackBatch`, n rows.
        known: (n,) bool, who was looked at.
        vectors: (as many, k) float32, what they look like.
        phase, deep: as in `Scene`.
        members, meetings, meeting_counts, said, says: as in `Meetings`; who is in a meeting that is settled leaves it.
            Of each stream there is room for what n crops say of all people and tracks.
        people: (all streams, capacity, PERSON_COLUMNS) int64; there is room for all tracks of a picture more.
        galleries: (all streams, 2, capacity, k) float64: of each person the mean of the crops, and that of length 1.
        new: (all streams, capacity, NEW_COLUMNS) int64; there is room for all tracks of a picture more.
        new_means: (all streams, capacity, k) float64, of each of those the mean of the crops.
        counts: (all streams, COUNTS) int64, see above.
        memory: ticks for which somebody away is remembered.

    Returns:
        How many people and newcomers there are in a stream at most, and how much is said in one; and track_id, xyxy,
        score, class_id, slot.
    """
    n = track_id.shape[0]
    ids, scores, boxes = np.empty(n, np.int32), np.empty(n, np.float32), np.empty((n, 4), np.float32)
    classes, slots = np.empty(n, np.int32), np.empty(n, np.int32)
    vector_of = np.empty(n, np.int64)
    begin = looked = known_people = newcomers = much = 0
    for k in range(streams.shape[0]):
        s, end = streams[k], ends[k]
        for row in range(begin, end):
            vector_of[row] = looked
            looked += known[row]
        who = _identify(
            pts[k], track_id[begin:end], class_id[begin:end], known[begin:end], vector_of[begin:end], vectors,
            phase[begin:end], deep[begin:end], members[s, : meeting_counts[s, MEMBERS]], meetings[s],
            meeting_counts[s], said[s], says[s], people[s], galleries[s], new[s], new_means[s], counts[s], memory,
        )  # fmt: skip
        order = ascending(who)
        for i in range(end - begin):
            at, row = begin + i, begin + order[i]
            ids[at], scores[at], classes[at], slots[at] = who[order[i]], score[row], class_id[row], slot[row]
            for j in range(4):
                boxes[at, j] = xyxy[row, j]
        begin, much = end, max(much, meeting_counts[s, SAID])
        known_people, newcomers = max(known_people, counts[s, PEOPLE]), max(newcomers, counts[s, NEW])
    return known_people, newcomers, much, ids, boxes, scores, classes, slots


@inner
def _identify(
    pts: int,
    track_id: Int32,
    class_id: Int32,
    known: Bool,
    vector_of: Int64,
    vectors: Float32,
    phase: Int64,
    deep: Bool,
    members: Int64,
    meetings: Int64,
    meeting_counts: Int64,
    said: Int64,
    says: Float64,
    people: Int64,
    galleries: Float64,
    new: Int64,
    new_means: Float64,
    counts: Int64,
    memory: int,
) -> Int32:
    """The ids of who the tracks of one picture are. `vector_of` has the row of `vectors` of each that was looked at."""
    n = track_id.shape[0]
    person, here = np.empty(n, np.int64), np.empty(people.shape[0], np.bool_)
    find_tracks(track_id, people, counts[PEOPLE], person, here)
    for row in range(n):
        if person[row] < 0:
            person[row] = take_note(pts, track_id[row], class_id[row], people, galleries, new, new_means, counts)
            here[person[row]] = True
    held, any_known = np.empty(n, np.bool_), False  # in a deep meeting that is not settled; somebody was looked at
    for row in range(n):
        held[row] = deep[row]
        any_known |= known[row]
    said_count, last = meeting_counts[SAID], 0
    while any_known:
        last = next_deep(meetings, last)
        if last == 0:
            break
        tracks, rows = of_meeting(members, last, track_id)
        looked = False
        for row in rows:
            looked |= row >= 0 and known[row]
        if not looked:
            continue
        said_count = hear(
            last, tracks, rows, known, vector_of, vectors, person, here, people, galleries, new, counts, said, says,
            said_count,
        )  # fmt: skip
        parted = has_parted(members, last)
        if decide(
            last, tracks, rows, parted, track_id, person, here, people, new, new_means, counts, said, says, said_count
        ):
            said_count = settle(members, meetings, said, says, said_count, last)
            for row in rows:
                if row >= 0:
                    held[row] = False
    meeting_counts[SAID] = said_count
    _greet(pts, track_id, known, vector_of, vectors, held, person, here, people, galleries, new, new_means, counts)
    for row in range(n):
        if known[row] and phase[row] < MET and find_row(new, counts[NEW], NEWCOMER, track_id[row]) < 0:
            feed(people, galleries, person[row], vectors[vector_of[row]], 1)
    ids = np.empty(n, np.int32)
    for row in range(n):
        ids[row] = people[person[row], WHO]
        people[person[row], LAST] = pts
    forget(pts, here, people, galleries, new, new_means, counts, memory)
    return ids


@inner
def _greet(
    pts: int,
    track_id: Int32,
    known: Bool,
    vector_of: Int64,
    vectors: Float32,
    held: Bool,
    person: Int64,
    here: Bool,
    people: Int64,
    galleries: Float64,
    new: Int64,
    new_means: Float64,
    counts: Int64,
) -> None:
    """Tell those who begin from those who are away."""
    at = 0
    while at < counts[NEW]:
        row = -1
        for k in range(track_id.shape[0]):
            if track_id[k] == new[at, NEWCOMER]:
                row = k
        if row < 0 or held[row]:  # who met there comes first
            at += 1
            continue
        if known[row]:
            new[at, TAKEN] = mean_in(new_means[at], new[at, TAKEN], vectors[vector_of[row]], 1)
        away = False
        for k in range(counts[PEOPLE]):
            away |= is_away(people, k, people[person[row], CLASS], here)
        who = -1
        if away and known[row]:
            who = _recognise(new_means[at], new[at, TAKEN], people[person[row], CLASS], here, people, galleries, counts)
        if away and who < 0 and new[at, TAKEN] < FEW_CROPS and pts - new[at, BEGAN] <= NEW_FOR:
            at += 1
            continue
        if who >= 0:
            people[person[row], HELD_BY] = people[who, HELD_BY]
            people[who, HELD_BY] = track_id[row]
            here[person[row]], here[who] = False, True
            person[row] = who
            counts[RETURNED] += 1
        if new[at, TAKEN] > 0:
            feed(people, galleries, person[row], new_means[at], new[at, TAKEN])
        drop_new(new, new_means, counts, at)


@inner
def _recognise(
    mean: Float64, crops: int, kind: int, here: Bool, people: Int64, galleries: Float64, counts: Int64
) -> int:
    """Which of those away it is whose crops have this mean; -1: none of them."""
    unit = np.empty(mean.shape[0])
    make_unit(mean, unit)
    best, most, next_best = -1, -np.inf, STRANGER
    for k in range(counts[PEOPLE]):
        if not is_away(people, k, kind, here):
            continue
        value = cosine(unit, galleries[1, k])
        if best < 0 or value > most or (value == most and people[k, WHO] > people[best, WHO]):
            next_best = max(next_best, most)
            best, most = k, value
        else:
            next_best = max(next_best, value)
    return best if (most - next_best) * crops >= SURE else -1
