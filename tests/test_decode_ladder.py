"""What the CUDA decoders refuse, the ladder down to the CPU, and the other decoders on it, against fakes."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import pytest
from decode_parts import (
    DEVICE,
    Gpu,
    assert_same,
    cpu_frames,
    interlaced,
    numbers,
    of_sizes,
    read_all,
    source_of,
)
from pictures import write
from PIL import Image
from test_source import until

from tiler.config.models import Source
from tiler.decode.cpu import PyavDecoder
from tiler.decode.keyframe import RefusedError
from tiler.decode.source import SourceReader
from tiler.errors import InputError
from tiler.observe.copies import Copies

pytest_plugins = ("fakes.decode_fixtures",)


def test_what_nvdec_does_not_decode_is_refused(tmp_path: Path, gpu: Gpu) -> None:
    gpu.nvdec.unsupported = {("HEVC", 10)}
    deep = {"codec": "libx265", "pix_fmt": "yuv420p10le"}
    cases = {
        write(tmp_path / "a.mp4", 3, codec="mpeg4"): "it is mpeg4; NVDEC is used for h264, hevc, vp9, av1",
        write(tmp_path / "b.mp4", 3, pix_fmt="yuv422p"): "its samples are yuv422p; only 4:2:0",
        write(tmp_path / "c.mp4", 3, **deep): "this GPU's NVDEC does not decode hevc with 10 bits",
        write(tmp_path / "d.mp4", 3, size=(32, 32)): "it is 32x32; this GPU's NVDEC decodes h264 of 48x16 to 4096x4096",
        interlaced(tmp_path / "e.mkv"): "it is interlaced",
    }
    for path, reason in cases.items():
        with pytest.raises(RefusedError, match=reason):
            gpu.open(path)
    gpu.nvdec.refuses = RuntimeError("Codec not supported on this GPU, error 801")
    with pytest.raises(RefusedError, match="error 801"):
        gpu.open(write(tmp_path / "f.mp4", 3))


def test_the_ladder_ends_on_the_cpu_and_says_why(
    tmp_path: Path, gpu: Gpu, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gpu.refuse_hwaccel(monkeypatch, "no such codec")
    path = write(tmp_path / "a.mp4", 9, codec="mpeg4", size=(203, 135))
    opener = gpu.opener(slots=10)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):  # as in a loop
            decoder = opener(source_of(path), str(path), 1, 1)
            assert decoder.info.decoder == "pyav mpeg4 + upload"
            assert_same(read_all(decoder), cpu_frames(path))
    assert opener.steps == {
        "cam": [
            ("PyNvVideoCodec", "it is mpeg4; NVDEC is used for h264, hevc, vp9, av1"),
            ("PyAV CUDA", "no such codec"),
        ]
    }
    assert [record.getMessage() for record in caplog.records] == [
        "stream cam: PyNvVideoCodec does not decode it: it is mpeg4; NVDEC is used for h264, hevc, vp9, av1",
        "stream cam: PyAV CUDA does not decode it: no such codec",
    ]
    row = gpu.copies.summary(1)["by_name"]["decoded pictures"]
    assert row["direction"] == "up"
    assert (row["copies"], row["bytes"]) == (18, 18 * gpu.surfaces_cuda.surface_bytes(203, 135, False))


def test_without_leave_the_cpu_is_no_way_out(tmp_path: Path, gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu.refuse_hwaccel(monkeypatch, "no such codec")
    path = write(tmp_path / "a.mp4", 3, codec="mpeg4")
    with pytest.raises(InputError) as caught:
        gpu.opener(allow_cpu=False)(source_of(path), str(path), 1, 1)
    assert str(caught.value) == (
        "source cam: the GPU does not decode it (PyNvVideoCodec: it is mpeg4; NVDEC is used for h264, hevc, vp9, av1; "
        "PyAV CUDA: no such codec); to decode it on the CPU, list decode in allow_cpu"
    )


def test_a_wrong_file_is_no_step_down(tmp_path: Path, gpu: Gpu) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"no video" * 100)
    opener = gpu.opener()
    with pytest.raises(InputError, match="cannot open"):
        opener(source_of(path), str(path), 1, 1)
    assert opener.steps == {}


def without_keyframe(folder: Path) -> Path:
    """Nine pictures that refer to one which is not there."""
    cut, options = folder / "cut.mkv", {"g": "30", "bf": "0", "preset": "veryfast"}
    whole = write(folder / "whole.mkv", 10, options=options)
    with av.open(str(whole)) as given, av.open(str(cut), "w") as out:
        video = out.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.dts is not None and not packet.is_keyframe:
                packet.stream = video
                out.mux(packet)
    return cut


def camera(opener: Callable[..., Any], *connections: Path) -> SourceReader:
    """A reader whose camera gives this each time it is reached."""
    left = iter(connections)

    def connect(source: Source, uri: str, stream: int, threads: int) -> Any:
        return opener(source, str(next(left)), stream, threads)

    source = source_of("rtsp://camera/main", reconnect_s=0.01)
    return SourceReader(source, source.uri, 1, 1, live=True, opener=connect)


@pytest.mark.parametrize("backend", ["PyNvVideoCodec", "PyAV CUDA"])
def test_a_live_source_that_is_lost_before_its_first_keyframe_is_no_step_down(
    tmp_path: Path, gpu: Gpu, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, backend: str
) -> None:
    if backend == "PyAV CUDA":
        monkeypatch.setattr(gpu.pyav_cuda.PyavCudaDecoder, "_cuda_context", lambda self: CudaContext(self))
        monkeypatch.setitem(sys.modules, "PyNvVideoCodec", None)
    else:
        gpu.refuse_hwaccel(monkeypatch, "no such codec")
    good = write(tmp_path / "a.h264", 5)
    with camera(gpu.opener(allow_cpu=False), *[without_keyframe(tmp_path)] * 3, *[good] * 9) as reader:
        reader.start()
        until(lambda: reader.finished or reader.counts.read >= 5)
        assert reader.failure is None
        assert reader.info is not None
        assert reader.info.decoder == {"PyNvVideoCodec": "nvdec h264", "PyAV CUDA": "pyav-cuda h264"}[backend]
    assert "decode (cam): no keyframe in 9 packets, then it ended" in caplog.text
    assert f"{backend} does not decode it" not in caplog.text


def test_what_nothing_was_decoded_of_may_still_be_refused(tmp_path: Path, gpu: Gpu) -> None:
    connections = [without_keyframe(tmp_path), *[interlaced(tmp_path / "a.mkv")] * 2]
    with camera(gpu.opener(allow_cpu=False), *connections) as reader:
        reader.start()
        until(lambda: reader.finished)
        assert "PyNvVideoCodec: it is interlaced" in str(reader.failure)
        assert "list decode in allow_cpu" in str(reader.failure)


def test_a_file_without_a_keyframe_is_decoded_on_the_cpu(tmp_path: Path, gpu: Gpu) -> None:
    path = without_keyframe(tmp_path)
    opener = gpu.opener()
    with opener(source_of(path), str(path), 1, 1) as decoder:
        assert decoder.info.decoder == "pyav h264 + upload"
    assert [reason for _, reason in opener.steps["cam"]] == ["no keyframe in 9 packets"] * 2


NVENC = "Failed to load NVENC library: libnvidia-encode.so.1: cannot open shared object file\n\n=== TROUBLESHOOTING ==="


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError(NVENC), "needs the driver's NVENC library even to decode.*NVIDIA_DRIVER_CAPABILITIES"),
        (RuntimeError("Driver version is too old\n\n=== HELP"), "cannot be imported: Driver version is too old$"),
        (ImportError("libcuda.so.1: cannot open"), "cannot be imported: libcuda.so.1"),
        (ModuleNotFoundError("No module", name="PyNvVideoCodec"), r'not installed: pip install "tiler\[cuda\]"'),
    ],
)
def test_a_library_that_cannot_be_imported_is_explained(
    tmp_path: Path, gpu: Gpu, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    class Finder:
        @staticmethod
        def find_spec(name: str, *_: object) -> None:
            if name == "PyNvVideoCodec":
                raise error

    monkeypatch.delitem(sys.modules, "PyNvVideoCodec")
    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    with pytest.raises(RefusedError, match=reason):
        gpu.open(write(tmp_path / "a.mp4", 3))


def test_images_are_uploaded_without_a_word(tmp_path: Path, gpu: Gpu, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (51, 33), (255, 255, 255)).save(path)
    opener = gpu.opener(allow_cpu=False)
    decoder = opener(source_of(path), str(path), 1, 1)
    assert decoder.endless
    assert decoder.info.decoder == "pillow png + upload"
    (frame,) = read_all(decoder)
    frame.ready.synchronize()
    assert frame.y.shape == (33, 51)
    assert frame.u.strides == (52, 2)
    assert int(frame.y[10, 10]) == 235
    assert opener.steps == {}
    assert not caplog.records


# Upload


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le", "gray", "yuv444p"])
def test_uploaded_pictures_are_the_cpu_decoders(tmp_path: Path, gpu: Gpu, pix_fmt: str) -> None:
    size = (202, 133) if pix_fmt == "yuv420p10le" else (201, 133)  # FFmpeg's P010 lacks the last odd column
    path = write(tmp_path / "a.mkv", 9, codec="ffv1", pix_fmt=pix_fmt, size=size)
    copies = Copies()
    ring = gpu.surfaces_cuda.SurfaceRing(10, DEVICE)
    decoder = gpu.upload_cuda.UploadDecoder(PyavDecoder(source_of(path), str(path), 1, 1), ring, copies, DEVICE)
    assert_same(read_all(decoder), cpu_frames(path))
    expected = gpu.surfaces_cuda.surface_bytes(*size, pix_fmt.endswith("10le"))
    assert copies.summary(1)["host_to_device_bytes"] == 9 * expected
    gpu.host.check()


def test_uploaded_pictures_may_change_their_size(tmp_path: Path, gpu: Gpu) -> None:
    path = of_sizes(tmp_path, (160, 96), (202, 134))
    for hold in (True, False):  # dropped at once, the last copies are on their way when the size changes
        ring = gpu.surfaces_cuda.SurfaceRing(7 if hold else 2, DEVICE)
        cpu = PyavDecoder(source_of(path), str(path), 1, 1)
        decoder = gpu.upload_cuda.UploadDecoder(cpu, ring, Copies(), DEVICE)
        if hold:
            assert_same(read_all(decoder), cpu_frames(path))
        while decoder.read() is not None:
            pass
        decoder.close()
        ring.close()
        assert gpu.host.live_bytes == 0
        gpu.host.check()


def test_sound_waits_for_uploaded_pictures_as_it_does_for_others(tmp_path: Path, gpu: Gpu) -> None:
    """FFmpeg's threads hold pictures back; the reader tells the sound how long."""
    path = write(tmp_path / "a.mp4", 20)
    cpu = PyavDecoder(source_of(path), str(path), 1, 4)
    decoder = gpu.upload_cuda.UploadDecoder(cpu, gpu.surfaces_cuda.SurfaceRing(10, DEVICE), Copies(), DEVICE)
    with SourceReader(source_of(path), str(path), 1, 1, live=False, opener=lambda *_: decoder) as reader:
        for _ in range(10):
            assert decoder.read() is not None
        assert reader.lag_s == cpu.lag_s > 0


