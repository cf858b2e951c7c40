"""One source's sound on a thread of its own, and the packets of the mosaic that it is given to.

Files are read ahead by a few seconds. A live source is opened by the thread, and again whenever it breaks, as
its pictures are (see `tiler.decode.source`). Whatever goes wrong stays here: AAC and Opus go on with silence,
a copy ends.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

import av
from av.bitstream import BitStreamFilterContext

from tiler.closing import Closing
from tiler.config.loader import LoadedConfig
from tiler.config.models import Source, is_remote
from tiler.decode.demuxed import MAX_ERRORS_IN_A_ROW, said_by
from tiler.errors import InputError, TilerError, mask_uri
from tiler.sound.arrival import ArrivalClock
from tiler.sound.demux import SoundInput, in_ticks
from tiler.sound.encoder import RATE_HZ, SoundEncoder, header_of
from tiler.types import CLOCK_HZ, Float32, Packet, SoundFormat, SoundPacket

_log = logging.getLogger(__name__)

_DEPTH = 256
"""Packets that wait: about 5 s."""
_PATIENCE_S = 10.0
"""An offline run waits this long for a file to be read, and then goes on without its sound."""
_LATE = CLOCK_HZ
"""Live: sound that has not come by a second after its time is silence."""
_JOIN_S = 0.9


class Pictures(Protocol):
    """What reads the same source's pictures; see `tiler.decode.source.SourceReader`."""

    @property
    def lag_s(self) -> float: ...


