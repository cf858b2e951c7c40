"""The CUDA decoders against strict fakes of PyNvVideoCodec and CuPy: the CPU decoder's pictures, times and errors."""

from __future__ import annotations

import importlib
import logging
import sys
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from fakes.cupy_host import HostCupy
from fakes.pynvvideocodec import Flag, HostNvdec, Latency, PyNvDecoder
from hypothesis import given
from hypothesis import strategies as st
from pictures import mean_of_areas, number_of, psnr_of, video_frame, write
from PIL import Image

import tiler.decode
from tiler.config.models import Source
from tiler.decode.base import Needed
from tiler.decode.clock import FileClock, TickClock
from tiler.decode.cpu import PyavDecoder
from tiler.decode.keyframe import RefusedError, headers_of, parameters_of
from tiler.decode.source import SourceReader
from tiler.errors import InputError, StageError
from tiler.kernels import enqueue_cuda
from tiler.observe.copies import Copies
from tiler.types import Frame, Matrix

MODULES = ("surfaces_cuda", "nvdec_cuda", "pyav_cuda", "upload_cuda", "cuda")
DEVICE = 3


class Gpu(SimpleNamespace):
    """The fakes, and tiler's modules imported on top of them."""

    host: HostCupy
    nvdec: HostNvdec

    def open(self, path: Path | str, slots: int = 6, needed: Needed | None = None, **keys: object) -> Any:
        ring = self.surfaces_cuda.SurfaceRing(slots, DEVICE)
        return self.nvdec_cuda.NvdecDecoder(source_of(path, **keys), str(path), 1, ring, DEVICE, needed)

    def opener(self, *, allow_cpu: bool = True, slots: int = 8, needed: Needed | None = None) -> Any:
        self.copies = Copies()
        return self.cuda.CudaOpener(DEVICE, self.copies, slots, allow_cpu, needed)

    def refuse_hwaccel(self, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
        def refused(*_: object, **__: object) -> None:
            raise RefusedError(why)

        monkeypatch.setattr(self.pyav_cuda.PyavCudaDecoder, "_cuda_context", refused)


@pytest.fixture
def gpu() -> Iterator[Gpu]:
    """tiler's CUDA decoders on fakes; what was imported before is put back."""
    names = ["cupy", "PyNvVideoCodec", *(f"tiler.decode.{name}" for name in MODULES)]
    before = {name: sys.modules.pop(name, None) for name in names}
    host = HostCupy()
    nvdec = HostNvdec(host)
    sys.modules["cupy"], sys.modules["PyNvVideoCodec"] = host.module, nvdec.module
    driver_copy, enqueue_cuda.copy = enqueue_cuda.copy, host.copy
    try:
        modules = {name: importlib.import_module(f"tiler.decode.{name}") for name in MODULES}
        yield Gpu(host=host, nvdec=nvdec, **modules)
    finally:
        enqueue_cuda.copy = driver_copy
        for name in names:
            sys.modules.pop(name, None)
            if before[name] is not None:
                sys.modules[name] = before[name]
        for name in MODULES:
            vars(tiler.decode).pop(name, None)
            if before[f"tiler.decode.{name}"] is not None:
                setattr(tiler.decode, name, before[f"tiler.decode.{name}"])


def source_of(path: Path | str, **keys: object) -> Source:
    return Source.model_validate({"id": "cam", "uri": str(path), **keys})


def read_all(decoder: Any) -> list[Frame]:
    frames = []
    with decoder:
        while (frame := decoder.read()) is not None:
            frames.append(frame)
    return frames


def cpu_frames(path: Path, **keys: object) -> list[Frame]:
    return read_all(PyavDecoder(source_of(path, **keys), str(path), 1, 1))


def assert_same(found: list[Frame], expected: list[Frame]) -> None:
    """Same times, samples and metadata; the device's work is done when `ready` says so, not before."""
    assert [frame.pts for frame in found] == [frame.pts for frame in expected]
    for ours, theirs in zip(found, expected, strict=True):
        if ours.ready is not None:
            ours.ready.synchronize()
        for name in ("y", "u", "v"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
        for name in ("stream", "matrix", "full_range", "rotation", "sample_aspect"):
            assert getattr(ours, name) == getattr(theirs, name)


def numbers(frames: list[Frame]) -> list[int]:
    for frame in frames:
        frame.ready.synchronize()
    return [number_of(frame.y) for frame in frames]


B_FRAMES = {"libx264": {"bf": "3", "g": "9", "crf": "4", "preset": "veryfast"}}
FORMATS = [
    ("libx264", "yuv420p", "mp4", (202, 134)),
    ("libx264", "yuv420p", "mkv", (202, 134)),
    ("libx264", "yuv420p", "ts", (202, 134)),
    ("libx264", "yuv420p", "h264", (202, 134)),
    ("libx264", "yuvj420p", "mp4", (202, 134)),
    ("libx264", "yuv420p10le", "mp4", (202, 134)),
    ("libx265", "yuv420p", "mp4", (202, 134)),
    ("libx265", "yuv420p", "mkv", (202, 134)),
    ("libx265", "yuv420p", "hevc", (202, 134)),
    ("libx265", "yuv420p10le", "mp4", (202, 134)),
    ("libx265", "yuv420p12le", "mkv", (202, 134)),
    ("libvpx-vp9", "yuv420p", "webm", (201, 133)),
    ("libsvtav1", "yuv420p", "mp4", (202, 134)),
]


@pytest.mark.parametrize(("codec", "pix_fmt", "suffix", "size"), FORMATS)
def test_pictures_and_times_are_the_cpu_decoders(
    tmp_path: Path, gpu: Gpu, codec: str, pix_fmt: str, suffix: str, size: tuple[int, int]
) -> None:
    """All frames are held to the end: if one showed a later picture, it would differ."""
    path = write(tmp_path / f"a.{suffix}", 25, codec=codec, pix_fmt=pix_fmt, size=size, options=B_FRAMES.get(codec))
    decoder = gpu.open(path, slots=26)
    name = {"libx264": "h264", "libx265": "hevc", "libvpx-vp9": "vp9", "libsvtav1": "av1"}[codec]
    assert decoder.info.decoder == f"nvdec {name}"
    with PyavDecoder(source_of(path), str(path), 1, 1) as reference:
        expected = (reference.info.size, reference.info.fps, reference.info.duration_s, reference.info.codec)
    assert (decoder.info.size, decoder.info.fps, decoder.info.duration_s, decoder.info.codec) == expected
    found = read_all(decoder)
    assert len(found) == 25
    assert_same(found, cpu_frames(path))
    created = gpu.nvdec.created[0]
    assert created["gpuid"] == DEVICE
    assert created["cudastream"] != 0
    assert created["maxwidth"] >= size[0]
    assert created["latency"] == Latency.NATIVE
    gpu.host.check()


def test_pictures_lie_in_interleaved_surfaces(tmp_path: Path, gpu: Gpu) -> None:
    (frame, *_) = read_all(gpu.open(write(tmp_path / "a.webm", 2, codec="libvpx-vp9", size=(201, 133))))
    assert frame.y.shape == (133, 201)
    assert frame.y.strides == (*frame.u.strides[:1], 1) == (202, 1)
    assert frame.u.strides == frame.v.strides == (202, 2)
    assert frame.u.ctypes.data == frame.y.ctypes.data + 202 * 133
    assert frame.v.ctypes.data == frame.u.ctypes.data + 1
    assert gpu.surfaces_cuda.surface_bytes(201, 133, False) == 202 * (133 + 67)
    assert gpu.surfaces_cuda.surface_bytes(1920, 1080, True) == 1920 * 1620 * 2


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "h264"])
@pytest.mark.parametrize(("start_s", "end_s"), [(0.0, 0.5), (0.36, None), (0.68, 1.2), (0.7, 0.9)])
def test_start_and_end_are_exact(
    tmp_path: Path, gpu: Gpu, suffix: str, start_s: float, end_s: float | None
) -> None:
    path = write(tmp_path / f"a.{suffix}", 40, options=B_FRAMES["libx264"])
    keys = {"start_s": start_s, "end_s": end_s}
    found = read_all(gpu.open(path, slots=41, **keys))
    assert_same(found, cpu_frames(path, **keys))


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_start_in_an_open_group_of_pictures(tmp_path: Path, gpu: Gpu, codec: str) -> None:
    """The keyframe is no IDR there, and the bitstream filter adds no parameter sets to it."""
    options = {"libx264": {"x264-params": "open-gop=1:keyint=12:bframes=3:scenecut=0:crf=4"}}
    options["libx265"] = {"x265-params": "open-gop=1:keyint=12:bframes=3:scenecut=0:crf=4:log-level=none"}
    path = write(tmp_path / "a.mp4", 40, codec=codec, options=options[codec])
    found = read_all(gpu.open(path, slots=41, start_s=1.04))
    assert_same(found, cpu_frames(path, start_s=1.04))
    assert numbers(found) == list(range(26, 40))
    assert len(gpu.nvdec.created) == 1  # it did not have to read from the start


