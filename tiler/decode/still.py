"""An image file as a source: one picture that stays."""

from __future__ import annotations

import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageOps

from tiler.closing import Closing
from tiler.config.models import Source
from tiler.decode.base import StreamInfo
from tiler.decode.picture import PlaneMaker, colour_of
from tiler.errors import InputError
from tiler.types import Frame

_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp"))
MAX_SIDE_PX = 16384


def image_file(uri: str) -> Path | None:
    """The path of an image file; None for anything else, an image of a web server among it."""
    path = uri.removeprefix("file://")
    return Path(path) if "://" not in path and Path(path).suffix.lower() in _SUFFIXES else None


class StillDecoder(Closing):
    """A Decoder for an image: one frame at pts 0, then None; `endless`: the picture stays.

    EXIF orientation is applied, transparent parts lie on black, of an animation the first
    picture counts. Samples are BT.709, limited range.
    """

    endless = True

    def __init__(self, source: Source, path: Path, stream: int) -> None:
        """Read the image.

        Raises:
            InputError: it is missing, broken, or larger than MAX_SIDE_PX a side.
        """
        where = f"source {source.id}: cannot open {path}"
        try:
            with Image.open(path) as image:
                if max(image.size) > MAX_SIDE_PX:
                    size = f"{image.width}x{image.height}"
                    raise InputError(f"{where}: {size} pixels, expected at most {MAX_SIDE_PX} a side")
                codec = (image.format or path.suffix[1:]).lower()
                rgb = _rgb(image)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise InputError(f"{where}: {' '.join(str(error).split())}") from error
        height, width, _ = rgb.shape
        picture = av.VideoFrame.from_ndarray(rgb, format="rgb24")
        colour = colour_of(picture)
        y, u, v, owner = PlaneMaker().planes(picture)
        self._picture: Frame | None = Frame(
            stream, 0, y, u, v, colour.matrix, colour.full_range, arrival_s=time.monotonic(), owner=owner
        )
        self._next: Frame | None = self._picture
        self.info = StreamInfo((width, height), Fraction(0), None, codec, f"pillow {codec}")

    def read(self) -> Frame | None:
        frame, self._next = self._next, None
        return frame

    def restart(self) -> None:
        self._next = self._picture

    def close(self) -> None:
        self._picture = self._next = None


def _rgb(image: Image.Image) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """(H, W, 3) uint8, upright, on black."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16"):  # Pillow clips 16-bit grey instead of scaling it
        grey = (np.asarray(upright) >> 8).astype(np.uint8)
        return np.ascontiguousarray(np.repeat(grey[:, :, None], 3, axis=2))
    if upright.has_transparency_data:
        upright = Image.alpha_composite(
            Image.new("RGBA", upright.size, (0, 0, 0, 255)), upright.convert("RGBA")
        )
    return np.array(upright.convert("RGB"), dtype=np.uint8)
