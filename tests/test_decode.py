"""PyavDecoder and StillDecoder: right pixels, exact times, clear errors, no hangs."""

from __future__ import annotations

import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import BARS, bars_of, number_of, video_frame, write, yuv
from PIL import Image

from tiler.config.models import Source
from tiler.decode.clock import FileClock, LiveClock
from tiler.decode.cpu import PyavDecoder
from tiler.decode.picture import PlaneMaker
from tiler.decode.source import open_decoder
from tiler.decode.still import StillDecoder
from tiler.errors import InputError, StageError
from tiler.types import CLOCK_HZ, Frame, Matrix

TEST_DATA = os.environ.get("TILER_TEST_DATA")


def open_file(path: Path | str, **keys: object) -> PyavDecoder:
    source = Source.model_validate({"id": "cam", "uri": str(path), **keys})
    return PyavDecoder(source, str(path), 0, 2)


def decode(path: Path, **keys: object) -> list[Frame]:
    with open_file(path, **keys) as decoder:
        return read_all(decoder)


def read_all(decoder: PyavDecoder) -> list[Frame]:
    frames = []
    while (frame := decoder.read()) is not None:
        frames.append(frame)
    return frames


def numbers(frames: list[Frame]) -> list[int]:
    return [number_of(frame.y) for frame in frames]


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


def test_sample_aspect(tmp_path: Path) -> None:
    (frame,) = decode(write(tmp_path / "a.mkv", 1, sample_aspect=Fraction(16, 11)))
    assert frame.sample_aspect == Fraction(16, 11)


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


