"""Secrets of URIs stay out of every message."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiler.errors import mask_uri

SECRET = "Geheim-42"
HIDDEN = [
    f"rtsp://admin:{SECRET}@10.0.0.7/main",
    f"rtsp://admin:pa/{SECRET}@10.0.0.7/main",
    f"rtsp://admin:p@{SECRET}@10.0.0.7/main",
    f"http://h/x?token={SECRET}&a=1",
    f"http://h/x?a=1&apikey={SECRET}",
    f"srt://h:1?passphrase={SECRET}",
    f"http://h/x?passwd={SECRET}",
    f"rtsp://h:554/user=admin_password={SECRET}_channel=1_stream=0.sdp",
    f"rtsp://h:554/user=admin&password={SECRET}&channel=1",
    f"rtmp://a.example.com/live2/{SECRET}",
]


@pytest.mark.parametrize("uri", HIDDEN)
def test_no_secret_is_shown(uri: str) -> None:
    text = mask_uri(f"source cam: cannot open {uri} now")
    assert SECRET not in text
    assert text.startswith("source cam: cannot open ")
    assert text.endswith(" now")


@pytest.mark.parametrize(
    "text",
    [
        "http://host:8080/clip.mp4?mail=a@b.de",
        "http://host:8080/a@b/clip.mp4",
        "rtsp://10.0.0.8/user=admin_channel=1_stream=0.sdp",
        "C:/plain/file.mp4",
        "/data/day=1/clip_2.mp4",
        "output: x.mp4 exists (--overwrite replaces it)",
    ],
)
def test_what_is_no_secret_is_shown_as_it_is(text: str) -> None:
    assert mask_uri(text) == text


@given(st.sampled_from(HIDDEN))
def test_a_masked_text_stays_as_it_is(uri: str) -> None:
    assert mask_uri(mask_uri(uri)) == mask_uri(uri)
