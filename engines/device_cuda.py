"""The CUDA device that an engine is built for or runs on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import cupy

from tiler.engines.build import Target


@contextmanager
def current_device(index: int) -> Iterator[Target]:
    """Make a device current on this thread, and say what it is."""
    with cupy.cuda.Device(index) as device:
        name = cupy.cuda.runtime.getDeviceProperties(index)["name"]
        yield Target(int(device.compute_capability), name.decode())
