"""WHIP pushes against a server that decodes what it gets: it is told what it must be, it goes, it comes back."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("aiortc", reason="the web extra is not installed")

from consumers import free_port
from test_encode import mosaic_of
from test_push import Camera, frames_of
from whip_server import WhipServer

TOKEN = "sesame-open"


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
    with WhipServer(port, tmp_path / "got", token=TOKEN) as server:
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
