"""Where each picture goes: the geometry of the mosaic, without any frame.

Config in, `PlacedTile` rectangles out (`place_tiles`); a tile and a picture's size in, the
mapping of picture pixels to mosaic pixels out (`fit_picture`). Every edge is even, because a
chroma sample covers two luma pixels each way.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from tiler.compose.arrange import (
    Box,
    Grid,
    LayoutError,
    cell_span,
    even,
    explicit_box,
    inner_area,
    pip,
    spotlight,
)
from tiler.config.models import Config, Source, Tile
from tiler.types import Crop, Follow

__all__ = [
    "LayoutError", "PlacedTile", "View", "draw_layout", "fit_picture", "follow_of", "numbered_tiles", "place_tiles",
]  # fmt: skip

Fit = Literal["contain", "cover", "stretch"]

WHOLE = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True, slots=True)
class PlacedTile:
    """One rectangle of the mosaic and how its picture meets it.

    Attributes:
        source: index of the source in the config.
        x, y, w, h: mosaic pixels, even; may hang over the mosaic's edge.
        fit: contain | cover | stretch.
        crop: the part of the picture to show; of a tile that follows somebody, before anything is known.
        z: drawing order; higher is drawn later.
        opacity: 0..1.
        title: caption.
        follow: whom it follows, and how near; None: nobody.
    """

    source: int
    x: int
    y: int
    w: int
    h: int
    fit: Fit = "contain"
    crop: Crop = WHOLE
    z: int = 0
    opacity: float = 1.0
    title: str = ""
    follow: Follow | None = None


@dataclass(frozen=True, slots=True)
class View:
    """The mapping from a picture to the mosaic.

    Attributes:
        dst: x, y, w, h in mosaic pixels, even, inside the tile: where the picture is drawn.
        src: x0, y0, x1, y1 in picture pixels: the part that is drawn there.
    """

    dst: Box
    src: tuple[float, float, float, float]

    @property
    def scale(self) -> tuple[float, float]:
        """Mosaic pixels a picture pixel, across and down."""
        x0, y0, x1, y1 = self.src
        return self.dst[2] / (x1 - x0), self.dst[3] / (y1 - y0)

    def to_mosaic(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Map points (floats or arrays) from picture pixels to mosaic pixels."""
        across, down = self.scale
        return (x - self.src[0]) * across + self.dst[0], (y - self.src[1]) * down + self.dst[1]


def place_tiles(config: Config) -> tuple[PlacedTile, ...]:
    """Place every tile of the config, in drawing order: by `z`, then as written.

    Without `tiles` each source gets one, in order. Tiles with a `rect` or `cell` stay where they
    are put; the others take the places of `mosaic.layout` in the order written.

    Raises:
        LayoutError: names the key and what is accepted.
    """
    return tuple(sorted(numbered_tiles(config), key=lambda tile: tile.z))


def numbered_tiles(config: Config) -> list[PlacedTile]:
    """Every tile of the config, as written; see `place_tiles`."""
    mosaic = config.mosaic
    tiles = config.tiles or [Tile(source=source.id) for source in config.sources]
    boxes = _boxes(config, tiles)
    index = {source.id: i for i, source in enumerate(config.sources)}
    placed = []
    for i, (tile, box) in enumerate(zip(tiles, boxes, strict=True)):
        if tile.source not in index:
            raise LayoutError(f"tiles[{i}].source", f"no source has the id {tile.source!r}")
        x, y, w, h = box
        if min(w, h) < 2:
            raise LayoutError(
                "mosaic.gap_px" if mosaic.gap_px else "mosaic",
                f"no room is left for {len(tiles)} tiles in {mosaic.width}x{mosaic.height}; "
                "use smaller gap_px and border_px, or a larger mosaic",
            )
        source = index[tile.source]
        placed.append(
            PlacedTile(
                source, x, y, w, h,
                fit=tile.fit or mosaic.fit,
                crop=_checked_crop(tile.crop, f"tiles[{i}].crop") if tile.view is None else _middle(tile.view.zoom),
                z=tile.z,
                opacity=tile.opacity,
                title=tile.title if tile.title is not None else config.sources[source].title,
                follow=follow_of(tile, config.sources[source]),
            )
        )  # fmt: skip
    return placed


def follow_of(tile: Tile, source: Source) -> Follow | None:
    """Whom a tile of this source follows; None: nobody.

    Raises:
        ValueError: the source has no such slot.
    """
    if tile.view is None:
        return None
    names = source.slots.names if source.slots else []
    return names.index(tile.view.follow), tile.view.zoom


def _boxes(config: Config, tiles: Sequence[Tile]) -> list[Box]:
    """The rectangle of each tile, as written: its rect, its cells, or the next place of the layout."""
    mosaic = config.mosaic
    spans = {i: cell_span(tile.cell, f"tiles[{i}].cell") for i, tile in enumerate(tiles) if tile.cell}
    flowing = sum(tile.rect is None and tile.cell is None for tile in tiles)
    in_grid = flowing if mosaic.layout == "grid" else 0

    cells: dict[int, Box] = {}
    places: Iterator[Box] = iter(())
    if spans or in_grid:
        grid = Grid.of(mosaic, in_grid + sum(columns * rows for _, _, columns, rows in spans.values()))
        cells = {i: grid.span(span, f"tiles[{i}].cell") for i, span in spans.items()}
        places = iter(grid.free(in_grid, spans.values()))
    if flowing and mosaic.layout != "grid":
        arrange = spotlight if mosaic.layout == "spotlight" else pip
        places = iter(arrange(inner_area(mosaic), mosaic, flowing))

    boxes = []
    for i, tile in enumerate(tiles):
        if tile.rect is not None and tile.cell is not None:
            raise LayoutError(f"tiles[{i}]", "has both rect and cell; give one of them")
        if tile.rect is not None:
            boxes.append(explicit_box(tile.rect, mosaic, f"tiles[{i}].rect"))
        else:
            boxes.append(cells[i] if i in cells else next(places))
    return boxes


