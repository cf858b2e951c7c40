"""One kernel at a time, for `bench_gpu.py`: inputs, the check against the CPU's twin, and the time of a launch."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cupy
import numpy as np

from tests.gpu import random_picture, to_device
from tiler.compose.cpu import CpuCompositor
from tiler.compose.cuda import RING, CudaCompositor
from tiler.config.models import Config, MosaicConfig, Source
from tiler.crowd import People
from tiler.engines.registry import load_model
from tiler.observe.copies import Copies
from tiler.preprocess.cpu import CpuPreprocessor
from tiler.preprocess.cuda import RING as TENSORS
from tiler.preprocess.cuda import CudaPreprocessor
from tiler.types import State, TileInput, Tracks

WIDTH, HEIGHT = 3840, 2160

Launches = list[Callable[[], object]]


def time_graph_us(launches: Launches, rounds: int = 30, repeats: int = 5) -> float:
    """Median GPU microseconds of one launch."""
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        for launch in launches:
            launch()
        stream.synchronize()
        stream.begin_capture()
        for _ in range(repeats):
            for launch in launches:
                launch()
        graph = stream.end_capture()
        times = []
        for _ in range(rounds):
            start, end = cupy.cuda.Event(), cupy.cuda.Event()
            start.record(stream)
            graph.launch(stream)
            end.record(stream)
            end.synchronize()
            times.append(cupy.cuda.get_elapsed_time(start, end) * 1000 / (repeats * len(launches)))
    return statistics.median(times[3:])


def copy_case(moved: int) -> Launches:
    """Copies that read and write `moved` bytes in all, each from and to other memory."""
    size = moved // 2
    runtime = cupy.cuda.runtime
    pairs = [(cupy.zeros(size, cupy.uint8), cupy.zeros(size, cupy.uint8)) for _ in range(RING)]

    def copy(source: Any, target: Any) -> Callable[[], object]:
        return lambda: runtime.memcpyAsync(
            target.data.ptr, source.data.ptr, size, runtime.memcpyDeviceToDevice, cupy.cuda.get_current_stream().ptr
        )

    return [copy(*pair) for pair in pairs]


def _people(rng: np.random.Generator, count: int) -> tuple[Tracks, np.ndarray]:
    """`count` boxes of the usual size all over a 1080p picture, each with a trail of two seconds."""
    corner = rng.uniform(0, 1, (count, 2)) * (1800, 800)
    size = np.column_stack([rng.uniform(40, 110, count), rng.uniform(110, 280, count)])
    xyxy = np.concatenate([corner, corner + size], 1).astype(np.float32)
    ids = np.arange(1, count + 1, dtype=np.int32)
    rows = [
        np.column_stack([np.full(30, i), x + np.linspace(0, -120, 30), np.full(30, y), np.arange(30) / 15])
        for i, x, y in zip(ids, xyxy[:, 0], xyxy[:, 3], strict=True)
    ]
    history = np.concatenate(rows).astype(np.float32) if rows else np.zeros((0, 4), np.float32)
    return Tracks(0, ids, xyxy, rng.uniform(0.4, 1, count).astype(np.float32), np.zeros(count, np.int32)), history


def compose_case(streams: int, boxes: int) -> tuple[str, Launches, int]:
    rng = np.random.default_rng(streams)
    config = Config(sources=[Source(id=f"s{i}", uri="x") for i in range(streams)],
                    mosaic=MosaicConfig(width=WIDTH, height=HEIGHT))
    compositor = CudaCompositor(config, 0, Copies(), ("person",))
    launches: Launches = []
    for tick in range(RING):
        shown = []
        for _ in range(streams):
            tracks, history = _people(rng, boxes)
            shown.append(TileInput(random_picture(rng, (1920, 1080)), People.of(tracks, history), State.LIVE, 30.0))
        twins = [one._replace(frame=to_device(one.frame)) for one in shown if one.frame is not None]
        mosaic = compositor.compose(tick, twins)
        mosaic.ready.synchronize()
        if tick == 0:
            with CpuCompositor(config, 4, ("person",)) as cpu:
                for host, device in zip(cpu.compose(0, shown).planes, mosaic.planes, strict=True):
                    if not np.array_equal(host, device.get()):
                        raise SystemExit(f"compose of {streams}: the GPU's mosaic is not the CPU's")
        turn = compositor._ring[tick]
        rows = compositor._rows.count
        launches.append(lambda turn=turn, twins=twins: twins and compositor._launch(turn))
    moved = streams * 1920 * 1080 * 3 // 2 + WIDTH * HEIGHT * 3 // 2
    what = f"{boxes} boxes, labels and trails a tile" if boxes else "titles only"
    return f"compose {streams} x 1080p -> 4K, {what} ({rows} primitives)", launches, moved


def preprocess_case(streams: int) -> tuple[str, Launches, int]:
    rng = np.random.default_rng(streams)
    spec, size, stream = load_model("person-nano", Path()).input, (640, 640), cupy.cuda.Stream(non_blocking=True)
    gpu = CudaPreprocessor(size, spec, streams, np.float16, 0, stream, Copies())
    launches: Launches = []
    held = []
    for _ in range(TENSORS):
        frames = [random_picture(rng, (1920, 1080)) for _ in range(streams)]
        held.append([to_device(frame) for frame in frames])
        batch = gpu.prepare(held[-1])
        stream.synchronize()
        if len(held) == 1:
            with CpuPreprocessor(size, spec, streams, 4) as cpu:
                apart = np.abs(cpu.prepare(frames).tensor - batch.tensor.get().astype(np.float32)).max()
                if apart > 1 / 255:
                    raise SystemExit(f"preprocess of {streams}: the GPU's tensor is {apart:.4f} from the CPU's")
        turn = gpu._turn
        launches.append(lambda turn=turn, frames=held[-1]: frames and gpu._launch(turn, len(frames)))
    moved = streams * (1920 * 1080 * 3 // 2 + 3 * size[0] * size[1] * 2)
    return f"preprocess {streams} x 1080p -> {size[0]}x{size[1]} FP16", launches, moved
