"""The mosaic for players that are there while it is made: an HLS folder, and standard output."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tiler.config.models import MosaicConfig
from tiler.config.outputs import HLS_HEADER, HLS_PLAYLIST, HlsOutput, PipeOutput
from tiler.errors import InputError, StageError
from tiler.output.file import check_writable
from tiler.output.mux import FRAGMENTED, MATROSKA, Muxer
from tiler.types import SoundFormat


class HlsWriter(Muxer):
    """A playlist and its fragmented MP4 segments; players see whole files only."""

    def __init__(self, output: HlsOutput, folder: Path, mosaic: MosaicConfig, codec: str,
                 sound: SoundFormat | None = None) -> None:
        """Make the folder.

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
        super().__init__(str(folder / HLS_PLAYLIST), mosaic, codec, container="hls", options=options, sound=sound)


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
