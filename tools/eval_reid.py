"""With ReID and without: the tracker on videos with ground truth, with their pixels.

    python tools/eval_reid.py MOT15/TUD-Campus=TUD-Campus_25fps.mp4 PETS-S3-MF1=PETS-S3-MF1_7fps.mp4
    python tools/eval_reid.py --boxes detector "sample://duo?seed=1&seconds=60"

An argument is a folder of MOT data (gt/gt.txt and, for `--boxes given`, det/*.txt) and its video, or a sample scene,
which knows its own truth. The boxes that the tracker is given: those of the data's public detections (`given`), of
our detector (`detector`), or of the ground truth (`truth`: edges with noise of 2 %, who is behind another by more
than an IoU of 0.5 not seen).

Beside the measures of `tools/eval_tracking.py`: how often a person is shown with another id than before (*changes*),
with the id that another person had last (*takeovers*), in which share of the pictures somebody was looked at (*duty*)
and at which share of the tracks (*looked at*).
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
from eval_tracking import Sequence, evaluate, measures, pictures, read_rows, say_table

from tiler.config.models import DetectorConfig, Source, TrackerConfig
from tiler.crowd import TrackBatch
from tiler.decode.cpu import PyavDecoder
from tiler.engines.registry import load_model
from tiler.infer.cpu import OrtDetector
from tiler.kernels.assign_cpu import best_pairs, box_iou
from tiler.preprocess.cpu import CpuPreprocessor
from tiler.samples import resolve
from tiler.track.appearance import CpuEmbedder
from tiler.track.bytetrack import ByteTracker
from tiler.track.reid import Duty, ReId
from tiler.types import Detections, Frame, Tracks

Rows = npt.NDArray[np.float64]
_NOISE, _HIDDEN_IOU, _SCORE = 0.02, 0.5, 0.9


@dataclass(frozen=True)
class Clip:
    """A sequence with its video."""

    sequence: Sequence
    video: Path


@dataclass
class Tally:
    """What became of the ids of one sequence."""

    changes: int = 0
    takeovers: int = 0


class TimedEmbedder(CpuEmbedder):
    """Knows how long it took."""

    def __init__(self) -> None:
        self.seconds, self.crops = 0.0, 0
        super().__init__()
        self.seconds, self.crops = 0.0, 0

    def embed(self, crops: Any) -> Any:
        start = time.perf_counter()
        vectors = super().embed(crops)
        self.seconds += time.perf_counter() - start
        self.crops += len(vectors)
        return vectors


def find_clip(text: str, scratch: Path) -> Clip:
    """The clip that an argument names; a sample's truth is put into a folder as others have one."""
    if text.startswith("sample://"):
        sample = resolve(text)
        name = text.removeprefix("sample://").translate(str.maketrans("?&=", "---"))
        folder, video = scratch / name, sample.path
        (folder / "gt").mkdir(parents=True)
        shutil.copy(sample.ground_truth, folder / "gt" / "gt.txt")
    else:
        path, separator, file = text.partition("=")
        folder, video = Path(path), Path(file)
        if not separator or not (folder / "gt" / "gt.txt").is_file() or not video.is_file():
            raise click.ClickException(f"{text}: expected FOLDER=VIDEO with FOLDER/gt/gt.txt, or sample://NAME")
    with PyavDecoder(Source(id="video", uri=str(video)), str(video), 0, 1) as decoder:
        fps = float(decoder.info.fps)
    length = int(read_rows(folder / "gt" / "gt.txt")[:, 0].max())
    return Clip(Sequence(folder.name, folder, fps, length), video)


def read_frames(video: Path) -> Iterator[Frame]:
    with PyavDecoder(Source(id="video", uri=str(video)), str(video), 0, 2) as decoder:
        while (frame := decoder.read()) is not None:
            yield frame


def truth_of(clip: Clip, number: int, rows: Rows) -> tuple[npt.NDArray[np.int64], Rows]:
    """Ids and boxes (n, 4) x0, y0, x1, y1 of a frame from 1."""
    here = rows[(rows[:, 0] == number) & (rows[:, 6] != 0)]
    return here[:, 1].astype(np.int64), np.concatenate((here[:, 2:4], here[:, 2:4] + here[:, 4:6]), axis=1)


def from_truth(clip: Clip) -> Iterator[Detections]:
    rng, rows = np.random.default_rng(0), read_rows(clip.sequence.truth)
    for number in range(1, clip.sequence.length + 1):
        _, boxes = truth_of(clip, number, rows)
        behind = (box_iou(boxes, boxes) > _HIDDEN_IOU) & (boxes[:, None, 3] < boxes[None, :, 3])
        boxes = boxes[~behind.any(axis=1)]
        size = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        noisy = (boxes + rng.normal(0, _NOISE, boxes.shape) * size).astype(np.float32)
        yield Detections(noisy, np.full(len(boxes), _SCORE, np.float32), np.zeros(len(boxes), np.int32))


def from_detector(clip: Clip) -> Iterator[Detections]:
    model, config = load_model(DetectorConfig().model, Path()), DetectorConfig()
    with (
        CpuPreprocessor(model.input_size, model.input, 1, 2) as preprocessor,
        OrtDetector(model, config, 2, (1,), min_score=TrackerConfig().low_score) as detector,
    ):
        for frame in read_frames(clip.video):
            yield detector.infer(preprocessor.prepare([frame]))[0]


