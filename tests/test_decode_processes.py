"""Files decoded in another process, on fakes of CuPy and PyNvVideoCodec; that process is a thread where it can be."""

from __future__ import annotations

import copy
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from decode_parts import B_FRAMES, DEVICE, Gpu, assert_same, cpu_frames, numbers, of_sizes, read_through, source_of
from pictures import write

from tiler.config.loader import load
from tiler.decode.base import StreamInfo
from tiler.decode.handover import Opened
from tiler.errors import StageError
from tiler.memory import SURFACES

pytest_plugins = ("fakes.decode_fixtures",)


class ThreadContext:
    """Starts threads in place of processes."""

    def __init__(self) -> None:
        self._real = multiprocessing.get_context("spawn")
        self.Pipe, self.Semaphore = multiprocessing.Pipe, self._real.Semaphore

    def Process(self, target: Any, args: Any, name: str, daemon: bool) -> Any:  # noqa: N802
        descriptor = os.dup(args[0].fileno())  # the starting side closes its own

        class ThreadProcess(threading.Thread):
            exitcode: int | None = None

            def run(self) -> None:
                target(descriptor, *args[1:])
                self.exitcode = 0

            def kill(self) -> None:
                raise AssertionError("it did not end")

        return ThreadProcess(name=name, daemon=daemon)


@pytest.fixture
def opened(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[Any]]]:
    """Opens files in such processes."""

    def main(descriptor: int, jobs: Any, slots: int, device: int, needed: Any, level: int) -> None:
        with multiprocessing.connection.Connection(descriptor) as connection:
            lock = threading.Lock()

            def tell(message: Any) -> None:
                with lock:
                    connection.send(message)

            own = [job._replace(handover=copy.copy(job.handover)) for job in jobs]  # as a process would get them
            gpu.export_cuda.serve(connection, tell, own, slots, device, needed)

    context = ThreadContext()
    monkeypatch.setattr(gpu.export_cuda, "main", main)
    monkeypatch.setattr(gpu.import_cuda.multiprocessing, "get_context", lambda method: context)
    started: list[Any] = []

    def start(*paths: Path, count: int = 1, slots: int = SURFACES, **keys: object) -> list[Any]:
        sources = [(place, source_of(path, **keys), str(path)) for place, path in enumerate(paths)]
        started.extend(gpu.import_cuda.open_processes(sources, count, slots, DEVICE, None))
        return started

    yield start
    for process in started:
        process.close()


@pytest.mark.parametrize(("codec", "suffix"), [("libx264", "mp4"), ("libx264", "h264"), ("libx265", "mkv")])
def test_pictures_and_times_are_the_cpu_decoders(
    tmp_path: Path, gpu: Gpu, opened: Callable[..., list[Any]], codec: str, suffix: str
) -> None:
    path = write(tmp_path / f"a.{suffix}", 16, codec=codec, size=(202, 134), options=B_FRAMES.get(codec))
    (process,) = opened(path)
    reader = process.readers[0]
    assert (reader.info.size, reader.info.codec) == ((202, 134), "h264" if codec == "libx264" else "hevc")
    found = read_through(reader)
    expected = cpu_frames(path)
    for frame, theirs in zip(found, expected, strict=True):
        assert frame.stream == 0
        object.__setattr__(theirs, "stream", 0)
    assert_same(found, expected)
    assert (reader.failure, reader.counts.read, reader.counts.errors) == (None, 16, 0)


def test_surfaces_come_back_and_a_file_goes_round(
    tmp_path: Path, gpu: Gpu, opened: Callable[..., list[Any]]
) -> None:
    paths = [write(tmp_path / f"{i}.mp4", 7, size=(130, 98), options=B_FRAMES["libx264"]) for i in range(3)]
    first, second = opened(*paths, count=2, slots=3, loop=True)
    readers = {**first.readers, **second.readers}
    assert [sorted(process.readers) for process in (first, second)] == [[0, 2], [1]]
    for reader in readers.values():
        reader.start()
    for number in range(60):
        for place in range(3):
            frame = readers[place].next()
            assert (frame.stream, numbers([frame])) == (place, [number % 7])
    del frame


