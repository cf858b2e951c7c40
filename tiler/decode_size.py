"""How small a source may be decoded: no tile and no detector sees more than this of it.

NVDEC's output stage scales for nothing, so with `scaled_decode` a picture that is only drawn small
never exists large in memory. The size follows from the config and the source alone, once for each
size that a source has; docs/adr/008 says what it costs.
"""

from __future__ import annotations

from fractions import Fraction
from math import ceil
from typing import TYPE_CHECKING

from tiler.compose.layout import fit_picture, place_tiles
from tiler.config.models import Config
from tiler.preprocess.letterbox import letterbox

if TYPE_CHECKING:
    from tiler.engines.registry import ModelSpec

LEAST_GAIN = 2
"""How many times fewer samples a smaller size must have: for less, scaling twice is not worth its blur."""
SMALLEST = 64
"""Width and height below which nothing is gained."""
_SLACK = 1e-6  # 1920 * (640 / 1920) and its like


class DecodeSizes:
    """A `tiler.decode.base.Needed` for one config.

    The size is the largest that a tile draws the source in (a crop counts with the picture around
    it), or its place in the detector's input if that is larger: made even, each axis by itself,
    since boxes are in pixels of the source whatever its planes measure.
    """

    def __init__(self, config: Config, model: ModelSpec | None) -> None:
        """
        Args:
            config: `mosaic`, `sources` and `tiles` are used.
            model: the detector, None for `detector: none`.

        Raises:
            LayoutError: the layout is refused.
        """
        tiles = place_tiles(config)
        self._tiles = {s.id: [tile for tile in tiles if tile.source == i] for i, s in enumerate(config.sources)}
        self._model = model

    def __call__(self, source: str, picture_size: tuple[int, int], picture_aspect: Fraction) -> tuple[int, int]:
        """(width, height) to decode at, upright: even, or the source's own.

        Args:
            source: its id; of one that the config does not have, nobody knows where it will be shown.
            picture_size: width and height, picture pixels.
            picture_aspect: width : height of a picture pixel.
        """
        width, height = picture_size
        if source not in self._tiles:
            return picture_size
        scales = [fit_picture(tile, picture_size, picture_aspect).scale for tile in self._tiles[source]]
        if self._model is not None:
            box = letterbox(picture_size, picture_aspect, self._model.input_size, self._model.input.align)
            scales.append((box.width / width, box.height / height))
        across, down = (max((scale[axis] for scale in scales), default=0.0) for axis in (0, 1))
        small = _even(width * across), _even(height * down)
        shrinks = small[0] < width and small[1] < height
        return small if shrinks and LEAST_GAIN * small[0] * small[1] <= width * height else picture_size


def _even(samples: float) -> int:
    """The next even number, at least SMALLEST."""
    return max(SMALLEST, 2 * ceil(samples / 2 - _SLACK))
