"""What `compose.cu` takes: the table of tiles, primitives as they travel, and where their marks lie."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from tiler.kernels.color import is_identity
from tiler.kernels.plane_cuda import address
from tiler.kernels.primitives import (
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
)
from tiler.kernels.scaling import FIRST_SAMPLE, HEADER, TAPS, Geometry, N
from tiler.types import Frame, Int32

# Columns of the tile table; see compose.cu.
PLANES, TABLE, BOX, OPACITY, COLOUR, MODE = 0, 9, 13, 17, 18, 19
REACH, MASKS, UNDER, OVER, END, ORIGIN = 20, 21, 22, 23, 24, 25
TILE_COLUMNS = 30
MODE_TABLES, MODE_COPY, MODE_HALF, PAIRS = 0, 1, 2, 4
ROW_WORDS = 8
"""int32 words of a primitive as it travels."""
_BIN = (64, 8)
"""Mosaic samples of a bin: what a warp covers."""
_BITS = 64
"""Primitives to a word of a mask."""

Int64 = npt.NDArray[np.int64]


@njit(cache=True)
def pack_rows(rows: Int32, out: Int32) -> None:
    """Primitives (n, COLUMNS) int32 -> (n, ROW_WORDS) int32, as `struct Row` of compose.cu.

    Widths and atlas coordinates must be below 65536 and 16384, clips within int16: mosaics of at
    most 8192 pixels a side keep to both.
    """
    for i in range(rows.shape[0]):
        row, packed = rows[i], out[i]
        alpha = min(max(row[ALPHA], 0), 255)
        packed[0] = row[LUMA] | row[CB] << 8 | row[CR] << 16 | alpha << 24
        packed[1], packed[2], packed[3], packed[4] = row[X0], row[Y0], row[X1], row[Y1]
        packed[5] = row[A] | row[B] << 16 | row[KIND] << 30
        packed[6] = row[CLIP_X0] & 0xFFFF | row[CLIP_Y0] << 16
        packed[7] = row[CLIP_X1] & 0xFFFF | row[CLIP_Y1] << 16


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


def pack_reach(rectangle: tuple[int, int, int, int], size: tuple[int, int]) -> int:
    """REACH of a tile: x0, y0, x1, y1 within a mosaic of `size`, 16 bits each, x0 lowest."""
    x0, y0, x1, y1 = (min(max(v, 0), s) for v, s in zip(rectangle, (*size, *size), strict=True))
    return x0 | y0 << 16 | x1 << 32 | y1 << 48


def pack_placement(row: Int64, geometry: Geometry, mode: Mode, table_at: int, opacity: int) -> None:
    """The columns of a tile that change with its geometry only.

    Args:
        row: (TILE_COLUMNS,) int64, a row of the tile table.
        mode: of `scale_mode`.
        table_at: where `geometry.tables` begins in the tables on the device.
        opacity: 0..255.
    """
    row[TABLE:BOX] = geometry.offsets
    row[TABLE:BOX] += table_at
    row[BOX:OPACITY] = geometry.box
    row[OPACITY], row[ORIGIN : ORIGIN + 4] = opacity, mode.origin


class Planes(NamedTuple):
    """What the tile table says of a picture, whatever tile shows it.

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
def pack_spans(table: Int64, spans: Int64) -> int:
    """The columns of all tiles that change with their primitives: UNDER, OVER and END, and where their masks lie.

    Args:
        table: (n, TILE_COLUMNS) int64, the tile table; its REACH is used.
        spans: (n, 3) int64, UNDER, OVER, END of each tile: a tile's primitives begin where those of the one before end.

    Returns:
        int64 words of the masks.
    """
    words = 0
    for i in range(table.shape[0]):
        tile, reach = table[i], table[i, REACH]
        x0, y0, x1, y1 = reach & 0xFFFF, reach >> 16 & 0xFFFF, reach >> 32 & 0xFFFF, reach >> 48 & 0xFFFF
        across = (x1 + _BIN[0] - 1) // _BIN[0] - x0 // _BIN[0]
        down = (y1 + _BIN[1] - 1) // _BIN[1] - y0 // _BIN[1]
        tile[MASKS] = words
        for k in range(3):
            tile[UNDER + k] = spans[i, k]
        words += across * down * ((spans[i, 2] - spans[i, 0] + _BITS - 1) // _BITS)
    return words
