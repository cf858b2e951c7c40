"""A CPU decoder's pictures -> Frames on the device, through pinned memory.

The planes are packed as NV12 (or P016) in a small ring of pinned buffers, and one
asynchronous copy on the surface ring's stream takes each up.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Any

import cupy
import numpy as np

from tiler.closing import Closing
from tiler.decode.base import Decoder
from tiler.decode.surfaces_cuda import SurfaceRing
from tiler.errors import StageError
from tiler.kernels import enqueue_cuda
from tiler.memory import row_samples
from tiler.observe.copies import Copies
from tiler.types import Frame

STAGING_BUFFERS = 2
"""One is filled while the other is copied."""


class _Staging:
    """Pinned memory, and the event after which its last copy has been made."""

    def __init__(self, size_bytes: int) -> None:
        memory: Any = cupy.cuda.alloc_pinned_memory(size_bytes)
        self.ptr = int(memory.ptr)
        self.bytes = np.frombuffer(memory, np.uint8, size_bytes)
        self.copied = cupy.cuda.Event(block=True, disable_timing=True)


class UploadDecoder(Closing):
    """A Decoder that takes another one's pictures to the device.

    Attributes:
        info: the other decoder's, with " + upload" behind its name.
    """

    def __init__(self, decoder: Decoder, ring: SurfaceRing, copies: Copies, device: int) -> None:
        """
        Args:
            decoder: gives out host frames; closed with this one.
            ring: surfaces for the pictures; sized here.
            copies: where the bytes that go up are counted.
            device: index of the CUDA device.
        """
        self._decoder = decoder
        self._ring = ring
        self._copies = copies
        self._device = device
        self._staging: list[_Staging] = []
        self._turn = 0
        self._closed = False
        self._lock = threading.Lock()
        self.info = replace(decoder.info, decoder=f"{decoder.info.decoder} + upload")

    @property
    def errors(self) -> int:
        """Of the other decoder."""
        return int(getattr(self._decoder, "errors", 0))

    @property
    def lag_s(self) -> float:
        """Of the other decoder; see `DemuxedDecoder.lag_s`."""
        return float(getattr(self._decoder, "lag_s", 0.0))

    @property
    def endless(self) -> bool:
        """The picture stays when no more come (an image)."""
        return bool(getattr(self._decoder, "endless", False))

    def read(self) -> Frame | None:
        """The next picture, on the device once `Frame.ready` is reached; None at the end.

        Raises:
            StageError: the stream broke, or the device has no room for its pictures.
        """
        try:
            with self._lock, cupy.cuda.Device(self._device):
                frame = None if self._closed else self._decoder.read()
                return None if frame is None else self._uploaded(frame)
        finally:
            if self._closed:
                self._free()

    def restart(self) -> None:
        self._decoder.restart()

    def close(self) -> None:
        self._closed = True
        self._decoder.close()
        self._free()

    def _uploaded(self, frame: Frame) -> Frame | None:
        height, width = frame.y.shape
        ring = self._ring
        try:
            ring.fit(width, height, frame.y.dtype.itemsize == 2)
        except MemoryError as error:
            raise StageError("decode", f"no room on the GPU for {ring.slots} surfaces of {width}x{height}") from error
        lease = ring.acquire(lambda: self._closed)
        if lease is None:
            return None
        surface = lease.surface
        staging = self._free_staging(surface.size_bytes)
        rows = staging.bytes.view(frame.y.dtype).reshape(-1, row_samples(width))
        rows[:height, :width] = frame.y
        rows[height:, 0::2] = frame.u
        rows[height:, 1::2] = frame.v
        enqueue_cuda.copy(surface.ptr, staging.ptr, surface.size_bytes, ring.stream)
        enqueue_cuda.record(staging.copied, ring.stream)
        enqueue_cuda.record(surface.ready, ring.stream)
        self._copies.add("decoded pictures", "up", surface.size_bytes)
        return replace(
            frame,
            y=surface.y,
            u=surface.u,
            v=surface.v,
            arrival_s=time.monotonic(),
            owner=lease,
            ready=surface.ready,
        )

    def _free_staging(self, size_bytes: int) -> _Staging:
        """The buffer whose turn it is, its last copy done."""
        if not self._staging or self._staging[0].bytes.size != size_bytes:
            self._ring.stream.synchronize()
            self._staging = [_Staging(size_bytes) for _ in range(STAGING_BUFFERS)]
        self._turn = (self._turn + 1) % STAGING_BUFFERS
        staging = self._staging[self._turn]
        staging.copied.synchronize()
        return staging

    def _free(self) -> None:
        if not self._lock.acquire(blocking=False):
            return  # a thread is reading: it comes by here when it is done
        try:
            if self._staging:
                self._ring.stream.synchronize()  # pinned memory goes back to its pool: no copy may be on its way
                self._staging = []
        finally:
            self._lock.release()
