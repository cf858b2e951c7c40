"""Benchmarks: correctness first, then times and ratios, with the machine that gave them.

    python tools/bench.py compose              # the compositor alone, against FFmpeg's scale + xstack
    python tools/bench.py endtoend             # files -> one 4K H.264 file, against `ffmpeg -filter_complex xstack`

FFmpeg takes part in the fastest of several ways to run its filters, found by trying them first.
With --write FILE the table goes to a file too, such as docs/bench/compose.md.
"""

from __future__ import annotations

import os
import platform
import resource
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import count
from pathlib import Path

import av
import av.filter
import click
import numpy as np

from tiler.compose.cpu import CpuCompositor
from tiler.config.models import Config, MosaicConfig, OverlayConfig, Source
from tiler.crowd import NOBODY
from tiler.types import Frame, Mosaic, State, TileInput

PLAIN = OverlayConfig(boxes=False, labels=False, trails=False, titles=False, fps=False)
WIDTH, HEIGHT = 3840, 2160


@click.group()
def main() -> None:
    """Measure tiler on this machine."""


_write = click.option("--write", type=click.Path(path_type=Path), help="Write what is printed to this file too.")


class Report:
    """Markdown, printed as it comes and kept for a file."""

    def __init__(self, program: str, *machine: str) -> None:
        """
        Args:
            program: how it was started, without the arguments.
            machine: what gave the numbers.
        """
        self._lines: list[str] = []
        self.say(", ".join([time.strftime("%Y-%m-%d"), *machine, f"Python {platform.python_version()}"]))
        self.say(f"\n    {program} {shlex.join(sys.argv[1:])}\n")

    def say(self, line: str) -> None:
        click.echo(line)
        self._lines.append(line)

    def write(self, path: Path | None) -> None:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(self._lines) + "\n", encoding="utf-8")


@main.command()
@click.option("--rounds", default=40, help="Measured mosaics of each case.")
@click.option("--threads", default=0, help="Threads for both sides; all cores when 0.")
@_write
def compose(rounds: int, threads: int, write: Path | None) -> None:
    """Decoded 1080p frames in memory -> one 4K picture in memory."""
    threads = threads or os.cpu_count() or 1
    version = ".".join(map(str, av.library_versions["libswscale"]))
    libraries = f"PyAV {av.__version__}", f"libswscale {version}", f"NumPy {np.__version__}"
    report = Report("python tools/bench.py", processor(), f"{threads} threads", *libraries)
    report.say("| case | tiler p50 ms | FFmpeg p50 ms | FFmpeg's threads: graph, scale | ratio | PSNR, dB |")
    report.say("| --- | ---: | ---: | --- | ---: | ---: |")
    for columns in (2, 3, 4):
        tiles = columns * columns
        pictures = [_picture(seed) for seed in range(tiles)]
        ours, own_picture = _tiler(pictures, columns, threads)
        setting, theirs, their_picture = _fastest_graph(pictures, columns, threads)
        ours(), theirs()
        quality = _psnr(own_picture(), their_picture())
        if quality < 35:
            raise SystemExit(f"{tiles}x: the two mosaics differ (PSNR {quality:.1f} dB): nothing to compare")
        # Turn and turn about, so that both meet the same disturbances of the machine.
        times = [(_time(ours), _time(theirs)) for _ in range(rounds)]
        mine, ffmpeg = (statistics.median(column) for column in zip(*times, strict=True))
        report.say(
            f"| {tiles} x 1080p -> 4K ({WIDTH // columns}x{HEIGHT // columns} tiles) "
            f"| {mine:.1f} | {ffmpeg:.1f} | {setting[0]}, {setting[1]} | {ffmpeg / mine:.2f}x | {quality:.1f} |"
        )
    report.write(write)


