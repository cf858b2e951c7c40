"""Whole runs of tiler on the emulated encoder: a case in, all that it left behind out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import av.error
import yaml

from tools.nvenc_emulator import calls, environment
from tools.nvenc_emulator.watched import checksum

FPS = 30
GOP = 15
"""Pictures from keyframe to keyframe."""
CLIPS = ("sample://plaza", "sample://duo")
_TIMEOUT_S = 120


@dataclass(frozen=True, slots=True)
class Case:
    """One run.

    Attributes:
        name: what it shows.
        library: encoder.driver of its config.
        profile: quality | low_latency.
        streams: sources; the two sample clips in turn.
        pictures: ticks of the mosaic's clock.
        size: width and height of the mosaic, pixels.
        keyframes: ticks before which a keyframe is asked for.
        driver: environment of the emulated driver, see README.md.
        config: keys of the YAML besides.
        live: the mosaic follows the wall clock.
    """

    name: str
    library: str
    profile: str = "low_latency"
    streams: int = 2
    pictures: int = 40
    size: tuple[int, int] = (1280, 720)
    keyframes: tuple[int, ...] = ()
    driver: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    live: bool = False

    def yaml(self) -> dict[str, Any]:
        """The config of the run."""
        width, height = self.size
        sources = [
            {"id": f"s{index}", "uri": CLIPS[index % 2], **({"realtime": True} if self.live else {})}
            for index in range(self.streams)
        ]
        return {
            "device": "cuda",
            "duration_s": self.pictures / FPS,
            "mosaic": {"width": width, "height": height, "fps": FPS},
            "sources": sources,
            "encoder": {"driver": self.library, "profile": self.profile, "gop_s": GOP / FPS},
            **self.config,
        }


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of the file: `pts` in 1/90000 s, checksum of its NV12 bytes, whether it is a keyframe."""

    pts: int
    sum: str
    keyframe: bool


@dataclass(frozen=True, slots=True)
class Result:
    """What a run left behind.

    Attributes:
        case: what was asked for.
        exit_code: of the process.
        said: its standard error.
        report: of `--report`; empty when there was none.
        log: the calls that the driver got.
        seen: for each picture given to the encoder, in order: tick, sum, packets.
        flushed: the packets of the flush.
        played: the file, decoded; empty when there is none.
        durations: of the file's packets, 1/90000 s, in the order of the file.
        keyframes: pts of the packets that the file says are keyframes, 1/90000 s.
        colour: primaries, transfer, matrix and range that the file signals.
        seconds: of the whole process.
    """

    case: Case
    exit_code: int
    said: str
    report: dict[str, Any]
    log: calls.Log
    seen: list[dict[str, Any]]
    flushed: list[list[Any]]
    played: list[Picture]
    durations: list[int]
    keyframes: list[int]
    colour: tuple[int, ...]
    seconds: float


def perform(
    case: Case, folder: Path, *, module: str = "tools.nvenc_emulator.watched", host_cuda: bool = False
) -> Result:
    """Run a case in a process of its own and read what it left.

    Args:
        case: what to run.
        folder: empty; gets the config and what the run writes. The video is deleted once it is read.
        module: the watched `tiler`.
        host_cuda: the CUDA driver is emulated, too.
    """
    paths = {name: folder / name for name in ("run.yaml", "out.mp4", "report.json", "calls.jsonl", "seen.jsonl")}
    paths["run.yaml"].write_text(yaml.safe_dump(case.yaml()), encoding="utf-8")
    asked = [part for tick in case.keyframes for part in ("--keyframe", str(tick))]
    command = [
        *(sys.executable, "-m", module, *asked, str(paths["seen.jsonl"]), "run", str(paths["run.yaml"])),
        *("-o", str(paths["out.mp4"]), "--report", str(paths["report.json"])),
    ]
    base = {**os.environ, **case.driver}
    began_s = time.monotonic()
    child = environment(host_cuda=host_cuda, log=paths["calls.jsonl"], base=base)
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S, env=child)
        exit_code, said = done.returncode, done.stderr
    except subprocess.TimeoutExpired:
        exit_code, said = -1, f"did not end within {_TIMEOUT_S} s"
    seconds = time.monotonic() - began_s
    report = json.loads(paths["report.json"].read_text(encoding="utf-8")) if paths["report.json"].exists() else {}
    seen = calls.read(paths["seen.jsonl"])
    played, durations, keyframes, colour = _play(paths["out.mp4"])
    paths["out.mp4"].unlink(missing_ok=True)  # at 4K a picture has 12 MB
    return Result(
        case=case, exit_code=exit_code, said=said, report=report, log=calls.read(paths["calls.jsonl"]),
        seen=[line for line in seen if line["tick"] is not None],
        flushed=[packet for line in seen if line["tick"] is None for packet in line["packets"]],
        played=played, durations=durations, keyframes=keyframes, colour=colour, seconds=seconds,
    )  # fmt: skip


def _play(path: Path) -> tuple[list[Picture], list[int], list[int], tuple[int, ...]]:
    if not path.exists() or not path.stat().st_size:
        return [], [], [], ()
    played: list[Picture] = []
    durations: list[int] = []
    keyframes: list[int] = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for packet in container.demux(stream):
            if packet.size:
                durations.append(packet.duration or 0)
                if packet.is_keyframe and packet.pts is not None:
                    keyframes.append(packet.pts)
            for frame in packet.decode():
                nv12 = frame.to_ndarray(format="nv12")
                played.append(Picture(frame.pts or 0, checksum(nv12), bool(frame.key_frame)))
        context = stream.codec_context
        colour = (context.color_primaries, context.color_trc, context.colorspace, context.color_range)
    return played, durations, keyframes, tuple(int(value) for value in colour)
