"""What travels through the stages of a run: one picture of the mosaic, from its time to its planes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tiler.batches import Found
from tiler.control import Wanted
from tiler.crowd import NOTHING, Seen, TrackBatch
from tiler.decode.feed import Shown
from tiler.lineup import Stream
from tiler.track.reid import Looking
from tiler.types import Frame, Mosaic, TileInput


class New(NamedTuple):
    """A stream that shows a new picture at a tick: which, and its number."""

    stream: Stream
    frame: Frame
    number: int


@dataclass(slots=True)
class Tick:
    """One tick on its way: filled in stage by stage. `streams`, `shown`, `numbers` and `tiles` go together, one entry
    for each source that was in the run when it began; `new` and `tracks`, one for each of those with a new picture."""

    index: int
    pts: int
    began_s: float
    clock: str
    wanted: Wanted
    streams: Sequence[Stream]
    shown: Sequence[Shown]
    numbers: Sequence[int]
    found: Found | None = None
    seen: Seen = NOTHING
    new: list[New] = field(default_factory=list)
    tracks: TrackBatch | None = None
    looks: Looking | None = None
    track_s: float = 0.0
    tiles: list[TileInput] = field(default_factory=list)
    mosaic: Mosaic | None = None
