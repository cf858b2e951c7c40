"""Who may talk to the preview server, and what becomes of the others."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

aiohttp = pytest.importorskip("aiohttp", reason="the web extra is not installed")

from served import Served, served, write_config  # noqa: E402
from talking import Session, idle_run, settled, talk  # noqa: E402, F401

from tiler.config.loader import load  # noqa: E402
from tiler.config.models import is_loopback  # noqa: E402
from tiler.errors import ConfigError  # noqa: E402

TOKEN = "correct horse battery"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:1"}, 200),
        ({"Host": "[::1]:1"}, 200),
        ({"Host": "evil.example"}, 403),  # a name that was made to point here
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_other_web_pages_get_nothing(idle: Served, headers: dict[str, str], status: int) -> None:
    async def test(session: Session) -> None:
        for path in ("/", "/api/state", "/player.js"):
            async with session.get(path, headers=headers) as answer:
                assert answer.status == status
                assert not [name for name in answer.headers if name.startswith("Access-Control")]
                assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        if status != 200:
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await session.ws_connect("/ws/video?form=annexb", headers=headers)

    talk(idle, test)


def test_without_the_token_nobody_gets_anything(tmp_path: Path) -> None:
    with served(tmp_path, f"{{host: 0.0.0.0, port: 0, token: {TOKEN}}}") as run:
        paths = ("/", "/wall", "/player.js", "/style.css", "/openapi.json", "/api/state", "/api/snapshot", "/nothing")

        async def locked(session: Session) -> None:
            for path in paths:
                async with session.get(path) as answer:
                    assert answer.status == 401, path
                    assert "tile" not in (await answer.text()).replace("tiler", "")
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await session.ws_connect("/ws/video?form=annexb")
            async with session.put("/api/layout", json={"layout": "pip"}) as answer:
                assert answer.status == 401
            async with session.post("/whep", data=b"") as answer:
                assert answer.status == 401
            assert run.runner.control.wanted.layout == "configured"

        async def opened(session: Session) -> None:
            await settled(session)
            async with session.get(f"http://127.0.0.1:{run.server.port}/style.css") as answer:
                assert answer.status == 200

        async def by_cookie(session: Session) -> None:
            async with session.get(f"/?token={TOKEN.replace(' ', '+')}", allow_redirects=False) as answer:
                assert (answer.status, answer.headers["Location"]) == (303, "/")
                cookie = answer.headers["Set-Cookie"]
                assert "HttpOnly" in cookie
                assert "SameSite=Strict" in cookie
                assert "horse" not in cookie
            await settled(session)

        async def guessing(session: Session) -> None:
            statuses = []
            for i in range(30):
                async with session.get("/api/state", headers={"Authorization": f"Bearer {i}"}) as answer:
                    statuses.append(answer.status)
            assert set(statuses) == {401, 429}
            assert statuses[-1] == 429

        talk(run, locked)
        talk(run, opened, headers={"Authorization": f"Bearer {TOKEN}"})
        talk(run, by_cookie)
        talk(run, guessing)


def test_too_many_requests_are_refused(tmp_path: Path) -> None:
    with served(tmp_path) as run:

        async def test(session: Session) -> None:
            async def ask() -> int:
                async with session.get("/icon.svg") as answer:
                    return int(answer.status)

            statuses = [status for _ in range(10) for status in await asyncio.gather(*(ask() for _ in range(50)))]
            assert set(statuses) == {200, 429}

        talk(run, test)


def test_an_address_that_others_reach_needs_a_token(tmp_path: Path) -> None:
    for preview, fine in (
        ("{host: 0.0.0.0}", False), ("{host: '::'}", False), ("{host: camera.lan}", False), ("{host: 127.0.0.2}", True),
        ("{host: '::1'}", True), (f"{{host: 0.0.0.0, token: {TOKEN}}}", True),
        ("{host: 0.0.0.0, behind_proxy: true}", True),
    ):  # fmt: skip
        path = write_config(tmp_path, f"preview: {preview}\n")
        if fine:
            assert load(path).config.preview is not None
        else:
            with pytest.raises(ConfigError, match=r"preview\.host: anybody who reaches .* accepted: 127\.0\.0\.1"):
                load(path)
    assert is_loopback("LOCALHOST")
    assert not is_loopback("localhost.evil.example")


def test_the_token_shows_in_no_message(tmp_path: Path) -> None:
    path = write_config(tmp_path, f"preview: {{token: {TOKEN}, host: 0.0.0.0, port: 99999}}\n")
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert "horse" not in str(caught.value)
    path = write_config(tmp_path, "preview: {token: short horse}\n")
    with pytest.raises(ConfigError, match=r"preview\.token") as caught:
        load(path)
    assert "horse" not in str(caught.value)
    path = write_config(tmp_path, f"preview: [{{token: {TOKEN}}}]\n")
    with pytest.raises(ConfigError, match="must be a mapping") as caught:
        load(path)
    assert "horse" not in str(caught.value)
    assert "horse" not in repr(load(write_config(tmp_path, f"preview: {{token: {TOKEN}}}\n")))


def test_whoever_guesses_too_often_is_not_told_when_he_is_right(tmp_path: Path) -> None:
    with served(tmp_path, f"{{port: 0, token: {TOKEN}}}") as run:
        right = {"Authorization": f"Bearer {TOKEN}"}

        async def test(session: Session) -> None:
            async with session.post("/session", data={"token": TOKEN}, allow_redirects=False) as answer:
                assert (answer.status, answer.headers["Location"]) == (303, "/")
            session.cookie_jar.clear()
            for headers, status in ((right, 200), *[({"Authorization": "Bearer wrong"}, 401)] * 10, (right, 429)):
                async with session.get("/api/state", headers=headers) as answer:
                    assert answer.status == status
            async with session.post("/session", data={"token": TOKEN}, allow_redirects=False) as answer:
                assert answer.status == 429
                assert "Set-Cookie" not in answer.headers

        talk(run, test)


@pytest.mark.parametrize(
    "head",
    [
        b"GET /api/state HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: tiler-preview-0=\xff\xfe\r\n",
        b"GET /api/state HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer \xff\xed\xb0\x80\r\n",
        b"GET /api/state HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://[\r\n",
        b"GET /api/state HTTP/1.1\r\nHost: [\r\n",
        b"GET /?token=%ff%00 HTTP/1.1\r\nHost: 127.0.0.1\r\n",
        b"POST /session HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 7\r\n"
        b"Content-Type: a; charset=b\r\n\r\ntoken=\xff",
        b"POST /session HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n",
    ],
)
def test_what_is_no_proper_request_is_refused_quietly(
    tmp_path: Path, head: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with served(tmp_path, f"{{port: 0, token: {TOKEN}}}") as run:
        with socket.create_connection(("127.0.0.1", run.server.port), timeout=20) as one:
            one.sendall(head + b"Connection: close\r\n\r\n")
            answer = b"".join(iter(lambda: one.recv(65536), b""))
        assert answer.split(b" ")[1] in (b"400", b"401", b"403", b"413"), answer
        assert b"horse" not in answer
    assert [record for record in caplog.records if record.name.startswith(("aiohttp", "asyncio"))] == []


def test_more_connections_than_there_is_room_for_are_closed(tmp_path: Path) -> None:
    with served(tmp_path, "{port: 0, max_viewers: 1}") as run:
        opened = [socket.create_connection(("127.0.0.1", run.server.port), timeout=20) for _ in range(80)]
        try:
            assert opened[-1].recv(1) == b""
            opened[0].sendall(b"GET /icon.svg HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            assert opened[0].recv(12) == b"HTTP/1.1 200"
        finally:
            for one in opened:
                one.close()


def test_behind_a_proxy_its_headers_say_who_asks_and_where(tmp_path: Path) -> None:
    with served(tmp_path, f"{{port: 0, behind_proxy: true, token: {TOKEN}}}") as run:
        proxy = {"Host": "wall.example", "X-Forwarded-Proto": "https", "X-Forwarded-For": "6.6.6.6, 2001:db8::1"}

        async def test(session: Session) -> None:
            async with session.get("/", headers=proxy) as answer:
                assert answer.status == 401
            headers = {**proxy, "Origin": "https://wall.example"}
            async with session.post(
                "/session", data={"token": TOKEN}, headers=headers, allow_redirects=False
            ) as answer:
                assert answer.status == 303
                assert "Secure" in answer.headers["Set-Cookie"]
                cookie = answer.headers["Set-Cookie"].partition(";")[0]
            session.cookie_jar.clear()
            headers["Cookie"] = cookie
            async with session.ws_connect("/ws/video?form=annexb", headers=headers) as video:
                assert (await video.receive(timeout=30)).type is aiohttp.WSMsgType.TEXT
            headers["Origin"] = "https://evil.example"
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await session.ws_connect("/ws/video?form=annexb", headers=headers)

        async def guesses(session: Session) -> None:
            async def guess(address: str, token: str) -> int:
                headers = {**proxy, "X-Forwarded-For": f"9.9.9.9, {address}", "Authorization": f"Bearer {token}"}
                async with session.get("/api/state", headers=headers) as answer:
                    return int(answer.status)

            assert [await guess(f"2001:db8:7:7::{i}", "wrong") for i in range(12)] == [401] * 10 + [429] * 2
            assert await guess("2001:db8:7:7::99", TOKEN) == 429  # of the same network
            assert await guess("2001:db8:7:8::1", TOKEN) == 200

        talk(run, test)
        talk(run, guesses)
