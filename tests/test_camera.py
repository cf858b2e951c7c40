"""Views that follow somebody: how they move, what the mosaic then shows, and what a config may say."""

from __future__ import annotations

from itertools import pairwise
from math import hypot
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from pictures import decoded
from test_config import findings, write
from test_slots_shown import run_with

from tiler.cli import main
from tiler.compose.cpu import CpuCompositor
from tiler.compose.layout import place_tiles
from tiler.compose.scene import Scene
from tiler.config.models import Config
from tiler.crowd import People
from tiler.decode_size import DecodeSizes
from tiler.track.camera import SPEED, Camera
from tiler.types import CLOCK_HZ, Crop, Frame, State, TileInput, Tracks

pytest_plugins = ("fakes.run_fixtures",)

SIZE = (640, 360)
STEP = CLOCK_HZ // 25
ROUNDING = 1e-9


def somebody(*centre: float, slot: int = 0, height: float = 60) -> Tracks:
    """One person there, or nobody."""
    n = 1 if centre else 0
    x, y = centre or (0, 0)
    boxes = np.array([[x - 15, y - height / 2, x + 15, y + height / 2]], np.float32)[:n]
    return Tracks(0, np.ones(n, np.int32), boxes, np.ones(n, np.float32), np.zeros(n, np.int32),
                  np.full(n, slot, np.int32))  # fmt: skip


def film(camera: Camera, *seen: Tracks, step: int = STEP, begin: int = 0) -> list[Crop]:
    return [camera.look(tracks, SIZE, (begin + index) * step) for index, tracks in enumerate(seen)]


def middle(crop: Crop) -> tuple[float, float]:
    return (crop[0] + crop[2] / 2) * SIZE[0], (crop[1] + crop[3] / 2) * SIZE[1]


# How it moves

coordinates = st.floats(-2000, 2000) | st.sampled_from([float("nan"), float("inf"), -float("inf")])
places = st.none() | st.tuples(coordinates, coordinates, st.floats(0, 900))
walks = st.lists(st.tuples(st.sampled_from([0, 1, 900, STEP, 25 * STEP]), places), max_size=40)
zooms = st.floats(1.1, 16)


@given(walks, zooms)
def test_the_view_stays_inside_the_picture_never_changes_size_and_is_never_faster_than_it_may_be(walk, zoom) -> None:  # type: ignore[no-untyped-def]
    camera, pts = Camera(0, zoom), 0
    before = camera.look(somebody(), SIZE, 0)
    assert before[:2] == pytest.approx(((1 - 1 / zoom) / 2, (1 - 1 / zoom) / 2))
    for step, where in walk:
        pts += step
        crop = camera.look(somebody(*where[:2], height=where[2]) if where else somebody(), SIZE, pts)
        assert crop[2:] == (1 / zoom, 1 / zoom)
        assert min(crop[:2]) >= 0
        assert max(crop[0] + crop[2], crop[1] + crop[3]) <= 1 + ROUNDING
        way = hypot(crop[0] - before[0], crop[1] - before[1]) * zoom   # in views
        assert way <= SPEED * step / CLOCK_HZ + 3e-4   # the last bit is jumped: less than can be seen
        before = crop


@given(st.tuples(st.floats(0, 640), st.floats(0, 360)), zooms)
def test_somebody_who_stands_still_gives_a_still_view_with_them_in_it(where, zoom) -> None:  # type: ignore[no-untyped-def]
    crops = film(Camera(0, zoom), *[somebody(*where, height=2)] * 600)
    assert len(set(crops[-100:])) == 1
    x, y = middle(crops[-1])
    for axis, (at, centre) in enumerate(zip(where, (x, y), strict=True)):
        half = SIZE[axis] / zoom / 2
        inside = min(max(at, half), SIZE[axis] - half)   # near the picture's edge the view stops
        assert abs(inside - centre) <= 0.051 * SIZE[axis] / zoom + 0.5


@given(st.lists(st.tuples(st.floats(-0.024, 0.024), st.floats(-0.024, 0.024)), min_size=150, max_size=150))
def test_a_box_that_jitters_moves_nothing_once_the_view_has_come(jitter) -> None:  # type: ignore[no-untyped-def]
    camera = Camera(0, 2)
    film(camera, *[somebody(400, 200)] * 300)
    noisy = [somebody(400 + x * 320, 200 + y * 180) for x, y in jitter]
    film(camera, *noisy, begin=300)
    crops = film(camera, *noisy, begin=450)
    assert len(set(crops)) == 1 or max(
        hypot(b[0] - a[0], b[1] - a[1]) * 640 for a, b in pairwise(crops)
    ) < 0.5   # the first time round may still settle by less than the zone


