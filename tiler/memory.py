"""How much GPU memory a run takes: counted before it starts, and refused when it is too much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from tiler.config.models import Config
from tiler.errors import InputError

if TYPE_CHECKING:
    from tiler.engines.registry import ModelSpec

WAITING = 3
"""Mosaics that may wait for the encoder of a run without a clock: with one, the stages and the encoder would hand the
interpreter to each other for every mosaic. A run with a clock would only be late by more of them."""
MOSAICS, TENSORS = WAITING + 3, 3
"""Rings of the compositor (one is composed, one encoded, one's packet is on its way) and of the preprocessor."""
SURFACES = 16 + MOSAICS
"""Decoded pictures of a stream at once: 5 with its reader, 2 at its feed, 9 on their way through the stages, and those
held by the compositor until their launch has ended."""
STILL_SURFACES = 2
"""Of an image: its one picture, and one when it is opened again."""
_BATCH_TICKS, _BATCH_PICTURES = 4, 32
"""Ticks and pictures of a batch at most. The ticks of two batches, and one more, are on their way through the stages,
as there are SURFACES for; many pictures take a device as long in two batches as in one."""
_CONTEXT = 600 << 20
"""CUDA's context, code and workspaces of its libraries."""
_PROCESS_CONTEXT = 600 << 20
"""The same of a process that only decodes."""
_DECODER_PICTURES = 20
"""Reference pictures and outputs that a decoder keeps for itself at most, 4:2:0."""
_ENCODER_PICTURES = 8
_ACTIVATIONS = 24
"""Bytes of activations for each byte of the detector's input: person-nano and person-small need less."""
_CANDIDATES = 4096 * 32
_OVERLAYS = 4 << 20
"""A mosaic's primitives, of 20,000 with room to grow 1.3 MB, and where they are drawn, 1 MB."""


class Picture(NamedTuple):
    """What the pictures of a source take.

    Attributes:
        width, height: as the source stores them.
        sixteen_bit: a sample is 16 bits.
        plane_size: (width, height) that they are decoded at; None: as they are stored.
        still: it is an image: nothing decodes it, and it has one picture.
    """

    width: int
    height: int
    sixteen_bit: bool = False
    plane_size: tuple[int, int] | None = None
    still: bool = False


UNKNOWN = Picture(1920, 1088)
"""Assumed of a live source that was not reached yet, and of one that may be added."""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """What a run takes on the device.

    Attributes:
        items: what for, and bytes.
        total_bytes: the GPU's memory.
        fraction: share of it that the run may take.
        batch_ticks: ticks whose pictures go to the detector in one batch.
    """

    items: tuple[tuple[str, int], ...]
    total_bytes: int
    fraction: float
    batch_ticks: int = 1

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
        lines = [f"  {name:<40} {size / 1e6:8.0f} MB" for name, size in self.items]
        share = self.needed_bytes / self.total_bytes
        return [*lines, f"  {'in all':<40} {self.needed_bytes / 1e6:8.0f} MB, {share:.0%} of the GPU's "
                        f"{self.total_bytes / 1e9:.1f} GB (at most {self.fraction:.0%})"]

    def check(self, config: Config) -> None:
        """Refuse a plan over the cap.

        Raises:
            InputError: says what takes the most, and what to change.
        """
        if self.needed_bytes <= self.cap_bytes:
            return
        name, size = max(self.items, key=lambda item: item[1])
        raise InputError(
            f"GPU memory: this config needs {self.needed_bytes / 1e6:.0f} MB, but may take "
            f"{self.cap_bytes / 1e6:.0f} MB ({self.fraction:.0%} of {self.total_bytes / 1e9:.1f} GB); "
            f"most of it: {name}, {size / 1e6:.0f} MB. Change: {self._advice(config)}"
        )

    def _advice(self, config: Config) -> str:
        """What makes the large items smaller, the largest first."""
        large = sorted((item for item in self.items if item[1] >= self.needed_bytes / 10), key=lambda item: -item[1])
        spare = config.places - len(config.sources)
        sources = "fewer preview.spare_sources" if spare > len(config.sources) else "fewer or smaller sources"
        changes: list[str] = []
        for name, _ in large:
            if name == _PROCESS_ITEM:
                changes.append("decode_processes: 0")
            elif name in (_DECODER_ITEM, _SURFACES_ITEM, _ELSEWHERE_ITEM):
                changes.append(sources)
            elif name in (_MOSAICS_ITEM, _ENCODER_ITEM):
                changes.append("a smaller mosaic")
            elif name != _CONTEXT_ITEM:
                changes += [sources, "a smaller detector.model"]
        if config.vram_fraction < _MOST and self.needed_bytes <= self.total_bytes * _MOST:
            changes.append(f"vram_fraction up to {_MOST:g}")
        return ", ".join(dict.fromkeys(changes)) or "a GPU with more memory"


_MOST = 0.75
"""What `vram_fraction` may be."""
_CONTEXT_ITEM, _DECODER_ITEM = "CUDA context and libraries", "decoders' own pictures"
_SURFACES_ITEM, _ELSEWHERE_ITEM = (f"decoded pictures ({SURFACES} a stream{where})" for where in ("", ", there"))
_PROCESS_ITEM, _MOSAICS_ITEM, _ENCODER_ITEM = "processes that decode", f"mosaics ({MOSAICS}) and overlays", "encoder"
_WEIGHTS_ITEM, _ACTIVATIONS_ITEM = "detector's weights", "detector's activations"
_OUTSIDE = (_CONTEXT_ITEM, _DECODER_ITEM, _WEIGHTS_ITEM, _PROCESS_ITEM, _ELSEWHERE_ITEM)
"""Items that are not taken from CuPy's pool. Activations are, by TensorRT; ONNX Runtime has them elsewhere."""


def plan_memory(
    config: Config, pictures: Sequence[Picture | None], model: ModelSpec | None, total_bytes: int
) -> MemoryPlan:
    """Count the device memory of a config, with as many ticks in a batch as there is room for.

    A run that keeps to a clock detects tick by tick, as it cannot wait for the next; and so does one whose model has
    a batch axis of 1, as it gains nothing.

    Args:
        config: the whole config; its spare places count as sources.
        pictures: of each source; None where unknown.
        model: the detector, None for `detector: none`.
        total_bytes: memory of the device.
    """
    ticks = 1
    if model is not None and model.dynamic_batch and not config.live:
        ticks = min(_BATCH_TICKS, max(1, _BATCH_PICTURES // config.places))
    plan = _plan(config, pictures, model, total_bytes, ticks)
    while plan.batch_ticks > 1 and plan.needed_bytes > plan.cap_bytes:
        plan = _plan(config, pictures, model, total_bytes, plan.batch_ticks - 1)
    return plan


def _plan(
    config: Config, pictures: Sequence[Picture | None], model: ModelSpec | None, total_bytes: int, batch_ticks: int
) -> MemoryPlan:
    spare = config.places - len(config.sources)
    known = [picture or UNKNOWN for picture in (*pictures, *[None] * spare)]
    stored = sum(surface_bytes(p.width, p.height, p.sixteen_bit) for p in known if not p.still)
    decoded = sum(
        (STILL_SURFACES if p.still else SURFACES)
        * surface_bytes(*(p.plane_size or (p.width, p.height)), p.sixteen_bit)
        for p in known
    )
    mosaic = surface_bytes(config.mosaic.width, config.mosaic.height)
    processes = 0 if config.live else min(config.decode_processes, len(config.sources))
    items = [
        (_CONTEXT_ITEM, _CONTEXT),
        *([(_PROCESS_ITEM, processes * _PROCESS_CONTEXT)] if processes else ()),
        (_DECODER_ITEM, _DECODER_PICTURES * stored),
        (_ELSEWHERE_ITEM if processes else _SURFACES_ITEM, decoded),
        (_MOSAICS_ITEM, MOSAICS * (mosaic + _OVERLAYS)),
        (_ENCODER_ITEM, _ENCODER_PICTURES * mosaic),
    ]
    if model is not None:
        batch = len(known) * batch_ticks
        tensor = batch * 3 * model.input_size[0] * model.input_size[1] * 2
        ticks = f" of {batch_ticks} ticks" if batch_ticks > 1 else ""
        items.append((f"detector's input ({TENSORS} batches{ticks})", TENSORS * tensor))
        items += [(_WEIGHTS_ITEM, 4 * model.size_bytes), (_ACTIVATIONS_ITEM, _ACTIVATIONS * tensor)]
        items.append(("candidate boxes", batch * _CANDIDATES))
    return MemoryPlan(tuple(items), total_bytes, config.vram_fraction, batch_ticks)


def row_samples(width: int) -> int:
    """Samples from one row of a surface to the next: the width, made even for the chroma pairs."""
    return width + width % 2


def surface_bytes(width: int, height: int, sixteen_bit: bool = False) -> int:
    """Bytes of one 4:2:0 picture in device memory, NV12 or P016."""
    return row_samples(width) * (height + (height + 1) // 2) * (2 if sixteen_bit else 1)
