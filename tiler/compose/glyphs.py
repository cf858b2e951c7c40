"""Text as rectangles of one texture: every character is rasterised once, when it is first met.

Text is laid out character by character from left to right, normalised to NFC, without kerning.
Shaping and bidirectional order are out of scope: scripts that need them (Arabic, the Indic
scripts) come out as isolated characters.
"""

from __future__ import annotations

import logging
import struct
import unicodedata
from collections import OrderedDict
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tiler.errors import InputError
from tiler.types import Int32, UInt8

log = logging.getLogger(__name__)

FONTS = ("DejaVuSans.ttf", "DroidSansFallback.ttf")
"""Fonts that come with the package, asked in this order: European scripts, then CJK and Hangul."""

WIDTH, FIRST_HEIGHT, MAX_HEIGHT = 1024, 128, 4096
_CACHED_TEXTS = 4096
_INVISIBLE = frozenset({"Cc", "Cf", "Cs"})


class Glyph(NamedTuple):
    """One character: a rectangle of the texture (w is 0 without ink), and where it goes from the pen on."""

    x: int
    y: int
    w: int
    h: int
    dx: int
    dy: int
    advance: float


class TextRun(NamedTuple):
    """One line of text, laid out.

    Attributes:
        glyphs: (n, 6) int32 rows of atlas_x, atlas_y, w, h, dx, dy: a rectangle of the texture and
            where its top left goes, from the start of the baseline; dy grows downwards.
        width: advance of the whole line, px.
    """

    glyphs: Int32
    width: int


class Atlas:
    """A growing texture of glyph coverage.

    Attributes:
        texture: (H, 1024) uint8 coverage; H doubles when it is full, up to 4096 rows.
        version: changes whenever the texture does: a copy on a device is stale when it differs.
        height_px: text height (the em) that `layout_text` uses when it is given none.
        full: a character found no room; it and further ones are blank.
    """

    def __init__(self, height_px: int, font: Path | None = None) -> None:
        """
        Raises:
            InputError: the font cannot be read.
        """
        self.height_px = height_px
        self.texture: UInt8 = np.zeros((FIRST_HEIGHT, WIDTH), np.uint8)
        self.version = 0
        self._fonts = [*([str(font)] if font is not None else []), *(_bundled(name) for name in FONTS)]
        if font is not None:
            check_font(font)
        self._faces: dict[tuple[str, int], ImageFont.FreeTypeFont] = {}
        self._glyphs: dict[tuple[str, int], Glyph] = {}
        self._texts: OrderedDict[tuple[str, int], TextRun] = OrderedDict()
        self._x = self._y = self._shelf = 0
        self.full = False

    def layout_text(self, text: str, height_px: int = 0) -> TextRun:
        """Lay out one line; line breaks and tabs count as spaces, control characters as nothing.

        Args:
            text: any Unicode text.
            height_px: text height; 0: the atlas's own.
        """
        key = (text, height_px or self.height_px)
        run = self._texts.get(key)
        if run is not None:
            self._texts.move_to_end(key)
            return run
        pen, rows = 0.0, []
        for x, y, w, h, dx, dy, advance in self.characters(*key):
            if w:
                rows.append((x, y, w, h, round(pen) + dx, dy))
            pen += advance
        run = TextRun(np.array(rows, np.int32).reshape(-1, 6), round(pen))
        self._texts[key] = run
        if len(self._texts) > _CACHED_TEXTS:
            self._texts.popitem(last=False)
        return run

    def characters(self, text: str, height_px: int) -> Iterator[Glyph]:
        """The characters of one line, as `layout_text` takes them."""
        for character in unicodedata.normalize("NFC", text):
            character = " " if character in "\t\n\r\v\f\u2028\u2029" else character
            if unicodedata.category(character) not in _INVISIBLE and not "\ufe00" <= character <= "\ufe0f":
                yield self._glyph(character, height_px)

    def shorten(self, text: str, room: int, height_px: int = 0) -> str:
        """`text`, or as much of its start as fits in `room` pixels with an ellipsis; "" if nothing does."""
        if self.layout_text(text, height_px).width <= room:
            return text
        for end in range(len(text) - 1, 0, -1):
            short = text[:end].rstrip() + "…"
            if self.layout_text(short, height_px).width <= room:
                return short
        return ""

    def _glyph(self, character: str, height_px: int) -> Glyph:
        key = (character, height_px)
        glyph = self._glyphs.get(key)
        if glyph is None:
            path = next((font for font in self._fonts if ord(character) in _coverage(font)), None)
            if path is None:
                coverage, dx, dy, advance = _tofu(height_px)
            else:
                coverage, dx, dy, advance = _rasterise(self._face(path, height_px), character)
            h, w = coverage.shape
            x, y = self._place(coverage) if coverage.size else (0, 0)
            if x < 0:
                w = h = x = y = 0
            glyph = self._glyphs[key] = Glyph(x, y, w, h, dx, dy, advance)
        return glyph

    def _face(self, path: str, height_px: int) -> ImageFont.FreeTypeFont:
        key = (path, height_px)
        if key not in self._faces:
            self._faces[key] = ImageFont.truetype(path, height_px, layout_engine=ImageFont.Layout.BASIC)
        return self._faces[key]

    def _place(self, coverage: UInt8) -> tuple[int, int]:
        """Copy a glyph onto the current shelf; (-1, -1) when the atlas is full."""
        h, w = coverage.shape
        if self._x + w > WIDTH:
            self._x, self._y, self._shelf = 0, self._y + self._shelf, 0
        height = self.texture.shape[0]
        while self._y + h > height and height < MAX_HEIGHT:
            height *= 2
        if w > WIDTH or self._y + h > height:
            if not self.full:
                log.warning("glyph atlas is full at %dx%d: new characters are left blank", WIDTH, MAX_HEIGHT)
            self.full = True
            return -1, -1
        if height != self.texture.shape[0]:
            grown = np.zeros((height, WIDTH), np.uint8)
            grown[: self.texture.shape[0]] = self.texture
            self.texture = grown
        x, y = self._x, self._y
        self.texture[y : y + h, x : x + w] = coverage
        self._x, self._shelf = x + w, max(self._shelf, h)
        self.version += 1
        return x, y


