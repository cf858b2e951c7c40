"""Benchmarks of the CUDA path: correctness first, then times and ratios, with the machine that gave them.

    python -m tools.bench_gpu kernels           # compose and preprocess against a copy of the same bytes
    python -m tools.bench_gpu endtoend          # files -> detection -> 4K mosaic, against decoding alone
    python -m tools.bench_gpu baseline          # against the usual script: everything per stream, on the host

With --write FILE the table goes to a file too, such as docs/bench/kernels.md.
"""

from __future__ import annotations

import gc
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import av
import av.video.frame
import click
import cupy
import numpy as np

from tests.gpu import random_picture, to_device
from tiler import stages
from tiler.compose.cpu import CpuCompositor
from tiler.compose.cuda import RING, CudaCompositor
from tiler.config.loader import load
from tiler.config.models import Config, MosaicConfig, Source
from tiler.engines.registry import load_model
from tiler.observe.copies import Copies
from tiler.observe.run import RunObserver
from tiler.pipeline import Run
from tiler.preprocess.cpu import CpuPreprocessor
from tiler.preprocess.cuda import RING as TENSORS
from tiler.preprocess.cuda import CudaPreprocessor
from tiler.types import Mosaic, Packet, State, TileInput, Tracks
from tools.bench import Report

WIDTH, HEIGHT = 3840, 2160
BOXES = 40


@click.group()
def main() -> None:
    """Measure the CUDA path on this machine."""


_clips = click.option(
    "--clip", "given", multiple=True, type=click.Path(exists=True, path_type=Path),
    help="1080p, H.264 or HEVC; what is missing is made of the first, or of sample://plaza.",
)  # fmt: skip
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
    cases = [_compose(4, 0), _compose(4, BOXES), _compose(16, 0), _compose(16, BOXES), _preprocess(4), _preprocess(16)]
    for name, launches, moved in cases:
        mine, floor = _graph_us(launches), _graph_us(_copies(moved))
        report.say(f"| {name} | {mine:.1f} | {floor:.1f} | {mine / floor:.2f}x | {moved / 1e6:.1f} |")
    report.write(write)


Launches = list[Callable[[], object]]


def _graph_us(launches: Launches, rounds: int = 30, repeats: int = 5) -> float:
    """Median GPU microseconds of one launch."""
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        for launch in launches:
            launch()
        stream.synchronize()
        stream.begin_capture()
        for _ in range(repeats):
            for launch in launches:
                launch()
        graph = stream.end_capture()
        times = []
        for _ in range(rounds):
            start, end = cupy.cuda.Event(), cupy.cuda.Event()
            start.record(stream)
            graph.launch(stream)
            end.record(stream)
            end.synchronize()
            times.append(cupy.cuda.get_elapsed_time(start, end) * 1000 / (repeats * len(launches)))
    return statistics.median(times[3:])


def _copies(moved: int) -> Launches:
    """Copies that read and write `moved` bytes in all, each from and to other memory."""
    size = moved // 2
    runtime = cupy.cuda.runtime
    pairs = [(cupy.zeros(size, cupy.uint8), cupy.zeros(size, cupy.uint8)) for _ in range(RING)]

    def copy(source: Any, target: Any) -> Callable[[], object]:
        return lambda: runtime.memcpyAsync(
            target.data.ptr, source.data.ptr, size, runtime.memcpyDeviceToDevice, cupy.cuda.get_current_stream().ptr
        )

    return [copy(*pair) for pair in pairs]


def _people(rng: np.random.Generator, count: int) -> tuple[Tracks, np.ndarray]:
    """`count` boxes of the usual size all over a 1080p picture, each with a trail of two seconds."""
    corner = rng.uniform(0, 1, (count, 2)) * (1800, 800)
    size = np.column_stack([rng.uniform(40, 110, count), rng.uniform(110, 280, count)])
    xyxy = np.concatenate([corner, corner + size], 1).astype(np.float32)
    ids = np.arange(1, count + 1, dtype=np.int32)
    rows = [
        np.column_stack([np.full(30, i), x + np.linspace(0, -120, 30), np.full(30, y), np.arange(30) / 15])
        for i, x, y in zip(ids, xyxy[:, 0], xyxy[:, 3], strict=True)
    ]
    history = np.concatenate(rows).astype(np.float32) if rows else np.zeros((0, 4), np.float32)
    return Tracks(0, ids, xyxy, rng.uniform(0.4, 1, count).astype(np.float32), np.zeros(count, np.int32)), history


