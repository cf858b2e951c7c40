"""A process that decodes files on NVDEC for a run in another one: its surfaces, its readers and its main loop.

The run's process maps the surfaces through CUDA's handles for other processes, so samples stay where NVDEC put them.
What decodes is the run's own code (`nvdec_cuda.py`, `source.py`); only where the surfaces come from and where the
pictures go differs. `import_cuda.py` is the other side, docs/adr/012 says what it is good for.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import cupy

from tiler.decode.base import Needed, close_readers
from tiler.decode.handover import BLOCKS, Close, Ended, Handover, Job, Logged, Look, Opened, Refused, Seen, Start, Stop
from tiler.decode.keyframe import RefusedError
from tiler.decode.nvdec_cuda import NvdecDecoder
from tiler.decode.source import SourceReader
from tiler.decode.surfaces_cuda import Shape, Surface
from tiler.errors import InputError, StageError
from tiler.memory import surface_bytes
from tiler.types import Frame

_ALIGNMENT = 512
_OWN_MAPPING = 2 << 20
"""Smaller allocations share a piece of memory, which is then mapped as a whole."""
_OUT_OF_MEMORY = 2
"""cudaErrorMemoryAllocation."""
_STOP_CHECK_S = 0.05
_PATIENCE_S = 10.0

Tell = Callable[[Any], None]


class _Block:
    """The surfaces of one size, in one allocation that another process can map.

    Attributes:
        number: of the block, from 0 for each source.
        surfaces: of it.
        memory_handle: CUDA's handle of the allocation.
        ready_handles: of the surfaces' events.
    """

    def __init__(self, number: int, shape: Shape, slots: int) -> None:
        self.number, self.shape = number, shape
        step = block_step(shape)
        memory = cupy.cuda.Memory(max(slots * step, _OWN_MAPPING))
        events = [cupy.cuda.Event(disable_timing=True, interprocess=True) for _ in range(slots)]
        self.surfaces = [
            Surface(shape, cupy.cuda.MemoryPointer(memory, slot * step), event) for slot, event in enumerate(events)
        ]
        runtime = cupy.cuda.runtime
        self.memory_handle = bytes(runtime.ipcGetMemHandle(memory.ptr))
        self.ready_handles = tuple(bytes(runtime.ipcGetEventHandle(event.ptr)) for event in events)


def block_step(shape: Shape) -> int:
    """Bytes from one surface of a block to the next."""
    return -(-surface_bytes(*shape) // _ALIGNMENT) * _ALIGNMENT


@dataclass(frozen=True, slots=True)
class Loan:
    """A surface that is lent until the run's process gives it back, and its place."""

    surface: Surface
    block: _Block
    slot: int


class ExportRing:
    """Surfaces that the run's process gives back; a `SurfaceRing` to the decoder. One thread at a time uses it."""

    def __init__(self, slots: int, device: int, handover: Handover) -> None:
        """
        Args:
            slots: surfaces to hold.
            device: index of the CUDA device.
            handover: of the source.
        """
        self.slots = slots
        self._device = device
        self._handover = handover
        self._block: _Block | None = None
        self._left: list[_Block] = []
        with cupy.cuda.Device(device):
            self.stream = cupy.cuda.Stream(non_blocking=True)

    def fit(self, width: int, height: int, sixteen_bit: bool) -> None:
        """See `SurfaceRing.fit`; surfaces of another size stay where they are until the run has let go of them.

        Raises:
            MemoryError: the device has no room for them, or too many older ones are still in use.
            RefusedError: it has none for the first ones; the run's process may have set some aside.
        """
        shape = (width, height, sixteen_bit)
        number = 0
        if self._block is not None:
            if self._block.shape == shape:
                return
            number = self._block.number + 1
            self._left.append(self._block)
            self._block = None
        with cupy.cuda.Device(self._device):
            patient_until_s = time.monotonic() + _PATIENCE_S
            self._free_left()
            while number >= BLOCKS and any(block.number == number - BLOCKS for block in self._left):
                if time.monotonic() > patient_until_s:
                    raise MemoryError(f"pictures of {BLOCKS} older sizes are still in use")
                self._handover.wait_for_room(_STOP_CHECK_S)
                self._free_left()
            try:
                self._block = _Block(number, shape, self.slots)
            except cupy.cuda.runtime.CUDARuntimeError as error:  # not the pool's MemoryError: this goes past the pool
                if error.status != _OUT_OF_MEMORY:
                    raise
                if number == 0:
                    size = f"{self.slots} surfaces of {width}x{height}"
                    raise RefusedError(f"no room on the GPU for {size}: {error}") from error
                raise MemoryError(str(error)) from error
        self._handover.map(number)

    def acquire(self, stopped: Callable[[], bool]) -> Loan | None:
        """See `SurfaceRing.acquire`."""
        block = self._block
        if block is None:
            raise ValueError("fit the ring to a size first")
        if self._left:
            self._free_left()
        while (slot := self._handover.lend(block.number, self.slots)) is None:
            if stopped():
                return None
            self._handover.wait_for_room(_STOP_CHECK_S)
        return Loan(block.surfaces[slot], block, slot)

    def _free_left(self) -> None:
        self._left = [block for block in self._left if self._handover.is_mapped(block.number)]


