"""A .cu file run on the CPU: compiled as C++, a block's threads take turns and meet where the GPU's would.

A thread runs until it meets others (`__syncthreads`, `__syncwarp`, a shuffle or a ballot), and its warp goes on in
an order that changes from meeting to meeting: who reads what another lane has written without a meeting in between
reads it too early sooner or later. Lanes that do not come to the same meeting end the program.

Slow, and no word on the GPU's own compiler; but what is run is the kernel's text.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

KERNELS = Path(__file__).parent.parent / "kernels"
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not here")


def compile_kernel(
    folder: Path, name: str, arguments: str, *macros: str, function: str | None = None
) -> ctypes.CDLL:
    """`run(blocks across, blocks down, threads, ...)` of a kernel of kernels/NAME.cu.

    Args:
        arguments: types of the kernel's own, separated by commas: pointers, or integers as `ctypes.c_void_p`.
        macros: as the launcher passes them.
        function: the kernel, if it is not called `name`.
    """
    kernel = function or name
    types = arguments.split(",")
    given = ", ".join(f"void* a{k}" for k in range(len(types)))
    passed = ", ".join(f"({kind})(std::intptr_t)a{k}" for k, kind in enumerate(types))
    run = (
        f'extern "C" void run(int across, int down, int threads, {given}) '
        f"{{ launch(across, down, threads, [=] {{ {kernel}({passed}); }}); }}\n"
    )
    source, library = folder / f"{kernel}.cpp", folder / f"{kernel}.so"
    before = Path(__file__).with_name("kernel_on_host.h")
    text = f'#include "{before}"\n#line 1 "{name}.cu"\n{(KERNELS / f"{name}.cu").read_text(encoding="utf-8")}{run}'
    source.write_text(text, encoding="utf-8")
    # _FORTIFY_SOURCE takes a jump to another stack for an attack.
    options = ("-std=c++20", "-O2", "-U_FORTIFY_SOURCE", "-shared", "-fPIC", "-ffp-contract=off", *macros)
    made = subprocess.run(["g++", *options, str(source), "-o", str(library)], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return ctypes.CDLL(str(library))


def pointer(array: np.ndarray) -> Any:
    return ctypes.c_void_p(array.ctypes.data)
