"""A picture of the mosaic: decoded from the packets that every viewer gets, so the run has no part in it."""

from __future__ import annotations

import io
from collections.abc import Sequence

import av
from av.video.codeccontext import VideoCodecContext
from PIL import Image

from tiler.preview.viewers import Coded

_DECODERS = {"h264": "h264", "hevc": "hevc", "av1": "libdav1d"}


def snapshot(
    group: Sequence[Coded], codec: str, crop: tuple[int, int, int, int] | None, kind: str
) -> bytes:
    """The newest picture as a PNG or JPEG file.

    Args:
        group: the pictures since the last keyframe, in decoding order.
        codec: h264 | hevc | av1.
        crop: x0, y0, x1, y1 in mosaic pixels; None: all of it.
        kind: png | jpeg.

    Raises:
        ValueError: there is no picture yet.
    """
    decoder = av.CodecContext.create(_DECODERS[codec], "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.thread_count = 1  # the run needs the cores
    newest: av.VideoFrame | None = None
    for packet in (*(av.Packet(coded.packet.data) for coded in group), None):
        newest = next(reversed(decoder.decode(packet)), newest)
    if newest is None:
        raise ValueError("no picture has been encoded yet")
    pixels = newest.to_ndarray(format="rgb24", src_colorspace="ITU709", dst_colorspace="ITU709")
    picture = Image.fromarray(pixels)
    file = io.BytesIO()
    picture.crop(crop).save(file, kind, **({"compress_level": 1} if kind == "png" else {"quality": 92}))
    return file.getvalue()