def _compose(streams: int, boxes: int) -> tuple[str, Launches, int]:
    rng = np.random.default_rng(streams)
    config = Config(sources=[Source(id=f"s{i}", uri="x") for i in range(streams)],
                    mosaic=MosaicConfig(width=WIDTH, height=HEIGHT))
    compositor = CudaCompositor(config, 0, Copies(), ("person",))
    launches: Launches = []
    for tick in range(RING):
        shown = []
        for _ in range(streams):
            tracks, history = _people(rng, boxes)
            shown.append(TileInput(random_picture(rng, (1920, 1080)), tracks, State.LIVE, 30.0, history))
        twins = [replace(one, frame=to_device(one.frame)) for one in shown if one.frame is not None]
        mosaic = compositor.compose(tick, twins)
        mosaic.ready.synchronize()
        if tick == 0:
            with CpuCompositor(config, 4, ("person",)) as cpu:
                for host, device in zip(cpu.compose(0, shown).planes, mosaic.planes, strict=True):
                    if not np.array_equal(host, device.get()):
                        raise SystemExit(f"compose of {streams}: the GPU's mosaic is not the CPU's")
        turn = compositor._ring[tick]
        rows = int(turn.table[-1, 22])  # END of the last tile
        launches.append(lambda turn=turn, rows=rows, twins=twins: twins and compositor._launch(turn, rows))
    moved = streams * 1920 * 1080 * 3 // 2 + WIDTH * HEIGHT * 3 // 2
    what = f"{boxes} boxes, labels and trails a tile" if boxes else "titles only"
    return f"compose {streams} x 1080p -> 4K, {what} ({rows} primitives)", launches, moved


