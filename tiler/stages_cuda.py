"""The stages of a run on a CUDA device: opened in the order of the flow, each saying where it landed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import cupy
import numpy as np

from tiler.compose.cuda import CudaCompositor
from tiler.config.loader import LoadedConfig
from tiler.config.models import Config, DetectorConfig
from tiler.decode.base import Needed
from tiler.decode.cuda import CudaOpener
from tiler.decode.import_cuda import DecodeProcess, ImportedReader, files_of, open_processes
from tiler.decode_size import DecodeSizes
from tiler.encode.cuda import open_cuda_encoder
from tiler.encode.readback_cuda import ReadbackEncoder
from tiler.engines.registry import ModelSpec, load_model
from tiler.errors import InputError
from tiler.infer.base import Detector
from tiler.infer.cpu import OrtDetector
from tiler.infer.cuda import CudaDetector
from tiler.infer.host_cuda import HostDetector
from tiler.infer.network_cuda import open_network
from tiler.memory import SURFACES, Picture, plan_memory
from tiler.observe.copies import Copies
from tiler.preprocess.cuda import CudaPreprocessor
from tiler.stages import Choice, Entrance, Feed, Stages, new_tracker, open_feeds, refuse_cpu, tracker_name
from tiler.track.appearance_cuda import CudaEmbedder
from tiler.track.base import Tracker
from tiler.track.reid import ReId

_log = logging.getLogger(__name__)
def total_memory(index: int) -> int:
    """Bytes of memory of the device."""
    with cupy.cuda.Device(index) as device:
        return int(device.mem_info[1])


def build_cuda(loaded: LoadedConfig, index: int, threads: int) -> Stages:
    """Open every stage on device `index`; see `tiler.stages.build`.

    Raises:
        InputError: a file, a model or the encoder's parameters are refused, a stage would land on the CPU
            although the config does not allow it, or the plan needs more memory than it may.
    """
    config = loaded.config
    device = cupy.cuda.Device(index)
    device.use()
    copies = Copies()
    opened: list[Callable[[], None]] = []
    try:
        pool = cupy.get_default_memory_pool()
        pool.set_limit(size=int(total_memory(index) * config.vram_fraction))
        model = None
        if isinstance(config.detector, DetectorConfig):
            model = load_model(config.detector.model, loaded.folder)
        needed = DecodeSizes(config, model) if config.scaled_decode else None
        opener = CudaOpener(index, copies, SURFACES, may_use_cpu(config, "decode"), needed)
        entrance = Entrance(loaded, threads, opener, opener.forget)
        processes = _open_processes(loaded, index, needed)
        opened += [process.close for process in processes]
        feeds: list[Feed] = open_feeds(entrance, config, opened, _readers_of(processes))
        pictures = [
            Picture(*info.size, info.sixteen_bit, info.plane_size, feed.reader.endless) if info else None
            for feed in feeds
            for info in (feed.reader.info,)
        ]
        plan = plan_memory(config, pictures, model, total_memory(index))
        plan.check(config)
        pool.set_limit(size=plan.pool_bytes)
        choices = [_decode_choice(index, opener, feeds, len(processes))]
        preprocessor, detector, infer, batch_ticks = None, None, None, 1
        tracker: Tracker | None = None
        reid = None
        if model is not None and isinstance(config.detector, DetectorConfig):
            preprocessor, detector, infer = _open_analysis(config, model, plan.batch_ticks, index, threads, copies)
            opened += [preprocessor.close, detector.close]
            tracker = new_tracker(config)
            batch_ticks = 1 if infer.device == "cpu" else plan.batch_ticks
            why = "one launch for all streams" + (f" and {batch_ticks} ticks" if batch_ticks > 1 else "")
            choices += [Choice("preprocess", f"cuda:{index}", "CUDA kernel", why), infer]
            if config.tracker.reid != "off":
                reid = ReId(CudaEmbedder(index, copies), config.places, config.tracker)
                opened.append(reid.close)
            choices.append(Choice("track", "cpu", tracker_name(config, index), "host by design"))
        compositor = CudaCompositor(config, index, copies, detector.class_names if detector else ())
        opened.append(compositor.close)
        choices.append(Choice("compose", f"cuda:{index}", "CUDA kernel", "one launch for the whole mosaic"))
        encoder, name, reason = open_cuda_encoder(config.mosaic, config.encoder, threads, index, copies)
        opened.append(encoder.close)
        on_cpu = isinstance(encoder, ReadbackEncoder)
        if on_cpu:
            refuse_cpu(config, "encode", name, reason)
        choices.append(Choice("encode", "cpu" if on_cpu else f"cuda:{index}", name, reason))
        choices.append(Choice("output", "cpu", "PyAV", "host by design"))
    except BaseException as error:
        for close in reversed(opened):
            close()
        if isinstance(error, MemoryError):
            share = f"vram_fraction: {config.vram_fraction:g}"
            raise InputError(f"GPU memory: {error} ({share}); fewer or smaller sources need less") from error
        raise
    return Stages(
        entrance, tuple(feeds), preprocessor, detector, tracker, reid, compositor, encoder, tuple(choices), copies,
        tuple(processes), queued=True, batch_ticks=batch_ticks,
    )  # fmt: skip


def may_use_cpu(config: Config, stage: Any) -> bool:
    """Whether a stage may land on the CPU: with `device: auto` always, else where `allow_cpu` says so."""
    return config.device == "auto" or stage in config.allow_cpu


def _open_processes(loaded: LoadedConfig, index: int, needed: Needed | None) -> list[DecodeProcess]:
    """Those that decode, as the config asks for them; not such as were refused all that they were given."""
    config, processes = loaded.config, []
    if not config.decode_processes:
        return []
    for process in open_processes(files_of(loaded), config.decode_processes, SURFACES, index, needed):
        for place, why in process.refusals.items():
            _log.info("stream %s: not decoded in another process: %s", config.sources[place].id, why)
        if process.readers:
            processes.append(process)
        else:
            process.close()
    return processes


def _readers_of(processes: list[DecodeProcess]) -> dict[int, ImportedReader]:
    return {place: reader for process in processes for place, reader in process.readers.items()}


def _decode_choice(index: int, opener: CudaOpener, feeds: list[Feed], processes: int) -> Choice:
    """Where the streams are decoded: on the CPU as soon as one video is. Images always are, and that is no step."""
    infos = [feed.reader.info for feed in feeds if feed.reader.info is not None and not feed.reader.endless]
    steps = [f"{source}: no {backend} ({why})" for source, taken in opener.steps.items() for backend, why in taken]
    on_cpu = any("upload" in info.decoder for info in infos)
    names = ", ".join(sorted({info.decoder.split(" ")[0] for info in infos})) or "NVDEC"
    if processes:
        steps.append(f"in {processes} process{'es' if processes > 1 else ''} of its own")
    return Choice("decode", "cpu" if on_cpu else f"cuda:{index}", names, "; ".join(steps) or "first choice")


def _open_analysis(
    config: Config, model: ModelSpec, batch_ticks: int, index: int, threads: int, copies: Copies
) -> tuple[CudaPreprocessor, Detector, Choice]:
    """Preprocessor and detector on one stream: what the first writes there the second reads. On the CPU, a batch of
    more ticks than one gains nothing."""
    assert isinstance(config.detector, DetectorConfig)
    streams, most = config.places, config.places * batch_ticks
    stream = cupy.cuda.Stream(non_blocking=True)
    min_score = min(config.tracker.low_score, config.detector.score)
    try:
        network, reason = open_network(model, most, index, stream)
    except InputError as error:
        refuse_cpu(config, "infer", "ONNX Runtime", str(error))
        host = OrtDetector(model, config.detector, threads, (1, streams), min_score=min_score)
        preprocessor = CudaPreprocessor(model.input_size, model.input, streams, np.float32, index, stream, copies)
        slow = HostDetector(host, streams, index, stream, copies)
        return preprocessor, slow, Choice("infer", "cpu", "ONNX Runtime", str(error))
    preprocessor = CudaPreprocessor(model.input_size, model.input, most, network.input_dtype, index, stream, copies)
    detector = CudaDetector(model, network, config.detector, min_score, most, index, stream, copies)
    detector.warm_up(preprocessor.tensors)
    return preprocessor, detector, Choice("infer", f"cuda:{index}", network.name, reason)
