"""The CPU compositor: what is in the mosaic when, and whose memory it is."""

from __future__ import annotations

import numpy as np
from pictures import random_frame

from tiler.compose.cpu import RING, CpuCompositor
from tiler.config.models import Config, MosaicConfig, OverlayConfig, Source, Tile
from tiler.crowd import NOBODY
from tiler.kernels import color
from tiler.types import Frame, State, TileInput

POISON = 0xA5


def config(count: int = 1, tiles: list[Tile] | None = None, **mosaic: object) -> Config:
    return Config(
        sources=[Source(id=f"s{i}", uri=f"{i}.mp4") for i in range(count)],
        tiles=tiles,
        mosaic=MosaicConfig(**{"width": 128, "height": 96, **mosaic}),  # type: ignore[arg-type]
        overlay=OverlayConfig(titles=False, fps=False, clock=True),
    )


def shown(frame: Frame | None, state: State = State.LIVE) -> TileInput:
    return TileInput(frame, NOBODY, state, 25.0)


def flat(value: int, size: tuple[int, int] = (64, 48), pts: int = 0) -> Frame:
    half = ((size[1] + 1) // 2, (size[0] + 1) // 2)
    y, u, v = (np.full(shape, n, np.uint8) for shape, n in ((size[::-1], value), (half, 128), (half, 128)))
    return Frame(0, pts, y, u, v)


def test_every_sample_is_written_in_every_buffer() -> None:
    settings_ = config(3, gap_px=4, border_px=6, background="#204060")
    with CpuCompositor(settings_, 2) as compositor:
        for buffer in compositor._ring:
            for plane in buffer:
                plane[:] = POISON
        background = color.rgb_to_yuv((0x20, 0x40, 0x60))
        for tick in range(RING):
            mosaic = compositor.compose(tick, [shown(flat(POISON - 5 + i, (50, 50))) for i in range(3)])
            for plane, value in zip(mosaic.planes, background, strict=True):
                assert plane[0, 0] == value
                assert not (plane == POISON).any()


def test_what_is_drawn_over_the_gaps_is_gone_when_the_buffer_comes_round() -> None:
    tiles = [Tile(source="s0", rect=[32, 60, 64, 32])]
    with CpuCompositor(config(1, tiles), 1) as compositor:
        inputs = [shown(flat(100))]
        clean = [np.copy(plane) for plane in compositor.compose(0, inputs).planes]
        with_clock = [np.copy(plane) for plane in compositor.compose(RING, inputs, "12:34:56").planes]
        again = compositor.compose(2 * RING, inputs).planes
        assert any((a != b).any() for a, b in zip(clean, with_clock, strict=True))
        for a, b in zip(clean, again, strict=True):
            assert np.array_equal(a, b)


def test_translucent_tiles_do_not_build_up() -> None:
    tiles = [
        Tile(source="s0", rect=[0, 0, 64, 48]),
        Tile(source="s1", rect=[32, 24, 96, 72], opacity=0.5, fit="stretch"),
    ]
    with CpuCompositor(config(2, tiles, background="#000000"), 1) as compositor:
        inputs = [shown(flat(200)), shown(flat(100, (96, 72)))]
        for tick in (0, RING, 2 * RING):
            y = compositor.compose(tick, inputs).planes[0]
            assert y[40, 40] == (200 * 127 + 100 * 128 + 127) // 255
            assert y[90, 120] == (16 * 127 + 100 * 128 + 127) // 255
            assert y[2, 2] == 200


def test_a_later_tile_covers_an_earlier_one_and_z_decides() -> None:
    tiles = [
        Tile(source="s0", rect=[0, 0, 64, 48], z=1, fit="stretch"),
        Tile(source="s1", rect=[32, 24, 64, 48], fit="stretch"),
    ]
    with CpuCompositor(config(2, tiles), 2) as compositor:
        y = compositor.compose(0, [shown(flat(200)), shown(flat(100))]).planes[0]
    assert y[30, 40] == 200
    assert y[60, 80] == 100


def test_the_mosaic_names_the_pictures_it_shows() -> None:
    with CpuCompositor(config(4), 1) as compositor:
        inputs = [
            shown(flat(50, pts=900)), shown(None, State.WAITING), shown(flat(70, pts=7), State.NO_SIGNAL),
            shown(flat(80, pts=11), State.STALE),
        ]  # fmt: skip
        mosaic = compositor.compose(3, inputs)
    assert mosaic.tick == 3
    assert mosaic.sources == (900, None, None, 11)


def test_pictures_may_change_size_while_it_runs() -> None:
    with CpuCompositor(config(1), 2) as compositor:
        for tick, size in enumerate([(64, 48), (300, 30), (2, 2), (33, 77), (64, 48)]):
            y = compositor.compose(tick, [shown(flat(150, size))]).planes[0]
            assert y[48, 64] == 150


def test_any_number_of_threads_gives_the_same_mosaic() -> None:
    rng = np.random.default_rng(9)
    inputs = [shown(random_frame(rng, (97, 61), rotation=90 * i)) for i in range(4)]
    results = []
    for threads in (1, 2, 3):
        with CpuCompositor(config(4, height=480, width=320), threads) as compositor:
            mosaic = compositor.compose(0, inputs, "00:00:01")
            results.append(np.concatenate([plane.ravel() for plane in mosaic.planes]))
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


def test_a_mosaic_keeps_its_memory_when_ticks_are_left_out() -> None:
    rng = np.random.default_rng(2)
    config = Config(sources=[Source(id="a", uri="x")], mosaic=MosaicConfig(width=64, height=64))
    shown = [TileInput(random_frame(rng, (64, 64)), NOBODY, State.LIVE, 30.0)]
    with CpuCompositor(config, 1) as compositor:
        first = compositor.compose(0, shown)
        before = first.planes[0].copy()
        other = [shown[0]._replace(frame=random_frame(rng, (64, 64)))]
        for tick in (RING, 2 * RING, 3 * RING)[: RING - 1]:
            compositor.compose(tick, other)
    assert np.array_equal(first.planes[0], before)
