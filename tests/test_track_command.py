"""`tiler track`: MOT text in, MOT text out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from tiler.cli import main
from tiler.config.models import DetectorConfig, TrackerConfig
from tiler.errors import InputError
from tiler.track.bytetrack import ByteTracker
from tiler.track.mot import follow, read_detections
from tiler.types import CLOCK_HZ


def track(path: Path, output: Path, *more: str, fps: str = "25") -> Result:
    return CliRunner().invoke(main, ["track", str(path), "--fps", fps, "-o", str(output), *more])


def write(folder: Path, text: str, name: str = "det.txt") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def two_people(frames: int, score: float = 0.9, without: frozenset[int] = frozenset()) -> str:
    """One goes right, one goes left, in lanes of their own; both unseen in the frames `without`."""
    lines = []
    for frame in range(1, frames + 1):
        if frame not in without:
            lines.append(f"{frame},-1,{10 + 4 * frame},100,40,100,{score},-1,-1,-1\n")
            lines.append(f"{frame},-1,{400 - 4 * frame},300,40,100,{score},-1,-1,-1\n")
    return "".join(lines)


def rows(path: Path) -> np.ndarray:
    return np.loadtxt(path, delimiter=",", ndmin=2)


def test_two_people_keep_their_ids_through_a_gap(tmp_path: Path) -> None:
    output = tmp_path / "new" / "out.txt"
    result = track(write(tmp_path, two_people(60, without=frozenset(range(20, 30)))), output)
    assert result.exit_code == 0, result.output
    assert result.output == f"60 frames, 2 identities\nwrote {output}\n"
    table = rows(output)
    assert table.shape == (2 * 50, 10)
    for track_id, top, step in ((1, 100, 4), (2, 300, -4)):
        own = table[table[:, 1] == track_id]
        assert own[:, 0].tolist() == [*range(1, 20), *range(30, 61)]
        np.testing.assert_allclose(own[:, 3], top, atol=1)
        assert np.sign(own[-1, 2] - own[0, 2]) == np.sign(step)


def test_it_is_the_tracker_of_a_run(tmp_path: Path) -> None:
    path, output = write(tmp_path, two_people(30)), tmp_path / "out.txt"
    assert track(path, output, fps="12.5").exit_code == 0
    detections = read_detections(path)
    tracker = ByteTracker(TrackerConfig(), DetectorConfig().score)
    expected = [tracker.update(detections[frame], round((frame - 1) * CLOCK_HZ / 12.5)) for frame in range(1, 31)]
    table = rows(output)
    assert table[:, 1].tolist() == [int(n) for tracks in expected for n in tracks.track_id]
    corners = np.concatenate([tracks.xyxy for tracks in expected])
    np.testing.assert_allclose(table[:, 2:4], corners[:, :2], atol=0.006)
    np.testing.assert_allclose(table[:, 4:6], corners[:, 2:] - corners[:, :2], atol=0.011)


def test_the_frame_rate_says_how_long_a_gap_is(tmp_path: Path) -> None:
    path = write(tmp_path, two_people(60, without=frozenset(range(20, 40))))
    found = [track(path, tmp_path / f"{fps}.txt", fps=fps).output.split(",")[1].split()[0] for fps in ("30", "5")]
    assert found == ["2", "4"]


@pytest.mark.parametrize("text", ["", "\n\n"], ids=["empty", "blank lines"])
def test_no_detections_give_no_tracks(tmp_path: Path, text: str) -> None:
    output = tmp_path / "out.txt"
    assert track(write(tmp_path, text), output).output == f"0 frames, 0 identities\nwrote {output}\n"
    assert output.read_bytes() == b""


def test_lines_may_be_in_any_order_and_carry_a_mark_blanks_and_more_columns(tmp_path: Path) -> None:
    tidy = write(tmp_path, two_people(20), "tidy.txt")
    lines = [line.replace(",", " , ") + ",7" for line in two_people(20).splitlines()]
    odd = write(tmp_path, "\ufeff" + "\r\n\r\n".join(reversed(lines)), "odd.txt")
    for path in (tidy, odd):
        assert track(path, path.with_suffix(".out.txt")).exit_code == 0
    assert tidy.with_suffix(".out.txt").read_bytes() == odd.with_suffix(".out.txt").read_bytes()


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        (("0.25", "1"), [1.0, 0.25]),
        (("-1", "-1"), [1.0, 1.0]),
        (("2.2", "0.2"), [1 / (1 + np.exp(-4)), 0.5]),
        (("-1e300", "1e300"), [1.0, 0.0]),
    ],
    ids=["probabilities", "unknown", "DPM", "absurd"],
)
def test_scores_become_probabilities_best_first(
    tmp_path: Path, scores: tuple[str, str], expected: list[float]
) -> None:
    path = write(tmp_path, "".join(f"3,-1,1,2,30,40,{score}\n" for score in scores))
    detections = read_detections(path)
    assert list(detections) == [3]
    np.testing.assert_allclose(detections[3].score, expected, atol=1e-6)
    assert detections[3].xyxy.tolist() == [[1, 2, 31, 42]] * 2


def test_huge_boxes_and_boxes_without_area_are_survived(tmp_path: Path) -> None:
    path = write(tmp_path, "1,-1,-1e300,-1e300,1e308,1e308,1\n2,-1,5,5,0,-3,1\n")
    assert track(path, tmp_path / "out.txt").exit_code == 0
    assert np.isfinite(rows(tmp_path / "out.txt")).all()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("2,-1,1,2,3,4", "'2,-1,1,2,3,4': expected numbers: frame,id,left,top,width,height,score"),
        ("2,-1,1,2,three,4,1", "expected numbers"),
        ("2,-1,1,2,nan,4,1", "expected numbers"),
        ("2 -1 1 2 3 4 1", "expected numbers"),
        ("0,-1,1,2,3,4,1", "frame 0; accepted: whole numbers, 1 to 10000000"),
        ("1.5,-1,1,2,3,4,1", "frame 1.5; accepted: whole numbers"),
        ("1e12,-1,1,2,3,4,1", "frame 1e12; accepted: whole numbers"),
    ],
)
def test_a_line_that_is_no_detection_is_told_with_its_number(tmp_path: Path, line: str, said: str) -> None:
    path, output = write(tmp_path, "1,-1,1,2,30,40,1\n\n" + line + "\n"), tmp_path / "out.txt"
    result = track(path, output)
    assert result.exit_code == 2
    assert result.output.startswith(f"{path}:3: ")
    assert said in result.output
    assert not output.exists()


def test_files_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    missing = track(tmp_path / "none.txt", tmp_path / "out.txt")
    assert (missing.exit_code, missing.output) == (2, f"detections {tmp_path / 'none.txt'}: no such file\n")
    (tmp_path / "film.mp4").write_bytes(b"\x00\xff\xfe")
    assert "is no text" in track(tmp_path / "film.mp4", tmp_path / "out.txt").output
    assert "cannot be read" in track(tmp_path, tmp_path / "out.txt").output


def test_the_frame_rate_is_needed_and_checked(tmp_path: Path) -> None:
    path, output = write(tmp_path, two_people(5)), write(tmp_path, "mine", "out.txt")
    result = CliRunner().invoke(main, ["track", str(path), "-o", str(output)])
    assert result.exit_code == 2
    assert "Missing option '--fps'" in result.output
    for fps in ("0", "-25", "nan", "inf", "1001"):
        result = track(path, output, "--overwrite", fps=fps)
        assert result.exit_code == 2
        assert result.output == f"--fps: {fps}; accepted: above 0, at most 1000\n"
    assert output.read_text() == "mine"


def test_an_output_that_exists_is_kept_unless_told_otherwise(tmp_path: Path) -> None:
    path, output = write(tmp_path, two_people(5)), write(tmp_path, "mine", "out.txt")
    result = track(path, output)
    assert result.exit_code == 2
    assert "--overwrite" in result.output
    assert output.read_text() == "mine"
    assert track(path, output, "--overwrite").exit_code == 0
    assert len(rows(output)) == 10


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("closed/out.txt", "Permission denied"),
        ("x" * 300 + ".txt", "File name too long"),
        ("loop/out.txt", "Too many levels of symbolic links"),
    ],
)
def test_an_output_that_cannot_be_written_is_told(closed: Path, place: str, said: str) -> None:
    (closed.parent / "loop").symlink_to("loop")
    output = closed.parent / place
    result = track(write(closed.parent, two_people(5)), output)
    assert result.exit_code == 2
    assert result.output == f"output {output}: cannot be written: {said}\n"


def test_the_output_is_mot_text_and_not_the_input(tmp_path: Path) -> None:
    path = write(tmp_path, two_people(5))
    assert "ends in .txt" in track(path, tmp_path / "out.jsonl").output
    assert "is the file of detections" in track(path, path, "--overwrite").output
    (tmp_path / "hard.txt").hardlink_to(path)
    assert "is the file of detections" in track(path, tmp_path / "hard.txt", "--overwrite").output
    assert path.read_text() == two_people(5)


def test_follow_goes_on_to_the_last_frame(tmp_path: Path) -> None:
    detections = read_detections(write(tmp_path, two_people(3)))
    tracker = ByteTracker(TrackerConfig(), DetectorConfig().score)
    counts = [(frame, len(tracks)) for frame, tracks in follow(detections, 25, tracker, last=5)]
    assert counts == [(1, 2), (2, 2), (3, 2), (4, 0), (5, 0)]
    with pytest.raises(InputError, match="--fps: 0; accepted"):
        follow(detections, 0, tracker)
