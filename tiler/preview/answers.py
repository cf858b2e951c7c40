"""What the API takes and gives, as models: the source of the OpenAPI document too."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from tiler.control import Layout


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class LayoutRequest(_Model):
    """Where the tiles go."""

    layout: Layout = Field(description="configured: as the config says, with its own tiles")


class OverlayRequest(_Model):
    """Parts of the overlay to show or hide; those left out stay."""

    boxes: bool | None = None
    labels: bool | None = None
    trails: bool | None = None
    titles: bool | None = None
    fps: bool | None = None
    clock: bool | None = None


class SourceRequest(_Model):
    """Changes of one source; those left out stay."""

    label: Annotated[str, StringConstraints(max_length=64)] | None = Field(
        None, description="another title; empty: the one of the config"
    )
    paused: bool | None = Field(None, description="hold its picture, or let it go on")


class AddRequest(_Model):
    """A source to add."""

    id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$")] = Field(
        description="no source of this run has, or had, the same"
    )
    uri: Annotated[str, StringConstraints(min_length=1, max_length=2048)] = Field(
        description="rtsp, rtsps, rtmp, rtmps, http, https, udp, tcp or rtp URL, or sample://NAME"
    )
    label: Annotated[str, StringConstraints(max_length=64)] | None = Field(
        None, description="title of its tile; the id when absent"
    )


class RecordingRequest(_Model):
    """Start or stop recording."""

    recording: bool


class Problem(_Model):
    """Why a request was refused."""

    error: str


class TileAnswer(_Model):
    """One tile, in mosaic pixels; may hang over the edge."""

    tile: int = Field(description="its number, from 0, in the order of the config")
    source: str
    title: str
    x: int
    y: int
    width: int
    height: int
    z: int


class SourceAnswer(_Model):
    """One source and what became of its pictures."""

    id: str
    title: str
    state: str = Field(description="waiting | live | stale | no_signal | ended | paused")
    fps: float
    age_ms: float | None = Field(description="from the decoder to the tick; null without a picture")
    tracks: int
    read: int
    skipped: int
    repeated: int
    dropped: int
    reconnects: int
    errors: int
    decoder: str | None
    failure: str | None = Field(description="why it broke, or why a URL is not there now")
    paused: bool


class StageAnswer(_Model):
    """One stage and the device it runs on."""

    device: str
    backend: str
    reason: str
    p50_ms: float
    p95_ms: float
    p99_ms: float


class MosaicAnswer(_Model):
    """The picture."""

    width: int
    height: int
    fps: float
    codec: str
    clock: Literal["live", "offline"]


class RecordingAnswer(_Model):
    """Whether recording is possible and on."""

    possible: bool
    file: str | None = Field(description="name of the file being written")
    seconds: float
    error: str | None = Field(description="why the last one ended early")


class ClipAnswer(_Model):
    """Clips that were written."""

    files: list[str] = Field(description="their names")


class OutputAnswer(_Model):
    """One output and what became of it."""

    kind: str
    name: str
    state: Literal["up", "down", "stopped"]
    dropped: int = Field(description="packets left out")
    restarts: int
    error: str | None


class StateAnswer(_Model):
    """All that the page shows."""

    mosaic: MosaicAnswer
    layout: Layout
    tiles: list[TileAnswer]
    overlay: dict[str, bool]
    sources: list[SourceAnswer]
    spare: int | None = Field(description="sources that may be added; null when this run takes none")
    stages: dict[str, StageAnswer]
    cpu_fallback: list[str] = Field(description="stages on the CPU")
    encoder: str
    encoder_sessions: int
    frames: int
    fps: float
    dropped_ticks: int
    latency_p50_ms: float = Field(description="from the tick to its packet")
    latency_p95_ms: float
    viewers: int
    max_viewers: int
    webrtc: str | None = Field(description="why WebRTC cannot be used; null when it can")
    recording: RecordingAnswer
    clip: bool = Field(description="the last seconds are kept, and can be written")
    outputs: list[OutputAnswer] = Field(description="those that take packets or have failed")


class ReportAnswer(BaseModel):
    """The run's numbers, as `tiler run --report` writes them."""

    model_config = ConfigDict(extra="allow")
