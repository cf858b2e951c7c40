"""Memory of the host that a kernel reads and writes by itself: for little that is used once, a copy costs more."""

from __future__ import annotations

from typing import Any, NamedTuple

import cupy
import numpy as np


class _Address(NamedTuple):
    ptr: int


class Mapped:
    """Pinned memory, whose address on the host is that on the device, too (unified addressing).

    What a kernel wrote is there once an event after it has passed. What the host wrote must be there when the kernel is
    launched, and stay until such an event.

    Attributes:
        host: the memory as an array.
        data: for a launch, as of a CuPy array.
    """

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        size = int(np.prod(shape))
        memory = cupy.cuda.alloc_pinned_memory(size * np.dtype(dtype).itemsize)
        self.host: np.ndarray[Any, Any] = np.frombuffer(memory, dtype, size).reshape(shape)
        self.data = _Address(memory.ptr)