def test_it_comes_to_who_is_far_off_without_passing_them() -> None:
    crops = film(Camera(0, 2), *[somebody(600, 180)] * 100)
    places = [middle(crop)[0] for crop in crops]
    assert places[0] == 320
    assert places == sorted(places)
    assert places[-1] == pytest.approx(480)     # as far as the picture goes
    assert places[40] > 460


def test_it_keeps_up_with_who_walks() -> None:
    walk = [200 + 2.0 * index for index in range(120)]   # 50 px/s, a sixth of the view
    crops = film(Camera(0, 2), *(somebody(x, 180) for x in walk))
    assert all(abs(x - middle(crop)[0]) < 60 for x, crop in list(zip(walk, crops, strict=True))[50:])


def test_it_holds_when_they_are_lost_and_nobody_else_counts() -> None:
    camera = Camera(0, 2)
    rest = film(camera, *[somebody(400, 200)] * 200)[-1]
    lost = film(camera, *[somebody()] * 50, *[somebody(100, 100, slot=1)] * 50, begin=200)
    assert set(lost) == {rest}
    assert film(camera, somebody(200, 200), begin=300) != [rest]


def test_of_who_is_too_tall_the_head_stays_in() -> None:
    crop = film(Camera(0, 4), *[somebody(320, 190, height=300)] * 300)[-1]
    assert crop[1] * SIZE[1] < 40 < (crop[1] + crop[3] / 2) * SIZE[1]   # the head is at 40


