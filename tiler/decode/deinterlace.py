"""Interlaced pictures -> progressive ones, by FFmpeg's bwdif."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import av
from av.filter import Graph


class Deinterlacer:
    """Passes progressive video on untouched; from the first interlaced picture on, filters.

    bwdif (Bob Weaver, after Yadif and the BBC's PH-2071) needs one picture of lookahead,
    so pictures come out one later. One picture comes out for each that goes in.
    """

    def __init__(self) -> None:
        self._graph: Graph | None = None
        self._shape: tuple[int, int, str] | None = None

    def push(self, picture: av.VideoFrame, tick: Fraction) -> Iterator[av.VideoFrame]:
        """The pictures that are ready once this one went in; `tick` is its time base."""
        if self._graph is None and not picture.interlaced_frame:
            yield picture
            return
        shape = (picture.width, picture.height, picture.format.name)
        if self._graph is not None and self._shape != shape:
            yield from self.flush()
        if self._graph is None:
            self._graph = _bwdif(picture, tick)
            self._shape = shape
        self._graph.vpush(picture)
        yield from self._pull(self._graph)

    def flush(self) -> Iterator[av.VideoFrame]:
        """What is left inside at the end; the next picture starts afresh."""
        graph, self._graph = self._graph, None
        if graph is not None:
            graph.vpush(None)
            yield from self._pull(graph)

    def _pull(self, graph: Graph) -> Iterator[av.VideoFrame]:
        while True:
            try:
                picture = graph.vpull()
            except (av.BlockingIOError, av.EOFError):
                return
            yield picture


def _bwdif(picture: av.VideoFrame, tick: Fraction) -> Graph:
    graph = Graph()
    source = graph.add(
        "buffer",
        video_size=f"{picture.width}x{picture.height}",
        pix_fmt=picture.format.name,
        time_base=str(tick),
        pixel_aspect="1/1",
        colorspace=str(int(picture.colorspace)),
        range=str(int(picture.color_range)),
    )
    bwdif = graph.add("bwdif", mode="send_frame", parity="auto", deint="interlaced")
    graph.link_nodes(source, bwdif, graph.add("buffersink"))
    graph.configure()
    return graph
