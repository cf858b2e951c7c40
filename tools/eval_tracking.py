"""Score the tracker on public sequences in MOT format: HOTA, DetA, AssA, IDF1, MOTA, ID switches.

    python tools/eval_tracking.py --data DIR
    python tools/eval_tracking.py --data DIR --results DIR

A sequence is a folder, at any depth of DIR, with gt/gt.txt and det/*.txt (the first by
name). Its frame rate comes from seqinfo.ini (frameRate) or --fps. With --results no
tracker runs: SEQUENCE.txt, or any file NAME.SEQUENCE.txt, in that folder is scored.
The measures are computed by TrackEval (Luiten et al., IJCV 2021) as for MOT17.
"""

from __future__ import annotations

import configparser
import contextlib
import io
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import trackeval as untyped_trackeval

from tiler.config.models import DetectorConfig, TrackerConfig
from tiler.track.bytetrack import ByteTracker
from tiler.types import CLOCK_HZ, Detections

trackeval: Any = untyped_trackeval
Rows = npt.NDArray[np.float64]

_FRAME, _ID, _LEFT, _TOP, _WIDTH, _HEIGHT, _SCORE = range(7)
_MOT15_COLUMNS = 10
"""Ground truth of MOT15 has world coordinates where later ones have class and visibility."""

_EVALUATOR_OFF = (
    "USE_PARALLEL",
    "PRINT_RESULTS",
    "PRINT_CONFIG",
    "TIME_PROGRESS",
    "OUTPUT_SUMMARY",
    "OUTPUT_DETAILED",
    "OUTPUT_EMPTY_CLASSES",
    "PLOT_CURVES",
)


@dataclass(frozen=True)
class Sequence:
    name: str
    folder: Path
    fps: float
    length: int

    @property
    def truth(self) -> Path:
        return self.folder / "gt" / "gt.txt"

    @property
    def detections(self) -> Path | None:
        return next(iter(sorted((self.folder / "det").glob("*.txt"))), None)


def find_sequences(data: Path, names: tuple[str, ...], fps: float) -> list[Sequence]:
    found = []
    for truth in sorted(data.rglob("gt/gt.txt")):
        folder = truth.parent.parent
        if names and folder.name not in names:
            continue
        info = configparser.ConfigParser()
        info.read(folder / "seqinfo.ini")
        length = int(read_rows(truth)[:, _FRAME].max())
        found.append(
            Sequence(
                name=folder.name,
                folder=folder,
                fps=info.getfloat("Sequence", "frameRate", fallback=fps),
                length=info.getint("Sequence", "seqLength", fallback=length),
            )
        )
    return found


def read_rows(path: Path) -> Rows:
    if not path.read_text().strip():
        return np.empty((0, _MOT15_COLUMNS))
    return np.loadtxt(path, delimiter=",", ndmin=2)


def truth_text(rows: Rows) -> str:
    """Ground truth as of MOT17: frame, id, box, considered, class (1: pedestrian), visibility."""
    if rows.shape[1] >= _MOT15_COLUMNS:
        rows = rows[:, :9].copy()
        rows[:, _SCORE] = rows[:, _SCORE] != 0
        rows[:, 7:] = 1
    return "".join(",".join(f"{value:g}" for value in row) + "\n" for row in rows)


def pictures(sequence: Sequence) -> Iterator[Detections]:
    """Detections of each frame from 1. Scores that are no probabilities (DPM) go through a logistic curve."""
    assert sequence.detections is not None
    rows = read_rows(sequence.detections)
    score = rows[:, _SCORE]
    if len(score) and (score.min() < 0 or score.max() > 1):
        score = 1 / (1 + np.exp(-2 * (score - 0.2)))
    corners = rows[:, _LEFT : _HEIGHT + 1].copy()
    corners[:, 2:] += corners[:, :2]
    for frame in range(1, sequence.length + 1):
        here = np.flatnonzero(rows[:, _FRAME] == frame)
        here = here[np.argsort(-score[here], kind="stable")]
        yield Detections(
            corners[here].astype(np.float32), score[here].astype(np.float32), np.zeros(len(here), np.int32)
        )


def track(sequence: Sequence, every: int) -> tuple[str, float]:
    """Result text in MOT format, and the tracker's mean milliseconds a frame."""
    tracker = ByteTracker(TrackerConfig(), DetectorConfig().score)
    lines = []
    spent = 0.0
    for index, detections in enumerate(pictures(sequence)):
        start = time.perf_counter()
        pts = round(index * CLOCK_HZ / sequence.fps)
        tracks = tracker.update(detections if index % every == 0 else None, pts)
        spent += time.perf_counter() - start
        for track_id, (x0, y0, x1, y1), score in zip(tracks.track_id, tracks.xyxy, tracks.score, strict=True):
            box = f"{x0:.2f},{y0:.2f},{x1 - x0:.2f},{y1 - y0:.2f}"
            lines.append(f"{index + 1},{track_id},{box},{score:.4f},-1,-1,-1\n")
    return "".join(lines), 1000 * spent / max(sequence.length, 1)


