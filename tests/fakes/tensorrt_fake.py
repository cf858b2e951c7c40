"""TensorRT 10, TensorRT 11 and TensorRT-RTX without a GPU, as strict as their bindings.

Names, parameters and enum values are those of the wheels 10.16.1, 11.4.0 and RTX 1.7.1: what a
flavour does not have is not here either. An engine of theirs is JSON; to run one writes the sum
of each picture into its head.
"""

from __future__ import annotations

import ctypes
import enum
import json
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx

from tests.fakes.tensorrt_cupy import Stream
from tests.fakes.tensorrt_types import (
    DataType,
    DynamicShapesKernelSpecializationStrategy,
    ExecutionContextAllocationStrategy,
    HostMemory,
    ILogger,
    IProgressMonitor,
    MemoryPoolType,
    Severity,
    Slotted,
    TensorIOMode,
    checked,
)

VERSIONS = {"tensorrt": "10.16.1.11", "tensorrt11": "11.4.0.106", "tensorrt-rtx": "1.7.1.116"}
SCRATCH_BYTES = 4096

_HALF = onnx.TensorProto.FLOAT16


def make_tensorrt(kind: str, version: str | None = None) -> Any:
    """A module to put into sys.modules.

    Args:
        kind: "tensorrt" (10), "tensorrt11" or "tensorrt-rtx".
        version: instead of the one of `VERSIONS`.

    Its `calls` is a `SimpleNamespace` of what happened: networks, configs, contexts, runs; `failure` in
    it makes "parse", "build", "load" or "run" fail, `capturable` is RTX's answer.
    """
    rtx = kind == "tensorrt-rtx"
    version = version or VERSIONS[kind]
    calls = SimpleNamespace(networks=[], configs=[], contexts=[], runs=[], failure=None, capturable=True)

    class NetworkDefinitionCreationFlag(enum.IntEnum):
        if kind == "tensorrt":
            EXPLICIT_BATCH = 0
            STRONGLY_TYPED = 1
        else:
            STRONGLY_TYPED = 0

    class BuilderFlag(enum.Enum):
        TF32 = 6
        if kind == "tensorrt":
            FP16 = 0
        if rtx:
            REQUIRE_USER_ALLOCATION = 28

    class ComputeCapability(enum.Enum):
        NONE = 0
        CURRENT = 1
        SM75 = 75
        SM80 = 80
        SM86 = 86
        SM89 = 89
        SM120 = 120
        SM121 = 121

    class Tensor(Slotted):
        def __init__(self, value: Any) -> None:
            self._value = value

        @property
        def name(self) -> str:
            return str(self._value.name)

        @property
        def shape(self) -> tuple[int, ...]:
            return tuple(d.dim_value or -1 for d in self._value.type.tensor_type.shape.dim)

        @property
        def dtype(self) -> DataType:
            half = self._value.type.tensor_type.elem_type == _HALF
            return DataType.HALF if half else DataType.FLOAT

    class Network(Slotted):
        def __init__(self, flags: int) -> None:
            self._flags = flags
            self._inputs: list[Tensor] = []
            self._outputs: list[Tensor] = []
            calls.networks.append(self)

        def get_input(self, index: int) -> Tensor:
            return self._inputs[index]

        def get_output(self, index: int) -> Tensor:
            return self._outputs[index]

    class Profile(Slotted):
        def __init__(self) -> None:
            self._shapes: dict[str, tuple[Any, Any, Any]] = {}

        def set_shape(
            self, input: str, min: tuple[int, ...], opt: tuple[int, ...], max: tuple[int, ...]
        ) -> None:
            self._shapes[input] = (min, opt, max)

    class TimingCache(Slotted):
        def __init__(self, data: bytes) -> None:
            self._data = data

        def serialize(self) -> HostMemory:
            return HostMemory(self._data)

    class Config(Slotted):
        _settable = ("progress_monitor", "num_compute_capabilities") if rtx else ("progress_monitor",)

        def __init__(self) -> None:
            self._limits: dict[MemoryPoolType, int] = {}
            self._profiles: list[Profile] = []
            self._flags: list[BuilderFlag] = []
            self._capabilities: list[ComputeCapability] = []
            self._cache: TimingCache | None = None
            self.progress_monitor: Any = None
            if rtx:
                self.num_compute_capabilities = 0
            calls.configs.append(self)

        def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
            assert isinstance(pool, MemoryPoolType)
            self._limits[pool] = pool_size

        def add_optimization_profile(self, profile: Profile) -> int:
            assert isinstance(profile, Profile)
            self._profiles.append(profile)
            return len(self._profiles) - 1

        def set_flag(self, flag: BuilderFlag) -> None:
            assert isinstance(flag, BuilderFlag)
            self._flags.append(flag)

        def create_timing_cache(self, serialized_timing_cache: bytes) -> TimingCache:
            assert not rtx, "RTX has no timing cache; asking for one needs a GPU"
            return TimingCache(bytes(serialized_timing_cache))

        def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
            assert isinstance(cache, TimingCache)
            if cache._data and not cache._data.startswith(f"timings of {version}".encode()):
                return False
            self._cache = cache
            return True

        if rtx:

            def set_compute_capability(self, compute_capability: ComputeCapability, index: int) -> bool:
                if not 0 <= index < self.num_compute_capabilities:
                    return False
                self._capabilities.append(ComputeCapability(compute_capability))
                return True

    class OnnxParser(Slotted):
        def __init__(self, network: Network, logger: ILogger) -> None:
            assert isinstance(network, Network)
            checked(logger, ILogger)
            self._network = network

        def parse(self, model: bytes, path: str | None = None) -> bool:
            assert path is None or isinstance(path, str)
            if calls.failure == "parse":
                return False
            graph = onnx.load_from_string(bytes(model)).graph
            self._network._inputs = [Tensor(value) for value in graph.input]
            self._network._outputs = [Tensor(value) for value in graph.output]
            return True

        @property
        def num_errors(self) -> int:
            return 1 if calls.failure == "parse" else 0

        def get_error(self, index: int) -> str:
            return f"node {index} (Mystery): no importer"

    class Builder(Slotted):
        def __init__(self, logger: ILogger) -> None:
            self._logger = checked(logger, ILogger)

        def create_network(self, flags: int = 0) -> Network:
            return Network(flags)

        def create_builder_config(self) -> Config:
            return Config()

        def create_optimization_profile(self) -> Profile:
            return Profile()

        def build_serialized_network(self, network: Network, config: Config) -> HostMemory | None:
            assert network._flags >> int(NetworkDefinitionCreationFlag.STRONGLY_TYPED) & 1, "not strongly typed"
            if calls.failure == "build":
                self._logger.log(Severity.ERROR, "no implementation for node Conv_3")
                return None
            if config.progress_monitor is not None:
                monitor = checked(config.progress_monitor, IProgressMonitor)
                monitor.phase_start("Building engine", None, 2)
                monitor.phase_start("Timing", "Building engine", 4)
                for step in range(4):
                    assert monitor.step_complete("Timing", step) is True
                monitor.phase_finish("Timing")
                monitor.phase_finish("Building engine")
            if config._cache is not None:
                config._cache._data = config._cache._data or f"timings of {version}".encode()
            described = {
                "kind": kind,
                "version": version,
                "tensors": [
                    [t.name, is_input, t.dtype.name, t.shape]
                    for is_input, tensors in ((True, network._inputs), (False, network._outputs))
                    for t in tensors
                ],
                "profile": [p._shapes for p in config._profiles],
                "graphs": not rtx or BuilderFlag.REQUIRE_USER_ALLOCATION in config._flags,
            }
            return HostMemory(json.dumps(described).encode())

    class RuntimeConfig(Slotted):
        _settable = ("dynamic_shapes_kernel_specialization_strategy",) if rtx else ()

        def __init__(self) -> None:
            self._strategy = ExecutionContextAllocationStrategy.STATIC
            if rtx:
                self.dynamic_shapes_kernel_specialization_strategy = DynamicShapesKernelSpecializationStrategy.LAZY

        def set_execution_context_allocation_strategy(self, strategy: ExecutionContextAllocationStrategy) -> None:
            self._strategy = ExecutionContextAllocationStrategy(strategy)

    class Context(Slotted):
        def __init__(self, engine: Engine, strategy: ExecutionContextAllocationStrategy) -> None:
            self._engine = engine
            self._strategy = strategy
            self._memory: tuple[int, int] | None = None
            self._shape: tuple[int, ...] | None = None
            self._addresses: dict[str, int] = {}
            calls.contexts.append(self)

        def set_device_memory(self, memory: int, size: int) -> None:
            assert self._strategy is ExecutionContextAllocationStrategy.USER_MANAGED
            assert memory % 256 == 0
            assert size >= self._engine.device_memory_size_v2
            self._memory = (memory, size)

        def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
            assert type(shape) in (tuple, list)
            engine_shape = self._engine.get_tensor_shape(name)
            if not self._engine._described["profile"]:
                self._shape = tuple(shape)
                return self._shape == engine_shape
            low, _, high = self._engine._described["profile"][0][name]
            self._shape = tuple(shape)
            return all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True))

        def set_tensor_address(self, name: str, memory: int) -> bool:
            assert type(memory) is int
            self._addresses[name] = memory
            return name in self._engine._names

        def execute_async_v3(self, stream_handle: int) -> bool:
            assert stream_handle in Stream.by_ptr, "not a stream, or the default one"
            if calls.failure == "run" or self._memory is None or self._shape is None:
                return False
            assert self._addresses.keys() == set(self._engine._names)
            (image, head) = self._engine._names
            source, target, shape = self._addresses[image], self._addresses[head], self._shape
            stream = Stream.by_ptr[stream_handle]
            calls.runs.append((shape[0], source, target, stream.is_capturing()))
            stream.do(lambda: self._engine._sum_up(shape, source, target))
            return True

        if rtx:

            def is_stream_capturable(self, stream: int) -> bool:
                assert stream in Stream.by_ptr
                return calls.capturable and self._engine._described["graphs"]

    class Engine(Slotted):
        device_memory_size_v2 = SCRATCH_BYTES

        def __init__(self, described: Any) -> None:
            self._described = described
            self._names = [name for name, *_ in described["tensors"]]

        @property
        def num_io_tensors(self) -> int:
            return len(self._names)

        def get_tensor_name(self, index: int) -> str:
            return str(self._names[index])

        def _tensor(self, name: str) -> Any:
            return self._described["tensors"][self._names.index(name)]

        def get_tensor_mode(self, name: str) -> TensorIOMode:
            return TensorIOMode.INPUT if self._tensor(name)[1] else TensorIOMode.OUTPUT

        def get_tensor_dtype(self, name: str) -> DataType:
            return DataType[self._tensor(name)[2]]

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            return tuple(self._tensor(name)[3])

        def create_runtime_config(self) -> RuntimeConfig:
            return RuntimeConfig()

        def create_execution_context(self, *args: Any) -> Context:
            if len(args) == 1 and isinstance(args[0], ExecutionContextAllocationStrategy):
                return Context(self, args[0])
            if len(args) == 1 and isinstance(args[0], RuntimeConfig):
                return Context(self, args[0]._strategy)
            raise TypeError("create_execution_context(): incompatible function arguments")

        def _sum_up(self, shape: tuple[int, ...], source: int, target: int) -> None:
            (_, _, kind, _), (_, _, out_kind, head) = self._described["tensors"]
            pictures = _view(source, shape, kind)
            heads = _view(target, (shape[0], *head[1:]), out_kind)
            heads[:] = pictures.reshape(shape[0], -1).sum(1, np.float32).reshape(-1, 1, 1)

    class Runtime(Slotted):
        def __init__(self, logger: ILogger) -> None:
            self._logger = checked(logger, ILogger)

        def deserialize_cuda_engine(self, serialized_engine: bytes) -> Engine | None:
            try:
                described = json.loads(bytes(serialized_engine))
            except ValueError:
                described = {}
            if calls.failure == "load" or (described.get("kind"), described.get("version")) != (kind, version):
                self._logger.log(Severity.ERROR, "the engine plan file is not compatible with this version")
                return None
            return Engine(described)

    module: Any = ModuleType("tensorrt_rtx_bindings" if rtx else "tensorrt")
    module.__spec__ = SimpleNamespace(name=module.__name__)
    module.__version__ = version
    for thing in (
        ILogger, IProgressMonitor, MemoryPoolType, DataType, TensorIOMode, ExecutionContextAllocationStrategy,
        NetworkDefinitionCreationFlag, BuilderFlag, OnnxParser, Builder, Runtime,
    ):  # fmt: skip
        setattr(module, thing.__name__, thing)
    if rtx:
        module.ComputeCapability = ComputeCapability
        module.DynamicShapesKernelSpecializationStrategy = DynamicShapesKernelSpecializationStrategy
    module.calls = calls
    return module


def _view(address: int, shape: tuple[int, ...], kind: str) -> np.ndarray:
    dtype = np.dtype(np.float16 if kind == "HALF" else np.float32)
    count = int(np.prod(shape))
    memory = (ctypes.c_char * (count * dtype.itemsize)).from_address(address)
    return np.frombuffer(memory, dtype, count).reshape(shape)
