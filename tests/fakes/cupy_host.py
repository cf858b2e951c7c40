"""The part of CuPy that decode uses, on host memory, with streams that run late.

Work on a stream other than the null stream is queued, and done when somebody waits: for
the stream, or for an event recorded on it. So a copy enqueued on the wrong stream, a
missing event or memory given back too early shows as wrong pixels, not as luck.
"""

from __future__ import annotations

import ctypes
import itertools
import threading
import weakref
from collections import Counter
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

GUARD_BYTES = 64
GUARD, FREED = 0xA5, 0xDD


class OutOfMemoryError(MemoryError):
    """As cupy.cuda.memory.OutOfMemoryError, which the pool raises."""


class CUDARuntimeError(RuntimeError):
    """As cupy.cuda.runtime.CUDARuntimeError, which all else raises."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Memory(SimpleNamespace):
    """Device memory; weakly referable, unlike its base."""


class HostCupy:
    """One fake device. `module` goes into sys.modules as "cupy".

    Freed memory is kept, filled with a pattern, so that `check` sees late writes.

    Attributes:
        live_bytes: allocated on the device now.
        allocations: ever made on the device.
        limit_bytes: allocations over it fail.
        mapped: address of an allocation -> how often it is mapped by its handle.
        devices: indices of the devices made current, by thread name.
        recorded: address of an event -> the stream it was recorded on, and how far that was.
    """

    def __init__(self) -> None:
        self.live_bytes = self.allocations = 0
        self.limit_bytes = 1 << 40
        self.devices: dict[str, set[int]] = {}
        self.streams: dict[int, Any] = {}
        self.recorded: dict[int, tuple[Any, int]] = {}
        self.freed: list[ctypes.Array[Any]] = []
        self.overruns = 0
        self.mapped: Counter[int] = Counter()
        self.freed_while_mapped = 0
        self.module = _module(self)

    def check(self) -> None:
        """Nothing was written outside of an allocation, or after it was given back."""
        for stream in list(self.streams.values()):
            stream.synchronize()
        assert self.overruns == 0
        assert self.freed_while_mapped == 0
        for block in self.freed:
            assert bytes(block) == bytes([FREED]) * len(block)

    def copy(self, to: int, of: int, size: int, stream: Any) -> None:
        """As `tiler.kernels.enqueue_cuda.copy`."""
        self.module.cuda.runtime.memcpyAsync(to, of, size, 4, stream.ptr)

    def run_on(self, stream_ptr: int, work: Callable[[], None]) -> None:
        """Queue work on a stream by its address, as another library does."""
        self.streams[stream_ptr].push(work)


def _module(host: HostCupy) -> ModuleType:
    lock = threading.RLock()
    current = threading.local()

    def device_memory(size: int) -> Any:
        """Memory with guards around it, that `check` can look at when it has been given back."""
        block = (ctypes.c_uint8 * (size + 2 * GUARD_BYTES))()
        ctypes.memset(block, GUARD, len(block))
        holder = Memory(ptr=ctypes.addressof(block) + GUARD_BYTES, size=size)

        def given_back() -> None:
            with lock:
                host.live_bytes -= size
                host.freed_while_mapped += host.mapped[ctypes.addressof(block) + GUARD_BYTES] > 0
                edges = bytes(block[:GUARD_BYTES]) + bytes(block[size + GUARD_BYTES :])
                host.overruns += edges != bytes([GUARD]) * (2 * GUARD_BYTES)
                ctypes.memset(block, FREED, len(block))
                host.freed.append(block)

        weakref.finalize(holder, given_back)
        return holder

    class Stream:
        null: Stream

        def __init__(
            self, null: bool = False, non_blocking: bool = False, ptds: bool = False, priority: int | None = None
        ) -> None:
            if not null and not non_blocking:
                raise TypeError("tiler's streams are non-blocking")
            self.ptr = 0 if null else 0x5000 + 0x10 * len(host.streams)
            self._work: list[Callable[[], None]] = []
            self._done = 0
            host.streams[self.ptr] = self

        def push(self, work: Callable[[], None]) -> None:
            with lock:
                if self.ptr == 0:
                    work()
                else:
                    self._work.append(work)

        def mark(self) -> int:
            with lock:
                return self._done + len(self._work)

        def run_until(self, mark: int) -> None:
            with lock:
                while self._work and self._done < mark:
                    self._done += 1
                    self._work.pop(0)()

        def synchronize(self) -> None:
            self.run_until(self.mark())

        def wait_event(self, event: Event) -> None:
            self.push(event.synchronize)

        def record(self, event: Event | None = None) -> Event:
            event = event or Event()
            event.record(self)
            return event

        def __enter__(self) -> Stream:
            current.__dict__.setdefault("streams", []).append(self)
            return self

        def __exit__(self, *_: object) -> None:
            current.streams.pop()

    recorded = host.recorded
    shared_events: set[int] = set()
    numbers = itertools.count(0x9000)

    class Event:
        def __init__(self, block: bool = False, disable_timing: bool = False, interprocess: bool = False) -> None:
            self.ptr = next(numbers)
            if interprocess:
                if not disable_timing:
                    raise ValueError("cudaErrorInvalidValue: invalid argument")
                shared_events.add(self.ptr)

        def record(self, stream: Stream | None = None) -> None:
            if not isinstance(stream, Stream):
                raise TypeError("say on which stream")
            recorded[self.ptr] = (stream, stream.mark())

        def synchronize(self) -> None:
            if self.ptr in recorded:
                stream, mark = recorded[self.ptr]
                stream.run_until(mark)

    class Device:
        def __init__(self, device: int | None = None) -> None:
            self.id = int(device or 0)

        def __enter__(self) -> Device:
            current.__dict__.setdefault("devices", []).append(self.id)
            host.devices.setdefault(threading.current_thread().name, set()).add(self.id)
            return self

        def __exit__(self, *_: object) -> None:
            current.devices.pop()

        def use(self) -> None:
            current.devices = [*getattr(current, "devices", [])[:-1], self.id]
            host.devices.setdefault(threading.current_thread().name, set()).add(self.id)

    class UnownedMemory:
        def __init__(self, ptr: int, size: int, owner: object, device_id: int = -1) -> None:
            if not (isinstance(ptr, int) and isinstance(size, int) and ptr > 0 and size > 0):
                raise TypeError("ptr and size are positive integers")
            self.ptr, self.size, self._owner = ptr, size, owner

    class MemoryPointer:
        def __init__(self, mem: Any, offset: int) -> None:
            self.mem, self.ptr = mem, mem.ptr + offset

    def allocated(size: int, full: Exception) -> Any:
        if not getattr(current, "devices", None):
            raise RuntimeError("no device is current on this thread")
        with lock:
            if host.live_bytes + size > host.limit_bytes:
                raise full
            host.live_bytes += size
            host.allocations += 1
        return device_memory(size)

    def alloc(size: int) -> MemoryPointer:
        return MemoryPointer(allocated(size, OutOfMemoryError(f"Out of memory allocating {size:,} bytes")), 0)

    def memory(size: int) -> Any:
        """Past the pool."""
        return allocated(size, CUDARuntimeError(2, "cudaErrorMemoryAllocation: out of memory"))

    def get_mem_handle(address: int) -> bytes:
        return str(address).encode().ljust(64)

    def open_mem_handle(handle: bytes, flags: int = 1) -> int:
        if not isinstance(handle, bytes) or len(handle) != 64:
            raise TypeError("a handle is 64 bytes")
        if not getattr(current, "devices", None):
            raise RuntimeError("no device is current on this thread")
        with lock:
            host.mapped[int(handle)] += 1
        return int(handle)

    def close_mem_handle(address: int) -> None:
        with lock:
            if host.mapped[address] < 1:
                raise ValueError("cudaErrorInvalidValue: invalid argument")
            host.mapped[address] -= 1

    def get_event_handle(event: int) -> bytes:
        if event not in shared_events:
            raise ValueError("cudaErrorInvalidResourceHandle: invalid resource handle")
        return str(event).encode().ljust(64)

    def open_event_handle(handle: bytes) -> int:
        return int(handle)

    def alloc_pinned_memory(size: int) -> Any:
        array = ctypes.c_uint8 * size
        return type("PinnedMemoryPointer", (array,), {"ptr": property(ctypes.addressof)})()

    def ndarray(
        shape: tuple[int, ...], dtype: Any = float, memptr: Any = None, strides: Any = None, order: str = "C"
    ) -> Any:
        dtype = np.dtype(dtype)
        steps = strides or tuple(int(np.prod(shape[i + 1 :])) * dtype.itemsize for i in range(len(shape)))
        if (shape[0] - 1) * steps[0] + shape[1] * dtype.itemsize > memptr.mem.size:
            raise ValueError("the array reaches past its memory")

        interface = {"shape": tuple(shape), "typestr": dtype.str, "data": (memptr.ptr, False)}
        interface |= {"strides": tuple(steps), "version": 3}
        return np.asarray(SimpleNamespace(__array_interface__=interface, memory=memptr))

    def memcpy_async(dst: int, src: int, size: int, kind: int, stream: int) -> None:
        if not all(isinstance(value, int) for value in (dst, src, size, kind, stream)):
            raise TypeError("memcpyAsync takes integers")
        if not getattr(current, "devices", None):
            raise RuntimeError("no device is current on this thread")
        host.streams[stream].push(lambda: ctypes.memmove(dst, src, size) and None)

    cupy = ModuleType("cupy")
    cupy.ndarray = ndarray  # type: ignore[attr-defined]
    Stream.null = Stream(null=True)
    cupy.cuda = SimpleNamespace(  # type: ignore[attr-defined]
        Device=Device,
        Event=Event,
        Memory=memory,
        MemoryPointer=MemoryPointer,
        Stream=Stream,
        UnownedMemory=UnownedMemory,
        alloc=alloc,
        alloc_pinned_memory=alloc_pinned_memory,
        runtime=SimpleNamespace(
            CUDARuntimeError=CUDARuntimeError,
            memcpyAsync=memcpy_async,
            memcpyHostToDevice=1,
            memcpyDeviceToDevice=3,
            ipcGetMemHandle=get_mem_handle,
            ipcOpenMemHandle=open_mem_handle,
            ipcCloseMemHandle=close_mem_handle,
            ipcGetEventHandle=get_event_handle,
            ipcOpenEventHandle=open_event_handle,
        ),
    )
    return cupy
