"""A WHIP server that decodes what it gets, in a process of its own, that can be killed."""

from __future__ import annotations

import asyncio
import json
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Self

import numpy as np


class WhipServer:
    """Listens from now on; every picture that it decodes is a file, every event a line."""

    def __init__(self, port: int, folder: Path, **options: Any) -> None:
        """
        Args:
            port: to listen on; WHIP is at /whip/room, and /moved redirects there.
            folder: for the pictures, (288, 320) uint8 I420 as N.npy.
            options: `authorization`: the only one that is taken; `quiet`: never sends a report; `answer`: what a POST
                is answered; `refuse`: a kind of media that is not taken.
        """
        self._folder = folder
        folder.mkdir(exist_ok=True)
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(port), str(folder), json.dumps(options)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        self._lines: queue.Queue[dict[str, Any]] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.wait("listening")
        self.since_s = time.monotonic()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(json.loads(line))

    def wait(self, event: str, timeout_s: float = 20.0) -> dict[str, Any]:
        """The next event of a kind; those before it are forgotten.

        Raises:
            queue.Empty: nothing happened for so long.
        """
        return self.until(event, timeout_s)[-1]

    def until(self, event: str, timeout_s: float = 20.0) -> list[dict[str, Any]]:
        """All events up to the next of a kind.

        Raises:
            queue.Empty: nothing happened for so long.
        """
        lines = [self._lines.get(timeout=timeout_s)]
        while lines[-1]["event"] != event:
            lines.append(self._lines.get(timeout=timeout_s))
        return lines

    def picture(self, index: int) -> np.ndarray:
        """What was decoded, (288, 320) uint8."""
        picture: np.ndarray = np.load(self._folder / f"{index}.npy")
        return picture

    def ask_for_a_keyframe(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def _say(event: str, **more: Any) -> None:
    print(json.dumps({"event": event, "s": time.monotonic(), **more}), flush=True)


async def _serve(port: int, folder: Path, options: dict[str, Any]) -> None:
    from aiohttp import web
    from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
    from aiortc.rtcrtpreceiver import RTCRtpReceiver

    sessions: dict[str, Any] = {}
    if options.get("quiet"):
        RTCRtpReceiver._send_rtcp = _nothing  # type: ignore[method-assign, assignment]

    def authorised(request: web.Request) -> bool:
        return request.headers.get("Authorization") == options.get("authorization")

    async def offer(request: web.Request) -> web.Response:
        if not authorised(request):
            return web.Response(status=401)
        sdp = (await request.read()).decode()
        _say("offer", type=request.content_type, sdp=sdp)
        if "answer" in options:
            return web.Response(status=201, text=options["answer"], content_type="application/sdp")
        connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        name = str(len(sessions))
        sessions[name] = connection
        connection.on("track", lambda track: asyncio.ensure_future(_receive(connection, track, folder)))
        await connection.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
        await connection.setLocalDescription(await connection.createAnswer())
        answer = connection.localDescription.sdp
        if "refuse" in options:
            kind, _, rest = answer.partition(f"m={options['refuse']} ")
            answer = f"{kind}m={options['refuse']} 0 {rest.partition(' ')[2]}"
        return web.Response(status=201, text=answer, content_type="application/sdp",
                            headers={"Location": f"../session/{name}"})

    async def moved(request: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": "/whip/room"})

    async def delete(request: web.Request) -> web.Response:
        _say("deleted", session=request.match_info["name"], authorised=authorised(request))
        await sessions[request.match_info["name"]].close()
        return web.Response(status=200)

    async def listen() -> None:
        loop = asyncio.get_running_loop()
        while await loop.run_in_executor(None, sys.stdin.readline):
            for connection in sessions.values():
                for receiver in connection.getReceivers():
                    for source in receiver.getSynchronizationSources():
                        await receiver._send_rtcp_pli(source.source)

    app = web.Application()
    app.add_routes([web.post("/whip/room", offer), web.post("/moved", moved), web.delete("/session/{name}", delete)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    _say("listening")
    await listen()


async def _receive(connection: Any, track: Any, folder: Path) -> None:
    """Say what a track brings; `at_s` is the sender's clock, the same for all tracks, once its reports have told it."""
    from aiortc import RTCRtpReceiver
    from aiortc.mediastreams import MediaStreamError
    from aiortc.rtp import RtcpSrPacket

    receiver: RTCRtpReceiver = next(r for r in connection.getReceivers() if r.track is track)
    handle, reported = receiver._handle_rtcp_packet, []

    async def note(packet: Any) -> None:
        if isinstance(packet, RtcpSrPacket):
            reported[:] = [(packet.sender_info.ntp_timestamp / 2**32, packet.sender_info.rtp_timestamp)]
        await handle(packet)

    receiver._handle_rtcp_packet = note  # type: ignore[method-assign]
    index = 0
    while True:
        try:
            frame = await track.recv()
        except MediaStreamError:
            return
        at_s = None
        if reported:
            ntp_s, stamp = reported[0]
            first = receiver._RTCRtpReceiver__timestamp_mapper._origin  # type: ignore[attr-defined]
            behind = (frame.pts + first - stamp + 2**31) % 2**32 - 2**31
            at_s = ntp_s + float(behind * frame.time_base)
        if track.kind == "video":
            picture = frame.to_ndarray(format="yuv420p")
            np.save(folder / f"{index}.npy", picture)
            luma = float(picture[: frame.height].mean())
            _say("picture", index=index, key=bool(frame.key_frame), at_s=at_s, luma=luma)
        else:
            _say("sound", at_s=at_s, loudness=float(np.abs(frame.to_ndarray() / 32768.0).max()))
        index += 1


async def _nothing(*_: Any) -> None:
    pass


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])))
