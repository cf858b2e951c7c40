"""One output behind a thread of its own, so that it can fail, be slow or hang, and only it does.

The encoder's thread gives every packet to every `Outlet` (`put`, which never raises); the outlet's thread
hands them to its `Output`. What happens when the output cannot keep up is its `Policy`:

* `BACK_PRESSURE` (files of an offline run): `put` waits for room and nothing is lost. An output that takes
  nothing for `stall_s` is stopped, and the run goes on without it.
* `LIVE` (files of a live run): a deep queue; beyond it new packets are dropped until a keyframe finds room.
* `NEWEST` (networks, viewers): beyond the queue all that waits is dropped, and the next keyframe begins anew.

An output with `reopen` is opened again after a failure, for ever, with growing pauses; every other one stops.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from tiler.errors import TilerError, mask_uri
from tiler.output.base import Output
from tiler.types import Packet

State = Literal["up", "down", "stopped"]
"""down: it will be tried again, or holds a call for long; stopped: it takes no more, by an error or at the end."""

_BACKOFF_S = (0.25, 1.5)
"""First and longest pause between attempts: what comes back is found within the longest."""
_SETTLED_S = 10.0
"""An output that stayed up this long starts again with the shortest pause."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Policy:
    """What an outlet does with more than its output takes.

    Attributes:
        depth: packets that may wait.
        lossless: `put` waits for room.
        newest: what waits is worth less than what comes.
        stall_s: seconds in one call after which the output counts as hung.
        finish_s: seconds that it gets at the end to take what waits and to finalise.
    """

    depth: int
    lossless: bool = False
    newest: bool = False
    stall_s: float = 30.0
    finish_s: float = 30.0


def policy(*, live: bool, network: bool, fps: Fraction, finish_s: float = 30.0) -> Policy:
    """The policy of an output: 5 s of packets for a network, 20 s for a live file, back-pressure for an offline one."""
    if network:
        return Policy(round(5 * fps), newest=True, stall_s=5.0, finish_s=3.0)
    if live:
        return Policy(round(20 * fps), finish_s=finish_s)
    return Policy(64, lossless=True, finish_s=finish_s)