def test_rotation_aspect_and_colour_are_the_streams(tmp_path: Path, gpu: Gpu) -> None:
    tags = {"colorspace": 9, "color_range": 1}
    path = write(tmp_path / "a.mp4", 3, rotation=-90, sample_aspect=Fraction(16, 11), context=tags)
    found = read_all(gpu.open(path))
    assert_same(found, cpu_frames(path))
    assert (found[0].rotation, found[0].sample_aspect, found[0].matrix) == (90, Fraction(16, 11), Matrix.BT2020)


def test_pictures_before_an_edit_list_are_not_shown(tmp_path: Path, gpu: Gpu) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as out:
        stream = out.add_stream("libx264", rate=25, options={"bf": "0", "g": "30", "crf": "4"})
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        for number in range(20):
            picture = video_frame(number, 160, 96)
            picture.pts, picture.time_base = number - 7, Fraction(1, 25)
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
    found = read_all(gpu.open(path, slots=21))
    assert_same(found, cpu_frames(path))
    assert numbers(found) == list(range(7, 20))


def test_few_surfaces_serve_many_pictures(tmp_path: Path, gpu: Gpu) -> None:
    path = write(tmp_path / "a.mp4", 40, options=B_FRAMES["libx264"])
    decoder = gpu.open(path, slots=2)
    made, seen = gpu.host.allocations, []
    with decoder:
        while (frame := decoder.read()) is not None:
            seen += numbers([frame])
            del frame
    assert seen == list(range(40))
    assert gpu.host.allocations == made == 2
    gpu.host.check()


