"""Files decoded by NVDEC in other processes: bit for bit the CPU decoder's pictures, whatever becomes of a process."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from decode_parts import read_through
from pictures import write

from tests.gpu import needs_gpu
from tests.gpu_frames import DEVICE, assert_same, numbers, source_of

pytestmark = needs_gpu

H264 = {"bf": "3", "g": "12", "crf": "8", "preset": "veryfast"}
HEVC = {"x265-params": "bframes=3:keyint=12:log-level=none"}


@pytest.fixture
def opened() -> Iterator[Callable[..., list[Any]]]:
    """Opens files in processes, of which it gives the list."""
    from tiler.decode.import_cuda import open_processes

    started: list[Any] = []

    def start(*paths: Path, count: int = 1, slots: int = 20, **keys: object) -> list[Any]:
        sources = [(place, source_of(path, **keys), str(path)) for place, path in enumerate(paths)]
        started.extend(open_processes(sources, count, slots, DEVICE, None))
        return started

    yield start
    for process in started:
        process.close()


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "size"),
    [
        ("libx264", "yuv420p", (1920, 1080)),
        ("libx264", "yuv420p", (130, 98)),
        ("libx265", "yuv420p", (322, 182)),
        ("libx265", "yuv420p10le", (640, 360)),
    ],
)
def test_pictures_are_exact(
    tmp_path: Path, opened: Callable[..., list[Any]], codec: str, pix_fmt: str, size: tuple[int, int]
) -> None:
    """All are held to the end: one that showed a later picture would differ."""
    options = H264 if codec == "libx264" else HEVC
    path = write(tmp_path / "a.mp4", 18, codec=codec, pix_fmt=pix_fmt, size=size, options=options)
    (process,) = opened(path)
    reader = process.readers[0]
    assert reader.info.size == size
    found = read_through(reader)
    assert len(found) == 18
    assert_same(found, path)
    assert reader.failure is None


def test_pictures_pass_through_few_surfaces(tmp_path: Path, opened: Callable[..., list[Any]]) -> None:
    """Round and round, four sources in two processes, with six surfaces each; the first pictures are kept."""
    paths = [write(tmp_path / f"{i}.mp4", 30, size=(640, 360 + 2 * i), options=H264) for i in range(4)]
    readers = {place: reader for process in opened(*paths, count=2, slots=6, loop=True)
               for place, reader in process.readers.items()}  # fmt: skip
    for reader in readers.values():
        reader.start()
    first = {place: reader.next() for place, reader in readers.items()}
    for number in range(1, 200):
        assert [numbers([readers[place].next()]) for place in range(4)] == [[number % 30]] * 4
    assert [numbers([first[place]]) for place in range(4)] == [[0]] * 4


def test_sizes_and_depths_may_change(tmp_path: Path, opened: Callable[..., list[Any]]) -> None:
    """More often than there are blocks of surfaces; each picture is let go of when the next one is there."""
    kinds = [((640, 360), "yuv420p"), ((322, 182), "yuv420p"), ((322, 182), "yuv420p10le"), ((1280, 720), "yuv420p")]
    parts = [
        write(tmp_path / f"{index}.hevc", 8, size=size, pix_fmt=pix_fmt, codec="libx265")
        for index, (size, pix_fmt) in enumerate([*kinds, *kinds])
    ]
    joined = tmp_path / "joined.hevc"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    (process,) = opened(joined, slots=4)
    reader = process.readers[0]
    reader.start()
    frame = reader.next()
    seen, sizes = [], []
    while frame is not None:
        seen += numbers([frame])
        sizes.append((frame.picture_size, frame.y.dtype.itemsize))
        frame = reader.next()
    assert seen == [*range(8)] * 8
    assert sizes == [(size, 2 if pix_fmt.endswith("10le") else 1) for size, pix_fmt in [*kinds, *kinds]
                     for _ in range(8)]  # fmt: skip


def test_a_killed_process_ends_its_sources_only(tmp_path: Path, opened: Callable[..., list[Any]]) -> None:
    paths = [write(tmp_path / f"{i}.mp4", 50, size=(640, 360), options=H264) for i in range(2)]
    first, second = opened(*paths, count=2, slots=6)
    dying, living = first.readers[0], second.readers[1]
    for reader in (dying, living):
        reader.start()
    held = dying.next()
    os.kill(first._process.pid, signal.SIGKILL)
    while dying.next() is not None:
        pass
    assert "ended unexpectedly (exit code -9)" in str(dying.failure)
    assert numbers([held]) == [0]
    seen = []
    while (frame := living.next()) is not None:
        seen += numbers([frame])
        del frame
    assert seen == list(range(50))
    assert living.failure is None


def test_what_nvdec_does_not_decode_is_refused(tmp_path: Path, opened: Callable[..., list[Any]]) -> None:
    good = write(tmp_path / "a.mp4", 5, size=(640, 360), options=H264)
    (process,) = opened(good, write(tmp_path / "a.mkv", 5, codec="ffv1"), tmp_path / "none.mp4")
    assert numbers(read_through(process.readers[0])) == list(range(5))
    assert set(process.refusals) == {1, 2}
    assert "ffv1" in process.refusals[1]
    assert "none.mp4" in process.refusals[2]
