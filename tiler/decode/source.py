"""Around a decoder: one thread per source that loops, paces and reconnects.

Offline, the thread fills a queue of a few frames and waits when it is full. Live, it keeps
only the newest frame; those that nobody took in time are counted as dropped. The end of
the stream and its failure are data: the run goes on without it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace

from tiler.config.models import Source, is_remote
from tiler.decode.base import Decoder, Reader, ReaderCounts, StreamInfo, UndecodableError
from tiler.decode.clock import LiveClock
from tiler.decode.cpu import DEFAULT_FPS, PyavDecoder
from tiler.decode.still import StillDecoder, image_file
from tiler.errors import InputError, StageError, mask_uri
from tiler.types import CLOCK_HZ, Frame

logger = logging.getLogger(__name__)

Opener = Callable[[Source, str, int, int], Decoder]

QUEUE_DEPTH = 4
_REFILL_AT = 2
"""Frames that are left when the thread of a full queue goes on: it is woken once for several of them."""
_BACKOFF = 1.5
_LONGEST_WAIT_S = 30.0
_STEADY_S = 5.0
"""A live source that has given pictures for so long is back; lost before that, it is in the same outage still."""
_JOIN_S = 0.9
"""That `close` waits for the thread, counted from `stop`: readers that are stopped together are given it once."""


def open_decoder(source: Source, uri: str, stream: int, threads: int) -> Decoder:
    """The decoder for `uri`: `sample://NAME`, an image file, or anything FFmpeg opens.

    Args:
        source: the source's entry in the config.
        uri: its uri, relative paths resolved.
        stream: place of the source, see `Frame.stream`.
        threads: for FFmpeg; 0 leaves it to FFmpeg.

    Raises:
        InputError: it cannot be opened, or holds no video that can be decoded.
    """
    if uri.startswith("sample://"):
        from tiler.samples import resolve  # renders the sample when it is asked for first

        uri = str(resolve(uri).path)
    if (image := image_file(uri)) is not None:
        return StillDecoder(source, image, stream)
    return PyavDecoder(source, uri, stream, threads)


class SourceReader(Reader):
    """Pulls the frames of one source on a thread of its own.

    A file is opened by the constructor, so that a wrong one is reported before the run
    starts; with `late`, by the thread, so that nobody has to wait for it. A live source
    (see `config.models.is_remote`) is opened by the thread, and again whenever it breaks:
    after `reconnect_s`, then half as long again each time, at most 30 s, until it has
    given pictures for 5 s.

    What the attributes say is written by the thread.
    """

    def __init__(
        self,
        source: Source,
        uri: str,
        stream: int,
        threads: int,
        *,
        live: bool,
        late: bool = False,
        opener: Opener = open_decoder,
    ) -> None:
        """
        Args:
            source, uri, stream, threads: as for `open_decoder`.
            live: the mosaic follows the wall clock: files are paced by their timestamps,
                and only the newest frame is kept.
            late: the source joins a run that goes on, and that goes on whatever becomes of it.
            opener: opens the decoder.

        Raises:
            InputError: a file cannot be opened.
        """
        self.source = source
        self._counts = ReaderCounts()
        self.failure: StageError | None = None
        self.outage: str | None = None
        self.info: StreamInfo | None = None
        self.endless = False
        self.remote = is_remote(source)
        self._live, self._late = live, late
        self._open: Callable[[], Decoder] = lambda: opener(source, uri, stream, threads)
        self._where = mask_uri(uri)
        self._decoder: Decoder | None = None
        self._frames: deque[Frame] = deque()
        self._finished = False
        self._bug: BaseException | None = None
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._patient_until_s = 0.0
        self._thread = threading.Thread(target=self._run, name=f"tiler-decode-{source.id}", daemon=True)
        if not self.remote and not late:
            self._use(self._open())

    def start(self) -> None:
        """Begin to read; once."""
        self._thread.start()

    def next(self) -> Frame | None:
        """The next frame in order, waiting for it; None at the end or after a failure."""
        with self._changed:
            if not self._frames:
                self._changed.wait_for(lambda: self._frames or self._finished)
            return self._take()

    def latest(self) -> Frame | None:
        """The newest frame that was not taken yet, None if there is none. Never waits."""
        with self._changed:
            return self._take()

    @property
    def counts(self) -> ReaderCounts:
        return self._counts

    @property
    def lag_s(self) -> float:
        """Of the decoder at its last picture; see `DemuxedDecoder.lag_s`."""
        return float(getattr(self._decoder, "lag_s", 0.0))

    @property
    def finished(self) -> bool:
        """Nothing more will come (and everything was taken)."""
        with self._changed:
            return self._finished and not self._frames

    def wait(self) -> None:
        """Until the thread of a closed reader has ended: nothing of the source is in use any more."""
        if self._thread.ident is not None:
            self._thread.join()

    def stop(self) -> None:
        """Let the thread end, and whoever waits for a frame go; without waiting."""
        if not self._stop.is_set():
            self._patient_until_s = time.monotonic() + _JOIN_S
        self._stop.set()
        with self._changed:
            self._finished = True
            self._frames.clear()
            self._changed.notify_all()
        decoder = self._decoder
        if decoder is not None:
            decoder.close()

    def close(self) -> None:
        """Stop within a second; may be called twice.

        A thread that waits inside FFmpeg for a network is left behind: it ends by itself
        after at most `timeout_s`.
        """
        self.stop()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(max(0.0, self._patient_until_s - time.monotonic()))

    # The consumer's side

    def _take(self) -> Frame | None:
        if self._frames:
            frame = self._frames.popleft()
            if len(self._frames) <= _REFILL_AT:
                self._changed.notify_all()
            return frame
        if self._bug is not None:
            raise self._bug
        return None

    # The thread's side

    def _run(self) -> None:
        try:
            if self.remote:
                self._follow()
            else:
                self._play()
        except StageError as error:
            if not self._stop.is_set():
                self.failure = error
                self._counts.errors += 1
                logger.warning("stream ended early: %s", error)
        except BaseException as error:
            if not self._late:  # raised again where the frames are taken
                self._bug = error
            else:  # whatever somebody adds must not end the run
                self.failure = StageError("decode", f"{type(error).__name__}: {error}", stream=self.source.id)
                logger.exception("stream %s ended by a failure of its own", self.source.id)
        finally:
            if self._decoder is not None:
                self._decoder.close()
            with self._changed:
                self._finished = True
                self._changed.notify_all()

    def _use(self, decoder: Decoder) -> Decoder:
        self._decoder = decoder
        self.info = decoder.info
        self.endless = getattr(decoder, "endless", False)
        return decoder

    def _play(self) -> None:
        """A file: from its start to its end, or round and round."""
        try:
            decoder = self._decoder or self._use(self._open())
        except InputError as error:
            raise StageError("decode", str(error), stream=self.source.id) from error
        offset = 0
        began_s: float | None = None
        while not self._stop.is_set():
            last, duration = None, frame_duration(decoder.info)
            for frame in self._frames_of(decoder):
                if last is not None:
                    duration = frame.pts - last
                last = frame.pts
                now_s = time.monotonic()
                pts = frame.pts + offset
                began_s = now_s if began_s is None else began_s
                if self._live and self._stop.wait(max(0.0, began_s + pts / CLOCK_HZ - now_s)):
                    return
                if self._live or offset:  # else it is as it came, and a copy is not free
                    frame = replace(frame, pts=pts, arrival_s=time.monotonic())
                if not self._put(frame):
                    return
            if last is None or self.endless:
                return
            offset += last + self._clipped(last, duration)
            if not self.source.loop:
                if self._live and began_s is not None:  # the last picture has its time, too
                    self._stop.wait(max(0.0, began_s + offset / CLOCK_HZ - time.monotonic()))
                return
            decoder.restart()

    def _clipped(self, last: int, duration: int) -> int:
        """The last frame's duration, no longer than to `end_s`."""
        if self.source.end_s is None:
            return duration
        room = round((self.source.end_s - self.source.start_s) * CLOCK_HZ) - last
        return max(1, min(duration, room))

    def _follow(self) -> None:
        """A live source: as long as the run lasts, through every outage."""
        clock = LiveClock()
        wait_s = self.source.reconnect_s
        lost = False
        while not self._stop.is_set():
            first_s: float | None = None
            try:
                decoder = self._use(self._open())
                for frame in self._frames_of(decoder):
                    now_s = time.monotonic()
                    first_s = now_s if first_s is None else first_s
                    if self.outage is not None:
                        self.outage = None
                        self._counts.reconnects += self._counts.read > 1  # not when it first came up late
                    if now_s - first_s >= _STEADY_S:
                        wait_s = self.source.reconnect_s
                        if lost:
                            lost = False
                            logger.info("stream %s: back (%s)", self.source.id, self._where)
                    self._put(replace(frame, pts=clock.stamp(frame.pts, now_s), arrival_s=now_s))
                why = "it ended"
                if first_s is not None:  # by itself, after a picture: a snapshot, which is asked for again
                    wait_s = self.source.reconnect_s
            except UndecodableError as error:
                raise StageError("decode", str(error), stream=self.source.id) from error
            except (InputError, StageError) as error:
                why = str(error)
            if self._decoder is not None:
                self._decoder.close()
            if self._stop.is_set():
                return
            self._counts.errors += self.outage is None
            self.outage = why
            if not lost:
                lost = True
                logger.warning(
                    "stream %s: lost (%s), trying again until it is back: %s",
                    self.source.id,
                    self._where,
                    why,
                )
            self._stop.wait(wait_s)
            wait_s = max(self.source.reconnect_s, min(wait_s * _BACKOFF, _LONGEST_WAIT_S))

    def _frames_of(self, decoder: Decoder) -> Iterator[Frame]:
        """The frames of one decoder, counted."""
        damaged = 0
        while not self._stop.is_set():
            frame = decoder.read()
            found = getattr(decoder, "errors", 0)
            if found > damaged:
                if self._counts.errors == 0:
                    logger.warning("stream %s: damaged data, decoding goes on", self.source.id)
                self._counts.errors += found - damaged
                damaged = found
            if frame is None:
                return
            self._counts.read += 1
            yield frame

    def _put(self, frame: Frame) -> bool:
        """Hand a frame over; False when nobody will take it."""
        with self._changed:
            if self._live:
                self._counts.dropped += len(self._frames)
                self._frames.clear()
            elif len(self._frames) >= QUEUE_DEPTH:
                self._changed.wait_for(lambda: len(self._frames) <= _REFILL_AT or self._stop.is_set())
            if self._stop.is_set():
                return False
            self._frames.append(frame)
            self._changed.notify_all()
            return True


def frame_duration(info: StreamInfo | None) -> int:
    """Ticks of 1/90000 s that a frame lasts at the stream's average rate."""
    fps = info.fps if info is not None and info.fps else DEFAULT_FPS
    return round(CLOCK_HZ / fps)
