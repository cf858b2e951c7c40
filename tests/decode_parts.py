"""What tests of the CUDA decoders share: the fakes they stand on, files, and the CPU decoder's pictures."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fakes.cupy_host import HostCupy
from fakes.pynvvideocodec import HostNvdec
from pictures import number_of, write

from tiler.config.models import Source
from tiler.decode.base import Needed, Reader
from tiler.decode.cpu import PyavDecoder
from tiler.decode.keyframe import RefusedError
from tiler.observe.copies import Copies
from tiler.types import Frame

MODULES = (
    "surfaces_cuda", "nvdec_session_cuda", "nvdec_cuda", "pyav_cuda", "upload_cuda", "cuda", "export_cuda",
    "import_cuda",
)  # fmt: skip
DEVICE = 3
B_FRAMES = {"libx264": {"bf": "3", "g": "9", "crf": "4", "preset": "veryfast"}}


class Gpu(SimpleNamespace):
    """The fakes, and tiler's modules imported on top of them."""

    host: HostCupy
    nvdec: HostNvdec

    def open(self, path: Path | str, slots: int = 6, needed: Needed | None = None, **keys: object) -> Any:
        ring = self.surfaces_cuda.SurfaceRing(slots, DEVICE)
        return self.nvdec_cuda.NvdecDecoder(source_of(path, **keys), str(path), 1, ring, DEVICE, needed)

    def opener(self, *, allow_cpu: bool = True, slots: int = 8, needed: Needed | None = None) -> Any:
        self.copies = Copies()
        return self.cuda.CudaOpener(DEVICE, self.copies, slots, allow_cpu, needed)

    def refuse_hwaccel(self, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
        def refused(*_: object, **__: object) -> None:
            raise RefusedError(why)

        monkeypatch.setattr(self.pyav_cuda.PyavCudaDecoder, "_cuda_context", refused)


def source_of(path: Path | str, **keys: object) -> Source:
    return Source.model_validate({"id": "cam", "uri": str(path), **keys})


def read_all(decoder: Any) -> list[Frame]:
    frames = []
    with decoder:
        while (frame := decoder.read()) is not None:
            frames.append(frame)
    return frames


def read_through(reader: Reader) -> list[Frame]:
    reader.start()
    frames = []
    while (frame := reader.next()) is not None:
        frames.append(frame)
    return frames


def cpu_frames(path: Path, **keys: object) -> list[Frame]:
    return read_all(PyavDecoder(source_of(path, **keys), str(path), 1, 1))


def assert_same(found: list[Frame], expected: list[Frame]) -> None:
    """Same times, samples and metadata; the device's work is done when `ready` says so, not before."""
    assert [frame.pts for frame in found] == [frame.pts for frame in expected]
    for ours, theirs in zip(found, expected, strict=True):
        if ours.ready is not None:
            ours.ready.synchronize()
        for name in ("y", "u", "v"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
        for name in ("stream", "matrix", "full_range", "rotation", "sample_aspect"):
            assert getattr(ours, name) == getattr(theirs, name)


def numbers(frames: list[Frame]) -> list[int]:
    for frame in frames:
        frame.ready.synchronize()
    return [number_of(frame.y) for frame in frames]


def of_sizes(folder: Path, *sizes: tuple[int, int]) -> Path:
    """A raw stream of seven pictures of each size."""
    parts = [write(folder / f"{w}.h264", 7, size=(w, h), options=B_FRAMES["libx264"]) for w, h in sizes]
    joined = folder / "joined.h264"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    return joined


def interlaced(path: Path) -> Path:
    return write(path, 6, options={"crf": "4", "x264-params": "tff=1"})
