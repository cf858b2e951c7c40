"""Compose on the CPU: N pictures and their overlays -> some rows of one I420 mosaic.

Note [Compose]: the maths, which the CUDA twin repeats exactly. All of it is integer.
An output sample (x, y) of a plane is made in three steps.

1. Scale. `kernels/scaling.py` gives for each axis a first sample f and 14-bit weights w.
   With p the 8-bit source samples (of 16-bit samples the high byte),

       t(j)  = (sum_k wy[k] * p[fy + k, j] + 64) >> 7             15 bits: 8 and 7 of fraction
       value = (sum_k wx[k] * t(fx + k) + (1 << 20)) >> 21        8 bits

   Down first, then across. Both sums fit 31 bits, as the weights add up to 1 << 14.
2. Convert, unless the picture is BT.709 limited already: Note [Colour] with the integers of
   `color.to_bt709_int`, clamped to 0..255. A luma sample takes the chroma sample that covers it.
3. Blend, when the tile is not opaque: (old * (255 - a) + value * a + 127) // 255.

A launch is a table of tiles, drawn in order: rows of int64, so that one array holds both
the addresses of the planes and the rest. Each tile draws its UNDER primitives (bars), its
picture, then its OVER primitives. The mosaic is cut into bands of rows that share nothing:
each may run on a thread of its own, and its rows stay in that core's cache meanwhile.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import carray, njit

from tiler.kernels.addresses import borrow, bytes_at
from tiler.kernels.color import COEFFICIENT_BITS, is_identity, to_bt709_int
from tiler.kernels.primitives_cpu import draw_rows
from tiler.kernels.scale_cpu import Scratch, fetch_ahead, plane_row, product
from tiler.kernels.scaling import Geometry, N
from tiler.types import Frame, Int32, Matrix, UInt8

Int64 = npt.NDArray[np.int64]

# Columns of the tile table. For each plane: address of its first sample (0: no picture), bytes
# from row to row and from sample to sample. TABLE + 0..3: where the axes luma x, luma y, chroma x,
# chroma y begin in `tables`. COLOUR: row of COLOURS, -1 for none. COPY: 1:1, nothing to compute.
PLANES, TABLE, BOX, OPACITY, COLOUR, COPY, UNDER, OVER, END = 0, 9, 13, 17, 18, 19, 20, 21, 22
TILE_COLUMNS = 23

COLOURS: Int32 = np.stack([to_bt709_int(matrix, full) for matrix in Matrix for full in (False, True)])
"""(6, 10) int32: the coefficients of matrix * 2 + full_range."""

_COLOUR_BITS = np.int32(COEFFICIENT_BITS)


def upright_plane(plane: npt.NDArray[Any], rotation: int) -> UInt8:
    """The plane as 8-bit samples, turned upright: a view, whatever its strides."""
    if plane.dtype == np.uint16:
        high = 1 if sys.byteorder == "little" else 0
        plane = plane[:, :, None].view(np.uint8)[:, :, high]
    elif plane.dtype != np.uint8:
        raise ValueError(f"planes must be uint8 or uint16, got {plane.dtype}")
    return np.rot90(plane, -rotation // 90 % 4) if rotation else plane


def pack_picture(row: Int64, frame: Frame, geometry: Geometry, table_at: int, opacity: int) -> None:
    """Fill the columns of a tile that concern its picture.

    Args:
        row: (TILE_COLUMNS,) int64, a row of the tile table.
        frame: keep it alive until the launch has ended: the table holds addresses.
        geometry: of `frame.plane_size` and `frame.rotation`.
        table_at: where `geometry.tables` begins in the launch's `tables`.
        opacity: 0..255.
    """
    for k, plane in enumerate((frame.y, frame.u, frame.v)):
        upright = upright_plane(plane, frame.rotation)
        row[3 * k : 3 * k + 3] = (upright.__array_interface__["data"][0], *upright.strides)
    row[TABLE:BOX] = geometry.offsets
    row[TABLE:BOX] += table_at
    row[BOX:OPACITY] = geometry.box
    identity = is_identity(frame.matrix, frame.full_range)
    row[OPACITY] = opacity
    row[COLOUR] = -1 if identity else 2 * frame.matrix + frame.full_range
    row[COPY] = geometry.copy and identity and opacity == 255


@njit(nogil=True, cache=True)
def compose_rows(
    y: UInt8,
    u: UInt8,
    v: UInt8,
    top: int,
    bottom: int,
    tiles: Int64,
    tables: Int32,
    primitives: Int32,
    atlas: UInt8,
    colours: Int32,
    work: Scratch,
) -> None:
    """Draw the rows [top, bottom) of the mosaic.

    Args:
        y, u, v: the mosaic, C-contiguous uint8 of even size.
        top, bottom: luma rows, even.
        tiles: (n, TILE_COLUMNS) int64, in drawing order.
        tables: the packed axes of all tiles.
        primitives: (m, COLUMNS) int32; a tile draws [UNDER, OVER) before and [OVER, END) after its picture.
        atlas: (H, W) uint8.
        colours: COLOURS.
        work: scratch of this thread.
    """
    y, u, v = borrow(y), borrow(u), borrow(v)
    tiles, tables, primitives = borrow(tiles), borrow(tables), borrow(primitives)
    atlas, colours = borrow(atlas), borrow(colours)
    work = Scratch(
        borrow(work.lines), borrow(work.sums), borrow(work.row), borrow(work.lanes), borrow(work.phases),
        borrow(work.out), borrow(work.cover),
    )  # fmt: skip
    for n in range(tiles.shape[0]):
        tile = tiles[n]
        draw_rows(y, u, v, top, bottom, primitives[tile[UNDER] : tile[OVER]], atlas, work.cover)
        if tile[PLANES] != 0:
            begin = max(top, tile[BOX + 1])
            end = min(bottom, tile[BOX + 1] + tile[BOX + 3])
            for at in range(begin, end, 2):
                _picture_strip(y, u, v, at, tile, tables, colours, work)
        draw_rows(y, u, v, top, bottom, primitives[tile[OVER] : tile[END]], atlas, work.cover)


@njit(nogil=True, inline="always")
def _picture_strip(y, u, v, at, tile, tables, colours, work):  # type: ignore[no-untyped-def]
    """Two luma rows and one chroma row of a tile's picture."""
    x, width = tile[BOX], tile[BOX + 2]
    half, end, i = x >> 1, (x + width) >> 1, at - tile[BOX + 1]
    plain = tile[COLOUR] < 0 and tile[OPACITY] == 255
    for k in range(4):   # upper and lower luma row, u, v
        if k < 2:
            plane, table, source, target = 0, tile[TABLE:], i + k, y[at + k, x : x + width]
        else:
            plane, table, source = 3 * (k - 1), tile[TABLE + 2 :], i >> 1
            target = (u if k == 2 else v)[at >> 1, half:end]
        across, down = tables[table[0] :], tables[table[1] :]
        samples = tile[plane : plane + 3]
        if not plain:
            target = work.out[k, : target.shape[0]]
        plane_row(samples, across, down, source, tile[COPY] != 0, target, work)
        if k != 0 and source + 1 < down[N]:
            following = min(source + (2 if k == 1 else 1), down[N] - 1)
            fetch_ahead(samples, across, down, source, following)
    if plain:
        return
    upper, lower = work.out[0, :width], work.out[1, :width]
    new_u, new_v = work.out[2, : end - half], work.out[3, : end - half]
    if tile[COLOUR] >= 0:
        coefficients = colours[tile[COLOUR]]
        _convert_luma(upper, new_u, new_v, coefficients)
        _convert_luma(lower, new_u, new_v, coefficients)
        _convert_chroma(new_u, new_v, coefficients)
    _blend(y[at, x : x + width], upper, tile[OPACITY])
    _blend(y[at + 1, x : x + width], lower, tile[OPACITY])
    _blend(u[at >> 1, half:end], new_u, tile[OPACITY])
    _blend(v[at >> 1, half:end], new_v, tile[OPACITY])


