"""SourceReader: loop, pace, drop, reconnect, fail and stop."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pytest
from pictures import number_of, write
from PIL import Image

from tiler.config.models import Source
from tiler.decode.base import StreamInfo
from tiler.decode.source import QUEUE_DEPTH, SourceReader
from tiler.errors import InputError, StageError
from tiler.types import Frame

WAIT_S = 10.0


def tiny(pts: int) -> Frame:
    return Frame(0, pts, np.zeros((4, 4), np.uint8), np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8))


class ListDecoder:
    """Gives out frames with the given pts, then ends or raises."""

    def __init__(self, stamps: list[int], error: BaseException | None = None, fps: int = 25) -> None:
        self.info = StreamInfo((4, 4), Fraction(fps), None, "list", "list")
        self.closed = threading.Event()
        self.given = 0
        self._stamps = stamps
        self._error = error

    def read(self) -> Frame | None:
        if self.given < len(self._stamps):
            self.given += 1
            return tiny(self._stamps[self.given - 1])
        if self._error is not None:
            raise self._error
        return None

    def restart(self) -> None:
        self.given = 0

    def close(self) -> None:
        self.closed.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def reader_of(
    *decoders: ListDecoder | InputError, live: bool = False, uri: str = "a.mp4", **keys: object
) -> SourceReader:
    """A reader whose attempts to open give these, the last one again and again."""
    attempts = iter(decoders)
    last = decoders[-1]

    def opener(source: Source, uri: str, stream: int, threads: int) -> ListDecoder:
        decoder = next(attempts, last)
        if isinstance(decoder, InputError):
            raise decoder
        return decoder

    source = Source.model_validate({"id": "cam", "uri": uri, **keys})
    return SourceReader(source, uri, 0, 1, live=live, opener=opener)


def rest(reader: SourceReader) -> list[int]:
    stamps = []
    while (frame := reader.next()) is not None:
        stamps.append(frame.pts)
    return stamps


def until(condition: Callable[[], bool]) -> None:
    """Wait for something another thread does."""
    deadline = time.monotonic() + WAIT_S
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        pause.wait(0.005)


def test_gives_everything_in_order_then_none() -> None:
    with reader_of(ListDecoder([0, 10, 20])) as reader:
        reader.start()
        assert rest(reader) == [0, 10, 20]
        assert reader.next() is None
        assert reader.finished
        assert (reader.counts.read, reader.counts.dropped, reader.failure) == (3, 0, None)


def test_reads_no_further_ahead_than_the_queue() -> None:
    decoder = ListDecoder(list(range(100)))
    with reader_of(decoder) as reader:
        reader.start()
        until(lambda: decoder.given >= QUEUE_DEPTH + 1)
        for taken in range(20):
            assert reader.next() is not None
            assert decoder.given <= taken + QUEUE_DEPTH + 2
        assert rest(reader) == list(range(20, 100))


def test_a_wrong_file_is_reported_by_the_constructor(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_text("nothing")
    with pytest.raises(InputError, match="cannot open"):
        SourceReader(Source(id="cam", uri=str(path)), str(path), 0, 1, live=False)


def test_loop_goes_on_seamlessly(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", 5)
    with SourceReader(Source(id="cam", uri=str(path), loop=True), str(path), 0, 1, live=False) as reader:
        reader.start()
        frames = [reader.next() for _ in range(17)]
        assert [frame.pts for frame in frames if frame] == [3600 * index for index in range(17)]
        assert [number_of(frame.y) for frame in frames if frame] == [index % 5 for index in range(17)]
        assert not reader.finished


def test_loop_ends_at_end_s() -> None:
    with reader_of(ListDecoder([0, 9000, 27000]), loop=True, end_s=0.4) as reader:
        reader.start()
        assert [frame.pts for _ in range(7) if (frame := reader.next())] == [
            0, 9000, 27000, 36000, 45000, 63000, 72000
        ]  # fmt: skip


def test_loop_of_one_picture_lasts_a_picture() -> None:
    with reader_of(ListDecoder([0]), loop=True) as reader:
        reader.start()
        assert [frame.pts for _ in range(3) if (frame := reader.next())] == [0, 3600, 7200]


def test_a_file_that_vanished_ends_its_loop_and_says_why(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", 3)
    with SourceReader(Source(id="cam", uri=str(path), loop=True), str(path), 0, 1, live=False) as reader:
        path.unlink()
        reader.start()
        assert [frame.pts for _ in range(4) if (frame := reader.next())] == [0, 3600, 7200]
        assert reader.finished
        assert reader.failure is not None
        assert "cannot open" in str(reader.failure)


def test_a_file_that_was_replaced_is_the_next_round_of_its_loop(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", 3)
    other = write(tmp_path / "b.mp4", 7)
    with SourceReader(Source(id="cam", uri=str(path), loop=True), str(path), 0, 1, live=False) as reader:
        other.replace(path)
        reader.start()
        frames = [reader.next() for _ in range(12)]
        assert [number_of(frame.y) for frame in frames if frame] == [0, 1, 2, *range(7), 0, 1]


def test_a_broken_stream_ends_and_says_why() -> None:
    error = StageError("decode", "it broke", stream="cam")
    with reader_of(ListDecoder([0, 10], error)) as reader:
        reader.start()
        assert rest(reader) == [0, 10]
        assert reader.failure is error
        assert reader.counts.errors == 1


def test_a_bug_reaches_the_consumer() -> None:
    with reader_of(ListDecoder([0], ZeroDivisionError("a bug"))) as reader:
        reader.start()
        assert reader.next() is not None
        with pytest.raises(ZeroDivisionError, match="a bug"):
            reader.next()


def test_realtime_paces_by_timestamps_and_keeps_the_newest() -> None:
    stamps = [index * 1800 for index in range(10)]
    began = time.monotonic()
    with reader_of(ListDecoder(stamps), live=True, realtime=True) as reader:
        reader.start()
        until(lambda: reader.counts.read == 10 and reader.finished is False and reader.counts.dropped == 9)
        newest = reader.latest()
        assert newest is not None
        assert newest.pts == stamps[-1]
        assert newest.arrival_s - began >= 9 * 0.02
        assert reader.latest() is None
        until(lambda: reader.finished)
        assert time.monotonic() - began >= 10 * 0.02


def test_image_ends_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (20, 10)).save(path)
    with SourceReader(Source(id="logo", uri=str(path), loop=True), str(path), 1, 1, live=False) as reader:
        reader.start()
        assert rest(reader) == [0]
        assert reader.endless
        assert reader.finished


def test_close_ends_a_reader_that_waits() -> None:
    reader = reader_of(ListDecoder(list(range(100))))
    reader.start()
    until(lambda: reader.counts.read > QUEUE_DEPTH)
    began = time.monotonic()
    reader.close()
    reader.close()
    assert time.monotonic() - began < 1
    assert reader.next() is None


@contextlib.contextmanager
def silent_server() -> Iterator[tuple[int, threading.Event]]:
    """Accepts connections and never says a word: its port, and whether one was accepted."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[socket.socket] = []
        accepted = threading.Event()

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    held.append(server.accept()[0])
                    accepted.set()

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield server.getsockname()[1], accepted
        finally:
            for connection in held:
                connection.close()


