"""A GPU that cannot be used is explained in one line, before anything else touches it."""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Iterator
from typing import Any

import pytest

from tiler import cuda


class Driver:
    """The few calls that `cuda.problem` makes, answering for a machine."""

    def __init__(self, gpus: int, version: int, capability: tuple[int, int]) -> None:
        self._gpus, self._version, self._capability = gpus, version, capability

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return 0

    def cuDeviceGetCount(self, into: Any) -> int:  # noqa: N802
        into._obj.value = self._gpus
        return 0

    def cuDriverGetVersion(self, into: Any) -> int:  # noqa: N802
        into._obj.value = self._version
        return 0

    def cuDeviceGet(self, into: Any, index: int) -> int:  # noqa: N802
        into._obj.value = index
        return 0

    def cuDeviceGetAttribute(self, into: Any, number: int, device: Any) -> int:  # noqa: N802
        into._obj.value = self._capability[number - 75]
        return 0


@pytest.fixture(autouse=True)
def _afresh() -> Iterator[None]:
    cuda.problem.cache_clear()
    yield
    cuda.problem.cache_clear()


@pytest.mark.parametrize(
    ("gpus", "version", "capability", "index", "said"),
    [
        pytest.param(0, 13000, (9, 0), 0, "the NVIDIA driver finds no GPU", id="no GPU"),
        pytest.param(1, 13000, (9, 0), 2, "there is no cuda:2; the driver finds 1 GPU", id="one GPU"),
        pytest.param(1, 12040, (9, 0), 0, "the NVIDIA driver knows CUDA 12.4; 13.0 is needed", id="old driver"),
        pytest.param(1, 13000, (6, 1), 0, "cuda:0 has compute capability 6.1; 7.5 or higher", id="old GPU"),
    ],
)
def test_what_is_wrong_is_said(
    monkeypatch: pytest.MonkeyPatch, gpus: int, version: int, capability: tuple[int, int], index: int, said: str
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver(gpus, version, capability))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert said in (cuda.problem(index) or "")


def test_libraries_that_are_not_there_are_said_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver(1, 13000, (8, 9)))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert cuda.problem() == 'the CUDA libraries are not installed: pip install "tiler[cuda]"'