@main.command()
@click.option("--seconds", nargs=2, default=(4.0, 24.0), help="Lengths of the short and of the long clips.")
@click.option("--rounds", default=4, help="Measured runs of each program and length.")
@_write
def endtoend(seconds: tuple[float, float], rounds: int, write: Path | None) -> None:
    """Four 1080p files -> one 4K H.264 file, detector off, the same x264 settings.

    Whole processes are timed on short and on long clips: the difference is the throughput, the rest is
    what starting and ending costs.
    """
    threads = os.cpu_count() or 1
    if shutil.which("ffmpeg") is None:
        raise SystemExit("the ffmpeg program is needed for the comparison")
    version = subprocess.run(["ffmpeg", "-version"], check=True, capture_output=True, text=True).stdout.split()[2]
    libraries = f"PyAV {av.__version__}", f"ffmpeg {version}"
    report = Report("python tools/bench.py", processor(), f"{threads} threads", *libraries)
    with tempfile.TemporaryDirectory() as name:
        cases = [_case(Path(name), length, threads) for length in seconds]
        spent: dict[str, list[list[tuple[float, float]]]] = {program: [[], []] for program in cases[0].commands}
        for turn in range(rounds + 1):
            # Turn and turn about, and each first as often as the other: the machine is not always equally fast.
            for program in (list(spent), list(reversed(spent)))[turn % 2]:
                for case, runs in zip(cases, spent[program], strict=True):
                    taken = _run(case.commands[program])
                    if turn:  # the first of each warms caches
                        runs.append(taken)
        pictures = [case.pictures() for case in cases]
    report.say(f"{pictures[0]} and {pictures[1]} pictures, {rounds} runs of each, medians of whole processes.\n")
    columns = ("short, s", "long, s", "throughput, fps", "ratio", "start and end, s", "processor ms/picture", "ratio")
    report.say(f"| program | {' | '.join(columns)} |")
    report.say(f"| --- | {' | '.join('---:' for _ in columns)} |")
    more = pictures[1] - pictures[0]
    results = {}
    for program, runs in spent.items():
        short, long = (np.median(np.array(part), axis=0) for part in runs)
        each_s, work_s = (long - short) / more
        results[program] = short[0], long[0], each_s, short[0] - pictures[0] * each_s, work_s
    _, _, base_each, _, base_work = results["ffmpeg"]
    for program, (short_s, long_s, each_s, once_s, work_s) in results.items():
        report.say(
            f"| {program} | {short_s:.1f} | {long_s:.1f} | {1 / each_s:.1f} | {base_each / each_s:.2f}x "
            f"| {once_s:.1f} | {1000 * work_s:.1f} | {base_work / work_s:.2f}x |"
        )
    report.write(write)


@dataclass(frozen=True)
class Case:
    """Four clips of one length, and what makes a mosaic of them."""

    folder: Path
    commands: dict[str, list[str]]

    def pictures(self) -> int:
        """Pictures in both programs' files.

        Raises:
            SystemExit: they are not the same number.
        """
        made = {program: _count(self.folder / f"{program}.mp4") for program in self.commands}
        if len(set(made.values())) != 1:
            raise SystemExit(f"not the same number of pictures: {made}")
        return made["tiler"]


def _case(parent: Path, seconds: float, threads: int) -> Case:
    folder = parent / f"{seconds:g}"
    folder.mkdir()
    clips = [_clip(folder / f"{index}.mp4", index, seconds) for index in range(4)]
    config = folder / "c.yaml"
    config.write_text(
        "sources:\n" + "".join(f"  - {{id: s{i}, uri: {clip}}}\n" for i, clip in enumerate(clips))
        + "detector: none\noverlay: {titles: false, fps: false}\n",
        encoding="utf-8",
    )
    inputs = [part for clip in clips for part in ("-i", str(clip))]
    graph = "".join(f"[{i}:v]scale=1920:1080[v{i}];" for i in range(4))
    graph += "[v0][v1][v2][v3]xstack=inputs=4:layout=0_0|w0_0|0_h0|w0_h0"
    x264 = ["-c:v", "libx264", "-preset", "superfast", "-bf", "2", "-crf", "22", "-g", "60"]
    x264 += ["-pix_fmt", "yuv420p", "-threads", str(threads)]
    ffmpeg = ["ffmpeg", "-v", "error", "-y", "-filter_complex_threads", str(threads), *inputs]
    return Case(
        folder,
        {
            "tiler": ["tiler", "run", str(config), "--overwrite", "-o", str(folder / "tiler.mp4")],
            "ffmpeg": [*ffmpeg, "-filter_complex", graph, *x264, str(folder / "ffmpeg.mp4")],
        },
    )


