"""Score the tracker on public sequences in MOT format: HOTA, DetA, AssA, IDF1, MOTA, ID switches.

    python tools/eval_tracking.py --data DIR
    python tools/eval_tracking.py --data DIR --results DIR
    python tools/eval_tracking.py --data DIR --peers --fps 25 --fps PETS-S3-MF1=7
    python tools/eval_tracking.py --data DIR --peers --pairs DIR/pairs.csv
    python tools/eval_tracking.py --data DIR --pairs DIR/pairs.csv --slots --cue 80 --cue 95

A sequence is a folder, at any depth of DIR, with gt/gt.txt and det/*.txt (the first by
name). Its frame rate comes from --fps NAME=RATE, seqinfo.ini (frameRate) or --fps. With
--results no tracker runs: SEQUENCE.txt, or any file NAME.SEQUENCE.txt, in that folder is
scored. The measures are computed by TrackEval (Luiten et al., IJCV 2021) as for MOT17.

--peers runs roboflow's `trackers` and `supervision` beside ours, on the same detections,
each with the settings that it ships with. --pairs asks another question, see
`tools/tracking_pairs.py`: is who is who still known after two people crossed? With --slots the
two have slots, and are told apart by a simulated cue too, see `tools/slot_pairs.py`.
"""

from __future__ import annotations

import configparser
import contextlib
import io
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import trackeval as untyped_trackeval
from slot_pairs import SlotTally, score_slots
from tracking_pairs import read_pairs, score_pairs
from tracking_peers import OURS, Entrant, entrants

from tiler.errors import InputError
from tiler.track.mot import read_detections
from tiler.types import Detections

trackeval: Any = untyped_trackeval
Rows = npt.NDArray[np.float64]

_FRAME, _ID, _LEFT, _TOP, _WIDTH, _HEIGHT, _SCORE = range(7)
_MOT15_COLUMNS = 10
"""Ground truth of MOT15 has world coordinates where later ones have class and visibility."""

_MEASURES = ("HOTA", "DetA", "AssA", "IDF1", "MOTA", "IDSW")

_ELSE = ""
"""Names the frame rate of the sequences that none is given for."""

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


