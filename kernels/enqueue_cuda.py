"""Short calls of the CUDA driver that keep the interpreter.

CuPy lets go of the interpreter around such a call, since others of its kind take long; the thread must then get it
back from the decoding threads. The calls that a tick makes once for each picture, and those that bring its tables, are
made here instead. None of them waits for the device.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from functools import cache
from typing import Any


def wait(stream: Any, events: Iterable[Any]) -> None:
    """Whatever is put on `stream` from now on runs after the events (CuPy's; None counts as passed).

    Raises:
        RuntimeError: the driver refuses.
    """
    call, address = _driver().cuStreamWaitEvent, stream.ptr
    for event in events:
        if event is not None:
            _check(call(address, event.ptr, 0), "cuStreamWaitEvent")


def copy(to: int, of: int, size: int, stream: Any) -> None:
    """Copy `size` bytes on `stream`; addresses of the device, or of pinned memory.

    Raises:
        RuntimeError: the driver refuses.
    """
    _check(_driver().cuMemcpyAsync(to, of, size, stream.ptr), "cuMemcpyAsync")


@cache
def _driver() -> Any:
    driver = ctypes.PyDLL("libcuda.so.1")  # PyDLL, unlike CDLL, keeps the interpreter
    driver.cuStreamWaitEvent.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint)
    driver.cuMemcpyAsync.argtypes = (ctypes.c_uint64, ctypes.c_uint64, ctypes.c_size_t, ctypes.c_void_p)
    return driver


def _check(result: int, call: str) -> None:
    if result != 0:
        raise RuntimeError(f"{call} fails with CUDA driver error {result}")
