"""The CUDA device of a run: looked for once, and explained when it is not there."""

from __future__ import annotations

import ctypes
import importlib.util
from functools import cache

_DRIVER = 13000
"""CUDA version that the driver must know: CuPy's packages are built for it."""
_CAPABILITY = (7, 5)
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*


@cache
def problem(index: int = 0) -> str | None:
    """Why device `index` cannot be used, in one line; None when it can."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver here (libcuda.so.1 is not found)"
    if importlib.util.find_spec("cupy") is None:
        return 'the CUDA libraries are not installed: pip install "tiler[cuda]"'
    value = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(value)) != 0 or value.value == 0:
        return "the NVIDIA driver finds no GPU"
    if index >= value.value:
        return f"there is no cuda:{index}; the driver finds {value.value} GPU{'s' if value.value > 1 else ''}"
    if driver.cuDriverGetVersion(ctypes.byref(value)) == 0 and value.value < _DRIVER:
        known = f"{value.value // 1000}.{value.value % 1000 // 10}"
        return f"the NVIDIA driver knows CUDA {known}; 13.0 is needed: driver 580 or newer"
    capability = tuple(_attribute(driver, number, index) for number in (_MAJOR, _MINOR))
    if capability < _CAPABILITY:
        return f"cuda:{index} has compute capability {capability[0]}.{capability[1]}; 7.5 or higher is needed"
    try:
        importlib.import_module("cupy")
    except ImportError as error:
        return f"CuPy cannot be imported: {' '.join(str(error).split())[:200]}"
    return None


def _attribute(driver: ctypes.CDLL, number: int, index: int) -> int:
    device, value = ctypes.c_int(0), ctypes.c_int(0)
    driver.cuDeviceGet(ctypes.byref(device), index)
    driver.cuDeviceGetAttribute(ctypes.byref(value), number, device)
    return value.value
