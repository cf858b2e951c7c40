"""What `compose.cu` takes: the table of tiles, and primitives as they travel."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from tiler.kernels.color import is_identity
from tiler.kernels.plane_cuda import address
from tiler.kernels.primitives import (
    AFTER,
    ALPHA,
    CB,
    CLIP_X0,
    CLIP_X1,
    CLIP_Y0,
    CLIP_Y1,
    CR,
    KIND,
    LUMA,
    X0,
    X1,
    Y0,
    Y1,
    A,
    B,
    Kind,
)
from tiler.kernels.primitives_cpu import touched
from tiler.kernels.scaling import FIRST_SAMPLE, HEADER, TAPS, Geometry, N
from tiler.types import Frame, Int32

# Columns of the table of tiles.
PLANES = 0
"""For y, u, v: address of the first sample (0: no picture), bytes to the next row and to the next sample."""
TABLE = 9
"""Where the axes luma x, luma y, chroma x, chroma y begin in the tables."""
BOX = 13
"""x, y, width, height of the visible part of the picture, mosaic samples, even."""
OPACITY, COLOUR = 17, 18
"""0..255; row of COLOURS, -1 for none."""
MODE, ORIGIN = 19, 20
"""A kind of `Mode`, and PAIRS if u and v lie side by side on even addresses; then its origin."""
REACH = 24
"""x0, y0, x1, y1: outside of it the tile draws nothing; within the mosaic."""
UNDER, OVER, END = 28, 29, 30
"""Its primitives: [UNDER, OVER) before the picture, [OVER, END) after it."""
TILE_COLUMNS = 31
MODE_TABLES, MODE_COPY, MODE_HALF, PAIRS = 0, 1, 2, 4

TILE_WORDS = 20
"""int64 words of a tile as it travels."""
_PICTURE, _QUICK_LUMA, _QUICK_CHROMA, _HALF, _PAIRS = 1, 2, 4, 8, 16
ROW_WORDS = 8
"""int32 words of a primitive as it travels."""
BESIDE_ATLAS = 8
"""Rows before and behind the atlas on the device, which are read and not used."""
BIN = (64, 8)
"""Mosaic samples of a bin: what a warp covers."""

Int64 = npt.NDArray[np.int64]


@njit(cache=True)
def pack_rows(rows: Int32, out: Int32) -> None:
    """Primitives (n, COLUMNS) int32 -> (n, ROW_WORDS) int32, as `struct Row` of compose.cu.

    Clips must be within int16: mosaics of at most 8192 pixels a side keep to that. A width beyond 65535 (LINE) or
    16383 (FRAME) is cut off; an atlas is at most 1024 x 4096.
    """
    for i in range(rows.shape[0]):
        row, packed = rows[i], out[i]
        alpha = min(max(row[ALPHA], 0), 255)
        packed[0] = row[LUMA] | row[CB] << 8 | row[CR] << 16 | alpha << 24
        packed[1], packed[2], packed[3], packed[4] = row[X0], row[Y0], row[X1], row[Y1]
        kind, shape = row[KIND], np.int32(0)
        if kind == Kind.LINE:
            shape = np.int32(min(int(row[A]), 0xFFFF))
        elif kind == Kind.FRAME:
            shape = np.int32(min(int(row[A]), 0x3FFF) | min(max(int(row[B]), 0), 255) << 14)
        elif kind == Kind.GLYPH:
            shape = row[A] | row[B] << 10
        packed[5] = shape | row[AFTER] << 22 | kind << 30
        packed[6] = row[CLIP_X0] & 0xFFFF | row[CLIP_Y0] << 16
        packed[7] = row[CLIP_X1] & 0xFFFF | row[CLIP_Y1] << 16


@njit(cache=True)
def pack_launch(words, longs, tiles_at, rows_at, blocks, tiles, rows, heads, lists):  # type: ignore[no-untyped-def]
    """Put all that a launch is told where it is copied from: how many words of 32 bits that is, from the first.

    In one compiled call, as NumPy lets go of the interpreter for each of the arrays, and has to queue for it.

    Args:
        words, longs: the same memory as int32 and as int64; the blocks come first.
        tiles_at, rows_at: where the tiles come, in longs, and the primitives, in words; the heads come after these, and
            the lists after those.
        blocks, heads, lists: of the `Plan`.
        tiles: (n, TILE_WORDS) int64, of `pack_tiles`.
        rows: (m, COLUMNS) int32, the primitives.
    """
    for i in range(blocks.shape[0]):
        words[i] = blocks[i]
    for i in range(tiles.shape[0]):
        for k in range(TILE_WORDS):
            longs[tiles_at + i * TILE_WORDS + k] = tiles[i, k]
    at = rows_at + rows.shape[0] * ROW_WORDS
    pack_rows(rows, words[rows_at:at].reshape(-1, ROW_WORDS))
    for i in range(heads.shape[0]):
        words[at + 2 * i], words[at + 2 * i + 1] = heads[i, 0], heads[i, 1]
    at += 2 * heads.shape[0]
    for i in range(lists.shape[0]):
        words[at + i] = lists[i]
    return at + lists.shape[0]


class Turned(NamedTuple):
    """Where the samples of a plane lie once the picture is upright: address, bytes to the next row and sample."""

    address: int
    row_step: int
    step: int


def turned(plane: Any, rotation: int) -> Turned:
    """The plane (H, W) on the device, turned upright without touching it; of 16-bit samples the high byte."""
    first, (row_step, step), (height, width) = address(plane), plane.strides, plane.shape
    if rotation == 0:
        return Turned(first, row_step, step)
    if rotation == 90:
        return Turned(first + (height - 1) * row_step, step, -row_step)
    if rotation == 180:
        return Turned(first + (height - 1) * row_step + (width - 1) * step, -row_step, -step)
    return Turned(first + (width - 1) * step, -step, row_step)


class Mode(NamedTuple):
    """How a tile's picture is scaled: MODE_COPY and MODE_HALF need no tables.

    Attributes:
        kind: MODE_TABLES, MODE_COPY (1:1) or MODE_HALF (2:1 from whole samples on).
        origin: source samples of the box's top left: luma x, luma y, chroma x, chroma y.
    """

    kind: int
    origin: tuple[int, int, int, int] = (0, 0, 0, 0)


def scale_mode(geometry: Geometry) -> Mode:
    """The fastest mode that gives what the geometry's tables say."""
    axes = [geometry.tables[offset:] for offset in geometry.offsets]
    origin = tuple(int(axis[FIRST_SAMPLE] + axis[HEADER]) for axis in axes)
    if geometry.copy:
        return Mode(MODE_COPY, (origin[0], origin[1], origin[2], origin[3]))
    plain = all(_halves(axes[k], (8192, 8192), origin[k]) for k in (0, 1, 3))
    # Chroma is sited a quarter of an output sample to the left: three taps, the first one a sample earlier.
    second = int(axes[2][FIRST_SAMPLE] + axes[2][HEADER + 1]) - 1 if axes[2][N] > 1 else -1
    if plain and second >= 0 and _halves(axes[2], (2048, 8192, 6144), second - 1):
        return Mode(MODE_HALF, (origin[0], origin[1], second, origin[3]))
    return Mode(MODE_TABLES)


