"""Make a narrower person detector from a trained one: it learns to answer as the wide one does.

    python -m tools.slim_detector --minutes 20 --out out/slim                    # two processor cores
    python -m tools.slim_detector --minutes 2 --batch 64 --pictures 8000         # one large GPU, 16 cores

Two steps, both on drawn pictures and without their boxes: the teacher's answer is the truth.

1. Layer by layer, in the order of the flow: every convolution of the narrow network is fitted by least squares to
   the most important channels of the same convolution in the wide one, given what the layers before it really
   deliver (channel pruning by reconstruction, He et al. 2017, with the student's own features as input).
2. All layers together: gradient descent on the difference of the two heads (distillation, Hinton et al. 2015;
   boxes count where the teacher sees somebody).

Needs PyTorch >= 2.6, onnx and onnxruntime besides tiler itself. Written to `--out`: person-nano.onnx,
person-nano-fp16.onnx and slim.json (settings and curve).
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
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from tiler.engines.shipped import SHIPPED
from tiler.samples.render import render_training_frame
from tools.training.augment import Augmenter
from tools.training.export import export_onnx
from tools.training.geometry import Pool, paint_bars, random_views, sample_pixels
from tools.training.losses import diou_loss
from tools.training.network import INPUT_HEIGHT, INPUT_WIDTH, PersonDetector, anchor_grid, decode_boxes
from tools.training.pictures import held_out

SAMPLES = 24_000
"""Places in the calibration pictures that a convolution is fitted to."""
RIDGE = 1e-3
SURE = 0.05
"""Teacher's score above which its box counts."""

Features = dict[str, Tensor]
"""By the name of a convolution."""


def load_folded(path: Path) -> PersonDetector:
    """The folded network of an exported file on the CPU, with its score as a logit."""
    stored = onnx.load(str(path)).graph.initializer
    weights = {item.name: torch.from_numpy(numpy_helper.to_array(item).copy()) for item in stored}
    network = PersonDetector().folded()
    network.load_state_dict({name: weights[name] for name in network.state_dict()})
    network.probabilities = False
    return network


def convolutions(network: nn.Module) -> dict[str, nn.Conv2d]:
    """Every convolution by name; those of a RepConv by the RepConv's."""
    return {name.removesuffix(".folded"): m for name, m in network.named_modules() if isinstance(m, nn.Conv2d)}


def teach(teacher: PersonDetector, images: Tensor) -> tuple[Features, Features]:
    """What each convolution of the teacher delivers (before ReLU), and how much each of its channels matters.

    A channel matters by the square of what the head would lose without it, to first order.
    """
    importance: Features = {}
    handles = []
    for name, conv in convolutions(teacher).items():

        def keep(_: nn.Module, __: Any, out: Tensor, name: str = name) -> None:
            out.requires_grad_()
            out.retain_grad()
            live[name] = out

        handles.append(conv.register_forward_hook(keep))
    parts: dict[str, list[Tensor]] = {}
    for chunk in images.split(8):
        live: dict[str, Tensor] = {}
        with torch.enable_grad():
            head = teacher(chunk.requires_grad_())
            chance = head[..., 4].sigmoid()
            (chance.sum() + (head[..., :4] * chance.detach()[..., None]).abs().sum()).backward()
        for name, out in live.items():
            assert out.grad is not None
            effect = (out.relu() * out.grad).sum((2, 3)).square().sum(0).detach()
            importance[name] = importance.get(name, torch.zeros_like(effect)) + effect
            parts.setdefault(name, []).append(out.detach())
    for handle in handles:
        handle.remove()
    return {name: torch.cat(each) for name, each in parts.items()}, importance


def fit(conv: nn.Conv2d, x: Tensor, wanted: Tensor, weight: Tensor) -> float:
    """Set a convolution by weighted ridge regression; returns the share of variance left unexplained.

    Args:
        conv: to set.
        x: (N, C, H, W), its input.
        wanted: (N, K, h, w), its output.
        weight: (N, h, w), how often a place is drawn.
    """
    n, _, h, w = wanted.shape
    drawn = torch.multinomial(weight.flatten(), min(SAMPLES, n * h * w), replacement=True)
    image, row, column = drawn // (h * w), drawn // w % h, drawn % w
    k, stride, pad = conv.kernel_size[0], conv.stride[0], conv.padding[0]
    padded = F.pad(x, [pad] * 4)
    taps = [padded[image, :, row * stride + i, column * stride + j] for i in range(k) for j in range(k)]
    a = torch.stack(taps, 2).flatten(1).double()
    y = wanted[image, :, row, column].double()
    mean_a, mean_y = a.mean(0), y.mean(0)
    a, y = a - mean_a, y - mean_y
    gram = a.T @ a
    gram.diagonal().add_(RIDGE * gram.diagonal().mean())
    solution = torch.linalg.solve(gram, a.T @ y)
    conv.weight.data = solution.T.reshape(conv.weight.shape).float()
    assert conv.bias is not None
    conv.bias.data = (mean_y - mean_a @ solution).float()
    return float((y - a @ solution).square().sum() / y.square().sum())


@torch.no_grad()
def rebuild(student: PersonDetector, delivered: Features, importance: Features, images: Tensor) -> dict[str, float]:
    """Fit every convolution of the student in one forward pass; what each left unexplained.

    Places near people are drawn most often, though never alone.
    """
    nobody = [1 - F.interpolate(delivered[f"heads.{level}.score"].sigmoid(), (48, 80)) for level in range(3)]
    near = F.max_pool2d(1 - torch.stack(nobody).prod(0), 5, 1, 2)
    left: dict[str, float] = {}
    handles = []
    for name, conv in convolutions(student).items():

        def solve(conv: nn.Module, inputs: tuple[Tensor], name: str = name) -> None:
            assert isinstance(conv, nn.Conv2d)
            wanted = delivered.pop(name)
            if wanted.shape[1] > conv.out_channels:
                best = importance[name].argsort(descending=True)[: conv.out_channels].sort().values
                wanted = wanted[:, best]
            weight = F.interpolate(near, wanted.shape[2:], mode="area")[:, 0]
            weight = weight / weight.mean() + (0.02 if name.endswith(".box") else 0.5)
            left[name] = fit(conv, inputs[0], wanted, weight)

        handles.append(conv.register_forward_pre_hook(solve))
    student(images)
    for handle in handles:
        handle.remove()
    return left


