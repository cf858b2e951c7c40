"""The appearance kernel on a GPU against its CPU twin, on fresh random pictures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.gpu import needs_gpu, random_picture, to_device
from tests.test_appearance import TOLERANCE, random_boxes
from tiler.observe.copies import Copies
from tiler.track.appearance import CpuEmbedder
from tiler.types import Frame

pytestmark = needs_gpu


@pytest.mark.parametrize("seed", range(12))
def test_vectors_equal_those_of_the_cpu(seed: int) -> None:
    from tiler.track.appearance_cuda import CudaEmbedder

    rng = np.random.default_rng(np.random.SeedSequence().entropy if seed >= 6 else seed)
    host: list[tuple[Frame, np.ndarray]] = []
    for _ in range(int(rng.integers(1, 17))):
        size = (int(rng.integers(8, 2000)), int(rng.integers(8, 1200)))
        picture = random_picture(rng, size, sixteen=bool(rng.integers(2)), smooth=bool(rng.integers(2)))
        source_size = None if rng.integers(3) else (2 * size[0], 2 * size[1])
        picture = replace(picture, rotation=int(rng.choice([0, 0, 90, 180, 270])), source_size=source_size)
        host.append((picture, random_boxes(rng, picture.picture_size, int(rng.integers(0, 70)))))
    device = [(to_device(frame, int(rng.integers(0, 40)), int(rng.integers(0, 5))), boxes) for frame, boxes in host]
    gpu = CudaEmbedder(0, Copies())
    try:
        assert np.abs(gpu.embed(device) - CpuEmbedder().embed(host)).max(initial=0) < TOLERANCE
    finally:
        gpu.close()
        gpu.close()
