"""ONNX Runtime's CUDA provider as a network: one session per prepared batch size, bound to device buffers.

A session of one size never sees another, so its convolutions are planned once; see Note [Prepared
batches] of network_cuda.py. The sessions share the caller's stream and, the model being a few
megabytes, little is lost by holding it several times.

Its own CUDA graphs stay off. It keeps them per thread, captures in the mode that makes an
allocation of any other thread fail, and some of its kernels (Concat of unequal parts) read host
memory at replay that a later run of another shape overwrites. Nor can its work be captured from
outside: it frees host memory from a callback on the stream.
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
from tiler.infer.network_cuda import prepared_size

_log = logging.getLogger(__name__)

_PROVIDER = "CUDAExecutionProvider"

PROVIDER_OPTIONS = {
    # cuDNN's own recommendation; the exhaustive search would be made per size, at every start.
    "cudnn_conv_algo_search": "HEURISTIC",
    "cudnn_conv_use_max_workspace": "1",
    "arena_extend_strategy": "kSameAsRequested",
    # Inputs are NCHW; with NHWC kernels every tensor would be turned on its way in and out.
    "prefer_nhwc": "0",
    "enable_cuda_graph": "0",
}

_Key = tuple[int, int, int]
"""Batch size, address of the images, address of the head."""

_MOST_BINDINGS = 1024


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
        self._bindings: dict[_Key, tuple[Any, Any]] = {}
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
                    self._run(size, images[first:], head[first:])
        self._stream.synchronize()

    def run(self, images: Any, head: Any, stream: Any) -> None:
        """See `Network.run`."""
        if stream.ptr != self._stream.ptr:
            raise ValueError("a network runs on the stream that it was opened with")
        if stream.is_capturing():
            raise StageError("infer", f"{self.name}: its work cannot be captured as a CUDA graph")
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
        try:
            if bound is None:
                bound = self._bind(size, images, head)
            session, binding = bound
            session.run_with_iobinding(binding, self._options)
        except ORT_ERRORS as error:
            raise StageError("infer", f"{self.name}: {self._model.name}: {_first_line(error)}") from error

    def _bind(self, size: int, images: Any, head: Any) -> tuple[Any, Any]:
        if not self._sessions:
            raise StageError("infer", f"{self._model.name} is closed")
        if size not in self._sessions:
            _log.warning("%s: a batch of %d was not prepared; it is now", self._model.name, size)
            with self._stream:
                self._open(size)
        if len(self._bindings) >= _MOST_BINDINGS:
            self._bindings.clear()
        session = self._sessions[size]
        binding = session.io_binding()
        self._bind_images(binding, size, images)
        binding.bind_output(
            self._model.output_name, "cuda", self._device, self.output_dtype, (size, *self.output_shape), head.data.ptr
        )
        self._bindings[size, images.data.ptr, head.data.ptr] = session, binding
        return session, binding

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
