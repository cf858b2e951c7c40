"""Progress of a run: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tiler.observe.run import RunObserver

_FIRST_LINE_S = 1.0
_LINE_EVERY_S = 5.0


class Progress:
    """Shows a run on stderr; `update` is called a few times a second."""

    def __init__(self, observer: RunObserver, total: int | None) -> None:
        """
        Args:
            observer: what to show.
            total: ticks of the whole run, None when unknown.
        """
        self._observer = observer
        self._total = total
        self._console = Console(stderr=True)
        self._live: Live | None = None
        self._next_line_s = time.monotonic() + _FIRST_LINE_S

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Live(self._picture(), console=self._console, refresh_per_second=5, transient=True)
            self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, trace)

    def update(self) -> None:
        """Draw again, or print a line when one is due."""
        if self._live is not None:
            self._live.update(self._picture())
        elif time.monotonic() >= self._next_line_s and (self._observer.frames or self._waits_long):
            self._next_line_s = time.monotonic() + _LINE_EVERY_S
            print(self._summary(), file=sys.stderr, flush=True)

    @property
    def _waits_long(self) -> bool:
        """Whether a first picture is longer in coming than one that only has to be encoded."""
        return self._observer.elapsed_s >= _LINE_EVERY_S

    def _summary(self) -> str:
        seen = self._observer
        if seen.frames == 0:
            why = "; a first run compiles its kernels, which takes up to a minute" if self._waits_long else ""
            return f"no picture yet after {seen.elapsed_s:.0f} s{why}"
        of = f"/{self._total}" if self._total else ""
        parts = [f"mosaic {seen.frames}{of} frames", f"{seen.fps:.1f} fps"]
        if self._total and (left_s := seen.left_s(self._total)) is not None:
            parts.append(f"ETA {left_s:.0f} s")
        latency = "/".join(f"{seen.latency.percentile_ms(percent):.0f}" for percent in (50, 95, 99))
        parts.append(f"tick to packet p50/95/99 {latency} ms")
        parts.append(f"encoder waits p95 {seen.encoder_wait.percentile_ms(95):.1f} ms")
        parts.append(f"drops {seen.dropped_ticks}")
        rows = [output.report() for output in seen.outputs]
        lost = [row for row in rows if row["state"] != "up" and row["error"]]
        if lost:
            parts.append(f"outputs {sum(row['state'] == 'up' for row in rows)} of {len(rows)} up")
            parts += [f"{row['kind']} {row['name']} {row['state']}: {row['error']}" for row in lost]
        if dropped := sum(row["dropped"] for row in rows):
            parts.append(f"left out {dropped} packets")
        if seen.sound is not None and (sound := seen.sound.report())["error"]:
            parts.append(f"sound of {sound['source']} {sound['state']}: {sound['error']}")
        return "   ".join(parts)

    def _picture(self) -> Group:
        table = Table(box=None, pad_edge=False)
        for column in ("stream", "fps", "frames", "skipped", "repeated", "dropped", "tracks", ""):
            table.add_column(column, justify="left" if column in ("stream", "") else "right")
        for stream in self._observer.streams:
            if stream.removed:
                continue
            row, elapsed = stream.report(), self._observer.elapsed_s
            rate = row["read"] / elapsed if elapsed else 0.0
            table.add_row(
                stream.source.title,
                f"{rate:.1f}",
                *(str(row[key]) for key in ("read", "skipped", "repeated", "dropped", "tracks_now")),
                row["failure"] or "",
            )
        return Group(table, Text(self._summary(), style="bold"))
