"""The `encoder` section, resolved for the encoder that will run: pure, with no library in sight.

FFmpeg leaves options over that it does not know and PyNvVideoCodec drops them without a word. So a key
that an encoder cannot honour is refused here, by name, before anything is opened.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from tiler.config.models import EncoderConfig, MosaicConfig
from tiler.errors import InputError

Backend = Literal["libx264", "pyav", "pynvvideocodec"]

BACKEND_NAMES: dict[Backend, str] = {
    "libx264": "libx264",
    "pyav": "NVENC through PyAV",
    "pynvvideocodec": "NVENC through PyNvVideoCodec",
}
DEFAULT_QUALITY = 22
"""Quantiser of constant quality when neither `quality` nor `bitrate` is given."""
_PRESETS: dict[bool, dict[Backend, str]] = {
    # libx264 p2 (superfast): the slowest preset that keeps a 4K mosaic near 15 fps on two cores.
    False: {"libx264": "p2", "pyav": "p4", "pynvvideocodec": "p4"},
    True: {"libx264": "p1", "pyav": "p1", "pynvvideocodec": "p1"},
}
_B_FRAMES = 2
_BUFFER_S = Fraction(2)
_PEAK = Fraction(3, 2)


@dataclass(frozen=True, slots=True)
class Settings:
    """What an encoder is told.

    Attributes:
        codec: h264 | hevc | av1.
        low_latency: no B-frames, no lookahead; packet k leaves with picture k where the library can.
        preset: p1 (fastest) to p7 (best).
        tuning: hq | ll | ull; NVENC only.
        rate_control: vbr | cbr | cq.
        bitrate: bits per second on average; None with cq.
        peak: bits per second that the buffer fills at: the bitrate with cbr, half as much again with vbr; None with cq.
        buffer_bits: what the rate may run ahead (VBV); None with cq.
        quality: quantiser of cq, 1..51; None otherwise.
        gop: pictures from keyframe to keyframe.
        b_frames: between two reference pictures.
        split: strips that the chip's engines share: auto | none | 2 | 3 | 4; HEVC and AV1 on NVENC.
    """

    codec: str
    low_latency: bool
    preset: str
    tuning: str
    rate_control: str
    bitrate: int | None
    peak: int | None
    buffer_bits: int | None
    quality: int | None
    gop: int
    b_frames: int
    split: str | int


def refused(config: EncoderConfig, backend: Backend) -> tuple[str, ...]:
    """Every key that `backend` cannot honour, one line each: key, reason, what is accepted.

    >>> refused(EncoderConfig(codec="hevc"), "libx264")
    ('encoder.codec: hevc needs NVENC; accepted on libx264: h264',)
    >>> refused(EncoderConfig(rate_control="cbr"), "pyav")
    ('encoder.rate_control: cbr needs encoder.bitrate, such as 20M',)
    """
    found = contradictions(config)
    if backend == "libx264":
        if config.codec != "h264":
            found.append(f"encoder.codec: {config.codec} needs NVENC; accepted on libx264: h264")
        if config.tuning is not None:
            found.append("encoder.tuning: libx264 has none of NVENC's tunings; leave it out, encoder.profile says it")
        if config.driver not in ("auto", "x264"):
            found.append(f"encoder.driver: {config.driver} drives NVENC; accepted with libx264: auto, x264")
        if config.split not in ("auto", "none"):
            found.append("encoder.split: libx264 has no engines to share; accepted: auto, none")
    elif config.codec == "h264" and config.split not in ("auto", "none"):
        found.append("encoder.split: NVENC cannot split H.264; accepted: auto, none, or encoder.codec: hevc or av1")
    elif backend == "pynvvideocodec" and config.split != "auto" and config.codec != "h264":
        found.append("encoder.split: PyNvVideoCodec cannot set it; accepted: auto, or encoder.driver: pyav")
    return tuple(found)


def check_libx264(config: EncoderConfig, reason: str) -> None:
    """See that libx264 can honour every key, where it encodes for this reason.

    Raises:
        InputError: the keys that it cannot, one a line, and the reason.
    """
    found = refused(config, "libx264")
    if found:
        raise InputError("\n".join([*found, f"(libx264 encodes, because: {reason})"]))


def contradictions(config: EncoderConfig) -> list[str]:
    """Keys that no encoder can honour together, one line each."""
    found = []
    if config.bitrate is not None and config.quality is not None:
        found.append("encoder.quality: constant quality has no bitrate; give encoder.quality or encoder.bitrate")
    if config.rate_control in ("vbr", "cbr") and config.bitrate is None:
        found.append(f"encoder.rate_control: {config.rate_control} needs encoder.bitrate, such as 20M")
    if config.rate_control == "cq" and config.bitrate is not None:
        found.append("encoder.rate_control: cq is constant quality and has no bitrate; accepted with one: vbr, cbr")
    if config.profile == "quality" and config.tuning in ("ll", "ull"):
        found.append(f"encoder.tuning: {config.tuning} is for profile low_latency; accepted with quality: hq")
    return found


def resolve(mosaic: MosaicConfig, config: EncoderConfig, backend: Backend) -> Settings:
    """The settings of a config, defaults filled in.

    Raises:
        InputError: keys that `backend` cannot honour, one a line.
    """
    found = refused(config, backend)
    if found:
        raise InputError("\n".join(found))
    low_latency = config.profile == "low_latency"
    constant = config.bitrate is None
    rate_control = "cq" if constant else config.rate_control or ("cbr" if low_latency else "vbr")
    # NVENC's AV1 hides its B-frames in the packets of others; without them times stay plain.
    reorders = not low_latency and config.codec != "av1" and backend != "pynvvideocodec"
    return Settings(
        codec=config.codec,
        low_latency=low_latency,
        preset=config.preset or _PRESETS[low_latency][backend],
        tuning=config.tuning or ("ull" if low_latency else "hq"),
        rate_control=rate_control,
        bitrate=config.bitrate,
        peak=None if config.bitrate is None else int(config.bitrate * (_PEAK if rate_control == "vbr" else 1)),
        # One picture's worth of buffer keeps low latency honest; two seconds is kind to quality.
        buffer_bits=None if config.bitrate is None
        else max(1, int(config.bitrate * (1 / mosaic.fps if low_latency else _BUFFER_S))),
        quality=(config.quality or DEFAULT_QUALITY) if constant else None,
        gop=max(1, round(config.gop_s * mosaic.fps)),
        b_frames=_B_FRAMES if reorders else 0,
        split=config.split,
    )