def test_a_change_of_size_frees_the_old_surfaces_once_nothing_of_them_is_in_use(
    tmp_path: Path, gpu: Gpu, opened: Callable[..., list[Any]]
) -> None:
    """Six sizes, which is more than may be in use at once; the fake sees memory that is freed while it is mapped."""
    sizes = [(130, 98), (202, 134), (98, 66), (130, 98), (66, 34), (202, 134)]
    (process,) = opened(of_sizes(tmp_path, *sizes), slots=3)
    reader = process.readers[0]
    reader.start()
    seen = []
    frame = kept = reader.next()
    while frame is not None:
        seen += [(frame.picture_size, *numbers([frame]))]
        if len(seen) == 10:
            kept = frame  # of the second size, for the rest of the file
        frame = reader.next()
        if len(seen) == 24:
            assert numbers([kept]) == [2]
            kept = None
    assert seen == [(size, number) for size in sizes for number in range(7)]
    assert sum(gpu.host.mapped.values()) == 0
    gpu.host.check()


def test_a_source_is_closed_while_its_process_waits_for_room(
    tmp_path: Path, gpu: Gpu, opened: Callable[..., list[Any]]
) -> None:
    path = write(tmp_path / "a.mp4", 30, size=(130, 98))
    (process,) = opened(path, slots=2)
    reader = process.readers[0]
    reader.start()
    held = [reader.next(), reader.next()]
    waiting = threading.Thread(target=lambda: held.append(reader.next()))
    waiting.start()
    reader.close()
    waiting.join(5)
    assert held[2] is None
    assert reader.failure is None
    assert numbers(held[:2]) == [0, 1]


def test_what_cannot_be_decoded_there_is_refused_with_the_reason(
    tmp_path: Path, gpu: Gpu, opened: Callable[..., list[Any]]
) -> None:
    good = write(tmp_path / "a.mp4", 3, size=(130, 98))
    (process,) = opened(write(tmp_path / "a.mkv", 3, codec="ffv1"), good, tmp_path / "none.mp4")
    assert numbers(read_through(process.readers[1])) == [0, 1, 2]
    assert "ffv1" in process.refusals[0]
    assert "none.mp4" in process.refusals[2]


