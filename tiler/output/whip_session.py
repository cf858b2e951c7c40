"""A WHIP session (RFC 9725): the offer, with all candidates, goes out by one POST; a DELETE ends what came of it.

FFmpeg's own WHIP muxer is not used: see docs/adr/010. WebRTC notices that the other side is gone when its consent
expires, after 30 s (RFC 7675); here it is asked when it has said nothing for a while.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import re
from collections.abc import Callable
from typing import Any, NoReturn
from urllib.parse import unquote, urljoin, urlsplit

import aiohttp
import av
from aioice.stun import TransactionError
from aiortc import RTCBundlePolicy, RTCConfiguration, RTCPeerConnection, RTCRtpSender, RTCSessionDescription
from aiortc.clock import current_ntp_time
from aiortc.stats import RTCTransportStats

from tiler.output.sender import SOUND, Target, say
from tiler.rtc import EncodedTrack, packet_of, report_times, send

_MAX_REDIRECTS = 5
_MAX_ANSWER_BYTES = 1 << 16
_END_S = 1.0
_LISTEN_S = 0.5
_SILENT_S = 2.0
"""Servers report what they received about once a second."""
_KEYFRAMES_S = 1.0
"""How often the other side may have a keyframe: one that lost a picture asks until it has come."""


class Session:
    """One WHIP session."""

    def __init__(self, http: aiohttp.ClientSession, target: Target) -> None:
        self._http, self._target = http, target
        self._endpoint, self._headers = _authorised(target)
        self._session: str | None = None
        # The machine's own addresses are enough towards a server, which answers where packets come from.
        self._connection = RTCPeerConnection(RTCConfiguration(iceServers=[], bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))
        self._queues: dict[int, asyncio.Queue[av.Packet[Any] | None]] = {}
        self._state = asyncio.Event()
        self._asked_s = 0.0
        self._began: int | None = None  # NTP time of pts 0
        self._doing = "the server has not answered"

    async def connect(self, report: int) -> None:
        """Make the session.

        Raises:
            ConnectionError: the server refuses, with its reason, or cannot be reached.
        """
        connect_s = self._target["connect_s"] - 2 * _END_S  # the parent waits no longer; what was begun must be ended
        try:
            async with asyncio.timeout(connect_s):
                await self._connect(report)
        except TimeoutError:
            raise ConnectionError(f"no connection within {connect_s:g} s: {self._doing}") from None

    async def _connect(self, report: int) -> None:
        def request_keyframe() -> None:
            now_s = asyncio.get_running_loop().time()
            if now_s - self._asked_s >= _KEYFRAMES_S:
                self._asked_s = now_s
                say(report, keyframe=True)

        self._video = self._add("video", 0, "video/H264", request_keyframe)
        if self._target["sound"]:
            _check_sound(base64.b64decode(self._target["sound"]))
            self._add("audio", SOUND, "audio/opus")
        self._connection.on("connectionstatechange", self._state.set)
        await self._connection.setLocalDescription(await self._connection.createOffer())
        if "a=candidate:" not in self._connection.localDescription.sdp:
            raise ConnectionError("this machine has no network address but its own loopback, which WebRTC does not use")
        answer = await self._offer(self._connection.localDescription.sdp)
        for kind, port in re.findall(r"^m=(\w+) (\d+) ", answer, re.MULTILINE):
            if port == "0":
                raise ConnectionError(f"the server does not take {'Opus sound' if kind == 'audio' else 'H.264'}")
        try:
            await self._connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        except Exception as error:  # what aiortc raises for a strange answer has no common base
            raise ConnectionError(f"the server's answer is not one that can be used: {error}") from error
        self._doing = "no packet has come through to the server and back (UDP)"
        while (state := self._connection.connectionState) != "connected":
            if state in ("failed", "closed"):
                raise ConnectionError(f"the WebRTC connection {state}")
            self._state.clear()
            await self._state.wait()

    def _add(
        self, kind: str, key: int, codec: str, request_keyframe: Callable[[], None] = lambda: None
    ) -> RTCRtpSender:
        # What waits for a connection that is slow waits before it comes in here.
        queue = self._queues[key] = asyncio.Queue(1)
        track = EncodedTrack(kind, queue.get)
        sender = send(self._connection, track, codec, request_keyframe)
        report_times(sender, track, lambda: self._began)
        return sender

    async def _offer(self, offer: str) -> str:
        """POST the offer where the server wants it; returns the answer."""
        url = self._endpoint
        headers = {**self._headers, "Content-Type": "application/sdp"}
        for _ in range(_MAX_REDIRECTS + 1):
            async with self._http.post(url, data=offer, headers=headers, allow_redirects=False) as answer:
                location = answer.headers.get("Location")
                if answer.status in (307, 308) and location:
                    url = _led(url, location)
                    continue
                if answer.status != 201:
                    raise ConnectionError(f"the server answered {answer.status} {answer.reason}, not 201 Created")
                self._session = _led(url, location) if location else None
                return (await answer.content.read(_MAX_ANSWER_BYTES)).decode("utf-8", "replace")
        raise ConnectionError(f"more than {_MAX_REDIRECTS} redirections")

    async def put(self, data: bytes, pts: int, kind: int) -> None:
        """Send a packet; waits while others wait.

        Args:
            data, pts: see `packet_of`.
            kind: as in `HEADER`.
        """
        if self._began is None:
            self._began = current_ntp_time()
        await self._queues[SOUND if kind == SOUND else 0].put(packet_of(data, pts, keyframe=bool(kind)))

    async def drain(self) -> None:
        """No more packets will come; returns when the last has been sent."""
        for queue in self._queues.values():
            await queue.put(None)

    async def watch(self) -> NoReturn:
        """Until the connection is lost.

        Raises:
            ConnectionError: it is.
        """
        loop = asyncio.get_running_loop()
        heard, heard_s = -1, loop.time()
        while True:
            self._state.clear()
            if self._connection.connectionState != "connected":
                raise ConnectionError("the server has ended the connection")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._state.wait(), _LISTEN_S)
            received = await _received(self._video)
            if received != heard:
                heard, heard_s = received, loop.time()
            elif loop.time() - heard_s >= _SILENT_S:
                await _ask(self._video)
                heard_s = loop.time() + _SILENT_S  # RFC 7675: not more often than every 4 s

    async def end(self) -> None:
        """End the session at both sides, as far as there is one; never fails."""
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with asyncio.timeout(_END_S):
                if self._session is not None:
                    async with self._http.delete(self._session, headers=self._headers, allow_redirects=False):
                        pass
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_S):
                await self._connection.close()


def _authorised(target: Target) -> tuple[str, dict[str, str]]:
    """The URL without a user, and the headers that every request of the session has."""
    address = urlsplit(target["url"])
    headers = {}
    if target["token"]:
        headers["Authorization"] = f"Bearer {target['token']}"
    elif address.username is not None:
        user = aiohttp.BasicAuth(unquote(address.username), unquote(address.password or ""))
        headers["Authorization"] = user.encode()
    return address._replace(netloc=address.netloc.rpartition("@")[2]).geturl(), headers


def _led(url: str, location: str) -> str:
    """Where a Location leads from `url`; the headers go along, as RFC 9725 has it, and so https stays https.

    >>> _led("https://a.example/whip/room", "http://b.example/session/1")
    'https://b.example/session/1'
    >>> _led("http://a.example/whip/room", "../session/1")
    'http://a.example/session/1'
    """
    after = urlsplit(urljoin(url, location))
    return (after._replace(scheme="https") if urlsplit(url).scheme == "https" else after).geturl()


def _check_sound(header: bytes) -> None:
    with av.open(io.BytesIO(header)) as parameters:
        channels = parameters.streams.audio[0].codec_context.layout.nb_channels
    if channels > 2:
        raise ConnectionError(f"WebRTC carries mono and stereo, and the sound has {channels} channels")


async def _received(sender: RTCRtpSender) -> int:
    """Datagrams of RTCP and DTLS that have come."""
    stats = await sender.getStats()
    return sum(entry.packetsReceived for entry in stats.values() if isinstance(entry, RTCTransportStats))


async def _ask(sender: RTCRtpSender) -> None:
    """Ask the other side, by STUN, whether it is there; twice, in 1.5 s."""
    ice = sender.transport.transport._connection
    assert ice.remote_password is not None
    for pair in list(ice._nominated.values()):
        request, key = ice.build_request(pair, nominate=False), ice.remote_password.encode()
        try:
            await pair.protocol.request(request, pair.remote_addr, integrity_key=key, retransmissions=1)
        except TransactionError:
            raise ConnectionError(f"the server has been silent for {_SILENT_S + 1.5:g} s") from None
