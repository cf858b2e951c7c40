"""What a first run compiles, by two processes at once.

Numba compiles one function after the other, whatever threads ask, and keeps on disk what it has compiled. To open the
stages compiles what detects, follows and knows people; meanwhile a process of its own scales and draws a picture, whose
kernels take as long, and the run finds them on disk. Where that goes wrong, the run compiles them itself.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from tiler.closing import Closing


class CompileAhead(Closing):
    """The other process; nothing where the kernels of the CPU are on disk already. It ends when this is closed."""

    def __init__(self) -> None:
        from tiler.kernels.compose_cpu import compose_rows

        kept = Path(compose_rows.stats.cache_path)
        self.needed = not any(kept.glob("compose_cpu.compose_rows-*.nbi"))
        self._process: subprocess.Popen[bytes] | None = None
        if self.needed:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "tiler.compile_ahead"],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip

    def finish(self) -> None:
        """Wait until everything is compiled, or cannot be."""
        if self._process is not None:
            self._process.wait()

    def close(self) -> None:
        """Give up; may be called twice."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def compile_pictures() -> None:
    """Compile what each picture of a run on the CPU goes through, but for what is compiled when stages are opened."""
    from tiler.compose.cpu import CpuCompositor
    from tiler.config.models import Config, MosaicConfig, Source
    from tiler.engines.registry import load_model
    from tiler.preprocess.cpu import CpuPreprocessor
    from tiler.track.trails import Trails
    from tiler.types import Frame, State, TileInput, Tracks

    grey, half = np.full((64, 64), 128, np.uint8), np.full((32, 32), 128, np.uint8)
    frame, trails = Frame(0, 0, grey, half, half), Trails(1.0)
    person = Tracks(1, np.ones(1, np.int32), np.ones((1, 4), np.float32), np.ones(1, np.float32), np.zeros(1, np.int32))
    trails.add(person)
    config = Config(sources=[Source(id="a", uri="a")], mosaic=MosaicConfig(width=64, height=64))
    with CpuCompositor(config, 1) as compositor:
        compositor.compose(0, [TileInput(frame, person, State.LIVE, 0.0, trails.rows(1))])
    with CpuPreprocessor((64, 64), load_model("person-nano", Path()).input, 1, 1) as preprocessor:
        preprocessor.prepare([frame])


if __name__ == "__main__":
    compile_pictures()
