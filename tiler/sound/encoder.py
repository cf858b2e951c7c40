"""Samples with their times -> packets that follow each other without a gap.

Players and streaming servers wait for sound that is missing, so there is some for all of the time: where a
source has none, silence.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.audio.codeccontext import AudioCodecContext
from av.codec.context import Flags

from tiler.types import CLOCK_HZ, Float32, SoundFormat, SoundPacket

RATE_HZ = 48_000
CHANNELS = 2
_ENCODERS = {"aac": ("aac", "fltp"), "opus": ("libopus", "flt")}
_SLACK = RATE_HZ // 50
"""Samples by which times may be off (20 ms): containers round them, and a cut for so little would be heard."""


class SoundEncoder:
    """AAC or Opus, 48 kHz stereo. Time begins at 0 and only goes on."""

    def __init__(self, codec: str, bitrate: int) -> None:
        """
        Args:
            codec: aac or opus.
            bitrate: bits per second.
        """
        name, self._form = _ENCODERS[codec]
        context: Any = av.CodecContext.create(name, "w")
        self._context: AudioCodecContext = context
        self._context.sample_rate = RATE_HZ
        self._context.layout = "stereo"
        self._context.format = self._form
        self._context.bit_rate = bitrate
        self._context.time_base = Fraction(1, RATE_HZ)
        self._context.flags |= Flags.global_header
        self._context.open()
        self._size = self._context.frame_size
        self._rest: Float32 = np.empty((CHANNELS, 0), np.float32)
        self._taken = 0  # samples, of which `_rest` is not encoded yet
        self._given = -1  # pts of the last packet
        self.format = SoundFormat(codec, _header(name, self._form, bitrate))

    @property
    def end(self) -> int:
        """The time up to which there is sound, in 1/90000 s."""
        return round(self._taken * CLOCK_HZ / RATE_HZ)

    def add(self, samples: Float32, pts: int) -> Iterator[SoundPacket]:
        """Encode what is heard from `pts` on.

        A gap before it is filled with silence; what lies before the end of that which was added is left out.

        Args:
            samples: (2, n) float32, -1 to 1.
            pts: 1/90000 s.
        """
        gap = round(pts * RATE_HZ / CLOCK_HZ) - self._taken
        if gap > _SLACK:
            for begin in range(0, gap, RATE_HZ):
                yield from self._put(_silence(min(RATE_HZ, gap - begin)))
        elif gap < -_SLACK:
            samples = samples[:, -gap:]
        yield from self._put(samples)

    def silence(self, until: int) -> Iterator[SoundPacket]:
        """Encode silence, if anything, until a packet at or after `until` (1/90000 s) is out."""
        while self._given < until:
            yield from self._put(_silence(self._size))

    def _put(self, samples: Float32) -> Iterator[SoundPacket]:
        self._taken += samples.shape[1]
        rest = np.concatenate([self._rest, samples], axis=1)
        begin = self._taken - rest.shape[1]
        whole = rest.shape[1] // self._size * self._size
        self._rest = rest[:, whole:]
        for at in range(0, whole, self._size):
            piece = rest[:, at : at + self._size]
            for packet in self._context.encode(_frame(piece, self._form, begin + at)):
                pts = round((packet.pts or 0) * CLOCK_HZ / RATE_HZ)
                if pts < 0:  # what the codec needs to begin; nothing of it is heard
                    continue
                self._given = pts
                yield SoundPacket(bytes(packet), pts, round(self._size * CLOCK_HZ / RATE_HZ))


def header_of(stream: Any, packet: Any) -> bytes:
    """A file from which a muxer takes the parameters of `stream`; see `SoundFormat`."""
    file = io.BytesIO()
    # Matroska makes a transport stream's AAC fit for every container, but takes no G.711, as cameras have it.
    with av.open(file, "w", format="nut" if stream.codec.name.startswith("pcm_") else "matroska") as container:
        out = container.add_stream_from_template(stream)
        first = av.Packet(bytes(packet))
        first.stream = out
        first.pts = first.dts = 0
        container.mux(first)
    return file.getvalue()


def _header(name: str, form: str, bitrate: int) -> bytes:
    """The same of an encoder."""
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream: Any = container.add_stream(name, rate=RATE_HZ)
        stream.layout, stream.format, stream.bit_rate = "stereo", form, bitrate
        container.start_encoding()
        size = stream.codec_context.frame_size
        for index in range(4):
            packets = stream.encode(_frame(_silence(size), form, index * size))
            if packets:
                packets[0].pts = packets[0].dts = 0
                container.mux(packets[0])
                break
    return file.getvalue()


def _frame(samples: Float32, form: str, at: int) -> av.AudioFrame:
    packed = samples if form == "fltp" else samples.T.reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(packed), format=form, layout="stereo")
    frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, at, Fraction(1, RATE_HZ)
    return frame


def _silence(samples: int) -> Float32:
    return np.zeros((CHANNELS, samples), np.float32)