def test_upload_waits_for_a_surface_and_close_ends_it(tmp_path: Path, gpu: Gpu) -> None:
    path = write(tmp_path / "a.mp4", 9)
    ring = gpu.surfaces_cuda.SurfaceRing(1, DEVICE)
    decoder = gpu.upload_cuda.UploadDecoder(PyavDecoder(source_of(path), str(path), 1, 1), ring, Copies(), DEVICE)
    held = decoder.read()
    result: list[object] = []
    reading = threading.Thread(target=lambda: result.append(decoder.read()))
    reading.start()
    decoder.close()
    decoder.close()
    reading.join(5)
    assert result == [None]
    assert numbers([held]) == [0]
    assert decoder.errors == 0


# FFmpeg's CUDA decoders


class CudaPicture:
    """A picture of FFmpeg's CUDA decoder: its planes lie behind addresses only."""

    format = SimpleNamespace(name="cuda", is_rgb=False, has_palette=False)

    def __init__(self, picture: av.VideoFrame) -> None:
        deep = picture.format.components[0].bits > 8
        self.surface = picture.reformat(format="p010le" if deep else "nv12")
        self.planes = self.surface.planes
        for name in ("pts", "duration", "time_base", "width", "height", "is_corrupt", "colorspace", "color_range"):
            setattr(self, name, getattr(picture, name))


