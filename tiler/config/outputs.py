"""The entries of `outputs:`, one model each. The first key of an entry is its kind and says where it goes."""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field

from tiler.config.model import Model, amount

if TYPE_CHECKING:
    from tiler.config.models import EncoderConfig

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv")
TRACKS_SUFFIXES = (".txt", ".jsonl")
HLS_PLAYLIST, HLS_HEADER = "index.m3u8", "init.mp4"
"""Files in the folder of an HLS output, beside its numbered segments."""
WHIP_SCHEMES = ("whip", "whips")
"""WHIP over http and https."""
PUSH_SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "udp", "tcp", *WHIP_SCHEMES)

Bytes = Annotated[int, BeforeValidator(amount(10**5, 10**15, "expected 100k bytes or more, such as 500M or 20G"))]


class FileOutput(Model):
    """The mosaic as a file."""

    file: str = Field(min_length=1, description="path ending in .mp4, .mkv or .mov")
    fragmented: bool = Field(True, description="MP4: playable up to the last second even after a kill")


class SegmentsOutput(Model):
    """The mosaic as a row of files, the oldest of which may go."""

    segments: str = Field(
        min_length=1,
        description="path with {time} (local time of its start) or {index}, ending in .mp4, .mkv or .mov",
    )
    every_s: float = Field(60.0, ge=1, le=86400, description="seconds a file; it is cut at the next keyframe")
    max_bytes: Bytes | None = Field(None, description="size beyond which a file is cut earlier, such as 500M")
    keep_count: int | None = Field(None, ge=1, le=1_000_000, description="files to keep; all when absent")
    keep_s: float | None = Field(None, gt=0, description="age in seconds beyond which a file is deleted")
    keep_bytes: Bytes | None = Field(None, description="size of all files together, such as 20G")
    index: str | None = Field(
        None, min_length=1, description="path of their list; cam.jsonl beside them for cam-{time}.mp4 when absent"
    )


class HlsOutput(Model):
    """The mosaic as an HLS playlist with fragmented MP4 segments, for a web server to serve."""

    hls: str = Field(min_length=1, description="folder; the playlist in it is index.m3u8")
    segment_s: float = Field(2.0, ge=1, le=60, description="seconds a segment; it is cut at the next keyframe")
    keep_count: int = Field(
        6, ge=0, le=100_000, description="segments in the playlist, and one more on the disk; 0: all"
    )


class PushOutput(Model):
    """The mosaic sent to a server or player, reconnecting for ever."""

    push: str = Field(
        min_length=1,
        description="rtsp:// | rtsps:// | rtmp:// | rtmps:// | udp:// | tcp:// URL; whip:// | whips:// for WHIP, which "
        "is WebRTC, to an http:// | https:// URL",
    )
    token: str | None = Field(
        None, min_length=1, max_length=4096, pattern="^[!-~]+$", repr=False, description="WHIP: the bearer token"
    )
    options: dict[str, str | int | float] = Field(
        default_factory=dict, description="FFmpeg output options, such as {rtsp_transport: udp}; not with WHIP"
    )

    @property
    def scheme(self) -> str:
        """Of the URL, in lower case."""
        return self.push.partition("://")[0].lower()


class PipeOutput(Model):
    """The mosaic on standard output, for another program."""

    pipe: Literal["stdout", "-"] = Field(description="stdout; nothing else is then printed there")
    format: Literal["mpegts", "mp4", "mkv"] = Field("mpegts", description="mpegts | mp4 (fragmented) | mkv")


class ClipOutput(Model):
    """The last seconds, kept in memory and written on request."""

    clip: str = Field(
        min_length=1, description="path with {time} or {index}, ending in .mp4, .mkv or .mov; written on SIGUSR1"
    )
    preroll_s: float = Field(30.0, ge=1, le=600, description="seconds to keep; a clip starts at a keyframe before")


class TracksOutput(Model):
    """The tracks as text."""

    tracks: str = Field(
        min_length=1,
        description="path; .jsonl: one object per picture; .txt: MOT text, NAME.ID.txt each for several streams",
    )


MosaicOutput = FileOutput | SegmentsOutput | HlsOutput | PushOutput | PipeOutput | ClipOutput
AnyOutput = MosaicOutput | TracksOutput
KINDS: dict[str, type[Model]] = {
    next(iter(model.model_fields)): model
    for model in (FileOutput, SegmentsOutput, HlsOutput, PushOutput, PipeOutput, ClipOutput, TracksOutput)
}
"""Models by the key that names them."""


def kind_of(output: AnyOutput) -> str:
    """The key that names an output.

    >>> kind_of(FileOutput(file="a.mp4"))
    'file'
    """
    return next(iter(type(output).model_fields))


def target_of(output: AnyOutput) -> str:
    """Where it goes, as written.

    >>> target_of(PushOutput(push="udp://10.0.0.9:5000"))
    'udp://10.0.0.9:5000'
    """
    return str(getattr(output, kind_of(output)))


def index_beside(pattern: Path) -> Path:
    """The list of a pattern that names none.

    >>> str(index_beside(Path("out/cam-{time}.mp4"))), str(index_beside(Path("out/{index}.mp4")))
    ('out/cam.jsonl', 'out/index.jsonl')
    """
    stem = pattern.stem.replace("{time}", "").replace("{index}", "").strip("-_. ")
    return pattern.with_name(f"{stem or 'index'}.jsonl")


def tracks_file(path: Path, stream: str, *, alone: bool) -> Path:
    """The file of a stream's tracks: MOT text does not say of which stream a line is, so that each of several has one.

    >>> str(tracks_file(Path("out/t.txt"), "left", alone=False)), str(tracks_file(Path("t.jsonl"), "left", alone=False))
    ('out/t.left.txt', 't.jsonl')
    """
    if alone or path.suffix.lower() != ".txt":
        return path
    return path.with_name(f"{path.stem}.{stream}{path.suffix}")


