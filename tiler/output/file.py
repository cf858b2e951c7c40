"""The mosaic as an MP4, MOV or MKV file, muxed from packets that are already encoded."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import av.error

from tiler.config.models import FileOutput, MosaicConfig
from tiler.errors import InputError, StageError
from tiler.types import CLOCK_HZ, Packet

SUFFIXES = (".mp4", ".mov", ".mkv")
_TIME_BASE = Fraction(1, CLOCK_HZ)
_FRAGMENT_S = 1
_FRAGMENTED = {
    # delay_moov: the index is written with the first fragment, when the parameter sets and the
    # B-frame delay are known. A kill then costs at most the second that is still open.
    "movflags": "frag_keyframe+delay_moov+default_base_moof",
    "frag_duration": str(_FRAGMENT_S * 1_000_000),
    "flush_packets": "1",
}


class FileWriter:
    """One file (see `tiler.output.base.Output`)."""

    def __init__(self, output: FileOutput, path: Path, mosaic: MosaicConfig, codec: str, *, overwrite: bool) -> None:
        """Open the file for writing.

        Raises:
            InputError: it exists and `overwrite` is False, cannot be written, or its format cannot hold the codec.
        """
        if codec == "av1" and path.suffix.lower() == ".mov":
            raise InputError(f"output {path}: a .mov file cannot hold AV1; accepted for it: .mp4, .mkv")
        self.path = path
        self._tick = 1 / mosaic.fps
        options: dict[str, str] = {}
        if path.suffix.lower() in (".mp4", ".mov"):
            options = _FRAGMENTED if output.fragmented else {"movflags": "faststart"}
        check_writable(path, overwrite=overwrite)
        try:
            self._container = av.open(str(path), "w", options=options)
            self._stream = self._container.add_mux_stream(codec, rate=mosaic.fps, width=mosaic.width,
                                                          height=mosaic.height)
        except (av.error.FFmpegError, OSError) as error:
            raise InputError(f"output {path}: cannot be written: {error}") from error
        self._stream.time_base = _TIME_BASE
        self._closed = False

    def write(self, packet: Packet) -> None:
        """See `Output.write`."""
        out = av.Packet(packet.data)
        out.stream = self._stream
        out.time_base = _TIME_BASE  # the stream's own may change with the header
        out.pts = self._clock(packet.pts)
        out.dts = self._clock(packet.dts)
        out.duration = self._clock(packet.pts + 1) - self._clock(packet.pts)
        out.is_keyframe = packet.keyframe
        try:
            self._container.mux(out)
        except (av.error.FFmpegError, OSError) as error:
            raise StageError("output", f"{self.path}: {error}") from error

    def _clock(self, ticks: int) -> int:
        return round(ticks * self._tick * CLOCK_HZ)

    def close(self) -> None:
        """See `Output.close`."""
        if self._closed:
            return
        self._closed = True
        try:
            self._container.close()
        except (av.error.FFmpegError, OSError) as error:
            raise StageError("output", f"{self.path}: cannot be finalised: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def check_writable(path: Path, *, overwrite: bool) -> None:
    """Make the folder of an output, see that it takes a file, and refuse to replace one that nobody said to replace.

    Raises:
        InputError: the file exists or cannot be written, or its folder cannot be made.
    """
    if path.is_dir():
        raise InputError(f"output {path}: is a folder; a file name is needed")
    if path.exists() and not overwrite:
        raise InputError(f"output {path}: exists already; give --overwrite to replace it, or another name with -o")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output {path}: its folder cannot be made: {error.strerror}") from error
    existed = path.exists()
    try:
        with path.open("ab"):
            pass
        if not existed:
            path.unlink()
    except OSError as error:
        raise InputError(f"output {path}: cannot be written: {error.strerror}") from error
