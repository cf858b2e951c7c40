"""Sources that come and go, as far as tiles, layouts and places are concerned: no run."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from test_control import picture

from tiler.compose.cpu import CpuCompositor
from tiler.compose.layout import numbered_tiles
from tiler.config.models import AudioConfig, Config, MosaicConfig, PreviewConfig, Source, Tile
from tiler.control import Control
from tiler.errors import InputError


def config(
    count: int = 3, tiles: list[Tile] | None = None, spare: int = 2, live: bool = True, **mosaic: object
) -> Config:
    return Config(
        sources=[Source(id=f"s{i}", uri=f"{i}.mp4", realtime=live) for i in range(count)],
        tiles=tiles,
        mosaic=MosaicConfig(**{"width": 640, "height": 360, "fps": Fraction(25), **mosaic}),  # type: ignore[arg-type]
        preview=PreviewConfig(spare_sources=spare),
    )


def add(control: Control, name: str, label: str | None = None) -> int:
    place = control.reserve(name)
    control.add(Source(id=name, uri="rtsp://host/x", label=label), place)
    return place


def shown(control: Control) -> list[str]:
    """Ids of the sources, tile by tile."""
    wanted = control.wanted.config
    return [wanted.sources[tile.source].id for tile in numbered_tiles(wanted)]


def test_a_source_that_is_added_comes_last_and_the_grid_flows() -> None:
    control = Control(config(4))
    before = numbered_tiles(control.wanted.config)
    assert add(control, "gate", "Gate") == 4
    assert shown(control) == ["s0", "s1", "s2", "s3", "gate"]
    tiles = numbered_tiles(control.wanted.config)
    assert tiles[4].title == "Gate"
    assert tiles[0].w < before[0].w
    control.remove("gate")
    assert numbered_tiles(control.wanted.config) == before


def test_a_place_is_free_for_another_when_the_one_before_has_closed() -> None:
    control = Control(config(2, spare=1))
    assert control.spare == 1
    assert add(control, "gate") == 2
    assert control.spare == 0
    with pytest.raises(InputError, match=r"all 3 places are taken; remove a source, or plan .* preview\.spare_sources"):
        control.reserve("yard")
    control.remove("s0")
    with pytest.raises(InputError, match="all 3 places are taken; one of them will be free when"):
        control.reserve("yard")
    assert control.wanted.places == (1, 2)
    control.release(0)
    assert add(control, "yard") == 0
    assert control.wanted.places == (1, 2, 0)
    assert [source.id for source in control.wanted.config.sources] == ["s1", "gate", "yard"]


@pytest.mark.parametrize(
    ("control", "name", "says"),
    [
        (Control(config(spare=0)), "gate", r"set preview\.spare_sources"),
        (Control(config(live=False)), "gate", "to live runs only"),
        (Control(config()), "s1", "has or had one of that id"),
    ],
    ids=["none planned", "offline", "same id"],
)
def test_what_cannot_be_added_and_why(control: Control, name: str, says: str) -> None:
    before = control.wanted
    with pytest.raises(InputError, match=says):
        control.reserve(name)
    assert control.wanted == before


def test_an_id_stands_for_one_source_in_a_run() -> None:
    """Tracks and numbers go by it."""
    control = Control(config())
    control.remove("s1")
    control.release(1)
    with pytest.raises(InputError, match="another id"):
        control.reserve("s1")


def test_a_run_cannot_be_without_a_source_or_without_that_of_its_sound() -> None:
    control = Control(config(2).model_copy(update={"audio": AudioConfig(source="s0")}))
    with pytest.raises(InputError, match="the sound is of this source"):
        control.remove("s0")
    with pytest.raises(InputError, match="nobody"):
        control.remove("nobody")
    silent = Control(config(1))
    with pytest.raises(InputError, match="it is the last one"):
        silent.remove("s0")
    assert shown(silent) == ["s0"]


def test_among_cells_it_takes_the_next_free_one_and_leaves_the_others() -> None:
    tiles = [Tile(source="s0", cell=[0, 0, 2, 2]), Tile(source="s1", cell=[2, 0])]
    control = Control(config(2, tiles, grid=[3, 3]))
    before = numbered_tiles(control.wanted.config)
    add(control, "gate")
    assert control.wanted.layout == "configured"
    tiles_now = numbered_tiles(control.wanted.config)
    assert tiles_now[:2] == before
    assert (tiles_now[2].x, tiles_now[2].y) == (before[1].x, 120)


def test_among_rectangles_there_is_no_next_place_so_the_layout_becomes_a_grid() -> None:
    tiles = [Tile(source="s0", rect=[0, 0, 400, 360]), Tile(source="s1", rect=[400, 0, 240, 180])]
    control = Control(config(2, tiles))
    before = numbered_tiles(control.wanted.config)
    add(control, "gate")
    assert control.wanted.layout == "grid"
    assert shown(control) == ["s0", "s1", "gate"]
    control.arrange("configured")  # the config's own tiles, which have no place for it
    assert numbered_tiles(control.wanted.config) == before
    control.remove("s0")
    assert shown(control) == ["s1"]
    assert numbered_tiles(control.wanted.config)[0].w == 240  # nothing moves
    control.arrange("spotlight")
    assert shown(control) == ["s1", "gate"]


def test_a_full_grid_of_the_config_gives_way_and_says_so_when_it_is_asked_for() -> None:
    control = Control(config(4, grid=[2, 2]))
    add(control, "gate")
    assert control.wanted.layout == "grid"
    with pytest.raises(InputError, match=r"mosaic\.grid: 2x2 has 4 free cells for 5 tiles"):
        control.arrange("configured")
    control.remove("s3")
    control.arrange("configured")
    assert shown(control) == ["s0", "s1", "s2", "gate"]


def test_when_no_tile_of_the_config_is_left_every_source_has_one() -> None:
    control = Control(config(2, [Tile(source="s0")]))
    control.remove("s0")
    assert shown(control) == ["s1"]


def test_titles_and_pauses_of_who_comes_and_goes() -> None:
    control = Control(config())
    add(control, "gate", "Gate")
    control.rename("gate", "정문")
    control.pause("gate")
    control.pause("s0")
    assert control.wanted.paused == {"gate", "s0"}
    control.rename("gate", None)
    assert numbered_tiles(control.wanted.config)[3].title == "Gate"
    control.remove("gate")
    assert control.wanted.paused == {"s0"}
    with pytest.raises(InputError, match="gate"):
        control.pause("gate")


def test_the_mosaic_of_other_sources_is_that_of_their_config_everywhere() -> None:
    """No ring buffer keeps a piece of a tile that has gone."""
    control = Control(config(3, gap_px=8, border_px=6))
    pictures = {f"s{i}": picture(i, 60 + 40 * i) for i in range(3)} | {"gate": picture(3, 220, size=(36, 64))}
    with CpuCompositor(control.wanted.config, 2) as compositor:
        for step in (lambda: add(control, "gate"), lambda: control.remove("s1"), lambda: control.arrange("spotlight"),
                     lambda: control.remove("s0"), lambda: control.remove("gate")):  # fmt: skip
            step()
            wanted = control.wanted.config
            sources = [pictures[source.id] for source in wanted.sources]
            compositor.arrange(wanted)
            with CpuCompositor(wanted, 1) as fresh:
                expected = [plane.copy() for plane in fresh.compose(0, sources).planes]
            for tick in range(6):  # more than there are buffers in the ring
                for plane, other in zip(compositor.compose(tick, sources).planes, expected, strict=True):
                    assert np.array_equal(plane, other)


class ComingAndGoing(RuleBasedStateMachine):
    """Whatever people do, the tiles are those of the sources, and a place has one source."""

    def __init__(self) -> None:
        super().__init__()
        rects = [Tile(source=f"s{i}", rect=[200 * i, 0, 200, 360 - 100 * i]) for i in range(3)]
        cells = [Tile(source="s0", cell=[0, 0, 2, 1]), Tile(source="s2", cell=[1, 1]), Tile(source="s1")]
        self._kinds = [None, rects, cells]
        self.start(0)

    @rule(kind=st.integers(0, 2))
    def start(self, kind: int) -> None:
        self.control = Control(config(3, self._kinds[kind], spare=3, grid=[3, 2] if kind == 2 else None))
        self.names, self.closing = {"s0", "s1", "s2"}, set[int]()
        self.count = 0

    def _try(self, change: object, *args: object) -> bool:
        before = self.control.wanted
        try:
            change(*args)  # type: ignore[operator]
        except InputError:
            assert self.control.wanted == before
            return False
        return True

    @rule()
    def add(self) -> None:
        self.count += 1
        name = f"n{self.count}"
        free = 6 - len(self.names) - len(self.closing)
        assert self._try(lambda: add(self.control, name)) == (free > 0)
        self.names |= {name} if free > 0 else set()

    @rule(which=st.integers(0, 9))
    def remove(self, which: int) -> None:
        name = sorted(self.names)[which % len(self.names)]
        wanted = self.control.wanted
        place = wanted.places[[source.id for source in wanted.config.sources].index(name)]
        assert self._try(self.control.remove, name) == (len(self.names) > 1)
        if len(self.names) > 1:
            self.names.discard(name)
            self.closing.add(place)

    @rule()
    def closed(self) -> None:
        if self.closing:
            self.control.release(self.closing.pop())

    @rule(which=st.integers(0, 9), paused=st.booleans())
    def pause(self, which: int, paused: bool) -> None:
        assert self._try(self.control.pause, sorted(self.names)[which % len(self.names)], paused)

    @rule(number=st.integers(0, 6))
    def promote(self, number: int) -> None:
        assert self._try(self.control.promote, number) == (number < len(numbered_tiles(self.control.wanted.config)))

    @rule(which=st.integers(0, 9), label=st.one_of(st.none(), st.text(max_size=5)), titles=st.booleans())
    def rename(self, which: int, label: str | None, titles: bool) -> None:
        assert self._try(self.control.rename, sorted(self.names)[which % len(self.names)], label)
        self.control.overlay(titles=titles)

    @rule(layout=st.sampled_from(["configured", "grid", "spotlight", "pip"]))
    def arrange(self, layout: str) -> None:
        if self._try(self.control.arrange, layout):
            assert self.control.wanted.layout == layout
        else:
            assert layout == "configured"

    @invariant()
    def the_tiles_are_those_of_the_sources(self) -> None:
        wanted = self.control.wanted
        ids = [source.id for source in wanted.config.sources]
        assert set(ids) == self.names
        assert len(ids) == len(wanted.places) == len(set(wanted.places))
        assert not set(wanted.places) & self.closing
        assert all(0 <= place < 6 for place in wanted.places)
        assert wanted.paused <= self.names
        tiles = numbered_tiles(wanted.config)
        assert tiles
        if wanted.layout != "configured":
            assert sorted(ids[tile.source] for tile in tiles) == sorted(ids)
        assert self.control.spare == 6 - len(self.names) - len(self.closing)


TestComingAndGoing = ComingAndGoing.TestCase
TestComingAndGoing.settings = settings(max_examples=100, stateful_step_count=30)