def _rasterise(face: ImageFont.FreeTypeFont, character: str) -> tuple[UInt8, int, int, float]:
    left, top, right, bottom = (round(edge) for edge in face.getbbox(character, anchor="ls"))
    advance = face.getlength(character)
    if right <= left or bottom <= top:
        return np.zeros((0, 0), np.uint8), 0, 0, advance
    image = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(image).text((-left, -top), character, fill=255, font=face, anchor="ls")
    return np.asarray(image), left, top, advance


def _tofu(height_px: int) -> tuple[UInt8, int, int, float]:
    """The hollow box that stands for a character no font has."""
    line, w, h = max(1, height_px // 14), max(4, height_px // 2), max(5, round(height_px * 0.72))
    box = np.full((h, w), 255, np.uint8)
    box[line:-line, line:-line] = 0
    return box, line, -h, w + 2.0 * line


def check_font(font: Path) -> None:
    """See that text can be drawn with a font.

    Raises:
        InputError: it cannot be read.
    """
    _coverage(str(font))


def _bundled(name: str) -> str:
    return str(files("tiler.compose") / "fonts" / name)


@cache
def _coverage(path: str) -> frozenset[int]:
    """Code points that a font maps to a glyph: its `cmap` table, which Pillow does not expose.

    OpenType specification, "cmap - Character to Glyph Index Mapping Table", formats 4, 6 and 12.

    Raises:
        InputError: not a font that can be read.
    """
    try:
        ImageFont.truetype(path, 16, layout_engine=ImageFont.Layout.BASIC)
        points = _cmap_points(Path(path).read_bytes())
    except (OSError, struct.error, ValueError, IndexError) as error:
        raise InputError(
            f"overlay.font: cannot read {path} ({error}); expected a TrueType or OpenType font, .ttf or .otf"
        ) from error
    if not points:
        raise InputError(f"overlay.font: {path} has no Unicode character map")
    return points


def _cmap_points(font: bytes) -> frozenset[int]:
    start = struct.unpack_from(">I", font, 12)[0] if font[:4] == b"ttcf" else 0
    (count,) = struct.unpack_from(">H", font, start + 4)
    entries = struct.iter_unpack(">4sIII", font[start + 12 : start + 12 + 16 * count])
    tables = {tag: offset for tag, _, offset, _ in entries}
    if b"cmap" not in tables:
        raise ValueError("no cmap table")
    cmap = tables[b"cmap"]
    (count,) = struct.unpack_from(">H", font, cmap + 2)
    points: set[int] = set()
    for platform, encoding, offset in struct.iter_unpack(">HHI", font[cmap + 4 : cmap + 4 + 8 * count]):
        if platform == 0 or (platform == 3 and encoding in (1, 10)):
            points |= _subtable_points(font[cmap + offset :])
    return frozenset(points)


def _subtable_points(table: bytes) -> set[int]:
    (layout,) = struct.unpack_from(">H", table)
    if layout == 6:
        first, count = struct.unpack_from(">HH", table, 6)
        glyphs = np.frombuffer(table, ">u2", count, 10)
        return {first + int(i) for i in np.flatnonzero(glyphs)}
    if layout == 12:
        (count,) = struct.unpack_from(">I", table, 12)
        groups = np.frombuffer(table, ">u4", 3 * count, 16).reshape(-1, 3).tolist()
        return {point for first, last, _ in groups for point in range(first, min(last, 0x10FFFF) + 1)}
    if layout != 4:
        return set()
    segments = struct.unpack_from(">H", table, 6)[0] // 2
    ends = np.frombuffer(table, ">u2", segments, 14).tolist()
    columns = np.frombuffer(table, ">u2", 3 * segments, 16 + 2 * segments)
    starts, deltas, offsets = columns.reshape(3, -1).tolist()
    points = set()
    for i, (first, last, delta, offset) in enumerate(zip(starts, ends, deltas, offsets, strict=True)):
        for point in range(first, last + 1):
            glyph = point
            if offset:
                at = 16 + 6 * segments + 2 * i + offset + 2 * (point - first)
                (glyph,) = struct.unpack_from(">H", table, at)
            if point != 0xFFFF and (glyph + delta * (not offset or glyph > 0)) % 65536:
                points.add(point)
    return points
