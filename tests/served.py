"""A small live run with a preview: four plain colours in a grid."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from tiler import stages
from tiler.config.loader import load
from tiler.observe.run import RunObserver
from tiler.pipeline import Run
from tiler.preview import open_preview
from tiler.preview.server import PreviewServer

COLOURS = {"red": (200, 30, 30), "green": (30, 160, 30), "blue": (40, 40, 220), "white": (230, 230, 230)}


class Served(NamedTuple):
    """What tests look at."""

    server: PreviewServer
    runner: Run
    observer: RunObserver


def write_config(folder: Path, more: str = "", gop_s: float = 1) -> Path:
    """The YAML file, and its pictures beside it."""
    for name, colour in COLOURS.items():
        Image.new("RGB", (64, 36), colour).save(folder / f"{name}.png")
    sources = "\n".join(f"  - {{id: {name}, uri: {name}.png, realtime: true}}" for name in COLOURS)
    path = folder / "c.yaml"
    path.write_text(
        f"sources:\n{sources}\nmosaic: {{width: 320, height: 192, fps: 25, fit: stretch}}\ndetector: none\n"
        f"overlay: {{titles: false, fps: false}}\nencoder: {{profile: low_latency, gop_s: {gop_s}}}\n{more}",
        encoding="utf-8",
    )
    return path


@contextlib.contextmanager
def served(folder: Path, preview: str = "{port: 0}", more: str = "", gop_s: float = 1) -> Iterator[Served]:
    """The run, with at least one picture delivered."""
    loaded = load(write_config(folder, f"preview: {preview}\n{more}", gop_s))
    built = stages.build(loaded)
    observer = RunObserver(loaded.config, built.choices, built.feeds, built.encoder)
    with Run(loaded, built, observer) as runner:
        server = open_preview(loaded, runner, observer)
        runner.start()
        try:
            yield Served(server, runner, observer)
        finally:
            runner.stop()
            runner.wait()
