"""ONNX Runtime with a "CUDA provider" that computes on the CPU: the real library behind strict doors.

Buffers are bound by address as on a device; options are checked against the names that the CUDA
provider of onnxruntime-gpu 1.31 knows, for it is the provider, not the Python layer, that refuses
others.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from tests.fakes.tensorrt_cupy import Stream

KNOWN_OPTIONS = {
    "device_id", "has_user_compute_stream", "user_compute_stream", "do_copy_in_default_stream",
    "cudnn_conv_algo_search", "gpu_mem_limit", "arena_extend_strategy", "cudnn_conv_use_max_workspace",
    "cudnn_conv1d_pad_to_nc1d", "enable_cuda_graph", "tunable_op_enable", "tunable_op_tuning_enable",
    "tunable_op_max_tuning_duration_ms", "enable_skip_layer_norm_strict_mode", "prefer_nhwc",
    "use_ep_level_unified_stream", "use_tf32", "fuse_conv_bias", "sdpa_kernel",
}  # fmt: skip
VALUES = {
    "cudnn_conv_algo_search": {"EXHAUSTIVE", "HEURISTIC", "DEFAULT"},
    "arena_extend_strategy": {"kNextPowerOfTwo", "kSameAsRequested"},
}
KNOWN_RUN_OPTIONS = {"disable_synchronize_execution_providers", "gpu_graph_id"}


class _RunOptions(ort.RunOptions):  # type: ignore[misc]
    def add_run_config_entry(self, key: str, value: str) -> None:
        assert key in KNOWN_RUN_OPTIONS, key
        super().add_run_config_entry(key, value)


class _Binding:
    def __init__(self, session: Any) -> None:
        self._real = session.io_binding()

    def bind_input(
        self, name: str, device_type: str, device_id: int, element_type: Any, shape: Any, buffer_ptr: int
    ) -> None:
        assert device_type == "cuda"
        self._real.bind_input(name, "cpu", 0, element_type, shape, buffer_ptr)

    def bind_output(
        self,
        name: str,
        device_type: str = "cpu",
        device_id: int = 0,
        element_type: Any = None,
        shape: Any = None,
        buffer_ptr: int | None = None,
    ) -> None:
        assert device_type == "cuda", "an output on the CPU makes ONNX Runtime wait and copy"
        self._real.bind_output(name, "cpu", 0, element_type, shape, buffer_ptr)

    def get_outputs(self) -> Any:
        return self._real.get_outputs()


def make_onnxruntime(*, providers: tuple[str, ...] = ("CUDAExecutionProvider", "CPUExecutionProvider")) -> Any:
    """A module to put in the place of `onnxruntime`. Its `calls` notes sessions (their options) and runs."""
    calls = SimpleNamespace(sessions=[], runs=0, failure=None)

    class Session:
        def __init__(
            self, path: str, sess_options: ort.SessionOptions, providers: list[Any], *, enable_fallback: bool = True
        ) -> None:
            assert isinstance(sess_options, ort.SessionOptions)
            assert not enable_fallback, "it would go on with the CPU when CUDA fails"
            ((name, options),) = providers
            assert name == "CUDAExecutionProvider"
            assert options.keys() <= KNOWN_OPTIONS, options.keys() - KNOWN_OPTIONS
            assert all(type(value) is str for value in options.values())
            assert all(options[key] in values for key, values in VALUES.items() if key in options)
            self._stream = Stream.by_ptr[int(options["user_compute_stream"])]
            if calls.failure == "open":
                raise RuntimeError("CUDA failure 35: driver version is insufficient")
            self._real = ort.InferenceSession(path, sess_options, providers=["CPUExecutionProvider"])
            calls.sessions.append(options)

        def get_providers(self) -> list[str]:
            return ["CPUExecutionProvider"] if calls.failure == "start" else list(providers)

        def io_binding(self) -> _Binding:
            return _Binding(self._real)

        def run_with_iobinding(self, iobinding: _Binding, run_options: Any = None) -> None:
            assert isinstance(run_options, _RunOptions)
            if calls.failure == "run":
                raise ort_errors.RuntimeException("CUDNN failure 4")
            calls.runs += 1
            self._stream.do(lambda: self._real.run_with_iobinding(iobinding._real, run_options))

    module: Any = ModuleType("onnxruntime")
    module.__version__ = ort.__version__
    module.__file__ = str(Path(__file__).parent / "nowhere" / "__init__.py")
    module.SessionOptions = ort.SessionOptions
    module.RunOptions = _RunOptions
    module.InferenceSession = Session
    module.get_available_providers = lambda: list(providers)
    module.preload_dlls = lambda cuda=True, cudnn=True, msvc=True, directory=None: print("Failed to load nothing")
    module.calls = calls
    return module
