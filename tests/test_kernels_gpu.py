"""CUDA kernels against their CPU twins, on fresh random inputs. The twins are held to a float64 reference elsewhere."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.gpu import needs_gpu, random_picture, to_device
from tiler.compose.cpu import CpuCompositor
from tiler.config.models import (
    Config,
    DetectorConfig,
    MosaicConfig,
    OverlayConfig,
    SlotsConfig,
    Source,
    Tile,
    ViewConfig,
)
from tiler.crowd import People
from tiler.engines.registry import InputSpec, ModelSpec, load_model
from tiler.infer.heads import HeadDecoder
from tiler.observe.copies import Copies
from tiler.preprocess.cpu import CpuPreprocessor
from tiler.types import Batch, Frame, Matrix, State, TileInput, Tracks

pytestmark = needs_gpu

SIZES = [(2, 2), (3, 5), (17, 9), (64, 64), (333, 211), (640, 480), (1279, 719), (1280, 720), (1920, 1080), (4097, 33),
         (31, 4097), (2560, 1440)]  # fmt: skip


def random_tracks(rng: np.random.Generator, size: tuple[int, int], count: int) -> Tracks:
    """Boxes in and around the picture, some wholly outside, some huge."""
    width, height = size
    corner = rng.uniform(-0.3, 1.1, (count, 2)) * (width, height)
    extent = rng.uniform(0.01, 0.6, (count, 2)) * (width, height)
    xyxy = np.concatenate([corner, corner + extent], 1).astype(np.float32)
    ids = np.sort(rng.choice(1000, count, replace=False)).astype(np.int32) + 1
    return Tracks(0, ids, xyxy, rng.uniform(0, 1, count).astype(np.float32), np.zeros(count, np.int32))


def random_history(rng: np.random.Generator, tracks: Tracks, points: int) -> np.ndarray:
    rows = []
    for track, box in zip(tracks.track_id, tracks.xyxy, strict=True):
        foot = np.array([(box[0] + box[2]) / 2, box[3]])
        walk = np.cumsum(rng.normal(0, 9, (points, 2)), axis=0) + foot
        age = np.arange(points) / 15
        rows.append(np.column_stack([np.full(points, track), walk, age]))
    return np.concatenate(rows).astype(np.float32) if rows else np.zeros((0, 4), np.float32)


def random_shown(rng: np.random.Generator, stream: int, tracks: int) -> TileInput:
    size = SIZES[rng.integers(len(SIZES))]
    frame = replace(
        random_picture(rng, size, sixteen=bool(rng.integers(2))),
        stream=stream,
        matrix=Matrix(int(rng.integers(3))),
        full_range=bool(rng.integers(2)),
        rotation=int(rng.choice([0, 0, 90, 180, 270])),
        sample_aspect=Fraction(int(rng.integers(1, 4)), int(rng.integers(1, 4))),
        source_size=None if rng.integers(3) else (2 * size[0] + 1, 3 * size[1]),  # else the decoder has scaled it
    )
    seen = random_tracks(rng, frame.picture_size, tracks)
    state = State(int(rng.choice([State.LIVE, State.LIVE, State.LIVE, State.STALE, State.ENDED, State.NO_SIGNAL])))
    return TileInput(frame, People.of(seen, random_history(rng, seen, 20)), state, 29.97)


def device_twin(rng: np.random.Generator, shown: TileInput) -> TileInput:
    assert shown.frame is not None
    pad, offset = int(rng.integers(0, 40)), int(rng.integers(0, 5))
    return shown._replace(frame=to_device(shown.frame, pad, offset))


def compose_both(config: Config, shown: list[TileInput], twins: list[TileInput], ticks: int = 1) -> tuple[Any, Any]:
    """Mosaics (y, u, v) of both compositors after the same ticks."""
    from tiler.compose.cuda import CudaCompositor

    with CpuCompositor(config, 2, ("person",)) as cpu, CudaCompositor(config, 0, Copies(), ("person",)) as gpu:
        for tick in range(ticks):
            host, device = cpu.compose(tick, shown, "12:34:56"), gpu.compose(tick, twins, "12:34:56")
        device.ready.synchronize()
        return [p.copy() for p in host.planes], [p.get() for p in device.planes]


def expect_equal(host: list[np.ndarray], device: list[np.ndarray], within: int = 0) -> None:
    for name, a, b in zip("yuv", host, device, strict=True):
        apart = np.abs(a.astype(int) - b.astype(int))
        wrong = np.argwhere(apart > within)
        assert len(wrong) == 0, f"{name}: {len(wrong)} of {a.size} samples, first {wrong[0]}, most {apart.max()}"


@pytest.mark.parametrize("seed", range(24))
def test_mosaics_equal_those_of_the_cpu(seed: int) -> None:
    rng = np.random.default_rng(np.random.SeedSequence().entropy if seed >= 12 else seed)
    count = int(rng.choice([1, 2, 3, 4, 5, 9, 16, 32]))
    width, height = ((3840, 2160), (1920, 1080), (642, 366), (1002, 64))[seed % 4]
    sources = [Source(id=f"s{i}", uri="x") for i in range(count)]
    overlay = OverlayConfig(clock=bool(rng.integers(2)))
    mosaic = MosaicConfig(
        width=width, height=height, fit=str(rng.choice(["contain", "cover", "stretch"])),  # type: ignore[arg-type]
        layout=str(rng.choice(["grid", "spotlight", "pip"])), gap_px=int(rng.integers(0, 5)),  # type: ignore[arg-type]
    )  # fmt: skip
    config = Config(sources=sources, mosaic=mosaic, overlay=overlay)
    shown = [random_shown(rng, i, int(rng.integers(0, 30))) for i in range(count)]
    twins = [device_twin(rng, one) for one in shown]
    expect_equal(*compose_both(config, shown, twins, ticks=1 + seed % 3))


def test_tiles_that_overlap_hang_over_the_edge_and_let_through() -> None:
    rng = np.random.default_rng(3)
    tiles = [
        Tile(source="a", rect=[-100, -60, 900, 500], opacity=0.6),
        Tile(source="b", rect=[300, 200, 700, 500], opacity=0.35, z=2, crop=[0.1, 0.2, 0.5, 0.6]),
        Tile(source="a", rect=[700, 10, 322, 102], fit="cover"),
        Tile(source="b", rect=[900, 500, 600, 400], fit="stretch", z=-1),
    ]
    config = Config(
        sources=[Source(id="a", uri="x"), Source(id="b", uri="x")], tiles=tiles,
        mosaic=MosaicConfig(width=1280, height=720),
    )  # fmt: skip
    shown = [random_shown(rng, 0, 12), random_shown(rng, 1, 12)]
    expect_equal(*compose_both(config, shown, [device_twin(rng, one) for one in shown], ticks=2))


def test_views_that_move_and_rest_equal_those_of_the_cpu() -> None:
    from tiler.compose.cuda import CudaCompositor

    rng = np.random.default_rng(11)
    config = Config(
        sources=[Source(id="a", uri="x", slots=SlotsConfig(names=["left", "right"]))],
        tiles=[
            Tile(source="a", view=ViewConfig(follow="right", zoom=2.3)),
            Tile(source="a", view=ViewConfig(follow="left", zoom=6), fit="cover"),
            Tile(source="a"),
        ],
        mosaic=MosaicConfig(width=1280, height=720),
    )
    one = random_shown(rng, 0, 9)._replace(state=State.LIVE)
    one.people.tracks.slot[:2] = 0, 1
    twin = device_twin(rng, one)
    with CpuCompositor(config, 2, ("person",)) as cpu, CudaCompositor(config, 0, Copies(), ("person",)) as gpu:
        for tick in range(8):
            at = min(tick, 5) / 5   # two ticks at rest
            crops = {
                (1, 2.3): (at * (1 - 1 / 2.3), 0.1, 1 / 2.3, 1 / 2.3),
                (0, 6.0): (max(0.0, 0.8 - at), 0.5, 1 / 6, 1 / 6),
            }
            host = cpu.compose(tick, [one._replace(crops=crops)])
            device = gpu.compose(tick, [twin._replace(crops=crops)])
            device.ready.synchronize()
            expect_equal(list(host.planes), [plane.get() for plane in device.planes])


def test_a_tile_that_loses_its_picture_equals_that_of_the_cpu() -> None:
    """Pictures that are copied as they are, and halved; and again when they are back."""
    from tiler.compose.cuda import CudaCompositor

    rng = np.random.default_rng(12)
    config = Config(
        sources=[Source(id="a", uri="x"), Source(id="b", uri="x")], mosaic=MosaicConfig(width=1280, height=360)
    )
    shown = []
    for size in ((640, 360), (1280, 720)):
        tracks = random_tracks(rng, size, 5)
        people = People.of(tracks, random_history(rng, tracks, 30))
        shown.append(TileInput(random_picture(rng, size), people, State.LIVE, 30.0))
    twins = [one._replace(frame=to_device(one.frame)) for one in shown if one.frame is not None]
    with CpuCompositor(config, 2, ("person",)) as cpu, CudaCompositor(config, 0, Copies(), ("person",)) as gpu:
        for tick, state in enumerate((State.LIVE, State.NO_SIGNAL, State.LIVE)):
            host = cpu.compose(tick, [one._replace(state=state) for one in shown])
            device = gpu.compose(tick, [one._replace(state=state) for one in twins])
            device.ready.synchronize()
            expect_equal(list(host.planes), [plane.get() for plane in device.planes])


def test_more_primitives_than_a_block_lists_at_once() -> None:
    rng = np.random.default_rng(8)
    config = Config(sources=[Source(id="a", uri="x")], mosaic=MosaicConfig(width=640, height=360))
    frame = random_picture(rng, (640, 360))
    tracks = random_tracks(rng, (640, 360), 600)
    shown = TileInput(frame, People.of(tracks, random_history(rng, tracks, 30)), State.LIVE, 30.0)
    expect_equal(*compose_both(config, [shown], [device_twin(rng, shown)]))


def test_a_rearranged_mosaic_is_that_of_a_new_compositor() -> None:
    """More tiles than before too, which the ring's tables have no room for, and fewer, of fewer sources."""
    from tiler.compose.cuda import RING, CudaCompositor

    rng = np.random.default_rng(4)
    sources = [Source(id=f"s{i}", uri="x") for i in range(4)]
    first = Config(sources=sources, tiles=[Tile(source="s0")], mosaic=MosaicConfig(width=1280, height=720))
    shown = [random_shown(rng, i, 8) for i in range(4)]
    twins = [device_twin(rng, one) for one in shown]
    with CudaCompositor(first, 0, Copies(), ("person",)) as compositor:
        compositor.compose(0, twins).ready.synchronize()
        for layout, count in (("grid", 4), ("spotlight", 3), ("pip", 4)):
            mosaic = MosaicConfig(width=1280, height=720, layout=layout, gap_px=3)  # type: ignore[arg-type]
            config = Config(sources=sources[:count], mosaic=mosaic, overlay=OverlayConfig(clock=layout == "pip"))
            compositor.arrange(config)
            for tick in range(1, RING + 2):
                made = compositor.compose(tick, twins[:count], "12:34:56")
                made.ready.synchronize()
                with CpuCompositor(config, 2, ("person",)) as fresh:
                    expected = [plane.copy() for plane in fresh.compose(tick, shown[:count], "12:34:56").planes]
                expect_equal(expected, [plane.get() for plane in made.planes])


