"""What is damaged, wrong or hangs: skipped, or said in one line, and closed in time."""

from __future__ import annotations

import socket
import threading
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from pictures import video_frame, write
from reading import decode, numbers, open_file, read_all
from test_source import silent_server

from tiler.errors import InputError, StageError


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


@pytest.mark.parametrize("scheme", ["tcp", "http", "rtmp", "rtsp", "udp"])
def test_a_server_that_says_nothing_is_told_as_such(scheme: str) -> None:
    with silent_server() as (port, _), pytest.raises(InputError) as caught:
        open_file(f"{scheme}://127.0.0.1:{port}/live/key", timeout_s=0.3)
    assert str(caught.value).endswith(": no answer within 0.3 s (timeout_s)")


def test_an_rtsp_server_that_answers_with_nonsense_is_not_called_silent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n")
                connection.recv(4096)

        threading.Thread(target=serve, daemon=True).start()
        with pytest.raises(InputError, match="cannot open") as caught:
            open_file(f"rtsp://127.0.0.1:{server.getsockname()[1]}/x", timeout_s=60)
    assert "no answer" not in str(caught.value)


def test_a_server_that_falls_silent_is_told_as_such(tmp_path: Path) -> None:
    data = write(tmp_path / "a.ts", 60, options={"g": "10", "tune": "zerolatency"}).read_bytes()
    with socket.create_server(("127.0.0.1", 0)) as server:
        hold = threading.Event()

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(data)
                hold.wait(10)

        threading.Thread(target=serve, daemon=True).start()
        options = {"probesize": 20000, "analyzeduration": 100000}
        uri = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        with open_file(uri, timeout_s=0.3, options=options) as decoder:
            message = r"decode \(cam\): cannot read on: no answer within 0\.3 s \(timeout_s\)"
            with pytest.raises(StageError, match=message):
                read_all(decoder)
        hold.set()


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
