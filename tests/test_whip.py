"""WHIP pushes against a server that decodes what it gets: it is told what it must be, it goes, it comes back."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import beeps
import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("aiortc", reason="the web extra is not installed")

from consumers import free_port
from test_encode import mosaic_of
from test_outputs import command
from test_push import FPS, MOSAIC, Camera, frames_of
from whip_server import WhipServer

from tiler.cli import main
from tiler.config.models import EncoderConfig
from tiler.config.outputs import PushOutput
from tiler.encode.cpu import X264Encoder
from tiler.errors import InputError
from tiler.output.push import PushWriter
from tiler.sound.encoder import SoundEncoder
from tiler.types import CLOCK_HZ, Mosaic

TOKEN = "sesame-open"
GIVEN = "Bearer hunter2"


@pytest.fixture
def port() -> int:
    return free_port()


def url_of(port: int, path: str = "whip/room") -> str:
    return f"whip://127.0.0.1:{port}/{path}"


def psnr(picture: np.ndarray, tick: int) -> float:
    """Of a decoded I420 picture, dB, against the mosaic of a tick."""
    y, u, v = mosaic_of(tick).planes
    wanted = np.concatenate([plane.reshape(-1, 320) for plane in (y, u, v)])
    return float(10 * np.log10(255**2 / max(1e-9, np.mean((picture.astype(float) - wanted) ** 2))))


def until_down(camera: Camera, timeout_s: float) -> None:
    deadline_s = time.monotonic() + timeout_s
    while camera.push.state == "up" or camera.push.error is None:
        assert time.monotonic() < deadline_s
        threading.Event().wait(0.01)


def test_every_picture_arrives_as_the_mosaic_was_and_the_session_is_ended(tmp_path: Path, port: int) -> None:
    with WhipServer(port, tmp_path / "got", authorization=f"Bearer {TOKEN}") as server:
        camera = Camera(tmp_path / "a.mp4", url_of(port), TOKEN, profile="low_latency", quality=10)
        try:
            offer = server.wait("offer")
            pictures = [server.wait("picture") for _ in range(25)]
        finally:
            camera.close()
        assert server.wait("deleted")["authorised"]
    assert offer["type"] == "application/sdp"
    assert "a=candidate:" in offer["sdp"]
    assert "a=end-of-candidates" in offer["sdp"]
    assert "VP8" not in offer["sdp"]
    assert pictures[0]["key"]
    shown = [server.picture(entry["index"]) for entry in pictures]
    first = max(range(camera.frames), key=lambda tick: psnr(shown[0], tick))
    worst = min(psnr(picture, first + index) for index, picture in enumerate(shown))
    print(f"worst of {len(shown)} pictures: {worst:.1f} dB")
    assert worst > 38
    assert camera.push.report()["error"] is None


def test_a_server_that_is_killed_and_comes_back_gets_pictures_within_3_s(tmp_path: Path, port: int) -> None:
    camera = Camera(tmp_path / "a.mp4", url_of(port), profile="low_latency", gop_s=60.0)
    try:
        with WhipServer(port, tmp_path / "got") as server:
            for _ in range(5):
                server.wait("picture")
            went_s = time.monotonic()
        until_down(camera, 6)
        print(f"noticed {time.monotonic() - went_s:.2f} s after the server went")
        with WhipServer(port, tmp_path / "got") as server:
            first = server.wait("picture")
            print(f"pictures {first['s'] - server.since_s:.2f} s after the server's return")
            assert first["s"] - server.since_s < 3.0
            assert first["key"]
            for _ in range(5):
                server.wait("picture")
    finally:
        camera.close()
    assert frames_of(tmp_path / "a.mp4") == camera.frames
    assert camera.file.report()["dropped"] == 0
    assert camera.push.report()["restarts"] == 1
    assert camera.longest_s < 0.5  # a hang would be seconds


def test_a_server_that_reports_nothing_is_asked_and_kept(tmp_path: Path, port: int) -> None:
    with WhipServer(port, tmp_path / "got", quiet=True) as server:
        camera = Camera(tmp_path / "a.mp4", url_of(port), profile="low_latency")
        try:
            first = server.wait("picture")
            while server.wait("picture")["s"] - first["s"] < 5.0:  # beyond what silence is taken for a loss
                pass
        finally:
            camera.close()
    assert camera.push.report()["restarts"] == 0
    assert camera.push.report()["error"] is None


def test_a_picture_that_is_lost_brings_a_keyframe(tmp_path: Path, port: int) -> None:
    with WhipServer(port, tmp_path / "got") as server:
        camera = Camera(tmp_path / "a.mp4", url_of(port), profile="low_latency", gop_s=60.0)
        try:
            assert server.wait("picture")["key"]
            while server.wait("picture")["key"]:  # one more is asked for when the connection is there
                pass
            server.ask_for_a_keyframe()
            asked_s = time.monotonic()
            while not server.wait("picture")["key"]:
                assert time.monotonic() - asked_s < 5
        finally:
            camera.close()


@pytest.mark.parametrize(
    ("user", "token", "authorization"), [("", TOKEN, f"Bearer {TOKEN}"), ("ann:p%40ss@", None, "Basic YW5uOnBAc3M=")]
)
def test_a_redirection_is_followed_with_what_authorises(
    tmp_path: Path, port: int, user: str, token: str | None, authorization: str
) -> None:
    with WhipServer(port, tmp_path / "got", authorization=authorization) as server:
        url = url_of(port, "moved").replace("whip://", f"whip://{user}")
        camera = Camera(tmp_path / "a.mp4", url, token, profile="low_latency")
        try:
            server.wait("picture")
        finally:
            camera.close()
        assert server.wait("deleted")["authorised"]  # at a Location relative to where it was made


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("whip/room", {}, "the server answered 401 Unauthorized"),
        ("whip/hall", {}, "the server answered 404 Not Found"),
        ("whip/room", {"authorization": GIVEN, "answer": "good evening"}, "the server's answer is not one that can be"),
        ("whip/room", {"authorization": GIVEN, "refuse": "video"}, "the server does not take H.264"),
    ],
)
def test_a_server_that_refuses_is_quoted_and_tried_again(
    tmp_path: Path, port: int, path: str, options: dict[str, str], message: str
) -> None:
    with WhipServer(port, tmp_path / "got", **options) as server:
        camera = Camera(tmp_path / "a.mp4", url_of(port, path), "hunter2", profile="low_latency")
        try:
            until_down(camera, 10)
            report = camera.push.report()
            if options.get("refuse"):
                server.wait("deleted")
                server.wait("offer")
        finally:
            camera.close()
    assert report["state"] == "down"
    assert message in report["error"]
    assert "hunter2" not in str(report)
    assert frames_of(tmp_path / "a.mp4") == camera.frames


def test_a_server_that_is_not_there_is_said(tmp_path: Path, port: int) -> None:
    camera = Camera(tmp_path / "a.mp4", url_of(port).replace("whip://", "whip://user:hunter2@"), profile="low_latency")
    try:
        until_down(camera, 10)
        report = camera.push.report()
    finally:
        camera.close()
    assert report["error"] == f"127.0.0.1:{port}: Connection refused"
    assert "hunter2" not in str(report)


def middle_s(seen: list[dict[str, Any]]) -> float:
    """The median time, by the sender's clock, from a flash to the beep that is nearest."""
    begins: dict[str, list[float]] = {"picture": [], "sound": []}
    last_s = {"picture": 0.0, "sound": 0.0}
    for entry in seen:
        kind, at_s = entry["event"], entry.get("at_s")
        if at_s is not None and (entry["luma"] > 120 if kind == "picture" else entry["loudness"] > 0.1):
            begins[kind] += [at_s] if at_s - last_s[kind] > 0.1 else []
            last_s[kind] = at_s
    assert len(begins["picture"]) >= 2
    middle = statistics.median(
        min((beep - flash for beep in begins["sound"]), key=abs) for flash in begins["picture"]
    )
    print(f"sound {middle * 1000:.0f} ms after the pictures")
    return middle


