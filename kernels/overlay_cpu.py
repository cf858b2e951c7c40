"""The trails, boxes and labels of all tiles as rows of primitives: one compiled call a tick.

A tile has few of each: calls are what would cost, not work. So all is plain loops over numbers, and
what lasts (how rows look, where the tile is, its letters) comes in flat tables that the caller keeps.

The call keeps the GIL. It takes some 100 us; a thread that gives the GIL up for so short a time waits for all the
others to get it back.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from tiler.kernels.primitives import AFTER, ALPHA, COLUMNS, STROKE, X0, X1, Y0, Y1, A, B
from tiler.types import CLOCK_HZ, Float32, Int32

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

# Columns of a tile's `place`: rectangles x0, y0, x1, y1 in mosaic pixels; sizes in pixels; switches.
VISIBLE, PICTURE, PAD_PX, PLATE_PX, BASELINE_PX, BOXES, LABELS, TRAILS = 0, 4, 8, 9, 10, 11, 12, 13
PLACE_COLUMNS = 14

# Columns of a tile's `view`: mosaic x = (picture x - FROM) * SCALE + TO, then as much for y; px that
# a label's text may take; of trails: seconds, pieces a second, line width in px, alpha, and 0..1 of it.
FROM, SCALE, TO, ROOM, TRAIL_S, PIECES_A_SECOND, TRAIL_PX, TRAIL_ALPHA, OPACITY = 0, 2, 4, 6, 7, 8, 9, 10, 11
VIEW_COLUMNS = 12

# Columns of a tile's `fonts`: where its `Lettering` begins and ends in the arrays of all of them: glyphs and advances,
# begins, slots; and its longest.
GLYPHS, BEGINS, SLOTS, LONGEST = 0, 2, 4, 6
FONT_COLUMNS = 7

# Columns of `parts`: where those rows of a tile end that lie under its picture, and all of them.
UNDER_END, PART_END, PART_COLUMNS = range(3)

# Rows of `looks`: of every letter, then for each colour of a track.
LETTER_LOOK, TRACK_LOOKS = 0, 1
TRAIL_LOOK, BOX_LOOK, PLATE_LOOK, LOOKS_A_TRACK = 0, 1, 2, 3

ALWAYS = "0123456789#. "
"""The characters that every `Lettering` begins with."""
_HASH, _POINT, _SPACE = 10, 11, 12
_MOST_BESIDE_CLASS = len("#2147483647") + len("2147483647") + len(" 999.99")

_FAR = float(1 << 20)   # pixels: keeps coordinates of wild boxes within int32 at 1/16 px
_inner = njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, error_model="numpy")   # compiles in half the time


class Lettering(NamedTuple):
    """What labels of one size are written with.

    Attributes:
        glyphs: (n, 6) int32 atlas_x, atlas_y, w, h, dx, dy of each character, as in `TextRun`;
            dx from where the character begins. First ALWAYS, then the names of the classes.
        advances: (n,) float64, px.
        begins: (m + 1,) int64: name k is [begins[k], begins[k + 1]) of these; the last name,
            followed by its number, is that of every other class.
        slots: (s + 1,) int64: as much for the names of slots.
        longest: characters of the longest name of a class and of a slot together.
    """

    glyphs: Int32
    advances: Float64
    begins: Int64
    slots: Int64
    longest: int


def most_rows(tracks: int, points: int, longest: int) -> int:
    """Rows that come with so many tracks and points of trails at most, with a Lettering of that `longest`."""
    return points + tracks * (2 + _MOST_BESIDE_CLASS + longest)


@njit(cache=True, error_model="numpy")
def draw_tiles(
    rows: Int32,
    at: int,
    parts: Int64,
    looks: Int32,
    place: Int64,
    view: Float64,
    fonts: Int64,
    glyphs: Int32,
    advances: Float64,
    begins: Int64,
    slots: Int64,
    furniture: Int32,
    furniture_ends: Int64,
    numbers: Int64,
    pts: Int64,
    ends: Int64,
    track_id: Int32,
    xyxy: Float32,
    score: Float32,
    class_id: Int32,
    slot: Int32,
    history: Float32,
    history_ends: Int64,
) -> int:
    """Write what lies under the picture of each tile; then its trails, boxes and labels; then its captions.

    Args:
        rows: (n, COLUMNS) int32 with room for `most_rows` of all tiles, and the furniture, from `at` on; nothing checks
            that.
        at: where to begin.
        parts: (tiles, PART_COLUMNS) int64, is written.
        looks: (tiles, TRACK_LOOKS + LOOKS_A_TRACK * colours, COLUMNS) int32: rows to be placed.
        place: (tiles, PLACE_COLUMNS) int64.
        view: (tiles, VIEW_COLUMNS) float64.
        fonts: (tiles, FONT_COLUMNS) int64.
        glyphs, advances, begins, slots: of all letterings, one after the other.
        furniture, furniture_ends: (k, COLUMNS) int32, what lies under the pictures and the captions; and (tiles, 2)
            where they end: of each tile the first, then the second.
        numbers: (tiles,) int64, which picture of the crowd each shows; negative for none.
        pts, ends, track_id, xyxy, score, class_id, slot: as in `TrackBatch`.
        history, history_ends: as in `Crowd`.

    Returns:
        The end of what is written.
    """
    f = 0
    for t in range(parts.shape[0]):
        at, f = _copy(rows, at, furniture, f, furniture_ends[t, 0]), furniture_ends[t, 0]
        parts[t, UNDER_END] = at
        n, font = numbers[t], fonts[t]
        if n >= 0:
            a, b = ends[n - 1] if n > 0 else 0, ends[n]
            c, d = history_ends[n - 1] if n > 0 else 0, history_ends[n]
            letters = Lettering(
                glyphs[font[GLYPHS] : font[GLYPHS + 1]], advances[font[GLYPHS] : font[GLYPHS + 1]],
                begins[font[BEGINS] : font[BEGINS + 1]], slots[font[SLOTS] : font[SLOTS + 1]], font[LONGEST],
            )  # fmt: skip
            at = _tracks(
                rows, at, looks[t], place[t], view[t], history[c:d], pts[n] / CLOCK_HZ, track_id[a:b], xyxy[a:b],
                score[a:b], class_id[a:b], slot[a:b], letters,
            )  # fmt: skip
        at, f = _copy(rows, at, furniture, f, furniture_ends[t, 1]), furniture_ends[t, 1]
        parts[t, PART_END] = at
    return at


@_inner
def _copy(rows, at, furniture, begin, end):  # type: ignore[no-untyped-def]
    for k in range(begin, end):
        for column in range(COLUMNS):
            rows[at, column] = furniture[k, column]
        at += 1
    return at


@_inner
def _tracks(rows, at, looks, place, view, history, now_s, track_id, xyxy, score, class_id, slot, letters):  # type: ignore[no-untyped-def]
    """The trails, then the boxes, then the labels of a tile."""
    colour = np.empty(len(track_id), np.int64)
    for i in range(len(track_id)):
        colour[i] = slot[i] if slot[i] >= 0 else track_id[i]
    if place[TRAILS] != 0:
        at = _trails(rows, at, looks, view, history, now_s, track_id, colour)
    order, keys = np.empty(len(xyxy), np.int64), np.empty(len(xyxy))
    n = _in_sight(xyxy, place, view, order, keys)
    if place[BOXES] != 0:
        at = _frames(rows, at, looks, view, xyxy, order, n, colour)
    if place[LABELS] != 0:
        at = _labels(rows, at, looks, place, view, xyxy, order, n, colour, track_id, score, class_id, slot, letters)
    return at


@_inner
def _trails(rows, at, looks, view, history, now_s, track_id, colour):  # type: ignore[no-untyped-def]
    """Fading lines through the foot points, thinner towards the past: a stroke each.

    Points are averaged over equal spans of *absolute* time: that bounds the pieces of a trail and
    takes the detector's jitter out, and its corners stay put from tick to tick. The newest point of
    a track stays as it is.
    """
    trail_s, recent, rate = view[TRAIL_S], np.float32(view[TRAIL_S]), view[PIECES_A_SECOND]
    order, ids, n = np.empty(len(history), np.int64), np.empty(len(history)), np.int64(0)
    for i in range(len(history)):
        if history[i, 3] <= recent:
            order[n], ids[n] = i, history[i, 0]
            n += 1
    _sort(order, ids, n)
    now, k, last_x, last_y, look = now_s * rate, np.int64(0), np.int64(0), np.int64(0), np.int64(0)
    trail = at
    while k < n:
        begin, track = k, ids[k]
        newest = k == 0 or ids[k - 1] != track
        if newest:
            look, trail = np.int64(track), at
            for i in range(len(track_id)):
                if track_id[i] == track:
                    look = colour[i]
        x, y, age, piece = 0.0, 0.0, 0.0, 0.0
        while k == begin or (k < n and ids[k] == track and not newest):
            i = order[k]
            part = np.floor(np.float64(history[i, 3]) * -rate + now)
            if k > begin and part != piece:
                break
            x, y, age, piece = x + history[i, 1], y + history[i, 2], age + history[i, 3], part
            k += 1
        x, y, age = x / (k - begin), y / (k - begin), age / (k - begin)
        new_x, new_y = _placed(x, view, 0, 16.0), _placed(y, view, 1, 16.0)
        if not newest and (abs(new_x - last_x) >= 4 or abs(new_y - last_y) >= 4):
            fade = 1 - age / trail_s if age < trail_s else 0.0
            at = _put(rows, at, looks, _look(look, TRAIL_LOOK, looks), last_x, last_y, new_x, new_y)
            rows[at - 1, A] = np.int64(np.rint(view[TRAIL_PX] * 16 * (0.5 + 0.6 * fade)))
            rows[at - 1, ALPHA] = np.int64(np.rint(np.rint(view[TRAIL_ALPHA] * fade) * view[OPACITY]))
            rows[at - 1, AFTER] = (at - 1 - trail) % STROKE
        last_x, last_y = new_x, new_y
    return at


@_inner
def _in_sight(xyxy, place, view, order, keys):  # type: ignore[no-untyped-def]
    """The boxes to be seen, from the far end of the scene (high up) to the near one; how many."""
    n = np.int64(0)
    for i in range(len(xyxy)):
        x0, y0, x1, y1 = _box(xyxy, i, view)
        if x0 < place[PICTURE + 2] and x1 > place[PICTURE] and y0 < place[PICTURE + 3] and y1 > place[PICTURE + 1]:
            order[n], keys[n] = i, y1
            n += 1
    _sort(order, keys, n)
    return n


@_inner
def _frames(rows, at, looks, view, xyxy, order, n, colour):  # type: ignore[no-untyped-def]
    """Each box in its track's colour, between dark edges."""
    for k in range(n):
        i = order[k]
        x0, y0, x1, y1 = _box(xyxy, i, view)
        at = _put(rows, at, looks, _look(colour[i], BOX_LOOK, looks), x0 - 1, y0 - 1, x1 + 1, y1 + 1)
    return at


