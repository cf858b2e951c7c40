"""The watched `tiler` of tools/nvenc_emulator without a GPU: its stages on the CPU, its encoder on the emulated driver.

    LD_LIBRARY_PATH=FOLDERS python -m fakes.nvenc_run SEEN.jsonl run tiler.yaml

The CPU's mosaics are lifted into the stand-in's device memory, on a stream that does nothing before somebody waits,
and that memory is overwritten as soon as `encode` returns.
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import replace
from typing import Any

import numpy as np

from fakes import nvenc_cupy

sys.modules.update(nvenc_cupy.modules())

from fakes.nvenc_scenario import _length, _run  # noqa: E402
from tiler import stages  # noqa: E402
from tiler.config.loader import LoadedConfig  # noqa: E402
from tiler.config.models import EncoderConfig  # noqa: E402
from tiler.encode.base import Encoder  # noqa: E402
from tiler.encode.cuda import open_cuda_encoder  # noqa: E402
from tiler.stages import Choice, Stages  # noqa: E402
from tiler.types import Mosaic, Packet  # noqa: E402
from tools.nvenc_emulator import watched  # noqa: E402

_build, _choose = stages.build, stages.choose


class Lifted:
    """A CUDA encoder that takes the CPU's mosaics."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self.name, self.sessions = encoder.name, encoder.sessions
        with nvenc_cupy.Device(0):
            self._stream = nvenc_cupy.Stream(non_blocking=True)
        self._ring: list[nvenc_cupy.Array] = []

    def encode(self, mosaic: Mosaic) -> list[Packet]:
        host = watched.nv12_of(mosaic)
        with nvenc_cupy.Device(0):
            if not self._ring:
                self._ring = [nvenc_cupy.empty(host.shape, np.uint8) for _ in range(2)]
            nv12 = self._ring[0]
            self._ring.reverse()
            self._stream.add(lambda: np.copyto(nv12.host, host))
            ready = self._stream.record(nvenc_cupy.Event(disable_timing=True))
        packets = self._encoder.encode(Mosaic(mosaic.tick, (nv12, nv12, nv12), mosaic.sources, nv12, ready))
        with nvenc_cupy.Device(0):
            self._stream.add(lambda: nv12.host.fill(0xEE))
            self._stream.run()
        return packets

    def flush(self) -> list[Packet]:
        return self._encoder.flush()

    def request_keyframe(self) -> None:
        self._encoder.request_keyframe()

    def close(self) -> None:
        self._encoder.close()


def _on_cpu(loaded: LoadedConfig) -> LoadedConfig:
    """A config whose encoder the CPU takes, whatever is to encode."""
    return replace(loaded, config=loaded.config.model_copy(update={"encoder": EncoderConfig()}))


def choose(loaded: LoadedConfig) -> tuple[Choice, ...]:
    return _choose(_on_cpu(loaded))


def build(loaded: LoadedConfig, **more: Any) -> Stages:
    """The CPU's stages with a CUDA encoder, opened as a run on CUDA opens it: last."""
    config = loaded.config
    built = _build(_on_cpu(loaded), **more)
    built.encoder.close()
    try:
        encoder, name, reason = open_cuda_encoder(config.mosaic, config.encoder, 1, 0, built.copies)
    except BaseException:
        replace(built, encoder=_Closed()).close()
        raise
    device = "cpu" if name == "libx264" else "cuda:0"
    if device == "cpu":
        stages.refuse_cpu(config, "encode", name, reason)
    choices = tuple(
        Choice("encode", device, name, reason) if choice.stage == "encode" else choice for choice in built.choices
    )
    return replace(built, encoder=Lifted(encoder), choices=choices)


class _Closed:
    """In the place of the encoder that did not open."""

    def close(self) -> None: ...


if __name__ == "__main__":
    ctypes.CDLL("libcuda.so.1").cuda_host_streams(_length, _run)
    stages.build, stages.choose = build, choose
    watched.main()
