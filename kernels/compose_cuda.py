"""Compose on CUDA: what `compose.cu` takes, and its launch. The maths is Note [Compose] of `compose_cpu.py`."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tiler.kernels.color import is_identity
from tiler.kernels.module_cuda import kernel
from tiler.kernels.primitives import (
    ALPHA,
    CB,
    CLIP_X0,
    CR,
    KIND,
    LUMA,
    X0,
    Y1,
    A,
    B,
)
from tiler.kernels.scaling import FIRST_SAMPLE, HEADER, TAPS, Geometry, N
from tiler.types import Frame, Int32

# Columns of the tile table; see compose.cu.
PLANES, TABLE, BOX, OPACITY, COLOUR, MODE, UNDER, OVER, END, REACH = 0, 9, 13, 17, 18, 19, 20, 21, 22, 23
TILE_COLUMNS = 27
MODE_TABLES, MODE_COPY, MODE_HALF, PAIRS = 0, 1, 2, 4
ROW_WORDS = 8
"""int32 words of a primitive as it travels."""
GROUP = 32
"""Primitives that share one bounding box."""
_BLOCK = (32, 8)
_CELL = (8 * 32, 2 * 8)

Int64 = npt.NDArray[np.int64]


def pack_rows(rows: Int32, out: Int32) -> None:
    """Primitives (n, COLUMNS) int32 -> (n, ROW_WORDS) int32, as `struct Row` of compose.cu.

    Widths and atlas coordinates must be below 65536 and 16384, clips within int16: mosaics of at
    most 8192 pixels a side keep to both.
    """
    out[:, 0] = rows[:, LUMA] | rows[:, CB] << 8 | rows[:, CR] << 16 | np.clip(rows[:, ALPHA], 0, 255) << 24
    out[:, 1:5] = rows[:, X0 : Y1 + 1]
    out[:, 5] = rows[:, A] | rows[:, B] << 16 | rows[:, KIND] << 30
    out[:, 6:8].view(np.int16)[...] = rows[:, CLIP_X0:]


class Turned(NamedTuple):
    """Where the samples of a plane lie once the picture is upright: address, bytes to the next row and sample."""

    address: int
    row_step: int
    step: int


def turned(plane: Any, rotation: int) -> Turned:
    """The plane (H, W) on the device, turned upright without touching it; of 16-bit samples the high byte."""
    address, (row_step, step), (height, width) = plane.data.ptr, plane.strides, plane.shape
    if plane.dtype.itemsize == 2 and sys.byteorder == "little":
        address += 1
    if rotation == 0:
        return Turned(address, row_step, step)
    if rotation == 90:
        return Turned(address + (height - 1) * row_step, step, -row_step)
    if rotation == 180:
        return Turned(address + (height - 1) * row_step + (width - 1) * step, -row_step, -step)
    return Turned(address + (width - 1) * step, -step, row_step)


def scale_mode(geometry: Geometry) -> int:
    """MODE_COPY, MODE_HALF (the mean of 2 x 2 luma samples, 2:1 from an even sample on) or MODE_TABLES."""
    if geometry.copy:
        return MODE_COPY
    for offset in geometry.offsets[:2]:
        table = geometry.tables[offset:]
        n, taps = int(table[N]), int(table[TAPS])
        if taps != 2 or (table[HEADER : HEADER + n] != 2 * np.arange(n)).any():
            return MODE_TABLES
        if (table[HEADER + n : HEADER + n + 2 * n] != 8192).any() or table[FIRST_SAMPLE] < 0:
            return MODE_TABLES
    return MODE_HALF


def pack_placement(row: Int64, geometry: Geometry, mode: int, table_at: int, opacity: int) -> None:
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
    row[OPACITY], row[MODE] = opacity, mode


def pack_picture(row: Int64, frame: Frame, mode: int) -> None:
    """The columns of a tile that change with its picture. Keep the frame until the launch has ended."""
    y, u, v = (turned(plane, frame.rotation) for plane in (frame.y, frame.u, frame.v))
    row[PLANES : PLANES + 9] = (*y, *u, *v)
    row[COLOUR] = -1 if is_identity(frame.matrix, frame.full_range) else 2 * frame.matrix + frame.full_range
    side_by_side = v.address == u.address + 1 and u.address % 2 == 0 and u.row_step % 2 == 0 and u.step % 2 == 0
    row[MODE] = mode | (PAIRS if side_by_side else 0)


def bound_rows(rows: Any, count: int, size: tuple[int, int], bounds: Any, groups: Any) -> None:
    """Bounding boxes of `count` primitives and of each GROUP of them, on the current stream.

    Args:
        rows: (>= count, ROW_WORDS) int32 on the device.
        size: width, height of the mosaic.
        bounds: (>= count, 4) int16, groups: (>= ceil(count / GROUP), 4) int16; both are written.
    """
    if count:
        arguments = (rows, np.int32(count), np.int32(size[0]), np.int32(size[1]), bounds, groups)
        kernel("compose", "bound_rows")((-(-count // 256),), (256,), arguments)


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
    grid = (-(-width // _CELL[0]), -(-height // _CELL[1]))
    kernel("compose", "compose")(
        grid, _BLOCK,
        (nv12, np.int32(width), np.int32(height), shade, tiles, np.int32(tile_count), tables, rows, bounds, groups,
         atlas, np.int32(atlas.shape[1]), colours),
    )  # fmt: skip