def _halves(axis: Int32, weights: tuple[int, ...], begin: int) -> bool:
    """Whether output i is the weighted sum of samples begin + 2 i, ...; one before the picture being its first."""
    n, taps = int(axis[N]), int(axis[TAPS])
    if taps != len(weights):
        return False
    first = axis[HEADER : HEADER + n] + axis[FIRST_SAMPLE]
    table = axis[HEADER + n : HEADER + n + taps * n].reshape(n, taps)
    skipped = 0
    if begin < 0:  # output 0 begins one sample before the picture: that sample's weight is the first one's
        skipped = 1
        folded = (weights[0] + weights[1], *weights[2:], 0)
        if begin != -1 or first[0] != 0 or tuple(table[0].tolist()) != folded:
            return False
    index = np.arange(skipped, n)
    return bool((first[skipped:] == begin + 2 * index).all() and (table[skipped:] == weights).all())


def reach(rectangle: tuple[int, int, int, int], size: tuple[int, int]) -> list[int]:
    """REACH of a tile: a rectangle x0, y0, x1, y1 as far as it lies within a mosaic of `size`."""
    return [min(max(v, 0), s) for v, s in zip(rectangle, (*size, *size), strict=True)]


def pack_placement(row: Int64, geometry: Geometry, mode: Mode, table_at: int, opacity: int) -> None:
    """The columns of a tile that change with its geometry only.

    Args:
        row: (TILE_COLUMNS,) int64, a row of the table of tiles.
        mode: of `scale_mode`.
        table_at: where `geometry.tables` begins in the tables on the device.
        opacity: 0..255.
    """
    row[TABLE:BOX] = geometry.offsets
    row[TABLE:BOX] += table_at
    row[BOX:OPACITY] = geometry.box
    row[OPACITY], row[ORIGIN : ORIGIN + 4] = opacity, mode.origin


class Planes(NamedTuple):
    """What the table of tiles says of a picture, whatever tile shows it.

    Attributes:
        columns: (9,) int64, PLANES.
        colour: COLOUR.
        pairs: PAIRS, or 0.
    """

    columns: Int64
    colour: int
    pairs: int


def planes_of(frame: Frame) -> Planes:
    """Where the samples of a picture lie, upright."""
    y, u, v = (turned(plane, frame.rotation) for plane in (frame.y, frame.u, frame.v))
    colour = -1 if is_identity(frame.matrix, frame.full_range) else 2 * frame.matrix + frame.full_range
    side_by_side = v.address == u.address + 1 and u.address % 2 == 0 and u.row_step % 2 == 0 and u.step % 2 == 0
    return Planes(np.array((*y, *u, *v), np.int64), colour, PAIRS if side_by_side else 0)


def pack_picture(row: Int64, planes: Planes, mode: Mode) -> None:
    """The columns of a tile that change with its picture. Keep the frame until the launch has ended."""
    row[PLANES : PLANES + 9] = planes.columns
    row[COLOUR], row[MODE] = planes.colour, mode.kind | planes.pairs


