"""The copy ledger: every byte that crosses between host and device, by name."""

from __future__ import annotations

import threading
from typing import Any, Literal

Direction = Literal["up", "down"]
"""up: host to device; down: device to host."""


class Copies:
    """Counts copies; thread-safe. The CPU backend makes none.

    >>> copies = Copies()
    >>> copies.add("detections", "down", 4096); copies.add("detections", "down", 4096)
    >>> copies.summary(ticks=2)["by_name"]
    {'detections': {'direction': 'down', 'copies': 2, 'bytes': 8192, 'bytes_per_tick': 4096}}
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: dict[tuple[str, Direction], list[int]] = {}

    def add(self, name: str, direction: Direction, size: int) -> None:
        """A copy of `size` bytes was made (or enqueued)."""
        with self._lock:
            row = self._rows.setdefault((name, direction), [0, 0])
            row[0] += 1
            row[1] += size

    def summary(self, ticks: int) -> dict[str, Any]:
        """Totals and rows, as the report shows them."""
        with self._lock:
            rows = dict(self._rows)
        total = {way: sum(size for (_, w), (_, size) in rows.items() if w == way) for way in ("up", "down")}
        return {
            "host_to_device_bytes": total["up"],
            "device_to_host_bytes": total["down"],
            "by_name": {
                name: {"direction": way, "copies": times, "bytes": size, "bytes_per_tick": round(size / max(ticks, 1))}
                for (name, way), (times, size) in rows.items()
            },
        }
