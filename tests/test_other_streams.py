"""What becomes of a source when its video stops and the other streams beside it go on."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import beeps
import pytest
from pictures import write
from reading import decode
from test_source import WAIT_S, until

from tiler.config.models import Source
from tiler.decode.source import SourceReader
from tiler.sound.demux import SoundInput


@contextlib.contextmanager
def trickle(path: Path, at_once: int) -> Iterator[str]:
    """Serves a transport stream to everybody who connects: the first bytes at once, the rest over minutes; its URL."""
    data = path.read_bytes()
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def send(connection: socket.socket) -> None:
            with contextlib.suppress(OSError), connection:
                connection.sendall(data[:at_once])
                for at in range(at_once, len(data), 188):
                    if ended.wait(0.02):
                        return
                    connection.sendall(data[at : at + 188])

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=send, args=(server.accept()[0],), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield f"tcp://127.0.0.1:{server.getsockname()[1]}"
        finally:
            ended.set()


def source_of(uri: str, timeout_s: float) -> Source:
    options: dict[str, str | int | float] = {"format": "mpegts", "probesize": 60_000, "analyzeduration": 500_000}
    return Source(id="cam", uri=uri, timeout_s=timeout_s, reconnect_s=0.02, options=options)


@pytest.fixture(scope="module")
def stops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second of video, five minutes of sound."""
    return beeps.write(tmp_path_factory.mktemp("stops") / "a.ts", 25, sound_s=300)


def test_a_live_video_that_stops_is_an_outage_whatever_else_goes_on(stops: Path) -> None:
    with trickle(stops, 100_000) as uri, SourceReader(source_of(uri, 0.5), uri, 0, 1, live=True) as reader:
        reader.start()
        until(lambda: reader.counts.reconnects >= 1)
        until(lambda: "no video within 0.5 s (timeout_s), while other streams go on" in str(reader.outage))
        assert reader.failure is None


def test_a_live_video_that_stops_can_be_closed_whatever_else_goes_on(stops: Path) -> None:
    with trickle(stops, 100_000) as uri:
        reader = SourceReader(source_of(uri, 60), uri, 0, 1, live=True)
        reader.start()
        until(lambda: reader.counts.read >= 20)
        reader.close()
        waiting = threading.Thread(target=reader.wait, daemon=True)
        waiting.start()
        waiting.join(WAIT_S)
        assert not waiting.is_alive()


def test_the_sound_of_a_live_source_is_read_beside_its_pictures(stops: Path) -> None:
    with trickle(stops, 100_000) as uri, SoundInput(source_of(uri, 5), uri) as sound:
        packets = sound.packets()
        kinds = {next(packets).stream.type for _ in range(60)}
        assert kinds == {"audio", "video"}


def test_a_video_that_goes_on_under_another_pid_is_told_and_can_be_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.ts"
    for pid in ("256", "300"):
        part = write(tmp_path / f"{pid}.ts", 200, options={"bf": "0"}, mux={"mpegts_start_pid": pid})
        with path.open("ab") as joined:
            joined.write(part.read_bytes())
    with caplog.at_level(logging.WARNING, "tiler.decode"):
        assert len(decode(path)) == 200
    (told,) = [record.message for record in caplog.records]
    assert told.startswith(f"stream cam: the video of {path} ends, and other streams of it go on for 8 s; ")
    assert "options: {merge_pmt_versions: 1}" in told
    assert len(decode(path, options={"merge_pmt_versions": 1})) > 390


@pytest.mark.parametrize("suffix", ["mp4", "ts", "mkv"])
@pytest.mark.parametrize(("sound_s", "told"), [(2.5, 0), (9.0, 1)])
def test_sound_that_goes_on_for_long_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, suffix: str, sound_s: float, told: int
) -> None:
    path = beeps.write(tmp_path / f"a.{suffix}", 50, sound_s=sound_s)
    with caplog.at_level(logging.WARNING, "tiler.decode"):
        assert len(decode(path)) == 50
    assert len(caplog.records) == told
    assert all("go on for 7 s" in record.message for record in caplog.records)