def fit_picture(
    tile: PlacedTile, picture_size: tuple[int, int], picture_aspect: Fraction = Fraction(1)
) -> View:
    """How a picture meets its tile.

    `contain` shows the whole crop and keeps its shape within even rounding, centred; `cover` fills
    the tile and loses what stands out, evenly on both sides; `stretch` fills it with all of the crop.

    Args:
        tile: the tile.
        picture_size: width and height, picture pixels.
        picture_aspect: width : height of one picture pixel.
    """
    crop_x, crop_y, crop_w, crop_h = tile.crop
    x0, y0 = crop_x * picture_size[0], crop_y * picture_size[1]
    w, h = crop_w * picture_size[0], crop_h * picture_size[1]
    if tile.fit == "stretch":
        return View((tile.x, tile.y, tile.w, tile.h), (x0, y0, x0 + w, y0 + h))
    across, down = tile.w / (w * float(picture_aspect)), tile.h / h
    if tile.fit == "cover":
        scale = max(across, down)
        seen_w, seen_h = w * across / scale, h * down / scale
        x0, y0 = x0 + (w - seen_w) / 2, y0 + (h - seen_h) / 2
        return View((tile.x, tile.y, tile.w, tile.h), (x0, y0, x0 + seen_w, y0 + seen_h))
    scale = min(across, down)
    dst_w = min(tile.w, max(2, even(tile.w * scale / across)))
    dst_h = min(tile.h, max(2, even(tile.h * scale / down)))
    dst = (tile.x + (tile.w - dst_w) // 4 * 2, tile.y + (tile.h - dst_h) // 4 * 2, dst_w, dst_h)
    return View(dst, (x0, y0, x0 + w, y0 + h))


def _middle(zoom: float) -> Crop:
    part = 1 / zoom
    return (1 - part) / 2, (1 - part) / 2, part, part


def _checked_crop(crop: Sequence[float] | None, key: str) -> Crop:
    if crop is None:
        return WHOLE
    x, y, w, h = crop
    slack = 1e-6   # 0.1 + 0.9 and its like
    if min(x, y) < 0 or min(w, h) <= 0 or x + w > 1 + slack or y + h > 1 + slack:
        raise LayoutError(
            key, f"got {list(crop)}; expected [x, y, width, height] as fractions, all of it within 0..1"
        )
    return x, y, min(w, 1 - x), min(h, 1 - y)


_LINES = dict(zip(range(1, 16), "╵╶└╷│┌├╴┘─┴┐┤┬┼", strict=True))
_UP, _RIGHT, _DOWN, _LEFT = 1, 2, 4, 8


def draw_layout(tiles: Sequence[PlacedTile], mosaic_size: tuple[int, int], columns: int = 64) -> str:
    """The layout as text for a terminal: one frame per tile with its title and size.

    Args:
        tiles: in drawing order; later ones cover earlier ones.
        mosaic_size: width and height, pixels.
        columns: width of the drawing in characters, which count as half as wide as high.
    """
    right = max(columns, 8) - 1
    bottom = max(2, round(right * mosaic_size[1] / mosaic_size[0] / 2))
    lines = [[0] * (right + 1) for _ in range(bottom + 1)]
    text = [[" "] * (right + 1) for _ in range(bottom + 1)]

    def frame(x0: int, y0: int, x1: int, y1: int) -> None:
        """Draw a frame over what is there: outside of it, lines that meet it stay."""
        for y in range(y0, y1 + 1):
            for x in range(x0, x1 + 1):
                hidden = _UP * (y > y0) | _RIGHT * (x < x1) | _DOWN * (y < y1) | _LEFT * (x > x0)
                own = (_UP * (y > y0) | _DOWN * (y < y1)) * (x in (x0, x1))
                own |= (_LEFT * (x > x0) | _RIGHT * (x < x1)) * (y in (y0, y1))
                lines[y][x] = lines[y][x] & ~hidden | own
                text[y][x] = " "

    def column(x: int) -> int:
        return min(max(round(x * right / mosaic_size[0]), 0), right)

    def row(y: int) -> int:
        return min(max(round(y * bottom / mosaic_size[1]), 0), bottom)

    frame(0, 0, right, bottom)
    for tile in tiles:
        x0, y0, x1, y1 = column(tile.x), row(tile.y), column(tile.x + tile.w), row(tile.y + tile.h)
        frame(x0, y0, x1, y1)
        captions = [_cells(tile.title, x1 - x0 - 1), _cells(f"{tile.w}x{tile.h}", x1 - x0 - 1)][: y1 - y0 - 1]
        for offset, caption in enumerate(captions):
            y, x = (y0 + y1 - len(captions) + 1) // 2 + offset, (x0 + x1 - len(caption) + 1) // 2
            text[y][x : x + len(caption)] = caption
    return "\n".join(
        "".join(_LINES.get(line, character) for line, character in zip(*pair, strict=True)).rstrip()
        for pair in zip(lines, text, strict=True)
    )


def _cells(title: str, room: int) -> list[str]:
    """The characters that fit, one entry per terminal cell: "" after a wide character, or for what is cut."""
    cells: list[str] = []
    for character in title:
        if unicodedata.category(character).startswith("C"):
            continue
        if unicodedata.combining(character):
            if cells:
                cells[-1] += character
            continue
        cells += [character, ""] if unicodedata.east_asian_width(character) in "WF" else [character]
    if len(cells) > room:
        cells = cells[: max(room - 1, 0)]
        cells = [*cells, "…"][:room]
    return cells
