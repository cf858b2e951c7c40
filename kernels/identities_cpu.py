"""Who is who in a picture of a stream, on the CPU, in one call.

What is decided, and why, is said in `tiler/track/identities.py`. A stream has few people, and many streams share one
interpreter: rows of arrays, as in `meetings_cpu.py`. All is written with loops, as Numba takes seconds to compile whole
arrays' arithmetic and assignment.
"""

from __future__ import annotations

from math import sqrt

import numpy as np

from tiler.kernels.assign_cpu import Float64, Int64, best_pairs, compiled, inner, lead, total
from tiler.kernels.meetings_cpu import (
    IS_DEEP,
    MEETING,
    MET,
    NUMBER,
    SAID_FOR,
    SAID_IN,
    SAID_OF,
    SEEN,
    SINCE,
    TRACK,
    find_row,
    settle,
)
from tiler.types import CLOCK_HZ, Bool, Float32, Int32

# Columns of `people`: an identity; the track that has it; its class; pts when it was seen last; crops in its gallery.
WHO, HELD_BY, CLASS, LAST, CROPS, PERSON_COLUMNS = range(6)

# Columns of `new`: a track of which it is not known whether it is somebody who was away; since when; its crops.
NEWCOMER, BEGAN, TAKEN, NEW_COLUMNS = range(4)

# `counts`: rows of `people` and of `new` that there are; meetings after which people were exchanged, and people who
# came back.
PEOPLE, NEW, EXCHANGED, RETURNED, COUNTS = range(5)

SHARPNESS, MOST = 4.0, 1.0
"""Weight of a difference of two cosines, and the most that a crop says for or against an identity."""
BASE, LEAST = 1000.0, 1.0
"""Worth of a pair of which nothing is said, and of one against which everything is."""
LEAD = 10.0
ROUNDING = 1e-6
"""More than sums of such numbers are off."""
FEW_CROPS = 4
"""Who is not recognised by so many crops is somebody new."""
SURE = 0.4
"""By how much the cosine to the most alike gallery must lead the next, or a stranger's: one crop by this much, two by
half of it."""
NEW_FOR = 2.0 * CLOCK_HZ
"""Who has not been seen clearly for so long is taken for somebody new."""
STRANGER = 0.6
"""Cosine that a stranger is thought to have."""
THERE = 0.2
"""Who begins in a meeting is mostly one who was lost there: their cosines count for so much more."""
ENOUGH = 3
"""Crops that a gallery must have been made of to be compared with."""
FULL = 50
"""A gallery is the mean of its crops; from so many on, a mean that forgets."""
MOST_AWAY = 256
"""Of so many who are away it is remembered what they looked like."""

Named = tuple[Int32, Float32, Float32, Int32, Int32, int]


