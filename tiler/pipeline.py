"""The whole run, top to bottom: decode -> preprocess -> infer -> track -> compose -> encode -> output.

A `Tick` travels through it, the record of one picture of the mosaic. Each stage fills in its fields, so
that while tick k is encoded, k+1 is composed and k+2 decoded: on the CPU on a thread of its own, on
a device by what the stages enqueue there. Rings of buffers behind the fields are sized for that.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from tiler.batches import Batches
from tiler.config.loader import LoadedConfig
from tiler.config.models import Config, DetectorConfig
from tiler.control import Control
from tiler.crowd import People, TrackBatch
from tiler.errors import RunError, StageError
from tiler.lineup import Lineup, Stream
from tiler.memory import TENSORS, WAITING
from tiler.observe.run import RunObserver
from tiler.output.outputs import Outputs
from tiler.stages import STAGES, Stages
from tiler.tick import New, Tick
from tiler.track.reid import Looks
from tiler.track.trails import Trails
from tiler.types import CLOCK_HZ, Packet
from tiler.worker import Channel, Step, Worker

if TYPE_CHECKING:
    from tiler.sound.reader import Sound

_JOIN_S = 5.0

__all__ = ["STAGES", "Run"]


class Run:
    """One run of a config, from open sources to finalised outputs.

    >>> with Run(loaded, stages, observer) as run:      # doctest: +SKIP
    ...     run.start(); run.wait()
    """

    def __init__(
        self,
        loaded: LoadedConfig,
        stages: Stages,
        observer: RunObserver,
        *,
        overwrite: bool = False,
    ) -> None:
        """Open the outputs.

        Args:
            loaded, stages, observer: the config and what was made for it.
            overwrite: replace files that exist.

        Raises:
            InputError: an output cannot be written, or the source of the sound has none.
        """
        self._loaded = loaded
        self._config: Config = loaded.config
        self._stages = stages
        self._observer = observer
        self.control = Control(self._config)
        self._arranged = self._config
        self._stop = threading.Event()
        self._batches: Batches | None = None
        if stages.preprocessor is not None and stages.detector is not None:
            self._batches = Batches(
                stages.preprocessor, stages.detector, stages.batch_ticks, lambda: observer.stage("preprocess")
            )
        self._trails = Trails(self._config.overlay.trail_s, self._config.places)
        self._every = self._config.detector.every if isinstance(self._config.detector, DetectorConfig) else 1
        names = stages.detector.class_names if stages.detector is not None else ()
        with ExitStack() as opened:
            self._sound = _open_sound(loaded, opened)
            self.outputs = opened.enter_context(Outputs(
                loaded, names, stages.encoder.request_keyframe, lambda: observer.stage("output"),
                self._sound.format if self._sound is not None else None, overwrite=overwrite,
            ))  # fmt: skip
            self.lineup = Lineup(self._config, stages, self.control, observer, self.outputs)
            opened.callback(self.lineup.close)
            self._opened = opened.pop_all()
        observer.outputs = self.outputs
        observer.sound = self._sound
        composed = Channel[Tick](1 if self._config.live else WAITING, observer.encoder_wait.add)
        drawn = self._on_one_thread(composed) if stages.queued else self._on_threads(composed)
        self._workers = [*drawn, Worker(composed, [Step("encode", self._encode)])]

    def _on_threads(self, composed: Channel[Tick]) -> list[Worker]:
        """Each stage works on a thread of its own, on the picture behind the next one's; a batch is of one tick."""
        assert self._stages.batch_ticks == 1
        steps = [
            [Step("decode", lambda tick: tick)],
            *([[Step("preprocess", self._prepare)], [Step("infer", self._infer)]] if self._batches is not None else ()),
            [Step("track", self._track), Step("track", self._recognise)],
            [Step("compose", self._compose)],
        ]
        workers: list[Worker] = []
        inbox: Iterable[Tick] = self._ticks()
        for own in steps:
            outbox = composed if own is steps[-1] else Channel[Tick](1)
            workers.append(Worker(inbox, own, outbox))
            inbox = outbox
        return workers

    def _on_one_thread(self, composed: Channel[Tick]) -> list[Worker]:
        """The device works on what the stages enqueue, on some ticks at once, and the host goes on meanwhile.

        See docs/adr/013: the stages would only pass the interpreter to one another. Detections are waited for when
        the next batch is submitted, appearance when another tick is. By then the tick before is composed: who is who
        is known of it, and no place that a source has left is looked at any more.
        """
        behind = max(TENSORS, 2 * self._stages.batch_ticks) if self._batches is not None else 0
        after = behind + 1 if self._stages.reid is not None else behind
        analysis = (Step("preprocess", self._prepare), Step("infer", self._infer, behind))
        steps = (
            Step("decode", lambda tick: tick),
            *(analysis if self._batches is not None else ()),
            Step("track", self._track, behind),
            Step("track", self._recognise, after),
            Step("compose", self._compose, after),
        )
        return [Worker(self._ticks(), steps, composed)]

    # The stages, in the order of the flow

    def _ticks(self) -> Iterator[Tick]:
        """The mosaic's clock: every tick with what each source shows then."""
        first = self._workers[0]  # which asks for them
        config, live = self._config, self._config.live
        last = config.ticks
        ticks, pictures = (CLOCK_HZ / config.mosaic.fps).as_integer_ratio()   # of the clock for so many of the mosaic
        for feed in self._stages.feeds:
            feed.reader.start()
        start_s = time.monotonic()
        if self._sound is not None:
            self._sound.start(start_s, self._stages.feeds[self._sound.stream].reader)
        index = 0
        while not self._stop.is_set() and (last is None or index < last):
            if live:
                due_s = start_s + float(index / config.mosaic.fps)
                while time.monotonic() < due_s and first.advance():
                    pass
                if self._stop.wait(max(0.0, due_s - time.monotonic())):
                    return
                if first.full():  # behind: this tick's picture is dropped, time goes on
                    self._observer.dropped_ticks += 1
                    index += 1
                    continue
            pts = (2 * index * ticks + pictures) // (2 * pictures)   # the nearest
            began_s = time.monotonic()
            wanted = self.control.wanted
            streams = self.lineup.at(wanted)
            with self._observer.stage("decode"):
                shown = [s.hold.apply(s.feed.at(pts), s.seen.source.id in wanted.paused) for s in streams]
            if last is None and _over(streams):
                return
            numbers = [stream.feed.index for stream in streams]
            yield Tick(index, pts, began_s, _clock_text(live, pts // CLOCK_HZ), wanted, streams, shown, numbers)
            index += 1

    def _prepare(self, tick: Tick) -> Tick:
        """Submit the pictures that are new and due for detection: letterboxed, in one batch."""
        due = []
        for stream, shown in zip(tick.streams, tick.shown, strict=True):
            if shown.frame is not None and shown.new and stream.is_due(self._every):
                due.append(shown.frame)
        assert self._batches is not None
        tick.found = self._batches.add(due)
        return tick

    def _infer(self, tick: Tick) -> Tick:
        """Wait for what came of the batch of all streams; on the GPU the next one is behind it already."""
        if tick.found is not None:
            with self._observer.stage("infer"):
                tick.seen = tick.found()
            tick.found = None
        return tick

    def _track(self, tick: Tick) -> Tick:
        """Each stream on its own: who is where by motion; and all of whom to look at, in one batch for all streams."""
        began_s = time.perf_counter()
        self.lineup.see_off(tick.wanted.seated)
        if self._batches is not None:
            self._follow(tick)
        tick.track_s = time.perf_counter() - began_s
        return tick

    def _follow(self, tick: Tick) -> None:
        tracker, reid = self._stages.tracker, self._stages.reid
        assert tracker is not None
        tick.new = [
            New(stream, shown.frame, number)
            for stream, shown, number in zip(tick.streams, tick.shown, tick.numbers, strict=True)
            if shown.new and shown.frame is not None
        ]
        for stream, _, _ in tick.new:
            if not stream.begun:
                self._begin(stream)
        places = [stream.index for stream, _, _ in tick.new]
        frames = [frame for _, frame, _ in tick.new]
        tick.tracks = tracker.update_all(places, [frame.pts for frame in frames], tick.seen)
        if reid is not None:
            wanted = [stream.slots.wanted if stream.slots is not None else () for stream, _, _ in tick.new]
            looked_at = set(tick.seen.streams)
            tick.looks = reid.submit(frames, tick.tracks, [place in looked_at for place in places], wanted)

    def _begin(self, stream: Stream) -> None:
        """Nothing is known of it yet, whatever was in its place before."""
        stream.begun = True
        for one in (self._stages.tracker, self._stages.reid, self._trails):
            if one is not None:
                one.begin(stream.index)
        if self._stages.reid is not None:
            stream.seen.reid = partial(self._stages.reid.duty, stream.index)

    def _recognise(self, tick: Tick) -> Tick:
        """Who they are by their looks, and which of the cast; then all that compose needs to know of each stream."""
        began_s = time.perf_counter()
        if self._batches is not None:
            self._know(tick)
        tick.tiles = [
            stream.tile(shown, tick.pts, tick.began_s) for stream, shown in zip(tick.streams, tick.shown, strict=True)
        ]
        self._observer.spent("track", tick.track_s + time.perf_counter() - began_s)
        return tick

    def _know(self, tick: Tick) -> None:
        tracks, looks = tick.tracks, tick.looks() if tick.looks is not None else None
        assert tracks is not None
        tick.tracks = tick.looks = None
        if any(stream.slots is not None for stream, _, _ in tick.new):
            tracks = self._cast(tick.new, tracks, looks)
        if self._stages.reid is not None and looks is not None:
            tracks = self._stages.reid.recognise(tracks, looks)
        crowd = self._trails.add(tracks)
        for k, (count, (stream, frame, number)) in enumerate(zip(tracks.counts(), tick.new, strict=True)):
            people = People(crowd, k)
            stream.follow(people, count)
            if self.outputs.take_tracks:
                self.outputs.put_tracks(frame, number, people.tracks)

    def _cast(self, new: Sequence[New], tracks: TrackBatch, looks: Looks | None) -> TrackBatch:
        """The same with the slots of those that have a cast."""
        own = tracks.pictures()
        appearance = looks.pictures(tracks) if looks is not None else [None] * len(own)
        for k, (stream, frame, _) in enumerate(new):
            if stream.slots is not None:
                own[k] = stream.slots.update(own[k], appearance[k], width_px=frame.picture_size[0])
                stream.seen.cast(own[k], stream.slots.revised)
        return tracks._replace(slot=np.concatenate([one.slot for one in own]))

    def _compose(self, tick: Tick) -> Tick:
        with self._observer.stage("compose"):
            if tick.wanted.config is not self._arranged:
                self._stages.compositor.arrange(tick.wanted.config)
                self._arranged = tick.wanted.config
            tick.mosaic = self._stages.compositor.compose(tick.index, tick.tiles, tick.clock)
        tick.tiles.clear()
        return tick

    def _encode(self, tick: Tick) -> None:
        """One session; its packets go to every output."""
        assert tick.mosaic is not None
        self._observer.submitted(tick.index, tick.began_s)
        with self._observer.stage("encode"):
            packets = self._stages.encoder.encode(tick.mosaic)
        self._deliver(packets)

    def _deliver(self, packets: Sequence[Packet]) -> None:
        if self._sound is not None:
            packets = self._sound.join(packets)
        for packet in packets:
            self.outputs.put(packet)
            self._observer.delivered(packet)
        if self.outputs.gone:
            self.stop()

    # Start, stop and end

    def start(self) -> None:
        """Start every stage's thread; once."""
        self._observer.started()
        for worker in self._workers:
            worker.start()

    def stop(self) -> None:
        """Take no more ticks; what is on its way is still encoded. From any thread or signal handler."""
        self._stop.set()

    def wait(self, poll: Callable[[], None] = lambda: None, every_s: float = 0.2) -> None:
        """Until the last tick is encoded and every output finalised.

        Args:
            poll: called every `every_s` seconds on this thread, for progress.

        Raises:
            RunError: a stage failed; what was encoded until then is in the outputs.
        """
        final = self._workers[-1]
        while final.is_alive():
            final.join(every_s)
            poll()
        self._finish()
        poll()

    def _finish(self) -> None:
        self.lineup.stop()  # closed below: the last pictures need not wait for sources that hang
        for worker in self._workers:
            worker.join(_JOIN_S)
        failure = next((w for w in self._workers if w.failure is not None), None)
        # Also after the encoder failed: what it took before that may still be in there.
        endings: list[Callable[[], None]] = [
            lambda: self._deliver(self._stages.encoder.flush()),
            self.outputs.finish,
            self._opened.close,
        ]
        error = failure.failure if failure is not None else None
        for end in endings:
            try:
                end()
            except Exception as late:  # outputs must be finalised whatever the encoder says; the first error is told
                error = error or late
        self._observer.finished()
        if error is None:
            return
        if isinstance(error, RunError):
            raise error
        stage = failure.stage if failure is not None else "encode"
        raise StageError(stage, f"{type(error).__name__}: {error}") from error

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._opened.close()
        self._stages.close()


def _open_sound(loaded: LoadedConfig, opened: ExitStack) -> Sound | None:
    """A mosaic is silent, and imports nothing for sound, unless the config asks for some."""
    if loaded.config.audio is None:
        return None
    from tiler.sound.reader import Sound

    sound = Sound(loaded)
    opened.callback(sound.close)
    return sound


def _over(streams: Sequence[Stream]) -> bool:
    """Every source that can end has ended, and one can."""
    feeds = [stream.feed for stream in streams]
    endless = [feed.reader.endless or feed.reader.source.loop for feed in feeds]
    if all(endless):
        return all(feed.finished and not feed.reader.endless for feed in feeds)
    return all(feed.finished for feed, never in zip(feeds, endless, strict=True) if not never)


def _clock_text(live: bool, seconds: int) -> str:
    if live:
        return time.strftime("%Y-%m-%d %H:%M:%S")
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
