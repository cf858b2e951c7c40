"""A SourceReader that joins a run which goes on: it holds nobody up, and breaks nothing."""

from __future__ import annotations

import threading

from test_source import WAIT_S, ListDecoder, until

from tiler.config.models import Source
from tiler.decode.source import SourceReader
from tiler.errors import InputError


def test_a_file_that_joins_late_holds_nobody_up_and_tells_why_it_cannot_be_opened() -> None:
    source = Source(id="cam", uri="http://host/a.mp4", realtime=True)
    opening, may_open = threading.Event(), threading.Event()

    def opener(*_: object) -> ListDecoder:
        opening.set()
        assert may_open.wait(WAIT_S)
        raise InputError("source cam: cannot open http://host/a.mp4: 404")

    reader = SourceReader(source, source.uri, 0, 1, live=True, late=True, opener=opener)
    with reader:
        reader.start()
        assert opening.wait(WAIT_S)
        assert reader.latest() is None
        assert not reader.finished
        may_open.set()
        until(lambda: reader.finished)
        assert str(reader.failure) == "decode (cam): source cam: cannot open http://host/a.mp4: 404"
    reader.wait()


def test_whatever_becomes_of_a_source_that_joins_late_is_its_own_affair() -> None:
    source = Source(id="cam", uri="rtsp://host/x")
    broken = ListDecoder([0], KeyError("of all things"))
    with SourceReader(source, source.uri, 0, 1, live=True, late=True, opener=lambda *_: broken) as reader:
        reader.start()
        until(lambda: reader.finished or reader.latest() is not None)
        until(lambda: reader.finished)
        assert reader.latest() is None  # raises nothing
        assert str(reader.failure) == "decode (cam): KeyError: 'of all things'"


def test_a_closed_reader_is_done_when_its_thread_has_ended() -> None:
    may_open = threading.Event()
    late = ListDecoder([0])

    def opener(*_: object) -> ListDecoder:
        assert may_open.wait(WAIT_S)
        return late

    source = Source(id="cam", uri="rtsp://host/x")
    reader = SourceReader(source, source.uri, 0, 1, live=True, late=True, opener=opener)
    reader.wait()  # it never began
    reader.start()
    reader.close()
    threading.Timer(0.05, may_open.set).start()
    reader.wait()
    assert late.closed.is_set()
