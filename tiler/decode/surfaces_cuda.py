"""Decoded pictures on the device: a ring of surfaces, allocated once.

A surface is lent with a lease and comes back when the last reference to the lease goes,
which may happen on any thread. Whoever drops a lease has finished with the surface on the
device (see Frame), but for the copies that filled it, and those run on the ring's stream:
everything that writes to a surface does, so reuse needs no further event.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

import cupy
import numpy as np

from tiler.memory import row_samples, surface_bytes
from tiler.types import Frame

logger = logging.getLogger(__name__)

_STOP_CHECK_S = 0.05
_PATIENCE_S = 10.0


Shape = tuple[int, int, bool]
"""Width and height of pictures, and whether a sample is 16 bits."""


class Surface:
    """NV12, or P016 with 16-bit samples, in one piece of memory: luma, and the chroma pairs right behind.

    Attributes:
        y: (H, W) CuPy array, uint8 or uint16.
        u, v: (ceil(H/2), ceil(W/2)) views of the interleaved chroma.
        ptr: address of the first sample; a row is `row_samples(W)` samples long.
        luma_bytes: from `ptr` to the chroma.
        size_bytes: of the whole surface.
        ready: CUDA event, to be recorded when the surface has been filled.
        look, template: see `take_on`. Pictures are made of the template by `Frame.at`.
    """

    __slots__ = ("look", "luma_bytes", "ptr", "ready", "size_bytes", "template", "u", "v", "y")

    def __init__(self, shape: Shape, memory: Any, ready: Any) -> None:
        """
        Args:
            shape: of the pictures.
            memory: CuPy's pointer to `surface_bytes(*shape)` or more.
            ready: as above.
        """
        width, height, sixteen_bit = shape
        sample = np.dtype(np.uint16 if sixteen_bit else np.uint8)
        row = row_samples(width)
        self.size_bytes = surface_bytes(*shape)
        self.luma_bytes = row * height * sample.itemsize
        self.ptr = int(memory.ptr)
        rows: Any = cupy.ndarray((height + (height + 1) // 2, row), sample, memory)
        self.y = rows[:height, :width]
        self.u = rows[height:, 0::2]
        self.v = rows[height:, 1::2]
        self.ready = ready
        self.look: object = None
        self.template = Frame(0, 0, self.y, self.u, self.v)

    def take_on(self, look: object, stream: int, **kind: Any) -> None:
        """Pictures of another look come to lie here: what they are made of.

        Args:
            look: stays the same object as long as the rest stays the same.
            stream, kind: of those pictures, as `Frame` takes them.
        """
        self.look = look
        self.template = Frame(stream, 0, self.y, self.u, self.v, ready=self.ready, layout=object(), **kind)


class Lease:
    """A surface on loan; it goes back when the lease is collected."""

    __slots__ = ("_home", "surface")

    def __init__(self, surface: Surface, home: SimpleQueue[Surface]) -> None:
        self.surface = surface
        self._home = home

    def __del__(self) -> None:
        self._home.put(self.surface)  # safe here: SimpleQueue.put is reentrant


class SurfaceRing:
    """The surfaces of one stream, and the CUDA stream that fills them.

    One thread at a time calls its methods; leases may be dropped on any.
    """

    def __init__(self, slots: int, device: int) -> None:
        """
        Args:
            slots: surfaces to hold; as many pictures may be referenced at a time.
            device: index of the CUDA device.
        """
        if slots < 1:
            raise ValueError(f"a ring needs at least one slot, got {slots}")
        self.slots = slots
        self._device = device
        self._shape: Shape | None = None
        self._free: SimpleQueue[Surface] = SimpleQueue()
        with cupy.cuda.Device(device):
            self.stream = cupy.cuda.Stream(non_blocking=True)

    def fit(self, width: int, height: int, sixteen_bit: bool) -> None:
        """Make the surfaces fit pictures of this size and depth.

        Surfaces of another size that are still on loan stay valid until they are dropped.

        Raises:
            MemoryError: the device, or the pool's limit, has no room for them.
        """
        shape = (width, height, sixteen_bit)
        if shape == self._shape:
            return
        self.close()
        with cupy.cuda.Device(self._device), cupy.cuda.Stream.null:
            # The null stream's part of the pool: a stream of our own would keep its part to itself
            # after it is gone. What used the memory before was ordered by the null stream.
            surfaces = [_allocated(shape) for _ in range(self.slots)]
            allocated = cupy.cuda.Event(disable_timing=True)
            allocated.record(cupy.cuda.Stream.null)
            self.stream.wait_event(allocated)
        for surface in surfaces:
            self._free.put(surface)
        self._shape = shape

    def acquire(self, stopped: Callable[[], bool]) -> Lease | None:
        """A free surface, waiting for one; None once `stopped` says so.

        Raises:
            ValueError: `fit` was not called.
        """
        if self._shape is None:
            raise ValueError("fit the ring to a size first")
        home = self._free
        if not home.empty():  # one thread takes, so it stays like that
            return Lease(home.get(), home)
        began_s = time.monotonic()
        while not stopped():
            try:
                return Lease(home.get(timeout=_STOP_CHECK_S), home)
            except Empty:
                if time.monotonic() - began_s > _PATIENCE_S:
                    logger.warning("all %d surfaces of a stream have been in use for %g s", self.slots, _PATIENCE_S)
                    began_s = math.inf
        return None

    def close(self) -> None:
        """Give the memory back, that of surfaces on loan when they are dropped; may be called twice."""
        if self._shape is not None:
            self.stream.synchronize()  # memory in the pool is anybody's: no copy into it may be on its way
            self._shape = None
            free, self._free = self._free, SimpleQueue()
            with suppress(Empty):  # a lease keeps the queue, which must not keep the others
                while True:
                    free.get_nowait()


def _allocated(shape: Shape) -> Surface:
    return Surface(shape, cupy.cuda.alloc(surface_bytes(*shape)), cupy.cuda.Event(disable_timing=True))