@compiled
def identify(
    pts: int,
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
    said: Int64,
    says: Float64,
    said_count: int,
    people: Int64,
    galleries: Float64,
    new: Int64,
    new_means: Float64,
    counts: Int64,
    memory: int,
) -> Named:
    """The tracks of the next picture under the ids of who they are, and in their order.

    Args:
        pts, track_id, xyxy, score, class_id, slot: as in `Tracks`, n rows.
        known, vectors: as in `Appearance`.
        phase, deep: as in `Scene`.
        members, meetings: those there are, as `meet` leaves them; who is in a meeting that is settled leaves it.
        said, says, said_count: likewise. There is room for what n crops say of all people and tracks.
        people: (capacity, PERSON_COLUMNS) int64; there is room for n more.
        galleries: (2, capacity, k) float64: of each person the mean of the crops, and that of length 1.
        new: (capacity, NEW_COLUMNS) int64; there is room for n more.
        new_means: (capacity, k) float64, of each of those the mean of the crops.
        counts: (COUNTS,) int64, see above.
        memory: ticks for which somebody away is remembered.

    Returns:
        track_id, xyxy, score, class_id, slot; and how many are in `said`.
    """
    n = track_id.shape[0]
    person, here = np.empty(n, np.int64), np.empty(people.shape[0], np.bool_)
    _find(track_id, people, counts[PEOPLE], person, here)
    for row in range(n):
        if person[row] < 0:
            person[row] = _take_note(pts, track_id[row], class_id[row], people, galleries, new, new_means, counts)
            here[person[row]] = True
    held, any_known = np.empty(n, np.bool_), False  # in a deep meeting that is not settled; somebody was looked at
    for row in range(n):
        held[row] = deep[row]
        any_known |= known[row]
    last = 0
    while any_known:
        last = _next_deep(meetings, last)
        if last == 0:
            break
        tracks, rows = _of_meeting(members, last, track_id)
        looked = False
        for row in rows:
            looked |= row >= 0 and known[row]
        if not looked:
            continue
        said_count = _hear(
            last, tracks, rows, known, vectors, person, here, people, galleries, new, counts, said, says, said_count
        )
        parted = _has_parted(members, last)
        if _decide(
            last, tracks, rows, parted, track_id, person, here, people, new, new_means, counts, said, says, said_count
        ):
            said_count = settle(members, meetings, said, says, said_count, last)
            for row in rows:
                if row >= 0:
                    held[row] = False
    _greet(pts, track_id, known, vectors, held, person, here, people, galleries, new, new_means, counts)
    for row in range(n):
        if known[row] and phase[row] < MET and find_row(new, counts[NEW], NEWCOMER, track_id[row]) < 0:
            _feed(people, galleries, person[row], vectors[row], 1)
    ids = np.empty(n, np.int32)
    for row in range(n):
        ids[row] = people[person[row], WHO]
        people[person[row], LAST] = pts
    _forget(pts, here, people, galleries, new, new_means, counts, memory)

    boxes, scores = np.empty((n, 4), np.float32), np.empty(n, np.float32)
    classes, slots = np.empty(n, np.int32), np.empty(n, np.int32)
    order = _ascending(ids)
    sorted_ids = np.empty(n, np.int32)
    for k in range(n):
        row = order[k]
        sorted_ids[k], scores[k], classes[k], slots[k] = ids[row], score[row], class_id[row], slot[row]
        for j in range(4):
            boxes[k, j] = xyxy[row, j]
    return sorted_ids, boxes, scores, classes, slots, said_count


@inner
def _ascending(values: Int64 | Int32) -> Int64:
    """The order in which they ascend; there are few, and mostly they do."""
    order = np.empty(values.shape[0], np.int64)
    for i in range(values.shape[0]):
        k = i
        while k > 0 and values[order[k - 1]] > values[i]:
            order[k] = order[k - 1]
            k -= 1
        order[k] = i
    return order


@inner
def _take_note(
    pts: int, track: int, kind: int, people: Int64, galleries: Float64, new: Int64, new_means: Float64, counts: Int64
) -> int:
    """Somebody is there for the first time; the row in `people`."""
    at = counts[NEW]
    counts[NEW] += 1
    new[at, NEWCOMER], new[at, BEGAN], new[at, TAKEN] = track, pts, 0
    for j in range(new_means.shape[1]):
        new_means[at, j] = 0.0
    k: int = counts[PEOPLE]
    counts[PEOPLE] += 1
    people[k, WHO], people[k, HELD_BY], people[k, CLASS], people[k, LAST], people[k, CROPS] = track, track, kind, pts, 0
    _clear(galleries, k)
    return k


@inner
def _clear(galleries: Float64, k: int) -> None:
    for which in range(2):
        for j in range(galleries.shape[2]):
            galleries[which, k, j] = 0.0


@inner
def _find(track_id: Int32, people: Int64, count: int, person: Int64, here: Bool) -> None:
    """Of each track its row in `people`, -1 for none, and of each of them whether it is in the picture.

    Both are mostly in the same order: each is looked for from behind the last one on.
    """
    for k in range(count):
        here[k] = False
    at = 0
    for row in range(track_id.shape[0]):
        person[row] = -1
        for _ in range(count):
            at = at + 1 if at + 1 < count else 0
            if people[at, HELD_BY] == track_id[row]:
                person[row] = at
                here[at] = True
                break


