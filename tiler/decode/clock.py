"""Timestamps: of a file, made sound; of a live source, tied to the time of arrival."""

from __future__ import annotations

from fractions import Fraction
from math import lcm

from tiler.types import CLOCK_HZ

_BREAK = CLOCK_HZ
"""A step back of more than this (1 s) is a new beginning, not a glitch."""
_JUMP = 10 * CLOCK_HZ
"""A step ahead of more than this (10 s, as for the ffmpeg tool) is one, too, where joined streams keep their times."""
_LIVE_TOLERANCE = CLOCK_HZ // 2
"""How far a live source's own clock may part from the time of arrival before it is set again."""


class FileClock:
    """FFmpeg's timestamps -> pts in 1/90000 s that never go back.

    A picture with the timestamp of the one before is a duplicate. One that lies a little
    earlier (an unsorted file) is moved to one tick after the one before. One that lies
    far earlier (joined streams) begins a new stretch that follows on without a gap; where
    the timestamps of joined streams are kept as they are, so does one that lies far later.
    """

    def __init__(self, origin_s: Fraction | None = None, *, joined: bool = False) -> None:
        """
        Args:
            origin_s: the timestamp that becomes pts 0; that of the first picture when None.
            joined: streams that were joined keep their timestamps in such a container, so that a long gap is none.
        """
        self._joined = joined
        self._origin = None if origin_s is None else origin_s * CLOCK_HZ
        self._next_s = origin_s or Fraction(0)
        self._last: int | None = None
        self._last_duration = 0

    def stamp(self, time_s: Fraction | None, duration_s: Fraction) -> int | None:
        """The pts of the next picture in display order, or None for a duplicate.

        Args:
            time_s: the file's timestamp, None when it has none: the picture then follows
                the one before after that one's duration.
            duration_s: how long the picture is shown, > 0.
        """
        if time_s is None:
            time_s = self._next_s
        self._next_s = time_s + duration_s
        ticks = time_s * CLOCK_HZ
        if self._origin is None:
            self._origin = ticks
        pts = round(ticks - self._origin)
        if self._last is not None:
            if pts == self._last:
                return None
            if pts < self._last - _BREAK or (self._joined and pts > self._last + _JUMP):
                pts = self._last + self._last_duration
                self._origin = ticks - pts
            elif pts < self._last:
                pts = self._last + 1
        self._last = pts
        self._last_duration = max(1, round(duration_s * CLOCK_HZ))
        return pts


class TickClock:
    """FileClock in whole numbers, for streams with one time base: the same pts for a fraction of the work."""

    def __init__(self, tick_s: Fraction, usual_s: Fraction, origin: int | None, *, joined: bool = False) -> None:
        """
        Args:
            tick_s: unit of the timestamps and durations.
            usual_s: duration of a picture that states none.
            origin: the timestamp that becomes pts 0; that of the first picture when None.
            joined: as for FileClock.
        """
        self._joined = joined
        unit = lcm(tick_s.denominator, usual_s.denominator, CLOCK_HZ)  # in 1 / unit s everything is whole
        self._scale = unit // tick_s.denominator * tick_s.numerator
        self._usual = unit // usual_s.denominator * usual_s.numerator
        self._divisor = unit // CLOCK_HZ
        self._origin = None if origin is None else origin * self._scale
        self._next = self._origin or 0
        self._last: int | None = None
        self._length = 0

    def stamp(self, pts: int | None, duration: int) -> int | None:
        """As FileClock.stamp, in units of `tick_s`; a duration of 0 stands for the usual one."""
        time_ = self._next if pts is None else pts * self._scale
        length = duration * self._scale or self._usual
        self._next = time_ + length
        if self._origin is None:
            self._origin = time_
        stamp = _rounded(time_ - self._origin, self._divisor)
        last = self._last
        if last is not None and (stamp <= last or (self._joined and stamp > last + _JUMP)):
            if stamp == last:
                return None
            if stamp < last - _BREAK or stamp > last:
                stamp = last + max(1, _rounded(self._length, self._divisor))
                self._origin = time_ - stamp * self._divisor
            else:
                stamp = last + 1
        self._last = stamp
        self._length = length
        return stamp


def _rounded(value: int, divisor: int) -> int:
    """value / divisor to the nearest whole number, halves to the even one, as `round` does."""
    whole, rest = divmod(value, divisor)
    return whole + (2 * rest > divisor or (2 * rest == divisor and whole % 2 == 1))


class LiveClock:
    """The pts of a live source on one clock, 0 at its first picture, across reconnections.

    The stream's own timestamps give the distance between pictures, free of the network's
    jitter; the time of arrival says where the stream as a whole lies, and sets it again
    when the two part by more than half a second (a reconnection, a jump, drift).
    """

    def __init__(self) -> None:
        self._epoch_s: float | None = None
        self._offset = 0
        self._last = -1

    def stamp(self, pts: int, arrival_s: float) -> int:
        """The pts of a picture that the stream stamped `pts` and that came at `arrival_s`."""
        if self._epoch_s is None:
            self._epoch_s = arrival_s
            self._offset = -pts
        arrived = round((arrival_s - self._epoch_s) * CLOCK_HZ)
        if abs(pts + self._offset - arrived) > _LIVE_TOLERANCE:
            self._offset = arrived - pts
        self._last = max(self._last + 1, pts + self._offset)
        return self._last
