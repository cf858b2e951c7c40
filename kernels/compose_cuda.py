"""Compose on CUDA: what `compose.cu` takes, and its launch. The maths is Note [Compose] of `compose_cpu.py`."""

from __future__ import annotations

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
UNDER, OVER, END, REACH, ORIGIN = 20, 21, 22, 23, 24
TILE_COLUMNS = 28
MODE_TABLES, MODE_COPY, MODE_HALF, PAIRS = 0, 1, 2, 4
ROW_WORDS = 8
"""int32 words of a primitive as it travels."""
GROUP = 16
"""Primitives that share one bounding box."""
BOUNDS_WORDS = 8
"""int16 words of the bounds of a primitive, or of GROUP of them."""
_THREADS = 256
_BLOCK = (128, 32)
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
    row[OPACITY], row[ORIGIN:] = opacity, mode.origin


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


def bound_rows(rows: Any, count: int, size: tuple[int, int], bounds: Any, groups: Any) -> None:
    """Bounding boxes of `count` primitives and of each GROUP of them, on the current stream.

    Args:
        rows: (>= count, ROW_WORDS) int32 on the device.
        size: width, height of the mosaic.
        bounds: (>= count, BOUNDS_WORDS) int16, groups: (>= ceil(count / GROUP), BOUNDS_WORDS) int16; written.
    """
    if count:
        arguments = (rows, np.int32(count), np.int32(size[0]), np.int32(size[1]), bounds, groups)
        launch(kernel("compose", "bound_rows"), (-(-count // 256),), (256,), arguments)


def compose(
    nv12: Any,
    background: tuple[int, int, int],
    tiles: Any,
    tile_count: int,
    tables: Any,
    rows: Any,
    bounds: Any,
    groups: Any,
    atlas: Any,
    colours: Any,
) -> None:
    """Draw the whole mosaic on the current stream, after `bound_rows` on the same.

    Args:
        nv12: (H * 3 / 2, W) uint8, C-contiguous, H and W even; every byte is written.
        background: Y, Cb, Cr behind everything.
        tiles: (>= tile_count, TILE_COLUMNS) int64, in drawing order.
        tables: the packed axes of all tiles, int32.
        rows, bounds, groups: see `bound_rows`.
        atlas: (h, w) uint8 coverage of glyphs.
        colours: (6, 10) int32, COLOURS of compose_cpu.py.
    """
    width, height = nv12.shape[1], nv12.shape[0] * 2 // 3
    shade = np.uint32(background[0] | background[1] << 8 | background[2] << 16)
    grid = (-(-width // _BLOCK[0]), -(-height // _BLOCK[1]))
    launch(
        kernel("compose", "compose"), grid, (_THREADS,),
        (nv12, np.int32(width), np.int32(height), shade, tiles, np.int32(tile_count), tables, rows, bounds, groups,
         atlas, np.int32(atlas.shape[1]), colours),
    )  # fmt: skip
