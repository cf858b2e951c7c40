"""What one run measures: stages, streams, encoder, latency; and the report made of it."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from tiler import __version__
from tiler.observe.copies import Copies
from tiler.observe.metrics import Timing
from tiler.types import Packet, State, Tracks

if TYPE_CHECKING:
    from tiler.config.models import Config
    from tiler.stages import Choice, Feed

_PACKAGES = (
    *("av", "numba", "numpy", "onnxruntime", "onnxruntime-gpu", "pydantic"),
    *("cupy-cuda13x", "PyNvVideoCodec", "tensorrt-cu13", "tensorrt-rtx-cu13"),
)
"""Those that are installed are named in the report."""

_TICKS_KEPT = 1024
"""Ticks whose beginning is remembered; no encoder holds so many pictures."""


class TileSeen(NamedTuple):
    """What a source showed at a tick.

    Attributes:
        state: how it was shown.
        fps: pictures a second that came lately.
        age_s: seconds from the decoder to the tick; None without a picture.
    """

    state: State = State.WAITING
    fps: float = 0.0
    age_s: float | None = None


class Reports(Protocol):
    """An output or another part, as far as it is shown."""

    def report(self) -> dict[str, Any]: ...


class Encodes(Protocol):
    """The encoder, as far as it is shown."""

    @property
    def name(self) -> str: ...

    @property
    def sessions(self) -> int:
        """Opened so far."""
        ...


class RunObserver:
    """Filled by the pipeline's threads, read by progress and report.

    Attributes:
        frames: pictures of the mosaic that left the encoder.
        bytes: their size.
        dropped_ticks: pictures of the mosaic left out because the run was behind (live).
        tracks: people (or other things) followed now, by stream.
        tiles: what each source showed last.
        slots: of each stream, the pictures in which each slot was seen; empty without slots.
        revised: of each stream, how often names went over; see `Slots.revised`.
        outputs: where the packets and tracks go.
        sound: of one source, beside the pictures; None without.
        reid: how much was looked at whom, by stream; empty without.
        encoder_wait: how long composed pictures waited for the encoder.
        latency: from the tick to its packet.
    """

    def __init__(self, config: Config, choices: Sequence[Choice], feeds: Sequence[Feed], encoder: Encodes,
                 copies: Copies | None = None) -> None:
        self._config = config
        self._choices = {choice.stage: choice for choice in choices}
        self._timings = {choice.stage: Timing() for choice in choices}
        self._timings.setdefault("track", Timing())
        self._feeds = feeds
        self._encoder = encoder
        self._copies = copies or Copies()
        self.frames = self.bytes = self.dropped_ticks = 0
        self.tracks = [0] * len(feeds)
        self.tiles = [TileSeen()] * len(feeds)
        self.slots = [dict.fromkeys(s.slots.names, 0) if s.slots else {} for s in config.sources]
        self.revised = [0] * len(feeds)
        self.outputs: Iterable[Reports] = ()
        self.sound: Reports | None = None
        self.reid: Sequence[Reports] = ()
        self.encoder_wait, self.latency = Timing(), Timing()
        self._began: dict[int, float] = {}
        self._start_s = self._first_s = self._end_s = 0.0

    def stage(self, name: str) -> AbstractContextManager[None]:
        """Time a block as work of this stage."""
        return self._timings[name].measure()

    def started(self) -> None:
        self._start_s = time.monotonic()

    def finished(self) -> None:
        self._end_s = time.monotonic()

    def submitted(self, tick: int, began_s: float) -> None:
        """A tick that began at `began_s` (monotonic) enters the encoder."""
        self._began[tick] = began_s
        if len(self._began) > _TICKS_KEPT:
            del self._began[next(iter(self._began))]

    def began_s(self, tick: int) -> float | None:
        """When one of the last ticks began (monotonic)."""
        return self._began.get(tick)

    def delivered(self, packet: Packet) -> None:
        """A packet went to the outputs."""
        if self.frames == 0:
            self._first_s = time.monotonic()
        self.frames += 1
        self.bytes += len(packet.data)
        began_s = self._began.get(packet.pts)
        if began_s is not None:
            self.latency.add(time.monotonic() - began_s)

    def cast(self, stream: int, tracks: Tracks, revised: int) -> None:
        """Who of the cast a picture shows, and how often names were exchanged until then."""
        counts = self.slots[stream]
        names = list(counts)
        for slot in tracks.slot.tolist():
            if slot >= 0:
                counts[names[slot]] += 1
        self.revised[stream] = revised

    @property
    def elapsed_s(self) -> float:
        return (self._end_s or time.monotonic()) - self._start_s if self._start_s else 0.0

    @property
    def fps(self) -> float:
        """Pictures of the mosaic per second of this run."""
        return self.frames / self.elapsed_s if self.elapsed_s > 0 else 0.0

    def left_s(self, total: int) -> float | None:
        """Seconds until `total` pictures, at the pace since the first one: it may have waited for a compiler."""
        passed_s = time.monotonic() - self._first_s
        return max(0.0, (total - self.frames) * passed_s / (self.frames - 1)) if self.frames > 1 else None

    def streams(self) -> list[dict[str, Any]]:
        """What became of each source's frames."""
        rows = []
        duties: Sequence[Reports | None] = self.reid or [None] * len(self.tracks)
        for index, (source, feed, tracks, duty) in enumerate(
            zip(self._config.sources, self._feeds, self.tracks, duties, strict=True)
        ):
            counts = feed.counts
            failure = feed.reader.failure
            rows.append(
                {
                    "id": source.id,
                    "read": counts.read,
                    "skipped": counts.skipped,
                    "repeated": counts.repeated,
                    "dropped": counts.dropped,
                    "reconnects": counts.reconnects,
                    "errors": counts.errors,
                    "tracks_now": tracks,
                    "decoder": feed.reader.info.decoder if feed.reader.info else None,
                    "failure": str(failure) if failure else None,
                    **({"reid": duty.report()} if duty is not None else {}),
                }
            )
            if source.slots:
                rows[-1] |= {"slots": dict(self.slots[index]), "slots_revised": self.revised[index]}
        return rows

    def report(self) -> dict[str, Any]:
        """The run as plain data, ready for JSON."""
        stages = {}
        for name, timing in self._timings.items():
            choice = self._choices.get(name)
            if choice is not None:
                stages[name] = {
                    "device": choice.device,
                    "backend": choice.backend,
                    "reason": choice.reason,
                    **timing.summary(),
                }
        return {
            "frames": self.frames,
            "seconds": round(self.elapsed_s, 3),
            "fps": round(self.fps, 2),
            "clock": "live" if self._config.live else "offline",
            "dropped_ticks": self.dropped_ticks,
            "bytes": self.bytes,
            "streams": self.streams(),
            "stages": stages,
            "end_to_end": self.latency.summary(),
            "encoder": {
                "name": self._encoder.name,
                "sessions": self._encoder.sessions,
                "queue_wait_ms": self.encoder_wait.summary(),
            },
            "outputs": [output.report() for output in self.outputs],
            **({"audio": self.sound.report()} if self.sound is not None else {}),
            "copies": self._copies.summary(self.frames),
            "cpu_fallback": [n for n, c in self._choices.items() if c.device == "cpu" and n not in ("track", "output")],
            "versions": {
                "tiler": __version__,
                "python": platform.python_version(),
                "machine": f"{platform.machine()}, {os.cpu_count()} cores",
                **{name: found for name in _PACKAGES if (found := _version(name))},
            },
        }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
