"""Appearance on CUDA: the crops of all streams in one launch, and one small copy down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cupy
import numpy as np

from tiler.kernels import enqueue_cuda
from tiler.kernels.appearance import PLACE_COLUMNS, VECTOR
from tiler.kernels.appearance_cuda import Embed, packed_tables
from tiler.kernels.plane_cuda import PerPicture, address
from tiler.observe.copies import Copies
from tiler.track.appearance import lay_out, load_matrix, place
from tiler.track.base import Embedder, Vectors
from tiler.types import Float32, Frame

_FIRST_CROPS = 512
"""Crops that there is room for at first."""


class CudaEmbedder(Embedder):
    """Crops of frames in device memory -> unit vectors on the host. One thread calls it.

    Args:
        device: index of the CUDA device.
        copies: the ledger.
    """

    def __init__(self, device: int, copies: Copies) -> None:
        self._device, self._copies = cupy.cuda.Device(device), copies
        self._place_of = PerPicture(lambda frame: place(frame, address))
        with self._device:
            self._stream = cupy.cuda.Stream(non_blocking=True)
            with self._stream:
                self._tables, self._matrix = cupy.asarray(packed_tables()), cupy.asarray(load_matrix())
            self._reserve(_FIRST_CROPS)
            self._arrived = cupy.cuda.Event(block=True, disable_timing=True)  # the host sleeps meanwhile
            self._stream.synchronize()
        copies.add("appearance model", "up", self._tables.nbytes + self._matrix.nbytes)

    def submit(self, crops: Sequence[tuple[Frame, Float32]]) -> Vectors:
        """See `Embedder.submit`; a copy down is waited for when the vectors are asked for."""
        self._device.use()
        places, boxes = lay_out(crops, self._place_of)
        count = len(boxes)
        if count > self._room:
            self._reserve(2 * count)
        self._host_places[:count], self._host_boxes[:count] = places, boxes
        enqueue_cuda.wait(self._stream, (frame.ready for frame, _ in crops))
        if count:
            with self._stream:
                self._copy(self._places, self._host_places, count, up=True)
                self._copy(self._boxes, self._host_boxes, count, up=True)
                self._embed(count)
                self._copy(self._vectors, self._host_vectors, count, up=False)
        enqueue_cuda.record(self._arrived, self._stream)

        def vectors() -> Float32:
            self._device.use()
            self._arrived.synchronize()
            found: Float32 = self._host_vectors[:count].copy()
            return found

        return vectors

    def embed(self, crops: Sequence[tuple[Frame, Float32]]) -> Float32:
        """The vectors of all boxes, in order; see `Embedder.embed`."""
        return self.submit(crops)()

    def _reserve(self, room: int) -> None:
        """Room for this many crops; nothing is on its way."""
        self._room = room
        self._places = cupy.empty((room, PLACE_COLUMNS), np.int64)
        self._boxes = cupy.empty((room, 4), np.float32)
        self._vectors = cupy.empty((room, VECTOR), np.float32)
        self._host_places = _pinned((room, PLACE_COLUMNS), np.int64)
        self._host_boxes = _pinned((room, 4), np.float32)
        self._host_vectors = _pinned((room, VECTOR), np.float32)
        self._embed = Embed(self._places, self._boxes, self._tables, self._matrix, self._vectors)

    def _copy(self, device: Any, host: Any, count: int, *, up: bool) -> None:
        """The first `count` rows, on the stream."""
        size, at = host[:count].nbytes, (device.data.ptr, host.ctypes.data)
        target, source = at if up else at[::-1]
        enqueue_cuda.copy(target, source, size, self._stream)
        self._copies.add("crops' places" if up else "appearance", "up" if up else "down", size)

    def close(self) -> None:
        """Wait for the last launch; may be called twice."""
        self._device.use()
        self._stream.synchronize()


def _pinned(shape: tuple[int, int], dtype: Any) -> Any:
    size = int(np.prod(shape))
    return np.frombuffer(cupy.cuda.alloc_pinned_memory(size * np.dtype(dtype).itemsize), dtype, size).reshape(shape)
