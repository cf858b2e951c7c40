"""The size to decode at: all that tiles and detector use, and pictures of it lie and mean what the large ones do."""

from __future__ import annotations

import pickle
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pictures import mean_of_areas

from tiler.compose.cpu import CpuCompositor
from tiler.compose.layout import fit_picture, place_tiles
from tiler.compose.scene import Scene
from tiler.config.loader import load
from tiler.config.models import Config
from tiler.config.plan import Plan, SourcePlan
from tiler.crowd import NOBODY
from tiler.decode_size import SMALLEST, DecodeSizes
from tiler.engines.registry import InputSpec, load_model
from tiler.memory import SURFACES, surface_bytes
from tiler.preprocess.cpu import CpuPreprocessor
from tiler.types import Frame, State, TileInput

FULL_HD = (1920, 1080)
SQUARE = Fraction(1)
NANO = load_model("person-nano", Path())
NO_OVERLAY = dict.fromkeys(("boxes", "labels", "trails", "titles", "fps"), False)


def config_of(count: int = 1, **keys: Any) -> Config:
    sources = [{"id": f"s{i}", "uri": "x"} for i in range(count)]
    return Config.model_validate({"sources": sources, "overlay": NO_OVERLAY, **keys})


def size_of(config: Config, model: Any = None, size: tuple[int, int] = FULL_HD, stream: int = 0) -> tuple[int, int]:
    return DecodeSizes(config, model)(f"s{stream}", size, SQUARE)


def tiles_of(*tiles: dict[str, Any], **keys: Any) -> Config:
    return config_of(tiles=[{"source": "s0", **tile} for tile in tiles], **keys)


@pytest.mark.parametrize(
    ("config", "model", "expected"),
    [
        (config_of(4), None, FULL_HD),  # 2x2 of 4K: 1:1
        (config_of(9), None, (1280, 720)),
        (config_of(16), None, (960, 540)),
        (config_of(16), NANO, (960, 540)),
        (config_of(64), None, (480, 270)),
        (config_of(64), NANO, (640, 360)),  # the detector sees more than the tile shows
        (tiles_of({"rect": [0, 0, 480, 270]}, {"rect": [500, 0, 1280, 720]}), None, (1280, 720)),
        (tiles_of({"rect": [0, 0, 480, 270], "crop": [0.25, 0.25, 0.5, 0.5]}), None, (960, 540)),
        (tiles_of({"rect": [0, 0, 480, 270], "crop": [0.5, 0.5, 0.25, 0.25]}), None, FULL_HD),
        (tiles_of({"rect": [0, 0, 480, 480], "fit": "contain"}), None, (480, 270)),
        (tiles_of({"rect": [0, 0, 480, 480], "fit": "cover"}), None, (854, 480)),
        (tiles_of({"rect": [0, 0, 480, 480], "fit": "stretch"}), None, (480, 480)),
        (tiles_of({"rect": [0, 0, 1400, 788]}), None, FULL_HD),  # more than half the samples: not worth it
        (tiles_of({"rect": [0, 0, 10, 10]}), None, (64, 64)),
        (tiles_of({"rect": [0, 0, 10, 10]}), NANO, (640, 360)),
    ],
)
def test_the_size_is_what_the_largest_use_takes(config: Config, model: Any, expected: tuple[int, int]) -> None:
    assert size_of(config, model) == expected


def test_a_process_that_decodes_is_told_the_same_sizes() -> None:
    needed = DecodeSizes(Config(sources=[{"id": "a", "uri": "x"}, {"id": "b", "uri": "y"}]), NANO)  # type: ignore[list-item]
    there = pickle.loads(pickle.dumps(needed))
    for source in ("a", "b", "later"):
        assert there(source, FULL_HD, Fraction(1)) == needed(source, FULL_HD, Fraction(1))


def test_a_source_that_came_later_is_decoded_as_it_is() -> None:
    assert size_of(config_of(16), NANO, stream=16) == FULL_HD


def test_a_source_that_no_tile_shows_is_decoded_for_the_detector() -> None:
    config = config_of(2, tiles=[{"source": "s0"}])
    assert size_of(config, NANO, stream=1) == (640, 360)
    assert size_of(config, None, stream=1) == (SMALLEST, SMALLEST)


def test_a_picture_on_its_side_fits_the_detector_upright() -> None:
    assert size_of(config_of(64), NANO, (1080, 1920)) == (216, 384)


