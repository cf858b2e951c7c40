"""Where each block of `compose.cu` draws, when, and what: worked out on the CPU, which has all primitives at hand.

A block of threads keeps its place on the GPU until the busiest of its warps has ended, and a mosaic is ready when its
last block is. So blocks that draw come before those that only copy, the busiest first; but some that copy come before
all others, since they begin at once and memory would have nothing to do meanwhile.

These calls keep the GIL, as those of `overlay_cpu.py` do: each takes some tens of microseconds.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from tiler.kernels.compose_table import BIN, END, OVER, UNDER
from tiler.kernels.primitives import KIND, X0, X1, Y0, Y1, A, Kind
from tiler.kernels.primitives_cpu import touched
from tiler.types import Int32

Int64 = npt.NDArray[np.int64]
UInt32 = npt.NDArray[np.uint32]

_LEAD = 8
"""Of all blocks, one of so many that copies comes first."""
_HEATS = 256
_NOBODY, _MANY = -1, -2
_FRAME = int(Kind.FRAME)
_BIN_X, _BIN_Y = (n.bit_length() - 1 for n in BIN)
_FIRST_PAIRS = 1 << 14


class Plan:
    """The plans of one mosaic after the other.

    Attributes:
        blocks: (n,) uint32: x and y of each block, in blocks, and the tile that is alone there, as `compose` takes it.
        lead: blocks before the first that draws.
        drawn: how many draw, one after the other.
        heads: (drawn, 2) uint32: where the lists of a block begin and how long they are, as `compose` takes it.
        lists: (m,) int32: the primitives that touch each bin of the blocks that draw, in drawing order.

    All but `lead` and `drawn` are written anew by `make`.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        """
        Args:
            size: the mosaic's width and height.
        """
        self._size = size
        down, across = -(-size[1] // (2 * BIN[1])), -(-size[0] // (2 * BIN[0]))
        self._owner = np.zeros((down, across), np.int32)
        self._places = np.zeros(down * across, np.uint32)   # of the blocks, from left to right and down
        self._counts = np.zeros((2 * down, 2 * across), np.int32)   # of the primitives that touch each bin
        self._heat = np.zeros((down, across), np.int32)   # the same of each block
        self._ends = np.zeros(4 * down * across, np.int32)
        self._pairs = np.zeros((2, _FIRST_PAIRS), np.int32)
        self._heads = np.zeros((down * across, 2), np.uint32)
        self._lists: Int32 = np.zeros(_FIRST_PAIRS + 8 * down * across, np.int32)
        self._placed: bytes | None = None
        self.blocks: UInt32 = np.zeros(down * across, np.uint32)
        self.lead = self.drawn = 0
        self.heads, self.lists = self._heads[:0], self._lists[:0]

    def make(self, table: Int64, tiles: Int64, rows: Int32) -> None:
        """Plan the mosaic of these.

        Args:
            table: (n, TILE_COLUMNS) int64.
            tiles: (n, TILE_WORDS) int64: the same as `pack_tiles` has packed them.
            rows: (m, COLUMNS) int32: the primitives.
        """
        placed = tiles[:, :2].tobytes()
        if placed != self._placed:
            _find_owners(tiles, self._owner, self._places)
            self._placed = placed
        given = table, tiles, rows, self._size, self._owner, self._counts, self._heat, self._places, self._ends
        pairs, self.lead, self.drawn, length = _plan(*given, self._pairs, self.blocks, self._heads, self._lists)
        if pairs > self._pairs.shape[1]:
            self._pairs = np.zeros((2, 2 * pairs), np.int32)
            self._lists = np.zeros(2 * pairs + 8 * len(self._heads), np.int32)
            _, self.lead, self.drawn, length = _plan(*given, self._pairs, self.blocks, self._heads, self._lists)
        self.heads, self.lists = self._heads[: self.drawn], self._lists[:length]


@njit(cache=True)
def _find_owners(tiles, owner, places):  # type: ignore[no-untyped-def]
    """For each block the tile that is alone there and whose `whole` holds it, and its place as it travels."""
    owner[...] = _NOBODY
    down, across = owner.shape
    for i in range(tiles.shape[0]):
        x0, y0, x1, y1 = _rectangle(tiles[i, 0])
        inner_x0, inner_y0, inner_x1, inner_y1 = _rectangle(tiles[i, 1])
        for y in range(y0 // 2, min(y1 // 2 + 1, down)):
            for x in range(x0 // 2, min(x1 // 2 + 1, across)):
                held = inner_x0 <= 2 * x and 2 * x + 1 <= inner_x1 and inner_y0 <= 2 * y and 2 * y + 1 <= inner_y1
                owner[y, x] = i if held and owner[y, x] == _NOBODY else _MANY
    for y in range(down):
        for x in range(across):
            places[y * across + x] = x | y << 8 | max(owner[y, x] + 1, 0) << 18


@njit(cache=True)
def _rectangle(bins):  # type: ignore[no-untyped-def]
    """The first and the last bin of a rectangle as it travels, across and down."""
    first, last = bins & 0xFFFFFFFF, bins >> 32 & 0xFFFFFFFF
    return first & 0x7FFF, first >> 16, last & 0x7FFF, last >> 16 & 0x7FFF


@njit(cache=True)
def _plan(table, tiles, rows, size, owner, counts, heat, places, ends, pairs, blocks, heads, lists):  # type: ignore[no-untyped-def]
    """How many pairs there are, and what `_arrange` makes of them unless they are more than there is room for."""
    n = _touch(table, tiles, rows, size, owner, counts, pairs)
    if n > pairs.shape[1]:
        return n, 0, 0, 0
    lead, drawn, length = _arrange(counts, heat, places, pairs, n, ends, blocks, heads, lists)
    return n, lead, drawn, length


@njit(cache=True)
def _touch(table, tiles, rows, size, owner, counts, pairs):  # type: ignore[no-untyped-def]
    """Each primitive with each bin that it touches, as pairs of that bin's number and its own; how many there are.

    Those are written for which there is room. What a tile that is alone in a block has under its picture is left out.
    """
    counts[...] = 0
    across, n, room = counts.shape[1], 0, pairs.shape[1]
    for i in range(tiles.shape[0]):
        left, top, right, bottom = _rectangle(tiles[i, 0])
        over = table[i, OVER]
        for number in range(table[i, UNDER], table[i, END]):
            x0, y0, x1, y1 = touched(rows, number, 0, size[1], size[0])
            if y0 >= y1:
                continue
            first, last = max(x0 >> _BIN_X, left), min((x1 - 1) >> _BIN_X, right)
            above, below = max(y0 >> _BIN_Y, top), min((y1 - 1) >> _BIN_Y, bottom)
            under, frame = number < over, rows[number, KIND] == _FRAME
            hole = _hole(rows, number) if frame else (0, 0, 0, 0)
            for y in range(above, below + 1):
                for x in range(first, last + 1):
                    if frame and hole[0] <= x < hole[2] and hole[1] <= y < hole[3]:
                        continue
                    if under and owner[y >> 1, x >> 1] >= 0:
                        continue
                    counts[y, x] += 1
                    if n < room:
                        pairs[0, n], pairs[1, n] = y * across + x, number
                    n += 1
    return n


@njit(cache=True)
def _hole(rows, number):  # type: ignore[no-untyped-def]
    """The bins within a frame in which it draws nothing: x0, y0, x1, y1, half-open."""
    line = rows[number, A]
    x0, y0 = (rows[number, X0] + line + BIN[0] - 1) >> _BIN_X, (rows[number, Y0] + line + BIN[1] - 1) >> _BIN_Y
    return x0, y0, (rows[number, X1] - line) >> _BIN_X, (rows[number, Y1] - line) >> _BIN_Y


@njit(cache=True)
def _arrange(counts, heat, places, pairs, pair_count, ends, blocks, heads, lists):  # type: ignore[no-untyped-def]
    """Order the blocks, and the pairs by their bins: lead, drawn, and the length of all lists."""
    down, across = heat.shape
    ranks, drawn = np.zeros(_HEATS + 1, np.int64), np.int64(0)   # by heat, the hottest first
    for y in range(down):
        for x in range(across):
            upper, lower = counts[2 * y], counts[2 * y + 1]
            heat[y, x] = upper[2 * x] + upper[2 * x + 1] + lower[2 * x] + lower[2 * x + 1]
            if heat[y, x] > 0:
                ranks[_coolness(heat[y, x]) + 1] += 1
                drawn += 1
    lead = min(places.shape[0] - drawn, places.shape[0] // _LEAD)
    for k in range(_HEATS):
        ranks[k + 1] += ranks[k]
    n, copied, at, below = 0, 0, 0, counts.shape[1]
    for y in range(down):
        for x in range(across):
            place, n = places[n], n + 1
            if heat[y, x] == 0:
                blocks[copied if copied < lead else copied + drawn] = place
                copied += 1
                continue
            k = _coolness(heat[y, x])
            rank = ranks[k]
            ranks[k] += 1
            blocks[lead + rank] = place
            # Room for the lists of its bins.
            upper, lower = counts[2 * y], counts[2 * y + 1]
            a, b, c, d = upper[2 * x], upper[2 * x + 1], lower[2 * x], lower[2 * x + 1]
            heads[rank, 0], heads[rank, 1] = at, a | b << 8 | c << 16 | d << 24
            if max(max(a, b), max(c, d)) >= 255:
                heads[rank, 1] = 0xFFFFFFFF
                lists[at], lists[at + 2], lists[at + 4], lists[at + 6] = 8, 8 + a, 8 + a + b, 8 + a + b + c
                lists[at + 1], lists[at + 3], lists[at + 5], lists[at + 7] = a, b, c, d
                at += 8
            first = 2 * y * below + 2 * x
            ends[first], ends[first + 1] = at, at + a
            ends[first + below], ends[first + below + 1] = at + a + b, at + a + b + c
            at += a + b + c + d
    for n in range(pair_count):
        number = pairs[0, n]
        lists[ends[number]] = pairs[1, n]
        ends[number] += 1
    return lead, drawn, at


@njit(cache=True)
def _coolness(heat):  # type: ignore[no-untyped-def]
    """0 for a block with most to draw."""
    return _HEATS - 1 - min((heat + 1) >> 1, _HEATS - 1)
