"""The glyph atlas: every script, every size, each character once."""

from __future__ import annotations

import shutil
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiler.compose import glyphs
from tiler.compose.glyphs import Atlas
from tiler.errors import InputError

BUNDLED = glyphs.files("tiler.compose") / "fonts"


def picture(atlas: Atlas, text: str) -> list[bytes]:
    """The coverage of each glyph of a text."""
    return [
        atlas.texture[y : y + h, x : x + w].tobytes() for x, y, w, h, _, _ in atlas.layout_text(text).glyphs
    ]


@pytest.mark.parametrize("text", ["Plaza", "정문", "監視", "Přístav", "Вход", "カメラ", "Ελλάδα", "→ ● 30°"])
def test_built_in_fonts_draw_these_scripts(text):
    atlas = Atlas(24)
    letters = text.replace(" ", "")
    shown = picture(atlas, text)
    assert len(shown) == len(letters)
    assert all(max(glyph) > 200 for glyph in shown)
    assert len(set(shown)) == len(set(letters))   # none is the box of a missing character
    assert atlas.layout_text(text).width > 0


def test_unknown_characters_show_one_box():
    atlas = Atlas(20)
    unknown = picture(atlas, "\U000e0fff\U0003fffd\ue123")
    assert len(unknown) == 3
    assert len(set(unknown)) == 1
    assert unknown[0] not in picture(atlas, "□0O")


def test_controls_vanish_breaks_are_spaces_and_text_is_normalised():
    atlas = Atlas(20)
    plain = atlas.layout_text("ab")
    for text in ("a\x07b", "a\u200db", "a\ufe0fb", "\u202eab\u202c", "a\udc80b"):
        run = atlas.layout_text(text)
        assert run.width == plain.width
        assert (run.glyphs == plain.glyphs).all()
    assert atlas.layout_text("a\nb").width == atlas.layout_text("a b").width
    composed = atlas.layout_text(unicodedata.normalize("NFD", "Přístav"))
    assert (composed.glyphs == atlas.layout_text("Přístav").glyphs).all()


def test_each_character_is_rasterised_once():
    atlas = Atlas(18)
    atlas.layout_text("0123456789. fps")
    version, texture = atlas.version, atlas.texture
    for i in range(50):
        atlas.layout_text(f"{i / 10:.1f} fps")
    assert atlas.version == version
    assert atlas.texture is texture
    atlas.layout_text("fps: x")
    assert atlas.version > version


def test_growing_keeps_the_glyphs_that_are_there():
    atlas = Atlas(64)
    before, texture = picture(atlas, "Plaza"), atlas.texture
    atlas.layout_text("".join(chr(code) for code in range(0x4E00, 0x4E80)))
    assert atlas.texture.shape[0] > texture.shape[0]
    assert picture(atlas, "Plaza") == before


def test_full_atlas_leaves_new_characters_blank_and_says_so_once(monkeypatch, caplog):
    monkeypatch.setattr(glyphs, "MAX_HEIGHT", 256)
    atlas = Atlas(100)
    text = "".join(chr(code) for code in range(0x4E00, 0x4E40))
    run = atlas.layout_text(text)
    assert atlas.texture.shape == (256, glyphs.WIDTH)
    assert 0 < len(run.glyphs) < len(text)
    assert [record.message for record in caplog.records].count(caplog.records[0].message) == 1
    assert "atlas is full" in caplog.text


def test_sizes_share_the_texture():
    atlas = Atlas(16)
    small, large = atlas.layout_text("Gate"), atlas.layout_text("Gate", 48)
    assert large.width == pytest.approx(3 * small.width, rel=0.1)
    assert large.glyphs[0, 3] > 2 * small.glyphs[0, 3]


def test_shorten_keeps_what_fits():
    atlas = Atlas(16)
    assert atlas.shorten("Gate", 1000) == "Gate"
    short = atlas.shorten("Loading dock west", 80)
    assert short.endswith("…")
    assert "Loading dock west".startswith(short[:-1])
    assert atlas.layout_text(short).width <= 80
    assert atlas.shorten("Gate", 3) == ""


SHARED = Atlas(15)


@given(st.text(max_size=40))
def test_any_text_lies_inside_the_texture(text):
    atlas = SHARED
    run = atlas.layout_text(text)
    x, y, w, h = run.glyphs[:, :4].T
    assert (w > 0).all()
    assert (h > 0).all()
    assert (x + w <= glyphs.WIDTH).all()
    assert (y + h <= atlas.texture.shape[0]).all()
    assert run.width >= 0


def test_users_font_comes_first(tmp_path):
    font = tmp_path / "mine.ttf"
    shutil.copy(str(BUNDLED / "DroidSansFallback.ttf"), font)
    assert picture(Atlas(24, font), "監") == picture(Atlas(24), "監")
    assert len(picture(Atlas(24, font), "Plaza 監")) == 6


def test_unreadable_font_is_the_users_error(tmp_path):
    broken = tmp_path / "broken.ttf"
    broken.write_bytes(b"not a font")
    for path in (broken, tmp_path / "absent.ttf"):
        with pytest.raises(InputError, match=r"overlay\.font: cannot read .*expected a TrueType"):
            Atlas(16, path)


@pytest.mark.parametrize("name", glyphs.FONTS)
def test_character_maps_agree_between_formats(name):
    """Formats 4 and 12 of one font describe the same characters of the basic plane."""
    data = (BUNDLED / name).read_bytes()
    by_format: dict[int, set[int]] = {}
    tables = {data[at : at + 4]: int.from_bytes(data[at + 8 : at + 12], "big") for at in range(12, 400, 16)}
    cmap = tables[b"cmap"]
    for i in range(int.from_bytes(data[cmap + 2 : cmap + 4], "big")):
        start = cmap + int.from_bytes(data[cmap + 8 + 8 * i : cmap + 12 + 8 * i], "big")
        by_format[int.from_bytes(data[start : start + 2], "big")] = glyphs._subtable_points(data[start:])
    basic = {point for point in by_format[12] if point < 0xFFFF}
    assert by_format[4] == basic


def test_digits_are_equally_wide():
    atlas = Atlas(17)
    assert len({atlas.layout_text(digit * 4).width for digit in "0123456789"}) == 1
    assert np.diff(atlas.layout_text("1111").glyphs[:, 4]).std() < 1
