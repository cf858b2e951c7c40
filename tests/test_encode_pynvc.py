"""NVENC through PyNvVideoCodec without a GPU: a strict fake of the library (see fakes/nvenc_pynvc.py)."""

from __future__ import annotations

import sys
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest
from fakes import nvenc_pynvc
from fakes.nvenc_pictures import HEIGHT, WIDTH, Compositor, Load, config, decoded, mosaic, picture

from tiler.encode.nvenc import NvencMissingError
from tiler.encode.parameters import resolve
from tiler.errors import InputError

pytest_plugins = ("fakes.nvenc_fixtures",)


@pytest.mark.usefixtures("any_gpu")
@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_pynvvideocodec_is_three_pictures_late_and_loses_none(codec: str, cuda: Load) -> None:
    module = cuda("pynvc_nvenc_cuda")
    compositor = Compositor()
    with module.PynvcNvencEncoder(mosaic(fps="30000/1001"), config(codec=codec), 0) as encoder:
        ticks = [10 * index for index in range(8)]  # ticks may be dropped: times are not counts
        out = [compositor.encode(encoder, tick) for tick in ticks]
        out.append(encoder.flush())
        assert encoder.sessions == 1
    assert [[packet.pts for packet in part] for part in out] == [[], [], [], [0], [10], [20], [30], [40], [50, 60, 70]]
    packets = [packet for part in out for packet in part]
    assert all(packet.pts == packet.dts for packet in packets)
    assert [packet.keyframe for packet in packets] == [True] + [False] * 7
    pictures, context = decoded(packets, codec)
    assert len(pictures) == 8
    for tick, found in zip(ticks, pictures, strict=True):
        assert np.abs(found.astype(int) - picture(tick)).mean() < 3, tick
    assert (context.color_primaries, context.color_trc, context.colorspace, context.color_range) == (1, 1, 1, 1)


def test_pynvvideocodec_forces_a_keyframe_for_the_next_picture(cuda: Load) -> None:
    compositor = Compositor()
    with cuda("pynvc_nvenc_cuda").PynvcNvencEncoder(mosaic(), config(), 0) as encoder:
        packets = []
        for tick in range(8):
            if tick == 4:
                encoder.request_keyframe()
            packets += compositor.encode(encoder, tick)
        packets += encoder.flush()
    assert [packet.pts for packet in packets if packet.keyframe] == [0, 4]


PYNVC_KEYS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (
        {},
        {"codec": "h264", "preset": "P4", "tuning_info": "high_quality", "rc": "vbr", "cq": 22, "bitrate": 0,
         "maxbitrate": 0, "gop": 60, "idrperiod": 60, "fps": "30", "bf": 0, "repeatspspps": 1},
    ),
    (
        {"profile": "low_latency", "bitrate": "20M"},
        {"preset": "P1", "tuning_info": "ultra_low_latency", "rc": "cbr", "bitrate": 20_000_000,
         "maxbitrate": 20_000_000, "vbvbufsize": 666_666},
    ),
    ({"preset": "p6", "gop_s": 1.0, "quality": 40}, {"preset": "P6", "gop": 30, "cq": 40}),
    ({"profile": "low_latency", "tuning": "ll"}, {"tuning_info": "low_latency"}),
    ({"bitrate": "9M", "rate_control": "cbr"}, {"rc": "cbr", "maxbitrate": 9_000_000, "vbvbufsize": 18_000_000}),
    ({"bitrate": "8M"}, {"rc": "vbr", "bitrate": 8_000_000, "maxbitrate": 12_000_000}),
    ({"codec": "hevc"}, {"codec": "hevc"}),
]  # fmt: skip


@pytest.mark.parametrize(("values", "expected"), PYNVC_KEYS)
def test_every_key_reaches_pynvvideocodec(values: dict[str, Any], expected: dict[str, Any], cuda: Load) -> None:
    cuda("pynvc_nvenc_cuda").PynvcNvencEncoder(mosaic(), config(**values), 0).close()
    said = nvenc_pynvc.created[-1]
    assert {key: said[key] for key in expected} == expected
    assert (said["width"], said["height"]) == (WIDTH, HEIGHT)


def test_pynvvideocodec_writes_bare_av1(cuda: Load) -> None:
    module = cuda("pynvc_nvenc_cuda")
    said = module.parameters(mosaic(), resolve(mosaic(), config(codec="av1"), "pynvvideocodec"))
    assert said["use_ivf_container"] == 0
    av.BitStreamFilterContext(module._FILTERS["av1"].format(1), "av1")


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        pytest.param("returned error 2 at x.cpp:1", NvencMissingError, "no NVENC", id="no NVENC"),
        pytest.param("nvEncOpenEncodeSessionEx(..) returned error 21 at x", InputError, "session is left", id="limit"),
        pytest.param("nvEncOpenEncodeSessionEx(..) returned error 10 at x", InputError, "session is left", id="memory"),
        pytest.param("nvEncInitializeEncoder(..) returned error 8 at x", InputError, "refuses", id="refused"),
    ],
)
def test_pynvvideocodecs_errors_are_said_with_what_to_do(
    text: str, kind: type[Exception], words: str, cuda: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise nvenc_pynvc.PyNvVCException(f"CreateEncoder : Error code : {text.split()[3]} Error Type : {text}")

    module = cuda("pynvc_nvenc_cuda")
    text = text if text.startswith("nvEnc") else f"nvEncOpenEncodeSessionEx(..) {text}"
    monkeypatch.setattr(sys.modules["PyNvVideoCodec"], "CreateEncoder", fail)
    with pytest.raises(kind, match=words):
        module.PynvcNvencEncoder(mosaic(), config(), 0)


@pytest.mark.parametrize(
    ("error", "final", "words"),
    [
        (ModuleNotFoundError("No module named 'PyNvVideoCodec'"), False, "pip install"),
        (RuntimeError("Driver version is too old"), False, "too old"),
        (
            RuntimeError("Failed to load NVENC library: libnvidia-encode.so.1: cannot open\n\n=== TROUBLESHOOTING"),
            True,
            "NVIDIA_DRIVER_CAPABILITIES",
        ),
    ],
)
def test_a_pynvvideocodec_that_cannot_be_imported_says_why(
    error: Exception, final: bool, words: str, cuda: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = cuda("pynvc_nvenc_cuda")
    importing = __import__

    def refuse(name: str, *rest: Any, **named: Any) -> Any:
        if name == "PyNvVideoCodec":
            raise error
        return importing(name, *rest, **named)

    monkeypatch.setattr("builtins.__import__", refuse)
    with pytest.raises(NvencMissingError, match=words) as caught:
        module.PynvcNvencEncoder(mosaic(), config(), 0)
    assert caught.value.final is final
    assert "TROUBLESHOOTING" not in str(caught.value)


def test_times_of_the_slowest_rate_stay_fractions(cuda: Load) -> None:
    said = cuda("pynvc_nvenc_cuda").parameters(
        mosaic(fps="29.97"), resolve(mosaic(fps="29.97"), config(), "pynvvideocodec")
    )
    assert Fraction(said["fps"]) == Fraction(30000, 1001)
