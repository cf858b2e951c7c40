"""WebRTC by WHEP: an offer comes by HTTP, and the packets go out over RTP as they are.

RFC 9725 is its publishing twin; WHEP (draft-ietf-wish-whep) is answered in one round: all candidates
are in the answer.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import av
from aiohttp import web
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

from tiler.preview.access import problem
from tiler.preview.viewers import Audience, Viewer
from tiler.rtc import EncodedTrack, packet_of, send
from tiler.types import CLOCK_HZ

_CONNECT_S = 20.0
"""How long a viewer may take from its offer to its first packet."""

_log = logging.getLogger(__name__)


class _Mosaic:
    """The packets that one viewer gets."""

    def __init__(self, viewer: Viewer, tick: Fraction, request_keyframe: Callable[[], None]) -> None:
        self._viewer, self._tick, self._request_keyframe = viewer, tick, request_keyframe
        self._begun = False

    async def take(self) -> av.Packet[Any] | None:
        """See `EncodedTrack`."""
        if not self._begun:
            self._begun = True
            self._viewer.lose()  # what waited while the connection was made
            self._request_keyframe()
        coded = await self._viewer.next()
        if coded is None:
            return None
        packet = coded.packet
        return packet_of(packet.data, round(packet.pts * self._tick * CLOCK_HZ), keyframe=packet.keyframe)


class Whep:
    """Viewers by WebRTC. On the server's loop."""

    def __init__(self, audience: Audience, tick: Fraction, request_keyframe: Callable[[], None]) -> None:
        """
        Args:
            audience: who watches.
            tick: seconds of a tick.
            request_keyframe: makes the next picture an IDR picture.
        """
        self._audience, self._tick, self._request_keyframe = audience, tick, request_keyframe
        self._peers: dict[str, tuple[RTCPeerConnection, Viewer]] = {}

    def routes(self) -> list[web.RouteDef]:
        """For the application."""
        return [web.post("/whep", self._offer), web.delete("/whep/{peer}", self._end)]

    async def close(self) -> None:
        """End every connection."""
        for peer in list(self._peers):
            await self._drop(peer)

    async def _offer(self, request: web.Request) -> web.Response:
        if request.content_type != "application/sdp":
            return problem(415, "expected Content-Type: application/sdp")
        offer = (await request.read()).decode("utf-8", "replace")
        viewer = self._audience.join(late=False)
        if viewer is None:
            return problem(503, "as many viewers as may watch do so already")
        connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        name = secrets.token_urlsafe(16)
        self._peers[name] = connection, viewer

        async def changed() -> None:
            if connection.connectionState in ("failed", "closed"):
                await self._drop(name)

        connection.on("connectionstatechange", changed)
        try:
            mosaic = _Mosaic(viewer, self._tick, self._request_keyframe)
            send(connection, EncodedTrack("video", mosaic.take), "video/H264", self._request_keyframe)
            await connection.setRemoteDescription(RTCSessionDescription(offer, "offer"))
            await connection.setLocalDescription(await connection.createAnswer())
        except Exception as error:  # what aiortc raises for a strange offer has no common base
            _log.info("WHEP offer refused: %s: %s", type(error).__name__, error)
            await self._drop(name)
            return problem(400, "not an offer for one H.264 video")
        asyncio.get_running_loop().call_later(_CONNECT_S, self._check, name)
        return web.Response(
            status=201, text=connection.localDescription.sdp, content_type="application/sdp",
            headers={"Location": f"/whep/{name}"},
        )  # fmt: skip

    async def _end(self, request: web.Request) -> web.Response:
        if request.match_info["peer"] not in self._peers:
            return problem(404, "there is no such session")
        await self._drop(request.match_info["peer"])
        return web.Response(status=200)

    def _check(self, name: str) -> None:
        """A viewer that never came takes nobody's place."""
        if name in self._peers and self._peers[name][0].connectionState != "connected":
            self._closing = asyncio.ensure_future(self._drop(name))

    async def _drop(self, name: str) -> None:
        connection, viewer = self._peers.pop(name, (None, None))
        if viewer is not None:
            self._audience.leave(viewer)
        if connection is not None:
            await connection.close()