def test_sound_that_leaves_late_is_played_with_its_pictures(tmp_path: Path, port: int) -> None:
    late, seconds = 10, 5
    on = [tick for tick in range(seconds * FPS) if tick % FPS in (15, 16)]
    times = np.arange(seconds * 48_000) / 48_000
    loud = np.isin(np.floor(times * FPS), on) * 0.5 * np.sin(2 * np.pi * 1000 * times)
    sound = SoundEncoder("opus", 64_000)
    pieces = list(sound.add(np.stack([loud, loud]).astype(np.float32), 0))
    grey = np.full((96, 160), 128, np.uint8)
    with (
        WhipServer(port, tmp_path / "got") as server,
        X264Encoder(MOSAIC, EncoderConfig(profile="low_latency"), threads=1) as encoder,
    ):
        pictures = [
            encoder.encode(Mosaic(tick, (np.full((192, 320), 235 if tick in on else 16, np.uint8), grey, grey), (0,)))
            for tick in range(seconds * FPS)
        ]
        writer = PushWriter(PushOutput(push=url_of(port)), MOSAIC, "h264", pictures[0][0], sound.format)
        begin_s = time.monotonic()
        for tick, (packet,) in enumerate(pictures):  # at a camera's pace
            threading.Event().wait(max(0.0, begin_s + tick / FPS - time.monotonic()))
            due = [piece for piece in pieces if piece.pts < (tick - late) * CLOCK_HZ // FPS]
            pieces = pieces[len(due) :]
            writer.write(replace(packet, sound=tuple(due)))
        writer.close()
        assert abs(middle_s(server.until("deleted"))) < 1 / FPS


# Whole runs


def test_opus_sound_goes_along_in_sync(tmp_path: Path, port: int) -> None:
    beeps.write(tmp_path / "a.mp4")
    entry = f"{{push: '{url_of(port)}'}}, {{file: o.mkv}}"
    more = "duration_s: 6\nencoder: {profile: low_latency}"
    config = beeps.text(
        tmp_path, entry, source=", realtime: true, loop: true", audio="codec: opus, bitrate: 64k", more=more
    )
    with WhipServer(port, tmp_path / "got") as server:
        beeps.run(tmp_path, config)
        assert abs(middle_s(server.until("deleted"))) < 2 / beeps.FPS  # a picture waits for the next tick


def test_a_run_pushes_beside_a_file_and_never_shows_the_token(tmp_path: Path, port: int) -> None:
    beeps.write(tmp_path / "a.mp4", codec=None)
    path, report = tmp_path / "c.yaml", tmp_path / "r.json"
    path.write_text(
        "sources: [{id: a, uri: a.mp4, realtime: true, loop: true}]\nmosaic: {width: 320, height: 192, fps: 25}\n"
        f"detector: none\nduration_s: 5\nencoder: {{profile: low_latency}}\noutputs:\n  - {{file: o.mp4}}\n"
        f"  - {{push: '{url_of(port)}', token: {TOKEN}}}\n",
        encoding="utf-8",
    )
    with WhipServer(port, tmp_path / "got", authorization=f"Bearer {TOKEN}") as server:
        done = subprocess.run(
            command(path, "--report", str(report)), capture_output=True, text=True, check=False
        )
        assert server.wait("deleted")["authorised"]
    checked = subprocess.run([*command(path)[:-2], "check", str(path)], capture_output=True, text=True, check=True)
    assert done.returncode == 0, done.stderr
    file, push = json.loads(report.read_text())["outputs"]
    assert push["packets"] > 25
    assert push["error"] is None
    assert frames_of(tmp_path / "o.mp4") == file["packets"] > 100
    assert TOKEN not in done.stdout + done.stderr + report.read_text() + checked.stdout + checked.stderr


def test_without_aiortc_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beeps.write(tmp_path / "a.mp4", codec=None)
    entry = "{push: 'whips://user:hunter2@live.example.com/whip/room'}"
    config = beeps.text(tmp_path, entry, more="encoder: {profile: low_latency}")
    monkeypatch.setitem(sys.modules, "aiortc", None)
    with pytest.raises(InputError) as caught:
        beeps.run(tmp_path, config.replace("audio: {source: a, codec: aac}", ""))
    assert "whips://user:***@live.example.com/whip/room: needs aiortc" in str(caught.value)
    assert "pip install 'tiler[web]'" in str(caught.value)


@pytest.mark.parametrize(
    ("more", "entry", "expected"),
    [
        ("", "{push: 'whip://h/x'}", "outputs[0].push: WebRTC carries no B-frames: set encoder.profile: low_latency"),
        ("encoder: {codec: hevc, profile: low_latency}", "{push: 'whips://h/x'}",
         "outputs[0].push: WebRTC carries H.264 only, and the mosaic is hevc: set encoder.codec: h264"),
        ("", "{push: 'https://h/x'}", "outputs[0].push: a push over HTTP is WHIP: write whip:// for http://, whips://"),
        ("", "{push: 'whip:///x'}", "outputs[0].push: a URL such as whips://host/whip/room is needed"),
        ("", "{push: 'whip://h:99999/x'}", "outputs[0].push: a URL such as whips://host/whip/room is needed"),
        ("", "{push: 'whip://h/x', options: {a: 1}}", "outputs[0].push: WHIP does not go through FFmpeg and takes no"),
        ("", "{push: 'whip://a:hunter2@h/x', token: hunter2}", "outputs[0].push: give `token` or a user and password"),
        ("", "{push: 'rtmp://h/x', token: hunter2}", "outputs[0].push: a token goes with whip:// and whips:// only"),
        ("", "{push: 'whip://h/x', token: 'hunter2 hunter2'}", "outputs[0].token: must be printable ASCII"),
        ("", "{push: 'whip://h/x', token: ['hunter2']}", "outputs[0].token: must be text"),
        ("audio: {source: a}\nencoder: {profile: low_latency}", "{push: 'whip://h/x'}",
         "outputs[0].push: whip cannot carry aac sound; accepted for it: opus (audio.codec is aac)"),
    ],
)  # fmt: skip
def test_what_whip_cannot_be_is_told_before_the_run(tmp_path: Path, more: str, entry: str, expected: str) -> None:
    beeps.write(tmp_path / "a.mp4", 5)
    path = tmp_path / "c.yaml"
    path.write_text(f"{more}\nsources: [{{id: a, uri: a.mp4}}]\noutputs: [{entry}]\n", encoding="utf-8")
    result = CliRunner().invoke(main, ["check", str(path)])
    assert result.exit_code == 2
    assert expected in result.output
    assert "hunter2" not in result.output


def test_a_token_stays_hidden_when_the_list_is_no_list(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    entry = "{push: 'whip://h/x', token: hunter2}"
    for outputs in (entry, f"[[{entry}]]", "hunter2"):
        path.write_text(f"sources: [{{id: a, uri: 'sample://plaza'}}]\noutputs: {outputs}\n", encoding="utf-8")
        result = CliRunner().invoke(main, ["check", str(path)])
        assert result.exit_code == 2
        assert "hunter2" not in result.output