def run(clip: Clip, found: list[Detections], reid: ReId | None) -> tuple[list[Tracks], float]:
    """The tracks of each frame, and milliseconds that one took."""
    tracker = ByteTracker(TrackerConfig(), DetectorConfig().score)
    shown, spent = [], 0.0
    for frame, detections in zip(read_frames(clip.video), found, strict=False):
        start = time.perf_counter()
        tracks = tracker.update(detections, frame.pts)
        if reid is not None:
            batch = TrackBatch.of((0,), (tracks,))
            (tracks,) = reid.recognise(batch, reid.look((frame,), batch, (True,))).pictures()
        spent += time.perf_counter() - start
        shown.append(tracks)
    return shown, 1000 * spent / max(len(shown), 1)


def mistakes(clip: Clip, shown: list[Tracks]) -> Tally:
    """Id changes and takeovers: who is shown as whom, by overlap with the truth."""
    rows, last, tally = read_rows(clip.sequence.truth), dict[int, int](), Tally()
    for number, tracks in enumerate(shown, 1):
        people, boxes = truth_of(clip, number, rows)
        if not len(people) or not len(tracks):
            continue
        overlap = box_iou(boxes, tracks.xyxy.astype(np.float64))
        for person, column in zip(people.tolist(), best_pairs(np.maximum(overlap - 0.5, 0)).tolist(), strict=True):
            if column < 0:
                continue
            now = int(tracks.track_id[column])
            if person in last and last[person] != now:
                tally.changes += 1
                tally.takeovers += now in [known for other, known in last.items() if other != person]
            last[person] = now
    return tally


def mot_text(shown: list[Tracks]) -> str:
    lines = []
    for number, tracks in enumerate(shown, 1):
        for track_id, (x0, y0, x1, y1), score in zip(tracks.track_id, tracks.xyxy, tracks.score, strict=True):
            lines.append(f"{number},{track_id},{x0:.2f},{y0:.2f},{x1 - x0:.2f},{y1 - y0:.2f},{score:.4f},-1,-1,-1\n")
    return "".join(lines)


_BOXES: dict[str, Callable[[Clip], Any]] = {
    "given": lambda clip: pictures(clip.sequence), "truth": from_truth, "detector": from_detector
}  # fmt: skip


@click.command(help=(__doc__ or "").split("\n", 1)[0])
@click.argument("clips", nargs=-1, required=True, metavar="FOLDER=VIDEO|sample://NAME...")
@click.option("--boxes", type=click.Choice(list(_BOXES)), default="given", show_default=True,
              help="What the tracker is given.")
def main(clips: tuple[str, ...], boxes: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        named = [find_clip(text, Path(scratch)) for text in clips]
        found = {clip.sequence.name: list(_BOXES[boxes](clip)) for clip in named}
        embedder, duty, together = TimedEmbedder(), Duty(), {}
        say_table("sequence", "reid", "HOTA", "DetA", "AssA", "IDF1", "MOTA", "IDSW", "changes", "takeovers", "duty",
                  "looked at", "exchanged", "returned", "ms/frame")  # fmt: skip
        for mode in ("off", "auto"):
            tallies, tracks, cost, duties = {}, {}, {}, {}
            for clip in named:
                name = clip.sequence.name
                reid = ReId(embedder, 1, TrackerConfig()) if mode == "auto" else None
                shown, cost[name] = run(clip, found[name], reid)
                tracks[name], tallies[name] = mot_text(shown), mistakes(clip, shown)
                duties[name] = reid.duty(0) if reid is not None else Duty()
            scores = evaluate([clip.sequence for clip in named], tracks)
            for clip in named:
                name = clip.sequence.name
                say_row(name, mode, scores[name], tallies[name], duties[name], f"{cost[name]:.3f}")
            tally = Tally(sum(t.changes for t in tallies.values()), sum(t.takeovers for t in tallies.values()))
            duty = Duty(*(sum(getattr(d, field) for d in duties.values()) for field in Duty.__annotations__))
            together[mode] = (scores["COMBINED_SEQ"], tally, duty)
        for mode, row in together.items():
            say_row("all", mode, *row, "")
        if embedder.crops:
            click.echo(f"\n{1000 * embedder.seconds / embedder.crops:.3f} ms a crop, {embedder.crops} crops")


def say_row(name: str, mode: str, scores: Any, tally: Tally, duty: Duty, cost: str) -> None:
    values = measures(scores["pedestrian"])
    cells = [name, mode, *(f"{value:.1f}" for value in values[:-1]), f"{values[-1]:.0f}"]
    cells += [str(tally.changes), str(tally.takeovers)]
    known = duty.report() if duty.pictures else None
    cells += [f"{100 * known['duty']:.1f} %", f"{100 * known['crops_of_tracks']:.1f} %"] if known else ["", ""]
    cells += [str(duty.exchanged), str(duty.returned)] if known else ["", ""]
    click.echo("| " + " | ".join([*cells, cost]) + " |")


if __name__ == "__main__":
    main()
