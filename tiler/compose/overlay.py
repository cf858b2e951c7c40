"""What is drawn over the pictures at a tick, as rows of primitives (`tiler.kernels.primitives`).

Pure: the same inputs give the same rows. What tracks bring is written by one compiled call a tile;
what stays the same from tick to tick (captions, slates, the letters of labels) is kept.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tiler.compose.glyphs import Atlas
from tiler.compose.layout import PlacedTile, View
from tiler.compose.lettering import lettering
from tiler.compose.palette import INK, TRACKS, Ycc
from tiler.compose.pen import Pen, Rectangle, blend, plate_baseline, plate_height, plate_padding
from tiler.compose.rows import Rows, no_rows
from tiler.compose.slate import draw_badge, draw_caption, draw_clock, draw_slate
from tiler.config.models import Config
from tiler.kernels.overlay_cpu import (
    BASELINE_PX,
    BOXES,
    FROM,
    LABELS,
    OPACITY,
    PAD_PX,
    PICTURE,
    PIECES_A_SECOND,
    PLACE_COLUMNS,
    PLATE_PX,
    ROOM,
    SCALE,
    TO,
    TRAIL_ALPHA,
    TRAIL_PX,
    TRAIL_S,
    VIEW_COLUMNS,
    VISIBLE,
    Float64,
    Int64,
    Lettering,
    draw_tracks,
    most_rows,
)
from tiler.kernels.primitives import Kind
from tiler.types import CLOCK_HZ, Float32, Int32, State, TileInput, Tracks

TRAIL_PARTS = 16
"""Straight pieces of a trail at most."""

_KEPT = 8192
_SLATES = (State.WAITING, State.NO_SIGNAL)
_NO_TRAILS: Float32 = np.empty((0, 4), np.float32)


class Canvas(NamedTuple):
    """Where and how to draw over a tile, as long as its pictures stay of one kind.

    Attributes:
        number, tile: which tile.
        text: height of its text, px.
        visible: the tile within the mosaic.
        picture: its picture within that; None without a picture.
        looks, place, view: as `draw_tracks` takes them.
    """

    number: int
    tile: PlacedTile
    text: int
    visible: Rectangle
    picture: Rectangle | None
    looks: Int32
    place: Int64
    view: Float64


class OverlayBuilder:
    """Builds the rows of each tile and of the mosaic. One thread at a time.

    Attributes:
        atlas: the glyphs that GLYPH rows refer to; look at `atlas.version` after building.
    """

    def __init__(self, config: Config, class_names: tuple[str, ...] = (), atlas: Atlas | None = None) -> None:
        """
        Args:
            config: the whole config; `overlay` and `mosaic` are used.
            class_names: what the detector calls its classes; others are shown as `class 7`.
            atlas: glyphs to share; built from `overlay.font` when absent.

        Raises:
            InputError: the font cannot be read.
        """
        self._overlay = overlay = config.overlay
        self._mosaic: Rectangle = (0, 0, config.mosaic.width, config.mosaic.height)
        self._class_names = class_names
        self._clock_px = overlay.text_px or text_height(config.mosaic.width, config.mosaic.height)
        self.atlas = atlas or Atlas(self._clock_px, Path(overlay.font) if overlay.font else None)
        self._stills: dict[tuple[int, Rectangle | None, State, str], Int32] = {}
        self._slot_names = [tuple(source.slots.names) if source.slots else () for source in config.sources]
        self._letters: dict[tuple[int, tuple[str, ...]], Lettering] = {}
        self._clock = "", no_rows()
        self._marks_tracks = overlay.boxes or overlay.labels or overlay.trails
        if class_names:   # no tick is to pay for first use
            canvas = self.canvas(-1, PlacedTile(0, *self._mosaic), View(self._mosaic, self._mosaic))
            self._draw_tracks(canvas, Tracks.empty(), _NO_TRAILS, Rows())

    def canvas(self, number: int, tile: PlacedTile, view: View | None) -> Canvas:
        """What lasts while a tile shows pictures through this view; no view: no picture.

        Args:
            number: tells the tile from others.
            tile: that tile.
            view: where its picture is.
        """
        overlay = self._overlay
        text = overlay.text_px or max(text_height(tile.w, tile.h), round(self._mosaic[3] / 120))
        visible = _intersection(self._mosaic, (tile.x, tile.y, tile.w, tile.h))
        place, table = np.zeros(PLACE_COLUMNS, np.int64), np.zeros(VIEW_COLUMNS)
        if view is None:
            return Canvas(number, tile, text, visible, None, no_rows(), place, table)
        picture = _intersection(visible, view.dst)
        line, pad = overlay.line_px or max(2, round(text / 7)), plate_padding(text)
        place[VISIBLE : VISIBLE + 4], place[PICTURE : PICTURE + 4] = visible, picture
        place[PAD_PX], place[PLATE_PX], place[BASELINE_PX] = pad, plate_height(text), plate_baseline(text)
        place[BOXES], place[LABELS] = overlay.boxes, overlay.labels
        table[FROM:SCALE], table[SCALE:TO], table[TO:ROOM] = view.src[:2], view.scale, view.dst[:2]
        table[ROOM] = (visible[2] - visible[0]) * 0.45 - 2 * pad
        table[TRAIL_S], table[PIECES_A_SECOND] = overlay.trail_s, TRAIL_PARTS / overlay.trail_s
        table[TRAIL_PX], table[TRAIL_ALPHA], table[OPACITY] = line, 235, tile.opacity
        looks = blend(_looks(line, visible, picture), tile.opacity)
        return Canvas(number, tile, text, visible, picture, looks, place, table)

    def draw_tile(self, canvas: Canvas, shown: TileInput, rows: Rows) -> None:
        """Add the overlay of one tile, clipped to it, in drawing order.

        Args:
            canvas: of the tile and its picture.
            shown: what its source shows.
            rows: where to add it.
        """
        x0, y0, x1, y1 = canvas.visible
        if x0 >= x1 or y0 >= y1:
            return
        if canvas.picture is None or shown.state in _SLATES:
            state = State.NO_SIGNAL if shown.state is State.NO_SIGNAL else State.WAITING
            rows.add(self._still(canvas, None, state, ""))
            return
        history = shown.history if self._overlay.trails else _NO_TRAILS
        if self._marks_tracks and (len(shown.tracks) or len(history)):
            self._draw_tracks(canvas, shown.tracks, history, rows)
        fps = f"{shown.fps:.1f} fps" if self._overlay.fps and shown.state is State.LIVE else ""
        rows.add(self._still(canvas, canvas.picture, shown.state, fps))

    def draw_mosaic(self, clock: str, rows: Rows) -> None:
        """Add the overlay of the whole mosaic, to draw last: the wall clock."""
        if not self._overlay.clock or not clock:
            return
        if self._clock[0] != clock:
            pen = Pen(self.atlas)
            draw_clock(pen, self._mosaic, clock, self._clock_px)
            self._clock = clock, pen.rows(self._mosaic)
        rows.add(self._clock[1])

    def _draw_tracks(self, canvas: Canvas, tracks: Tracks, history: Float32, rows: Rows) -> None:
        """Trails, boxes and labels."""
        key = canvas.text, self._slot_names[canvas.tile.source]
        letters = self._letters.get(key)
        if letters is None:
            letters = self._letters[key] = lettering(self.atlas, self._class_names, *key)
        rows.make_room(most_rows(len(tracks), len(history), letters))
        rows.count = draw_tracks(
            rows.array, rows.count, canvas.looks, canvas.place, canvas.view, history, tracks.pts / CLOCK_HZ,
            tracks.track_id, tracks.xyxy, tracks.score, tracks.class_id, tracks.slot, *letters,
        )  # fmt: skip

    def _still(self, canvas: Canvas, picture: Rectangle | None, state: State, fps: str) -> Int32:
        """Caption and badge, or the slate when there is no picture."""
        key = canvas.number, picture, state, fps
        rows = self._stills.get(key)
        if rows is None:
            pen, tile, visible = Pen(self.atlas), canvas.tile, canvas.visible
            if picture is None:
                draw_slate(pen, visible, state, tile.title, canvas.text)
            else:
                if state is not State.LIVE:
                    draw_badge(pen, picture, visible, state, canvas.text)
                title = tile.title if self._overlay.titles else ""
                draw_caption(pen, visible, title, fps, canvas.text)
            if len(self._stills) >= _KEPT:   # costs less than to keep them in order
                self._stills.clear()
            rows = self._stills[key] = blend(pen.rows(visible), tile.opacity)
        return rows


def text_height(width: int, height: int) -> int:
    """Text height that reads well in a tile: 26 px at 1920x1080, growing with the root of its size."""
    return max(11, round(26 * math.pow(min(height, width * 9 / 16) / 1080, 0.55)))


def _looks(line: int, visible: Rectangle, picture: Rectangle) -> Int32:
    """How what comes with tracks looks, see `kernels/overlay_cpu.py`: of trails, the colour only."""

    def look(kind: Kind, a: int, b: int, colour: Ycc, alpha: int, clip: Rectangle) -> tuple[int, ...]:
        return (kind, 0, 0, 0, 0, a, b, *colour, alpha, 0, *clip)

    looks = [look(Kind.GLYPH, 0, 0, INK, 255, visible)]
    for colour in TRACKS:
        looks += [
            look(Kind.LINE, 0, 0, colour, 0, picture),
            look(Kind.FRAME, line + 2, 90, colour, 245, picture),
            look(Kind.FILL, 0, 0, colour, 235, visible),
        ]
    return np.array(looks, np.int32)


def _intersection(bounds: Rectangle, box: tuple[int, int, int, int]) -> Rectangle:
    """The part of (x, y, w, h) within x0, y0, x1, y1."""
    x0, y0 = max(bounds[0], box[0]), max(bounds[1], box[1])
    x1, y1 = min(bounds[2], box[0] + box[2]), min(bounds[3], box[1] + box[3])
    return x0, y0, max(x0, x1), max(y0, y1)
