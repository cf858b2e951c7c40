"""What this machine can do, and why not the rest: one line per capability."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Literal

import av
import av.codec
import av.error

from tiler import __version__, cuda

_PACKAGES = ("av", "numba", "numpy", "onnxruntime", "pydantic", "click", "PyYAML", "Pillow", "rich")
_DECODERS = ("h264", "hevc", "vp9", "libdav1d", "mjpeg")


def examine() -> str:
    """The findings as text, `ok` or `no` in front of each line."""
    lines = [f"tiler {__version__}, Python {platform.python_version()}, {platform.platform()}, {os.cpu_count()} cores"]
    problem = cuda.problem()
    if problem is None:
        from tiler.doctor_cuda import examine_cuda

        lines += examine_cuda()
    else:
        lines.append(f"no  cuda           {problem}; every stage runs on the CPU")
    lines += [_codec(name, "r", f"decode {name}") for name in _DECODERS]
    lines.append(_codec("libx264", "w", "encode H.264"))
    lines.append(_models())
    lines += [_package(name) for name in _PACKAGES]
    return "\n".join(lines)


def _codec(name: str, mode: Literal["r", "w"], what: str) -> str:
    try:
        av.codec.Codec(name, mode)
    except (ValueError, av.error.FFmpegError) as error:
        return f"no  {what:<14} not in this build of PyAV ({error})"
    return f"ok  {what:<14} PyAV {av.__version__}"


def _models() -> str:
    from tiler.engines.shipped import shipped_models

    names = shipped_models()
    return f"ok  models         {', '.join(names) or 'none is shipped'}"


def _package(name: str) -> str:
    try:
        return f"ok  package        {name} {metadata.version(name)}"
    except metadata.PackageNotFoundError:
        return f"no  package        {name} is not installed"