class Outlet:
    """One output, its thread, its queue and what became of it."""

    def __init__(
        self,
        kind: str,
        name: str,
        output: Output | None,
        limits: Policy,
        *,
        reopen: Callable[[Packet], Output] | None = None,
        request_keyframe: Callable[[], None] = lambda: None,
        measure: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """
        Args:
            kind: key of the output in the config, such as "file".
            name: where it goes; secrets are masked.
            output: what takes the packets; None with `reopen`.
            reopen: opens the output; it is given the last keyframe, for its parameter sets, which need not be written.
            request_keyframe: asks the encoder for one, so that an output that is up again need not wait.
            measure: times a block as work of the output stage.
        """
        if output is None and reopen is None:
            raise ValueError("an outlet needs an output or a way to open one")
        self.kind, self.name = kind, mask_uri(name)
        self._output, self._reopen, self._limits = output, reopen, limits
        self._request_keyframe, self._measure = request_keyframe, measure
        self._changed = threading.Condition()
        self._queue: deque[Packet] = deque()
        self._sample: Packet | None = None
        self._up = output is not None
        self._wants_keyframe = True  # an outlet may be added in the middle of a run
        self._closing = self._stopped = self._ended = self._failed = False
        self._busy_since_s: float | None = None
        self._error: str | None = None
        self._pause_s, self._opened_s = _BACKOFF_S[0], 0.0
        self._packets = self._bytes = self._dropped = self._restarts = 0
        # Daemon: a thread that hangs inside a library must not keep the process.
        self._thread = threading.Thread(target=self._run, name=f"tiler-output-{kind}", daemon=True)
        self._thread.start()

    # The encoder's side

    def put(self, packet: Packet) -> None:
        """Give one packet, in decoding order; waits for room only with a lossless policy. Never raises."""
        with self._changed:
            if self._reopen is not None and packet.keyframe:
                self._sample = packet
                self._changed.notify_all()
            if self._limits.lossless:
                self._wait_for_room()
            if self._stopped or self._closing or not self._up:
                self._dropped += 1
                return
            if len(self._queue) >= self._limits.depth:
                self._wants_keyframe = True
                if self._limits.newest:
                    self._dropped += len(self._queue)
                    self._queue.clear()
            if self._wants_keyframe:
                if not packet.keyframe or len(self._queue) >= self._limits.depth:
                    self._dropped += 1
                    return
                self._wants_keyframe = False
            self._queue.append(packet)
            self._changed.notify_all()

    def _wait_for_room(self) -> None:
        while self._up and not (self._stopped or self._closing) and len(self._queue) >= self._limits.depth:
            left_s = self._limits.stall_s - self._held_s()
            if left_s <= 0:
                self._stop(f"has taken nothing for {self._limits.stall_s:g} s")
                return
            self._changed.wait(left_s)

    def _held_s(self) -> float:
        """Seconds that the output has been in the call it is in."""
        since_s = self._busy_since_s  # read once: the outlet's thread may leave the call at any time
        return 0.0 if since_s is None else time.monotonic() - since_s

    # The outlet's thread

    def _run(self) -> None:
        self._open()
        while (packet := self._take()) is not None and self._output is not None:
            try:
                with self._measure():
                    self._call(self._output.write, packet)
            except Exception as error:  # whatever an output raises is its own affair
                self._fail(self._text(error))
            else:
                with self._changed:
                    self._packets += 1
                    self._bytes += packet.size_bytes
        self._close_output()
        with self._changed:
            self._stopped = self._ended = True
            self._changed.notify_all()

    def _take(self) -> Packet | None:
        """The next packet; None when there will be none."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing or self._stopped)
            if self._stopped or not self._queue:
                return None
            packet = self._queue.popleft()
            self._changed.notify_all()
            return packet

    def _call(self, function: Callable[..., Any], *args: Any) -> Any:
        """A call into the output, which may hang."""
        self._busy_since_s = time.monotonic()
        try:
            return function(*args)
        finally:
            self._busy_since_s = None

    def _fail(self, text: str) -> None:
        """A packet was not taken: stop, or open again."""
        if self._reopen is None:
            with self._changed:
                self._stop(text)
            return
        with self._changed:
            self._up, self._error = False, text
            self._dropped += 1 + len(self._queue)
            self._queue.clear()
        _log.warning("output %s %s is down: %s", self.kind, self.name, text)
        self._close_output()
        if time.monotonic() - self._opened_s >= _SETTLED_S:
            self._pause_s = _BACKOFF_S[0]
        self._pause(0.0)
        self._open()

    def _open(self) -> None:
        """Try until it is open, or the run ends."""
        while self._output is None and not self._closing and self._reopen is not None:
            with self._changed:
                self._changed.wait_for(lambda: self._sample is not None or self._closing)
                sample = self._sample
            if self._closing or sample is None:
                return
            began_s = time.monotonic()
            try:
                output: Output = self._call(self._reopen, sample)
            except Exception as error:  # the next attempt may succeed
                text = self._text(error)
                if text != self._error:
                    _log.warning("output %s %s cannot be opened: %s", self.kind, self.name, text)
                self._error = text
                self._pause(time.monotonic() - began_s)
                continue
            with self._changed:
                self._restarts += self._opened_s > 0
                self._output, self._up, self._wants_keyframe, self._error = output, True, True, None
                self._opened_s = time.monotonic()
            self._request_keyframe()

    def _pause(self, spent_s: float) -> None:
        """Wait before the next attempt, less what the last one took, and longer each time."""
        with self._changed:
            self._changed.wait_for(lambda: self._closing, max(0.0, self._pause_s - spent_s))
        self._pause_s = min(2 * self._pause_s, _BACKOFF_S[1])

    def _close_output(self) -> None:
        output, self._output = self._output, None
        if output is None:
            return
        try:
            self._call(output.close)
        except Exception as error:  # the first error is the one that tells
            with self._changed:
                self._error = self._error or self._text(error)
                self._failed = self._failed or self._reopen is None

    def _stop(self, text: str) -> None:
        """Take no more, because of an error; the caller holds the lock."""
        if not self._stopped:
            _log.warning("output %s %s has stopped: %s", self.kind, self.name, text)
            self._stopped = self._failed = True
            self._error = self._error or text
            self._dropped += len(self._queue)
            self._queue.clear()
        self._changed.notify_all()

    # The end, and what became of it

    def finish(self) -> None:
        """Nothing more will be put; returns at once."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def close(self) -> None:
        """Write what waits, finalise, and end the thread; in `finish_s` at most, for an output that hangs."""
        self.finish()
        with self._changed:
            last_s = time.monotonic() + self._limits.finish_s
            while not self._ended:
                left_s = (
                    self._limits.finish_s - self._held_s() if self._limits.lossless else last_s - time.monotonic()
                )
                if left_s <= 0:
                    self._stop(f"did not finish within {self._limits.finish_s:g} s; what it had not written is lost")
                    return
                self._changed.wait(left_s)

    @property
    def state(self) -> State:
        if self._stopped:
            return "stopped"
        return "up" if self._up and self._held_s() < self._limits.stall_s else "down"

    @property
    def error(self) -> str | None:
        """What is wrong now, or was when it stopped."""
        held_s = self._held_s()
        if self._error is None and not self._stopped and held_s >= self._limits.stall_s:
            return f"has taken nothing for {held_s:.0f} s"
        if self._error is None and self._in_vain:
            return "the run ended before a packet could go out"
        return self._error

    @property
    def stopped(self) -> bool:
        """Whether it takes no more."""
        return self._stopped

    @property
    def failed(self) -> bool:
        """Whether it ended by an error, or never got a packet out because of one, or of a run that was too short."""
        return self._failed or self._in_vain or (self._error is not None and self._packets == 0)

    @property
    def _in_vain(self) -> bool:
        return self._reopen is not None and self._ended and self._packets == 0 and self._dropped > 0

    def report(self) -> dict[str, Any]:
        """Its state and counts as plain data, for the report and progress."""
        return {
            "kind": self.kind,
            "name": self.name,
            "state": self.state,
            "packets": self._packets,
            "bytes": self._bytes,
            "dropped": self._dropped,
            "restarts": self._restarts,
            "error": self.error,
        }

    def _text(self, error: Exception) -> str:
        """An error in the user's words, without what the row says anyway."""
        if not isinstance(error, TilerError):
            return mask_uri(f"{type(error).__name__}: {error}")
        return mask_uri(str(error)).removeprefix("output: ").removeprefix(f"{self.name}: ")
