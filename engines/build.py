"""An engine for a model, a batch and a GPU: from the cache when it holds one that is right, else built now."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from tiler import __version__
from tiler.engines.registry import ModelSpec
from tiler.engines.store import (
    EngineFile,
    EngineSpec,
    StaleEngine,
    engine_folder,
    read_description,
    read_engine,
    safe_name,
    write_atomically,
    write_engine,
)
from tiler.engines.tensorrt import TITLES, Flavour, Progress, TensorRT, UnusableError, dotted
from tiler.errors import InputError

_log = logging.getLogger(__name__)

WORKSPACE_BYTES = 1 << 30
"""Scratch that a builder may plan with; what an engine needs of it is known once it is built."""


@dataclass(frozen=True, slots=True)
class Target:
    """The GPU that an engine is for.

    Attributes:
        capability: major * 10 + minor.
        device: its name, "" when it is not in this machine.
    """

    capability: int
    device: str = ""


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine that may be used.

    Attributes:
        path: its file.
        plan: its bytes.
        described: what the file beside it says.
        reason: "from the cache", for what, or why it was built.
        cached: it comes from the cache.
    """

    path: Path
    plan: bytes
    described: EngineFile
    reason: str
    cached: bool = True


def wanted(tensorrt: TensorRT, model: ModelSpec, max_batch: int, target: Target) -> EngineSpec:
    """What an engine has to be for this model, batch and GPU.

    Raises:
        InputError: the batch is not one that the model takes.
    """
    if max_batch < 1 or (max_batch > 1 and not model.dynamic_batch):
        accepted = "1 or more" if model.dynamic_batch else "1, the batch axis of this model is fixed"
        raise InputError(f"model {model.name}: max batch of {max_batch}; accepted: {accepted}")
    return EngineSpec(
        model=model.name,
        onnx_sha256=model.sha256,
        precision=model.precision,
        input_size=model.input_size,
        max_batch=max_batch,
        workspace_bytes=WORKSPACE_BYTES,
        capability=target.capability,
        flavour=tensorrt.flavour,
        version=tensorrt.version,
        # RTX tunes itself when it runs; TensorRT's engines carry the timings of one GPU.
        device="" if tensorrt.is_rtx else target.device,
    )


def ensure_engine(
    tensorrt: TensorRT, model: ModelSpec, max_batch: int, target: Target, progress: Progress | None = None, *,
    exact: bool = False,
) -> Engine:
    """The engine from the cache, built first if it is not there or must not be used.

    One for larger batches takes these, too, and spares a run the minutes of a build.

    Args:
        tensorrt: builds it, on the current CUDA device (RTX: on none).
        model: in the precision to run in.
        max_batch: largest batch.
        target: the GPU.
        progress: told what is going on while it is built; the log is, when absent.
        exact: none for larger batches will do.

    Raises:
        InputError: the model does not become an engine, or the cache cannot be written.
        UnusableError: this TensorRT makes none for this GPU.
    """
    if problem := tensorrt.problem(target.capability):
        raise UnusableError(problem)
    spec = wanted(tensorrt, model, max_batch, target)
    path = engine_folder() / spec.file_name()
    try:
        return _cached(path, spec, exact)
    except StaleEngine as stale:
        reason = str(stale)
    tell = progress or _log.info
    what = f"{model.name} for batches up to {max_batch}, {model.precision}, capability {dotted(target.capability)}"
    (progress or _log.warning)(f"{tensorrt.title}: building {what}: {reason}; this can take minutes, once")
    timings = path.with_name(f"timings-{spec.gpu}-{spec.flavour}-{spec.version}.cache")
    before = timings.read_bytes() if timings.is_file() else b""
    started_s = time.monotonic()
    plan, after = tensorrt.build(
        model.path, model.input_size, max_batch, spec.workspace_bytes, spec.capability, before, tell
    )
    build_s = time.monotonic() - started_s
    if after != before:
        write_atomically(timings, after)
    built_at = datetime.now(UTC).isoformat(timespec="seconds")
    described = write_engine(path, plan, spec, built_at=built_at, build_s=build_s, tiler=__version__)
    tell(f"{tensorrt.title}: built {path.name} in {build_s:.1f} s, {len(plan) / 1e6:.1f} MB")
    return Engine(path, plan, described, f"built now: {reason}", cached=False)


