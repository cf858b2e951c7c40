"""WebRTC of packets that are encoded already: what WHEP (viewers come) and WHIP (we push) share.

aiortc packetises what it is given and encodes nothing. It has no pacing and no congestion control, repeats the last 128
RTP packets on request, and carries no B-frames.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from fractions import Fraction
from typing import Any

import av
from aiortc import MediaStreamTrack, RTCPeerConnection, RTCRtpSender

TIME_BASE = Fraction(1, 90000)


class EncodedTrack(MediaStreamTrack):
    """A track of encoded packets."""

    def __init__(self, kind: str, take: Callable[[], Awaitable[av.Packet | None]]) -> None:
        """
        Args:
            kind: video or audio.
            take: waits for the next packet, its times in `TIME_BASE`; None ends the track. First called when the
                connection is there.
        """
        super().__init__()
        self.kind, self._take = kind, take

    async def recv(self) -> Any:
        """See `MediaStreamTrack.recv`."""
        packet = await self._take()
        if packet is None:
            self.stop()
            raise asyncio.CancelledError
        return packet


def packet_of(data: bytes, pts: int, *, keyframe: bool) -> av.Packet:
    """A packet for a track; `pts` in `TIME_BASE`."""
    packet = av.Packet(data)
    packet.time_base = TIME_BASE
    packet.pts = packet.dts = pts
    packet.is_keyframe = keyframe
    return packet


def send(
    connection: RTCPeerConnection, track: EncodedTrack, codec: str, request_keyframe: Callable[[], None] = lambda: None
) -> RTCRtpSender:
    """Send a track, in this codec (such as video/H264) and no other, before there is any description.

    Args:
        connection: is new; in an answer, whoever prefers no codec says VP8 first, and browsers decode nothing.
        track: what to send.
        codec: MIME type.
        request_keyframe: called when the other side has lost a picture; aiortc would tell an encoder of its own.
    """
    transceiver = connection.addTransceiver(track, direction="sendonly")
    codecs = RTCRtpSender.getCapabilities(track.kind).codecs
    transceiver.setCodecPreferences([known for known in codecs if known.mimeType.lower() == codec.lower()])
    transceiver.sender._send_keyframe = request_keyframe  # type: ignore[method-assign]
    return transceiver.sender
