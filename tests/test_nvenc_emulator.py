"""The emulated NVENC driver with the real client libraries: what our encoder files make of it, to the last bit."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from fakes import nvenc_client
from fakes.nvenc_pictures import Play, noise

from tools import nvenc_emulator
from tools.nvenc_emulator.calls import faults, leftovers, of, pictures

pytest_plugins = ("fakes.nvenc_fixtures",)

needs_pynvvideocodec = pytest.mark.skipif(
    importlib.util.find_spec("PyNvVideoCodec") is None, reason="PyNvVideoCodec is not installed"
)
LIBRARIES = pytest.mark.parametrize("library", ["pyav", pytest.param("pynvvideocodec", marks=needs_pynvvideocodec)])
SIZES = [(322, 182), (178, 98), (640, 354)]
LOW_LATENCY = {"profile": "low_latency"}
CLOCK_HZ, FPS = 90000, 30


def played(path: Path) -> tuple[list[av.VideoFrame], Any]:
    """Every picture of a file, and its decoder's context."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return list(container.decode(stream)), stream.codec_context


def exact(frames: list[av.VideoFrame], ticks: list[int]) -> None:
    """The frames are the pictures of those ticks, each sample as it was given."""
    assert len(frames) == len(ticks)
    for frame, tick in zip(frames, ticks, strict=True):
        assert np.array_equal(frame.to_ndarray(format="nv12"), noise(tick, frame.width, frame.height)), tick


def clean(result: dict[str, Any]) -> None:
    """One session is left at no time, with nothing in it, and nothing was done that a driver may not notice."""
    assert faults(result["log"]) + leftovers(result["log"]) == []


