"""`tiler check`: what a config would do, as text, without doing it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction

from tiler.compose.layout import draw_layout, fit_picture, place_tiles
from tiler.config.loader import LoadedConfig
from tiler.config.models import DetectorConfig, Source, is_live, is_remote
from tiler.config.outputs import PipeOutput, kind_of, target_of
from tiler.engines.registry import ModelSpec, load_model
from tiler.errors import StageError, mask_uri
from tiler.memory import MOSAICS, TENSORS, MemoryPlan, Picture, plan_memory

QUEUED_FRAMES = 4


@dataclass(frozen=True, slots=True)
class StagePlan:
    """One stage, what runs it, and why."""

    stage: str
    device: str
    reason: str


@dataclass(frozen=True, slots=True)
class SourcePlan:
    """A source as far as it is known before the run: None where it is not."""

    source: Source
    uri: str
    size: tuple[int, int] | None
    fps: Fraction | None
    seconds: float | None
    codec: str
    sixteen_bit: bool = False
    aspect: Fraction = Fraction(1)
    """Width : height of a pixel of the upright picture."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A resolved config."""

    loaded: LoadedConfig
    sources: tuple[SourcePlan, ...]
    stages: tuple[StagePlan, ...]
    model: ModelSpec | None

    @property
    def memory_mb(self) -> float:
        """Estimate of the buffers: queued frames, the ring of mosaics, the detector's tensors."""
        mosaic = self.loaded.config.mosaic
        frames = sum(1.5 * s.size[0] * s.size[1] * QUEUED_FRAMES for s in self.sources if s.size)
        mosaics = 1.5 * mosaic.width * mosaic.height * MOSAICS
        tensors = 0
        if self.model is not None:
            width, height = self.model.input_size
            tensors = TENSORS * self.loaded.config.places * 3 * width * height * 4
        return (frames + mosaics + tensors) / 1e6

    def device_memory(self, total_bytes: int) -> MemoryPlan:
        """The plan of a CUDA device that has `total_bytes`."""
        from tiler.decode.still import image_file

        pictures = [
            Picture(*plan.size, plan.sixteen_bit, self._plane_size(plan), image_file(plan.source.uri) is not None)
            if plan.size else None
            for plan in self.sources
        ]
        return plan_memory(self.loaded.config, pictures, self.model, total_bytes)

    def _plane_size(self, plan: SourcePlan) -> tuple[int, int] | None:
        """The size that NVDEC shall decode a source at, if it can: what it cannot is known at run time only."""
        from tiler.decode.keyframe import CODECS
        from tiler.decode_size import DecodeSizes

        if not self.loaded.config.scaled_decode or plan.size is None or plan.codec not in CODECS:
            return None
        return DecodeSizes(self.loaded.config, self.model)(plan.source.id, plan.size, plan.aspect)

    def render(self) -> str:
        """The plan as lines of plain text."""
        config = self.loaded.config
        mosaic = config.mosaic
        lines = [f"{self.loaded.path}: valid", "", "sources"]
        for plan in self.sources:
            size = f"{plan.size[0]}x{plan.size[1]}" if plan.size else "opened at run time"
            fps = f"{float(plan.fps):g} fps" if plan.fps else ""
            seconds = f"{plan.seconds:.1f} s" if plan.seconds else ""
            facts = "  ".join(part for part in (size, fps, plan.codec, seconds) if part)
            lines.append(f"  {plan.source.id:<12} {plan.uri:<32} {facts}")
            if slots := plan.source.slots:
                of = f", {slots.class_name} only" if slots.class_name else ""
                lines.append(f"  {'':<12} slots by {slots.mode}{of}: {', '.join(slots.names)}")
        if spare := config.places - len(config.sources):
            lines.append(f"  {spare} more may be added while a live run goes on")
        tiles = place_tiles(config)
        lines += ["", f"mosaic  {mosaic.width}x{mosaic.height} at {float(mosaic.fps):g} fps, clock {self._clock()}"]
        lines += ["  " + row for row in draw_layout(tiles, (mosaic.width, mosaic.height), 64).splitlines()]
        for tile in tiles:
            plan = self.sources[tile.source]
            drawn = ""
            if plan.size:
                view = fit_picture(tile, plan.size, plan.aspect)
                width = view.src[2] - view.src[0]
                drawn = f"  picture {view.dst[2]}x{view.dst[3]} (scale {view.dst[2] / width:.2f})"
            if tile.follow is not None and plan.source.slots:
                drawn += f", follows {plan.source.slots.names[tile.follow[0]]}"
            lines.append(f"  {plan.source.id:<12} {tile.w}x{tile.h} at {tile.x},{tile.y}{drawn}")
        if self.model is not None:
            width, height = self.model.input_size
            names = ", ".join(self.model.class_names[:5]) + (", ..." if len(self.model.class_names) > 5 else "")
            lines += ["", f"detector  {self.model.name}: {width}x{height} {self.model.precision}, finds {names}"]
            tracker = config.tracker
            memory_s = max(tracker.memory_s, tracker.lost_s)
            looks = f"remembers who is away for {memory_s:g} s" if tracker.reid == "auto" else "by motion alone"
            lines.append(f"tracker   {tracker.kind}, reid {tracker.reid}: {looks}")
        lines += ["", "stages"]
        lines += [f"  {s.stage:<11} {s.device:<30} {s.reason}" for s in self.stages]
        if not any(stage.device.startswith("cuda") for stage in self.stages):  # a GPU's has a table of its own
            lines += ["", f"memory  about {self.memory_mb:.0f} MB in buffers ({QUEUED_FRAMES} frames a source, "
                      f"{MOSAICS} mosaics, {TENSORS} batches)"]
        if config.audio is not None:
            rate = "as it is" if config.audio.codec == "copy" else f"{config.audio.bitrate / 1000:g} kbit/s"
            lines.append(f"audio  of {config.audio.source}, {config.audio.codec}, {rate}")
        lines.append("outputs")
        for output in config.outputs:
            place = target_of(output) if isinstance(output, PipeOutput) else self.loaded.resolve(target_of(output))
            lines.append(f"  {kind_of(output):<11} {mask_uri(place)}")
        if not config.outputs:
            lines.append("  none: give -o FILE to `tiler run`")
        return "\n".join(lines)

    def _clock(self) -> str:
        config = self.loaded.config
        if config.live:
            live = next(source.id for source in config.sources if is_live(source))
            return f"live ({live} delivers in its own time)"
        lengths = [plan.seconds for plan in self.sources if not plan.source.loop]
        end = config.duration_s or max((s for s in lengths if s), default=None)
        return "offline (every source is a file)" + (f", {end:g} s" if end else ", without end")


