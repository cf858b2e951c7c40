"""NVDEC through PyNvVideoCodec, against strict fakes of it and CuPy: the CPU decoder's pictures and times."""

from __future__ import annotations

import threading
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from decode_parts import B_FRAMES, DEVICE, Gpu, assert_same, cpu_frames, numbers, of_sizes, read_all, source_of
from fakes.pynvvideocodec import Flag, Latency
from pictures import video_frame, write

from tiler.decode.cpu import PyavDecoder
from tiler.decode.source import SourceReader
from tiler.errors import StageError
from tiler.types import Frame, Matrix

pytest_plugins = ("fakes.decode_fixtures",)


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


def test_a_loop_keeps_its_surfaces_and_its_hardware_session(
    tmp_path: Path, gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_cpu: list[object] = []
    module, alone = gpu.nvdec_cuda, gpu.nvdec_cuda.decoded_alone
    monkeypatch.setattr(module, "decoded_alone", lambda c, packet: on_cpu.append(packet) or alone(c, packet))
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
    assert len(gpu.nvdec.created) == 1
    assert len(on_cpu) == 1  # the first keyframe's looks are known from then on
    gpu.host.check()


def test_a_damaged_first_keyframe_is_passed_over_in_every_round(tmp_path: Path, gpu: Gpu) -> None:
    path = write(tmp_path / "a.mkv", 30, options={"g": "10", "bf": "0", "preset": "veryfast"})
    with av.open(str(path)) as container:
        keyframe = bytes(next(container.demux(video=0)))
    data, at = bytearray(path.read_bytes()), 0
    begin = data.find(keyframe)
    while at < len(keyframe):   # its parameter sets stay as they are
        size = int.from_bytes(keyframe[at : at + 4], "big")
        if keyframe[at + 4] & 31 == 5:
            data[begin + at + 5 : begin + at + 4 + size] = bytes(size - 1)
        at += 4 + size
    path.write_bytes(data)
    with gpu.open(path, slots=40) as decoder:
        for _ in range(3):
            assert numbers(list(iter(decoder.read, None))) == list(range(10, 30))
            assert decoder.errors == 1
            decoder.restart()


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
