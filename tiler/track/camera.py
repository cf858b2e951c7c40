"""A virtual camera: the part of a picture that goes where somebody goes.

The view is 1/zoom of the picture each way. Its aim gives way only as far as needed to keep the person
within a small zone in the middle: a box that jitters, or somebody who shifts from foot to foot, moves
nothing. The middle of the view follows the aim as a critically damped spring whose pull is bounded, and so
its speed is (Lowe, "Critically damped ease-in/ease-out smoothing", Game Programming Gems 4, 2004; the step is
the exact solution, whatever its length). Where the person is not seen the aim stays, and the view comes
to rest on it.

Lengths are in views: the picture is `zoom` wide and high.
"""

from __future__ import annotations

from math import exp, hypot

import numpy as np

from tiler.types import CLOCK_HZ, Crop, Tracks

SPEED = 1.5
"""Most that a view moves, in views a second."""
_EASE_S = 0.3
"""Time in which it comes to its aim, about, and its lag behind somebody who walks."""
_ZONE = 0.05
"""How far from the middle a person may be, across and down, before the aim moves."""
_HEAD = 0.4
"""Of somebody too tall for the view, the top is kept this far above its middle at most."""
_STILL = 2e-4
"""An aim so near is reached."""


class Camera:
    """One view of one stream. Deterministic; not thread-safe.

    Args:
        slot: index of the name that it follows.
        zoom: magnification, above 1.
    """

    def __init__(self, slot: int, zoom: float) -> None:
        self._slot = slot
        self._zoom = zoom
        self._at = self._aim = (zoom / 2, zoom / 2)
        self._speed = (0.0, 0.0)
        self._pts: int | None = None

    def look(self, tracks: Tracks, picture_size: tuple[int, int], pts: int) -> Crop:
        """The part of the picture to show at `pts`, all of it inside.

        Args:
            tracks: the newest of the stream.
            picture_size: width and height, picture pixels.
            pts: 1/90000 s, never decreasing.
        """
        rows = np.flatnonzero(tracks.slot == self._slot)
        if len(rows):
            self._look_at(tracks.xyxy[rows[0]].tolist(), picture_size)
        seconds = 0.0 if self._pts is None else (pts - self._pts) / CLOCK_HZ
        self._pts = pts
        if seconds > 0:
            self._move(seconds)
        part = 1 / self._zoom
        x, y = (min(max((at - 0.5) * part, 0.0), 1 - part) for at in self._at)
        return x, y, part, part

    def _look_at(self, box: list[float], picture_size: tuple[int, int]) -> None:
        """Let the aim give way to where somebody is."""
        across, down = self._zoom / picture_size[0], self._zoom / picture_size[1]
        x, top, bottom = (box[0] + box[2]) / 2 * across, box[1] * down, box[3] * down
        y = min((top + bottom) / 2, top + _HEAD)
        aim = (min(max(aim, at - _ZONE), at + _ZONE) for aim, at in zip(self._aim, (x, y), strict=True))
        a, b = (min(max(value, 0.5), self._zoom - 0.5) for value in aim)
        self._aim = a, b

    def _move(self, seconds: float) -> None:
        away = self._aim[0] - self._at[0], self._aim[1] - self._at[1]
        distance = hypot(*away)
        if distance < _STILL and hypot(*self._speed) < _STILL:
            self._at, self._speed = self._aim, (0.0, 0.0)
            return
        pull = min(1.0, SPEED * _EASE_S / distance) if distance else 1.0
        stiffness = 2 / _EASE_S
        places, speeds = [0.0, 0.0], [0.0, 0.0]
        decay = exp(-stiffness * seconds)
        for axis in (0, 1):
            at, speed, offset = self._at[axis], self._speed[axis], -away[axis] * pull
            drive = (speed + stiffness * offset) * seconds
            place = at - offset + (offset + drive) * decay
            places[axis] = min(max(place, 0.5), self._zoom - 0.5)
            if places[axis] == place:
                speeds[axis] = (speed - stiffness * drive) * decay
        self._at, self._speed = (places[0], places[1]), (speeds[0], speeds[1])