@inner
def _is_away(people: Int64, k: int, kind: int, here: Bool) -> bool:
    """Whether a track of this class that begins could be this person: one known who is not in the picture."""
    return people[k, CLASS] == kind and not here[k] and people[k, CROPS] >= ENOUGH


@inner
def _mean_in(mean: Float64, crops: int, vector: Float32 | Float64, count: int) -> int:
    """Take `count` crops, whose mean is `vector`, into the mean of so many; how many they are then."""
    crops += count
    part = min(1.0, count / min(crops, FULL))
    for j in range(mean.shape[0]):
        mean[j] += part * (vector[j] - mean[j])
    return crops


@inner
def _unit(vector: Float64, result: Float64) -> None:
    """Of length 1; zeros stay zeros."""
    square = 0.0
    for j in range(vector.shape[0]):
        square += vector[j] * vector[j]
    length = max(sqrt(square), 1e-9)
    for j in range(vector.shape[0]):
        result[j] = vector[j] / length


@inner
def _feed(people: Int64, galleries: Float64, k: int, vector: Float32 | Float64, count: int) -> None:
    people[k, CROPS] = _mean_in(galleries[0, k], people[k, CROPS], vector, count)
    _unit(galleries[0, k], galleries[1, k])


@inner
def _cosine(vector: Float32 | Float64, unit: Float64) -> float:
    product = 0.0
    for j in range(vector.shape[0]):
        product += vector[j] * unit[j]
    return product


# Meetings


@inner
def _next_deep(meetings: Int64, after: int) -> int:
    """The number of the deep meeting that began next; 0: there is none."""
    number = 0
    for k in range(meetings.shape[0]):
        if meetings[k, IS_DEEP] and meetings[k, NUMBER] > after and (number == 0 or meetings[k, NUMBER] < number):
            number = meetings[k, NUMBER]
    return number


@inner
def _of_meeting(members: Int64, number: int, track_id: Int32) -> tuple[Int64, Int64]:
    """The tracks that are in a meeting, those in the picture first and each kind ascending; and the rows of all."""
    tracks, rows = np.empty(members.shape[0], np.int64), np.empty(members.shape[0], np.int64)
    count = 0
    for k in range(members.shape[0]):
        if members[k, MEETING] == number:
            tracks[count], rows[count] = members[k, TRACK], -1
            for row in range(track_id.shape[0]):
                if track_id[row] == tracks[count]:
                    rows[count] = row
            count += 1
    order = _ascending(tracks[:count])
    both = np.empty((2, count), np.int64)
    at = 0
    for there in range(2):
        for k in order:
            if (rows[k] < 0) == (there == 1):
                both[0, at], both[1, at] = tracks[k], rows[k]
                at += 1
    return both[0], both[1]


@inner
def _has_parted(members: Int64, number: int) -> bool:
    """All of a meeting who are seen are apart."""
    seen = apart = 0
    for k in range(members.shape[0]):
        if members[k, MEETING] == number:
            seen += members[k, SEEN] > 0
            apart += members[k, SINCE] >= 0
    return seen > 0 and apart == seen


