"""Engines: conversion, building, the files of the cache, and the networks that run them, without a GPU."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from tests.fakes.ort_fake import make_onnxruntime
from tests.fakes.tensorrt_cupy import DEVICE_NAME, Stream, array, make_cupy
from tests.fakes.tensorrt_fake import make_tensorrt
from tiler.cli import main
from tiler.engines import build, store
from tiler.engines import tensorrt as adapter
from tiler.engines.build import Target, choose_tensorrt, ensure_engine
from tiler.engines.convert import convert, half_model
from tiler.engines.registry import ModelSpec, load_model
from tiler.engines.shipped import SHIPPED
from tiler.engines.store import EngineSpec, StaleEngine, read_engine, write_atomically, write_engine
from tiler.engines.tensorrt import TensorRT, UnusableError
from tiler.errors import InputError, StageError

KINDS = ("tensorrt", "tensorrt11", "tensorrt-rtx")
HERE = Target(89, DEVICE_NAME)
SIZE = (64, 32)
ANCHORS = 42


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test has its own engines."""
    monkeypatch.setenv("TILER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "engines"


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Put a fake TensorRT where `import` finds it; the real ones are hidden."""
    for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)

    def put(kind: str, version: str | None = None) -> Any:
        module = make_tensorrt(kind, version)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        return module

    return put


@pytest.fixture
def on_gpu() -> Iterator[SimpleNamespace]:
    """The CUDA modules of tiler, imported over a CuPy that computes on the host."""
    ours = ("tiler.engines.device_cuda", *(f"tiler.infer.{n}_cuda" for n in ("graph", "network", "tensorrt", "ort")))
    before = {name: sys.modules.pop(name, None) for name in ("cupy", *ours)}
    sys.modules["cupy"] = make_cupy()
    try:
        names = ("graph", "network", "ort", "tensorrt")
        yield SimpleNamespace(**{name: importlib.import_module(f"tiler.infer.{name}_cuda") for name in names})
    finally:
        for name, module in before.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module


def small_model(
    path: Path,
    *,
    batch: int | str = "N",
    dtype: int = TensorProto.FLOAT16,
    nodes: list[Any] | None = None,
    constants: list[Any] | None = None,
) -> ModelSpec:
    """A yolox model of 64 x 32: the head is the mean of the picture unless `nodes` says otherwise."""
    if nodes is None:
        nodes = [
            helper.make_node("ReduceMean", ["images"], ["mean"], axes=[1, 2, 3], keepdims=1),
            helper.make_node("Reshape", ["mean", "flat"], ["one"]),
            helper.make_node("Mul", ["one", "head"], ["out"]),
        ]
    kind = helper.tensor_dtype_to_np_dtype(dtype)
    constants = constants or []
    constants += [
        numpy_helper.from_array(np.array([-1, 1, 1]), "flat"),
        numpy_helper.from_array(np.linspace(0, 1, ANCHORS * 5).reshape(1, ANCHORS, 5).astype(kind), "head"),
    ]
    image = helper.make_tensor_value_info("images", dtype, [batch, 3, SIZE[1], SIZE[0]])
    output = helper.make_tensor_value_info("out", dtype, [batch, ANCHORS, 5])
    graph = helper.make_graph(nodes, "small", [image], [output], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return load_model(path.name, path.parent)


def nano(half: bool = True) -> ModelSpec:
    return load_model("person-nano", Path.cwd(), half=half)


# --- FP32 -> FP16 --------------------------------------------------------------------------------


def test_a_converted_model_gives_what_the_full_one_gives() -> None:
    full = nano(half=False)
    half, note = half_model(full)
    assert note == "converted from FP32"
    assert (half.precision, half.head, half.input) == ("fp16", full.head, full.input)
    again = load_model(str(half.path), Path.cwd())  # what the file says of itself came along
    assert (again.precision, again.class_names, again.input) == ("fp16", full.class_names, full.input)
    pictures = np.random.default_rng(5).random((2, 3, 384, 640), np.float32)
    outputs = [
        ort.InferenceSession(str(model.path), providers=["CPUExecutionProvider"]).run(
            None, {"images": pictures.astype(np.float16 if model.precision == "fp16" else np.float32)}
        )[0]
        for model in (full, half, nano())
    ]
    assert outputs[1].dtype == np.float16
    np.testing.assert_allclose(outputs[1], outputs[0], atol=0.02)
    # No worse than the FP16 file that comes with tiler, which the exporter wrote.
    errors = [np.abs(output.astype(np.float32) - outputs[0]).max() for output in outputs[1:]]
    assert errors[0] <= 2 * errors[1] + 1e-3


def test_what_is_half_already_is_taken_as_it_is() -> None:
    model = nano()
    assert half_model(model) == (model, "the model is in FP16")


def test_a_model_is_converted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = half_model(nano(half=False))
    monkeypatch.setattr("tiler.engines.convert.convert", None)
    assert half_model(nano(half=False))[0] == first


def test_operators_that_have_no_half_keep_their_types(tmp_path: Path) -> None:
    """Range has no half; the scales of Resize are FP32 by definition, the roi need not be."""
    constants = [
        numpy_helper.from_array(np.array(value, np.float32), name)
        for name, value in (("start", 0.0), ("step", 1.0), ("scales", [1, 1, 1, 1]))
    ]
    nodes = [
        helper.make_node("Resize", ["images", "", "scales"], ["same"], mode="nearest"),
        helper.make_node("ReduceMean", ["same"], ["mean"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("ReduceMax", ["images"], ["most"], keepdims=0),
        helper.make_node("Constant", [], ["small"], value_float=1 / 64),
        helper.make_node("Mul", ["most", "small"], ["limit"]),
        helper.make_node("Range", ["start", "limit", "step"], ["ramp"]),
        helper.make_node("ReduceSum", ["ramp"], ["total"], keepdims=0),
        helper.make_node("Reshape", ["mean", "flat"], ["one"]),
        helper.make_node("Add", ["one", "total"], ["more"]),
        helper.make_node("Mul", ["more", "head"], ["out"]),
    ]
    full = small_model(tmp_path / "m.onnx", dtype=TensorProto.FLOAT, nodes=nodes, constants=constants)
    half, _ = half_model(full)
    picture = np.full((1, 3, SIZE[1], SIZE[0]), 240, np.float32)
    want, got = (
        ort.InferenceSession(str(m.path), providers=["CPUExecutionProvider"]).run(None, {"images": tensor})[0]
        for m, tensor in ((full, picture), (half, picture.astype(np.float16)))
    )
    assert want.max() == pytest.approx(246)  # the mean, and 0 + 1 + 2 + 3
    np.testing.assert_allclose(got, want, rtol=2e-3)


def test_weights_beyond_half_precision_are_refused(tmp_path: Path) -> None:
    big = numpy_helper.from_array(np.array([1e6], np.float32), "big")
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Mul", ["mean", "big"], ["large"]),
        helper.make_node("Reshape", ["large", "flat"], ["one"]),
        helper.make_node("Mul", ["one", "head"], ["out"]),
    ]
    model = small_model(tmp_path / "m.onnx", dtype=TensorProto.FLOAT, nodes=nodes, constants=[big])
    with pytest.raises(InputError, match=r"model m: cannot be converted to FP16: big has the value 1e\+06"):
        half_model(model)


def test_activations_beyond_half_precision_are_found(tmp_path: Path, cache: Path) -> None:
    nodes = [
        helper.make_node("ReduceSum", ["images"], ["sum"], keepdims=1),
        helper.make_node("Mul", ["sum", "sum"], ["square"]),
        helper.make_node("Reshape", ["square", "flat"], ["one"]),
        helper.make_node("Mul", ["one", "head"], ["out"]),
    ]
    model = small_model(tmp_path / "m.onnx", dtype=TensorProto.FLOAT, nodes=nodes)
    for _ in range(2):  # the file that was refused does not stay, to be taken the next time
        with pytest.raises(InputError, match="in FP16 its activations overflow"):
            half_model(model)
    assert list(cache.iterdir()) == []


def test_without_onnx_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(InputError, match="needs the package onnx: pip install onnx"):
        half_model(nano(half=False))


@pytest.mark.parametrize("op", ["Mystery", "If"])
def test_operators_that_cannot_be_converted_are_named(op: str) -> None:
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 32, 32])
    if op == "If":
        inner = helper.make_graph([helper.make_node("Constant", [], ["x"], value_float=1.0)], "inner", [], [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [])])  # fmt: skip
        yes = numpy_helper.from_array(np.array(True), "yes")
        node = helper.make_node("If", ["yes"], ["out"], then_branch=inner, else_branch=inner)
        graph = helper.make_graph([node], "g", [image], [helper.make_tensor_value_info("out", 1, [])], [yes])
    else:
        node = helper.make_node(op, ["images"], ["out"])
        graph = helper.make_graph([node], "g", [image], [helper.make_tensor_value_info("out", 1, None)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    with pytest.raises(InputError, match=rf"model odd: cannot be converted to FP16: .*{op}"):
        convert(model.SerializeToString(), "odd")


# --- files ---------------------------------------------------------------------------------------

SPEC = EngineSpec("person-nano-fp16", "ab" * 32, "fp16", (640, 384), 16, 1 << 30, 89, "tensorrt", "10.16.1.11", "GPU")
OTHERS = {
    "model": "person-small", "onnx_sha256": "cd" * 32, "precision": "fp32", "input_size": (640, 640), "max_batch": 8,
    "workspace_bytes": 1 << 20, "capability": 90, "flavour": "tensorrt-rtx", "version": "11.4.0.106", "device": "Other",
}  # fmt: skip


def keep(path: Path, plan: bytes = b"plan") -> None:
    write_engine(path, plan, SPEC, built_at="2026-11-25T00:00:00+00:00", build_s=1.25, tiler="0.1.0")


def test_an_engine_is_named_by_what_it_is() -> None:
    assert SPEC.file_name() == "person-nano-fp16-b16-fp16-sm89-tensorrt-10.16.1.11-abababab.engine"
    names = {dataclasses.replace(SPEC, **{key: value}).file_name() for key, value in OTHERS.items()}
    assert len(names - {SPEC.file_name()}) == len(OTHERS) - 3  # size, workspace, device: see the description
    odd = dataclasses.replace(SPEC, model="a b/../[1]*" + "x" * 300).file_name()
    assert odd.startswith("a_b_.._1_xxx")
    assert len(odd) < 200


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a" / SPEC.file_name()
    keep(path)
    plan, described = read_engine(path, SPEC)
    assert plan == b"plan"
    assert (described.spec, described.engine_bytes, described.build_s) == (SPEC, 4, 1.25)
    assert sorted(p.name for p in path.parent.iterdir()) == [path.name, path.with_suffix(".json").name]


@pytest.mark.parametrize("field", OTHERS)
def test_an_engine_for_something_else_is_stale(tmp_path: Path, field: str) -> None:
    keep(tmp_path / "e.engine")
    with pytest.raises(StaleEngine, match=f"it was built for {field} "):
        read_engine(tmp_path / "e.engine", dataclasses.replace(SPEC, **{field: OTHERS[field]}))


def _edit(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        content = json.loads(path.with_suffix(".json").read_text())
        change(content)
        path.with_suffix(".json").write_text(json.dumps(content))

    return damage


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no engine": (lambda p: p.unlink(), "not built yet"),
    "cut short": (lambda p: p.write_bytes(b"pla"), "damaged, or half written"),
    "a flipped bit": (lambda p: p.write_bytes(b"plao"), "damaged, or half written"),
    "no description": (lambda p: p.with_suffix(".json").unlink(), "it has no description"),
    "not JSON": (lambda p: p.with_suffix(".json").write_bytes(b"{\xff"), "cannot be read"),
    "not an object": (lambda p: p.with_suffix(".json").write_text("[1]"), "another version of tiler"),
    "other format": (_edit(lambda c: c.update(format=0)), "another version of tiler"),
    "a field less": (_edit(lambda c: c["spec"].pop("version")), "is incomplete"),
    "a field more": (_edit(lambda c: c.update(more=1)), "is incomplete"),
    "another type": (_edit(lambda c: c["spec"].update(max_batch="16")), "is incomplete"),
    "another hash": (_edit(lambda c: c.update(engine_sha256="00" * 32)), "damaged, or half written"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_engine_is_stale(tmp_path: Path, name: str) -> None:
    path = tmp_path / "e.engine"
    keep(path)
    damage, reason = DAMAGE[name]
    damage(path)
    with pytest.raises(StaleEngine, match=reason):
        read_engine(path, SPEC)


def test_a_file_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    write_atomically(path, b"old")

    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fails)
        with pytest.raises(InputError, match=r"cannot write .*f: No space left on device; set TILER_CACHE"):
            write_atomically(path, b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
    assert path.read_bytes() == b"old"
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="set TILER_CACHE"):
        write_atomically(tmp_path / "file" / "inside", b"new")


def test_a_process_that_dies_between_the_files_leaves_a_stale_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "e.engine"
    keep(path)
    real, calls = os.replace, []

    def dies_second(source: str, target: Path) -> None:
        calls.append(target)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, "replace", dies_second)
    with pytest.raises(KeyboardInterrupt):
        keep(path, b"other")
    with pytest.raises(StaleEngine, match="half written"):
        read_engine(path, SPEC)


# --- building ------------------------------------------------------------------------------------


def flavour(kind: str) -> Any:
    return "tensorrt-rtx" if kind == "tensorrt-rtx" else "tensorrt"


@pytest.mark.parametrize("kind", KINDS)
def test_one_path_builds_on_every_flavour(install: Callable[..., Any], cache: Path, kind: str) -> None:
    trt = install(kind)
    tensorrt = TensorRT(flavour(kind))
    told: list[str] = []
    made = ensure_engine(tensorrt, nano(), 12, HERE, told.append)
    assert made.reason == "built now: it is not built yet"
    assert made.path == cache / (
        f"person-nano-fp16-b12-fp16-sm89-{flavour(kind)}-{trt.__version__}-{made.described.spec.onnx_sha256[:8]}.engine"
    )
    assert told[0].startswith(f"{tensorrt.title}: building person-nano-fp16 for batches up to 12, fp16")
    assert told[-1].startswith(f"{tensorrt.title}: built {made.path.name} in ")
    (config,) = trt.calls.configs
    assert config._limits == {trt.MemoryPoolType.WORKSPACE: 1 << 30}
    assert [p._shapes for p in config._profiles] == [
        {"images": ((1, 3, 384, 640), (12, 3, 384, 640), (12, 3, 384, 640))}
    ]
    timings = sorted(p.name for p in cache.glob("timings-*"))
    if kind == "tensorrt-rtx":
        assert [c.name for c in config._capabilities] == ["SM89"]
        assert [f.name for f in config._flags] == ["REQUIRE_USER_ALLOCATION"]
        assert timings == []
        assert made.described.spec.device == ""
    else:
        assert config._flags == []
        assert timings == [f"timings-sm89-tensorrt-{trt.__version__}.cache"]
        assert made.described.spec.device == DEVICE_NAME
    again = ensure_engine(tensorrt, nano(), 12, HERE, told.append)
    assert (again.reason, again.plan) == ("from the cache", made.plan)
    assert len(trt.calls.configs) == 1


def test_timings_of_one_build_serve_the_next(install: Callable[..., Any], cache: Path) -> None:
    trt = install("tensorrt")
    ensure_engine(TensorRT("tensorrt"), nano(), 4, HERE)
    ensure_engine(TensorRT("tensorrt"), nano(), 8, HERE)
    assert [c._cache._data for c in trt.calls.configs] == [b"timings of 10.16.1.11"] * 2
    (timings,) = cache.glob("timings-*")
    timings.write_bytes(b"timings of another GPU")
    ensure_engine(TensorRT("tensorrt"), nano(), 16, HERE)
    assert timings.read_bytes() == b"timings of 10.16.1.11"


@pytest.mark.parametrize("name", ["cut short", "no description", "another hash", "other format"])
def test_a_stale_engine_is_built_again(install: Callable[..., Any], name: str) -> None:
    install("tensorrt")
    tensorrt = TensorRT("tensorrt")
    path = ensure_engine(tensorrt, nano(), 4, HERE).path
    damage, reason = DAMAGE[name]
    damage(path)
    told: list[str] = []
    made = ensure_engine(tensorrt, nano(), 4, HERE, told.append)
    assert reason in made.reason
    assert reason in told[0]
    assert read_engine(path, made.described.spec)[0] == made.plan


def test_another_version_or_gpu_builds_its_own(install: Callable[..., Any], cache: Path) -> None:
    install("tensorrt")
    ensure_engine(TensorRT("tensorrt"), nano(), 4, HERE)
    install("tensorrt", "10.17.0.1")
    newer = ensure_engine(TensorRT("tensorrt"), nano(), 4, HERE)
    assert newer.reason == "built now: it is not built yet"
    other = ensure_engine(TensorRT("tensorrt"), nano(), 4, Target(89, "Other GPU"))
    assert other.path == newer.path
    assert other.reason == f"built now: it was built for device {DEVICE_NAME}, wanted is Other GPU"
    assert len(list(cache.glob("*.engine"))) == 2


def test_progress_is_told_now_and_then(install: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    install("tensorrt")
    monkeypatch.setattr(adapter, "_PROGRESS_INTERVAL_S", 0.0)
    told: list[str] = []
    ensure_engine(TensorRT("tensorrt"), nano(), 4, HERE, told.append)
    assert told[1:-1] == [f"person-nano-fp16.onnx: Timing {share} %" for share in (25, 50, 75, 100)]


def test_failures_say_what_tensorrt_said(install: Callable[..., Any], cache: Path) -> None:
    trt = install("tensorrt")
    trt.calls.failure = "parse"
    with pytest.raises(InputError, match=r"fp16\.onnx: TensorRT 10\.16 cannot read it: node 0 \(Mystery\)"):
        ensure_engine(TensorRT("tensorrt"), nano(), 4, HERE)
    trt.calls.failure = "build"
    with pytest.raises(InputError, match=r"TensorRT 10\.16 cannot build it: no implementation for node Conv_3"):
        ensure_engine(TensorRT("tensorrt"), nano(), 4, HERE)
    assert list(cache.glob("*")) == []


def test_batches_that_a_model_does_not_take(install: Callable[..., Any], tmp_path: Path) -> None:
    install("tensorrt")
    fixed = small_model(tmp_path / "one.onnx", batch=1)
    with pytest.raises(InputError, match="model one: max batch of 2; accepted: 1, the batch axis of this model is"):
        ensure_engine(TensorRT("tensorrt"), fixed, 2, HERE)
    with pytest.raises(InputError, match="max batch of 0; accepted: 1 or more"):
        ensure_engine(TensorRT("tensorrt"), nano(), 0, HERE)
    ensure_engine(TensorRT("tensorrt"), fixed, 1, HERE)


def test_a_tensorrt_that_cannot_be_used_says_why(install: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError) as caught:
        choose_tensorrt(["tensorrt", "tensorrt-rtx"], 90)
    assert str(caught.value) == (
        "no TensorRT builds engines for compute capability 9.0: TensorRT: not installed (pip install tensorrt-cu13); "
        "TensorRT-RTX: not installed (pip install tensorrt-rtx-cu13)"
    )
    install("tensorrt", "8.6.1")
    install("tensorrt-rtx")
    with pytest.raises(InputError, match=r"version 8\.6\.1 is too old, 10 is .*TensorRT-RTX: it has no engines for "
                       r"compute capability 9\.0, only for 7\.5, 8\.0, 8\.6, 8\.9, 12\.0, 12\.1$"):  # fmt: skip
        choose_tensorrt(["tensorrt", "tensorrt-rtx"], 90)
    assert choose_tensorrt(["tensorrt", "tensorrt-rtx"], 120).flavour == "tensorrt-rtx"

    def broken(name: str) -> None:
        raise ImportError("libnvinfer.so.10: cannot open shared object file")

    monkeypatch.setattr(adapter.importlib, "import_module", broken)
    with pytest.raises(UnusableError, match=r"installed, but it does not load: libnvinfer\.so\.10"):
        TensorRT("tensorrt-rtx")


def test_the_real_tensorrt_rtx_builds_the_shipped_model(cache: Path) -> None:
    """On the CPU: parsed, built for batches of 1..8 in FP16, described, read back."""
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed")
    tensorrt = TensorRT("tensorrt-rtx")
    told: list[str] = []
    made = ensure_engine(tensorrt, nano(), 8, Target(86), told.append)
    assert 500_000 < len(made.plan) < 50_000_000
    assert made.described.spec == build.wanted(tensorrt, nano(), 8, Target(86))
    assert made.described.spec.version == tensorrt.version
    assert read_engine(made.path, made.described.spec)[0] == made.plan
    assert ensure_engine(tensorrt, nano(), 8, Target(86)).reason == "from the cache"
    assert len(told) >= 2
    made.path.write_bytes(made.plan[:-1])
    assert "damaged" in ensure_engine(tensorrt, nano(), 8, Target(86)).reason
    with pytest.raises(UnusableError, match=r"no engines for compute capability 9\.0"):
        ensure_engine(tensorrt, nano(), 8, Target(90))


def test_the_fake_has_nothing_that_the_real_tensorrt_rtx_lacks() -> None:
    real = pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed")
    fake = make_tensorrt("tensorrt-rtx")
    for name in dir(fake):
        if name.startswith("_") or name == "calls":
            continue
        for member in dir(getattr(fake, name)):
            # What pybind11 gives its enums ("name", "value") is not what Python's have besides.
            if not member.startswith("_") and member != "denominator" and not hasattr(int, member):
                assert hasattr(getattr(real, name), member), f"{name}.{member}"


def test_the_real_tensorrt_rtx_says_what_it_cannot_read(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed")
    (tmp_path / "m.onnx").write_bytes(b"no model at all")
    with pytest.raises(InputError, match=r"m\.onnx: TensorRT-RTX .* cannot read it: \S+"):
        TensorRT("tensorrt-rtx").build(tmp_path / "m.onnx", SIZE, 1, 1 << 30, 86)


# --- TensorRT networks ---------------------------------------------------------------------------


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


def test_an_engine_that_does_not_load_is_built_again_once(
    install: Callable[..., Any], on_gpu: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trt, stream, model = install("tensorrt"), new_stream(), small_model(tmp_path / "m.onnx")
    made = ensure_engine(TensorRT("tensorrt"), model, 8, HERE)
    store.write_engine(made.path, b"of an old driver", made.described.spec, built_at="", build_s=0, tiler="")
    network = open_trt(on_gpu, "tensorrt", model, stream)
    assert "does not load its engine: the engine plan file is not compatible" in caplog.text
    assert network.output_shape == (ANCHORS, 5)
    trt.calls.failure = "load"
    builds = len(trt.calls.configs)
    with pytest.raises(UnusableError, match="not compatible"):
        open_trt(on_gpu, "tensorrt", model, stream)
    assert len(trt.calls.configs) == builds + 1


# --- ONNX Runtime networks -----------------------------------------------------------------------


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


# --- the choice ----------------------------------------------------------------------------------


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


# --- the command line ----------------------------------------------------------------------------


def tiler(*args: str) -> Any:
    return CliRunner().invoke(main, ["engine", *args])


def test_an_engine_is_built_inspected_and_verified(install: Callable[..., Any], cache: Path) -> None:
    install("tensorrt-rtx")
    built = tiler("build", "person-nano", "--max-batch", "16", "--capability", "120")
    assert built.exit_code == 0, built.output
    (path,) = cache.glob("*.engine")
    assert built.stdout == f"{path} (built now: it is not built yet)\n"
    assert "TensorRT-RTX 1.7: building person-nano-fp16 for batches up to 16" in built.stderr
    again = tiler("build", "person-nano", "--max-batch", "16", "--capability", "120")
    assert again.output == f"{path} (from the cache)\n"

    shown = tiler("inspect", str(path))
    assert shown.exit_code == 0
    assert "model       person-nano-fp16, fp16, 640x384\nbatch       1..16\ngpu         compute capability 12.0\n" in (
        shown.output
    )
    for what in (str(path), "person-nano"):
        verified = tiler("verify", what)
        assert verified.exit_code == 0, verified.output
        assert "ok  bytes    person-nano-fp16-b16" in verified.output
        assert "ok  version  TensorRT-RTX 1.7, as installed" in verified.output
    install("tensorrt-rtx", "1.8.0.1")
    assert tiler("verify", str(path)).exit_code == 2
    assert "1.7.1.116 built it, 1.8.0.1 is installed" in tiler("verify", "person-nano").output
    path.write_bytes(b"")
    for command in ("inspect", "verify"):
        refused = tiler(command, str(path))
        assert refused.exit_code == 2
        assert "not an engine to use: its bytes are not those that were built" in refused.output


def test_an_engine_of_the_gpu_that_is_here_is_loaded(install: Callable[..., Any], on_gpu: Any, cache: Path) -> None:
    install("tensorrt")
    ensure_engine(TensorRT("tensorrt"), nano(), 4, HERE)
    (path,) = cache.glob("*.engine")
    assert build.verify_engine(path, HERE)[-1] == (
        "ok  load     images fp16 [-1, 3, 384, 640], head fp16 [-1, 5040, 5]"
    )
    assert "it is for compute capability 8.9, this GPU has 9.0" in build.verify_engine(path, Target(90))[-1]


REFUSED: dict[str, tuple[tuple[str, ...], str]] = {
    "no TensorRT": (("build", "person-nano", "--max-batch", "4", "--capability", "89"), "TensorRT-RTX: not installed"),
    "no such model": (("build", "person-giant", "--max-batch", "4"), "unknown model 'person-giant'"),
    "no batch": (("build", "person-nano", "--max-batch", "0"), "not in the range x>=1"),
    "no such device": (("build", "person-nano", "--max-batch", "4", "--device", "gpu"), "accepted: cuda, cuda:N"),
    "no such file": (("inspect", "none.engine"), "not an engine to use: it is not built yet"),
    "nothing built": (("verify", "person-nano"), "no engine of person-nano is built yet"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_commands_are_explained(install: Callable[..., Any], name: str) -> None:
    args, message = REFUSED[name]
    result = tiler(*args)
    assert result.exit_code == 2
    assert message in result.output


def test_without_a_gpu_the_way_around_is_told(install: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tiler.cuda.problem", lambda index=0: "no NVIDIA driver here")
    result = tiler("build", "person-nano", "--max-batch", "4")
    assert result.exit_code == 2
    assert "cuda:0 cannot be used: no NVIDIA driver here; --capability NN builds without a GPU" in result.output
