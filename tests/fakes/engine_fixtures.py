"""Fake TensorRTs where `import` finds them, and the CUDA modules over a CuPy on the host."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.fakes.tensorrt_cupy import make_cupy
from tests.fakes.tensorrt_fake import make_tensorrt
from tiler.kernels import enqueue_cuda


@pytest.fixture
def engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
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
    driver, enqueue_cuda.launch_graph = enqueue_cuda.launch_graph, lambda graph, stream: graph.launch(stream)
    try:
        names = ("graph", "network", "ort", "tensorrt")
        yield SimpleNamespace(**{name: importlib.import_module(f"tiler.infer.{name}_cuda") for name in names})
    finally:
        enqueue_cuda.launch_graph = driver
        for name, module in before.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module
