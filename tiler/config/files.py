"""The files of a run: what it reads, what it writes, and that it writes over none of them.

`--overwrite` is for what an earlier run has left. What this run reads, or writes already, is never replaced.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tiler.config.document import Path as Where
from tiler.config.document import dotted
from tiler.config.models import DetectorConfig
from tiler.config.outputs import (
    HLS_HEADER,
    HLS_PLAYLIST,
    AnyOutput,
    ClipOutput,
    HlsOutput,
    PipeOutput,
    PushOutput,
    SegmentsOutput,
    TracksOutput,
    index_beside,
    kind_of,
    problem_of,
    target_of,
    tracks_file,
)
from tiler.engines.shipped import find_model
from tiler.errors import ConfigError, InputError

if TYPE_CHECKING:
    from tiler.config.loader import LoadedConfig


def read_problem(path: Path) -> str | None:
    """Why there is no file to read at a path; None where there is one."""
    try:
        found = _stat(path)
    except OSError as error:
        return f"cannot be looked at: {error.strerror}"
    except ValueError:  # a NUL in it
        return "is not a file name"
    if found is None:
        return "there is no such file"
    if stat.S_ISREG(found.st_mode):
        return None
    kinds = {stat.S_IFDIR: "folder", stat.S_IFIFO: "named pipe", stat.S_IFSOCK: "socket"}
    return f"is a {kinds.get(stat.S_IFMT(found.st_mode), 'device')}, not a file"


def write_problem(path: Path) -> str | None:
    """Why a file cannot be written, as far as can be seen without a trial; None where nothing speaks against it.

    Nothing is made: neither the file nor its folder, which may be missing.
    """
    try:
        found = _stat(path)
        if found is not None and stat.S_ISDIR(found.st_mode):
            return "is a folder; a file name is needed"
        if found is not None:
            return None if os.access(path, os.W_OK) else "cannot be written: Permission denied"
        folder = next(parent for parent in path.absolute().parents if _stat(parent) is not None)
        if not folder.is_dir():
            return f"its folder cannot be made: {folder} is a file"
        if not os.access(folder, os.W_OK | os.X_OK):
            return f"cannot be written: {folder} may not be written to"
    except OSError as error:
        return f"cannot be written: {error.strerror}"
    except ValueError:  # a NUL in it
        return "cannot be written: not a file name"
    return None


def _stat(path: Path) -> os.stat_result | None:
    """None of what is not there, also because a file stands where a folder should."""
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None


_Mark = str | tuple[int, int]
"""A path with links followed, or device and inode of a file; the text of what is no file."""


class Files:
    """Those that have a use. A file is known by any of its names: symbolic and hard links lead to it, too."""

    def __init__(self) -> None:
        self._uses: dict[_Mark, str] = {}

    def claim(self, place: Path | str, use: str) -> str | None:
        """Say what a file is used for.

        Args:
            place: the file, or the text of what is none: a URL, standard output.
            use: "the file of detections".

        Returns:
            What is wrong if it has a use already, which it keeps; None if it had none.
        """
        marks = _marks(place)
        taken = next((self._uses[mark] for mark in marks if mark in self._uses), None)
        for mark in marks:
            self._uses.setdefault(mark, taken or use)
        return None if taken is None else f"is {taken}; another name is needed"


def files_read(loaded: LoadedConfig) -> Files:
    """The config, the files of its sources, the model and the font."""
    config, files = loaded.config, Files()
    files.claim(loaded.path, "the config itself")
    for source in config.sources:
        path = loaded.file_of(source.uri)
        if path is not None:
            files.claim(path, f"the file of source {source.id!r}")
    if isinstance(config.detector, DetectorConfig):
        with suppress(InputError):  # said where the model is checked
            files.claim(find_model(config.detector.model, loaded.folder), "the file of the model")
    if config.overlay.font is not None and (font := loaded.file_of(config.overlay.font)) is not None:
        files.claim(font, "the font")
    return files


def clashes(loaded: LoadedConfig, files: Files, outputs: Mapping[Where, AnyOutput]) -> Iterator[tuple[Where, str, str]]:
    """Where, key and problem of each output that would write over a file that has a use; it claims its own.

    Args:
        loaded: the config.
        files: that have one so far.
        outputs: by where they stand. What is wrong with one alone is said elsewhere (`problem_of`).
    """
    for where, output in outputs.items():
        if problem_of(output, loaded.config.encoder) is not None:
            continue
        try:
            written = _written(loaded, output, dotted(where))
        except (ValueError, RuntimeError, OSError) as error:
            yield where, kind_of(output), str(error)
            continue
        found = [(one, files.claim(one.place, one.use)) for one in written]
        for one, problem in found:
            if problem is not None:
                yield where, one.key, f"{one.called}{problem}{one.advice}"
                break


def check_places(loaded: LoadedConfig) -> None:
    """See that the outputs can be written to where they go, as far as can be seen without a trial; nothing is made.

    Raises:
        ConfigError: with each that cannot.
    """
    every = [_place_problem(loaded, output) for output in loaded.config.outputs]
    found = [f"output {place}: {problem}" for place, problem in filter(None, every)]
    if found:
        raise ConfigError(found)


def _place_problem(loaded: LoadedConfig, output: AnyOutput) -> tuple[Path, str] | None:
    """The first of its files that cannot be written, and why."""
    for place in (one.place for one in _written(loaded, output, kind_of(output))):
        if isinstance(place, str):
            continue
        problem = write_problem(place)
        if problem is None and isinstance(output, (SegmentsOutput, ClipOutput)):  # which look for names in use
            problem = _list_problem(place.parent)
        if problem is not None:
            return place, problem
    return None


def _list_problem(folder: Path) -> str | None:
    listed = not folder.exists() or os.access(folder, os.R_OK)
    return None if listed else f"cannot be written: what is in {folder} may not be read"


@dataclass(frozen=True, slots=True)
class _Written:
    """What an output writes to.

    Attributes:
        key: of the output, that says so.
        place: a file, or the text of what is none.
        use: see `Files.claim`.
        called: what a message calls it, where it is not named by `key`.
        advice: how to give it another name, where that is not said by changing `key`.
    """

    key: str
    place: Path | str
    use: str
    called: str = ""
    advice: str = ""


def _written(loaded: LoadedConfig, output: AnyOutput, name: str) -> list[_Written]:
    """All that is known before the run; `name` is what messages call the output.

    Names that are given to files as they begin are taken by none.
    """
    kind, target, use = kind_of(output), target_of(output), f"where {name} writes"
    if isinstance(output, PipeOutput):
        return [_Written(kind, "stdout", use)]
    if isinstance(output, PushOutput):
        return [_Written(kind, target, use)]
    path = Path(loaded.resolve(target))
    if isinstance(output, SegmentsOutput):
        return [_Written(kind, path, use), _index(loaded, output, path, name)]
    paths = [path]
    if isinstance(output, HlsOutput):
        paths = [path / HLS_PLAYLIST, path / HLS_HEADER]
    elif isinstance(output, TracksOutput):
        alone = loaded.config.places == 1
        paths = [tracks_file(path, source.id, alone=alone) for source in loaded.config.sources]
    return [_Written(kind, one, use, "" if one == path else f"its {one.name} ") for one in dict.fromkeys(paths)]


def _index(loaded: LoadedConfig, output: SegmentsOutput, pattern: Path, name: str) -> _Written:
    if output.index is not None:
        return _Written("index", Path(loaded.resolve(output.index)), f"the index of {name}")
    path = index_beside(pattern)
    use = f"the index of {name}, which gives no `index:`"
    return _Written("segments", path, use, f"its index {path.name} ", ", given by `index:`")


def _marks(place: Path | str) -> list[_Mark]:
    if isinstance(place, str):
        return [place]
    try:
        path = os.path.realpath(place)
        found = os.stat(path)
    except FileNotFoundError:
        return [path]
    except (OSError, ValueError):  # no name that a file can have: whoever opens it says so
        return []
    if not stat.S_ISREG(found.st_mode):  # what goes to a device or a pipe replaces nothing
        return []
    return [path, (found.st_dev, found.st_ino)]
