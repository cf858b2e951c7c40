"""Names of files that come in rows: `cam-{time}.mp4` -> `cam-20250131-235959.mp4`, and hidden ones until they are done.

A file that is being written is called `.NAME.part.SUFFIX`: what reads the folder sees whole files only, and a
kill leaves a part that still plays.
"""

from __future__ import annotations

import re
import time
from pathlib import Path


class Names:
    """Free names of one pattern."""

    def __init__(self, pattern: Path) -> None:
        """
        Args:
            pattern: has {time} or {index} in its last part.
        """
        self.folder = pattern.parent
        self._stem, self._suffix = pattern.stem, pattern.suffix
        parts = re.split(r"(\{time\}|\{index\})", self._stem)
        places = {"{time}": r"\d{8}-\d{6}", "{index}": r"(\d{6,})"}
        self._made = re.compile(
            "".join(places.get(part) or re.escape(part) for part in parts) + r"(?:-\d+)?" + re.escape(self._suffix)
        )
        found = [self._made.fullmatch(path.name) for path in self.folder.iterdir()] if self.folder.is_dir() else []
        self._next = max((1 + int(match[1]) for match in found if match and match.re.groups), default=0)

    def matches(self, name: str) -> bool:
        """Whether the pattern can have made this name."""
        return self._made.fullmatch(name) is not None

    def free(self, time_s: float) -> Path:
        """A name that no file has, for something that starts at `time_s` (seconds since 1970, shown in local time)."""
        text = time.strftime("%Y%m%d-%H%M%S", time.localtime(time_s))
        numbered = "{index}" in self._stem
        for attempt in range(1, 1_000_000):
            stem = self._stem.replace("{time}", text).replace("{index}", f"{self._next:06}")
            path = self.folder / f"{stem}{'' if attempt == 1 or numbered else f'-{attempt}'}{self._suffix}"
            self._next += numbered
            if not path.exists() and not hidden(path).exists():
                return path
        raise FileExistsError(f"{self.folder / self._stem}{self._suffix}: no name is free")


def hidden(path: Path) -> Path:
    """The name of `path` while it is being written.

    >>> str(hidden(Path("out/cam-1.mp4")))
    'out/.cam-1.part.mp4'
    """
    return path.with_name(f".{path.stem}.part{path.suffix}")
