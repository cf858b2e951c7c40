"""Output: Packets -> where people want them."""

from __future__ import annotations

from typing import Protocol

from tiler.types import Packet


class Output(Protocol):
    """One destination of the encoded mosaic."""

    def write(self, packet: Packet) -> None:
        """Take one packet, in decoding order.

        Raises:
            StageError: this destination cannot take more.
        """
        ...

    def close(self) -> None:
        """Finalise, so that what was written plays; may be called twice."""
        ...
