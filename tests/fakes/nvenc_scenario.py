"""Runs the PyAV encoder on the emulated driver, in a process of its own: scenarios in, what happened out, as JSON.

    LD_LIBRARY_PATH=FOLDER python -m fakes.nvenc_scenario < scenarios.json

A scenario: `config` and `mosaic` of the YAML, `ticks` to encode, `keyframes` asked for before a tick, the
`driver`'s environment, `options` that are set besides tiler's. Each picture's luma is `50 + tick`, its chroma one
more; as soon as `encode` returns, the mosaic's memory is overwritten, as the protocol allows.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from fakes import nvenc_cupy

sys.modules.update(nvenc_cupy.modules())

from tiler.config.models import EncoderConfig, MosaicConfig  # noqa: E402
from tiler.encode import pyav_nvenc_cuda  # noqa: E402
from tiler.encode.nvenc import NvencMissingError  # noqa: E402
from tiler.errors import TilerError  # noqa: E402
from tiler.types import Mosaic, Packet  # noqa: E402

WIDTH, HEIGHT = 320, 192
_options = pyav_nvenc_cuda.options


@ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint64)
def _length(pointer: int) -> int:
    return nvenc_cupy.streams[pointer].length


@ctypes.CFUNCTYPE(None, ctypes.c_uint64, ctypes.c_uint64)
def _run(pointer: int, length: int) -> None:
    nvenc_cupy.streams[pointer].run(length)


def main() -> None:
    with contextlib.suppress(OSError):  # a scenario without the library
        ctypes.CDLL("libnvidia-encode.so.1").nvenc_streams(_length, _run)
    print(json.dumps([_play(**scenario) for scenario in json.load(sys.stdin)]))


def _play(
    config: dict[str, Any],
    mosaic: dict[str, Any] | None = None,
    ticks: list[int] | None = None,
    keyframes: tuple[int, ...] = (),
    driver: dict[str, str] | None = None,
    device: int = 0,
    options: dict[str, str] | None = None,
    at_once: bool = False,
) -> dict[str, Any]:
    nvenc_cupy.gpu["at_once"] = at_once
    pyav_nvenc_cuda.options = lambda settings: {**_options(settings), **(options or {})}
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        log.touch()
        os.environ.update(driver or {}, NVENC_LOG=str(log))
        try:
            result = _encode(config, mosaic or {}, ticks or [], keyframes, device)
        except (TilerError, NvencMissingError) as error:
            result = {
                "error": type(error).__name__, "text": str(error), "final": getattr(error, "final", None)
            }  # fmt: skip
        for name in driver or {}:
            del os.environ[name]
        return {**result, "log": [json.loads(line) for line in log.read_text().splitlines()]}


def _encode(
    config: dict[str, Any], mosaic: dict[str, Any], ticks: list[int], keyframes: tuple[int, ...], device: int
) -> dict[str, Any]:
    size = MosaicConfig.model_validate({"width": WIDTH, "height": HEIGHT, **mosaic})
    with pyav_nvenc_cuda.PyavNvencEncoder(size, EncoderConfig.model_validate(config), device) as encoder:
        buffers = len(encoder._free) + len(encoder._held)
        with nvenc_cupy.Device(device):
            compositor = nvenc_cupy.Stream(non_blocking=True)
            ring = [nvenc_cupy.empty((HEIGHT * 3 // 2, WIDTH), np.uint8) for _ in range(2)]
        out = []
        for index, tick in enumerate(ticks):
            if tick in keyframes:
                encoder.request_keyframe()
            nv12 = ring[index % 2]
            out.append(_packets(encoder.encode(_mosaic(tick, nv12, compositor, device))))
            with nvenc_cupy.Device(device):
                compositor.add(lambda nv12=nv12: nv12.host.fill(0xEE))
                compositor.run()
        out.append(_packets(encoder.flush()))
        return {
            "name": encoder.name,
            "sessions": encoder.sessions,
            "packets": out,
            "buffers": buffers,
            "held": sorted(encoder._held),
            "device_after": nvenc_cupy.current_device(),
        }


def _mosaic(tick: int, nv12: nvenc_cupy.Array, compositor: nvenc_cupy.Stream, device: int) -> Mosaic:
    """A mosaic whose launch has been enqueued, no more."""

    def compose() -> None:
        nv12.host[:HEIGHT] = 50 + tick
        nv12.host[HEIGHT:] = 51 + tick

    with nvenc_cupy.Device(device):
        compositor.add(compose)
        ready = compositor.record(nvenc_cupy.Event(disable_timing=True))
    return Mosaic(tick, (nv12, nv12, nv12), (), nv12, ready)


def _packets(packets: list[Packet]) -> list[tuple[int, int, bool]]:
    return [(packet.pts, packet.dts, packet.keyframe) for packet in packets]


if __name__ == "__main__":
    main()
