"""`tiler engine build|inspect|verify`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from engine_parts import HERE, nano

from tests.fakes.tensorrt_cupy import Stream
from tiler import cuda
from tiler.cli import main
from tiler.engines import build
from tiler.engines.build import Target, ensure_engine
from tiler.engines.registry import load_model
from tiler.engines.tensorrt import TensorRT

pytest_plugins = ("fakes.engine_fixtures",)
pytestmark = pytest.mark.usefixtures("engines")


def tiler(*args: str) -> Any:
    return CliRunner().invoke(main, ["engine", *args])


def test_an_engine_is_built_inspected_and_verified(install: Callable[..., Any], engines: Path) -> None:
    install("tensorrt-rtx")
    built = tiler("build", "person-nano", "--max-batch", "16", "--capability", "120")
    assert built.exit_code == 0, built.output
    (path,) = engines.glob("*.engine")
    assert built.stdout == f"{path} (built now: it is not built yet)\n"
    assert "TensorRT-RTX 1.7: building person-nano for batches up to 16" in built.stderr
    again = tiler("build", "person-nano", "--max-batch", "16", "--capability", "120")
    assert again.output == f"{path} (from the cache)\n"

    shown = tiler("inspect", str(path))
    assert shown.exit_code == 0
    assert "model       person-nano, fp16, 640x384\nbatch       1..16\ngpu         compute capability 12.0\n" in (
        shown.output
    )
    for what in (str(path), "person-nano"):
        verified = tiler("verify", what)
        assert verified.exit_code == 0, verified.output
        assert "ok  bytes    person-nano-b16-fp16-sm120-tensorrt-rtx" in verified.output
        assert "ok  version  TensorRT-RTX 1.7, as installed" in verified.output
    install("tensorrt-rtx", "1.8.0.1")
    assert tiler("verify", str(path)).exit_code == 2
    assert tiler("verify", "person-nano").exit_code == 2
    assert tiler("build", "person-nano", "--max-batch", "16", "--capability", "120").exit_code == 0
    verified = tiler("verify", "person-nano")  # what a run takes is there; the other is only told
    assert verified.exit_code == 0, verified.output
    assert "ok  version  TensorRT-RTX 1.8, as installed" in verified.output
    assert f"--  version  {path}: tensorrt-rtx 1.7.1.116 built it, 1.8.0.1 is installed" in verified.output
    path.write_bytes(b"")
    assert tiler("verify", "person-nano").exit_code == 2
    for command in ("inspect", "verify"):
        refused = tiler(command, str(path))
        assert refused.exit_code == 2
        assert "not an engine to use: its bytes are not those that were built" in refused.output


def test_an_engine_of_the_gpu_that_is_here_is_loaded(install: Callable[..., Any], on_gpu: Any, engines: Path) -> None:
    install("tensorrt")
    ensure_engine(TensorRT("tensorrt"), nano(), 4, HERE)
    (path,) = engines.glob("*.engine")
    assert build.verify_engine(path, HERE)[-1] == (
        "ok  load     images fp16 [-1, 3, 384, 640], head fp16 [-1, 5040, 5]"
    )
    assert "it is for compute capability 8.9, this GPU has 9.0" in build.verify_engine(path, Target(90))[-1]


def test_a_run_takes_the_engine_that_the_command_built(
    install: Callable[..., Any], on_gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a model that comes with tiler, in FP16, and without the package that converts others."""
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.setattr(cuda, "problem", lambda index=0: None)
    trt = install("tensorrt")
    built = CliRunner().invoke(main, ["engine", "build", "person-nano", "--max-batch", "4"])
    assert built.exit_code == 0, built.output
    builds = len(trt.calls.configs)
    model, stream = load_model("person-nano", Path.cwd()), Stream(non_blocking=True)
    network, reason = on_gpu.network.open_network(model, 4, 0, stream)
    assert (network.name, reason, len(trt.calls.configs)) == ("TensorRT 10.16 FP16", "first choice", builds)


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
