"""`sample://NAME` as a video file: parameters, the per-user cache and the encoding.

A sample is drawn and encoded once. Its file name holds a digest of all that shapes it,
so a new renderer never serves an old picture. Files appear by `os.replace`: two
processes at work on the same sample do the work twice and agree on the outcome.
"""

from __future__ import annotations

import difflib
import hashlib
import logging
import math
import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np

from tiler.errors import InputError, mask_uri

log = logging.getLogger(__name__)

RENDERER_VERSION = 1
"""Raise when the same parameters give other pixels."""

Progress = Callable[[str, float], None]
"""Called with the sample's URI and the share that is done, 0..1."""

_H264, _HEVC = "h264", "hevc"


@dataclass(frozen=True, slots=True)
class SampleSpec:
    """What a sample will be, before it is rendered.

    Attributes:
        name: the scene.
        width, height: of the picture in px.
        fps: constant rate.
        seconds: length asked for; the video has round(seconds * fps) frames.
        codec: "h264" or "hevc".
        seed: who walks where.
    """

    name: str
    width: int
    height: int
    fps: Fraction
    seconds: float
    codec: str
    seed: int

    @property
    def frames(self) -> int:
        """Frames in the video."""
        return max(1, round(self.seconds * self.fps))


@dataclass(frozen=True, slots=True)
class Sample:
    """A rendered sample.

    Attributes:
        path: the MP4 file.
        ground_truth: MOT Challenge text beside it: frame (from 1), id, left, top, width,
            height, 1, 1, visibility.
    """

    path: Path
    ground_truth: Path


_DEFAULTS = {
    "plaza": SampleSpec("plaza", 1920, 1080, Fraction(30), 10.0, _H264, 0),
    "duo": SampleSpec("duo", 1280, 720, Fraction(25), 12.0, _H264, 0),
    "corridor": SampleSpec("corridor", 720, 1280, Fraction(25), 10.0, _H264, 0),
    "night": SampleSpec("night", 1920, 1080, Fraction(15), 10.0, _H264, 0),
    "crowd": SampleSpec("crowd", 1920, 1080, Fraction(30), 10.0, _HEVC, 0),
}
_ACCEPTED = "seed=0..2147483647, seconds=0.1..600, size=WIDTHxHEIGHT (even, 64..4096)"


def names() -> tuple[str, ...]:
    """All sample scenes."""
    return tuple(_DEFAULTS)


