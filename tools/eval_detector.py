"""How good is a detector? COCO-style average precision on video with MOT ground truth.

    python tools/eval_detector.py --model person-nano --scene sample://plaza
    python tools/eval_detector.py --model yolox_nano.onnx --video walk.mp4 --gt gt.txt --scale 0.625

Frame i of the video (from 0) is frame i + 1 + offset of the ground truth. MOT text has two dialects,
told apart by their columns. MOT15 (10 columns): flag 0 marks a box to ignore. MOT17 (9 columns, with
class and visibility): pedestrians (class 1) count when flagged and at least 0.3 visible; other
pedestrians, and what looks like one (on a vehicle, static, distractor, reflection), are ignored: a
detection there is neither right nor wrong. Other classes do not exist. The measure is pycocotools'.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tiler.config.models import DetectorConfig, Source
from tiler.decode.cpu import PyavDecoder
from tiler.engines.registry import ModelSpec, load_model
from tiler.errors import InputError, TilerError
from tiler.infer.cpu import OrtDetector
from tiler.preprocess.cpu import CpuPreprocessor
from tiler.types import Detections, Frame

BATCH = 4
LOWEST_SCORE = 0.01
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
VISIBLE = 0.3
PEDESTRIAN = 1
IGNORED_CLASSES = {2, 7, 8, 12}
"""MOT17: person on vehicle, static person, distractor, reflection."""

COLUMNS = ("AP50:95", "AP50", "AP75", "AP small", "AP medium", "AP large", "AR100")
STATS = (0, 1, 2, 3, 4, 5, 8)
"""Where COCOeval's summary has them. Small is below 32 x 32 picture pixels, large above 96 x 96."""


@dataclass(frozen=True, slots=True)
class Truth:
    """One box of the ground truth: x, y, width, height in picture pixels."""

    xywh: tuple[float, float, float, float]
    ignore: bool


def read_mot(path: Path, scale: float) -> dict[int, list[Truth]]:
    """MOT text -> boxes of each frame (from 1), scaled to the video's picture.

    Raises:
        InputError: a line is not MOT ground truth.
    """
    boxes: dict[int, list[Truth]] = defaultdict(list)
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = [float(value) for value in line.split(",")]
            frame, _, x, y, w, h, flag = row[:7]
        except ValueError:
            raise InputError(
                f"{path}:{number}: not MOT ground truth; accepted: frame,id,x,y,w,h,flag,..."
            ) from None
        ignore = flag == 0
        if len(row) == 9:
            kind, visibility = int(row[7]), row[8]
            if kind != PEDESTRIAN and kind not in IGNORED_CLASSES:
                continue
            ignore = ignore or kind != PEDESTRIAN or visibility < VISIBLE
        # Ground truth counts pixels from 1.
        boxes[int(frame)].append(Truth(((x - 1) * scale, (y - 1) * scale, w * scale, h * scale), ignore))
    return boxes


def detect(model: ModelSpec, video: Path, threads: int) -> Iterator[tuple[int, Frame, Detections, float]]:
    """Index, picture, detections and seconds spent, for each picture of a video."""
    config = DetectorConfig(classes=["person"] if "person" in model.class_names else None)
    with (
        PyavDecoder(Source(id="video", uri=str(video)), str(video), 0, threads) as decoder,
        CpuPreprocessor(model.input_size, model.input, BATCH, threads) as preprocessor,
        OrtDetector(model, config, threads, (1,), min_score=LOWEST_SCORE) as detector,
    ):
        index, waiting = 0, True
        while waiting:
            frames: list[Frame] = []
            while waiting and len(frames) < BATCH:
                frame = decoder.read()
                waiting = frame is not None
                if frame is not None:
                    frames.append(frame)
            if not frames:
                return
            start = time.perf_counter()
            found = detector.infer(preprocessor.prepare(frames))
            spent = (time.perf_counter() - start) / len(frames)
            for frame, detections in zip(frames, found, strict=True):
                yield index, frame, detections, spent
                index += 1


