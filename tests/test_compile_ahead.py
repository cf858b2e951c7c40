"""What is compiled ahead is what a run needs, and nothing is when it is there already."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tiler.compile_ahead import CompileAhead, compile_pictures

# A picture as FFmpeg gives it, rows padded, on a tile with somebody who was there before: each function once.
RUN = """
from pathlib import Path
import numpy as np
from tiler.compose.cpu import CpuCompositor
from tiler.config.models import Config, MosaicConfig, Source
from tiler.engines.registry import load_model
from tiler.kernels.compose_cpu import compose_rows
from tiler.kernels.overlay_cpu import draw_tracks
from tiler.kernels.preprocess_cpu import preprocess_rows
from tiler.kernels.trails_cpu import add_points, trail_rows
from tiler.preprocess.cpu import CpuPreprocessor
from tiler.track.trails import Trails
from tiler.types import Frame, Matrix, State, TileInput, Tracks
y, u, v = (np.zeros((h, 160), np.uint8)[:, :w] for h, w in ((90, 150), (45, 75), (45, 75)))
frame = Frame(0, 0, y, u, v, matrix=Matrix.BT601, rotation=90)
ids, trails = np.arange(2, dtype=np.int32), Trails(2.0)
tracks = Tracks(9, ids, np.ones((2, 4), np.float32), np.ones(2, np.float32), np.zeros(2, np.int32))
trails.add(tracks)
config = Config(sources=[Source(id="a", uri="a"), Source(id="b", uri="b")], mosaic=MosaicConfig(width=320, height=180))
tile = TileInput(frame, tracks, State.LIVE, 25.0, trails.rows(9))
with CpuCompositor(config, 2, ("person",)) as compositor, \\
        CpuPreprocessor((640, 640), load_model("person-nano", Path()).input, 2, 2) as preprocessor:
    compositor.compose(0, [tile, tile], "12:00:00")
    preprocessor.prepare([frame, frame])
for function in (compose_rows, draw_tracks, preprocess_rows, add_points, trail_rows):
    assert function.stats.cache_hits and not function.stats.cache_misses, function
"""


def test_a_run_finds_all_that_was_compiled_ahead(tmp_path: Path) -> None:
    cache = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-P", "-m", "tiler.compile_ahead"], env=cache, check=True, timeout=120)
    subprocess.run([sys.executable, "-P", "-c", RUN], env=cache, check=True, timeout=120)


def test_nothing_is_started_where_it_is_compiled() -> None:
    compile_pictures()
    with CompileAhead() as ahead:
        assert not ahead.needed
        ahead.finish()


def test_a_run_that_fails_early_leaves_nobody_behind(tmp_path: Path) -> None:
    script = (
        "import os, sys\n"
        "from tiler.compile_ahead import CompileAhead\n"
        "with CompileAhead() as ahead:\n"
        "    assert ahead.needed\n"
        "assert ahead._process.returncode is not None\n"
        "ahead.close()\n"
    )
    cache = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-P", "-c", script], env=cache, check=True, timeout=60)
