"""The shape of the package: what the README promises of it, and who may import what."""

from __future__ import annotations

import ast
import doctest
import importlib
import importlib.util
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import tiler
from tiler.stages import STAGES

GPU_PACKAGES = {"cupy", "cupyx", "tensorrt", "tensorrt_rtx_bindings", "PyNvVideoCodec", "cuda", "torch"}
FLOW = " -> ".join(STAGES)


def test_the_stages_are_folders_and_said_everywhere_in_the_same_order(repository: Path) -> None:
    for stage in STAGES:
        folder = repository / "tiler" / stage
        assert (folder / "__init__.py").is_file()
        if stage not in ("track", "output"):  # the host is their only backend
            assert (folder / "cpu.py").is_file()
        assert "Protocol" in (folder / "base.py").read_text(encoding="utf-8")
    assert FLOW in (tiler.__doc__ or "")
    assert FLOW in (repository / "tiler" / "pipeline.py").read_text(encoding="utf-8").splitlines()[0]
    assert FLOW in (repository / "README.md").read_text(encoding="utf-8")


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def _modules(repository: Path) -> list[Path]:
    return [path for folder in ("tiler", "kernels", "engines") for path in sorted((repository / folder).rglob("*.py"))]


def test_gpu_packages_are_imported_in_files_of_the_cuda_backend_only(repository: Path) -> None:
    for path in _modules(repository):
        if path.stem.endswith("cuda") or path.stem in ("nvenc", "tensorrt"):
            continue
        found = {name for name in _imports(path) if name.split(".")[0] in GPU_PACKAGES or name.startswith("numba.cuda")}
        assert not found, f"{path.relative_to(repository)} imports {found}"


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_knows_none_of_its_neighbours(repository: Path, stage: str) -> None:
    for path in sorted((repository / "tiler" / stage).glob("*.py")):
        for name in _imports(path):
            parts = name.split(".")
            if parts[0] == "tiler" and len(parts) > 1 and parts[1] in STAGES:
                assert parts[1] == stage, f"{path.name} of {stage} imports {name}"


def test_a_protocol_has_at_most_four_methods(repository: Path) -> None:
    for path in sorted((repository / "tiler").glob("*/base.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and any(getattr(b, "id", "") == "Protocol" for b in node.bases):
                methods = [n.name for n in node.body if isinstance(n, ast.FunctionDef) and not n.name.startswith("__")]
                assert 1 <= len(methods) <= 4, f"{path}: {node.name} has {methods}"


def test_the_examples_in_docstrings_hold() -> None:
    ran = 0
    for module in pkgutil.walk_packages(tiler.__path__, "tiler."):
        if module.name.endswith("cuda") and importlib.util.find_spec("cupy") is None:
            continue  # the GPU's half of a stage needs the cuda extra
        result = doctest.testmod(importlib.import_module(module.name))
        assert result.failed == 0, module.name
        ran += result.attempted
    assert ran >= 8
