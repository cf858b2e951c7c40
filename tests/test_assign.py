"""Pairings: what one is worth, and by how much it leads every other."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tiler.kernels.assign_cpu import Float64, best_pairs, lead, total

GAINS = st.tuples(st.integers(1, 4), st.integers(1, 4)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=st.floats(0.5, 10))
)


def worths(gain: Float64) -> list[tuple[dict[int, int], float]]:
    """Every pairing that pairs as many as can be, and what it is worth."""
    rows, columns = gain.shape
    chosen = [dict(enumerate(p)) for p in permutations(range(columns), rows)] if rows <= columns else [
        {row: column for column, row in enumerate(p)} for p in permutations(range(rows), columns)
    ]
    return [(pairs, sum(gain[i, j] for i, j in pairs.items())) for pairs in chosen]


@given(GAINS)
def test_the_best_pairing_leads_all_that_lack_one_of_its_pairs(gain: Float64) -> None:
    pairs = best_pairs(gain)
    mine = {i: j for i, j in enumerate(pairs.tolist()) if j >= 0}
    every = worths(gain)
    assert total(gain, pairs) == pytest.approx(max(worth for _, worth in every))
    without = [worth - gain[i, j] if other.get(i) == j else worth
               for other, worth in every for i, j in mine.items()]  # fmt: skip
    assert lead(gain, pairs) == pytest.approx(total(gain, pairs) - max(without))
    assert lead(gain, pairs) >= -1e-9


def test_nobody_is_paired_and_nothing_leads() -> None:
    none = np.full(3, -1, np.int64)
    assert total(np.ones((3, 2)), none) == 0
    assert lead(np.ones((3, 2)), none) == 0
