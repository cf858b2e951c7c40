"""Preprocess on CUDA: all pictures of a batch in one launch, into a ring of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import cupy
import numpy as np

from tiler.closing import Closing
from tiler.engines.registry import InputSpec
from tiler.kernels import enqueue_cuda
from tiler.kernels.plane_cuda import PerPicture, address
from tiler.kernels.preprocess_cuda import ENTRY, Preprocess, ratio_of
from tiler.memory import TENSORS
from tiler.observe.copies import Copies
from tiler.preprocess.letterbox import Letterbox, axis_tables, coefficients, letterbox, places
from tiler.types import Batch, Frame

RING = TENSORS
"""Tensors in the ring: the call of `prepare` that comes this many later reuses a batch's."""

_Axes = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
"""Where four axes begin in the tables, their taps and their lengths."""


class _Known(NamedTuple):
    """What was worked out for a picture: its place in the tensor, the same object for the same place and size of
    picture, and its ENTRY."""

    box: Letterbox
    entry: bytes


class CudaPreprocessor(Closing):
    """Frames in device memory -> Batch. One thread calls it.

    The tensor is written on `stream`, and read there by the detector: that is all the order they need.

    Args:
        input_size: (width, height) of the tensor.
        spec: order of channels, normalisation and place of the picture.
        max_batch: frames per call at most.
        dtype: of the tensor, float16 or float32.
        device: index of the CUDA device.
        stream: where the launches go.
        copies: the ledger.
    """

    def __init__(
        self,
        input_size: tuple[int, int],
        spec: InputSpec,
        max_batch: int,
        dtype: Any,
        device: int,
        stream: Any,
        copies: Copies,
    ) -> None:
        self._size, self._spec, self._max_batch = input_size, spec, max_batch
        self._affine = spec.affine()
        self._device, self._stream, self._copies = cupy.cuda.Device(device), stream, copies
        size = max_batch * ENTRY.itemsize
        with self._device:
            self._ring = [cupy.empty((max_batch, 3, input_size[1], input_size[0]), dtype) for _ in range(RING)]
            self._entries = [cupy.empty(size, cupy.uint8) for _ in range(RING)]
            self._pinned = [cupy.cuda.alloc_pinned_memory(size) for _ in range(RING)]
            self._used = [cupy.cuda.Event(block=True, disable_timing=True) for _ in range(RING)]
            self._tables = cupy.zeros(1, cupy.int32)
        self._host = [np.frombuffer(memory, np.uint8, size).data for memory in self._pinned]
        self._known = PerPicture(self._work_out)
        self._axes: dict[tuple[tuple[int, int], tuple[int, int]], _Axes] = {}
        self._packed: list[np.ndarray] = [np.zeros(1, np.int32)]
        self._turn = 0
        self._launches: dict[int, Preprocess] = {}  # by turn; of the tables that there are
        with self._device:
            self._launch_of(0)  # compiles the kernel, which the first batch is not to wait for
        self._boxes: dict[tuple[Letterbox, tuple[int, int]], Letterbox] = {}
        self._placed: list[int] = []
        self._places = places([], [])

    def prepare(self, frames: Sequence[Frame]) -> Batch:
        """Letterbox and colour-convert all frames at once; see `Preprocessor`.

        Raises:
            ValueError: more frames than `max_batch`.
        """
        if len(frames) > self._max_batch:
            raise ValueError(f"{len(frames)} frames for a batch of at most {self._max_batch}")
        self._turn = turn = (self._turn + 1) % RING
        self._device.use()
        with self._stream:
            enqueue_cuda.finish(self._used[turn])  # the last launch from this pinned memory is long over
            known = [self._known(frame) for frame in frames]
            enqueue_cuda.wait(self._stream, frames)
            size = len(frames) * ENTRY.itemsize
            self._host[turn][:size] = b"".join([of.entry for of in known])
            enqueue_cuda.copy(self._entries[turn].data.ptr, self._pinned[turn].ptr, size, self._stream)
            self._copies.add("pictures' places", "up", size)
            self._launch(turn, len(frames))
            enqueue_cuda.record(self._used[turn], self._stream)
        self._place(frames, [of.box for of in known])
        return Batch(self._ring[turn][: len(frames)], *self._places, tuple([frame.stream for frame in frames]))

    @property
    def tensors(self) -> Sequence[Any]:
        """The tensors that batches come in."""
        return self._ring

    def close(self) -> None:
        """Wait for the last launch; may be called twice."""
        self._device.use()
        self._stream.synchronize()

    def _launch(self, turn: int, count: int) -> None:
        """The GPU's part, on the current stream."""
        self._launch_of(turn)(count)

    def _launch_of(self, turn: int) -> Preprocess:
        launch = self._launches.get(turn)
        if launch is None:
            launch = self._launches[turn] = Preprocess(
                self._ring[turn], self._entries[turn], self._tables, self._affine, self._spec.pad
            )
        return launch

    def _place(self, frames: Sequence[Frame], boxes: list[Letterbox]) -> None:
        """`letterbox` and `sizes` of the batch: the same arrays as long as pictures lie as those of the last batch."""
        placed = [*map(id, boxes)]
        if placed != self._placed:
            self._placed, self._places = placed, places(frames, boxes)

    def _work_out(self, frame: Frame) -> _Known:
        entry = np.zeros(1, ENTRY)
        box = letterbox(frame.picture_size, frame.picture_aspect, self._size, self._spec.align)
        self._pack(entry[0], frame, box)
        return _Known(self._boxes.setdefault((box, frame.picture_size), box), entry.tobytes())

    def _pack(self, entry: Any, frame: Frame, box: Letterbox) -> None:
        turned = frame.rotation in (90, 270)
        axes, taps, outputs = self._axes_of(
            frame.y.shape, (box.width, box.height) if turned else (box.height, box.width)
        )
        y, u, v = (address(plane) for plane in (frame.y, frame.u, frame.v))
        row, step = frame.u.strides
        entry["planes"] = y, u, v
        entry["luma_row"], entry["luma_step"] = frame.y.strides
        entry["chroma_row"], entry["chroma_step"] = row, step
        entry["box"] = box.x, box.y, box.width, box.height
        entry["rotation"] = frame.rotation // 90
        entry["axes"], entry["taps"], entry["outputs"] = axes, taps, outputs
        entry["to_rgb"] = coefficients(frame.matrix, frame.full_range, self._spec.channels).ravel()
        pairs = v == u + 1 and u % 2 == 0 and row % 2 == 0 and step % 2 == 0
        entry["pairs"], entry["ratio"] = pairs, 0
        if pairs and frame.rotation == 0:
            place = (box.x, box.y, box.width, box.height)
            entry["ratio"] = ratio_of(frame.plane_size, place, (y, *frame.y.strides), (u, row, step))

    def _axes_of(self, stored: tuple[int, int], result: tuple[int, int]) -> _Axes:
        """The axes of pictures of one size, put on the device when such a picture comes first."""
        found = self._axes.get((stored, result))
        if found is None:
            at, begins = sum(map(len, self._packed)), []
            tables = axis_tables(stored, result)
            for first, weights in tables:
                begins.append(at)
                self._packed += (first, weights.ravel().view(np.int32))
                at += len(first) + weights.size
            taps = tuple(weights.shape[0] for _, weights in tables)
            found = tuple(begins), taps, tuple(len(first) for first, _ in tables)
            self._axes[stored, result] = found
            self._tables = cupy.asarray(np.concatenate(self._packed))
            self._launches.clear()
            self._copies.add("scaling tables", "up", self._tables.nbytes)
        return found
