"""StillDecoder: images as sources."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tiler.config.models import Source
from tiler.decode.source import open_decoder
from tiler.decode.still import StillDecoder
from tiler.errors import InputError
from tiler.types import Matrix


@pytest.mark.parametrize("suffix", ["png", "bmp", "webp", "jpg"])
def test_still_image(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.new("RGB", (51, 33), (255, 255, 255)).save(path)
    decoder = open_decoder(Source(id="logo", uri=str(path)), str(path), 2, 1)
    assert isinstance(decoder, StillDecoder)
    assert decoder.info.size == (51, 33)
    assert decoder.info.duration_s is None
    frame = decoder.read()
    assert frame is not None
    assert (frame.stream, frame.pts, frame.matrix, frame.full_range) == (2, 0, Matrix.BT709, False)
    assert int(frame.y[10, 10]) == pytest.approx(235, abs=1)
    assert decoder.read() is None


def test_still_image_is_turned_upright_and_laid_on_black(tmp_path: Path) -> None:
    turned = Image.new("RGB", (60, 20))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif)
    Image.new("RGBA", (8, 8), (255, 255, 255, 0)).save(tmp_path / "clear.png")
    Image.fromarray(np.full((8, 8), 40000, np.uint16)).save(tmp_path / "deep.png")
    found = {}
    for name in ("turned.jpg", "clear.png", "deep.png"):
        path = tmp_path / name
        with StillDecoder(Source(id="a", uri=str(path)), path, 0) as decoder:
            frame = decoder.read()
            assert frame is not None
            found[name] = (frame.picture_size, int(frame.y[4, 4]))
    assert found["turned.jpg"][0] == (20, 60)
    assert found["clear.png"][1] == 16
    assert found["deep.png"][1] == pytest.approx(16 + 219 * 156 / 255, abs=1)


@pytest.mark.parametrize("content", [b"", b"not an image"])
def test_broken_image_is_an_input_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"source a: cannot open .*a\.png"):
        open_decoder(Source(id="a", uri=str(path)), str(path), 0, 1)
