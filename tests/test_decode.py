"""PyavDecoder: right pixels, exact times, clear errors, no hangs."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import av
import numpy as np
import pytest
from pictures import BARS, bars_of, number_of, video_frame, write, yuv
from PIL import Image
from reading import decode, numbers, open_file, read_all

from tiler.config.models import Source
from tiler.decode import demuxed
from tiler.decode.container import open_container
from tiler.decode.cpu import PyavDecoder
from tiler.decode.picture import PlaneMaker
from tiler.errors import InputError, StageError
from tiler.types import CLOCK_HZ, Matrix

TEST_DATA = os.environ.get("TILER_TEST_DATA")


FORMATS = [
    ("libx264", "yuv420p", "mp4", (202, 134)),
    ("libx264", "yuvj420p", "mp4", (202, 134)),
    ("libx264", "yuv422p", "mkv", (202, 133)),
    ("libx264", "yuv444p", "mp4", (201, 133)),
    ("libx264", "gray", "mp4", (201, 133)),
    ("libx264", "yuv420p10le", "mp4", (202, 134)),
    ("libx264", "yuv422p10le", "mp4", (202, 134)),
    ("libx265", "yuv420p", "mp4", (202, 134)),
    ("libx265", "yuv420p12le", "mp4", (202, 134)),
    ("libx265", "gray10le", "mkv", (201, 133)),
    ("libvpx", "yuv420p", "webm", (201, 133)),
    ("libvpx-vp9", "yuv420p", "webm", (201, 133)),
    ("libvpx-vp9", "yuv444p", "webm", (201, 133)),
    ("mjpeg", "yuvj420p", "avi", (201, 133)),
    ("mjpeg", "yuvj422p", "avi", (201, 133)),
    ("mpeg4", "yuv420p", "avi", (201, 133)),
    ("prores", "yuv422p10le", "mov", (202, 134)),
    ("ffv1", "yuv420p", "mkv", (201, 133)),
    ("ffv1", "yuva420p", "mkv", (201, 133)),
    ("ffv1", "yuv410p", "mkv", (201, 133)),
    ("ffv1", "yuv440p", "mkv", (201, 133)),
    ("ffv1", "yuv444p12le", "mkv", (201, 133)),
    ("ffv1", "yuva444p10le", "mkv", (201, 133)),
    ("ffv1", "gray16le", "mkv", (201, 133)),
    ("rawvideo", "yuv420p", "nut", (201, 133)),
]


@pytest.mark.parametrize(("codec", "pix_fmt", "suffix", "size"), FORMATS)
def test_every_format_keeps_its_samples(
    tmp_path: Path, codec: str, pix_fmt: str, suffix: str, size: tuple[int, int]
) -> None:
    path = write(tmp_path / f"a.{suffix}", 4, codec=codec, pix_fmt=pix_fmt, size=size)
    frames = decode(path)
    assert numbers(frames) == [0, 1, 2, 3]
    assert [frame.pts for frame in frames] == [0, 3600, 7200, 10800]
    for frame in frames:
        assert frame.y.shape == size[::-1]
        deep = pix_fmt.endswith("le")
        assert frame.y.dtype == (np.uint16 if deep else np.uint8)
        assert frame.full_range == pix_fmt.startswith("yuvj")
        for found, bar in zip(bars_of(frame.y, frame.u, frame.v), BARS, strict=True):
            expected = (bar[0], 128, 128) if pix_fmt.startswith("gray") else bar
            assert found == pytest.approx(expected, abs=1)


@pytest.mark.parametrize("pix_fmt", ["bgr0", "bgr24", "gbrp10le", "bgra", "rgb24"])
def test_rgb_becomes_bt709_limited(tmp_path: Path, pix_fmt: str) -> None:
    colours = np.array([(200, 30, 60), (20, 180, 90), (250, 250, 250), (0, 0, 0)], np.uint8)
    rgb = np.repeat(np.repeat(colours[None], 64, axis=0), 32, axis=1)
    picture = av.VideoFrame.from_ndarray(rgb, "rgb24").reformat(format=pix_fmt)
    codec, suffix = {"rgb24": ("png", "mov"), "bgr24": ("libx264rgb", "mp4")}.get(pix_fmt, ("ffv1", "mkv"))
    path = write(tmp_path / f"a.{suffix}", [picture], codec=codec, pix_fmt=pix_fmt, size=(128, 64))
    (frame,) = decode(path)
    assert (frame.matrix, frame.full_range) == (Matrix.BT709, False)
    r, g, b = (colours.astype(float) / 255).T
    y = 0.2126 * r + 0.7152 * g + 0.0722 * b
    expected = np.stack([16 + 219 * y, 128 + 224 * (b - y) / 1.8556, 128 + 224 * (r - y) / 1.5748], 1)
    np.testing.assert_allclose(np.array(bars_of(frame.y, frame.u, frame.v)), expected, atol=1.5)


def test_palette_pictures_decode(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    shades = [Image.new("L", (40, 30), shade) for shade in (0, 128, 255)]
    shades[0].save(path, save_all=True, append_images=shades[1:], duration=100)
    frames = decode(path)
    assert [int(frame.y[15, 20]) for frame in frames] == [16, 126, 235]
    assert [frame.pts for frame in frames] == [0, 9000, 18000]


def test_planes_are_views_that_outlive_the_decoder(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", 8, size=(202, 134))
    frames = decode(path)
    first = frames[0]
    plane = first.owner.planes[0]
    assert first.y.ctypes.data == plane.buffer_ptr
    assert first.y.strides == (plane.line_size, 1)
    assert numbers(frames) == list(range(8))


def test_ten_bits_are_in_the_high_bits(tmp_path: Path) -> None:
    picture = av.VideoFrame(64, 64, "yuv420p10le")
    for plane, value in zip(picture.planes, (701, 402, 613), strict=True):
        plane.update(np.full(plane.buffer_size // 2, value, np.uint16).tobytes())
    path = write(tmp_path / "a.mkv", [picture], codec="ffv1", pix_fmt="yuv420p10le", size=(64, 64))
    (frame,) = decode(path)
    assert {int(plane[5, 7]) for plane in (frame.y, frame.u, frame.v)} == {701 << 6, 402 << 6, 613 << 6}


@pytest.mark.parametrize(
    ("height", "colorspace", "color_range", "matrix", "full"),
    [
        (576, 2, 0, Matrix.BT601, False),
        (720, 2, 0, Matrix.BT709, False),
        (576, 1, 1, Matrix.BT709, False),
        (720, 6, 2, Matrix.BT601, True),
        (720, 5, 1, Matrix.BT601, False),
        (576, 9, 2, Matrix.BT2020, True),
    ],
)
def test_colour_tags_and_the_guess_without(
    tmp_path: Path, height: int, colorspace: int, color_range: int, matrix: Matrix, full: bool
) -> None:
    tags = {"colorspace": colorspace, "color_range": color_range}
    path = write(tmp_path / "a.mp4", 1, size=(64, height), context=tags)
    (frame,) = decode(path)
    assert (frame.matrix, frame.full_range) == (matrix, full)


@pytest.mark.parametrize(("angle", "clockwise"), [(-90, 90), (90, 270), (180, 180), (0, 0)])
def test_rotation_and_upright_size(tmp_path: Path, angle: int, clockwise: int) -> None:
    path = write(tmp_path / "a.mp4", 2, size=(160, 96), rotation=angle)
    with open_file(path) as decoder:
        frame = decoder.read()
    assert frame is not None
    assert frame.rotation == clockwise
    assert frame.y.shape == (96, 160)
    assert decoder.info.size == frame.picture_size == ((96, 160) if clockwise % 180 else (160, 96))


@pytest.mark.parametrize("suffix", ["mp4", "mov", "ts"])
def test_ntsc_timestamps_are_exact(tmp_path: Path, suffix: str) -> None:
    rate = Fraction(30000, 1001)
    path = write(tmp_path / f"a.{suffix}", 40, rate=rate, options={"bf": "3"})
    with open_file(path) as decoder:
        assert decoder.info.fps == rate
        frames = read_all(decoder)
    assert [frame.pts for frame in frames] == [3003 * index for index in range(40)]
    assert numbers(frames) == list(range(40))


def test_variable_frame_rate_is_kept(tmp_path: Path) -> None:
    times = [Fraction(ms, 1000) for ms in (0, 40, 50, 300, 1000, 1001, 2500)]
    frames = decode(write(tmp_path / "a.mkv", 7, times=times))
    assert [frame.pts for frame in frames] == [int(time * CLOCK_HZ) for time in times]


def test_first_picture_is_time_zero(tmp_path: Path) -> None:
    times = [Fraction(5) + Fraction(index, 25) for index in range(4)]
    frames = decode(write(tmp_path / "a.ts", 4, times=times))
    assert [frame.pts for frame in frames] == [0, 3600, 7200, 10800]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi", "h264"])
@pytest.mark.parametrize("start", [0, 1, 17, 30, 49])
def test_start_is_exact(tmp_path: Path, suffix: str, start: int) -> None:
    options = {"g": "12", "crf": "2", "preset": "veryfast"}
    codec = "mpeg4" if suffix == "avi" else "libx264"
    path = write(tmp_path / f"a.{suffix}", 50, codec=codec, options=options if codec == "libx264" else {})
    frames = decode(path, start_s=start / 25)
    assert numbers(frames) == list(range(start, 50))
    assert [frame.pts for frame in frames] == [3600 * index for index in range(50 - start)]


@pytest.mark.parametrize("start", [0, 24])
def test_b_frames_in_avi_are_evenly_apart(tmp_path: Path, start: int) -> None:
    """AVI has no timestamps, and FFmpeg makes up some in the order of decoding."""
    path = write(tmp_path / "a.avi", 50, options={"bf": "2", "g": "12", "crf": "4"})
    frames = decode(path, start_s=start / 25)
    assert [frame.pts for frame in frames] == [3600 * index for index in range(len(frames))]
    assert numbers(frames) == list(range(50 - len(frames), 50))
    assert abs(len(frames) - (50 - start)) <= 1  # which one is at `start` is a guess, too


def test_start_in_the_middle_of_a_picture_takes_the_next(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", 10)
    assert numbers(decode(path, start_s=0.15))[0] == 4


def test_end_is_exclusive_and_shortens_the_duration(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", 50)
    with open_file(path, start_s=0.4, end_s=1.2) as decoder:
        assert decoder.info.duration_s == pytest.approx(0.8)
        assert numbers(read_all(decoder)) == list(range(10, 30))
        assert decoder.read() is None


def test_start_after_the_end_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", 5)
    with open_file(path, start_s=60) as decoder, pytest.raises(StageError, match="no picture from 60 s on"):
        decoder.read()


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "flv", "h264"])
@pytest.mark.parametrize("start_s", [0.0, 0.4])
def test_a_file_begins_again_where_it_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, start_s: float
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(demuxed, "open_container", lambda s, uri: opened.append(uri) or open_container(s, uri))
    path = write(tmp_path / f"a.{suffix}", 30, options={"g": "10", "bf": "2", "crf": "4", "preset": "veryfast"})
    with open_file(path, start_s=start_s) as decoder:
        first = read_all(decoder)
        before = len(opened)
        for _ in range(2):
            decoder.restart()
            again = read_all(decoder)
            assert [frame.pts for frame in again] == [frame.pts for frame in first]
            assert numbers(again) == numbers(first)
    if suffix != "h264" and not start_s:  # a raw stream has no times to go back to
        assert len(opened) == before


def test_a_file_that_changes_its_parameters_begins_again_with_the_first(tmp_path: Path) -> None:
    """FLV says them anew where they change, and only there."""

    def tag(at_ms: int, body: bytes) -> bytes:
        size = len(body).to_bytes(3, "big")
        head = b"\x09" + size + (at_ms & 0xFFFFFF).to_bytes(3, "big") + bytes([at_ms >> 24]) + bytes(3)
        return head + body + (len(body) + 11).to_bytes(4, "big")

    data, at_ms = b"FLV\x01\x01\0\0\0\x09\0\0\0\0", 0
    for k, size in enumerate(((128, 96), (192, 128))):
        part = write(tmp_path / f"{k}.mp4", 10, size=size, options={"g": "5", "bf": "0", "preset": "veryfast"})
        with av.open(str(part)) as container:
            video = container.streams.video[0]
            data += tag(at_ms, b"\x17\0\0\0\0" + (video.codec_context.extradata or b""))
            for packet in container.demux(video):
                if packet.size:
                    data += tag(at_ms, (b"\x17" if packet.is_keyframe else b"\x27") + b"\x01\0\0\0" + bytes(packet))
                    at_ms += 40
    path = tmp_path / "a.flv"
    path.write_bytes(data)
    with open_file(path) as decoder:
        first = [frame.y.shape for frame in read_all(decoder)]
        decoder.restart()
        assert [frame.y.shape for frame in read_all(decoder)] == first == [(96, 128)] * 10 + [(128, 192)] * 10
        assert decoder.errors == 0


def test_what_a_server_has_by_then_is_the_next_round(tmp_path: Path) -> None:
    served = [write(tmp_path / "a.mp4", 8).read_bytes(), write(tmp_path / "b.mp4", 5).read_bytes()]

    class Files(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(served[0])))
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(served[0])

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        uri = f"http://127.0.0.1:{server.server_port}/a.mp4"
        with PyavDecoder(Source(id="cam", uri=uri), uri, 0, 1) as decoder:
            assert numbers(read_all(decoder)) == list(range(8))
            served.pop(0)
            decoder.restart()
            assert numbers(read_all(decoder)) == list(range(5))
        server.shutdown()


def test_raw_stream_is_timed_by_its_own_rate(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h264", 20, rate=50, options={"bf": "2", "preset": "veryfast", "crf": "4"})
    with open_file(path) as decoder:
        assert decoder.info.fps == 50
        frames = read_all(decoder)
    assert [frame.pts for frame in frames] == [1800 * index for index in range(20)]
    assert numbers(frames) == list(range(20))


def test_resolution_may_change(tmp_path: Path) -> None:
    parts = [write(tmp_path / f"{size[0]}.h264", 5, size=size) for size in ((160, 96), (202, 134))]
    joined = tmp_path / "joined.h264"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    frames = decode(joined)
    assert [frame.y.shape for frame in frames] == [(96, 160)] * 5 + [(134, 202)] * 5
    assert numbers(frames) == [0, 1, 2, 3, 4] * 2


@pytest.mark.parametrize("suffix", ["mkv", "h264"])
def test_interlaced_pictures_are_deinterlaced(tmp_path: Path, suffix: str) -> None:
    def combed(number: int) -> av.VideoFrame:
        """A bright bar that moves 8 pixels a field over dark ground."""
        picture = video_frame(0, 160, 96)
        y = np.full((96, picture.planes[0].line_size), 40, np.uint8)
        for field in (0, 1):
            left = 8 * (2 * number + field)
            y[field::2, left : left + 16] = 200
        picture.planes[0].update(y.tobytes())
        for plane in picture.planes[1:]:
            plane.update(bytes([128]) * plane.buffer_size)
        return picture

    options = {"crf": "2", "x264-params": "tff=1"}
    path = write(tmp_path / f"a.{suffix}", [combed(k) for k in range(8)], options=options)
    frames = decode(path)
    assert [frame.pts for frame in frames] == [3600 * index for index in range(8)]

    def combing(y: np.ndarray) -> float:
        lines = y.astype(float)[8:-8]
        return float(np.abs(2 * lines[1:-1] - lines[:-2] - lines[2:]).mean())

    with av.open(str(path)) as container:
        stored = [picture.to_ndarray()[:96] for picture in container.decode(video=0)]
    for frame, plain in zip(frames[1:-1], stored[1:-1], strict=True):
        assert combing(frame.y) < combing(plain) / 4


@pytest.mark.skipif(TEST_DATA is None, reason="TILER_TEST_DATA is not set")
@pytest.mark.parametrize("folder", ["odd", "video"])
def test_real_files_decode_or_say_why(folder: str) -> None:
    assert TEST_DATA is not None
    paths = sorted(Path(TEST_DATA, folder).iterdir())
    assert paths

    def outcome(path: Path) -> str:
        try:
            with open_file(path) as decoder:
                count, last = 0, -1
                while count < 120 and (frame := decoder.read()) is not None:
                    assert frame.pts > last
                    assert frame.y.size >= 64 * 64
                    count, last = count + 1, frame.pts
                assert count
                return "decoded"
        except (InputError, StageError) as error:
            return str(error)

    with ThreadPoolExecutor(2) as pool:
        outcomes = dict(
            zip(
                [path.name for path in paths],
                [job.result(timeout=30) for job in [pool.submit(outcome, path) for path in paths]],
                strict=True,
            )
        )
    assert all("\n" not in what for what in outcomes.values())
    refused = {name for name, what in outcomes.items() if what != "decoded"}
    known = {
        "libwebm_fixed_lacing_bad_lace_size.mkv",
        "libwebm_invalid_vp9_bitstream-bug_1416.webm",
        "mp4parse_chunk_out_of_range.mp4",
    }
    assert refused <= known, {name: outcomes[name] for name in refused}


def test_pictures_spell_their_number() -> None:
    assert [number_of(yuv(number, 160, 96)[0]) for number in (0, 5, 255)] == [0, 5, 255]


def test_ten_bits_of_an_odd_width_keep_their_last_chroma_column() -> None:
    rng = np.random.default_rng(4)
    picture = av.VideoFrame(35, 21, "yuv420p10le")
    planes = []
    for plane in picture.planes:
        samples = rng.integers(0, 1024, (plane.height, plane.line_size // 2)).astype(np.uint16)
        plane.update(samples)
        planes.append(samples[:, : plane.width])
    for made, low in zip(PlaneMaker().planes(picture), planes, strict=False):
        assert np.array_equal(made, low << 6)
