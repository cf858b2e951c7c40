"""Geometry of the mosaic: no frame is needed to know where it goes."""

from __future__ import annotations

import unicodedata
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiler.compose.arrange import best_grid
from tiler.compose.layout import LayoutError, PlacedTile, draw_layout, fit_picture, place_tiles
from tiler.config.models import Config
from tiler.errors import InputError

SIZES = st.integers(64, 4096).map(lambda half: 2 * half)


def config(count: int, tiles: list[dict[str, Any]] | None = None, **mosaic: Any) -> Config:
    sources = [{"id": f"s{i}", "uri": f"{i}.mp4"} for i in range(count)]
    return Config.model_validate({"sources": sources, "tiles": tiles, "mosaic": mosaic})


def boxes(placed: tuple[PlacedTile, ...]) -> list[tuple[int, int, int, int]]:
    return [(tile.x, tile.y, tile.w, tile.h) for tile in placed]


@pytest.mark.parametrize(
    ("count", "size", "expected"),
    [
        (1, (3840, 2160), (1, 1)),
        (2, (3840, 2160), (2, 1)),
        (3, (3840, 2160), (2, 2)),
        (4, (3840, 2160), (2, 2)),
        (5, (3840, 2160), (3, 2)),
        (7, (3840, 2160), (3, 3)),
        (12, (3840, 2160), (4, 3)),
        (16, (3840, 2160), (4, 4)),
        (64, (3840, 2160), (8, 8)),
        (4, (1080, 1920), (1, 4)),
        (4, (7680, 1080), (4, 1)),
    ],
)
def test_best_grid_shows_widescreen_pictures_largest(count, size, expected):
    assert best_grid(count, *size) == expected


@given(
    count=st.integers(1, 64),
    layout=st.sampled_from(["grid", "spotlight"]),
    width=SIZES,
    height=SIZES,
    gap=st.integers(0, 24),
    border=st.integers(0, 24),
)
def test_tiles_are_even_disjoint_inside_and_in_order(count, layout, width, height, gap, border):
    try:
        placed = place_tiles(
            config(count, layout=layout, width=width, height=height, gap_px=gap, border_px=border)
        )
    except LayoutError:
        assert min(width, height) < 64 * 28   # refused only for want of room
        return
    assert [tile.source for tile in placed] == list(range(count))
    edges = np.array(boxes(placed))
    assert not (edges % 2).any()
    assert (edges[:, 2:] >= 2).all()
    x0, y0, x1, y1 = edges[:, 0], edges[:, 1], edges[:, 0] + edges[:, 2], edges[:, 1] + edges[:, 3]
    border += border % 2
    assert x0.min() >= border
    assert y0.min() >= border
    assert x1.max() <= width - border
    assert y1.max() <= height - border
    gap += gap % 2
    apart_x = (x0[:, None] >= x1[None] + gap) | (x1[:, None] + gap <= x0[None])
    apart_y = (y0[:, None] >= y1[None] + gap) | (y1[:, None] + gap <= y0[None])
    assert (apart_x | apart_y | np.eye(count, dtype=bool)).all()


@given(columns=st.integers(1, 8), rows=st.integers(1, 8), width=SIZES, height=SIZES)
def test_full_grid_covers_every_pixel_once(columns, rows, width, height):
    placed = place_tiles(config(columns * rows, grid=[columns, rows], width=width, height=height))
    assert sum(tile.w * tile.h for tile in placed) == width * height
    widths = {tile.w for tile in placed}
    assert max(widths) - min(widths) <= 2


@pytest.mark.parametrize("count", [6, 8, 13, 4])
def test_usual_spotlights_cover_the_whole_mosaic(count):
    placed = place_tiles(config(count, layout="spotlight"))
    assert sum(tile.w * tile.h for tile in placed) == 3840 * 2160
    assert placed[0].w * placed[0].h == max(tile.w * tile.h for tile in placed)
    assert {Fraction(tile.w, tile.h) for tile in placed[1:]} == {Fraction(16, 9)}


@given(count=st.integers(1, 64), width=st.integers(320, 2048), height=st.integers(320, 2048))
def test_pip_insets_stay_inside_and_apart_over_the_full_picture(count, width, height):
    width, height = 2 * width, 2 * height
    placed = place_tiles(config(count, layout="pip", width=width, height=height))
    assert boxes(placed)[0] == (0, 0, width, height)
    insets = boxes(placed)[1:]
    for i, (x, y, w, h) in enumerate(insets):
        assert 0 < x < x + w <= width
        assert 0 < y < y + h <= height
        for other_x, other_y, other_w, other_h in insets[:i]:
            assert x + w <= other_x or other_x + other_w <= x or y + h <= other_y or other_y + other_h <= y