def test_a_full_ring_waits_and_close_ends_it(tmp_path: Path, gpu: Gpu) -> None:
    decoder = gpu.open(write(tmp_path / "a.mp4", 20), slots=3)
    held = [decoder.read() for _ in range(3)]
    result: list[object] = []
    reading = threading.Thread(target=lambda: result.append(decoder.read()))
    reading.start()
    assert reading.is_alive()
    decoder.close()
    reading.join(5)
    assert result == [None]
    assert numbers(held) == [0, 1, 2]
    del held
    assert decoder.read() is None
    gpu.host.check()


def test_a_full_ring_goes_on_when_a_frame_is_dropped(tmp_path: Path, gpu: Gpu) -> None:
    decoder = gpu.open(write(tmp_path / "a.mp4", 8), slots=2)
    held = [decoder.read(), decoder.read()]
    result: list[Frame] = []
    reading = threading.Thread(target=lambda: result.append(decoder.read()))
    reading.start()
    held.pop(0)
    reading.join(5)
    assert numbers(result + held) == [2, 1]
    decoder.close()


def of_sizes(folder: Path, *sizes: tuple[int, int]) -> Path:
    """A raw stream of seven pictures of each size."""
    parts = [write(folder / f"{w}.h264", 7, size=(w, h), options=B_FRAMES["libx264"]) for w, h in sizes]
    joined = folder / "joined.h264"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    return joined


def test_size_changes_go_to_a_new_decoder(tmp_path: Path, gpu: Gpu) -> None:
    sizes = [(160, 96), (202, 134), (96, 64)]
    joined = of_sizes(tmp_path, *sizes)
    decoder = gpu.open(joined, slots=7)
    found = read_all(decoder)
    assert_same(found, cpu_frames(joined))
    assert [frame.y.shape for frame in found[::7]] == [(h, w) for w, h in sizes]
    assert len(gpu.nvdec.created) == 3
    bytes_of = gpu.surfaces_cuda.surface_bytes
    assert gpu.host.live_bytes == 7 * sum(bytes_of(*size, False) for size in sizes)
    del found[:7]
    assert gpu.host.live_bytes == 7 * sum(bytes_of(*size, False) for size in sizes[1:])
    decoder._ring.close()
    assert gpu.host.live_bytes == 7 * sum(bytes_of(*size, False) for size in sizes[1:])
    del found[:]
    assert gpu.host.live_bytes == 0
    gpu.host.check()


