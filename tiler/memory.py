"""How much GPU memory a run takes: counted before it starts, and refused when it is too much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tiler.config.models import Config
from tiler.engines.registry import ModelSpec
from tiler.errors import InputError

SURFACES = 20
"""Decoded pictures of a stream at once: 5 with its reader, 3 at its feed, 8 on their way through the stages, and 4 held
by the compositor until their launch has ended."""
MOSAICS, TENSORS = 4, 3
_CONTEXT = 600 << 20
"""CUDA's context, code and workspaces of its libraries."""
_DECODER_PICTURES = 20
"""Reference pictures and outputs that a decoder keeps for itself at most, 4:2:0."""
_ENCODER_PICTURES = 8
_ACTIVATIONS = 24
"""Bytes of activations for each byte of the detector's input: person-nano and person-small need less."""
_CANDIDATES = 4096 * 32
_OVERLAYS = 4 << 20
UNKNOWN_SIZE = (1920, 1088)
"""Assumed of a live source that was not reached yet."""

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """What a run takes on the device.

    Attributes:
        items: what for, and bytes.
        total_bytes: the GPU's memory.
        fraction: share of it that the run may take.
    """

    items: tuple[tuple[str, int], ...]
    total_bytes: int
    fraction: float

    @property
    def needed_bytes(self) -> int:
        return sum(size for _, size in self.items)

    @property
    def cap_bytes(self) -> int:
        return int(self.total_bytes * self.fraction)

    @property
    def pool_bytes(self) -> int:
        """What is left for CuPy's pool under the cap."""
        return max(self.cap_bytes - sum(size for name, size in self.items if name in _OUTSIDE), 64 << 20)

    def render(self) -> list[str]:
        """Lines for `tiler check`."""
        lines = [f"  {name:<34} {size / 1e6:8.0f} MB" for name, size in self.items]
        share = self.needed_bytes / self.total_bytes
        return [*lines, f"  {'in all':<34} {self.needed_bytes / 1e6:8.0f} MB, {share:.0%} of the GPU's "
                        f"{self.total_bytes / 1e9:.1f} GB (at most {self.fraction:.0%})"]

    def check(self, config: Config) -> None:
        """Refuse a plan over the cap.

        Raises:
            InputError: says what takes the most, and what to change.
        """
        if self.needed_bytes <= self.cap_bytes:
            return
        name, size = max(self.items, key=lambda item: item[1])
        advice = "fewer or smaller sources, a smaller mosaic"
        if config.vram_fraction < 0.75:
            advice += ", or vram_fraction up to 0.75"
        raise InputError(
            f"GPU memory: this config needs {self.needed_bytes / 1e6:.0f} MB, but may take "
            f"{self.cap_bytes / 1e6:.0f} MB ({self.fraction:.0%} of {self.total_bytes / 1e9:.1f} GB); "
            f"most of it: {name}, {size / 1e6:.0f} MB. Change: {advice}"
        )


_OUTSIDE = ("CUDA context and libraries", "decoders' own pictures", "encoder")
"""Items that are not taken from CuPy's pool."""


def plan_memory(
    config: Config, sizes: Sequence[Size | None], model: ModelSpec | None, total_bytes: int
) -> MemoryPlan:
    """Count the device memory of a config.

    Args:
        config: the whole config.
        sizes: (width, height) of each source's pictures; None where unknown.
        model: the detector, None for `detector: none`.
        total_bytes: memory of the device.
    """
    pictures = [surface_bytes(size or UNKNOWN_SIZE) for size in sizes]
    width, height = config.mosaic.width, config.mosaic.height
    mosaic = surface_bytes((width, height))
    items = [
        ("CUDA context and libraries", _CONTEXT),
        ("decoders' own pictures", _DECODER_PICTURES * sum(pictures)),
        (f"decoded pictures ({SURFACES} a stream)", SURFACES * sum(pictures)),
        (f"mosaics ({MOSAICS}) and overlays", MOSAICS * (mosaic + _OVERLAYS)),
        ("encoder", _ENCODER_PICTURES * mosaic),
    ]
    if model is not None:
        tensor = len(sizes) * 3 * model.input_size[0] * model.input_size[1] * 2
        items.append((f"detector's input ({TENSORS} batches)", TENSORS * tensor))
        items.append((f"{model.name}: weights and activations", 4 * model.path.stat().st_size + _ACTIVATIONS * tensor))
        items.append(("candidate boxes", len(sizes) * _CANDIDATES))
    return MemoryPlan(tuple(items), total_bytes, config.vram_fraction)


def surface_bytes(size: Size, sixteen_bit: bool = False) -> int:
    """Bytes of one 4:2:0 picture in device memory."""
    width, height = size
    samples = width * height + 2 * ((width + 1) // 2) * ((height + 1) // 2)
    return samples * (2 if sixteen_bit else 1)
