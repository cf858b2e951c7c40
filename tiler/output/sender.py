"""The process that a push output's connection lives in: packets from standard input to one FFmpeg URL.

A connection of FFmpeg's cannot be interrupted while it connects or sends, and PyAV holds Python's lock while it
connects. A process can be ended whatever it waits for, so `tiler.output.push` starts one for each connection:
this one, or `tiler.output.whip`, to which it speaks in the same way.

Input: a line of JSON (`Target`), then packets, each a `HEADER` and its bytes; the first is a keyframe that is
looked at for its parameter sets and not sent. Output: lines of JSON (`Report`), one when connected, one when it fails.
It imports nothing of tiler, so as to start fast.
"""

from __future__ import annotations

import base64
import io
import json
import logging
import os
import select
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING, Any, BinaryIO, TypedDict

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.stream import Stream

HEADER = struct.Struct(">qqqBI")
"""pts, dts and duration in 1/90000 s, 1 for a keyframe or `SOUND`, size in bytes."""
SOUND = 2

_DEMUXERS = {"h264": "h264", "hevc": "hevc", "av1": "obu"}
_TIME_BASE = Fraction(1, 90000)
_LAST_S = 2.0


class Target(TypedDict):
    """Where the packets go. `sound`: a file with the sound's parameters in base 64; empty without sound. `token`: of
    WHIP; empty without one.
    """

    url: str
    container: str
    codec: str
    options: dict[str, str]
    connect_s: int
    sound: str
    token: str


class Report(TypedDict):
    """`error` is None while all is well; `keyframe`: the other side asks for one."""

    error: str | None
    keyframe: bool


def main(send: Callable[[BinaryIO, int], None]) -> None:
    """Send until the input or the connection ends; `send` gets the input and where `say` says it."""
    report = os.dup(1)
    os.dup2(2, 1)  # FFmpeg may print
    try:
        send(sys.stdin.buffer, report)
    except Exception as error:  # the parent tells it
        say(report, str(error) or type(error).__name__)
        os._exit(1)  # what FFmpeg still holds for a broken connection would block


def _send(source: BinaryIO, report: int) -> None:
    target: Target = json.loads(source.readline())
    sample = _read(source)
    if sample is None:
        return
    outlive()
    # The default action of SIGALRM ends the process: no lock that FFmpeg or Python holds can delay it.
    signal.alarm(target["connect_s"])
    container, stream, sound = _connect(target, sample[1])
    signal.alarm(0)
    say(report)
    import av

    while (read := _read(source)) is not None:
        (pts, dts, duration, kind, _), data = read
        packet = av.Packet(data)
        packet.stream, packet.time_base = sound if kind == SOUND and sound is not None else stream, _TIME_BASE
        packet.pts, packet.dts, packet.duration, packet.is_keyframe = pts, dts, duration, bool(kind)
        container.mux(packet)
    container.close()


def _connect(target: Target, sample: bytes) -> tuple[OutputContainer, Stream, Stream | None]:
    import av

    notes = _Notes()
    logging.getLogger("av").addHandler(notes)
    options, sound = target["options"], None
    if target["sound"]:  # FFmpeg would hold pictures back until sound of their time has come
        options = {"max_interleave_delta": "1", **options}
    container = av.open(target["url"], "w", format=target["container"], options=options)
    with av.open(io.BytesIO(sample), format=_DEMUXERS[target["codec"]]) as parameters:
        stream = container.add_stream_from_template(parameters.streams.video[0])
    stream.time_base = _TIME_BASE
    if target["sound"]:
        with av.open(io.BytesIO(base64.b64decode(target["sound"]))) as parameters:
            sound = container.add_stream_from_template(parameters.streams.audio[0])
        sound.time_base = _TIME_BASE
    container.start_encoding()
    if notes.unused:
        raise ValueError(f"FFmpeg does not know the {notes.unused}")
    return container, stream, sound


class _Notes(logging.Handler):
    """PyAV only logs the options that nothing took."""

    unused = ""

    def emit(self, record: logging.LogRecord) -> None:
        if "not used:" in record.getMessage():
            self.unused = "options " + record.getMessage().partition("not used:")[2].strip()


def _read(source: BinaryIO) -> tuple[tuple[Any, ...], bytes] | None:
    """The next packet; None at the end."""
    head = source.read(HEADER.size)
    if len(head) < HEADER.size:
        return None
    fields = HEADER.unpack(head)
    data = source.read(fields[-1])
    return None if len(data) < fields[-1] else (fields, data)


def outlive() -> None:
    """From now on, end the process soon after its parent closed the input, even if the connection hangs."""

    def end() -> None:
        ended = select.poll()
        ended.register(0, 0)  # a hang-up is always told
        ended.poll()
        time.sleep(_LAST_S)
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()


def say(report: int, error: str | None = None, *, keyframe: bool = False) -> None:
    """Tell the parent."""
    os.write(report, (json.dumps(Report(error=error, keyframe=keyframe)) + "\n").encode())


if __name__ == "__main__":
    main(_send)
