"""The trails, boxes and labels of one tile as rows of primitives: one compiled call a tile.

A tile has few of each, so what would cost is the calls, not the work: everything below is plain
loops over scalars. What the tile and its text look like comes in flat tables, prepared once by
`tiler/compose/overlay.py` and `tiler/compose/lettering.py`.

The calls keep the GIL. They take some 10 us, and a thread that gives the GIL up for so short a time
waits for it again behind every other thread.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from tiler.kernels.primitives import ALPHA, CB, CLIP_X0, CR, KIND, LUMA, X0, X1, Y0, Y1, A, B, Kind
from tiler.types import Float32, Int32

Float64 = npt.NDArray[np.float64]

# Columns of a tile's `place`: two rectangles x0, y0, x1, y1 in mosaic pixels, sizes in pixels, switches.
VISIBLE, PICTURE, LINE_PX, PAD, PLATE_HEIGHT, BASELINE, BOXES, LABELS = 0, 4, 8, 9, 10, 11, 12, 13
PLACE_COLUMNS = 14

# Columns of a tile's `view`: mosaic x = (picture x - FROM_X) * SCALE_X + TO_X, as y.
FROM_X, FROM_Y, SCALE_X, SCALE_Y, TO_X, TO_Y = range(6)
# Width of a label's text at most, px; 0..1; seconds of trail; pieces of trail a second.
ROOM, OPACITY, TRAIL_S, PIECE_RATE = range(6, 10)
VIEW_COLUMNS = 10

# Characters of every lettering; those of the classes follow.
FIXED_CHARACTERS = "0123456789#. "
_HASH, _POINT, _SPACE = 10, 11, 12
FIXED_LONGEST = 1 + 10 + 10 + 7
"""Characters of a label beside its class: `#`, an int32, an int32 after `class`, and ` 999.99`."""

TEXT_COLOUR, OUTLINE_COLOUR = -2, -1
"""Rows of `colours` behind those of the tracks."""

_FILL, _FRAME, _LINE, _GLYPH = (int(kind) for kind in (Kind.FILL, Kind.FRAME, Kind.LINE, Kind.GLYPH))
_FAR = 1 << 20   # pixels: keeps coordinates of wild boxes within int32 at 1/16 px


@njit(cache=True)
def draw_tracks(
    rows: Int32,
    at: int,
    place: Int32,
    view: Float64,
    history: Float32,
    now: float,
    track_id: Int32,
    xyxy: Float32,
    score: Float32,
    class_id: Int32,
    glyphs: Int32,
    advances: Float64,
    starts: Int32,
    longest: int,
    colours: Int32,
) -> int:
    """Write the trails, then the boxes, then the labels of a tile; the end of what is written.

    Args:
        rows: (n, COLUMNS) int32 with room for len(history) + len(track_id) * (3 + longest) from `at` on.
        at: where to begin.
        place: (PLACE_COLUMNS,) int32.
        view: (VIEW_COLUMNS,) float64.
        history: as in `TileInput`.
        now: time of the tracks, in pieces of trail.
        track_id, xyxy, score, class_id: as in `Tracks`.
        glyphs, advances, starts, longest: a `Lettering`.
        colours: (n + 2, 3) int32 Y, Cb, Cr of the tracks in turn, of text, of outlines.
    """
    at = _trails(rows, at, place, view, history, now, colours)
    boxes, order = _boxes(xyxy, view, place)
    if place[BOXES]:
        at = _frames(rows, at, place, view, boxes, order, track_id, colours)
    if place[LABELS]:
        at = _labels(
            rows, at, place, view, boxes, order, track_id, score, class_id, glyphs, advances, starts, longest, colours
        )
    return at


@njit(cache=True)
def _trails(rows, at, place, view, history, now, colours):  # type: ignore[no-untyped-def]
    """Fading lines through the foot points, thinner towards the past.

    Points are averaged over equal spans of *absolute* time: that bounds the pieces of a trail and
    takes the detector's jitter out, and its corners stay put from tick to tick. The newest point of
    a track is kept as it is.
    """
    trail_s, recent = view[TRAIL_S], np.float32(view[TRAIL_S])
    index, ids, n = np.empty(len(history), np.int64), np.empty(len(history)), 0
    for i in range(len(history)):
        if history[i, 3] <= recent:
            index[n], ids[n] = i, history[i, 0]
            n += 1
    _sort(index, ids, n)
    k, last_x, last_y = 0, 0.0, 0.0
    while k < n:
        track = ids[k]
        newest = k == 0 or ids[k - 1] != track
        piece = _piece(history[index[k], 3], now, view)
        x, y, age, count = 0.0, 0.0, 0.0, 0.0
        while True:
            x += history[index[k], 1]
            y += history[index[k], 2]
            age += history[index[k], 3]
            count += 1
            k += 1
            if newest or k == n or ids[k] != track or _piece(history[index[k], 3], now, view) != piece:
                break
        x = np.rint(_near(_across(x / count, view)) * 16)
        y = np.rint(_near(_down(y / count, view)) * 16)
        if not newest and max(abs(x - last_x), abs(y - last_y)) >= 4:
            fade = 1 - min(age / count / trail_s, 1.0)
            width = np.rint(place[LINE_PX] * 16 * (0.5 + 0.6 * fade))
            colour = np.int64(track) % (len(colours) - 2)
            at = _put(
                rows, at, _LINE, last_x, last_y, x, y, width, 0, colours, colour, np.rint(235 * fade), view,
                place, PICTURE,
            )  # fmt: skip
        last_x, last_y = x, y
    return at


@njit(cache=True)
def _boxes(xyxy, view, place):  # type: ignore[no-untyped-def]
    """All boxes in mosaic pixels, and which to draw: from the far end of the scene (high up) to the near one."""
    boxes = np.empty(xyxy.shape, np.int32)
    order, bottoms, n = np.empty(len(xyxy), np.int64), np.empty(len(xyxy)), 0
    for i in range(len(xyxy)):
        x0, y0 = np.rint(_near(_across(xyxy[i, 0], view))), np.rint(_near(_down(xyxy[i, 1], view)))
        x1, y1 = np.rint(_near(_across(xyxy[i, 2], view))), np.rint(_near(_down(xyxy[i, 3], view)))
        x1, y1 = max(x1, x0 + 2), max(y1, y0 + 2)
        boxes[i, 0], boxes[i, 1], boxes[i, 2], boxes[i, 3] = x0, y0, x1, y1
        if x0 < place[PICTURE + 2] and x1 > place[PICTURE] and y0 < place[PICTURE + 3] and y1 > place[PICTURE + 1]:
            order[n], bottoms[n] = i, y1
            n += 1
    _sort(order, bottoms, n)
    return boxes, order[:n]


@njit(cache=True)
def _frames(rows, at, place, view, boxes, order, track_id, colours):  # type: ignore[no-untyped-def]
    """Each box in its track's colour, over a dark outline."""
    line = place[LINE_PX]
    for i in order:
        x0, y0, x1, y1 = boxes[i, 0], boxes[i, 1], boxes[i, 2], boxes[i, 3]
        at = _put(
            rows, at, _FRAME, x0 - 1.0, y0 - 1.0, x1 + 1.0, y1 + 1.0, line + 2.0, 0, colours,
            len(colours) + OUTLINE_COLOUR, 90.0, view, place, PICTURE,
        )  # fmt: skip
        colour = np.int64(track_id[i]) % (len(colours) - 2)
        at = _put(
            rows, at, _FRAME, float(x0), float(y0), float(x1), float(y1), float(line), 0, colours,
            colour, 245.0, view, place, PICTURE,
        )  # fmt: skip
    return at
