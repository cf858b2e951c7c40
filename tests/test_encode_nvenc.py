"""NVENC through PyAV without a GPU: the real library on an emulated driver (tools/nvenc_emulator)."""

from __future__ import annotations

from ctypes.util import find_library
from itertools import pairwise
from typing import Any

import av
import pytest
from fakes.nvenc_pictures import Load, Play, config, mosaic

from tiler.encode.parameters import resolve
from tools.nvenc_emulator import calls

pytest_plugins = ("fakes.nvenc_fixtures",)


def told(result: dict[str, Any]) -> dict[str, Any]:
    """What the one session was initialised with."""
    assert "error" not in result, result
    return calls.told(result["log"])


def test_low_latency_gives_each_packet_with_its_picture(play: Play) -> None:
    ticks = list(range(12))
    config_ = {"profile": "low_latency", "gop_s": 0.2}
    (result,) = play({"config": config_, "ticks": ticks, "keyframes": [3]})
    keys = (0, 3, 9)  # the first, the one asked for, and six after it
    assert result["packets"] == [*([[tick, tick, tick in keys]] for tick in ticks), []]
    assert result["buffers"] == 0  # the mosaic's own memory
    read_right(result, ticks)


def read_right(result: dict[str, Any], ticks: list[int]) -> None:
    """NVENC read every picture's own bytes, although the mosaics were overwritten as soon as that was allowed."""
    read = {line["pts"]: tuple(line["corners"]) for line in calls.of(result["log"], "LockBitstream")}
    assert read.pop(-1) == (128, 128)  # the grey picture that opened the session
    assert read == {tick: (50 + tick, 51 + tick) for tick in ticks}
    assert result["held"] == []


@pytest.mark.parametrize("fps", ["30", "30000/1001"])
@pytest.mark.parametrize("ticks", [list(range(14)), [0, 1, 5, 6, 7, 30, 31, 32, 33, 90]], ids=["all", "some dropped"])
@pytest.mark.parametrize("at_once", [False, True])
def test_b_frames_keep_times_exact_and_pictures_whole(play: Play, ticks: list[int], fps: str, at_once: bool) -> None:
    (result,) = play({"config": {}, "mosaic": {"fps": fps}, "ticks": ticks, "at_once": at_once})
    packets = [packet for part in result["packets"] for packet in part]
    assert sorted(pts for pts, _, _ in packets) == ticks
    assert [pts for pts, _, _ in packets] != ticks  # there are B-frames
    dts = [value for _, value, _ in packets]
    assert all(before < after for before, after in pairwise(dts))
    assert all(value <= pts for pts, value, _ in packets)
    assert [pts for pts, _, keyframe in packets if keyframe] == [0]
    assert told(result)["fps"] == ([30, 1] if fps == "30" else [30000, 1001])
    read_right(result, ticks)
    assert result["device_after"] is None


def test_a_keyframe_asked_for_among_b_frames_starts_a_group(play: Play) -> None:
    (result,) = play({"config": {}, "ticks": list(range(12)), "keyframes": [5]})
    packets = [packet for part in result["packets"] for packet in part]
    assert [pts for pts, _, keyframe in packets if keyframe] == [0, 5]
    flags = {line["pts"]: line["flags"] for line in calls.of(result["log"], "EncodePicture") if "pts" in line}
    assert [pts for pts, flag in flags.items() if flag] == [0, 5]
    read_right(result, list(range(12)))


def test_a_ring_of_fixed_size_serves_a_whole_run_and_grows_only_if_the_driver_holds_more(play: Play) -> None:
    usual, slow = play(
        {"config": {}, "ticks": list(range(20))},
        {"config": {}, "ticks": list(range(20)), "driver": {"NVENC_EMULATOR_HOLD": "6"}},
    )
    assert usual["buffers"] == 4
    assert len(calls.of(usual["log"], "RegisterResource")) <= 4
    assert len(calls.of(slow["log"], "RegisterResource")) > 4
    for result in (usual, slow):
        read_right(result, list(range(20)))


def test_a_picture_held_back_at_low_latency_is_an_error_and_never_a_wrong_picture(play: Play) -> None:
    (result,) = play({"config": {"profile": "low_latency"}, "ticks": [0, 1], "driver": {"NVENC_EMULATOR_HOLD": "1"}})
    assert result["error"] == "StageError"
    assert "holds a picture back" in result["text"]


