"""compose.cu run on the CPU against its twin: random small mosaics full of overlays are equal to the bit."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest

from tests.compose_parts import OnDevice, aligned, compile_compose
from tests.gpu import random_picture
from tests.kernel_on_host import needs_compiler, pointer
from tiler.kernels import compose_cpu, compose_plan, compose_table, scale_cpu
from tiler.kernels.primitives import COLUMNS, STROKE, Kind
from tiler.kernels.scaling import Geometry, geometry
from tiler.types import Frame, Matrix

RUNS, CASES = 8, 50
BESIDE = compose_table.BESIDE_ATLAS
_COVERAGES = [0, 0, 255, 255, 1, 77, 128, 254]
ATLAS_MEMORY = np.random.default_rng(5).choice(_COVERAGES, (96 + 2 * BESIDE, 160)).astype(np.uint8)
ATLAS = ATLAS_MEMORY[BESIDE:-BESIDE]
Rectangle = tuple[int, int, int, int]


class Shown(NamedTuple):
    """A tile: its place, its picture, and how many of the primitives are drawn under and over that."""

    reach: Rectangle
    frame: Frame | None
    geometry: Geometry | None
    opacity: int
    under: int
    over: int


class Scene(NamedTuple):
    size: tuple[int, int]
    background: tuple[int, int, int]
    tiles: list[Shown]
    rows: np.ndarray


@pytest.fixture(scope="module")
def on_host(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Scene], tuple[np.ndarray, ...]]:
    """Compose a scene by the kernel of compose.cu: y, u, v."""
    folder = tmp_path_factory.mktemp("compose")
    compose = compile_compose(folder)
    before = np.zeros(compose_table.TILE_COLUMNS, np.int64)   # of the last tile with a picture, which one without had

    def run(scene: Scene) -> tuple[np.ndarray, ...]:
        (width, height), count = scene.size, len(scene.rows)
        table = np.zeros((len(scene.tiles), compose_table.TILE_COLUMNS), np.int64)
        table[:, compose_table.COLOUR] = -1
        axes, at, row = [np.zeros(1, np.int32)], 1, 0
        for line, tile in zip(table, scene.tiles, strict=True):
            line[compose_table.REACH : compose_table.REACH + 4] = compose_table.reach(tile.reach, scene.size)
            line[compose_table.UNDER : compose_table.END + 1] = row, row + tile.under, row + tile.under + tile.over
            row += tile.under + tile.over
            if tile.frame is not None and tile.geometry is not None:
                mode = compose_table.scale_mode(tile.geometry)
                planes = (tile.frame.y, tile.frame.u, tile.frame.v)
                y, u, v = (np.asarray(plane).view(OnDevice) for plane in planes)
                fields = {name: getattr(tile.frame, name) for name in ("rotation", "matrix", "full_range")}
                compose_table.pack_placement(line, tile.geometry, mode, at, tile.opacity)
                compose_table.pack_picture(line, compose_table.planes_of(Frame(0, 0, y, u, v, **fields)), mode)
                axes.append(tile.geometry.tables)
                at += len(tile.geometry.tables)
                before[:] = line
            else:
                line[: compose_table.REACH] = before[: compose_table.REACH]
                line[compose_table.PLANES] = 0
        packed = aligned((count + 1, compose_table.ROW_WORDS), np.int32)
        compose_table.pack_rows(scene.rows, packed[:count])
        tiles = aligned((len(table), compose_table.TILE_WORDS), np.int64)
        compose_table.pack_tiles(table, scene.rows, tiles)
        plan = compose_plan.Plan(scene.size)
        plan.make(table, tiles, scene.rows)
        heads, lists = aligned((plan.drawn + 1, 2), np.uint32), aligned((len(plan.lists) + 1,), np.int32)
        heads[:-1], lists[:-1] = plan.heads, plan.lists
        nv12 = aligned((height * 3 // 2, width), np.uint8)
        nv12[...] = 0xA5
        shade = sum(value << 8 * k for k, value in enumerate(scene.background))
        tables = np.concatenate(axes)
        compose.run(
            len(plan.blocks), 1, 128, pointer(nv12), _number(width), _number(height), _number(shade),
            pointer(plan.blocks), _number(plan.blocks.nbytes), _number(plan.lead), _number(plan.drawn), pointer(heads),
            pointer(lists), pointer(tiles), _number(len(tiles)), pointer(tables), pointer(packed),
            pointer(ATLAS_MEMORY), _number(ATLAS.shape[1]), pointer(compose_cpu.COLOURS),
        )  # fmt: skip
        chroma = nv12[height:].reshape(height // 2, width // 2, 2)
        return nv12[:height], chroma[..., 0], chroma[..., 1]

    return run


def _number(value: int) -> ctypes.c_void_p:
    return ctypes.c_void_p(value)


def by_twin(scene: Scene) -> tuple[np.ndarray, ...]:
    """The same by the CPU's kernel."""
    width, height = scene.size
    shapes = ((height, width), (height // 2, width // 2), (height // 2, width // 2))
    y, u, v = (np.full(shape, value, np.uint8) for shape, value in zip(shapes, scene.background, strict=True))
    table = np.zeros((len(scene.tiles), compose_cpu.TILE_COLUMNS), np.int64)
    axes, at, row, samples = [np.zeros(1, np.int32)], 1, 0, 1
    for line, tile in zip(table, scene.tiles, strict=True):
        line[compose_cpu.UNDER : compose_cpu.END + 1] = row, row + tile.under, row + tile.under + tile.over
        row += tile.under + tile.over
        if tile.frame is not None and tile.geometry is not None:
            compose_cpu.pack_picture(line, tile.frame, tile.geometry, at, tile.opacity)
            axes.append(tile.geometry.tables)
            at += len(tile.geometry.tables)
            samples = max(samples, tile.geometry.samples)
    compose_cpu.compose_rows(
        y, u, v, 0, height, table, np.concatenate(axes), scene.rows, ATLAS, compose_cpu.COLOURS,
        scale_cpu.scratch(samples, width),
    )  # fmt: skip
    return y, u, v


def random_rows(rng: np.random.Generator, count: int, reach: Rectangle) -> np.ndarray:
    """Primitives in and around a rectangle, clipped to it: alone, in runs like text and trails, or heaped up."""
    rows = np.zeros((count, COLUMNS), np.int32)
    x0, y0, x1, y1 = reach
    x, y, step, kind, after = 0.0, 0.0, 0.0, Kind.FILL, 0
    heap, strokes = rng.integers(6) == 0, rng.integers(4) > 0
    colour, clip, alpha = [0, 0, 0], list(reach), 255
    for row in rows:
        after += 1
        if rng.integers(5) == 0 or not step:   # somewhere else
            after = 0
            if not (heap and step):
                x, y = float(rng.uniform(x0 - 20, x1 + 5)), float(rng.uniform(y0 - 12, y1 + 5))
            step, kind = float(rng.uniform(0.2, 14)), Kind(int(rng.choice([0, 1, 2, 2, 3, 3])))
        if kind != Kind.GLYPH or after in (0, STROKE) or not strokes:
            alpha = int(rng.choice([255, 255, 245, 90, 0, 1, int(rng.integers(256))]))
        a = b = 0
        if kind == Kind.LINE:
            dx, dy = rng.normal(0, 3, 2) if rng.integers(8) else rng.uniform(-200, 200, 2)
            ends = [16 * x, 16 * y, 16 * (x + dx), 16 * (y + dy)]
            place, a = [round(value) for value in ends], int(rng.integers(0, 90))
            if rng.integers(12) == 0:
                place[2:] = place[:2]
        else:
            large = rng.integers(8) == 0
            w, h = (int(rng.integers(0, 300 if large else 24)), int(rng.integers(0, 90 if large else 24)))
            if kind == Kind.GLYPH:
                w, h = min(w, 60), min(h, 60)
                a, b = int(rng.integers(0, ATLAS.shape[1] - w)), int(rng.integers(0, ATLAS.shape[0] - h))
            elif kind == Kind.FRAME:
                w, h, a = w + int(rng.integers(0, 60)), h + int(rng.integers(0, 40)), int(rng.integers(0, 9))
                b = int(rng.choice([0, 90, 255, int(rng.integers(256))]))
            place = [int(x), int(y), int(x) + w, int(y) + h]
        if kind <= Kind.FRAME or after == STROKE or not strokes:
            after = 0
        if not after:
            colour, clip = rng.integers(0, 256, 3).tolist(), list(reach)
            if rng.integers(4) == 0:
                low, high = rng.integers([x0, y0], [x1, y1]), rng.integers([x0, y0], [x1, y1]) + 1
                clip = [*np.minimum(low, high).tolist(), *np.maximum(low, high).tolist()]
        row[:] = [kind, *place, a, b, *colour, alpha, after, *clip]
        if not heap:
            x, y = x + step, y + float(rng.normal(0, 1))
    return rows


def random_scene(rng: np.random.Generator) -> Scene:
    size = 2 * int(rng.integers(128, 321)), 2 * int(rng.integers(16, 65))
    if rng.integers(2):
        size = size[0] & ~7, size[1]
    tiles, rows = [], []
    for _ in range(int(rng.integers(1, 4))):
        whole = rng.integers(3) == 0
        w, h = size if whole else (2 * int(rng.integers(8, 160)), 2 * int(rng.integers(4, 50)))
        x, y = (0, 0) if whole else (2 * int(rng.integers(-20, size[0] // 2)), 2 * int(rng.integers(-10, size[1] // 2)))
        x, y = (x & ~7, y) if rng.integers(2) else (x, y)
        reach = (max(x, 0), max(y, 0), min(x + w, size[0]), min(y + h, size[1]))
        if reach[0] >= reach[2] or reach[1] >= reach[3]:
            reach = (0, 0, *size)
        frame = placed = None
        if rng.integers(3):
            scale = int(rng.choice([1, 1, 2, 3]))
            picture = (w * scale // (2 if scale == 3 else 1), h * scale // (2 if scale == 3 else 1))
            frame = random_picture(
                rng, picture, sixteen=rng.integers(6) == 0, matrix=Matrix(int(rng.choice([1, 1, 0, 2]))),
                full_range=rng.integers(4) == 0,
            )  # fmt: skip
            placed = geometry(picture, 0, (0, 0, *picture), (x, y, w, h), size)
        counts = [int(rng.choice([0, 0, 3, 20])), int(rng.choice([0, 1, 7, 31, 32, 33, 64, 120]))]
        rows.append(random_rows(rng, sum(counts), reach))
        tiles.append(Shown(reach, frame, placed, int(rng.choice([255, 255, 0, 120])), *counts))
    last = int(rng.choice([0, 0, 9]))
    rows.append(random_rows(rng, last, (0, 0, *size)))
    tiles.append(Shown((0, 0, *size), None, None, 255, 0, last))
    y, u, v = rng.integers(0, 256, 3).tolist()
    return Scene(size, (y, u, v), tiles, np.concatenate(rows))


def expect_the_same(scene: Scene, found: tuple[np.ndarray, ...], what: str) -> None:
    for name, one, wanted in zip("yuv", found, by_twin(scene), strict=True):
        wrong = np.argwhere(one != wanted)
        assert len(wrong) == 0, f"{what}, {scene.size}: {name} has {len(wrong)} wrong samples, the first at {wrong[0]}"


@needs_compiler
@pytest.mark.parametrize("run", range(RUNS))
def test_random_mosaics_are_those_of_the_twin(on_host: Callable[[Scene], tuple[np.ndarray, ...]], run: int) -> None:
    for case in range(CASES):
        scene = random_scene(np.random.default_rng((run, case)))
        expect_the_same(scene, on_host(scene), f"run {run}, case {case}")


@needs_compiler
def test_a_picture_that_has_gone_is_not_looked_at(on_host: Callable[[Scene], tuple[np.ndarray, ...]]) -> None:
    """Of the kind that is copied as it is; then there is only what is drawn in its place."""
    size, rng = (256, 64), np.random.default_rng(2)
    frame = random_picture(rng, size)
    placed = geometry(size, 0, (0, 0, *size), (0, 0, *size), size)
    rows = random_rows(rng, 30, (0, 0, *size))
    shown = Shown((0, 0, *size), frame, placed, 255, 0, len(rows))
    for tile in (shown, shown._replace(frame=None, geometry=None), shown):
        scene = Scene(size, (16, 128, 128), [tile], rows)
        expect_the_same(scene, on_host(scene), "shown" if tile.frame is not None else "gone")


@needs_compiler
def test_more_primitives_than_a_warp_lists_at_once(on_host: Callable[[Scene], tuple[np.ndarray, ...]]) -> None:
    rng, size = np.random.default_rng(9), (192, 48)
    heaped = np.concatenate([random_rows(rng, 300, (0, 0, *size)) for _ in range(15)])
    apart = np.concatenate([random_rows(rng, 1540, (0, 0, 60, 48)), random_rows(rng, 200, (130, 0, *size))])
    for rows, under in ((heaped, 0), (heaped, 7), (heaped, 2050), (apart, 0)):
        scene = Scene(size, (16, 128, 128), [Shown((0, 0, *size), None, None, 255, under, len(rows) - under)], rows)
        expect_the_same(scene, on_host(scene), f"{len(rows)} rows, {under} of them under")


@needs_compiler
@pytest.mark.parametrize("kind", list(Kind))
def test_every_alpha_is_blended_alike(on_host: Callable[[Scene], tuple[np.ndarray, ...]], kind: Kind) -> None:
    """One primitive each, on odd places too, over a picture of all values."""
    size = (384, 96)
    rows = np.zeros((256, COLUMNS), np.int32)
    for alpha, row in enumerate(rows):
        x, y = alpha % 32 * 12 + alpha % 3, alpha // 32 * 12 + alpha % 2
        place = [16 * x + 30, 16 * y + 20, 16 * x + 150, 16 * y + 90] if kind == Kind.LINE else [x, y, x + 9, y + 9]
        a = {Kind.FILL: 0, Kind.FRAME: 2, Kind.LINE: 37, Kind.GLYPH: alpha // 2}[kind]
        b = {Kind.GLYPH: alpha % 80, Kind.FRAME: alpha ^ 0xFF}.get(kind, 0)
        row[:] = [kind, *place, a, b, alpha ^ 0x5A, alpha, 255 - alpha, alpha, 0, 0, 0, *size]
    frame = random_picture(np.random.default_rng(4), size)
    placed = geometry(size, 0, (0, 0, *size), (0, 0, *size), size)
    scene = Scene(size, (16, 128, 128), [Shown((0, 0, *size), frame, placed, 255, 0, len(rows))], rows)
    expect_the_same(scene, on_host(scene), kind.name)
