"""What is drawn over the pictures, looked at through a plain rasteriser."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from overlay_reference import ReferenceOverlay
from raster import draw

from tiler.compose.glyphs import Atlas
from tiler.compose.layout import PlacedTile, View, fit_picture, place_tiles
from tiler.compose.overlay import TRAIL_PARTS, OverlayBuilder, text_height
from tiler.compose.palette import TRACK_COLOURS, ycc
from tiler.compose.rows import Rows
from tiler.config.models import Config
from tiler.crowd import People
from tiler.kernels.primitives import ALPHA, CLIP_X0, COLUMNS, KIND, LUMA, X0, X1, Y0, Y1, A, B, Kind
from tiler.types import Frame, State, TileInput, Tracks

PICTURE = (640, 360)


def config(count: int = 1, overlay: dict[str, Any] | None = None, **mosaic: Any) -> Config:
    mosaic = {"width": 1280, "height": 720} | mosaic
    sources = [{"id": f"s{i}", "uri": f"{i}.mp4", "label": f"Camera {i}"} for i in range(count)]
    return Config.model_validate({"sources": sources, "mosaic": mosaic, "overlay": overlay or {}})


def only(*names: str) -> dict[str, bool]:
    """An overlay of these parts alone."""
    return {name: name in names for name in ("boxes", "labels", "trails", "titles", "fps", "clock")}


def frame() -> Frame:
    return Frame(
        0, 0, np.zeros((360, 640), np.uint8), np.zeros((180, 320), np.uint8), np.zeros((180, 320), np.uint8)
    )


def shown(
    boxes: list[tuple[float, float, float, float]] | None = None,
    state: State = State.LIVE,
    history: list[tuple[float, float, float, float]] | None = None,
    ids: list[int] | None = None,
    pts: int = 900_000,
) -> TileInput:
    boxes = boxes or []
    n = len(boxes)
    tracks = Tracks(
        pts,
        np.array(ids or range(1, n + 1), np.int32)[:n],
        np.array(boxes, np.float32).reshape(-1, 4),
        np.full(n, 0.934, np.float32),
        np.zeros(n, np.int32),
    )
    points = np.array(history or [], np.float32).reshape(-1, 4)
    return TileInput(frame(), People.of(tracks, points), state, 29.97)


def build(settings: Config, what: TileInput, index: int = 0) -> tuple[np.ndarray, OverlayBuilder, PlacedTile]:
    tiles = place_tiles(settings)
    builder = OverlayBuilder(settings, ("person", "car"))
    tile = tiles[index]
    return tile_rows(builder, index, tile, fit_picture(tile, PICTURE), what), builder, tile


def tile_rows(builder: OverlayBuilder, i: int, tile: PlacedTile, view: View | None, what: TileInput) -> np.ndarray:
    rows = Rows()
    builder.draw_tiles([builder.canvas(i, tile, view)], [what] * (tile.source + 1), rows)
    return rows.written


def mosaic_rows(builder: OverlayBuilder, clock: str) -> np.ndarray:
    rows = Rows()
    builder.draw_mosaic(clock, rows)
    return rows.written


def rendered(settings: Config, rows: np.ndarray, builder: OverlayBuilder, grey: int = 100) -> np.ndarray:
    """The luma of a grey mosaic with the rows drawn over it."""
    h, w = settings.mosaic.height, settings.mosaic.width
    planes = (
        np.full((h, w), grey, np.uint8),
        np.full((h // 2, w // 2), 128, np.uint8),
        np.full((h // 2, w // 2), 128, np.uint8),
    )
    draw(planes, rows, builder.atlas.texture)
    return planes[0]


def test_box_lies_on_its_track_in_its_colour():
    rows, _, _ = build(config(overlay=only("boxes")), shown([(100, 50, 200, 250)], ids=[7]))
    (box,) = rows
    assert box[[X0, Y0, X1, Y1]].tolist() == [199, 99, 401, 501]   # with its dark edge
    assert tuple(box[LUMA:ALPHA]) == ycc(TRACK_COLOURS[7])
    assert box[B] > 0


def test_every_row_is_well_formed_and_clipped_to_its_tile():
    settings = config(4, {"clock": True}, gap_px=8)
    history = [(1.0, 100.0 + 3 * i, 90.0, i / 30) for i in range(40)]
    wild = [(-5000, -80, -20, 40), (-10, -10, 700, 400), (630, 350, 900, 900), (5, 5, 5, 5)]
    for index in range(4):
        for state in State:
            rows, builder, tile = build(settings, shown(wild, state, history), index)
            assert rows.dtype == np.int32
            assert rows.shape[1] == COLUMNS
            assert len(rows) > 0
            assert set(rows[:, KIND]) <= set(Kind)
            assert (rows[:, ALPHA] >= 0).all()
            assert (rows[:, ALPHA] <= 255).all()
            assert (rows[:, LUMA] >= 16).all()
            clip = rows[:, CLIP_X0:]
            assert (clip[:, :2] >= [tile.x, tile.y]).all()
            assert (clip[:, 2:] <= [tile.x + tile.w, tile.y + tile.h]).all()
            luma = rendered(settings, rows, builder)
            luma[tile.y : tile.y + tile.h, tile.x : tile.x + tile.w] = 100
            assert (luma == 100).all()


def test_label_stands_on_the_box_and_moves_inside_at_the_edges():
    settings = config(overlay=only("labels"))
    boxes = [(100, 100, 160, 300), (200, 0, 260, 200), (600, 200, 639, 330), (-30, 250, 20, 359)]
    rows, _, tile = build(settings, shown(boxes))
    plates = rows[rows[:, KIND] == Kind.FILL]
    assert len(plates) == 4
    by_colour = {tuple(plate[LUMA:ALPHA]): plate for plate in plates.tolist()}
    middle, high, right, left = (by_colour[ycc(TRACK_COLOURS[i])] for i in (1, 2, 3, 4))
    assert middle[X0] == 200
    assert middle[Y1] == 200
    assert high[Y0] == 0
    assert right[X1] == tile.w
    assert left[X0] == 0
    glyphs = rows[rows[:, KIND] == Kind.GLYPH]
    assert len(glyphs) == 4 * len("#1person0.93")
    assert {tuple(row) for row in glyphs[:, CLIP_X0:].tolist()} == {(0, 0, 1280, 720)}


def test_label_text_is_legible_on_every_plate():
    for colour in TRACK_COLOURS:
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
        assert (luminance + 0.05) / (0.005 + 0.05) > 4.5   # WCAG 2 contrast with near-black text
    rows, _, _ = build(config(overlay=only("labels")), shown([(10, 60, 90, 90)] * 3, ids=[3, 4, 15]))
    plates = rows[rows[:, KIND] == Kind.FILL]
    assert [tuple(plate) for plate in plates[:, LUMA:ALPHA].tolist()] == [ycc(TRACK_COLOURS[i]) for i in (3, 4, 3)]


def test_labels_shorten_on_tiny_tiles():
    counts = []
    for width in (1280, 320, 160, 96):
        settings = config(overlay=only("labels"), width=width, height=width)
        rows, _, _ = build(settings, shown([(300, 200, 340, 300)]))
        counts.append(int((rows[:, KIND] == Kind.GLYPH).sum()))
    assert counts == [len("#1person0.93"), len("#1person0.93"), len("#1person"), len("#1")]


def test_nearer_boxes_are_drawn_later():
    rows, _, _ = build(config(overlay=only("boxes")), shown([(0, 0, 50, 300), (60, 0, 90, 100)]))
    assert rows[:, Y1].tolist() == [201, 601]


def test_trail_fades_and_stays_bounded():
    settings = config(overlay=only("trails") | {"trail_s": 2.0})
    history = [(5.0, 600 - 4.0 * i, 200.0, i / 60) for i in range(140)]
    rows, _, _ = build(settings, shown(history=history))
    assert set(rows[:, KIND]) == {Kind.LINE}
    assert 8 < len(rows) <= TRAIL_PARTS + 2
    assert rows[0, [X0, Y0]].tolist() == [1200 * 16, 400 * 16]   # the newest point itself
    assert (np.diff(rows[:, ALPHA]) <= 0).all()
    assert (np.diff(rows[:, A]) <= 0).all()
    assert (rows[1:, [X0, Y0]] == rows[:-1, [X1, Y1]]).all()
    assert tuple(rows[0, LUMA:ALPHA]) == ycc(TRACK_COLOURS[5])


def test_trails_of_two_tracks_are_not_joined_and_rest_draws_nothing():
    settings = config(overlay=only("trails"))
    moving = [(i, x + 5 * k, 100.0, k / 10) for i, x in ((1, 100.0), (2, 400.0)) for k in range(10)]
    rows, _, _ = build(settings, shown(history=moving))
    assert np.abs(rows[:, X0] - rows[:, X1]).max() < 16 * 40
    resting = [(1, 100.0, 100.0, k / 10) for k in range(10)]
    rows, _, _ = build(settings, shown(history=resting))
    assert len(rows) == 0


def test_corners_of_a_trail_stay_put_as_time_goes_on():
    settings = config(overlay=only("trails") | {"trail_s": 2.0})
    path = {k: (300 + 100 * np.cos(k / 10), 180 + 60 * np.sin(k / 8)) for k in range(200)}

    def corners(now: int) -> set[tuple[int, int]]:
        history = [(1.0, *path[k], (now - k) / 30) for k in range(now, now - 55, -1)]
        rows, _, _ = build(settings, shown(history=history, pts=now * 3000))
        return {tuple(row) for row in rows[2:-2, [X0, Y0]].tolist()}

    before, after = corners(100), corners(101)
    assert len(before & after) >= len(before) - 2


@pytest.mark.parametrize("state", [State.STALE, State.ENDED, State.PAUSED])
def test_last_picture_is_dimmed_and_marked(state):
    settings = config(overlay=only())
    rows, builder, _ = build(settings, shown(state=state))
    luma = rendered(settings, rows, builder, grey=200)
    assert 100 < luma[20, 20] < 115   # half way to black
    assert luma[340:380, 540:740].max() > 150   # the badge
    for other in {State.STALE, State.ENDED, State.PAUSED} - {state}:
        assert not np.array_equal(rows, build(settings, shown(state=other))[0])


@pytest.mark.parametrize("state", [State.NO_SIGNAL, State.WAITING])
def test_slate_covers_the_whole_tile(state):
    settings = config(2)
    rows, builder, tile = build(settings, shown([(10, 10, 50, 90)], state))
    dark, bright = (
        rendered(settings, rows, builder, grey)[tile.y : tile.y + tile.h, tile.x : tile.x + tile.w]
        for grey in (16, 230)
    )
    assert (dark == bright).all()
    assert dark.max() > 200   # its text


def test_tile_without_picture_waits_unless_its_signal_is_lost():
    settings = config()
    tiles = place_tiles(settings)
    builder = OverlayBuilder(settings)
    slates = {state: tile_rows(builder, 0, tiles[0], None, shown(state=state)) for state in State}
    assert np.array_equal(slates[State.LIVE], slates[State.WAITING])
    assert not np.array_equal(slates[State.NO_SIGNAL], slates[State.WAITING])


def test_caption_shows_title_and_rate_and_gives_way_on_small_tiles():
    glyphs = []
    both = only("titles", "fps")
    for overlay, width in ((both, 1280), (only("titles"), 1280), (both, 128)):
        rows, _, _ = build(config(overlay=overlay, width=width), shown())
        glyphs.append(int((rows[:, KIND] == Kind.GLYPH).sum()))
    assert glyphs == [len("Camera0") + len("30.0fps"), len("Camera0"), len("Camera0")]
    rows, _, _ = build(config(overlay=only()), shown())
    assert len(rows) == 0


def test_rate_is_shown_only_while_live():
    settings = config(overlay=only("fps"))
    assert (build(settings, shown())[0][:, KIND] == Kind.GLYPH).sum() == len("30.0fps")
    paused, _, _ = build(settings, shown(state=State.PAUSED))
    assert (paused[:, KIND] == Kind.GLYPH).sum() == len("PAUSED")


def test_clock_is_at_the_top_right_of_the_mosaic():
    settings = config(4, {"clock": True})
    builder = OverlayBuilder(settings)
    rows = mosaic_rows(builder, "2026-01-01 00:00:00")
    changed = np.argwhere(rendered(settings, rows, builder) != 100)
    assert changed[:, 0].max() < 80
    assert changed[:, 1].min() > 800
    assert changed[:, 1].max() < 1280
    assert np.array_equal(mosaic_rows(builder, "2026-01-01 00:00:00"), rows)
    assert not np.array_equal(mosaic_rows(builder, "2026-01-01 00:00:01"), rows)
    assert len(mosaic_rows(builder, "")) == 0
    assert len(mosaic_rows(OverlayBuilder(config(4)), "12:00:00")) == 0


def test_opacity_fades_the_overlay_with_its_tile():
    settings = Config.model_validate(
        {
            "sources": [{"id": "a", "uri": "a.mp4"}],
            "tiles": [{"source": "a"}, {"source": "a", "opacity": 0.5, "rect": [0, 0, 1.0, 1.0]}],
            "mosaic": {"width": 1280, "height": 720},
        }
    )
    tiles = place_tiles(settings)
    builder = OverlayBuilder(settings)
    view = fit_picture(tiles[0], PICTURE)
    full, half = (tile_rows(builder, i, tiles[i], view, shown([(50, 50, 90, 150)])) for i in range(2))
    assert len(full) > 10
    assert (half[:, ALPHA] < full[:, ALPHA]).all()


def test_sizes_follow_the_tile_and_obey_the_config():
    sizes = [text_height(w, w * 9 // 16) for w in (320, 640, 960, 1920, 3840)]
    assert sizes == sorted(sizes)
    assert sizes[0] >= 10
    assert sizes[-1] <= 48
    rows, _, _ = build(config(overlay=only("boxes") | {"line_px": 9}), shown([(10, 10, 90, 90)]))
    assert rows[0, A] == 9 + 2   # and its dark edges
    heights = []
    for text_px in (12, 40):
        rows, _, _ = build(config(overlay=only("labels") | {"text_px": text_px}), shown([(10, 90, 90, 190)]))
        plate = rows[rows[:, KIND] == Kind.FILL][0]
        heights.append(plate[Y1] - plate[Y0])
    assert heights[1] > 2.5 * heights[0]


def test_same_inputs_same_rows():
    settings = config(4, {"clock": True})
    what = shown([(10, 20, 90, 200)], history=[(1.0, 50.0 + i, 200.0, i / 10) for i in range(9)])
    first, second = build(settings, what), build(settings, what)
    assert np.array_equal(first[0], second[0])
    tile = second[2]
    again = tile_rows(second[1], 0, tile, fit_picture(tile, PICTURE), what)
    assert np.array_equal(again, second[0])


NAMES = ("person", "", "traffic light, the name of which is too long for any room", "e\u0301te\u0301 日本語\t\u0301x")


def random_tracks(rng: np.random.Generator, size: tuple[int, int], count: int, pts: int) -> Tracks:
    """Boxes in, across and outside the picture, some huge, some of no size; scores and ids of all lengths."""
    corner = rng.uniform(-0.4, 1.2, (count, 2)) * size
    extent = rng.choice([0, 0.02, 0.2, 0.8, 500], (count, 2)) * rng.uniform(0, 1, (count, 2)) * size
    xyxy = np.concatenate([corner, corner + extent], 1)
    whole = rng.random(count) < 0.3
    xyxy[whole] = np.round(xyxy[whole] * 2) / 2   # ties
    xyxy[rng.random(count) < 0.05] *= 1e6
    ids = 1 + np.unique((2.0 ** rng.uniform(0, 31, 2 * count)).astype(np.int64) - 1)
    ids = np.sort(rng.permutation(np.append(ids[:-1], 2**31 - 1))[:count])
    n = len(ids)
    score = rng.uniform(0, 1, n).round(int(rng.integers(2, 6)))
    score[rng.random(n) < 0.1] = rng.choice([0, 1, 0.005, 0.015, 0.995, 12.5, -0.5])
    kinds = rng.choice([0, 0, 0, 1, 2, 3, 4, 79, 2**31 - 1, -1], n)
    boxes, score = xyxy[:n].astype(np.float32), score.astype(np.float32)
    return Tracks(pts, ids.astype(np.int32), boxes, score, kinds.astype(np.int32))


def random_history(rng: np.random.Generator, tracks: Tracks) -> np.ndarray:
    """Walks of tracks shown and gone, mostly in order, some of them at rest."""
    parts = [np.zeros((0, 4))]
    ids = np.unique(np.append(tracks.track_id[tracks.track_id < 2**24], rng.integers(1, 50, 3)))
    for track in ids:
        points = int(rng.integers(0, 60))
        step = rng.choice([0, 0.1, 9])
        walk = np.cumsum(rng.normal(0, step, (points, 2)), axis=0) + rng.uniform(-50, 700, 2)
        age = np.arange(points) / rng.choice([10, 15, 30, 60]) + rng.choice([0, 0.3])
        parts.append(np.column_stack([np.full(points, track), walk, age]))
    rows = np.concatenate(parts).astype(np.float32)
    return rng.permutation(rows) if rng.random() < 0.1 else rows


@pytest.mark.parametrize("seed", range(60))
def test_rows_are_those_of_the_reference(seed: int) -> None:
    rng = np.random.default_rng(seed if seed < 50 else None)
    overlay = {name: bool(rng.random() < 0.8) for name in ("boxes", "labels", "trails", "titles", "fps")}
    overlay |= {"trail_s": float(rng.choice([0.1, 0.7, 2.0, 12.3]))}
    overlay |= {"line_px": int(rng.choice([0, 0, 1, 7])), "text_px": int(rng.choice([0, 0, 0, 9, 33]))}
    width, height = ((1920, 1080), (640, 360), (200, 600), (3840, 2160))[seed % 4]
    tiles = [{"source": "a0", "opacity": 0.37}, {"source": "a1", "rect": [-70, -50, width // 2, height // 2]}]
    tiles += [{"source": f"a{2 + i}", "fit": fit, "crop": [0.1, 0.25, 0.7, 0.5]}
              for i, fit in enumerate(("contain", "cover", "stretch"))]  # fmt: skip
    settings = Config.model_validate(
        {"sources": [{"id": f"a{i}", "uri": "a.mp4"} for i in range(5)], "tiles": tiles, "overlay": overlay,
         "mosaic": {"width": width, "height": height, "gap_px": 2}}
    )  # fmt: skip
    placed = place_tiles(settings)
    names = NAMES[: int(rng.integers(0, 5))]
    atlas = Atlas(20)
    builder, reference = OverlayBuilder(settings, names, atlas), ReferenceOverlay(settings, placed, names, atlas)
    rows, expected = Rows(), []
    for _ in range(4):
        canvases, sources = [], [shown()] * len(placed)
        begin, ends = rows.count, []
        for i in rng.permutation(len(placed))[: rng.integers(1, len(placed) + 1)].tolist():
            size = tuple(rng.integers(2, 2000, 2).tolist())
            tracks = random_tracks(rng, size, int(rng.choice([0, 1, 5, 40])), int(rng.integers(0, 2**33)))
            state = State(int(rng.choice([*State, *[State.LIVE] * 5])))
            people = People.of(tracks, random_history(rng, tracks))
            what = TileInput(frame(), people, state, float(rng.uniform(0, 99)))
            view = fit_picture(placed[i], size)
            under = rng.integers(0, 9, (rng.integers(0, 3), COLUMNS), np.int32)
            canvases.append(builder.canvas(i, placed[i], view, under))
            sources[placed[i].source] = what
            expected += [under, reference.tile_rows(placed[i], view, what)]
            ends.append([begin + len(under), begin := begin + len(under) + len(expected[-1])])
        assert builder.draw_tiles(canvases, sources, rows).tolist() == ends
        if rng.random() < 0.5:   # the same pictures once more: what lasts is kept
            assert (builder.draw_tiles(canvases, sources, rows) - ends == rows.count - begin).all()
            expected += expected[-2 * len(canvases) :]
        np.testing.assert_array_equal(rows.written, np.concatenate(expected))
    np.testing.assert_array_equal(rows.written, np.concatenate(expected))   # what came later left it alone


def test_tables_of_any_layout_are_taken() -> None:
    settings = config()
    what = shown([(10, 20, 90, 200), (60, 70, 300, 250)], history=[(1.0, 50.0 + i, 200.0, i / 10) for i in range(9)])
    own = what.people.tracks
    wide, ids = np.repeat(own.xyxy, 2, 1)[:, ::2], np.repeat(own.track_id, 3)[::3]
    tracks = Tracks(own.pts, ids, wide, own.score, own.class_id)
    other = TileInput(what.frame, People.of(tracks, np.asfortranarray(what.people.history)), what.state, what.fps)
    assert np.array_equal(build(settings, what)[0], build(settings, other)[0])