@inner
def _hear(
    number: int,
    tracks: Int64,
    rows: Int64,
    known: Bool,
    vectors: Float32,
    person: Int64,
    here: Bool,
    people: Int64,
    galleries: Float64,
    new: Int64,
    counts: Int64,
    said: Int64,
    says: Float64,
    said_count: int,
) -> int:
    """Add up what the crops of this picture say of a meeting; how many are in `said` then."""
    count = counts[PEOPLE]
    met, is_met = 0, np.zeros(count, np.bool_)
    alike, value = np.empty(count + 1, np.int64), np.empty(count + 1)  # rows of `people`, and their cosines
    for k in _ascending(tracks):
        at = find_row(people, count, HELD_BY, tracks[k])
        if at >= 0 and people[at, CROPS] >= ENOUGH:
            alike[met], is_met[at] = at, True
            met += 1
    for k in range(tracks.shape[0]):
        row = rows[k]
        if row < 0 or not known[row]:
            continue
        crop, found = vectors[row], met
        begins = find_row(new, counts[NEW], NEWCOMER, tracks[k]) >= 0
        for i in range(met):
            value[i] = _cosine(crop, galleries[1, alike[i]]) + (THERE if begins else 0.0)
        if begins:
            for at in range(count):
                if not is_met[at] and _is_away(people, at, people[person[row], CLASS], here):
                    alike[found], value[found] = at, _cosine(crop, galleries[1, at])
                    found += 1
            if not is_met[person[row]]:
                alike[found] = person[row]
                found += 1
            for i in range(found):
                if alike[i] == person[row]:
                    value[i] = STRANGER
        mean = 0.0
        for i in range(found):
            mean += value[i]
        mean /= max(found, 1)
        mine, own = _said_of(number, tracks[k], said, said_count)
        for i in range(found):
            who = people[alike[i], WHO]
            at = -1
            for j in range(own):
                if said[mine[j], SAID_FOR] == who:
                    at = mine[j]
            if at < 0:
                at = said_count
                said_count += 1
                said[at, SAID_IN], said[at, SAID_OF], said[at, SAID_FOR], says[at] = number, tracks[k], who, 0.0
            says[at] += min(max(SHARPNESS * (value[i] - mean), -MOST), MOST)
    return said_count


@inner
def _said_of(number: int, track: int, said: Int64, said_count: int) -> tuple[Int64, int]:
    """The rows of `said` for a track of a meeting, and how many those are."""
    mine, own = np.empty(said_count, np.int64), 0
    for k in range(said_count):
        if said[k, SAID_IN] == number and said[k, SAID_OF] == track:
            mine[own] = k
            own += 1
    return mine, own


@inner
def _decide(
    number: int,
    tracks: Int64,
    rows: Int64,
    parted: bool,
    track_id: Int32,
    person: Int64,
    here: Bool,
    people: Int64,
    new: Int64,
    new_means: Float64,
    counts: Int64,
    said: Int64,
    says: Float64,
    said_count: int,
) -> bool:
    """Exchange the people of a meeting once the evidence leads by enough; whether it speaks for who they are."""
    n = 0  # of its tracks that are in the picture; they come first
    for row in rows:
        n += row >= 0
    whose, width = np.empty(tracks.shape[0] + counts[PEOPLE], np.int64), tracks.shape[0]
    begins = np.empty(n, np.bool_)
    for k in range(width):
        whose[k] = find_row(people, counts[PEOPLE], HELD_BY, tracks[k])
        if whose[k] < 0:
            return False
    for k in range(n):
        begins[k] = find_row(new, counts[NEW], NEWCOMER, tracks[k]) >= 0
    first = width
    for at in range(counts[PEOPLE]):  # others: who is away, and could be one who begins
        could = False
        for k in range(n):
            could |= begins[k] and _is_away(people, at, people[whose[k], CLASS], here)
        for k in range(first):
            could &= whose[k] != at
        if could:
            j = width
            while j > first and people[whose[j - 1], WHO] > people[at, WHO]:
                whose[j] = whose[j - 1]
                j -= 1
            whose[j] = at
            width += 1
    gain, ahead = np.empty((n, width)), 0.0
    for k in range(n):
        mine, own = _said_of(number, tracks[k], said, said_count)
        most = 0.0
        for j in range(width):
            gain[k, j] = BASE
            if j >= first and not (begins[k] and _is_away(people, whose[j], people[whose[k], CLASS], here)):
                gain[k, j] = 0.0
                continue
            for i in range(own):
                if said[mine[i], SAID_FOR] == people[whose[j], WHO]:
                    gain[k, j] = max(gain[k, j] + says[mine[i]], LEAST)
            most = max(most, gain[k, j])
        ahead += most - gain[k, k]
    # No pairing is worth more than each track's best identity: mostly that does not lead, and is told soon.
    parted &= width > 1
    if ahead < LEAD - ROUNDING and not parted:
        return False
    now = np.empty(n, np.int64)
    for k in range(n):
        now[k] = k
    best = best_pairs(gain)
    if total(gain, best) - total(gain, now) >= LEAD:
        _exchange(whose[:width], best, people)
        counts[EXCHANGED] += 1
        _find(track_id, people, counts[PEOPLE], person, here)
        for k in range(n):
            at = find_row(new, counts[NEW], NEWCOMER, tracks[k])
            if at >= 0 and people[person[rows[k]], CROPS] >= ENOUGH:
                _drop_new(new, new_means, counts, at)
        return False
    return parted and lead(gain, now) >= LEAD


