"""Compiled .cu files: one module per file, device and set of macros, kept for the process."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

import cupy

OPTIONS = ("--std=c++17", "--fmad=false")
"""No contraction, no fast maths: the twins on the CPU round as IEEE 754 says; where a kernel wants fmaf, it says so."""


@cache
def _module(name: str, macros: tuple[str, ...], device: int) -> Any:
    code = (files("tiler.kernels") / f"{name}.cu").read_text(encoding="utf-8")
    module = cupy.RawModule(code=code, options=(*OPTIONS, *macros), backend="nvrtc")
    module.compile()
    return module


@cache
def _function(name: str, function: str, macros: tuple[str, ...], device: int) -> Any:
    return _module(name, macros, device).get_function(function)


def kernel(name: str, function: str, *macros: str) -> Any:
    """`function` of kernels/<name>.cu, compiled for the current device."""
    return _function(name, function, macros, cupy.cuda.runtime.getDevice())
