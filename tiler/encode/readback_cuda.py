"""libx264 on the CUDA path: for chips that decode but have no encoder (H100, H200, A100), or when asked for.

The mosaic comes down in one asynchronous copy a tick, into pinned memory, on a stream of its own: the one
whole picture that crosses to the host, and the copy ledger has it.
"""

from __future__ import annotations

import threading
from typing import Any

import cupy
import cupyx

from tiler.closing import Closing
from tiler.config.models import EncoderConfig, MosaicConfig
from tiler.encode.cpu import X264Encoder
from tiler.encode.ffmpeg import take
from tiler.observe.copies import Copies
from tiler.types import Mosaic, Packet

COPY = "mosaic for libx264"
"""Name of the copy in the ledger."""


class ReadbackEncoder(Closing):
    """One libx264 session fed from device memory (see `tiler.encode.base.Encoder`).

    With profile `quality` picture k-1 is encoded while the GPU finishes picture k and copies it, so packets
    are one picture later than libx264's own; at low latency each picture is waited for. The packets are
    those of `X264Encoder` for the same pictures.
    """

    name = "libx264"

    def __init__(self, mosaic: MosaicConfig, config: EncoderConfig, threads: int, device: int, copies: Copies) -> None:
        """Open the session and take two pinned buffers.

        Args:
            mosaic: size and rate of the pictures.
            config: keys that libx264 cannot honour are refused.
            threads: encoder threads.
            device: index of the CUDA device.
            copies: the ledger.

        Raises:
            InputError: libx264 refuses the parameters.
        """
        self._overlaps = config.profile == "quality"
        self._copies = copies
        self._height = mosaic.height
        self._encoder = X264Encoder(mosaic, config, threads, nv12=True)
        self.sessions = self._encoder.sessions
        self._device = cupy.cuda.Device(device)
        with self._device:
            self._stream = cupy.cuda.Stream(non_blocking=True)
            self._arrived = cupy.cuda.Event(block=True, disable_timing=True)
            shape = (mosaic.height * 3 // 2, mosaic.width)
            self._pinned = [cupyx.empty_pinned(shape, cupy.uint8) for _ in range(2)]
        self._waiting: tuple[Mosaic, bool] | None = None
        self._keyframe = threading.Event()

    def encode(self, mosaic: Mosaic) -> list[Packet]:
        """See `Encoder.encode`; the packets of the picture before, or of this one at low latency."""
        with self._device:
            if mosaic.ready is not None:
                self._stream.wait_event(mosaic.ready)
            down = self._pinned[0]
            self._pinned.reverse()  # the other one may hold the picture before, which is encoded meanwhile
            mosaic.nv12.get(stream=self._stream, out=down, blocking=False)
            self._arrived.record(self._stream)
            self._copies.add(COPY, "down", down.nbytes)
            before = self._encode_waiting()
            self._arrived.synchronize()
        self._waiting = self._on_host(mosaic, down), take(self._keyframe)
        return before if self._overlaps else self._encode_waiting()

    def _on_host(self, mosaic: Mosaic, nv12: Any) -> Mosaic:
        y, uv = nv12[: self._height], nv12[self._height :]
        return Mosaic(mosaic.tick, (y, uv[:, 0::2], uv[:, 1::2]), mosaic.sources, nv12)

    def _encode_waiting(self) -> list[Packet]:
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            return []
        picture, keyframe = waiting
        if keyframe:
            self._encoder.request_keyframe()
        return self._encoder.encode(picture)

    def flush(self) -> list[Packet]:
        """See `Encoder.flush`."""
        return [*self._encode_waiting(), *self._encoder.flush()]

    def request_keyframe(self) -> None:
        """See `Encoder.request_keyframe`."""
        self._keyframe.set()

    def close(self) -> None:
        """See `Encoder.close`."""
        self._encoder.close()
        self._stream.synchronize()  # a copy into the pinned memory may still be on its way
        self._waiting = None
        self._pinned.clear()
