"""Sources that come and go on CUDA's decoders, against fakes: a place's surfaces, and a run that uses them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from decode_parts import Gpu, numbers, source_of
from pictures import write
from PIL import Image

from tiler import stages
from tiler.config.loader import LoadedConfig, load
from tiler.config.models import Source
from tiler.decode.source import SourceReader
from tiler.memory import SURFACES
from tiler.observe.run import RunObserver
from tiler.pipeline import Run
from tiler.stages import Entrance
from tiler.types import Mosaic, State, TileInput

pytest_plugins = ("fakes.decode_fixtures",)

WAIT_S = 20.0


def until(condition: Callable[[], object]) -> None:
    deadline, pause = time.monotonic() + WAIT_S, threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        pause.wait(0.005)


def test_what_comes_into_a_place_has_as_many_surfaces_as_it_needs(tmp_path: Path, gpu: Gpu) -> None:
    """An image needs two; a video in its place would wait for ever for a third."""
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    clip = write(tmp_path / "a.mp4", 9)
    opener = gpu.opener(slots=12)
    opener(source_of(tmp_path / "a.png"), str(tmp_path / "a.png"), 1, 1).close()
    opener.forget(1)
    assert gpu.host.live_bytes == 0
    with SourceReader(source_of(clip), str(clip), 1, 1, live=False, late=True, opener=opener) as reader:
        reader.start()
        frames = [reader.next() for _ in range(9)]  # all of them on loan
        assert numbers(frames) == list(range(9))  # type: ignore[arg-type]
        all_of_them = gpu.host.live_bytes
    opener.forget(1)
    opener.forget(7)  # that had none
    assert gpu.host.live_bytes == all_of_them * 9 // 12  # what is free goes at once
    frames.clear()
    assert gpu.host.live_bytes == 0
    gpu.host.check()


def test_a_source_without_room_for_its_surfaces_fails_alone_and_says_so(tmp_path: Path, gpu: Gpu) -> None:
    clip = write(tmp_path / "a.mp4", 9, size=(320, 240))
    gpu.host.limit_bytes = 300_000
    reader = SourceReader(source_of(clip), str(clip), 1, 1, live=True, late=True, opener=gpu.opener(slots=12))
    with reader:
        reader.start()
        until(lambda: reader.finished)
        assert reader.latest() is None
        assert "no room on the GPU for 12 surfaces of 320x240: Out of memory" in str(reader.failure)


class Waiting:
    """The CPU's compositor, for pictures that are there when an event says so."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def compose(self, tick: int, sources: Sequence[TileInput], clock: str = "") -> Mosaic:
        for shown in sources:
            if shown.frame is not None:
                shown.frame.ready.synchronize()
        mosaic: Mosaic = self._inner.compose(tick, sources, clock)
        self.brightness = float(np.mean(mosaic.planes[0]))
        self.pictures = mosaic.sources
        return mosaic


def configured(folder: Path) -> LoadedConfig:
    write(folder / "a.mp4", 20)
    (folder / "c.yaml").write_text(
        "sources: [{id: a, uri: a.mp4, loop: true, realtime: true}]\ndetector: none\n"
        "mosaic: {width: 320, height: 192, fps: 25}\npreview: {spare_sources: 1}\nduration_s: 60\n"
    )
    return load(folder / "c.yaml")


def test_a_place_gives_back_its_surfaces_when_its_source_leaves_a_run(tmp_path: Path, gpu: Gpu) -> None:
    loaded = configured(tmp_path)
    clip = write(tmp_path / "b.mp4", 20, size=(96, 64))
    opener = gpu.opener(slots=SURFACES)
    built = stages.build(loaded, opener=opener)
    compositor = Waiting(built.compositor)
    built = replace(built, compositor=compositor, entrance=Entrance(loaded, 2, opener, opener.forget))
    observer = RunObserver(loaded.config, built.choices, built.feeds, built.encoder)
    with Run(loaded, built, observer) as run:
        run.start()
        until(lambda: observer.frames >= 5)
        alone = gpu.host.live_bytes
        for name in ("b", "c"):
            run.lineup.add(Source(id=name, uri=str(clip), loop=True, realtime=True))
            until(lambda: observer.streams[-1].tile.state is State.LIVE)
            until(lambda: len(compositor.pictures) == 2 and compositor.pictures[1] is not None)
            assert gpu.host.live_bytes > alone
            run.lineup.remove(name)
            until(lambda: run.control.spare == 1)
            until(lambda: gpu.host.live_bytes == alone)
        decoders = [row.report()["decoder"] for row in observer.streams]
        assert decoders == ["nvdec h264"] * 3
        run.stop()
        run.wait()
    gpu.host.check()
