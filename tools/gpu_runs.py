"""Whole runs on a GPU, for `bench_gpu.py`: clips, decoding alone, and what a run reports."""

from __future__ import annotations

import gc
import multiprocessing
import os
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import av
import av.video.frame
import cupy

from tiler import stages
from tiler.config.loader import load
from tiler.config.models import Source
from tiler.decode.import_cuda import open_processes
from tiler.kernels import enqueue_cuda
from tiler.memory import SURFACES
from tiler.observe.run import RunObserver
from tiler.pipeline import Run
from tiler.types import Mosaic, Packet

_CLOCKS_READ_EVERY = 32
"""Mosaics from one reading of the threads' clocks to the next: there are many threads."""
_STARTING = 48
"""Mosaics that are left out at first: more than the pictures of a stream that are decoded ahead."""
_TIMED_EVERY = 8
"""Launches of a kind from one that is timed to the next: what is measured is to disturb little."""
_MOST_TIMED = 200
"""Pairs of events made for each kind before a run, which is not to wait for them."""


def make_clip(folder: Path, given: tuple[Path, ...], codec: str, seconds: float) -> Path:
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


def decode_alone(path: Path, count: int, processes: int) -> list[float]:
    """Decoded pictures a second of so many streams of a clip, with which nothing is done: on threads; in processes."""
    return [_on_threads(path, count), *([_in_processes(path, count, processes)] if processes else ())]


def _in_processes(path: Path, count: int, processes: int, pictures: int = 900) -> float:
    """As a run decodes that has so many processes for it; each picture is taken, and dropped.

    As of a run, the first ones are left out, which were decoded ahead.
    """
    sources = [(i, Source(id=f"s{i}", uri=str(path), loop=True), str(path)) for i in range(count)]
    decoding = open_processes(sources, processes, SURFACES, 0, None)
    try:
        readers = [reader for process in decoding for reader in process.readers.values()]
        if len(readers) < count:
            raise SystemExit(f"{path}: {[process.refusals for process in decoding]}")
        for reader in readers:
            reader.start()
        start = 0.0
        for taken in range(pictures):
            if taken == _STARTING:
                start = time.perf_counter()
            for reader in readers:
                if reader.next() is None:
                    raise SystemExit(f"{path} ended early")
        return count * (pictures - _STARTING) / (time.perf_counter() - start)
    finally:
        for process in decoding:
            process.close()


def _on_threads(path: Path, count: int, rounds: int = 3) -> float:
    """Of that many threads, each with a decoder of PyNvVideoCodec, which decodes the clip so many times.

    Counted from when all hardware sessions exist.
    """
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
            for _ in range(rounds):
                container.seek(0)
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
        enqueue_cuda.finish(mosaic.ready)
        return [Packet(b"", mosaic.tick, mosaic.tick, True)]

    def flush(self) -> list[Packet]:
        return []

    def request_keyframe(self) -> None: ...

    def close(self) -> None: ...


class HostTime(NamedTuple):
    """Processor time: of the threads of the stages and the clock, of those that decode, and of all there are.

    Processes that decode count among both the latter.
    """

    stages: float
    decoding: float
    process: float

    @classmethod
    def read(cls) -> HostTime:
        """In seconds, until now."""
        stages = decoding = 0.0
        for thread in threading.enumerate():
            if thread.name.startswith("tiler-") and thread.ident is not None:
                spent = time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
                if thread.name.startswith("tiler-decode-"):
                    decoding += spent
                else:
                    stages += spent
        elsewhere = sum(_spent_by(child.pid) for child in multiprocessing.active_children() if child.pid is not None)
        return cls(stages, decoding + elsewhere, time.process_time() + elsewhere)

    def __str__(self) -> str:
        return " / ".join(f"{part:.1f}" for part in self)


