"""Decoded pictures on their way from the process that decodes them to the run: where each lies, not the samples.

One `Handover` belongs to one source. It lies in memory that both processes see, so that a picture costs neither of
them a system call unless it has to wait: the side that decodes writes a record and raises a semaphore, the run takes
it, and says when a surface is free again by clearing its byte.

What is rare is said in messages over a pipe, which are the other types here.
"""

from __future__ import annotations

import ctypes
from fractions import Fraction
from functools import cached_property
from multiprocessing.context import BaseContext
from multiprocessing.sharedctypes import RawValue
from typing import Any, NamedTuple

from tiler.config.models import Source
from tiler.decode.base import StreamInfo
from tiler.memory import SURFACES
from tiler.types import Matrix

BLOCKS = 4
"""Blocks of surfaces that may be in use at once: a stream takes another one when its pictures change their size."""
_END = -1
_WOKEN_FOR = 4
"""Surfaces that come back before the side that decodes is woken: once for several of them, as long as pictures wait."""
_RECORDS = BLOCKS * SURFACES + 1


class Handed(ctypes.Structure):
    """A picture that was handed over, or with `last` the end of them; valid until its surface is given back.

    Attributes:
        number: counted from 1.
        pts, arrival_s: as in `Frame`.
        look: number of the `Look` that tells the rest of it.
        slot: which surface of that look's block.
    """

    _fields_ = (
        ("number", ctypes.c_int64),
        ("pts", ctypes.c_int64),
        ("arrival_s", ctypes.c_double),
        ("look", ctypes.c_int32),
        ("slot", ctypes.c_int32),
    )

    @property
    def last(self) -> bool:
        return bool(self.slot == _END)


class _Shared(ctypes.Structure):
    _fields_ = (
        ("records", Handed * _RECORDS),
        ("lent", (ctypes.c_uint8 * SURFACES) * BLOCKS),
        ("mapped", ctypes.c_uint8 * BLOCKS),
        ("errors", ctypes.c_int64),
        ("lag_s", ctypes.c_double),
    )


class Handover:
    """The pictures of one source: given by one thread of one process, taken by one thread of another, in order.

    A surface is lent from `lend` until `give_back`, so there is always room for a record.
    """

    def __init__(self, context: BaseContext) -> None:
        """
        Args:
            context: of multiprocessing; the other process is to get this object as an argument when it starts.
        """
        self._shared: Any = RawValue(_Shared)
        self._items = context.Semaphore(0)
        self._room = context.Semaphore(0)
        self._count = self._returned = 0
        self._starved = False

    # The side that decodes

    def lend(self, block: int, slots: int) -> int | None:
        """A free surface of a block, which is lent from now on; None when all are.

        Args:
            block: number of the block.
            slots: surfaces it has.
        """
        lent = self._shared.lent[block % BLOCKS]
        for slot in range(slots):
            if not lent[slot]:
                lent[slot] = 1
                return slot
        return None

    def wait_for_room(self, timeout_s: float) -> None:
        """Until some surfaces or a block came back since the last call, the run waits, or the time is over."""
        if self._room.acquire(timeout=timeout_s):
            while self._room.acquire(block=False):
                pass

    def put(self, pts: int, arrival_s: float, look: int, slot: int) -> None:
        """Hand a picture over; see `Handed`."""
        record = self._shared.records[self._count % _RECORDS]
        record.pts, record.arrival_s, record.look, record.slot = pts, arrival_s, look, slot
        self._count += 1
        record.number = self._count
        self._items.release()

    def end(self) -> None:
        """No picture comes any more."""
        self.put(0, 0.0, _END, _END)

    def report(self, errors: int, lag_s: float) -> None:
        """What the run is to know of the decoder; see `ReaderCounts.errors` and `DemuxedDecoder.lag_s`."""
        self._shared.errors, self._shared.lag_s = errors, lag_s

    def map(self, block: int) -> None:
        """A block begins: its memory must stay until the other side has let go of it."""
        self._shared.mapped[block % BLOCKS] = 1

    def is_mapped(self, block: int) -> bool:
        """Whether the memory of a block, or of the last one in its place, is in use on the other side."""
        return bool(self._shared.mapped[block % BLOCKS])

    # The side of the run: what it asks for with each picture is looked up once.

    @cached_property
    def _records(self) -> list[Handed]:
        return list(self._shared.records)

    @cached_property
    def _lent(self) -> list[Any]:
        return list(self._shared.lent)

    def take(self) -> Handed | None:
        """The next picture, waiting for it; None when `wake` was called instead."""
        if not self._items.acquire(block=False):
            self._starved = True
            self._room.release()
            self._items.acquire()
            self._starved = False
        handed = self._records[self._count % _RECORDS]
        if handed.number != self._count + 1:
            return None
        self._count += 1
        return handed

    def wake(self) -> None:
        """Let a `take` that waits, or the next one that would have to, return nothing. From any thread."""
        self._items.release()

    def give_back(self, block: int, slot: int) -> None:
        """A surface is free again. From any thread, in a finalizer, too."""
        self._lent[block % BLOCKS][slot] = 0
        self._returned += 1
        if self._starved or self._returned % _WOKEN_FOR == 0:
            self._room.release()

    def unmap(self, block: int) -> None:
        """Nothing of a block's memory is in use here any more."""
        self._shared.mapped[block % BLOCKS] = 0
        self._room.release()

    @property
    def errors(self) -> int:
        return int(self._shared.errors)

    @property
    def lag_s(self) -> float:
        return float(self._shared.lag_s)


class Job(NamedTuple):
    """A source that a process is to decode: its entry in the config, what FFmpeg opens, its place, its handover."""

    source: Source
    uri: str
    stream: int
    handover: Handover


class Look(NamedTuple):
    """What pictures that come one after another have in common.

    Attributes:
        number: counted from 0 for each source; pictures come in the order of it.
        block: number of the block of surfaces they lie in.
        memory: CUDA's handle of the block.
        ready: CUDA's handles of the events of its surfaces; see `Frame.ready`.
        surface: (width, height, sixteen_bit) of a surface.
        matrix, full_range, rotation, sample_aspect, source_size: as in `Frame`.
    """

    number: int
    block: int
    memory: bytes
    ready: tuple[bytes, ...]
    surface: tuple[int, int, bool]
    matrix: Matrix
    full_range: bool
    rotation: int
    sample_aspect: Fraction
    source_size: tuple[int, int] | None


class Opened(NamedTuple):
    """A source was opened."""

    stream: int
    info: StreamInfo


class Refused(NamedTuple):
    """A source could not be opened by this process, and why; another decoder may do it."""

    stream: int
    why: str


class Seen(NamedTuple):
    """A source has a new look."""

    stream: int
    look: Look


class Ended(NamedTuple):
    """A source has ended: by itself, or because it broke (`failure`), or by a mistake in our code (`bug`)."""

    stream: int
    failure: str | None
    bug: str | None


class Logged(NamedTuple):
    """A line for the run's log."""

    name: str
    level: int
    text: str


class Start(NamedTuple):
    """The run begins: read the source."""

    stream: int


class Close(NamedTuple):
    """The source is not wanted any more."""

    stream: int


class Stop(NamedTuple):
    """The run is over."""
