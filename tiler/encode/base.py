"""Encode: Mosaic -> Packets, in exactly one encoder session."""

from __future__ import annotations

from typing import Protocol

from tiler.types import Mosaic, Packet


class Encoder(Protocol):
    """One session for the whole run."""

    name: str
    """What encodes, e.g. "libx264"."""
    sessions: int
    """Encoder sessions opened so far; 1 in every run."""

    def encode(self, mosaic: Mosaic) -> list[Packet]:
        """Take one picture; give the packets that are ready (none, one or several).

        The mosaic's planes may be reused as soon as this returns.

        Raises:
            StageError: the encoder failed; nothing can be encoded afterwards.
        """
        ...

    def flush(self) -> list[Packet]:
        """The packets still inside; nothing can be encoded afterwards."""
        ...

    def request_keyframe(self) -> None:
        """The next picture given to `encode` becomes an IDR picture. From any thread."""
        ...

    def close(self) -> None:
        """End the session; may be called twice."""
        ...