def test_pip_starts_at_the_bottom_right_and_goes_up():
    _, first, second = place_tiles(config(3, layout="pip", width=1920, height=1080))
    assert first.x > 960
    assert first.y > 540
    assert (second.x, second.w) == (first.x, first.w)
    assert second.y + second.h < first.y


def test_explicit_rectangles_pixels_fractions_and_overhang():
    placed = place_tiles(
        config(
            1,
            [
                {"source": "s0", "rect": [-100, 20, 301, 200]},
                {"source": "s0", "rect": [0.5, 0.0, 0.5, 0.25], "z": -1, "title": "top"},
                {"source": "s0", "rect": [1800, 1000, 1.0, 1.0]},
            ],
            width=1920,
            height=1080,
        )
    )
    assert boxes(placed) == [(960, 0, 960, 270), (-100, 20, 302, 200), (1800, 1000, 1920, 1080)]
    assert [tile.title for tile in placed] == ["top", "s0", "s0"]


def test_neighbouring_fractions_share_their_edge():
    third = 1 / 3
    placed = place_tiles(
        config(
            3,
            [{"source": f"s{i}", "rect": [i * third, 0.0, third, 1.0]} for i in range(3)],
            width=1366,
            height=768,
        )
    )
    assert [tile.x for tile in placed[1:]] == [tile.x + tile.w for tile in placed[:-1]]
    assert placed[2].x + placed[2].w == 1366


def test_cells_span_and_the_others_flow_around_them():
    placed = place_tiles(
        config(
            3,
            [
                {"source": "s0"},
                {"source": "s1", "cell": [1, 0, 2, 2]},
                {"source": "s2"},
            ],
            grid=[3, 3],
            width=1920,
            height=1080,
            gap_px=6,
        )
    )
    by_source = {tile.source: tile for tile in placed}
    assert (by_source[0].x, by_source[0].y) == (0, 0)
    assert by_source[1].x == by_source[0].w + 6
    assert by_source[1].x + by_source[1].w == 1920
    assert (by_source[2].x, by_source[2].y) == (0, by_source[0].h + 6)


def test_border_and_gap_are_kept_exactly():
    a, b, c, d = place_tiles(config(4, width=1920, height=1080, gap_px=10, border_px=20))
    assert (a.x, a.y) == (20, 20)
    assert b.x - (a.x + a.w) == 10 == d.y - (b.y + b.h)
    assert (d.x + d.w, c.y + c.h) == (1900, 1060)


@pytest.mark.parametrize(
    ("count", "tiles", "mosaic", "key", "words"),
    [
        (5, None, {"grid": [2, 2]}, "mosaic.grid", "4 free cells for 5 tiles"),
        (1, None, {"grid": [0, 2]}, "mosaic.grid", "each 1 to 64"),
        (1, [{"source": "s0", "cell": [2, 0]}], {"grid": [2, 2]}, "tiles[0].cell", "outside the grid of 2x2"),
        (1, [{"source": "s0", "cell": [0, 0, 3, 1]}], {"grid": [2, 2]}, "tiles[0].cell", "outside the grid"),
        (1, [{"source": "s0", "cell": [-1, 0]}], {"grid": [2, 2]}, "tiles[0].cell", "[column, row]"),
        (1, [{"source": "s0", "cell": [0, 0, 1]}], {}, "tiles[0].cell", "[column, row, columns, rows]"),
        (1, [{"source": "s0"}, {"source": "s0", "rect": [0, 0, 0, 9]}], {}, "tiles[1].rect", "above 0"),
        (1, [{"source": "s0", "rect": [0, 0, 0.0001, 9]}], {}, "tiles[0].rect", "at least 2x2"),
        (1, [{"source": "s0", "rect": [9000, 0, 10, 10]}], {}, "tiles[0].rect", "outside 3840x2160"),
        (1, [{"source": "s0", "rect": [0, 0, 9e9, 1.0]}], {}, "tiles[0].rect", "within 32768"),
        (1, [{"source": "s0", "rect": [0, 0, 9, 9], "cell": [0, 0]}], {}, "tiles[0]", "both rect and cell"),
        (1, [{"source": "s0", "crop": [0.5, 0.0, 0.6, 1.0]}], {}, "tiles[0].crop", "within 0..1"),
        (1, [{"source": "s0", "crop": [0.0, 0.0, 0.0, 1.0]}], {}, "tiles[0].crop", "within 0..1"),
        (1, [{"source": "nobody"}], {}, "tiles[0].source", "nobody"),
        (64, None, {"width": 640, "height": 480, "gap_px": 100}, "mosaic.gap_px", "no room"),
        (1, None, {"width": 128, "height": 128, "border_px": 64}, "mosaic.border_px", "less than 64"),
    ],
)
def test_errors_name_the_key_and_what_is_accepted(count, tiles, mosaic, key, words):
    with pytest.raises(InputError) as caught:
        place_tiles(config(count, tiles, **mosaic))
    assert isinstance(caught.value, LayoutError)
    assert caught.value.key == key
    assert str(caught.value).startswith(f"{key}: ")
    assert words in str(caught.value)


