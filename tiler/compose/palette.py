"""Colours of the overlay, as the mosaic stores them: 8-bit limited-range BT.709 YCbCr."""

from __future__ import annotations

from functools import cache

Ycc = tuple[int, int, int]


@cache
def ycc(colour: str) -> Ycc:
    """`#RRGGBB` as (Y, Cb, Cr): ITU-R BT.709-6, 8 bit, limited range.

    >>> ycc("#FFFFFF"), ycc("#000000")
    ((235, 128, 128), (16, 128, 128))
    """
    r, g, b = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    luma = 0.2126 * r + 0.7152 * g + 0.0722 * b
    cb, cr = (b - luma) / 1.8556, (r - luma) / 1.5748
    return round(16 + 219 * luma), round(128 + 224 * cb), round(128 + 224 * cr)


TRACK_COLOURS = (
    "#3DB7F5",   # sky
    "#FFB000",   # amber
    "#FF5DA8",   # pink
    "#2FD69B",   # mint
    "#FF7A3D",   # orange
    "#B493FF",   # violet
    "#F4E04D",   # yellow
    "#6F8CFF",   # periwinkle
    "#B6E35A",   # lime
    "#FF7B7B",   # coral
    "#5FE3E6",   # cyan
    "#E6B8FF",   # lilac
)
"""Colours of track ids, in an order that keeps neighbours far apart in hue *and* lightness.

All are light enough to carry near-black text and to stand out on a dark picture; a dark
outline carries them on a bright one. Hues follow the blue/orange axis that the common
colour-vision deficiencies leave intact first; the id in the label says the rest.
"""

TRACKS = tuple(ycc(colour) for colour in TRACK_COLOURS)
"""TRACK_COLOURS as the mosaic stores them: an id has that of `id mod 12`."""

TEXT = ycc("#F2F5F8")
MUTED = ycc("#9AA7B4")
INK = ycc("#0B0F14")
PLATE = ycc("#0B0F14")
DIM = ycc("#4A5866")
SLATE = ycc("#141A21")
SLATE_LINE = ycc("#2A333D")
WARNING = ycc("#FFB000")
ALERT = ycc("#FF5A52")
BLACK = ycc("#000000")
