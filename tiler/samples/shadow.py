"""Kernels: soft shadows on the ground, gathered in a buffer and applied once.

Gathering keeps the strongest shadow at each pixel, so that shadows of one person's parts,
or of several people, do not add up to black.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit


@njit(nogil=True, cache=True, error_model="numpy")
def add_shadow(shade: Any, ax: float, ay: float, bx: float, by: float, r0: float, r1: float,
               squash: float, strength: float, blur: float) -> None:  # fmt: skip
    """Put a flat, soft capsule into the shadow buffer; `squash` flattens it vertically."""
    height, width = shade.shape
    ay, by = ay / squash, by / squash
    dx, dy = bx - ax, by - ay
    square = max(dx * dx + dy * dy, 1e-6)
    reach = max(r0, r1) + blur
    left, right = max(0, int(min(ax, bx) - reach)), min(width, int(max(ax, bx) + reach) + 2)
    top = max(0, int((min(ay, by) - reach) * squash))
    bottom = min(height, int((max(ay, by) + reach) * squash) + 2)
    for y in range(top, bottom):
        py = (y + 0.5) / squash - ay
        for x in range(left, right):
            px = x + 0.5 - ax
            t = min(1.0, max(0.0, (px * dx + py * dy) / square))
            ex, ey = px - t * dx, py - t * dy
            gap = math.sqrt(ex * ex + ey * ey) - (r0 + (r1 - r0) * t)
            cover = 0.5 - gap / (2.0 * blur)
            if cover > 0.0:
                cover = min(1.0, cover)
                value = np.uint8(255.0 * strength * cover * cover * (3.0 - 2.0 * cover))
                if value > shade[y, x]:
                    shade[y, x] = value


@njit(nogil=True, cache=True, error_model="numpy")
def apply_shadow(rgb: Any, depth: Any, shade: Any, ground: Any, x0: int, y0: int, x1: int, y1: int) -> None:
    """Darken the ground where shadow waits, and use it up; shadows do not fall on nearer objects."""
    for y in range(y0, y1):
        limit = ground[y] * 0.97 - 0.3
        for x in range(x0, x1):
            s = shade[y, x]
            if s > 0:
                shade[y, x] = 0
                if depth[y, x] >= limit:
                    keep = 255 - s
                    for c in range(3):
                        # The sky still lights a shadow: it is a little bluer than the sunlit ground.
                        cool = s // 12 if c == 2 else 0
                        rgb[y, x, c] = np.uint8(min(255, (rgb[y, x, c] * (keep + cool)) // 255))