def test_nothing_is_freed_while_a_copy_is_on_its_way(tmp_path: Path, gpu: Gpu) -> None:
    """Nobody waits for a picture here, so all the copies are still queued when the size changes."""
    joined = of_sizes(tmp_path, (160, 96), (202, 134))
    decoder = gpu.open(joined, slots=2)
    while decoder.read() is not None:
        pass
    assert gpu.nvdec.decoders[0]() is None
    gpu.host.check()
    decoder.close()
    decoder._ring.close()
    assert gpu.nvdec.decoders[1]() is None
    assert gpu.host.live_bytes == 0
    gpu.host.check()
    decoder = gpu.open(joined, slots=2)
    decoder.read()
    ring = decoder._ring
    decoder.close()
    del decoder
    assert gpu.nvdec.decoders[2]() is None
    ring.close()
    gpu.host.check()


def test_depth_changes_go_to_a_new_decoder(tmp_path: Path, gpu: Gpu) -> None:
    parts = [write(tmp_path / f"{f}.hevc", 5, pix_fmt=f, codec="libx265") for f in ("yuv420p", "yuv420p10le")]
    joined = tmp_path / "joined.hevc"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    found = read_all(gpu.open(joined, slots=5))
    assert_same(found, cpu_frames(joined))
    assert [frame.y.dtype for frame in found] == [np.uint8] * 5 + [np.uint16] * 5


def test_no_room_is_a_stage_error(tmp_path: Path, gpu: Gpu) -> None:
    gpu.host.limit_bytes = 100_000
    decoder = gpu.open(write(tmp_path / "a.mp4", 5), slots=8)
    with pytest.raises(StageError, match=r"decode \(cam\): no room on the GPU for 8 surfaces of 160x96: Out of memory"):
        decoder.read()
    decoder.close()


