"""What is remembered of a surface, on planes that only have addresses."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tiler.kernels.plane_cuda import PerPicture
from tiler.types import Frame, Matrix


class Plane(np.ndarray):
    """Host memory that tells its address as a plane on the device does."""

    @property
    def data(self) -> Any:  # type: ignore[override]
        return SimpleNamespace(ptr=self.ctypes.data)


def frame(**fields: Any) -> Frame:
    luma, chroma = np.zeros((36, 64), np.uint8), np.zeros((18, 64), np.uint8)
    y, u, v = (plane.view(Plane) for plane in (luma, chroma[:, 0::2], chroma[:, 1::2]))
    return Frame(0, 0, y, u, v, **fields)


def test_the_next_picture_in_a_surface_is_known() -> None:
    worked = []
    known = PerPicture(lambda picture: worked.append(picture.pts) or len(worked))
    first = frame()
    assert [known(picture) for picture in (first, replace(first, pts=3000, stream=2, owner=object()))] == [1, 1]
    assert worked == [0]


@pytest.mark.parametrize(
    "other",
    [
        {"source_size": (640, 360)},
        {"source_size": (640, 480)},
        {"rotation": 180},
        {"matrix": Matrix.BT601},
        {"full_range": True},
        {"sample_aspect": Fraction(4, 3)},
    ],
)
def test_a_picture_of_another_kind_in_the_same_surface_is_not(other: dict[str, Any]) -> None:
    """A source that changes its size may be scaled to the same planes, and lies elsewhere in the detector's input."""
    known = PerPicture(lambda picture: (picture.picture_size, picture.picture_aspect, picture.matrix))
    first = frame()
    known(first)
    second = replace(first, **other)
    worked = PerPicture(lambda picture: object())
    assert worked(first) is not worked(second)
    assert known(second) == (second.picture_size, second.picture_aspect, second.matrix)


def test_another_surface_is_not_taken_for_the_first() -> None:
    known = PerPicture(lambda picture: object())
    first, second = frame(), frame()
    assert known(first) is not known(second)


def test_pictures_of_one_layout_are_worked_out_once() -> None:
    asked: list[Frame] = []
    known = PerPicture(lambda frame: asked.append(frame) or len(asked))
    first = frame(layout=object())
    again = first.at(3000, 1.5, "owner")
    assert (again.pts, again.arrival_s, again.owner, again.layout) == (3000, 1.5, "owner", first.layout)
    assert all(
        getattr(again, name) is getattr(first, name)
        for name in ("stream", "y", "u", "v", "matrix", "rotation", "sample_aspect", "ready", "source_size")
    )
    assert [known(first), known(again), known(replace(again, layout=object()))] == [1, 1, 2]
