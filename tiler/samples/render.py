"""Frames of the sample scenes with their ground truth, and random training pictures.

Needs NumPy and Numba only: encoding is in `cache`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tiler.samples import effects
from tiler.samples import raster as r
from tiler.samples.actors import Cast
from tiler.samples.background import add_glow, cast, draw_prop, ground_depths, project
from tiler.samples.people import draw_figures, local_light
from tiler.samples.scene import STAGES
from tiler.samples.training import render_training_frame

__all__ = ["SceneRenderer", "Truth", "render_training_frame"]

UInt8 = npt.NDArray[np.uint8]
_SOFT_PX = 1.35


class Truth(NamedTuple):
    """Who is in one frame.

    Attributes:
        number: (n,) int32, the person's number in the scene, from 1.
        xyxy: (n, 4) float32 px, the body inside the frame, covered or not.
        visibility: (n,) float32, seen share of the whole body.
    """

    number: npt.NDArray[np.int32]
    xyxy: npt.NDArray[np.float32]
    visibility: npt.NDArray[np.float32]


class SceneRenderer:
    """Draws the frames of one scene; frame i is the same whatever was drawn before.

    Args:
        name: one of `scene.STAGES`.
        size: width and height in px, both even.
        seconds: how long the scene plays.
        seed: who walks where.
    """

    def __init__(self, name: str, size: tuple[int, int], seconds: float, seed: int) -> None:
        width, height = size
        stage = STAGES[name](np.random.default_rng([seed, sum(map(ord, name))]), width, height, seconds)
        self._stage, self._cast = stage, Cast(stage.actors)
        self._ground = ground_depths(stage.cam, height)
        self._canvas = r.new_canvas(width, height, len(stage.actors))
        self._numbers = np.empty(0, np.int32)
        self._paint_background()
        self._back = (self._canvas.rgb.reshape(height, -1).copy(), self._canvas.depth.copy())
        half = ((height + 1) // 2, (width + 1) // 2)
        self._planes = (np.zeros((height, width), np.uint8), np.zeros(half, np.uint8), np.zeros(half,
            np.uint8))
        tiles = np.ones((-(-height // r.TILE), -(-width // r.TILE)), np.bool_)
        self._convert(tiles)
        self._touched = np.zeros_like(tiles)
        noise = np.clip(np.rint(effects.NOISE * stage.grain), -30, 30).astype(np.int8)
        self._noise = np.tile(noise, (1, width // 512 + 2))

    def _paint_background(self) -> None:
        stage, canvas = self._stage, self._canvas
        cast(canvas, stage.cam, stage.place, samples=2)
        for prop in sorted(stage.props, key=lambda prop: -prop.depth):
            x = prop.depth * 0.0 if not len(prop.tubes) else float(prop.tubes[0,
                r.X1] - stage.cam[1]) / stage.cam[0] * prop.depth
            draw_prop(canvas, prop, stage.place.light, local_light(stage.place, x, prop.depth), _SOFT_PX)
        for x, y, z, radius in stage.glows:
            px, py, depth = project(stage.cam, x, y, z)
            add_glow(canvas.rgb, px, py, radius * stage.cam[0] / depth, np.array([255.0, 214.0, 150.0]), 0.16)

    def _convert(self, tiles: npt.NDArray[np.bool_]) -> None:
        effects.to_yuv(self._canvas.rgb, *self._planes, self._stage.vignette, tiles, r.TILE)

    def draw(self, t: float) -> Truth:
        """Bring the picture to time `t` in seconds; read it with `rgb` or `write`."""
        canvas = self._canvas
        dirty = self._touched
        flat = canvas.rgb.reshape(len(canvas.rgb), -1)
        r.restore(flat, canvas.depth, canvas.stamp, canvas.owner, *self._back, dirty)
        people = self._cast.at(t)
        labels, rects = draw_figures(
            canvas, self._stage.cam, self._stage.place, [figure for _, figure in people], self._ground,
            soft=_SOFT_PX
        )
        self._touched = np.zeros_like(dirty)
        for x0, y0, x1, y1 in rects:
            self._touched[y0 // r.TILE : -(-y1 // r.TILE), x0 // r.TILE : -(-x1 // r.TILE)] = True
        self._convert(dirty | self._touched)
        self._numbers = np.array([number for number, _ in people], np.int32)
        here = labels.present
        return Truth(self._numbers[here], labels.xyxy[here], labels.visibility[here])

    @property
    def rgb(self) -> UInt8:
        """(H, W, 3) uint8, the scene before vignette and noise. Valid until the next `draw`."""
        return self._canvas.rgb

    @property
    def shown(self) -> npt.NDArray[np.int32]:
        """(H, W) int32, the number of the person seen at each pixel, 0 for nobody."""
        return np.append(self._numbers, np.int32(0))[self._canvas.owner]

    def write(self, frame: int, y: UInt8, u: UInt8, v: UInt8) -> None:
        """Copy the picture as BT.709 limited-range 4:2:0 into the planes, with the noise of `frame`."""
        ox, oy = (frame * 197 + 31) & 511, (frame * 311 + 101) & 511
        effects.add_luma_noise(self._planes[0], y, self._noise, ox, oy)
        u[:], v[:] = self._planes[1], self._planes[2]

