"""What is compiled ahead is what a run needs, and nothing is when it is there already."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from tiler.compile_ahead import CompileAhead, compile_pictures

# A picture as FFmpeg gives it, rows padded, on a tile with somebody who was there before: each function once.
RUN = """
from pathlib import Path
import numpy as np
from tiler.compose.cpu import CpuCompositor
from tiler.config.models import Config, MosaicConfig, Source
from tiler.engines.registry import load_model
from tiler.kernels.compose_cpu import compose_rows
from tiler.kernels.overlay_cpu import draw_tiles
from tiler.kernels.preprocess_cpu import preprocess_rows
from tiler.kernels.trails_cpu import add_points
from tiler.preprocess.cpu import CpuPreprocessor
from tiler.crowd import People, TrackBatch
from tiler.track.trails import Trails
from tiler.types import Frame, Matrix, State, TileInput, Tracks
y, u, v = (np.zeros((h, 160), np.uint8)[:, :w] for h, w in ((90, 150), (45, 75), (45, 75)))
frame = Frame(0, 0, y, u, v, matrix=Matrix.BT601, rotation=90)
ids = np.arange(2, dtype=np.int32)
tracks = Tracks(9, ids, np.ones((2, 4), np.float32), np.ones(2, np.float32), np.zeros(2, np.int32))
people = People(Trails(2.0).add(TrackBatch.of((0,), (tracks,))), 0)
config = Config(sources=[Source(id="a", uri="a"), Source(id="b", uri="b")], mosaic=MosaicConfig(width=320, height=180))
tile = TileInput(frame, people, State.LIVE, 25.0)
with CpuCompositor(config, 2, ("person",)) as compositor, \\
        CpuPreprocessor((640, 640), load_model("person-nano", Path()).input, 2, 2) as preprocessor:
    compositor.compose(0, [tile, tile], "12:00:00")
    preprocessor.prepare([frame, frame])
for function in (compose_rows, draw_tiles, preprocess_rows, add_points):
    assert function.stats.cache_hits and not function.stats.cache_misses, function
"""


def test_a_run_finds_all_that_was_compiled_ahead(tmp_path: Path) -> None:
    cache = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    compiling = "from tiler.compile_ahead import compile_pictures; compile_pictures()"
    subprocess.run([sys.executable, "-P", "-c", compiling], env=cache, check=True, timeout=120)
    subprocess.run([sys.executable, "-P", "-c", RUN], env=cache, check=True, timeout=120)


def test_nothing_is_started_where_it_is_compiled() -> None:
    compile_pictures()
    with CompileAhead() as ahead:
        assert not ahead.needed
        ahead.finish()


STARTS = "from tiler.compile_ahead import CompileAhead\nwith CompileAhead() as ahead:\n    "


@pytest.mark.parametrize("ends", ["ahead.needed or 1 / 0", "print(ahead._process.pid, flush=True); input()"])
def test_a_run_that_ends_early_or_is_killed_leaves_nobody_behind(tmp_path: Path, ends: str) -> None:
    cache = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    script = [sys.executable, "-P", "-c", STARTS + ends]
    with subprocess.Popen(script, env=cache, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        said = run.stdout.readline()
        if said:
            ended = os.pidfd_open(int(said))
            run.kill()
            assert select.select([ended], [], [], 60)[0]
            os.close(ended)
        else:
            assert run.wait(60) == 0


def test_without_a_compiler_nothing_is_compiled_ahead() -> None:
    plain = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    subprocess.run([sys.executable, "-P", "-c", STARTS + "assert not ahead.needed"], env=plain, check=True, timeout=60)
