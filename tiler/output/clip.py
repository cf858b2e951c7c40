"""The last seconds of the mosaic as packets, and a file of them whenever somebody asks."""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import suppress
from pathlib import Path

from tiler.config.models import MosaicConfig
from tiler.config.outputs import ClipOutput, FileOutput
from tiler.errors import InputError, StageError
from tiler.output.file import FileWriter, check_writable
from tiler.output.names import Names, hidden
from tiler.types import Packet, SoundFormat


class Preroll:
    """Keeps packets (see `tiler.output.base.Output`); `save` may be called from any thread."""

    def __init__(self, output: ClipOutput, pattern: Path, mosaic: MosaicConfig, codec: str,
                 sound: SoundFormat | None = None) -> None:
        """See that clips can be written.

        Args:
            output: how long to keep packets.
            pattern: absolute; the last part has {time} or {index}.
            mosaic: size and rate of the pictures.
            codec: of the packets.
            sound: see `tiler.output.mux.Muxer`.

        Raises:
            InputError: the folder cannot be written.
        """
        self._mosaic, self._codec, self._sound = mosaic, codec, sound
        self._span = round(output.preroll_s * float(mosaic.fps))
        self._names = Names(pattern)
        check_writable(hidden(pattern), overwrite=True)
        self._groups: deque[list[Packet]] = deque()
        self._lock, self._saving = threading.Lock(), threading.Lock()

    def write(self, packet: Packet) -> None:
        """See `Output.write`; groups that the span does not reach into go."""
        with self._lock:
            if packet.keyframe:
                self._groups.append([])
            if self._groups:
                self._groups[-1].append(packet)
            while len(self._groups) > 1 and packet.pts - self._groups[1][0].pts >= self._span:
                self._groups.popleft()

    def save(self, path: Path | None = None) -> Path:
        """Write what is kept.

        Args:
            path: ends in .mp4, .mkv or .mov and does not exist; the next free name of the config when absent.

        Returns:
            The file, which starts at a keyframe and plays.

        Raises:
            InputError: the file exists or cannot be written.
            StageError: nothing is kept yet, or the disk does not take it.
        """
        with self._lock:
            packets = [packet for group in self._groups for packet in group]
        if not packets:
            raise StageError("output", "clip: there is no picture yet")
        first, last = packets[0].pts, max(packet.pts for packet in packets)
        with self._saving:
            target = path or self._names.free(time.time() - float((last - first) / self._mosaic.fps))
            check_writable(target, overwrite=False)
            part = hidden(target)
            settings = FileOutput(file=part.name, fragmented=False)
            try:
                with FileWriter(
                    settings, part, self._mosaic, self._codec, overwrite=True, origin=first, sound=self._sound
                ) as file:
                    for packet in packets:
                        file.write(packet)
                part.rename(target)
            except OSError as error:
                raise InputError(f"output {target}: cannot be written: {error.strerror}") from error
            finally:  # a part that failed may be what fills the disk, and the next attempt has another name
                with suppress(OSError):
                    part.unlink(missing_ok=True)
        return target

    def close(self) -> None:
        """See `Output.close`; what is kept is still there to be saved."""
