"""A small run for tests: two sources, a mosaic, tracks."""

from __future__ import annotations

from pathlib import Path

import pictures
import pytest

FRAMES = 20


@pytest.fixture
def clips(config: Path) -> Path:
    """The same, for tests that have something else by that name."""
    return config


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A config of 20 numbered pictures of `a` and 10 of `b`, which are written beside it."""
    pictures.write(tmp_path / "a.mp4", FRAMES, rate=25)
    pictures.write(tmp_path / "b.mp4", FRAMES // 2, rate=10, size=(96, 160))
    path = tmp_path / "c.yaml"
    path.write_text(
        "sources: [{id: a, uri: a.mp4}, {id: b, uri: b.mp4}]\n"
        "mosaic: {width: 320, height: 192, fps: 25, grid: [2, 1]}\n"
        "outputs: [{file: out.mp4}, {tracks: out.jsonl}]\n",
        encoding="utf-8",
    )
    return path
