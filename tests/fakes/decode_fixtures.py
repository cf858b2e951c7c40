"""tiler's CUDA decoders on fakes of CuPy and PyNvVideoCodec."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator

import pytest
from decode_parts import MODULES, Gpu

import tiler.decode
from fakes.cupy_host import HostCupy
from fakes.pynvvideocodec import HostNvdec
from tiler.kernels import enqueue_cuda


@pytest.fixture
def gpu() -> Iterator[Gpu]:
    """tiler's CUDA decoders on fakes; what was imported before is put back."""
    names = ["cupy", "PyNvVideoCodec", *(f"tiler.decode.{name}" for name in MODULES)]
    before = {name: sys.modules.pop(name, None) for name in names}
    host = HostCupy()
    nvdec = HostNvdec(host)
    sys.modules["cupy"], sys.modules["PyNvVideoCodec"] = host.module, nvdec.module
    driver = enqueue_cuda.copy, enqueue_cuda.record
    enqueue_cuda.copy, enqueue_cuda.record = host.copy, lambda event, stream: event.record(stream)
    try:
        modules = {name: importlib.import_module(f"tiler.decode.{name}") for name in MODULES}
        yield Gpu(host=host, nvdec=nvdec, **modules)
    finally:
        enqueue_cuda.copy, enqueue_cuda.record = driver
        for name in names:
            sys.modules.pop(name, None)
            if before[name] is not None:
                sys.modules[name] = before[name]
        for name in MODULES:
            vars(tiler.decode).pop(name, None)
            if before[f"tiler.decode.{name}"] is not None:
                setattr(tiler.decode, name, before[f"tiler.decode.{name}"])