class CudaContext:
    def __init__(self, decoder: Any) -> None:
        self._context = av.CodecContext.create(decoder._video.codec.canonical_name, "r")
        self._context.extradata = decoder._video.codec_context.extradata
        self._context.thread_count = 1
        deep = decoder._video.codec_context.pix_fmt.endswith("10le")
        self.sw_format = SimpleNamespace(name="p010le" if deep else "nv12")

    def decode(self, packet: Any) -> list[CudaPicture]:
        return [CudaPicture(picture) for picture in self._context.decode(packet)]


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "suffix"),
    [("libx264", "yuv420p", "mp4"), ("libx264", "yuv420p", "h264"), ("libx265", "yuv420p10le", "mkv")],
)
def test_ffmpegs_cuda_pictures_are_taken_as_they_lie(
    tmp_path: Path, gpu: Gpu, monkeypatch: pytest.MonkeyPatch, codec: str, pix_fmt: str, suffix: str
) -> None:
    monkeypatch.setattr(gpu.pyav_cuda.PyavCudaDecoder, "_cuda_context", lambda self: CudaContext(self))
    path = write(tmp_path / f"a.{suffix}", 20, codec=codec, pix_fmt=pix_fmt, size=(202, 134))
    sys.modules["PyNvVideoCodec"] = None  # type: ignore[assignment]
    opener = gpu.opener(slots=1)
    decoder = opener(source_of(path), str(path), 1, 1)
    assert decoder.info.decoder == f"pyav-cuda {'h264' if codec == 'libx264' else 'hevc'}"
    assert [backend for backend, _ in opener.steps["cam"]] == ["PyNvVideoCodec"]
    found = read_all(decoder)
    assert_same(found, cpu_frames(path))
    assert found[0].y.ctypes.data == found[0].owner.planes[0].buffer_ptr
    assert gpu.host.recorded[found[0].ready.ptr][0].ptr == 0  # the NULL stream, which FFmpeg fills it on
    assert gpu.host.allocations == 0


def test_ffmpegs_cuda_decoder_refuses_what_is_not_there(
    tmp_path: Path, gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise av.ExternalError(-542398533, "Cannot load libcuda.so.1")

    def opened(path: Path) -> Any:
        return gpu.pyav_cuda.PyavCudaDecoder(source_of(path), str(path), 1, DEVICE)

    path = write(tmp_path / "a.mp4", 3)
    with monkeypatch.context() as patched:
        patched.setattr(gpu.pyav_cuda, "HWAccel", lambda *_, **__: None)
        patched.setattr(gpu.pyav_cuda.av, "CodecContext", SimpleNamespace(create=fails))
        with pytest.raises(RefusedError, match=r"FFmpeg cannot use the CUDA device: Cannot load libcuda\.so\.1"):
            opened(path)
    with pytest.raises(RefusedError, match="it is interlaced"):
        opened(interlaced(tmp_path / "b.mkv"))
    monkeypatch.setattr(gpu.pyav_cuda, "HWAccel", lambda *_, **__: None)
    with pytest.raises(RefusedError, match="FFmpeg has no CUDA decoder for ffv1"):
        opened(write(tmp_path / "c.mkv", 3, codec="ffv1"))
