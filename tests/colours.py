"""Clips of one colour each, and a server that has them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
from pictures import write

YELLOW, PURPLE = (200, 40, 150), (90, 180, 160)
"""Y, Cb, Cr of BT.709, the mosaic's own."""


@contextlib.contextmanager
def clip_server(folder: Path) -> Iterator[str]:
    """Host and port of an HTTP server with yellow.mp4 and purple.mp4, which are made in the folder."""
    folder.mkdir(exist_ok=True)
    for name, colour in (("yellow", YELLOW), ("purple", PURPLE)):
        write(folder / f"{name}.mp4", [_plain(colour) for _ in range(30)], context={"colorspace": 1})

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def _plain(colour: tuple[int, int, int]) -> av.VideoFrame:
    frame = av.VideoFrame(64, 36, "yuv420p")
    for plane, value in zip(frame.planes, colour, strict=True):
        plane.update(bytes([value]) * plane.buffer_size)
    return frame
