"""Recordings that the page starts: MP4 files in the folder of the config, named here and not by the client."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tiler.config.models import Config, FileOutput
from tiler.errors import InputError, TilerError
from tiler.output.file import FileWriter
from tiler.preview.answers import RecordingAnswer
from tiler.preview.viewers import Coded
from tiler.types import Packet
from tiler.worker import Channel

_DEPTH = 4096
"""Packets that may wait for the disk; with more, the recording ends."""

_log = logging.getLogger(__name__)


class Recorder:
    """One recording at a time, written by a thread of its own. The server's thread calls it."""

    def __init__(self, config: Config, folder: Path | None) -> None:
        """
        Args:
            config: mosaic and codec of the file.
            folder: where recordings go; None: there are none.
        """
        self._config = config
        self._folder = folder
        self._packets: Channel[Packet] | None = None
        self._thread: threading.Thread | None = None
        self._name = ""
        self._since_s = 0.0

    def start(self, group: Sequence[Coded]) -> None:
        """Begin a file with the last keyframe; nothing happens when one is being written.

        Args:
            group: the pictures since the last keyframe.

        Raises:
            InputError: recording is not possible.
        """
        if self._folder is None:
            raise InputError("there is no folder for recordings: preview.recordings is not set")
        if self._running():
            return
        self._name = time.strftime("tiler-%Y%m%d-%H%M%S.mp4")
        path = self._folder / self._name
        file = FileWriter(FileOutput(file=str(path)), path, self._config.mosaic, self._config.encoder.codec,
                          overwrite=False)  # fmt: skip
        self._packets = packets = Channel[Packet](_DEPTH)
        for coded in group if len(group) < _DEPTH else ():
            packets.put(coded.packet)
        self._thread = threading.Thread(target=_write, args=(file, packets), name="tiler-recording", daemon=True)
        self._thread.start()
        self._since_s = time.monotonic()

    def write(self, packet: Packet) -> None:
        """Take a packet for the file that is being written, if there is one. Never waits."""
        packets = self._packets
        if packets is None:
            return
        if packets.full():
            _log.warning("recording %s: the disk is too slow, the recording ends here", self._name)
            self.stop()
        else:
            packets.put(packet)

    def stop(self) -> None:
        """End the file; it is finalised on its own thread."""
        packets, self._packets = self._packets, None
        if packets is not None:
            packets.close()

    def close(self) -> None:
        """End the file and wait until it is finalised; may be called twice."""
        self.stop()
        if self._thread is not None:
            self._thread.join(10)

    def state(self) -> RecordingAnswer:
        """For the API."""
        running = self._running()
        seconds = round(time.monotonic() - self._since_s, 1) if running else 0.0
        return RecordingAnswer(possible=self._folder is not None, file=self._name if running else None, seconds=seconds)

    def _running(self) -> bool:
        return self._packets is not None and self._thread is not None and self._thread.is_alive()


def _write(file: FileWriter, packets: Channel[Packet]) -> None:
    try:
        with file:
            first: int | None = None
            for packet in packets:
                if first is None and packet.keyframe:
                    first = packet.dts  # the file's time starts at 0
                if first is not None:
                    file.write(replace(packet, pts=packet.pts - first, dts=packet.dts - first))
    except TilerError as error:
        _log.warning("recording: %s", error)
    finally:
        packets.cancel()
