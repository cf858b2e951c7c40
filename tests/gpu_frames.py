"""What tests of decoding on a real GPU share: sources, and their pictures beside the CPU decoder's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pictures import number_of

from tiler.config.models import Source
from tiler.decode.cpu import PyavDecoder
from tiler.types import Frame

DEVICE = 0


def source_of(path: Path, **keys: object) -> Source:
    return Source.model_validate({"id": "cam", "uri": str(path), **keys})


def frames_of(decoder: Any) -> Iterator[Frame]:
    with decoder:
        while (frame := decoder.read()) is not None:
            yield frame


def on_host(frame: Frame) -> tuple[np.ndarray, ...]:
    """Copies of the planes, made as the other stages read them: on a stream of one's own, after `ready`."""
    if frame.ready is None:
        return frame.y, frame.u, frame.v
    import cupy

    with cupy.cuda.Device(DEVICE):
        stream = cupy.cuda.Stream(non_blocking=True)
        stream.wait_event(frame.ready)
        with stream:
            planes = tuple(cupy.asnumpy(plane) for plane in (frame.y, frame.u, frame.v))
        stream.synchronize()
    return planes


def assert_same(found: list[Frame], path: Path, **keys: object) -> None:
    """Times, samples and metadata are those of the CPU decoder."""
    expected = list(frames_of(PyavDecoder(source_of(path, **keys), str(path), 0, 2)))
    assert [frame.pts for frame in found] == [frame.pts for frame in expected]
    for index, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        for name, a, b in zip("yuv", on_host(ours), on_host(theirs), strict=True):
            assert a.shape == b.shape
            assert a.dtype == b.dtype
            assert np.array_equal(a, b), f"picture {index}: {np.count_nonzero(a != b)} samples of {name} differ"
        for name in ("matrix", "full_range", "rotation", "sample_aspect"):
            assert getattr(ours, name) == getattr(theirs, name)


def numbers(frames: list[Frame]) -> list[int]:
    return [number_of(on_host(frame)[0]) for frame in frames]
