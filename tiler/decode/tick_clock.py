"""FileClock's timestamps in whole numbers, for decoders whose host time per picture counts."""

from __future__ import annotations

from fractions import Fraction
from math import lcm

from tiler.types import CLOCK_HZ


class TickClock:
    """FileClock in whole numbers, for streams with one time base: the same pts in a fifth of the time."""

    def __init__(self, tick_s: Fraction, usual_s: Fraction, origin: int | None) -> None:
        """
        Args:
            tick_s: unit of the timestamps and durations.
            usual_s: duration of a picture that states none.
            origin: the timestamp that becomes pts 0; that of the first picture when None.
        """
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
        if last is not None and stamp <= last:
            if stamp == last:
                return None
            if stamp < last - CLOCK_HZ:
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