@njit(nogil=True, cache=True)
def _clamped(total):  # type: ignore[no-untyped-def]
    return np.uint8(min(max(np.int32(total) >> _COLOUR_BITS, np.int32(0)), np.int32(255)))


@njit(nogil=True, cache=True)
def _convert_luma(line, line_u, line_v, k):  # type: ignore[no-untyped-def]
    k0, k1, k2, k3 = k[0], k[1], k[2], k[3]
    pair = carray(bytes_at(np.int64(line.ctypes.data)), (line_u.shape[0], 2))
    for x in range(line_u.shape[0]):
        colour = np.int32(np.int32(product(k1, line_u[x]) + product(k2, line_v[x])) + k3)
        pair[x, 0] = _clamped(product(k0, pair[x, 0]) + colour)
        pair[x, 1] = _clamped(product(k0, pair[x, 1]) + colour)


@njit(nogil=True, cache=True)
def _convert_chroma(line_u, line_v, k):  # type: ignore[no-untyped-def]
    k4, k5, k6, k7, k8, k9 = k[4], k[5], k[6], k[7], k[8], k[9]
    for x in range(line_u.shape[0]):
        a, b = line_u[x], line_v[x]
        line_u[x] = _clamped(np.int32(product(k4, a) + product(k5, b)) + k6)
        line_v[x] = _clamped(np.int32(product(k7, a) + product(k8, b)) + k9)


@njit(nogil=True, cache=True)
def _blend(out, new, a):  # type: ignore[no-untyped-def]
    if a == 255:
        for x in range(out.shape[0]):
            out[x] = new[x]
        return
    keep, add = np.uint32(255 - a), np.uint32(a)
    for x in range(out.shape[0]):
        w = np.uint32(np.uint32(out[x]) * keep + np.uint32(new[x]) * add + np.uint32(127))
        out[x] = np.uint32(w + np.uint32(1) + (w >> np.uint32(8))) >> np.uint32(8)
