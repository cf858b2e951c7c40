"""FFmpeg's picture -> the three 4:2:0 planes of a Frame.

What is 4:2:0 (or grey) with 8 bits already is taken as it lies, without a copy. All else
passes through swscale once: other subsamplings and depths keep their matrix and range,
RGB becomes BT.709 limited. More than 8 bits become 16-bit samples with the value in the
high bits (P010, P016). Alpha is dropped.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any, NamedTuple

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from tiler.types import Matrix

Samples = npt.NDArray[Any]

PLANAR_420 = frozenset(("yuv420p", "yuvj420p", "yuva420p"))
GREY_BITS = {"gray": 8, "gray10le": 10, "gray12le": 12, "gray14le": 14, "gray16le": 16}

_MATRIX_OF_TAG = {  # values of AVColorSpace, ITU-T H.273 table 4
    1: Matrix.BT709,
    4: Matrix.BT601,  # FCC: differs from BT.601 in the third decimal
    5: Matrix.BT601,
    6: Matrix.BT601,
    7: Matrix.BT709,  # SMPTE 240M: nearest
    9: Matrix.BT2020,
    10: Matrix.BT2020,
}
_HD_HEIGHT = 720


class Colour(NamedTuple):
    """How the samples of a picture encode colour."""

    matrix: Matrix
    full_range: bool


def colour_of(picture: av.VideoFrame) -> Colour:
    """Matrix and range from the tags, or the usual guess where there are none.

    Untagged: BT.709 from 720 lines up, BT.601 below; limited range, but for FFmpeg's
    `yuvj` formats, which are full by definition. RGB is what `to_planes` makes of it.
    """
    if _is_rgb(picture):
        return Colour(Matrix.BT709, full_range=False)
    guess = Matrix.BT709 if picture.height >= _HD_HEIGHT else Matrix.BT601
    matrix = _MATRIX_OF_TAG.get(int(picture.colorspace), guess)
    full = int(picture.color_range) == ColorRange.JPEG or picture.format.name.startswith("yuvj")
    return Colour(matrix, full)


def rotation_of(picture: av.VideoFrame, metadata: dict[str, str]) -> int:
    """Degrees clockwise, a multiple of 90, that turn the picture upright.

    From the display matrix (which FFmpeg reads counterclockwise), or else from the
    `rotate` tag of old files. Mirroring is not looked at.
    """
    angle: float = -picture.rotation
    if angle == 0:
        try:
            angle = float(metadata.get("rotate", 0))
        except ValueError:
            angle = 0
    if not -360 <= angle <= 360:  # a broken matrix
        return 0
    return round(angle / 90) * 90 % 360


def sample_aspect_of(value: Any) -> Fraction:
    """FFmpeg's sample aspect ratio; 1 where it is unknown or absurd."""
    ratio = exact(value)
    return ratio if ratio is not None and Fraction(1, 16) <= ratio <= 16 else Fraction(1)


def exact(value: Any) -> Fraction | None:
    """A rational as PyAV gives it (Fraction before 19, AVRational since), None when unset."""
    return Fraction(value.numerator, value.denominator) if value else None


DEEP_420_BITS = {"yuv420p10le": 10, "yuv420p12le": 12, "yuv420p14le": 14, "yuv420p16le": 16}
"""Planar 4:2:0 formats of more than 8 bits, in the low bits of 16."""


class PlaneMaker:
    """Turns pictures of one stream into planes; keeps swscale's context between them."""

    def __init__(self) -> None:
        self._scaler = VideoReformatter()
        self._grey: Samples = np.empty((0, 0), np.uint8)

    def planes(self, picture: av.VideoFrame) -> tuple[Samples, Samples, Samples, av.VideoFrame]:
        """(y, u, v) of a picture and the FFmpeg picture that owns their memory.

        y is (H, W), u and v are (ceil(H/2), ceil(W/2)); uint8, or uint16 with the value
        in the high bits.

        Raises:
            av.FFmpegError: swscale does not know the format.
        """
        upright = all(plane.line_size > 0 for plane in picture.planes)
        name = picture.format.name
        if upright and name in GREY_BITS:
            return self._from_grey(picture, GREY_BITS[name])
        if upright and picture.width % 2 and name in DEEP_420_BITS:
            return self._from_deep(picture, DEEP_420_BITS[name])
        if not (upright and (name in PLANAR_420 or name == "nv12")):
            picture = self._reformat(picture)
        height, width = picture.height, picture.width
        half = ((height + 1) // 2, (width + 1) // 2)
        if picture.format.name in PLANAR_420:
            y, u, v = (
                _view(picture, index, np.uint8, rows, columns)
                for index, (rows, columns) in enumerate(((height, width), half, half))
            )
            return y, u, v, picture
        sample = np.uint8 if picture.format.name == "nv12" else np.uint16
        chroma = _view(picture, 1, sample, half[0], 2 * half[1])
        return _view(picture, 0, sample, height, width), chroma[:, 0::2], chroma[:, 1::2], picture

    def _from_deep(self, picture: av.VideoFrame, bits: int) -> tuple[Samples, Samples, Samples, av.VideoFrame]:
        """Planar 4:2:0 of odd width: swscale leaves the last chroma column of P010 unset."""
        height, width = picture.height, picture.width
        half = ((height + 1) // 2, (width + 1) // 2)
        shift = np.uint16(16 - bits)
        y, u, v = (
            np.left_shift(_view(picture, index, np.uint16, *shape), shift, dtype=np.uint16)
            for index, shape in enumerate(((height, width), half, half))
        )
        return y, u, v, picture

    def _reformat(self, picture: av.VideoFrame) -> av.VideoFrame:
        depth = max(component.bits for component in picture.format.components)
        target = "yuv420p" if depth <= 8 else "p010le" if depth <= 10 else "p016le"
        rgb = _is_rgb(picture)
        full = ColorRange.JPEG if rgb or colour_of(picture).full_range else ColorRange.MPEG
        return self._scaler.reformat(
            picture,
            format=target,
            dst_colorspace=Colorspace.ITU709 if rgb else None,
            src_color_range=full,
            dst_color_range=ColorRange.MPEG if rgb else full,
            interpolation=Interpolation.BILINEAR | Interpolation.ACCURATE_RND,
            threads=1,
        )

    def _from_grey(
        self, picture: av.VideoFrame, bits: int
    ) -> tuple[Samples, Samples, Samples, av.VideoFrame]:
        sample = np.uint8 if bits == 8 else np.uint16
        y = _view(picture, 0, sample, picture.height, picture.width)
        if 8 < bits < 16:
            y = np.left_shift(y, np.uint16(16 - bits), dtype=np.uint16)
        half = ((picture.height + 1) // 2, (picture.width + 1) // 2)
        if self._grey.shape != half or self._grey.dtype != sample:
            self._grey = np.full(half, 128 if bits == 8 else 128 << 8).astype(sample)
        return y, self._grey, self._grey, picture


def _is_rgb(picture: av.VideoFrame) -> bool:
    return picture.format.is_rgb or picture.format.has_palette


def _view(picture: av.VideoFrame, index: int, sample: type[Any], rows: int, columns: int) -> Samples:
    """A plane as it lies in FFmpeg's memory, padding cut off."""
    plane = picture.planes[index]
    memory: Any = plane  # has the buffer protocol, which its type cannot say before Python 3.12
    lines: Samples = np.frombuffer(memory, sample).reshape(-1, plane.line_size // np.dtype(sample).itemsize)
    return lines[:rows, :columns]