def test_damaged_data_is_skipped_and_counted(tmp_path: Path, gpu: Gpu) -> None:
    data = bytearray(write(tmp_path / "a.ts", 100, options={"g": "10", "preset": "veryfast"}).read_bytes())
    rng = np.random.default_rng(3)
    for place in rng.integers(len(data) // 4, len(data), 60):
        data[place] ^= 0xFF
    path = tmp_path / "broken.ts"
    path.write_bytes(data)
    decoder = gpu.open(path, slots=4)
    pts = []
    with decoder:
        while (frame := decoder.read()) is not None:
            pts.append(frame.pts)
            del frame
        assert decoder.errors > 0
    assert len(pts) > 30
    assert pts == sorted(set(pts))
    gpu.host.check()


def test_a_stream_that_begins_between_keyframes_waits_for_one(tmp_path: Path, gpu: Gpu) -> None:
    path = write(tmp_path / "a.h264", 30, options={"g": "10", "bf": "0", "crf": "4", "preset": "veryfast"})
    data = path.read_bytes()
    cut = tmp_path / "cut.h264"
    cut.write_bytes(data[data.index(b"\0\0\1\x41", 4) :])  # from the second picture on
    with gpu.open(cut, slots=21) as decoder:
        assert numbers(read_all(decoder)) == list(range(10, 30))


def test_a_decoder_works_on_the_thread_that_reads(tmp_path: Path, gpu: Gpu) -> None:
    path = write(tmp_path / "a.mp4", 5)
    reader = SourceReader(source_of(path), str(path), 1, 1, live=False, opener=gpu.opener())
    with reader:
        reader.start()
        assert reader.next() is not None
        while reader.next() is not None:
            pass
    assert gpu.host.devices["tiler-decode-cam"] == {DEVICE}


def test_a_loop_keeps_its_surfaces(tmp_path: Path, gpu: Gpu) -> None:
    path = write(tmp_path / "a.mp4", 5, options=B_FRAMES["libx264"])
    reader = SourceReader(source_of(path, loop=True), str(path), 1, 1, live=False, opener=gpu.opener(slots=8))
    with reader:
        reader.start()
        pts, seen = [], []
        for _ in range(23):
            frame = reader.next()
            assert frame is not None
            pts.append(frame.pts)
            seen += numbers([frame])
            del frame
    assert pts == [3600 * index for index in range(23)]
    assert seen == [index % 5 for index in range(23)]
    assert gpu.host.allocations == 8
    gpu.host.check()


def test_live_streams_without_b_frames_come_at_once(tmp_path: Path, gpu: Gpu) -> None:
    path = write(tmp_path / "a.mp4", 10, options={"tune": "zerolatency", "bf": "0", "crf": "4"})
    with gpu.open(path, realtime=True) as decoder:
        assert decoder.read() is not None
        nvdec = gpu.nvdec.decoders[0]()
        assert nvdec is not None
        assert nvdec.flags == [Flag.ENDOFPICTURE]
        assert decoder.read() is not None
        assert len(nvdec.flags) == 2
    assert gpu.nvdec.created[0]["latency"] == Latency.LOW
    path = write(tmp_path / "b.mp4", 10, options={"bf": "2", "crf": "4"})
    with gpu.open(path, realtime=True) as decoder:
        assert numbers([decoder.read() for _ in range(4)]) == [0, 1, 2, 3]
    assert gpu.nvdec.created[1]["latency"] == Latency.NATIVE


# Scaled by NVDEC


def halved(stream: int, size: tuple[int, int], aspect: Fraction) -> tuple[int, int]:
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
    asked: list[tuple[int, tuple[int, int], Fraction]] = []

    def needed(stream: int, size: tuple[int, int], aspect: Fraction) -> tuple[int, int]:
        asked.append((stream, size, aspect))
        return 96, 160

    path = write(tmp_path / "a.mp4", 3, size=(400, 240), rotation=-90, sample_aspect=Fraction(16, 11))
    found = read_all(gpu.open(path, needed=needed))
    assert asked == [(1, (240, 400), Fraction(11, 16))]
    assert_scaled(found, cpu_frames(path), [(160, 96)] * 3)
    assert found[0].plane_size == (96, 160)


def test_a_size_that_changes_is_scaled_anew(tmp_path: Path, gpu: Gpu) -> None:
    sizes = [(320, 192), (404, 268), (160, 96), (320, 192)]
    wanted = {(320, 192): (160, 96), (404, 268): (202, 134), (160, 96): (160, 96)}
    joined = of_sizes(tmp_path, *sizes)
    found = read_all(gpu.open(joined, slots=14, needed=lambda stream, size, aspect: wanted[size]))
    expected = cpu_frames(joined)
    assert_scaled(found[:14], expected[:14], [wanted[size] for size in sizes[:2] for _ in range(7)])
    assert_same(found[14:21], expected[14:21])
    assert {frame.source_size for frame in found[14:21]} == {None}
    assert_scaled(found[21:], expected[21:], [(160, 96)] * 7)
    gpu.host.check()


def test_what_is_needed_whole_is_not_touched(tmp_path: Path, gpu: Gpu) -> None:
    path = write(tmp_path / "a.webm", 5, codec="libvpx-vp9", size=(201, 133))
    decoder = gpu.open(path, needed=lambda stream, size, aspect: size)
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
        gpu.open(path, needed=lambda stream, size, aspect: (size[0], size[1] + 2))


# Refusals and the ladder


def interlaced(path: Path) -> Path:
    return write(path, 6, options={"crf": "4", "x264-params": "tff=1"})


def test_what_nvdec_does_not_decode_is_refused(tmp_path: Path, gpu: Gpu) -> None:
    gpu.nvdec.unsupported = {("HEVC", 10)}
    deep = {"codec": "libx265", "pix_fmt": "yuv420p10le"}
    cases = {
        write(tmp_path / "a.mp4", 3, codec="mpeg4"): "it is mpeg4; NVDEC is used for h264, hevc, vp9, av1",
        write(tmp_path / "b.mp4", 3, pix_fmt="yuv422p"): "its samples are yuv422p; only 4:2:0",
        write(tmp_path / "c.mp4", 3, **deep): "this GPU's NVDEC does not decode hevc with 10 bits",
        write(tmp_path / "d.mp4", 3, size=(32, 32)): "it is 32x32; this GPU's NVDEC decodes h264 of 48x16 to 4096x4096",
        interlaced(tmp_path / "e.mkv"): "it is interlaced",
    }
    for path, reason in cases.items():
        with pytest.raises(RefusedError, match=reason):
            gpu.open(path)
    gpu.nvdec.refuses = RuntimeError("Codec not supported on this GPU, error 801")
    with pytest.raises(RefusedError, match="error 801"):
        gpu.open(write(tmp_path / "f.mp4", 3))


def test_the_ladder_ends_on_the_cpu_and_says_why(
    tmp_path: Path, gpu: Gpu, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gpu.refuse_hwaccel(monkeypatch, "no such codec")
    path = write(tmp_path / "a.mp4", 9, codec="mpeg4", size=(203, 135))
    opener = gpu.opener(slots=10)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):  # as in a loop
            decoder = opener(source_of(path), str(path), 1, 1)
            assert decoder.info.decoder == "pyav mpeg4 + upload"
            assert_same(read_all(decoder), cpu_frames(path))
    assert opener.steps == {
        "cam": [
            ("PyNvVideoCodec", "it is mpeg4; NVDEC is used for h264, hevc, vp9, av1"),
            ("PyAV CUDA", "no such codec"),
        ]
    }
    assert [record.getMessage() for record in caplog.records] == [
        "stream cam: PyNvVideoCodec does not decode it: it is mpeg4; NVDEC is used for h264, hevc, vp9, av1",
        "stream cam: PyAV CUDA does not decode it: no such codec",
    ]
    row = gpu.copies.summary(1)["by_name"]["decoded pictures"]
    assert row["direction"] == "up"
    assert (row["copies"], row["bytes"]) == (18, 18 * gpu.surfaces_cuda.surface_bytes(203, 135, False))


def test_without_leave_the_cpu_is_no_way_out(tmp_path: Path, gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu.refuse_hwaccel(monkeypatch, "no such codec")
    path = write(tmp_path / "a.mp4", 3, codec="mpeg4")
    with pytest.raises(InputError) as caught:
        gpu.opener(allow_cpu=False)(source_of(path), str(path), 1, 1)
    assert str(caught.value) == (
        "source cam: the GPU does not decode it (PyNvVideoCodec: it is mpeg4; NVDEC is used for h264, hevc, vp9, av1; "
        "PyAV CUDA: no such codec); to decode it on the CPU, list decode in allow_cpu"
    )


def test_a_wrong_file_is_no_step_down(tmp_path: Path, gpu: Gpu) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"no video" * 100)
    opener = gpu.opener()
    with pytest.raises(InputError, match="cannot open"):
        opener(source_of(path), str(path), 1, 1)
    assert opener.steps == {}


NVENC = "Failed to load NVENC library: libnvidia-encode.so.1: cannot open shared object file\n\n=== TROUBLESHOOTING ==="


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError(NVENC), "needs the driver's NVENC library even to decode.*NVIDIA_DRIVER_CAPABILITIES"),
        (RuntimeError("Driver version is too old\n\n=== HELP"), "cannot be imported: Driver version is too old$"),
        (ImportError("libcuda.so.1: cannot open"), "cannot be imported: libcuda.so.1"),
        (ModuleNotFoundError("No module", name="PyNvVideoCodec"), r'not installed: pip install "tiler\[cuda\]"'),
    ],
)
def test_a_library_that_cannot_be_imported_is_explained(
    tmp_path: Path, gpu: Gpu, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    class Finder:
        @staticmethod
        def find_spec(name: str, *_: object) -> None:
            if name == "PyNvVideoCodec":
                raise error

    monkeypatch.delitem(sys.modules, "PyNvVideoCodec")
    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    with pytest.raises(RefusedError, match=reason):
        gpu.open(write(tmp_path / "a.mp4", 3))


def test_images_are_uploaded_without_a_word(tmp_path: Path, gpu: Gpu, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (51, 33), (255, 255, 255)).save(path)
    opener = gpu.opener(allow_cpu=False)
    decoder = opener(source_of(path), str(path), 1, 1)
    assert decoder.endless
    assert decoder.info.decoder == "pillow png + upload"
    (frame,) = read_all(decoder)
    frame.ready.synchronize()
    assert frame.y.shape == (33, 51)
    assert frame.u.strides == (52, 2)
    assert int(frame.y[10, 10]) == 235
    assert opener.steps == {}
    assert not caplog.records


# Upload


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le", "gray", "yuv444p"])
def test_uploaded_pictures_are_the_cpu_decoders(tmp_path: Path, gpu: Gpu, pix_fmt: str) -> None:
    size = (202, 133) if pix_fmt == "yuv420p10le" else (201, 133)  # FFmpeg's P010 lacks the last odd column
    path = write(tmp_path / "a.mkv", 9, codec="ffv1", pix_fmt=pix_fmt, size=size)
    copies = Copies()
    ring = gpu.surfaces_cuda.SurfaceRing(10, DEVICE)
    decoder = gpu.upload_cuda.UploadDecoder(PyavDecoder(source_of(path), str(path), 1, 1), ring, copies, DEVICE)
    assert_same(read_all(decoder), cpu_frames(path))
    expected = gpu.surfaces_cuda.surface_bytes(*size, pix_fmt.endswith("10le"))
    assert copies.summary(1)["host_to_device_bytes"] == 9 * expected
    gpu.host.check()


def test_uploaded_pictures_may_change_their_size(tmp_path: Path, gpu: Gpu) -> None:
    path = of_sizes(tmp_path, (160, 96), (202, 134))
    for hold in (True, False):  # dropped at once, the last copies are on their way when the size changes
        ring = gpu.surfaces_cuda.SurfaceRing(7 if hold else 2, DEVICE)
        cpu = PyavDecoder(source_of(path), str(path), 1, 1)
        decoder = gpu.upload_cuda.UploadDecoder(cpu, ring, Copies(), DEVICE)
        if hold:
            assert_same(read_all(decoder), cpu_frames(path))
        while decoder.read() is not None:
            pass
        decoder.close()
        ring.close()
        assert gpu.host.live_bytes == 0
        gpu.host.check()


def test_upload_waits_for_a_surface_and_close_ends_it(tmp_path: Path, gpu: Gpu) -> None:
    path = write(tmp_path / "a.mp4", 9)
    ring = gpu.surfaces_cuda.SurfaceRing(1, DEVICE)
    decoder = gpu.upload_cuda.UploadDecoder(PyavDecoder(source_of(path), str(path), 1, 1), ring, Copies(), DEVICE)
    held = decoder.read()
    result: list[object] = []
    reading = threading.Thread(target=lambda: result.append(decoder.read()))
    reading.start()
    decoder.close()
    decoder.close()
    reading.join(5)
    assert result == [None]
    assert numbers([held]) == [0]
    assert decoder.errors == 0


# FFmpeg's CUDA decoders


class CudaPicture:
    """A picture of FFmpeg's CUDA decoder: its planes lie behind addresses only."""

    format = SimpleNamespace(name="cuda", is_rgb=False, has_palette=False)

    def __init__(self, picture: av.VideoFrame) -> None:
        deep = picture.format.components[0].bits > 8
        self.surface = picture.reformat(format="p010le" if deep else "nv12")
        self.planes = self.surface.planes
        for name in ("pts", "duration", "time_base", "width", "height", "is_corrupt", "colorspace", "color_range"):
            setattr(self, name, getattr(picture, name))


class CudaContext:
    def __init__(self, decoder: Any) -> None:
        self._context = av.CodecContext.create(decoder._video.codec.canonical_name, "r")
        self._context.extradata = decoder._video.codec_context.extradata
        self._context.thread_count = 1
        deep = decoder._video.codec_context.pix_fmt.endswith("10le")
        self.sw_format = SimpleNamespace(name="p010le" if deep else "nv12")

    def decode(self, packet: Any) -> list[CudaPicture]:
        return [CudaPicture(picture) for picture in self._context.decode(packet)]


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "suffix"),
    [("libx264", "yuv420p", "mp4"), ("libx264", "yuv420p", "h264"), ("libx265", "yuv420p10le", "mkv")],
)
def test_ffmpegs_cuda_pictures_are_taken_as_they_lie(
    tmp_path: Path, gpu: Gpu, monkeypatch: pytest.MonkeyPatch, codec: str, pix_fmt: str, suffix: str
) -> None:
    monkeypatch.setattr(gpu.pyav_cuda.PyavCudaDecoder, "_cuda_context", lambda self: CudaContext(self))
    path = write(tmp_path / f"a.{suffix}", 20, codec=codec, pix_fmt=pix_fmt, size=(202, 134))
    sys.modules["PyNvVideoCodec"] = None  # type: ignore[assignment]
    opener = gpu.opener(slots=1)
    decoder = opener(source_of(path), str(path), 1, 1)
    assert decoder.info.decoder == f"pyav-cuda {'h264' if codec == 'libx264' else 'hevc'}"
    assert [backend for backend, _ in opener.steps["cam"]] == ["PyNvVideoCodec"]
    found = read_all(decoder)
    assert_same(found, cpu_frames(path))
    assert found[0].y.ctypes.data == found[0].owner.planes[0].buffer_ptr
    assert found[0].ready._recorded[0].ptr == 0  # the NULL stream, which FFmpeg fills it on
    assert gpu.host.allocations == 0


