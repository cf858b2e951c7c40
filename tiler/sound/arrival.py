"""When the sound of a live source is heard: tied to the time at which its stream comes, as the pictures are."""

from __future__ import annotations

from tiler.types import CLOCK_HZ

_WINDOW = 10 * CLOCK_HZ
_TOLERANCE = CLOCK_HZ * 60 // 1000
"""What the two clocks may part before the sound is cut or stretched by that much (60 ms): less is jitter."""
_BREAK = CLOCK_HZ


class ArrivalClock:
    """The stream's own timestamps -> the time at which each would come over a network without delay.

    The least delay of the last 10 to 20 s is the stream's own; what exceeds it is jitter, a stall, or what a
    server had stored and sends at once, and is late. Pictures of that time were never shown either.
    """

    def __init__(self) -> None:
        self._delay: int | None = None
        self._least: list[int] = []
        self._since = self._last = 0

    def delay(self, pts: int, arrival: int) -> int:
        """What to add to the stream's timestamps, now that `pts` came at `arrival` (all 1/90000 s)."""
        delay = arrival - pts
        if not self._least or pts < self._last - _BREAK:  # a stream that began anew
            self._least, self._since, self._delay = [delay, delay], arrival, delay
        self._last = pts
        if arrival - self._since > _WINDOW:
            self._least, self._since = [self._least[1], delay], arrival
        self._least = [min(self._least[0], delay), min(self._least[1], delay)]
        least = min(self._least)
        if self._delay is None or abs(least - self._delay) > _TOLERANCE:
            self._delay = least
        return self._delay
