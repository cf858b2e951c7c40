"""Benchmarks of the preview: what viewers cost the run, and how old a picture is when a browser shows it.

    chrt -f 1 python -m tools.bench_preview viewers     # tick and packet jitter, nobody watching against 20 viewers
    chrt -f 1 python -m tools.bench_preview latency     # time stamped into source pictures, read back in Chromium

With --write FILE the table goes to a file too.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import aiohttp
import av
import click
import numpy as np

from tiler import stages
from tiler.config.loader import load
from tiler.observe.run import RunObserver
from tiler.pipeline import Run
from tiler.preview import open_preview
from tiler.types import Packet
from tools.bench import Report, processor
from tools.chromium import chromium

FPS = 30
SOURCE_FPS = 29
"""Of the stamped source: pictures come at all times between two ticks."""
WAYS = ("webcodecs", "webrtc", "mse")
SOURCE = 640, 360
CELLS, BITS = 32, 20
"""The stamp: cells side by side at the top. 1 0, the time in ms modulo 2**20, the sum of its nibbles, 0 1."""

READ = """(({ CELLS, BITS }) => {
  const c = document.createElement('canvas'), g = c.getContext('2d', { willReadFrequently: true });
  [c.width, c.height] = [CELLS, 1]; g.imageSmoothingEnabled = false; window.ages = []; window.unread = 0; let last = -1;
  const look = () => {
    requestAnimationFrame(look);
    const e = document.querySelector('#screen > *'), w = e?.videoWidth || e?.width, h = e?.videoHeight || e?.height;
    if (!w) return;
    g.drawImage(e, 0, Math.round(h * 10 / 360), w, 1, 0, 0, c.width, 1);
    const bit = [...g.getImageData(0, 0, c.width, 1).data].filter((_, i) => i % 4 === 1).map((v) => +(v > 128));
    const number = (from, count) => bit.slice(from, from + count).reduce((all, b) => all * 2 + b, 0);
    const stamp = number(2, BITS);
    if (stamp === last) return;
    let sum = 0;
    for (let rest = stamp; rest; rest = Math.floor(rest / 16)) sum += rest % 16;
    if (number(0, 2) !== 2 || number(26, 2) !== 1 || number(22, 4) !== sum % 16) { window.unread += 1; return; }
    last = stamp;
    const age = (Date.now() - stamp) % (1 << BITS);
    if (age < 100000) window.ages.push(age);
  };
  look();
}""" + f")({{ CELLS: {CELLS}, BITS: {BITS} }})"


@click.group()
def main() -> None:
    """Measure the preview on this machine."""


_write = click.option("--write", type=click.Path(path_type=Path), help="Write what is printed to this file too.")
_rounds = click.option("--rounds", default=6, help="Windows of each kind, turn and turn about.")


def _report() -> Report:
    return Report("python -m tools.bench_preview", processor(), f"{os.cpu_count()} cores", f"PyAV {av.__version__}",
                  f"aiohttp {aiohttp.__version__}")


# What viewers cost the run


class _Timed(RunObserver):
    """Remembers when each tick began and when each packet left."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self.ticks: list[tuple[int, float]] = []
        self.packets: list[tuple[int, float]] = []

    def submitted(self, tick: int, began_s: float) -> None:
        super().submitted(tick, began_s)
        self.ticks.append((tick, began_s))

    def delivered(self, packet: Packet) -> None:
        super().delivered(packet)
        self.packets.append((packet.pts, time.monotonic()))


@main.command()
@_rounds
@click.option("--window-s", default=15.0, help="Length of a window.")
@_write
def viewers(rounds: int, window_s: float, write: Path | None) -> None:
    """A 720p run of four sources with nobody watching, and with 15 viewers who read and 5 who do not.

    Late: how long after its time a tick began, and its packet left, the earliest of the run being 0. With `chrt -f 1`
    the run comes before other work on the machine, also before that of the viewers, who would be on other machines.
    """
    report = _report()
    late: dict[str, list[list[float]]] = {"nobody": [], "20 viewers": []}
    out: dict[str, list[list[float]]] = {"nobody": [], "20 viewers": []}
    with tempfile.TemporaryDirectory() as name, _live_run(Path(name)) as (run_url, observer):
        while len(observer.packets) < 5 * FPS:  # the first ones wait for compilers
            time.sleep(0.1)
        for _ in range(rounds):
            for kind in late:
                with _watching(run_url) if kind != "nobody" else contextlib.nullcontext():
                    time.sleep(2)
                    since = len(observer.ticks), len(observer.packets)
                    time.sleep(window_s)
                    late[kind].append(_late_ms(observer.ticks, since[0]))
                    out[kind].append(_late_ms(observer.packets, since[1]))
                p99 = [np.percentile(rows[kind][-1], 99) for rows in (late, out)]
                click.echo(f"{kind}: tick p99 {p99[0]:.2f} ms, packet p99 {p99[1]:.2f} ms", err=True)
        dropped = observer.dropped_ticks
    report.say("| | ticks | tick late p50 | p99 ms | packet late p50 | p99 ms |")
    report.say("| --- | ---: | ---: | ---: | ---: | ---: |")
    for kind in late:
        cells = [f"{np.median(_percentiles(rows[kind], percent)):.2f}" for rows in (late, out) for percent in (50, 99)]
        report.say(f"| {kind} | {sum(map(len, late[kind]))} | {' | '.join(cells)} |")
    report.say(f"\nMedians of {rounds} windows of {window_s:g} s each.")
    for what, rows in (("tick", late), ("packet", out)):
        change, least, most = _change(*(_percentiles(windows, 99) for windows in rows.values()))
        report.say(f"\n{what}: p99 changes by {change:+.1f} % (90 of 100 draws: {least:+.1f} to {most:+.1f})")
        for kind, windows in rows.items():
            p99s, every = _percentiles(windows, 99), np.percentile(np.concatenate(windows), 99)
            report.say(f"  {kind}: windows {min(p99s):.2f} to {max(p99s):.2f} ms, all of them as one {every:.2f}")
    report.say(f"\nticks left out in the whole run: {dropped}")
    report.write(write)


def _late_ms(seen: list[tuple[int, float]], since: int) -> list[float]:
    first_s = min(at_s - index / FPS for index, at_s in seen)
    return [(at_s - index / FPS - first_s) * 1000 for index, at_s in seen[since:]]


def _percentiles(windows: list[list[float]], percent: float) -> np.ndarray:
    return np.array([np.percentile(window, percent) for window in windows])


def _change(before: np.ndarray, after: np.ndarray) -> tuple[float, float, float]:
    """By how many percent the median changes, and where that lies in 90 of 100 draws of as many windows."""
    rng, count = np.random.default_rng(0), len(before)
    drawn = [np.median(windows[rng.integers(count, size=(10000, count))], axis=1) for windows in (before, after)]
    least, most = np.percentile(drawn[1] / drawn[0], [5, 95])
    change = np.median(after) / np.median(before)
    return (change - 1) * 100, (least - 1) * 100, (most - 1) * 100


@contextlib.contextmanager
def _live_run(folder: Path) -> Iterator[tuple[str, _Timed]]:
    """Four 180p scenes at their own speed, in this process as in `tiler run`.

    Small, and of lengths that keep their keyframes apart, as those of cameras are: four decoded at once take both
    cores of a small machine, and a tick waits for that longer than for any viewer.
    """
    scenes = [f"sample://plaza?size=320x180&seconds={10 + 0.23 * seed:.2f}&seed={seed}" for seed in range(4)]
    sources = "\n".join(f"  - {{id: s{i}, uri: '{uri}', realtime: true, loop: true}}" for i, uri in enumerate(scenes))
    config = folder / "c.yaml"
    config.write_text(
        f"sources:\n{sources}\nmosaic: {{width: 1280, height: 720, fps: {FPS}}}\ndetector: none\n"
        "encoder: {profile: low_latency, bitrate: 6M}\npreview: {port: 0}\n"
    )
    loaded = load(config)
    built = stages.build(loaded)
    observer = _Timed(loaded.config, built.choices, built.feeds, built.encoder)
    with Run(loaded, built, observer) as run:
        server = open_preview(loaded, run, observer)
        run.start()
        try:
            yield server.url, observer
        finally:
            run.stop()
            run.wait()


@contextlib.contextmanager
def _watching(url: str) -> Iterator[None]:
    """20 viewers in a process of their own; those who read must have got pictures."""
    command = [sys.executable, str(Path(__file__).with_name("watch_preview.py")), url]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()  # all are connected
    try:
        yield
    finally:
        said, _ = process.communicate("\n", timeout=30)
    if process.returncode or min(map(int, said.split())) < FPS:
        raise SystemExit(f"the viewers got no pictures: {said!r}")


# How old a picture is when a browser shows it


@main.command()
@click.option("--seconds", default=20.0, help="How long each way is watched.")
@_write
def latency(seconds: float, write: Path | None) -> None:
    """A stamped 360p source over TCP -> a 720p mosaic -> Chromium, by each way.

    From the stamp in the raw source picture to the animation frame in which the picture is read from the page; the
    source's own encoder, its transport and its decoder are in it.
    """
    report = _report()
    report.say("| way | pictures read | p50 ms | p95 ms | the page says, ms | unread |")
    report.say("| --- | ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as name:
        for way in WAYS:
            with _stamped(Path(name)) as url:
                ages, shown, unread = asyncio.run(_watch(f"{url}?way={way}", seconds))
            if len(ages) < seconds * FPS / 4:
                raise SystemExit(f"{way}: only {len(ages)} pictures could be read")
            p50, p95 = (float(np.percentile(ages, percent)) for percent in (50, 95))
            report.say(f"| {way} | {len(ages)} | {p50:.0f} | {p95:.0f} | {shown:.0f} | {unread} |")
    report.write(write)


async def _watch(url: str, seconds: float) -> tuple[list[float], float, int]:
    async with chromium() as page:
        await page.size(1280, 900)
        await page.open(url)
        await page.until("player.status.decoded > 60", 60)
        await page.evaluate(READ)
        await asyncio.sleep(3)
        await page.evaluate("void (window.ages = [], window.unread = 0)")
        await asyncio.sleep(seconds)
        ages, shown, unread = await page.evaluate("[ages, player.status.latencyMs, unread]")
        return ages, shown, unread


@contextlib.contextmanager
def _stamped(folder: Path) -> Iterator[str]:
    """`tiler run` in a process of its own, and its source; gives the page's address."""
    source, page = _free_port(), _free_port()
    config = folder / "c.yaml"
    config.write_text(
        f"sources:\n  - {{id: clock, uri: 'tcp://127.0.0.1:{source}'}}\ndetector: none\n"
        f"mosaic: {{width: 1280, height: 720, fps: {FPS}}}\noverlay: {{titles: false, fps: false}}\n"
        f"encoder: {{profile: low_latency, bitrate: 4M}}\npreview: {{port: {page}}}\n"
    )
    stop = threading.Event()
    sender = threading.Thread(target=_send, args=(f"tcp://127.0.0.1:{source}?listen=1", stop), daemon=True)
    sender.start()
    command = [sys.executable, "-c", "from tiler.cli import main; main()", "run", str(config)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said = []
    try:
        for line in process.stderr:
            said.append(line)
            if line.startswith("preview: "):
                break
        else:
            raise SystemExit("".join(said))
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield f"http://127.0.0.1:{page}/"
    finally:
        process.terminate()
        process.wait(30)
        stop.set()
        sender.join(10)


def _send(url: str, stop: threading.Event) -> None:
    """Pictures with the time in them, until the other side goes."""
    width, height = SOURCE
    picture = av.VideoFrame(width, height, "yuv420p")
    for plane in picture.planes:
        plane.update(bytes([128]) * plane.buffer_size)
    luma = np.frombuffer(picture.planes[0], np.uint8).reshape(height, -1)  # type: ignore[call-overload]
    with contextlib.suppress(av.FFmpegError), av.open(url, "w", format="nut", options={"flush_packets": "1"}) as out:
        stream = out.add_stream("libx264", rate=SOURCE_FPS)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"preset": "ultrafast", "tune": "zerolatency", "crf": "24", "threads": "1"}
        start_s = time.monotonic()
        index = 0
        while not stop.is_set():
            stop.wait(max(0.0, start_s + index / SOURCE_FPS - time.monotonic()))
            luma[40:, :width] = 60 + np.arange(width, dtype=np.uint8) // 8
            luma[60:200, index * 4 % (width - 80) :][:, :80] = 210
            luma[:40, :width] = np.repeat(_stamp(int(time.time() * 1000)), width // CELLS)
            picture.pts, picture.time_base = index, Fraction(1, SOURCE_FPS)
            out.mux(stream.encode(picture))
            index += 1


def _stamp(now_ms: int) -> np.ndarray:
    """The cells' luma."""
    time_ms = now_ms % (1 << BITS)
    total = sum(time_ms >> shift & 15 for shift in range(0, BITS, 4)) % 16
    text = f"10{time_ms:0{BITS}b}{total:04b}01".ljust(CELLS, "0")
    return np.array([220 if bit == "1" else 30 for bit in text], np.uint8)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


if __name__ == "__main__":
    main()