def resolve_plan(loaded: LoadedConfig, stages: Sequence[StagePlan]) -> Plan:
    """Look at the files of a config, the model among them; live sources are not opened.

    Raises:
        InputError: a file cannot be opened, has not the sound it should have, or is no model that tiler can read.
    """
    detector = loaded.config.detector
    model = load_model(detector.model, loaded.folder) if isinstance(detector, DetectorConfig) else None
    _look_for_sound(loaded)
    sources = tuple(_look(loaded, index) for index in range(len(loaded.config.sources)))
    return Plan(loaded, sources, tuple(stages), model)


def _look_for_sound(loaded: LoadedConfig) -> None:
    audio = loaded.config.audio
    for source in loaded.config.sources:
        if audio is None or source.id != audio.source or is_remote(source):
            continue
        from tiler.sound.demux import SoundInput

        SoundInput(source, loaded.resolve(source.uri)).close()


def _look(loaded: LoadedConfig, index: int) -> SourcePlan:
    source = loaded.config.sources[index]
    shown = mask_uri(source.uri)
    if source.uri.startswith("sample://"):
        from tiler.samples import describe

        spec = describe(source.uri)
        return SourcePlan(source, shown, (spec.width, spec.height), Fraction(spec.fps), spec.frames / float(spec.fps),
                          spec.codec)
    if is_remote(source):
        return SourcePlan(source, shown, None, None, None, "live")
    from tiler.decode.source import open_decoder
    from tiler.stages import begins_in_time

    with begins_in_time(open_decoder)(source, loaded.resolve(source.uri), index, 1) as decoder:
        info, first = decoder.info, None
        with suppress(StageError):  # a run shows what there is of a broken file
            first = decoder.read()
        return SourcePlan(
            source, shown, info.size, info.fps or None, info.duration_s, info.codec, info.sixteen_bit,
            first.picture_aspect if first is not None else Fraction(1),
        )  # fmt: skip