def find_result(results: Path, sequence: Sequence) -> Path:
    named = sorted(results.glob(f"*.{sequence.name}.txt"))
    exact = results / f"{sequence.name}.txt"
    for path in (exact, *named):
        if path.is_file():
            return path
    raise click.ClickException(f"{results}: no result of sequence {sequence.name}: expected {exact.name}")


def evaluate(sequences: list[Sequence], results: dict[str, str]) -> dict[str, Any]:
    """TrackEval's numbers of each sequence and of all together (COMBINED_SEQ)."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        output = root / "results" / "MOT17-train" / "tiler" / "data"
        output.mkdir(parents=True)
        for sequence in sequences:
            gt = root / "gt" / "MOT17-train" / sequence.name
            (gt / "gt").mkdir(parents=True)
            (gt / "gt" / "gt.txt").write_text(truth_text(read_rows(sequence.truth)))
            info = f"[Sequence]\nname={sequence.name}\nseqLength={sequence.length}\n"
            (gt / "seqinfo.ini").write_text(info)
            (output / f"{sequence.name}.txt").write_text(results[sequence.name])
        maps = root / "gt" / "seqmaps"
        maps.mkdir()
        (maps / "MOT17-train.txt").write_text("name\n" + "".join(f"{s.name}\n" for s in sequences))
        where = {"GT_FOLDER": str(root / "gt"), "TRACKERS_FOLDER": str(root / "results")}
        what = {"BENCHMARK": "MOT17", "SPLIT_TO_EVAL": "train", "PRINT_CONFIG": False}
        how = dict.fromkeys(_EVALUATOR_OFF, False) | {"BREAK_ON_ERROR": True}
        metrics = trackeval.metrics
        with contextlib.redirect_stdout(io.StringIO()):
            dataset = trackeval.datasets.MotChallenge2DBox(where | what)
            scores, _ = trackeval.Evaluator(how).evaluate(
                [dataset], [metrics.HOTA(), metrics.CLEAR(), metrics.Identity()]
            )
    by_sequence: dict[str, Any] = scores["MotChallenge2DBox"]["tiler"]
    return by_sequence


def table_row(name: str, scores: dict[str, Any], milliseconds: str) -> str:
    hota, clear, identity = scores["HOTA"], scores["CLEAR"], scores["Identity"]
    percent = [hota["HOTA"].mean(), hota["DetA"].mean(), hota["AssA"].mean(), identity["IDF1"], clear["MOTA"]]
    cells = [name, *(f"{100 * value:.1f}" for value in percent), str(int(clear["IDSW"])), milliseconds]
    return "| " + " | ".join(cells) + " |"


@click.command(help=(__doc__ or "").split("\n", 1)[0])
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True,
              help="Folder that holds the sequences.")
@click.option("--results", type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="Score these MOT text files instead of running the tracker.")
@click.option("--sequence", "names", multiple=True,
              help="Name of a sequence; may be repeated.  [default: all]")
@click.option("--fps", type=click.FloatRange(min=0, min_open=True), default=25.0, show_default=True,
              help="Frame rate where seqinfo.ini gives none.")
@click.option("--every", type=click.IntRange(min=1), default=1, show_default=True,
              help="Detections on every k-th frame only.")
def main(data: Path, results: Path | None, names: tuple[str, ...], fps: float, every: int) -> None:
    sequences = find_sequences(data, names, fps)
    if results is None:
        sequences = [sequence for sequence in sequences if sequence.detections]
    if not sequences:
        needed = "gt/gt.txt and det/*.txt" if results is None else "gt/gt.txt"
        raise click.ClickException(f"{data}: no sequence found: expected folders with {needed}")
    texts, cost = {}, {}
    for sequence in sequences:
        if results is None:
            texts[sequence.name], milliseconds = track(sequence, every)
            cost[sequence.name] = f"{milliseconds:.2f}"
        else:
            texts[sequence.name] = find_result(results, sequence).read_text()
    scores = evaluate(sequences, texts)
    click.echo("| sequence | HOTA | DetA | AssA | IDF1 | MOTA | IDSW | ms/frame |")
    click.echo("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for sequence in sequences:
        click.echo(table_row(sequence.name, scores[sequence.name]["pedestrian"], cost.get(sequence.name, "")))
    if len(sequences) > 1:
        click.echo(table_row("all", scores["COMBINED_SEQ"]["pedestrian"], ""))


if __name__ == "__main__":
    main()