def _preprocess(streams: int) -> tuple[str, Launches, int]:
    rng = np.random.default_rng(streams)
    spec, size, stream = load_model("person-nano", Path()).input, (640, 640), cupy.cuda.Stream(non_blocking=True)
    gpu = CudaPreprocessor(size, spec, streams, np.float16, 0, stream, Copies())
    launches: Launches = []
    held = []
    for _ in range(TENSORS):
        frames = [random_picture(rng, (1920, 1080)) for _ in range(streams)]
        held.append([to_device(frame) for frame in frames])
        batch = gpu.prepare(held[-1])
        stream.synchronize()
        if len(held) == 1:
            with CpuPreprocessor(size, spec, streams, 4) as cpu:
                apart = np.abs(cpu.prepare(frames).tensor - batch.tensor.get().astype(np.float32)).max()
                if apart > 1 / 255:
                    raise SystemExit(f"preprocess of {streams}: the GPU's tensor is {apart:.4f} from the CPU's")
        turn, tensor = gpu._turn, batch.tensor
        launches.append(lambda turn=turn, tensor=tensor, frames=held[-1]: frames and gpu._launch(tensor, turn))
    moved = streams * (1920 * 1080 * 3 // 2 + 3 * size[0] * size[1] * 2)
    return f"preprocess {streams} x 1080p -> {size[0]}x{size[1]} FP16", launches, moved


@main.command()
@_clips
@click.option("--streams", multiple=True, type=int, default=(1, 2, 4, 8, 16, 32), help="Numbers of streams.")
@click.option("--seconds", default=10.0, help="Of the clip that are used.")
@click.option("--codec", "codecs", multiple=True, default=("h264", "hevc"))
@_write
def endtoend(
    given: tuple[Path, ...], streams: tuple[int, ...], seconds: float, codecs: tuple[str, ...], write: Path | None
) -> None:
    """Whole runs with detection on every picture: as fast as they go, and paced; encoder off and libx264."""
    report = _report()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips = {codec: _clip(folder, given, codec, seconds) for codec in codecs}
        _whole_run(folder, clips[codecs[0]], 2, "off", False)  # compiles, and fills caches
        report.say(
            "| streams | codec | encoder | pace | decoding alone, fps | decoded fps | share | mosaics/s | GPU ms/tick "
            "| host ms/tick | latency p50 / p95 / p99 ms | VRAM MB | up + down KB/stream/tick |"
        )
        report.say("|" + " ---: |" * 13)
        for codec in codecs:
            for count in streams:
                ceiling = _decode_alone(clips[codec], count)
                cases = [("off", "free")]
                if count in (4, 16) and codec == "h264":
                    cases += [("off", "30 fps"), ("libx264", "free")]
                for encoder, pace in cases:
                    row = _whole_run(folder, clips[codec], count, encoder, pace == "30 fps")
                    report.say(
                        f"| {count} | {codec} | {encoder} | {pace} | {ceiling:.0f} | {row.decoded_fps:.0f} "
                        f"| {row.decoded_fps / ceiling:.0%} | {row.fps:.0f} | {row.gpu_ms:.2f} | {row.host_ms:.2f} "
                        f"| {row.latency} | {row.vram_mb:.0f} | {row.copied_kb:.1f} |"
                    )
    report.write(write)


@main.command()
@_clips
@click.option("--streams", multiple=True, type=int, default=(4, 16))
@click.option("--seconds", default=5.0, help="Of the clip that are used.")
@_write
def baseline(given: tuple[Path, ...], streams: tuple[int, ...], seconds: float, write: Path | None) -> None:
    """tiler against `tools/usual_script.py`, same clips, model, runtime and machine; both with and without encoding."""
    from tools.usual_script import run_script

    report = _report()
    report.say("| streams | encoding | usual script, decoded fps | tiler, decoded fps | ratio |")
    report.say("| ---: | --- | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = _clip(folder, given, "h264", seconds)
        _whole_run(folder, path, 2, "off", False)  # compiles, and fills caches
        for count in streams:
            for encode in (False, True):
                script = run_script([path] * count, folder if encode else None)
                ours = _whole_run(folder, path, count, "libx264" if encode else "off", False).decoded_fps
                how = "libx264: one file a stream, one mosaic" if encode else "off"
                report.say(f"| {count} | {how} | {script:.0f} | {ours:.0f} | {ours / script:.1f}x |")
    report.write(write)


def _clip(folder: Path, given: tuple[Path, ...], codec: str, seconds: float) -> Path:
    """The given clip in a codec, or one made of the first seconds of another."""
    for clip in given:
        with av.open(str(clip)) as container:
            if container.streams.video[0].codec_context.name == codec:
                return clip.resolve()
    if given:
        clip = given[0]
    else:
        from tiler.samples import resolve

        clip = resolve("sample://plaza").path
    made = folder / f"{codec}.mp4"
    with av.open(str(clip)) as source, av.open(str(made), "w") as target:
        out = target.add_stream({"h264": "libx264", "hevc": "libx265"}[codec], rate=30)
        out.width, out.height, out.pix_fmt = 1920, 1080, "yuv420p"
        quiet = {"x265-params": "log-level=error"} if codec == "hevc" else {}
        out.options = {"preset": "veryfast", "crf": "23", **quiet}
        for picture in source.decode(video=0):
            if picture.time >= seconds:
                break
            picture.pict_type = av.video.frame.PictureType.NONE
            target.mux(out.encode(picture))
        target.mux(out.encode(None))
    return made


def _decode_alone(path: Path, count: int) -> float:
    """Decoded pictures a second of `count` threads that do nothing else with what NVDEC gives them."""
    import PyNvVideoCodec

    done = [0] * count
    ready = threading.Barrier(count + 1)

    def work(index: int) -> None:
        with cupy.cuda.Device(0), av.open(str(path)) as container:
            video = container.streams.video[0]
            name = video.codec_context.name
            bsf = av.BitStreamFilterContext(f"{name}_mp4toannexb", video)
            stream = cupy.cuda.Stream(non_blocking=True)
            codec = {"h264": PyNvVideoCodec.cudaVideoCodec.H264, "hevc": PyNvVideoCodec.cudaVideoCodec.HEVC}[name]
            decoder = PyNvVideoCodec.CreateDecoder(gpuid=0, codec=codec, cudastream=int(stream.ptr), usedevicememory=1)
            began = False
            for packet in container.demux(video):
                for part in bsf.filter(packet) if packet.size else [None]:
                    data = PyNvVideoCodec.PacketData()
                    if part is not None:
                        data.bsl_data, data.bsl, data.pts = part.buffer_ptr, part.size, part.pts or 0
                    found = len(decoder.Decode(data))
                    done[index] += found if began else 0
                    if found and not began:  # the hardware's session exists: from here on it is only decoding
                        began = True
                        ready.wait()
            stream.synchronize()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    ready.wait()
    start = time.perf_counter()
    for thread in threads:
        thread.join()
    return sum(done) / (time.perf_counter() - start)


class NoEncoder:
    """Waits for each mosaic and gives a packet of nothing: a run without the encoder's work."""

    name, sessions = "off", 1

    def encode(self, mosaic: Mosaic) -> list[Packet]:
        mosaic.ready.synchronize()
        return [Packet(b"", mosaic.tick, mosaic.tick, True)]

    def flush(self) -> list[Packet]:
        return []

    def request_keyframe(self) -> None: ...

    def close(self) -> None: ...


class Row(NamedTuple):
    """What one run measured."""

    decoded_fps: float
    fps: float
    gpu_ms: float
    host_ms: float
    latency: str
    vram_mb: float
    copied_kb: float


class GpuTimer:
    """Events around the launches of a run, added up when it has ended."""

    def __init__(self) -> None:
        self._pairs: list[tuple[Any, Any]] = []

    def wrap(self, owner: Any, name: str) -> None:
        work = getattr(owner, name)

        def timed(*arguments: Any) -> Any:
            stream = cupy.cuda.get_current_stream()
            start, end = cupy.cuda.Event(), cupy.cuda.Event()
            start.record(stream)
            result = work(*arguments)
            end.record(stream)
            self._pairs.append((start, end))
            return result

        setattr(owner, name, timed)

    def total_ms(self) -> float:
        return sum(cupy.cuda.get_elapsed_time(*pair) for pair in self._pairs)


def _whole_run(folder: Path, clip: Path, count: int, encoder: str, paced: bool) -> Row:
    config = folder / "run.yaml"
    entry = f"uri: {clip}, realtime: true" if paced else f"uri: {clip}"
    config.write_text(
        "device: auto\nencoder: {driver: x264, preset: p1}\nsources:\n"
        + "".join(f"  - {{id: s{i}, {entry}}}\n" for i in range(count)),
        encoding="utf-8",
    )
    loaded = load(config, []).with_outputs(folder / "out.mp4" if encoder != "off" else None, None)
    before = cupy.cuda.Device(0).mem_info[0]
    built = stages.build(loaded)
    timer = GpuTimer()
    timer.wrap(built.compositor, "_launch")
    timer.wrap(built.preprocessor, "_launch")
    timer.wrap(built.detector._network, "run")
    if encoder == "off":
        built.encoder.close()
        built = replace(built, encoder=NoEncoder())
    observer = RunObserver(loaded.config, built.choices, built.feeds, built.encoder.name, built.copies)
    with Run(loaded, built, observer, overwrite=True) as run:
        gc.collect()
        gc.freeze()
        busy = time.process_time()
        run.start()
        run.wait()
        host = time.process_time() - busy
    told = observer.report()
    vram = (before - cupy.cuda.Device(0).mem_info[0]) / 1e6
    ticks = told["frames"]
    read = sum(stream["read"] for stream in told["streams"])
    latency = " / ".join(f"{told['end_to_end'][key]:.1f}" for key in ("p50_ms", "p95_ms", "p99_ms"))
    copies = told["copies"]
    moved = sum(
        row["bytes"] for name, row in copies["by_name"].items() if name != "mosaic for libx264"
    )
    stage = "  ".join(f"{name} {told['stages'][name]['mean_ms']:.2f}" for name in told["stages"])
    print(f"      {count} {clip.stem} {encoder}: {stage} | {told['stages']['infer']['backend']}", file=sys.stderr)
    cupy.get_default_memory_pool().free_all_blocks()
    return Row(
        read / told["seconds"], told["fps"], timer.total_ms() / ticks, host * 1000 / ticks, latency, vram,
        moved / ticks / count / 1000,
    )  # fmt: skip


if __name__ == "__main__":
    main()
