"""The preview server without a browser: the stream and the API."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

aiohttp = pytest.importorskip("aiohttp", reason="the web extra is not installed")

import av  # noqa: E402
from click.testing import CliRunner  # noqa: E402
from served import Served, served, write_config  # noqa: E402
from talking import Session, idle_run, pictures, settled, talk  # noqa: E402, F401

from tiler.cli import main  # noqa: E402
from tiler.config.loader import load  # noqa: E402
from tiler.errors import InputError, StageError  # noqa: E402
from tiler.preview import open_preview  # noqa: E402


def test_the_stream_is_the_encoders_packets_from_a_keyframe_on(tmp_path: Path) -> None:
    with served(tmp_path) as run:

        async def test(session: Session) -> None:
            async with session.ws_connect("/ws/video?form=annexb") as video:
                hello = json.loads((await video.receive(timeout=60)).data)["hello"]
                assert hello["codec"].startswith("avc1.")
                assert (hello["width"], hello["height"], hello["fps"]) == (320, 192, 25.0)
                found = await pictures(video, 40)
            assert found[0][1] == 1  # a keyframe
            decoder = av.CodecContext.create("h264", "r")
            frames = [frame for *_, data in found for frame in decoder.decode(av.Packet(data))]  # type: ignore[attr-defined]
            assert len(frames) >= 38
            async with session.ws_connect("/ws/video?form=fmp4") as video:
                parts = [data for *_, data in await pictures(video, 30)]
            assert parts[0][4:8] == b"ftyp"
            (tmp_path / "x.mp4").write_bytes(b"".join(parts))
            with av.open(str(tmp_path / "x.mp4")) as container:
                assert len(list(container.decode(video=0))) == 29

        talk(run, test)


def test_a_viewer_that_does_not_read_holds_nobody_up(tmp_path: Path) -> None:
    """Nor does it keep memory: it is sent away, or goes on at a keyframe."""
    with served(tmp_path, more="duration_s: 60\n") as run:
        stalled = [socket.create_connection(("127.0.0.1", run.server.port)) for _ in range(5)]
        for one in stalled:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one.sendall(
                b"GET /ws/video?form=annexb HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
                b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            )

        async def test(session: Session) -> None:
            await settled(session)
            async with session.ws_connect("/ws/video?form=annexb") as video:
                found = await pictures(video, 75)
            steps = [round((b[0] - a[0]) * 25) for a, b in pairwise(found)]
            assert sum(step - 1 for step in steps) <= run.observer.dropped_ticks  # no gap that is not the run's own
            async with session.get("/api/state") as answer:
                assert (await answer.json())["viewers"] >= 5

        talk(run, test)
        for one in stalled:
            one.close()


def test_who_comes_late_in_a_long_group_gets_a_fresh_keyframe(tmp_path: Path) -> None:
    """Or a browser would have to decode a minute at once."""
    with served(tmp_path, gop_s=60) as run:

        async def test(session: Session) -> None:
            async with session.ws_connect("/ws/video?form=annexb") as video:
                first = await pictures(video, 80)
                async with session.ws_connect("/ws/video?form=annexb") as another:
                    (joined,) = await pictures(another, 1)
            assert [flags for _, flags, _ in first].count(1) == 1
            assert joined[1] == 1
            assert joined[0] > first[-1][0]

        talk(run, test)


def test_a_run_without_preview_loads_nothing_of_it(tmp_path: Path) -> None:
    path = write_config(tmp_path, "duration_s: 1\noutputs: [{file: x.mp4}]\n")
    code = (
        "import sys\nfrom tiler.cli import main\n"
        f"main(['run', {str(path)!r}], standalone_mode=False)\n"
        "print([name for name in sys.modules if name.startswith(('tiler.preview', 'aiohttp', 'aiortc', 'asyncio'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_changes_by_the_api(tmp_path: Path) -> None:
    with served(tmp_path) as run:

        async def change(session: Session, method: str, path: str, body: Any = None) -> dict[str, Any]:
            async with session.request(method, path, json=body) as answer:
                assert answer.status == 200, await answer.text()
                state: dict[str, Any] = await answer.json()
                return state

        async def test(session: Session) -> None:
            state = await settled(session)
            assert [tile["title"] for tile in state["tiles"]] == ["red", "green", "blue", "white"]
            assert {source["state"] for source in state["sources"]} == {"live"}
            assert state["encoder_sessions"] == 1
            state = await change(session, "POST", "/api/tiles/2/promote")
            assert (state["layout"], state["tiles"][0]["source"]) == ("spotlight", "blue")
            state = await change(session, "PUT", "/api/layout", {"layout": "pip"})
            assert state["tiles"][0]["width"] == 320
            state = await change(session, "PATCH", "/api/overlay", {"titles": True})
            assert state["overlay"]["titles"]
            state = await change(session, "PATCH", "/api/sources/green", {"label": "정문", "paused": True})
            assert (state["sources"][1]["title"], state["sources"][1]["paused"]) == ("정문", True)
            state = await change(session, "PATCH", "/api/sources/green", {"label": " "})
            assert state["sources"][1]["title"] == "green"
            async with session.get("/api/snapshot?tile=0&format=jpeg") as answer:
                assert answer.headers["Content-Disposition"] == 'attachment; filename="red.jpg"'
                assert (await answer.read())[:2] == b"\xff\xd8"
            async with session.get("/api/report") as answer:
                assert (await answer.json())["encoder"]["name"] == "libx264"

        talk(run, test)


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "says"),
    [
        ("PUT", "/api/layout", {"json": {"layout": "circle"}}, 400, "layout: Input should be"),
        ("PUT", "/api/layout", {"json": {"layout": "grid", "x": 1}}, 400, "x: Extra inputs"),
        ("PUT", "/api/layout", {"data": b'{"layout": "grid"}'}, 415, "application/json"),
        ("PUT", "/api/layout", {"json": [{"layout": "g" * 40_000}]}, 413, ""),
        ("POST", "/api/tiles/4/promote", {}, 404, "tile 4: there is none"),
        ("POST", "/api/tiles/-1/promote", {}, 400, "expected a number"),
        ("PATCH", "/api/sources/nobody", {"json": {"paused": True}}, 404, "no such source"),
        ("PATCH", "/api/sources/red", {"json": {"label": "x" * 65}}, 400, "label"),
        ("PUT", "/api/recording", {"json": {"recording": True}}, 409, "preview.recordings is not set"),
        ("GET", "/api/snapshot?tile=9", {}, 404, "tile 9"),
        ("GET", "/api/snapshot?format=tiff", {}, 400, "png, jpeg"),
        ("GET", "/ws/video?form=avi", {}, 400, "annexb, fmp4"),
        ("GET", "/static/../../../etc/passwd", {}, 404, ""),
        ("GET", "/%2e%2e/%2e%2e/etc/passwd", {}, 404, ""),
        ("GET", "/server.py", {}, 404, ""),
    ],
)
def test_what_is_refused_and_how(
    idle: Served, method: str, path: str, options: dict[str, Any], status: int, says: str
) -> None:
    async def test(session: Session) -> None:
        async with session.request(method, path, **options) as answer:
            assert answer.status == status
            assert says in await answer.text()

    talk(idle, test)


def test_a_viewer_that_floods_is_sent_away(idle: Served) -> None:
    async def test(session: Session) -> None:
        for said in ('{"ping": 1}', "{", '{"ping": "x"}', "[" * 4000, "x" * 5000):
            async with session.ws_connect("/ws/video?form=annexb", max_msg_size=0) as video:
                for _ in range(40 if said == '{"ping": 1}' else 1):
                    await video.send_str(said)
                while (await video.receive(timeout=20)).type in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT):
                    pass
                assert video.closed

    talk(idle, test)


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    with served(tmp_path) as run:
        path = write_config(tmp_path, f"preview: {{port: {run.server.port}}}\n")
        with pytest.raises(InputError, match=rf"preview: cannot listen on 127\.0\.0\.1:{run.server.port}"):
            open_preview(load(path), run.runner, run.observer)


def test_without_the_extra_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "aiohttp" or name == "tiler.preview.server"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    loaded = load(write_config(tmp_path, "preview: {}\n"))
    with pytest.raises(InputError, match=r"preview: needs aiohttp.*pip install 'tiler\[web\]'"):
        open_preview(loaded, None, None)  # type: ignore[arg-type]


def test_a_recording_is_named_here_and_plays(tmp_path: Path) -> None:
    with served(tmp_path, "{port: 0, recordings: rec}") as run:

        async def test(session: Session) -> None:
            await settled(session)
            async with session.put("/api/recording", json={"recording": True}) as answer:
                name = (await answer.json())["recording"]["file"]
                assert name.startswith("tiler-")
            async with session.ws_connect("/ws/video?form=annexb") as video:
                await pictures(video, 40)
            async with session.put("/api/recording", json={"recording": False}) as answer:
                assert (await answer.json())["recording"]["file"] is None

        talk(run, test)
    (file,) = (tmp_path / "rec").iterdir()
    with av.open(str(file)) as container:
        frames = list(container.decode(video=0))
    assert len(frames) > 20
    assert frames[0].time == 0


def test_clips_and_outputs_by_the_api(tmp_path: Path) -> None:
    async def test(session: Session) -> None:
        state = await settled(session)
        assert state["clip"]
        assert not state["recording"]["possible"]
        outputs = {output["kind"]: output for output in state["outputs"]}
        assert outputs["preview"]["state"] == outputs["clip"]["state"] == "up"
        assert outputs["push"]["state"] == "down"
        async with session.post("/api/clip") as answer:
            assert answer.status == 200
            (name,) = (await answer.json())["files"]
        with av.open(str(tmp_path / name)) as container:
            assert next(container.decode(video=0)).width == 320
        for _ in range(12):
            async with session.post("/api/clip") as answer:
                status = answer.status
        assert status == 429  # a client cannot fill the disk at once

    def run() -> None:
        with served(tmp_path, more="outputs: [{clip: 'clip-{time}.mp4'}, {push: 'tcp://127.0.0.1:9'}]\n") as run:
            talk(run, test)

    with pytest.raises(StageError, match="push tcp://127"):  # nobody listens there
        run()


def test_without_a_clip_output_there_is_none(idle: Served) -> None:
    async def test(session: Session) -> None:
        assert not (await settled(session))["clip"]
        async with session.post("/api/clip") as answer:
            assert answer.status == 409
            assert "no clip is kept" in await answer.text()

    talk(idle, test)


def test_the_preview_command_shows_the_page_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setenv("DISPLAY", ":0")
    path = write_config(tmp_path, "outputs: [{file: x.mp4}]\n")
    command = ["preview", str(path), "--duration", "1", "--set", "preview.port=0"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    assert len(opened) == 1
    assert f"preview: {opened[0]}" in done.stderr
    assert opened[0].startswith("http://127.0.0.1:")
    assert not (tmp_path / "x.mp4").exists()
    CliRunner().invoke(main, [*command, "--no-browser"])
    assert len(opened) == 1
