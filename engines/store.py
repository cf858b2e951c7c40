"""Built engines on disk: their names, their descriptions, and whether one may be used. No GPU package.

ENGINE.engine has ENGINE.json beside it: the `EngineSpec` it was built for and the SHA-256 of its
bytes. An engine is read only if both agree with what is wanted; all else is `StaleEngine`, and the
caller builds anew. Files appear by `os.replace`, the description last: a process that dies in
between, or two that build at once, leave an engine that is found stale, never a wrong one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from tiler.errors import InputError

FORMAT = 1
"""Of the description. Raise it when engines of older versions must not be used any more."""


class StaleEngine(Exception):  # noqa: N818  (a state of a file, which its catcher mends)
    """This engine must not be used; the text says why."""


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """All that decides what an engine is. Two that are equal may share a file.

    Attributes:
        model: short name.
        onnx_sha256: of the model it is built from, see `ModelSpec.sha256`.
        precision: type of weights, arithmetic, input and output: fp16 or fp32.
        input_size: (width, height) of the tensor.
        max_batch: it takes batches of 1 to this many pictures.
        workspace_bytes: scratch memory that the builder may plan with.
        capability: of the GPU, major * 10 + minor.
        flavour: "tensorrt" or "tensorrt-rtx".
        version: of that library.
        device: name of the GPU that it was tuned on, "" when it was built without one.
    """

    model: str
    onnx_sha256: str
    precision: str
    input_size: tuple[int, int]
    max_batch: int
    workspace_bytes: int
    capability: int
    flavour: str
    version: str
    device: str

    @property
    def gpu(self) -> str:
        """As part of a file name: two GPUs of one capability each have their engines."""
        return f"sm{self.capability}" + (f"-{safe_name(self.device)}" if self.device else "")

    def file_name(self, max_batch: str = "") -> str:
        """Name of the engine: what a person looks for, then a digest against models of the same name.

        Args:
            max_batch: instead of its own; "*" makes it a pattern.
        """
        return (
            f"{safe_name(self.model)}-b{max_batch or self.max_batch}-{self.precision}-{self.gpu}"
            f"-{self.flavour}-{self.version}-{self.onnx_sha256[:8]}.engine"
        )


@dataclass(frozen=True, slots=True)
class EngineFile:
    """A description: what the engine is and which bytes it has.

    Attributes:
        spec: what it was built for.
        engine_sha256: of the engine's bytes, lower-case hex.
        engine_bytes: its size.
        built_at: UTC, ISO 8601.
        build_s: how long it took.
        tiler: version that built it.
    """

    spec: EngineSpec
    engine_sha256: str
    engine_bytes: int
    built_at: str
    build_s: float
    tiler: str


def safe_name(model: str) -> str:
    """A model's name as part of a file name: any file system takes it, no pattern has a meaning in it."""
    return re.sub(r"[^\w.+-]+", "_", model)[:80]


def engine_folder() -> Path:
    """Where engines are kept: $TILER_CACHE/engines, else tiler/engines below $XDG_CACHE_HOME or ~/.cache."""
    if own := os.environ.get("TILER_CACHE"):
        return Path(own) / "engines"
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "tiler" / "engines"


def sha256(data: bytes) -> str:
    """Lower-case hex digest."""
    return hashlib.sha256(data).hexdigest()


def write_atomically(path: Path, data: bytes, check: Callable[[Path], None] | None = None) -> None:
    """Write a file that is either whole or not there.

    Args:
        path: of the file.
        data: its content.
        check: is given a file of that content, and raises if it is not to be there.

    Raises:
        InputError: the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, scratch = tempfile.mkstemp(prefix=f".{path.name[:60]}-", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            if check is not None:
                check(Path(scratch))
            os.chmod(scratch, 0o644)  # mkstemp makes it private; the cache may be shared
            os.replace(scratch, path)
        except BaseException:
            os.unlink(scratch)
            raise
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror or error}; set TILER_CACHE to a folder that can be written"
        ) from error


def write_engine(path: Path, plan: bytes, spec: EngineSpec, *, built_at: str, build_s: float, tiler: str) -> EngineFile:
    """Keep an engine and its description.

    Raises:
        InputError: the folder cannot be written.
    """
    described = EngineFile(spec, sha256(plan), len(plan), built_at, round(build_s, 3), tiler)
    content = {"format": FORMAT, **asdict(described)}
    write_atomically(path, plan)
    write_atomically(path.with_suffix(".json"), (json.dumps(content, indent=2) + "\n").encode())
    return described


def read_description(path: Path) -> EngineFile:
    """What the file beside an engine says of it.

    Raises:
        StaleEngine: there is none, or another version wrote it.
    """
    beside = path.with_suffix(".json")
    try:
        content = json.loads(beside.read_bytes())
    except FileNotFoundError:
        raise StaleEngine(f"it has no description ({beside.name})") from None
    except (OSError, ValueError) as error:
        raise StaleEngine(f"its description {beside.name} cannot be read: {error}") from error
    if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
        raise StaleEngine("another version of tiler described it")
    if not _has_fields(content, EngineFile) or not _has_fields(content["spec"], EngineSpec):
        raise StaleEngine(f"its description {beside.name} is incomplete")
    spec = {**content["spec"], "input_size": tuple(content["spec"]["input_size"])}
    return EngineFile(**{**content, "spec": EngineSpec(**spec)})


def read_engine(path: Path, wanted: EngineSpec | None = None) -> tuple[bytes, EngineFile]:
    """The bytes of an engine that is what its description says, and what is wanted.

    Raises:
        StaleEngine: it is not there, damaged, or was built for something else.
    """
    try:
        plan = path.read_bytes()
    except FileNotFoundError:
        raise StaleEngine("it is not built yet") from None
    except OSError as error:
        raise StaleEngine(f"it cannot be read: {error.strerror or error}") from error
    described = read_description(path)
    if len(plan) != described.engine_bytes or sha256(plan) != described.engine_sha256:
        raise StaleEngine("its bytes are not those that were built (damaged, or half written)")
    if wanted is not None:
        for field in fields(EngineSpec):
            has, wants = getattr(described.spec, field.name), getattr(wanted, field.name)
            if has != wants:
                raise StaleEngine(f"it was built for {field.name} {has or 'unknown'}, wanted is {wants or 'unknown'}")
    return plan, described


def _has_fields(content: Any, cls: type) -> bool:
    if not isinstance(content, dict) or content.keys() != {field.name for field in fields(cls)}:
        return False
    kinds: dict[str, Any] = {"str": str, "int": int, "float": (int, float), "tuple[int, int]": list, "EngineSpec": dict}
    return all(isinstance(content[field.name], kinds[str(field.type)]) for field in fields(cls))
