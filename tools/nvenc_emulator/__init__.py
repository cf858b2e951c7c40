"""An NVENC driver without an encoder chip: builds it, and says how a process gets it. See README.md."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tools.nvenc_emulator.header import header

_HERE = Path(__file__).parent
_FLAGS = ("-O3", "-std=gnu11", "-Wall", "-Wextra", "-shared", "-fPIC")
_LIBRARIES = {
    # folder -> library, sources, what is linked
    "encode": (
        "libnvidia-encode.so.1",
        ("nvenc.c", "parameters.c", "pictures.c", "log.c", "h264.c"),
        ("-fvisibility=hidden", "-ldl", "-lpthread"),
    ),
    "cuda": ("libcuda.so.1", ("cuda_host.c",), ("-lpthread",)),
}


def build(cache: Path | None = None) -> Path:
    """Build both libraries, unless that was done before from the same sources.

    Args:
        cache: where builds are kept; by default `nvenc_emulator` in TILER_CACHE or ~/.cache/tiler.

    Returns:
        A folder with `encode/libnvidia-encode.so.1` and `cuda/libcuda.so.1`.

    Raises:
        FileNotFoundError: there is no C compiler (cc), and no build of these sources.
        subprocess.CalledProcessError: it refuses the sources.
    """
    cache = cache or Path(os.environ.get("TILER_CACHE") or Path.home() / ".cache" / "tiler") / "nvenc_emulator"
    sources = sorted([*_HERE.glob("*.c"), *_HERE.glob("*.h"), *_HERE.glob("*.json")])
    sources += [_HERE / "__init__.py", _HERE / "header.py"]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    folder = cache / digest
    if folder.is_dir():
        return folder
    compiler = shutil.which("cc")
    if compiler is None:
        raise FileNotFoundError("the NVENC emulator is C: no C compiler (cc) here")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as made:
        work = Path(made) / "work"
        work.mkdir()
        (work / "nvenc_abi.h").write_text(header(), encoding="utf-8")
        for name, (library, parts, extra) in _LIBRARIES.items():
            (work / name).mkdir()
            command = [compiler, *_FLAGS, f"-I{work}", "-o", str(work / name / library)]
            subprocess.run([*command, *(str(_HERE / part) for part in parts), *extra], check=True)
        try:
            work.rename(folder)
        except OSError:
            if not folder.is_dir():  # another process was faster
                raise
    return folder


def environment(*, host_cuda: bool, log: Path | None = None, base: dict[str, str] | None = None) -> dict[str, str]:
    """The environment of a process that finds the emulated encoder.

    Args:
        host_cuda: libcuda is the stand-in with host memory too, for machines without a CUDA driver.
        log: file that gets one JSON object a call.
        base: what to add to; by default this process's environment.
    """
    folder = build()
    before = dict(os.environ) if base is None else dict(base)
    paths = [str(folder / "encode"), *([str(folder / "cuda")] if host_cuda else [])]
    paths += [before["LD_LIBRARY_PATH"]] if before.get("LD_LIBRARY_PATH") else []
    return {
        **before,
        "LD_LIBRARY_PATH": ":".join(paths),
        **({"NVENC_EMULATOR_LOG": str(log.absolute())} if log else {}),
    }
