"""The plan of a mosaic: every block once, the busiest first, with all that touches its bins in drawing order."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tiler.kernels import compose_table
from tiler.kernels.compose_plan import Plan
from tiler.kernels.primitives import ALPHA, CLIP_X0, COLUMNS, KIND, X0, Y1, A, Kind

SIZE = 1000, 300   # not whole blocks
FILLS, FRAMES = 60, 6


def planned(rows: np.ndarray) -> Plan:
    """One tile without a picture, all over the mosaic, with these over it."""
    table = np.zeros((1, compose_table.TILE_COLUMNS), np.int64)
    table[0, compose_table.REACH : compose_table.REACH + 4] = 0, 0, *SIZE
    table[0, compose_table.END] = len(rows)
    tiles = np.zeros((1, compose_table.TILE_WORDS), np.int64)
    compose_table.pack_tiles(table, rows, tiles)
    plan = Plan(SIZE)
    plan.make(table, tiles, rows)
    return plan


def lists_of(plan: Plan) -> dict[tuple[int, int], list[int]]:
    """The primitives of each bin, by its place, as the kernel takes them out of the plan."""
    found = {}
    for rank, (begin, lengths) in enumerate(plan.heads.tolist()):
        block = int(plan.blocks[plan.lead + rank])
        lists, at = plan.lists[begin:].tolist(), 0
        for k in range(4):
            place = (block & 255) * 2 + k % 2, (block >> 8 & 1023) * 2 + k // 2
            if lengths == 0xFFFFFFFF:
                at, length = lists[2 * k], lists[2 * k + 1]
            else:
                length = lengths >> 8 * k & 255
            if length:
                found[place] = lists[at : at + length]
            at += length
    return found


def random_rows(rng: np.random.Generator, heap: bool) -> np.ndarray:
    rows = np.zeros((FILLS + FRAMES, COLUMNS), np.int32)
    rows[:, ALPHA], rows[:, CLIP_X0:] = rng.choice([0, 90, 255], len(rows), p=[0.1, 0.4, 0.5]), (0, 0, *SIZE)
    corners = np.full((len(rows), 2), 200) if heap else rng.integers((-50, -50), SIZE, (len(rows), 2))
    rows[:, X0 : Y1 + 1] = np.column_stack([corners, corners + rng.integers(0, 90, (len(rows), 2))])
    rows[FILLS:, X0 : Y1 + 1] = 30, 20, 950, 280
    rows[FILLS:, KIND], rows[FILLS:, A] = Kind.FRAME, rng.integers(1, 90, FRAMES)
    return rows


def touching(rows: np.ndarray) -> dict[tuple[int, int], list[int]]:
    """The same, bin by bin and sample by sample."""
    found: dict[tuple[int, int], list[int]] = {}
    for n, row in enumerate(rows.tolist()):
        x0, y0, x1, y1 = row[X0 : Y1 + 1]
        ys, xs = np.mgrid[: SIZE[1], : SIZE[0]]
        deep = np.minimum(np.minimum(xs - x0, x1 - 1 - xs), np.minimum(ys - y0, y1 - 1 - ys))
        drawn = (deep >= 0) & ((row[KIND] == Kind.FILL) | (deep < row[A])) & (row[ALPHA] > 0)
        for y, x in {(y // 8, x // 64) for y, x in np.argwhere(drawn).tolist()}:
            found.setdefault((x, y), []).append(n)
    return found


@pytest.mark.parametrize("seed", range(4))
def test_every_bin_has_what_touches_it_in_drawing_order(seed: int) -> None:
    rows = random_rows(np.random.default_rng(seed), heap=False)
    assert lists_of(planned(rows)) == touching(rows)


def test_a_bin_may_have_more_than_a_byte_counts() -> None:
    rng = np.random.default_rng(1)
    rows = np.concatenate([random_rows(rng, heap=True) for _ in range(7)])
    found = lists_of(planned(rows))
    assert max(map(len, found.values())) > 255
    assert found == touching(rows)


def test_every_block_is_there_once_and_the_busiest_come_first() -> None:
    plan = planned(random_rows(np.random.default_rng(3), heap=False))
    places = [(int(block) & 255, int(block) >> 8 & 1023) for block in plan.blocks]
    assert sorted(places) == [(x, y) for x in range(8) for y in range(19)]
    listed = [sum(lengths >> 8 * k & 255 for k in range(4)) for _, lengths in plan.heads.tolist()]
    assert 0 < plan.drawn < len(places)
    assert min(listed) > 0
    assert all(later <= before + 1 for before, later in itertools.pairwise(listed))


def test_with_nothing_to_draw_all_blocks_copy() -> None:
    plan = planned(np.zeros((0, COLUMNS), np.int32))
    assert (plan.drawn, len(plan.heads), len(plan.lists)) == (0, 0, 0)
    assert len(set(plan.blocks.tolist())) == 8 * 19