class Exporter(SourceReader):
    """Reads a file and hands its pictures over, instead of keeping them for `next`."""

    def __init__(self, job: Job, slots: int, device: int, needed: Needed | None, tell: Tell) -> None:
        """Open the file.

        Args:
            job: which.
            slots: surfaces of it.
            device: index of the CUDA device.
            needed: see `NvdecDecoder`.
            tell: sends a message to the run's process; from any thread.

        Raises:
            InputError: it cannot be opened.
            RefusedError: NVDEC does not decode it.
        """
        self._handover, self._tell = job.handover, tell
        self._place = job.stream
        self._look: Look | None = None
        ring: Any = ExportRing(slots, device, job.handover)
        super().__init__(
            job.source, job.uri, job.stream, 1, live=False,
            opener=lambda source, uri, stream, _: NvdecDecoder(source, uri, stream, ring, device, needed),
        )  # fmt: skip

    def _put(self, frame: Frame) -> bool:
        if self._stop.is_set():
            return False
        look, slot = self._look_of(frame), frame.owner.slot
        self._handover.report(self.counts.errors, self.lag_s)
        self._handover.put(frame.pts, frame.arrival_s, look.number, slot)
        return True

    def _run(self) -> None:
        super()._run()
        self._handover.report(self.counts.errors, self.lag_s)
        failure = None if self.failure is None else str(self.failure).removeprefix(f"decode ({self.source.id}): ")
        bug = None if self._bug is None else f"{type(self._bug).__name__}: {self._bug}"
        with suppress(OSError):  # the run is gone: nobody wants to know
            self._tell(Ended(self._place, failure, bug))
        self._handover.end()

    def _look_of(self, frame: Frame) -> Look:
        """Of a picture; a new one is told first."""
        block, look = frame.owner.block, self._look
        if (
            look is None
            or look.block != block.number
            or (look.matrix, look.full_range, look.rotation, look.sample_aspect, look.source_size)
            != (frame.matrix, frame.full_range, frame.rotation, frame.sample_aspect, frame.source_size)
        ):
            look = self._look = Look(
                0 if look is None else look.number + 1, block.number, block.memory_handle, block.ready_handles,
                block.shape, frame.matrix, frame.full_range, frame.rotation, frame.sample_aspect, frame.source_size,
            )  # fmt: skip
            self._tell(Seen(self._place, look))
        return look


class _Forward(logging.Handler):
    """Sends what is logged to the run's process."""

    def __init__(self, tell: Tell) -> None:
        super().__init__()
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):
            self._tell(Logged(record.name, record.levelno, self.format(record)))


def main(
    connection: Connection, jobs: Sequence[Job], slots: int, device: int, needed: Needed | None, log_level: int
) -> None:
    """The whole life of a process that decodes; see `serve`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all processes; the run says when it is over
    lock = threading.Lock()

    def tell(message: Any) -> None:
        with lock:
            connection.send(message)

    log = logging.getLogger("tiler")
    log.setLevel(log_level)
    log.addHandler(_Forward(tell))
    log.propagate = False
    serve(connection, tell, jobs, slots, device, needed)


def serve(
    connection: Connection, tell: Tell, jobs: Sequence[Job], slots: int, device: int, needed: Needed | None
) -> None:
    """Open the sources, say how that went, and read those that the run starts until it stops or is gone.

    Args:
        connection: to the run's process; what comes from there are `Start`, `Close` and `Stop`.
        tell: sends a message there; from any thread.
        jobs: the sources.
        slots: surfaces of each source.
        device: index of the CUDA device.
        needed: see `NvdecDecoder`.
    """
    readers: dict[int, Exporter] = {}
    try:
        for job in jobs:
            try:
                reader = Exporter(job, slots, device, needed, tell)
            except (InputError, StageError, RefusedError) as error:
                tell(Refused(job.stream, str(error)))
                continue
            except Exception as error:  # the run's own process will meet it again, and say where
                tell(Refused(job.stream, f"{type(error).__name__}: {error}"))
                continue
            readers[job.stream] = reader
            assert reader.info is not None
            tell(Opened(job.stream, reader.info))
        while not isinstance(message := connection.recv(), Stop):
            if isinstance(message, Start):
                readers[message.stream].start()
            elif isinstance(message, Close):
                readers[message.stream].close()
    except (EOFError, OSError):
        pass  # the run is gone
    finally:
        close_readers(readers.values())
