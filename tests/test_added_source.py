"""Which sources may be added to a run, and that none of them reaches a file of this machine."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from colours import clip_server
from hypothesis import given
from hypothesis import strategies as st
from pictures import write
from PIL import Image

from tiler.config.added import SCHEMES, added_source
from tiler.config.models import is_live
from tiler.decode.source import open_decoder
from tiler.errors import InputError


@pytest.mark.parametrize(
    "uri",
    [
        "rtsp://user:secret@10.0.0.7:554/main?channel=1", "rtsps://host/x", "rtmp://host/app/key", "rtmps://host/app/key",
        "http://host/live", "https://host:8443/a/b.m3u8?token=x", "udp://239.0.0.1:5000", "udp://@239.0.0.1:5000",
        "tcp://host:5000", "rtp://host:5000", "rtsp://[fe80::1]:554/main",
    ],
)  # fmt: skip
def test_what_comes_over_a_network_is_accepted_as_it_is(uri: str) -> None:
    source = added_source("gate", uri, "Gate")
    assert (source.id, source.uri, source.title) == ("gate", uri, "Gate")
    assert not source.loop
    assert is_live(source)
    assert "file" not in source.options["protocol_whitelist"].split(",")  # type: ignore[union-attr]


def test_clips_of_a_server_and_samples_play_round_and_round_in_their_own_time() -> None:
    for uri in ("http://host/clip.mp4", "https://host/clip.mkv?x=1", "sample://duo"):
        source = added_source("gate", uri, None)
        assert source.loop
        assert is_live(source)
    assert "protocol_whitelist" in added_source("gate", "http://host/clip.mp4", None).options
    picture = added_source("gate", "http://host/now.jpg?x=1", None)
    assert (picture.realtime, picture.loop) == (True, False)  # or it would be fetched 25 times a second
    assert added_source("gate", "RTSP://host/main", None).uri == "rtsp://host/main"


@pytest.mark.parametrize(
    "uri",
    [
        "/etc/passwd", "etc/passwd", "../clip.mp4", "clip.mp4", "file:/etc/passwd", "file:///etc/passwd", "FILE:///x",
        "concat:a.ts|b.ts", "concatf:list.txt", "subfile,,start,0,end,9,,:/etc/passwd", "data:text/plain,x",
        "data://text/plain,x", "cache:http://host/x", "crypto:file:/x", "crypto+http://host/x", "async:http://host/x",
        "tee:x", "pipe:0", "pipe://0", "fd:0", "unix:/run/x.sock", "unix:///run/x.sock", "/dev/video0", "v4l2:///dev/video0",
        "lavfi:testsrc", "smb://host/x", "ftp://host/x", "gopher://host/x", "srt://host:1", "tls://host:1",
        "httpproxy://host:1", "rtmpt://host/x", "C:\\clip.mp4", "\\\\host\\share\\clip.mp4", "", "://", "rtsp", "rtsp:",
        "rtsp:/host/x", "rtsp://", "http:///etc/passwd", "http://host:0/x", "http://host:99999/x", "http://host:x/",
        "http://[::1/x", "http://host/a b", "http://host/a\nb", "http://host/\0", "http://host\\@other/x", " http://host/x",
        "udp://host:1?localaddr=0.0.0.0", "tcp://0.0.0.0:1?listen=1", "rtp://host:1?localrtpport=9", "tcp://host:1#x",
        "sample://", "sample://nobody", "sample://duo?seconds=600&size=4096x4096", "sample://duo/../x", "sample:duo",
        "sample:///etc/passwd",
    ],
)  # fmt: skip
def test_everything_else_is_refused_in_words_without_the_uri(uri: str) -> None:
    with pytest.raises(InputError) as refused:
        added_source("gate", uri, None)
    message = str(refused.value)
    assert message.startswith("uri: ")
    assert "accepted:" in message or "expected" in message
    assert len(uri) < 12 or uri not in message


@given(st.text(max_size=40), st.sampled_from(["", *(f"{scheme}://" for scheme in (*SCHEMES, "sample", "file"))]))
def test_whatever_is_asked_for_is_a_network_or_a_sample_or_refused(text: str, start: str) -> None:
    try:
        source = added_source("gate", start + text, None)
    except InputError:
        return
    scheme = source.uri.partition("://")[0]
    assert scheme in (*SCHEMES, "sample")
    assert scheme == "sample" or "protocol_whitelist" in source.options


def test_a_picture_of_a_server_is_no_file_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever lies in a folder that is called as the server is."""
    monkeypatch.chdir(tmp_path)
    with clip_server(tmp_path / "clips") as server:
        Image.new("RGB", (40, 30)).save(tmp_path / "clips" / "now.png")
        uri = f"http://{server}/now.png"
        (tmp_path / "http:" / server).mkdir(parents=True)
        Image.new("RGB", (20, 10)).save(tmp_path / "http:" / server / "now.png")
        with open_decoder(added_source("gate", uri, None), uri, 0, 1) as decoder:
            frame = decoder.read()
    assert frame is not None
    assert frame.picture_size == (40, 30)


@contextlib.contextmanager
def said_over_tcp(text: str) -> Iterator[str]:
    """The URI of a server that says this to whoever connects, as if it were a playlist."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection:
                        connection.sendall(text.encode())

        threading.Thread(target=serve, daemon=True).start()
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}/x.m3u8"


def test_a_playlist_from_outside_cannot_name_a_file(tmp_path: Path) -> None:
    """FFmpeg by itself plays it: what is refused is refused here."""
    clip = write(tmp_path / "secret.ts", 12)
    with said_over_tcp(f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nfile://{clip}\n#EXT-X-ENDLIST\n") as uri:
        source = added_source("gate", uri, None)
        with open_decoder(source.model_copy(update={"options": {}}), uri, 0, 1) as decoder:
            assert decoder.read() is not None
        with pytest.raises(InputError, match="cannot open"):
            open_decoder(source, uri, 0, 1)
