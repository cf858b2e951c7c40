"""The networks that run engines and models, without a GPU, and the choice among them."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from engine_parts import ANCHORS, HERE, KINDS, SIZE, flavour, nano, small_model
from onnx import TensorProto

from tests.fakes.ort_fake import make_onnxruntime
from tests.fakes.tensorrt_cupy import Stream, array
from tiler.engines import store
from tiler.engines.build import ensure_engine
from tiler.engines.registry import ModelSpec
from tiler.engines.shipped import SHIPPED
from tiler.engines.tensorrt import TensorRT, UnusableError
from tiler.errors import InputError, StageError

pytest_plugins = ("fakes.engine_fixtures",)
pytestmark = pytest.mark.usefixtures("engines")


def pictures(count: int, capacity: int = 8, dtype: Any = np.float16) -> tuple[Any, Any]:
    """Images of value i + 1 in picture i, and a head; the memory of both holds `capacity` pictures."""
    values = np.arange(1, count + 1, dtype=dtype).reshape(-1, 1, 1, 1) / 64
    images = array(np.broadcast_to(values, (count, 3, SIZE[1], SIZE[0])).copy(), capacity)
    return images, array(np.zeros((count, ANCHORS, 5), dtype), capacity)


def sums(count: int) -> list[float]:
    """What the fake engine makes of `pictures`."""
    return [(i + 1) / 64 * 3 * SIZE[0] * SIZE[1] for i in range(count)]


def new_stream() -> Stream:
    return Stream(non_blocking=True)


def open_trt(on_gpu: Any, kind: str, model: ModelSpec, stream: Stream, sizes: tuple[int, ...] = (1, 4, 8)) -> Any:
    return on_gpu.tensorrt.TensorRTNetwork(TensorRT(flavour(kind)), model, 8, HERE, stream, sizes)


@pytest.mark.parametrize("kind", KINDS)
def test_a_tensorrt_network_runs_on_the_buffers_that_it_gets(
    install: Callable[..., Any], on_gpu: Any, tmp_path: Path, kind: str
) -> None:
    trt, stream = install(kind), new_stream()
    network = open_trt(on_gpu, kind, small_model(tmp_path / "m.onnx"), stream)
    assert network.name == {"tensorrt": "TensorRT 10.16", "tensorrt11": "TensorRT 11.4"}.get(
        kind, "TensorRT-RTX 1.7"
    ) + " FP16"  # fmt: skip
    assert (network.input_dtype, network.output_dtype, network.output_shape) == (np.float16, np.float16, (ANCHORS, 5))
    images, head = pictures(4)
    trt.calls.runs.clear()
    network.run(images, head, stream)
    np.testing.assert_allclose(head.host[:, 0, 0], sums(4), rtol=1e-3)
    # Once to prepare, once into the graph; after that the graph is launched and TensorRT is not called.
    assert trt.calls.runs == [(4, images.data.ptr, head.data.ptr, captured) for captured in (False, True)]
    waited = stream.synchronized
    for _ in range(3):
        head.host[:] = 0
        network.run(images, head, stream)
        np.testing.assert_allclose(head.host[:, 0, 0], sums(4), rtol=1e-3)
    assert len(trt.calls.runs) == 2
    assert stream.synchronized == waited
    # All contexts work in one piece of scratch memory.
    assert len({context._memory for context in trt.calls.contexts}) == 1
    network.close()
    network.close()
    with pytest.raises(StageError, match="m is closed"):
        network.run(images, head, stream)


def test_each_batch_size_and_buffer_has_its_own_context(
    install: Callable[..., Any], on_gpu: Any, tmp_path: Path
) -> None:
    trt, stream = install("tensorrt"), new_stream()
    network = open_trt(on_gpu, "tensorrt", small_model(tmp_path / "m.onnx"), stream)
    before = len(trt.calls.contexts)
    ring = [pictures(8), pictures(8)]
    for images, head in ring:
        network.prepare(images, head)
    assert len(trt.calls.contexts) - before == 2 * 3
    runs = len(trt.calls.runs)
    for count in (1, 2, 3, 4, 5, 8):
        for images, head in ring:
            head.host[:] = 0
            network.run(images[:count], head[:count], stream)
            np.testing.assert_allclose(head.host[:count, 0, 0], sums(count), rtol=1e-3)
    assert len(trt.calls.runs) == runs  # graphs only
    assert len(trt.calls.contexts) - before == 2 * 3


def test_a_batch_does_not_run_beyond_its_memory(install: Callable[..., Any], on_gpu: Any, tmp_path: Path) -> None:
    trt, stream = install("tensorrt"), new_stream()
    network = open_trt(on_gpu, "tensorrt", small_model(tmp_path / "m.onnx"), stream)
    trt.calls.runs.clear()
    images, head = pictures(3, capacity=3)
    network.run(images, head, stream)
    assert {size for size, *_ in trt.calls.runs} == {3}
    np.testing.assert_allclose(head.host[:, 0, 0], sums(3), rtol=1e-3)


def test_what_cannot_be_captured_is_enqueued(install: Callable[..., Any], on_gpu: Any, tmp_path: Path) -> None:
    trt, stream = install("tensorrt-rtx"), new_stream()
    trt.calls.capturable = False
    network = open_trt(on_gpu, "tensorrt-rtx", small_model(tmp_path / "m.onnx"), stream)
    images, head = pictures(4)
    trt.calls.runs.clear()
    for _ in range(3):
        network.run(images, head, stream)
    assert [capturing for *_, capturing in trt.calls.runs] == [False] * 3

    trt.calls.capturable, stream.fails_to_capture = True, True
    images, head = pictures(4)
    for _ in range(2):
        head.host[:] = 0
        network.run(images, head, stream)
        np.testing.assert_allclose(head.host[:, 0, 0], sums(4), rtol=1e-3)


def test_a_tensorrt_network_can_be_part_of_a_larger_capture(
    install: Callable[..., Any], on_gpu: Any, tmp_path: Path
) -> None:
    install("tensorrt")
    stream = new_stream()
    network = open_trt(on_gpu, "tensorrt", small_model(tmp_path / "m.onnx"), stream)
    prepared, fresh = pictures(4), pictures(4)
    network.prepare(*prepared)
    for images, head in (prepared, fresh):
        head.host[:] = 0
        stream.begin_capture()
        network.run(images, head, stream)
        graph = stream.end_capture()
        assert not head.host.any()
        graph.launch(stream)
        np.testing.assert_allclose(head.host[:, 0, 0], sums(4), rtol=1e-3)


def test_contexts_are_not_made_without_end(
    install: Callable[..., Any], on_gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt, stream = install("tensorrt"), new_stream()
    monkeypatch.setattr(on_gpu.tensorrt, "_MOST_SLOTS", 2)
    network = open_trt(on_gpu, "tensorrt", small_model(tmp_path / "m.onnx"), stream)
    before, kept = len(trt.calls.contexts), []
    for _ in range(5):
        images, head = pictures(4)
        kept.append((images, head))  # or the next ones would get the same memory
        network.run(images, head, stream)
        np.testing.assert_allclose(head.host[:, 0, 0], sums(4), rtol=1e-3)
    assert len(trt.calls.contexts) - before == 2


@pytest.mark.parametrize("kind", ["tensorrt", "onnxruntime"])
def test_a_model_for_single_pictures_runs_them_one_by_one(
    install: Callable[..., Any], on_gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    trt, stream, model = install("tensorrt"), new_stream(), small_model(tmp_path / "m.onnx", batch=1)
    images, head = pictures(3)
    if kind == "tensorrt":
        network = open_trt(on_gpu, "tensorrt", model, stream)
        want = sums(3)
        assert trt.calls.configs[0]._profiles == []
    else:
        monkeypatch.setattr(on_gpu.ort, "ort", make_onnxruntime())
        monkeypatch.setattr(on_gpu.ort, "host_work", lambda graph: None)
        network = on_gpu.ort.OrtCudaNetwork(model, 0, stream, (1, 2))
        want = [1 / 64, 2 / 64, 3 / 64]
    network.prepare(images, head)
    head.host[:] = 0
    network.run(images, head, stream)
    column = head.host[:, 0, 0] if kind == "tensorrt" else head.host[:, -1, -1]
    np.testing.assert_allclose(column, want, rtol=2e-3)


def test_mistakes_with_a_tensorrt_network_are_said(install: Callable[..., Any], on_gpu: Any, tmp_path: Path) -> None:
    trt, stream = install("tensorrt"), new_stream()
    model = small_model(tmp_path / "m.onnx")
    network = open_trt(on_gpu, "tensorrt", model, stream)
    images, head = pictures(4)
    with pytest.raises(ValueError, match="the stream that it was opened with"):
        network.run(images, head, new_stream())
    trt.calls.failure = "run"
    with pytest.raises(StageError, match=r"infer: TensorRT 10\.16 FP16: m does not run: it does not say why"):
        network.run(images, head, stream)
    trt.calls.failure = None
    with pytest.raises(StageError, match="m does not take a batch of 9"):
        network.run(*pictures(9, capacity=9), stream)
    with pytest.raises(UnusableError, match="the engine has the tensors images, out, not those of the model"):
        open_trt(on_gpu, "tensorrt", dataclasses.replace(model, output_name="boxes"), stream)


@pytest.mark.parametrize("most", [8, 16])
def test_an_engine_that_does_not_load_is_built_again_once(
    install: Callable[..., Any], on_gpu: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, most: int
) -> None:
    """Of the run's own batch, or of a larger one."""
    trt, stream, model = install("tensorrt"), new_stream(), small_model(tmp_path / "m.onnx")
    made = ensure_engine(TensorRT("tensorrt"), model, most, HERE)
    store.write_engine(made.path, b"of an old driver", made.described.spec, built_at="", build_s=0, tiler="")
    network = open_trt(on_gpu, "tensorrt", model, stream)
    assert "does not load its engine: the engine plan file is not compatible" in caplog.text
    assert network.output_shape == (ANCHORS, 5)
    trt.calls.failure = "load"
    builds = len(trt.calls.configs)
    with pytest.raises(UnusableError, match="not compatible"):
        open_trt(on_gpu, "tensorrt", model, stream)
    assert len(trt.calls.configs) == builds + 1