@LIBRARIES
@pytest.mark.parametrize("profile", ["low_latency", "quality"])
def test_what_is_decoded_is_the_mosaic(library: str, profile: str, play: Play, tmp_path: Path) -> None:
    ticks = list(range(14))
    scenarios = [
        {"config": {"profile": profile}, "mosaic": {"width": width, "height": height, "fps": FPS}, "ticks": ticks,
         "keyframes": [5], "draw": "noise", "library": library, "output": str(tmp_path / f"{width}.mp4"),
         "driver": {"NVENC_EMULATOR_WATCH": "1"}} for width, height in SIZES
    ]  # fmt: skip
    for (width, height), result in zip(SIZES, play(*scenarios), strict=True):
        assert "error" not in result, result
        clean(result)
        frames, context = played(tmp_path / f"{width}.mp4")
        exact(frames, ticks)
        assert (context.width, context.height, context.profile) == (width, height, "High")
        assert (context.color_primaries, context.color_trc, context.colorspace, context.color_range) == (1, 1, 1, 1)
        assert [frame.pts for frame in frames] == [tick * CLOCK_HZ // FPS for tick in ticks]
        assert [tick for frame, tick in zip(frames, ticks, strict=True) if frame.key_frame] == [0, 5]


def test_low_latency_is_one_packet_for_each_picture(play: Play, tmp_path: Path) -> None:
    ticks, file = list(range(20)), tmp_path / "low.mp4"
    (result,) = play({"config": {**LOW_LATENCY, "gop_s": 0.4}, "mosaic": {"fps": FPS}, "ticks": ticks,
                      "keyframes": [7], "draw": "noise", "output": str(file)})  # fmt: skip
    keys = (0, 7, 19)  # the first, the one asked for, and twelve after it
    assert result["packets"] == [*([[tick, tick, tick in keys]] for tick in ticks), []]
    clean(result)
    (line,) = of(result["log"], "InitializeEncoder")
    assert (line["config"]["frameIntervalP"], line["config"]["rcParams"]["enableLookahead"]) == (1, 0)
    given = pictures(result["log"])
    assert all(one["status"] == 0 and one["packets"] == 1 for one in given)
    assert [one["pts"] for one in given if one["flags"] & 2] == [0, 7]
    assert {one["type"] for one in of(result["log"], "LockBitstream")} == {"IDR", "P"}
    with av.open(str(file)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        assert [(packet.pts, packet.dts, packet.is_keyframe) for packet in packets] == [
            (tick * CLOCK_HZ // FPS, tick * CLOCK_HZ // FPS, tick in keys) for tick in ticks
        ]


def test_quality_waits_as_long_as_its_b_frames_need(play: Play) -> None:
    ticks = list(range(10))
    (result,) = play({"config": {}, "ticks": ticks, "draw": "noise"})
    clean(result)
    assert [[pts for pts, _, _ in part] for part in result["packets"]] == [
        [], [0], [], [3], [1], [2], [6], [4], [5], [9], [7, 8],
    ]  # fmt: skip
    given = [one for one in of(result["log"], "EncodePicture") if "pts" in one and one["pts"] > 0]
    more = 17  # NV_ENC_ERR_NEED_MORE_INPUT
    assert [(one["status"], one["packets"]) for one in given] == [(more, 0), (more, 0), (0, 3)] * 3
    packets = [packet for part in result["packets"] for packet in part]
    assert all(before[1] < after[1] for before, after in pairwise(packets))
    assert [one["type"] for one in of(result["log"], "LockBitstream")][1:] == ["IDR", *["P", "B", "B"] * 3]


@needs_pynvvideocodec
def test_pynvvideocodec_is_three_pictures_late(play: Play) -> None:
    (result,) = play({"config": LOW_LATENCY, "ticks": list(range(8)), "keyframes": [4], "library": "pynvvideocodec"})
    assert [[pts for pts, _, _ in part] for part in result["packets"]] == [
        [], [], [], [0], [1], [2], [3], [4], [5, 6, 7],
    ]  # fmt: skip
    assert [pts for part in result["packets"] for pts, _, key in part if key] == [0, 4]
    flags = [one["flags"] for one in of(result["log"], "EncodePicture") if "pts" in one]
    assert flags == [0, 0, 0, 0, 2 | 4, 0, 0, 0]
    clean(result)  # it opens a session to look at the chip and ends it before it opens its own


@LIBRARIES
def test_one_session_is_enough_and_none_is_said(library: str, play: Play) -> None:
    none, one, two = play(*(
        {"config": LOW_LATENCY, "ticks": [0, 1, 2, 3, 4], "library": library,
         "driver": {"NVENC_EMULATOR_SESSIONS": limit}} for limit in ("0", "1", "2")
    ))  # fmt: skip
    assert none["error"] == "InputError"
    assert "no NVENC session is left" in none["text"]
    for result in (one, two):
        assert [pts for part in result["packets"] for pts, _, _ in part] == [0, 1, 2, 3, 4]
        clean(result)


@LIBRARIES
def test_a_session_lost_in_the_middle_leaves_a_file_up_to_there(library: str, play: Play, tmp_path: Path) -> None:
    file, before = tmp_path / "lost.mp4", 8
    opening = 1 if library == "pyav" else 0
    (result,) = play({
        "config": LOW_LATENCY, "ticks": list(range(20)), "draw": "noise", "library": library, "output": str(file),
        "driver": {"NVENC_EMULATOR_FAIL": f"nvEncEncodePicture@{before + opening + 1}=20"},
    })  # fmt: skip
    assert result["error"] == "StageError"
    assert "failed" in result["text"]
    out = [pts for part in result["packets"] for pts, _, _ in part]
    assert out == list(range(before if library == "pyav" else before - 3))
    exact(played(file)[0], out)
    assert len(of(result["log"], "DestroyEncoder")) == len(of(result["log"], "OpenEncodeSessionEx"))


@LIBRARIES
def test_memory_that_the_driver_has_none_of_is_an_error(library: str, play: Play) -> None:
    (result,) = play({"config": LOW_LATENCY, "ticks": [0, 1, 2, 3, 4], "library": library,
                      "driver": {"NVENC_EMULATOR_FAIL": "nvEncCreateBitstreamBuffer=10"}})  # fmt: skip
    assert result["error"] == "InputError"


def test_a_slow_encoder_takes_its_time(play: Play) -> None:
    (result,) = play({"config": LOW_LATENCY, "ticks": list(range(4)), "driver": {"NVENC_EMULATOR_SLOW_MS": "40"}})
    times = [line["ms"] for line in of(result["log"], "UnlockBitstream")]
    assert all(after - before >= 39 for before, after in pairwise(times))


def misused(folder: Path) -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "fakes.nvenc_client", str(folder)], capture_output=True, text=True, check=False,
        cwd=Path(__file__).parent, env={
            **nvenc_emulator.environment(host_cuda=True), "NVENC_EMULATOR_SESSIONS": "1",
            "PYTHONPATH": str(Path(__file__).parent.parent),
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said: dict[str, str] = json.loads(done.stdout)
    return said


EACH = {
    "registered": "SUCCESS", "not mapped": "RESOURCE_NOT_MAPPED", "mapped": "SUCCESS", "mapped twice": "MAP_FAILED",
    "unregistered while mapped": "INVALID_CALL", "locked too early": "INVALID_PARAM",
    "in another format": "INVALID_PARAM", "encoded": "SUCCESS", "into a full buffer": "INVALID_PARAM",
    "locked": "SUCCESS", "locked twice": "LOCK_BUSY", "unlocked": "SUCCESS", "unmapped": "SUCCESS",
    "unmapped twice": "RESOURCE_NOT_MAPPED", "unregistered": "SUCCESS",
    "unregistered twice": "RESOURCE_NOT_REGISTERED", "a session too many": "INCOMPATIBLE_CLIENT_KEY",
}  # fmt: skip
ONCE = {
    "an unknown session": "INVALID_ENCODERDEVICE", "opened": "SUCCESS",
    "another version of a structure": "INVALID_VERSION",
    "a bitstream buffer before initialising": "ENCODER_NOT_INITIALIZED",
    "wrong preset": "INVALID_PARAM", "wrong tuning": "INVALID_PARAM", "wrong codec": "UNSUPPORTED_PARAM",
    "wrong profile": "INVALID_PARAM", "wrong width": "INVALID_PARAM", "wrong B-frames": "INVALID_PARAM",
    "wrong rate": "INVALID_PARAM", "initialised": "SUCCESS", "initialised twice": "INVALID_CALL",
    "pitch below width": "INVALID_PARAM", "smaller than the picture": "INVALID_PARAM",
    "no format": "UNSUPPORTED_PARAM", "past its memory": "INVALID_PARAM", "bitstream buffer": "SUCCESS",
    "unknown buffer": "INVALID_PARAM", "destroyed": "SUCCESS", "destroyed twice": "INVALID_ENCODERDEVICE",
}  # fmt: skip


@pytest.mark.usefixtures("driver_folder")
def test_misuse_is_refused_and_pictures_with_a_pitch_are_exact(tmp_path: Path) -> None:
    each = {f"{name} {key}": value for name in ("nv12", "argb") for key, value in EACH.items()}
    assert misused(tmp_path) == {**ONCE, **each}
    given = nvenc_client.pictures()
    width, height = nvenc_client.WIDTH, nvenc_client.HEIGHT
    (nv12,), _ = played(tmp_path / "nv12.h264")
    assert np.array_equal(nv12.to_ndarray(format="nv12"), given["nv12"][:, :width])
    (argb,), _ = played(tmp_path / "argb.h264")
    found = argb.to_ndarray(format="nv12").astype(int)
    blue, green, red = (given["argb"].reshape(height, -1, 4)[:, :width, i].astype(float) for i in range(3))
    luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    quads = [c.reshape(height // 2, 2, width // 2, 2).mean((1, 3)) for c in (luma, blue, red)]
    assert np.abs(found[:height] - (16 + luma * 219 / 255)).max() <= 1
    assert np.abs(found[height:, 0::2] - (128 + (quads[1] - quads[0]) / 1.8556 * 224 / 255)).max() <= 1
    assert np.abs(found[height:, 1::2] - (128 + (quads[2] - quads[0]) / 1.5748 * 224 / 255)).max() <= 1


@pytest.mark.usefixtures("driver_folder")
def test_the_launcher_puts_the_emulator_before_the_driver(tmp_path: Path, repository: Path) -> None:
    log = tmp_path / "calls.jsonl"
    command = ("import ctypes; version = ctypes.c_uint32(); "
               "ctypes.CDLL('libnvidia-encode.so.1').NvEncodeAPIGetMaxSupportedVersion(ctypes.byref(version)); "
               "print(version.value)")  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "tools.nvenc_emulator", "--log", str(log), sys.executable, "-c", command],
        cwd=repository, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == str(13 << 4)
    assert json.loads(log.read_text())["call"] == "NvEncodeAPIGetMaxSupportedVersion"
