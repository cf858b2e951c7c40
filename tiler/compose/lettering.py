"""The characters of labels, laid out once for each size of text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tiler.compose.glyphs import Atlas
from tiler.kernels.overlay_cpu import ALWAYS, Lettering


def lettering(atlas: Atlas, class_names: Sequence[str], height_px: int, slot_names: Sequence[str] = ()) -> Lettering:
    """What `draw_tiles` writes labels of this height with; classes without a name are `class 7`."""
    characters = list(atlas.characters(ALWAYS, height_px))
    begins = [len(characters)]
    for name in (*class_names, "class "):
        characters += atlas.characters(f" {name}", height_px)
        begins.append(len(characters))
    slots = [len(characters)]
    for name in slot_names:
        characters += atlas.characters(name, height_px)
        slots.append(len(characters))
    return Lettering(
        np.array([character[:6] for character in characters], np.int32),
        np.array([character.advance for character in characters], np.float64),
        np.array(begins, np.int64),
        np.array(slots, np.int64),
        int(np.diff(begins).max() + np.diff(slots).max(initial=0)),
    )
