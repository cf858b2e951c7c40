"""Every key of `encoder`, with every value it can have, as NVENC sees it: through both libraries, for every codec.

The real client libraries talk to an emulated driver, which logs the structures that it is given.
"""

from __future__ import annotations

import importlib.util
from typing import Any, get_args

import pytest
from fakes.nvenc_pictures import HEIGHT, WIDTH, Play

from tiler.config.models import EncoderConfig
from tools.nvenc_emulator import calls

pytest_plugins = ("fakes.nvenc_fixtures",)

needs_pynvvideocodec = pytest.mark.skipif(
    importlib.util.find_spec("PyNvVideoCodec") is None, reason="PyNvVideoCodec is not installed"
)
CODECS = ("h264", "hevc", "av1")
LOW = {"profile": "low_latency"}
FULL = {"bitrate": "20M"}
Row = tuple[dict[str, Any], dict[str, Any]]
"""Keys of the YAML, and what NVENC is told for them."""

KEYS: dict[str, list[Row]] = {
    # codec: see `codec`
    "profile": [
        ({"profile": "quality"}, {"preset": "P4", "tuning": "HIGH_QUALITY", "lookahead": 0}),
        (LOW, {"preset": "P1", "tuning": "ULTRA_LOW_LATENCY", "b_frames": 0, "lookahead": 0}),
    ],
    "bitrate": [
        ({}, {"average": 0, "maximum": 0, "quality": 22}),
        ({"bitrate": "20M"}, {"average": 20_000_000, "maximum": 30_000_000, "buffer": 40_000_000, "quality": 0}),
        ({"bitrate": 750_000}, {"average": 750_000, "maximum": 1_125_000, "buffer": 1_500_000}),
        ({**LOW, **FULL}, {"average": 20_000_000, "maximum": 20_000_000, "buffer": 666_666, "quality": 0}),
    ],
    "quality": [({"quality": value}, {"quality": value, "average": 0, "maximum": 0}) for value in (1, 22, 51)]
    + [({**LOW, "quality": 30}, {"quality": 30, "average": 0, "rate_control": "VBR"})],
    "rate_control": [
        ({"rate_control": "vbr", **FULL}, {"rate_control": "VBR", "maximum": 30_000_000}),
        ({"rate_control": "cbr", **FULL}, {"rate_control": "CBR", "maximum": 20_000_000, "buffer": 40_000_000}),
        ({"rate_control": "cq", "quality": 30}, {"rate_control": "VBR", "quality": 30, "average": 0, "maximum": 0}),
        ({"rate_control": None, **FULL}, {"rate_control": "VBR"}),
        ({"rate_control": None, **LOW, **FULL}, {"rate_control": "CBR"}),
        ({"rate_control": "vbr", **LOW, **FULL}, {"rate_control": "VBR", "maximum": 30_000_000, "buffer": 666_666}),
        ({"rate_control": "cbr", **LOW, **FULL}, {"rate_control": "CBR", "average": 20_000_000}),
    ],
    "gop_s": [
        ({"gop_s": seconds}, {"gop": pictures, "idr_period": pictures})
        for seconds, pictures in ((0.1, 3), (0.5, 15), (2.0, 60), (60, 1800))
    ],
    "preset": [({"preset": f"p{n}"}, {"preset": f"P{n}"}) for n in range(1, 8)]
    + [({"preset": "p5", **LOW}, {"preset": "P5"})],
    "tuning": [
        ({"tuning": "hq"}, {"tuning": "HIGH_QUALITY"}),
        ({"tuning": "hq", **LOW}, {"tuning": "HIGH_QUALITY", "b_frames": 0, "lookahead": 0}),
        ({"tuning": "ll", **LOW}, {"tuning": "LOW_LATENCY", "b_frames": 0}),
        ({"tuning": "ull", **LOW}, {"tuning": "ULTRA_LOW_LATENCY", "b_frames": 0}),
    ],
    "split": [({"split": "auto"}, {"split": 0}), ({"split": "none"}, {"split": 15})]
    + [({"split": strips}, {"split": strips}) for strips in (2, 3, 4)],
}
ROWS = [(key, *row) for key, rows in KEYS.items() for row in rows]
CLIENTS = [
    pytest.param((library, codec), id=f"{library}-{codec}", marks=() if library == "pyav" else needs_pynvvideocodec)
    for library in ("pyav", "pynvvideocodec") for codec in CODECS
]  # fmt: skip


