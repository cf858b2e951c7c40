"""Drawn scenes of two people through the detector and the tracker, kept on disk: `tools/eval_duo.py`.

What costs time is drawing and detecting, and looking at people. None of it depends on ReID or the slots, as these come
after the tracker; so a scene is recorded once: the detections of each picture, the vector of every track in every
picture (of which ReID asks for few), and the truth. With another tracker people are looked at anew.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tiler.config.models import DetectorConfig, Source, TrackerConfig
from tiler.decode.cpu import PyavDecoder
from tiler.engines.registry import load_model
from tiler.infer.cpu import OrtDetector
from tiler.kernels.assign_cpu import box_iou
from tiler.preprocess.cpu import CpuPreprocessor
from tiler.samples import describe, resolve
from tiler.track.appearance import CpuEmbedder
from tiler.track.base import Embedder
from tiler.track.bytetrack import ByteTracker
from tiler.types import Detections, Float32, Frame, Tracks

Boxes = npt.NDArray[np.float64]

_EXIT_S = 0.2
"""Who is out of the picture for less has not left."""
_OCCLUDED = 0.5
"""Of whom less than this part is seen, somebody hides."""


@dataclass(frozen=True)
class Scene:
    """One scene, recorded.

    Attributes:
        name: its URI.
        size: width and height of the picture.
        fps: pictures a second.
        pts: of each picture.
        detections: of each picture.
        tracks: of each picture, as the tracker has them.
        vectors: of each picture, (n, APPEARANCE) of its tracks.
        people: of each picture, box and seen part of each person there.
    """

    name: str
    size: tuple[int, int]
    fps: float
    pts: list[int]
    detections: list[Detections]
    tracks: list[Tracks]
    vectors: list[Float32]
    people: list[dict[int, tuple[Boxes, float]]]


@dataclass
class Events:
    """What happens in a scene, by its truth.

    Attributes:
        overlaps: times that the boxes of the two met and parted, or one left.
        crossings: of those, after which the one who was left is right.
        occlusions: of those, in which less than half of somebody was seen.
        exits: times that somebody left the picture.
        returns: times that somebody came back.
        other_side: of those, on another side than where they had left.
    """

    overlaps: int = 0
    crossings: int = 0
    occlusions: int = 0
    exits: int = 0
    returns: int = 0
    other_side: int = 0


class RecordedEmbedder(Embedder):
    """Knows the vectors of a scene by picture and box."""

    def __init__(self, scene: Scene) -> None:
        self._vectors = {
            (tracks.pts, box.tobytes()): vector
            for tracks, vectors in zip(scene.tracks, scene.vectors, strict=True)
            for box, vector in zip(tracks.xyxy, vectors, strict=True)
        }

    def embed(self, crops: Sequence[tuple[Frame, Float32]]) -> Float32:
        return np.stack([self._vectors[frame.pts, box.tobytes()] for frame, boxes in crops for box in boxes])


def record(uri: str, folder: Path) -> Path:
    """Draw and look at a scene, unless that was done before; its file."""
    file = folder / (uri.removeprefix("sample://").translate(str.maketrans("?&=", "---")) + ".npz")
    if file.is_file():
        return file
    sample, model, config = resolve(uri), load_model(DetectorConfig().model, Path()), DetectorConfig()
    pts, found = [], []
    with (
        PyavDecoder(Source(id="duo", uri=str(sample.path)), str(sample.path), 0, 1) as decoder,
        CpuPreprocessor(model.input_size, model.input, 1, 1) as preprocessor,
        OrtDetector(model, config, 1, (1,), min_score=TrackerConfig().low_score) as detector,
    ):
        while (frame := decoder.read()) is not None:
            pts.append(frame.pts)
            found.append(detector.infer(preprocessor.prepare([frame]))[0])
    truth = np.loadtxt(sample.ground_truth, delimiter=",", ndmin=2)
    folder.mkdir(parents=True, exist_ok=True)
    _keep(file, {
        "pts": np.array(pts), "counts": np.array([len(d) for d in found]), "truth": truth,
        "xyxy": np.concatenate([d.xyxy for d in found]), "score": np.concatenate([d.score for d in found]),
        "class_id": np.concatenate([d.class_id for d in found]),
    })  # fmt: skip
    return file


def _keep(file: Path, values: dict[str, npt.NDArray[Any]]) -> None:
    part = file.with_suffix(f".{os.getpid()}.npz")
    np.savez_compressed(part, **values)
    os.replace(part, file)


def _look(uri: str, tracks: Sequence[Tracks]) -> Float32:
    """The vector of every track in every picture, one after the other."""
    sample, embedder = resolve(uri), CpuEmbedder()
    with PyavDecoder(Source(id="duo", uri=str(sample.path)), str(sample.path), 0, 1) as decoder:
        looks = [embedder.embed([(frame, now.xyxy)]) for now in tracks if (frame := decoder.read()) is not None]
    return np.concatenate(looks)


def load(uri: str, file: Path) -> Scene:
    """A recorded scene; the tracker runs again, and people are looked at where that was not done."""
    spec = describe(uri)
    with np.load(file) as values:
        kept: dict[str, npt.NDArray[Any]] = {key: values[key] for key in values.files}
    ends = np.cumsum(kept["counts"])[:-1]
    parts = [np.split(kept[key], ends) for key in ("xyxy", "score", "class_id")]
    detections = [Detections(*row) for row in zip(*parts, strict=True)]
    tracker = _tracker()
    pts = kept["pts"].tolist()
    tracks = [tracker.update(found, at) for found, at in zip(detections, pts, strict=True)]
    boxes = np.concatenate([now.xyxy for now in tracks])
    if not np.array_equal(kept.get("looked_at"), boxes):
        kept |= {"vectors": _look(uri, tracks), "looked_at": boxes}
        _keep(file, kept)
    vectors = np.split(kept["vectors"], np.cumsum([len(t) for t in tracks])[:-1])
    people: list[dict[int, tuple[Boxes, float]]] = [{} for _ in pts]
    for number, person, x, y, width, height, _, _, seen in kept["truth"].tolist():
        people[int(number) - 1][int(person)] = (np.array([[x, y, x + width, y + height]]), seen)
    return Scene(uri, (spec.width, spec.height), float(spec.fps), pts, detections, tracks, vectors, people)


def touching(scene: Scene) -> list[bool]:
    """For each picture, whether the true boxes of the two overlap."""
    both = [[box for box, _ in there.values()] for there in scene.people]
    return [len(boxes) == 2 and bool(box_iou(boxes[0], boxes[1])[0, 0] > 0) for boxes in both]


def events(scene: Scene) -> Events:
    """What happens in it."""
    tally = Events()
    before: float | None = None
    during = hidden = False
    for there, touch in zip(scene.people, touching(scene), strict=True):
        order = _order(there)
        if touch:
            tally.overlaps += not during
            during, hidden = True, hidden or min(seen for _, seen in there.values()) < _OCCLUDED
        elif during:
            tally.occlusions += hidden
            tally.crossings += before is not None and order is not None and before * order < 0
            during = hidden = False
        if not touch and order is not None:
            before = order
    for person in {person for there in scene.people for person in there}:
        last, side = None, 0
        for index, there in enumerate(scene.people):
            if person not in there:
                continue
            middle = float(there[person][0][0, [0, 2]].mean())
            now = 1 if middle > scene.size[0] / 2 else -1
            if last is not None and index - last > _EXIT_S * scene.fps:
                tally.exits += 1
                tally.returns += 1
                tally.other_side += now != side
            last, side = index, now
        tally.exits += last is not None and len(scene.people) - 1 - last > _EXIT_S * scene.fps
    return tally


def _order(there: dict[int, tuple[Boxes, float]]) -> float | None:
    if len(there) != 2:
        return None
    (first, _), (second, _) = (there[person] for person in sorted(there))
    return float(first[0, [0, 2]].mean() - second[0, [0, 2]].mean())


def _tracker() -> ByteTracker:
    return ByteTracker(TrackerConfig(), DetectorConfig().score)