TILES = st.builds(
    PlacedTile,
    source=st.just(0),
    x=st.integers(-500, 500).map(lambda half: 2 * half),
    y=st.integers(-500, 500).map(lambda half: 2 * half),
    w=st.integers(1, 2000).map(lambda half: 2 * half),
    h=st.integers(1, 2000).map(lambda half: 2 * half),
    fit=st.sampled_from(["contain", "cover", "stretch"]),
    crop=st.sampled_from([(0.0, 0.0, 1.0, 1.0), (0.25, 0.5, 0.5, 0.25), (0.9, 0.0, 0.1, 1.0)]),
)
ASPECTS = st.sampled_from([Fraction(1), Fraction(4, 3), Fraction(16, 15), Fraction(1, 2)])


@given(tile=TILES, size=st.tuples(st.integers(1, 5000), st.integers(1, 5000)), aspect=ASPECTS)
def test_picture_meets_tile(tile, size, aspect):
    view = fit_picture(tile, size, aspect)
    x, y, w, h = view.dst
    assert not any(edge % 2 for edge in view.dst)
    assert tile.x <= x < x + w <= tile.x + tile.w
    assert tile.y <= y < y + h <= tile.y + tile.h
    x0, y0, x1, y1 = view.src
    crop_x, crop_y, crop_w, crop_h = tile.crop
    slack = 1e-6 * max(size)
    assert crop_x * size[0] - slack <= x0 < x1 <= (crop_x + crop_w) * size[0] + slack
    assert crop_y * size[1] - slack <= y0 < y1 <= (crop_y + crop_h) * size[1] + slack
    if tile.fit != "contain":
        assert view.dst == (tile.x, tile.y, tile.w, tile.h)
    if tile.fit != "cover":
        assert x1 - x0 == pytest.approx(crop_w * size[0])
        assert y1 - y0 == pytest.approx(crop_h * size[1])
    if tile.fit != "stretch":
        exact_w = (x1 - x0) * float(aspect) / (y1 - y0) * h
        exact_h = (y1 - y0) / float(aspect) / (x1 - x0) * w
        assert abs(exact_w - w) <= 2.001 or abs(exact_h - h) <= 2.001
    left, top = view.to_mosaic(x0, y0)
    right, bottom = view.to_mosaic(np.array([x1]), np.array([y1]))
    assert (left, top) == pytest.approx((x, y))
    assert (right[0], bottom[0]) == pytest.approx((x + w, y + h))


def test_equal_sizes_are_shown_pixel_for_pixel():
    for fit in ("contain", "cover", "stretch"):
        view = fit_picture(PlacedTile(0, 640, 360, 1280, 720, fit=fit), (1280, 720))
        assert view.dst == (640, 360, 1280, 720)
        assert view.src == (0, 0, 1280, 720)


def test_letterbox_and_central_crop():
    tile = PlacedTile(0, 0, 0, 1600, 900)
    assert fit_picture(tile, (640, 480)).dst == (200, 0, 1200, 900)
    anamorphic = fit_picture(tile, (720, 576), Fraction(64, 45))
    assert anamorphic.dst == (0, 0, 1600, 900)
    cover = fit_picture(PlacedTile(0, 0, 0, 1600, 900, fit="cover"), (640, 480))
    assert cover.src == pytest.approx((0, 60, 640, 420))


def display_width(line: str) -> int:
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in line)


def test_drawing_shows_titles_junctions_and_overlap():
    placed = place_tiles(
        config(
            4,
            [
                {"source": "s0", "title": "정문"},
                {"source": "s1"},
                {"source": "s2"},
                {"source": "s3", "title": "a title far too long for its tile"},
                {"source": "s0", "rect": [0.25, 0.25, 0.5, 0.5], "title": "over", "z": 1},
            ],
            width=1920,
            height=1080,
        )
    )
    text = draw_layout(placed, (1920, 1080), columns=40)
    lines = text.split("\n")
    assert {display_width(line) for line in lines} == {40}
    assert lines[0][0] + lines[0][-1] + lines[-1][0] + lines[-1][-1] == "┌┐└┘"
    assert "┬" in lines[0]
    assert "정문" in text
    assert "over" in text
    assert "…" in text
    assert "┼" not in text   # the middle is covered
    whole = draw_layout(place_tiles(config(4)), (3840, 2160))
    assert "┼" in whole
    assert "1920x1080" in whole