@pytest.mark.parametrize(
    ("codec", "scaled", "expected"),
    [("h264", "true", (640, 360)), ("h264", "false", FULL_HD), ("mpeg4", "true", FULL_HD)],
)
def test_the_plan_counts_what_nvdec_will_give_out(
    tmp_path: Path, codec: str, scaled: str, expected: tuple[int, int]
) -> None:
    (tmp_path / "x.mp4").touch()
    path = tmp_path / "c.yaml"
    path.write_text(
        f"scaled_decode: {scaled}\nmosaic: {{width: 640, height: 360}}\nsources: [{{id: a, uri: x.mp4}}]\n",
        encoding="utf-8",
    )
    loaded = load(path, [])
    source = SourcePlan(loaded.config.sources[0], "x.mp4", FULL_HD, Fraction(25), 1.0, codec)
    items = dict(Plan(loaded, (source,), (), NANO).device_memory(8 << 30).items)
    assert items[f"decoded pictures ({SURFACES} a stream)"] == SURFACES * surface_bytes(*expected)


even = st.integers(1, 400).map(lambda n: 2 * n)
fractions = st.sampled_from([0.1, 0.25, 0.3, 0.5, 0.7, 1.0])
crops = st.tuples(st.sampled_from([0.0, 0.1, 0.3]), st.sampled_from([0.0, 0.1, 0.3]), fractions, fractions)
tile = st.fixed_dictionaries(
    {
        "rect": st.tuples(even, even, even, even).map(list),
        "fit": st.sampled_from(["contain", "cover", "stretch"]),
        "crop": crops.filter(lambda c: c[0] + c[2] <= 1 and c[1] + c[3] <= 1).map(list),
    }
)
aspects = st.sampled_from([Fraction(1), Fraction(16, 11), Fraction(3, 4), Fraction(2)])


@given(
    st.lists(tile, min_size=1, max_size=4),
    st.tuples(st.integers(2, 4096), st.integers(2, 2304)),
    aspects,
    st.booleans(),
    st.tuples(st.integers(32, 800), st.integers(32, 800)),
)
def test_no_use_of_a_picture_is_left_with_too_few_samples(
    tiles: list[dict[str, Any]], size: tuple[int, int], aspect: Fraction, detects: bool, inputs: tuple[int, int]
) -> None:
    config = tiles_of(*tiles)
    model: Any = SimpleNamespace(input_size=inputs, input=InputSpec()) if detects else None
    found = DecodeSizes(config, model)("s0", size, aspect)
    if found == size:
        return
    assert found[0] % 2 == found[1] % 2 == 0
    assert 2 * found[0] * found[1] <= size[0] * size[1]
    assert SMALLEST <= found[0] < size[0]
    assert SMALLEST <= found[1] < size[1]
    for placed in place_tiles(config):
        view = fit_picture(placed, size, aspect)
        x0, y0, x1, y1 = view.src
        assert (x1 - x0) * found[0] / size[0] >= view.dst[2] - 1e-3
        assert (y1 - y0) * found[1] / size[1] >= view.dst[3] - 1e-3
    if detects:
        scale = min(inputs[0] / (size[0] * aspect), Fraction(inputs[1], size[1]))
        assert found[0] >= round(size[0] * aspect * scale)
        assert found[1] >= round(size[1] * scale)


# What a frame of fewer samples means


def smooth(size: tuple[int, int], **fields: Any) -> Frame:
    """Slopes in all planes, and no two corners alike."""
    width, height = size
    half = (height + 1) // 2, (width + 1) // 2
    across, down = np.linspace(0, 1, width)[None], np.linspace(0, 1, height)[:, None]
    u_across, u_down = np.linspace(0, 1, half[1])[None], np.linspace(0, 1, half[0])[:, None]
    planes = (40 + 120 * across + 60 * down, 70 + 100 * u_across + 0 * u_down, 60 + 0 * u_across + 120 * u_down)
    y, u, v = (np.round(plane).astype(np.uint8) for plane in planes)
    return Frame(0, 0, y, u, v, **fields)


