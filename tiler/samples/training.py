"""Random pictures of people with boxes, to train a detector on: as varied as can be drawn quickly.

NumPy and Numba alone; every picture follows from the generator that is passed in, so
workers in several processes need nothing but seeds of their own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tiler.samples import background as b
from tiler.samples import effects, places, props
from tiler.samples import figure as f
from tiler.samples import raster as r
from tiler.samples.body import MAX_PARTS, build_parts
from tiler.samples.people import Figure, draw_figures, local_light

Rng = np.random.Generator
MAX_PEOPLE = 25
_MIN_PX, _MAX_OF_FRAME = 15.0, 1.5


def _random_camera(rng: Rng, width: int, height: int) -> tuple[b.Array, float]:
    """A camera, and the stature in px that it aims to show at mid picture."""
    aim = float(np.exp(rng.uniform(math.log(0.055 * height), math.log(0.95 * height))))
    if rng.random() < 0.3:
        pitch, up = math.radians(rng.normal(1, 5)), rng.uniform(0.9, 2.4)
        return b.camera(width * rng.uniform(0.6, 1.8), width, height, up, pitch), aim
    pitch = math.radians(rng.uniform(6, 50) if rng.random() < 0.85 else rng.uniform(50, 68))
    up = rng.uniform(2.2, 12)
    f_px = float(np.clip(aim * up / math.sin(pitch) / (1.7 * math.cos(pitch)), 0.45 * width, 5 * width))
    return b.camera(f_px, width, height, up, pitch), aim


def _spot(rng: Rng, cam: b.Array, place: b.Place, aim: float, width: int, height: int) -> tuple[float,
    float] | None:
    """Somewhere on the ground where a person is at least partly in view and of a sensible size."""
    for _ in range(12):
        if rng.random() < 0.5 or cam[4] < 0.1:
            size = float(np.exp(rng.normal(math.log(aim), 0.5)))
            z = 1.7 * cam[0] / max(size, 4.0)
            x = rng.uniform(-0.58, 0.58) * width * z / cam[0]
        else:
            at = b.ground_at(cam, rng.uniform(-0.05, 1.05) * width, rng.uniform(-0.1, 1.35) * height)
            if at is None:
                continue
            x, z = at
        foot, head = b.project(cam, x, 0.0, z), b.project(cam, x, 1.7, z)
        tall = math.hypot(foot[0] - head[0], foot[1] - head[1])
        limit = _MAX_OF_FRAME * height
        if foot[2] < 0.6 or head[2] < 0.6 or not _MIN_PX <= tall <= limit:
            continue
        if not b.is_open(place, x, z):
            continue
        margin = 0.12 * tall
        if -margin < foot[0] < width + margin and foot[1] > margin and head[1] < height - margin:
            return x, z
    return None


def random_pose(rng: Rng, x: float, z: float) -> b.Array:
    """Walking mostly, or standing, sitting, bending, waving and so on, towards anywhere."""
    pose = np.zeros(f.POSE_COLUMNS)
    pose[f.X], pose[f.Z], pose[f.YAW] = x, z, rng.uniform(-math.pi, math.pi)
    if rng.random() < 0.45:
        pose[f.YAW] = rng.choice((0.0, 0.5, 1.0, 1.5)) * math.pi + rng.normal(0, 0.25)
    moving = rng.random() < 0.62
    f.walk(pose, rng.random(), rng.uniform(0.5, 1.1) if moving else rng.uniform(0, 0.15), rng.uniform(0.3,
        1.2))
    if rng.random() < 0.05:
        f.walk(pose, rng.random(), 1.6)
    names = tuple(f.POSTURES)
    if rng.random() < (0.2 if moving else 0.65):
        upper = ("wave", "phone", "call", "pockets", "crossed", "talk", "hips", "reach")
        f.blend(pose, str(rng.choice(upper if moving or rng.random() < 0.55 else names)), rng.uniform(0.6,
            1.0))
    pose[f.HEAD_YAW] = rng.normal(0, 0.35)
    pose[f.HEAD_PITCH] += rng.normal(0.05, 0.15)
    pose[f.PITCH] += rng.normal(0.02, 0.05)
    pose[f.ARM_L : f.OUT_R + 1] += rng.normal(0, 0.07, 4)
    pose[f.SPREAD_L : f.SPREAD_R + 1] += abs(rng.normal(0, 0.05))
    return pose


def _random_figures(rng: Rng, cam: b.Array, place: b.Place, aim: float, width: int,
                    height: int) -> list[Figure]:
    if rng.random() < 0.06:
        return []
    count = min(MAX_PEOPLE, 1 + int(rng.exponential(5.0 if aim < 0.5 * height else 2.5)))
    figures: list[Figure] = []
    last: tuple[float, float] | None = None
    for _ in range(count):
        # Companions stand close to one another: that is where occlusion comes from.
        if last is not None and rng.random() < 0.3:
            spot = (last[0] + rng.normal(0, 0.45), last[1] + rng.normal(0, 0.5))
            if not b.is_open(place, *spot) or b.project(cam, spot[0], 1.0, spot[1])[2] < 1.2:
                continue
        else:
            found = _spot(rng, cam, place, aim, width, height)
            if found is None:
                continue
            spot = found
        last = spot
        figures.append(Figure(f.random_look(rng, child=0.08), random_pose(rng, *spot)))
    return figures


def _random_props(rng: Rng, cam: b.Array, place: b.Place, aim: float, width: int, height: int,
                  budget: int) -> list[b.Prop]:
    """Things that hide people, or that look a little like them."""
    made: list[b.Prop] = []
    recipes = (props.pole, props.pole, props.pole, props.crate, props.bin_, props.planter, props.bush,
               props.tree, props.bench, props.car)
    for _ in range(budget):
        spot = _spot(rng, cam, place, aim, width, height)
        if spot is None:
            continue
        recipe = recipes[rng.integers(len(recipes))]
        px = cam[0] / max(1.0, b.project(cam, spot[0], 0.8, spot[1])[2])
        if recipe in (props.tree, props.car) and px > 0.18 * height:
            recipe = props.pole
        if recipe is props.tree:
            made.append(props.tree(cam, *spot, rng, clusters=8, size=rng.uniform(0.5, 1.0)))
        elif recipe is props.bush:
            made.append(props.bush(cam, *spot, rng, clusters=7))
        elif recipe is props.car:
            made.append(props.car(cam, *spot, rng, yaw=rng.uniform(-3, 3), van=bool(rng.random() < 0.3)))
        elif recipe is props.bench:
            made.append(props.bench(cam, *spot, rng, yaw=rng.uniform(-3, 3)))
        else:
            made.append(recipe(cam, *spot, rng))
    return made


def _coats(rng: Rng, cam: b.Array, place: b.Place, aim: float, width: int, height: int) -> list[b.Prop]:
    """Coats on a stand: clothes without a body, not to be boxed."""
    spot = _spot(rng, cam, place, aim, width, height)
    if spot is None:
        return []
    look = f.random_look(rng)
    look.options[f.BODY], look.options[f.OUTER] = f.COAT_ONLY, 1
    look.dims[f.HEM], look.dims[f.SLEEVE] = rng.uniform(0.0, 0.2), 1.0
    pose = np.zeros(f.POSE_COLUMNS)
    pose[f.X], pose[f.Z], pose[f.YAW] = *spot, rng.uniform(-3, 3)
    tubes = np.zeros((MAX_PARTS, r.PART_COLUMNS), np.float32)
    count = build_parts(pose, look, cam, tubes)
    return [b.Prop(b.project(cam, spot[0], 0.8, spot[1])[2], [], tubes[:count], look.materials)]


def _clutter(rng: Rng, canvas: r.Canvas) -> None:
    """Anything but a scene: gradients, noise at any scale, polygons, tubes."""
    height, width = canvas.depth.shape
    first, second = rng.uniform(0, 255, 3), rng.uniform(0, 255, 3)
    t = np.linspace(0, 1, height)[:, None] if rng.random() < 0.5 else np.linspace(0, 1, width)[None, :]
    t = np.broadcast_to(t, (height, width)).astype(np.float32)
    if rng.random() < 0.7:
        su, sv, oy = rng.uniform(0.05, 2.5), rng.uniform(0.05, 2.5), rng.integers(512)
        rows = ((np.arange(height) * sv).astype(int) + oy) & 511
        columns = (np.arange(width) * su).astype(int) & 511
        texture = 0.5 + 0.5 * r.NOISE[rows[:, None], columns]
        t = np.clip(t * rng.uniform(0, 1) + rng.uniform(0.2, 1.2) * texture, 0, 1)
    step = (second - first).astype(np.float32)
    canvas.rgb[:] = (first.astype(np.float32) + t[..., None] * step).astype(np.uint8)
    canvas.depth[:] = 900.0
    for _ in range(int(rng.integers(0, 22))):
        corners = int(rng.integers(3, 6))
        angles = np.sort(rng.uniform(0, 2 * math.pi, corners))
        at = rng.uniform(0, 1, 2) * (width, height)
        size = height * np.exp(rng.uniform(-3.5, -0.8, 2))
        points = at + np.stack([np.cos(angles) * size[0], np.sin(angles) * size[1]], 1)
        r.draw_polygon(canvas.rgb, canvas.depth, canvas.owner, canvas.stats, points, 800.0, rng.uniform(0,
            255, 3),
                       rng.uniform(0, 255, 3), r.NOISE, rng.uniform(0, 0.6))  # fmt: skip
    n = int(rng.integers(0, 16))
    parts = np.zeros((max(n, 1), r.PART_COLUMNS), np.float32)
    ends, size = rng.uniform(0, 1, (n, 2)) * (width, height), height * np.exp(rng.uniform(-4.5, -1.8, (n, 1)))
    lean = rng.normal(0, 1, (n, 2)) * (0.5, 2.0)
    parts[:n, r.X0 : r.Y0 + 1], parts[:n, r.X1 : r.Y1 + 1] = ends, ends + lean * size * 3
    parts[:n, r.R0 : r.R1 + 1] = size * rng.uniform(0.3, 1, (n, 3))
    parts[:n, r.C0 : r.C1 + 1] = size * rng.uniform(0.2, 1, (n, 2))
    parts[:n, r.D0], parts[:n, r.D1], parts[:n, r.WIDTH], parts[:n, r.LEN] = 700.0, 700.0, 0.2, 0.6
    parts[:n, r.MAT] = np.arange(n) % f.MATERIALS
    light = np.array([-0.4, -0.6, 0.6, 0.7, 0.4, 1, 1, 1], np.float32)
    r.draw_parts(canvas, -1, parts[:n], f.random_look(rng).materials, light, 1.2)


def _develop(rng: Rng, rgb: npt.NDArray[np.uint8], night: bool) -> npt.NDArray[np.uint8]:
    """Lens, sensor and recorder."""
    if rng.random() < 0.55:
        rgb = effects.blur(rgb, float(rng.choice((0.45, 0.6, 0.8, 1.1, 1.6), p=(0.3, 0.3, 0.2, 0.14, 0.06))))
    if rng.random() < 0.08:
        rgb = effects.motion_blur(rgb, rng.uniform(2, 9), rng.uniform(-0.5, 0.5))
    level = np.arange(256) / 255.0
    gain, gamma, lift = np.exp(rng.normal(0, 0.18)), np.exp(rng.normal(0, 0.2)), rng.choice((0.0,
        rng.uniform(0, 0.15)))
    if night and rng.random() < 0.5:
        gain *= rng.uniform(1.2, 3.0)
    curve = np.clip(lift + (1 - lift) * np.clip(level * gain, 0, 1) ** gamma, 0, 1)
    if rng.random() < 0.3:
        curve += (curve * curve * (3 - 2 * curve) - curve) * rng.uniform(-0.5, 0.9)
    luma = np.array([[0.299, 0.587, 0.114]]).repeat(3, 0)
    keep = 0.0 if rng.random() < 0.10 else float(np.clip(rng.normal(0.85, 0.25), 0, 1.6))
    matrix = np.eye(3) * keep + luma * (1 - keep)
    cast = np.exp(rng.normal(0, 0.06, 3)) if rng.random() < 0.5 else np.ones(3)
    matrix *= cast[:, None] if keep > 0 else 1.0
    if keep == 0.0 and rng.random() < 0.15:
        curve = curve[::-1].copy()
    amount = float(rng.choice((0.0, 1.5, 4.0, 9.0), p=(0.25, 0.4, 0.25, 0.1))) * rng.uniform(0.5, 1.3)
    ox, oy = (int(v) for v in rng.integers(0, 512, 2))
    effects.finish(rgb, curve * 255.0, matrix, float(rng.choice((0.0, rng.uniform(0, 0.4)))),
                   effects.NOISE, amount,
                   0.0 if keep == 0 else 0.5, ox, oy)  # fmt: skip
    if rng.random() < 0.25:
        effects.compress(rgb, rng.uniform(4, 22))
    return rgb


def render_training_frame(
    rng: Rng, width: int, height: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """A random picture of 0 to 25 people with its labels.

    Returns:
        rgb (H, W, 3) uint8; boxes (n, 4) float32 x0 y0 x1 y1 px of each body with clothes
        and hair inside the frame, whether covered or not; visibility (n,) float32, the
        share of the whole body that is seen. Drop what is barely seen when training.
    """
    canvas = r.new_canvas(width, height, MAX_PEOPLE)
    cam, aim = _random_camera(rng, width, height)
    middle = b.ground_at(cam, width / 2, height * 0.5)
    view_m = min(max(1.7 * cam[0] / aim, 2.0 if middle is None else min(middle[1], 60.0)), 80.0)
    place = places.random_place(rng, view_m=view_m, up_m=float(cam[3]))
    night = bool(place.sky[7] < 0.4)
    if rng.random() < 0.16:
        _clutter(rng, canvas)
        ground = np.zeros(height, np.float32)
        place = place._replace(lamps=np.zeros((0, 5)), planes=place.planes[:1])
        place.sky[7], night = rng.uniform(0.6, 1.1), False
    else:
        b.cast(canvas, cam, place)
        ground = b.ground_depths(cam, height)
    figures = _random_figures(rng, cam, place, aim, width, height)
    things = _random_props(rng, cam, place, aim, width, height, int(rng.choice((0, 1, 2, 4, 7), p=(0.3,
        0.2, 0.2, 0.2, 0.1))))
    if rng.random() < 0.12:
        things += _coats(rng, cam, place, aim, width, height)
    gains = [max(0.1, float(place.sky[7])) if not len(place.lamps) else local_light(place, 0.0,
        6.0) for _ in things]
    soft = rng.uniform(1.0, 1.6)
    labels, _ = draw_figures(canvas, cam, place, figures, ground, things, gains, soft=soft)
    rgb = _develop(rng, canvas.rgb, night)
    seen = labels.present & (labels.visibility > 0)
    boxes, visibility = labels.xyxy[seen], labels.visibility[seen]
    if rng.random() < 0.5:
        rgb = np.ascontiguousarray(rgb[:, ::-1])
        boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
    return rgb, boxes, visibility


class View(NamedTuple):
    """One picture of a cast.

    Attributes:
        rgb: (H, W, 3) uint8.
        person: (n,) int64, who of the cast it is.
        xyxy: (n, 4) float32 px, the body with clothes and hair inside the frame, covered or not.
        visibility: (n,) float32, the share of the whole body that is seen.
    """

    rgb: npt.NDArray[np.uint8]
    person: npt.NDArray[np.int64]
    xyxy: npt.NDArray[np.float32]
    visibility: npt.NDArray[np.float32]


def render_cast(rng: Rng, width: int, height: int, people: int, views: int) -> Iterator[View]:
    """The same people in front of one camera, `views` times: elsewhere in the picture and in another pose each time.

    To train what tells people apart: place, light, lens and recorder stay, as they do for a camera.
    """
    cam, aim = _random_camera(rng, width, height)
    middle = b.ground_at(cam, width / 2, height * 0.5)
    view_m = min(max(1.7 * cam[0] / aim, 2.0 if middle is None else min(middle[1], 60.0)), 80.0)
    place = places.random_place(rng, view_m=view_m, up_m=float(cam[3]))
    night = bool(place.sky[7] < 0.4)
    things = _random_props(rng, cam, place, aim, width, height, int(rng.integers(0, 4)))
    gains = [max(0.1, float(place.sky[7])) if not len(place.lamps) else local_light(place, 0.0, 6.0) for _ in things]
    looks = [f.random_look(rng, child=0.05) for _ in range(people)]
    camera_seed = int(rng.integers(2**31))
    soft = rng.uniform(1.0, 1.6)
    canvas = r.new_canvas(width, height, people)
    ground = b.ground_depths(cam, height)
    for _ in range(views):
        b.cast(canvas, cam, place)
        spots = [(k, _spot(rng, cam, place, aim, width, height)) for k in range(people)]
        who = [(k, spot) for k, spot in spots if spot is not None]
        figures = [Figure(looks[k], random_pose(rng, *spot)) for k, spot in who]
        labels, _ = draw_figures(canvas, cam, place, figures, ground, things, gains, soft=soft)
        rgb = _develop(np.random.default_rng(camera_seed), canvas.rgb, night)
        seen = labels.present & (labels.visibility > 0)
        yield View(rgb, np.array([k for k, _ in who], np.int64)[seen], labels.xyxy[seen], labels.visibility[seen])
