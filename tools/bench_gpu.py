"""Benchmarks of the CUDA path: correctness first, then times and ratios, with the machine that gave them.

    python -m tools.bench_gpu kernels           # compose and preprocess against a copy of the same bytes
    python -m tools.bench_gpu endtoend          # files -> detection -> 4K mosaic, against decoding alone
    python -m tools.bench_gpu scaled            # whole runs with scaled_decode off and on
    python -m tools.bench_gpu baseline          # against the usual script: everything per stream, on the host

With --write FILE the table goes to a file too, such as docs/bench/kernels.md.
"""

from __future__ import annotations

import tempfile
from operator import attrgetter
from pathlib import Path

import click
import cupy

from tools.bench import Report
from tools.gpu_kernels import compose_case, copy_case, preprocess_case, time_graph_us
from tools.gpu_runs import decode_alone, make_clip, whole_run

BOXES = 40
_HOST = "host ms/tick: stages / decoding / process"


@click.group()
def main() -> None:
    """Measure the CUDA path on this machine."""


_clips = click.option(
    "--clip", "given", multiple=True, type=click.Path(exists=True, path_type=Path),
    help="1080p, H.264 or HEVC; what is missing is made of the first, or of sample://plaza.",
)  # fmt: skip
_processes = click.option("--processes", default=0, help="decode_processes of the config, where it is not paced.")
_write = click.option("--write", type=click.Path(path_type=Path), help="Write what is printed to this file too.")


def _report() -> Report:
    name = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    driver = cupy.cuda.runtime.driverGetVersion()
    cuda = f"CUDA {driver // 1000}.{driver % 1000 // 10}"
    return Report("python -m tools.bench_gpu", name, cuda, f"CuPy {cupy.__version__}")


@main.command()
@_write
def kernels(write: Path | None) -> None:
    """GPU time of a launch, captured in a graph and repeated, against copying the bytes it must move.

    Inputs and outputs rotate through more memory than the second-level cache holds, for both sides.
    """
    report = _report()
    report.say("| kernel | GPU us | copy of the same bytes, us | ratio | MB read + written |")
    report.say("| --- | ---: | ---: | ---: | ---: |")
    composed = [compose_case(streams, boxes) for streams in (4, 16) for boxes in (0, BOXES)]
    cases = [*composed, preprocess_case(4), preprocess_case(16)]
    for name, launches, moved in cases:
        mine, floor = time_graph_us(launches), time_graph_us(copy_case(moved))
        report.say(f"| {name} | {mine:.1f} | {floor:.1f} | {mine / floor:.2f}x | {moved / 1e6:.1f} |")
    report.write(write)


