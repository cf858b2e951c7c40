"""Changes while a run goes on: what they make of the config, and that they land between two pictures."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiler.compose.cpu import CpuCompositor
from tiler.compose.layout import numbered_tiles
from tiler.config.models import Config, MosaicConfig, OverlayConfig, SlotsConfig, Source, Tile, ViewConfig
from tiler.control import Control
from tiler.crowd import NOBODY
from tiler.decode.feed import Hold, Shown
from tiler.errors import InputError
from tiler.types import Frame, State, TileInput

PLAIN = OverlayConfig(boxes=False, labels=False, trails=False, titles=False, fps=False)
NO_HISTORY = np.empty((0, 4), np.float32)


def config(count: int = 4, tiles: list[Tile] | None = None, **mosaic: object) -> Config:
    return Config(
        sources=[Source(id=f"s{i}", uri=f"{i}.mp4") for i in range(count)],
        tiles=tiles,
        mosaic=MosaicConfig(**{"width": 640, "height": 360, "fps": Fraction(25), **mosaic}),  # type: ignore[arg-type]
        overlay=PLAIN,
    )


def shown_large(control: Control) -> str:
    tiles = numbered_tiles(control.wanted.config)
    largest = max(tiles, key=lambda tile: tile.w * tile.h)
    return control.wanted.config.sources[largest.source].id


def picture(stream: int, luma: int, size: tuple[int, int] = (64, 36)) -> TileInput:
    w, h = size
    chroma = np.full((h // 2, w // 2), 128, np.uint8)
    frame = Frame(stream, 0, np.full((h, w), luma, np.uint8), chroma, chroma)
    return TileInput(frame, NOBODY, State.LIVE, 25.0)


def test_promoting_in_a_grid_makes_a_spotlight_and_others_keep_their_places() -> None:
    control = Control(config(6))
    control.promote(4)
    assert control.wanted.layout == "spotlight"
    assert shown_large(control) == "s4"
    before = numbered_tiles(control.wanted.config)
    control.promote(2)
    after = numbered_tiles(control.wanted.config)
    assert shown_large(control) == "s2"
    assert sum(a.source != b.source for a, b in zip(before, after, strict=True)) == 2


def test_promoting_among_tiles_of_the_config_keeps_its_rectangles() -> None:
    half = [0.0, 0.0, 0.5, 1.0]
    tiles = [Tile(source="s0", rect=[0, 0, 400, 360]), Tile(source="s1", rect=[400, 0, 240, 180], crop=half),
             Tile(source="s2", rect=[400, 180, 240, 180])]  # fmt: skip
    control = Control(config(3, tiles))
    control.promote(1)
    now = numbered_tiles(control.wanted.config)
    assert [(t.x, t.w) for t in now] == [(0, 400), (400, 240), (400, 240)]
    assert [t.source for t in now] == [1, 0, 2]
    assert now[0].crop == (0.0, 0.0, 0.5, 1.0)  # goes with the picture
    control.arrange("configured")
    assert numbered_tiles(control.wanted.config) == numbered_tiles(config(3, tiles))


def test_a_tile_that_follows_somebody_follows_him_wherever_it_is_shown() -> None:
    cast = Source(id="s0", uri="0.mp4", slots=SlotsConfig(names=["left", "right"]))
    tiles = [Tile(source="s1"), Tile(source="s0", view=ViewConfig(follow="right")), Tile(source="s0")]
    control = Control(config(2, tiles).model_copy(update={"sources": [cast, Source(id="s1", uri="1.mp4")]}))
    control.promote(1)
    now = numbered_tiles(control.wanted.config)
    assert [(tile.source, tile.follow) for tile in now] == [(0, (1, 2.0)), (1, None), (0, None)]
    assert now[0].w * now[0].h > now[1].w * now[1].h
    control.arrange("configured")
    assert [tile.follow for tile in numbered_tiles(control.wanted.config)] == [None, (1, 2.0), None]


@given(count=st.integers(1, 16), steps=st.lists(st.one_of(
    st.sampled_from(["configured", "grid", "spotlight", "pip"]), st.integers(0, 15)), max_size=12))  # fmt: skip
def test_whatever_people_click_every_source_keeps_one_tile(count: int, steps: list[str | int]) -> None:
    control = Control(config(count))
    for step in steps:
        if isinstance(step, str):
            control.arrange(step)  # type: ignore[arg-type]
        elif step < count:
            control.promote(step)
        else:
            with pytest.raises(InputError, match="there is none"):
                control.promote(step)
        tiles = numbered_tiles(control.wanted.config)
        assert sorted(tile.source for tile in tiles) == list(range(count))


def test_a_refused_change_changes_nothing() -> None:
    tiles = [Tile(source=f"s{i}", rect=[20 * i, 0, 20, 20]) for i in range(16)]
    control = Control(config(16, tiles, gap_px=256))
    before = control.wanted
    with pytest.raises(InputError, match=r"mosaic\.gap_px: no room is left"):
        control.arrange("grid")
    with pytest.raises(InputError, match="nobody"):
        control.rename("nobody", "x")
    with pytest.raises(InputError, match="nobody"):
        control.pause("nobody")
    assert control.wanted == before


def test_a_new_title_and_back() -> None:
    control = Control(config(2))
    control.rename("s1", "정문")
    assert [tile.title for tile in numbered_tiles(control.wanted.config)] == ["s0", "정문"]
    control.rename("s1", None)
    assert [tile.title for tile in numbered_tiles(control.wanted.config)] == ["s0", "s1"]


def test_a_paused_source_keeps_its_picture_and_goes_on_with_the_newest() -> None:
    hold = Hold()
    frames = [picture(0, luma).frame for luma in (10, 20, 30)]

    def apply(i: int, paused: bool) -> Shown:
        return hold.apply(Shown(frames[i], True, State.LIVE), paused)

    assert hold.apply(Shown(None, False, State.WAITING), True) == Shown(None, False, State.WAITING)
    assert apply(0, False) == Shown(frames[0], True, State.LIVE)
    assert apply(1, True) == Shown(frames[1], True, State.PAUSED)
    assert apply(2, True) == Shown(frames[1], False, State.PAUSED)
    assert apply(2, False) == Shown(frames[2], True, State.LIVE)


@pytest.mark.parametrize("state", [State.LIVE, State.ENDED, State.STALE])
def test_a_picture_that_came_while_its_source_was_paused_is_new_when_that_ends(state: State) -> None:
    """Else the tracker would not look at it, and it would be shown with the tracks of the picture before."""
    hold = Hold()
    before, after = (picture(0, luma).frame for luma in (10, 20))
    hold.apply(Shown(before, True, State.LIVE), False)
    hold.apply(Shown(before, False, State.LIVE), True)
    hold.apply(Shown(after, True, State.LIVE), True)
    assert hold.apply(Shown(after, False, state), False) == Shown(after, True, state)
    assert hold.apply(Shown(after, False, state), False) == Shown(after, False, state)


def test_a_picture_that_stayed_while_its_source_was_paused_is_not_new_when_that_ends() -> None:
    hold = Hold()
    frame = picture(0, 10).frame
    hold.apply(Shown(frame, True, State.LIVE), True)
    assert hold.apply(Shown(frame, False, State.LIVE), False) == Shown(frame, False, State.LIVE)
    hold.apply(Shown(frame, False, State.LIVE), True)
    assert hold.apply(Shown(None, False, State.NO_SIGNAL), False) == Shown(None, False, State.NO_SIGNAL)


def test_a_rearranged_mosaic_is_the_mosaic_of_the_new_config_everywhere() -> None:
    """No ring buffer keeps a piece of the old layout: gaps, bars and borders too."""
    control = Control(config(4, gap_px=8, border_px=6))
    sources = [picture(i, 60 + 40 * i, size=(64, 36) if i % 2 else (36, 64)) for i in range(4)]
    with CpuCompositor(control.wanted.config, 2) as compositor:
        for tick in range(5):
            compositor.compose(tick, sources)
        for step in (lambda: control.promote(3), lambda: control.arrange("pip"), lambda: control.arrange("grid"),
                     lambda: control.overlay(titles=True, fps=True), lambda: control.rename("s2", "Gate")):  # fmt: skip
            step()
            compositor.arrange(control.wanted.config)
            with CpuCompositor(control.wanted.config, 1) as fresh:
                expected = [plane.copy() for plane in fresh.compose(0, sources).planes]
            for tick in range(6):  # more than there are buffers in the ring
                planes = compositor.compose(tick, sources).planes
                for plane, wanted in zip(planes, expected, strict=True):
                    assert np.array_equal(plane, wanted)
