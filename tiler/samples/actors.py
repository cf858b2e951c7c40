"""Who walks where and what they do there, as poses at any time.

Positions are metres on the ground (see `figure` for the axes), times are seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from tiler.samples import figure as f
from tiler.samples.background import Array
from tiler.samples.people import Figure

_RATE = 60.0
"""Paths are smoothed on a fixed grid of this many steps a second, whatever the frame rate."""


class Walk(NamedTuple):
    """One stay on stage: (t, x, z) points, walked at even speed from one to the next."""

    points: list[tuple[float, float, float]]


class Act(NamedTuple):
    """A posture from `start` to `end`, facing `yaw` if that is not None; eased in and out."""

    start: float
    end: float
    posture: str
    yaw: float | None = None


@dataclass
class Actor:
    """A person of a scene, the same `number` whenever on stage."""

    number: int
    look: f.Look
    walks: list[Walk]
    acts: list[Act] = field(default_factory=list)
    swing: float = 1.0
    phase: float = 0.0
    run: float = 0.0


class _Path(NamedTuple):
    start: float
    x: Array
    z: Array
    yaw: Array
    speed: Array
    phase: Array


def _smooth(values: Array, steps: int) -> Array:
    kernel = np.hanning(2 * steps + 3)[1:-1]
    padded = np.concatenate([np.full(steps, values[0]), values, np.full(steps, values[-1])])
    return np.convolve(padded, kernel / kernel.sum(), mode="valid")


def _extended(values: Array, steps: int) -> Array:
    """Smooth, but carry on straight at the ends so that nobody slows down on entering."""
    head = values[0] - (values[1] - values[0]) * np.arange(steps, 0, -1)
    tail = values[-1] + (values[-1] - values[-2]) * np.arange(1, steps + 1)
    kernel = np.hanning(2 * steps + 3)[1:-1]
    return np.convolve(np.concatenate([head, values, tail]), kernel / kernel.sum(), mode="valid")


def _trace(walk: Walk, actor: Actor) -> _Path:
    at = np.array(walk.points, np.float64)
    start, end = at[0, 0], max(at[-1, 0], at[0, 0] + 0.1)
    times = start + np.arange(max(3, math.ceil((end - start) * _RATE) + 1)) / _RATE
    x = _extended(np.interp(times, at[:, 0], at[:, 1]), 18)
    z = _extended(np.interp(times, at[:, 0], at[:, 2]), 18)
    vx, vz = np.gradient(x) * _RATE, np.gradient(z) * _RATE
    speed = np.hypot(vx, vz)
    heading = np.arctan2(vx, -vz)
    moving = speed > 0.15
    if not moving.any():
        heading[:] = 0.0
    else:
        # While standing, keep the heading of the last step (or, at the start, of the first).
        last = np.maximum.accumulate(np.where(moving, np.arange(len(times)), -1))
        heading = heading[np.where(last < 0, int(np.argmax(moving)), last)]
    yaw = _smooth(np.unwrap(heading), 15)
    amplitude = np.sqrt(np.clip(speed / 1.4, 0.02, 2.6))
    cycles = speed / (f.stride_m(actor.look) * amplitude)
    return _Path(start, x, z, yaw, speed, actor.phase + np.cumsum(cycles) / _RATE)


class Cast:
    """All actors of a stage with their paths worked out; `at` is cheap."""

    def __init__(self, actors: list[Actor]) -> None:
        self._paths = [(actor, [_trace(walk, actor) for walk in actor.walks]) for actor in actors]

    def at(self, t: float) -> list[tuple[int, Figure]]:
        """(number, figure) of everyone who is on stage at `t`."""
        found = []
        for actor, paths in self._paths:
            for path in paths:
                step = (t - path.start) * _RATE
                if 0 <= step <= len(path.x) - 1:
                    found.append((actor.number, Figure(actor.look, self._pose(actor, path, step, t))))
                    break
        return found

    @staticmethod
    def _pose(actor: Actor, path: _Path, step: float, t: float) -> Array:
        low = min(int(step), len(path.x) - 2)
        k = step - low
        x, z, yaw, speed, phase = (float(v[low] + (v[low + 1] - v[low]) * k) for v in path[1:])
        pose = np.zeros(f.POSE_COLUMNS)
        pose[f.X], pose[f.Z] = x, z
        amplitude = math.sqrt(speed / 1.4) if speed > 0.02 else 0.0
        f.walk(pose, phase, amplitude, actor.swing)
        # Nobody stands like a statue: breathe and look around a little.
        idle = 0.6 * actor.number
        pose[f.ROLL] += 0.012 * math.sin(1.3 * t + idle)
        pose[f.HEAD_YAW] += 0.22 * math.sin(0.55 * t + 2.1 * idle) + 0.10 * math.sin(1.7 * t + idle)
        pose[f.PITCH] += 0.008 * math.sin(2.0 * t + idle)
        for act in actor.acts:
            weight = min(1.0, max(0.0, (t - act.start) / 0.6), max(0.0, (act.end - t) / 0.6))
            if weight <= 0.0:
                continue
            weight = weight * weight * (3 - 2 * weight)
            f.blend(pose, act.posture, weight)
            if act.posture == "wave":
                pose[f.OUT_R] += 0.35 * weight * math.sin(9.0 * t)
            elif act.posture == "talk":
                pose[f.ELBOW_R] += 0.25 * weight * math.sin(3.1 * t + idle)
            if act.yaw is not None:
                turn = (act.yaw - yaw + math.pi) % (2 * math.pi) - math.pi
                yaw += turn * weight
        pose[f.YAW] = yaw
        return pose


def positions(actor: Actor, times: Array) -> Array:
    """(T, 2) x and z at the times; far away when off stage."""
    out = np.full((len(times), 2), 1e3)
    for walk in actor.walks:
        at = np.array(walk.points, np.float64)
        inside = (times >= at[0, 0]) & (times <= at[-1, 0])
        out[inside, 0] = np.interp(times[inside], at[:, 0], at[:, 1])
        out[inside, 1] = np.interp(times[inside], at[:, 0], at[:, 2])
    return out
