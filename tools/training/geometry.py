"""Views: what part of which stored picture lands where in a training image, boxes included.

Every training image is one picture or a mosaic of two or four, each zoomed, shifted, mirrored and slightly
stretched; some then shrink into the centre of a letterbox, exactly as other aspect ratios arrive at run time.
All views of a batch are sampled by one fused gather.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .network import INPUT_HEIGHT, INPUT_WIDTH

PAD = 114 / 255
MAX_PEOPLE = 32
HIDDEN, LOWEST_PX, NARROWEST_PX = 0.15, 8.0, 2.5
"""A person less visible, lower or narrower than this is ignored: neither found nor missed."""


class Pool(NamedTuple):
    """Stored pictures on the training device.

    rgb: (P, H, W, 3) uint8; people: (P, MAX_PEOPLE, 5) float32, xyxy and visibility, the latter negative in
    unused rows.
    """

    rgb: Tensor
    people: Tensor


class Views(NamedTuple):
    """For each of N images four tiles: source row (N, 4) and source = scale * target + shift, per axis (N, 4, 2).

    split: (N, 2) where tiles 0|1 and 0|2 part; content: (N, 4) xyxy of the picture inside its letterbox.
    """

    source: Tensor
    scale: Tensor
    shift: Tensor
    split: Tensor
    content: Tensor


def _uniform(generator: torch.Generator, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
    return torch.rand(*shape, generator=generator, device=generator.device) * (high - low) + low


def random_views(generator: torch.Generator, source: Tensor, people: Tensor, mosaic: float) -> Views:
    """Draw the geometry of N images.

    Args:
        generator: on the training device.
        source: (N, 4) int64, the stored pictures that the four tiles of each image may show.
        people: (P, MAX_PEOPLE, 5) of the store; most views are placed so that somebody is in them.
        mosaic: share of images that are made of two or four pictures.
    """
    device, batch = generator.device, len(source)
    size = torch.tensor([INPUT_WIDTH, INPUT_HEIGHT], device=device, dtype=torch.float32)

    # Letterbox: half of the cameras are 16:9, the others 4:3, 5:4, square, portrait or very wide.
    aspects = torch.tensor([16 / 9] * 8 + [4 / 3] * 4 + [5 / 4, 1.0, 9 / 16, 2.2], device=device)
    drawn = torch.randint(len(aspects), (batch,), generator=generator, device=device)
    aspect = aspects[drawn]
    fill = _uniform(generator, batch) < 0.25  # a full frame, as the renderer draws it
    content_w = torch.minimum(size[0], size[1] * aspect)
    content = torch.stack([content_w, content_w / aspect], 1)
    content = torch.where(fill[:, None], size, content).round()
    origin = ((size - content) / 2).floor()
    content_box = torch.cat([origin, origin + content], 1)

    # Two splits of the content; a split at its far edge leaves one picture.
    kind = _uniform(generator, batch)
    cut = _uniform(generator, batch, 2, low=0.3, high=0.7)
    cut[:, 0] = torch.where(kind < mosaic, cut[:, 0], torch.ones_like(kind))
    cut[:, 1] = torch.where(kind < mosaic * 0.6, cut[:, 1], torch.ones_like(kind))
    split = origin + content * cut
    tile_low = torch.stack([origin, origin, origin, origin], 1)
    tile_high = tile_low + content[:, None]
    tile_high[:, [0, 2], 0] = split[:, None, 0]
    tile_high[:, [0, 1], 1] = split[:, None, 1]
    tile_low[:, [1, 3], 0] = split[:, None, 0]
    tile_low[:, [2, 3], 1] = split[:, None, 1]

    # Zoom: never further out than the tile can be filled, at most 2.2 times in (most often little).
    span = (tile_high - tile_low).clamp_min(1.0)
    stretch = torch.exp(_uniform(generator, batch, 4, low=-0.14, high=0.14))
    shape = torch.stack([stretch, 1 / stretch], -1)
    least = (span / size / shape).amax(-1)
    zoom_in = torch.exp(_uniform(generator, batch, 4).square() * 0.8)
    snug = _uniform(generator, batch, 4) < 0.3
    zoom = torch.where(snug, least, torch.maximum(least, 0.55 * torch.ones_like(least)) * zoom_in)[..., None] * shape
    window = span / zoom
    corner = (size - window).clamp_min(0) * _uniform(generator, batch, 4, 2)
    present = people[source][..., 4] >= 0
    lot = _uniform(generator, batch, 4, MAX_PEOPLE).masked_fill(~present, -1.0).argmax(-1)
    chosen = people[source, lot]
    aimed = (chosen[..., :2] + chosen[..., 2:4]) / 2 - window * _uniform(generator, batch, 4, 2, low=0.1, high=0.9)
    aim = (present.any(-1) & (_uniform(generator, batch, 4) < 0.6))[..., None]
    corner = torch.where(aim, torch.minimum(aimed, size - window), corner).clamp_min(0)
    mirror = torch.zeros(batch, 4, 2, dtype=torch.bool, device=device)
    mirror[..., 0] = _uniform(generator, batch, 4) < 0.5
    scale = torch.where(mirror, -1 / zoom, 1 / zoom)
    shift = torch.where(mirror, corner + window, corner) - tile_low * scale
    return Views(source, scale, shift, split, content_box)


def _gather(rgb: Tensor, source: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Bilinear samples of rgb (P, h, w, 3) uint8 at pixel centres (x, y) (N, H, W) -> (N, 3, H, W) float."""
    height, width = rgb.shape[1:3]
    x, y = (x - 0.5).clamp(0, width - 1), (y - 0.5).clamp(0, height - 1)
    x0, y0 = x.floor(), y.floor()
    fx, fy = (x - x0)[:, None], (y - y0)[:, None]
    x0, y0 = x0.long()[:, None], y0.long()[:, None]
    x1, y1 = (x0 + 1).clamp_max(width - 1), (y0 + 1).clamp_max(height - 1)
    row, channel = source[:, None], torch.arange(3, device=rgb.device)[None, :, None, None]
    top = rgb[row, y0, x0, channel] * (1 - fx) + rgb[row, y0, x1, channel] * fx
    bottom = rgb[row, y1, x0, channel] * (1 - fx) + rgb[row, y1, x1, channel] * fx
    return top * (1 - fy) + bottom * fy