@njit(cache=True)
def pack_tiles(table: Int64, rows: Int32, out: Int64) -> None:
    """The tiles (n, TILE_COLUMNS) -> (n, TILE_WORDS) int64, as `struct Tile` of compose.cu.

    A tile's primitives, of `rows`, begin where those of the one before end. Coordinates are below 32768. Of a tile
    without a picture, the columns of its last one are not used, and it reaches no further than its primitives.
    """
    for i in range(table.shape[0]):
        tile, packed = table[i], out[i]
        x0, y0, x1, y1 = tile[REACH], tile[REACH + 1], tile[REACH + 2], tile[REACH + 3]
        if tile[PLANES] == 0:
            x0, y0, x1, y1 = _drawn_on(rows[tile[UNDER] : tile[END]], x0, y0, x1, y1)

        left, top = tile[BOX], tile[BOX + 1]
        right, bottom = left + tile[BOX + 2], top + tile[BOX + 3]
        half = np.int64(tile[MODE] & ~PAIRS == MODE_HALF)
        x, y, chroma_x, chroma_y = tile[ORIGIN], tile[ORIGIN + 1], tile[ORIGIN + 2], tile[ORIGIN + 3]
        luma = tile[PLANES] + (y - (top << half)) * tile[PLANES + 1] + x - (left << half)
        chroma = tile[PLANES + 3] + (chroma_y - (top // 2 << half)) * tile[PLANES + 4] + 2 * chroma_x - (left << half)
        flags = _flags(tile, luma, chroma)

        packed[0] = _bins(x0 // BIN[0], y0 // BIN[1], -(-x1 // BIN[0]), -(-y1 // BIN[1]))
        packed[1] = _bins(0, 0, 0, 0)
        quick = flags & _QUICK_LUMA and flags & _QUICK_CHROMA
        if quick and tile[OPACITY] == 255 and tile[COLOUR] < 0:   # its samples are the mosaic's as they are read
            packed[1] = _bins(
                -(-max(left, 0) // BIN[0]), -(-max(top, 0) // BIN[1]), max(right, 0) // BIN[0], max(bottom, 0) // BIN[1]
            )
        packed[2], packed[3] = _corners(left, top, right, bottom), _pair(tile[OVER], tile[END])
        packed[4], packed[5], packed[6] = _pair(flags, left - chroma_x), luma, chroma
        packed[7], packed[8] = _pair(tile[PLANES + 1], tile[PLANES + 4]), _pair(tile[OPACITY], tile[COLOUR])
        for k in range(9):
            packed[9 + k] = tile[PLANES + k]
        packed[18], packed[19] = _pair(tile[TABLE], tile[TABLE + 1]), _pair(tile[TABLE + 2], tile[TABLE + 3])


@njit(cache=True)
def _drawn_on(rows, x0, y0, x1, y1):  # type: ignore[no-untyped-def]
    """The part of a rectangle that primitives touch; zeros for none."""
    left, top, right, bottom = x1, y1, x0, y0
    for n in range(rows.shape[0]):
        box = touched(rows, n, y0, y1, x1)
        if box[1] < box[3]:
            left, top = min(left, max(box[0], x0)), min(top, box[1])
            right, bottom = max(right, box[2]), max(bottom, box[3])
    return (left, top, right, bottom) if left < right and top < bottom else (0, 0, 0, 0)


@njit(cache=True)
def _flags(tile, luma, chroma):  # type: ignore[no-untyped-def]
    """What is so of a tile's picture, of which these are the samples that would lie on the mosaic's first."""
    if tile[PLANES] == 0:
        return 0
    kind, pairs = tile[MODE] & ~PAIRS, tile[MODE] & PAIRS != 0
    loose = 15 if kind == MODE_HALF else 7   # bits of an address that whole words do not have
    flags = _PICTURE + _HALF * (kind == MODE_HALF) + _PAIRS * pairs
    if kind != MODE_TABLES:
        if tile[PLANES + 2] == 1 and (luma | tile[PLANES + 1]) & loose == 0:
            flags += _QUICK_LUMA
        if pairs and tile[PLANES + 5] == 2 and (chroma | tile[PLANES + 4]) & loose == 0:
            flags += _QUICK_CHROMA
    return flags


@njit(cache=True)
def _pair(low, high):  # type: ignore[no-untyped-def]
    """Two int32 in an int64."""
    return low & 0xFFFFFFFF | high << 32


@njit(cache=True)
def _bins(x0, y0, x1, y1):  # type: ignore[no-untyped-def]
    """Half-open, as `struct Bins` of compose.cu."""
    if x0 >= x1 or y0 >= y1:
        return _pair(0x7FFF7FFF, 0x80008000)
    return _pair(x0 | y0 << 16, (x1 - 1 | y1 - 1 << 16) | 0x80008000)


@njit(cache=True)
def _corners(x0, y0, x1, y1):  # type: ignore[no-untyped-def]
    """Four int16 in an int64."""
    return x0 & 0xFFFF | (y0 & 0xFFFF) << 16 | (x1 & 0xFFFF) << 32 | y1 << 48
