"""Average precision of a detector on pictures with known boxes (COCO's 101-point interpolation)."""

from __future__ import annotations

import numpy as np

NMS_IOU = 0.6
IOU_STEPS = np.arange(0.5, 0.96, 0.05)


def iou_matrix(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU of every box of `a` (n, 4) with every box of `b` (m, 4), xyxy -> (n, m)."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    overlap = np.clip(high - low, 0, None).prod(2)
    area_a, area_b = (a[:, 2:] - a[:, :2]).prod(1), (b[:, 2:] - b[:, :2]).prod(1)
    return overlap / np.maximum(area_a[:, None] + area_b[None] - overlap, 1e-9)


def suppress(boxes: np.ndarray, scores: np.ndarray, limit: int = 100) -> np.ndarray:
    """Greedy non-maximum suppression; rows kept, best first, at most `limit`."""
    order = np.argsort(-scores)[: 4 * limit]
    overlaps = iou_matrix(boxes[order], boxes[order]) > NMS_IOU
    kept: list[int] = []
    alive = np.ones(len(order), bool)
    for row in range(len(order)):
        if alive[row]:
            kept.append(row)
            alive &= ~overlaps[row]
    return order[kept[:limit]]


def average_precision(
    found: list[tuple[np.ndarray, np.ndarray]], truth: list[tuple[np.ndarray, np.ndarray]]
) -> dict[str, float]:
    """Score detections of several pictures.

    Args:
        found: per picture the boxes (n, 4) and scores (n,) after suppression.
        truth: per picture the boxes (m, 4) and an ignore flag (m,); what matches an ignored box counts neither way.

    Returns:
        `ap50`, `ap` (mean over IoU 0.50:0.05:0.95), `recall50`, and `precision` / `recall` at score 0.35, IoU 0.5.
    """
    steps = len(IOU_STEPS)
    scores, hits, counted = [], [], []
    people = 0
    for (boxes, score), (real, ignore) in zip(found, truth, strict=True):
        order = np.argsort(-score, kind="stable")
        overlap = iou_matrix(boxes[order], real) if len(real) else np.zeros((len(boxes), 0))
        people += int((~ignore).sum())
        hit = np.zeros((len(order), steps), bool)
        count = np.ones((len(order), steps), bool)
        for step, least in enumerate(IOU_STEPS):
            free = np.ones(len(real), bool)
            for row in range(len(order)):
                value = np.where((free | ignore) & (overlap[row] >= least), overlap[row], 0.0)
                wanted = np.where(ignore, 0.0, value)
                if wanted.size and wanted.max() > 0:
                    free[wanted.argmax()] = False
                    hit[row, step] = True
                elif value.size and value.max() > 0:
                    count[row, step] = False
        scores.append(score[order])
        hits.append(hit)
        counted.append(count)
    score_all = np.concatenate(scores)
    order = np.argsort(-score_all, kind="stable")
    score_all = score_all[order]
    hit_all, counted_all = np.concatenate(hits)[order], np.concatenate(counted)[order]
    values, last_recall = [], 0.0
    for step in range(steps):
        hit, count = hit_all[:, step], counted_all[:, step]
        true = np.cumsum(hit)
        precision = true / np.maximum(np.cumsum(count), 1)
        recall = true / max(people, 1)
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        rows = np.searchsorted(recall, np.linspace(0, 1, 101))
        values.append(float(np.append(envelope, 0.0)[rows].mean()))
        if step == 0:
            last_recall = float(recall[-1]) if len(recall) else 0.0
    sure = score_all >= 0.35
    true_sure = int(hit_all[sure, 0].sum())
    return {
        "ap50": values[0],
        "ap": float(np.mean(values)),
        "recall50": last_recall,
        "precision": true_sure / max(int(counted_all[sure, 0].sum()), 1),
        "recall": true_sure / max(people, 1),
    }
