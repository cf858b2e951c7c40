"""The process that a WHIP push's connection lives in; it is spoken to as `tiler.output.sender` is.

To import aiortc is half a second of work, so it is done only when there is somebody to talk to: a server that is away
is tried every few seconds.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urlsplit

from tiler.output.sender import HEADER, Target, main, outlive, say

if TYPE_CHECKING:
    from tiler.output.whip_session import Session


def _send(source: BinaryIO, report: int) -> None:
    asyncio.run(_push(source, report))


async def _push(source: BinaryIO, report: int) -> None:
    packets = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(packets), source)
    target: Target = json.loads(await packets.readline())
    if await _read(packets) is None:  # the parameter sets are in band
        return
    outlive()
    await _reach(target)
    import aiohttp

    from tiler.output.whip_session import Session

    async with aiohttp.ClientSession() as http:
        session = Session(http, target)
        try:
            await session.connect(report)
            say(report)
            sending = asyncio.ensure_future(_forward(packets, session))
            watching = asyncio.ensure_future(session.watch())
            done, _ = await asyncio.wait((sending, watching), return_when=asyncio.FIRST_COMPLETED)
            for ended in done:
                ended.result()
        finally:
            await session.end()


async def _reach(target: Target) -> None:
    address = urlsplit(target["url"])
    host, port = address.hostname, address.port or (443 if address.scheme == "https" else 80)
    try:
        async with asyncio.timeout(target["connect_s"] - 1):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        raise ConnectionError(f"{host}:{port} does not answer") from None
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno is not None and error.errno > 0 else error.strerror or error
        raise ConnectionError(f"{host}:{port}: {reason}") from error
    writer.close()


async def _forward(packets: asyncio.StreamReader, session: Session) -> None:
    """Until the input ends."""
    while (read := await _read(packets)) is not None:
        await session.put(*read)
    await session.drain()


async def _read(packets: asyncio.StreamReader) -> tuple[bytes, int, int] | None:
    """The next packet, its pts and its kind (see `HEADER`); None at the end."""
    try:
        pts, _, _, kind, size = HEADER.unpack(await packets.readexactly(HEADER.size))
        return await packets.readexactly(size), pts, kind
    except asyncio.IncompleteReadError:
        return None


if __name__ == "__main__":
    main(_send)
