"""ONNX Runtime's CUDA provider as a network: one session per prepared batch size, bound to device buffers.

A session of one size never sees another, so its convolutions are planned once; see Note [Prepared
batches] of network_cuda.py. The sessions share the caller's stream and, the model being a few
megabytes, little is lost by holding it several times.

What a session enqueues for a pair of buffers is captured as a CUDA graph: ONNX Runtime launches kernel
by kernel, which takes the host three times as long as the network takes the device. The memory between the
layers belongs to the session, which gives it to nobody else, and all graphs run on one stream, one after the other.
A graph that would read host memory (operators that stage tables there) is not used: such a model is enqueued anew
each time. ONNX Runtime's own graphs stay off: it keeps them per thread, and captures in the mode that makes an
allocation of any other thread fail.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import logging
from pathlib import Path
from typing import Any

import cupy
import numpy as np
import onnxruntime as ort

from tiler.engines.registry import ORT_ERRORS, ModelSpec
from tiler.engines.tensorrt import UnusableError
from tiler.errors import StageError
from tiler.infer.graph_cuda import capture, host_work
from tiler.infer.network_cuda import prepared_size
from tiler.kernels import enqueue_cuda

_log = logging.getLogger(__name__)

_PROVIDER = "CUDAExecutionProvider"

PROVIDER_OPTIONS = {
    # cuDNN's own recommendation; the exhaustive search would be made per size, at every start.
    "cudnn_conv_algo_search": "HEURISTIC",
    "cudnn_conv_use_max_workspace": "1",
    "arena_extend_strategy": "kSameAsRequested",
    # FP16 convolutions are NHWC within: this way tensors are turned at both ends, not at each layer.
    "prefer_nhwc": "1",
    "enable_cuda_graph": "0",
}

_Key = tuple[int, int, int]
"""Batch size, address of the images, address of the head."""

_MOST_BINDINGS = 256


class _Bound:
    """A session bound to its buffers, and the graph of it if there is one."""

    __slots__ = ("binding", "graph", "session")

    def __init__(self, session: Any, binding: Any) -> None:
        self.session, self.binding = session, binding
        self.graph: Any = None


class OrtCudaNetwork:
    """See `tiler.infer.network_cuda.Network`. The CUDA device of the caller is current.

    Args:
        model: what to run, in the precision to run it in.
        device: index of the CUDA device.
        stream: CuPy stream that everything is enqueued on.
        batch_sizes: to prepare, ascending.

    Raises:
        UnusableError: ONNX Runtime has no CUDA here, or does not run this model with it.
    """

    def __init__(
        self,
        model: ModelSpec,
        device: int,
        stream: Any,
        batch_sizes: tuple[int, ...],
    ) -> None:
        _load_provider()
        self.name = f"ONNX Runtime {'.'.join(ort.__version__.split('.')[:2])} CUDA {model.precision.upper()}"
        self.input_dtype = np.dtype(np.float16 if model.precision == "fp16" else np.float32)
        self._model = model
        self._device = device
        self._stream = stream
        self._sizes = batch_sizes if model.dynamic_batch else (1,)
        self._sessions: dict[int, Any] = {}
        self._bindings: dict[_Key, _Bound] = {}
        self._captures = True
        self._options = ort.RunOptions()
        self._options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        self.output_shape: tuple[int, ...] = ()  # until the first session has run
        self.output_dtype = self.input_dtype
        try:
            with stream:
                for size in self._sizes:
                    self._open(size)
        except ORT_ERRORS as error:
            raise UnusableError(f"it does not run {model.name}: {_first_line(error)}") from error

    def prepare(self, images: Any, head: Any) -> None:
        """See `Network.prepare`."""
        for size in self._sizes:
            for first in range(1 if self._model.dynamic_batch else len(images)):
                if size <= len(images):
                    self._bound(size, images[first:], head[first:])

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
        if self._sessions:
            self._stream.synchronize()
        self._bindings.clear()
        self._sessions.clear()

    def _run(self, size: int, images: Any, head: Any) -> None:
        bound = self._bindings.get((size, images.data.ptr, head.data.ptr))
        captured = self._stream.is_capturing()
        if captured and (bound is None or bound.graph is None):
            raise StageError("infer", f"{self.name}: this batch was not prepared to be captured as a CUDA graph")
        if bound is None:
            self._bound(size, images, head)  # has run it
        elif bound.graph is not None and not captured:
            enqueue_cuda.launch_graph(bound.graph, self._stream)
        else:
            self._enqueue(bound)

    def _bound(self, size: int, images: Any, head: Any) -> _Bound:
        key = (size, images.data.ptr, head.data.ptr)
        bound = self._bindings.get(key)
        if bound is None:
            bound = self._bind(size, images, head)
            # What a session still has to do for new buffers happens now, not within the capture.
            self._enqueue(bound)
            self._stream.synchronize()
            if self._captures:
                bound.graph = self._capture(bound)
            self._bindings[key] = bound
        return bound

    def _capture(self, bound: _Bound) -> Any:
        """The CUDA graph of a session on its buffers; None where there can be none."""
        graph = capture(self._stream, lambda: self._enqueue(bound), self._model.name)
        why = host_work(graph) if graph is not None else "it was not captured"
        if why is not None:
            self._captures = False  # nor will those of other sizes
            _log.warning("%s: %s is enqueued kernel by kernel: %s", self.name, self._model.name, why)
            return None
        graph.upload(self._stream)
        return graph

    def _enqueue(self, bound: _Bound) -> None:
        try:
            bound.session.run_with_iobinding(bound.binding, self._options)
        except ORT_ERRORS as error:
            raise StageError("infer", f"{self.name}: {self._model.name}: {_first_line(error)}") from error

    def _bind(self, size: int, images: Any, head: Any) -> _Bound:
        if not self._sessions:
            raise StageError("infer", f"{self._model.name} is closed")
        if size not in self._sessions:
            _log.warning("%s: a batch of %d was not prepared; it is now", self._model.name, size)
            with self._stream:
                self._open(size)
        if len(self._bindings) >= _MOST_BINDINGS:
            self._stream.synchronize()  # their graphs may be on their way
            self._bindings.clear()
        session = self._sessions[size]
        binding = session.io_binding()
        self._bind_images(binding, size, images)
        binding.bind_output(
            self._model.output_name, "cuda", self._device, self.output_dtype, (size, *self.output_shape), head.data.ptr
        )
        return _Bound(session, binding)

    def _bind_images(self, binding: Any, size: int, images: Any) -> None:
        width, height = self._model.input_size
        shape = (size, 3, height, width)
        binding.bind_input(self._model.input_name, "cuda", self._device, self.input_dtype, shape, images.data.ptr)

    def _open(self, size: int) -> None:
        """Open the session of a size and run it twice: memory is planned in the first run, taken in the second."""
        width, height = self._model.input_size
        session = self._new_session(size)
        images = cupy.zeros((size, 3, height, width), self.input_dtype)
        binding = session.io_binding()
        self._bind_images(binding, size, images)
        binding.bind_output(self._model.output_name, "cuda", self._device)
        session.run_with_iobinding(binding, self._options)
        session.run_with_iobinding(binding, self._options)
        self._stream.synchronize()
        (output,) = binding.get_outputs()
        self.output_shape = tuple(output.shape()[1:])
        self.output_dtype = np.dtype(np.float16 if output.data_type() == "tensor(float16)" else np.float32)
        self._sessions[size] = session

    def _new_session(self, size: int) -> Any:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        provider = {
            **PROVIDER_OPTIONS,
            "device_id": str(self._device),
            "user_compute_stream": str(self._stream.ptr),
        }
        try:
            session = ort.InferenceSession(
                str(self._model.path), options, providers=[(_PROVIDER, provider)], enable_fallback=False
            )
        except (RuntimeError, ValueError, *ORT_ERRORS) as error:
            raise UnusableError(f"it does not open {self._model.name}: {_first_line(error)}") from error
        if session.get_providers()[0] != _PROVIDER:
            raise UnusableError("its CUDA provider does not start; its log (standard error) says why")
        return session


def _load_provider() -> None:
    """Find the provider and the CUDA libraries that it is linked with.

    Raises:
        UnusableError: one of them is missing.
    """
    if _PROVIDER not in ort.get_available_providers():
        raise UnusableError(
            "the installed onnxruntime is the one for CPUs (pip uninstall onnxruntime, then "
            'pip install "onnxruntime-gpu[cuda,cudnn]")'
        )
    if hasattr(ort, "preload_dlls"):
        with contextlib.redirect_stdout(io.StringIO()) as said:
            ort.preload_dlls()
        _log.debug("onnxruntime.preload_dlls: %s", said.getvalue().strip())
    library = Path(ort.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"
    if not library.is_file():
        return
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        raise UnusableError(f"its CUDA provider does not load: {error}") from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