@inner
def _exchange(whose: Int64, best: Int64, people: Int64) -> None:
    """Give the first tracks of these people those whom `best` says, and the others those who are left, in order."""
    tracks, taken = np.empty(whose.shape[0], np.int64), np.zeros(whose.shape[0], np.bool_)
    for k in range(whose.shape[0]):
        tracks[k] = people[whose[k], HELD_BY]
    for k in range(best.shape[0]):
        people[whose[best[k]], HELD_BY] = tracks[k]
        taken[best[k]] = True
    at = best.shape[0]
    for k in range(whose.shape[0]):
        if not taken[k]:
            people[whose[k], HELD_BY] = tracks[at]
            at += 1


@inner
def _drop_new(new: Int64, new_means: Float64, counts: Int64, at: int) -> None:
    counts[NEW] -= 1
    for k in range(at, counts[NEW]):
        for column in range(NEW_COLUMNS):
            new[k, column] = new[k + 1, column]
        for j in range(new_means.shape[1]):
            new_means[k, j] = new_means[k + 1, j]


# Those who come, and come back


@inner
def _greet(
    pts: int,
    track_id: Int32,
    known: Bool,
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
            new[at, TAKEN] = _mean_in(new_means[at], new[at, TAKEN], vectors[row], 1)
        away = False
        for k in range(counts[PEOPLE]):
            away |= _is_away(people, k, people[person[row], CLASS], here)
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
            _feed(people, galleries, person[row], new_means[at], new[at, TAKEN])
        _drop_new(new, new_means, counts, at)


@inner
def _recognise(
    mean: Float64, crops: int, kind: int, here: Bool, people: Int64, galleries: Float64, counts: Int64
) -> int:
    """Which of those away it is whose crops have this mean; -1: none of them."""
    unit = np.empty(mean.shape[0])
    _unit(mean, unit)
    best, most, next_best = -1, -np.inf, STRANGER
    for k in range(counts[PEOPLE]):
        if not _is_away(people, k, kind, here):
            continue
        value = _cosine(unit, galleries[1, k])
        if best < 0 or value > most or (value == most and people[k, WHO] > people[best, WHO]):
            next_best = max(next_best, most)
            best, most = k, value
        else:
            next_best = max(next_best, value)
    return best if (most - next_best) * crops >= SURE else -1


@inner
def _forget(
    pts: int,
    here: Bool,
    people: Int64,
    galleries: Float64,
    new: Int64,
    new_means: Float64,
    counts: Int64,
    memory: int,
) -> None:
    """Let go of those who have been away for too long; and of the longest away, when they are many, their looks."""
    looks, first = 0, pts
    for k in range(counts[PEOPLE]):
        looks += not here[k] and people[k, CROPS] > 0
        first = min(first, people[k, LAST])
    while looks > MOST_AWAY:
        longest = -1
        for k in range(counts[PEOPLE]):
            if here[k] or people[k, CROPS] == 0:
                continue
            if longest < 0 or people[k, LAST] < people[longest, LAST]:
                longest = k
        people[longest, CROPS] = 0
        _clear(galleries, longest)
        looks -= 1
    if pts - first <= memory:
        return
    kept = 0
    for k in range(counts[PEOPLE]):
        if not here[k] and pts - people[k, LAST] > memory:
            at = find_row(new, counts[NEW], NEWCOMER, people[k, HELD_BY])
            if at >= 0:
                _drop_new(new, new_means, counts, at)
            continue
        if kept < k:
            for column in range(PERSON_COLUMNS):
                people[kept, column] = people[k, column]
            for which in range(2):
                for j in range(galleries.shape[2]):
                    galleries[which, kept, j] = galleries[which, k, j]
        kept += 1
    counts[PEOPLE] = kept
