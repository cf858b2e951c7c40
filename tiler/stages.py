"""Which implementation of each stage runs, and why: the only place that knows.

Every stage lands on the CPU in this version. `device: cuda` is refused with the reason, so
that nobody gets a slow run in place of the one they asked for; `auto` says why it chose.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from dataclasses import dataclass

from tiler.compose.base import Compositor
from tiler.config.loader import LoadedConfig
from tiler.config.models import DetectorConfig
from tiler.decode.feed import LiveFeed, OfflineFeed
from tiler.decode.source import Opener, SourceReader, open_decoder
from tiler.encode.base import Encoder
from tiler.errors import InputError
from tiler.infer.base import Detector
from tiler.preprocess.base import Preprocessor
from tiler.track.base import Tracker

STAGES = ("decode", "preprocess", "infer", "track", "compose", "encode", "output")

Feed = OfflineFeed | LiveFeed


@dataclass(frozen=True, slots=True)
class Choice:
    """The device and technology of one stage, and the reason."""

    stage: str
    device: str
    backend: str
    reason: str


def cuda_problem() -> str:
    """Why the GPU is not used, in one line."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver here (libcuda.so.1 is not found)"
    return "this version of tiler has no CUDA stages yet"


def choose(loaded: LoadedConfig) -> tuple[Choice, ...]:
    """What each stage runs on.

    Raises:
        InputError: the config insists on a device that cannot be used.
    """
    device = loaded.config.device
    if device.startswith("cuda"):
        raise InputError(f"device: {device} cannot be used: {cuda_problem()}; accepted here: auto, cpu")
    reason = "device: cpu" if device == "cpu" else cuda_problem()
    backends = ["PyAV", "Numba", "ONNX Runtime", "ByteTrack (NumPy, SciPy)", "Numba", "libx264", "PyAV"]
    always = {"track": "host by design", "output": "host by design"}
    choices = [
        Choice(stage, "cpu", backend, always.get(stage, reason))
        for stage, backend in zip(STAGES, backends, strict=True)
    ]
    if loaded.config.detector == "none":
        choices = [c for c in choices if c.stage not in ("preprocess", "infer", "track")]
    return tuple(choices)


@dataclass(frozen=True, slots=True)
class Stages:
    """The running parts of one run, in the order of the flow.

    With `detector: none` there are no `trackers`, `preprocessor` and `detector` are None.
    """

    feeds: tuple[Feed, ...]
    preprocessor: Preprocessor | None
    detector: Detector | None
    trackers: tuple[Tracker, ...]
    compositor: Compositor
    encoder: Encoder

    def close(self) -> None:
        """Free everything, the readers first."""
        for part in (*self.feeds, self.preprocessor, self.detector, self.compositor, self.encoder):
            if part is not None:
                part.close()


def build(loaded: LoadedConfig, *, opener: Opener = open_decoder, warm: bool = True) -> Stages:
    """Open every stage of a run; files are opened here, so that a wrong one is said before anything starts.

    Args:
        loaded: the config.
        opener: opens a source's decoder.
        warm: run the detector once now, so that no tick pays for first use.

    Raises:
        InputError: a file, a model or the encoder's parameters are refused.
    """
    from tiler.compose.cpu import CpuCompositor
    from tiler.encode.cpu import X264Encoder

    config = loaded.config
    threads = config.cpu_threads or os.cpu_count() or 1
    opened: list[Callable[[], None]] = []
    try:
        preprocessor, detector, trackers = _build_analysis(loaded, threads, warm)
        if detector is not None and preprocessor is not None:
            opened += [detector.close, preprocessor.close]
        compositor = CpuCompositor(config, threads, detector.class_names if detector else ())
        opened.append(compositor.close)
        encoder = X264Encoder(config.mosaic, config.encoder, threads)
        opened.append(encoder.close)
        feeds: list[Feed] = []
        for index, source in enumerate(config.sources):
            # One thread a stream is enough when there are several; a lone one may use them all.
            per_stream = max(1, threads // len(config.sources))
            reader = SourceReader(
                source, loaded.resolve(source.uri), index, per_stream, live=config.live, opener=opener
            )
            opened.append(reader.close)
            feeds.append(LiveFeed(reader, config.mosaic) if config.live else OfflineFeed(reader))
    except BaseException:
        for close in reversed(opened):
            close()
        raise
    return Stages(tuple(feeds), preprocessor, detector, trackers, compositor, encoder)


def _build_analysis(
    loaded: LoadedConfig, threads: int, warm: bool
) -> tuple[Preprocessor | None, Detector | None, tuple[Tracker, ...]]:
    """The stages that `detector: none` does without; their libraries are then not even imported."""
    config = loaded.config
    if not isinstance(config.detector, DetectorConfig):
        return None, None, ()
    from tiler.engines.registry import load_model
    from tiler.infer.cpu import OrtDetector
    from tiler.preprocess.cpu import CpuPreprocessor
    from tiler.track.bytetrack import ByteTracker

    model = load_model(config.detector.model, loaded.folder)
    streams = len(config.sources)
    detector = OrtDetector(
        model,
        config.detector,
        threads,
        (1, streams) if warm else (),
        min_score=min(config.tracker.low_score, config.detector.score),
    )
    preprocessor = CpuPreprocessor(model.input_size, model.input, streams, threads)
    return preprocessor, detector, tuple(ByteTracker(config.tracker, config.detector.score) for _ in range(streams))
