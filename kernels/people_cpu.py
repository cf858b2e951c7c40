"""The people of a stream on the CPU: who there are, who has whom, and what they look like.

Rows of arrays, and written with loops, as Numba takes seconds to compile whole arrays' arithmetic and assignment. What
is decided with them is in `identities_cpu.py`.
"""

from __future__ import annotations

from math import sqrt

from tiler.kernels.assign_cpu import Float64, Int64, inner
from tiler.kernels.meetings_cpu import find_row
from tiler.types import Bool, Float32, Int32

# Columns of `people`: an identity; the track that has it; its class; pts when it was seen last; crops in its gallery.
WHO, HELD_BY, CLASS, LAST, CROPS, PERSON_COLUMNS = range(6)

# Columns of `new`: a track of which it is not known whether it is somebody who was away; since when; its crops.
NEWCOMER, BEGAN, TAKEN, NEW_COLUMNS = range(4)

# `counts`, a row for each stream: rows of `people` and of `new` that there are; meetings after which people were
# exchanged, and people who came back.
PEOPLE, NEW, EXCHANGED, RETURNED, COUNTS = range(5)

STRANGER = 0.6
"""Cosine that a stranger is thought to have."""
ENOUGH = 3
"""Crops that a gallery must have been made of to be compared with."""
FULL = 50
"""A gallery is the mean of its crops; from so many on, a mean that forgets."""
MOST_AWAY = 256
"""Of so many who are away it is remembered what they looked like."""


@inner
def find_tracks(track_id: Int32, people: Int64, count: int, person: Int64, here: Bool) -> None:
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
def take_note(
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
def is_away(people: Int64, k: int, kind: int, here: Bool) -> bool:
    """Whether a track of this class that begins could be this person: one known who is not in the picture."""
    return people[k, CLASS] == kind and not here[k] and people[k, CROPS] >= ENOUGH


@inner
def feed(people: Int64, galleries: Float64, k: int, vector: Float32 | Float64, count: int) -> None:
    people[k, CROPS] = mean_in(galleries[0, k], people[k, CROPS], vector, count)
    make_unit(galleries[0, k], galleries[1, k])


@inner
def mean_in(mean: Float64, crops: int, vector: Float32 | Float64, count: int) -> int:
    """Take `count` crops, whose mean is `vector`, into the mean of so many; how many they are then."""
    crops += count
    part = min(1.0, count / min(crops, FULL))
    for j in range(mean.shape[0]):
        mean[j] += part * (vector[j] - mean[j])
    return crops


@inner
def make_unit(vector: Float64, result: Float64) -> None:
    """Of length 1; zeros stay zeros."""
    square = 0.0
    for j in range(vector.shape[0]):
        square += vector[j] * vector[j]
    length = max(sqrt(square), 1e-9)
    for j in range(vector.shape[0]):
        result[j] = vector[j] / length


@inner
def cosine(vector: Float32 | Float64, unit: Float64) -> float:
    product = 0.0
    for j in range(vector.shape[0]):
        product += vector[j] * unit[j]
    return product


@inner
def _clear(galleries: Float64, k: int) -> None:
    for which in range(2):
        for j in range(galleries.shape[2]):
            galleries[which, k, j] = 0.0


@inner
def drop_new(new: Int64, new_means: Float64, counts: Int64, at: int) -> None:
    counts[NEW] -= 1
    for k in range(at, counts[NEW]):
        for column in range(NEW_COLUMNS):
            new[k, column] = new[k + 1, column]
        for j in range(new_means.shape[1]):
            new_means[k, j] = new_means[k + 1, j]


@inner
def forget(
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
                drop_new(new, new_means, counts, at)
            continue
        if kept < k:
            for column in range(PERSON_COLUMNS):
                people[kept, column] = people[k, column]
            for which in range(2):
                for j in range(galleries.shape[2]):
                    galleries[which, kept, j] = galleries[which, k, j]
        kept += 1
    counts[PEOPLE] = kept
