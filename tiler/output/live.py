"""The mosaic for players that are there while it is made: an HLS folder, and standard output."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from tiler.config.models import MosaicConfig
from tiler.config.outputs import HLS_HEADER, HLS_PLAYLIST, HlsOutput, PipeOutput
from tiler.errors import InputError, StageError
from tiler.output.file import check_writable
from tiler.output.mux import FRAGMENTED, MATROSKA, Muxer
from tiler.types import Packet, SoundFormat

_UNFINISHED = ".tmp"
"""FFmpeg's suffix of what it renames when it is whole."""
_SEGMENT = re.compile(rf"[0-9]{{10}}\.m4s({re.escape(_UNFINISHED)})?")
"""Names that any run gives: they count from the second in which it began."""

_log = logging.getLogger(__name__)


class HlsWriter(Muxer):
    """A playlist and its fragmented MP4 segments; players see whole files only."""

    def __init__(self, output: HlsOutput, folder: Path, mosaic: MosaicConfig, codec: str,
                 sound: SoundFormat | None = None) -> None:
        """Make the folder; what earlier runs left there goes, unless all is kept.

        Raises:
            InputError: it cannot be written.
        """
        check_writable(folder / HLS_PLAYLIST, overwrite=True)
        flags = ["independent_segments", "program_date_time", "temp_file"]
        if output.keep_count:
            flags.append("delete_segments")
        options = {
            "hls_time": str(output.segment_s),
            "hls_list_size": str(output.keep_count),
            "hls_flags": "+".join(flags),
            "hls_segment_type": "fmp4",
            "hls_fmp4_init_filename": HLS_HEADER,
            "hls_segment_filename": str(folder / "%d.m4s"),
            # A player that holds segments of an earlier run must not meet their names again.
            "hls_start_number_source": "epoch",
        }
        self._failures: list[str] = []
        super().__init__(str(folder / HLS_PLAYLIST), mosaic, codec, container="hls", options=options, sound=sound,
                         io_open=lambda path, flags, options: _HlsFile(path, self._failures))
        if output.keep_count:  # FFmpeg deletes what this run has made
            _delete_segments(folder)

    def write(self, packet: Packet) -> None:
        """See `Output.write`."""
        super().write(packet)
        self._check()

    def close(self) -> None:
        """See `Output.close`."""
        if self._closed:
            return
        super().close()
        self._check()

    def _check(self) -> None:
        if self._failures:
            raise StageError("output", self._failures[0])


def _delete_segments(folder: Path) -> None:
    """Delete segments by their names, finished or not, and nothing else."""
    for path in folder.iterdir():
        if not _SEGMENT.fullmatch(path.name) or path.is_symlink() or not path.is_file():
            continue
        try:
            path.unlink()
        except OSError as error:
            _log.warning("output hls: %s cannot be deleted: %s", path, error.strerror)


class _HlsFile:
    """A file of an HLS folder, as PyAV wants it: FFmpeg's muxer heeds no error of writing, and lists what is not there.

    Here an error is kept in `failures`, its file is deleted, and no other is begun. FFmpeg then has none to rename: the
    last playlist that was whole stays, with the segments that it names.
    """

    def __init__(self, path: str, failures: list[str]) -> None:
        self._path, self._failures = path, failures
        self._file: BinaryIO | None = None
        if not failures:
            with self._watched():
                self._file = open(path, "wb")  # noqa: SIM115  (until `close`)

    def write(self, data: bytes) -> int:
        if self._file is not None:
            with self._watched():
                self._file.write(data)
        return len(data)

    def close(self) -> None:
        if self._file is not None:
            with self._watched():
                self._file.close()

    @contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._failures.append(f"{self._path.removesuffix(_UNFINISHED)}: {error.strerror}")
            file, self._file = self._file, None
            with suppress(OSError):
                if file is not None:
                    file.close()  # raises again for what it still holds
            with suppress(OSError):
                os.unlink(self._path)


class PipeWriter(Muxer):
    """Standard output. From here on what anything prints there goes to standard error."""

    def __init__(self, output: PipeOutput, mosaic: MosaicConfig, codec: str,
                 sound: SoundFormat | None = None) -> None:
        """Take standard output for the packets alone.

        Raises:
            InputError: it is a terminal.
        """
        if os.isatty(1):
            raise InputError("output stdout: is a terminal; pipe it into a program, such as `tiler run ... | mpv -`")
        sys.stdout.flush()
        self._descriptor = os.dup(1)
        os.dup2(2, 1)  # also what libraries print there
        formats = {"mpegts": "mpegts", "mp4": "mp4", "mkv": "matroska"}
        options = {"mpegts": {"flush_packets": "1"}, "mp4": FRAGMENTED, "mkv": {"live": "1", **MATROSKA}}
        super().__init__(f"pipe:{self._descriptor}", mosaic, codec, container=formats[output.format],
                         options=options[output.format], sound=sound)
        self._name = "stdout"

    def close(self) -> None:
        """See `Output.close`."""
        if self._closed:
            return
        try:
            super().close()
        finally:
            try:
                os.close(self._descriptor)  # the reader sees the end now
            except OSError as error:
                raise StageError("output", f"stdout: {error.strerror}") from error