def problem_of(output: AnyOutput, encoder: EncoderConfig) -> tuple[str, str] | None:
    """(key, what is accepted) of what is wrong with an output, given the encoder; None when nothing is.

    >>> from tiler.config.models import EncoderConfig
    >>> problem_of(PushOutput(push="srt://h:9000"), EncoderConfig())[1][:28]
    'the PyAV wheels have no SRT;'
    """
    kind, target = kind_of(output), target_of(output)
    if isinstance(output, PushOutput):
        problem = _push_problem(output, encoder)
        return (kind, problem) if problem else None
    if isinstance(output, PipeOutput):
        wrong = encoder.codec == "av1" and output.format == "mpegts"
        return ("format", "MPEG-TS cannot hold AV1; accepted for it: mp4, mkv") if wrong else None
    accepted = TRACKS_SUFFIXES if isinstance(output, TracksOutput) else VIDEO_SUFFIXES
    if "\0" in target or (not isinstance(output, HlsOutput) and PurePath(target).suffix.lower() not in accepted):
        return kind, f"a file name ending in {', '.join(accepted)} is needed"
    if isinstance(output, (SegmentsOutput, ClipOutput)):
        name = PurePath(target).name
        if "{time}" not in name and "{index}" not in name:
            return kind, "{time} or {index} is needed in the file name, so that each has its own"
        rest = target.replace("{time}", "").replace("{index}", "")
        if "{" in rest or "}" in rest or "{" in str(PurePath(target).parent):
            return kind, "{time} and {index} are accepted, in the file name only"
    return None


_MP4_SOUND = ("aac", "opus", "mp3", "ac3", "eac3", "flac", "alac")
_TS_SOUND = ("aac", "opus", "mp3", "ac3", "eac3")
_SOUND = {
    **dict.fromkeys((".mp4", "mp4"), _MP4_SOUND),
    ".mov": ("aac", "mp3", "ac3", "eac3", "alac", "pcm_s16le", "pcm_alaw", "pcm_mulaw"),
    **dict.fromkeys((".mkv", "mkv"), (*_MP4_SOUND, "vorbis", "pcm_s16le")),
    **dict.fromkeys(("mpegts", "udp", "tcp"), _TS_SOUND),
    **dict.fromkeys(("rtsp", "rtsps"), ("aac", "opus", "mp3", "ac3", "pcm_alaw", "pcm_mulaw")),
    **dict.fromkeys(("rtmp", "rtmps"), ("aac", "mp3")),
    **dict.fromkeys(WHIP_SCHEMES, ("opus",)),
}
"""Codecs of sound that a container takes, by suffix, format or scheme."""


def sound_problem(output: MosaicOutput, codec: str) -> str | None:
    """What is accepted, where an output cannot hold sound of this codec; None where it can.

    >>> sound_problem(PushOutput(push="rtmp://h/live/KEY"), "opus")
    'rtmp cannot carry opus sound; accepted for it: aac, mp3'
    """
    target, container = target_of(output), ""
    match output:
        case PipeOutput():
            container = output.format
        case PushOutput():
            container = output.scheme
        case HlsOutput():
            container = "mp4"
        case _:
            container = PurePath(target).suffix.lower()
    accepted = _SOUND.get(container, ())
    if codec in accepted:
        return None
    return f"{container} cannot carry {codec} sound; accepted for it: {', '.join(accepted)}"


def webrtc_problem(encoder: EncoderConfig) -> str | None:
    """Why WebRTC cannot carry what the encoder makes; None when it can.

    >>> from tiler.config.models import EncoderConfig
    >>> webrtc_problem(EncoderConfig())
    'WebRTC carries no B-frames: set encoder.profile: low_latency'
    """
    if encoder.codec != "h264":
        return f"WebRTC carries H.264 only, and the mosaic is {encoder.codec}: set encoder.codec: h264"
    if encoder.profile != "low_latency":
        return "WebRTC carries no B-frames: set encoder.profile: low_latency"
    return None


def _push_problem(output: PushOutput, encoder: EncoderConfig) -> str | None:
    _, separator, rest = output.push.partition("://")
    scheme = output.scheme
    if scheme == "srt":
        return "the PyAV wheels have no SRT; push rtsp:// or rtmp:// to a MediaMTX server, which serves SRT"
    if scheme in ("http", "https"):
        return "a push over HTTP is WHIP: write whip:// for http://, whips:// for https://"
    if not separator or not rest or scheme not in PUSH_SCHEMES:
        return f"a URL that begins with {'://, '.join(PUSH_SCHEMES)}:// is needed"
    if scheme in WHIP_SCHEMES:
        return _whip_problem(output, encoder)
    if output.token is not None:
        return "a token goes with whip:// and whips:// only; leave `token` out"
    if scheme in ("udp", "tcp") and encoder.codec == "av1":
        return "MPEG-TS, which udp:// and tcp:// carry, cannot hold AV1; accepted for it: rtsp://, rtmp://"
    return None


def _whip_problem(output: PushOutput, encoder: EncoderConfig) -> str | None:
    try:
        address = urlsplit(output.push)
        known = address.hostname is not None and address.port != 0
    except ValueError:
        known = False
    if not known:
        return "a URL such as whips://host/whip/room is needed"
    if output.options:
        return "WHIP does not go through FFmpeg and takes no options; leave `options` out"
    if output.token is not None and "@" in address.netloc:
        return "give `token` or a user and password in the URL, not both"
    return webrtc_problem(encoder)