def test_a_chip_without_b_frames_does_without(play: Play) -> None:
    (result,) = play({"config": {}, "ticks": [0, 1, 2], "driver": {"NVENC_EMULATOR_B_FRAMES": "0"}})
    assert told(result)["b_frames"] == 0
    assert result["sessions"] == 1
    assert [packet for part in result["packets"] for packet in part] == [[0, 0, True], [1, 1, False], [2, 2, False]]


def test_the_lookahead_of_a_preset_is_off(play: Play) -> None:
    (result,) = play({"config": {"preset": "p7"}, "driver": {"NVENC_EMULATOR_PRESET_LOOKAHEAD": "16"}})
    assert told(result)["lookahead"] == 0


def test_an_option_that_this_ffmpeg_does_not_know_is_an_error(play: Play) -> None:
    (result,) = play({"config": {}, "options": {"psy-rd": "1"}})
    assert (result["error"], result["text"]) == (
        "InputError", "encoder: h264_nvenc of this FFmpeg does not know psy-rd=1",
    )  # fmt: skip


def fail(call: str, status: int) -> dict[str, str]:
    return {"NVENC_EMULATOR_FAIL": f"nvEnc{call}={status}"}


MESSAGES: list[tuple[dict[str, str], str, bool | None, str]] = [
    (fail("OpenEncodeSessionEx", 2), "NvencMissingError", True, "no NVENC (OpenEncodeSessionEx failed: unsupported"),
    (fail("OpenEncodeSessionEx", 1), "NvencMissingError", True, "this GPU has no NVENC"),
    (fail("OpenEncodeSessionEx", 15), "NvencMissingError", False, "the NVIDIA driver is too old for it"),
    ({"NVENC_EMULATOR_API": "12.1"}, "NvencMissingError", False, "Required: 13.0 Found: 12.1"),
    (fail("OpenEncodeSessionEx", 21), "InputError", None, "encoder: no NVENC session is left: other programs"),
    (fail("OpenEncodeSessionEx", 10), "InputError", None, "end one of them, or set encoder.driver: x264"),
    (fail("InitializeEncoder", 8), "InputError", None, "NVENC refuses these parameters: InitializeEncoder failed"),
]


def test_what_the_driver_refuses_is_said_with_what_to_do(play: Play) -> None:
    scenarios = [{"config": {}, "driver": driver} for driver, *_ in MESSAGES]
    for (driver, kind, final, text), result in zip(MESSAGES, play(*scenarios), strict=True):
        assert (result["error"], result["final"]) == (kind, final), driver
        assert text in result["text"], driver


def test_more_refusals_name_the_key_or_the_way_out(play: Play) -> None:
    codec, wide, other = play(
        {"config": {"codec": "av1"}, "driver": {"NVENC_EMULATOR_CODECS": "h264,hevc"}},
        {"config": {}, "mosaic": {"width": 5000}},
        {"config": {}, "device": 1},
    )
    assert "encoder.codec: this GPU's NVENC has no av1 encoder" in codec["text"]
    assert "Width 5000 exceeds 4096" in wide["text"]
    assert (other["final"], "CUDA_VISIBLE_DEVICES=1" in other["text"]) == (False, True)


@pytest.mark.skipif(find_library("nvidia-encode") is not None, reason="the library is here")
def test_a_driver_without_the_nvenc_library_is_explained(play: Play) -> None:
    (missing,) = play({"config": {}}, encode=False)
    assert (missing["error"], missing["final"]) == ("NvencMissingError", True)
    assert "libnvidia-encode.so.1 is not found; in a container, NVIDIA_DRIVER_CAPABILITIES" in missing["text"]


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1"])
def test_ffmpeg_knows_every_option_and_value(codec: str, cuda: Load) -> None:
    options = cuda("pyav_nvenc_cuda").options
    known = av.CodecContext.create(f"{codec}_nvenc", "w").supported_options
    table = {option.name: option for option in (*known.generic, *known.private)}
    for profile in ("quality", "low_latency"):
        for rate in ({}, {"bitrate": "20M"}, {"bitrate": "20M", "rate_control": "cbr"}, {"quality": 51}):
            for split in ("auto", "none") if codec == "h264" else ("auto", "none", 2, 3, 4):
                values = config(codec=codec, profile=profile, split=split, **rate)
                for name, value in options(resolve(mosaic(), values, "pyav")).items():
                    assert name in table
                    choices = [choice.name for choice in table[name].choices]
                    if choices:
                        assert value in choices, name
                    else:
                        assert table[name].min <= float(value) <= table[name].max, name
