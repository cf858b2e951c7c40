"""Real consumers of pushed streams: FFmpeg listening in a process of its own, that can be killed."""

from __future__ import annotations

import queue
import socket
import subprocess
import sys
import threading
import time
from typing import Self

_LISTEN = """
import sys, time, av
url, options = sys.argv[1], dict(pair.split('=') for pair in sys.argv[2:])
print('listening', flush=True)
with av.open(url, options=options, timeout=(30, 10)) as container:
    for frame in container.decode(video=0):
        print(f'{time.monotonic():.3f} {frame.width}x{frame.height}', flush=True)
"""
_LISTEN_TO_BOTH = _LISTEN.replace("decode(video=0)", "decode(video=0, audio=0)").replace(
    "{frame.width}x{frame.height}", "{frame.time or 0} {type(frame).__name__}"
)
SCHEMES = {
    "rtmp": ("rtmp://127.0.0.1:{}/live/x", ["listen=1", "analyzeduration=300000"]),
    "rtsp": ("rtsp://127.0.0.1:{}/x", ["rtsp_flags=listen", "listen_timeout=30", "analyzeduration=300000"]),
    "tcp": ("tcp://127.0.0.1:{}", ["listen=1", "analyzeduration=300000"]),
    "udp": ("udp://127.0.0.1:{}", ["analyzeduration=300000"]),
}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


class Consumer:
    """Listens from now on; `frames` are the times (monotonic) at which pictures (or `sound`, too) were decoded."""

    def __init__(self, scheme: str, port: int, *, sound: bool = False) -> None:
        url, options = SCHEMES[scheme]
        program = _LISTEN_TO_BOTH if sound else _LISTEN
        self._process = subprocess.Popen(
            [sys.executable, "-c", program, url.format(port), *options], stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._lines.get(timeout=20) == "listening"
        self.since_s = time.monotonic()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.strip())

    def frame(self, timeout_s: float = 20.0) -> float:
        """The time of the next decoded picture.

        Raises:
            queue.Empty: none came.
        """
        return float(self._lines.get(timeout=timeout_s).split()[0])

    def kind(self, timeout_s: float = 20.0) -> tuple[str, float]:
        """VideoFrame or AudioFrame (with `sound`), and its own time, of the next that is decoded."""
        _, time_s, kind = self._lines.get(timeout=timeout_s).split()
        return kind, float(time_s)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
