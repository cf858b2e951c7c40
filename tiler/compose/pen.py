"""A pen for the still parts of the overlay: text, plates and icons as rows of primitives."""

from __future__ import annotations

import numpy as np

from tiler.compose.glyphs import Atlas
from tiler.compose.palette import PLATE, Ycc
from tiler.compose.rows import no_rows
from tiler.kernels.primitives import (
    AFTER,
    ALPHA,
    CLIP_X0,
    COLUMNS,
    KIND,
    STROKE,
    B,
    Kind,
)
from tiler.types import Int32

Rectangle = tuple[int, int, int, int]
"""x0, y0, x1, y1 in mosaic pixels, half-open."""

CAP_HEIGHT = 0.73
"""Height of a capital letter of the built-in font, in ems: text is centred by it."""


class Pen:
    """Collects primitives; `rows` gives them out, clipped.

    Args:
        atlas: where the text comes from.
    """

    def __init__(self, atlas: Atlas) -> None:
        self.atlas = atlas
        self._rows: list[tuple[int, ...]] = []

    def fill(self, x0: int, y0: int, x1: int, y1: int, colour: Ycc, alpha: int = 255) -> None:
        """A filled rectangle."""
        self._rows.append((Kind.FILL, x0, y0, x1, y1, 0, 0, *colour, alpha, 0))

    def frame(self, x0: int, y0: int, x1: int, y1: int, line: int, colour: Ycc, alpha: int = 255) -> None:
        """An outline of `line` pixels, inwards."""
        self._rows.append((Kind.FRAME, x0, y0, x1, y1, line, 0, *colour, alpha, 0))

    def line(self, x0: float, y0: float, x1: float, y1: float, width: float, colour: Ycc) -> None:
        """A straight line with round ends."""
        ends = (round(value * 16) for value in (x0, y0, x1, y1))
        self._rows.append((Kind.LINE, *ends, round(width * 16), 0, *colour, 255, 0))

    def text(self, x: int, baseline: int, text: str, size: int, colour: Ycc, alpha: int = 255) -> int:
        """One line of text from `x`; returns its width."""
        run = self.atlas.layout_text(text, size)
        for n, (atlas_x, atlas_y, w, h, dx, dy) in enumerate(run.glyphs.tolist()):
            left, top = x + dx, baseline + dy
            self._rows.append(
                (Kind.GLYPH, left, top, left + w, top + h, atlas_x, atlas_y, *colour, alpha, n % STROKE)
            )
        return run.width

    def plate(self, x: int, y: int, parts: list[tuple[str, Ycc]], size: int, alpha: int = 160) -> None:
        """A dark plate whose top left is (x, y), with pieces of text side by side."""
        pad_x, gap = plate_padding(size), round(size * 0.7)
        height = plate_height(size)
        self.fill(x, y, x + self.plate_width([text for text, _ in parts], size), y + height, PLATE, alpha)
        pen = x + pad_x
        for text, colour in parts:
            pen += self.text(pen, y + plate_baseline(size), text, size, colour) + gap

    def plate_width(self, texts: list[str], size: int) -> int:
        """Width of a `plate` with these pieces of text."""
        widths = sum(self.atlas.layout_text(text, size).width for text in texts)
        return widths + (len(texts) - 1) * round(size * 0.7) + 2 * plate_padding(size)

    def rows(self, clip: Rectangle) -> Int32:
        """What was drawn so far as (n, COLUMNS) int32 rows, clipped to a rectangle."""
        rows = no_rows()
        if self._rows:
            rows = np.empty((len(self._rows), COLUMNS), np.int32)
            rows[:, : AFTER + 1] = self._rows
            rows[:, CLIP_X0:] = clip
        return rows


def plate_padding(size: int) -> int:
    """Space left and right of text of this size on a plate."""
    return max(2, round(size * 0.38))


def plate_height(size: int) -> int:
    """Height of a plate around text of this size: capitals in the middle, room for descenders."""
    return 2 * round((size * CAP_HEIGHT + 2 * max(2.0, size * 0.34)) / 2)


def plate_baseline(size: int) -> int:
    """Where text of this size stands on its plate, down from the top."""
    return (plate_height(size) + round(size * CAP_HEIGHT)) // 2


def blend(rows: Int32, opacity: float) -> Int32:
    """The rows with their alpha scaled, for a tile that is not opaque."""
    if opacity >= 1:
        return rows
    faded = rows.copy()
    faded[:, ALPHA] = np.rint(rows[:, ALPHA] * opacity)
    frames = rows[:, KIND] == Kind.FRAME   # their edges
    faded[frames, B] = np.rint(rows[frames, B] * opacity)
    return faded