def _spent_by(process: int) -> float:
    """Seconds of processor time of another process, see proc_pid_stat(5)."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Watched:
    """An encoder, and when it got the mosaics after the first ones, and the last: a run's start is no part of its pace.

    By then what was decoded before the first mosaic is shown, so that decoding keeps the pace, too, where it must.
    """

    def __init__(self, encoder: Any) -> None:
        self._encoder = encoder
        self.name, self.sessions = encoder.name, encoder.sessions
        self.request_keyframe, self.flush, self.close = encoder.request_keyframe, encoder.flush, encoder.close
        self.ticks = 0
        self._first_s = self._last_s = 0.0
        self._spent: list[tuple[int, HostTime]] = []

    def encode(self, mosaic: Mosaic) -> list[Packet]:
        packets: list[Packet] = self._encoder.encode(mosaic)
        self._last_s = time.perf_counter()
        if self.ticks == _STARTING:
            self._first_s = self._last_s
        if self.ticks % _CLOCKS_READ_EVERY == 0:
            self._spent.append((self.ticks, HostTime.read()))
        self.ticks += 1
        return packets

    @property
    def fps(self) -> float:
        """Mosaics a second, without those of the start."""
        return (self.ticks - 1 - _STARTING) / (self._last_s - self._first_s)

    @property
    def host_ms(self) -> HostTime:
        """Processor time for a mosaic, but for the last ones: by then some threads have ended, and are not seen."""
        if self.ticks < 4 * _CLOCKS_READ_EVERY:
            raise SystemExit(f"a run of {self.ticks} mosaics is too short to be measured")
        told = [row for row in self._spent if _STARTING <= row[0] <= self.ticks - _CLOCKS_READ_EVERY // 2]
        (first, before), (last, after) = told[0], told[-1]
        return HostTime(*((b - a) * 1000 / (last - first) for a, b in zip(before, after, strict=True)))


class Row(NamedTuple):
    """What one run measured."""

    decoded_fps: float
    fps: float
    gpu_ms: float
    host_ms: HostTime
    latency: str
    vram_mb: float
    copied_kb: float


class GpuTimer:
    """Events around some of the launches of a run, added up as if they were around all when it has ended."""

    def __init__(self) -> None:
        self._seen: list[_Launches] = []

    def wrap(self, owner: Any, name: str) -> None:
        work, seen = getattr(owner, name), _Launches()
        self._seen.append(seen)

        def timed(*arguments: Any) -> Any:
            seen.count += 1
            if seen.count % _TIMED_EVERY:
                return work(*arguments)
            stream = cupy.cuda.get_current_stream()
            start, end = seen.events.pop() if seen.events else (cupy.cuda.Event(), cupy.cuda.Event())
            enqueue_cuda.record(start, stream)
            result = work(*arguments)
            enqueue_cuda.record(end, stream)
            seen.pairs.append((start, end))
            return result

        setattr(owner, name, timed)

    def total_ms(self) -> float:
        return sum(
            seen.count * sum(cupy.cuda.get_elapsed_time(*pair) for pair in seen.pairs) / max(len(seen.pairs), 1)
            for seen in self._seen
        )


class _Launches:
    """How many there were, and the events around some of them."""

    def __init__(self) -> None:
        self.count = 0
        self.pairs: list[tuple[Any, Any]] = []
        self.events = [(cupy.cuda.Event(), cupy.cuda.Event()) for _ in range(_MOST_TIMED)]


def whole_run(
    folder: Path,
    clip: Path,
    count: int,
    encoder: str,
    paced: bool,
    *,
    scaled: bool = False,
    seconds: float = 16,
    reid: str = "auto",
    processes: int = 0,
) -> Row:
    """A run of the clip, over and over, on `count` streams: `seconds` of mosaic."""
    config = folder / "run.yaml"
    entry = f"uri: {clip}, loop: true, realtime: true" if paced else f"uri: {clip}, loop: true"
    config.write_text(
        f"device: auto\nduration_s: {seconds}\nscaled_decode: {str(scaled).lower()}\n"
        f"decode_processes: {processes}\ntracker: {{reid: '{reid}'}}\nencoder: {{driver: x264, preset: p1}}\nsources:\n"
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
    watched = Watched(built.encoder)
    built = replace(built, encoder=watched)
    observer = RunObserver(loaded.config, built.choices, built.feeds, built.encoder, built.copies)
    with Run(loaded, built, observer, overwrite=True) as run:
        gc.collect()
        gc.freeze()
        run.start()
        run.wait()
        vram = (before - cupy.cuda.Device(0).mem_info[0]) / 1e6
    told = observer.report()
    ticks = told["frames"]
    shown = sum(stream["read"] - stream["dropped"] for stream in told["streams"]) / ticks
    latency = " / ".join(f"{told['end_to_end'][key]:.1f}" for key in ("p50_ms", "p95_ms", "p99_ms"))
    copies = told["copies"]
    moved = sum(
        row["bytes"] for name, row in copies["by_name"].items() if name != "mosaic for libx264"
    )
    stage = "  ".join(f"{name} {told['stages'][name]['mean_ms']:.2f}" for name in told["stages"])
    print(f"      {count} {clip.stem} {encoder}: {stage} | {told['stages']['infer']['backend']}", file=sys.stderr)
    cupy.get_default_memory_pool().free_all_blocks()
    return Row(
        shown * watched.fps, watched.fps, timer.total_ms() / ticks, watched.host_ms, latency, vram,
        moved / ticks / count / 1000,
    )  # fmt: skip
