"""The sources of a run, each in its place: who comes, who goes, and what is remembered of each while it is there.

A place is an index that a source has for as long as it is in the run: `Frame.stream` of its pictures. Each tick
carries the streams that were in the run when it began, so that one that has left is still there for the ticks before.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Protocol

from tiler.compose.layout import place_tiles
from tiler.config.models import Config, Source
from tiler.control import Control, Wanted
from tiler.crowd import NOBODY, People
from tiler.decode.base import Reader
from tiler.decode.feed import Hold, Shown
from tiler.errors import InputError, mask_uri
from tiler.observe.metrics import RateMeter
from tiler.observe.run import RunObserver
from tiler.observe.streams import StreamSeen, TileSeen
from tiler.stages import Feed, Stages
from tiler.track.camera import Camera
from tiler.track.slots import Slots
from tiler.types import Crop, Follow, TileInput

_log = logging.getLogger(__name__)

Cameras = Mapping[Follow, Camera]


class Exports(Protocol):
    """Outputs, as far as they must know who is there; see `tiler.output.outputs.Outputs`."""

    def join(self, stream: int, name: str) -> None: ...

    def leave(self, stream: int) -> None: ...


class Stream:
    """One source while it is in the run. Whatever comes later into its place begins anew, with another of these.

    Attributes:
        index: its place.
        feed: its pictures; used by the thread of the ticks.
        hold: keeps its picture while it is paused; likewise.
        slots: the fixed cast, if it has one. This and what follows is used by the thread of the tracks.
        begun: it has shown a picture.
        people: who is where, in the picture that was shown last.
        seen: what is measured of it.
    """

    def __init__(
        self, index: int, feed: Feed, seen: StreamSeen, slots: Slots | None = None, cameras: Cameras | None = None
    ) -> None:
        """
        Args:
            index, feed, seen, slots: as above.
            cameras: of the views that follow somebody in it.
        """
        self.index, self.feed, self.seen, self.hold = index, feed, seen, Hold()
        self.slots, self.begun = slots, False
        self.people = NOBODY
        self._cameras: Cameras = cameras or {}
        self._rate = RateMeter()
        self._pictures = 0

    def is_due(self, every: int) -> bool:
        """Whether the detector is to look at the next picture, which is the first of `every`."""
        self._pictures += 1
        return (self._pictures - 1) % every == 0

    def follow(self, people: People, count: int) -> None:
        """These are in the next picture, and are who they are; and how many they are."""
        self.people, self.seen.tracks = people, count

    def tile(self, shown: Shown, pts: int, began_s: float) -> TileInput:
        """All that compose knows of it at a tick.

        Args:
            shown: its picture then, whose people were given to `follow`.
            pts: of the tick, 1/90000 s.
            began_s: when the tick began (monotonic).
        """
        frame = shown.frame
        if frame is None:
            self.people = NOBODY
        elif shown.new:
            self._rate.add(frame.pts)
        rate = self._rate.rate(pts if frame is None else frame.pts)
        crops: dict[Follow, Crop] = {}
        if frame is not None and self._cameras:
            tracks = self.people.tracks
            crops = {key: camera.look(tracks, frame.picture_size, pts) for key, camera in self._cameras.items()}
        self.seen.tile = TileSeen(shown.state, rate, None if frame is None else began_s - frame.arrival_s)
        return TileInput(frame, self.people, shown.state, rate, crops)


class Lineup:
    """Brings sources into a run and out of it. `add` and `remove` are called by any thread, the others by the run's."""

    def __init__(
        self, config: Config, stages: Stages, control: Control, observer: RunObserver, exports: Exports
    ) -> None:
        """
        Args:
            config: as the run starts.
            stages, control, observer, exports: of the run.
        """
        self._stages, self._control = stages, control
        self._observer, self._exports = observer, exports
        self._changing = threading.Lock()
        self._over = False
        names = stages.detector.class_names if stages.detector is not None else ()
        cameras = _cameras(config)
        self._streams: list[Stream | None] = [None] * config.places
        for i, source in enumerate(config.sources):
            slots = Slots(source.slots, names) if source.slots else None
            seen = observer.streams[i]
            self._streams[i] = Stream(i, stages.feeds[i], seen, slots, cameras[i])
        self._now: tuple[tuple[int, ...], tuple[Stream, ...]] = (), ()
        self._leaving: deque[tuple[int, Stream]] = deque()  # in the order of `Wanted.seated`

    def at(self, wanted: Wanted) -> tuple[Stream, ...]:
        """The streams of a tick, in the order of `wanted.config.sources`."""
        places, streams = self._now
        if places is not wanted.places:
            streams = tuple(stream for i in wanted.places if (stream := self._streams[i]) is not None)
            self._now = wanted.places, streams
        return streams

    def add(self, source: Source) -> None:
        """Bring a source in: its tile is there at the next tick, and shows that it waits until a picture has come.

        Raises:
            InputError: there is no place, the id was taken before, or an output cannot take its tracks.
        """
        with self._changing, ExitStack() as undo:
            if self._over:
                raise InputError("the run has ended")
            place = self._control.reserve(source.id)
            undo.callback(self._control.release, place)
            undo.callback(self._exports.leave, place)
            self._exports.join(place, source.id)
            feed = self._stages.entrance.open(source, place, late=True)
            stream = Stream(place, feed, StreamSeen(source, feed))
            self._streams[place] = stream
            undo.callback(setattr, self._observer, "streams", self._observer.streams)
            self._observer.streams = (*self._observer.streams, stream.seen)
            self._control.add(source, place)
            undo.pop_all()
            feed.reader.start()
        _log.info("source %s was added: %s", source.id, mask_uri(source.uri))

    def remove(self, source: str) -> None:
        """Take a source out: its tiles go at the next tick, and its place is free once it has closed.

        Raises:
            InputError: there is no such source, or the run cannot do without it.
        """
        with self._changing:
            before = self._control.wanted
            self._control.remove(source)
            place = next(place for s, place in zip(before.config.sources, before.places, strict=True) if s.id == source)
            if (stream := self._streams[place]) is not None:
                self._leaving.append((self._control.wanted.seated, stream))
        _log.info("source %s was removed", source)

    def see_off(self, seated: int) -> None:
        """Close the streams that have left, on threads of their own: to close may take as long as a network does.

        Args:
            seated: of the tick that the last stage which looks at a place has reached, see `Wanted`. No later tick
                has these streams.
        """
        while self._leaving and self._leaving[0][0] <= seated:
            _, stream = self._leaving.popleft()
            name = f"tiler-close-{stream.seen.source.id}"
            threading.Thread(target=self._close, args=(stream,), name=name, daemon=True).start()

    def _close(self, stream: Stream) -> None:
        """Then its place is free."""
        self._stages.entrance.close(stream.feed, stream.index)
        self._exports.leave(stream.index)
        stream.seen.remove()
        self._streams[stream.index] = None
        self._control.release(stream.index)

    def stop(self) -> None:
        """Take no more sources, and no more pictures of those that are there; without waiting for any."""
        with self._changing:
            self._over = True
        for reader in self._readers():
            reader.stop()

    def close(self) -> None:
        """Stop, and close all; may be called twice."""
        self.stop()
        for reader in self._readers():
            reader.close()

    def _readers(self) -> list[Reader]:
        return [stream.feed.reader for stream in self._streams if stream is not None]


def _cameras(config: Config) -> list[dict[Follow, Camera]]:
    """Of each source, the views that follow somebody; tiles that show the same share one."""
    cameras: list[dict[Follow, Camera]] = [{} for _ in config.sources]
    for tile in place_tiles(config):
        if tile.follow is not None:
            cameras[tile.source].setdefault(tile.follow, Camera(*tile.follow))
    return cameras