def test_damaged_data_is_skipped_and_counted(tmp_path: Path) -> None:
    data = bytearray(write(tmp_path / "a.ts", 100, options={"g": "10", "preset": "veryfast"}).read_bytes())
    rng = np.random.default_rng(3)
    for place in rng.integers(len(data) // 4, len(data), 60):
        data[place] ^= 0xFF
    path = tmp_path / "broken.ts"
    path.write_bytes(data)
    with open_file(path) as decoder:
        frames = read_all(decoder)
        assert decoder.errors > 0
    assert len(frames) > 30
    assert all(b.pts > a.pts for a, b in pairwise(frames))


def test_a_file_cut_off_gives_what_is_there(tmp_path: Path) -> None:
    data = write(tmp_path / "a.mkv", 30, codec="mpeg4").read_bytes()
    path = tmp_path / "b.mkv"
    path.write_bytes(data[: len(data) // 3])
    frames = decode(path)
    assert 0 < len(frames) < 30
    assert numbers(frames) == list(range(len(frames)))


def test_no_picture_at_all_is_a_stage_error(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as out:
        stream = out.add_mux_stream("vp8", rate=25, width=160, height=96)
        stream.time_base = Fraction(1, 1000)
        for index in range(300):
            packet = av.Packet(b"no picture")
            packet.stream, packet.time_base = stream, Fraction(1, 1000)
            packet.pts = packet.dts = 40 * index
            packet.is_keyframe = True
            out.mux(packet)
    with open_file(path) as decoder:
        assert decoder.info.size == (160, 96)
        with pytest.raises(StageError, match=r"decode \(cam\): 250 packets in a row could not be decoded"):
            decoder.read()


def test_unknown_codec_is_an_input_error(tmp_path: Path) -> None:
    data = write(tmp_path / "a.mkv", 3).read_bytes()
    path = tmp_path / "b.mkv"
    path.write_bytes(data.replace(b"V_MPEG4/ISO/AVC", b"V_MPEG4/ISO/XYZ"))
    with pytest.raises(InputError, match=r"cam.*no (decoder|video)"):
        open_file(path)


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("a.mp4", b"this is no video " * 100, "Invalid data"),
        ("empty.mkv", b"", "Invalid data|End of file"),
    ],
)
def test_wrong_files_are_input_errors(tmp_path: Path, name: str, content: bytes, match: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=match) as caught:
        open_file(path)
    assert "cam" in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file or directory"):
        open_file(tmp_path / "nowhere.mp4")


def test_tags_may_be_in_any_encoding(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as out:
        out.metadata["title"] = "Lichtschranke"
        stream = out.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        out.mux(stream.encode(video_frame(0, 160, 96)))
        out.mux(stream.encode(None))
    path.write_bytes(path.read_bytes().replace(b"Lichtschranke", b"Lichtschran\xe9e"))
    assert len(decode(path)) == 1


def test_sound_alone_is_an_input_error(tmp_path: Path) -> None:
    path = tmp_path / "a.mka"
    with av.open(str(path), "w", format="matroska") as out:
        stream = out.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        out.mux(stream.encode(sound))
        out.mux(stream.encode(None))
    with pytest.raises(InputError, match="no video"):
        open_file(path)


def test_a_password_never_shows() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(InputError, match="refused") as caught:
            open_file(f"http://admin:hunter2@127.0.0.1:{port}/a?token=abc")
    assert "hunter2" not in str(caught.value)
    assert "abc" not in str(caught.value)


def test_close_twice_and_read_after_it(tmp_path: Path) -> None:
    decoder = open_file(write(tmp_path / "a.mp4", 5))
    decoder.close()
    decoder.close()
    assert decoder.read() is None


def test_close_does_not_wait_for_a_read(tmp_path: Path) -> None:
    """A server sends half a stream and then says nothing: close returns, the reader ends by timeout."""
    data = write(tmp_path / "a.ts", 60, options={"g": "10", "tune": "zerolatency"}).read_bytes()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5)
        hold = threading.Event()

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(data)
                hold.wait(10)

        threading.Thread(target=serve, daemon=True).start()
        options = {"probesize": 20000, "analyzeduration": 100000}
        decoder = open_file(f"tcp://127.0.0.1:{server.getsockname()[1]}", timeout_s=1.0, options=options)
        done = threading.Event()

        def read() -> None:
            try:
                read_all(decoder)
            except StageError:
                done.set()
            else:
                done.set()

        threading.Thread(target=read, daemon=True).start()
        closing = threading.Thread(target=decoder.close)
        closing.start()
        closing.join(0.5)
        assert not closing.is_alive()
        assert done.wait(5)
        hold.set()


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


@given(
    st.lists(
        st.tuples(
            st.one_of(st.none(), st.fractions(min_value=-50, max_value=50, max_denominator=1000)),
            st.fractions(min_value=Fraction(1, 240), max_value=2, max_denominator=1000),
        ),
        max_size=40,
    )
)
def test_file_clock_never_goes_back(pictures: list[tuple[Fraction | None, Fraction]]) -> None:
    clock = FileClock()
    stamps = [clock.stamp(time_s, duration_s) for time_s, duration_s in pictures]
    kept = [stamp for stamp in stamps if stamp is not None]
    assert kept[:1] in ([], [0])
    assert all(b > a for a, b in pairwise(kept))


def test_file_clock_repairs() -> None:
    def stamps(*frames: float) -> list[int | None]:
        clock = FileClock()
        return [clock.stamp(Fraction(frame) / 10, Fraction(1, 10)) for frame in frames]

    assert stamps(0, 1, 2, 3) == [0, 9000, 18000, 27000]
    assert stamps(0, 1, 1, 2) == [0, 9000, None, 18000]
    assert stamps(0, 2, 1, 3) == [0, 18000, 18001, 27000]
    assert stamps(50, 51, 0, 1) == [0, 9000, 18000, 27000]


def test_live_clock_smooths_jitter_and_follows_jumps() -> None:
    clock = LiveClock()
    assert [clock.stamp(3000 * k, 7 + k / 30 + (k % 3) * 0.02) for k in range(6)] == [
        3000 * k for k in range(6)
    ]
    again = clock.stamp(0, 7 + 10.0)
    assert again == 10 * CLOCK_HZ
    assert clock.stamp(3000, 7 + 10.1) == again + 3000


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
