"""Tracks as text: what is written reads back, byte for byte the same each time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tiler.errors import InputError
from tiler.output.tracks import open_tracks
from tiler.types import Tracks

CLASSES = ["person", "자전거"]
SIZE = (1280, 720)


def tracks(pts: int, *rows: tuple[int, float, float, float, float, float, int]) -> Tracks:
    """Rows of id, x0, y0, x1, y1, score, class_id."""
    table = np.array(rows, np.float64).reshape(-1, 7)
    return Tracks(
        pts,
        table[:, 0].astype(np.int32),
        table[:, 1:5].astype(np.float32),
        table[:, 5].astype(np.float32),
        table[:, 6].astype(np.int32),
    )


PICTURE = tracks(36000, (1, 610.254, 80, 702.5, 361.75, 0.87, 0), (4, -0.001, 5, 10, 20.126, 1.0, 1))


def test_jsonl_is_one_object_per_picture_and_stream(tmp_path: Path) -> None:
    path = tmp_path / "new" / "tracks.jsonl"
    with open_tracks(path, [("plaza", 0), ("gate", 1)], CLASSES) as writer:
        writer.write(0, 12, PICTURE, SIZE)
        writer.write(1, 3, tracks(9001), (640, 480))
        writer.write(1, 4, tracks(12000, (2, 0, 0, 1, 1, 0.5, 9)), (640, 480))
    first, second, third = path.read_text(encoding="utf-8").splitlines()
    assert json.loads(first) == {
        "stream": "plaza",
        "frame": 12,
        "pts": 36000,
        "time_s": 0.4,
        "size": [1280, 720],
        "tracks": [
            {"id": 1, "class": "person", "score": 0.87, "xyxy": [610.25, 80.0, 702.5, 361.75]},
            {"id": 4, "class": "자전거", "score": 1.0, "xyxy": [0.0, 5.0, 10.0, 20.13]},
        ],
    }
    assert "-0.0" not in first
    assert "자전거" in first
    assert second == (
        '{"stream": "gate", "frame": 3, "pts": 9001, "time_s": 0.100011, "size": [640, 480], "tracks": []}'
    )
    assert json.loads(third)["tracks"][0]["class"] == "9"


def test_mot_text_of_one_stream(tmp_path: Path) -> None:
    path = tmp_path / "result.txt"
    with open_tracks(path, [("plaza", 0)], CLASSES) as writer:
        writer.write(0, 0, tracks(0), SIZE)
        writer.write(0, 12, PICTURE, SIZE)
    assert path.read_text().splitlines() == [
        "13,1,610.25,80.00,92.25,281.75,0.8700,-1,-1,-1",
        "13,4,0.00,5.00,10.00,15.13,1.0000,-1,-1,-1",
    ]
    rows = np.loadtxt(path, delimiter=",")
    np.testing.assert_allclose(rows[:, 2:4] + rows[:, 4:6], PICTURE.xyxy[:, 2:], atol=0.01)


def test_mot_text_of_several_streams_is_a_file_each(tmp_path: Path) -> None:
    with open_tracks(tmp_path / "result.txt", [("plaza", 0), ("gate.2", 5)], CLASSES) as writer:
        writer.write(5, 0, PICTURE, SIZE)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["result.gate.2.txt", "result.plaza.txt"]
    assert (tmp_path / "result.plaza.txt").read_bytes() == b""
    assert (tmp_path / "result.gate.2.txt").read_text().startswith("1,1,610.25,")


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt"])
def test_equal_runs_write_equal_bytes(tmp_path: Path, name: str) -> None:
    written = []
    for run in ("first", "second"):
        path = tmp_path / run / name
        with open_tracks(path, [("plaza", 0)], CLASSES) as writer:
            for k in range(50):
                writer.write(0, k, tracks(3000 * k, (1, k / 3, k / 7, k + 40, k + 90, 1 / (k + 1), 0)), SIZE)
        written.append(path.read_bytes())
    assert written[0] == written[1]
    assert b"\r" not in written[0]


def test_lines_reach_the_disk_within_about_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    path = tmp_path / "tracks.jsonl"
    with open_tracks(path, [("plaza", 0)], CLASSES) as writer:
        writer.write(0, 0, PICTURE, SIZE)
        now[0] += 1.5
        writer.write(0, 1, PICTURE, SIZE)
        assert len(path.read_text(encoding="utf-8").splitlines()) == 2


def test_close_may_be_called_twice(tmp_path: Path) -> None:
    writer = open_tracks(tmp_path / "tracks.jsonl", [("plaza", 0)], CLASSES)
    writer.close()
    writer.close()


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"tracks\.csv.*\.jsonl or \.txt"):
        open_tracks(tmp_path / "tracks.csv", [("plaza", 0)], CLASSES)


@pytest.mark.parametrize(("name", "existing"), [("t.jsonl", "t.jsonl"), ("t.txt", "t.gate.txt")])
def test_an_existing_file_needs_overwrite(tmp_path: Path, name: str, existing: str) -> None:
    (tmp_path / existing).write_text("precious")
    streams = [("plaza", 0), ("gate", 1)]
    with pytest.raises(InputError, match="--overwrite"):
        open_tracks(tmp_path / name, streams, CLASSES)
    assert [file.name for file in tmp_path.iterdir()] == [existing]
    assert (tmp_path / existing).read_text() == "precious"
    open_tracks(tmp_path / name, streams, CLASSES, overwrite=True).close()
    assert (tmp_path / existing).read_text() == ""


def test_an_unwritable_path_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="output"):
        open_tracks(tmp_path / "file" / "t.jsonl", [("plaza", 0)], CLASSES)
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(InputError, match="folder"):
        open_tracks(tmp_path / "folder.jsonl", [("plaza", 0)], CLASSES, overwrite=True)
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "nowhere" / "t.jsonl")
    with pytest.raises(InputError, match="cannot be written"):
        open_tracks(tmp_path / "link.jsonl", [("plaza", 0)], CLASSES)


@pytest.mark.parametrize(("name", "files"), [("t.jsonl", ["t.jsonl"]), ("t.txt", ["t.gate.txt", "t.plaza.txt"])])
def test_a_stream_that_joins_is_written_under_its_own_name(tmp_path: Path, name: str, files: list[str]) -> None:
    with open_tracks(tmp_path / name, [("plaza", 0)], CLASSES, slots={0: ("left",)}, more=True) as writer:
        writer.write(0, 0, PICTURE, SIZE)
        writer.join(3, "gate")
        writer.write(3, 0, PICTURE, SIZE)
        writer.leave(0)
        writer.leave(0)
        writer.write(3, 1, PICTURE, SIZE)
    assert sorted(path.name for path in tmp_path.iterdir()) == files
    last = (tmp_path / files[0]).read_text().splitlines()[-1]
    assert last.startswith('{"stream": "gate", "frame": 1' if name == "t.jsonl" else "2,4,")
    assert '"slot"' not in last


def test_a_stream_that_joins_replaces_no_file_even_if_others_may(tmp_path: Path) -> None:
    (tmp_path / "t.gate.txt").write_text("precious")
    with open_tracks(tmp_path / "t.txt", [("plaza", 0)], CLASSES, more=True, overwrite=True) as writer:
        with pytest.raises(InputError, match=r"t\.gate\.txt: exists"):
            writer.join(3, "gate")
        writer.leave(3)
        writer.join(3, "yard")
        writer.write(3, 0, PICTURE, SIZE)
    assert (tmp_path / "t.gate.txt").read_text() == "precious"
    assert (tmp_path / "t.yard.txt").read_text() != ""