@main.command()
@_clips
@click.option("--streams", multiple=True, type=int, default=(1, 2, 4, 8, 16, 32), help="Numbers of streams.")
@click.option("--seconds", default=10.0, help="Of the clip that are used.")
@click.option("--codec", "codecs", multiple=True, default=("h264", "hevc"))
@click.option(
    "--reid", "reids", type=click.Choice(["auto", "off"]), multiple=True, default=("auto", "off"), show_default=True,
    help="With the first, encoding and pacing are measured, too.",
)  # fmt: skip
@click.option("--free", is_flag=True, help="Only as fast as it goes, without an encoder.")
@click.option("--repeat", default=1, show_default=True, help="Runs of each, of which the median is told.")
@_processes
@_write
def endtoend(
    given: tuple[Path, ...],
    streams: tuple[int, ...],
    seconds: float,
    codecs: tuple[str, ...],
    reids: tuple[str, ...],
    free: bool,
    repeat: int,
    processes: int,
    write: Path | None,
) -> None:
    """Whole runs with detection on every picture: as fast as they go, and paced; encoder off and libx264."""
    report = _report()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips = {codec: make_clip(folder, given, codec, seconds) for codec in codecs}
        whole_run(folder, clips[codecs[0]], 2, "off", False, seconds=5)  # compiles, and fills caches
        report.say(
            "| streams | codec | ReID | encoder | pace | decoding alone, fps: threads / processes | decoded fps "
            f"| share | mosaics/s | GPU ms/tick | {_HOST} | latency p50 / p95 / p99 ms | VRAM MB "
            "| up + down KB/stream/tick |"
        )
        report.say("|" + " ---: |" * 14)
        for codec in codecs:
            for count in streams:
                alone = decode_alone(clips[codec], count, processes)
                told = " / ".join(f"{fps:.0f}" for fps in alone)
                cases = [(reid, "off", "free") for reid in reids]
                if count in (4, 16) and not free:
                    cases += [(reids[0], "libx264", "free"), (reids[0], "libx264", "30 fps")]
                if count in (1, 4, 16, 32) and not free:
                    cases.append((reids[0], "off", "30 fps"))
                for reid, encoder, pace in cases:
                    paced = pace == "30 fps"
                    runs = [
                        whole_run(
                            folder, clips[codec], count, encoder, paced, seconds=6 if paced else 16, reid=reid,
                            processes=0 if paced else processes,
                        )
                        for _ in range(repeat)
                    ]  # fmt: skip
                    row = sorted(runs, key=attrgetter("decoded_fps"))[repeat // 2]
                    report.say(
                        f"| {count} | {codec} | {reid} | {encoder} | {pace} | {told} | {row.decoded_fps:.0f} "
                        f"| {row.decoded_fps / max(alone):.0%} | {row.fps:.0f} | {row.gpu_ms:.2f} | {row.host_ms} "
                        f"| {row.latency} | {row.vram_mb:.0f} | {row.copied_kb:.1f} |"
                    )
    report.write(write)


@main.command()
@_clips
@click.option("--streams", multiple=True, type=int, default=(4, 16))
@click.option("--seconds", default=5.0, help="Of the clip that are used.")
@_processes
@_write
def baseline(
    given: tuple[Path, ...], streams: tuple[int, ...], seconds: float, processes: int, write: Path | None
) -> None:
    """tiler against `tools/usual_script.py`, same clips, model, runtime and machine; both with and without encoding."""
    from tools.usual_script import run_script

    report = _report()
    report.say("| streams | encoding | usual script, decoded fps | tiler, decoded fps | ratio |")
    report.say("| ---: | --- | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = make_clip(folder, given, "h264", seconds)
        whole_run(folder, path, 2, "off", False, seconds=5)  # compiles, and fills caches
        for count in streams:
            for encode in (False, True):
                script = run_script([path] * count, folder if encode else None)
                encoder = "libx264" if encode else "off"
                ours = whole_run(folder, path, count, encoder, False, processes=processes).decoded_fps
                how = "libx264: one file a stream, one mosaic" if encode else "off"
                report.say(f"| {count} | {how} | {script:.0f} | {ours:.0f} | {ours / script:.1f}x |")
    report.write(write)


@main.command()
@_clips
@click.option("--streams", multiple=True, type=int, default=(16, 32))
@click.option("--seconds", default=10.0, help="Of the clip that are used.")
@_write
def scaled(given: tuple[Path, ...], streams: tuple[int, ...], seconds: float, write: Path | None) -> None:
    """Whole runs with `scaled_decode` off and on, encoder off."""
    report = _report()
    report.say(f"| streams | codec | scaled_decode | decoded fps | mosaics/s | GPU ms/tick | {_HOST} | VRAM MB |")
    report.say("| ---: | --- | --- | ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for codec in ("h264", "hevc"):
            path = make_clip(folder, given, codec, seconds)
            whole_run(folder, path, 2, "off", False, seconds=5)  # compiles, and fills caches
            for count in streams:
                for on in (False, True, False, True):  # twice, so that drift shows
                    row = whole_run(folder, path, count, "off", False, scaled=on)
                    report.say(
                        f"| {count} | {codec} | {str(on).lower()} | {row.decoded_fps:.0f} | {row.fps:.0f} "
                        f"| {row.gpu_ms:.2f} | {row.host_ms} | {row.vram_mb:.0f} |"
                    )
    report.write(write)


if __name__ == "__main__":
    main()
