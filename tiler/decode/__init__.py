"""Decode: uri -> Frame, and what a tile shows at a time.

    open_decoder   a file, image, URL or sample -> Decoder
    SourceReader   a decoder on a thread of its own: loop, pace, reconnect
    OfflineFeed    the picture of a time, exactly; waits for it
    LiveFeed       the picture that came last; never waits
"""

from __future__ import annotations

from tiler.decode.base import Decoder, ReaderCounts, StreamInfo
from tiler.decode.feed import FeedCounts, LiveFeed, OfflineFeed, Shown
from tiler.decode.source import SourceReader, open_decoder

__all__ = [
    "Decoder",
    "FeedCounts",
    "LiveFeed",
    "OfflineFeed",
    "ReaderCounts",
    "Shown",
    "SourceReader",
    "StreamInfo",
    "open_decoder",
]
