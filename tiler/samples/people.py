"""Draw figures, their shadows and props into a canvas in depth order, and read the boxes back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tiler.samples import raster as r
from tiler.samples.background import Array, Place, Prop, draw_prop, lamp_light, project
from tiler.samples.body import MAX_PARTS, build_parts
from tiler.samples.figure import STATURE, Look, X, Z
from tiler.samples.shadow import add_shadow, apply_shadow


class Figure(NamedTuple):
    """A person in one picture: a look and a pose (see `figure`)."""

    look: Look
    pose: Array


class Labels(NamedTuple):
    """What an annotator would note of the n figures, in their order.

    Attributes:
        xyxy: (n, 4) float32, the body with clothes and hair inside the frame, covered or not.
        visibility: (n,) float32, share of the whole body that is seen; beyond the frame counts as unseen.
        present: (n,) bool, False for those wholly outside.
    """

    xyxy: npt.NDArray[np.float32]
    visibility: npt.NDArray[np.float32]
    present: npt.NDArray[np.bool_]


Rect = tuple[int, int, int, int]


def local_light(place: Place, x: float, z: float) -> float:
    """Brightness at chest height over a point of the ground, 1 on a plain day."""
    return float(place.sky[7]) + float(lamp_light(place.lamps, x, 1.3, z))


def _extent(parts: npt.NDArray[np.float32]) -> Array:
    """Unclipped x0 y0 x1 y1 of projected parts, tight to within a cap."""
    reach = np.maximum(parts[:, r.R0], parts[:, r.R1])
    up, down = np.minimum(parts[:, r.C0], reach), np.minimum(parts[:, r.C1], reach)
    left = np.minimum(parts[:, r.X0] - parts[:, r.R0], parts[:, r.X1] - parts[:, r.R1]).min()
    right = np.maximum(parts[:, r.X0] + parts[:, r.R0], parts[:, r.X1] + parts[:, r.R1]).max()
    top = np.minimum(parts[:, r.Y0] - up, parts[:, r.Y1] - down).min()
    bottom = np.maximum(parts[:, r.Y0] + up, parts[:, r.Y1] + down).max()
    return np.array([left, top, right, bottom], np.float64)


def _shadow(canvas: r.Canvas, cam: Array, place: Place, figure: Figure,
            ground: npt.NDArray[np.float32]) -> Rect:
    """Cast and contact shadow of one figure; returns the rectangle it may darken."""
    height, width = canvas.depth.shape
    x, z, stature = figure.pose[X], figure.pose[Z], figure.look.dims[STATURE]
    px, py, depth = project(cam, x, 0.0, z)
    if depth < 0.5:
        return (0, 0, 0, 0)
    scale = cam[0] / depth
    sine = min(0.9, max(0.06, cam[4] + (py - cam[2]) / cam[0] * cam[5]))
    sx, sz, cast, contact = place.shadow
    ends = [(px, py)]
    if contact > 0.0:
        # Wide for the sky that the body hides, small and dark under the feet.
        for radius, strength in ((0.55, 0.55), (0.26, 1.0)):
            add_shadow(canvas.shade, px - 0.08 * scale, py, px + 0.08 * scale, py, radius * 0.5 * scale,
                         radius * 0.5 * scale, sine, contact * strength, max(1.0, radius * 0.6 * scale))
    if cast > 0.0:
        for low, high, r0, r1 in ((0.0, 0.5, 0.10, 0.15), (0.45, 0.82, 0.17, 0.21), (0.86, 0.95, 0.09, 0.09)):
            a = project(cam, x + sx * low * stature, 0.0, z + sz * low * stature)
            b = project(cam, x + sx * high * stature, 0.0, z + sz * high * stature)
            if min(a[2], b[2]) > 0.5:
                add_shadow(canvas.shade, a[0], a[1], b[0], b[1], r0 * scale, r1 * scale, sine, cast,
                             max(1.0, 0.05 * scale))  # fmt: skip
                ends.append((b[0], b[1]))
    margin = 0.75 * scale + 4
    x0, x1 = min(e[0] for e in ends) - margin, max(e[0] for e in ends) + margin
    y0, y1 = min(e[1] for e in ends) - margin * sine - 4, max(e[1] for e in ends) + margin * sine + 4
    return clip_rect((math.floor(x0), math.floor(y0), math.ceil(x1), math.ceil(y1)), width, height)


def clip_rect(rect: Rect, width: int, height: int) -> Rect:
    """The rectangle inside the picture, widened to even bounds; empty ones become zeros."""
    x0, y0 = max(0, rect[0]) & ~1, max(0, rect[1]) & ~1
    x1, y1 = min(width, (rect[2] + 1) & ~1), min(height, (rect[3] + 1) & ~1)
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else (0, 0, 0, 0)


def draw_figures(
    canvas: r.Canvas, cam: Array, place: Place, figures: Sequence[Figure], ground: npt.NDArray[np.float32],
    props: Sequence[Prop] = (), prop_gains: Sequence[float] = (), *, soft: float = 1.2,
) -> tuple[Labels, list[Rect]]:  # fmt: skip
    """Draw everyone (and props not yet in the background), far to near.

    Returns the labels and the rectangles that were touched.
    """
    height, width = canvas.depth.shape
    n = len(figures)
    r.clear_stats(canvas.stats)
    touched: list[Rect] = []
    for figure in figures:
        rect = _shadow(canvas, cam, place, figure, ground)
        if rect[2]:
            touched.append(rect)
    for rect in touched:
        apply_shadow(canvas.rgb, canvas.depth, canvas.shade, ground, *rect)
    order = [(project(cam, f.pose[X], 0.8, f.pose[Z])[2], 0, i) for i, f in enumerate(figures)]
    order += [(prop.depth, 1, i) for i, prop in enumerate(props)]
    parts = np.zeros((MAX_PARTS, r.PART_COLUMNS), np.float32)
    whole = np.zeros((n, 4))
    for _, kind, i in sorted(order, reverse=True):
        if kind == 1:
            draw_prop(canvas, props[i], place.light, prop_gains[i], soft)
            continue
        figure = figures[i]
        count = build_parts(figure.pose, figure.look, cam, parts)
        if count == 0:
            continue
        whole[i] = box = _extent(parts[:count])
        touched.append(clip_rect((int(box[0]) - 3, int(box[1]) - 3, int(box[2]) + 4, int(box[3]) + 4),
                                 width, height))
        light = place.light.copy()
        light[5:8] *= np.float32(local_light(place, figure.pose[X], figure.pose[Z]))
        r.draw_parts(canvas, i, parts[:count], figure.look.materials, light, soft)
    return _labels(canvas.stats[:n], whole), [rect for rect in touched if rect[2]]


def _labels(stats: npt.NDArray[np.int64], whole: Array) -> Labels:
    """Counts and boxes, with the part of the body beyond the frame counted as unseen."""
    present = stats[:, r.COUNT] > 0
    xyxy = np.where(present[:, None], stats[:, r.LEFT : r.BOTTOM + 1], 0).astype(np.float32)
    area = (xyxy[:, 2] - xyxy[:, 0]) * (xyxy[:, 3] - xyxy[:, 1])
    full = (whole[:, 2] - whole[:, 0]) * (whole[:, 3] - whole[:, 1])
    inside = np.minimum(1.0, np.where(full > 0, area / np.maximum(full, 1e-6), 0.0))
    # A projected extent is a little larger than the pixels that reach half cover.
    inside = np.where(inside > 0.82, 1.0, inside)
    seen = stats[:, r.VISIBLE] / np.maximum(stats[:, r.COUNT], 1)
    return Labels(xyxy, (seen * inside).astype(np.float32), present)