def sample_pixels(rgb: Tensor, views: Views) -> Tensor:
    """Images of `views`: (N, 3, 384, 640) float16 in 0..1 (letterbox bars not painted yet)."""
    device = rgb.device
    x = torch.arange(INPUT_WIDTH, device=device)[None, None, :] + 0.5
    y = torch.arange(INPUT_HEIGHT, device=device)[None, :, None] + 0.5
    tile = (x >= views.split[:, 0, None, None]).long() + 2 * (y >= views.split[:, 1, None, None]).long()
    flat = tile.flatten(1)
    shape = tile.shape

    def per_pixel(values: Tensor) -> Tensor:
        return values.gather(1, flat).reshape(shape)

    scale_x, scale_y = per_pixel(views.scale[..., 0]), per_pixel(views.scale[..., 1])
    at_x = x * scale_x + per_pixel(views.shift[..., 0])
    at_y = y * scale_y + per_pixel(views.shift[..., 1])
    source = per_pixel(views.source)
    # Four taps across the footprint of a target pixel stand in for area averaging when the view shrinks.
    step_x, step_y = scale_x.abs().clamp_min(1.0) - 1, scale_y.clamp_min(1.0) - 1
    total = _gather(rgb, source, at_x - 0.25 * step_x, at_y - 0.25 * step_y)
    total = total + _gather(rgb, source, at_x + 0.25 * step_x, at_y + 0.25 * step_y)
    return (total * (0.5 / 255)).half()


def move_boxes(pool: Pool, views: Views) -> tuple[Tensor, Tensor]:
    """Boxes of `views`, clipped to their tile: (N, 4 * MAX_PEOPLE, 4) and visibility (N, 4 * MAX_PEOPLE).

    Visibility is that of the picture times the part of the box inside the tile; negative: no person.
    """
    batch = views.source.shape[0]
    people = pool.people[views.source]
    boxes, seen = people[..., :4], people[..., 4]
    scale, shift = views.scale[:, :, None], views.shift[:, :, None]
    a, b = (boxes[..., :2] - shift) / scale, (boxes[..., 2:] - shift) / scale
    low, high = torch.minimum(a, b), torch.maximum(a, b)
    left_top, right_bottom = views.content[:, None, :2], views.content[:, None, 2:]
    split = views.split[:, None]
    # Tiles 1 and 3 begin at the vertical split, 2 and 3 at the horizontal one.
    after = torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]], device=boxes.device, dtype=torch.bool)[None]
    tile_low = torch.where(after, torch.maximum(split, left_top), left_top)[:, :, None]
    tile_high = torch.where(after, right_bottom, torch.minimum(split, right_bottom))[:, :, None]
    area = (high - low).clamp_min(0).prod(-1)
    low, high = torch.maximum(low, tile_low), torch.minimum(high, tile_high)
    inside = (high - low).clamp_min(0).prod(-1)
    visibility = seen * inside / area.clamp_min(1e-6)
    visibility = torch.where((inside > 0) & (seen >= 0), visibility, -1.0)
    return torch.cat([low, high], -1).reshape(batch, -1, 4), visibility.reshape(batch, -1)


def paint_bars(images: Tensor, content: Tensor) -> Tensor:
    """Fill what lies outside `content` (N, 4) with the letterbox grey, in place."""
    x = torch.arange(INPUT_WIDTH, device=images.device)[None, None, :] + 0.5
    y = torch.arange(INPUT_HEIGHT, device=images.device)[None, :, None] + 0.5
    box = content[:, :, None, None]
    outside = (x < box[:, 0]) | (x > box[:, 2]) | (y < box[:, 1]) | (y > box[:, 3])
    return images.masked_fill_(outside[:, None], PAD)
