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
from aiortc.rtp import AnyRtcpPacket, RtcpSrPacket

TIME_BASE = Fraction(1, 90000)


class EncodedTrack(MediaStreamTrack):
    """A track of encoded packets."""

    def __init__(self, kind: str, take: Callable[[], Awaitable[av.Packet[Any] | None]]) -> None:
        """
        Args:
            kind: video or audio.
            take: waits for the next packet, its times in `TIME_BASE`; None ends the track. First called when the
                connection is there.
        """
        super().__init__()
        self.kind, self._take = kind, take
        self.pts = 0  # of the last packet

    async def recv(self) -> Any:
        """See `MediaStreamTrack.recv`."""
        packet = await self._take()
        if packet is None:
            self.stop()
            raise asyncio.CancelledError
        self.pts = packet.pts or 0
        return packet


def packet_of(data: bytes, pts: int, *, keyframe: bool) -> av.Packet[Any]:
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


def report_times(sender: RTCRtpSender, track: EncodedTrack, began: Callable[[], int | None]) -> None:
    """Have the sender's reports say when what went out last is to be played; aiortc says when it left.

    By these reports receivers play tracks in sync, and sound leaves earlier or later than the pictures of its time.

    Args:
        sender, track: see `send`.
        began: the NTP time (1 / 2**32 s) of pts 0; None before it is known.
    """
    send_rtcp = sender._send_rtcp

    async def send_corrected(packets: list[AnyRtcpPacket]) -> None:
        for packet in packets:
            if isinstance(packet, RtcpSrPacket) and (begin := began()) is not None:
                packet.sender_info.ntp_timestamp = begin + (track.pts << 32) // TIME_BASE.denominator
        await send_rtcp(packets)

    sender._send_rtcp = send_corrected  # type: ignore[method-assign]
