"""Talking to a preview server, for its tests."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import aiohttp
import pytest
from served import Served, served

HEADER = struct.Struct("<ddII")

Session = Any


def talk(run: Served, test: Callable[[Session], Awaitable[None]], **options: Any) -> None:
    async def connect() -> None:
        options.setdefault("cookie_jar", aiohttp.CookieJar(unsafe=True))  # IP addresses too
        async with aiohttp.ClientSession(f"http://127.0.0.1:{run.server.port}", **options) as session:
            await test(session)

    asyncio.run(connect())


async def pictures(socket: Any, count: int) -> list[tuple[float, int, bytes]]:
    """Time, flags and data of the next pictures."""
    found: list[tuple[float, int, bytes]] = []
    while len(found) < count:
        message = await socket.receive(timeout=20)
        assert message.type in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT), message
        if message.type is aiohttp.WSMsgType.BINARY:
            time_s, _, flags, _ = HEADER.unpack_from(message.data)
            found.append((time_s, flags, message.data[HEADER.size :]))
    return found


async def settled(session: Session) -> dict[str, Any]:
    """The state, once the first picture is there."""
    async with session.ws_connect("/ws/video?form=annexb") as video:
        await pictures(video, 1)
    async with session.get("/api/state") as answer:
        assert answer.status == 200
        state: dict[str, Any] = await answer.json()
        return state


@pytest.fixture(scope="module", name="idle")
def idle_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A run that nobody changes."""
    with served(tmp_path_factory.mktemp("idle")) as run:

        async def test(session: Session) -> None:
            await settled(session)

        talk(run, test)
        yield run
