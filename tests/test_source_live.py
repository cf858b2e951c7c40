"""SourceReader on a live source: lost, asked for again, back, given up."""

from __future__ import annotations

import logging
import threading
from types import SimpleNamespace

import pytest
from test_source import ListDecoder, reader_of, until

import tiler.decode.source as source_module
from tiler.decode.base import UndecodableError
from tiler.decode.source import SourceReader
from tiler.errors import InputError, StageError
from tiler.types import Frame


def test_live_source_reconnects_and_keeps_its_clock(caplog: pytest.LogCaptureFixture) -> None:
    lost = StageError("decode", "connection reset", stream="cam")
    refused = InputError("refused")
    attempts = [ListDecoder([0, 3600], lost), refused, refused, ListDecoder([0, 3600], lost)]
    uri = "rtsp://admin:hunter2@camera/main"
    with (
        caplog.at_level(logging.INFO, "tiler.decode.source"),
        reader_of(*attempts, refused, live=True, uri=uri, reconnect_s=0.02) as reader,
    ):
        reader.start()
        until(lambda: reader.counts.reconnects == 1 and reader.counts.errors == 2)
        newest = reader.latest()
        assert newest is not None
        assert newest.pts > 3600
        assert reader.failure is None
        assert not reader.finished
    outages = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(outages) == 1
    assert "connection reset" in outages[0]
    assert "hunter2" not in caplog.text


class Waits(threading.Event):
    """Stands in for a reader's stop: writes down how long it would wait, and ends it after so many times."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.asked: list[float | None] = []
        self._count = count

    def wait(self, timeout: float | None = None) -> bool:
        self.asked.append(timeout)
        if len(self.asked) == self._count:
            self.set()
        return self.is_set()


def waits_of(reader: SourceReader, count: int) -> list[float | None]:
    """How long a reader waits between its attempts."""
    reader._stop = waits = Waits(count)
    reader.start()
    reader.wait()
    return waits.asked


def test_live_source_that_comes_and_goes_is_asked_less_and_less_often_and_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    decoders = [ListDecoder([0], StageError("decode", "connection reset")) for _ in range(12)]
    with caplog.at_level(logging.INFO), reader_of(*decoders, live=True, uri="rtsp://cam/main", reconnect_s=1) as reader:
        waits = waits_of(reader, 12)
        assert waits[:4] == [1, 1.5, 2.25, 3.375]
        assert waits[-1] == 30
        assert (reader.counts.read, reader.counts.reconnects, reader.counts.errors) == (12, 11, 12)
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_snapshot_is_asked_for_as_often_as_the_config_says() -> None:
    """A server that gives a picture and ends the connection by itself is well."""
    decoders = [ListDecoder([0]) for _ in range(6)]
    with reader_of(*decoders, live=True, uri="http://cam/jpg", reconnect_s=2) as reader:
        assert waits_of(reader, 6) == [2] * 6


def test_live_source_is_back_when_it_has_given_pictures_for_some_seconds(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now_s = 0.0

    class SlowDecoder(ListDecoder):
        def read(self) -> Frame | None:
            nonlocal now_s
            now_s += 2
            return super().read()

    monkeypatch.setattr(source_module, "time", SimpleNamespace(monotonic=lambda: now_s))
    brief, steady = [0], [0, 180_000, 360_000, 540_000]
    broken = StageError("decode", "connection reset")
    decoders = [SlowDecoder(stamps, broken) for stamps in (brief, brief, steady, brief)]
    with caplog.at_level(logging.INFO), reader_of(*decoders, live=True, uri="rtsp://cam/main", reconnect_s=1) as reader:
        assert waits_of(reader, 4) == [1, 1.5, 1, 1.5]
    assert [record.message.split(" (")[0] for record in caplog.records] == [
        "stream cam: lost", "stream cam: back", "stream cam: lost",
    ]  # fmt: skip


def test_live_source_that_is_not_there_yet_is_no_error() -> None:
    attempts = [InputError("refused"), InputError("refused"), ListDecoder([0])]
    with reader_of(*attempts, live=True, uri="udp://127.0.0.1:5000", reconnect_s=0.02) as reader:
        assert reader.info is None
        reader.start()
        until(lambda: reader.latest() is not None)
        assert reader.counts.reconnects == 0
        assert reader.info is not None


def test_live_source_that_nothing_may_decode_is_given_up_and_says_why() -> None:
    never = UndecodableError("source cam: the GPU does not decode it; list decode in allow_cpu")
    with reader_of(never, ListDecoder([0]), live=True, uri="rtsp://camera/main", reconnect_s=0.02) as reader:
        reader.start()
        until(lambda: reader.finished)
        assert "list decode in allow_cpu" in str(reader.failure)
        assert reader.latest() is None
