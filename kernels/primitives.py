"""Overlay primitives: what the compositor draws over the pictures, as rows of integers.

An overlay is an int32 array (n, COLUMNS), drawn in order. The same rows go to the CPU kernel and,
copied up, to the CUDA kernel. All coordinates are mosaic luma pixels; rectangles are half-open,
[x0, x1) x [y0, y1).

| kind  | x0 y0 x1 y1            | a                              | b                                   |
| ----- | ---------------------- | ------------------------------ | ----------------------------------- |
| FILL  | rectangle              | -                              | -                                   |
| FRAME | rectangle              | line width, inwards, px        | alpha of its dark edges, 0 for none |
| LINE  | end points, 1/16 px    | width, 1/16 px                 | -                                   |
| GLYPH | rectangle              | x of its top left in the atlas | y of it                             |

A *stroke* is a row or, of kinds LINE and GLYPH, up to STROKE rows: the pieces of a trail, the letters
of a word. AFTER says how many rows before this one its stroke began. They have one colour and one
clip, of which the first row's count, and are drawn at once: where they overlap nothing shows.

Note [Blending]: the weight c of a row at a luma pixel is 0..255, and 0 outside of clip and mosaic:

* FILL, FRAME: alpha inside. With dark edges, the outermost and the innermost pixel of a frame's line
  are black (EDGE) instead, with b for alpha.
* GLYPH: (atlas byte * alpha + 127) // 255.
* LINE: alpha * clamp(((w + 1)^2 / 4 - d^2) / max(w, 1), 0, 1), rounded to the nearest, for the
  width w and the distance d from the pixel's centre to the segment: 1 within w / 2 - 1/2, 0 from
  w / 2 + 1/2 on, and no root in between.

A stroke's c is the greatest of its rows'. The luma becomes (old * (255 - c) + Y * c + 127) // 255. A
chroma sample blends once with the mean (sum + 2) // 4 of the c of its four luma pixels; where a frame
has dark edges, first with the mean of those, then with that of the others.
"""

from __future__ import annotations

from enum import IntEnum


class Kind(IntEnum):
    FILL = 0
    FRAME = 1
    LINE = 2
    GLYPH = 3


KIND, X0, Y0, X1, Y1, A, B, LUMA, CB, CR, ALPHA, AFTER, CLIP_X0, CLIP_Y0, CLIP_X1, CLIP_Y1 = range(16)
COLUMNS = 16
STROKE = 32
"""Rows of a stroke at most."""
EDGE = 16, 128, 128
"""Y, Cb, Cr of a frame's dark edges."""