class Sound(Closing):
    """What `audio:` says, from the source to the packets of the mosaic.

    Attributes:
        stream: index of the source in the config.
        format: for the muxers; None where nothing can be copied, and the outputs have no sound.
    """

    def __init__(self, loaded: LoadedConfig) -> None:
        """Open a file; a live source is opened by the thread (one that is copied here, too, to know its codec).

        Args:
            loaded: a config with `audio`.

        Raises:
            InputError: a file cannot be opened, or has no sound.
        """
        audio, config = loaded.config.audio, loaded.config
        assert audio is not None
        self.stream = [source.id for source in config.sources].index(audio.source)
        self._source: Source = config.sources[self.stream]
        self._uri = loaded.resolve(self._source.uri)
        self._remote = is_remote(self._source)
        self._live = config.live
        self._tick = 1 / config.mosaic.fps
        self._codec = audio.codec
        self._encoder = None if audio.codec == "copy" else SoundEncoder(audio.codec, audio.bitrate)
        self.format = None if self._encoder is None else self._encoder.format
        self._changed = threading.Condition()
        self._queue: deque[SoundPacket] = deque()
        self._stop = threading.Event()
        self._finished = False
        self._up = False
        self._error: str | None = None
        self._last = -1
        self._until = 0
        self._packets = self._bytes = self._dropped = self._errors = self._reconnects = 0
        self._zero_s = 0.0
        self._pictures: Pictures | None = None
        self._input: SoundInput | None = None
        if not self._remote:
            self._input = SoundInput(self._source, self._uri)
        if self._encoder is None:
            self._look()
        self._thread = threading.Thread(target=self._run, name=f"tiler-sound-{self._source.id}", daemon=True)

    def _look(self) -> None:
        """Find out what is to be copied."""
        try:
            if self._input is None:
                self._input = SoundInput(self._source, self._uri)
            packet = next((p for p in self._input.packets() if p.stream is self._input.stream), None)
            if packet is None:
                raise InputError(f"audio: source {self._source.id} has no sound ({mask_uri(self._uri)})")
            self.format = SoundFormat(self._input.stream.codec.canonical_name, header_of(self._input.stream, packet))
        except (InputError, av.FFmpegError, ValueError) as error:
            if not self._remote:
                raise error if isinstance(error, InputError) else InputError(
                    f"audio: source {self._source.id}: cannot be copied: {said_by(error)}; accepted: aac, opus"
                ) from error
            self._fail(f"{said_by(error)}; what cannot be reached at the start cannot be copied")

    # The run's side

    def start(self, zero_s: float, pictures: Pictures) -> None:
        """Begin to read; once.

        Args:
            zero_s: the mosaic's time 0 (monotonic).
            pictures: tells how late the source's pictures are.
        """
        self._zero_s, self._pictures = zero_s, pictures
        if not self._finished:
            self._thread.start()

    def join(self, packets: Sequence[Packet]) -> list[Packet]:
        """The pictures with their sound; see `Packet`. Offline it may wait for a file. Never raises."""
        joined = []
        for packet in packets:
            self._until = max(self._until, packet.pts + 1)
            sound = self._take(round(self._until * self._tick * CLOCK_HZ))
            joined.append(replace(packet, sound=tuple(sound)) if sound else packet)
        return joined

    def _take(self, until: int) -> list[SoundPacket]:
        """The packets before a time, or those that have come by now."""
        taken: list[SoundPacket] = []
        with self._changed:
            while True:
                self._pop(until, taken)
                if self._queue or self._finished or self._live:  # what is still to come is later
                    break
                if not self._changed.wait_for(lambda: self._queue or self._finished, _PATIENCE_S):
                    self._fail(f"the file gave nothing for {_PATIENCE_S:g} s")
            if self._encoder is not None and self.format is not None and (self._finished or self._remote):
                self._queue.extend(self._encoder.silence(until if self._finished else until - _LATE))
                self._pop(until, taken)
        self._packets += len(taken)
        self._bytes += sum(len(packet.data) for packet in taken)
        return taken

    def _pop(self, until: int, taken: list[SoundPacket]) -> None:
        while self._queue and self._queue[0].pts < until:
            taken.append(self._queue.popleft())
        self._changed.notify_all()

    def report(self) -> dict[str, Any]:
        """State and counts as plain data, for the report and progress."""
        ended = "stopped" if self._error is not None else "ended"
        return {
            "source": self._source.id,
            "codec": self.format.codec if self.format is not None else self._codec,
            "state": ended if self._finished else "up" if self._up else "down",
            "packets": self._packets,
            "bytes": self._bytes,
            "dropped": self._dropped,
            "errors": self._errors,
            "reconnects": self._reconnects,
            "error": self._error,
        }

    def close(self) -> None:
        """Stop; a thread that waits inside FFmpeg is left behind, as those of the decoders are."""
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(_JOIN_S)
        elif self._input is not None:
            self._input.close()

    def _fail(self, text: str) -> None:
        """No more sound but what waits; the pictures go on without."""
        with self._changed:
            if not self._finished:
                _log.warning("sound of %s has stopped: %s", self._source.id, text)
            self._finished, self._up, self._error = True, False, self._error or text
            self._changed.notify_all()

    # The thread's side

    def _run(self) -> None:
        try:
            if self._remote:
                self._follow()
            else:
                self._play()
        except Exception as error:  # whatever it is, the pictures go on
            self._errors += 1
            self._fail(_text(error))
        finally:
            if self._input is not None:
                self._input.close()
            with self._changed:
                self._finished = True
                self._changed.notify_all()

    def _play(self) -> None:
        """A file: from its start to its end, or round and round."""
        assert self._input is not None
        offset = 0
        self._up = True
        while not self._over():
            self._read(self._input.lap(), _FileTimes(self._input, offset))
            offset += self._input.length
            if not self._source.loop or not self._input.length:
                return

    def _follow(self) -> None:
        """A live source: as long as the run lasts, through every outage."""
        wait_s = self._source.reconnect_s
        while not self._over():
            why = "it ended"
            try:
                self._input = self._input or SoundInput(self._source, self._uri)
                codec = self._input.stream.codec.canonical_name
                if self._encoder is None and self.format is not None and codec != self.format.codec:
                    self._fail(f"was {self.format.codec}, came back as {codec}, and is copied")
                    return
                self._reconnects += self._error is not None and self._last >= 0
                self._up, self._error = True, None
                wait_s = self._source.reconnect_s
                self._read(self._input.packets(), self._live_times())
            except (InputError, av.FFmpegError) as error:
                why = _text(error)
            if self._input is not None:
                self._input.close()
                self._input = None
            if self._over():
                return
            if self._error is None:
                self._errors += 1
                _log.warning("sound of %s: lost, trying again until it is back: %s", self._source.id, why)
            self._up, self._error = False, why
            self._stop.wait(wait_s)
            wait_s = max(self._source.reconnect_s, min(1.5 * wait_s, 30.0))

    def _live_times(self) -> _LiveTimes:
        # A picture waits for the next tick, half of one on average.
        return _LiveTimes(self._zero_s - float(self._tick) / 2, self._pictures)

    def _over(self) -> bool:
        return self._stop.is_set() or self._finished

    def _read(self, packets: Iterator[Any], times: _FileTimes | _LiveTimes) -> None:
        """Every packet of a lap or a connection."""
        assert self._input is not None
        copies = None if self._encoder is not None else _Copies()
        resampler: Any = None
        refused = 0
        for packet in packets:
            if self._over():
                return
            times.came(packet, picture=packet.stream is not self._input.stream)
            if packet.stream is not self._input.stream or not times.known:
                continue
            if copies is not None:
                self._put(copies.of(self._input.stream, packet, times.of(packet)))
                continue
            assert self._encoder is not None
            try:
                frames = self._input.stream.codec_context.decode(packet)
                refused = 0
            except av.FFmpegError as error:
                self._errors += 1
                refused += 1
                if refused >= MAX_ERRORS_IN_A_ROW:
                    raise InputError(f"{refused} packets in a row could not be decoded: {said_by(error)}") from error
                continue
            for frame in frames:
                form = (frame.format.name, frame.layout.name, frame.sample_rate)
                if resampler is None or resampler[1] != form:
                    resampler = av.AudioResampler(format="fltp", layout="stereo", rate=RATE_HZ), form
                pts = times.of(frame)
                for out in resampler[0].resample(frame):
                    samples = times.cut(out.to_ndarray(), pts)
                    after = pts + round(out.samples * CLOCK_HZ / RATE_HZ)
                    self._dropped += self._remote and after < self._encoder.end
                    if samples.shape[1]:
                        self._put(self._encoder.add(samples, max(pts, times.begin)))
                    pts = after

    def _put(self, packets: Iterable[SoundPacket]) -> None:
        """Let the run have them; waits for room where the source can wait."""
        with self._changed:
            if self._finished:
                return
            for packet in packets:
                if packet.pts <= self._last:
                    continue
                self._last = packet.pts
                self._queue.append(packet)
                self._changed.notify_all()
                if len(self._queue) < _DEPTH:
                    continue
                if self._remote:
                    self._queue.popleft()
                    self._dropped += 1
                elif self._changed.wait_for(lambda: len(self._queue) < _DEPTH or self._over()) and self._over():
                    return


