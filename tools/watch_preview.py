"""20 viewers of a preview, 15 who read and 5 who do not, for `tools.bench_preview`; imports little, to be there soon.

    python tools/watch_preview.py http://127.0.0.1:8787/

Says `connected`, ends with a line on standard input, and then says how many pictures each reader got.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys

import aiohttp

READING, STALLED = 15, 5


async def _read(session: aiohttp.ClientSession, url: str) -> int:
    count = 0
    try:
        async with session.ws_connect(f"{url}ws/video?form=fmp4", max_msg_size=0) as video:
            async for _ in video:
                count += 1
    except asyncio.CancelledError:
        return count
    raise SystemExit("a viewer who reads was sent away")


def _stalled(url: str) -> socket.socket:
    host, port = url.split("/")[2].split(":")
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    one.connect((host, int(port)))
    one.sendall(
        f"GET /ws/video?form=annexb HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    return one


async def main(url: str) -> None:
    stalled = [_stalled(url) for _ in range(STALLED)]
    async with aiohttp.ClientSession() as session:
        tasks = [asyncio.create_task(_read(session, url)) for _ in range(READING)]
        await asyncio.sleep(1)
        print("connected", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        for task in tasks:
            task.cancel()
        print(*await asyncio.gather(*tasks))
    for one in stalled:
        one.close()


if __name__ == "__main__":
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))  # behind the run, whose priority it would inherit
    asyncio.run(main(sys.argv[1]))