def test_a_mosaic_keeps_its_memory_when_ticks_are_left_out() -> None:
    from tiler.compose.cuda import RING, CudaCompositor

    rng = np.random.default_rng(2)
    config = Config(sources=[Source(id="a", uri="x")], mosaic=MosaicConfig(width=640, height=360))
    shown = [[device_twin(rng, random_shown(rng, 0, 3))] for _ in range(RING)]
    with CudaCompositor(config, 0, Copies(), ("person",)) as compositor:
        first = compositor.compose(0, shown[0])
        first.ready.synchronize()
        before = first.nv12.get()
        for turn in range(1, RING):
            compositor.compose(turn * RING, shown[turn]).ready.synchronize()
    assert np.array_equal(first.nv12.get(), before)


SPEC = InputSpec(channels="bgr", scale=1 / 58, mean=(0.4, 0.5, 0.1), std=(1.0, 0.9, 0.8), pad=114.0, align="center")


@pytest.mark.parametrize("seed", range(12))
def test_tensors_equal_those_of_the_cpu(seed: int) -> None:
    import cupy

    from tiler.preprocess.cuda import CudaPreprocessor

    rng = np.random.default_rng(np.random.SeedSequence().entropy if seed >= 6 else seed)
    count = int(rng.integers(1, 33))
    dtype = np.float32 if seed % 2 else np.float16
    size = ((640, 384), (416, 416), (64, 96))[seed % 3]
    frames: list[Frame] = []
    for _ in range(count):
        frame = random_shown(rng, 0, 0).frame
        assert frame is not None
        frames.append(frame)
    stream = cupy.cuda.Stream(non_blocking=True)
    with CpuPreprocessor(size, SPEC, count, 2) as cpu:
        host = cpu.prepare(frames)
        with CudaPreprocessor(size, SPEC, count, dtype, 0, stream, Copies()) as gpu:
            device = gpu.prepare([to_device(f, int(rng.integers(0, 9)), int(rng.integers(0, 3))) for f in frames])
            stream.synchronize()
            got = device.tensor.get().astype(np.float32)
    np.testing.assert_array_equal(host.letterbox, device.letterbox)
    np.testing.assert_array_equal(host.sizes, device.sizes)
    code_value = 1 / 58 / 0.8
    assert np.abs(got - host.tensor).max() < code_value * (0.02 if dtype == np.float32 else 0.5)


