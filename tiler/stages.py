"""Which implementation of each stage runs, and why: the only place that knows.

A run is on the CPU or on one CUDA device as a whole; there, a stage that has to land on the CPU says why,
and does so only where the config allows it: nobody gets a slow run in place of the one they asked for.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tiler import cuda
from tiler.closing import Closing
from tiler.compose.base import Compositor
from tiler.config.loader import LoadedConfig
from tiler.config.models import Config, DetectorConfig, Source
from tiler.decode.base import Decoder, Reader, close_readers
from tiler.decode.feed import LiveFeed, OfflineFeed
from tiler.decode.source import Opener, SourceReader, open_decoder
from tiler.encode.base import Encoder
from tiler.encode.parameters import check_libx264
from tiler.errors import InputError, StageError
from tiler.infer.base import Detector
from tiler.observe.copies import Copies
from tiler.preprocess.base import Preprocessor
from tiler.track.base import Tracker

if TYPE_CHECKING:
    from tiler.track.reid import ReId

STAGES = ("decode", "preprocess", "infer", "track", "compose", "encode", "output")

Feed = OfflineFeed | LiveFeed

_log = logging.getLogger(__name__)
_HOST = ("track", "output")
"""Stages that work on a few numbers or on packets: the host is their place."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The device and technology of one stage, and the reason."""

    stage: str
    device: str
    backend: str
    reason: str


def wanted_device(config: Config) -> tuple[int | None, str]:
    """Index of the CUDA device, None for the CPU, and the reason.

    Raises:
        InputError: the config insists on a device that cannot be used.
    """
    if config.device == "cpu":
        return None, "device: cpu"
    index = int(config.device.partition(":")[2] or 0)
    problem = cuda.problem(index)
    if problem is None:
        return index, f"device: {config.device}"
    if config.device == "auto":
        return None, problem
    raise InputError(f"device: {config.device} cannot be used: {problem}; accepted here: auto, cpu")


def choose(loaded: LoadedConfig) -> tuple[Choice, ...]:
    """What each stage is to run on, before anything is opened; `Stages.choices` says where it landed.

    Raises:
        InputError: the config insists on a device that cannot be used, or libx264 is to encode and cannot honour a key.
    """
    index, reason = wanted_device(loaded.config)
    tracker = tracker_name(loaded.config, index)
    if index is None:
        device, backends = "cpu", ["PyAV", "Numba", "ONNX Runtime", tracker, "Numba", "libx264", "PyAV"]
    else:
        kernel = "CUDA kernel"
        backends = ["NVDEC", kernel, "TensorRT or ONNX Runtime", tracker, kernel, "NVENC, if the GPU has it", "PyAV"]
        device = f"cuda:{index}"
    choices = [
        Choice(stage, "cpu" if stage in _HOST else device, backend, "host by design" if stage in _HOST else reason)
        for stage, backend in zip(STAGES, backends, strict=True)
    ]
    if index is not None and loaded.config.encoder.driver == "x264":
        _check_cpu(loaded.config, "encode", "libx264", "encoder.driver: x264")
        choices[5] = Choice("encode", "cpu", "libx264", "encoder.driver: x264")
    if choices[5].backend == "libx264":
        check_libx264(loaded.config.encoder, choices[5].reason)
    if loaded.config.detector == "none":
        choices = [c for c in choices if c.stage not in ("preprocess", "infer", "track")]
    return tuple(choices)


def tracker_name(config: Config, index: int | None) -> str:
    """Identities are the host's work; what people look like is seen where their pictures are."""
    reid = {"auto": ", ReID (Numba)" if index is None else ", ReID (CUDA kernel)", "off": ""}
    return f"ByteTrack (Numba){reid[config.tracker.reid]}"


def refuse_cpu(config: Config, stage: Literal["decode", "infer", "encode"], backend: str, reason: str) -> None:
    """Say that a stage of a CUDA run lands on the CPU; refuse it where the config does not allow that.

    Raises:
        InputError: `device: cuda` without the stage in `allow_cpu`.
    """
    _check_cpu(config, stage, backend, reason)
    _log.warning("%s runs on the CPU (%s): %s", stage, backend, reason)


