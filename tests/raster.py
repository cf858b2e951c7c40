"""A plain NumPy rasteriser of the overlay primitives, to look at and to test what is drawn."""

from __future__ import annotations

import numpy as np

from tiler.kernels.primitives import ALPHA, CLIP_X0, KIND, LUMA, X0, A, B, Kind


def draw(planes: tuple[np.ndarray, np.ndarray, np.ndarray], rows: np.ndarray, texture: np.ndarray) -> None:
    """Draw rows over an I420 picture of even size, in place, as Note [Blending] says."""
    luma, cb, cr = planes
    for row in rows.tolist():
        coverage, (x0, y0, x1, y1) = _coverage(row, texture, luma.shape)
        if x0 >= x1 or y0 >= y1:
            continue
        clip_x0, clip_y0, clip_x1, clip_y1 = row[CLIP_X0:]
        c = (coverage * row[ALPHA] + 127) // 255
        ys, xs = np.mgrid[y0:y1, x0:x1]
        c[(xs < clip_x0) | (xs >= clip_x1) | (ys < clip_y0) | (ys >= clip_y1)] = 0
        _blend(luma, slice(y0, y1), slice(x0, x1), row[LUMA], c)
        quarter = (c.reshape(c.shape[0] // 2, 2, -1, 2).sum((1, 3)) + 2) // 4
        for plane, value in ((cb, row[LUMA + 1]), (cr, row[LUMA + 2])):
            _blend(plane, slice(y0 // 2, y1 // 2), slice(x0 // 2, x1 // 2), value, quarter)


def _blend(plane: np.ndarray, ys: slice, xs: slice, value: int, c: np.ndarray) -> None:
    plane[ys, xs] = (plane[ys, xs].astype(np.int64) * (255 - c) + value * c + 127) // 255


def _coverage(
    row: list[int], texture: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """Coverage over an even rectangle that holds the primitive, and that rectangle, within the picture."""
    x0, y0, x1, y1 = row[X0 : X0 + 4]
    bounds = [x0, y0, x1, y1]
    if row[KIND] == Kind.LINE:
        reach = row[A] // 16 + 2
        bounds = [min(x0, x1) // 16 - reach, min(y0, y1) // 16 - reach,
                  max(x0, x1) // 16 + reach, max(y0, y1) // 16 + reach]
    left, top = (max(0, value) // 2 * 2 for value in bounds[:2])
    right, bottom = min(size[1], bounds[2] + bounds[2] % 2), min(size[0], bounds[3] + bounds[3] % 2)
    if left >= right or top >= bottom:
        return np.empty((0, 0), np.int64), (0, 0, 0, 0)
    ys, xs = np.mgrid[top:bottom, left:right]
    inside = (xs >= x0) & (xs < x1) & (ys >= y0) & (ys < y1)
    if row[KIND] == Kind.FILL:
        coverage = inside * 255
    elif row[KIND] == Kind.FRAME:
        inner = (xs >= x0 + row[A]) & (xs < x1 - row[A]) & (ys >= y0 + row[A]) & (ys < y1 - row[A])
        coverage = (inside & ~inner) * 255
    elif row[KIND] == Kind.GLYPH:
        u, v = np.clip(xs - x0, 0, x1 - x0 - 1) + row[A], np.clip(ys - y0, 0, y1 - y0 - 1) + row[B]
        coverage = np.where(inside, texture[v, u], 0).astype(np.int64)
    else:
        ax, ay, bx, by = (value / 16 for value in row[X0 : X0 + 4])
        dx, dy = bx - ax, by - ay
        along = ((xs + 0.5 - ax) * dx + (ys + 0.5 - ay) * dy) / max(dx * dx + dy * dy, 1e-12)
        along = np.clip(along, 0, 1)
        distance = np.hypot(xs + 0.5 - ax - along * dx, ys + 0.5 - ay - along * dy)
        coverage = np.rint(255 * np.clip(row[A] / 32 + 0.5 - distance, 0, 1)).astype(np.int64)
    return coverage, (left, top, right, bottom)


def to_rgb(planes: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
    """Limited-range BT.709 I420 as (H, W, 3) uint8 RGB."""
    luma, cb, cr = (plane.astype(np.float64) for plane in planes)
    cb, cr = ((np.repeat(np.repeat(plane, 2, 0), 2, 1) - 128) * (255 / 224) for plane in (cb, cr))
    base = (luma - 16) * (255 / 219)
    rgb = np.stack([base + 1.5748 * cr, base - 0.18732 * cb - 0.46812 * cr, base + 1.8556 * cb], 2)
    return np.clip(np.rint(rgb), 0, 255).astype(np.uint8)