def average_precision(truth: dict[int, list[Truth]], found: dict[int, Detections]) -> list[float]:
    """COCO's measures (`COLUMNS`) over the pictures in `found`; -1 where there is no ground truth."""
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image, detections in found.items():
        for box in truth.get(image, ()):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": 1,
                    "bbox": list(box.xywh),
                    "area": box.xywh[2] * box.xywh[3],
                    "iscrowd": int(box.ignore),
                }
            )
        for (x0, y0, x1, y1), score in zip(detections.xyxy.tolist(), detections.score.tolist(), strict=True):
            results.append(
                {"image_id": image, "category_id": 1, "bbox": [x0, y0, x1 - x0, y1 - y0], "score": score}
            )
    if not results:
        return [0.0] * len(COLUMNS)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports its progress there
        coco = COCO()
        coco.dataset = {
            "images": [{"id": image} for image in found],
            "annotations": annotations,
            "categories": [{"id": 1, "name": "person"}],
        }
        coco.createIndex()
        measure = COCOeval(coco, _results(coco, results), "bbox")
        measure.evaluate()
        measure.accumulate()
        measure.summarize()
    return [float(measure.stats[i]) for i in STATS]


def _results(coco: COCO, results: list[dict[str, Any]]) -> COCO:
    """What `COCO.loadRes` makes, without the fields it wants of a data set from a file."""
    made = COCO()
    for number, result in enumerate(results, 1):
        result |= {"id": number, "area": result["bbox"][2] * result["bbox"][3], "iscrowd": 0}
    made.dataset = {**coco.dataset, "annotations": results}
    made.createIndex()
    return made


@click.command()
@click.option("--model", "name", default="person-nano", show_default=True, help="name, or .onnx file")
@click.option("--scene", "scenes", multiple=True, help="a sample:// scene; may be repeated")
@click.option("--video", "videos", multiple=True, type=FILE, help="a video; may be repeated")
@click.option("--gt", "truths", multiple=True, type=FILE, help="its ground truth, one per --video")
@click.option("--scale", default=1.0, show_default=True, help="video pixels per ground truth pixel")
@click.option("--offset", default=0, show_default=True, help="frame of the ground truth, less i + 1")
@click.option("--threads", default=2, show_default=True)
def main(
    name: str,
    scenes: tuple[str, ...],
    videos: tuple[Path, ...],
    truths: tuple[Path, ...],
    scale: float,
    offset: int,
    threads: int,
) -> None:
    """Print a Markdown table of a detector's average precision."""
    if len(videos) != len(truths):
        raise click.UsageError(f"{len(videos)} --video but {len(truths)} --gt; give one --gt per --video")
    if not videos and not scenes:
        raise click.UsageError("give a --scene, or a --video with its --gt")
    try:
        model = load_model(name, Path.cwd())
        pairs = zip(videos, truths, strict=True)
        work = [(video.name, video, truth, scale, offset) for video, truth in pairs]
        work += [_scene(uri) for uri in scenes]
        click.echo(f"| {model.name} on | pictures | boxes | {' | '.join(COLUMNS)} | ms/picture |")
        click.echo(f"| --- | {'---: | ' * (len(COLUMNS) + 3)}".rstrip())
        for title, video, path, factor, shift in work:
            truth = {frame - shift: boxes for frame, boxes in read_mot(path, factor).items()}
            found, spent = {}, []
            for index, _, detections, seconds in detect(model, video, threads):
                found[index + 1] = detections
                spent.append(seconds)
            count = sum(not box.ignore for image in found for box in truth.get(image, ()))
            cells = [f"{100 * value:.1f}" if value >= 0 else "-" for value in average_precision(truth, found)]
            median = np.median(spent) * 1e3
            click.echo(f"| {title} | {len(found)} | {count} | {' | '.join(cells)} | {median:.1f} |")
    except TilerError as error:
        raise click.ClickException(str(error)) from error


def _scene(uri: str) -> tuple[str, Path, Path, float, int]:
    from tiler.samples import resolve

    scene = resolve(uri)
    return uri, Path(scene.path), Path(scene.ground_truth), 1.0, 0


if __name__ == "__main__":
    main()
