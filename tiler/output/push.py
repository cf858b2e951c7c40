"""The mosaic sent to a server or a player: the near end of a connection that lives in a process of its own,
`tiler.output.sender` or `tiler.output.whip`.
"""

from __future__ import annotations

import base64
import json
import os
import select
import subprocess
import sys
from collections.abc import Callable

from tiler.config.models import MosaicConfig
from tiler.config.outputs import PushOutput
from tiler.errors import StageError
from tiler.output import sender
from tiler.types import CLOCK_HZ, Packet, SoundFormat

_CONNECT_S = 10
_STALL_S = 5.0
_CLOSE_S = 2.0
_CONTAINERS = {
    "rtsp": "rtsp", "rtsps": "rtsp", "rtmp": "flv", "rtmps": "flv", "udp": "mpegts", "tcp": "mpegts",
    "whip": "whip", "whips": "whip",
}  # fmt: skip
_SENDERS = {"whip": "tiler.output.whip"}
_OPTIONS = {
    "rtsp": {"rtsp_transport": "tcp"},  # over UDP nobody would hear that the server is gone
    "flv": {"flvflags": "no_duration_filesize"},
    "mpegts": {},
    "whip": {},
}


class PushWriter:
    """One connection (see `tiler.output.base.Output`)."""

    def __init__(self, output: PushOutput, mosaic: MosaicConfig, codec: str, sample: Packet,
                 sound: SoundFormat | None = None, request_keyframe: Callable[[], None] = lambda: None) -> None:
        """Connect; the first packet written must be a keyframe.

        Args:
            output: where to.
            mosaic: rate of the pictures.
            codec: of the packets.
            sample: a keyframe, for its parameter sets.
            sound: of the packets' sound, None when they have none.
            request_keyframe: called when the other side asks for one.

        Raises:
            StageError: there is no connection within 10 s.
        """
        self._tick = 1 / mosaic.fps
        self._origin: int | None = None
        self._request_keyframe = request_keyframe
        container = _CONTAINERS[output.scheme]
        given = {key: str(value) for key, value in output.options.items()}
        target = sender.Target(
            url=_url(output.push), container=container, codec=codec, options={**_OPTIONS[container], **given},
            connect_s=_CONNECT_S, sound=base64.b64encode(sound.header).decode() if sound is not None else "",
            token=output.token or "",
        )  # fmt: skip
        # A session of its own: Ctrl-C reaches tiler, which ends the connection in order.
        module = _SENDERS.get(container, sender.__name__)
        self._process = subprocess.Popen(
            [sys.executable, "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._to, False)
        self._broken = False
        try:
            self._give((json.dumps(target) + "\n").encode() + self._framed(sample))
            self._await_connection()
        except BaseException:
            self._broken = True
            self.close()
            raise

    def write(self, packet: Packet) -> None:
        """See `Output.write`."""
        if self._origin is None:
            self._origin = packet.dts
        try:
            self._give(self._framed(packet) + self._framed_sound(packet))
        except StageError:
            self._broken = True
            raise

    def _framed(self, packet: Packet) -> bytes:
        pts, dts, after = (self._clock(tick) for tick in (packet.pts, packet.dts, packet.pts + 1))
        return sender.HEADER.pack(pts, dts, after - pts, packet.keyframe, len(packet.data)) + packet.data

    def _framed_sound(self, packet: Packet) -> bytes:
        """Its sound but what is older than the connection."""
        framed = b""
        for sound in packet.sound:
            pts = sound.pts - round((self._origin or 0) * self._tick * CLOCK_HZ)
            if pts >= 0:
                framed += sender.HEADER.pack(pts, pts, sound.duration, sender.SOUND, len(sound.data)) + sound.data
        return framed

    def _clock(self, tick: int) -> int:
        return round((tick - (self._origin or 0)) * self._tick * CLOCK_HZ)

    def _await_connection(self) -> None:
        ready = select.poll()
        ready.register(self._from, select.POLLIN)
        if not ready.poll((_CONNECT_S + 1) * 1000):
            raise StageError("output", f"no connection within {_CONNECT_S} s")
        self._hear()

    def _give(self, data: bytes) -> None:
        """All of `data` into the sender, which must take some of it every few seconds."""
        ready = select.poll()
        ready.register(self._from, select.POLLIN)
        ready.register(self._to, select.POLLOUT)
        rest = memoryview(data)
        while rest:
            events = dict(ready.poll(_STALL_S * 1000))
            if self._from in events:
                self._hear()
            if not events:
                raise StageError("output", f"the other side has taken nothing for {_STALL_S:g} s")
            try:
                rest = rest[os.write(self._to, rest) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                self._hear()

    def _hear(self) -> None:
        """What the sender says: that it is connected, that a keyframe is wanted, or what went wrong."""
        lines = os.read(self._from, 65536).splitlines()
        if not lines:
            code = self._process.wait(_CLOSE_S)
            raise StageError("output", f"no connection within {_CONNECT_S} s" if code == -14
                             else f"the connection ended (code {code})")
        for line in lines:
            said: sender.Report = json.loads(line)
            if said["error"] is not None:
                raise StageError("output", said["error"])
            if said["keyframe"]:
                self._request_keyframe()

    def close(self) -> None:
        """See `Output.close`; a connection that hangs is cut."""
        process = self._process
        if process.returncode is not None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        if self._broken:
            process.kill()
        try:
            process.wait(_CLOSE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def _url(url: str) -> str:
    """As the sender takes it; a datagram holds whole packets of the transport stream."""
    if url.lower().startswith("whip"):
        return f"http{url[4:]}"
    if url.lower().startswith("udp://") and "pkt_size=" not in url:
        return f"{url}{'&' if '?' in url else '?'}pkt_size=1316"
    return url
