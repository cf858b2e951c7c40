"""Pictures that NVDEC scales, against fakes: their samples, and everything said of them."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
from decode_parts import Gpu, assert_same, cpu_frames, interlaced, numbers, of_sizes, read_all, source_of
from fakes.pynvvideocodec import PyNvDecoder
from pictures import mean_of_areas, psnr_of, write

from tiler.decode.keyframe import RefusedError
from tiler.types import Frame

pytest_plugins = ("fakes.decode_fixtures",)


def halved(source: str, size: tuple[int, int], aspect: Fraction) -> tuple[int, int]:
    return size[0] // 4 * 2, size[1] // 4 * 2


def assert_scaled(found: list[Frame], expected: list[Frame], sizes: list[tuple[int, int]]) -> None:
    """The CPU decoder's pictures in these sizes, and everything said of them as if they were large."""
    assert [frame.pts for frame in found] == [frame.pts for frame in expected]
    for ours, theirs, (width, height) in zip(found, expected, sizes, strict=True):
        ours.ready.synchronize()
        assert ours.y.shape == (height, width)
        assert ours.y.dtype == theirs.y.dtype
        assert ours.source_size == theirs.y.shape[::-1]
        for name in ("picture_size", "picture_aspect", "stream", "matrix", "full_range", "rotation", "sample_aspect"):
            assert getattr(ours, name) == getattr(theirs, name)
        for name, half in (("y", 1), ("u", 2), ("v", 2)):
            small = mean_of_areas(getattr(theirs, name), width // half, height // half)
            assert psnr_of(getattr(ours, name), small) > 35


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "suffix"),
    [
        ("libx264", "yuv420p", "mp4"),
        ("libx265", "yuv420p", "mkv"),
        ("libx265", "yuv420p10le", "mp4"),
        ("libvpx-vp9", "yuv420p", "webm"),
    ],
)
def test_nvdec_gives_out_what_is_needed(tmp_path: Path, gpu: Gpu, codec: str, pix_fmt: str, suffix: str) -> None:
    path = write(tmp_path / f"a.{suffix}", 25, codec=codec, pix_fmt=pix_fmt, size=(404, 268))
    decoder = gpu.open(path, slots=26, needed=halved)
    assert decoder.info.decoder == f"nvdec {decoder.info.codec} at 202x134"
    assert decoder.info.size == (404, 268)
    assert decoder.info.plane_size == (202, 134)
    found = read_all(decoder)
    assert_scaled(found, cpu_frames(path), [(202, 134)] * 25)
    assert numbers(found) == list(range(25))
    deep = pix_fmt.endswith("10le")
    assert gpu.host.live_bytes == 26 * gpu.surfaces_cuda.surface_bytes(202, 134, deep)
    gpu.host.check()


def test_a_picture_on_its_side_is_scaled_as_it_is_stored(tmp_path: Path, gpu: Gpu) -> None:
    asked: list[tuple[str, tuple[int, int], Fraction]] = []

    def needed(source: str, size: tuple[int, int], aspect: Fraction) -> tuple[int, int]:
        asked.append((source, size, aspect))
        return 96, 160

    path = write(tmp_path / "a.mp4", 3, size=(400, 240), rotation=-90, sample_aspect=Fraction(16, 11))
    found = read_all(gpu.open(path, needed=needed))
    assert asked == [("cam", (240, 400), Fraction(11, 16))]
    assert_scaled(found, cpu_frames(path), [(160, 96)] * 3)
    assert found[0].plane_size == (96, 160)


def test_a_size_that_changes_is_scaled_anew(tmp_path: Path, gpu: Gpu) -> None:
    sizes = [(320, 192), (404, 268), (160, 96), (320, 192)]
    wanted = {(320, 192): (160, 96), (404, 268): (202, 134), (160, 96): (160, 96)}
    joined = of_sizes(tmp_path, *sizes)
    found = read_all(gpu.open(joined, slots=14, needed=lambda source, size, aspect: wanted[size]))
    expected = cpu_frames(joined)
    assert_scaled(found[:14], expected[:14], [wanted[size] for size in sizes[:2] for _ in range(7)])
    assert_same(found[14:21], expected[14:21])
    assert {frame.source_size for frame in found[14:21]} == {None}
    assert_scaled(found[21:], expected[21:], [(160, 96)] * 7)
    gpu.host.check()


def test_what_is_needed_whole_is_not_touched(tmp_path: Path, gpu: Gpu) -> None:
    path = write(tmp_path / "a.webm", 5, codec="libvpx-vp9", size=(201, 133))
    decoder = gpu.open(path, needed=lambda source, size, aspect: size)
    assert decoder.info.decoder == "nvdec vp9"
    assert decoder.info.plane_size is None
    assert_same(read_all(decoder), cpu_frames(path))


def test_only_nvdec_scales(tmp_path: Path, gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interlaced stream goes down the ladder to the CPU, which deinterlaces and gives out whole pictures."""
    gpu.refuse_hwaccel(monkeypatch, "no such codec")
    opener = gpu.opener(slots=9, needed=halved)
    path = interlaced(tmp_path / "a.mkv")
    decoder = opener(source_of(path), str(path), 1, 1)
    assert decoder.info.decoder == "pyav h264 + upload"
    assert decoder.info.plane_size is None
    assert_same(read_all(decoder), cpu_frames(path))
    path = write(tmp_path / "b.mp4", 3, size=(320, 192))
    decoder = opener(source_of(path).model_copy(update={"id": "other"}), str(path), 2, 1)
    assert decoder.info.decoder == "nvdec h264 at 160x96"


def test_nvdec_that_does_not_scale_is_refused(tmp_path: Path, gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever took its pictures for small ones would show a corner of them."""
    path = write(tmp_path / "a.mp4", 3, size=(320, 192))
    monkeypatch.setattr(PyNvDecoder, "setReconfigParams", lambda self, width, height, /: 1)
    with pytest.raises(RefusedError, match="its pictures are not 160x96 with 8 bits"):
        gpu.open(path, needed=halved)
    monkeypatch.undo()
    with pytest.raises(RefusedError, match="Resize dimensions must be lower"):
        gpu.open(path, needed=lambda source, size, aspect: (size[0], size[1] + 2))