def distil(
    student: PersonDetector, teacher: PersonDetector, pool: Pool, options: argparse.Namespace
) -> list[dict[str, float]]:
    """Train all layers for `options.minutes`; returns the curve."""
    generator = seeded(options)
    augmenter = Augmenter(generator)
    average = {name: value.clone() for name, value in student.state_dict().items()}
    anchors = anchor_grid(INPUT_HEIGHT, INPUT_WIDTH, options.device)
    student.requires_grad_(True)
    optimizer = torch.optim.AdamW(student.parameters(), lr=options.rate, weight_decay=1e-4)
    curve: list[dict[str, float]] = []
    sums, began, step = torch.zeros(3, device=options.device), time.monotonic(), 0
    while (progress := (time.monotonic() - began) / (60 * options.minutes)) < 1:
        cosine = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))
        for group in optimizer.param_groups:
            group["lr"] = options.rate * min(1, (step + 1) / 50) * cosine
        images = draw(pool, generator, augmenter, options.batch)
        with torch.no_grad():
            told = teacher(images)
        chance = told[..., 4].sigmoid()
        head = student(images)
        total = chance.sum().clamp_min(1.0)
        score = F.binary_cross_entropy_with_logits(head[..., 4], chance, reduction="sum")
        score = (score - F.binary_cross_entropy(chance, chance, reduction="sum")) / total
        sure = chance > SURE
        share = chance[sure] / total
        ours, theirs = (decode_boxes(h[..., :4], anchors)[sure] for h in (head, told))
        box = (diou_loss(ours, theirs) * share).sum()
        raw = ((head[..., :4] - told[..., :4])[sure].abs().sum(1) * share).sum()
        optimizer.zero_grad(set_to_none=True)
        (score + 2.5 * box + 0.25 * raw).backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 10.0)
        optimizer.step()
        step += 1
        keep = min(0.995, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(average.values()), list(student.state_dict().values()), 1 - keep)
        sums += torch.stack([score, box, raw]).detach()
        if step % 50 == 0:
            entry = {"s": round(time.monotonic() - began, 1), "views": step * options.batch}
            entry |= dict(zip(("score", "box", "l1"), (round(v / 50, 4) for v in sums.tolist()), strict=True))
            curve.append(entry)
            print(json.dumps(entry), flush=True)
            sums.zero_()
    student.load_state_dict(average)
    return curve


def seeded(options: argparse.Namespace) -> torch.Generator:
    """A generator on the training device."""
    generator = torch.Generator(options.device)
    generator.manual_seed(options.seed)
    return generator


@torch.no_grad()
def draw(pool: Pool, generator: torch.Generator, augmenter: Augmenter, count: int) -> Tensor:
    """Random views of stored pictures, graded and sometimes softened or noisy: (count, 3, H, W) float32."""
    source = torch.randint(len(pool.rgb), (count, 4), generator=generator, device=generator.device)
    views = random_views(generator, source, pool.people, 0.3)
    images = sample_pixels(pool.rgb, views)
    augmenter.apply(images, 0.8, lambda part: augmenter.grade(part, 0.8))
    augmenter.apply(images, 0.25, augmenter.blur)
    augmenter.apply(images, 0.25, augmenter.add_noise)
    return paint_bars(images, views.content).float()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--teacher", type=Path, default=SHIPPED / "person-small.onnx", help="the wide network")
    parser.add_argument("--out", type=Path, default=Path("out/slim"))
    parser.add_argument("--minutes", type=float, default=20.0, help="of distillation")
    parser.add_argument("--channels", type=int, nargs=5, default=(16, 16, 48, 96, 144))
    parser.add_argument("--neck", type=int, default=48)
    parser.add_argument("--head", type=int, default=32)
    parser.add_argument("--pictures", type=int, default=2500)
    parser.add_argument("--calibration", type=int, default=96, help="views that the layers are fitted to")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rate", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=20261125)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--device", default="cuda" if torch.cuda.device_count() > 0 else "cpu")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    began = time.monotonic()
    render_training_frame(np.random.default_rng(0), INPUT_WIDTH, INPUT_HEIGHT)  # compile once, before forking
    pool = held_out(render_training_frame, seed=options.seed, count=options.pictures, workers=options.workers)
    print(f"[{time.monotonic() - began:.0f} s] {len(pool.rgb)} pictures", flush=True)
    pool = Pool(*(part.to(options.device) for part in pool))
    teacher = load_folded(options.teacher).to(options.device)
    student = PersonDetector(tuple(options.channels), options.neck, options.head).folded().to(options.device)
    student.probabilities = False
    generator = seeded(options)
    images = draw(pool, generator, Augmenter(generator), options.calibration)
    left = rebuild(student, *teach(teacher, images), images)
    print(f"[{time.monotonic() - began:.0f} s] fitted; at most {max(left.values()):.3f} unexplained", flush=True)
    curve = distil(student, teacher, pool, options) if options.minutes else []
    export_onnx(student, options.out, "person-nano")
    record = {"options": {k: str(v) for k, v in vars(options).items()}, "unexplained": left, "curve": curve}
    (options.out / "slim.json").write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
