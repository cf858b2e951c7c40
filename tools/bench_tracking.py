"""What tracking costs, and how it degrades: ours and the peers of `tracking_peers.py` on the same boxes.

    python tools/bench_tracking.py cost
    python tools/bench_tracking.py degrade --data DIR [--fps NAME=RATE] [--peer NAME] [--sequence NAME]

`cost` times one picture of N people who walk about. `degrade` takes the true boxes of every sequence in MOT format
(see `eval_tracking.py`), with edges off by 2 % of the box, and takes away from them or adds to them: boxes that
the detector misses, boxes where nobody is, half a second out of every three without a picture, 5 pictures a second.
Each tracker runs with the settings that it ships with.
"""

from __future__ import annotations

import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import numpy.typing as npt
from eval_tracking import Sequence, evaluate, find_sequences, measures, read_rates, read_rows, say_table, truth_text
from tracking_peers import OURS, Entrant, entrants

from tiler.types import Detections

Rows = npt.NDArray[np.float64]

_JITTER = 0.02
_GAP_S, _GAP_EVERY_S = 0.5, 3.0
_SLOW_FPS = 5.0


class Case(NamedTuple):
    """How the true boxes are spoilt.

    Attributes:
        name: for the table.
        recall: share of the boxes that is found.
        noise: boxes where nobody is, for each true one.
        gaps: half a second of every three has no picture.
        slow: pictures a second are few.
    """

    name: str
    recall: float = 1.0
    noise: float = 0.0
    gaps: bool = False
    slow: bool = False


CASES = (
    Case("all boxes"),
    *(Case(f"recall {recall:.0%}", recall=recall) for recall in (0.9, 0.8, 0.7, 0.6, 0.5)),
    *(Case(f"noise {noise:.0%}", noise=noise) for noise in (0.1, 0.25, 0.5)),
    Case("gaps of 0.5 s", gaps=True),
    Case("5 fps", slow=True),
    Case("recall 70%, noise 25%, gaps", recall=0.7, noise=0.25, gaps=True),
)


@click.group(help=(__doc__ or "").split("\n", 1)[0])
def main() -> None: ...


@main.command()
@click.option("--people", multiple=True, type=click.IntRange(min=1), default=(20, 100), show_default=True)
@click.option("--frames", type=click.IntRange(min=60), default=600, show_default=True)
def cost(people: tuple[int, ...], frames: int) -> None:
    """Milliseconds a picture: median, after a second of pictures to begin with."""
    running = _running()
    click.echo(f"{platform.machine()}, Python {platform.python_version()}\n")
    say_table("tracker", *(f"{n} people, ms" for n in people), *(f"{n} people: ours is faster" for n in people))
    spent = {one.name: [_median_ms(one, walk(count, frames)) for count in people] for one in running}
    for name, values in spent.items():
        ratios = ("" if name == OURS else f"{v / mine:.1f}x" for v, mine in zip(values, spent[OURS], strict=True))
        click.echo("| " + " | ".join([name, *(f"{value:.3f}" for value in values), *ratios]) + " |")


@main.command()
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--fps", multiple=True, metavar="[NAME=]RATE", callback=read_rates)
@click.option("--peer", "peers", multiple=True, metavar="NAME", help="Run this peer; may be repeated.  [default: all]")
@click.option("--sequence", "names", multiple=True, metavar="NAME", help="May be repeated.  [default: all]")
def degrade(data: Path, fps: dict[str, float], peers: tuple[str, ...], names: tuple[str, ...]) -> None:
    """HOTA, IDF1 and ID switches as detections get worse; means of the sequences, switches summed."""
    sequences = find_sequences(data, names, fps)
    running = [entrant for entrant in _running() if not peers or entrant.name in (OURS, *peers)]
    click.echo(f"{len(sequences)} sequences: {', '.join(sequence.name for sequence in sequences)}\n")
    say_table("detections", *(entrant.name for entrant in running))
    for case in CASES:
        cells = [_scored(case, entrant, sequences) for entrant in running]
        click.echo("| " + " | ".join([case.name, *cells]) + " |")


def walk(people: int, frames: int) -> list[Detections]:
    """Boxes of people who walk about a picture of 1920x1080 and turn at its edges; one in ten is missed."""
    rng = np.random.default_rng(people)
    size = rng.uniform((40, 90), (80, 220), (people, 2))
    room = np.array((1920, 1080)) - size
    place, speed = rng.uniform(0, 1, (people, 2)) * room, rng.normal(0, 3, (people, 2))
    pictures = []
    for _ in range(frames):
        place += speed
        speed[(place < 0) | (place > room)] *= -1
        np.clip(place, 0, room, out=place)
        seen = rng.random(people) < 0.9
        corner = (place + rng.normal(0, 1, place.shape))[seen]
        boxes = np.concatenate((corner, corner + size[seen]), axis=1).astype(np.float32)
        score = rng.uniform(0.5, 0.95, len(boxes)).astype(np.float32)
        pictures.append(Detections(boxes, score, np.zeros(len(boxes), np.int32)))
    return pictures