def test_close_returns_while_ffmpeg_waits_for_a_server() -> None:
    with silent_server() as (port, accepted):
        uri = f"tcp://127.0.0.1:{port}"
        reader = SourceReader(Source(id="cam", uri=uri, timeout_s=2), uri, 0, 1, live=True)
        reader.start()
        assert accepted.wait(WAIT_S)
        began = time.monotonic()
        reader.close()
        assert time.monotonic() - began < 1.5


class StreamServer:
    """Serves a growing MPEG-TS stream over HTTP, as a camera would; can be stopped and started."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._server: socket.socket | None = None
        self._open: list[socket.socket] = []
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]

    def start(self) -> None:
        self._server = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._serve, args=(self._server,), daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            with contextlib.suppress(OSError):
                self._server.shutdown(socket.SHUT_RDWR)
            self._server.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self._open.clear()

    def _serve(self, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                self._open.append(connection)
                connection.recv(4096)
                connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: video/mp2t\r\n\r\n" + self._data)


def test_a_server_that_dies_and_comes_back(tmp_path: Path) -> None:
    options = {"g": "10", "tune": "zerolatency", "preset": "veryfast"}
    server = StreamServer(write(tmp_path / "a.ts", 100, options=options).read_bytes())
    uri = f"http://user:hunter2@127.0.0.1:{server.port}/live"
    source = Source(
        id="cam",
        uri=uri,
        timeout_s=2,
        reconnect_s=0.05,
        options={"probesize": 20000, "analyzeduration": 200000},
    )
    try:
        with SourceReader(source, uri, 0, 1, live=True) as reader:
            reader.start()
            server.start()
            until(lambda: reader.counts.read > 50)
            first = reader.latest()
            assert first is not None
            server.stop()
            until(lambda: reader.counts.errors >= 1)
            server.start()
            until(lambda: reader.counts.reconnects == 1)
            seen = reader.counts.read
            until(lambda: reader.counts.read > seen + 20)
            again = reader.latest()
            assert again is not None
            assert again.pts > first.pts
            assert again.y.shape == (96, 160)
            assert not reader.finished
    finally:
        server.stop()
