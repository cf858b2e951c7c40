"""Drawn people several times over, as the histograms that the appearance kernel makes of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tiler.kernels.appearance import FEATURES, tables
from tiler.kernels.appearance_cpu import histograms
from tiler.samples import effects
from tiler.samples import raster as r
from tiler.samples.training import render_cast
from tiler.track.appearance import host_place, lay_out
from tiler.types import Float32, Frame, UInt8

WIDTH, HEIGHT = 640, 384
PEOPLE, VIEWS = 7, 6
_MIN_VISIBILITY = 0.55
_MIN_HEIGHT_PX = 36
_BOX_NOISE = 0.035
"""Standard deviation of an edge, in widths or heights of the box: a detector's, not an annotator's."""


class Crops(NamedTuple):
    """What was seen of the cast of some scenes.

    Attributes:
        histogram: (n, FEATURES) float32, h of Note [Appearance].
        scene, person: (n,) int64; persons of different scenes are different people.
    """

    histogram: Float32
    scene: npt.NDArray[np.int64]
    person: npt.NDArray[np.int64]


def render_scene(seed: int, scene: int) -> Crops:
    """The crops of one scene; it follows from the two numbers alone."""
    rng = np.random.default_rng([seed, scene])
    found, persons = [], []
    for view in render_cast(rng, WIDTH, HEIGHT, PEOPLE, VIEWS):
        tall = view.xyxy[:, 3] - view.xyxy[:, 1] >= _MIN_HEIGHT_PX
        usable = tall & (view.visibility >= _MIN_VISIBILITY)
        boxes = view.xyxy[usable]
        size = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        boxes = (boxes + rng.normal(0, _BOX_NOISE, boxes.shape) * size).astype(np.float32)
        histogram = np.empty((len(boxes), FEATURES), np.float32)
        frame = _frame(view.rgb)
        places, boxes = lay_out([(frame, boxes)], host_place)
        histograms(places, boxes, tables(), histogram)
        found.append(histogram)
        persons.append(view.person[usable])
    person = np.concatenate(persons)
    return Crops(np.concatenate(found), np.full(len(person), scene, np.int64), person)


def _frame(rgb: UInt8) -> Frame:
    height, width = rgb.shape[:2]
    y, u, v = (np.zeros((height // part, width // part), np.uint8) for part in (1, 2, 2))
    everywhere = np.ones((-(-height // r.TILE), -(-width // r.TILE)), np.bool_)
    effects.to_yuv(rgb, y, u, v, 0.0, everywhere, r.TILE)
    return Frame(0, 0, y, u, v)