def test_the_samples_of_a_scaled_picture_are_counted_not_its_sources() -> None:
    """The source is twice the tensor, which 2:1 has a way of its own for; the planes are as large as the tensor."""
    import cupy

    from tiler.preprocess.cuda import CudaPreprocessor

    picture = random_picture(np.random.default_rng(2), (640, 360))
    frame = replace(picture, source_size=(1280, 720))
    stream = cupy.cuda.Stream(non_blocking=True)
    with CpuPreprocessor((640, 384), SPEC, 1, 1) as cpu:
        expected = cpu.prepare([picture]).tensor
        with CudaPreprocessor((640, 384), SPEC, 1, np.float32, 0, stream, Copies()) as gpu:
            batch = gpu.prepare([to_device(frame)])
            stream.synchronize()
            assert np.abs(batch.tensor.get() - expected).max() < 0.02 / 58 / 0.8
            assert batch.sizes.tolist() == [[1280, 720]]


def test_a_source_of_another_shape_in_the_same_surfaces_gets_its_own_place() -> None:
    """What is remembered of a surface is not the next source's that is scaled into it."""
    import cupy

    from tiler.preprocess.cuda import CudaPreprocessor

    picture = random_picture(np.random.default_rng(3), (320, 240))
    stream, there = cupy.cuda.Stream(non_blocking=True), to_device(picture)
    with CudaPreprocessor((640, 384), SPEC, 1, np.float32, 0, stream, Copies()) as gpu:
        for source_size in ((640, 480), (1280, 480), (640, 480)):
            batch = gpu.prepare([replace(there, source_size=source_size)])
            with CpuPreprocessor((640, 384), SPEC, 1, 1) as cpu:
                expected = cpu.prepare([replace(picture, source_size=source_size)])
            stream.synchronize()
            assert np.array_equal(batch.letterbox, expected.letterbox)
            assert np.abs(batch.tensor.get() - expected.tensor).max() < 0.02 / 58 / 0.8


