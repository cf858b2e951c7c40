"""TensorRT 10, TensorRT 11 and TensorRT-RTX behind one adapter: ONNX -> engine -> execution context.

The only file that knows where they differ. Networks are strongly typed, so the types of the ONNX
file hold; flags are taken by name, for their values differ between versions; RTX has no timing
cache, builds for a capability without a GPU, and says itself when a context can be captured.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from tiler.errors import InputError

_log = logging.getLogger(__name__)

Flavour = Literal["tensorrt", "tensorrt-rtx"]
Progress = Callable[[str], None]
"""Called with a line for the user, at most about once a second."""

TITLES: dict[Flavour, str] = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}
_MODULES: dict[Flavour, tuple[str, ...]] = {
    "tensorrt": ("tensorrt",),
    "tensorrt-rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}
_PACKAGES: dict[Flavour, str] = {"tensorrt": "tensorrt-cu13", "tensorrt-rtx": "tensorrt-rtx-cu13"}
_OLDEST: dict[Flavour, int] = {"tensorrt": 10, "tensorrt-rtx": 1}

_PROGRESS_INTERVAL_S = 1.0


class UnusableError(Exception):
    """This runtime cannot be used here; the text says why."""


class TensorRT:
    """One installed TensorRT. A thread at a time.

    Args:
        flavour: which of the two products.

    Raises:
        UnusableError: it is not installed, does not load, or is too old.
    """

    def __init__(self, flavour: Flavour) -> None:
        self.flavour = flavour
        self._trt = _load(flavour)
        self.version = str(self._trt.__version__)
        if int(self.version.split(".")[0]) < _OLDEST[flavour]:
            raise UnusableError(f"version {self.version} is too old, {_OLDEST[flavour]} is the oldest that will do")
        self._logger = _make_logger(self._trt)

    @property
    def title(self) -> str:
        """For people: "TensorRT 10.16"."""
        return f"{TITLES[self.flavour]} {'.'.join(self.version.split('.')[:2])}"

    @property
    def is_rtx(self) -> bool:
        return self.flavour == "tensorrt-rtx"

    def problem(self, capability: int) -> str | None:
        """Why it makes no engine for GPUs of this capability (major * 10 + minor); None when it may."""
        if not self.is_rtx:
            return None
        known = sorted(int(name[2:]) for name in self._trt.ComputeCapability.__members__ if name.startswith("SM"))
        if capability in known:
            return None
        return f"it has no engines for compute capability {dotted(capability)}, only for {_list(known)}"

    # --- building --------------------------------------------------------------------------------

    def build(
        self,
        onnx_path: Path,
        input_size: tuple[int, int],
        max_batch: int,
        workspace_bytes: int,
        capability: int,
        timing_cache: bytes = b"",
        progress: Progress | None = None,
    ) -> tuple[bytes, bytes]:
        """An engine for batches of 1..max_batch, tuned for max_batch, and the timing cache as it now is.

        TensorRT builds for the current CUDA device; RTX for `capability`, with or without a device.

        Raises:
            InputError: the model uses something that TensorRT cannot read, or the build fails.
        """
        trt, name = self._trt, onnx_path.name
        self._logger.errors.clear()
        builder = trt.Builder(self._logger)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, self._logger)
        if not parser.parse(onnx_path.read_bytes(), str(onnx_path)):
            found = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
            raise InputError(f"model {onnx_path}: {self.title} cannot read it: {found or self.last_error()}")
        config = builder.create_builder_config()
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_bytes)
        self._add_profile(builder, network, config, input_size, max_batch)
        cache = self._prepare_target(config, capability, timing_cache)
        if progress is not None and hasattr(trt, "IProgressMonitor"):
            config.progress_monitor = _make_monitor(trt, lambda text: progress(f"{name}: {text}"))
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise InputError(f"model {onnx_path}: {self.title} cannot build it: {self.last_error()}")
        return bytes(plan), timing_cache if cache is None else bytes(cache.serialize())

    def _add_profile(
        self, builder: Any, network: Any, config: Any, input_size: tuple[int, int], max_batch: int
    ) -> None:
        image = network.get_input(0)
        batch, _, height, width = tuple(image.shape)
        if -1 not in (batch, height, width):
            return
        rest = (3, input_size[1], input_size[0])
        largest = max_batch if batch == -1 else batch
        profile = builder.create_optimization_profile()
        profile.set_shape(image.name, (min(1, largest), *rest), (largest, *rest), (largest, *rest))
        if config.add_optimization_profile(profile) < 0:
            raise InputError(f"{self.title} refuses batches of 1 to {max_batch}: {self.last_error()}")

    def _prepare_target(self, config: Any, capability: int, timing_cache: bytes) -> Any:
        """Set what the engine is for; the timing cache in use, if there is one."""
        trt = self._trt
        if self.is_rtx:
            config.num_compute_capabilities = 1
            if not config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{capability}"), 0):
                raise InputError(f"{self.title} refuses compute capability {dotted(capability)}: {self.last_error()}")
            # Without it a context may allocate while it runs, which no CUDA graph can hold.
            config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
            return None
        cache = config.create_timing_cache(timing_cache)
        if not config.set_timing_cache(cache, False):  # of another GPU or version
            cache = config.create_timing_cache(b"")
            config.set_timing_cache(cache, False)
        return cache

    # --- running ---------------------------------------------------------------------------------

    def load(self, plan: bytes) -> Any:
        """The engine (`ICudaEngine`) of a plan, on the current CUDA device.

        Raises:
            UnusableError: TensorRT does not take it here.
        """
        self._logger.errors.clear()
        runtime = self._trt.Runtime(self._logger)
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise UnusableError(f"it does not load its engine: {self.last_error()}")
        return engine

    def tensors(self, engine: Any) -> dict[str, tuple[bool, str, tuple[int, ...]]]:
        """Of each tensor of an engine: whether it is an input, fp16 or fp32, and its shape (-1: free)."""
        trt = self._trt
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        types = {trt.DataType.HALF: "fp16", trt.DataType.FLOAT: "fp32"}
        return {
            name: (
                engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT,
                types.get(engine.get_tensor_dtype(name), str(engine.get_tensor_dtype(name))),
                tuple(engine.get_tensor_shape(name)),
            )
            for name in names
        }

    def create_context(self, engine: Any) -> Any:
        """An execution context that runs in scratch memory it is given (`set_device_memory`).

        Raises:
            UnusableError: TensorRT makes none.
        """
        trt = self._trt
        managed = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        self._logger.errors.clear()
        if self.is_rtx:
            config = engine.create_runtime_config()
            config.set_execution_context_allocation_strategy(managed)
            # Kernels for the shapes are made at once: a graph captured before would keep the general ones.
            config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
            context = engine.create_execution_context(config)
        else:
            context = engine.create_execution_context(managed)
        if context is None:
            raise UnusableError(f"it makes no execution context: {self.last_error()}")
        return context

    def capturable(self, context: Any, stream_ptr: int) -> bool:
        """Whether what the context enqueues on this stream can become a CUDA graph."""
        return bool(context.is_stream_capturable(stream_ptr)) if self.is_rtx else True

    def last_error(self) -> str:
        """What TensorRT said last of what went wrong."""
        return "; ".join(self._logger.errors[-2:]) or "it does not say why"


def dotted(capability: int) -> str:
    """89 -> "8.9"."""
    return f"{capability // 10}.{capability % 10}"


def _list(capabilities: list[int]) -> str:
    return ", ".join(dotted(capability) for capability in capabilities)


def _load(flavour: Flavour) -> Any:
    for name in _MODULES[flavour]:
        if importlib.util.find_spec(name) is None:
            continue
        try:
            return importlib.import_module(name)
        except (ImportError, OSError, RuntimeError, AttributeError) as error:
            first = next(iter(str(error).splitlines()), type(error).__name__)
            raise UnusableError(f"installed, but it does not load: {first}") from error
    raise UnusableError(f"not installed (pip install {_PACKAGES[flavour]})")


def _make_logger(trt: Any) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc]
        """TensorRT's messages into Python's log; errors are kept, to be told with what failed."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            severities = trt.ILogger.Severity
            if severity in (severities.INTERNAL_ERROR, severities.ERROR):
                self.errors.append(message.strip())
                _log.debug("TensorRT: %s", message)
            elif severity == severities.WARNING:
                _log.info("TensorRT: %s", message)

    return Logger()


def _make_monitor(trt: Any, tell: Progress) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Phases within phases -> one line about the innermost, now and then."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}
            self._told_s = time.monotonic()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._steps[phase_name] = num_steps

        def step_complete(self, phase_name: str, step: int) -> bool:
            now = time.monotonic()
            if now - self._told_s >= _PROGRESS_INTERVAL_S:
                self._told_s = now
                tell(f"{phase_name} {100 * (step + 1) // max(1, self._steps.get(phase_name, 1))} %")
            return True

        def phase_finish(self, phase_name: str) -> None:
            self._steps.pop(phase_name, None)

    return Monitor()
