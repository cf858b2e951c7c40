"""What is drawn at a tick, tile by tile, whatever draws it: placements that last, and this tick's overlays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from math import floor
from typing import NamedTuple

import numpy as np

from tiler.compose.layout import PlacedTile, View, fit_picture, place_tiles
from tiler.compose.overlay import Canvas, OverlayBuilder
from tiler.compose.palette import Ycc, ycc
from tiler.compose.rows import Rows
from tiler.config.models import Config
from tiler.crowd import Int64
from tiler.kernels.primitives import ALPHA, CLIP_X0, COLUMNS, CR, KIND, LUMA, X0, Y1, Kind
from tiler.kernels.scaling import Geometry, geometry
from tiler.types import Crop, Frame, Int32, State, TileInput

Bounds = tuple[int, int, int, int]
"""x0, y0, x1, y1 in mosaic pixels, half-open."""

_SLATES = (State.WAITING, State.NO_SIGNAL)
_Kind = tuple[tuple[int, ...], tuple[int, int] | None, Fraction, int]
"""Shape, size at the source, sample aspect and rotation of a frame."""


_STEP = 16
"""A view that follows somebody moves in this fraction of a pixel: less cannot be seen, and costs new tables."""


class Placement(NamedTuple):
    """How a tile shows pictures of one kind, and which part of them: kept until either changes."""

    kind: _Kind | None
    crop: Crop
    geometry: Geometry | None
    canvas: Canvas


class Drawn(NamedTuple):
    """The tiles at a tick.

    Attributes:
        frames: the picture of each; None for none.
        parts: (tiles, PART_COLUMNS) int64, the ends of its rows: those up to the first, from where those of the tile
            before end, then the picture, then the others.
    """

    frames: list[Frame | None]
    parts: Int64


class Scene:
    """The tiles of a mosaic, in drawing order. One thread uses it.

    Args:
        config: `mosaic`, `sources`, `tiles` and `overlay` are used.
        class_names: what the detector calls its classes, for labels.

    Raises:
        InputError: the layout or the font is refused.
    """

    def __init__(self, config: Config, class_names: tuple[str, ...] = ()) -> None:
        self.size = config.mosaic.width, config.mosaic.height
        self.background: Ycc = ycc(config.mosaic.background)
        self._class_names = class_names
        self.overlay = OverlayBuilder(config, class_names)
        self._show(place_tiles(config))

    def arrange(self, config: Config) -> None:
        """Take other sources, another layout, other titles or another overlay, for the same size of mosaic.

        Raises:
            InputError: the layout is refused; nothing is changed.
        """
        tiles = place_tiles(config)
        atlas = None if self.overlay.atlas.full else self.overlay.atlas
        self.overlay = OverlayBuilder(config, self._class_names, atlas)
        self._show(tiles)

    def _show(self, tiles: tuple[PlacedTile, ...]) -> None:
        self.tiles = tiles
        self.opacities = [round(255 * tile.opacity) for tile in self.tiles]
        self.placements = [self._placement(i, None, tile.crop) for i, tile in enumerate(self.tiles)]

    def place(self, sources: Sequence[TileInput]) -> bool:
        """Renew the placements of tiles whose pictures changed size or shape, or whose view moved; whether any did."""
        changed = False
        for i, tile in enumerate(self.tiles):
            shown, placed = sources[tile.source], self.placements[i]
            frame = visible(shown)
            crop = tile.crop if tile.follow is None else shown.crops.get(tile.follow, placed.crop)
            if (_kind(frame) if frame else None, crop) != placed[:2]:
                self.placements[i] = self._placement(i, frame, crop)
                changed |= self.placements[i].geometry is not placed.geometry
        return changed

    def draw(self, sources: Sequence[TileInput], rows: Rows) -> Drawn:
        """Every tile at this tick, after `place` with the same sources; adds what lies around and over the pictures."""
        frames = [
            visible(sources[tile.source]) if placed.geometry is not None and opacity else None
            for tile, placed, opacity in zip(self.tiles, self.placements, self.opacities, strict=True)
        ]
        return Drawn(frames, self.overlay.draw_tiles([placed.canvas for placed in self.placements], sources, rows))

    def _placement(self, i: int, frame: Frame | None, crop: Crop) -> Placement:
        tile = self.tiles[i]
        if frame is None:
            return Placement(None, crop, None, self.overlay.canvas(i, tile, None, self._bars(tile, None)))
        view = fit_picture(replace(tile, crop=crop), frame.picture_size, frame.picture_aspect)
        if tile.follow is not None:
            view = _stepped(view)
        tables = geometry(frame.plane_size, frame.rotation, _in_samples(view.src, frame), view.dst, self.size)
        return Placement(_kind(frame), crop, tables, self.overlay.canvas(i, tile, view, self._bars(tile, view)))

    def _bars(self, tile: PlacedTile, view: View | None) -> Int32:
        """Background around the picture of a tile; all over it without one."""
        x0, y0, x1, y1 = bounds(tile)
        bars = [(x0, y0, x1, y1)]
        if view is not None:
            x, y, w, h = view.dst
            bars = [(x0, y0, x1, y), (x0, y + h, x1, y1), (x0, y, x, y + h), (x + w, y, x1, y + h)]
        return fills(bars, self.background, round(255 * tile.opacity))


def _kind(frame: Frame) -> _Kind:
    return frame.y.shape, frame.source_size, frame.sample_aspect, frame.rotation


def _stepped(view: View) -> View:
    """The view at the next place to the left and up that is a whole step: its size, and so its scale, never changes."""
    x0, y0, x1, y1 = view.src
    x, y = floor(x0 * _STEP) / _STEP, floor(y0 * _STEP) / _STEP
    return View(view.dst, (x, y, x + (x1 - x0), y + (y1 - y0)))


def _in_samples(src: tuple[float, float, float, float], frame: Frame) -> tuple[float, float, float, float]:
    """A rectangle in picture pixels, in samples of the upright planes: fewer where the decoder has scaled."""
    if frame.source_size is None:
        return src
    across, down = (few / many for few, many in zip(frame.plane_size, frame.picture_size, strict=True))
    return src[0] * across, src[1] * down, src[2] * across, src[3] * down


def visible(shown: TileInput) -> Frame | None:
    """The picture that a tile shows; None for a slate."""
    return None if shown.state in _SLATES else shown.frame


def shown_pts(sources: Sequence[TileInput]) -> tuple[int | None, ...]:
    """For each source the pts of its picture, None for a slate: the provenance of a mosaic."""
    frames = [visible(shown) for shown in sources]
    return tuple(frame.pts if frame is not None else None for frame in frames)


def fills(areas: Sequence[Bounds], colour: Ycc, alpha: int = 255) -> Int32:
    """FILL rows for the areas that are not empty."""
    areas = [area for area in areas if area[0] < area[2] and area[1] < area[3]]
    rows = np.zeros((len(areas), COLUMNS), np.int32)
    if areas:
        rows[:, KIND] = Kind.FILL
        rows[:, X0 : Y1 + 1] = rows[:, CLIP_X0:] = areas
        rows[:, LUMA : CR + 1] = colour
        rows[:, ALPHA] = alpha
    return rows


def bounds(tile: PlacedTile) -> Bounds:
    """The tile's rectangle; may hang over the mosaic's edge."""
    return tile.x, tile.y, tile.x + tile.w, tile.y + tile.h
