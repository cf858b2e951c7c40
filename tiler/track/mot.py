"""Detections as MOT text, what the MOTChallenge gives and its tools read, and a tracker run on them.

A line is frame (from 1), id, left, top, width, height, score; more columns may follow and
are ignored, as is the id. Lines may come in any order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tiler.errors import InputError
from tiler.track.bytetrack import ByteTracker
from tiler.types import CLOCK_HZ, Detections, Tracks

Float64 = npt.NDArray[np.float64]

_COLUMNS = 7
_FRAME, _LEFT, _TOP, _WIDTH, _HEIGHT, _SCORE = 0, 2, 3, 4, 5, 6
_LAST_FRAME = 10_000_000
_EXTENT = 1e9
"""Larger values than this many pixels are none that float32 must hold."""
_UNKNOWN_SCORE = -1.0
"""Stands in every line of a file whose detector gave no scores."""


def read_detections(path: Path) -> dict[int, Detections]:
    """The detections of each frame that has some, best score first, all of class 0.

    Scores are made probabilities for a tracker. Where one is outside 0..1 (DPM gives -1..3),
    all go through 1 / (1 + exp(-2 (score - 0.2))); where all are -1, they are unknown and count as 1.

    Raises:
        InputError: no such file, one that cannot be read, or a line that is no detection.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise InputError(f"detections {path}: no such file") from None
    except UnicodeDecodeError:
        raise InputError(f"detections {path}: is no text; lines of MOT text are needed") from None
    except OSError as error:
        raise InputError(f"detections {path}: cannot be read: {error.strerror}") from error
    rows = [_row(line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip()]
    table = np.array(rows, np.float64).reshape(-1, _COLUMNS)
    score = _probabilities(table[:, _SCORE])
    corners = table[:, _LEFT : _HEIGHT + 1].clip(-_EXTENT, _EXTENT)
    corners[:, 2:] += corners[:, :2]
    order = np.lexsort((-score, table[:, _FRAME]))
    frames, first = np.unique(table[order, _FRAME].astype(np.int64), return_index=True)
    return {
        int(frame): Detections(
            corners[here].astype(np.float32), score[here].astype(np.float32), np.zeros(len(here), np.int32)
        )
        for frame, here in zip(frames, np.split(order, first[1:]), strict=bool(len(frames)))
    }


def follow(
    detections: Mapping[int, Detections], fps: float, tracker: ByteTracker, last: int | None = None
) -> Iterator[tuple[int, Tracks]]:
    """The frame number from 1, and the tracks, of every frame: one without detections is an empty picture.

    Args:
        detections: by frame, from 1.
        fps: frames a second.
        tracker: that has seen nothing yet.
        last: number of the last frame; that of the last detections when absent.

    Raises:
        InputError: fps is not a frame rate.
    """
    if not 0 < fps <= 1000:
        raise InputError(f"--fps: {fps:g}; accepted: above 0, at most 1000")
    frames = range(1, 1 + (max(detections, default=0) if last is None else last))
    nothing = Detections.empty()
    return (
        (frame, tracker.update(detections.get(frame, nothing), round((frame - 1) * CLOCK_HZ / fps)))
        for frame in frames
    )


def _row(line: str, where: str) -> list[float]:
    cells = line.split(",")
    try:
        row = [float(cell) for cell in cells[:_COLUMNS]]
    except ValueError:
        row = []
    if len(row) < _COLUMNS or not all(math.isfinite(value) for value in row):
        raise InputError(f"{where}: {line.strip()[:80]!r}: expected numbers: frame,id,left,top,width,height,score")
    if not (row[_FRAME].is_integer() and 1 <= row[_FRAME] <= _LAST_FRAME):
        raise InputError(f"{where}: frame {cells[_FRAME].strip()}; accepted: whole numbers, 1 to {_LAST_FRAME}")
    return row


def _probabilities(score: Float64) -> Float64:
    if not len(score) or (score.min() >= 0 and score.max() <= 1):
        return score
    if (score == _UNKNOWN_SCORE).all():
        return np.ones_like(score)
    squashed: Float64 = 1 / (1 + np.exp(-2 * (score.clip(-100, 100) - 0.2)))
    return squashed
