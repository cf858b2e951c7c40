"""Engines without a GPU: the files of the cache, and building them."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engine_parts import HERE, KINDS, SIZE, flavour, nano, small_model

from tests.fakes.tensorrt_cupy import DEVICE_NAME
from tests.fakes.tensorrt_fake import make_tensorrt
from tiler.engines import build
from tiler.engines import tensorrt as adapter
from tiler.engines.build import Target, choose_tensorrt, ensure_engine
from tiler.engines.store import EngineSpec, StaleEngine, read_engine, write_atomically, write_engine
from tiler.engines.tensorrt import TensorRT, UnusableError
from tiler.errors import InputError

pytest_plugins = ("fakes.engine_fixtures",)
pytestmark = pytest.mark.usefixtures("engines")


SPEC = EngineSpec("person-nano-fp16", "ab" * 32, "fp16", (640, 384), 16, 1 << 30, 89, "tensorrt", "10.16.1.11", "GPU")
OTHERS = {
    "model": "person-small", "onnx_sha256": "cd" * 32, "precision": "fp32", "input_size": (640, 640), "max_batch": 8,
    "workspace_bytes": 1 << 20, "capability": 90, "flavour": "tensorrt-rtx", "version": "11.4.0.106", "device": "Other",
}  # fmt: skip


def keep(path: Path, plan: bytes = b"plan") -> None:
    write_engine(path, plan, SPEC, built_at="2026-11-25T00:00:00+00:00", build_s=1.25, tiler="0.1.0")


def test_an_engine_is_named_by_what_it_is() -> None:
    assert SPEC.file_name() == "person-nano-fp16-b16-fp16-sm89-GPU-tensorrt-10.16.1.11-abababab.engine"
    names = {dataclasses.replace(SPEC, **{key: value}).file_name() for key, value in OTHERS.items()}
    assert len(names - {SPEC.file_name()}) == len(OTHERS) - 2  # size, workspace: see the description
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


# Building


@pytest.mark.parametrize("kind", KINDS)
def test_one_path_builds_on_every_flavour(install: Callable[..., Any], engines: Path, kind: str) -> None:
    trt = install(kind)
    tensorrt = TensorRT(flavour(kind))
    gpu = "" if kind == "tensorrt-rtx" else "-Fake_GPU"
    told: list[str] = []
    made = ensure_engine(tensorrt, nano(), 12, HERE, told.append)
    assert made.reason == "built now: it is not built yet"
    assert made.path == engines / (
        f"person-nano-fp16-b12-fp16-sm89{gpu}-{flavour(kind)}"
        f"-{trt.__version__}-{made.described.spec.onnx_sha256[:8]}.engine"
    )
    assert told[0].startswith(f"{tensorrt.title}: building person-nano-fp16 for batches up to 12, fp16")
    assert told[-1].startswith(f"{tensorrt.title}: built {made.path.name} in ")
    (config,) = trt.calls.configs
    assert config._limits == {trt.MemoryPoolType.WORKSPACE: 1 << 30}
    assert [p._shapes for p in config._profiles] == [
        {"images": ((1, 3, 384, 640), (12, 3, 384, 640), (12, 3, 384, 640))}
    ]
    timings = sorted(p.name for p in engines.glob("timings-*"))
    if kind == "tensorrt-rtx":
        assert [c.name for c in config._capabilities] == ["SM89"]
        assert [f.name for f in config._flags] == ["REQUIRE_USER_ALLOCATION"]
        assert timings == []
        assert made.described.spec.device == ""
    else:
        assert config._flags == []
        assert timings == [f"timings-sm89{gpu}-tensorrt-{trt.__version__}.cache"]
        assert made.described.spec.device == DEVICE_NAME
    again = ensure_engine(tensorrt, nano(), 12, HERE, told.append)
    assert (again.reason, again.plan) == ("from the cache", made.plan)
    assert len(trt.calls.configs) == 1


def test_an_engine_for_larger_batches_does_as_well(install: Callable[..., Any], engines: Path) -> None:
    trt = install("tensorrt")
    tensorrt = TensorRT("tensorrt")
    ensure_engine(tensorrt, nano(), 32, HERE)
    made = ensure_engine(tensorrt, nano(), 16, Target(86, "Other GPU"))
    assert made.reason == "built now: it is not built yet"
    found = ensure_engine(tensorrt, nano(), 4, HERE)
    assert (found.reason, found.described.spec.max_batch) == ("from the cache, for batches up to 32", 32)
    assert len(trt.calls.configs) == 2
    assert ensure_engine(tensorrt, nano(), 8, HERE, exact=True).reason == "built now: it is not built yet"
    assert ensure_engine(tensorrt, nano(), 4, HERE).described.spec.max_batch == 8
    ensure_engine(tensorrt, nano(), 8, HERE).path.unlink()
    found.path.write_bytes(b"cut short")
    assert ensure_engine(tensorrt, nano(), 4, HERE).reason == "built now: it is not built yet"
    assert ensure_engine(tensorrt, nano(), 64, HERE).reason == "built now: it is not built yet"


def test_timings_of_one_build_serve_the_next(install: Callable[..., Any], engines: Path) -> None:
    trt = install("tensorrt")
    ensure_engine(TensorRT("tensorrt"), nano(), 4, HERE)
    ensure_engine(TensorRT("tensorrt"), nano(), 8, HERE)
    assert [c._cache._data for c in trt.calls.configs] == [b"timings of 10.16.1.11"] * 2
    (timings,) = engines.glob("timings-*")
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


def test_another_version_or_gpu_builds_its_own(install: Callable[..., Any], engines: Path) -> None:
    install("tensorrt")
    ensure_engine(TensorRT("tensorrt"), nano(), 4, HERE)
    install("tensorrt", "10.17.0.1")
    newer = ensure_engine(TensorRT("tensorrt"), nano(), 4, HERE)
    assert newer.reason == "built now: it is not built yet"
    other = ensure_engine(TensorRT("tensorrt"), nano(), 4, Target(89, "Other GPU"))
    assert other.reason == "built now: it is not built yet"
    assert len(list(engines.glob("*.engine"))) == 3
    # Two GPUs of one capability in a machine: neither takes the other's, or its place.
    assert ensure_engine(TensorRT("tensorrt"), nano(), 4, HERE).path == newer.path
    assert ensure_engine(TensorRT("tensorrt"), nano(), 4, Target(89, "Other GPU")).reason == "from the cache"


def test_progress_is_told_now_and_then(install: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    install("tensorrt")
    monkeypatch.setattr(adapter, "_PROGRESS_INTERVAL_S", 0.0)
    told: list[str] = []
    ensure_engine(TensorRT("tensorrt"), nano(), 4, HERE, told.append)
    assert told[1:-1] == [f"person-nano-fp16.onnx: Timing {share} %" for share in (25, 50, 75, 100)]


def test_failures_say_what_tensorrt_said(install: Callable[..., Any], engines: Path) -> None:
    trt = install("tensorrt")
    trt.calls.failure = "parse"
    with pytest.raises(InputError, match=r"fp16\.onnx: TensorRT 10\.16 cannot read it: node 0 \(Mystery\)"):
        ensure_engine(TensorRT("tensorrt"), nano(), 4, HERE)
    trt.calls.failure = "build"
    with pytest.raises(InputError, match=r"TensorRT 10\.16 cannot build it: no implementation for node Conv_3"):
        ensure_engine(TensorRT("tensorrt"), nano(), 4, HERE)
    assert list(engines.glob("*")) == []


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


def test_the_real_tensorrt_rtx_builds_the_shipped_model(engines: Path) -> None:
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