class GivenHeads:
    """A network that always answers the same."""

    def __init__(self, heads: np.ndarray) -> None:
        self.name, self._heads = "given", heads
        self.input_dtype = self.output_dtype = heads.dtype
        self.output_shape = heads.shape[1:]

    def run(self, images: Any, head: Any, stream: Any) -> None:
        head.set(self._heads[: len(images)], stream=stream)

    def close(self) -> None: ...


def random_heads(rng: np.random.Generator, kind: str, count: int, classes: int, size: tuple[int, int]) -> np.ndarray:
    anchors = size[0] * size[1] * 21 // 1024
    score = rng.uniform(0, 1, (count, anchors, 1)) ** 12
    sure = rng.uniform(0, 1, (count, anchors, classes))
    if kind == "yolox":
        place = np.concatenate([rng.normal(0.5, 1, (count, anchors, 2)), rng.normal(1, 0.8, (count, anchors, 2))], 2)
        return np.concatenate([place, score, sure], 2)
    centre = rng.uniform(-20, max(size) + 20, (count, anchors, 2))
    place = np.concatenate([centre, rng.uniform(2, 200, (count, anchors, 2))], 2)
    return np.concatenate([place, score * sure], 2).transpose(0, 2, 1)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize(("kind", "classes"), [("yolox", 1), ("yolox", 7), ("yolov8", 5)])
def test_boxes_equal_those_of_the_cpu(kind: str, classes: int, dtype: Any) -> None:
    import cupy

    from tiler.infer.cuda import CudaDetector

    rng = np.random.default_rng()
    size, count = (640, 384), 6
    model: ModelSpec = replace(
        load_model("person-nano", Path()), head=kind, class_names=tuple(f"c{i}" for i in range(classes))  # type: ignore[arg-type]
    )
    config = DetectorConfig(classes=[f"c{i}" for i in range(0, classes, 2)], max_detections=60)
    heads = np.ascontiguousarray(random_heads(rng, kind, count, classes, size).astype(dtype))
    heads[0, :, :] = 0  # nobody
    letterbox = np.tile(np.array([1 / 3, 1 / 3, 0, 12], np.float32), (count, 1))
    sizes = np.tile(np.array([1920, 1080], np.int32), (count, 1))
    batch = Batch(None, letterbox, sizes, tuple(range(count)))
    expected = HeadDecoder(model, config, 0.1).decode(heads.astype(np.float32), batch)
    stream = cupy.cuda.Stream(non_blocking=True)
    network = GivenHeads(heads)
    with CudaDetector(model, network, config, 0.1, count, 0, stream, Copies()) as detector:
        for _ in range(2):
            got = detector.infer(replace(batch, tensor=cupy.zeros((count, 3, size[1], size[0]), dtype)))
    assert [len(one) for one in got] == [len(one) for one in expected]
    for one, wanted in zip(got, expected, strict=True):
        np.testing.assert_array_equal(one.score, wanted.score)
        np.testing.assert_array_equal(one.class_id, wanted.class_id)
        np.testing.assert_allclose(one.xyxy, wanted.xyxy, rtol=1e-5, atol=2e-3)
