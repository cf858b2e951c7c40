"""What is wrong with a config, each with the line of the file or the option of the command line that says so."""

from __future__ import annotations

from pathlib import Path

from tiler.config import document as yaml_document
from tiler.config.document import Document, dotted
from tiler.errors import ConfigError, mask_uri


class Findings:
    """Collects findings in the order of the file.

    Attributes:
        options: of the command line that gave a key another value, by that key: "--set mosaic.fps".
    """

    def __init__(self, path: Path, document: Document) -> None:
        self._path = path
        self._document = document
        self._rows: list[tuple[int, str]] = []
        self.options: dict[yaml_document.Path, str] = {}

    def at_line(self, line: int, message: str) -> None:
        self._rows.append((line, f"{self._path}:{line}: {mask_uri(message)}"))

    def at(self, where: yaml_document.Path, message: str) -> None:
        """A finding about a key: its line, or that of the nearest mapping around it."""
        text = mask_uri(f"{dotted(where)}: {message}" if where else message)
        for length in range(len(where), 0, -1):
            if where[:length] in self.options:
                option = self.options[where[:length]]
                self._rows.append((0, f"{option}: {text.removeprefix(f'{dotted(where[:length])}: ')}"))
                return
        for length in range(len(where), -1, -1):
            if where[:length] in self._document.lines:
                line = self._document.lines[where[:length]]
                self._rows.append((line, f"{self._path}:{line}: {text}"))
                return
        self._rows.append((1, f"{self._path}:1: {text}"))

    def stop(self) -> None:
        """Raise what was found so far."""
        if self._rows:
            rows = sorted(dict.fromkeys(self._rows), key=lambda row: row[0])
            raise ConfigError([" ".join(text.split()) for _, text in rows])


def short(text: str) -> str:
    """What was given, as messages show it."""
    return repr(text if len(text) <= 120 else text[:117] + "...")