def test_no_key_and_no_value_is_left_out() -> None:
    given: dict[str, set[Any]] = {key: {row[0].get(key) for row in rows} for key, rows in KEYS.items()}
    given |= {"codec": set(CODECS), "driver": set(DRIVERS)}
    assert set(given) == set(EncoderConfig.model_fields)
    for key, field in EncoderConfig.model_fields.items():
        choices = {value for part in (field.annotation, *get_args(field.annotation)) for value in get_args(part)}
        assert {choice for choice in choices if isinstance(choice, (str, int))} <= given[key], key


@pytest.fixture(scope="module", params=CLIENTS)
def client(request: pytest.FixtureRequest, play: Play) -> tuple[str, str, dict[str, dict[str, Any]]]:
    """A library, a codec, and what became of each row."""
    library, codec = request.param
    results = play(*({"config": {**values, "codec": codec}, "library": library} for _, values, _ in ROWS))
    return library, codec, {str(values): result for (_, values, _), result in zip(ROWS, results, strict=True)}


@pytest.mark.parametrize(("key", "values", "expected"), ROWS, ids=[f"{key}: {values}" for key, values, _ in ROWS])
def test_a_key_reaches_nvenc_or_is_refused_by_name(
    key: str, values: dict[str, Any], expected: dict[str, Any], client: tuple[str, str, dict[str, dict[str, Any]]]
) -> None:
    library, codec, results = client
    result = results[str(values)]
    if key == "split" and _cannot_split(library, codec, values["split"]):
        assert result["error"] == "InputError"
        assert result["text"].startswith("encoder.split: ")
        assert calls.of(result["log"], "InitializeEncoder") == []
        return
    said = calls.told(result["log"])
    if key == "split" and codec == "h264":
        expected = {"split": 0}  # NVENC has no way to split it
    assert {name: said[name] for name in expected} == expected


def _cannot_split(library: str, codec: str, split: str | int) -> bool:
    if codec == "h264":
        return split not in ("auto", "none")
    return library == "pynvvideocodec" and split != "auto"


def test_what_no_key_says_is_the_same_for_every_row(client: tuple[str, str, dict[str, dict[str, Any]]]) -> None:
    library, codec, results = client
    for values, result in results.items():
        if "error" in result:
            continue
        said = calls.told(result["log"])
        low = "'low_latency'" in values
        fixed = {
            "codec": codec, "size": [WIDTH, HEIGHT], "fps": [30, 1], "lookahead": 0, "repeats": 1,
            "b_frames": 2 if library == "pyav" and codec != "av1" and not low else 0,
            "zero_delay": int(library == "pyav" and low),
        }  # fmt: skip
        if library == "pyav":  # PyNvVideoCodec cannot say it; a filter writes it into the stream
            fixed |= {"colour": ["BT709", "BT709", "BT709", 0], "signalled": 1}
            if codec == "h264":
                fixed["profile"] = "NV_ENC_H264_PROFILE_HIGH_GUID"
        assert {name: said[name] for name in fixed} == fixed, values
        assert result["sessions"] == 1
        assert calls.faults(result["log"]) == []


DRIVERS = {
    "auto": "h264_nvenc (PyAV)",
    "pyav": "h264_nvenc (PyAV)",
    "pynvvideocodec": "h264_nvenc (PyNvVideoCodec)",
    "x264": "libx264",
}


@pytest.mark.parametrize(
    "driver", [pytest.param(name, marks=needs_pynvvideocodec if name == "pynvvideocodec" else ()) for name in DRIVERS]
)
def test_the_driver_asked_for_is_the_one_that_encodes(driver: str, play: Play) -> None:
    (result,) = play({"config": {"driver": driver}, "ticks": [0, 1, 2, 3, 4], "library": "ladder"})
    assert result["name"] == DRIVERS[driver]
    given = calls.pictures(result["log"])
    assert len(given) == (0 if driver == "x264" else 5)
    looks = 1 if driver == "pynvvideocodec" else 0  # it opens a session to look at the chip, and ends it
    assert len(calls.of(result["log"], "OpenEncodeSessionEx")) == (0 if driver == "x264" else 1 + looks)