def _running() -> list[Entrant]:
    running, missing = entrants()
    for line in missing:
        click.echo(f"missing: {line}", err=True)
    return running


def _median_ms(entrant: Entrant, pictures: list[Detections]) -> float:
    update = entrant.start(30.0)
    spent = []
    for detections in pictures:
        start = time.perf_counter()
        update(detections)
        spent.append(time.perf_counter() - start)
    return 1000 * float(np.median(spent[30:]))


def _scored(case: Case, entrant: Entrant, sequences: list[Sequence]) -> str:
    """HOTA / IDF1 / ID switches of a tracker in one case."""
    with tempfile.TemporaryDirectory() as scratch:
        seen = [_shortened(case, sequence, Path(scratch)) for sequence in sequences]
        results = {sequence.name: _tracked(case, entrant, sequence, shown) for sequence, shown in seen}
        scores = evaluate([sequence for sequence, _ in seen], results)
    table = np.array([measures(scores[sequence.name]["pedestrian"]) for sequence in sequences])
    hota, _, _, idf1, _, _ = table.mean(axis=0)
    return f"{hota:.1f} / {idf1:.1f} / {table[:, -1].sum():.0f}"


def _shortened(case: Case, sequence: Sequence, scratch: Path) -> tuple[Sequence, Callable[[int], bool]]:
    """The sequence with the pictures that a case leaves, numbered anew where it is slow; and which frames are shown."""
    rows = read_rows(sequence.truth)
    rows = np.array([list(map(float, line.split(","))) for line in truth_text(rows).splitlines()])
    rows = rows[(rows[:, 6] != 0) & (rows[:, 7] == 1)]
    fps, length = sequence.fps, sequence.length
    if case.slow:
        step = max(1, round(fps / _SLOW_FPS))
        rows = rows[(rows[:, 0] - 1) % step == 0]
        rows[:, 0] = (rows[:, 0] - 1) // step + 1
        fps, length = fps / step, -(-length // step)

    def shown(frame: int) -> bool:
        return not case.gaps or (frame - 1) / fps % _GAP_EVERY_S < _GAP_EVERY_S - _GAP_S

    rows = rows[[shown(int(frame)) for frame in rows[:, 0]]]
    folder = scratch / sequence.name
    (folder / "gt").mkdir(parents=True)
    np.savetxt(folder / "gt" / "gt.txt", rows, fmt="%g", delimiter=",")
    return Sequence(sequence.name, folder, fps, length), shown


def _tracked(case: Case, entrant: Entrant, sequence: Sequence, shown: Callable[[int], bool]) -> str:
    rows = read_rows(sequence.truth)
    rng = np.random.default_rng(sum(map(ord, sequence.name)))
    update = entrant.start(sequence.fps)
    lines = []
    for frame in range(1, sequence.length + 1):
        if not shown(frame):
            update(None)
            continue
        found = update(_spoilt(case, rows[rows[:, 0] == frame], rows, rng))
        for track_id, (x0, y0, x1, y1), score in zip(*found, strict=True):
            lines.append(f"{frame},{track_id},{x0:.2f},{y0:.2f},{x1 - x0:.2f},{y1 - y0:.2f},{score:.4f},-1,-1,-1\n")
    return "".join(lines)


def _spoilt(case: Case, here: Rows, everybody: Rows, rng: np.random.Generator) -> Detections:
    """What the detector sees of the people `here`; boxes of nobody have the size of somebody, somewhere."""
    size = here[:, 4:6]
    corners = np.concatenate((here[:, 2:4], here[:, 2:4] + size), axis=1)
    corners += rng.normal(0, _JITTER, corners.shape) * np.tile(size, 2)
    corners = corners[rng.random(len(here)) < case.recall]
    score = rng.uniform(0.6, 0.95, len(corners))
    extra = int(rng.poisson(case.noise * len(here))) if case.noise else 0
    if extra:
        sizes = everybody[rng.integers(len(everybody), size=extra), 4:6]
        reach = (everybody[:, 2:4] + everybody[:, 4:6]).max(axis=0)
        places = rng.uniform(0, 1, (extra, 2)) * reach - sizes / 2
        corners = np.concatenate((corners, np.concatenate((places, places + sizes), axis=1)))
        score = np.concatenate((score, rng.uniform(0.3, 0.8, extra)))
    return Detections(corners.astype(np.float32), score.astype(np.float32), np.zeros(len(score), np.int32))


if __name__ == "__main__":
    main()
