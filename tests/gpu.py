"""What tests on a real GPU share: the reason to skip, and pictures in device memory."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tiler import cuda
from tiler.types import Frame

REASON = cuda.problem()
needs_gpu = pytest.mark.skipif(
    REASON is not None and os.environ.get("TILER_REQUIRE_CUDA") != "1", reason=f"needs a CUDA GPU: {REASON}"
)
"""TILER_REQUIRE_CUDA=1 turns the skip into a failure, for machines that must have one."""


def random_picture(
    rng: np.random.Generator, size: tuple[int, int], *, sixteen: bool = False, smooth: bool = False, **fields: Any
) -> Frame:
    """A host frame (NV12 or P016 layout): noise, or slopes that survive scaling."""
    width, height = size
    half = ((height + 1) // 2, (width + 1) // 2)
    if smooth:
        slope = np.linspace(30, 220, width)[None] + np.linspace(-20, 20, height)[:, None]
        y = np.clip(slope + rng.normal(0, 3, (height, width)), 0, 255).astype(np.uint8)
        uv = np.full((*half, 2), 128, np.uint8)
        uv[..., 0] += (np.arange(half[1]) % 60).astype(np.uint8)
    else:
        y = rng.integers(0, 256, (height, width)).astype(np.uint8)
        uv = rng.integers(0, 256, (*half, 2)).astype(np.uint8)
    if sixteen:
        y, uv = (p.astype(np.uint16) << 8 | rng.integers(0, 256, p.shape).astype(np.uint16) for p in (y, uv))
    return Frame(0, 0, y, uv[..., 0], uv[..., 1], **fields)


def to_device(frame: Frame, pad: int = 0, offset: int = 0) -> Frame:
    """The same picture in device memory, rows `pad` samples longer, the first one `offset` samples in."""
    import cupy

    def plane(samples: np.ndarray) -> Any:
        height, width = samples.shape
        memory = cupy.full(height * (width + pad) + offset, 0xA5, samples.dtype)
        view = memory[offset:].reshape(height, width + pad)[:, :width]
        view[...] = cupy.asarray(samples)
        return view

    height, width = frame.u.shape
    chroma = np.empty((height, 2 * width), frame.u.dtype)
    chroma[:, 0::2], chroma[:, 1::2] = frame.u, frame.v
    uv = plane(chroma)
    moved = replace(frame, y=plane(np.asarray(frame.y)), u=uv[:, 0::2], v=uv[:, 1::2])
    cupy.cuda.get_current_stream().synchronize()
    return moved
