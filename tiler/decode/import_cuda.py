"""Processes that decode the files of a run, and the readers of those files on the run's side.

Threads that decode take turns with the stages of the run at Python's interpreter, which is what limits a run that goes
as fast as it can. Decoding in processes of its own leaves the interpreter to the stages; pictures stay in the device's
memory, which the run maps. A source that such a process refuses is opened by the run itself, down the usual ladder.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import sys
import threading
from collections.abc import Callable, Sequence
from multiprocessing.context import SpawnContext
from typing import Any

import cupy

from tiler.closing import Closing
from tiler.config.loader import LoadedConfig
from tiler.config.models import Source
from tiler.decode import export_cuda
from tiler.decode.base import Needed, Reader, ReaderCounts, StreamInfo
from tiler.decode.handover import Close, Ended, Handover, Job, Logged, Look, Opened, Refused, Seen, Start, Stop
from tiler.decode.still import image_file
from tiler.decode.surfaces_cuda import Surface
from tiler.errors import StageError
from tiler.types import Frame

logger = logging.getLogger(__name__)

_STOP_S = 5.0


class _Event(cupy.cuda.Event):  # type: ignore[misc]
    """Another process's event."""

    def __init__(self, handle: bytes) -> None:
        self.ptr = cupy.cuda.runtime.ipcOpenEventHandle(handle)


class _Mapping:
    """Another process's block of surfaces in this one's address space, for as long as one of them is in use."""

    def __init__(self, look: Look, device: int, handover: Handover) -> None:
        self._block, self._device, self._handover = look.block, cupy.cuda.Device(device), handover
        with self._device:
            self.address: int = cupy.cuda.runtime.ipcOpenMemHandle(look.memory)

    def __del__(self) -> None:
        if not sys.is_finalizing():
            with self._device:
                cupy.cuda.runtime.ipcCloseMemHandle(self.address)
            self._handover.unmap(self._block)


def _mapped(look: Look, device: int, handover: Handover) -> list[Surface]:
    """The surfaces of a look's block; their memory stays mapped until the last of them goes."""
    mapping, step = _Mapping(look, device, handover), export_cuda.block_step(look.surface)
    memory = cupy.cuda.UnownedMemory(mapping.address, step * len(look.ready), mapping, device)
    with cupy.cuda.Device(device):
        return [
            Surface(look.surface, cupy.cuda.MemoryPointer(memory, slot * step), _Event(handle))
            for slot, handle in enumerate(look.ready)
        ]


class _Lease:
    """A surface on loan; it goes back when the lease is collected."""

    __slots__ = ("_block", "_handover", "_slot", "surface")

    def __init__(self, surface: Surface, handover: Handover, block: int, slot: int) -> None:
        self.surface = surface
        self._handover, self._block, self._slot = handover, block, slot

    def __del__(self) -> None:
        self._handover.give_back(self._block, self._slot)


class ImportedReader(Reader):
    """The pictures of a file that another process decodes; a `SourceReader` that needs no thread.

    Any thread may close it.
    """

    def __init__(self, job: Job, info: StreamInfo, device: int, tell: Callable[[Any], None]) -> None:
        """
        Args:
            job: what is decoded.
            info: what the other process said of it.
            device: index of the CUDA device.
            tell: sends a message to the other process.
        """
        self.source, self.info, self._read = job.source, info, 0
        self._outages = 0
        self.failure = self.outage = None
        self.endless = self.remote = False
        self._place, self._handover, self._device, self._tell = job.stream, job.handover, device, tell
        self._told = threading.Condition()
        self._looks: dict[int, Look] = {}
        self._ended: Ended | None = None
        self._lost: str | None = None
        self._look: Look | None = None
        self._surfaces: list[Surface] = []
        self._over = self._closed = False

    def start(self) -> None:
        """Begin to read; once."""
        with contextlib.suppress(OSError):  # the process has ended: `next` says so
            self._tell(Start(self._place))

    def next(self) -> Frame | None:
        """The next frame in order, waiting for it; None at the end or after a failure.

        Raises:
            RuntimeError: the other process made a mistake.
        """
        if self._over:
            return None
        handed, look = self._handover.take(), self._look
        if handed is not None and (look is None or look.number != handed.look):
            look = None if handed.last else self._look_of(handed.look)
        if handed is None or look is None:
            self._over = True
            self._end()
            return None
        self._read += 1
        surface: Surface = self._surfaces[handed.slot]
        lease = _Lease(surface, self._handover, look.block, handed.slot)
        if surface.look is not look:
            surface.take_on(
                look, self._place, matrix=look.matrix, full_range=look.full_range, rotation=look.rotation,
                sample_aspect=look.sample_aspect, source_size=look.source_size,
            )  # fmt: skip
        return surface.template.at(handed.pts, handed.arrival_s, lease)

    @property
    def counts(self) -> ReaderCounts:
        return ReaderCounts(self._read, errors=self._handover.errors + self._outages)

    @property
    def lag_s(self) -> float:
        """Of the decoder at the picture that was decoded last; see `DemuxedDecoder.lag_s`."""
        return self._handover.lag_s

    def wait(self) -> None:
        """What a closed source used belongs to the other process."""

    def close(self) -> None:
        """As `stop`: there is no thread to wait for."""
        self.stop()

    def stop(self) -> None:
        """Take no more pictures; may be called twice."""
        if not self._closed:
            self._closed = True
            with contextlib.suppress(OSError):  # the process has ended
                self._tell(Close(self._place))
            with self._told:
                self._told.notify_all()
            self._handover.wake()

    # What the other process says, on the thread that listens

    def hear(self, message: Seen | Ended) -> None:
        """Take note of a new look, or of the end."""
        with self._told:
            if isinstance(message, Seen):
                self._looks[message.look.number] = message.look
            else:
                self._ended = message
            self._told.notify_all()

    def lose(self, why: str) -> None:
        """The other process is gone."""
        with self._told:
            if self._ended is None:
                self._lost = why
            self._told.notify_all()
        self._handover.wake()

    def _look_of(self, number: int) -> Look | None:
        """The look that pictures come with from now on, another one; None when it was never told."""
        with self._told:
            self._told.wait_for(lambda: number in self._looks or self._lost is not None or self._closed)
            look = self._looks.pop(number, None)
        if look is not None:
            if self._look is None or self._look.block != look.block:
                self._surfaces = _mapped(look, self._device, self._handover)
            self._look = look
        return look

    def _end(self) -> None:
        """Why nothing comes any more."""
        self._surfaces = []
        if self._closed:
            return
        with self._told:
            self._told.wait_for(lambda: self._ended is not None or self._lost is not None)
            ended, lost = self._ended, self._lost
        if ended is None:
            self.failure, self._outages = StageError("decode", str(lost), stream=self.source.id), 1
            logger.warning("stream ended early: %s", self.failure)
        elif ended.bug is not None:
            raise RuntimeError(f"the process that decodes {self.source.id}: {ended.bug}")
        elif ended.failure is not None:
            self.failure = StageError("decode", ended.failure, stream=self.source.id)


