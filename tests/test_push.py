"""Pushed streams against real consumers: they come, they go, they hang; what is beside them never notices."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import av
import pytest
from consumers import SCHEMES, Consumer, free_port
from test_encode import mosaic_of

from tiler.config.models import EncoderConfig, MosaicConfig
from tiler.config.outputs import FileOutput, PushOutput
from tiler.encode.cpu import X264Encoder
from tiler.errors import StageError
from tiler.output.file import FileWriter
from tiler.output.outlet import Outlet, Policy, policy
from tiler.output.push import PushWriter
from tiler.types import Packet

FPS = 25
MOSAIC = MosaicConfig(width=320, height=192, fps=FPS)


class Camera:
    """Encodes in real time, to a file and to one push output, until it is told to stop."""

    def __init__(self, path: Path, url: str, token: str | None = None, **encoder: object) -> None:
        self._encoder = X264Encoder(MOSAIC, EncoderConfig.model_validate({"gop_s": 60.0, **encoder}), threads=1)
        file = FileWriter(FileOutput(file=path.name), path, MOSAIC, "h264", overwrite=True)
        self.file = Outlet("file", str(path), file, Policy(64, lossless=True))
        self.push = Outlet(
            "push", url, None, policy(live=True, network=True, fps=MOSAIC.fps),
            reopen=lambda sample: PushWriter(PushOutput(push=url, token=token), MOSAIC, "h264", sample,
                                             request_keyframe=self._encoder.request_keyframe),
            request_keyframe=self._encoder.request_keyframe,
        )  # fmt: skip
        self.frames, self.longest_s = 0, 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        begin_s = time.monotonic()
        while not self._stop.wait(max(0.0, begin_s + self.frames / FPS - time.monotonic())):
            self._deliver(self._encoder.encode(mosaic_of(self.frames)))
            self.frames += 1
        self._deliver(self._encoder.flush())

    def _deliver(self, packets: list[Packet]) -> None:
        began_s = time.monotonic()
        for packet in packets:
            self.push.put(packet)
        self.longest_s = max(self.longest_s, time.monotonic() - began_s)
        for packet in packets:
            self.file.put(packet)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        for outlet in (self.push, self.file):
            outlet.close()


@pytest.fixture
def port() -> int:
    return free_port()


def write_many(writer: PushWriter, packet: Packet) -> None:
    for _ in range(100):
        writer.write(packet)


def frames_of(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


@pytest.mark.parametrize("profile", ["low_latency", "quality"])
@pytest.mark.parametrize("scheme", ["rtmp", "rtsp", "tcp", "udp"])
def test_a_consumer_that_is_killed_and_comes_back_gets_pictures_within_3_s(
    tmp_path: Path, port: int, scheme: str, profile: str
) -> None:
    # Whom nobody hears cannot have a keyframe asked for: over UDP it comes with the next group.
    encoder = {"profile": profile, **({"gop_s": 1.0} if scheme == "udp" else {})}
    camera = Camera(tmp_path / "a.mp4", SCHEMES[scheme][0].format(port), **encoder)
    try:
        with Consumer(scheme, port) as consumer:
            for _ in range(5):
                consumer.frame()
        if scheme != "udp":
            deadline_s = time.monotonic() + 10
            while camera.push.state == "up":
                assert time.monotonic() < deadline_s
                threading.Event().wait(0.01)
        with Consumer(scheme, port) as consumer:
            assert consumer.frame() - consumer.since_s < 3.0
            for _ in range(5):
                consumer.frame()
    finally:
        camera.close()
    assert frames_of(tmp_path / "a.mp4") == camera.frames
    assert camera.file.report()["dropped"] == 0
    assert camera.push.report()["restarts"] == (0 if scheme == "udp" else 1)
    assert camera.longest_s < 0.5  # a hang would be seconds


def test_a_server_that_takes_nothing_is_cut_off_and_holds_nobody_up(tmp_path: Path, port: int) -> None:
    with socket.create_server(("127.0.0.1", port)) as listener:  # it accepts, and reads nothing
        camera = Camera(tmp_path / "a.mp4", f"rtmp://127.0.0.1:{port}/live/x")
        try:
            connection, _ = listener.accept()
            began_s = time.monotonic()
        finally:
            camera.close()
        assert time.monotonic() - began_s < 6
        connection.close()
    assert camera.longest_s < 0.5  # a hang would be seconds
    assert frames_of(tmp_path / "a.mp4") == camera.frames


def test_a_connection_that_fills_up_is_given_up(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    monkeypatch.setattr("tiler.output.push._STALL_S", 0.5)
    with socket.create_server(("127.0.0.1", port)) as listener:
        with X264Encoder(MOSAIC, EncoderConfig(profile="low_latency"), threads=1) as encoder:
            sample = encoder.encode(mosaic_of(0))[0]
        writer = PushWriter(PushOutput(push=f"tcp://127.0.0.1:{port}"), MOSAIC, "h264", sample)
        connection, _ = listener.accept()
        big = Packet(sample.data + b"\0" * 1_000_000, 0, 0, True)
        with pytest.raises(StageError, match=r"has taken nothing for 0\.5 s"):
            write_many(writer, big)
        began_s = time.monotonic()
        writer.close()
        assert time.monotonic() - began_s < 1
        connection.close()


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("rtmp://user:secret@127.0.0.1:{}/live/x", {}, "Connection refused"),
        ("rtsp://127.0.0.1:{}/x", {"no_such_option": 1}, "Connection refused|no_such_option"),
        ("rtmp://no.such.host.invalid/live", {}, "error|Error"),
    ],
)
def test_what_cannot_be_reached_is_said_without_secrets(
    port: int, url: str, options: dict[str, str | int | float], message: str
) -> None:
    with X264Encoder(MOSAIC, EncoderConfig(profile="low_latency"), threads=1) as encoder:
        sample = encoder.encode(mosaic_of(0))[0]
    output = PushOutput(push=url.format(port), options=options)
    outlet = Outlet("push", output.push, None, policy(live=True, network=True, fps=MOSAIC.fps),
                    reopen=lambda first: PushWriter(output, MOSAIC, "h264", first))  # fmt: skip
    outlet.put(sample)
    deadline_s = time.monotonic() + 15
    while outlet.error is None:
        assert time.monotonic() < deadline_s
        threading.Event().wait(0.01)
    report = outlet.report()
    outlet.close()
    assert report["state"] == "down"
    assert any(word in str(report["error"]) for word in message.split("|"))
    assert "secret" not in str(report)
