"""What one run measures: stages, streams, encoder, latency; and the report made of it."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Protocol

from tiler import __version__
from tiler.observe.copies import Copies
from tiler.observe.metrics import Span, Timing
from tiler.observe.streams import Reports, StreamSeen
from tiler.types import Packet

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
        streams: what is seen of every source that is or was in the run, in the order in which they came.
        outputs: where the packets and tracks go.
        sound: of one source, beside the pictures; None without.
        encoder_wait: how long composed pictures waited for the encoder.
        latency: from the tick to its packet.
    """

    def __init__(self, config: Config, choices: Sequence[Choice], feeds: Sequence[Feed], encoder: Encodes,
                 copies: Copies | None = None) -> None:
        self._config = config
        self._choices = {choice.stage: choice for choice in choices}
        self._timings = {choice.stage: Timing() for choice in choices}
        self._timings.setdefault("track", Timing())
        self._encoder = encoder
        self._copies = copies or Copies()
        self.frames = self.bytes = self.dropped_ticks = 0
        self.streams = tuple(StreamSeen(*both) for both in zip(config.sources, feeds, strict=False))
        self.outputs: Iterable[Reports] = ()
        self.sound: Reports | None = None
        self.encoder_wait, self.latency = Timing(), Timing()
        self._began: dict[int, float] = {}
        self._start_s = self._first_s = self._end_s = 0.0

    def stage(self, name: str) -> Span:
        """Time a block as work of this stage."""
        return self._timings[name].measure()

    def spent(self, name: str, seconds: float) -> None:
        """A block of work of this stage took so long."""
        self._timings[name].add(seconds)

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
            "streams": [seen.report() for seen in self.streams],
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
