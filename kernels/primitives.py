"""Overlay primitives: what the compositor draws over the pictures, as rows of integers.

An overlay is an int32 array (n, COLUMNS), drawn in order, each row blended over what is
there. The same rows go to the CPU kernel and, copied up, to the CUDA kernel. All
coordinates are mosaic luma pixels; rectangles are half-open, [x0, x1) x [y0, y1).

| kind  | x0 y0 x1 y1            | a                          | b            |
| ----- | ---------------------- | -------------------------- | ------------ |
| FILL  | rectangle              | -                          | -            |
| FRAME | rectangle              | line width, inwards, px    | -            |
| LINE  | end points, 1/16 px    | width, 1/16 px             | -            |
| GLYPH | rectangle              | x of its top left in the atlas | y of it  |

Note [Blending]: the coverage of a primitive at a luma pixel is 0..255 (FILL, FRAME: 255
inside; GLYPH: the atlas byte; LINE: 255 * clamp(half width + 1/2 - distance from the
pixel's centre to the segment, 0, 1)). With c = (coverage * alpha + 127) // 255 the luma
becomes (old * (255 - c) + Y * c + 127) // 255. A chroma sample blends once with the mean
(sum + 2) // 4 of the c of its four luma pixels, those outside clip or mosaic counting 0.
"""

from __future__ import annotations

from enum import IntEnum


class Kind(IntEnum):
    FILL = 0
    FRAME = 1
    LINE = 2
    GLYPH = 3


KIND, X0, Y0, X1, Y1, A, B, LUMA, CB, CR, ALPHA, CLIP_X0, CLIP_Y0, CLIP_X1, CLIP_Y1 = range(15)
COLUMNS = 15
