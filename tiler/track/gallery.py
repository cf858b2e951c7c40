"""What somebody looked like: a mean of crops."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import numpy as np
import numpy.typing as npt

from tiler.kernels.looks_cpu import dots
from tiler.kernels.people_cpu import FULL
from tiler.types import APPEARANCE, Float32

Float64 = npt.NDArray[np.float64]


class Gallery:
    """One person's. Those of all people of a stream lie in arrays, see `kernels/people_cpu.py`: the same mean.

    Attributes:
        mean: (APPEARANCE,) float64.
        crops: of how many it is made.
    """

    __slots__ = ("_unit", "crops", "mean")

    def __init__(self) -> None:
        self.mean: Float64 = np.zeros(APPEARANCE)
        self.crops = 0
        self._unit: Float64 | None = None

    def feed(self, crop: Float32 | Float64, count: int = 1) -> None:
        """Take in the mean of so many crops."""
        self.crops += count
        self.mean += min(1.0, count / min(self.crops, FULL)) * (crop - self.mean)
        self._unit = None

    @property
    def unit(self) -> Float64:
        """The mean, of length 1."""
        if self._unit is None:
            self._unit = unit(self.mean)
        return self._unit


def unit(vector: Float32 | Float64) -> Float64:
    """The vector, of length 1; zeros stay zeros."""
    of_one: Float64 = vector.astype(np.float64) / max(sqrt(vector @ vector), 1e-9)
    return of_one


def units(galleries: Sequence[Gallery]) -> Float64:
    """(m, APPEARANCE) float64: the unit vectors of m galleries."""
    return np.array([gallery.unit for gallery in galleries]).reshape(len(galleries), APPEARANCE)


def cosines(crop: Float32 | Float64, galleries: Float64) -> Float64:
    """(m,): of a crop (of length 1) and the `units` of m galleries."""
    found: Float64 = dots(crop.astype(np.float64), galleries)
    return found
