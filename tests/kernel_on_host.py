"""A .cu file run on the CPU: compiled as C++, a block's threads are threads and its barrier is a barrier.

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

_BEFORE = """
#include <algorithm>
#include <barrier>
#include <cmath>
#include <cstdlib>
#include <thread>
#include <vector>
#define __global__
#define __device__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(threads)
using std::min; using std::max; using std::abs;
struct Place3 { int x; };
static thread_local Place3 threadIdx, blockIdx;
static std::barrier<>* meeting;
static void __syncthreads() { meeting->arrive_and_wait(); }
static int atomicAdd(int* at, int value) { return __atomic_fetch_add(at, value, __ATOMIC_RELAXED); }
"""
_AFTER = """
template <typename... T> static void launch(void (*kernel)(T...), int blocks, int threads, T... arguments) {
    for (int block = 0; block < blocks; ++block) {
        std::barrier<> own(threads);
        meeting = &own;
        std::vector<std::thread> all;
        for (int thread = 0; thread < threads; ++thread)
            all.emplace_back([=] { threadIdx = {thread}; blockIdx = {block}; kernel(arguments...); });
        for (auto& one : all) one.join();
    }
}
"""


def compile_kernel(folder: Path, name: str, arguments: str, *macros: str) -> ctypes.CDLL:
    """`run(blocks, threads, ...)` of the kernel `name` of kernels/NAME.cu.

    Args:
        arguments: types of the kernel's own, separated by commas; pointers all.
        macros: as the launcher passes them.
    """
    types = arguments.split(",")
    given = ", ".join(f"void* a{k}" for k in range(len(types)))
    passed = ", ".join(f"({kind})a{k}" for k, kind in enumerate(types))
    run = f'extern "C" void run(int blocks, int threads, {given}) {{ launch({name}, blocks, threads, {passed}); }}\n'
    source, library = folder / f"{name}.cpp", folder / f"{name}.so"
    source.write_text(_BEFORE + (KERNELS / f"{name}.cu").read_text(encoding="utf-8") + _AFTER + run, encoding="utf-8")
    options = ("-std=c++20", "-O2", "-shared", "-fPIC", "-pthread", "-ffp-contract=off", *macros)
    subprocess.run(["g++", *options, str(source), "-o", str(library)], check=True, capture_output=True)
    return ctypes.CDLL(str(library))


def pointer(array: np.ndarray) -> Any:
    return ctypes.c_void_p(array.ctypes.data)
