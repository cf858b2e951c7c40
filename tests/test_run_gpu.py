"""Whole runs on the GPU against the same runs on the CPU: pictures before encoding, tracks, ledger, landing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.gpu import needs_gpu
from tiler import stages
from tiler.config.loader import load
from tiler.observe.run import RunObserver
from tiler.pipeline import Run
from tiler.types import Mosaic, Packet

pytestmark = needs_gpu

CONFIG = """
device: {device}
allow_cpu: [encode]
duration_s: 4
mosaic: {{width: 1280, height: 720, grid: [2, 1]}}
sources:
  - {{id: plaza, uri: "sample://plaza"}}
  - {{id: duo, uri: "sample://duo"}}
encoder: {{driver: x264}}
outputs: [{{tracks: {device}.jsonl}}]
"""


class Keeper:
    """An encoder that keeps the pictures."""

    name, sessions = "kept", 1

    def __init__(self) -> None:
        self.pictures: list[list[np.ndarray]] = []

    def encode(self, mosaic: Mosaic) -> list[Packet]:
        if mosaic.ready is not None:
            mosaic.ready.synchronize()
        planes = [plane.get() if hasattr(plane, "get") else plane.copy() for plane in mosaic.planes]
        self.pictures.append(planes)
        return [Packet(b"", mosaic.tick, mosaic.tick, True)]

    def flush(self) -> list[Packet]:
        return []

    def request_keyframe(self) -> None: ...

    def close(self) -> None: ...


def run_on(device: str, folder: Path, more: str = "") -> tuple[Keeper, list[dict[str, Any]], dict[str, Any]]:
    path = folder / f"{device}.yaml"
    path.write_text(CONFIG.format(device=device) + more, encoding="utf-8")
    loaded = load(path, [])
    built = stages.build(loaded)
    built.encoder.close()
    keeper = Keeper()
    built = replace(built, encoder=keeper)
    observer = RunObserver(loaded.config, built.choices, built.feeds, keeper, built.copies)
    with Run(loaded, built, observer) as run:
        run.start()
        run.wait()
    lines = (folder / f"{device}.jsonl").read_text(encoding="utf-8").splitlines()
    return keeper, [json.loads(line) for line in lines], observer.report()


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    folder = tmp_path_factory.mktemp("both")
    return run_on("cpu", folder), run_on("cuda", folder)


def test_the_mosaic_is_the_cpus_to_50_db(both: tuple[Any, Any]) -> None:
    cpu, gpu = both[0][0].pictures, both[1][0].pictures
    assert len(cpu) == len(gpu) == 120
    worst = 99.0
    for one, other in zip(cpu, gpu, strict=True):
        error = sum(float(((a.astype(int) - b) ** 2).sum()) for a, b in zip(one, other, strict=True))
        worst = min(worst, 10 * np.log10(255**2 * sum(a.size for a in one) / max(error, 1e-9)))
    print(f"lowest PSNR {worst:.1f} dB")
    assert worst > 30  # one label's digit, or one box a pixel off, in one picture
    mean = np.mean([
        float(np.mean([((a.astype(int) - b) ** 2).mean() for a, b in zip(one, other, strict=True)]))
        for one, other in zip(cpu, gpu, strict=True)
    ])  # fmt: skip
    print(f"PSNR of the whole run {10 * np.log10(255**2 / max(mean, 1e-9)):.1f} dB")
    assert 10 * np.log10(255**2 / max(mean, 1e-9)) > 50


def test_tracks_are_the_cpus_on_99_percent_of_boxes(both: tuple[Any, Any]) -> None:
    (_, cpu, _), (_, gpu, _) = both
    assert len(cpu) == len(gpu)
    same = total = 0
    for one, other in zip(cpu, gpu, strict=True):
        assert (one["stream"], one["frame"]) == (other["stream"], other["frame"])
        theirs = {track["id"]: track["xyxy"] for track in other["tracks"]}
        total += max(len(one["tracks"]), len(other["tracks"]))
        same += sum(iou(track["xyxy"], theirs[track["id"]]) > 0.95 for track in one["tracks"] if track["id"] in theirs)
    print(f"{same} of {total} boxes are the same")
    assert total > 500
    assert same >= 0.99 * total


def test_nothing_but_small_copies_crosses_and_every_stage_is_on_the_gpu(both: tuple[Any, Any]) -> None:
    report = both[1][2]
    assert report["cpu_fallback"] == ["encode"]
    per_tick = sum(row["bytes_per_tick"] for row in report["copies"]["by_name"].values())
    assert per_tick < 2 * 64_000
    assert {stream["decoder"].split(" ")[0] for stream in report["streams"]} == {"nvdec"}


def test_decoding_in_other_processes_changes_nothing(both: tuple[Any, Any], tmp_path: Path) -> None:
    """Neither a sample of the mosaic nor a track."""
    keeper, tracks, report = run_on("cuda", tmp_path, "decode_processes: 2\n")
    assert tracks == both[1][1]
    for one, other in zip(keeper.pictures, both[1][0].pictures, strict=True):
        for a, b in zip(one, other, strict=True):
            assert np.array_equal(a, b)
    assert "in 2 processes of its own" in json.dumps(report)


def iou(a: list[float], b: list[float]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (sum(areas) - width * height)
