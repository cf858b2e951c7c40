"""What is drawn over the pictures at a tick, as rows of primitives (`tiler.kernels.primitives`).

Pure: the same inputs give the same rows. What tracks bring is written by one compiled call a tick;
what stays the same from tick to tick (captions, slates, the letters of labels) is kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import is_
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tiler.compose.glyphs import Atlas
from tiler.compose.layout import PlacedTile, View
from tiler.compose.lettering import lettering
from tiler.compose.palette import INK, TRACKS, Ycc
from tiler.compose.pen import Pen, Rectangle, blend, plate_baseline, plate_height, plate_padding
from tiler.compose.rows import Rows, no_rows
from tiler.compose.slate import draw_badge, draw_caption, draw_clock, draw_slate
from tiler.config.models import Config
from tiler.crowd import NOBODY, Crowd, People, together
from tiler.kernels.overlay_cpu import (
    BASELINE_PX,
    BEGINS,
    BOXES,
    FONT_COLUMNS,
    FROM,
    GLYPHS,
    LABELS,
    LONGEST,
    OPACITY,
    PAD_PX,
    PART_COLUMNS,
    PART_END,
    PICTURE,
    PIECES_A_SECOND,
    PLACE_COLUMNS,
    PLATE_PX,
    ROOM,
    SCALE,
    SLOTS,
    TO,
    TRAIL_ALPHA,
    TRAIL_PX,
    TRAIL_S,
    TRAILS,
    UNDER_END,
    VIEW_COLUMNS,
    VISIBLE,
    Float64,
    Int64,
    Lettering,
    draw_tiles,
    most_rows,
)
from tiler.kernels.primitives import Kind
from tiler.types import Int32, State, TileInput

TRAIL_PARTS = 16
"""Straight pieces of a trail at most."""

_KEPT = 8192
_SLATES = (State.WAITING, State.NO_SIGNAL)


class Canvas(NamedTuple):
    """Where and how to draw over a tile, as long as its pictures stay of one kind.

    Attributes:
        number, tile: which tile.
        text: height of its text, px.
        visible: the tile within the mosaic.
        picture: its picture within that; None without a picture, or where nothing of it is visible.
        looks, place, view: as `draw_tiles` takes them, of this tile.
        under: rows that lie under the picture.
    """

    number: int
    tile: PlacedTile
    text: int
    visible: Rectangle
    picture: Rectangle | None
    looks: Int32
    place: Int64
    view: Float64
    under: Int32


class _Lasting(NamedTuple):
    """What `draw_tiles` takes of some canvases.

    Attributes:
        canvases: those.
        tables: looks, place, view and fonts of each; and glyphs, advances, begins and slots of all letterings.
        longest: of all letterings.
    """

    canvases: Sequence[Canvas]
    tables: tuple[Any, ...]
    longest: int


class _Furniture(NamedTuple):
    """What lies under the picture of each tile, and its captions: one after the other, and where they end."""

    pieces: Sequence[Int32]
    rows: Int32
    ends: Int64


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
        self._captions: dict[int, tuple[Canvas, State, float, Int32]] = {}   # of each tile what it shows, and its rows
        self._slot_names = [tuple(source.slots.names) if source.slots else () for source in config.sources]
        self._letters: dict[tuple[int, tuple[str, ...]], Lettering] = {}
        self._lasting = _Lasting((), (), 0)
        self._furniture = _Furniture((), no_rows(), np.zeros((0, 2), np.int64))
        self._clock = "", no_rows()
        self._marks_tracks = overlay.boxes or overlay.labels or overlay.trails
        if class_names:   # no tick is to pay for first use
            canvas = self.canvas(-1, PlacedTile(0, *self._mosaic), View(self._mosaic, self._mosaic))
            self._draw([canvas], NOBODY.crowd, [-1], self._furnish([no_rows(), no_rows()]), Rows())

    def canvas(self, number: int, tile: PlacedTile, view: View | None, under: Int32 | None = None) -> Canvas:
        """What lasts while a tile shows pictures through this view; no view: no picture.

        Args:
            number: tells the tile from others.
            tile: that tile.
            view: where its picture is.
            under: rows that lie under it.
        """
        overlay, under = self._overlay, no_rows() if under is None else under
        text = overlay.text_px or max(text_height(tile.w, tile.h), round(self._mosaic[3] / 120))
        visible = _intersection(self._mosaic, (tile.x, tile.y, tile.w, tile.h))
        place, table = np.zeros(PLACE_COLUMNS, np.int64), np.zeros(VIEW_COLUMNS)
        if view is None or visible[0] >= visible[2] or visible[1] >= visible[3]:
            looks = _looks(0, visible, visible)
            return Canvas(number, tile, text, visible, None, looks, place, table, under)
        picture = _intersection(visible, view.dst)
        line, pad = overlay.line_px or max(2, round(text / 7)), plate_padding(text)
        place[VISIBLE : VISIBLE + 4], place[PICTURE : PICTURE + 4] = visible, picture
        place[PAD_PX], place[PLATE_PX], place[BASELINE_PX] = pad, plate_height(text), plate_baseline(text)
        place[BOXES], place[LABELS], place[TRAILS] = overlay.boxes, overlay.labels, overlay.trails
        table[FROM:SCALE], table[SCALE:TO], table[TO:ROOM] = view.src[:2], view.scale, view.dst[:2]
        table[ROOM] = (visible[2] - visible[0]) * 0.45 - 2 * pad
        table[TRAIL_S], table[PIECES_A_SECOND] = overlay.trail_s, TRAIL_PARTS / overlay.trail_s
        table[TRAIL_PX], table[TRAIL_ALPHA], table[OPACITY] = line, 235, tile.opacity
        looks = blend(_looks(line, visible, picture), tile.opacity)
        return Canvas(number, tile, text, visible, picture, looks, place, table, under)

    def draw_tiles(self, canvases: Sequence[Canvas], sources: Sequence[TileInput], rows: Rows) -> Int64:
        """Add what lies under the pictures of tiles, and their overlays, clipped to them, in drawing order.

        Args:
            canvases: of the tiles and their pictures.
            sources: what the sources show, by their index.
            rows: where to add it.

        Returns:
            (tiles, PART_COLUMNS) int64: where its parts end, see `kernels/overlay_cpu.py`.
        """
        everyone: list[People] = []
        pieces: list[Int32] = []
        for canvas in canvases:
            shown = sources[canvas.tile.source]
            marked = self._marks_tracks and canvas.picture is not None and shown.state not in _SLATES
            everyone.append(shown.people if marked else NOBODY)
            pieces += (canvas.under, self._caption(canvas, shown))
        furniture = self._furnish(pieces)
        crowd, numbers = together(everyone)
        if self._class_names or crowd is not NOBODY.crowd:
            return self._draw(canvases, crowd, numbers, furniture, rows)
        parts = np.empty((len(canvases), PART_COLUMNS), np.int64)   # nobody is there, nor will be: without a compiler
        parts[:, UNDER_END] = rows.count + furniture.ends[:, 0]
        parts[:, PART_END] = rows.count + furniture.ends[:, 1]
        rows.add(furniture.rows)
        return parts

    def draw_mosaic(self, clock: str, rows: Rows) -> None:
        """Add the overlay of the whole mosaic, to draw last: the wall clock."""
        if not self._overlay.clock or not clock:
            return
        if self._clock[0] != clock:
            pen = Pen(self.atlas)
            draw_clock(pen, self._mosaic, clock, self._clock_px)
            self._clock = clock, pen.rows(self._mosaic)
        rows.add(self._clock[1])

    def _draw(
        self,
        canvases: Sequence[Canvas],
        crowd: Crowd,
        numbers: Sequence[int],
        furniture: _Furniture,
        rows: Rows,
    ) -> Int64:
        """`draw_tiles` where people may be, with a crowd that all of them are of."""
        lasting, parts = self._lasting_of(canvases), np.empty((len(canvases), PART_COLUMNS), np.int64)
        _, pts, ends, _, *columns = crowd.tracks
        shown = [number for number in numbers if number >= 0]
        most = 1 + len(shown) - len(set(shown))   # tiles that show one picture
        people, points = most * len(columns[0]), most * len(crowd.history)
        rows.make_room(most_rows(people, points, lasting.longest) + len(furniture.rows))
        rows.count = draw_tiles(
            rows.array, rows.count, parts, *lasting.tables, furniture.rows, furniture.ends,
            np.array(numbers, np.int64), pts, ends, *columns, crowd.history, crowd.history_ends,
        )  # fmt: skip
        return parts

    def _lasting_of(self, canvases: Sequence[Canvas]) -> _Lasting:
        """What lasts as long as these do."""
        if not _same(canvases, self._lasting.canvases):
            letters = [self._letters_of(canvas) for canvas in canvases]
            each = list({id(one): one for one in letters}.values())
            fonts, ends = {}, np.zeros(3, np.int64)
            for one in each:
                sizes = np.array([len(one.glyphs), len(one.begins), len(one.slots)])
                begin, ends = ends, ends + sizes
                font = fonts[id(one)] = np.zeros(FONT_COLUMNS, np.int64)
                font[[GLYPHS, BEGINS, SLOTS]], font[[GLYPHS + 1, BEGINS + 1, SLOTS + 1]] = begin, ends
                font[LONGEST] = one.longest
            tables = (
                np.stack([canvas.looks for canvas in canvases]), np.stack([canvas.place for canvas in canvases]),
                np.stack([canvas.view for canvas in canvases]), np.stack([fonts[id(one)] for one in letters]),
                *(np.concatenate([one[k] for one in each]) for k in range(4)),
            )  # fmt: skip
            self._lasting = _Lasting(tuple(canvases), tables, max(one.longest for one in each))
        return self._lasting

    def _letters_of(self, canvas: Canvas) -> Lettering:
        key = canvas.text, self._slot_names[canvas.tile.source]
        letters = self._letters.get(key)
        if letters is None:
            letters = self._letters[key] = lettering(self.atlas, self._class_names, *key)
        return letters

    def _furnish(self, pieces: Sequence[Int32]) -> _Furniture:
        """These one after the other: mostly they are those of the last tick."""
        if not _same(pieces, self._furniture.pieces):
            ends = np.cumsum([len(piece) for piece in pieces], dtype=np.int64).reshape(-1, 2)
            self._furniture = _Furniture(tuple(pieces), np.concatenate(pieces), ends)
        return self._furniture

    def _caption(self, canvas: Canvas, shown: TileInput) -> Int32:
        """What is written on a tile, or the slate that it shows."""
        last = self._captions.get(canvas.number)
        if last is not None and last[0] is canvas and last[1] is shown.state and last[2] == shown.fps:
            return last[3]
        if canvas.visible[0] >= canvas.visible[2] or canvas.visible[1] >= canvas.visible[3]:
            rows = no_rows()
        elif canvas.picture is None or shown.state in _SLATES:
            state = State.NO_SIGNAL if shown.state is State.NO_SIGNAL else State.WAITING
            rows = self._still(canvas, None, state, "")
        else:
            fps = f"{shown.fps:.1f} fps" if self._overlay.fps and shown.state is State.LIVE else ""
            rows = self._still(canvas, canvas.picture, shown.state, fps)
        self._captions[canvas.number] = canvas, shown.state, shown.fps, rows
        return rows

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


def _same(now: Sequence[object], before: Sequence[object]) -> bool:
    """The very same objects."""
    return len(now) == len(before) and all(map(is_, now, before))


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
