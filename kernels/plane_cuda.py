"""Planes in device memory, as the tables of launches name them."""

from __future__ import annotations

import sys
from collections.abc import Hashable

from tiler.types import Frame, Plane

MOST_PICTURES = 4096
"""Pictures that a launcher remembers what it worked out for; they come from rings, so there are few."""


def address(plane: Plane) -> int:
    """Of the first sample's 8-bit value: of 16 bits the high byte."""
    high = plane.dtype.itemsize == 2 and sys.byteorder == "little"
    return int(plane.data.ptr) + high


def picture_key(frame: Frame) -> Hashable:
    """Equal for pictures that lie in the same memory in the same way, and are of one kind.

    Surfaces come round again and again: what a table says of one is worked out once.
    """
    y, u, v, aspect = frame.y, frame.u, frame.v, frame.sample_aspect
    return (
        y.data.ptr, u.data.ptr, v.data.ptr, y.shape, y.strides, u.strides, v.strides, y.dtype.itemsize,
        frame.matrix, frame.full_range, frame.rotation, aspect.numerator, aspect.denominator,
    )  # fmt: skip
