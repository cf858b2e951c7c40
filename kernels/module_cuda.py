"""Compiled .cu files: one module per file, device and set of macros, kept for the process."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

import cupy

OPTIONS = ("--std=c++17",)
"""No fast maths: the twins on the CPU round as IEEE 754 says, and contraction is asked for where it is wanted."""


def source(name: str) -> str:
    """The text of kernels/<name>.cu with its own `#include "x.cuh"` lines resolved.

    NVRTC knows no include path of ours in an installed package; a header of a few lines needs none.
    """
    folder = files("tiler.kernels")
    lines = []
    for line in (folder / f"{name}.cu").read_text(encoding="utf-8").splitlines():
        if line.startswith('#include "') and line.endswith('.cuh"'):
            lines.append((folder / line.split('"')[1]).read_text(encoding="utf-8"))
        else:
            lines.append(line)
    return "\n".join(lines)


@cache
def _module(name: str, macros: tuple[str, ...], device: int) -> Any:
    module = cupy.RawModule(code=source(name), options=(*OPTIONS, "--fmad=false", *macros), backend="nvrtc")
    module.compile()
    return module


def kernel(name: str, function: str, *macros: str) -> Any:
    """`function` of kernels/<name>.cu, compiled for the current device."""
    return _module(name, macros, cupy.cuda.Device().id).get_function(function)
