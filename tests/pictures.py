"""Video files with known content, written by PyAV.

Every picture is a row of eight blocks that spell its number in luma (most significant
bit first, dark 0, bright 1) above four bars of known colour.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from tiler.types import Frame

BARS = ((180, 90, 150), (120, 160, 80), (60, 128, 128), (220, 110, 200))
"""Y, Cb, Cr of the bars in 8 bits."""
DARK, BRIGHT = 40, 210
NEAR_LOSSLESS = {
    "libx264": {"crf": "2", "preset": "veryfast"},
    "libx265": {"x265-params": "crf=4:log-level=none"},
}


def yuv(number: int, width: int, height: int) -> np.ndarray:
    """(3, H, W) uint8: the picture at full resolution in every component."""
    picture = np.full((3, height, width), 128, np.uint8)
    for bit in range(8):
        bright = number >> (7 - bit) & 1
        picture[0, : height // 2, bit * width // 8 : (bit + 1) * width // 8] = BRIGHT if bright else DARK
    for index, bar in enumerate(BARS):
        columns = slice(index * width // 4, (index + 1) * width // 4)
        picture[:, height // 2 :, columns] = np.array(bar, np.uint8)[:, None, None]
    return picture


def video_frame(number: int, width: int, height: int, pix_fmt: str = "yuv420p") -> av.VideoFrame:
    """The picture in any planar YUV or grey format."""
    frame = av.VideoFrame(width, height, pix_fmt)
    full = yuv(number, width, height)
    for plane, component in zip(frame.planes, frame.format.components, strict=True):
        samples = full[min(component.index, 2) if component.index < 3 else 0]
        step_y, step_x = -(-height // component.height), -(-width // component.width)
        samples = samples[::step_y, ::step_x].astype(np.uint16) << (component.bits - 8)
        if component.index == 3:
            samples[:] = (1 << component.bits) - 1
        dtype = np.uint16 if component.bits > 8 else np.uint8
        lines = np.zeros((component.height, plane.line_size // np.dtype(dtype).itemsize), dtype)
        lines[:, : component.width] = samples
        plane.update(lines.tobytes())
    return frame


def number_of(y: np.ndarray) -> int:
    """The number that a decoded luma plane spells."""
    height, width = y.shape
    eight = y >> 8 if y.dtype == np.uint16 else y
    row = eight[height // 4]
    return sum((int(row[(2 * bit + 1) * width // 16]) > 125) << (7 - bit) for bit in range(8))


def bars_of(y: np.ndarray, u: np.ndarray, v: np.ndarray) -> list[tuple[float, ...]]:
    """Y, Cb, Cr in 8 bits at the middle of each bar."""
    height, width = y.shape
    scale = 256 if y.dtype == np.uint16 else 1
    found = []
    for index in range(4):
        x, line = (2 * index + 1) * width // 8, height * 3 // 4
        samples = (y[line, x], u[line // 2, x // 2], v[line // 2, x // 2])
        found.append(tuple(float(sample) / scale for sample in samples))
    return found


def write(
    path: Path,
    frames: int | Iterable[av.VideoFrame] = 12,
    *,
    size: tuple[int, int] = (160, 96),
    pix_fmt: str = "yuv420p",
    codec: str = "libx264",
    rate: Fraction | int = 25,
    times: Sequence[Fraction] | None = None,
    options: dict[str, str] | None = None,
    context: dict[str, Any] | None = None,
    rotation: float = 0,
    sample_aspect: Fraction | None = None,
    fmt: str | None = None,
    mux: dict[str, str] | None = None,
) -> Path:
    """Encode numbered pictures (or `frames`) with near-lossless settings; `times` in seconds."""
    options = NEAR_LOSSLESS.get(codec, {}) if options is None else options
    if isinstance(frames, int):
        frames = [video_frame(number, *size, pix_fmt) for number in range(frames)]
    with av.open(str(path), "w", format=fmt, options=mux or {}) as out:
        stream = out.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height = size
        stream.pix_fmt = pix_fmt
        for name, value in (context or {}).items():
            setattr(stream.codec_context, name, value)
        if sample_aspect is not None:
            stream.codec_context.sample_aspect_ratio = sample_aspect
        if rotation:
            stream.set_display_rotation(rotation)
        if times is not None:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 90000)
        for index, picture in enumerate(frames):
            if times is not None:
                picture.pts, picture.time_base = round(times[index] * 90000), Fraction(1, 90000)
            else:
                picture.pts, picture.time_base = index, 1 / Fraction(rate)
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
    return path


def mean_of_areas(plane: np.ndarray, width: int, height: int) -> np.ndarray:
    """The plane scaled down, each sample the mean of the area that it covers: (height, width) float32, in 8 bits."""
    eight = np.ascontiguousarray(plane).astype(np.float32) / (256 if plane.dtype == np.uint16 else 1)
    return np.asarray(Image.fromarray(eight).resize((width, height), Image.Resampling.BOX))


def psnr_of(found: np.ndarray, expected: np.ndarray) -> float:
    """In dB; `found` with 8 or 16 bits, `expected` in 8 bits as float."""
    eight = found.astype(np.float32) / (256 if found.dtype == np.uint16 else 1)
    return float(10 * np.log10(255**2 / max(1e-6, float(np.mean((eight - expected) ** 2)))))


def random_plane(rng: np.random.Generator, shape: tuple[int, int], kind: str) -> np.ndarray:
    """Random samples in one of the memory layouts that decoders give out."""
    height, width = shape
    if kind == "tight":
        return rng.integers(0, 256, shape).astype(np.uint8)
    if kind == "padded":
        return rng.integers(0, 256, (height, width + 13)).astype(np.uint8)[:, 5 : 5 + width]
    if kind == "interleaved":
        return rng.integers(0, 256, (height, 2 * width + 4)).astype(np.uint8)[:, 1 : 2 * width : 2]
    if kind == "upside down":
        return rng.integers(0, 256, shape).astype(np.uint8)[::-1]
    wide = rng.integers(0, 65536, (height, 2 * width)).astype(np.uint16)
    return wide[:, ::2] if kind == "16 bit interleaved" else wide[:, :width]


def random_frame(
    rng: np.random.Generator, size: tuple[int, int], layout: str = "tight", **fields: object
) -> Frame:
    width, height = size
    half = ((height + 1) // 2, (width + 1) // 2)
    y, u, v = (random_plane(rng, shape, layout) for shape in ((height, width), half, half))
    return Frame(0, 0, y, u, v, **fields)  # type: ignore[arg-type]


def decoded(path: Path) -> np.ndarray:
    """Every picture of a file, as PyAV lays its planes out."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray() for frame in container.decode(video=0)])