def test_a_stream_that_breaks_says_why_after_its_last_picture(
    tmp_path: Path, gpu: Gpu, opened: Callable[..., list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    packets = gpu.nvdec_cuda.NvdecDecoder._packets

    def some(self: Any) -> Iterator[Any]:
        for number, packet in enumerate(packets(self)):
            if number == 5:
                yield None
                raise self._failure("cannot read on: gone")
            yield packet

    monkeypatch.setattr(gpu.nvdec_cuda.NvdecDecoder, "_packets", some)
    (process,) = opened(write(tmp_path / "a.mp4", 9, size=(130, 98), options={"bf": "0"}))
    reader = process.readers[0]
    assert numbers(read_through(reader)) == [0, 1, 2, 3, 4]
    assert str(reader.failure) == str(StageError("decode", "cannot read on: gone", stream="cam"))
    assert reader.counts.errors == 1


def test_no_room_for_a_new_size_ends_the_source_and_not_the_run(
    tmp_path: Path, gpu: Gpu, opened: Callable[..., list[Any]]
) -> None:
    (process,) = opened(of_sizes(tmp_path, (130, 98), (202, 134)), slots=8)
    gpu.host.limit_bytes = gpu.host.live_bytes
    reader = process.readers[0]
    assert len(read_through(reader)) == 7
    assert str(reader.failure) == (
        "decode (cam): no room on the GPU for 8 surfaces of 202x134: cudaErrorMemoryAllocation: out of memory"
    )


def test_without_room_for_its_first_size_a_source_is_left_to_the_run(
    tmp_path: Path, gpu: Gpu, opened: Callable[..., list[Any]]
) -> None:
    gpu.host.limit_bytes = 100_000
    (process,) = opened(write(tmp_path / "a.mp4", 3, size=(130, 98)), slots=4)
    assert process.refusals == {
        0: "no room on the GPU for 4 surfaces of 130x98: cudaErrorMemoryAllocation: out of memory"
    }


def test_a_mistake_of_ours_ends_the_run(
    tmp_path: Path, gpu: Gpu, opened: Callable[..., list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    frame_of = gpu.nvdec_cuda.NvdecDecoder._frame

    def wrong(self: Any, picture: Any, pts: int) -> Any:
        return 1 / 0 if pts else frame_of(self, picture, pts)

    monkeypatch.setattr(gpu.nvdec_cuda.NvdecDecoder, "_frame", wrong)
    (process,) = opened(write(tmp_path / "a.mp4", 9, size=(130, 98)))
    reader = process.readers[0]
    reader.start()
    assert numbers([reader.next()]) == [0]
    with pytest.raises(RuntimeError, match="the process that decodes cam: ZeroDivisionError: division by zero"):
        reader.next()


# Processes that are none of ours: they do not need a GPU


def dies_at_once(*_: object) -> None:
    os._exit(3)


def opens_and_waits(connection: Any, jobs: Any, *_: object) -> None:
    for job in jobs:
        connection.send(Opened(job.stream, StreamInfo((64, 48), Fraction(25), 1.0, "h264", "nvdec h264")))
    connection.recv()
    os.kill(os.getpid(), signal.SIGKILL)


def logs_and_refuses(connection: Any, jobs: Any, *_: object) -> None:
    from tiler.decode.handover import Logged, Refused

    connection.send(Logged("tiler.decode.source", logging.WARNING, "stream cam: damaged data, decoding goes on"))
    for job in jobs:
        connection.send(Refused(job.stream, "no"))
    connection.recv()


def test_a_process_that_dies_as_it_starts_refuses_its_sources(
    gpu: Gpu, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(gpu.export_cuda, "main", dies_at_once)
    (process,) = gpu.import_cuda.open_processes([(0, source_of("a.mp4"), "a.mp4")], 1, 4, DEVICE, None)
    assert process.refusals == {0: "the process tiler-decode-0 ended unexpectedly (exit code 3)"}
    assert "decoded by the run itself: cam" in caplog.text
    process.close()


def test_a_process_that_is_killed_ends_its_sources(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu.export_cuda, "main", opens_and_waits)
    sources = [(place, source_of("a.mp4"), "a.mp4") for place in range(2)]
    (process,) = gpu.import_cuda.open_processes(sources, 1, 4, DEVICE, None)
    waiting: list[Any] = []
    thread = threading.Thread(target=lambda: waiting.append(process.readers[1].next()))
    thread.start()
    process.readers[0].start()
    assert process.readers[0].next() is None
    process.readers[1].start()  # there is nobody to hear it
    thread.join(10)
    assert waiting == [None]
    for reader in process.readers.values():
        assert "ended unexpectedly (exit code -9)" in str(reader.failure)
        assert reader.counts.errors == 1
    process.close()


def test_its_log_is_the_runs(gpu: Gpu, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(gpu.export_cuda, "main", logs_and_refuses)
    (process,) = gpu.import_cuda.open_processes([(0, source_of("a.mp4"), "a.mp4")], 1, 4, DEVICE, None)
    process.close()
    assert process.refusals == {0: "no"}
    assert "stream cam: damaged data, decoding goes on" in caplog.text


def test_files_are_decoded_there_but_neither_images_nor_what_keeps_to_a_clock(
    tmp_path: Path, gpu: Gpu, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.mp4", "b.png"):
        (tmp_path / name).touch()
    (tmp_path / "c.yaml").write_text(
        "decode_processes: 2\nsources:\n"
        "  - {id: clip, uri: a.mp4}\n  - {id: logo, uri: b.png}\n  - {id: drawn, uri: 'sample://duo?seconds=1'}\n"
    )
    clip, drawn = gpu.import_cuda.files_of(load(tmp_path / "c.yaml"))
    assert (clip[0], clip[1].id, clip[2]) == (0, "clip", str(tmp_path / "a.mp4"))
    assert (drawn[0], drawn[1].id) == (2, "drawn")
    assert Path(drawn[2]).is_file()
    assert "threads" not in caplog.text
    (tmp_path / "c.yaml").write_text("decode_processes: 2\nsources: [{id: cam, uri: a.mp4, realtime: true}]\n")
    assert gpu.import_cuda.files_of(load(tmp_path / "c.yaml")) == []
    assert "this run decodes on threads" in caplog.text
