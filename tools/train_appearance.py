"""Learn the matrix of the appearance kernel from drawn people: minutes on two cores, NumPy and SciPy alone.

    python tools/train_appearance.py --scenes 1500 -o engines/models/appearance.npy

W of Note [Appearance] (kernels/appearance_cpu.py) is linear discriminant analysis after Fisher, as Belhumeur et
al. used it for faces ("Eigenfaces vs. Fisherfaces", PAMI 1997): the directions in which people in front of one
camera differ the most, measured by how much pictures of the same person do. Those of a scene are compared among
themselves only, for a camera's light and colours are the same for everybody. Equal arguments give equal bytes.

Scenes after the last one that was trained on are held out: of each two people there, is who is who told right?
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
from scipy import linalg
from training.identities import Crops, render_scene

from tiler.kernels.appearance import FEATURES, VECTOR
from tiler.types import Float32

Float64 = npt.NDArray[np.float64]


def gather(seed: int, scenes: Iterable[int], jobs: int, label: str) -> Crops:
    numbers = list(scenes)
    with (
        ProcessPoolExecutor(jobs) as pool,
        click.progressbar(pool.map(partial(render_scene, seed), numbers, chunksize=4), len(numbers), label) as found,
    ):
        columns = zip(*found, strict=True)
        return Crops(*(np.concatenate(column) for column in columns))


def learn(crops: Crops, shrink: float) -> Float32:
    """(FEATURES + 1, VECTOR) float32: W transposed, then b.

    Args:
        shrink: of the scatter within a person, this many times its mean goes to every direction.
    """
    histogram = crops.histogram.astype(np.float64)
    who = _numbered(crops)
    count = np.bincount(who)
    mean = _means(histogram, who)
    scene = np.zeros(len(count), np.int64)
    scene[who] = crops.scene
    scene = np.unique(scene, return_inverse=True)[1]
    off = (histogram - mean[who])[count[who] > 1]
    within = off.T @ off / (len(off) - (count > 1).sum())
    apart = (mean - _means(mean, scene)[scene])[np.bincount(scene)[scene] > 1]
    between = apart.T @ apart / len(apart)
    within += shrink * np.trace(within) / FEATURES * np.eye(FEATURES)
    directions = linalg.eigh(between, within)[1][:, : -VECTOR - 1 : -1]
    directions *= np.sign(directions[np.abs(directions).argmax(axis=0), np.arange(VECTOR)])  # either sign would do
    return np.concatenate([directions, -histogram.mean(axis=0)[None] @ directions]).astype(np.float32)


def vectors(histogram: Float32, matrix: Float32 | None) -> Float64:
    """Unit rows; without a matrix, the histograms themselves as such."""
    rows = histogram.astype(np.float64)
    if matrix is not None:
        rows = rows @ matrix[:-1] + matrix[-1]
    unit: Float64 = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def told_right(crops: Crops, rows: Float64) -> tuple[float, int]:
    """The share of right decisions, same or swapped, on two people of a scene: a picture of each against the mean
    of all others of each; and how many decisions."""
    who = _numbered(crops)
    right = total = 0
    for scene in np.unique(crops.scene):
        here = np.unique(who[crops.scene == scene])
        own = [rows[who == person] for person in here]
        for a, b in itertools.combinations([o for o in own if len(o) > 2], 2):
            means = [_unit(o[1:].mean(axis=0)) for o in (a, b)]
            right += int((a[0] - b[0]) @ (means[0] - means[1]) > 0)
            total += 1
    return right / max(total, 1), total


def _unit(row: Float64) -> Float64:
    unit: Float64 = row / np.linalg.norm(row)
    return unit


def _numbered(crops: Crops) -> npt.NDArray[np.int64]:
    """(n,) whose each crop is, people of all scenes numbered from 0."""
    return np.unique(crops.scene * 1000 + crops.person, return_inverse=True)[1].astype(np.int64)


def _means(rows: Float64, group: npt.NDArray[np.int64]) -> Float64:
    total = np.zeros((group.max() + 1, rows.shape[1]))
    np.add.at(total, group, rows)
    return total / np.bincount(group)[:, None]


@click.command(help=(__doc__ or "").split("\n", 1)[0])
@click.option("--scenes", type=click.IntRange(min=2), default=1500, show_default=True, help="To learn from.")
@click.option("--held-out", type=click.IntRange(min=1), default=200, show_default=True, help="To measure on.")
@click.option("--seed", type=int, default=77, show_default=True, help="Who is drawn.")
@click.option("--shrink", type=click.FloatRange(min=0), default=1.0, show_default=True,
              help="How little the scatter within a person is believed.")
@click.option("--jobs", type=click.IntRange(min=1), default=2, show_default=True, help="Processes that draw.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True,
              help="The .npy file.")
def main(scenes: int, held_out: int, seed: int, shrink: float, jobs: int, output: Path) -> None:
    crops = gather(seed, range(scenes), jobs, "learn from")
    matrix = learn(crops, shrink).astype(np.float16)
    np.save(output, matrix)
    test = gather(seed, range(scenes, scenes + held_out), jobs, "measure on")
    click.echo(f"{len(crops.person)} crops of {len(np.unique(_numbered(crops)))} people")
    for name, used in (("histograms alone", None), (f"{VECTOR} learned directions", matrix.astype(np.float32))):
        share, total = told_right(test, vectors(test.histogram, used))
        click.echo(f"{name}: {share:.2%} of {total} decisions on people of {held_out} other scenes are right")


if __name__ == "__main__":
    main()
