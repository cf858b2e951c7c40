"""The part of CuPy that the encoders use, on NumPy memory: as strict, and as late, as the real one.

Nothing that is put on a stream happens until something waits for it: an event or a stream that is synchronised,
or a driver that reads what the stream writes. Code that hands memory back too early, or reads it before the
picture is there, works on the wrong bytes here every time, and not once in a thousand runs. With
`gpu["at_once"]` everything happens as it is enqueued, which shows what the other extreme hides.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from types import ModuleType, TracebackType
from typing import Any

import numpy as np

_CUDA = 2  # kDLCUDA
_local = threading.local()
streams: dict[int, Stream] = {}
"""Every stream by its `ptr`, for the fakes of the drivers."""
gpu = {"at_once": False}
"""The other extreme: what is put on a stream happens there and then."""


class Device:
    """cupy.cuda.Device: the current device is a matter of the thread."""

    def __init__(self, device: int) -> None:
        self.id = device

    def __enter__(self) -> Device:
        self._before = getattr(_local, "device", None)
        _local.device = self.id
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _local.device = self._before


def current_device() -> int | None:
    """The device that the thread set; None when it did not."""
    return getattr(_local, "device", None)


class Event:
    """cupy.cuda.Event."""

    def __init__(self, block: bool = False, disable_timing: bool = False, interprocess: bool = False) -> None:
        self._stream: Stream | None = None
        self._position = 0

    def record(self, stream: Stream) -> None:
        self._stream, self._position = stream, stream.length

    def synchronize(self) -> None:
        if self._stream is not None:
            self._stream.run(self._position)


class Stream:
    """cupy.cuda.Stream: a list of work that is done when somebody waits."""

    def __init__(self, null: bool = False, non_blocking: bool = False, ptds: bool = False) -> None:
        assert non_blocking, "every stage owns a non-blocking stream"
        assert current_device() is not None, "a stream belongs to the device that is current on the thread"
        self._work: list[Callable[[], None]] = []
        self._done = 0
        self.ptr = 0x1000 + 16 * len(streams)
        streams[self.ptr] = self

    @property
    def length(self) -> int:
        return len(self._work)

    def add(self, work: Callable[[], None]) -> None:
        assert current_device() is not None, "work is enqueued with the device current on the thread"
        self._work.append(work)
        if gpu["at_once"]:
            self.run()

    def run(self, until: int | None = None) -> None:
        """Do the work up to a position; what another stream must do first is done first."""
        until = len(self._work) if until is None else until
        while self._done < until:
            self._done += 1
            self._work[self._done - 1]()

    def wait_event(self, event: Event) -> None:
        stream, position = event._stream, event._position  # as recorded now: a later record does not count
        if stream is not None:
            self.add(lambda: stream.run(position))

    def record(self, event: Event) -> Event:
        event.record(self)
        return event

    def synchronize(self) -> None:
        self.run()

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return


class _Memory:
    """cupy.cuda.MemoryPointer of a whole array."""

    def __init__(self, host: np.ndarray) -> None:
        self.host, self.ptr = host, host.ctypes.data

    def memset_async(self, value: int, size: int, stream: Stream | None = None) -> None:
        assert stream is not None
        assert size == self.host.nbytes
        stream.add(lambda: self.host.fill(value))

    def copy_from_device_async(self, src: _Memory, size: int, stream: Stream | None = None) -> None:
        assert stream is not None
        assert size == self.host.nbytes == src.host.nbytes
        stream.add(lambda: np.copyto(self.host, src.host))


class Array:
    """cupy.ndarray: no way to the host but `get`."""

    def __init__(self, host: np.ndarray) -> None:
        self.host = host
        self.shape, self.nbytes, self.data = host.shape, host.nbytes, _Memory(host)

    def __getitem__(self, key: Any) -> Array:
        return Array(self.host[key])

    def reshape(self, *shape: int) -> Array:
        view = self.host.reshape(*shape)
        assert np.shares_memory(view, self.host)
        return Array(view)

    def get(
        self, stream: Stream | None = None, order: str = "C", out: np.ndarray | None = None, blocking: bool = True
    ) -> np.ndarray:
        assert stream is not None
        assert out is not None
        assert not blocking
        assert any(np.shares_memory(out, pinned) for pinned in _pinned), "only copies to pinned memory are asynchronous"
        assert (out.shape, out.dtype) == (self.shape, self.host.dtype)
        stream.add(lambda: np.copyto(out, self.host))
        return out

    def __dlpack_device__(self) -> tuple[int, int]:
        return _CUDA, 0

    def __dlpack__(
        self, *, stream: int | None = None, max_version: Any = None, dl_device: Any = None, copy: Any = None
    ) -> Any:
        """NumPy's capsule, but of device memory: the field after the pointer says which."""
        assert stream in streams, f"no such stream: {stream}"
        capsule = self.host.__dlpack__()
        pointer = ctypes.pythonapi.PyCapsule_GetPointer
        pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
        address = pointer(capsule, b"dltensor")
        assert address is not None
        ctypes.c_int32.from_address(address + ctypes.sizeof(ctypes.c_void_p)).value = _CUDA
        return capsule


_pinned: list[np.ndarray] = []


def empty(shape: tuple[int, ...], dtype: Any) -> Array:
    """Device memory holds anything at first."""
    assert current_device() is not None, "memory belongs to the device that is current on the thread"
    return Array(np.full(shape, 0xCD, dtype))


def empty_pinned(shape: tuple[int, ...], dtype: Any = float, order: str = "C") -> np.ndarray:
    _pinned.append(np.full(shape, 0xCD, dtype))
    return _pinned[-1]


def modules() -> dict[str, ModuleType]:
    """`cupy` and `cupyx` for sys.modules."""
    cupy, cupyx = ModuleType("cupy"), ModuleType("cupyx")
    cuda = ModuleType("cupy.cuda")
    for name in ("Device", "Event", "Stream"):
        setattr(cuda, name, globals()[name])
    cupy.__dict__.update(cuda=cuda, empty=empty, uint8=np.uint8, ndarray=Array)
    cupyx.__dict__.update(empty_pinned=empty_pinned)
    return {"cupy": cupy, "cupy.cuda": cuda, "cupyx": cupyx}