@_inner
def _labels(rows, at, looks, place, view, xyxy, order, n, colour, track_id, score, class_id, slot, letters):  # type: ignore[no-untyped-def]
    """`#id name score` on a plate in the track's colour: above the box, or within its top. A slot takes the id's place.

    Where that is too wide, the score goes first, then the name.
    """
    text = np.empty(_MOST_BESIDE_CLASS + letters.longest, np.int64)
    left, top, right, bottom = place[VISIBLE], place[VISIBLE + 1], place[VISIBLE + 2], place[VISIBLE + 3]
    pad, height, begin = place[PAD_PX], place[PLATE_PX], np.int64(0)
    for k in range(n):
        i = order[k]
        if 0 <= slot[i] < len(letters.slots) - 1:
            id_end = _spell(text, begin, letters.slots[slot[i]], letters.slots[slot[i] + 1])
        else:
            text[0] = _HASH
            id_end = _spell_number(text, begin + 1, np.int64(track_id[i]))
        name_end = id_end
        if class_id[i] >= 0:
            name_end = _spell_class(text, id_end, np.int64(class_id[i]), letters)
        end = _spell_score(text, name_end, score[i])
        name_width, score_width = _width(text, begin, name_end, letters), _width(text, name_end, end, letters)
        if name_width + score_width > view[ROOM]:
            end, score_width = name_end, np.int64(0)
            if name_width > view[ROOM]:
                end = name_end = id_end
                name_width = _width(text, begin, id_end, letters)

        width = name_width + score_width + 2 * pad
        x, y, _, _ = _box(xyxy, i, view)
        if x > right - width:
            x = right - width
        if x < left:
            x = left
        if y - height >= top:
            y -= height
        if y > bottom - height:
            y = bottom - height
        if y < top:
            y = top
        at = _put(rows, at, looks, _look(colour[i], PLATE_LOOK, looks), x, y, x + width, y + height)
        x, y = x + pad, y + place[BASELINE_PX]
        first = at
        at = _write(rows, at, looks, text, begin, name_end, x, y, letters, first)
        at = _write(rows, at, looks, text, name_end, end, x + name_width, y, letters, first)
    return at


