"""The sample scenes: camera, place, things and who walks where at each time.

Everything follows from the scene's name and seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from tiler.samples import figure as f
from tiler.samples import places, props
from tiler.samples.actors import Act, Actor, Walk, positions
from tiler.samples.background import Array, Place, Prop, camera

Rng = np.random.Generator


@dataclass
class Stage:
    """A scene ready to be drawn.

    Attributes:
        cam: the camera row (see `background.camera`).
        props: things, all static.
        glows: lamps whose halo the camera sees: x, y, z, radius in metres.
        vignette: how much darker the corners are, 0..1.
        grain: deviation of the sensor's noise in luma levels.
    """

    cam: Array
    place: Place
    props: list[Prop]
    actors: list[Actor]
    glows: list[tuple[float, float, float, float]] = field(default_factory=list)
    vignette: float = 0.12
    grain: float = 1.1


def _look(rng: Rng, **options: int) -> f.Look:
    """An adult whose clothes suit a lead part; `options` overrides e.g. CARRY."""
    look = f.random_look(rng, child=0.0)
    for name, value in options.items():
        look.options[getattr(f, name)] = value
    return look


def _strollers(
    rng: Rng, actors: list[Actor], count: int, seconds: float, area: tuple[float, float, float, float], *,
    sideways: float = 0.75, obstacles: tuple[tuple[float, float], ...] = (),
) -> None:  # fmt: skip
    """Add `count` people who cross `area` (x0, x1, z0, z1) clear of everyone else and of `obstacles`."""
    times = np.arange(0.0, seconds + 0.5, 0.5)
    tracks = [positions(actor, times) for actor in actors]
    tracks += [np.tile(np.array(spot), (len(times), 1)) for spot in obstacles]
    x0, x1, z0, z1 = area
    for _ in range(count):
        look = f.random_look(rng, child=0.06)
        best, best_gap, points = None, -1.0, []
        for _ in range(24):
            speed = rng.uniform(0.9, 1.55)
            way = rng.choice((-1, 1)) * math.pi / 2 + rng.normal(0, 0.3)
            if rng.random() > sideways:
                way = rng.choice((0.0, math.pi)) + rng.normal(0, 0.35)
            # Middle of the walk somewhere inside, so that everyone is in view for a good while.
            middle, x, z = rng.uniform(0, seconds), rng.uniform(x0, x1), rng.uniform(z0, z1)
            dx, dz = math.sin(way) * speed, -math.cos(way) * speed
            bend = rng.normal(0, 0.25)
            trial = [(t, x + dx * (t - middle) + (bend if t > middle else 0.0) * dz * (t - middle),
                      z + dz * (t - middle) - (bend if t > middle else 0.0) * dx * (t - middle))
                     for t in (-1.0, middle, seconds + 1.0)]  # fmt: skip
            candidate = Actor(len(actors) + 1, look, [Walk(sorted(trial))])
            mine = positions(candidate, times)
            if mine[:, 1].min() < 2.5 or mine[:, 1].max() > z1 + 4:
                continue
            gap = min((float(np.min(np.hypot(*(mine - other).T))) for other in tracks), default=9.0)
            if gap > best_gap:
                best, best_gap, points = candidate, gap, trial
            if gap > 1.1:
                break
        if best is None or not points:
            continue
        best.phase, best.swing = rng.random(), rng.uniform(0.6, 1.1)
        if rng.random() < 0.22:
            best.acts.append(Act(-5, seconds + 5, str(rng.choice(("phone", "call", "pockets")))))
        actors.append(best)
        tracks.append(positions(best, times))


def _still(seconds: float, x: float, z: float) -> list[Walk]:
    return [Walk([(-1.0, x, z), (seconds + 1.0, x, z)])]


def plaza(rng: Rng, width: int, height: int, seconds: float) -> Stage:
    """A square by day: strollers, two who talk, one on a bench, one who waves, a runner."""
    cam = camera(1.32 * height, width, height, 4.2, math.radians(12.5))
    scenery = np.random.default_rng(41)
    things = [
        props.tree(cam, -12.5, 19, scenery, size=1.05), props.tree(cam, -11.0, 26, scenery),
        props.tree(cam, 10.8, 24, scenery, clusters=34),
        props.tree(cam, 17.0, 29, scenery), props.bush(cam, -11.6, 14.5, scenery, wide=1.5),
        props.bush(cam, -13.5, 16.5, scenery, wide=1.8),
        props.planter(cam, 5.6, 16.5, scenery), props.planter(cam, 8.3, 16.3, scenery), props.bench(cam,
            -5.6, 14.0, scenery, yaw=0.7),
        props.bench(cam, 7.0, 12.0, scenery, yaw=-0.6), props.bin_(cam, -3.9, 14.4, scenery),
        props.lamp(cam, 3.2, 12.4, scenery, height=4.6),
        props.lamp(cam, -8.2, 21, scenery, height=4.6), props.car(cam, 13.0, 22.0, scenery, yaw=1.45),
    ]  # fmt: skip
    t1 = seconds + 1.0
    sitter = Actor(1, _look(rng, CARRY=f.NO_BAG, OUTER=0, LOWER=f.TROUSERS), _still(seconds, -5.45, 13.78),
                   [Act(-9, 99, "sit", 0.7), Act(-9, 99, "phone")])
    first = Actor(2, _look(rng, CARRY=f.NO_BAG), _still(seconds, 0.9, 15.2), [Act(-9, 99, "talk", 1.35)])
    second = Actor(3, _look(rng, CARRY=f.SHOULDER_BAG), _still(seconds, 1.95, 15.1), [Act(-9, 99,
        "pockets", -1.3)])
    runner = Actor(4, _look(rng, CARRY=f.NO_BAG, LOWER=f.SHORTS, OUTER=0), [Walk([(0.18 * t1, -11.5, 18.2),
        (0.18 * t1 + 9.0, 15.0, 17.2)])])
    greeter = Actor(5, _look(rng, CARRY=f.BACKPACK), [Walk([(-1, -6.0, 8.9), (3.6, -1.4, 9.3), (6.2, -1.35,
        9.3), (t1 + 1, 3.8, 10.6)])],
                    [Act(3.7, 6.0, "wave", 1.2)])  # fmt: skip
    answer = Actor(6, _look(rng, CARRY=f.HAND_BAG, LOWER=f.SKIRT), [Walk([(-1, 8.8, 9.6), (5.5, 1.8, 8.6),
        (t1 + 1, -6.2, 7.4)])])
    actors = [sitter, first, second, runner, greeter, answer]
    _strollers(rng, actors, 4, seconds, (-6.0, 6.0, 9.5, 21.0),
               obstacles=((5.6, 16.5), (8.3, 16.3), (7.0, 12.0), (-5.6, 14.0), (-3.9, 14.4), (3.2, 12.4)))
    return Stage(cam, places.plaza(), things, actors)


def duo(rng: Rng, width: int, height: int, seconds: float) -> Stage:
    """Two people who cross, embrace, overtake, leave and come back on either side."""
    cam = camera(1.42 * height, width, height, 2.5, math.radians(9.5))
    scenery = np.random.default_rng(42)
    things = [props.lamp(cam, 3.3, 9.6, scenery, height=4.4), props.bin_(cam, -3.9, 9.8, scenery),
              props.tree(cam, -7.5, 13.0, scenery),
              props.bush(cam, 6.2, 12.4, scenery, wide=1.6), props.bench(cam, -1.4, 10.3, scenery, yaw=0.05)]
    actors = [
        Actor(number, _look(rng, CARRY=int(rng.choice((f.NO_BAG, f.BACKPACK, f.SHOULDER_BAG)))),
              []) for number in (1, 2)
    ]
    lane = 5.6
    edge = 0.5 * width / float(cam[0]) * (lane + 0.7) + 0.75
    t, first = 0.0, True
    while t < seconds:
        act = "cross" if first else str(rng.choice(("meet", "meet", "cross", "overtake")))
        if len(actors[0].walks) == 1:
            act = "meet"
        t = _duo_act(rng, actors, act, t, lane, edge, inside=first)
        t += rng.uniform(0.2, 0.6)
        first = False
    return Stage(cam, places.campus(), things, actors, grain=1.2)


def _duo_act(rng: Rng, actors: list[Actor], act: str, t: float, lane: float, edge: float, *,
             inside: bool) -> float:
    """Add one act that begins at `t` with both out of view (or, at first, in view); returns its end."""
    ends = []
    front = rng.permutation((-1, 1))
    side = int(rng.choice((-1, 1)))
    meeting = t + edge / 1.55 + 0.2
    hug = str(rng.choice(("embrace", "embrace", "talk")))
    stay = rng.uniform(1.5, 2.4)
    for i, actor in enumerate(actors):
        depth = lane + 0.42 * float(front[i]) + rng.normal(0, 0.08)
        speed = rng.uniform(1.45, 1.75)
        if act == "overtake":
            mine, speed = side, (2.0 if i == 0 else 1.4)
            start = t + (1.0 if i == 0 else 0.0)
        else:
            mine, start = side if i == 0 else -side, t
        if act == "meet":
            gap = 0.19 if hug == "embrace" else 0.5
            x, z = mine * gap, lane + 0.03 * float(front[i])
            leave = meeting + stay
            # Go on past each other, or back to where they came from.
            out = mine * int(rng.choice((-1, 1)))
            around = lane + 0.5 * float(front[i])
            points = [(meeting - (edge - gap) / speed, mine * edge, depth), (meeting, x, z), (leave, x, z)]
            if out != mine:
                points.append((leave + 0.6, mine * 0.35, around))
            points.append((leave + 0.4 + edge / speed, out * edge, around))
            actor.acts.append(Act(meeting - 0.45, leave + 0.25, hug, -mine * math.pi / 2))
            actor.walks.append(Walk(points))
            ends.append(points[-1][0])
            continue
        from_x = mine * (edge * 0.62 if inside else edge)
        end = start + (edge + abs(from_x)) / speed
        actor.walks.append(Walk([(start, from_x, depth), (end, -mine * edge, depth + rng.normal(0, 0.15))]))
        ends.append(end)
    return max(ends)


def corridor(rng: Rng, width: int, height: int, seconds: float) -> Stage:
    """An office corridor, portrait: people come and go along it and stop to talk."""
    cam = camera(1.0 * height, width, height, 2.3, math.radians(10))
    scenery = np.random.default_rng(43)
    things = [props.planter(cam, 1.15, 11.5, scenery), props.bin_(cam, -1.35, 7.4, scenery)]
    t1 = seconds + 1.0
    actors = [
        Actor(1, _look(rng, CARRY=f.FOLDER), [Walk([(-1.0, -0.45, 13.6), (t1, -0.7, 0.2)])]),
        Actor(2, _look(rng, CARRY=f.NO_BAG), [Walk([(-1.0, 0.55, 2.2), (t1, 0.65, 16.2)])]),
        Actor(3, _look(rng, CARRY=f.NO_BAG), _still(seconds, -0.95, 9.2), [Act(-9, 99, "talk", 1.5)]),
        Actor(4, _look(rng, CARRY=f.SHOULDER_BAG), [Walk([(1.5, 0.05, 24.0), (t1 + 4, 0.15, 6.5)])],
              [Act(3, 99, "phone")]),
        Actor(5, _look(rng, CARRY=f.NO_BAG), _still(seconds, -0.1, 9.45), [Act(-9, 99, "crossed", -1.4)]),
    ]
    return Stage(cam, places.corridor(), things, actors, vignette=0.2, grain=1.4)


def night(rng: Rng, width: int, height: int, seconds: float) -> Stage:
    """A street at night under lamps."""
    cam = camera(1.3 * height, width, height, 4.6, math.radians(13.5))
    scenery = np.random.default_rng(44)
    place = places.night()
    things = [props.lamp(cam, lamp[0] - 0.95, lamp[2], scenery, height=5.0, lit=0.9) for lamp in place.lamps]
    things += [props.car(cam, 5.5, 13.9, scenery, yaw=1.57), props.car(cam, -7.4, 14.0, scenery, yaw=1.57),
               props.bin_(cam, -5.8, 8.3, scenery), props.bench(cam, 0.4, 18.6, scenery), props.tree(cam,
                   7.2, 20.5, scenery),
               props.tree(cam, -8.5, 20.8, scenery)]  # fmt: skip
    t1 = seconds + 1.0
    actors = [
        Actor(1, _look(rng), [Walk([(-1, -5.8, 7.2), (t1, 7.0, 7.5)])]),
        Actor(2, _look(rng, CARRY=f.NO_BAG), [Walk([(-1, -6.6, 7.9), (t1, 6.4, 8.1)])], [Act(-9, 99,
            "pockets")]),
        Actor(3, _look(rng, CARRY=f.BACKPACK), [Walk([(-1, 6.5, 6.7), (4.0, 1.6, 6.9), (6.5, 1.4, 7.0),
                                                      (t1 + 1, -4.5, 6.6)])], [Act(4.0, 6.6, "phone", 0.1)]),
        Actor(4, _look(rng, CARRY=f.NO_BAG), [Walk([(0.5, 8.5, 18.2), (t1 + 2, -5.5, 17.6)])]),
        Actor(5, _look(rng, CARRY=f.NO_BAG), [Walk([(-1, -2.6, 16.9), (t1, 1.2, 8.2)])]),
        Actor(6, _look(rng, CARRY=f.NO_BAG, OUTER=0), _still(seconds, 0.45, 18.45), [Act(-9, 99, "sit",
            0.05)]),
    ]
    _strollers(rng, actors, 2, seconds, (-6.0, 8.0, 16.8, 21.0), sideways=1.0)
    glows = [(float(v[0]), float(v[1]) + 0.1, float(v[2]), 1.0) for v in place.lamps]
    return Stage(cam, place, things, actors, glows, vignette=0.28, grain=1.5)


def crowd(rng: Rng, width: int, height: int, seconds: float) -> Stage:
    """The square from higher up with more than thirty people."""
    cam = camera(1.28 * height, width, height, 6.4, math.radians(17.5))
    scenery = np.random.default_rng(45)
    things = [props.tree(cam, -13.0, 21, scenery), props.tree(cam, 13.5, 26, scenery), props.planter(cam,
        -7.6, 15.5, scenery),
              props.planter(cam, 8.8, 14.5, scenery), props.lamp(cam, 4.2, 15.0, scenery), props.lamp(cam,
                  -4.8, 22.5, scenery),
              props.bench(cam, 8.0, 19.0, scenery, yaw=-0.4), props.bin_(cam, 6.2, 19.2, scenery),
              props.tree(cam, -11.8, 27.5, scenery)]  # fmt: skip
    actors: list[Actor] = []
    for x, z, size in ((-2.4, 13.6, 3), (3.6, 20.5, 2), (-6.2, 19.0, 2), (0.6, 25.0, 3)):
        for k in range(size):
            angle = 2 * math.pi * k / size + rng.normal(0, 0.2)
            stand = (x + 0.62 * math.cos(angle), z + 0.62 * math.sin(angle))
            inwards = math.atan2(-math.cos(angle), math.sin(angle))
            posture = str(rng.choice(("talk", "pockets", "crossed", "phone", "hips")))
            look = _look(rng, CARRY=int(rng.choice((f.NO_BAG, f.BACKPACK, f.SHOULDER_BAG))))
            actors.append(Actor(len(actors) + 1, look, _still(seconds, *stand), [Act(-9, 99, posture,
                inwards)]))
    _strollers(rng, actors, 27, seconds, (-9.0, 9.0, 9.0, 27.0), sideways=0.65,
               obstacles=((-7.6, 15.5), (8.8, 14.5), (8.0, 19.0), (6.2, 19.2), (4.2, 15.0), (-4.8, 22.5)))
    return Stage(cam, places.plaza(), things, actors)


STAGES: dict[str, Callable[[Rng, int, int, float], Stage]] = {
    "plaza": plaza, "duo": duo, "corridor": corridor, "night": night, "crowd": crowd,
}  # fmt: skip
