"""The preview server: packets in from the run, pages, video and controls out to browsers.

One thread with one asyncio loop does everything here, so nothing in it needs a lock. The outlet around
it (`tiler.output.outlet`) keeps the run from ever waiting: what the loop has not taken in time is dropped
up to the next keyframe.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import struct
import threading
import time
from concurrent.futures import Future
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

from aiohttp import WSCloseCode, WSMsgType, web
from aiohttp.http_exceptions import HttpProcessingError

from tiler.config.models import Config, PreviewConfig
from tiler.config.outputs import webrtc_problem
from tiler.errors import InputError
from tiler.observe.run import RunObserver
from tiler.pipeline import Run
from tiler.preview.access import MAX_BODY_BYTES, Access, Allowance, problem
from tiler.preview.api import Api
from tiler.preview.fragments import Head, fragment, head, media_time
from tiler.preview.recording import Recorder
from tiler.preview.viewers import Audience, Coded, Viewer
from tiler.types import CLOCK_HZ, Packet

_PAGES = {"/": "index.html", "/wall": "wall.html"}
_KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_STALL_S = 20.0
"""How long one message may take to go out before its viewer is sent away."""
_SOCKET_BYTES = 256 << 10
"""Send buffer of a viewer's socket. What lies in there is late and cannot be skipped any more."""
_KEYFRAME_S = 0.5
"""Between two keyframes that clients ask for."""
_CATCH_UP_S = 2.5
"""Pictures that a new viewer decodes at once to be up to date; with more since the last keyframe it gets a new one."""
_CONNECTIONS = 64
"""Open connections beside those of viewers. Sockets are the run's too: its cameras and outputs need some."""
_START_S = 10.0
_JOIN_S = 5.0
_HEADER = struct.Struct("<ddII")
"""In front of each binary message: media time in seconds, Unix time of the tick in ms, flags, pictures skipped."""
_IS_KEY, _IS_HEAD = 1, 2

_log = logging.getLogger(__name__)


