"""Things that are not people, laid over training images: panels, posts, lattices, lettering, stains, bags.

Real places are full of upright shapes with texture; the renderer's are tidy. Each image gets up to `MOST` random
shapes between diamond, ellipse and rectangle, filled with one of five textures. Most keep clear of people; some
stand in front of them, and what they hide is taken off the visibility.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

MOST = 12
BANK_SIZE = 256
SHYNESS = 0.12
"""Most shapes are dropped if they would cover more than this part of somebody's box; the others at 0.6."""


class Shapes(NamedTuple):
    """`MOST` shapes for each of N images; all (N, MOST), colours (N, MOST, 3).

    x, y, half_width, half_height: px; tilt: radians; roundness: exponent of the superellipse; kind: texture, 0..4;
    pitch: px between stripes; layer: noise picture of the bank; bulge: 1 shades like a cylinder, 0 is flat.
    """

    x: Tensor
    y: Tensor
    half_width: Tensor
    half_height: Tensor
    tilt: Tensor
    roundness: Tensor
    kind: Tensor
    pitch: Tensor
    layer: Tensor
    bulge: Tensor
    first: Tensor
    second: Tensor


def noise_bank(generator: torch.Generator, layers: int = 16) -> Tensor:
    """Periodic noise with spectra from white to cloudy, (layers, 256, 256) float16, mean 0, deviation 1."""
    white = torch.randn(layers, BANK_SIZE, BANK_SIZE, generator=generator, device=generator.device)
    fy = torch.fft.fftfreq(BANK_SIZE, device=white.device)[:, None]
    fx = torch.fft.rfftfreq(BANK_SIZE, device=white.device)[None]
    radius = (fx.square() + fy.square()).sqrt().clamp_min(1 / BANK_SIZE)
    fall = torch.linspace(0.0, 2.0, layers, device=white.device)[:, None, None]
    noise: Tensor = torch.fft.irfft2(torch.fft.rfft2(white) * radius**-fall, s=(BANK_SIZE, BANK_SIZE))
    noise = noise - noise.mean((1, 2), keepdim=True)
    return (noise / noise.std((1, 2), keepdim=True)).half()


def random_shapes(
    generator: torch.Generator, boxes: Tensor, visibility: Tensor, width: int, height: int, layers: int
) -> tuple[Shapes, Tensor]:
    """Draw shapes for images with people `boxes` (N, K, 4), `visibility` (N, K); returns the new visibility too."""
    n, device = len(boxes), boxes.device

    def uniform(low: float = 0.0, high: float = 1.0, *shape: int) -> Tensor:
        drawn = torch.rand(n, MOST, *shape, generator=generator, device=device)
        return drawn * (high - low) + low

    half_height = torch.exp(uniform(math.log(4.0), math.log(110.0)))
    half_width = (half_height * torch.exp(uniform(math.log(0.1), math.log(2.0)))).clamp(2.0, 160.0)
    x, y = uniform(0.0, float(width)), uniform(0.0, float(height))
    count = (torch.rand(n, 1, generator=generator, device=device) * 1.6 - 0.6).clamp_min(0) * (MOST + 1)
    used = torch.arange(MOST, device=device) < count

    low = torch.stack([x - half_width, y - half_height], -1)[:, :, None]
    high = torch.stack([x + half_width, y + half_height], -1)[:, :, None]
    people = boxes[:, None]
    covered = (torch.minimum(people[..., 2:], high) - torch.maximum(people[..., :2], low)).clamp_min(0).prod(-1)
    area = (people[..., 2:] - people[..., :2]).clamp_min(1e-3).prod(-1)
    share = torch.where(visibility[:, None] >= 0, covered / area, 0.0)
    most = torch.where(uniform() < 0.12, 0.6, SHYNESS)
    used &= share.amax(-1) <= most
    hidden = (share * used[..., None]).sum(1)
    visibility = torch.where(visibility >= 0, (visibility - 0.8 * hidden).clamp_min(0), visibility)

    roundness = torch.tensor([1.2, 2.0, 4.0, 20.0, 20.0, 20.0], device=device)
    shapes = Shapes(
        x=x,
        y=y,
        half_width=torch.where(used, half_width, -1.0),
        half_height=half_height,
        tilt=torch.where(uniform() < 0.6, 0.0, uniform(-0.6, 0.6)),
        roundness=roundness[(uniform() * 6).long()],
        kind=(uniform() * 5).long(),
        pitch=torch.exp(uniform(math.log(3.0), math.log(30.0))),
        layer=(uniform() * layers).long(),
        bulge=(uniform() < 0.3).float(),
        first=uniform(0.0, 1.0, 3).square(),
        second=uniform(0.0, 1.0, 3),
    )
    return shapes, visibility


def draw_shapes(images: Tensor, shapes: Shapes, bank: Tensor) -> Tensor:
    """Paint `shapes` over images (N, 3, H, W) float16, in order; returns new images. One fused kernel if compiled."""
    height, width = images.shape[-2:]
    px = torch.arange(width, device=images.device)[None, None, :] + 0.5
    py = torch.arange(height, device=images.device)[None, :, None] + 0.5
    for number in range(MOST):
        x, y, half_width, half_height, tilt, roundness, kind, pitch, layer, bulge = (
            field[:, number, None, None] for field in shapes[:10]
        )
        dx, dy = px - x, py - y
        across = dx * tilt.cos() + dy * tilt.sin()
        along = dy * tilt.cos() - dx * tilt.sin()
        u, v = (across / half_width).abs(), (along / half_height).abs()
        inside = (half_width > 0) & (u.clamp(1e-4, 1.1).pow(roundness) + v.clamp(1e-4, 1.1).pow(roundness) < 1)
        row, column = along.floor().long() % BANK_SIZE, across.floor().long() % BANK_SIZE
        grain = bank[layer, row, column].float()
        letter = bank[0, (along / 2).floor().long() % BANK_SIZE, (across / 1.6).floor().long() % BANK_SIZE] > 0
        stripe_u = ((across / pitch) % 1.0 < 0.5).float()
        stripe_v = ((along / pitch) % 1.0 < 0.6).float()
        mix = torch.where(kind == 0, torch.sigmoid(2 * grain), stripe_u)
        mix = torch.where(kind == 2, stripe_u * stripe_v, mix)
        mix = torch.where(kind == 3, letter.float() * stripe_v, mix)
        mix = torch.where(kind == 4, stripe_v * 0.3 + torch.sigmoid(6 * grain) * 0.7, mix)
        light = (1 + 0.12 * grain) * (1 - 0.6 * bulge * u.clamp_max(1.0).square())
        first = shapes.first[:, number, :, None, None]
        second = shapes.second[:, number, :, None, None]
        colour = ((first + (second - first) * mix[:, None]) * light[:, None]).clamp(0, 1)
        images = torch.where(inside[:, None], colour.to(images.dtype), images)
    return images


Painter = Callable[[Tensor, Shapes, Tensor], Tensor]


def add_clutter(
    images: Tensor,
    boxes: Tensor,
    visibility: Tensor,
    generator: torch.Generator,
    bank: Tensor,
    paint: Painter = draw_shapes,
) -> tuple[Tensor, Tensor]:
    """Images with clutter and the visibility (N, K) that is left of their people."""
    height, width = images.shape[-2:]
    shapes, visibility = random_shapes(generator, boxes, visibility, width, height, len(bank))
    return paint(images, shapes, bank), visibility