def _check_cpu(config: Config, stage: Literal["decode", "infer", "encode"], backend: str, reason: str) -> None:
    if config.device != "auto" and stage not in config.allow_cpu:
        raise InputError(
            f"{stage} cannot run on {config.device}: {reason}; "
            f"accepted here: allow_cpu: [{stage}] ({backend} on the CPU), or device: auto"
        )


def begins_in_time(opener: Opener) -> Opener:
    """The same opener, but a file that is over before its `start_s` is refused, where its length is known."""

    def opened(source: Source, uri: str, stream: int, threads: int) -> Decoder:
        decoder = opener(source, uri, stream, threads)
        if not source.start_s or decoder.info.duration_s != 0:
            return decoder
        first = None
        with suppress(StageError):
            first = decoder.read()
        if first is not None:  # it is longer than it says
            decoder.restart()
            return decoder
        decoder.close()
        with opener(source.model_copy(update={"start_s": 0.0}), uri, stream, threads) as whole:
            length_s = whole.info.duration_s or 0.0
        raise InputError(
            f"source {source.id}: start_s: the file is over before; it has {length_s:.1f} s (got {source.start_s:g})"
        )

    return opened


class Entrance:
    """Where sources come in and go out: opens their feeds, each with a share of the threads."""

    def __init__(
        self, loaded: LoadedConfig, threads: int, opener: Opener, forget: Callable[[int], None] = lambda index: None
    ) -> None:
        """
        Args:
            loaded: the config.
            threads: of the whole run.
            opener: opens a source's decoder.
            forget: frees what `opener` keeps for a place.
        """
        self._loaded = loaded
        self._opener = begins_in_time(opener)
        self._forget = forget
        # One thread a stream is enough when there are several; a lone one may use them all.
        self._threads = max(1, threads // loaded.config.places)

    def open(self, source: Source, index: int, *, late: bool = False) -> Feed:
        """The feed of a source in a place; see `SourceReader`.

        Raises:
            InputError: a file cannot be opened.
        """
        config = self._loaded.config
        reader = SourceReader(
            source, self._loaded.resolve(source.uri), index, self._threads, live=config.live, late=late,
            opener=self._opener,
        )  # fmt: skip
        return LiveFeed(reader, config.mosaic) if config.live else OfflineFeed(reader)

    def close(self, feed: Feed, index: int) -> None:
        """Close a feed and wait until its place is empty: for as long as FFmpeg waits for a network at most."""
        feed.close()
        feed.reader.wait()
        self._forget(index)


@dataclass(frozen=True, slots=True)
class Stages:
    """The running parts of one run, in the order of the flow; feeds of the sources that it begins with.

    With `detector: none` `preprocessor`, `detector`, `tracker` and `reid` are None. With
    `tracker: {reid: off}` the last is None, too. `processes` decode for the feeds, where the config asks for them.
    `queued` says that the stages before the encoder enqueue their work for a device to do, and seldom wait. Only then
    may the pictures of more than one tick go to the detector at once, of `batch_ticks`.
    """

    entrance: Entrance
    feeds: tuple[Feed, ...]
    preprocessor: Preprocessor | None
    detector: Detector | None
    tracker: Tracker | None
    reid: ReId | None
    compositor: Compositor
    encoder: Encoder
    choices: tuple[Choice, ...]
    copies: Copies
    processes: tuple[Closing, ...] = ()
    queued: bool = False
    batch_ticks: int = 1

    def close(self) -> None:
        """Free everything, the readers first, and what their pictures lie in last."""
        close_readers(feed.reader for feed in self.feeds)
        parts = (self.preprocessor, self.detector, self.reid, self.encoder, self.compositor)
        for part in (*parts, *self.processes):
            if part is not None:
                part.close()


def build(loaded: LoadedConfig, *, opener: Opener | None = None, warm: bool = True) -> Stages:
    """Open every stage of a run; files are opened here, so that a wrong one is said before anything starts.

    Args:
        loaded: the config.
        opener: opens a source's decoder, instead of the device's own: the run is then on the CPU.
        warm: run the detector once now, so that no tick pays for first use.

    Raises:
        InputError: a file, a model or the encoder's parameters are refused.
    """
    config = loaded.config
    threads = config.cpu_threads or os.cpu_count() or 1
    index, _ = wanted_device(config)
    if index is not None and opener is None:
        from tiler.stages_cuda import build_cuda

        return build_cuda(loaded, index, threads)
    from tiler.compose.cpu import CpuCompositor
    from tiler.encode.cpu import X264Encoder

    unused = [name for name in ("scaled_decode", "decode_processes") if getattr(config, name)]
    if unused:
        _log.warning("%s: for CUDA only; this run is on the CPU", ", ".join(unused))
    opened: list[Callable[[], None]] = []
    try:
        preprocessor, detector, tracker = _build_analysis(loaded, threads, warm)
        if detector is not None and preprocessor is not None:
            opened += [detector.close, preprocessor.close]
        reid = _open_reid(config) if tracker is not None else None
        compositor = CpuCompositor(config, threads, detector.class_names if detector else ())
        opened.append(compositor.close)
        encoder = X264Encoder(config.mosaic, config.encoder, threads)
        opened.append(encoder.close)
        entrance = Entrance(loaded, threads, opener or open_decoder)
        feeds = open_feeds(entrance, config, opened)
    except BaseException:
        for close in reversed(opened):
            close()
        raise
    choices = choose(loaded)
    return Stages(
        entrance, tuple(feeds), preprocessor, detector, tracker, reid, compositor, encoder, choices, Copies()
    )


def open_feeds(
    entrance: Entrance, config: Config, opened: list[Callable[[], None]], readers: Mapping[int, Reader] | None = None
) -> list[Feed]:
    """The feed of each source; how to close them again is put into `opened` as they open.

    Args:
        entrance: opens those that are not open yet.
        config: of the run.
        opened: see above.
        readers: place of a source -> its reader, of files that another process has opened.
    """
    feeds: list[Feed] = []
    for index, source in enumerate(config.sources):
        reader = readers.get(index) if readers else None
        feeds.append(OfflineFeed(reader) if reader is not None else entrance.open(source, index))
        opened.append(feeds[-1].close)
    return feeds


def new_tracker(config: Config) -> Tracker:
    """The tracker of a config with a detector: the host's, on every device."""
    from tiler.track.bytetrack import ByteTracker

    assert isinstance(config.detector, DetectorConfig)
    return ByteTracker(config.tracker, config.detector.score, config.places)


def _build_analysis(
    loaded: LoadedConfig, threads: int, warm: bool
) -> tuple[Preprocessor | None, Detector | None, Tracker | None]:
    """The stages that `detector: none` does without; their libraries are then not even imported."""
    config = loaded.config
    if not isinstance(config.detector, DetectorConfig):
        return None, None, None
    from tiler.engines.registry import load_model
    from tiler.infer.cpu import OrtDetector
    from tiler.preprocess.cpu import CpuPreprocessor

    model = load_model(config.detector.model, loaded.folder)
    streams = config.places
    detector = OrtDetector(
        model,
        config.detector,
        threads,
        (1, streams) if warm else (),
        min_score=min(config.tracker.low_score, config.detector.score),
    )
    preprocessor = CpuPreprocessor(model.input_size, model.input, streams, threads)
    return preprocessor, detector, new_tracker(config)


def _open_reid(config: Config) -> ReId | None:
    if config.tracker.reid == "off":
        return None
    from tiler.track.appearance import CpuEmbedder
    from tiler.track.reid import ReId

    return ReId(CpuEmbedder(), config.places, config.tracker)
