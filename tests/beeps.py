"""Clips that flash white and beep at the same moments, and where a file flashes and beeps."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

FPS = 25
RATE_HZ = 48_000
FLASHES = (10, 33, 55, 80)
"""Pictures that are white while it beeps, for two pictures each."""


def write(
    path: Path, pictures: int = 100, *, flashes: tuple[int, ...] = FLASHES, codec: str | None = "aac",
    sound_s: float | None = None, container: str | None = None,
) -> Path:  # fmt: skip
    """A clip of 160x96 at 25 fps; its sound ends after `sound_s`, with the pictures when absent."""
    with av.open(str(path), "w", format=container) as out:
        video: Any = out.add_stream("libx264", rate=FPS, options={"g": "25", "preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 160, 96, "yuv420p"
        rate = 8000 if codec == "pcm_alaw" else RATE_HZ
        audio: Any = out.add_stream(codec, rate=rate) if codec is not None else None
        size = 400
        if audio is not None:
            audio.layout = "mono" if codec == "pcm_alaw" else "stereo"
            audio.format = "s16" if codec == "pcm_alaw" else "fltp"
            out.start_encoding()
            size = audio.codec_context.frame_size or size
        samples = round((pictures / FPS if sound_s is None else sound_s) * rate) if audio is not None else 0
        heard = np.zeros(-(-samples // size) * size, np.float32)
        for flash in flashes:
            times = np.arange(2 * rate // FPS)
            begin = flash * rate // FPS
            piece = heard[begin : begin + len(times)]
            piece[:] = 0.7 * np.sin(2 * np.pi * 1000 * times / rate)[: len(piece)]
        at = 0
        for index in range(pictures):
            luma = 235 if any(flash <= index < flash + 2 for flash in flashes) else 16
            picture = av.VideoFrame.from_ndarray(np.concatenate(
                [np.full((96, 160), luma, np.uint8), np.full((48, 160), 128, np.uint8)]), format="yuv420p")
            picture.pts, picture.time_base = index, Fraction(1, FPS)
            out.mux(video.encode(picture))
            while at < min(len(heard), (index + 1) * rate // FPS):
                out.mux(audio.encode(_frame(heard[at : at + size], audio, at)))
                at += size
        while at < len(heard):
            out.mux(audio.encode(_frame(heard[at : at + size], audio, at)))
            at += size
        for stream in (video, audio):
            out.mux(stream.encode() if stream is not None else [])
    return path


def _frame(mono: np.ndarray, audio: Any, at: int) -> av.AudioFrame:
    form, channels = audio.codec_context.format.name, audio.codec_context.layout.nb_channels
    values = (mono * 32767).astype(np.int16) if form.startswith("s16") else mono
    rows = np.stack([values] * channels)
    if not form.endswith("p"):
        rows = rows.T.reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(rows), format=form, layout=audio.codec_context.layout.name)
    frame.sample_rate, frame.pts, frame.time_base = audio.rate, at, Fraction(1, audio.rate)
    return frame


def flashes_of(path: Path, **options: Any) -> list[float]:
    """Times in s at which the picture turns white."""
    found, white = [], False
    with av.open(str(path), **options) as container:
        for frame in container.decode(video=0):
            now = float(frame.to_ndarray(format="gray").mean()) > 120
            if now and not white:
                found.append(float(frame.time))
            white = now
    return found


def beeps_of(path: Path, **options: Any) -> list[float]:
    """Times in s at which it becomes loud after 100 ms of silence."""
    found, quiet_since = [], -1.0
    with av.open(str(path), **options) as container:
        for frame in container.decode(audio=0):
            values = frame.to_ndarray()
            if not frame.format.is_planar:
                values = values.reshape(-1, frame.layout.nb_channels).T
            loud = np.abs(values[0].astype(np.float32)) > (3000 if values.dtype == np.int16 else 0.1)
            begin = float(frame.pts * frame.time_base)
            for index in np.flatnonzero(loud):
                at = begin + index / frame.sample_rate
                if at - quiet_since > 0.1:
                    found.append(at)
                quiet_since = at
    return found
