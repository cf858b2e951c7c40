"""The mosaic as a row of files: cut at keyframes, named when finished, listed in an index, deleted when old.

The index holds one JSON object a line for each file that is there:

    {"name": "cam-20250131-235959.mp4", "start": "2025-01-31T23:59:59.120+01:00", "tick": 1800,
     "duration_s": 60.0, "bytes": 31457280}

`start` is the wall clock at which the file begins (offline: the start of the run and the position in the
mosaic), `tick` the picture of the mosaic it begins with. The index is also the memory of what was made:
retention deletes files that it lists, of the size that it says, and nothing else.
"""

from __future__ import annotations

import json
import logging
import os
import time
from dataclasses import asdict, dataclass
from datetime import datetime
from fractions import Fraction
from pathlib import Path

from tiler.config.models import MosaicConfig
from tiler.config.outputs import FileOutput, SegmentsOutput
from tiler.errors import InputError, StageError
from tiler.output.file import FileWriter, check_writable
from tiler.output.names import Names, hidden
from tiler.types import Packet, SoundFormat

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Segment:
    """A finished file, as the index has it."""

    name: str
    start: str
    tick: int
    duration_s: float
    bytes: int

    @property
    def end_s(self) -> float:
        """Seconds since 1970."""
        return datetime.fromisoformat(self.start).timestamp() + self.duration_s


class SegmentWriter:
    """A row of files (see `tiler.output.base.Output`)."""

    def __init__(self, output: SegmentsOutput, pattern: Path, index: Path, mosaic: MosaicConfig, codec: str,
                 sound: SoundFormat | None = None) -> None:
        """Read the index and see that files can be written.

        Args:
            output: when to cut and what to keep.
            pattern: absolute; the last part has {time} or {index}.
            index: absolute path of the list.
            mosaic: size and rate of the pictures.
            codec: of the packets.
            sound: see `tiler.output.mux.Muxer`.

        Raises:
            InputError: the folder cannot be written, or the index is something else.
        """
        self._output, self._mosaic, self._codec, self._sound = output, mosaic, codec, sound
        self._names, self._index = Names(pattern), index
        check_writable(hidden(pattern), overwrite=True)
        check_writable(index, overwrite=True)
        self._made = self._read_index()
        self._every = max(1, round(Fraction(output.every_s) * mosaic.fps))
        self._zero_s: float | None = None
        self._file: FileWriter | None = None
        self._first = self._last = 0
        self._bytes = self._group_bytes = 0

    def write(self, packet: Packet) -> None:
        """See `Output.write`; what comes before the first keyframe is left out."""
        if packet.keyframe and (self._file is None or self._due(packet.pts)):
            self._finish()
            self._begin(packet.pts)
        if self._file is None:
            return
        if packet.keyframe:
            self._group_bytes = 0
        self._file.write(packet)
        self._bytes += packet.size_bytes
        self._group_bytes += packet.size_bytes
        self._last = max(self._last, packet.pts)

    def _due(self, tick: int) -> bool:
        """Whether a new file begins: time is over, or another group like the last would make it too large."""
        limit = self._output.max_bytes
        return tick - self._first >= self._every or (limit is not None and self._bytes + self._group_bytes > limit)

    def _begin(self, tick: int) -> None:
        if self._zero_s is None:
            self._zero_s = time.time() - float(tick / self._mosaic.fps)
        self._first = self._last = tick
        self._bytes = 0
        try:
            self._path = self._names.free(self._start_s())
            target = hidden(self._path)
            self._file = FileWriter(
                FileOutput(file=target.name), target, self._mosaic, self._codec, overwrite=True, origin=tick,
                sound=self._sound,
            )  # fmt: skip
        except (InputError, OSError) as error:
            raise StageError("output", str(error).removeprefix("output ")) from error

    def _start_s(self) -> float:
        """Wall clock of the current file's first picture, in seconds since 1970."""
        assert self._zero_s is not None
        return self._zero_s + float(self._first / self._mosaic.fps)

    def _finish(self) -> None:
        """Close the current file, give it its name, list it, and delete what is beyond the limits."""
        if self._file is None:
            return
        file, self._file = self._file, None
        part = hidden(self._path)
        try:
            file.close()
        finally:  # what was recorded plays even if its end is missing
            if part.exists():
                part.rename(self._path)
        start = datetime.fromtimestamp(self._start_s()).astimezone().isoformat(timespec="milliseconds")
        duration_s = round(float((self._last + 1 - self._first) / self._mosaic.fps), 3)
        try:
            self._made.append(Segment(self._path.name, start, self._first, duration_s, self._path.stat().st_size))
            with self._index.open("a", encoding="utf-8") as index:
                index.write(_line(self._made[-1]))
            self._delete_old()
        except OSError as error:
            raise StageError("output", f"{self._index}: {error.strerror}") from error

    def _delete_old(self) -> None:
        keep = list(self._made)
        output, now_s = self._output, time.time()
        while keep and (
            (output.keep_count is not None and len(keep) > output.keep_count)
            or (output.keep_s is not None and keep[0].end_s < now_s - output.keep_s)
            or (output.keep_bytes is not None and sum(made.bytes for made in keep) > output.keep_bytes)
        ):
            self._delete(keep.pop(0))
        if len(keep) == len(self._made):
            return
        self._made = keep
        new = hidden(self._index)
        new.write_text("".join(map(_line, keep)), encoding="utf-8")
        os.replace(new, self._index)

    def _delete(self, made: Segment) -> None:
        """Delete a file if it is still the one that was made."""
        path = self._names.folder / made.name
        try:
            if path.is_symlink() or path.stat().st_size != made.bytes:
                _log.warning("output segments: %s has changed since it was written and is kept", path)
            else:
                path.unlink()
        except FileNotFoundError:
            pass
        except OSError as error:
            _log.warning("output segments: %s cannot be deleted: %s", path, error.strerror)

    def _read_index(self) -> list[Segment]:
        """The files of earlier runs; a last line that a kill cut short is left out."""
        if not self._index.exists():
            return []
        made: list[Segment] = []
        lines = self._index.read_text(encoding="utf-8", errors="replace").splitlines()
        for number, line in enumerate(lines, 1):
            try:
                segment = Segment(**json.loads(line))
                known = isinstance(segment.bytes, int) and segment.end_s > 0
            except (ValueError, TypeError):
                known = False
            if known and self._names.matches(segment.name):
                made.append(segment)
            elif not known and number < len(lines):
                raise InputError(f"output {self._index}: line {number} is not of an index of segments; "
                                 "another path is needed (index:)")
        self._index.write_text("".join(map(_line, made)), encoding="utf-8")
        return made

    def close(self) -> None:
        """See `Output.close`."""
        self._finish()


def _line(segment: Segment) -> str:
    return json.dumps(asdict(segment), ensure_ascii=False) + "\n"
