"""What a first run compiles, by two processes at once.

Numba compiles one function after the other, whatever threads ask, and keeps on disk what it has compiled. To open the
stages compiles what detects, follows and knows people; meanwhile a process of its own scales and draws a picture, whose
kernels take as long, and the run finds them on disk. Where that goes wrong, the run compiles them itself.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np

from tiler.closing import Closing

_LONGEST_S = 120.0


class CompileAhead(Closing):
    """The other process; none where the mosaic's kernel is on disk already. It ends when this is closed, or gone.

    Attributes:
        needed: there is something to compile, as far as can be told beforehand.
    """

    def __init__(self) -> None:
        self.needed = False
        self._process: subprocess.Popen[bytes] | None = None
        with contextlib.suppress(OSError, AttributeError, TypeError):  # no process; Numba has no compiler, or no cache
            self.needed = not _compiled()
            if self.needed:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "tiler.compile_ahead"],
                    stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                )  # fmt: skip

    def finish(self) -> None:
        """Wait until everything is compiled, or cannot be."""
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_LONGEST_S)

    def close(self) -> None:
        """Give up; may be called twice."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()


def _compiled() -> bool:
    """Whether Numba's index says so, of this Python and no older than the source."""
    from tiler.kernels.compose_cpu import compose_rows

    code = compose_rows.py_func.__code__
    python = f"py{sys.version_info[0]}{sys.version_info[1]}"
    index = Path(compose_rows.stats.cache_path) / f"compose_cpu.compose_rows-{code.co_firstlineno}.{python}.nbi"
    return index.is_file() and index.stat().st_mtime >= os.stat(code.co_filename).st_mtime


def compile_pictures() -> None:
    """Compile what each picture of a run on the CPU goes through, but for what is compiled when stages are opened."""
    from tiler.compose.cpu import CpuCompositor
    from tiler.config.models import Config, MosaicConfig, Source
    from tiler.crowd import People, TrackBatch
    from tiler.engines.registry import load_model
    from tiler.preprocess.cpu import CpuPreprocessor
    from tiler.track.trails import Trails
    from tiler.types import Frame, State, TileInput, Tracks

    grey, half = np.full((64, 64), 128, np.uint8), np.full((32, 32), 128, np.uint8)
    frame = Frame(0, 0, grey, half, half)
    person = Tracks(1, np.ones(1, np.int32), np.ones((1, 4), np.float32), np.ones(1, np.float32), np.zeros(1, np.int32))
    people = People(Trails(1.0).add(TrackBatch.of((0,), (person,))), 0)
    config = Config(sources=[Source(id="a", uri="a")], mosaic=MosaicConfig(width=64, height=64))
    with CpuCompositor(config, 1) as compositor:
        compositor.compose(0, [TileInput(frame, people, State.LIVE, 0.0)])
    with CpuPreprocessor((64, 64), load_model("person-nano", Path()).input, 1, 1) as preprocessor:
        preprocessor.prepare([frame])


def _end_with_the_run() -> None:
    """A run that is killed closes the pipe."""
    sys.stdin.buffer.read()
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with_the_run, daemon=True).start()
    compile_pictures()
