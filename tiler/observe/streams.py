"""What one run measures of one source."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from tiler.types import State, Tracks

if TYPE_CHECKING:
    from tiler.config.models import Source
    from tiler.stages import Feed


class Reports(Protocol):
    """An output or another part, as far as it is shown."""

    def report(self) -> dict[str, Any]: ...


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


class StreamSeen:
    """Filled by the pipeline's threads, read by progress and report.

    Attributes:
        source: whose numbers these are.
        tile: what it showed last.
        tracks: people (or other things) followed now.
        reid: says how much was looked at whom; None without.
    """

    def __init__(self, source: Source, feed: Feed) -> None:
        self.source = source
        self.tile = TileSeen()
        self.tracks = 0
        self.reid: Callable[[], Reports] | None = None
        self._feed: Feed | None = feed
        self._slots = dict.fromkeys(source.slots.names, 0) if source.slots else {}
        self._revised = 0
        self._last: dict[str, Any] = {}

    def cast(self, tracks: Tracks, revised: int) -> None:
        """Who of the cast a picture shows, and how often names went over until then; see `Slots.revised`."""
        names = list(self._slots)
        for slot in tracks.slot.tolist():
            if slot >= 0:
                self._slots[names[slot]] += 1
        self._revised = revised

    @property
    def removed(self) -> bool:
        """It has left the run; its numbers stay as they were then."""
        return self._feed is None

    def remove(self) -> None:
        """Its reader has closed: let go of its pictures."""
        self.tracks = 0
        self._last = self.report() | {"removed": True}
        self._feed = None

    def report(self) -> dict[str, Any]:
        """The source's row, ready for JSON."""
        feed = self._feed
        if feed is None:
            return dict(self._last)
        counts, reader = feed.counts, feed.reader
        row: dict[str, Any] = {
            "id": self.source.id,
            "read": counts.read,
            "skipped": counts.skipped,
            "repeated": counts.repeated,
            "dropped": counts.dropped,
            "reconnects": counts.reconnects,
            "errors": counts.errors,
            "tracks_now": self.tracks,
            "decoder": reader.info.decoder if reader.info else None,
            "failure": str(reader.failure) if reader.failure else reader.outage,
            "removed": False,
        }
        if self.reid is not None:
            row["reid"] = self.reid().report()
        if self.source.slots:
            row |= {"slots": dict(self._slots), "slots_revised": self._revised}
        return row
