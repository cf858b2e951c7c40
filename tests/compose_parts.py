"""What tests of compose.cu without a GPU share: the kernel run on the CPU, and memory that passes for a device's."""

from __future__ import annotations

import ctypes
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from tests.kernel_on_host import compile_kernel


class OnDevice(np.ndarray):
    """Host memory that tells its address as an array on the device does."""

    @property
    def data(self) -> Any:  # type: ignore[override]
        return SimpleNamespace(ptr=self.ctypes.data)

    def set(self, values: np.ndarray) -> None:
        self[...] = values


def compile_compose(folder: Path) -> ctypes.CDLL:
    """The kernel, to be `run`; its parameters are in the order of compose.cu."""
    return compile_kernel(
        folder, "compose",
        "u8*,int,int,unsigned,const unsigned*,unsigned,int,int,const uint2*,const int*,const Tile*,int,const int*,"
        "const Row*,const u8*,int,const int*",
    )  # fmt: skip


def aligned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Zeros on an address that the kernel's widest loads take."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.zeros(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(dtype).reshape(shape)
