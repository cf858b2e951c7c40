"""What players ask of files: HLS folders, and how HEVC is tagged."""

from __future__ import annotations

from pathlib import Path

import av
import pytest
from recordings import counted, hevc_stream, playable, stream

from tiler.config.models import MosaicConfig
from tiler.config.outputs import ClipOutput, FileOutput, HlsOutput, SegmentsOutput
from tiler.errors import StageError
from tiler.output.base import Output
from tiler.output.clip import Preroll
from tiler.output.file import FileWriter
from tiler.output.live import HlsWriter
from tiler.output.segments import SegmentWriter
from tiler.types import Packet


def write_hevc(folder: Path, kind: str, packets: list[Packet], mosaic: MosaicConfig) -> Path:
    """What players open."""
    path = folder / kind
    writer: Output
    if kind.startswith("clip"):
        keeper = Preroll(ClipOutput(clip="{index}.mp4"), folder / "{index}.mp4", mosaic, "hevc")
        list(map(keeper.write, packets))
        return keeper.save(path)
    if kind == "index.m3u8":
        writer = HlsWriter(HlsOutput(hls="x", segment_s=1, keep_count=0), folder, mosaic, "hevc")
    elif kind.startswith("s-"):
        row = SegmentsOutput(segments="s-{index}" + path.suffix)
        writer = SegmentWriter(row, folder / row.segments, folder / "s.jsonl", mosaic, "hevc")
    else:
        file = FileOutput(file=kind, fragmented=kind != "whole.mp4")
        writer = FileWriter(file, path, mosaic, "hevc", overwrite=False)
    list(map(writer.write, packets))
    writer.close()
    return path


@pytest.mark.parametrize(
    "kind", ["a.mp4", "whole.mp4", "a.mov", "s-000000.mp4", "clip.mp4", "clip.mov", "index.m3u8", "a.mkv"]
)
def test_hevc_is_tagged_as_players_of_apple_want_it_and_has_all_pictures(tmp_path: Path, kind: str) -> None:
    packets, mosaic = hevc_stream(25)
    path = write_hevc(tmp_path, kind, packets, mosaic)
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        tag, description = video.codec_context.codec_tag, video.codec_context.extradata
        samples = [bytes(packet) for packet in container.demux(video) if packet.size]
    assert counted(path)[:2] == (25, True)
    if kind == "a.mkv":  # has no such tags
        return
    assert tag == "hvc1"
    assert description is not None
    assert len(description) > 23  # what is in front of the parameter sets (ISO/IEC 14496-15, 8.3.3.1.2)
    assert not {32, 33, 34} & {sample[4] >> 1 & 63 for sample in samples}  # they must not be in hvc1's samples


def test_hevc_that_begins_without_parameter_sets_plays_from_the_next_keyframe(tmp_path: Path) -> None:
    (first, *others), mosaic = hevc_stream(25)
    bare = first.data[first.data.index(b"\0\0\1\x4e") :]  # from its SEI on
    path = write_hevc(tmp_path, "a.mp4", [Packet(bare, first.pts, first.dts, True), *others], mosaic)
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.codec_tag == "hev1"
    assert playable(path) == 15


@pytest.mark.parametrize("keep", [0, 3])
def test_an_hls_folder_plays_and_keeps_what_it_should(tmp_path: Path, keep: int) -> None:
    packets, mosaic = stream(75)
    (tmp_path / "holiday.m4s").write_bytes(b"not ours")
    writer = HlsWriter(HlsOutput(hls="x", segment_s=1, keep_count=keep), tmp_path, mosaic, "h264")
    for packet in packets:
        writer.write(packet)
    writer.close()
    playlist = (tmp_path / "index.m3u8").read_text()
    listed = [line for line in playlist.splitlines() if line.endswith(".m4s")]
    assert len(listed) == (keep or 8)
    assert "#EXT-X-ENDLIST" in playlist
    assert set(listed) <= {path.name for path in tmp_path.iterdir()}
    assert len(list(tmp_path.glob("*.m4s"))) <= len(listed) + 2  # one that players may still be reading, and holiday
    assert not list(tmp_path.glob("*.tmp"))
    frames, keyframe, _ = counted(tmp_path / "index.m3u8")
    assert keyframe
    assert frames == (75 if keep == 0 else 25)


@pytest.mark.parametrize("keep", [0, 2])
def test_an_hls_folder_keeps_no_more_after_a_restart_and_what_is_not_its_own(tmp_path: Path, keep: int) -> None:
    packets, mosaic = stream(75)
    earlier = [tmp_path / name for name in ("1700000001.m4s", "1700000002.m4s", "1700000099.m4s", "1700000100.m4s.tmp")]
    strangers = [tmp_path / name for name in ("holiday.m4s", "170000001.m4s", "1700000001.m4s.txt", "1700000001.mp4")]
    for path in (*earlier, *strangers):
        path.write_bytes(b"earlier")
    (tmp_path / "1700000003.m4s").symlink_to(strangers[0])
    (tmp_path / "1700000004.m4s").mkdir()
    others = [tmp_path / "1700000003.m4s", tmp_path / "1700000004.m4s", *strangers]
    (tmp_path / "index.m3u8").write_text("#EXTM3U\n#EXTINF:1,\n1700000002.m4s\n#EXTINF:1,\nholiday.m4s\n")
    with HlsWriter(HlsOutput(hls="x", segment_s=1, keep_count=keep), tmp_path, mosaic, "h264") as writer:
        assert [path.exists() for path in earlier] == [keep == 0] * len(earlier)
        list(map(writer.write, packets))
    made = {path for path in tmp_path.glob("*.m4s*") if path not in others}
    assert len(made) == (keep + 1 if keep else 8 + len(earlier))  # one that players may still be reading
    assert all(path.exists() for path in others)


@pytest.mark.parametrize("full", ["segment", "playlist"])
def test_a_full_disk_is_an_error_of_the_hls_folder_and_what_it_lists_plays(tmp_path: Path, full: str) -> None:
    packets, mosaic = stream(75)
    writer = HlsWriter(HlsOutput(hls="x", segment_s=1, keep_count=0), tmp_path, mosaic, "h264")
    for packet in packets[:35]:
        writer.write(packet)
    listed = sorted(path.name for path in tmp_path.glob("*.m4s"))
    name = "index.m3u8" if full == "playlist" else f"{int(listed[-1].partition('.')[0]) + 1}.m4s"
    (tmp_path / f"{name}.tmp").symlink_to("/dev/full")
    expected = f"{tmp_path / name}: No space left on device"
    with pytest.raises(StageError, match=expected):
        list(map(writer.write, packets[35:]))
    with pytest.raises(StageError, match=expected):
        writer.close()
    playlist = (tmp_path / "index.m3u8").read_text()
    assert [line for line in playlist.splitlines() if line.endswith(".m4s")] == listed
    (tmp_path / "ended.m3u8").write_text(f"{playlist}#EXT-X-ENDLIST\n")  # a player would wait for more
    assert counted(tmp_path / "ended.m3u8")[:2] == (10 * len(listed), True)
