"""Packets that are already encoded into any container that FFmpeg writes to a local place."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import av
import av.error
from av.stream import Stream

from tiler.closing import Closing
from tiler.config.models import MosaicConfig
from tiler.errors import InputError, StageError
from tiler.types import CLOCK_HZ, Packet, SoundFormat, SoundPacket

TIME_BASE = Fraction(1, CLOCK_HZ)
_FRAGMENT_S = 0.5
FRAGMENTED = {
    # delay_moov: the index is written with the first fragment, when the parameter sets and the B-frame delay
    # are known. A fragment is written when the first picture after it comes; with the pictures that the encoder
    # and the queues hold, a kill costs less than a second.
    "movflags": "frag_keyframe+delay_moov+default_base_moof",
    "frag_duration": str(round(_FRAGMENT_S * 1_000_000)),
    "flush_packets": "1",
}
"""Options of an MP4 that plays up to a kill, and through a pipe."""
MATROSKA = {"cluster_time_limit": str(round(_FRAGMENT_S * 1000)), "flush_packets": "1"}
"""The same for Matroska, whose clusters are written when they are full."""
_WITH_SOUND = {"max_interleave_delta": "1"}
"""FFmpeg holds pictures back, up to 10 s, until sound of their time has come: here one picture at most. Packets
come in the right order anyway, and sound that does not come must not hold up anything."""
_TAKE_HVC1 = ("mp4", "mov", "hls")
_HEAD_BYTES = 1 << 16
"""Enough of a keyframe for its parameter sets: FFmpeg decodes what it is given, which takes long in 4K."""


class Muxer(Closing):
    """One container (see `tiler.output.base.Output`)."""

    def __init__(
        self,
        target: str,
        mosaic: MosaicConfig,
        codec: str,
        *,
        container: str | None = None,
        options: Mapping[str, str] | None = None,
        origin: int | None = 0,
        sound: SoundFormat | None = None,
        io_open: Callable[[str, int, dict[str, str]], Any] | None = None,
    ) -> None:
        """Choose the container; it is opened with the first packet.

        Args:
            target: a path, or `pipe:FD`.
            mosaic: size and rate of the pictures.
            codec: of the packets.
            container: FFmpeg's name of the format; by the suffix when absent.
            options: of the format.
            origin: the tick at which the container's own time begins; that of the first packet when None.
            sound: of the packets' sound, None when they have none.
            io_open: opens what FFmpeg writes, as PyAV says (path, flags, options); FFmpeg does it when absent.

        Raises:
            InputError: FFmpeg refuses it.
        """
        self._name = target
        self._mosaic, self._codec, self._sound_format = mosaic, codec, sound
        self._tick = 1 / mosaic.fps
        self._origin = origin
        given = {**(options or {}), **(_WITH_SOUND if sound is not None else {})}
        try:
            self._container = av.open(target, "w", format=container, options=given, io_open=io_open)
            self._stream: Stream | None = None
            if codec != "hevc" or self._container.format.name not in _TAKE_HVC1:  # those need a keyframe first
                self._stream = self._begin(self._mux_stream())
        except (av.error.FFmpegError, OSError) as error:
            raise InputError(f"output {target}: cannot be written: {error}") from error
        self._closed = False

    def _mux_stream(self) -> Stream:
        return self._container.add_mux_stream(self._codec, rate=self._mosaic.fps, width=self._mosaic.width,
                                              height=self._mosaic.height)

    def _hvc1_stream(self, keyframe: bytes) -> Stream:
        """HEVC as Apple's players and its rules for HLS want it: the parameter sets are with the index, and only there.

        That does for the whole file, since one session encodes a run.
        """
        with av.open(io.BytesIO(keyframe[:_HEAD_BYTES]), format="hevc") as parameters:
            template = parameters.streams.video[0]
            if not template.codec_context.extradata or not template.codec_context.width:
                return self._mux_stream()  # hev1, which finds them in a later keyframe
            # opaque: by FFmpeg's decoder, for it need not have an encoder
            stream = self._container.add_stream_from_template(template, opaque=True)
        stream.codec_context.codec_tag = "hvc1"
        return stream

    def _begin(self, pictures: Stream) -> Stream:
        """Add the sound behind the pictures."""
        pictures.time_base = TIME_BASE
        if self._sound_format is not None:
            with av.open(io.BytesIO(self._sound_format.header)) as parameters:
                self._sound = self._container.add_stream_from_template(parameters.streams.audio[0])
            self._sound.time_base = TIME_BASE
        return pictures

    def write(self, packet: Packet) -> None:
        """See `Output.write`."""
        if self._origin is None:
            self._origin = packet.pts
        out = av.Packet(packet.data)
        out.time_base = TIME_BASE  # the stream's own may change with the header
        out.pts = self._clock(packet.pts)
        out.dts = self._clock(packet.dts)
        out.duration = self._clock(packet.pts + 1) - self._clock(packet.pts)
        out.is_keyframe = packet.keyframe
        try:
            if self._stream is None:
                self._stream = self._begin(self._hvc1_stream(packet.data))
            out.stream = self._stream
            self._container.mux(out)
            for sound in packet.sound:
                self._write_sound(sound)
        except (av.error.FFmpegError, OSError) as error:
            raise StageError("output", f"{self._name}: {error.strerror}") from error

    def _write_sound(self, sound: SoundPacket) -> None:
        pts = sound.pts - round((self._origin or 0) * self._tick * CLOCK_HZ)
        if pts < 0:  # live: it came after the keyframe that it precedes
            return
        out = av.Packet(sound.data)
        out.stream = self._sound
        out.time_base = TIME_BASE
        out.pts = out.dts = pts
        out.duration = sound.duration
        out.is_keyframe = True
        self._container.mux(out)

    def _clock(self, ticks: int) -> int:
        return round((ticks - (self._origin or 0)) * self._tick * CLOCK_HZ)

    def close(self) -> None:
        """See `Output.close`."""
        if self._closed:
            return
        self._closed = True
        try:
            self._container.close()
        except (av.error.FFmpegError, OSError) as error:
            raise StageError("output", f"{self._name}: cannot be finalised: {error.strerror}") from error
