"""Which encoder a CUDA run gets, and the one at the foot of the ladder: libx264 on what is read back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fakes.nvenc_pictures import (
    HEIGHT,
    WIDTH,
    Compositor,
    Load,
    close_to_the_pictures,
    config,
    decoded,
    from_planes,
    mosaic,
)

from tiler.encode import cuda as ladder
from tiler.encode.base import Encoder
from tiler.encode.cpu import X264Encoder
from tiler.encode.nvenc import NvencMissingError, failure
from tiler.errors import InputError, StageError
from tiler.observe.copies import Copies
from tiler.types import Mosaic, Packet

pytest_plugins = ("fakes.nvenc_fixtures",)


# Read-back


@pytest.mark.usefixtures("any_gpu")
@pytest.mark.parametrize("profile", ["quality", "low_latency"])
def test_read_back_gives_the_packets_of_libx264(profile: str, cuda: Load) -> None:
    values, copies, compositor = config(profile=profile), Copies(), Compositor()
    with cuda("readback_cuda").ReadbackEncoder(mosaic(), values, 2, 0, copies) as encoder:
        out = [compositor.encode(encoder, tick) for tick in range(20)]
        packets = [packet for part in [*out, encoder.flush()] for packet in part]
        assert encoder.sessions == 1
    assert packets == from_planes(values, 20)
    if profile == "low_latency":
        assert [[packet.pts for packet in part] for part in out] == [[tick] for tick in range(20)]
    row = copies.summary(20)["by_name"]["mosaic for libx264"]
    assert row == {
        "direction": "down", "copies": 20, "bytes": 20 * WIDTH * HEIGHT * 3 // 2,
        "bytes_per_tick": WIDTH * HEIGHT * 3 // 2,
    }  # fmt: skip


def test_read_back_encodes_the_mosaic_as_it_was(cuda: Load) -> None:
    compositor = Compositor()
    with cuda("readback_cuda").ReadbackEncoder(mosaic(), config(quality=4), 2, 0, Copies()) as encoder:
        packets = [packet for tick in range(10) for packet in compositor.encode(encoder, tick)] + encoder.flush()
    pictures, _ = decoded(packets)
    close_to_the_pictures(pictures, 10)


def test_read_back_copies_a_picture_while_the_one_before_is_encoded(
    cuda: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    compositor = Compositor()
    seen = []
    with cuda("readback_cuda").ReadbackEncoder(mosaic(), config(), 2, 0, Copies()) as encoder:
        encode = X264Encoder.encode

        def watch(self: X264Encoder, mosaic: Mosaic) -> list[Packet]:
            stream = encoder._stream
            seen.append((mosaic.tick, stream.length - stream._done))
            return encode(self, mosaic)

        monkeypatch.setattr(X264Encoder, "encode", watch)
        for tick in range(4):
            compositor.encode(encoder, tick)
        encoder.flush()
    # While tick k is encoded the wait for k + 1 and its copy are on the stream, and nobody has waited for them.
    assert seen == [(0, 2), (1, 2), (2, 2), (3, 0)]


@pytest.mark.parametrize("profile", ["quality", "low_latency"])
def test_a_keyframe_asked_for_is_that_of_the_next_picture_given(profile: str, cuda: Load) -> None:
    compositor, values = Compositor(), config(profile=profile)
    with cuda("readback_cuda").ReadbackEncoder(mosaic(), values, 2, 0, Copies()) as encoder:
        packets = []
        for tick in range(12):
            if tick == 5:
                encoder.request_keyframe()
            packets += compositor.encode(encoder, tick)
        packets += encoder.flush()
    assert [packet.pts for packet in packets if packet.keyframe] == [0, 5]
    assert packets == from_planes(values, 12, keyframes=(5,))


# The ladder


@pytest.fixture
def rungs(cuda: Load, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, Any], list[str]]:
    """Sets what each NVENC driver does when opened; gives the list of those that were tried."""

    def arrange(pyav: Any, pynvc: Any) -> list[str]:
        tried: list[str] = []

        def rung(name: str, outcome: Any) -> Callable[..., Any]:
            def open_driver(*_: Any) -> Any:
                tried.append(name)
                if isinstance(outcome, Exception):
                    raise outcome
                return outcome

            return open_driver

        monkeypatch.setattr(ladder, "_open_pyav", rung("pyav", pyav))
        monkeypatch.setattr(ladder, "_open_pynvc", rung("pynvvideocodec", pynvc))
        return tried

    return arrange


class Opened:
    """An encoder that opened."""

    def __init__(self, name: str, sessions: int = 1) -> None:
        self.name, self.sessions = name, sessions


NONE = NvencMissingError("this GPU has no NVENC (2)", final=True)
OLD = NvencMissingError("the NVIDIA driver is too old", final=False)


def climb(**values: Any) -> tuple[Encoder, str, str]:
    return ladder.open_cuda_encoder(mosaic(), config(**values), 2, 0, Copies())


@pytest.mark.parametrize("profile", ["quality", "low_latency"])
def test_pyav_comes_first(profile: str, rungs: Any) -> None:
    tried = rungs(Opened("h264_nvenc (PyAV)"), Opened("never"))
    _, name, reason = climb(profile=profile)
    assert (name, tried, reason) == ("h264_nvenc (PyAV)", ["pyav"], "NVENC, from the mosaic's device memory")


def test_an_old_driver_gets_pynvvideocodec_and_the_reason(rungs: Any) -> None:
    tried = rungs(OLD, Opened("h264_nvenc (PyNvVideoCodec)"))
    _, name, reason = climb()
    assert (name, tried) == ("h264_nvenc (PyNvVideoCodec)", ["pyav", "pynvvideocodec"])
    assert reason == "NVENC through PyAV: the NVIDIA driver is too old"


def test_a_chip_without_nvenc_gets_libx264_at_once_and_the_reason(rungs: Any) -> None:
    tried = rungs(NONE, Opened("never"))
    encoder, name, reason = climb()
    assert (name, encoder.name, encoder.sessions, tried) == ("libx264", "libx264", 1, ["pyav"])
    assert reason == "NVENC through PyAV: this GPU has no NVENC (2)"


def test_libx264_can_be_asked_for(rungs: Any) -> None:
    tried = rungs(Opened("never"), Opened("never"))
    _, name, reason = climb(driver="x264")
    assert (name, reason, tried) == ("libx264", "encoder.driver: x264", [])


@pytest.mark.parametrize("driver", ["pyav", "pynvvideocodec"])
def test_a_driver_asked_for_is_never_replaced(driver: str, rungs: Any) -> None:
    tried = rungs(OLD, OLD)
    with pytest.raises(InputError, match=f"encoder.driver: {driver} cannot be used: .*too old; accepted here: auto"):
        climb(driver=driver)
    assert tried == [driver]


def test_no_session_left_ends_the_ladder(rungs: Any) -> None:
    tried = rungs(failure("OpenEncodeSessionEx failed: incompatible client key (21): x", "h264"), Opened("never"))
    with pytest.raises(InputError, match="no NVENC session is left"):
        climb()
    assert tried == ["pyav"]


@pytest.mark.parametrize("values", [{"codec": "hevc"}, {"profile": "low_latency", "tuning": "ull"}])
def test_libx264_in_place_of_nvenc_refuses_what_it_cannot_do_and_says_why_it_encodes(
    values: dict[str, Any], rungs: Any
) -> None:
    rungs(NONE, NONE)
    with pytest.raises(InputError, match=r"(?s)encoder\.(codec|tuning): .*\(libx264 encodes, because: .*no NVENC"):
        climb(**values)


def test_more_than_one_session_is_a_fault_of_ours(rungs: Any) -> None:
    rungs(Opened("h264_nvenc (PyAV)", sessions=2), NONE)
    with pytest.raises(StageError, match="opened 2 sessions"):
        climb()
