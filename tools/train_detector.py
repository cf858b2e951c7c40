"""Train `person-small`, the wider of the shipped person detectors, from nothing but procedural pictures.

    python -m tools.train_detector --minutes 9 --out out/train                    # one large GPU, 16 cores
    python -m tools.train_detector --device cpu --minutes 0.3 --out out/train     # smoke test on a laptop

Needs PyTorch >= 2.6, onnx and onnxruntime besides tiler itself. Renderers run in worker processes for the whole
time, the device trains on random views of the pictures rendered so far (see `tools/training`). Progress through
the learning-rate schedule follows the clock from the first step on, so that the run ends on time on any machine;
for the same reason two runs with one seed see the same pictures but are not equal to the bit. Before the first step
everything is compiled, which takes from one to more than three minutes.

Written to `--out`: person-small.onnx, person-small-fp16.onnx, person-small.pt (averaged weights), curves.json
(losses, scores, settings) and views.png (what the network gets to see).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from tiler.samples.render import render_training_frame
from tools.training.augment import Augmenter
from tools.training.clutter import add_clutter, draw_shapes, noise_bank
from tools.training.export import export_onnx, largest_difference
from tools.training.geometry import (
    HIDDEN,
    LOWEST_PX,
    NARROWEST_PX,
    Pool,
    move_boxes,
    paint_bars,
    random_views,
    sample_pixels,
)
from tools.training.losses import Losses, People, detection_loss
from tools.training.network import INPUT_HEIGHT, INPUT_WIDTH, PersonDetector, anchor_grid, decode_boxes
from tools.training.pictures import PictureStore, held_out
from tools.training.scoring import average_precision, suppress

LOWEST_SCORE = 0.02


class Trainer:
    """The network, its moving average, the optimiser and the random generators."""

    def __init__(self, options: argparse.Namespace):
        self.options, self.device = options, torch.device(options.device)
        torch.manual_seed(options.seed)
        self.generator = torch.Generator(self.device)
        self.generator.manual_seed(options.seed)
        self.augmenter = Augmenter(self.generator)
        self.layout = torch.channels_last if self.device.type == "cuda" else torch.contiguous_format
        self.network = PersonDetector().to(self.device, memory_format=self.layout)
        if options.start is not None:
            self.network.load_state_dict(torch.load(options.start, map_location=self.device))
        self.average = PersonDetector().to(self.device, memory_format=self.layout).requires_grad_(False)
        self.average.load_state_dict(self.network.state_dict())
        self.anchors = anchor_grid(INPUT_HEIGHT, INPUT_WIDTH, self.device)
        decayed = [p for p in self.network.parameters() if p.ndim > 1]
        others = [p for p in self.network.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": options.decay}, {"params": others, "weight_decay": 0.0}],
            lr=options.rate,
            fused=self.device.type == "cuda",
        )
        compiled = self.device.type == "cuda"
        self.forward = torch.compile(self.network, dynamic=False) if compiled else self.network
        self.sample = torch.compile(sample_pixels, dynamic=False) if compiled else sample_pixels
        self.paint = torch.compile(draw_shapes, dynamic=False) if compiled else draw_shapes
        self.bank = noise_bank(self.generator)
        self.step_count = 0

    def warm_up(self, pool: Pool) -> None:
        """Compile everything once, while no renderer competes for the processor."""
        source = torch.zeros(self.options.batch, 4, dtype=torch.int64, device=self.device)
        images, people = self.batch(pool, source, 0.5)
        self.losses(images, people).total.backward()
        self.optimizer.zero_grad(set_to_none=True)

    def batch(self, pool: Pool, source: Tensor, mosaic: float) -> tuple[Tensor, People]:
        """Views of stored pictures (N, 3, H, W) float16 and the persons in them."""
        with torch.no_grad():
            views = random_views(self.generator, source, pool.people, mosaic)
            images = self.sample(pool.rgb, views)
            boxes, visibility = move_boxes(pool, views)
            images, visibility = add_clutter(images, boxes, visibility, self.generator, self.bank, self.paint)
            images = paint_bars(self.augmenter(images), views.content)
            return images, select_people(boxes, visibility)

    def losses(self, images: Tensor, people: People) -> Losses:
        """Forward pass and loss."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            head = self.forward(images.float().contiguous(memory_format=self.layout))
        return detection_loss(head, self.anchors, people)

    def step(self, images: Tensor, people: People, progress: float) -> Tensor:
        """One optimiser step; returns the losses (total, score, iou, l1) on the device."""
        warm = min(1.0, self.step_count / self.options.warmup_steps)
        rate = self.options.rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        losses = self.losses(images, people)
        self.optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 10.0)
        self.optimizer.step()
        self.step_count += 1
        self.follow()
        return torch.stack([losses.total.detach(), *losses[1:]])

    @torch.no_grad()
    def follow(self) -> None:
        """Move the averaged weights and statistics towards the trained ones."""
        keep = min(0.9995, (1 + self.step_count) / (20 + self.step_count))
        ours, theirs = self.average.state_dict(), self.network.state_dict()
        names = [name for name, value in ours.items() if value.is_floating_point()]
        torch._foreach_lerp_([ours[n] for n in names], [theirs[n] for n in names], 1 - keep)

    @torch.no_grad()
    def evaluate(self, images: Tensor, boxes: Tensor, visibility: Tensor) -> dict[str, float]:
        """Score the averaged network on `images` (N, 3, H, W) with their boxes (N, K, 4), visibility (N, K)."""
        self.average.eval()
        found, truth = [], []
        ignored = too_little(boxes, visibility).cpu().numpy()
        seen, real = (visibility >= 0).cpu().numpy(), boxes.cpu().numpy()
        for first in range(0, len(images), 64):
            raw = self.average(images[first : first + 64].to(self.device).float())
            xyxy = decode_boxes(raw[..., :4], self.anchors).cpu().numpy()
            scores = raw[..., 4].float().sigmoid().cpu().numpy()
            for row in range(len(raw)):
                sure = scores[row] > LOWEST_SCORE
                kept = suppress(xyxy[row][sure], scores[row][sure])
                found.append((xyxy[row][sure][kept], scores[row][sure][kept]))
                people = seen[first + row]
                truth.append((real[first + row][people], ignored[first + row][people]))
        return average_precision(found, truth)


