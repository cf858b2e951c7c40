"""Compose on CUDA: what `compose.cu` takes, and its launch. The maths is Note [Compose] of `compose_cpu.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from tiler.kernels.color import is_identity
from tiler.kernels.enqueue_cuda import launch
from tiler.kernels.module_cuda import kernel
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
_BIN_THREADS, _THREADS = 128, 128
_BIN_ROWS = 16
"""Primitives that a block of threads marks."""
_BLOCK = (128, 16)
"""Mosaic samples that a block of threads covers."""

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


def pack_spans(table: Int64, spans: Sequence[tuple[int, int, int]]) -> int:
    """The columns of all tiles that change with their primitives: UNDER, OVER and END, and where their masks lie.

    Args:
        table: (n, TILE_COLUMNS) int64, the tile table; its REACH is used.
        spans: UNDER, OVER, END of each tile: a tile's primitives begin where those of the tile before it end.

    Returns:
        int64 words of the masks.
    """
    table[:, UNDER : END + 1] = spans
    x0, y0, x1, y1 = (table[:, REACH] >> 16 * k & 0xFFFF for k in range(4))
    bins = (-(-x1 // _BIN[0]) - x0 // _BIN[0]) * (-(-y1 // _BIN[1]) - y0 // _BIN[1])
    ends = np.cumsum(bins * -(-(table[:, END] - table[:, UNDER]) // _BITS))
    table[0, MASKS], table[1:, MASKS] = 0, ends[:-1]
    return int(ends[-1])


def bin_rows(rows: Any, count: int, tiles: Any, tile_count: int, masks: Any) -> None:
    """Mark `count` primitives in the bins that they touch, on the current stream; `compose` clears them again.

    Args:
        rows: (>= count, ROW_WORDS) int32 on the device.
        tiles: (>= tile_count, TILE_COLUMNS) int64, in drawing order, on an address divisible by 16.
        masks: as many int64 as `pack_spans` says, or more; all 0.
    """
    if count:
        arguments = (rows, np.int32(count), tiles, np.int32(tile_count), masks)
        launch(kernel("compose", "bin_rows"), (-(-count // _BIN_ROWS),), (_BIN_THREADS,), arguments)


def compose(
    nv12: Any,
    background: tuple[int, int, int],
    tiles: Any,
    tile_count: int,
    tables: Any,
    rows: Any,
    masks: Any,
    atlas: Any,
    colours: Any,
) -> None:
    """Draw the whole mosaic on the current stream, after `bin_rows` on the same.

    Args:
        nv12: (H * 3 / 2, W) uint8, C-contiguous, H and W even; every byte is written.
        background: Y, Cb, Cr behind everything.
        tables: the packed axes of all tiles, int32.
        tiles, tile_count, rows, masks: see `bin_rows`.
        atlas: (h, w) uint8 coverage of glyphs.
        colours: (6, 10) int32, COLOURS of compose_cpu.py.
    """
    width, height = nv12.shape[1], nv12.shape[0] * 2 // 3
    shade = np.uint32(background[0] | background[1] << 8 | background[2] << 16)
    grid = (-(-width // _BLOCK[0]), -(-height // _BLOCK[1]))
    launch(
        kernel("compose", "compose"), grid, (_THREADS,),
        (nv12, np.int32(width), np.int32(height), shade, tiles, np.int32(tile_count), tables, rows, masks, atlas,
         np.int32(atlas.shape[1]), colours),
    )  # fmt: skip
