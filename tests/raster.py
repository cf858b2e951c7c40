"""A plain NumPy rasteriser of the overlay primitives, to look at and to test what is drawn."""

from __future__ import annotations

import numpy as np

from tiler.kernels.primitives import AFTER, ALPHA, CLIP_X0, CR, EDGE, KIND, LUMA, X0, A, B, Kind


def draw(planes: tuple[np.ndarray, np.ndarray, np.ndarray], rows: np.ndarray, texture: np.ndarray) -> None:
    """Draw rows over an I420 picture of even size, in place, as Note [Blending] says."""
    begins = [n for n, row in enumerate(rows) if row[AFTER] == 0]
    for begin, end in zip(begins, [*begins[1:], len(rows)], strict=True):
        edges, line = np.zeros((2, *planes[0].shape), np.int64)
        for row in rows[begin:end].tolist():
            weights, (x0, y0, x1, y1) = _weights(row, texture, planes[0].shape)
            clip_x0, clip_y0, clip_x1, clip_y1 = row[CLIP_X0:]
            ys, xs = np.mgrid[y0:y1, x0:x1]
            weights[:, (xs < clip_x0) | (xs >= clip_x1) | (ys < clip_y0) | (ys >= clip_y1)] = 0
            for all_of, own in zip((edges, line), weights, strict=True):
                all_of[y0:y1, x0:x1] = np.maximum(all_of[y0:y1, x0:x1], own)
        for c, colour in ((edges, EDGE), (line, rows[begin, LUMA : CR + 1].tolist())):
            quarter = (c.reshape(c.shape[0] // 2, 2, -1, 2).sum((1, 3)) + 2) // 4
            for plane, value, weight in zip(planes, colour, (c, quarter, quarter), strict=True):
                plane[:] = (plane.astype(np.int64) * (255 - weight) + value * weight + 127) // 255


def _weights(
    row: list[int], texture: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """(2, h, w) of a frame's edges and of all else, over a rectangle that holds the primitive, and that rectangle."""
    x0, y0, x1, y1 = row[X0 : X0 + 4]
    bounds = [x0, y0, x1, y1]
    if row[KIND] == Kind.LINE:
        reach = row[A] // 16 + 2
        bounds = [min(x0, x1) // 16 - reach, min(y0, y1) // 16 - reach,
                  max(x0, x1) // 16 + reach, max(y0, y1) // 16 + reach]
    left, top = max(0, bounds[0]), max(0, bounds[1])
    right, bottom = max(left, min(size[1], bounds[2])), max(top, min(size[0], bounds[3]))
    ys, xs = np.mgrid[top:bottom, left:right]
    inside = (xs >= x0) & (xs < x1) & (ys >= y0) & (ys < y1)
    edges = np.zeros(inside.shape, np.int64)
    if row[KIND] == Kind.FILL:
        weights = inside * row[ALPHA]
    elif row[KIND] == Kind.FRAME:
        deep = np.minimum(np.minimum(xs - x0, x1 - 1 - xs), np.minimum(ys - y0, y1 - 1 - ys))
        line, edge = (deep >= 0) & (deep < row[A]), (deep == 0) | (deep == row[A] - 1)
        weights = line * row[ALPHA]
        if row[B]:
            weights, edges = (line & ~edge) * row[ALPHA], (line & edge) * row[B]
    elif row[KIND] == Kind.GLYPH:
        u, v = np.clip(xs - x0, 0, x1 - x0 - 1) + row[A], np.clip(ys - y0, 0, y1 - y0 - 1) + row[B]
        weights = (np.where(inside, texture[v, u], 0).astype(np.int64) * row[ALPHA] + 127) // 255
    else:
        ax, ay, bx, by = (value / 16 for value in row[X0 : X0 + 4])
        dx, dy, width = bx - ax, by - ay, row[A] / 16
        along = ((xs + 0.5 - ax) * dx + (ys + 0.5 - ay) * dy) / max(dx * dx + dy * dy, 1e-12)
        along = np.clip(along, 0, 1)
        square = (xs + 0.5 - ax - along * dx) ** 2 + (ys + 0.5 - ay - along * dy) ** 2
        covered = np.clip(((width + 1) ** 2 / 4 - square) / max(width, 1), 0, 1)
        weights = np.rint(row[ALPHA] * covered).astype(np.int64)
    return np.stack([edges, weights]), (left, top, right, bottom)


def to_rgb(planes: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
    """Limited-range BT.709 I420 as (H, W, 3) uint8 RGB."""
    luma, cb, cr = (plane.astype(np.float64) for plane in planes)
    cb, cr = ((np.repeat(np.repeat(plane, 2, 0), 2, 1) - 128) * (255 / 224) for plane in (cb, cr))
    base = (luma - 16) * (255 / 219)
    rgb = np.stack([base + 1.5748 * cr, base - 0.18732 * cb - 0.46812 * cr, base + 1.8556 * cb], 2)
    return np.clip(np.rint(rgb), 0, 255).astype(np.uint8)
