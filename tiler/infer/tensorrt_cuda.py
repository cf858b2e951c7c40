"""A TensorRT engine as a network: one execution context and CUDA graph per batch size and pair of buffers.

All contexts share one piece of scratch memory from CuPy's pool. That is safe because they run on
one stream, one after the other; and it is why a network belongs to one stream.
"""

from __future__ import annotations

import logging
from typing import Any

import cupy
import numpy as np

from tiler.engines.build import Target, ensure_engine
from tiler.engines.registry import ModelSpec
from tiler.engines.tensorrt import Progress, TensorRT, UnusableError
from tiler.errors import StageError
from tiler.infer.graph_cuda import capture
from tiler.infer.network_cuda import prepared_size
from tiler.kernels import enqueue_cuda

_log = logging.getLogger(__name__)

_MOST_SLOTS = 256
"""Contexts kept. A caller whose buffers change all the time gets one without a graph instead."""

_DTYPES: dict[str, np.dtype[Any]] = {"fp16": np.dtype(np.float16), "fp32": np.dtype(np.float32)}

_Key = tuple[int, int, int]
"""Batch size, address of the images, address of the head."""


class _Slot:
    """A context bound to its buffers, and the graph of it if there is one."""

    __slots__ = ("context", "graph")

    def __init__(self, context: Any) -> None:
        self.context = context
        self.graph: Any = None


