"""Networks on a real GPU against ONNX Runtime on the CPU in FP32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from tests.gpu import needs_gpu
from tiler.engines.convert import half_model
from tiler.engines.registry import ModelSpec, load_model
from tiler.engines.shipped import SHIPPED

pytestmark = needs_gpu

BATCHES = (1, 2, 3, 4, 5)
RUNTIMES = ("tensorrt", "tensorrt-rtx", "onnxruntime")


@pytest.fixture(scope="module")
def model() -> ModelSpec:
    return half_model(load_model("person-nano", Path.cwd()))[0]


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    """(5, 3, 384, 640) float32 in 0..1: soft blobs, no two pictures alike."""
    rng = np.random.default_rng(11)
    y, x = np.mgrid[0:384, 0:640].astype(np.float32)
    found = np.empty((5, 3, 384, 640), np.float32)
    for plane in found.reshape(-1, 384, 640):
        plane[:] = rng.uniform(0.2, 0.8)
        for _ in range(12):
            cx, cy, rx, ry = rng.uniform(0, 640), rng.uniform(0, 384), rng.uniform(8, 60), rng.uniform(20, 120)
            plane += rng.uniform(-0.4, 0.4) * np.exp(-(((x - cx) / rx) ** 2) - ((y - cy) / ry) ** 2)
    return np.clip(found, 0, 1)


@pytest.fixture(scope="module")
def expected(pictures: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(str(SHIPPED / "person-nano.onnx"), providers=["CPUExecutionProvider"])
    head: np.ndarray = session.run(None, {"images": pictures})[0]
    return head


@pytest.fixture(scope="module", params=RUNTIMES)
def opened(request: pytest.FixtureRequest, model: ModelSpec) -> Any:
    """A network of one runtime, and its stream. Where a runtime is not installed its tests are skipped."""
    import cupy

    from tiler.errors import InputError
    from tiler.infer.network_cuda import open_network

    stream = cupy.cuda.Stream(non_blocking=True)
    try:
        network, _ = open_network(model, 5, 0, stream, batch_sizes=(1, 3, 5), runtimes=(request.param,))
    except InputError as error:
        if "not installed" not in str(error) and "compute capability" not in str(error):
            raise  # it is here, and does not work
        pytest.skip(str(error))
    yield network, stream
    network.close()


def close_enough(found: np.ndarray, expected: np.ndarray) -> None:
    """Scores within 0.02; boxes within 0.05 strides (their logarithms within 0.05)."""
    found = found.astype(np.float32)
    np.testing.assert_allclose(found[..., 4:], expected[..., 4:], atol=0.02)
    np.testing.assert_allclose(found[..., :4], expected[..., :4], atol=0.05)


def test_one_runtime_at_least_is_there(model: ModelSpec) -> None:
    import cupy

    from tiler.infer.network_cuda import open_network

    network, reason = open_network(model, 2, 0, cupy.cuda.Stream(non_blocking=True))
    assert network.name.endswith("FP16"), reason
    network.close()


def test_the_head_is_that_of_the_cpu(opened: Any, pictures: np.ndarray, expected: np.ndarray) -> None:
    """Batches of 1..5 in turn, twice, so that what is kept per size and buffer is used again."""
    import cupy

    network, stream = opened
    with stream:
        images = cupy.asarray(pictures.astype(network.input_dtype))
        head = cupy.empty((5, *network.output_shape), network.output_dtype)
    network.prepare(images, head)
    for count in (*BATCHES, *reversed(BATCHES)):
        with stream:
            head.fill(np.nan)
            network.run(images[:count], head[:count], stream)
            found = cupy.asnumpy(head[:count])
        close_enough(found, expected[:count])


def test_buffers_of_a_ring_do_not_mix(opened: Any, pictures: np.ndarray, expected: np.ndarray) -> None:
    """Enqueued one after the other with nothing waited for, each ring slot has its own pictures' head."""
    import cupy

    network, stream = opened
    slots = []
    with stream:
        for first in range(3):
            images = cupy.asarray(pictures[first : first + 3].astype(network.input_dtype))
            slots.append((first, images, cupy.empty((3, *network.output_shape), network.output_dtype)))
    for _ in range(2):  # the first round prepares, the second runs what was prepared
        for _, images, head in slots:
            network.run(images, head, stream)
        for _, images, head in reversed(slots):
            network.run(images[:1], head[:1], stream)
        stream.synchronize()
    for first, _, head in slots:
        close_enough(cupy.asnumpy(head), expected[first : first + 3])


def test_pictures_that_change_in_place_give_another_head(
    opened: Any, pictures: np.ndarray, expected: np.ndarray
) -> None:
    """A graph replays the work, not the answer."""
    import cupy

    network, stream = opened
    with stream:
        every = cupy.asarray(pictures.astype(network.input_dtype))
        images, head = cupy.empty_like(every[:1]), cupy.empty((1, *network.output_shape), network.output_dtype)
        for i in (0, 1, 2, 3, 4, 0):
            images[...] = every[i : i + 1]
            network.run(images, head, stream)
            close_enough(cupy.asnumpy(head), expected[i : i + 1])


def test_nothing_is_allocated_once_prepared(opened: Any, pictures: np.ndarray) -> None:
    import cupy

    network, stream = opened
    with stream:
        images = cupy.asarray(pictures.astype(network.input_dtype))
        head = cupy.empty((5, *network.output_shape), network.output_dtype)
    network.prepare(images, head)
    stream.synchronize()
    pool = cupy.get_default_memory_pool()
    before = pool.used_bytes(), pool.total_bytes(), cupy.cuda.runtime.memGetInfo()[0]
    for _ in range(20):
        for count in BATCHES:
            network.run(images[:count], head[:count], stream)
    stream.synchronize()
    assert (pool.used_bytes(), pool.total_bytes()) == before[:2]
    assert before[2] - cupy.cuda.runtime.memGetInfo()[0] < 8 << 20  # others may use the device too


def test_a_graph_tells_what_of_it_touches_the_host() -> None:
    import cupy

    from tiler.infer.graph_cuda import capture, host_work

    stream, size = cupy.cuda.Stream(non_blocking=True), 1 << 16
    runtime = cupy.cuda.runtime
    pinned = cupy.cuda.alloc_pinned_memory(size)
    with stream:
        here, there = cupy.zeros(size, cupy.uint8), cupy.zeros(size, cupy.uint8)
        stream.synchronize()

        def copied(to: int, of: int, kind: int) -> Any:
            return capture(stream, lambda: runtime.memcpyAsync(to, of, size, kind, stream.ptr), "a copy")

        device = copied(here.data.ptr, there.data.ptr, runtime.memcpyDeviceToDevice)
        up = copied(here.data.ptr, pinned.ptr, runtime.memcpyHostToDevice)
        down = copied(pinned.ptr, here.data.ptr, runtime.memcpyDeviceToHost)
        kernel = capture(stream, lambda: cupy.add(here, there, out=here), "a kernel")
        fill = capture(stream, lambda: runtime.memsetAsync(here.data.ptr, 0, size, stream.ptr), "a fill")
    assert [host_work(graph) for graph in (device, kernel, fill)] == [None] * 3
    assert {host_work(graph) for graph in (up, down)} == {"a copy between host and device"}