def test_it_does_not_depend_on_how_often_it_is_looked_at() -> None:
    coarse, fine = Camera(0, 2), Camera(0, 2)
    for index in range(50):
        a = coarse.look(somebody(360, 190), SIZE, index * STEP)
        for part in range(4):
            b = fine.look(somebody(360, 190), SIZE, index * STEP - (3 - part) * STEP // 4)
        assert middle(a) == pytest.approx(middle(b), abs=3)


# What the mosaic shows


def config(tile: dict[str, Any] | None = None, **mosaic: Any) -> Config:
    view = {"source": "a", "view": {"follow": "right", "zoom": 2}} | (tile or {})
    return Config.model_validate(
        {
            "sources": [{"id": "a", "uri": "a.mp4", "slots": {"names": ["left", "right"]}}],
            "tiles": [view, {"source": "a"}],
            "mosaic": {"width": 1280, "height": 360, "grid": [2, 1]} | mosaic,
            "overlay": dict.fromkeys(("labels", "trails", "titles", "fps"), False),
        }
    )


def ramp() -> Frame:
    """Luma rises by one every four pixels to the right."""
    y = np.tile((40 + np.arange(640) // 4).astype(np.uint8), (360, 1))
    return Frame(0, 0, y, np.full((180, 320), 128, np.uint8), np.full((180, 320), 128, np.uint8))


def tile_input(tracks: Tracks, crop: Crop | None) -> TileInput:
    crops = {(1, 2.0): crop} if crop else {}
    return TileInput(ramp(), People.of(tracks, np.empty((0, 4), np.float32)), State.LIVE, 25.0, crops)


def composed(settings: Config, what: TileInput) -> np.ndarray:
    with CpuCompositor(settings, 1, ("person",)) as compositor:
        return np.copy(compositor.compose(0, [what]).planes[0])


@pytest.mark.parametrize("fit", ["contain", "cover", "stretch"])
def test_the_tile_shows_the_part_at_twice_the_size_and_other_tiles_all_of_it(fit: str) -> None:
    y = composed(config(fit=fit), tile_input(somebody(), (0.25, 0.5, 0.5, 0.5)))
    assert abs(int(y[180, 2]) - (40 + 160 // 4)) <= 1       # picture x 160 is at the left edge
    assert abs(int(y[180, 637]) - (40 + 479 // 4)) <= 1
    assert abs(int(y[180, 642]) - 40) <= 1                  # the whole picture
    assert abs(int(y[180, 1277]) - (40 + 639 // 4)) <= 1


def test_boxes_sit_on_the_people_of_a_followed_tile_and_are_cut_at_its_edge() -> None:
    crop = (0.25, 0.25, 0.5, 0.5)
    plain = composed(config(), tile_input(somebody(), crop)).astype(int)
    y = composed(config(), tile_input(somebody(300, 180, slot=1), crop)).astype(int)
    marked = np.argwhere(np.abs(y - plain)[:, :640] > 20)
    # Picture 285..315 x 150..210 is seen at (285 - 160) * 2 .. and (150 - 90) * 2 ..
    top, left = marked.min(axis=0)
    bottom, right = marked.max(axis=0)
    assert (left, top) == (pytest.approx(250, abs=4), pytest.approx(120, abs=4))
    assert (right, bottom) == (pytest.approx(310, abs=4), pytest.approx(240, abs=4))
    beyond = composed(config(), tile_input(somebody(485, 180, slot=1), crop)).astype(int)
    marked = np.argwhere(np.abs(beyond - plain) > 20)
    columns = set(marked[:, 1].tolist())
    assert any(600 < column < 640 for column in columns)                  # half of the box hangs over the tile's edge,
    assert not any(640 <= column < 640 + 470 - 6 for column in columns)   # and is not drawn on the next tile


def test_a_view_that_stands_still_costs_no_new_tables_and_one_that_moves_keeps_its_scale() -> None:
    scene = Scene(config())
    assert scene.place([tile_input(somebody(), (0.25, 0.25, 0.5, 0.5))])
    first = scene.placements[0]
    assert not scene.place([tile_input(somebody(), (0.25, 0.25, 0.5, 0.5))])
    assert not scene.place([tile_input(somebody(), (0.25 + 1e-6, 0.25, 0.5, 0.5))])   # less than can be seen
    assert scene.place([tile_input(somebody(), (0.26, 0.25, 0.5, 0.5))])
    moved = scene.placements[0]
    assert first.geometry is not None
    assert moved.geometry is not None
    assert moved.geometry.box == first.geometry.box
    assert np.array_equal(moved.canvas.view[2:4], first.canvas.view[2:4])


@given(st.floats(0, 0.5), st.floats(0, 0.5), st.sampled_from(["contain", "cover", "stretch"]))
def test_any_place_of_the_view_can_be_drawn(x: float, y: float, fit: str) -> None:
    scene = Scene(config(fit=fit))
    scene.place([tile_input(somebody(), (x, y, 0.5, 0.5))])
    assert scene.placements[0].geometry is not None
    assert scene.placements[0].geometry.box == (0, 0, 640, 360)


def test_before_anybody_is_known_the_middle_is_shown() -> None:
    y = composed(config(), tile_input(somebody(), None))
    assert abs(int(y[180, 2]) - (40 + 160 // 4)) <= 1


def test_a_source_is_decoded_large_enough_for_the_view() -> None:
    assert DecodeSizes(config(width=640, height=180), None)("a", (1920, 1080), 1) == (640, 360)  # type: ignore[arg-type]


# A run, and the config


def test_a_run_ends_up_on_the_person(clips: Path) -> None:
    plain = "duration_s: 3\noverlay: {boxes: false, labels: false, trails: false, titles: false, fps: false}\n"

    def played(tile: str) -> np.ndarray:
        run_with(clips, "{names: [one, two]}", f"tiles: [{{source: a, {tile}}}, {{source: b}}]\n{plain}")
        return decoded(clips.parent / "out.mp4")[:, :192, :160].astype(int)

    followed, there = played("view: {follow: one, zoom: 2}"), played("crop: [0, 0, 0.5, 0.5]")
    apart = np.abs(followed - there).mean(axis=(1, 2))
    assert apart[4] > 15     # on its way from the middle of the picture
    assert apart[-1] < 10    # the detector's one person is in its upper left quarter


SOURCE = "sources: [{id: a, uri: 'sample://plaza', slots: {names: [left, right]}}, {id: b, uri: 'sample://duo'}]\n"


@pytest.mark.parametrize(
    ("tile", "expected"),
    [
        pytest.param(
            "{source: a, view: {follow: lefd}}",
            "2: tiles[0].view.follow: no slot has this name; did you mean 'left'? (got 'lefd')",
            id="another name",
        ),
        pytest.param(
            "{source: b, view: {follow: left}}",
            "2: tiles[0].view.follow: source 'b' has no slots to follow",
            id="no slots",
        ),
        pytest.param(
            "{source: a, view: {follow: left}, crop: [0, 0, 1, 1]}",
            "2: tiles[0].crop: view chooses the part to show; give one of crop and view",
            id="crop too",
        ),
        pytest.param(
            "{source: a, view: {follow: left, zoom: 1}}",
            "2: tiles[0].view.zoom: must be greater than or equal to 1.1 (got 1)",
            id="no zoom",
        ),
        pytest.param("{source: a, view: {zoom: 2}}", "2: tiles[0].view.follow: is needed", id="nobody"),
    ],
)
def test_what_is_wrong_with_a_view_is_said_where_it_stands(tmp_path: Path, tile: str, expected: str) -> None:
    assert findings(tmp_path, f"{SOURCE}tiles: [{tile}]\n") == [expected]


def test_check_says_whom_a_tile_follows(tmp_path: Path) -> None:
    path = write(tmp_path, f"{SOURCE}tiles: [{{source: a, view: {{follow: right, zoom: 3}}}}]\n")
    result = CliRunner().invoke(main, ["check", str(path)])
    assert result.exit_code == 0, result.output
    assert "follows right" in result.output


def test_tiles_know_whom_they_follow() -> None:
    assert [tile.follow for tile in place_tiles(config())] == [(1, 2.0), None]
