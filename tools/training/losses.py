"""Which anchor answers for which person, and what it is charged for a wrong answer.

Assignment is task-aligned (TOOD, Feng et al. 2021): an anchor's claim on a person is score^a * IoU^b, the best
`TOP_ANCHORS` claims per person win. Scores are trained towards the claim, normalised so that a person's best
anchor aims at its IoU, with plain binary cross entropy: focal weights let near misses keep scores of 0.2 to 0.4,
which a tracker then has to live with. Boxes are trained with DIoU (Zheng et al. 2020) plus a small L1 term in the
raw head values, which keeps gradients alive where boxes do not overlap yet.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .network import decode_boxes

TOP_ANCHORS = 10
SCORE_POWER, IOU_POWER = 1.0, 5.0
SMALLEST_REACH_PX = 10.0
"""A person narrower or lower than this claims anchors as if it were this large, or it might hold none."""
SCORE_GAIN, IOU_GAIN, L1_GAIN = 1.0, 2.5, 0.25


class People(NamedTuple):
    """All persons of a batch, one row each.

    boxes: (G, 4) float32 xyxy in input pixels; image: (G,) int64 index into the batch; ignore: (G,) bool, True
    where the person is too hidden or too small to charge anything for.
    """

    boxes: Tensor
    image: Tensor
    ignore: Tensor


class Losses(NamedTuple):
    """Scalars: the sum that is minimised and its parts."""

    total: Tensor
    score: Tensor
    iou: Tensor
    l1: Tensor


def pair_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of boxes paired by broadcasting, (..., 4) x (..., 4) -> (...)."""
    width = (torch.minimum(a[..., 2], b[..., 2]) - torch.maximum(a[..., 0], b[..., 0])).clamp_min(0)
    height = (torch.minimum(a[..., 3], b[..., 3]) - torch.maximum(a[..., 1], b[..., 1])).clamp_min(0)
    overlap = width * height
    area_a = (a[..., 2] - a[..., 0]) * (a[..., 3] - a[..., 1])
    area_b = (b[..., 2] - b[..., 0]) * (b[..., 3] - b[..., 1])
    return overlap / (area_a + area_b - overlap).clamp_min(1e-6)


def diou_loss(a: Tensor, b: Tensor) -> Tensor:
    """1 - IoU + (centre distance / enclosing diagonal)^2 of paired boxes, (n, 4) x (n, 4) -> (n,)."""
    diagonal = (torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])).square().sum(1)
    distance = (a[:, :2] + a[:, 2:] - b[:, :2] - b[:, 2:]).square().sum(1) / 4
    return 1 - pair_iou(a, b) + distance / diagonal.clamp_min(1e-6)


class Assignment(NamedTuple):
    """Positive anchors: image (P,), anchor (P,), person (P,) int64 rows and target score (P,) float32.

    silent: (N, A) bool, anchors on ignored persons, which are charged nothing.
    """

    image: Tensor
    anchor: Tensor
    person: Tensor
    target: Tensor
    silent: Tensor


@torch.no_grad()
def assign(scores: Tensor, boxes: Tensor, anchors: Tensor, people: People) -> Assignment:
    """Match anchors to persons.

    Args:
        scores: (N, A) float32 in 0..1.
        boxes: (N, A, 4) float32 xyxy, decoded.
        anchors: (A, 3) from `anchor_grid`.
        people: the persons.
    """
    batch, count = scores.shape
    centres = (anchors[:, :2] + 0.5) * anchors[:, 2:]
    grow = ((SMALLEST_REACH_PX - (people.boxes[:, 2:] - people.boxes[:, :2])) / 2).clamp_min(0)
    low, high = people.boxes[:, :2] - grow, people.boxes[:, 2:] + grow
    inside = (
        (centres[None, :, 0] > low[:, None, 0])
        & (centres[None, :, 1] > low[:, None, 1])
        & (centres[None, :, 0] < high[:, None, 0])
        & (centres[None, :, 1] < high[:, None, 1])
    )
    silent = torch.zeros(batch, count, dtype=torch.int32, device=scores.device)
    silent.index_add_(0, people.image[people.ignore], inside[people.ignore].int())

    real = (~people.ignore).nonzero()[:, 0]
    image = people.image[real]
    iou = pair_iou(boxes[image], people.boxes[real][:, None]) * inside[real]
    claim = scores[image].clamp_min(1e-4).pow(SCORE_POWER) * iou.pow(IOU_POWER)
    # Before boxes mean anything every claim is about 0: the nearest centres then win.
    middle = (people.boxes[real, :2] + people.boxes[real, 2:]) / 2
    near = torch.exp(-(centres[None] - middle[:, None]).square().sum(-1) / anchors[:, 2].square() / 8)
    best, anchor = ((claim + 1e-9 * near) * inside[real]).topk(TOP_ANCHORS, dim=1)
    kept = best > 0

    # An anchor that several persons claim goes to the one it overlaps most.
    person = torch.arange(len(real), device=scores.device)[:, None].expand_as(anchor)[kept]
    anchor = anchor[kept]
    cell = image[person] * count + anchor
    overlap = iou[person, anchor] + 1e-7 * near[person, anchor]
    most = torch.zeros(batch * count, device=scores.device).scatter_reduce_(0, cell, overlap, "amax")
    won = overlap >= most[cell]
    person, anchor, cell = person[won], anchor[won], cell[won]

    value, overlap = claim[person, anchor], iou[person, anchor]
    zeros = torch.zeros(len(real), device=scores.device)
    top_value = zeros.scatter_reduce(0, person, value, "amax")
    top_overlap = zeros.scatter_reduce(0, person, overlap, "amax")
    target = value / top_value[person].clamp_min(1e-12) * top_overlap[person]
    return Assignment(image[person], anchor, real[person], target, silent > 0)


def detection_loss(head: Tensor, anchors: Tensor, people: People) -> Losses:
    """Loss of raw head values (N, A, 5) with score logits in column 4, against `people`."""
    head = head.float()
    logits = head[..., 4]
    scores = logits.detach().sigmoid()
    boxes = decode_boxes(head[..., :4], anchors)
    match = assign(scores, boxes.detach(), anchors, people)

    target = torch.zeros_like(logits)
    target[match.image, match.anchor] = match.target
    charged = ~match.silent | (target > 0)
    total_target = match.target.sum().clamp_min(1.0)
    score = (F.binary_cross_entropy_with_logits(logits, target, reduction="none") * charged).sum() / total_target

    # Every positive keeps a little weight, so that a person whose boxes are all bad still learns.
    share = (match.target + 0.05) / (total_target + 0.05 * len(match.target))
    wanted = people.boxes[match.person]
    iou = (diou_loss(boxes[match.image, match.anchor], wanted) * share).sum()
    grid, stride = anchors[match.anchor, :2], anchors[match.anchor, 2:]
    raw = torch.cat(
        [
            (wanted[:, :2] + wanted[:, 2:]) / (2 * stride) - grid,
            ((wanted[:, 2:] - wanted[:, :2]).clamp_min(1.0) / stride).log(),
        ],
        1,
    )
    l1 = ((head[match.image, match.anchor, :4] - raw).abs().sum(1) * share).sum()
    return Losses(SCORE_GAIN * score + IOU_GAIN * iou + L1_GAIN * l1, score.detach(), iou.detach(), l1.detach())
