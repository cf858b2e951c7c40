"""Tracks as text: JSON lines for programs, MOT text for benchmarks.

`.jsonl` holds one object per picture and stream, in the order written:

    {"stream": "plaza", "frame": 12, "pts": 36000, "time_s": 0.4, "size": [1280, 720],
     "tracks": [{"id": 1, "class": "person", "score": 0.87, "xyxy": [610.25, 80.0, 702.5, 361.75]}]}

`frame` counts from 0, `pts` is in 1/90000 s, boxes are in picture pixels. A stream with slots
has "slot": NAME in each track, or null. `.txt` holds what the MOTChallenge tools read, one line per
track: frame from 1, id, left, top, width, height, score, -1, -1, -1; a file per stream (NAME.ID.txt)
when there are, or may be, several. Of a stream with slots it holds the cast: the id is the slot's place in
`names`, from 1, and tracks without a slot are left out.

The text depends on the tracks alone: equal runs write equal bytes.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO, cast

import numpy as np

from tiler.closing import Closing
from tiler.config.outputs import tracks_file
from tiler.errors import InputError, StageError
from tiler.output.file import check_writable
from tiler.types import CLOCK_HZ, Tracks

SUFFIXES = (".jsonl", ".txt")

_FLUSH_S = 1.0

_log = logging.getLogger(__name__)

Format = Callable[[str, int, Tracks, tuple[int, int], Sequence[str], Sequence[str]], str]
"""Stream id, frame index, tracks, picture size, names of classes and of slots (empty: none) to text."""


class TrackWriter(Closing):
    """Writes the tracks of all streams. Made by `open_tracks`. One thread writes; others let streams come and go."""

    def __init__(
        self,
        streams: Mapping[int, str],
        path_of: Callable[[str], Path],
        class_names: Sequence[str],
        text: Format,
        slots: Mapping[int, Sequence[str]] | None = None,
    ) -> None:
        """Create the files.

        Args:
            streams: id of each stream index.
            path_of: the file of a stream with this id; streams may share one.
            slots: names of the slots of the streams that have some.

        Raises:
            InputError: a file cannot be written.
        """
        self._changing = threading.Lock()
        self._path_of = path_of
        self._class_names = class_names
        self._text = text
        self._slots = dict(slots or {})
        self._files: dict[Path, TextIO] = {}
        self._streams: dict[int, tuple[str, Path]] = {}
        self._paths: list[Path] = []
        try:
            for stream, name in streams.items():
                self._take(stream, name, *self._open(name, "w"))
        except InputError:
            self.close()
            raise
        self._flushed_s = time.monotonic()

    def _open(self, name: str, mode: str) -> tuple[Path, TextIO]:
        path = self._path_of(name)
        try:
            return path, self._files.get(path) or cast(TextIO, path.open(mode, encoding="utf-8", newline="\n"))
        except FileExistsError:
            raise InputError(f"output {path}: exists, and is not replaced by what is added to a run") from None
        except OSError as error:
            raise InputError(f"output {path}: cannot be written: {error.strerror}") from error

    def _take(self, stream: int, name: str, path: Path, file: TextIO) -> None:
        if path not in self._files:
            self._files[path] = file
            self._paths.append(path)
        self._streams[stream] = name, path

    def join(self, stream: int, name: str) -> None:
        """Take the tracks of one more stream, without slots. A file of its own is made anew: none is replaced.

        Raises:
            InputError: it exists or cannot be written.
        """
        path, file = self._open(name, "x")
        with self._changing:
            self._take(stream, name, path, file)

    def leave(self, stream: int) -> None:
        """Nothing more comes of a stream: finish its file, unless others share it. May be called twice.

        Raises:
            StageError: the disk did not take the last lines.
        """
        last: dict[Path, TextIO] = {}
        with self._changing:
            self._slots.pop(stream, None)
            _, path = self._streams.pop(stream, ("", None))
            if path in self._files and all(path != other for _, other in self._streams.values()):
                last = {path: self._files.pop(path)}
        self._finish(last)

    def write(self, stream: int, frame_index: int, tracks: Tracks, picture_size: tuple[int, int]) -> None:
        """Write the tracks of one picture.

        Args:
            stream: index of the source.
            frame_index: of the picture in its stream, from 0.
            picture_size: width and height in picture pixels.

        Raises:
            StageError: the disk does not take it.
        """
        with self._changing:
            name, path = self._streams[stream]
            try:
                slots = self._slots.get(stream, ())
                self._files[path].write(self._text(name, frame_index, tracks, picture_size, self._class_names, slots))
                if time.monotonic() - self._flushed_s >= _FLUSH_S:
                    for file in self._files.values():
                        file.flush()
                    self._flushed_s = time.monotonic()
            except OSError as error:
                raise StageError("output", f"{path}: {error.strerror}", name) from error

    @property
    def size_bytes(self) -> int:
        """What the files hold so far; some of it waits in memory for up to a second."""
        return sum(path.stat().st_size for path in self._paths if path.exists())

    def close(self) -> None:
        """Finish the files; may be called twice.

        Raises:
            StageError: the disk did not take the last lines.
        """
        with self._changing:
            files, self._files = self._files, {}
            self._finish(files)

    def _finish(self, files: Mapping[Path, TextIO]) -> None:
        failed = []
        for path, file in files.items():
            try:
                file.close()
            except OSError as error:
                failed.append(f"{path}: {error.strerror}")
        if failed:
            raise StageError("output", "; ".join(failed))


class TracksOutlet:
    """A writer of tracks that stops alone when the disk takes no more. Written by the track stage's thread."""

    kind = "tracks"

    def __init__(self, writer: TrackWriter, name: str) -> None:
        self.name = name
        self.error: str | None = None
        self._writer = writer
        self._pictures = self._dropped = 0
        self._closed = False

    def join(self, stream: int, name: str) -> None:
        """See `TrackWriter.join`.

        Raises:
            InputError: its file exists or cannot be written.
        """
        if not self.stopped:
            self._writer.join(stream, name)

    def leave(self, stream: int) -> None:
        """See `TrackWriter.leave`; never raises."""
        try:
            self._writer.leave(stream)
        except StageError as error:
            self._fail(error)

    def put(self, stream: int, frame_index: int, tracks: Tracks, picture_size: tuple[int, int]) -> None:
        """See `TrackWriter.write`; never raises."""
        if self.error is not None:
            self._dropped += 1
            return
        try:
            self._writer.write(stream, frame_index, tracks, picture_size)
            self._pictures += 1
        except Exception as error:  # whatever a file raises is its own affair
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        text = str(error) if isinstance(error, StageError) else f"{type(error).__name__}: {error}"
        self.error = self.error or text.removeprefix("output: ")
        _log.warning("output %s %s has stopped: %s", self.kind, self.name, self.error)

    @property
    def failed(self) -> bool:
        """Whether it ended by an error."""
        return self.error is not None

    @property
    def stopped(self) -> bool:
        """Whether it takes no more."""
        return self.failed or self._closed

    def finish(self) -> None:
        """Nothing to do ahead of `close`."""

    def close(self) -> None:
        """Finalise; may be called twice."""
        if self._closed:
            return
        self._closed = True
        try:
            self._writer.close()
        except StageError as error:
            self._fail(error)

    def report(self) -> dict[str, Any]:
        """As `tiler.output.outlet.Outlet.report`; `packets` are pictures of the streams."""
        return {
            "kind": self.kind,
            "name": self.name,
            "state": "stopped" if self.stopped else "up",
            "packets": self._pictures,
            "bytes": self._writer.size_bytes,
            "dropped": self._dropped,
            "restarts": 0,
            "error": self.error,
        }


