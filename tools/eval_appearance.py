"""Same or swapped? What appearance says of two people seen again, on videos with ground truth.

    python tools/eval_appearance.py MOT15/TUD-Campus=TUD-Campus_25fps.mp4 PETS-S3-MF1=PETS-S3-MF1_7fps.mp4

Each argument is a folder of MOT data (gt/gt.txt, or any .txt file) and the video that it belongs to. Two people
who are both in view, and both in view again `gap` frames later: do their crops of then, compared with what they
looked like, say who is who? What they looked like is a gallery, the mean of the crops of the last `--gallery`
frames (50: as ReID has it). Crops are the boxes of the ground truth. *Clear* leaves out the crops that the box of
somebody nearer covers by more than `--covered`, as ReID does; *all* does not. A *sum* adds up what `--crops` frames
in a row say.

The contestants: the learned vectors that ship, the histograms that they are made of, and the same with nothing but
their colours. No model is trained here.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt

from tiler.config.models import Source
from tiler.decode.cpu import PyavDecoder
from tiler.kernels.appearance import BINS, CHROMA, FEATURES, LUMA, STRIPES, tables
from tiler.kernels.appearance_cpu import embed, histograms
from tiler.track.appearance import host_place, lay_out, load_matrix
from tiler.types import Float32, Frame

Float64 = npt.NDArray[np.float64]
_PERSON_PX = 8
_COLOURS = len(LUMA) + 2 * len(CHROMA)


@dataclass(frozen=True)
class Seen:
    """Who a frame shows.

    Attributes:
        person: (n,) int64 ids of the ground truth.
        covered: (n,) float64, the part of each box that another covers, at most.
        vectors: by contestant, (n, d) unit rows.
    """

    person: npt.NDArray[np.int64]
    covered: Float64
    vectors: dict[str, Float64]


def read(folder: Path, video: Path) -> Iterator[tuple[Frame, npt.NDArray[np.int64], Float64]]:
    """Each picture with the ids and boxes (n, 4) x0, y0, x1, y1 of its people."""
    rows = np.loadtxt(folder if folder.is_file() else folder / "gt" / "gt.txt", delimiter=",", ndmin=2)
    rows = rows[(rows[:, 6] != 0) & (rows[:, 4:6].min(axis=1) >= _PERSON_PX)]
    with PyavDecoder(Source(id="video", uri=str(video)), str(video), 0, 2) as decoder:
        number = 0
        while (frame := decoder.read()) is not None:
            number += 1
            here = rows[rows[:, 0] == number]
            boxes = np.concatenate((here[:, 2:4], here[:, 2:4] + here[:, 4:6]), axis=1)
            yield frame, here[:, 1].astype(np.int64), boxes


def covered(boxes: Float64) -> Float64:
    """(n,) the largest part of each box that somebody nearer, whose feet are lower in the picture, covers."""
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    common = (np.minimum(boxes[:, None, 2:], boxes[None, :, 2:]) - low).clip(0).prod(axis=2)
    common[boxes[None, :, 3] <= boxes[:, None, 3]] = 0
    part: Float64 = common.max(axis=1, initial=0) / (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return part


def unit(rows: Float64) -> Float64:
    long: Float64 = rows / np.linalg.norm(rows, axis=-1, keepdims=True).clip(1e-12)
    return long


def _learned(histogram: Float32) -> Float64:
    vectors = np.empty((len(histogram), 128), np.float32)
    embed(histogram, load_matrix(), vectors)
    return vectors.astype(np.float64)


def _colours(histogram: Float32) -> Float64:
    return unit(histogram.reshape(-1, STRIPES, BINS)[:, :, :_COLOURS].reshape(len(histogram), -1).astype(np.float64))


def _histograms(histogram: Float32) -> Float64:
    return unit(histogram.astype(np.float64))


ALL = 9.0
"""More than any crop is covered by."""

CONTESTANTS: dict[str, Callable[[Float32], Float64]] = {
    "learned, 128-D": _learned,
    "colour and texture histograms, 456-D": _histograms,
    "colour histograms, 360-D": _colours,
}


def look(folder: Path, video: Path) -> tuple[list[Seen], float]:
    """All frames, and milliseconds that a crop took to become a learned vector."""
    seen, crops, spent = [], 0, 0.0
    for frame, person, boxes in read(folder, video):
        start = time.perf_counter()
        places, own = lay_out([(frame, boxes.astype(np.float32))], host_place)
        histogram = np.empty((len(own), FEATURES), np.float32)
        histograms(places, own, tables(), histogram)
        learned = _learned(histogram)
        if seen:  # the first call compiles
            spent += time.perf_counter() - start
            crops += len(own)
        vectors = {name: learned if make is _learned else make(histogram) for name, make in CONTESTANTS.items()}
        seen.append(Seen(person, covered(boxes), vectors))
    return seen, 1000 * spent / max(crops, 1)


def told_right(
    seen: list[Seen], name: str, gap: int, gallery: int, crops: int, fed: float, asked: float
) -> tuple[int, int]:
    """Right decisions, and all: of crops covered by no more than `asked`, against galleries of those by `fed`."""

    def clear(most: float) -> list[dict[int, Float64]]:
        return [
            {int(p): v for p, v, c in zip(s.person, s.vectors[name], s.covered, strict=True) if c <= most} for s in seen
        ]

    right = total = 0
    feeding, asking = clear(fed), clear(asked)
    for now in range(len(seen) - gap - crops + 1):
        before = feeding[max(0, now - gallery + 1) : now + 1]
        after = asking[now + gap : now + gap + crops]
        there = sorted(set(seen[now].person.tolist()).intersection(set().union(*before), *after))
        mean = {p: unit(np.mean([frame[p] for frame in before if p in frame], axis=0)) for p in there}
        for a, b in itertools.combinations(there, 2):
            said = sum(float((frame[a] - frame[b]) @ (mean[a] - mean[b])) for frame in after)
            right += said > 0
            total += 1
    return right, total


@click.command(help=(__doc__ or "").split("\n", 1)[0])
@click.argument("sequences", nargs=-1, required=True, metavar="FOLDER=VIDEO...")
@click.option("--gap", "gaps", type=int, multiple=True, default=(5, 15, 40), show_default=True, help="Frames.")
@click.option("--gallery", type=click.IntRange(min=1), default=50, show_default=True, help="Most frames of a gallery.")
@click.option("--crops", type=click.IntRange(min=1), default=5, show_default=True, help="Frames of a sum.")
@click.option("--covered", "most", type=click.FloatRange(0, 1), default=0.3, show_default=True,
              help="Most of a clear crop that another box covers.")
def main(sequences: tuple[str, ...], gaps: tuple[int, ...], gallery: int, crops: int, most: float) -> None:
    for text in sequences:
        folder, _, video = text.partition("=")
        seen, milliseconds = look(Path(folder), Path(video))
        click.echo(f"{Path(folder).name}: {len(seen)} frames, {milliseconds:.3f} ms a crop\n")
        ways = [
            ("all", "one crop", 1, 1, ALL, ALL), ("all", "gallery of all", gallery, 1, ALL, ALL),
            ("all", "gallery of clear", gallery, 1, most, ALL), ("clear", "gallery of clear", gallery, 1, most, most),
            (f"clear, sum of {crops}", "gallery of clear", gallery, crops, most, most),
        ]  # fmt: skip
        click.echo("| vectors | crops | against | " + " | ".join(f"{gap} frames" for gap in gaps) + " |")
        click.echo("| --- | --- | --- |" + " ---: |" * len(gaps))
        for name in CONTESTANTS:
            for which, against, frames, summed, fed, asked in ways:
                cells = [told_right(seen, name, gap, frames, summed, fed, asked) for gap in gaps]
                text = " | ".join(f"{100 * r / max(n, 1):.1f} % of {n}" for r, n in cells)
                click.echo(f"| {name} | {which} | {against} | {text} |")
        click.echo()


if __name__ == "__main__":
    main()