# ONNX Runtime networks


@pytest.fixture
def fake_ort(on_gpu: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    fake = make_onnxruntime()
    monkeypatch.setattr(on_gpu.ort, "ort", fake)
    monkeypatch.setattr(on_gpu.ort, "host_work", lambda graph: None)  # it asks the driver
    return fake


def test_onnx_runtime_computes_into_the_buffers_that_it_gets(on_gpu: Any, fake_ort: Any) -> None:
    """The real library on the CPU behind the fake: the shipped model, FP16, against FP32."""
    stream = new_stream()
    network = on_gpu.ort.OrtCudaNetwork(nano(), 0, stream, (1, 3))
    assert network.name == f"ONNX Runtime {'.'.join(ort.__version__.split('.')[:2])} CUDA FP16"
    assert (network.input_dtype, network.output_dtype, network.output_shape) == (np.float16, np.float16, (5040, 5))
    tensor = np.random.default_rng(3).random((3, 3, 384, 640), np.float32)
    reference = ort.InferenceSession(str(SHIPPED / "person-nano.onnx"), providers=["CPUExecutionProvider"])
    (want,) = reference.run(None, {"images": tensor})
    images, head = array(tensor.astype(np.float16)), array(np.zeros((3, 5040, 5), np.float16))
    for count in (3, 1, 2, 3):  # 2 runs as 3
        head.host[:] = 0
        network.run(images[:count], head[:count], stream)
        np.testing.assert_allclose(head.host[:count], want[:count], atol=0.02)
    assert len(fake_ort.calls.sessions) == 2


def test_sessions_and_bindings_are_made_once(on_gpu: Any, fake_ort: Any, tmp_path: Path, caplog: Any) -> None:
    stream = new_stream()
    network = on_gpu.ort.OrtCudaNetwork(small_model(tmp_path / "m.onnx"), 0, stream, (1, 4))
    options = fake_ort.calls.sessions[1]
    assert options["user_compute_stream"] == str(stream.ptr)
    assert options["enable_cuda_graph"] == "0"
    images, head = pictures(8)
    network.prepare(images, head)
    runs, waited = fake_ort.calls.runs, stream.synchronized
    for count in (1, 2, 4, 3):
        head.host[:] = 0
        network.run(images[:count], head[:count], stream)
        np.testing.assert_allclose(head.host[:count, -1, -1], [(i + 1) / 64 for i in range(count)], rtol=2e-3)
    assert (fake_ort.calls.runs, stream.synchronized) == (runs, waited)  # what was captured is launched
    assert caplog.text == ""
    network.run(images[:5], head[:5], stream)
    assert "a batch of 5 was not prepared" in caplog.text
    network.close()
    network.close()
    with pytest.raises(StageError, match="m is closed"):
        network.run(images, head, stream)


def test_a_model_whose_graph_would_read_the_host_is_enqueued(
    on_gpu: Any, fake_ort: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """A graph that repeats a copy from memory which somebody else has got by then would give another answer."""
    stream = new_stream()
    network = on_gpu.ort.OrtCudaNetwork(small_model(tmp_path / "m.onnx"), 0, stream, (1, 4))
    monkeypatch.setattr(on_gpu.ort, "host_work", lambda graph: "a copy between host and device")
    images, head = pictures(4)
    network.prepare(images, head)
    assert caplog.text.count("enqueued kernel by kernel: a copy between host and device") == 1
    for _ in range(2):
        runs = fake_ort.calls.runs
        head.host[:] = 0
        network.run(images, head, stream)
        assert fake_ort.calls.runs == runs + 1
        np.testing.assert_allclose(head.host[:, -1, -1], [(i + 1) / 64 for i in range(4)], rtol=2e-3)


def test_mistakes_with_an_onnx_runtime_network_are_said(on_gpu: Any, fake_ort: Any, tmp_path: Path) -> None:
    stream, model = new_stream(), small_model(tmp_path / "m.onnx")
    network = on_gpu.ort.OrtCudaNetwork(model, 0, stream, (4,))
    images, head = pictures(4)
    with pytest.raises(ValueError, match="the stream that it was opened with"):
        network.run(images, head, new_stream())
    stream.begin_capture()
    with pytest.raises(StageError, match="was not prepared to be captured as a CUDA graph"):
        network.run(images, head, stream)
    stream.end_capture()
    fake_ort.calls.failure = "run"
    with pytest.raises(StageError, match=r"infer: ONNX Runtime .* m: .*CUDNN failure 4"):
        network.run(images, head, stream)
    for failure, message in {
        "run": "it does not run m: .*CUDNN failure 4",
        "open": "it does not open m: CUDA failure 35",
        "start": "its CUDA provider does not start",
    }.items():
        fake_ort.calls.failure = failure
        with pytest.raises(UnusableError, match=message):
            on_gpu.ort.OrtCudaNetwork(model, 0, stream, (4,))


def test_the_onnx_runtime_of_the_cpu_is_told_from_the_other(
    on_gpu: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = small_model(tmp_path / "m.onnx")
    with monkeypatch.context() as patch:
        patch.setattr(on_gpu.ort, "ort", make_onnxruntime(providers=("CPUExecutionProvider",)))
        with pytest.raises(UnusableError, match=r'the one for CPUs .*pip install "onnxruntime-gpu'):
            on_gpu.ort.OrtCudaNetwork(model, 0, new_stream(), (4,))
    fake = make_onnxruntime()
    (tmp_path / "capi").mkdir()
    (tmp_path / "capi" / "libonnxruntime_providers_cuda.so").write_bytes(b"no library")
    fake.__file__ = str(tmp_path / "__init__.py")
    monkeypatch.setattr(on_gpu.ort, "ort", fake)
    with pytest.raises(UnusableError, match=r"its CUDA provider does not load: .*(invalid ELF|file too short)"):
        on_gpu.ort.OrtCudaNetwork(model, 0, new_stream(), (4,))


# The choice


def test_the_first_runtime_that_works_is_taken_and_the_others_are_explained(
    install: Callable[..., Any], on_gpu: Any, fake_ort: Any, tmp_path: Path
) -> None:
    model, stream = small_model(tmp_path / "m.onnx"), new_stream()
    opened = on_gpu.network.open_network
    network, reason = opened(model, 4, 0, stream)
    assert network.name.startswith("ONNX Runtime")
    assert len(fake_ort.calls.sessions) == 3  # for batches of 1, 2 and 4
    assert reason == (
        "TensorRT: not installed (pip install tensorrt-cu13); "
        "TensorRT-RTX: not installed (pip install tensorrt-rtx-cu13)"
    )
    rtx = install("tensorrt-rtx")
    network, reason = opened(model, 4, 0, stream, batch_sizes=(2, 1, 9))
    assert network.name == "TensorRT-RTX 1.7 FP16"
    assert reason == "TensorRT: not installed (pip install tensorrt-cu13)"
    assert {size for size, *_ in rtx.calls.runs} == {1, 2, 4}
    install("tensorrt")
    network, reason = opened(model, 4, 0, stream)
    assert (network.name, reason) == ("TensorRT 10.16 FP16", "first choice")
    network, reason = opened(model, 4, 0, stream, runtimes=("onnxruntime",))
    assert (network.name.split()[0], reason) == ("ONNX", "first choice")


def test_a_model_in_fp32_runs_in_fp16_where_it_can(
    install: Callable[..., Any], on_gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("tensorrt")
    model, stream = small_model(tmp_path / "m.onnx", dtype=TensorProto.FLOAT), new_stream()
    network, reason = on_gpu.network.open_network(model, 4, 0, stream)
    assert (network.name, network.input_dtype, reason) == ("TensorRT 10.16 FP16", np.float16, "first choice")
    store_of = store.engine_folder()
    for file in store_of.glob("*.onnx"):
        file.unlink()
    monkeypatch.setitem(sys.modules, "onnx", None)
    network, reason = on_gpu.network.open_network(model, 4, 0, stream)
    assert (network.name, network.input_dtype, network.output_dtype) == ("TensorRT 10.16 FP32", np.float32, np.float32)
    assert reason.startswith("in FP32: model m: converting it to FP16 needs the package onnx")
    images, head = pictures(4, dtype=np.float32)
    network.run(images, head, stream)
    np.testing.assert_allclose(head.host[:, 0, 0], sums(4))


def test_where_nothing_works_every_refusal_is_named(install: Callable[..., Any], on_gpu: Any, fake_ort: Any) -> None:
    trt, rtx = install("tensorrt"), install("tensorrt-rtx")
    trt.calls.failure, rtx.calls.failure, fake_ort.calls.failure = "build", "load", "start"
    with pytest.raises(InputError) as caught:
        on_gpu.network.open_network(nano(), 4, 0, new_stream())
    text = str(caught.value)
    assert text.startswith("model person-nano-fp16: no runtime runs it on cuda:0: TensorRT: model ")
    assert "cannot build it: no implementation for node Conv_3; TensorRT-RTX: it does not load its engine: " in text
    assert text.endswith("ONNX Runtime CUDA: its CUDA provider does not start; its log (standard error) says why")


def test_prepared_sizes(on_gpu: Any) -> None:
    ladder = on_gpu.network.batch_ladder
    assert [ladder(n) for n in (1, 2, 3, 5)] == [(1,), (1, 2), (1, 2, 3), (1, 2, 3, 4, 5)]
    assert ladder(16) == (1, 2, 3, 4, 6, 8, 12, 16)
    assert ladder(12, between=False) == (1, 2, 4, 8, 12)
    images, head = pictures(3, capacity=6)
    for count, sizes, size in ((3, (1, 4), 4), (3, (1, 8), 3), (3, (1, 3, 4), 3), (3, (1, 2), 3), (2, (6,), 6)):
        assert on_gpu.network.prepared_size(count, sizes, images[:count], head[:count]) == size
    inner = images[1:]  # 5 pictures to the end of the memory
    assert on_gpu.network.prepared_size(2, (6,), inner) == 2
    assert on_gpu.network.prepared_size(2, (5,), inner) == 5