def describe(uri: str) -> SampleSpec:
    """What `sample://NAME?seed=..&seconds=..&size=..` stands for; renders nothing.

    Raises:
        InputError: not a sample, an unknown scene or a bad parameter.

    >>> describe("sample://duo?seed=7&seconds=4&size=640x360").frames
    100
    """
    scheme, _, rest = uri.partition("://")
    place, _, query = rest.partition("?")
    shown = mask_uri(uri)
    if scheme != "sample":
        known = ", ".join(names())
        raise InputError(f"{shown}: not a sample; expected sample://NAME with NAME one of {known}")
    name = place.strip("/")
    if name not in _DEFAULTS:
        near = difflib.get_close_matches(name.lower(), names(), 1, 0.4)
        hint = f"; did you mean sample://{near[0]}?" if near else ""
        raise InputError(f"{shown}: no sample is called {name!r}; there are {', '.join(names())}{hint}")
    spec = _DEFAULTS[name]
    values: dict[str, Any] = {"seed": spec.seed, "seconds": spec.seconds, "size": (spec.width, spec.height)}
    for key, text in parse_qsl(query, keep_blank_values=True):
        if key not in values:
            near = difflib.get_close_matches(key, values, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise InputError(f"{shown}: unknown parameter {key!r}{hint}; accepted are {_ACCEPTED}")
        values[key] = _parameter(shown, key, text)
    width, height = values["size"]
    return SampleSpec(name, width, height, spec.fps, values["seconds"], spec.codec, values["seed"])


def _parameter(shown: str, key: str, text: str) -> Any:
    wrong = InputError(f"{shown}: {key} is {text!r}; accepted are {_ACCEPTED}")
    if key == "size":
        match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
        if match is None:
            raise wrong
        size = (int(match[1]), int(match[2]))
        if any(side % 2 or not 64 <= side <= 4096 for side in size):
            raise wrong
        return size
    if key == "seed":
        if not re.fullmatch(r"[0-9]{1,10}", text) or int(text) > 2**31 - 1:
            raise wrong
        return int(text)
    try:
        seconds = float(text)
    except ValueError:
        raise wrong from None
    if not (math.isfinite(seconds) and 0.1 <= seconds <= 600):
        raise wrong
    return seconds


def cache_folder() -> Path:
    """Where samples are kept: $TILER_CACHE/samples, else tiler/samples below $XDG_CACHE_HOME or ~/.cache."""
    if own := os.environ.get("TILER_CACHE"):
        return Path(own) / "samples"
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "tiler" / "samples"


def resolve(uri: str, progress: Progress | None = None) -> Sample:
    """The video and the ground truth of a sample, rendered now if they are not in the cache.

    Safe to call from several threads and processes at once.

    Raises:
        InputError: a bad URI (see `describe`), or the cache cannot be read or written.
    """
    spec = describe(uri)
    key = f"{spec.name}|{spec.width}x{spec.height}|{spec.fps}|{spec.frames}|{spec.codec}|{spec.seed}"
    key += f"|{spec.seconds}|{RENDERER_VERSION}"
    stem = f"{spec.name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    folder = cache_folder()
    sample = Sample(folder / f"{stem}.mp4", folder / f"{stem}.txt")
    try:
        if sample.path.is_file() and sample.ground_truth.is_file():
            return sample
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{stem}-", dir=folder) as scratch:
            video, truth = Path(scratch) / "video.mp4", Path(scratch) / "truth.txt"
            log.info("Rendering sample %s to %s", mask_uri(uri), sample.path)
            _render(spec, video, truth, lambda done: progress(uri, done) if progress else None)
            # The video last: where it is, its ground truth is too.
            os.replace(truth, sample.ground_truth)
            os.replace(video, sample.path)
    except OSError as error:
        raise InputError(
            f"{mask_uri(uri)}: cannot write the sample to {folder}: {error.strerror or error}; "
            "set TILER_CACHE to a folder that can be written"
        ) from error
    return sample


def _stream(container: Any, spec: SampleSpec) -> Any:
    if spec.codec == _HEVC:
        stream = container.add_stream("libx265", rate=spec.fps)
        keyframes = f"keyint={int(spec.fps)}:min-keyint={int(spec.fps)}"
        stream.options = {"preset": "ultrafast", "crf": "24",
                          "x265-params": f"log-level=error:{keyframes}:pools=2"}
        stream.codec_context.codec_tag = "hvc1"
    else:
        stream = container.add_stream("libx264", rate=spec.fps)
        stream.options = {"preset": "veryfast", "crf": "21"}
        # A fixed number, for the bytes depend on it.
        stream.codec_context.thread_count = 2
    stream.width, stream.height, stream.pix_fmt = spec.width, spec.height, "yuv420p"
    context = stream.codec_context
    context.gop_size = int(spec.fps)
    context.color_primaries = context.color_trc = context.colorspace = 1  # BT.709
    context.color_range = 1  # limited
    return stream


def _render(spec: SampleSpec, video: Path, truth: Path, progress: Callable[[float], None]) -> None:
    # Imported here: `describe` must stay quick, and these compile kernels.
    import av

    from tiler.samples.render import SceneRenderer

    progress(0.0)
    renderer = SceneRenderer(spec.name, (spec.width, spec.height), spec.seconds, spec.seed)
    rows: list[str] = []
    with av.open(str(video), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = _stream(container, spec)
        for index in range(spec.frames):
            found = renderer.draw(float(index / spec.fps))
            frame = av.VideoFrame(spec.width, spec.height, "yuv420p")
            renderer.write(index, *(_view(plane) for plane in frame.planes))
            frame.pts, frame.time_base = index, 1 / spec.fps
            frame.colorspace, frame.color_range = 1, 1
            container.mux(stream.encode(frame))
            for number, box, seen in zip(found.number, found.xyxy, found.visibility, strict=True):
                left, top, right, bottom = box
                size = f"{right - left:.0f},{bottom - top:.0f}"
                rows.append(f"{index + 1},{number},{left:.0f},{top:.0f},{size},1,1,{seen:.3f}\n")
            progress((index + 1) / spec.frames)
        container.mux(stream.encode(None))
    truth.write_text("".join(rows), encoding="ascii")


def _view(plane: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A writable (H, W) view of a plane of a PyAV frame."""
    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
    return rows[: plane.height, : plane.width]