def find_sequences(data: Path, names: tuple[str, ...], fps: dict[str, float]) -> list[Sequence]:
    found = []
    for truth in sorted(data.rglob("gt/gt.txt")):
        folder = truth.parent.parent
        if names and folder.name not in names:
            continue
        info = configparser.ConfigParser()
        info.read(folder / "seqinfo.ini")
        rate = info.getfloat("Sequence", "frameRate", fallback=fps[_ELSE])
        length = int(read_rows(truth)[:, _FRAME].max())
        found.append(
            Sequence(
                name=folder.name,
                folder=folder,
                fps=fps.get(folder.name, rate),
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


def pictures(sequence: Sequence) -> list[Detections]:
    """Detections of each frame from 1."""
    assert sequence.detections is not None
    given = read_detections(sequence.detections)
    return [given.get(frame, Detections.empty()) for frame in range(1, sequence.length + 1)]


def track(entrant: Entrant, sequence: Sequence, every: int) -> tuple[str, float]:
    """Result text in MOT format, and the tracker's mean milliseconds a frame."""
    update = entrant.start(sequence.fps)
    lines = []
    spent = 0.0
    for index, detections in enumerate(pictures(sequence)):
        start = time.perf_counter()
        shown = update(detections if index % every == 0 else None)
        spent += time.perf_counter() - start
        for track_id, (x0, y0, x1, y1), score in zip(*shown, strict=True):
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


def measures(scores: dict[str, Any]) -> list[float]:
    """HOTA, DetA, AssA, IDF1, MOTA in percent, ID switches."""
    hota, clear, identity = scores["HOTA"], scores["CLEAR"], scores["Identity"]
    percent = [hota["HOTA"].mean(), hota["DetA"].mean(), hota["AssA"].mean(), identity["IDF1"], clear["MOTA"]]
    return [*(100 * float(value) for value in percent), float(clear["IDSW"])]


def table_row(name: str, values: list[float], *more: str) -> str:
    cells = [name, *(f"{value:.1f}" for value in values[:-1]), f"{values[-1]:.0f}", *more]
    return "| " + " | ".join(cells) + " |"


def say_table(*columns: str) -> None:
    click.echo("| " + " | ".join(columns) + " |")
    click.echo("| --- |" + " ---: |" * (len(columns) - 1))


def say_one(sequences: list[Sequence], scores: dict[str, Any], cost: dict[str, float]) -> None:
    say_table("sequence", *_MEASURES, "ms/frame")
    for sequence in sequences:
        spent = f"{cost[sequence.name]:.2f}" if sequence.name in cost else ""
        click.echo(table_row(sequence.name, measures(scores[sequence.name]["pedestrian"]), spent))
    if len(sequences) > 1:
        click.echo(table_row("all", measures(scores["COMBINED_SEQ"]["pedestrian"]), ""))


def say_many(sequences: list[Sequence], scores: dict[str, dict[str, Any]], cost: dict[str, dict[str, float]]) -> None:
    """The trackers side by side: means, then each measure that is asked for most by sequence."""
    every = {
        name: np.array([measures(own[sequence.name]["pedestrian"]) for sequence in sequences])
        for name, own in scores.items()
    }
    click.echo(f"Mean of {len(sequences)} sequences (ID switches: sum); in brackets all their frames taken together.\n")
    say_table("tracker", *_MEASURES, "ms/frame")
    for name, table in every.items():
        together = measures(scores[name]["COMBINED_SEQ"]["pedestrian"])
        cells = [f"{a:.1f} ({b:.1f})" for a, b in zip(table.mean(axis=0)[:-1], together[:-1], strict=True)]
        cells += [f"{table[:, -1].sum():.0f}", f"{np.mean(list(cost[name].values())):.3f}"]
        click.echo("| " + " | ".join([name, *cells]) + " |")
    for measure in ("HOTA", "IDF1", "IDSW"):
        column = _MEASURES.index(measure)
        click.echo(f"\n{measure}\n")
        say_table("tracker", *(sequence.name for sequence in sequences))
        for name, table in every.items():
            cells = [f"{value:.0f}" if measure == "IDSW" else f"{value:.1f}" for value in table[:, column]]
            click.echo("| " + " | ".join([name, *cells]) + " |")


def say_pairs(
    data: Path,
    pairs: Path,
    fps: dict[str, float],
    names: list[str],
    lost_s: float | None,
    count: int,
    seeds: int,
    jobs: int,
) -> None:
    sequences = {s.name: (read_rows(s.truth), s.fps) for s in find_sequences(data, (), fps)}
    chosen = read_pairs(pairs, count)
    if missing := sorted({pair.sequence for pair in chosen} - set(sequences)):
        raise click.ClickException(f"{data}: no ground truth of {', '.join(missing)}, which {pairs} needs")
    tallies = score_pairs(chosen, sequences, names, lost_s, seeds, jobs)
    noise = f"mean of {seeds} seeds (least to most)" if seeds > 1 else "one seed"
    crossings = sum(pair.crossings for pair in chosen)
    click.echo(f"{len(chosen)} pairs, {crossings} crossings; {noise}\n")
    say_table("tracker", "id changes", "took the other's id", "pairs with a change", "pairs with a takeover")
    for name, own in tallies.items():
        table = np.array([tally.row() for tally in own])
        cells = [
            f"{column.mean():.1f} ({column.min()} to {column.max()})" if seeds > 1 else str(column[0])
            for column in table.T
        ]
        click.echo("| " + " | ".join([name, *cells]) + " |")


def say_slots(
    data: Path, pairs: Path, fps: dict[str, float], accuracies: tuple[float, ...], count: int, seeds: int, jobs: int
) -> None:
    """Slots of two on the pairs: without a cue, then for each accuracy of it; sums over the seeds."""
    sequences = {s.name: (read_rows(s.truth), s.fps) for s in find_sequences(data, (), fps)}
    chosen = read_pairs(pairs, count)
    tallies = score_slots(chosen, sequences, (None, *(percent / 100 for percent in accuracies)), seeds, jobs)
    crossings = seeds * sum(pair.crossings for pair in chosen)
    click.echo(f"{len(chosen)} pairs, {crossings} crossings in {seeds} seeds\n")
    say_table(
        "cue", "name changes", "took the other's name", "exchanged by an overlap", "of crossings",
        "overlaps", "shown with a name", "with the right one",
    )  # fmt: skip
    for accuracy, own in tallies.items():
        total = SlotTally()
        for tally in own:
            total.add(tally)
        cells = [
            "none, motion alone" if accuracy is None else f"{100 * accuracy:g} %",
            *(str(value) for value in (total.changes, total.takeovers, total.exchanged)),
            f"{100 * total.exchanged / crossings:.2f} %",
            str(total.overlaps),
            f"{100 * total.named / total.seen:.1f} %",
            f"{100 * total.right / total.named:.1f} %",
        ]
        click.echo("| " + " | ".join(cells) + " |")


def read_rates(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> dict[str, float]:
    rates = {_ELSE: 25.0}
    for text in given:
        name, _, rate = text.rpartition("=")
        try:
            rates[name] = float(rate)
        except ValueError:
            rates[name] = 0
        if not 0 < rates[name] <= 1000:
            raise click.BadParameter(f"{text!r}; accepted: RATE or NAME=RATE, above 0, at most 1000")
    return rates


@click.command(help=(__doc__ or "").split("\n", 1)[0])
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True,
              help="Folder that holds the sequences.")
@click.option("--results", type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="Score these MOT text files instead of running the tracker.")
@click.option("--sequence", "names", multiple=True,
              help="Name of a sequence; may be repeated.  [default: all]")
@click.option("--fps", multiple=True, metavar="[NAME=]RATE", callback=read_rates,
              help="Frame rate of sequence NAME, or of those where seqinfo.ini gives none.  [default: 25]")
@click.option("--every", type=click.IntRange(min=1), default=1, show_default=True,
              help="Detections on every k-th frame only.")
@click.option("--peers", is_flag=True, help="Run the other trackers, too.")
@click.option("--lost", "lost_s", type=click.FloatRange(min=0, min_open=True), metavar="S",
              help="Seconds that every tracker remembers a lost track.  [default: what each ships with]")
@click.option("--pairs", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Run pairs of people of this table instead: who is who after a crossing?")
@click.option("--count", type=click.IntRange(min=1), default=150, show_default=True,
              help="Pairs to run, those with the most crossings.")
@click.option("--seeds", type=click.IntRange(min=1), default=1, show_default=True,
              help="Times to run the pairs, with other noise.")
@click.option("--slots", is_flag=True, help="With --pairs: run slots of two, without a cue and with those of --cue.")
@click.option("--cue", type=click.FloatRange(50, 100), multiple=True, metavar="PERCENT",
              help="Accuracy of a single crop's cue of appearance; may be repeated.  [default: 80 85 90 95 100]")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True,
              help="Processes to share the pairs.")
def main(
    data: Path,
    results: Path | None,
    names: tuple[str, ...],
    fps: dict[str, float],
    every: int,
    peers: bool,
    lost_s: float | None,
    pairs: Path | None,
    count: int,
    seeds: int,
    slots: bool,
    cue: tuple[float, ...],
    jobs: int,
) -> None:
    if slots and (peers or not pairs):
        raise click.UsageError("--slots: with --pairs, and not with --peers")
    if pairs and slots:
        say_slots(data, pairs, fps, cue or (80, 85, 90, 95, 100), count, seeds, jobs)
        return
    if peers and (results or every > 1):
        raise click.UsageError("--peers: not with --results; nor with --every, as peers do not predict between")
    running, missing = entrants(lost_s)
    running = running if peers else running[:1]
    for line in missing if peers else []:
        click.echo(f"missing: {line}", err=True)
    if peers:
        click.echo(", ".join(dict.fromkeys(entrant.package for entrant in running)) + "\n")
    if pairs:
        say_pairs(data, pairs, fps, [entrant.name for entrant in running], lost_s, count, seeds, jobs)
        return
    sequences = find_sequences(data, names, fps)
    if results is None:
        sequences = [sequence for sequence in sequences if sequence.detections]
    if not sequences:
        needed = "gt/gt.txt and det/*.txt" if results is None else "gt/gt.txt"
        raise click.ClickException(f"{data}: no sequence found: expected folders with {needed}")
    if results is not None:
        say_one(sequences, evaluate(sequences, {s.name: find_result(results, s).read_text() for s in sequences}), {})
        return
    scores, cost = {}, {}
    for entrant in running:
        ran = {sequence.name: track(entrant, sequence, every) for sequence in sequences}
        cost[entrant.name] = {name: milliseconds for name, (_, milliseconds) in ran.items()}
        scores[entrant.name] = evaluate(sequences, {name: text for name, (text, _) in ran.items()})
    if peers:
        say_many(sequences, scores, cost)
    else:
        say_one(sequences, scores[OURS], cost[OURS])


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(str(error)) from None