def open_tracks(
    path: Path,
    streams: Sequence[tuple[str, int]],
    class_names: Sequence[str],
    *,
    slots: Mapping[int, Sequence[str]] | None = None,
    more: bool = False,
    overwrite: bool = False,
) -> TrackWriter:
    """Open a writer of tracks; the suffix of `path` says which.

    Args:
        path: ends in .jsonl or .txt; its folder is made if needed.
        streams: (id, index) of each stream that will be written.
        class_names: by class_id; a class without a name is written as its number.
        slots: names of the slots of the streams, by index, that have some.
        more: other streams may join.
        overwrite: replace files that exist.

    Raises:
        InputError: another suffix, a file that exists, or one that cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"output {path}: tracks need a name that ends in {' or '.join(SUFFIXES)}")

    def path_of(name: str) -> Path:
        return tracks_file(path, name, alone=len(streams) == 1 and not more)

    for target in sorted({path_of(name) for name, _ in streams}):
        check_writable(target, overwrite=overwrite)
    names = {index: name for name, index in streams}
    return TrackWriter(names, path_of, class_names, _mot_text if suffix == ".txt" else _json_line, slots)


def _json_line(
    stream: str,
    frame_index: int,
    tracks: Tracks,
    picture_size: tuple[int, int],
    class_names: Sequence[str],
    slots: Sequence[str],
) -> str:
    record = {
        "stream": stream,
        "frame": frame_index,
        "pts": tracks.pts,
        "time_s": round(tracks.pts / CLOCK_HZ, 6),
        "size": list(picture_size),
        "tracks": [
            {
                "id": track_id,
                **({"slot": slots[slot] if slot >= 0 else None} if slots else {}),
                "class": _class_name(class_id, class_names),
                "score": score,
                "xyxy": xyxy,
            }
            for track_id, slot, class_id, score, xyxy in _rows(tracks)
        ],
    }
    return json.dumps(record, ensure_ascii=False) + "\n"


def _mot_text(
    stream: str,
    frame_index: int,
    tracks: Tracks,
    picture_size: tuple[int, int],
    class_names: Sequence[str],
    slots: Sequence[str],
) -> str:
    return "".join(
        f"{frame_index + 1},{slot + 1 if slots else track_id},"
        f"{x0:.2f},{y0:.2f},{x1 - x0:.2f},{y1 - y0:.2f},{score:.4f},-1,-1,-1\n"
        for track_id, slot, _, score, (x0, y0, x1, y1) in _rows(tracks)
        if slot >= 0 or not slots
    )


def _rows(tracks: Tracks) -> Iterator[tuple[int, int, int, float, list[float]]]:
    """track_id, slot, class_id, score to 4 and xyxy to 2 decimals (never -0.0), as Python numbers."""
    score = np.round(tracks.score.astype(np.float64), 4) + 0.0
    xyxy = np.round(tracks.xyxy.astype(np.float64), 2) + 0.0
    numbers = tracks.track_id.tolist(), tracks.slot.tolist(), tracks.class_id.tolist()
    return zip(*numbers, score.tolist(), xyxy.tolist(), strict=True)


def _class_name(class_id: int, class_names: Sequence[str]) -> str:
    return class_names[class_id] if 0 <= class_id < len(class_names) else str(class_id)
