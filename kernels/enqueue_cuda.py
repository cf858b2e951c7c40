"""Short calls of the CUDA driver that keep the interpreter.

CuPy lets go of the interpreter around such a call, since others of its kind take long; the thread must then queue with
every decoding thread to get it back, which takes far longer than the call. So what is done for each picture and each
tick is enqueued by the calls here. None but `finish` waits for the device.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from functools import cache
from typing import Any

import numpy as np

from tiler.types import Frame


def wait(stream: Any, frames: Iterable[Frame]) -> None:
    """Whatever is put on `stream` from now on runs after these pictures are in their planes.

    Of those that are there already, nobody asks again.

    Raises:
        RuntimeError: the driver refuses.
    """
    call, address = _driver().cuStreamWaitEvent, stream.ptr
    for frame in frames:
        event = frame.ready
        if event is None:
            continue
        if passed(event):
            frame.arrived()
        else:
            _check(call(address, event.ptr, 0), "cuStreamWaitEvent")


def passed(event: Any) -> bool:
    """Whether all that the event (CuPy's) was recorded after has ended.

    Raises:
        RuntimeError: the driver refuses, or something before the event failed.
    """
    result = _driver().cuEventQuery(event.ptr)
    if result != _NOT_READY:
        _check(result, "cuEventQuery")
    return bool(result == 0)


def finish(event: Any) -> None:
    """Wait on the host for the event (CuPy's), and let go of the interpreter only if it has not passed.

    Raises:
        RuntimeError: as `passed`.
    """
    if not passed(event):
        event.synchronize()


def copy(to: int, of: int, size: int, stream: Any) -> None:
    """Copy `size` bytes on `stream`; addresses of the device, or of pinned memory.

    Raises:
        RuntimeError: the driver refuses.
    """
    _check(_driver().cuMemcpyAsync(to, of, size, stream.ptr), "cuMemcpyAsync")


def record(event: Any, stream: Any) -> None:
    """The event is reached when all that is on `stream` so far has ended; both are CuPy's.

    Raises:
        RuntimeError: the driver refuses.
    """
    _check(_driver().cuEventRecord(event.ptr, stream.ptr), "cuEventRecord")


class Launch:
    """A kernel with its arguments, packed once and launched often, as CuPy's own call would launch it.

    It keeps no array alive: whoever launches it does.
    """

    __slots__ = ("_block", "_kernel", "_pointers", "_shared", "_values")

    def __init__(self, kernel: Any, block: tuple[int, ...], arguments: Iterable[Any], shared: int = 0) -> None:
        """
        Args:
            kernel: CuPy RawKernel.
            block: threads of a block, in up to three dimensions.
            arguments: CuPy arrays and NumPy scalars, of the types that the kernel takes.
            shared: bytes of dynamic shared memory.
        """
        kinds = _C_TYPES
        self._values = [
            kinds[type(one)](one) if type(one) in kinds else ctypes.c_void_p(one.data.ptr) for one in arguments
        ]
        self._pointers = (ctypes.c_void_p * len(self._values))(*map(ctypes.addressof, self._values))
        self._kernel, self._block, self._shared = kernel.kernel.ptr, (*block, 1, 1)[:3], shared

    def put(self, index: int, value: int) -> None:
        """Change an argument for the launches to come: a scalar, or an address."""
        self._values[index].value = value

    def __call__(self, across: int, down: int = 1, deep: int = 1) -> None:
        """Launch so many blocks on CuPy's current stream.

        Raises:
            RuntimeError: the driver refuses.
        """
        stream = _current_stream().ptr
        result = _driver().cuLaunchKernel(
            self._kernel, across, down, deep, *self._block, self._shared, stream, self._pointers, None
        )
        _check(result, "cuLaunchKernel")


def launch_graph(graph: Any, stream: Any) -> None:
    """Launch CuPy's CUDA graph on `stream`.

    Raises:
        RuntimeError: the driver refuses.
    """
    _check(_driver().cuGraphLaunch(graph.graphExec, stream.ptr), "cuGraphLaunch")


_NOT_READY = 600
"""CUDA_ERROR_NOT_READY."""
_C_TYPES: dict[type, Any] = {
    np.int32: ctypes.c_int32,
    np.uint32: ctypes.c_uint32,
    np.float32: ctypes.c_float,
    np.float64: ctypes.c_double,
}


def _current_stream() -> Any:
    import cupy  # not for those who only copy

    return cupy.cuda.get_current_stream()


@cache
def _driver() -> Any:
    driver = ctypes.PyDLL("libcuda.so.1")  # PyDLL, unlike CDLL, keeps the interpreter
    handle = ctypes.c_void_p
    driver.cuStreamWaitEvent.argtypes = (handle, handle, ctypes.c_uint)
    driver.cuEventQuery.argtypes = (handle,)
    driver.cuMemcpyAsync.argtypes = (ctypes.c_uint64, ctypes.c_uint64, ctypes.c_size_t, handle)
    driver.cuEventRecord.argtypes = (handle, handle)
    driver.cuLaunchKernel.argtypes = (handle, *(ctypes.c_uint,) * 7, handle, handle, handle)
    driver.cuGraphLaunch.argtypes = (handle, handle)
    return driver


def _check(result: int, call: str) -> None:
    if result != 0:
        raise RuntimeError(f"{call} fails with CUDA driver error {result}")
