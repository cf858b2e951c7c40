"""Planes in device memory, as the tables of launches name them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from tiler.types import Frame, Plane

T = TypeVar("T")

_MOST_PICTURES = 4096
"""They come from rings, so there are few; where they do not, memory stays bounded."""


def address(plane: Plane) -> int:
    """Of the first sample's 8-bit value: of 16 bits the high byte."""
    high = plane.dtype.itemsize == 2 and sys.byteorder == "little"
    return int(plane.data.ptr) + high


class PerPicture(Generic[T]):
    """What a launcher needs to know of a picture, worked out once for all that come in the same surface.

    Surfaces come round again and again. What is kept holds for a picture in the same memory that lies there in the
    same way and is of the same kind: everything of a Frame but its time, its stream and who owns it.
    """

    def __init__(self, work_out: Callable[[Frame], T]) -> None:
        """
        Args:
            work_out: gives the same for pictures that differ in nothing but time, stream and owner.
        """
        self._work_out = work_out
        self._known: dict[Hashable, T] = {}

    def __call__(self, frame: Frame) -> T:
        """What `work_out` gave for such a picture."""
        key: Hashable = frame.layout
        if key is None:
            y, u, v, aspect = frame.y, frame.u, frame.v, frame.sample_aspect
            key = (
                y.data.ptr, u.data.ptr, v.data.ptr, y.shape, y.strides, u.strides, v.strides, y.dtype.itemsize,
                frame.matrix, frame.full_range, frame.rotation, aspect.numerator, aspect.denominator, frame.source_size,
            )  # fmt: skip
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= _MOST_PICTURES:
                self._known.clear()
            known = self._known[key] = self._work_out(frame)
        return known
