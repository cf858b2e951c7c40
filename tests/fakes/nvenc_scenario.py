"""Runs an NVENC encoder on the emulated driver, in a process of its own: scenarios in, what happened out, as JSON.

    LD_LIBRARY_PATH=FOLDERS python -m fakes.nvenc_scenario < scenarios.json

A scenario: `config` and `mosaic` of the YAML, `ticks` to encode, `keyframes` asked for before a tick, the
`driver`'s environment, `options` that are set besides tiler's, the client `library` (`ladder`: the one that the
config gets), the `output` file to write.
Pictures are `flat` (luma `50 + tick`, chroma one more) or `noise`; as soon as `encode` returns, the mosaic's memory
is overwritten, as the protocol allows.
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

from fakes.nvenc_pictures import HEIGHT, WIDTH, flat, noise  # noqa: E402
from tiler.config.models import EncoderConfig, MosaicConfig  # noqa: E402
from tiler.config.outputs import FileOutput  # noqa: E402
from tiler.encode import pyav_nvenc_cuda, pynvc_nvenc_cuda  # noqa: E402
from tiler.encode.cuda import open_cuda_encoder  # noqa: E402
from tiler.encode.nvenc import NvencMissingError  # noqa: E402
from tiler.errors import TilerError  # noqa: E402
from tiler.observe.copies import Copies  # noqa: E402
from tiler.output.file import FileWriter  # noqa: E402
from tiler.types import Mosaic, Packet  # noqa: E402

_ENCODERS = {
    "pyav": pyav_nvenc_cuda.PyavNvencEncoder,
    "pynvvideocodec": pynvc_nvenc_cuda.PynvcNvencEncoder,
}
_DRAW = {"flat": flat, "noise": noise}
_options = pyav_nvenc_cuda.options


@ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint64)
def _length(pointer: int) -> int:
    return nvenc_cupy.streams[pointer].length


@ctypes.CFUNCTYPE(None, ctypes.c_uint64, ctypes.c_uint64)
def _run(pointer: int, length: int) -> None:
    nvenc_cupy.streams[pointer].run(length)


def main() -> None:
    ctypes.CDLL("libcuda.so.1").cuda_host_streams(_length, _run)
    print(json.dumps([_play(**scenario) for scenario in json.load(sys.stdin)]))


def _play(
    config: dict[str, Any],
    *,
    ticks: tuple[int, ...] = (),
    driver: dict[str, str] | None = None,
    options: dict[str, str] | None = None,
    at_once: bool = False,
    output: str | None = None,
    **rest: Any,
) -> dict[str, Any]:
    nvenc_cupy.gpu["at_once"] = at_once
    pyav_nvenc_cuda.options = lambda settings: {**_options(settings), **(options or {})}
    result: dict[str, Any] = {"packets": []}
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        log.touch()
        os.environ.update(driver or {}, NVENC_EMULATOR_LOG=str(log))
        try:
            _encode(result, config, ticks, output, **rest)
        except (TilerError, NvencMissingError) as error:
            result |= {"error": type(error).__name__, "text": str(error), "final": getattr(error, "final", None)}
        for name in driver or {}:
            del os.environ[name]
        return {**result, "log": [json.loads(line) for line in log.read_text().splitlines()]}


def _encode(
    result: dict[str, Any],
    config: dict[str, Any],
    ticks: tuple[int, ...],
    output: str | None,
    mosaic: dict[str, Any] | None = None,
    keyframes: tuple[int, ...] = (),
    device: int = 0,
    library: str = "pyav",
    draw: str = "flat",
) -> None:
    size = MosaicConfig.model_validate({"width": WIDTH, "height": HEIGHT, **(mosaic or {})})
    values = EncoderConfig.model_validate(config)
    with contextlib.ExitStack() as stack:
        opened: Any = (
            open_cuda_encoder(size, values, 1, device, Copies())[0] if library == "ladder"
            else _ENCODERS[library](size, values, device)
        )  # fmt: skip
        encoder: Any = stack.enter_context(opened)
        if output:
            writer = stack.enter_context(
                FileWriter(FileOutput(file=output), Path(output), size, values.codec, overwrite=False)
            )  # fmt: skip

        def give(packets: list[Packet]) -> None:
            result["packets"].append([(packet.pts, packet.dts, packet.keyframe) for packet in packets])
            if output:
                for packet in packets:
                    writer.write(packet)

        if library == "pyav":
            result["buffers"] = len(encoder._free) + len(encoder._held)
        with nvenc_cupy.Device(device):
            compositor = nvenc_cupy.Stream(non_blocking=True)
            ring = [nvenc_cupy.empty((size.height * 3 // 2, size.width), np.uint8) for _ in range(2)]
        for index, tick in enumerate(ticks):
            if tick in keyframes:
                encoder.request_keyframe()
            nv12 = ring[index % 2]
            picture = _DRAW[draw](tick, size.width, size.height)
            give(encoder.encode(_mosaic(tick, nv12, picture, compositor, device)))
            with nvenc_cupy.Device(device):
                compositor.add(lambda nv12=nv12: nv12.host.fill(0xEE))
                compositor.run()
        give(encoder.flush())
        result |= {
            "name": encoder.name,
            "sessions": encoder.sessions,
            "held": sorted(getattr(encoder, "_held", getattr(encoder, "_ticks", ()))),
            "device_after": nvenc_cupy.current_device(),
        }


def _mosaic(
    tick: int, nv12: nvenc_cupy.Array, picture: np.ndarray, compositor: nvenc_cupy.Stream, device: int
) -> Mosaic:
    """A mosaic whose launch has been enqueued, no more."""
    with nvenc_cupy.Device(device):
        compositor.add(lambda: np.copyto(nv12.host, picture))
        ready = compositor.record(nvenc_cupy.Event(disable_timing=True))
    return Mosaic(tick, (nv12, nv12, nv12), (), nv12, ready)


if __name__ == "__main__":
    main()
