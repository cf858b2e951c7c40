"""Which backend decodes a source on CUDA, and why the better ones do not.

    PyNvVideoCodec   NVDEC, copied into the stream's surfaces
    PyAV CUDA        FFmpeg's CUDA decoders, no copy
    PyAV CPU         FFmpeg on the CPU, uploaded: only where the config allows it

A step down is never silent: it is logged once, kept in `CudaOpener.steps`, and the landing
is in `StreamInfo.decoder`. Images are read on the CPU and uploaded once; that is no step.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import cupy

from tiler.config.models import Source
from tiler.decode.base import Decoder, Needed, UndecodableError
from tiler.decode.cpu import PyavDecoder
from tiler.decode.keyframe import RefusedError
from tiler.decode.nvdec_cuda import NvdecDecoder
from tiler.decode.pyav_cuda import PyavCudaDecoder
from tiler.decode.source import QUEUE_DEPTH
from tiler.decode.still import StillDecoder, image_file
from tiler.decode.surfaces_cuda import SurfaceRing
from tiler.decode.upload_cuda import UploadDecoder
from tiler.errors import InputError
from tiler.memory import STILL_SURFACES
from tiler.observe.copies import Copies

logger = logging.getLogger(__name__)

NVDEC, PYAV_CUDA = "PyNvVideoCodec", "PyAV CUDA"
READER_SLOTS = QUEUE_DEPTH + 1
"""Surfaces that a SourceReader takes by itself: its queue, and the picture that waits to join it."""


class CudaOpener:
    """Opens sources for a run on one CUDA device; an `Opener` of `tiler.decode.source`.

    A source keeps its surfaces when it is opened again (a loop, a reconnection), and a
    backend that has refused it is not asked again, unless it has decoded the source before: a live
    source that came back damaged will be whole again. Several threads may call it.

    Attributes:
        steps: source id -> the backends that refused it, in order, each with its reason.
    """

    def __init__(
        self, device: int, copies: Copies, slots: int, allow_cpu: bool, needed: Needed | None = None
    ) -> None:
        """
        Args:
            device: index of the CUDA device.
            copies: where uploads are counted.
            slots: surfaces for each source: as many of its frames may be referenced at a
                time, READER_SLOTS by its reader and the others by everything behind it.
                When all are, the next read waits.
            allow_cpu: videos that the GPU cannot decode are decoded on the CPU.
            needed: how small PyNvVideoCodec may make the pictures; the other backends do not scale.
        """
        self.steps: dict[str, list[tuple[str, str]]] = {}
        self._device = device
        self._copies = copies
        self._slots = slots
        self._allow_cpu = allow_cpu
        self._needed = needed
        self._rings: dict[int, SurfaceRing] = {}
        self._worked: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    def __call__(self, source: Source, uri: str, stream: int, threads: int) -> Decoder:
        """The decoder for `uri`, as `open_decoder` finds it, with frames on the device.

        Raises:
            InputError: it cannot be opened, holds no video that can be decoded, or none
                that the GPU decodes while the config does not allow the CPU.
        """
        if uri.startswith("sample://"):
            from tiler.samples import resolve  # renders the sample when it is asked for first

            uri = str(resolve(uri).path)
        if (image := image_file(uri)) is not None:
            return self._uploading(StillDecoder(source, image, stream), stream, STILL_SURFACES)
        ladder: list[tuple[str, Callable[[], NvdecDecoder | PyavCudaDecoder]]] = [
            (NVDEC, lambda: self._nvdec(source, uri, stream)),
            (PYAV_CUDA, lambda: PyavCudaDecoder(source, uri, stream, self._device)),
        ]
        refusals: list[str] = []
        for backend, opened in ladder:
            if any(backend == refused for refused, _ in self.steps.get(source.id, ())):
                continue
            try:
                decoder = opened()
            except RefusedError as error:
                refusals.append(f"{backend}: {error}")
                if (source.id, backend) not in self._worked:
                    self._step_down(source.id, backend, str(error))
                continue
            if decoder.proven:  # else the source ended before a keyframe, and the backend may refuse it yet
                self._worked.add((source.id, backend))
            return decoder
        if not self._allow_cpu:
            known = [f"{backend}: {reason}" for backend, reason in self.steps.get(source.id, ())]
            reasons = "; ".join(dict.fromkeys([*known, *refusals]))
            if any(name == source.id for name, _ in self._worked):  # it did, before this damage
                raise InputError(f"source {source.id}: the GPU does not decode it now ({reasons})")
            raise UndecodableError(
                f"source {source.id}: the GPU does not decode it ({reasons}); "
                "to decode it on the CPU, list decode in allow_cpu"
            )
        return self._uploading(PyavDecoder(source, uri, stream, threads), stream, self._slots)

    def forget(self, stream: int) -> None:
        """The source has left: free its surfaces. What comes into its place has others, as many as it needs."""
        with self._lock:
            ring = self._rings.pop(stream, None)
        if ring is not None:
            with cupy.cuda.Device(self._device):
                ring.close()

    def _nvdec(self, source: Source, uri: str, stream: int) -> NvdecDecoder:
        return NvdecDecoder(source, uri, stream, self._ring(stream, self._slots), self._device, self._needed)

    def _uploading(self, decoder: Decoder, stream: int, slots: int) -> Decoder:
        try:
            return UploadDecoder(decoder, self._ring(stream, slots), self._copies, self._device)
        except BaseException:
            decoder.close()
            raise

    def _ring(self, stream: int, slots: int) -> SurfaceRing:
        with self._lock:
            ring = self._rings.get(stream)
            if ring is None:
                ring = self._rings[stream] = SurfaceRing(slots, self._device)
            return ring

    def _step_down(self, source: str, backend: str, reason: str) -> None:
        with self._lock:
            self.steps.setdefault(source, []).append((backend, reason))
        logger.warning("stream %s: %s does not decode it: %s", source, backend, reason)
