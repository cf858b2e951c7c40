"""What a runtime enqueues, recorded once as a CUDA graph and replayed with one launch.

A graph repeats addresses, not answers: whatever it reads on the host at replay must still be there, and mean the
same. Kernels, fills and copies within the device cannot read the host, so a graph of those alone is safe
to replay whatever recorded it; `host_work` looks for the others.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable
from typing import Any

import cupy

from tiler.errors import StageError

_log = logging.getLogger(__name__)

# CUgraphNodeType
_KERNEL, _MEMCPY, _MEMSET, _EMPTY = 0, 1, 2, 5
# CUDA_MEMCPY3D: where the types of the memory at both ends lie, and CU_MEMORYTYPE_DEVICE
_MEMCPY_BYTES, _FROM, _TO, _DEVICE = 200, 32, 120, 2


def capture(stream: Any, enqueue: Callable[[], None], name: str) -> Any:
    """The graph of what `enqueue` puts on `stream`, or None where there can be none, which is logged.

    Args:
        stream: CuPy stream, not the default one; not captured yet.
        enqueue: all that it does on the device must go to `stream`, without waiting for it.
        name: of the work, for the log.
    """
    # Relaxed: other threads go on allocating and copying meanwhile.
    stream.begin_capture(cupy.cuda.runtime.streamCaptureModeRelaxed)
    problem: Exception | None = None
    try:
        enqueue()
    except StageError as error:
        problem = error
    try:
        graph = stream.end_capture()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        problem = problem or error
    if problem is not None:
        _log.warning("%s cannot be captured as a CUDA graph: %s", name, problem)
        return None
    return graph


def host_work(graph: Any) -> str | None:
    """What in a graph may touch the host when it is replayed; None if nothing does.

    Args:
        graph: CuPy's.
    """
    driver = ctypes.CDLL("libcuda.so.1")
    handle, count = ctypes.c_void_p(graph.graph), ctypes.c_size_t(0)
    _check(driver.cuGraphGetNodes(handle, None, ctypes.byref(count)))
    nodes = (ctypes.c_void_p * count.value)()
    _check(driver.cuGraphGetNodes(handle, nodes, ctypes.byref(count)))
    for node in nodes:
        kind = ctypes.c_int(0)
        _check(driver.cuGraphNodeGetType(ctypes.c_void_p(node), ctypes.byref(kind)))
        if kind.value == _MEMCPY:
            copied = (ctypes.c_uint8 * _MEMCPY_BYTES)()
            _check(driver.cuGraphMemcpyNodeGetParams(ctypes.c_void_p(node), copied))
            ends = (ctypes.c_int.from_buffer(copied, offset).value for offset in (_FROM, _TO))
            if any(end != _DEVICE for end in ends):
                return "a copy between host and device"
        elif kind.value not in (_KERNEL, _MEMSET, _EMPTY):
            return f"a node of kind {kind.value} (CUgraphNodeType)"
    return None


def _check(result: int) -> None:
    if result != 0:
        raise StageError("infer", f"the CUDA driver does not tell what a graph holds (error {result})")
