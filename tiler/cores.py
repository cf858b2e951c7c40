"""Processor cores that threads keep to, on Linux: elsewhere nothing happens. Why: docs/adr/016."""

from __future__ import annotations

import ctypes
import logging
import os
import sys
import threading
from contextlib import suppress

_log = logging.getLogger(__name__)


class OneCore:
    """A processor core for threads that work in turns: where the first of them is when it asks for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._core: int | None = None

    def keep(self) -> None:
        """Let the calling thread run on no other core. The threads that it starts begin there, too: see `any_core`."""
        if sys.platform != "linux":
            return
        try:
            with self._lock:
                if self._core is None:
                    self._core = ctypes.CDLL(None).sched_getcpu()
                    _log.info("the stages keep to core %d", self._core)
            os.sched_setaffinity(0, {self._core})
        except (OSError, ValueError, AttributeError) as error:  # it is not ours any more, or not told
            _log.warning("the stages do not keep to a core: %s", error)


def any_core() -> None:
    """Let the calling thread run on every core of the process again, if a thread that keeps to one has started it."""
    if sys.platform == "linux":
        with suppress(OSError):  # then it goes on where it is
            cores = os.sched_getaffinity(os.getpid())
            if os.sched_getaffinity(0) != cores:
                os.sched_setaffinity(0, cores)