def too_little(boxes: Tensor, visibility: Tensor) -> Tensor:
    """Persons too hidden or too small to judge, (..., 4) and (...) -> (...) bool."""
    size = boxes[..., 2:] - boxes[..., :2]
    return (visibility < HIDDEN) | (size[..., 1] < LOWEST_PX) | (size[..., 0] < NARROWEST_PX)


def select_people(boxes: Tensor, visibility: Tensor) -> People:
    """Rows with a person, (N, K, 4) and (N, K) -> `People`."""
    image, row = (visibility >= 0).nonzero(as_tuple=True)
    chosen = boxes[image, row]
    return People(chosen, image, too_little(chosen, visibility[image, row]))


def draw_sheet(images: Tensor, people: People, path: Path, columns: int = 4) -> None:
    """Save images (N, 3, H, W) at half size with their boxes: green, or red where ignored."""
    tiles = []
    for row, image in enumerate(images.float().mul(255).byte().permute(0, 2, 3, 1).cpu().numpy()):
        picture = Image.fromarray(image)
        pen = ImageDraw.Draw(picture)
        mine = people.image == row
        for box, ignore in zip(people.boxes[mine].tolist(), people.ignore[mine].tolist(), strict=True):
            pen.rectangle(box, outline=(255, 0, 0) if ignore else (0, 255, 0))
        tiles.append(np.asarray(picture.resize((INPUT_WIDTH // 2, INPUT_HEIGHT // 2), Image.Resampling.BOX)))
    rows = [np.concatenate(tiles[i : i + columns], 1) for i in range(0, len(tiles) // columns * columns, columns)]
    Image.fromarray(np.concatenate(rows)).save(path)


def train(options: argparse.Namespace) -> dict[str, Any]:
    """Run the whole recipe; returns what curves.json holds."""
    started = time.monotonic()
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    render_training_frame(np.random.default_rng(0), INPUT_WIDTH, INPUT_HEIGHT)  # compile once, before forking
    check = held_out(render_training_frame, seed=options.seed, count=options.held_out, workers=options.workers)
    store = PictureStore(render_training_frame, seed=options.seed, workers=options.workers, capacity=options.store)
    record: dict[str, Any] = {"options": {k: str(v) for k, v in vars(options).items()}, "curve": [], "scores": []}
    trainer = Trainer(options)
    store.attach(trainer.device)
    plain = check.rgb.permute(0, 3, 1, 2) / 255
    trainer.augmenter.generator.manual_seed(options.seed + 1)
    hard: tuple[Tensor, Tensor, Tensor] | None = None

    def score(progress: float) -> None:
        count = len(plain) if progress >= 1 else min(len(plain), 256)
        entry: dict[str, Any] = {"progress": round(progress, 3), "step": trainer.step_count}
        people = check.people[:count]
        entry["plain"] = trainer.evaluate(plain[:count], people[..., :4], people[..., 4])
        if hard is not None:
            entry["randomised"] = trainer.evaluate(*(part[:count] for part in hard))
        record["scores"].append(entry)
        torch.save({k: v.half() for k, v in trainer.average.state_dict().items()}, out / "person-small.pt")
        (out / "curves.json").write_text(json.dumps(record, indent=1))
        print(f"[{time.monotonic() - started:6.1f} s] {json.dumps(entry)}", flush=True)

    trainer.warm_up(store.pool)
    print(f"[{time.monotonic() - started:6.1f} s] compiled", flush=True)
    store.begin()
    while store.rendered < options.first_pictures:
        time.sleep(0.05)
    hard = randomise(trainer, check)
    print(f"[{time.monotonic() - started:6.1f} s] training begins", flush=True)
    began = time.monotonic()
    window: list[Tensor] = []
    checks = [0.6]
    reported = time.monotonic()
    reported_step = 0
    views = 0
    while (progress := (time.monotonic() - began) / (60 * options.minutes)) < 1:
        mosaic = options.mosaic if progress < 0.85 else options.mosaic / 2
        source = store.draw(trainer.generator, options.batch)
        images, people = trainer.batch(store.pool, source, mosaic)
        if trainer.step_count == 0:
            draw_sheet(images[:16], select_rows(people, 16), out / "views.png")
        window.append(trainer.step(images, people, progress))
        views += len(images)
        if trainer.step_count % 10 == 0:
            window[-1].sum().item()  # stay at most ten steps ahead of the device, or the clock means nothing
        if time.monotonic() - reported > 15:
            losses = torch.stack(window).mean(0).tolist()
            pace = (trainer.step_count - reported_step) * options.batch / (time.monotonic() - reported)
            entry = {
                "s": round(time.monotonic() - started, 1),
                "step": trainer.step_count,
                "views": views,
                "pictures": store.rendered,
                "views_per_s": round(pace),
                **dict(zip(("loss", "score", "iou", "l1"), (round(v, 4) for v in losses), strict=True)),
            }
            record["curve"].append(entry)
            print(json.dumps(entry), flush=True)
            window.clear()
            reported, reported_step = time.monotonic(), trainer.step_count
        if checks and progress > checks[0] and options.device != "cpu":
            score(checks.pop(0))
            reported, reported_step = time.monotonic(), trainer.step_count
    store.close()
    record["pictures"], record["views"], record["steps"] = store.rendered, views, trainer.step_count
    paths = export_onnx(trainer.average, out, "person-small")
    score(1.0)
    some = np.ascontiguousarray(plain[:8].numpy(), np.float32)
    record["fp16_difference"] = largest_difference(*paths, some)
    record["seconds"] = round(time.monotonic() - started, 1)
    (out / "curves.json").write_text(json.dumps(record, indent=1))
    return record


def select_rows(people: People, count: int) -> People:
    """The persons of the first `count` images."""
    mine = people.image < count
    return People(people.boxes[mine], people.image[mine], people.ignore[mine])


@torch.no_grad()
def randomise(trainer: Trainer, check: Pool) -> tuple[Tensor, Tensor, Tensor]:
    """Held-out pictures through the training augmentation, once and for all: images, boxes, visibility."""
    pool = Pool(check.rgb.to(trainer.device), check.people.to(trainer.device))
    images, boxes, visibility = [], [], []
    rows = torch.arange(len(check.rgb), device=trainer.device)
    for part in rows.split(64):
        source = torch.stack([part, part.flip(0), part.roll(1), part.roll(2)], 1)
        views = random_views(trainer.generator, source, pool.people, trainer.options.mosaic)
        raw = sample_pixels(pool.rgb, views)
        xyxy, seen = move_boxes(pool, views)
        raw, seen = add_clutter(raw, xyxy, seen, trainer.generator, trainer.bank)
        images.append(paint_bars(trainer.augmenter(raw), views.content).cpu())
        boxes.append(xyxy.cpu())
        visibility.append(seen.cpu())
    return torch.cat(images), torch.cat(boxes), torch.cat(visibility)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    cuda = torch.cuda.device_count() > 0  # asks the driver only: forking stays possible
    parser.add_argument("--out", type=Path, default=Path("out/train"), help="folder for all results")
    parser.add_argument("--start", type=Path, help="person-small.pt of an earlier run to go on from")
    parser.add_argument("--device", default="cuda" if cuda else "cpu")
    parser.add_argument("--minutes", type=float, default=9.0, help="training time, without compiling and export")
    parser.add_argument("--seed", type=int, default=20261124)
    parser.add_argument("--batch", type=int, default=256 if cuda else 8)
    parser.add_argument("--rate", type=float, default=2e-3, help="peak learning rate")
    parser.add_argument("--decay", type=float, default=0.03, help="weight decay")
    parser.add_argument("--warmup-steps", type=int, default=150)
    parser.add_argument("--mosaic", type=float, default=0.5, help="share of images made of several pictures")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    parser.add_argument("--store", type=int, default=40_000 if cuda else 256, help="pictures kept on the device")
    parser.add_argument("--first-pictures", type=int, default=3000 if cuda else 32, help="rendered before step 1")
    parser.add_argument("--held-out", type=int, default=1000 if cuda else 32, help="pictures for validation")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    result = train(parse())
    print(json.dumps({k: v for k, v in result.items() if k not in {"curve", "options"}}, indent=1))