class PreviewServer:
    """Serves one run (see `tiler.output.base.Output`)."""

    def __init__(self, config: Config, run: Run, observer: RunObserver, recordings: Path | None) -> None:
        """Listen; the pages are there when this returns.

        Args:
            config: of the run; `preview` must be set.
            run: takes the requests.
            observer: what the run measures.
            recordings: absolute folder for recordings, None for none.

        Raises:
            InputError: the address or port cannot be had.
        """
        assert config.preview is not None
        self._preview: PreviewConfig = config.preview
        self._config = config
        self._observer = observer
        self._audience = Audience(config.preview.max_viewers)
        self._head: Head | None = None
        self._last: tuple[Packet, bytes] | None = None
        self._request_keyframe = run.outputs.request_keyframe
        self._asked_s = 0.0
        self._no_webrtc = _no_webrtc(config)
        self._api = Api(
            config, run.control, run.lineup, observer, self._audience, Recorder(run.outputs, recordings),
            self._keyframe, self._no_webrtc,
        )  # fmt: skip
        self._files = {f"/{name}": data for name, data in _static().items()}
        self._loop, self._stop = asyncio.new_event_loop(), asyncio.Event()
        started: Future[int] = Future()
        self._thread = threading.Thread(target=self._run, args=(started,), name="tiler-preview", daemon=True)
        self._thread.start()
        try:
            self.port = started.result(_START_S)
        except (OSError, OverflowError) as error:
            where = f"{config.preview.host}:{config.preview.port}"
            text = getattr(error, "strerror", None) or str(error)
            raise InputError(f"preview: cannot listen on {where}: {text}") from error

    @property
    def url(self) -> str:
        """Of the page."""
        host = self._preview.host
        shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
        return f"http://{shown}:{self.port}/"

    # The outlet's side

    def write(self, packet: Packet) -> None:
        """See `Output.write`; waits until the loop has handed the packet to every viewer's queue."""
        began_s = self._observer.began_s(packet.pts)
        age_s = 0.0 if began_s is None else time.monotonic() - began_s
        media_s = media_time(packet.pts, 1 / self._config.mosaic.fps) / CLOCK_HZ
        coded = Coded(packet, (time.time() - age_s) * 1000, media_s)
        asyncio.run_coroutine_threadsafe(self._publish(coded), self._loop).result()

    def close(self) -> None:
        """Send everybody away and stop; may be called twice."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_JOIN_S)

    # The loop's side

    def _run(self, started: Future[int]) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._serve(started))
        except Exception as error:
            if started.done():
                raise
            started.set_exception(error)

    async def _serve(self, started: Future[int]) -> None:
        access = Access(self._preview)
        _log.addFilter(_is_ours)
        app = web.Application(middlewares=[access.middleware], client_max_size=MAX_BODY_BYTES)
        app.add_routes(self._api.routes())
        app.add_routes([web.get("/ws/video", self._video), web.post("/session", access.session)])
        app.add_routes([web.get(path, self._page) for path in (*_PAGES, *self._files)])
        if self._no_webrtc is None:
            from tiler.preview.whep import Whep

            whep = Whep(self._audience, 1 / self._config.mosaic.fps, self._keyframe)
            app.add_routes(whep.routes())
            app.on_shutdown.append(lambda _: whep.close())
        runner = web.AppRunner(app, access_log=None, logger=_log, shutdown_timeout=1.0, handle_signals=False)
        most = _CONNECTIONS + self._preview.max_viewers
        try:
            await runner.setup()
            listening = await self._loop.create_server(
                lambda: _Door(runner, most), self._preview.host, self._preview.port, reuse_address=True
            )
        except (OSError, OverflowError) as error:
            await runner.cleanup()
            started.set_exception(error)
            return
        started.set_result(listening.sockets[0].getsockname()[1])
        try:
            await self._stop.wait()
        finally:
            listening.close()
            self._audience.close()
            await runner.cleanup()
            self._api.close()

    def _keyframe(self) -> None:
        """Ask the encoder for one; clients cannot make it work for nothing but keyframes."""
        now_s = time.monotonic()
        if now_s >= self._asked_s + _KEYFRAME_S:
            self._asked_s = now_s
            self._request_keyframe()
        elif now_s >= self._asked_s:  # the one that was asked for may be out already
            self._asked_s += _KEYFRAME_S
            self._loop.call_at(self._loop.time() + self._asked_s - now_s, self._request_keyframe)

    async def _publish(self, coded: Coded) -> None:
        """Hand out what the run has written."""
        if self._head is None and coded.packet.keyframe:
            self._head = head(coded.packet, self._config.mosaic, self._config.encoder.codec)
        self._audience.publish(coded)

    async def _page(self, request: web.Request) -> web.Response:
        name = _PAGES.get(request.path, request.path.removeprefix("/"))
        return web.Response(body=self._files[f"/{name}"], content_type=_KINDS[Path(name).suffix], charset="utf-8")

    async def _video(self, request: web.Request) -> web.StreamResponse:
        """GET /ws/video?form=annexb|fmp4: the stream, from the last keyframe on."""
        form = request.query.get("form")
        if form not in ("annexb", "fmp4"):
            return problem(400, "form: accepted: annexb, fmp4")
        long = len(self._audience.group) > _CATCH_UP_S * self._config.mosaic.fps
        viewer = self._audience.join(late=not long)
        if long:
            self._keyframe()
        if viewer is None:
            return problem(503, f"{self._preview.max_viewers} viewers watch already")
        try:
            ws = web.WebSocketResponse(heartbeat=15, max_msg_size=4096, compress=False)
            await ws.prepare(request)
            if request.transport is not None:
                connection = request.transport.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
            listener = asyncio.create_task(self._listen(ws, viewer))
            try:
                await self._send(ws, viewer, form)
            except (ConnectionError, TimeoutError):
                pass
            finally:
                listener.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await listener
                with contextlib.suppress(ConnectionError, TimeoutError):
                    await asyncio.wait_for(ws.close(code=WSCloseCode.GOING_AWAY), 1)
            return ws
        finally:
            self._audience.leave(viewer)

    async def _send(self, ws: web.WebSocketResponse, viewer: Viewer, form: str) -> None:
        mosaic, greeted = self._config.mosaic, False
        while (coded := await viewer.next()) is not None:
            packet = coded.packet
            if not greeted:
                greeted = True
                assert self._head is not None  # a viewer's first packet is a keyframe
                hello = {"codec": self._head.codec, "width": mosaic.width, "height": mosaic.height,
                         "fps": float(mosaic.fps)}  # fmt: skip
                await ws.send_str(json.dumps({"hello": hello}))
                if form == "fmp4":
                    await ws.send_bytes(_HEADER.pack(0, 0, _IS_HEAD, 0) + self._head.mp4)
            header = _HEADER.pack(coded.media_s, coded.began_ms, _IS_KEY * packet.keyframe, viewer.skipped)
            data = packet.data if form == "annexb" else self._fragment(packet)
            async with asyncio.timeout(_STALL_S):
                await ws.send_bytes(header + data)

    def _fragment(self, packet: Packet) -> bytes:
        """Made once: viewers who keep up ask for the same packet one after the other."""
        if self._last is None or self._last[0] is not packet:
            tick = 1 / self._config.mosaic.fps
            self._last = packet, fragment(packet, self._config.encoder.codec, tick, max(1, packet.dts + 64))
        return self._last[1]

    async def _listen(self, ws: web.WebSocketResponse, viewer: Viewer) -> None:
        """Answer a viewer's questions for the time, and notice that it has gone."""
        questions = Allowance(burst=20, per_s=4)
        async for message in ws:
            if message.type is not WSMsgType.TEXT or not questions.take(""):
                break
            try:
                asked = json.loads(message.data)
            except (ValueError, RecursionError):
                break
            given: Any = asked.get("ping") if isinstance(asked, dict) else None
            if isinstance(given, bool) or not isinstance(given, (int, float)):
                break
            await ws.send_str(json.dumps({"pong": given, "now_ms": time.time() * 1000}))
        viewer.close()


class _Door(asyncio.Protocol):
    """Lets a connection in while there is room."""

    def __init__(self, runner: web.AppRunner, most: int) -> None:
        self._runner, self._most = runner, most

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        server = self._runner.server
        if server is None or len(server.connections) >= self._most:
            transport.close()
            return
        handler = server()
        assert isinstance(transport, asyncio.Transport)
        transport.set_protocol(handler)
        handler.connection_made(transport)


def _is_ours(record: logging.LogRecord) -> bool:
    """Not what a client sent that is no HTTP: anybody could fill the log."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


def _no_webrtc(config: Config) -> str | None:
    """Why WebRTC cannot be used; None when it can."""
    if (refused := webrtc_problem(config.encoder)) is not None:
        return refused
    try:
        import_module("aiortc")
    except ImportError as error:
        return f"aiortc cannot be used ({error}): pip install 'tiler[web]'"
    return None


def _static() -> dict[str, bytes]:
    """The page's files, read once: no request reaches the disk."""
    folder = files("tiler.preview") / "static"
    return {entry.name: entry.read_bytes() for entry in folder.iterdir() if Path(entry.name).suffix in _KINDS}
