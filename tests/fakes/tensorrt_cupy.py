"""As much of CuPy as a network uses, over host memory: arrays, streams that can be captured, one device."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any, Self

import numpy as np

CAPABILITY = "89"
DEVICE_NAME = "Fake GPU"


class CUDARuntimeError(RuntimeError):
    pass


class _Memory:
    def __init__(self, nbytes: int) -> None:
        self._bytes = np.empty(nbytes + 512, np.uint8)
        first = self._bytes.ctypes.data
        self.ptr = first + -first % 512
        self.size = nbytes


class _Pointer:
    def __init__(self, mem: _Memory, offset: int = 0) -> None:
        self.mem = mem
        self.ptr = mem.ptr + offset


class Array:
    """C-contiguous only, as the networks want it."""

    def __init__(self, host: np.ndarray, mem: _Memory) -> None:
        assert host.flags.c_contiguous
        self.host = host
        self.shape, self.dtype, self.nbytes = host.shape, host.dtype, host.nbytes
        self.data = _Pointer(mem, host.ctypes.data - mem.ptr)

    def __len__(self) -> int:
        return len(self.host)

    def __getitem__(self, rows: slice) -> Array:
        assert isinstance(rows, slice)
        return Array(self.host[rows], self.data.mem)


def array(host: np.ndarray, capacity: int | None = None) -> Array:
    """A copy of `host` in memory that holds `capacity` rows."""
    rows = capacity or len(host)
    mem = _Memory(host.nbytes // len(host) * rows)
    inside = np.frombuffer(mem._bytes, np.uint8, mem.size, mem.ptr - mem._bytes.ctypes.data)
    whole = inside.view(host.dtype).reshape(rows, *host.shape[1:])
    whole[: len(host)] = host
    return Array(whole[: len(host)], mem)


class Graph:
    graph = 0x6000

    def __init__(self, work: list[Callable[[], None]]) -> None:
        self._work = work
        self.launches = 0

    def upload(self, stream: Any = None) -> None:
        assert stream is None or isinstance(stream, Stream)

    def launch(self, stream: Any = None) -> None:
        assert isinstance(stream, Stream)
        if stream.is_capturing():
            raise CUDARuntimeError("cudaErrorStreamCaptureUnsupported")
        self.launches += 1
        for step in self._work:
            step()


class Stream:
    """Work is done at once, or recorded while the stream is captured."""

    by_ptr: dict[int, Stream] = {}  # noqa: RUF012

    def __init__(self, null: bool = False, non_blocking: bool = False, ptds: bool = False) -> None:
        assert non_blocking, "work of tiler never goes to a blocking stream"
        self.ptr = 0x5000 + 0x10 * len(self.by_ptr)
        self.by_ptr[self.ptr] = self
        self._recorded: list[Callable[[], None]] | None = None
        self.fails_to_capture = False
        self.synchronized = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def synchronize(self) -> None:
        if self._recorded is not None:
            raise CUDARuntimeError("cudaErrorStreamCaptureUnsupported")
        self.synchronized += 1

    def begin_capture(self, mode: int | None = None) -> None:
        assert mode in (None, 2), "other modes make calls of other threads fail"
        self._recorded = []

    def end_capture(self) -> Graph:
        recorded, self._recorded = self._recorded, None
        if recorded is None or self.fails_to_capture:
            raise CUDARuntimeError("cudaErrorStreamCaptureInvalidated")
        return Graph(recorded)

    def is_capturing(self) -> bool:
        return self._recorded is not None

    def do(self, step: Callable[[], None]) -> None:
        if self._recorded is None:
            step()
        else:
            self._recorded.append(step)


class Device:
    compute_capability = CAPABILITY

    def __init__(self, device: int | None = None) -> None:
        self.id = device or 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def _zeros(shape: tuple[int, ...], dtype: Any = float) -> Array:
    return array(np.zeros(shape, dtype))


def make_cupy() -> ModuleType:
    """A module to put into sys.modules as "cupy"."""
    module: Any = ModuleType("cupy")
    module.zeros = module.empty = _zeros
    module.cuda = SimpleNamespace(
        Device=Device,
        Stream=Stream,
        alloc=lambda size: _Pointer(_Memory(size)),
        runtime=SimpleNamespace(
            CUDARuntimeError=CUDARuntimeError,
            streamCaptureModeRelaxed=2,
            getDeviceProperties=lambda device: {"name": DEVICE_NAME.encode()},
        ),
    )
    found: ModuleType = module
    return found
