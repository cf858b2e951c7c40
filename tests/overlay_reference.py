"""The overlay of a tile as NumPy says it: slow, and plain. The compiled one is held to it, row by row."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tiler.compose.glyphs import Atlas
from tiler.compose.layout import PlacedTile, View
from tiler.compose.overlay import TRAIL_PARTS, text_height
from tiler.compose.palette import INK, TRACKS
from tiler.compose.pen import (
    Pen,
    Rectangle,
    blend,
    plate_baseline,
    plate_height,
    plate_padding,
)
from tiler.compose.rows import no_rows
from tiler.compose.slate import draw_badge, draw_caption, draw_slate
from tiler.config.models import Config
from tiler.kernels.primitives import AFTER, ALPHA, CLIP_X0, COLUMNS, CR, KIND, LUMA, STROKE, X0, X1, Y1, A, B, Kind
from tiler.types import CLOCK_HZ, Float32, Int32, State, TileInput, Tracks

_FAR = 1 << 20   # pixels: keeps coordinates of wild boxes within int32 at 1/16 px
_SLATES = (State.WAITING, State.NO_SIGNAL)


class _Style(NamedTuple):
    """Sizes within one tile, px."""

    text: int
    line: int
    visible: Rectangle


class _Words(NamedTuple):
    """Part of a label: rows at the origin, and the advance."""

    rows: Int32
    width: int


class ReferenceOverlay:
    """Builds the rows of each tile; the parameters are those of `OverlayBuilder`, and its tiles."""

    def __init__(
        self, config: Config, tiles: tuple[PlacedTile, ...], class_names: tuple[str, ...], atlas: Atlas
    ) -> None:
        self._overlay = config.overlay
        self._mosaic: Rectangle = (0, 0, config.mosaic.width, config.mosaic.height)
        self._class_names = class_names
        self._styles = {tile: self._style(tile) for tile in tiles}
        self.atlas = atlas

    def tile_rows(self, tile: PlacedTile, view: View | None, shown: TileInput) -> Int32:
        """The overlay of one tile, clipped to it: (n, COLUMNS) int32 rows, in drawing order."""
        style = self._styles[tile]
        x0, y0, x1, y1 = style.visible
        if x0 >= x1 or y0 >= y1:
            return no_rows()
        if view is None or shown.state in _SLATES:
            state = State.NO_SIGNAL if shown.state is State.NO_SIGNAL else State.WAITING
            return blend(self._still(tile, style, None, state, ""), tile.opacity)
        picture = _intersection(style.visible, view.dst)
        parts = []
        if self._overlay.trails and len(shown.people.history) > 1:
            parts.append(self._trails(view, picture, style, shown.people.history, shown.people.tracks.pts))
        if len(shown.people.tracks) and (self._overlay.boxes or self._overlay.labels):
            parts += self._tracks(view, picture, style, shown.people.tracks)
        fps = f"{shown.fps:.1f} fps" if self._overlay.fps and shown.state is State.LIVE else ""
        parts.append(self._still(tile, style, picture, shown.state, fps))
        return blend(np.concatenate(parts), tile.opacity)

    def _style(self, tile: PlacedTile) -> _Style:
        text = self._overlay.text_px or max(text_height(tile.w, tile.h), round(self._mosaic[3] / 120))
        line = self._overlay.line_px or max(2, round(text / 7))
        return _Style(text, line, _intersection(self._mosaic, (tile.x, tile.y, tile.w, tile.h)))

    def _still(self, tile: PlacedTile, style: _Style, picture: Rectangle | None, state: State, fps: str) -> Int32:
        """Caption and badge, or the slate when there is no picture."""
        pen = Pen(self.atlas)
        if picture is None:
            draw_slate(pen, style.visible, state, tile.title, style.text)
        else:
            if state is not State.LIVE:
                draw_badge(pen, picture, style.visible, state, style.text)
            draw_caption(pen, style.visible, tile.title if self._overlay.titles else "", fps, style.text)
        return pen.rows(style.visible)

    def _trails(self, view: View, picture: Rectangle, style: _Style, history: Float32, pts: int) -> Int32:
        """Fading lines through the foot points, thinner towards the past.

        Points are averaged over equal spans of *absolute* time: that keeps a trail at TRAIL_PARTS
        pieces and takes the detector's jitter out, and its corners stay put from tick to tick.
        """
        span = self._overlay.trail_s
        points = history[history[:, 3] <= span].astype(np.float64)
        if len(points) < 2:
            return no_rows()
        ids = points[:, 0]
        if (ids[1:] < ids[:-1]).any():
            points = points[np.argsort(ids, kind="stable")]
            ids = points[:, 0]
        part = np.floor(points[:, 3] * (-TRAIL_PARTS / span) + pts / CLOCK_HZ * (TRAIL_PARTS / span))
        first = np.ones(len(ids), bool)   # of its id: the newest point, which is kept as it is
        np.not_equal(ids[1:], ids[:-1], out=first[1:])
        begins = first.copy()
        begins[1:] |= first[:-1] | (part[1:] != part[:-1])
        starts = np.flatnonzero(begins)
        count = np.append(starts[1:], len(ids)) - starts
        points = np.add.reduceat(points, starts) / count[:, None]
        ids = points[:, 0]
        ends = np.empty((len(points), 2))
        ends[:, 0], ends[:, 1] = view.to_mosaic(points[:, 1], points[:, 2])
        ends = np.rint(ends.clip(-_FAR, _FAR) * 16)
        apart = np.abs(ends[1:] - ends[:-1]).max(axis=1) >= 4
        new = np.flatnonzero(apart & (ids[1:] == ids[:-1]))
        fade = 1 - np.minimum(points[new + 1, 3] / span, 1)
        rows = _blank(len(new), Kind.LINE, picture)
        rows[:, X0:X1], rows[:, X1:A] = ends[new], ends[new + 1]
        rows[:, A] = np.rint(style.line * 16 * (0.5 + 0.6 * fade))
        rows[:, LUMA : CR + 1] = track_colours(ids[new].astype(np.int32))
        rows[:, ALPHA] = np.rint(235 * fade)
        rows[:, AFTER] = (np.arange(len(new)) - np.searchsorted(ids[new], ids[new])) % STROKE
        return rows

    def _tracks(self, view: View, picture: Rectangle, style: _Style, tracks: Tracks) -> list[Int32]:
        """Boxes, then labels, both from the far end of the scene (high up) to the near one."""
        corners = tracks.xyxy.astype(np.float64)
        corners[:, 0::2], corners[:, 1::2] = view.to_mosaic(corners[:, 0::2], corners[:, 1::2])
        boxes = np.rint(np.clip(corners, -_FAR, _FAR)).astype(np.int32)
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 2)
        inside = (boxes[:, 0] < picture[2]) & (boxes[:, 2] > picture[0])
        inside &= (boxes[:, 1] < picture[3]) & (boxes[:, 3] > picture[1])
        order = np.flatnonzero(inside)
        order = order[np.argsort(boxes[order, 3], kind="stable")]
        boxes, colours = boxes[order], track_colours(tracks.track_id[order])
        parts = []
        if self._overlay.boxes:
            rows = _blank(len(order), Kind.FRAME, picture)
            rows[:, X0 : Y1 + 1] = boxes + np.array([-1, -1, 1, 1], np.int32)
            rows[:, A], rows[:, B], rows[:, LUMA : CR + 1], rows[:, ALPHA] = style.line + 2, 90, colours, 245
            parts.append(rows)
        if self._overlay.labels and len(order):
            parts.append(self._labels(boxes, colours, style, tracks, order))
        return parts

    def _labels(
        self,
        boxes: Int32,
        colours: Int32,
        style: _Style,
        tracks: Tracks,
        order: npt.NDArray[np.intp],
    ) -> Int32:
        """`#id name score` on a plate in the track's colour: above the box, or within its top."""
        size, left, top = style.text, style.visible[0], style.visible[1]
        pad, height = plate_padding(size), plate_height(size)
        room = (style.visible[2] - left) * 0.45 - 2 * pad
        percent = np.rint(tracks.score[order] * 100).astype(np.int32).tolist()
        names, scores = [], []
        for track, kind, score in zip(
            tracks.track_id[order].tolist(), tracks.class_id[order].tolist(), percent, strict=True
        ):
            name, value = self._name(track, kind, size), self._score(score, size)
            if name.width + value.width > room:
                value = self._score(-1, size)
                if name.width > room:
                    name = self._name(track, -1, size)
            names.append(name)
            scores.append(value)

        text_width = np.array([part.width for part in names])
        width = text_width + [part.width for part in scores] + 2 * pad
        x = np.maximum(np.minimum(boxes[:, 0], style.visible[2] - width), left)
        above = boxes[:, 1] - height
        y = np.where(above >= top, above, np.maximum(boxes[:, 1], top))
        y = np.maximum(np.minimum(y, style.visible[3] - height), top)

        blocks = [part.rows for pair in zip(names, scores, strict=True) for part in pair]
        lengths = np.array([len(block) for block in blocks])
        rows = np.concatenate(blocks)
        origins = np.empty((len(names), 2, 2), np.int32)   # name and score; x and baseline
        origins[:, 0, 0] = x + pad
        origins[:, 1, 0] = x + pad + text_width
        origins[:, :, 1] = (y + plate_baseline(size))[:, None]
        origins = np.repeat(origins.reshape(-1, 2), lengths, axis=0)
        rows[:, X0:X1] += origins
        rows[:, X1:A] += origins
        plates = (np.cumsum(lengths) - lengths)[0::2]   # each name begins with its plate
        rows[plates, X0 : Y1 + 1] = np.stack([x, y, x + width, y + height], 1)
        rows[plates, LUMA : CR + 1] = colours
        rows[:, CLIP_X0:] = style.visible
        letters = np.arange(len(rows)) - np.repeat(plates, lengths.reshape(-1, 2).sum(1)) - 1   # of its own label
        rows[:, AFTER] = np.maximum(letters, 0) % STROKE
        return rows

    def _name(self, track: int, kind: int, size: int) -> _Words:
        """The plate (to be placed) and `#id name`; the id alone for class -1."""
        text = f"#{track}"
        if kind >= 0:
            known = kind < len(self._class_names)
            text = f"{text} {self._class_names[kind] if known else f'class {kind}'}"
        pen = Pen(self.atlas)
        pen.fill(0, 0, 0, 0, INK, 235)
        width = pen.text(0, 0, text, size, INK)
        return _Words(pen.rows((0, 0, 0, 0)), width)

    def _score(self, percent: int, size: int) -> _Words:
        """` 0.93`, or nothing for -1."""
        pen = Pen(self.atlas)
        width = pen.text(0, 0, f" {percent / 100:.2f}", size, INK) if percent >= 0 else 0
        return _Words(pen.rows((0, 0, 0, 0)), width)


def track_colours(track_id: npt.NDArray[np.integer]) -> Int32:
    """(n, 3) Y, Cb, Cr of each id."""
    return np.array(TRACKS, np.int32)[track_id % len(TRACKS)]


def _intersection(bounds: Rectangle, box: tuple[int, int, int, int]) -> Rectangle:
    """The part of (x, y, w, h) within x0, y0, x1, y1."""
    x0, y0 = max(bounds[0], box[0]), max(bounds[1], box[1])
    x1, y1 = min(bounds[2], box[0] + box[2]), min(bounds[3], box[1] + box[3])
    return x0, y0, max(x0, x1), max(y0, y1)


def _blank(count: int, kind: Kind, clip: Rectangle) -> Int32:
    rows = np.zeros((count, COLUMNS), np.int32)
    rows[:, KIND] = kind
    rows[:, CLIP_X0:] = clip
    return rows