def _cached(path: Path, spec: EngineSpec, exact: bool) -> Engine:
    """The engine of this path, or else, if not `exact`, the smallest that is for larger batches and may be used.

    Raises:
        StaleEngine: why the one of this path may not.
    """
    try:
        plan, described = read_engine(path, spec)
        return Engine(path, plan, described, "from the cache")
    except StaleEngine as stale:
        for most, other in () if exact else sorted(_larger(path, spec)):
            with suppress(StaleEngine):
                plan, described = read_engine(other, replace(spec, max_batch=most))
                return Engine(other, plan, described, f"from the cache, for batches up to {most}")
        raise stale


def _larger(path: Path, spec: EngineSpec) -> Iterator[tuple[int, Path]]:
    """Those beside it that differ in the largest batch, which is larger."""
    for other in path.parent.glob(spec.file_name("*")):
        with suppress(StaleEngine):
            most = read_description(other).spec.max_batch
            if most > spec.max_batch:
                yield most, other


def choose_tensorrt(flavours: Sequence[Flavour], capability: int) -> TensorRT:
    """The first TensorRT of these that makes engines for this capability (major * 10 + minor).

    Raises:
        InputError: none does; every refusal is named.
    """
    refusals = []
    for flavour in flavours:
        try:
            tensorrt = TensorRT(flavour)
            problem = tensorrt.problem(capability)
        except UnusableError as error:
            problem = str(error)
        if problem is None:
            return tensorrt
        refusals.append(f"{TITLES[flavour]}: {problem}")
    raise InputError(f"no TensorRT builds engines for compute capability {dotted(capability)}: {'; '.join(refusals)}")


class OtherVersionError(InputError):
    """An engine was built by another version of its library than is installed."""


def engines_of(model: ModelSpec) -> list[Path]:
    """The engines of a model, as it now is, in the cache: of any batch, GPU and version."""
    pattern = f"{safe_name(model.name)}-b*-{model.precision}-sm*-{model.sha256[:8]}.engine"
    return sorted(engine_folder().glob(pattern))


def inspect_engine(path: Path) -> list[str]:
    """What is known of an engine, a line each; its bytes are checked.

    Raises:
        InputError: it is not an engine that tiler built, or it is damaged.
    """
    described = _read(path)[1]
    spec = described.spec
    return [
        f"file        {path}",
        f"model       {spec.model}, {spec.precision}, {spec.input_size[0]}x{spec.input_size[1]}",
        f"batch       1..{spec.max_batch}",
        f"gpu         compute capability {dotted(spec.capability)}{f', {spec.device}' if spec.device else ''}",
        f"built by    {spec.flavour} {spec.version}, tiler {described.tiler}",
        f"workspace   {spec.workspace_bytes >> 20} MiB at most",
        f"built at    {described.built_at}, in {described.build_s:.1f} s",
        f"size        {described.engine_bytes} bytes, sha256 {described.engine_sha256[:16]}...",
        f"onnx        sha256 {spec.onnx_sha256[:16]}...",
    ]


def verify_engine(path: Path, here: Target | None = None) -> list[str]:
    """What was checked of an engine, a line each: its bytes, the version that made it, whether it loads.

    Args:
        path: of the engine.
        here: the current CUDA device; an engine for its capability is loaded.

    Raises:
        OtherVersionError: it would not be used here.
        InputError: something is not as it should be; the text says what.
    """
    plan, described = _read(path)
    spec = described.spec
    lines = [f"ok  bytes    {path.name}: the {described.engine_bytes} bytes that were built"]
    flavour: Flavour = "tensorrt-rtx" if spec.flavour == "tensorrt-rtx" else "tensorrt"
    try:
        tensorrt = TensorRT(flavour)
    except UnusableError as error:
        return [*lines, f"--  version  not compared: {TITLES[flavour]}: {error}"]
    if spec.version != tensorrt.version:
        raise OtherVersionError(
            f"{path}: {spec.flavour} {spec.version} built it, {tensorrt.version} is installed: "
            "a run builds its own; or build it now: tiler engine build"
        )
    lines.append(f"ok  version  {tensorrt.title}, as installed")
    if here is None or here.capability != spec.capability:
        found = "there is no GPU" if here is None else f"this GPU has {dotted(here.capability)}"
        return [*lines, f"--  load     not tried: it is for compute capability {dotted(spec.capability)}, {found}"]
    try:
        tensors = tensorrt.tensors(tensorrt.load(plan))
    except UnusableError as error:
        raise InputError(f"{path}: {error}") from error
    shown = ", ".join(f"{name} {kind} {list(shape)}" for name, (_, kind, shape) in tensors.items())
    return [*lines, f"ok  load     {shown}"]


def _read(path: Path) -> tuple[bytes, EngineFile]:
    try:
        return read_engine(path)
    except StaleEngine as error:
        raise InputError(f"{path}: not an engine to use: {error}") from error