def test_ffmpegs_cuda_decoder_refuses_what_is_not_there(
    tmp_path: Path, gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise av.ExternalError(-542398533, "Cannot load libcuda.so.1")

    def opened(path: Path) -> Any:
        return gpu.pyav_cuda.PyavCudaDecoder(source_of(path), str(path), 1, DEVICE)

    path = write(tmp_path / "a.mp4", 3)
    with monkeypatch.context() as patched:
        patched.setattr(gpu.pyav_cuda, "HWAccel", lambda *_, **__: None)
        patched.setattr(gpu.pyav_cuda.av, "CodecContext", SimpleNamespace(create=fails))
        with pytest.raises(RefusedError, match=r"FFmpeg cannot use the CUDA device: Cannot load libcuda\.so\.1"):
            opened(path)
    with pytest.raises(RefusedError, match="it is interlaced"):
        opened(interlaced(tmp_path / "b.mkv"))
    monkeypatch.setattr(gpu.pyav_cuda, "HWAccel", lambda *_, **__: None)
    with pytest.raises(RefusedError, match="FFmpeg has no CUDA decoder for ffv1"):
        opened(write(tmp_path / "c.mkv", 3, codec="ffv1"))


# Parts


@pytest.mark.parametrize(("codec", "name"), [("libx264", "h264"), ("libx265", "hevc")])
def test_parameter_sets_of_the_container_are_those_in_band(tmp_path: Path, codec: str, name: str) -> None:
    with av.open(str(write(tmp_path / "a.mp4", 3, codec=codec))) as container:
        video = container.streams.video[0]
        headers = headers_of(name, video.codec_context.extradata)
        packet = next(container.demux(video))
        (filtered,) = av.BitStreamFilterContext(f"{name}_mp4toannexb", video).filter(packet)
    assert headers.startswith(b"\0\0\0\1")
    found = parameters_of(name, memoryview(headers))
    assert len(found) > 10
    assert found == parameters_of(name, memoryview(filtered))
    assert parameters_of(name, memoryview(b"\0\0\0\1\x26\x01" + bytes(20))) == b""


@pytest.mark.parametrize(("codec", "name", "suffix"), [("libvpx-vp9", "vp9", "webm"), ("libsvtav1", "av1", "mp4")])
def test_parameters_change_with_the_size_only(tmp_path: Path, codec: str, name: str, suffix: str) -> None:
    found = []
    for size in ((160, 96), (160, 98)):
        path = write(tmp_path / f"{size[1]}.{suffix}", 12, codec=codec, size=size, options={"g": "4"})
        with av.open(str(path)) as container:
            packets = [packet for packet in container.demux(video=0) if packet.is_keyframe]
        assert len(packets) > 1
        found.append({parameters_of(name, memoryview(packet)) for packet in packets})
    assert [len(parameters) for parameters in found] == [1, 1]
    assert found[0] != found[1]
    assert b"" not in found[0]


ticks = st.fractions(min_value=Fraction(1, 100_000), max_value=1, max_denominator=100_000)


@given(
    st.lists(st.tuples(st.one_of(st.none(), st.integers(-50_000, 50_000)), st.integers(0, 5_000)), max_size=40),
    ticks,
    ticks,
    st.one_of(st.none(), st.integers(-1000, 1000)),
)
def test_the_tick_clock_is_the_file_clock(
    pictures: list[tuple[int | None, int]], tick_s: Fraction, usual_s: Fraction, origin: int | None
) -> None:
    ours = TickClock(tick_s, usual_s, origin)
    theirs = FileClock(None if origin is None else origin * tick_s)
    for pts, duration in pictures:
        expected = theirs.stamp(None if pts is None else pts * tick_s, duration * tick_s or usual_s)
        assert ours.stamp(pts, duration) == expected


def test_a_ring_lends_each_surface_once(gpu: Gpu) -> None:
    ring = gpu.surfaces_cuda.SurfaceRing(3, DEVICE)
    with pytest.raises(ValueError, match="fit the ring"):
        ring.acquire(lambda: False)
    with pytest.raises(ValueError, match="at least one slot"):
        gpu.surfaces_cuda.SurfaceRing(0, DEVICE)
    ring.fit(16, 8, False)
    leases = [ring.acquire(lambda: False) for _ in range(3)]
    assert len({lease.surface.ptr for lease in leases}) == 3
    began = time.monotonic()
    assert ring.acquire(lambda: time.monotonic() > began + 0.02) is None
    freed = leases.pop().surface.ptr
    again = ring.acquire(lambda: False)
    assert again.surface.ptr == freed