class TensorRTNetwork:
    """See `tiler.infer.network_cuda.Network`. The CUDA device of the caller is current.

    Args:
        tensorrt: which one.
        model: what to run, in the precision to run it in.
        max_batch: largest batch.
        target: the current device.
        stream: CuPy stream that everything is enqueued on.
        batch_sizes: to prepare, ascending.
        progress: told while an engine is built.

    Raises:
        UnusableError: TensorRT cannot run this model here.
        InputError: it cannot build it.
    """

    def __init__(
        self,
        tensorrt: TensorRT,
        model: ModelSpec,
        max_batch: int,
        target: Target,
        stream: Any,
        batch_sizes: tuple[int, ...],
        progress: Progress | None = None,
    ) -> None:
        if not model.dynamic_batch:
            max_batch, batch_sizes = 1, (1,)
        self.name = f"{tensorrt.title} {model.precision.upper()}"
        self._tensorrt = tensorrt
        self._model = model
        self._stream = stream
        self._sizes = batch_sizes
        self._max_batch = max_batch
        self._slots: dict[_Key, _Slot] = {}
        self._engine = _load(tensorrt, model, max_batch, target, progress)
        self.input_dtype, self.output_dtype, self.output_shape = self._check_tensors()
        with stream:
            self._scratch_bytes = int(self._engine.device_memory_size_v2)
            # CuPy's pool aligns to 512 bytes; TensorRT wants 256.
            self._scratch = cupy.cuda.alloc(max(1, self._scratch_bytes))
            self._unbound = _Slot(self._new_context())
            self._warm_up()

    def prepare(self, images: Any, head: Any) -> None:
        """See `Network.prepare`."""
        for size in self._sizes:
            for first in range(1 if self._model.dynamic_batch else len(images)):
                if size <= len(images):
                    self._slot(size, images[first:], head[first:])

    def run(self, images: Any, head: Any, stream: Any) -> None:
        """See `Network.run`."""
        if stream.ptr != self._stream.ptr:
            raise ValueError("a network runs on the stream that it was opened with")
        if not self._model.dynamic_batch:
            for i in range(len(images)):
                self._run(1, images[i : i + 1], head[i : i + 1])
            return
        self._run(prepared_size(len(images), self._sizes, images, head), images, head)

    def close(self) -> None:
        """See `Network.close`. What is enqueued finishes first."""
        if self._engine is None:
            return
        self._stream.synchronize()
        self._slots.clear()
        self._unbound.context = self._engine = self._scratch = None

    def _run(self, size: int, images: Any, head: Any) -> None:
        slot = self._slots.get((size, images.data.ptr, head.data.ptr))
        if slot is None:
            if self._engine is None:
                raise StageError("infer", f"{self._model.name} is closed")
            if self._stream.is_capturing() or len(self._slots) >= _MOST_SLOTS:
                slot = self._unbound
                self._bind(slot, size, images, head)
            else:
                self._slot(size, images, head)  # has run it
                return
        if slot.graph is not None and not self._stream.is_capturing():
            enqueue_cuda.launch_graph(slot.graph, self._stream)
        else:
            self._enqueue(slot)

    def _slot(self, size: int, images: Any, head: Any) -> _Slot:
        key = (size, images.data.ptr, head.data.ptr)
        slot = self._slots.get(key)
        if slot is None:
            with self._stream:
                slot = _Slot(self._new_context())
                self._bind(slot, size, images, head)
                # What a context still has to do for new shapes happens now, not within the capture.
                self._enqueue(slot)
                self._stream.synchronize()
                slot.graph = self._capture(slot)
            self._slots[key] = slot
        return slot

    def _capture(self, slot: _Slot) -> Any:
        """The CUDA graph of a slot; None where there can be none."""
        if not self._tensorrt.capturable(slot.context, self._stream.ptr):
            return None
        graph = capture(self._stream, lambda: self._enqueue(slot), self._model.name)
        if graph is not None:
            graph.upload(self._stream)
        return graph

    def _new_context(self) -> Any:
        context = self._tensorrt.create_context(self._engine)
        context.set_device_memory(self._scratch.ptr, self._scratch_bytes)
        return context

    def _bind(self, slot: _Slot, size: int, images: Any, head: Any) -> None:
        model, context = self._model, slot.context
        width, height = model.input_size
        done = (
            context.set_input_shape(model.input_name, (size, 3, height, width))
            and context.set_tensor_address(model.input_name, images.data.ptr)
            and context.set_tensor_address(model.output_name, head.data.ptr)
        )
        if not done:
            raise StageError("infer", f"{self.name}: {model.name} does not take a batch of {size}")

    def _enqueue(self, slot: _Slot) -> None:
        if not slot.context.execute_async_v3(self._stream.ptr):
            raise StageError("infer", f"{self.name}: {self._model.name} does not run: {self._tensorrt.last_error()}")

    def _check_tensors(self) -> tuple[np.dtype[Any], np.dtype[Any], tuple[int, ...]]:
        found = self._tensorrt.tensors(self._engine)
        image, head = found.get(self._model.input_name), found.get(self._model.output_name)
        if len(found) != 2 or image is None or head is None or not image[0] or head[0]:
            raise UnusableError(f"the engine has the tensors {', '.join(found)}, not those of the model")
        if not {image[1], head[1]} <= _DTYPES.keys():
            raise UnusableError(f"the engine takes {image[1]} and gives {head[1]}; usable are fp16 and fp32")
        shape = head[2][1:]
        if -1 in shape:
            raise UnusableError(f"the engine does not say how large its output is: {head[2]}")
        return _DTYPES[image[1]], _DTYPES[head[1]], shape

    def _warm_up(self) -> None:
        """Run each size once, on memory that is given back: kernels are loaded when they are first used."""
        width, height = self._model.input_size
        images = cupy.zeros((self._max_batch, 3, height, width), self.input_dtype)
        head = cupy.empty((self._max_batch, *self.output_shape), self.output_dtype)
        for size in self._sizes:
            self._bind(self._unbound, size, images, head)
            self._enqueue(self._unbound)
        self._stream.synchronize()


def _load(tensorrt: TensorRT, model: ModelSpec, max_batch: int, target: Target, progress: Progress | None) -> Any:
    engine = ensure_engine(tensorrt, model, max_batch, target, progress)
    try:
        return tensorrt.load(engine.plan)
    except UnusableError as error:
        if not engine.cached:
            raise
        # A driver that is new since it was built, say; what is built now has to load. Others, for larger batches, are
        # as old or older.
        _log.warning("%s: %s; building it again", engine.path.name, error)
        engine.path.unlink(missing_ok=True)
        return tensorrt.load(ensure_engine(tensorrt, model, max_batch, target, progress, exact=True).plan)
