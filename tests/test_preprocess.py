"""Preprocess: geometry, colour, scaling and layouts against a slow float64 reference."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiler.engines.registry import InputSpec
from tiler.kernels.color import yuv_to_rgb
from tiler.kernels.preprocess_cpu import axis_table
from tiler.preprocess.cpu import RING, CpuPreprocessor, letterbox
from tiler.types import Batch, Frame, Matrix

TOLERANCE = 0.01
"""Code values of 0..255: float32 sums against float64 ones."""


def make_frame(width: int, height: int, seed: int = 0, layout: str = "planar", **attributes: Any) -> Frame:
    """A random picture; equal seeds give equal 8-bit values in every layout."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 256, (height, width), np.uint8)
    u, v = rng.integers(0, 256, (2, (height + 1) // 2, (width + 1) // 2), np.uint8)
    if "16" in layout:
        y, u, v = (plane.astype(np.uint16) << 8 | 0x5A for plane in (y, u, v))
    if "padded" in layout:
        y, u, v = (np.pad(plane, ((0, 2), (0, 37)))[:-2, :-37] for plane in (y, u, v))
    if "nv12" in layout:
        both = np.stack([u, v], axis=2).reshape(u.shape[0], -1)
        u, v = both[:, ::2], both[:, 1::2]
    if "mirrored" in layout:
        y, u, v = (plane[::-1].copy()[::-1] for plane in (y, u, v))
    if "mixed" in layout:
        v = np.pad(v, ((0, 0), (0, 5)))[:, : v.shape[1]]
    return Frame(stream=seed, pts=0, y=y, u=u, v=v, **attributes)


def prepare(frames: list[Frame], size: tuple[int, int] = (96, 64), threads: int = 2, **spec: Any) -> Batch:
    with CpuPreprocessor(size, InputSpec(**spec), len(frames), threads) as preprocessor:
        return preprocessor.prepare(frames)


def reference_axis(plane: np.ndarray, extent: float, outputs: int) -> np.ndarray:
    """Scale axis 0: the mean over each output's area, or interpolation between the neighbours."""
    n, ratio = plane.shape[0], extent / outputs
    result = np.zeros((outputs, *plane.shape[1:]))
    for i in range(outputs):
        if ratio >= 1:
            low, high = i * ratio, (i + 1) * ratio
            cover = [max(0.0, min(high, k + 1) - max(low, k)) for k in range(n)]
            result[i] = np.tensordot(cover, plane, 1) / sum(cover)
        else:
            centre = min(max((i + 0.5) * ratio - 0.5, 0.0), n - 1.0)
            k = min(int(centre), max(n - 2, 0))
            result[i] = plane[k] * (1 - (centre - k)) + plane[min(k + 1, n - 1)] * (centre - k)
    return result


def reference(frame: Frame, size: tuple[int, int], spec: InputSpec) -> np.ndarray:
    """Note [Preprocess], step by step, in float64."""
    place = letterbox(frame.picture_size, frame.picture_aspect, size, spec.align)
    turned = frame.rotation in (90, 270)
    rows, columns = (place.width, place.height) if turned else (place.height, place.width)
    planes = []
    for plane, parts in ((frame.y, 1), (frame.u, 2), (frame.v, 2)):
        values = (plane >> 8 if plane.dtype == np.uint16 else plane).astype(np.float64)
        values = reference_axis(values, frame.y.shape[0] / parts, rows)
        planes.append(reference_axis(values.T, frame.y.shape[1] / parts, columns).T)
    m, o = yuv_to_rgb(frame.matrix, frame.full_range)
    rgb = np.clip(np.einsum("ij,jhw->ihw", m.astype(np.float64), np.stack(planes)) + o[:, None, None], 0, 255)
    rgb = np.rot90(rgb, -frame.rotation // 90, axes=(1, 2))
    picture = np.full((3, size[1], size[0]), spec.pad)
    picture[:, place.y : place.y + place.height, place.x : place.x + place.width] = rgb
    picture = picture if spec.channels == "rgb" else picture[::-1]
    mean, std = np.array(spec.mean)[:, None, None], np.array(spec.std)[:, None, None]
    return (picture * spec.scale - mean) / std


CASES = {
    "shrink": ((200, 120), {}),
    "grow": ((40, 30), {}),
    "same size": ((96, 64), {}),
    "grow one way, shrink the other": ((400, 20), {"sample_aspect": Fraction(1, 12)}),
    "odd size": ((131, 77), {}),
    "one pixel": ((1, 1), {}),
    "one column": ((1, 90), {}),
    "wide pixels": ((72, 58), {"sample_aspect": Fraction(16, 11)}),
    "turned 90": ((131, 77), {"rotation": 90}),
    "turned 180": ((131, 77), {"rotation": 180}),
    "turned 270": ((131, 77), {"rotation": 270}),
    "turned, wide pixels": ((72, 58), {"rotation": 90, "sample_aspect": Fraction(16, 11)}),
    "BT.601 full range": ((200, 120), {"matrix": Matrix.BT601, "full_range": True}),
    "BT.2020": ((200, 120), {"matrix": Matrix.BT2020}),
    "rows padded": ((131, 77), {"layout": "padded"}),
    "nv12": ((131, 77), {"layout": "nv12"}),
    "nv12, rows padded": ((131, 77), {"layout": "padded nv12"}),
    "16 bits": ((131, 77), {"layout": "16 padded"}),
    "p016": ((131, 77), {"layout": "16 nv12"}),
    "rows from the bottom up": ((131, 77), {"layout": "mirrored"}),
    "chroma planes with two strides": ((131, 77), {"layout": "mixed"}),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("threads", [1, 2])
def test_matches_the_reference(name: str, threads: int) -> None:
    size, attributes = CASES[name]
    frame = make_frame(*size, seed=3, **attributes)
    spec = InputSpec(scale=1.0)
    batch = prepare([frame], threads=threads, scale=1.0)
    np.testing.assert_allclose(batch.tensor[0], reference(frame, (96, 64), spec), atol=TOLERANCE)


@settings(max_examples=40)
@given(
    size=st.tuples(st.integers(1, 150), st.integers(1, 150)),
    target=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    rotation=st.sampled_from([0, 90, 180, 270]),
    aspect=st.fractions(Fraction(1, 3), Fraction(3), max_denominator=20),
    align=st.sampled_from(["center", "top-left"]),
)
def test_any_geometry_matches_the_reference(
    size: tuple[int, int], target: tuple[int, int], rotation: int, aspect: Fraction, align: str
) -> None:
    frame = make_frame(*size, seed=1, rotation=rotation, sample_aspect=aspect)
    width, height = target[0] * 32, target[1] * 32
    batch = prepare([frame], (width, height), threads=1, align=align, scale=1.0)
    expected = reference(frame, (width, height), InputSpec(align=align, scale=1.0))
    np.testing.assert_allclose(batch.tensor[0], expected, atol=TOLERANCE)


def test_normalisation_and_channel_order() -> None:
    frame = make_frame(50, 40)
    numbers = {"mean": (103.5, 116.3, 123.7), "std": (57.4, 57.1, 58.4), "scale": 1.0, "pad": 30.0}
    batch = prepare([frame], channels="bgr", **numbers)
    expected = reference(frame, (96, 64), InputSpec(channels="bgr", **numbers))
    np.testing.assert_allclose(batch.tensor[0], expected, atol=TOLERANCE)


def test_white_black_and_red_come_out_as_such() -> None:
    def flat(y: int, u: int, v: int) -> Frame:
        planes = (np.full(shape, code, np.uint8) for shape, code in (((8, 8), y), ((4, 4), u), ((4, 4), v)))
        return Frame(0, 0, *planes)

    batch = prepare([flat(235, 128, 128), flat(16, 128, 128), flat(63, 102, 240)], (32, 32))
    expected = [[1, 1, 1], [0, 0, 0], [1, 0, 0]]
    np.testing.assert_allclose(batch.tensor.mean(axis=(2, 3)), expected, atol=0.01)


def test_a_batch_is_each_frame_alone() -> None:
    frames = [
        make_frame(200, 120, 1),
        make_frame(33, 77, 2, rotation=90),
        make_frame(64, 64, 3, layout="16 nv12"),
        make_frame(1, 5, 4),
    ]
    together = prepare(frames)
    assert together.streams == (1, 2, 3, 4)
    assert together.tensor.shape == (4, 3, 64, 96)
    for i, frame in enumerate(frames):
        alone = prepare([frame], threads=1)
        np.testing.assert_array_equal(together.tensor[i], alone.tensor[0])
        np.testing.assert_array_equal(together.letterbox[i], alone.letterbox[0])
        assert tuple(together.sizes[i]) == frame.picture_size


def test_padding_follows_the_picture() -> None:
    """An entry of the ring that held a wide picture is padded afresh for a tall one."""
    frames = [make_frame(200, 20, 1), make_frame(20, 200, 2)]
    with CpuPreprocessor((96, 64), InputSpec(), 1, 1) as preprocessor:
        for turn in range(4 * RING):
            frame = frames[turn // 2 % 2]
            batch = preprocessor.prepare([frame])
            np.testing.assert_allclose(batch.tensor[0], reference(frame, (96, 64), InputSpec()), atol=1e-4)


def test_a_batch_stays_valid_until_the_ring_comes_round() -> None:
    with CpuPreprocessor((96, 64), InputSpec(), 1, 1) as preprocessor:
        first = preprocessor.prepare([make_frame(50, 40, 0)])
        copy = first.tensor.copy()
        for seed in range(1, RING):
            preprocessor.prepare([make_frame(50, 40, seed)])
        np.testing.assert_array_equal(first.tensor, copy)


def test_no_frames_make_an_empty_batch() -> None:
    with CpuPreprocessor((96, 64), InputSpec(), 2, 2) as preprocessor:
        batch = preprocessor.prepare([])
    assert len(batch) == 0
    assert batch.tensor.shape == (0, 3, 64, 96)
    assert batch.letterbox.shape == (0, 4)


def test_too_many_frames_are_refused_and_closing_twice_is_fine() -> None:
    preprocessor = CpuPreprocessor((96, 64), InputSpec(), 1, 2)
    with pytest.raises(ValueError, match="2 frames for a batch of at most 1"):
        preprocessor.prepare([make_frame(8, 8), make_frame(8, 8)])
    preprocessor.close()
    preprocessor.close()


@given(
    size=st.tuples(st.integers(1, 8192), st.integers(1, 8192)),
    aspect=st.fractions(Fraction(1, 4), Fraction(4), max_denominator=100),
    target=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    align=st.sampled_from(["center", "top-left"]),
)
def test_letterbox_lies_inside_touches_an_edge_and_keeps_the_shape(
    size: tuple[int, int], aspect: Fraction, target: tuple[int, int], align: Any
) -> None:
    width, height = target[0] * 32, target[1] * 32
    box = letterbox(size, aspect, (width, height), align)
    assert box.x >= 0
    assert box.y >= 0
    assert 1 <= box.width <= width - box.x
    assert 1 <= box.height <= height - box.y
    assert box.width == width or box.height == height
    if align == "center":
        assert abs(width - box.width - 2 * box.x) <= 1
        assert abs(height - box.height - 2 * box.y) <= 1
    shape = size[0] * aspect / size[1]
    assert abs(box.width - box.height * shape) <= 0.5 * (1 + shape) or 1 in (box.width, box.height)


@given(st.integers(1, 4000), st.integers(1, 700), st.booleans())
def test_axis_tables_stay_inside_and_sum_to_one(samples: int, outputs: int, half: bool) -> None:
    extent = samples - 0.5 if half else samples
    first, weights = axis_table(samples, extent, outputs)
    assert first.min() >= 0
    assert first.max() + len(weights) <= samples
    np.testing.assert_allclose(weights.sum(axis=0, dtype=np.float64), 1, atol=1e-5)
    assert weights.min() >= 0
