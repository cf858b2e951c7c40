"""Preprocess on the CPU: bands of rows on a few threads, one pass over each picture."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from tiler.closing import Closing
from tiler.engines.registry import InputSpec
from tiler.kernels.preprocess_cpu import preprocess_rows
from tiler.memory import TENSORS
from tiler.preprocess.letterbox import Letterbox, axis_tables, coefficients, letterbox, places
from tiler.types import Batch, Float32, Frame, Plane, UInt8

RING = TENSORS
"""Tensors in the ring: the call of `prepare` that comes this many later reuses a batch's."""

BANDS = 2
"""Tasks for each thread: enough for the threads to end together, few enough to start cheaply."""

class CpuPreprocessor(Closing):
    """Frames in host memory -> float32 Batch. One thread calls it; it has workers of its own.

    Args:
        input_size: (width, height) of the tensor.
        spec: order of channels, normalisation and place of the picture.
        max_batch: frames per call at most.
        threads: workers.
    """

    def __init__(self, input_size: tuple[int, int], spec: InputSpec, max_batch: int, threads: int) -> None:
        self._size = input_size
        self._spec = spec
        self._max_batch = max_batch
        self._affine = spec.affine()
        self._pad = (spec.pad * self._affine[0] + self._affine[1])[:, None, None]
        shape = (RING, max_batch, 3, input_size[1], input_size[0])
        self._ring = np.empty(shape, np.float32)
        self._padded: dict[tuple[int, int], Letterbox] = {}
        self._turn = 0
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, "preprocess") if threads > 1 else None

    def prepare(self, frames: Sequence[Frame]) -> Batch:
        """Letterbox and colour-convert all frames at once; see `Preprocessor`.

        Raises:
            ValueError: more frames than `max_batch`.
        """
        if len(frames) > self._max_batch:
            raise ValueError(f"{len(frames)} frames for a batch of at most {self._max_batch}")
        self._turn = (self._turn + 1) % RING
        tensor = self._ring[self._turn]
        boxes = [self._place(index, frame) for index, frame in enumerate(frames)]
        bands = -(-BANDS * self._threads // max(1, len(frames))) if self._pool else 1
        tasks = [
            task
            for index, frame in enumerate(frames)
            for task in self._tasks(tensor, index, frame, boxes[index], bands)
        ]
        if self._pool:
            for future in [self._pool.submit(task) for task in tasks]:
                future.result()
        else:
            for task in tasks:
                task()
        return Batch(tensor[: len(frames)], *places(frames, boxes), tuple(frame.stream for frame in frames))

    def close(self) -> None:
        """End the workers; may be called twice."""
        if self._pool:
            self._pool.shutdown()

    def _place(self, index: int, frame: Frame) -> Letterbox:
        """The frame's place in its entry; pads the entry when what lay there had another place."""
        box = letterbox(frame.picture_size, frame.picture_aspect, self._size, self._spec.align)
        if self._padded.get((self._turn, index)) != box:
            self._ring[self._turn, index] = self._pad
            self._padded[self._turn, index] = box
        return box

    def _tasks(
        self, tensor: Float32, index: int, frame: Frame, box: Letterbox, bands: int
    ) -> list[partial[None]]:
        turned = frame.rotation in (90, 270)
        height, width = (box.width, box.height) if turned else (box.height, box.width)
        y, luma_row, luma_step = _flat(frame.y)
        u, chroma_row, chroma_step = _flat(frame.u)
        v, v_row, v_step = _flat(frame.v)
        if (v_row, v_step) != (chroma_row, chroma_step):  # only the two planes together share a layout
            u, chroma_row, chroma_step = _flat(np.ascontiguousarray(frame.u))
            v, _, _ = _flat(np.ascontiguousarray(frame.v))
        layout = np.array([luma_row, luma_step, chroma_row, chroma_step, frame.y.shape[1]], np.int64)
        to_rgb = coefficients(frame.matrix, frame.full_range, self._spec.channels)
        tables = axis_tables(frame.y.shape, (height, width))
        call = partial(preprocess_rows, y, u, v, layout, *tables, to_rgb, self._affine)
        target = self._target(index, frame.rotation, box)
        edges = [height * band // bands for band in range(bands + 1)]
        flat = tensor.reshape(-1)
        return [
            partial(call, row0, row1, flat, target)
            for row0, row1 in pairwise(edges)
            if row1 > row0
        ]

    def _target(self, index: int, rotation: int, box: Letterbox) -> npt.NDArray[np.int64]:
        """Where the first sample of the picture as stored goes, and the steps to the next ones."""
        width, height = self._size
        x, y = box.x, box.y
        right, bottom = box.x + box.width - 1, box.y + box.height - 1
        column, row, across, down = {
            0: (x, y, 1, width),
            90: (right, y, width, -1),
            180: (right, bottom, -1, -width),
            270: (x, bottom, -width, 1),
        }[rotation]
        first = index * 3 * width * height + row * width + column
        return np.array([first, width * height, down, across], np.int64)


def _flat(plane: Plane) -> tuple[UInt8, int, int]:
    """A plane's 8-bit values as one run of bytes, and the steps to the next row and column in it.

    The kernel so has one type of argument, whatever the layout: read-only bytes.
    """
    size = plane.dtype.itemsize
    row_step, step = plane.strides
    overlapping = plane.shape[0] > 1 and row_step < step * plane.shape[1]
    if step < size or row_step < 0 or overlapping or row_step % size:
        plane = np.ascontiguousarray(plane)  # mirrored or overlapping: too rare for a path of its own
        row_step, step = plane.strides
    samples = ((plane.shape[0] - 1) * row_step + (plane.shape[1] - 1) * step) // size + 1
    run = np.lib.stride_tricks.as_strided(plane, (samples,), (size,), writeable=False)
    high = size - 1 if sys.byteorder == "little" else 0
    return run.view(np.uint8)[high:], row_step, step