def processor() -> str:
    """The name of the processor."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), platform.processor())


def _picture(seed: int) -> av.VideoFrame:
    """A 1080p picture with edges, slopes and noise."""
    rng = np.random.default_rng(seed)
    frame = av.VideoFrame(1920, 1080, "yuv420p")
    for plane in frame.planes:
        slope = np.linspace(40, 200, plane.width)[None] + np.linspace(-20, 20, plane.height)[:, None]
        noise = rng.normal(0, 6, (plane.height, plane.width))
        steps = 20 * (np.arange(plane.width) // 48 % 2)[None]
        lines = np.zeros((plane.height, plane.line_size), np.uint8)
        lines[:, : plane.width] = np.clip(slope + noise + steps, 16, 235)
        plane.update(lines)
    frame.time_base = Fraction(1, 30)
    return frame


def _tiler(
    pictures: list[av.VideoFrame], columns: int, threads: int
) -> tuple[Callable[[], object], Callable[[], np.ndarray]]:
    config = Config(
        sources=[Source(id=f"s{i}", uri="x") for i in range(len(pictures))],
        mosaic=MosaicConfig(width=WIDTH, height=HEIGHT, grid=[columns, columns]),
        overlay=PLAIN,
        detector="none",
    )
    compositor = CpuCompositor(config, threads)
    shown = []
    for index, picture in enumerate(pictures):
        planes = [
            np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width]
            for plane in picture.planes
        ]
        frame = Frame(index, 0, *planes, owner=picture)
        shown.append(TileInput(frame, NOBODY, State.LIVE, 30.0))
    last: list[Mosaic] = []
    ticks = count(1)

    def work() -> None:
        last[:] = [compositor.compose(next(ticks), shown)]

    def result() -> np.ndarray:
        return np.concatenate([plane.ravel() for plane in last[0].planes])

    return work, result


def _fastest_graph(
    pictures: list[av.VideoFrame], columns: int, threads: int
) -> tuple[tuple[int, int], Callable[[], object], Callable[[], np.ndarray]]:
    """FFmpeg's filters with the split of threads that is fastest here: threads of the graph, of each scaler."""
    settings = sorted({(1, 1), (threads, 1), (1, threads), (threads, threads)})
    graphs = {setting: _ffmpeg_graph(pictures, columns, *setting) for setting in settings}
    for work, _ in graphs.values():
        work()
    times = {setting: statistics.median(_time(graphs[setting][0]) for _ in range(10)) for setting in settings}
    best = min(settings, key=lambda setting: times[setting])
    return best, *graphs[best]


def _ffmpeg_graph(
    pictures: list[av.VideoFrame], columns: int, graph_threads: int, scale_threads: int
) -> tuple[Callable[[], object], Callable[[], np.ndarray]]:
    """FFmpeg's filters in this process, on the same frames in memory."""
    width, height = WIDTH // columns, HEIGHT // columns
    graph = av.filter.Graph()
    graph.threads = graph_threads
    stack = graph.add(
        "xstack",
        f"inputs={len(pictures)}:layout="
        + "|".join(f"{i % columns * width}_{i // columns * height}" for i in range(len(pictures))),
    )
    buffers = []
    for index, picture in enumerate(pictures):
        buffer = graph.add_buffer(
            width=picture.width, height=picture.height, format=picture.format, time_base=Fraction(1, 30)
        )
        if (width, height) == (picture.width, picture.height):
            buffer.link_to(stack, 0, index)
        else:
            scale = graph.add("scale", f"{width}:{height}:flags=area:threads={scale_threads}")
            buffer.link_to(scale)
            scale.link_to(stack, 0, index)
        buffers.append(buffer)
    sink = graph.add("buffersink")
    stack.link_to(sink)
    graph.configure()
    last: list[av.VideoFrame] = []
    tick = [0]

    def work() -> None:
        for buffer, picture in zip(buffers, pictures, strict=True):
            picture.pts = tick[0]
            buffer.push(picture)
        tick[0] += 1
        assert graph.configured  # and keeps the graph alive: its parts do not
        last[:] = [sink.pull()]

    def result() -> np.ndarray:
        return np.asarray(last[0].to_ndarray()).ravel()

    return work, result


def _time(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1000


def _psnr(a: np.ndarray, b: np.ndarray) -> float:
    error = float(np.mean((a.astype(np.float32) - b.astype(np.float32)) ** 2))
    return 99.0 if error == 0 else 10 * float(np.log10(255**2 / error))


def _clip(path: Path, seed: int, seconds: float) -> Path:
    """A 1080p30 H.264 clip that moves."""
    source = f"testsrc2=size=1920x1080:rate=30:duration={seconds},hue=h={60 * seed}"
    command = ["ffmpeg", "-v", "error", "-y", "-f", "lavfi", "-i", source, "-pix_fmt", "yuv420p", "-c:v", "libx264",
               "-preset", "veryfast", str(path)]  # fmt: skip
    subprocess.run(command, check=True)
    return path


def _run(command: list[str]) -> tuple[float, float]:
    """Wall-clock and processor seconds of a program."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    work = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - start, work


def _count(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


if __name__ == "__main__":
    main()
