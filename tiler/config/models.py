"""The config as frozen models: every key, its default, unit and range, once.

`configs/reference.yaml` shows the same keys and a test holds the two equal. Only
`sources` has no default. Nothing here touches the disk or a device: paths are resolved
and files are looked at by the loader.
"""

from __future__ import annotations

import ipaddress
import sys
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer

from tiler.config.model import Model, amount
from tiler.config.outputs import AnyOutput


def _fraction(value: Any) -> Fraction:
    """`30`, `29.97` and `"30000/1001"` as an exact rate; NTSC decimals become n/1001."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str, Fraction)):
        raise ValueError("expected a number of frames per second such as 30, 29.97 or 30000/1001")
    try:
        rate = Fraction(value) if not isinstance(value, float) else Fraction(str(value))
    except (ValueError, ZeroDivisionError):
        raise ValueError("expected a number of frames per second such as 30, 29.97 or 30000/1001") from None
    ntsc = Fraction(round(rate * 1001 / 1000) * 1000, 1001)
    if rate.denominator != 1 and abs(rate - ntsc) < Fraction(1, 100):
        rate = ntsc
    if not 1 <= rate <= 240:
        raise ValueError("expected 1 to 240 frames per second")
    return rate


def _off(value: Any) -> Any:
    """YAML reads `off` as false."""
    return "off" if value is False else value


def _lower_scheme(uri: str) -> str:
    """`RTSP://Cam/1` means what `rtsp://Cam/1` means; of FFmpeg and us, some compare letter by letter."""
    scheme, separator, rest = uri.partition("://")
    return scheme.lower() + separator + rest if separator else uri


Rate = Annotated[Fraction, BeforeValidator(_fraction), PlainSerializer(str)]
BitRate = Annotated[
    int, BeforeValidator(amount(10**5, 10**9, "expected 100k to 1G bits per second, such as 20M or 800k"))
]
SoundBitRate = Annotated[
    int, BeforeValidator(amount(16_000, 512_000, "expected 16k to 512k bits per second, such as 128k"))
]
Colour = Annotated[str, Field(pattern=r"^#[0-9A-Fa-f]{6}$")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$")]
Unit = Annotated[float, Field(ge=0, le=1)]
Size = Annotated[int, Field(ge=64, le=8192, multiple_of=2)]


def _cast(names: list[str]) -> list[str]:
    if not 1 <= len(names) <= 6 or len(set(names)) < len(names):
        raise ValueError("must be 1 to 6 different names")
    return names


SlotName = Annotated[str, Field(pattern=r"^[\w.-]{1,24}$")]
SlotNames = Annotated[list[SlotName], AfterValidator(_cast)]


class SlotsConfig(Model):
    """A fixed cast: a name for each of a known number of people (or things)."""

    names: SlotNames = Field(description="1 to 6 different names; at first they are given out from left to right")
    mode: Literal["person", "side"] = Field(
        "person", description="a name stays with its person, or with its side of the picture: person | side"
    )
    class_name: str | None = Field(None, min_length=1, description="class that the cast is of; any when absent")
    hysteresis: float = Field(
        0.05, ge=0, le=0.5, description="side: part of the picture's width by which somebody must be on another side"
    )
    dwell_s: float = Field(0.5, ge=0, le=60, description="side: seconds for which that must hold")


class Source(Model):
    """One stream to decode."""

    id: Name = Field(description="unique name, used in reports, exports and tiles")
    uri: Annotated[str, AfterValidator(_lower_scheme)] = Field(
        min_length=1, description="file, image, URL that FFmpeg opens, or sample://NAME"
    )
    label: str | None = Field(None, max_length=64, description="title of the tile; the id when absent")
    loop: bool = Field(False, description="start a file again when it ends")
    start_s: float = Field(0.0, ge=0, description="seconds to skip at the start of a file")
    end_s: float | None = Field(None, gt=0, description="second of the file at which to stop; its end when absent")
    realtime: bool = Field(False, description="pace a file by its timestamps, as if it were a camera")
    timeout_s: float = Field(10.0, gt=0, le=300, description="seconds without data after which a URL is given up")
    reconnect_s: float = Field(2.0, gt=0, le=300, description="seconds between attempts to reopen a URL")
    options: dict[str, str | int | float] = Field(
        default_factory=dict, description="FFmpeg input options, such as {rtsp_transport: tcp}"
    )
    slots: SlotsConfig | None = Field(None, description="a fixed cast, by name")

    @property
    def title(self) -> str:
        return self.label if self.label is not None else self.id


class ViewConfig(Model):
    """A virtual camera: a part of the picture that goes where somebody goes."""

    follow: SlotName = Field(description="name of one of the source's slots")
    zoom: float = Field(2.0, ge=1.1, le=16, description="magnification, against the whole picture in the same tile")


Rect = Annotated[list[int | float], Field(min_length=4, max_length=4)]


class Tile(Model):
    """One rectangle of the mosaic and the source it shows."""

    source: Name = Field(description="id of the source")
    rect: Rect | None = Field(
        None,
        description="[x, y, width, height]: integers are pixels, and may hang over the edge; "
        "numbers with a decimal point are fractions of the mosaic",
    )
    cell: Annotated[list[int], Field(min_length=2, max_length=4)] | None = Field(
        None, description="[column, row] or [column, row, columns, rows] of `mosaic.grid`"
    )
    fit: Literal["contain", "cover", "stretch"] | None = Field(
        None, description="how the picture meets the tile; `mosaic.fit` when absent"
    )
    crop: Annotated[list[float], Field(min_length=4, max_length=4)] | None = Field(
        None, description="[x, y, width, height] of the picture to show, as fractions of it"
    )
    view: ViewConfig | None = Field(None, description="follow somebody; not beside crop")
    z: int = Field(0, ge=-100, le=100, description="higher is drawn later; equal ones in the order written")
    opacity: Unit = Field(1.0, description="0 is invisible, 1 opaque")
    title: str | None = Field(None, max_length=64, description="caption; the source's label when absent")


class MosaicConfig(Model):
    """The output picture and its clock."""

    width: Size = Field(3840, description="pixels, even, 64..8192")
    height: Size = Field(2160, description="pixels, even, 64..8192")
    fps: Rate = Field(Fraction(30), description="constant frame rate, 1..240; 30000/1001 is accepted")
    layout: Literal["grid", "spotlight", "pip"] = Field(
        "grid",
        description="place of the tiles that give no rect or cell: equal cells, the first large with the "
        "rest around it, or the first full-size with the rest inset",
    )
    grid: Annotated[list[int], Field(min_length=2, max_length=2)] | None = Field(
        None, description="[columns, rows]; the best fit for the number of tiles when absent"
    )
    gap_px: int = Field(0, ge=0, le=256, description="pixels between tiles, even ones are kept exactly")
    border_px: int = Field(0, ge=0, le=256, description="pixels around the whole mosaic")
    fit: Literal["contain", "cover", "stretch"] = Field("contain", description="how pictures meet their tiles")
    background: Colour = Field("#101418", description="colour behind and between the tiles")
    stale_after_s: float = Field(2.0, gt=0, le=3600, description="live: silence before a tile is dimmed")
    no_signal_after_s: float = Field(10.0, gt=0, le=3600, description="live: silence before the slate")


class DetectorConfig(Model):
    """What to look for, and how often."""

    model: str = Field(
        "person-nano", min_length=1, description="person-nano, person-small (slower, better), or path of an .onnx file"
    )
    score: Unit = Field(
        0.35, description="score from which a detection is matched first; weaker ones may only continue a track"
    )
    nms_iou: Unit = Field(0.6, description="overlap above which the weaker of two boxes of a class goes")
    classes: Annotated[list[str], Field(min_length=1)] | None = Field(
        None, description="names to keep; all the model knows when absent"
    )
    every: int = Field(1, ge=1, le=60, description="detect on every k-th new picture of a stream")
    max_detections: int = Field(100, ge=1, le=1000, description="boxes per picture, best first")


class TrackerConfig(Model):
    """How boxes become identities."""

    kind: Literal["bytetrack"] = Field("bytetrack", description="the method")
    low_score: Unit = Field(
        0.1, description="detections from here to detector.score only continue a track, which is shown"
    )
    new_score: Unit = Field(0.6, description="score that a detection needs to begin a track")
    match_iou: Unit = Field(0.2, description="lowest overlap at which a detection continues a track")
    lost_s: float = Field(1.5, gt=0, le=60, description="seconds a lost track waits to be found again")
    confirm: int = Field(
        2, ge=1, le=30,
        description="detections in a row before a new track is shown; in a source's first picture one is enough",
    )  # fmt: skip
    reid: Annotated[Literal["auto", "off"], BeforeValidator(_off)] = Field(
        "auto",
        description="auto: who met others, begins or comes back is known again by their looks | off: motion alone",
    )
    memory_s: float = Field(
        30.0, gt=0, le=3600, description="reid: seconds that somebody away is remembered, lost_s at least"
    )


class OverlayConfig(Model):
    """What is drawn over the pictures."""

    boxes: bool = Field(True, description="a box for each track, coloured by its id")
    labels: bool = Field(True, description="`#id class score` at each box")
    trails: bool = Field(True, description="the way each track came, fading")
    titles: bool = Field(True, description="the tile's caption")
    fps: bool = Field(True, description="pictures per second beside the caption")
    clock: bool = Field(False, description="wall-clock time in the mosaic's top right corner; "
                                           "offline, the time of the tick")
    trail_s: float = Field(2.0, gt=0, le=60, description="seconds of trail")
    line_px: int = Field(0, ge=0, le=32, description="width of boxes and trails in mosaic pixels; 0 fits the mosaic")
    text_px: int = Field(0, ge=0, le=256, description="height of text in mosaic pixels; 0 fits the mosaic")
    font: str | None = Field(None, description="path of a .ttf or .otf tried before the built-in fonts")


class EncoderConfig(Model):
    """The one encoder session."""

    codec: Literal["h264", "hevc", "av1"] = Field(
        "h264", description="codec of the mosaic; hevc and av1 need a GPU with NVENC for them"
    )
    profile: Literal["quality", "low_latency"] = Field(
        "quality", description="low_latency: no B-frames, no lookahead, every picture leaves at once"
    )
    bitrate: BitRate | None = Field(None, description="bits per second, such as 20M; constant quality when absent")
    quality: int | None = Field(
        None, ge=1, le=51, description="constant quality, 1 (best) to 51; 22 when there is no bitrate either"
    )
    rate_control: Literal["vbr", "cbr", "cq"] | None = Field(
        None,
        description="with a bitrate: vbr (peaks of 1.5 times it) | cbr (no peaks); without: cq (constant quality); "
        "when absent, by bitrate and profile: cbr for low_latency",
    )
    gop_s: float = Field(2.0, ge=0.1, le=60, description="seconds between keyframes")
    preset: Literal["p1", "p2", "p3", "p4", "p5", "p6", "p7"] | None = Field(
        None,
        description="p1 (fastest) to p7 (best); when absent, NVENC p4, libx264 p2 (superfast), and p1 for low_latency",
    )
    tuning: Literal["hq", "ll", "ull"] | None = Field(
        None, description="NVENC: hq | ll | ull (quality, low, ultra-low latency); when absent, by profile: hq or ull"
    )
    split: Literal["auto", "none", 2, 3, 4] = Field(
        "auto", description="NVENC, hevc and av1: engines that share each picture: auto | none | 2 | 3 | 4"
    )
    driver: Literal["auto", "pyav", "pynvvideocodec", "x264"] = Field(
        "auto", description="auto | pyav | pynvvideocodec (both NVENC) | x264 (libx264, also on CUDA)"
    )


class AudioConfig(Model):
    """The sound of one source, in every output but the preview."""

    source: Name = Field(description="id of the source")
    codec: Literal["aac", "opus", "copy"] = Field(
        "aac", description="aac | opus (both 48 kHz stereo) | copy (as the source has it)"
    )
    bitrate: SoundBitRate = Field(128_000, description="bits per second, such as 128k; not with copy")


class PreviewConfig(Model):
    """The page that shows the mosaic in a browser, and its control API."""

    host: str = Field("127.0.0.1", min_length=1, description="address to listen on; any but loopback needs a token")
    port: int = Field(8787, ge=0, le=65535, description="TCP port; 0 takes a free one and says which")
    token: str | None = Field(
        None, min_length=16, max_length=256, repr=False, description="secret that a client must know, 16 characters up"
    )
    behind_proxy: bool = Field(False, description="a reverse proxy in front decides who may come: no token is needed")
    max_viewers: int = Field(32, ge=1, le=1000, description="browsers that may watch at once")
    recordings: str | None = Field(
        None, min_length=1, description="folder for recordings that the page starts; without it there are none"
    )
    spare_sources: int = Field(
        0, ge=0, le=32, description="places for sources that are added while a live run goes on, planned for as all are"
    )


MAX_SOURCES = 64


class Config(Model):
    """A whole run."""

    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:[0-9]{1,2})?)$")] = Field(
        "auto", description="auto | cpu | cuda | cuda:N"
    )
    allow_cpu: list[Literal["decode", "infer", "encode"]] = Field(
        default_factory=list, description="stages that may run on the CPU although device is cuda; auto allows all"
    )
    vram_fraction: float = Field(
        0.7, ge=0.05, le=0.75, description="share of the GPU's memory that a run may plan for, at most 0.75"
    )
    scaled_decode: bool = Field(
        False,
        description="NVDEC scales pictures down to what tiles and detector need, where that at least halves them; "
        "CUDA only, and not exactly the CPU's scaling",
    )
    decode_processes: int = Field(
        0,
        ge=0,
        le=16,
        description="processes that decode, for files on CUDA that need not keep to a clock: more pictures a second "
        "from two sources on, for 0.6 GB of the GPU's memory each; 0: threads of this process",
    )
    cpu_threads: int = Field(0, ge=0, le=256, description="threads for work on the CPU; 0: as many as there are cores")
    duration_s: float | None = Field(None, gt=0, description="stop after this many seconds of mosaic; "
                                                             "when absent, when every file has ended")
    mosaic: MosaicConfig = MosaicConfig()
    sources: Annotated[list[Source], Field(min_length=1, max_length=MAX_SOURCES)]
    tiles: Annotated[list[Tile], Field(min_length=1, max_length=256)] | None = Field(
        None, description="one tile per source, in order, when absent"
    )
    detector: DetectorConfig | Literal["none"] = DetectorConfig()
    tracker: TrackerConfig = TrackerConfig()
    overlay: OverlayConfig = OverlayConfig()
    encoder: EncoderConfig = EncoderConfig()
    audio: AudioConfig | None = Field(None, description="the sound of one source; the mosaic is silent when absent")
    outputs: list[AnyOutput] = Field(default_factory=list, description="where the mosaic goes")
    preview: PreviewConfig | None = Field(None, description="the page in the browser; `preview: {}` takes the defaults")

    @property
    def live(self) -> bool:
        """True when the mosaic follows the wall clock: a camera, a URL or `realtime: true`."""
        return any(is_live(source) for source in self.sources)

    @property
    def ticks(self) -> int | None:
        """Pictures of the mosaic within `duration_s`; None when that gives no end."""
        return None if self.duration_s is None else round(min(self.duration_s * self.mosaic.fps, sys.maxsize))

    @property
    def places(self) -> int:
        """Sources that a run of this config has room for: its own and the spare ones."""
        return len(self.sources) + (self.preview.spare_sources if self.preview is not None else 0)


def is_live(source: Source) -> bool:
    """Whether a source delivers in its own time: `realtime: true`, or `is_remote`."""
    return source.realtime or is_remote(source)


def is_remote(source: Source) -> bool:
    """Whether a source is a device, or a URL of a live protocol: it is waited for, and opened again when it is lost.

    http(s) is live unless the path ends like a media file.
    """
    scheme, separator, rest = source.uri.partition("://")
    if not separator or scheme in ("sample", "file"):
        return source.uri.startswith("/dev/")
    if scheme in ("http", "https"):
        suffix = Path(rest.split("?")[0].split("#")[0]).suffix.lower()
        return suffix not in MEDIA_SUFFIXES
    return True


def is_loopback(host: str) -> bool:
    """Whether an address or name means this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


SOURCE_SCHEMES = (
    *("rtsp", "rtsps", "satip", "rtmp", "rtmps", "rtmpt", "rtmpts", "http", "https", "udp", "udplite"),
    *("tcp", "tls", "dtls", "rtp", "srtp", "sap", "mmsh", "mmst", "ftp", "gopher", "gophers", "unix", "ipfs", "ipns"),
    *("sample", "file"),
)
"""What a source's URL may begin with: FFmpeg's own, as PyAV's wheels have them, and ours."""
IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif"))
MEDIA_SUFFIXES = IMAGE_SUFFIXES | {
    *(".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".flv", ".mpg", ".mpeg", ".wmv")
}
