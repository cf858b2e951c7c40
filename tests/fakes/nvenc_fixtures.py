"""Fixtures of the encoder tests: the emulated driver in a process of its own, the fakes in this one."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes import nvenc_cupy, nvenc_pynvc
from fakes.nvenc_pictures import Load, Play
from tools import nvenc_emulator

_HERE = Path(__file__).parent
_MODULES = ("pyav_nvenc_cuda", "pynvc_nvenc_cuda", "readback_cuda")


@pytest.fixture(scope="session")
def driver_folder() -> Path:
    """A folder with the libraries of the emulated driver."""
    try:
        return nvenc_emulator.build()
    except FileNotFoundError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def play(driver_folder: Path) -> Play:
    """Scenarios on the emulated driver, without its libnvidia-encode if asked for."""

    def run(*scenarios: dict[str, Any], encode: bool = True) -> list[dict[str, Any]]:
        environment = nvenc_emulator.environment(host_cuda=True)
        if not encode:
            environment["LD_LIBRARY_PATH"] = str(driver_folder / "cuda")
        done = subprocess.run(
            [sys.executable, "-m", "fakes.nvenc_scenario"],
            input=json.dumps(scenarios),
            capture_output=True,
            text=True,
            check=False,
            cwd=_HERE.parent,
            env=environment,
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
