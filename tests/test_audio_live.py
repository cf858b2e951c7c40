"""The sound of a live source: in sync with pictures that come over a network, silent through outages, and pushed."""

from __future__ import annotations

import statistics
import threading
from contextlib import ExitStack
from pathlib import Path

import av
import beeps
import numpy as np
import pytest
from beeps import run, text
from consumers import SCHEMES, Consumer, free_port
from hypothesis import given
from hypothesis import strategies as st
from recordings import counted, stream

from tiler.config.outputs import PushOutput
from tiler.output.push import PushWriter
from tiler.sound.arrival import ArrivalClock
from tiler.sound.encoder import SoundEncoder
from tiler.types import CLOCK_HZ, Packet

PICTURE_S = 1 / beeps.FPS


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return beeps.write_all(tmp_path_factory.mktemp("clips"))


def middle_s(path: Path) -> float:
    """The median time from a flash to the beep that is nearest."""
    flashes, heard = beeps.flashes_of(path), beeps.beeps_of(path)
    assert len(flashes) >= 4
    return statistics.median(min((beep - flash for beep in heard), key=abs) for flash in flashes)


def test_a_file_in_real_time_is_heard_in_sync(tmp_path: Path, clips: Path) -> None:
    run(tmp_path, text(clips, "{file: o.mkv}", source=", realtime: true, loop: true", more="duration_s: 6"))
    assert abs(middle_s(tmp_path / "o.mkv")) < 2 * PICTURE_S  # a picture waits for the next tick


def test_a_camera_is_heard_in_sync_and_silent_while_it_is_away(tmp_path: Path, clips: Path) -> None:
    with beeps.Broadcast(clips / "a.mp4", 4.0) as camera:
        source = ", reconnect_s: 0.2, options: {format: mpegts, analyzeduration: 300000}"
        config = text(clips, "{file: o.mkv}", source=source, more="duration_s: 10")
        config = config.replace(str(clips / "a.mp4"), f"'tcp://127.0.0.1:{camera.port}'")
        cut = threading.Timer(4.0, camera.disconnect)
        cut.start()
        report = run(tmp_path, config)
        cut.join()
    assert abs(middle_s(tmp_path / "o.mkv")) < 2 * PICTURE_S
    assert report["audio"]["state"] in ("up", "ended")
    assert report["audio"]["reconnects"] >= 1
    with av.open(str(tmp_path / "o.mkv")) as container:
        stamps = [float(packet.pts * packet.time_base) for packet in container.demux(audio=0) if packet.size]
    assert max(np.diff(stamps)) < 0.03  # without a gap
    assert stamps[-1] > 8


def test_a_camera_without_sound_or_that_is_not_there_leaves_the_pictures_alone(tmp_path: Path, clips: Path) -> None:
    for codec in ("aac", "copy"):
        config = text(clips, "{file: o.mkv}", source=", realtime: true", audio=f"codec: {codec}", more="duration_s: 2")
        config = config.replace("sources: [", f"sources: [{{id: b, uri: 'tcp://127.0.0.1:{free_port()}'}}, ")
        report = run(tmp_path, config.replace("source: a,", "source: b,"))
        assert "cannot open" in report["audio"]["error"]
        assert report["outputs"][0]["error"] is None
        assert counted(tmp_path / "o.mkv")[0] == report["frames"] > 10
        (tmp_path / "o.mkv").unlink()


MS = CLOCK_HZ // 1000


@given(
    jitter=st.lists(st.integers(0, 40), min_size=50, max_size=400),
    origin=st.integers(-(10**9), 10**9),
    burst=st.integers(0, 50),
)
def test_arrival_settles_on_the_least_delay(jitter: list[int], origin: int, burst: int) -> None:
    clock = ArrivalClock()
    for index in range(burst):  # what a server had stored comes at once
        clock.delay(origin + index * 40 * MS, 0)
    delays = [
        clock.delay(origin + (burst + index) * 40 * MS, (index * 40 + late) * MS) for index, late in enumerate(jitter)
    ]
    true = -origin - burst * 40 * MS
    assert all(0 <= delay - true <= 100 * MS for delay in delays)
    assert len(set(delays[1:])) <= 2  # it is not moved about by jitter


def test_arrival_follows_a_stream_that_begins_anew_and_one_that_drifts() -> None:
    clock = ArrivalClock()
    assert [clock.delay(pts * MS, pts * MS) for pts in (0, 40, 80)] == [0, 0, 0]
    assert clock.delay(500_000 * MS, 120 * MS) == -499_880 * MS
    assert clock.delay(0, 160 * MS) == 160 * MS
    slow = [clock.delay(pts * MS, round(pts * 1.001 * MS) + 160 * MS) for pts in range(40, 600_000, 40)]
    assert abs(slow[-1] - (600 + 160) * MS) < 100 * MS


@pytest.mark.parametrize(
    ("scheme", "codec"),
    [("rtmp", "aac"), ("rtsp", "aac"), ("rtsp", "opus"), ("tcp", "aac"), ("tcp", "opus"), ("udp", "aac")],
)
def test_a_push_carries_pictures_and_sound(scheme: str, codec: str) -> None:
    packets, mosaic = stream(75, 0.5)
    encoder = SoundEncoder(codec, 64_000)
    noise = np.random.default_rng(1).normal(0, 0.1, (2, 48_000 * 8)).astype(np.float32)
    sound = list(encoder.add(noise, 0))
    port = free_port()
    with Consumer(scheme, port, sound=True) as consumer, ExitStack() as opened:
        url = SCHEMES[scheme][0].format(port)
        writer = PushWriter(PushOutput(push=url), mosaic, "h264", packets[0], encoder.format)
        opened.callback(writer.close)
        until = 0
        for packet in packets:
            until = max(until, (packet.pts + 1) * CLOCK_HZ // 10)
            due = [piece for piece in sound if piece.pts < until]
            sound = sound[len(due) :]
            writer.write(Packet(packet.data, packet.pts, packet.dts, packet.keyframe, tuple(due)))
        seen: dict[str, list[float]] = {"VideoFrame": [], "AudioFrame": []}
        while min(map(len, seen.values())) < 5:
            kind, time_s = consumer.kind()
            seen[kind].append(time_s)
    assert abs(seen["VideoFrame"][0] - seen["AudioFrame"][0]) < 1.0
