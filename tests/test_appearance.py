"""Appearance: the descriptor against a plain float64 one, the .cu file run on the CPU, and what users rely on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kernel_on_host import compile_kernel, needs_compiler, pointer
from tests.pictures import random_frame
from tiler.kernels import appearance as a
from tiler.kernels.appearance_cpu import histograms
from tiler.track.appearance import CpuEmbedder, host_place, lay_out, load_matrix
from tiler.types import APPEARANCE, Appearance, Frame

LAYOUTS = ("tight", "padded", "interleaved", "upside down", "16 bit interleaved")
TOLERANCE = 2e-5
"""Of a unit vector: float32 sums of 456 terms against float64 ones."""


def random_boxes(rng: np.random.Generator, size: tuple[int, int], count: int) -> np.ndarray:
    """In and around the picture, on quarters of a pixel: no rounding decides which sample is the nearest."""
    low = np.round(4 * rng.uniform(-0.3, 1, (count, 2)) * size) / 4
    extent = np.round(4 * rng.uniform(0.05, 0.9, (count, 2)) * size) / 4 + 1
    return np.concatenate([low, low + extent], axis=1).astype(np.float32)


def spread(value: float, centres: tuple[float, ...], weight: float, row: np.ndarray) -> None:
    """Into the two bins nearest to the value, in parts of 1 / PART."""
    place = np.interp(value, centres, range(len(centres)))
    place = np.rint(place * a.PART) / a.PART
    low = int(place)
    row[low] += weight * (1 - (place - low))
    if place > low:
        row[low + 1] += weight * (place - low)


def reference(frame: Frame, box: np.ndarray) -> np.ndarray:
    """h of Note [Appearance] in float64, step by step: (FEATURES,)."""
    eight = [plane >> 8 if plane.dtype == np.uint16 else plane for plane in (frame.y, frame.u, frame.v)]
    y, u, v = (np.rot90(plane, -frame.rotation // 90).astype(int) for plane in eight)
    x0, y0, x1, y1 = box.astype(float) * np.tile(np.array(frame.plane_size) / frame.picture_size, 2)
    step_x, step_y = (x1 - x0) / a.COLUMNS, (y1 - y0) / a.ROWS

    def at(i: float, j: float) -> tuple[int, int]:
        row, column = int(np.floor(y0 + i * step_y)), int(np.floor(x0 + j * step_x))
        return min(max(row, 0), y.shape[0] - 1), min(max(column, 0), y.shape[1] - 1)

    luma = np.empty((a.ROWS, a.COLUMNS), int)
    for i in range(a.ROWS):
        for j in range(a.COLUMNS):
            luma[i, j] = (sum(y[at(i + p, j + q)] for p in (0.25, 0.75) for q in (0.25, 0.75)) + 2) // 4
    _, columns, rows, _ = a.tables()
    counts = np.zeros((a.STRIPES + 1, a.BINS))
    total = np.zeros(a.STRIPES + 1)
    chroma, step = len(a.CHROMA), len(a.STEP)
    starts = np.cumsum([0, len(a.LUMA), chroma, chroma, step])
    centres = (a.LUMA, a.CHROMA, a.CHROMA, a.STEP, a.STEP)
    for i in range(a.ROWS):
        for j in range(a.COLUMNS):
            row, column = at(i + 0.5, j + 0.5)
            values = (luma[i, j], u[row // 2, column // 2], v[row // 2, column // 2],
                      abs(luma[i, min(j + 1, a.COLUMNS - 1)] - luma[i, j]),
                      abs(luma[min(i + 1, a.ROWS - 1), j] - luma[i, j]))  # fmt: skip
            for stripe, share in ((rows[i, 0], rows[i, 1]), (rows[i, 0] + 1, rows[i, 2])):
                weight = float(share) * float(columns[j])
                if weight:
                    total[stripe] += weight
                    for start, value, bins in zip(starts, values, centres, strict=True):
                        spread(value, bins, weight, counts[stripe, start:])
    return np.sqrt(counts[: a.STRIPES] / total[: a.STRIPES, None]).ravel()


@pytest.mark.parametrize("seed", range(10))
def test_vectors_are_those_of_the_note(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = [(64, 48), (97, 131), (320, 200), (33, 260), (200, 40)][seed % 5]
    frame = random_frame(rng, size, LAYOUTS[seed // 2], rotation=90 * (seed % 4))
    boxes = random_boxes(rng, frame.picture_size, 3)
    expected = np.stack([reference(frame, box) for box in boxes])
    places, own = lay_out([(frame, boxes)], host_place)
    found = np.empty((3, a.FEATURES), np.float32)
    histograms(places, own, a.tables(), found)
    assert np.abs(found - expected).max() < 1e-6
    matrix = load_matrix().astype(np.float64)
    vectors = expected @ matrix[:-1] + matrix[-1]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert np.abs(CpuEmbedder().embed([(frame, boxes)]) - vectors).max() < TOLERANCE


@needs_compiler
def test_the_cuda_kernel_says_the_same(tmp_path: Path) -> None:
    kernel = compile_kernel(tmp_path, "appearance", "const Place*,const float*,const int*,const float*,float*")
    rng = np.random.default_rng(3)
    frames = [random_frame(rng, (120, 90), layout, rotation=90 * (k % 4)) for k, layout in enumerate(LAYOUTS)]
    crops = [(frame, random_boxes(rng, frame.picture_size, 2)) for frame in frames]
    places, boxes = lay_out(crops, host_place)
    bins, columns, rows, scale = a.tables()
    tables = np.concatenate([bins.ravel(), columns, rows.ravel(), scale.view(np.int32)])
    vectors = np.zeros((len(boxes), APPEARANCE), np.float32)
    arguments = (places, boxes, tables, np.ascontiguousarray(load_matrix()), vectors)
    kernel.run(len(boxes), 1, 256, *(pointer(array) for array in arguments))
    assert np.abs(vectors - CpuEmbedder().embed(crops)).max() < TOLERANCE


def test_a_launch_of_many_pictures_is_each_alone() -> None:
    rng = np.random.default_rng(5)
    crops = [(random_frame(rng, (80, 60), layout), random_boxes(rng, (80, 60), k)) for k, layout in enumerate(LAYOUTS)]
    embedder = CpuEmbedder()
    together = embedder.embed(crops)
    alone = [embedder.embed([crop]) for crop in crops]
    assert np.array_equal(together, np.concatenate(alone))
    assert embedder.embed([]).shape == (0, APPEARANCE)


def test_a_picture_that_the_decoder_scaled_down_keeps_its_boxes() -> None:
    rng = np.random.default_rng(6)
    frame = random_frame(rng, (160, 120))
    boxes = random_boxes(rng, (160, 120), 4)
    scaled = replace(frame, source_size=(320, 240))
    embedder = CpuEmbedder()
    assert np.array_equal(embedder.embed([(frame, boxes)]), embedder.embed([(scaled, 2 * boxes)]))


@given(box=st.lists(st.floats(width=32), min_size=4, max_size=4), seed=st.integers(0, 9))
def test_any_box_gives_a_unit_vector(box: list[float], seed: int) -> None:
    frame = random_frame(np.random.default_rng(seed), (31, 17))
    vector = CpuEmbedder().embed([(frame, np.array([box], np.float32))])
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-4)


def test_people_in_other_clothes_look_other_and_the_same_ones_alike() -> None:
    def person(shirt: tuple[int, int, int], place: int) -> tuple[Frame, np.ndarray]:
        rng = np.random.default_rng(place)
        y = rng.integers(90, 110, (120, 200))
        u, v = rng.integers(125, 131, (2, 60, 100))
        half = np.s_[10:35, place // 2 : place // 2 + 20]
        y[20:70, place : place + 40], u[half], v[half] = shirt
        planes = (plane.astype(np.uint8) for plane in (y, u, v))
        return Frame(0, 0, *planes), np.array([[place, 10, place + 40, 110]], np.float32)

    red, blue = (80, 100, 190), (60, 170, 110)
    crops = [person(red, 10), person(red, 120), person(blue, 60), person(blue, 150)]
    vectors = CpuEmbedder().embed(crops)
    alike = vectors @ vectors.T
    assert min(alike[0, 1], alike[2, 3]) > 0.9
    assert alike[:2, 2:].max() < 0.5


def test_an_appearance_has_a_row_and_a_flag_for_each_track() -> None:
    with pytest.raises(ValueError, match=r"vectors \(n, 128\), known \(n,\); got \(2, 128\), \(3,\)"):
        Appearance(np.zeros((2, APPEARANCE), np.float32), np.ones(3, np.bool_))