def shrunk(frame: Frame, width: int, height: int) -> Frame:
    """As a decoder gives it that scales: both even, before rotation."""
    chroma = (mean_of_areas(plane, width // 2, height // 2) for plane in (frame.u, frame.v))
    y, u, v = (np.round(plane).astype(np.uint8) for plane in (mean_of_areas(frame.y, width, height), *chroma))
    return replace(frame, y=y, u=u, v=v, source_size=frame.y.shape[::-1])


def shown(frame: Frame) -> list[TileInput]:
    return [TileInput(frame, NOBODY, State.LIVE, 25.0)]


def composed(config: Config, frame: Frame) -> list[np.ndarray]:
    with CpuCompositor(config, 1) as compositor:
        return [np.array(plane, int) for plane in compositor.compose(0, shown(frame)).planes]


sources = st.tuples(st.integers(200, 420), st.integers(160, 300)).map(lambda s: (s[0] // 2 * 2, s[1] // 2 * 2))
rotations = st.sampled_from([0, 90, 180, 270])
corner, side = (st.integers(low, high).map(lambda n: 2 * n) for low, high in ((0, 20), (24, 48)))
small_tile = st.fixed_dictionaries(
    {
        "rect": st.tuples(corner, corner, side, side).map(list),
        "fit": st.sampled_from(["contain", "cover", "stretch"]),
        "crop": st.sampled_from([[0.0, 0.0, 1.0, 1.0], [0.1, 0.3, 0.7, 0.7], [0.3, 0.0, 0.5, 0.7]]),
    }
)


@settings(max_examples=60)
@given(small_tile, sources, aspects, rotations)
def test_a_tile_shows_the_same_whatever_the_decoder_scaled(
    tile: dict[str, Any], size: tuple[int, int], aspect: Fraction, rotation: int
) -> None:
    """Slopes lose nothing by scaling: a shift of a sample or two would be seen."""
    config = tiles_of(tile, mosaic={"width": 160, "height": 160})
    large = smooth(size, rotation=rotation, sample_aspect=aspect)
    needed = DecodeSizes(config, None)("s0", large.picture_size, large.picture_aspect)
    assume(needed != large.picture_size)
    small = shrunk(large, *(needed if rotation % 180 == 0 else needed[::-1]))
    assert small.plane_size == needed
    assert (small.picture_size, small.picture_aspect) == (large.picture_size, large.picture_aspect)
    scene = Scene(config)
    scene.place(shown(large))
    before = scene.placements[0]
    assert scene.place(shown(small))
    after = scene.placements[0]
    assert before.geometry is not None
    assert after.geometry is not None
    assert after.geometry.box == before.geometry.box
    np.testing.assert_array_equal(after.canvas.under, before.canvas.under)
    for ours, theirs in zip(composed(config, small), composed(config, large), strict=True):
        assert np.abs(ours - theirs).max() <= 3


@settings(max_examples=60)
@given(sources, aspects, rotations, st.sampled_from(["center", "top-left"]))
def test_the_detectors_boxes_are_in_pixels_of_the_source(
    size: tuple[int, int], aspect: Fraction, rotation: int, align: str
) -> None:
    large = smooth(size, rotation=rotation, sample_aspect=aspect)
    small = shrunk(large, 104, 72)
    with CpuPreprocessor((96, 64), InputSpec(align=align), 2, 1) as preprocessor:  # type: ignore[arg-type]
        batch = preprocessor.prepare([large, small])
        np.testing.assert_array_equal(batch.letterbox[0], batch.letterbox[1])
        np.testing.assert_array_equal(batch.sizes[0], batch.sizes[1])
        assert np.abs(batch.tensor[0] - batch.tensor[1]).max() * 255 < 5


def test_a_frame_is_never_larger_than_its_source() -> None:
    frame = smooth((64, 32))
    with pytest.raises(ValueError, match=r"planes of 64x32 are more than the source's \(64, 30\)"):
        replace(frame, source_size=(64, 30))


def test_a_source_that_changes_behind_equal_planes_is_placed_anew() -> None:
    """Both are decoded at 64x64, and only one of them is as high as wide."""
    config = tiles_of({"rect": [0, 0, 64, 64]}, mosaic={"width": 64, "height": 64})
    scene = Scene(config)
    scene.place(shown(shrunk(smooth((400, 400)), 64, 64)))
    assert scene.placements[0].geometry is not None
    assert scene.placements[0].geometry.box == (0, 0, 64, 64)
    assert scene.place(shown(shrunk(smooth((400, 200)), 64, 64)))
    assert scene.placements[0].geometry is not None
    assert scene.placements[0].geometry.box == (0, 16, 64, 32)
