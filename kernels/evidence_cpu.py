"""What crops say of who is who in a meeting, on the CPU, and what comes of it.

Rows of arrays, as in `meetings_cpu.py` and `people_cpu.py`; what is decided, and why, is said in
`tiler/track/identities.py`.
"""

from __future__ import annotations

import numpy as np

from tiler.kernels.assign_cpu import Float64, Int64, best_pairs, inner, lead, total
from tiler.kernels.meetings_cpu import (
    IS_DEEP,
    MEETING,
    NUMBER,
    SAID_FOR,
    SAID_IN,
    SAID_OF,
    SEEN,
    SINCE,
    TRACK,
    find_row,
)
from tiler.kernels.people_cpu import (
    CLASS,
    CROPS,
    ENOUGH,
    EXCHANGED,
    HELD_BY,
    NEW,
    NEWCOMER,
    PEOPLE,
    STRANGER,
    WHO,
    cosine,
    drop_new,
    find_tracks,
    is_away,
)
from tiler.types import Bool, Float32, Int32

SHARPNESS, MOST = 4.0, 1.0
"""Weight of a difference of two cosines, and the most that a crop says for or against an identity."""
BASE, LEAST = 1000.0, 1.0
"""Worth of a pair of which nothing is said, and of one against which everything is."""
LEAD = 10.0
ROUNDING = 1e-6
"""More than sums of such numbers are off."""
THERE = 0.2
"""Who begins in a meeting is mostly one who was lost there: their cosines count for so much more."""


@inner
def next_deep(meetings: Int64, after: int) -> int:
    """The number of the deep meeting that began next; 0: there is none."""
    number = 0
    for k in range(meetings.shape[0]):
        if meetings[k, IS_DEEP] and meetings[k, NUMBER] > after and (number == 0 or meetings[k, NUMBER] < number):
            number = meetings[k, NUMBER]
    return number


@inner
def of_meeting(members: Int64, number: int, track_id: Int32) -> tuple[Int64, Int64]:
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
    order = ascending(tracks[:count])
    both = np.empty((2, count), np.int64)
    at = 0
    for there in range(2):
        for k in order:
            if (rows[k] < 0) == (there == 1):
                both[0, at], both[1, at] = tracks[k], rows[k]
                at += 1
    return both[0], both[1]


@inner
def has_parted(members: Int64, number: int) -> bool:
    """All of a meeting who are seen are apart."""
    seen = apart = 0
    for k in range(members.shape[0]):
        if members[k, MEETING] == number:
            seen += members[k, SEEN] > 0
            apart += members[k, SINCE] >= 0
    return seen > 0 and apart == seen


@inner
def hear(
    number: int,
    tracks: Int64,
    rows: Int64,
    known: Bool,
    vector_of: Int64,
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
    for k in ascending(tracks):
        at = find_row(people, count, HELD_BY, tracks[k])
        if at >= 0 and people[at, CROPS] >= ENOUGH:
            alike[met], is_met[at] = at, True
            met += 1
    for k in range(tracks.shape[0]):
        row = rows[k]
        if row < 0 or not known[row]:
            continue
        crop, found = vectors[vector_of[row]], met
        begins = find_row(new, counts[NEW], NEWCOMER, tracks[k]) >= 0
        for i in range(met):
            value[i] = cosine(crop, galleries[1, alike[i]]) + (THERE if begins else 0.0)
        if begins:
            for at in range(count):
                if not is_met[at] and is_away(people, at, people[person[row], CLASS], here):
                    alike[found], value[found] = at, cosine(crop, galleries[1, at])
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
def decide(
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
            could |= begins[k] and is_away(people, at, people[whose[k], CLASS], here)
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
            if j >= first and not (begins[k] and is_away(people, whose[j], people[whose[k], CLASS], here)):
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
        find_tracks(track_id, people, counts[PEOPLE], person, here)
        for k in range(n):
            at = find_row(new, counts[NEW], NEWCOMER, tracks[k])
            if at >= 0 and people[person[rows[k]], CROPS] >= ENOUGH:
                drop_new(new, new_means, counts, at)
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
def _said_of(number: int, track: int, said: Int64, said_count: int) -> tuple[Int64, int]:
    """The rows of `said` for a track of a meeting, and how many those are."""
    mine, own = np.empty(said_count, np.int64), 0
    for k in range(said_count):
        if said[k, SAID_IN] == number and said[k, SAID_OF] == track:
            mine[own] = k
            own += 1
    return mine, own


@inner
def ascending(values: Int64 | Int32) -> Int64:
    """The order in which they ascend; there are few, and mostly they do."""
    order = np.empty(values.shape[0], np.int64)
    for i in range(values.shape[0]):
        k = i
        while k > 0 and values[order[k - 1]] > values[i]:
            order[k] = order[k - 1]
            k -= 1
        order[k] = i
    return order
