"""The CPU compose kernel against a float64 reference and a per-pixel rasteriser; nothing outside is touched."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import random_frame

from tiler.compose.cpu import extent
from tiler.kernels import color, compose_cpu, compose_ref, scale_cpu
from tiler.kernels.primitives import (
    AFTER,
    ALPHA,
    CLIP_X0,
    COLUMNS,
    CR,
    EDGE,
    KIND,
    LUMA,
    X0,
    X1,
    Y0,
    Y1,
    A,
    B,
    Kind,
)
from tiler.kernels.scaling import WEIGHT_BITS, axis, geometry
from tiler.types import Frame, Matrix

ATLAS = np.random.default_rng(5).integers(0, 256, (40, 50)).astype(np.uint8)
NO_ROWS = np.zeros((0, COLUMNS), np.int32)
POISON = 0xA5


LAYOUTS = ["tight", "padded", "interleaved", "upside down", "16 bit", "16 bit interleaved"]


def launch(
    mosaic: tuple[int, int],
    tiles: list[tuple[Frame, tuple[float, float, float, float], tuple[int, int, int, int], int]],
    primitives: np.ndarray = NO_ROWS,
    *,
    background: tuple[int, int, int] = (16, 128, 128),
    bands: int = 1,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Run the kernel over guarded planes; the primitives are drawn after the last tile."""
    width, height = mosaic
    guarded = [np.full((h + 4) * w, POISON, np.uint8) for w, h in ((width, height), *[(width // 2, height // 2)] * 2)]
    planes = []
    for memory, (w, h), value in zip(
        guarded, ((width, height), *[(width // 2, height // 2)] * 2), background, strict=True
    ):
        plane = memory[2 * w : (h + 2) * w].reshape(h, w)
        plane[:] = value
        planes.append(plane)
    table = np.zeros((len(tiles) + 1, compose_cpu.TILE_COLUMNS), np.int64)
    table[-1, compose_cpu.END] = len(primitives)
    axes, at, samples = [np.zeros(1, np.int32)], 1, 1
    for row, (frame, src, dst, opacity) in zip(table, tiles, strict=False):
        tables = geometry(frame.picture_size, frame.rotation, src, dst, mosaic)
        if tables is not None:
            compose_cpu.pack_picture(row, frame, tables, at, opacity)
            axes.append(tables.tables)
            at += len(tables.tables)
            samples = max(samples, tables.samples)
    edges = np.linspace(0, height // 2, bands + 1).astype(int) * 2
    for top, bottom in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        compose_cpu.compose_rows(
            *planes, top, bottom, table, np.concatenate(axes), primitives, ATLAS, compose_cpu.COLOURS,
            scale_cpu.scratch(samples, width),
        )  # fmt: skip
    for memory, plane in zip(guarded, planes, strict=True):
        edge = 2 * plane.shape[1]
        assert (memory[:edge] == POISON).all()
        assert (memory[-edge:] == POISON).all()
    return planes[0], planes[1], planes[2]


def expect_picture(
    planes: tuple[np.ndarray, ...],
    frame: Frame,
    src: tuple[float, float, float, float],
    dst: tuple[int, int, int, int],
    opacity: int = 255,
    background: tuple[int, int, int] = (16, 128, 128),
) -> None:
    """The mosaic holds the picture, but for how its steps round, and background elsewhere."""
    bound = 0.53   # to scale
    if not color.is_identity(frame.matrix, frame.full_range):
        bound = 1.35 * bound + 0.5   # three scaled samples with their coefficients, then to a whole number
    if opacity < 255:
        bound = bound * opacity / 255 + 0.51
    for k, (plane, value, wanted) in enumerate(
        zip(planes, background, compose_ref.picture(frame, src, dst), strict=True)
    ):
        x, y, w, h = (n // 2 for n in dst) if k else dst
        whole = np.full(plane.shape, value, np.float64)
        x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + w, plane.shape[1]), min(y + h, plane.shape[0])
        if x0 < x1 and y0 < y1:
            part = wanted[y0 - y : y1 - y, x0 - x : x1 - x]
            whole[y0:y1, x0:x1] = compose_ref.blend(whole[y0:y1, x0:x1], part, opacity)
        outside = np.ones(plane.shape, bool)
        outside[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)] = False
        assert (plane[outside] == value).all()
        error = np.abs(plane - whole).max()
        assert error <= bound, f"plane {k} is off by {error}"


@st.composite
def scenes(draw: st.DrawFn) -> dict[str, object]:
    """One picture of any size, layout, colour and turn, cropped, scaled and placed anywhere."""
    size = (draw(st.integers(2, 300)), draw(st.integers(2, 300)))
    rotation = draw(st.sampled_from([0, 90, 180, 270]))
    upright = size[::-1] if rotation in (90, 270) else size
    ratio = draw(st.sampled_from([None, (1, 1), (2, 1), (3, 1), (4, 1), (3, 2), (4, 3), (5, 4), (1, 2), (2, 3)]))
    if ratio is None:
        dst_size = (2 * draw(st.integers(1, 120)), 2 * draw(st.integers(1, 120)))
        fractions = [draw(st.floats(0, 1)) for _ in range(4)]
        src = []
        for a, b, n in zip(fractions[:2], fractions[2:], upright, strict=True):
            low, high = sorted((a, b))
            src.append((low * n, high * n) if (high - low) * n > 0.5 else (0.0, float(n)))
        rect = (src[0][0], src[1][0], src[0][1], src[1][1])
    else:
        p, q = ratio
        groups = [max(1, n // (2 * p)) for n in upright]
        used = [min(2 * p * g, n) for g, n in zip(groups, upright, strict=True)]
        at = [draw(st.integers(0, n - m)) for m, n in zip(used, upright, strict=True)]
        dst_size = (2 * q * groups[0], 2 * q * groups[1])
        rect = (float(at[0]), float(at[1]), float(at[0] + used[0]), float(at[1] + used[1]))
    return {
        "seed": draw(st.integers(0, 2**32)),
        "size": size,
        "layout": draw(st.sampled_from(LAYOUTS)),
        "rotation": rotation,
        "matrix": draw(st.sampled_from(list(Matrix))),
        "full_range": draw(st.booleans()),
        "src": rect,
        "dst": (2 * draw(st.integers(-30, 70)), 2 * draw(st.integers(-30, 60)), *dst_size),
        "opacity": draw(st.one_of(st.just(255), st.integers(0, 255))),
    }


@settings(max_examples=80)
@given(scenes())
def test_a_picture_is_the_reference_but_for_rounding(scene: dict[str, object]) -> None:
    rng = np.random.default_rng(scene["seed"])
    fields = {name: scene[name] for name in ("rotation", "matrix", "full_range")}
    frame = random_frame(rng, scene["size"], scene["layout"], **fields)  # type: ignore[arg-type]
    place = scene["src"], scene["dst"], scene["opacity"]
    planes = launch((160, 120), [(frame, *place)], bands=1 + scene["seed"] % 5)  # type: ignore[operator, list-item]
    expect_picture(planes, frame, *place)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("size", "dst"),
    [
        pytest.param((1920, 1080), (1280, 720), id="3:2"),
        pytest.param((1920, 1080), (960, 540), id="2:1"),
        pytest.param((1280, 720), (1920, 1080), id="2:3"),
        pytest.param((1920, 1080), (768, 432), id="5:2"),
        pytest.param((1999, 1123), (1234, 700), id="no ratio"),
        pytest.param((4096, 600), (1024, 64), id="4:1 by 75:8"),
        pytest.param((4096, 400), (22, 12), id="far down"),
    ],
)
def test_large_pictures(size: tuple[int, int], dst: tuple[int, int]) -> None:
    frame = random_frame(np.random.default_rng(1), size)
    src, box = (0.0, 0.0, float(size[0]), float(size[1])), (0, 0, *dst)
    expect_picture(launch(dst, [(frame, src, box, 255)], bands=3), frame, src, box)


def test_copying_is_exact() -> None:
    frame = random_frame(np.random.default_rng(2), (64, 48), "padded")
    y, u, v = launch((64, 48), [(frame, (0.0, 0.0, 64.0, 48.0), (0, 0, 64, 48), 255)])
    for plane, wanted in zip((y, u, v), (frame.y, frame.u, frame.v), strict=True):
        assert np.array_equal(plane, wanted)


def test_a_turned_picture_is_copied_exactly_in_luma() -> None:
    frame = random_frame(np.random.default_rng(3), (64, 48), rotation=90)
    y, _, _ = launch((48, 64), [(frame, (0.0, 0.0, 48.0, 64.0), (0, 0, 48, 64), 255)])
    assert np.array_equal(y, np.rot90(frame.y, -1))


def test_turning_a_picture_keeps_its_chroma_in_place() -> None:
    """A ramp of chroma: whichever way it is turned, the sample at a place has the ramp's value there."""
    ramp = np.tile(np.arange(40, dtype=np.uint8) * 4 + 20, (40, 1))
    flat = np.full((80, 80), 90, np.uint8)
    upright = launch((80, 80), [(Frame(0, 0, flat, ramp, ramp), (0, 0, 80, 80), (0, 0, 80, 80), 255)])[1]
    for rotation in (90, 180, 270):
        frame = Frame(0, 0, flat, ramp, ramp, rotation=rotation)
        turned = launch((80, 80), [(frame, (0, 0, 80, 80), (0, 0, 80, 80), 255)])[1]
        back = np.rot90(turned, rotation // 90)
        # The output is left-sited too: turned, its samples lie half a luma pixel (1 code) to the side.
        difference = back[2:-2, 2:-2].astype(int) - upright[2:-2, 2:-2]
        assert np.ptp(difference) == 0
        assert abs(int(difference[0, 0])) == {90: 1, 180: 2, 270: 1}[rotation]


@given(st.integers(1, 400), st.integers(1, 400), st.integers(-200, 200), st.integers(1, 64))
def test_weights_sum_to_one_and_stay_inside(size: int, n: int, start: int, divisor: int) -> None:
    table = axis(Fraction(start, divisor), Fraction(size, n), size, 0, n)
    assert (table.weights.sum(1) == 1 << WEIGHT_BITS).all()
    assert (table.weights >= 0).all()
    assert table.first.min() >= 0
    assert table.first.max() + table.weights.shape[1] <= size


@pytest.mark.parametrize("matrix", list(Matrix))
@pytest.mark.parametrize("full_range", [False, True])
def test_colours_survive_conversion(matrix: Matrix, full_range: bool) -> None:
    """Codes -> RGB by one route, codes -> mosaic codes -> RGB by the other."""
    m, o = color.yuv_to_rgb(matrix, full_range)
    for rgb in ((200, 30, 60), (10, 200, 90), (40, 60, 220), (128, 128, 128), (255, 255, 255)):
        codes = np.rint(np.linalg.solve(m, np.array(rgb) - o)).astype(np.uint8)
        planes = [np.full(shape, code, np.uint8) for shape, code in zip(((8, 8), (4, 4), (4, 4)), codes, strict=True)]
        frame = Frame(0, 0, *planes, matrix=matrix, full_range=full_range)
        y, u, v = launch((8, 8), [(frame, (0, 0, 8, 8), (0, 0, 8, 8), 255)])
        assert np.abs(np.array(color.rgb_to_yuv(rgb)) - [y[3, 3], u[1, 1], v[1, 1]]).max() <= 1


def test_known_colours() -> None:
    """ITU-R BT.709 limited codes of the primaries, as in published colour bars."""
    bars = {
        (0, 0, 0): (16, 128, 128), (255, 255, 255): (235, 128, 128), (255, 0, 0): (63, 102, 240),
        (0, 255, 0): (173, 42, 26), (0, 0, 255): (32, 240, 118),
    }  # fmt: skip
    assert {rgb: color.rgb_to_yuv(rgb) for rgb in bars} == bars


def fma(a: np.float32, b: np.float32, c: np.float32) -> np.float32:
    return np.float32(np.float64(a) * np.float64(b) + np.float64(c))


def line_weight(row: np.ndarray, x: int, y: int) -> int:
    """Of a LINE at one luma pixel, in float32 as the kernels have it."""
    f = np.float32
    ax, ay, bx, by, width = (f(row[k]) / f(16) for k in (X0, Y0, X1, Y1, A))
    dx, dy, alpha = bx - ax, by - ay, f(row[ALPHA])
    length = np.sqrt(fma(dx, dx, dy * dy))
    share = f(1) / length if length > 0 else f(0)
    px, py, nx, ny = f(x) + f(0.5) - ax, f(y) + f(0.5) - ay, dx * share, dy * share
    along = min(max(fma(px, nx, py * ny), f(0)), length)
    ex, ey = fma(-along, nx, px), fma(-along, ny, py)
    fall, edge = alpha / max(width, f(1)), f(0.5) * width + f(0.5)
    return int(np.rint(max(min(fma(fma(ey, ey, ex * ex), -fall, edge * edge * fall), alpha), f(0))))


def weights_at(row: np.ndarray, clip: np.ndarray, x: int, y: int) -> tuple[int, int]:
    """Note [Blending] for one luma pixel: the weight of a frame's dark edges, and of the rest."""
    x0, y0, x1, y1, a, b, alpha = (int(row[k]) for k in (X0, Y0, X1, Y1, A, B, ALPHA))
    if not (clip[0] <= x < clip[2] and clip[1] <= y < clip[3]):
        return 0, 0
    if row[KIND] == Kind.LINE:
        return 0, line_weight(row, x, y)
    deep = min(x - x0, x1 - 1 - x, y - y0, y1 - 1 - y)
    if deep < 0 or (row[KIND] == Kind.FRAME and deep >= a):
        return 0, 0
    if row[KIND] == Kind.GLYPH:
        return 0, (int(ATLAS[y - y0 + b, x - x0 + a]) * alpha + 127) // 255
    if row[KIND] == Kind.FRAME and b and alpha and deep in (0, a - 1):
        return b, 0
    return 0, alpha


def draw_by_pixel(planes: tuple[np.ndarray, ...], rows: np.ndarray) -> None:
    begins = [n for n, row in enumerate(rows) if row[AFTER] == 0]
    for begin, end in zip(begins, [*begins[1:], len(rows)], strict=True):
        height, width = planes[0].shape
        weights = np.zeros((2, height, width), np.int64)
        for row in rows[begin:end]:
            for y, x in np.ndindex(height, width):
                weights[:, y, x] = np.maximum(weights[:, y, x], weights_at(row, rows[begin, CLIP_X0:], x, y))
        for c, colour in zip(weights, (EDGE, rows[begin, LUMA : CR + 1].tolist()), strict=True):
            mean = (c.reshape(height // 2, 2, width // 2, 2).sum((1, 3)) + 2) // 4
            for plane, value, weight in zip(planes, colour, (c, mean, mean), strict=True):
                plane[:] = (plane.astype(np.int64) * (255 - weight) + value * weight + 127) // 255


@st.composite
def primitive_rows(draw: st.DrawFn) -> list[int]:
    kind = draw(st.sampled_from(list(Kind)))
    row = [0] * COLUMNS
    row[KIND] = kind
    place = st.integers(-8, 48)
    if kind == Kind.LINE:
        row[X0 : Y1 + 1] = [draw(st.integers(-160, 720)) for _ in range(4)]
        row[A] = draw(st.integers(0, 120))
    else:
        x0, y0 = draw(place), draw(place)
        row[X0 : Y1 + 1] = [x0, y0, x0 + draw(st.integers(0, 30)), y0 + draw(st.integers(0, 24))]
        row[A] = draw(st.integers(0, 15))
        row[B] = draw(st.integers(0, 15) if kind == Kind.GLYPH else st.sampled_from([0, 0, 90, 255]))
    row[LUMA : ALPHA + 1] = [draw(st.integers(0, 255)) for _ in range(3)] + [
        draw(st.one_of(st.just(255), st.integers(0, 255)))
    ]
    if draw(st.booleans()):
        row[CLIP_X0:] = [-100, -100, 1000, 1000]
    else:
        row[CLIP_X0:] = [draw(st.integers(-4, 20)), draw(st.integers(-4, 20)), draw(place), draw(place)]
    return row


@settings(max_examples=60)
@given(st.lists(primitive_rows(), min_size=1, max_size=5), st.integers(1, 4), st.booleans())
def test_primitives_are_exactly_those_of_the_note(rows: list[list[int]], bands: int, strokes: bool) -> None:
    table = np.array(rows, np.int32)
    for n in range(1, len(table) if strokes else 0):
        if table[n, KIND] == table[n - 1, KIND] >= Kind.LINE:   # one stroke with the row before
            table[n, AFTER] = table[n - 1, AFTER] + 1
            table[n, LUMA:ALPHA], table[n, CLIP_X0:] = table[n - 1, LUMA:ALPHA], table[n - 1, CLIP_X0:]
    background = (90, 60, 200)
    drawn = launch((44, 36), [], table, background=background, bands=bands)
    wanted = tuple(
        np.full(shape, value, np.uint8)
        for shape, value in zip(((36, 44), (18, 22), (18, 22)), background, strict=True)
    )
    draw_by_pixel(wanted, table)
    for k in range(3):
        assert np.array_equal(drawn[k], wanted[k]), f"plane {k}: {np.argwhere(drawn[k] != wanted[k])[:4]}"
    box = extent(table, (44, 36))
    changed = np.argwhere(wanted[0] != background[0])
    if len(changed):
        assert box is not None
        assert box[0] <= changed[:, 1].min()
        assert box[1] <= changed[:, 0].min()
        assert changed[:, 1].max() < box[2]
        assert changed[:, 0].max() < box[3]
