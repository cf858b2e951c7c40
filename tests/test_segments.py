"""Rows of files: cut at keyframes, named, listed and deleted."""

from __future__ import annotations

import json
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import FPS, counted, stream

from tiler.config.models import MosaicConfig
from tiler.config.outputs import SegmentsOutput
from tiler.errors import InputError
from tiler.output.names import Names
from tiler.output.segments import SegmentWriter
from tiler.types import Packet


def segments(folder: Path, packets: list[Packet], mosaic: MosaicConfig, **keys: Any) -> list[dict[str, Any]]:
    """Write them; gives the index."""
    output = SegmentsOutput.model_validate({"segments": "s-{index}.mp4", **keys})
    writer = SegmentWriter(output, folder / output.segments, folder / "s.jsonl", mosaic, "h264")
    for packet in packets:
        writer.write(packet)
    writer.close()
    return [json.loads(line) for line in (folder / "s.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov"])
def test_segments_are_cut_at_keyframes_play_alone_and_are_listed(tmp_path: Path, suffix: str) -> None:
    packets, mosaic = stream(75)
    before_s = time.time()
    rows = segments(tmp_path, packets, mosaic, segments=f"s-{{index}}.{suffix}", every_s=2)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"s.jsonl", *(f"s-{index:06}.{suffix}" for index in range(4))}
    assert [row["duration_s"] for row in rows] == [2.0, 2.0, 2.0, 1.5]
    assert [row["tick"] for row in rows] == [0, 20, 40, 60]
    for row in rows:
        path = tmp_path / row["name"]
        frames, keyframe, first_s = counted(path)
        assert (frames, keyframe) == (round(row["duration_s"] * FPS), True)
        assert first_s == pytest.approx(0, abs=0.11)  # reordered pictures may delay it by one
        assert row["bytes"] == path.stat().st_size
    starts = [datetime.fromisoformat(row["start"]).timestamp() for row in rows]
    assert starts[0] == pytest.approx(before_s, abs=5)
    assert [after - starts[0] for after in starts] == pytest.approx([0, 2, 4, 6])


def heavier(packet: Packet, by: int) -> Packet:
    """With filler data (ITU-T H.264, 7.3.2.7) at its end: a muxer may leave out mere zeros."""
    filler = b"\0\0\0\1\x0c" + b"\xff" * (by - 6) + b"\x80"
    return Packet(packet.data + filler, packet.pts, packet.dts, packet.keyframe)


def test_segments_by_size_stay_below_it(tmp_path: Path) -> None:
    packets, mosaic = stream(75)
    heavy = [heavier(packet, 9000) for packet in packets]
    rows = segments(tmp_path, heavy, mosaic, max_bytes=250_000)
    assert len(rows) == 4  # two groups of 100 kB each, and a last one
    assert all(row["bytes"] < 250_000 for row in rows)
    assert sum(row["duration_s"] for row in rows) == pytest.approx(7.5)


@pytest.mark.parametrize(
    ("keep", "left"),
    [({"keep_count": 2}, 2), ({"keep_s": 0.001, "keep_count": 9}, 9), ({"keep_bytes": 100_000}, 2)],
    ids=["count", "age", "bytes"],
)
def test_retention_deletes_the_oldest_of_its_own_and_nothing_else(
    tmp_path: Path, keep: dict[str, Any], left: int
) -> None:
    packets, mosaic = stream(75)
    heavy = [heavier(packet, 4000) for packet in packets]
    strangers = [tmp_path / name for name in ("s-000000.mp4", "s-999999.mp4", "holiday.mp4", "s-.mp4")]
    for stranger in strangers:
        stranger.write_bytes(b"not ours")
    rows = segments(tmp_path, heavy, mosaic, every_s=1, **keep)
    assert all(stranger.read_bytes() == b"not ours" for stranger in strangers)
    on_disk = {path.name for path in tmp_path.glob("s-*.mp4")} - {path.name for path in strangers}
    assert on_disk == {row["name"] for row in rows}
    assert len(rows) <= left
    assert rows[-1]["tick"] == 70


def test_a_file_that_was_changed_since_is_no_longer_its_own(tmp_path: Path) -> None:
    packets, mosaic = stream(75)
    rows = segments(tmp_path, packets, mosaic, every_s=1)
    (tmp_path / rows[0]["name"]).write_bytes(b"edited")
    rows = segments(tmp_path, packets, mosaic, every_s=1, keep_count=2)
    assert (tmp_path / "s-000000.mp4").read_bytes() == b"edited"
    assert len(list(tmp_path.glob("*.mp4"))) == 3
    assert len(rows) == 2


def test_a_later_run_goes_on_after_the_files_that_are_there(tmp_path: Path) -> None:
    packets, mosaic = stream(75)
    first = segments(tmp_path, packets, mosaic, every_s=5)
    with (tmp_path / "s.jsonl").open("a") as index:
        index.write('{"name": "s-0')  # a kill while the line was written
    second = segments(tmp_path, packets, mosaic, every_s=5)
    assert second[: len(first)] == first
    assert [row["name"] for row in second] == [f"s-{index:06}.mp4" for index in range(4)]


def test_an_index_that_is_something_else_is_left_alone(tmp_path: Path) -> None:
    packets, mosaic = stream(75)
    (tmp_path / "s.jsonl").write_text('{"stream": "plaza"}\n{"stream": "plaza"}\n')
    with pytest.raises(InputError, match="line 1 is not of an index of segments"):
        segments(tmp_path, packets, mosaic)
    assert "plaza" in (tmp_path / "s.jsonl").read_text()


@settings(max_examples=60)
@given(
    stem=st.lists(st.sampled_from(["{time}", "{index}", "a", "-", ".", "(", "+"]), min_size=1).map("".join),
    other=st.text("abs-.0123456789(+", max_size=24),
)
def test_names_match_their_own_pattern_only(tmp_path_factory: pytest.TempPathFactory, stem: str, other: str) -> None:
    folder = tmp_path_factory.getbasetemp()
    names = Names(folder / f"{stem}.mp4")
    made = names.free(1e9)
    assert names.matches(made.name)
    assert made.parent == folder
    assert not names.matches("x" + made.name)
    if names.matches(other):
        assert other.endswith(".mp4")
