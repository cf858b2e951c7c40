"""Every .cu file compiles for every GPU that tiler runs on: NVRTC, the options of module_cuda, no GPU needed."""

from __future__ import annotations

import ast
import ctypes
import os
from importlib import metadata
from pathlib import Path

import pytest

KERNELS = Path(__file__).parent.parent / "kernels"
SOURCES = sorted(KERNELS.glob("*.cu"))
CAPABILITIES = (75, 80, 86, 89, 90, 100, 120)


def _find(package: str, name: str) -> Path | None:
    """A file of an installed package, or of a CUDA toolkit."""
    try:
        for file in metadata.files(package) or ():
            if file.name.startswith(name):
                return Path(str(file.locate()))
    except metadata.PackageNotFoundError:
        pass
    toolkit = Path(os.environ.get("CUDA_PATH", "/usr/local/cuda"))
    return next((path for folder in ("lib64", "include") for path in sorted((toolkit / folder).glob(f"{name}*"))), None)


LIBRARY = _find("nvidia-cuda-nvrtc", "libnvrtc.so")
HEADER = _find("nvidia-cuda-runtime", "cuda_fp16.h")


def options() -> tuple[str, ...]:
    """The options that module_cuda compiles with, read from its text."""
    tree = ast.parse((KERNELS / "module_cuda.py").read_text(encoding="utf-8"))
    return tuple(
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("--")
    )


def compile_cubin(text: str, name: str, capability: int) -> tuple[int, str]:
    """Size of the compiled code in bytes, 0 when there is none, and what NVRTC said."""
    nvrtc = ctypes.CDLL(str(LIBRARY))
    assert HEADER is not None
    arguments = [f"--gpu-architecture=sm_{capability}", f"-I{HEADER.parent}", *options()]
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), name.encode(), 0, None, None) == 0
    try:
        listed = (ctypes.c_char_p * len(arguments))(*[argument.encode() for argument in arguments])
        failed = nvrtc.nvrtcCompileProgram(program, len(arguments), listed)
        nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        nvrtc.nvrtcGetProgramLog(program, log)
        if failed:
            return 0, log.value.decode()
        nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size))
        return size.value, log.value.decode()
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


needs_nvrtc = pytest.mark.skipif(LIBRARY is None or HEADER is None, reason="NVRTC or the CUDA headers are not here")


def test_the_options_are_those_of_module_cuda() -> None:
    assert options() == ("--std=c++17", "--fmad=false")


@needs_nvrtc
@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_a_kernel_compiles(path: Path, capability: int) -> None:
    size, log = compile_cubin(path.read_text(encoding="utf-8"), path.name, capability)
    assert size > 0, log
    assert "warning" not in log, log


@needs_nvrtc
def test_what_does_not_compile_is_found() -> None:
    size, log = compile_cubin('extern "C" __global__ void broken() { missing(); }', "broken.cu", 89)
    assert size == 0
    assert 'identifier "missing" is undefined' in log