class _FileTimes:
    """Times of one lap in the mosaic."""

    known = True

    def __init__(self, source: SoundInput, offset: int) -> None:
        self._input, self.begin = source, offset

    def came(self, packet: Any, *, picture: bool) -> None: ...

    def of(self, item: Any) -> int:
        return self._input.time_of(item) + self.begin

    def cut(self, samples: Float32, pts: int) -> Float32:
        """Without what lies before the first picture."""
        early = round((self.begin - pts) * RATE_HZ / CLOCK_HZ)
        return samples[:, early:] if early > 0 else samples


class _LiveTimes:
    """Times of one connection in the mosaic: beside the pictures of the same connection, as far as these are late."""

    begin = 0

    def __init__(self, zero_s: float, pictures: Pictures | None) -> None:
        self._zero_s, self._pictures = zero_s, pictures
        self._clock = ArrivalClock()
        self._delay = 0
        self.known = False

    def came(self, packet: Any, *, picture: bool) -> None:
        if not picture:
            return
        decoding = packet.pts if packet.dts is None else packet.dts
        if decoding is None:
            return
        lag_s = self._pictures.lag_s if self._pictures is not None else 0.0
        arrival_s = time.monotonic() - self._zero_s + lag_s
        self._delay = self._clock.delay(in_ticks(decoding, packet), round(arrival_s * CLOCK_HZ))
        self.known = True

    def of(self, item: Any) -> int:
        return _ticks(item) + self._delay

    def cut(self, samples: Float32, pts: int) -> Float32:
        return samples


class _Copies:
    """Packets as they are, but without the headers of a transport stream's AAC, which no muxer but its own takes."""

    def __init__(self) -> None:
        self._filter: BitStreamFilterContext | None = None

    def of(self, stream: Any, packet: Any, pts: int) -> list[SoundPacket]:
        if pts < 0:
            return []
        if self._filter is None and stream.codec.canonical_name == "aac" and _has_adts(bytes(packet)):
            self._filter = BitStreamFilterContext("aac_adtstoasc", stream)
        duration = in_ticks(packet.duration or 0, packet)
        plain = [packet] if self._filter is None else self._filter.filter(packet)
        return [SoundPacket(bytes(each), pts, duration) for each in plain]


def _has_adts(data: bytes) -> bool:
    return len(data) > 7 and data[0] == 0xFF and data[1] & 0xF0 == 0xF0


def _ticks(item: Any) -> int:
    pts = item.pts if item.pts is not None else item.dts or 0
    return in_ticks(pts, item)


def _text(error: Exception) -> str:
    if isinstance(error, TilerError):
        return mask_uri(str(error))
    return said_by(error) if isinstance(error, av.FFmpegError) else mask_uri(f"{type(error).__name__}: {error}")
