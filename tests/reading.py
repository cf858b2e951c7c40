"""Files opened and read to the end by the CPU decoder."""

from __future__ import annotations

from pathlib import Path

from pictures import number_of

from tiler.config.models import Source
from tiler.decode.cpu import PyavDecoder
from tiler.types import Frame


def open_file(path: Path | str, **keys: object) -> PyavDecoder:
    source = Source.model_validate({"id": "cam", "uri": str(path), **keys})
    return PyavDecoder(source, str(path), 0, 2)


def decode(path: Path, **keys: object) -> list[Frame]:
    with open_file(path, **keys) as decoder:
        return read_all(decoder)


def read_all(decoder: PyavDecoder) -> list[Frame]:
    frames = []
    while (frame := decoder.read()) is not None:
        frames.append(frame)
    return frames


def numbers(frames: list[Frame]) -> list[int]:
    return [number_of(frame.y) for frame in frames]
