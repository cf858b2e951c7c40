"""Appearance on CUDA: the crops of all streams in one launch, which reads where they are and writes to the host."""

from __future__ import annotations

from collections.abc import Sequence

import cupy
import numpy as np

from tiler.kernels import enqueue_cuda
from tiler.kernels.appearance import PLACE_COLUMNS, VECTOR
from tiler.kernels.appearance_cuda import CROP_BYTES, Embed, packed_tables
from tiler.kernels.mapped_cuda import Mapped
from tiler.kernels.plane_cuda import PerPicture, address
from tiler.observe.copies import Copies
from tiler.track.appearance import lay_out, load_matrix, place
from tiler.track.base import Embedder, Vectors
from tiler.types import Float32, Frame

_PLACE_BYTES = PLACE_COLUMNS * 8
_FIRST_CROPS = 512
"""Crops that there is room for at first."""
_FIRST = -5
"""The highest priority: a few crops, which the host waits for, need not queue behind a batch of the detector."""


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
            self._stream = cupy.cuda.Stream(non_blocking=True, priority=_FIRST)
            with self._stream:
                self._tables, self._matrix = cupy.asarray(packed_tables()), cupy.asarray(load_matrix())
            self._reserve(_FIRST_CROPS)
            self._arrived = cupy.cuda.Event(block=True, disable_timing=True)  # the host sleeps meanwhile
            self._stream.synchronize()
        copies.add("appearance model", "up", self._tables.nbytes + self._matrix.nbytes)

    def submit(self, crops: Sequence[tuple[Frame, Float32]]) -> Vectors:
        """See `Embedder.submit`; the launch is waited for when the vectors are asked for."""
        self._device.use()
        places, boxes = lay_out(crops, self._place_of)
        count = len(boxes)
        if count > self._room:
            self._reserve(2 * count)
        self._places[:count] = places
        size = count * CROP_BYTES
        self._crops.host[count * _PLACE_BYTES : size].view(np.float32).reshape(-1, 4)[...] = boxes
        enqueue_cuda.wait(self._stream, (frame for frame, _ in crops))
        if count:
            with self._stream:
                self._embed(count)
                self._copies.add("crops' places", "up", size)
                self._copies.add("appearance", "down", count * VECTOR * 4)
        enqueue_cuda.record(self._arrived, self._stream)

        def vectors() -> Float32:
            self._device.use()
            enqueue_cuda.finish(self._arrived)
            found: Float32 = self._vectors.host[:count].copy()
            return found

        return vectors

    def embed(self, crops: Sequence[tuple[Frame, Float32]]) -> Float32:
        """The vectors of all boxes, in order; see `Embedder.embed`."""
        return self.submit(crops)()

    def _reserve(self, room: int) -> None:
        """Room for this many crops; nothing is on its way."""
        self._room = room
        self._crops, self._vectors = Mapped((room * CROP_BYTES,), np.uint8), Mapped((room, VECTOR), np.float32)
        self._places = self._crops.host[: room * _PLACE_BYTES].view(np.int64).reshape(room, PLACE_COLUMNS)
        self._embed = Embed(self._crops, self._tables, self._matrix, self._vectors)

    def close(self) -> None:
        """Wait for the last launch; may be called twice."""
        self._device.use()
        self._stream.synchronize()