@_inner
def _spell(text, at, begin, end):  # type: ignore[no-untyped-def]
    """Append the characters [begin, end) to a text; its new end."""
    for k in range(begin, end):
        text[at] = k
        at += 1
    return at


@_inner
def _spell_number(text, at, number):  # type: ignore[no-untyped-def]
    """Append the digits of a number >= 0 to a text; its new end."""
    scale = 1
    while number // scale > 9:
        scale *= 10
    while scale > 0:
        text[at] = number // scale % 10
        scale //= 10
        at += 1
    return at


@_inner
def _spell_class(text, at, kind, letters):  # type: ignore[no-untyped-def]
    others = len(letters.begins) - 2
    name = kind if kind < others else others
    at = _spell(text, at, letters.begins[name], letters.begins[name + 1])
    return at if kind < others else _spell_number(text, at, kind)


@_inner
def _spell_score(text, at, score):  # type: ignore[no-untyped-def]
    """` 0.93`; nothing for a score below 0 or NaN."""
    percent = np.rint(score * np.float32(100))
    if not 0 <= percent <= 99999:
        return at
    whole = np.int64(percent)
    text[at] = _SPACE
    at = _spell_number(text, at + 1, whole // 100)
    text[at], text[at + 1], text[at + 2] = _POINT, whole // 10 % 10, whole % 10
    return at + 3


@_inner
def _width(text, begin, end, letters):  # type: ignore[no-untyped-def]
    pen = 0.0
    for k in range(begin, end):
        pen += letters.advances[text[k]]
    return np.int64(np.rint(pen))


@_inner
def _write(rows, at, looks, text, begin, end, x, baseline, letters, first):  # type: ignore[no-untyped-def]
    """A line of text, as `Atlas.layout_text` lays it out: in strokes of which the first began at row `first`."""
    pen, glyphs = 0.0, letters.glyphs
    for i in range(begin, end):
        k = text[i]
        if glyphs[k, 2] > 0:
            left, upper = x + np.int64(np.rint(pen)) + glyphs[k, 4], baseline + glyphs[k, 5]
            at = _put(rows, at, looks, np.int64(LETTER_LOOK), left, upper, left + glyphs[k, 2], upper + glyphs[k, 3])
            rows[at - 1, A], rows[at - 1, B] = glyphs[k, 0], glyphs[k, 1]
            rows[at - 1, AFTER] = (at - 1 - first) % STROKE
        pen += letters.advances[k]
    return at


@_inner
def _put(rows, at, looks, look, x0, y0, x1, y1):  # type: ignore[no-untyped-def]
    """Add a row that looks like that."""
    for column in range(COLUMNS):
        rows[at, column] = looks[look, column]
    rows[at, X0], rows[at, Y0], rows[at, X1], rows[at, Y1] = x0, y0, x1, y1
    return at + 1


@_inner
def _look(track, what, looks):  # type: ignore[no-untyped-def]
    """The row of `looks` for the slot or id of a track: those in a row never look alike."""
    colours = (len(looks) - TRACK_LOOKS) // LOOKS_A_TRACK
    return TRACK_LOOKS + np.int64(track) % colours * LOOKS_A_TRACK + what


@_inner
def _box(xyxy, i, view):  # type: ignore[no-untyped-def]
    """A box in whole mosaic pixels."""
    x0, y0 = _placed(np.float64(xyxy[i, 0]), view, 0, 1.0), _placed(np.float64(xyxy[i, 1]), view, 1, 1.0)
    x1, y1 = _placed(np.float64(xyxy[i, 2]), view, 0, 1.0), _placed(np.float64(xyxy[i, 3]), view, 1, 1.0)
    return x0, y0, x1 if x1 > x0 + 2 else x0 + 2, y1 if y1 > y0 + 2 else y0 + 2


@_inner
def _placed(value, view, axis, unit):  # type: ignore[no-untyped-def]
    """A coordinate of the picture in 1/unit of mosaic pixels, not too far off to compute with."""
    value = (value - view[FROM + axis]) * view[SCALE + axis] + view[TO + axis]
    if value > _FAR:
        value = _FAR
    if not value > -_FAR:
        value = -_FAR
    return np.int64(np.rint(value * unit))


@_inner
def _sort(order, keys, n):  # type: ignore[no-untyped-def]
    """Put the first n of both in the order of the keys; equals stay as they are. They are few, or in order already."""
    for i in range(1, n):
        key, item, k = keys[i], order[i], i
        while k > 0 and keys[k - 1] > key:
            keys[k], order[k] = keys[k - 1], order[k - 1]
            k -= 1
        keys[k], order[k] = key, item
