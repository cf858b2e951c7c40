"""Two people who cross, hug, leave and come back, from pixels: do the names stay with them?

    python tools/eval_duo.py --seeds 101-140 --keep recordings --jobs 2

Each seed is a minute of `sample://duo` at 640x360 and 25 pictures a second: our detector on every picture, the tracker,
ReID and slots of two (`mode: person`) with the settings that ship. Scenes are recorded in the folder `--keep`
(`tools/duo_scenes.py`), so that ReID and slots run again in seconds.

A label is a name or, without slots, an id. A *swap*: a label is shown on a person while the true boxes of the two do
not overlap, and when last shown so it was on the other. *Wrong*: the share of the pictures of a tracked person with a
label that was last the other's; *shown*: with a label (a name; any id); *own*: with the person's first label. *Late*:
seconds from the first track of who comes into the picture, and *parted*: from the last overlap of the two boxes, until
the label is that with which they next meet or leave.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, fields
from pathlib import Path

import click
import numpy as np
from duo_scenes import Events, RecordedEmbedder, Scene, events, load, record, touching

from tiler.config.models import SlotsConfig, TrackerConfig
from tiler.crowd import TrackBatch
from tiler.kernels.assign_cpu import best_pairs, box_iou
from tiler.track.reid import Duty, ReId
from tiler.track.slots import Slots
from tiler.types import Frame, Tracks

_SHOWN_IOU = 0.5
_MODES = (("auto", True), ("off", True), ("auto", False), ("off", False))


@dataclass
class Tally:
    """What became of the labels; see the module's text.

    Attributes:
        swaps: labels that went over to the other person.
        swapped: where: picture and label.
        seen, shown, own, wrong: pictures of a tracked person.
        late, parted: seconds, one for each time.
    """

    swaps: int = 0
    swapped: list[tuple[int, int]] = field(default_factory=list)
    seen: int = 0
    shown: int = 0
    own: int = 0
    wrong: int = 0
    late: list[float] = field(default_factory=list)
    parted: list[float] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        for own in fields(self):
            setattr(self, own.name, getattr(self, own.name) + getattr(other, own.name))


def run(scene: Scene, reid: bool, slots: bool) -> tuple[list[Tracks], Duty]:
    """The tracks of each picture as they are shown."""
    known = ReId(RecordedEmbedder(scene), 1, TrackerConfig()) if reid else None
    cast = Slots(SlotsConfig(names=["ann", "bob"])) if slots else None
    width, height = scene.size
    luma, chroma = np.zeros((height, width), np.uint8), np.zeros((height // 2, width // 2), np.uint8)
    shown = []
    for tracks in scene.tracks:
        now, looks, appearance = TrackBatch.of((0,), (tracks,)), None, None
        if known is not None:
            wanted = cast.wanted if cast is not None else ()
            looks = known.look([Frame(0, tracks.pts, luma, chroma, chroma)], now, [True], [wanted])
            (appearance,) = looks.pictures(now)
        if cast is not None:
            now = now._replace(slot=cast.update(tracks, appearance, width_px=width).slot)
        if known is not None and looks is not None:
            now = known.recognise(now, looks)
        shown += now.pictures()
    return shown, known.duty(0) if known is not None else Duty()


def labels(scene: Scene, shown: Sequence[Tracks], slots: bool) -> list[dict[int, int]]:
    """For each picture, the label of each person on whom a track is shown; -1 for none."""
    said = []
    for there, tracks in zip(scene.people, shown, strict=True):
        people, now = sorted(there), dict[int, int]()
        if people and len(tracks):
            boxes = np.concatenate([there[person][0] for person in people])
            pairs = best_pairs(np.maximum(box_iou(boxes, tracks.xyxy.astype(np.float64)) - _SHOWN_IOU, 0))
            values = tracks.slot if slots else tracks.track_id
            now = {person: int(values[row]) for person, row in zip(people, pairs.tolist(), strict=True) if row >= 0}
        said.append(now)
    return said


def judge(scene: Scene, said: list[dict[int, int]]) -> Tally:
    """What became of the labels."""
    tally, owner, first = Tally(), dict[int, int](), dict[int, int]()
    for index, (now, touch) in enumerate(zip(said, touching(scene), strict=True)):
        for person, label in now.items():
            tally.seen += 1
            tally.shown += label >= 0
            if label < 0:
                continue
            tally.own += first.setdefault(person, label) == label
            if owner.get(label, person) != person:
                tally.wrong += 1
                if not touch:
                    tally.swaps += 1
                    tally.swapped.append((index, label))
            if not touch:
                owner[label] = person
    touch = touching(scene)
    for person in first:
        here = [person in there for there in scene.people]
        free = [present and not near for present, near in zip(here, touch, strict=True)]
        for begin in range(1, len(free)):
            if free[begin] and not free[begin - 1]:
                waits = _wait(scene, said, person, free, begin)
                (tally.parted if touch[begin - 1] else tally.late).extend(waits)
    return tally


def _wait(scene: Scene, said: list[dict[int, int]], person: int, free: list[bool], begin: int) -> list[float]:
    """Seconds from the first track of a person in a run of `free` until the label is that which ends the run."""
    end = free.index(False, begin) if False in free[begin:] else len(free)
    shown = [(k, said[k][person]) for k in range(begin, end) if person in said[k]]
    if not shown or shown[-1][1] < 0:
        return []
    settled = len(shown) - 1
    while settled and shown[settled - 1][1] == shown[-1][1]:
        settled -= 1
    return [(shown[settled][0] - shown[0][0]) / scene.fps]


def score(uri: str, folder: Path) -> tuple[Events, dict[tuple[str, bool], tuple[Tally, Duty]]]:
    """What happens in a scene, and what becomes of labels in each mode."""
    scene = load(uri, record(uri, folder))
    results = {}
    for reid, slots in _MODES:
        shown, duty = run(scene, reid == "auto", slots)
        results[reid, slots] = judge(scene, labels(scene, shown, slots)), duty
    return events(scene), results


def scene_uri(seed: int) -> str:
    return f"sample://duo?seed={seed}&seconds=60&size=640x360"


@click.command(help=(__doc__ or "").split("\n", 1)[0])
@click.option("--seeds", default="101-140", show_default=True, help="As 1,2,5-9; with /2 after it, every second.")
@click.option("--keep", type=click.Path(path_type=Path), default=Path("recordings"), show_default=True,
              help="Folder of the recorded scenes.")
@click.option("--jobs", default=1, show_default=True, help="Processes.")
@click.option("--recorded", is_flag=True, help="Only scenes that are recorded.")
@click.option("--verbose", is_flag=True, help="Where each swap of a name is.")
def main(seeds: str, keep: Path, jobs: int, recorded: bool, verbose: bool) -> None:
    chosen = list(_seeds(seeds))
    if recorded:
        chosen = [seed for seed in chosen if (keep / f"duo-seed-{seed}-seconds-60-size-640x360.npz").is_file()]
    with ProcessPoolExecutor(jobs) as pool:
        scored = list(pool.map(score, map(scene_uri, chosen), [keep] * len(chosen)))
    happened = Events(*(sum(getattr(e, f.name) for e, _ in scored) for f in fields(Events)))
    click.echo(f"{len(chosen)} scenes: " + ", ".join(f"{value} {name}" for name, value in vars(happened).items()))
    click.echo("\n| reid | slots | swaps | scenes with one | wrong | shown | own | late | parted | duty | looked at |")
    click.echo("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for mode in _MODES:
        tally, duty = Tally(), Duty()
        for _, results in scored:
            tally.add(results[mode][0])
            duty = Duty(*(getattr(duty, f.name) + getattr(results[mode][1], f.name) for f in fields(Duty)))
        say_row(mode, tally, sum(results[mode][0].swaps > 0 for _, results in scored), duty)
    if verbose:
        for seed, (_, results) in zip(chosen, scored, strict=True):
            for mode in _MODES[:2]:
                for index, label in results[mode][0].swapped:
                    click.echo(f"seed {seed}, reid {mode[0]}: picture {index}, name {label}")


def _seeds(text: str) -> list[int]:
    chosen = []
    for part in text.split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        chosen += range(int(first), int(last or first) + 1, int(step or 1))
    return chosen


def say_row(mode: tuple[str, bool], tally: Tally, scenes: int, duty: Duty) -> None:
    shares = [f"{100 * part / max(tally.seen, 1):.2f} %" for part in (tally.wrong, tally.shown, tally.own)]
    times = [f"{np.mean(waits):.2f} s" if waits else "" for waits in (tally.late, tally.parted)]
    known = duty.report() if duty.pictures else None
    duties = [f"{100 * known['duty']:.1f} %", f"{100 * known['crops_of_tracks']:.1f} %"] if known else ["", ""]
    cells = [mode[0], "on" if mode[1] else "off", str(tally.swaps), str(scenes), *shares, *times, *duties]
    click.echo("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