class DecodeProcess(Closing):
    """A process that decodes some of the sources of a run.

    Attributes:
        readers: place of a source -> its reader, of those that it opened.
        refusals: place of a source -> why it did not.
    """

    def __init__(
        self, context: SpawnContext, jobs: Sequence[Job], slots: int, device: int, needed: Needed | None, name: str
    ) -> None:
        """Start it; `opened` waits until it has opened the sources.

        Args:
            context: of multiprocessing; a process with CUDA cannot be forked.
            jobs, slots, device, needed: see `export_cuda.serve`.
            name: of the process.
        """
        self.readers: dict[int, ImportedReader] = {}
        self.refusals: dict[int, str] = {}
        self._jobs, self._device = jobs, device
        self._sending = threading.Lock()
        self._stopping = False
        self._connection, theirs = context.Pipe()
        log_level = logging.getLogger("tiler").getEffectiveLevel()
        self._process = context.Process(
            target=export_cuda.main, args=(theirs, jobs, slots, device, needed, log_level), name=name, daemon=True
        )
        self._process.start()
        theirs.close()  # or it would stay open when the process is gone
        self._listener = threading.Thread(target=self._listen, name=name, daemon=True)

    def opened(self) -> None:
        """Wait for what became of the sources; then listen."""
        jobs = {job.stream: job for job in self._jobs}
        try:
            while len(self.readers) + len(self.refusals) < len(jobs):
                message = self._connection.recv()
                if isinstance(message, Opened):
                    job = jobs[message.stream]
                    self.readers[job.stream] = ImportedReader(job, message.info, self._device, self._tell)
                elif isinstance(message, Refused):
                    self.refusals[message.stream] = message.why
                else:
                    self._hear(message)
        except (EOFError, OSError):
            why = self._gone()
            logger.warning("decoded by the run itself: %s (%s)", ", ".join(job.source.id for job in self._jobs), why)
            self.refusals |= dict.fromkeys(jobs, why)
            self.readers.clear()
        self._listener.start()

    def close(self) -> None:
        """Let it end, with all that it holds; may be called twice."""
        self._stopping = True
        with contextlib.suppress(OSError):
            self._tell(Stop())
        self._process.join(_STOP_S)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
        if self._listener.is_alive():
            self._listener.join()

    def _tell(self, message: Any) -> None:
        with self._sending:
            self._connection.send(message)

    def _listen(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                self._hear(self._connection.recv())
        if not self._stopping:
            why = self._gone()
            for reader in self.readers.values():
                reader.lose(why)
        with self._sending:
            self._connection.close()

    def _hear(self, message: Any) -> None:
        if isinstance(message, Logged):
            logging.getLogger(message.name).log(message.level, "%s", message.text)
        elif isinstance(message, Seen | Ended):
            self.readers[message.stream].hear(message)

    def _gone(self) -> str:
        self._process.join(_STOP_S)
        return f"the process {self._process.name} ended unexpectedly (exit code {self._process.exitcode})"


def files_of(loaded: LoadedConfig) -> list[tuple[int, Source, str]]:
    """The sources of a run that another process may decode: place, entry in the config, and what FFmpeg opens.

    Images are read once, and live runs keep to a clock: threads do for both.
    """
    if loaded.config.live:
        logger.warning("decode_processes is for files that need not keep to a clock; this run decodes on threads")
        return []
    files = []
    for place, source in enumerate(loaded.config.sources):
        uri = loaded.resolve(source.uri)
        if uri.startswith("sample://"):
            from tiler.samples import resolve  # renders the sample when it is asked for first

            uri = str(resolve(uri).path)
        if image_file(uri) is None:
            files.append((place, source, uri))
    return files


def open_processes(
    sources: Sequence[tuple[int, Source, str]], count: int, slots: int, device: int, needed: Needed | None
) -> list[DecodeProcess]:
    """Decode sources in processes of their own.

    Args:
        sources: see `files_of`; each goes to the next process.
        count: processes at most.
        slots: surfaces of each source; see `CudaOpener`.
        device: index of the CUDA device.
        needed: see `NvdecDecoder`.
    """
    context = multiprocessing.get_context("spawn")
    jobs = [Job(source, uri, place, Handover(context)) for place, source, uri in sources]
    count = min(count, len(jobs))
    processes = [
        DecodeProcess(context, jobs[i::count], slots, device, needed, f"tiler-decode-{i}") for i in range(count)
    ]
    for process in processes:
        process.opened()
    return processes
