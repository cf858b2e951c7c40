"""Trackers that `tools/eval_tracking.py` compares, each told of one picture at a time.

Every one runs with the settings that it ships with; it is told the frame rate, as it asks for that.
Ours is given what the others are: boxes, scores and no pixels. BoT-SORT's camera motion compensation
needs pixels, so it is off.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tiler import __version__
from tiler.config.models import DetectorConfig, TrackerConfig
from tiler.track.bytetrack import ByteTracker
from tiler.types import CLOCK_HZ, Detections

Shown = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.float32]]
"""track_id (n,), xyxy (n, 4) and score (n,) of the tracks that a picture shows."""

Update = Callable[[Detections | None], Shown]
"""Takes the detections of the next picture, None when the detector did not look at it."""

OURS = "tiler"

_ROBOFLOW = {
    "trackers SORT": ("SORTTracker", {}),
    "trackers ByteTrack": ("ByteTrackTracker", {}),
    "trackers OC-SORT": ("OCSORTTracker", {}),
    "trackers C-BIoU": ("CBIoUTracker", {}),
    "trackers BoT-SORT, no CMC": ("BoTSORTTracker", {"enable_cmc": False}),
}
_SUPERVISION = "supervision ByteTrack"
_BUFFER_FPS = 30
"""Both packages count the memory for lost tracks in frames at 30 a second, whatever the frame rate."""


@dataclass(frozen=True)
class Entrant:
    """A tracker that can be started on a stream of so many frames a second."""

    name: str
    package: str
    start: Callable[[float], Update]


def entrants(lost_s: float | None = None) -> tuple[list[Entrant], list[str]]:
    """Ours, then the peers; and what is missing, with the reason.

    Args:
        lost_s: seconds that each remembers a lost track; what it ships with when absent.
    """
    found, missing = [Entrant(OURS, f"tiler {__version__}", lambda fps: _ours(fps, lost_s))], []
    try:
        trackers = importlib.import_module("trackers")
        package = f"trackers {importlib.metadata.version('trackers')}"
        supervision = importlib.import_module("supervision")
    except ImportError as error:
        return found, [f"every peer: {error} (pip install trackers==2.6.1 supervision==0.26.1)"]
    buffer = {} if lost_s is None else {"lost_track_buffer": round(lost_s * _BUFFER_FPS)}
    for name, (kind, options) in _ROBOFLOW.items():
        if hasattr(trackers, kind):
            found.append(Entrant(name, package, _roboflow(getattr(trackers, kind), options | buffer, supervision)))
        else:
            missing.append(f"{name}: {package} has no {kind} (pip install trackers==2.6.1)")
    package = f"supervision {importlib.metadata.version('supervision')}"
    if hasattr(supervision, "ByteTrack"):
        found.append(Entrant(_SUPERVISION, package, _supervision(supervision, buffer)))
    else:
        missing.append(f"{_SUPERVISION}: {package} has none (pip install supervision==0.26.1)")
    return found, missing


def _ours(fps: float, lost_s: float | None) -> Update:
    config = TrackerConfig() if lost_s is None else TrackerConfig(lost_s=lost_s)
    tracker = ByteTracker(config, DetectorConfig().score)
    index = 0

    def update(detections: Detections | None) -> Shown:
        nonlocal index
        tracks = tracker.update(detections, round(index * CLOCK_HZ / fps))
        index += 1
        return tracks.track_id.astype(np.int64), tracks.xyxy, tracks.score

    return update


def _roboflow(kind: Any, options: dict[str, Any], supervision: Any) -> Callable[[float], Update]:
    def start(fps: float) -> Update:
        tracker = kind(frame_rate=fps, **options)
        return lambda detections: _shown(tracker.update(_given(detections, supervision)))

    return start


def _supervision(supervision: Any, options: dict[str, Any]) -> Callable[[float], Update]:
    def start(fps: float) -> Update:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is to go: its version is fixed here
            tracker = supervision.ByteTrack(frame_rate=fps, **options)
        return lambda detections: _shown(tracker.update_with_detections(_given(detections, supervision)))

    return start


def _given(detections: Detections | None, supervision: Any) -> Any:
    here = Detections.empty() if detections is None else detections
    return supervision.Detections(xyxy=here.xyxy, confidence=here.score, class_id=here.class_id)


def _shown(result: Any) -> Shown:
    keep = result.tracker_id >= 0  # -1: not confirmed yet
    return result.tracker_id[keep].astype(np.int64), result.xyxy[keep], result.confidence[keep]
