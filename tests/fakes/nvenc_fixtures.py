"""Fixtures of the encoder tests: the emulated driver in a process of its own, the fakes in this one."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes import nvenc_cupy, nvenc_pynvc
from fakes.nvenc_pictures import Load, Play

_HERE = Path(__file__).parent
_MODULES = ("pyav_nvenc_cuda", "pynvc_nvenc_cuda", "readback_cuda")


@pytest.fixture(scope="session")
def driver_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with libcuda.so.1 and libnvidia-encode.so.1, built from the C beside this file."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("the emulated NVIDIA driver is C: no C compiler (cc) here")
    folder = tmp_path_factory.mktemp("driver")
    source = _HERE / "nvenc_driver.c"
    built = folder / "driver.so"
    subprocess.run([compiler, "-w", "-O1", "-shared", "-fPIC", "-o", str(built), str(source)], check=True)
    for name in ("libcuda.so.1", "libnvidia-encode.so.1"):
        (folder / name).symlink_to(built)
    return folder


@pytest.fixture(scope="session")
def play(driver_folder: Path) -> Play:
    """Scenarios on the emulated driver, or on the libraries of another folder."""

    def run(*scenarios: dict[str, Any], folder: Path = driver_folder) -> list[dict[str, Any]]:
        done = subprocess.run(
            [sys.executable, "-m", "fakes.nvenc_scenario"],
            input=json.dumps(scenarios),
            capture_output=True,
            text=True,
            check=False,
            cwd=_HERE.parent,
            env={**os.environ, "LD_LIBRARY_PATH": str(folder)},
        )
        assert done.returncode == 0, done.stderr
        results: list[dict[str, Any]] = json.loads(done.stdout)
        return results

    return run


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Imports modules of the CUDA encoders on the fakes, and forgets them after the test."""
    for name, module in {**nvenc_cupy.modules(), "PyNvVideoCodec": nvenc_pynvc.module()}.items():
        monkeypatch.setitem(sys.modules, name, module)
    for name in _MODULES:
        monkeypatch.delitem(sys.modules, f"tiler.encode.{name}", raising=False)
    yield lambda name: importlib.import_module(f"tiler.encode.{name}")
    for name in _MODULES:
        sys.modules.pop(f"tiler.encode.{name}", None)


@pytest.fixture(params=["late", "at once"])
def any_gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test runs on a GPU that does nothing before somebody waits, and on one that does all at once."""
    monkeypatch.setitem(nvenc_cupy.gpu, "at_once", request.param == "at once")
