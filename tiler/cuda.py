"""The CUDA device of a run: looked for once, and explained when it is not there."""

from __future__ import annotations

import ctypes
import importlib.util
from functools import cache


@cache
def problem(index: int = 0) -> str | None:
    """Why device `index` cannot be used, in one line; None when it can."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver here (libcuda.so.1 is not found)"
    if importlib.util.find_spec("cupy") is None:
        return 'the CUDA libraries are not installed: pip install "tiler[cuda]"'
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        return "the NVIDIA driver finds no GPU"
    if index >= count.value:
        return f"there is no cuda:{index}; the driver finds {count.value} GPU{'s' if count.value > 1 else ''}"
    return None
