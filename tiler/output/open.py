"""An entry of `outputs:` -> an open `Outlet`: the only place that knows which class writes what."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path

from tiler.config.loader import LoadedConfig
from tiler.config.outputs import (
    WHIP_SCHEMES,
    ClipOutput,
    FileOutput,
    HlsOutput,
    MosaicOutput,
    PipeOutput,
    PushOutput,
    SegmentsOutput,
    index_beside,
    kind_of,
    sound_problem,
    target_of,
)
from tiler.errors import InputError, mask_uri
from tiler.output.base import Output
from tiler.output.clip import Preroll
from tiler.output.file import FileWriter
from tiler.output.live import HlsWriter, PipeWriter
from tiler.output.outlet import Outlet, policy
from tiler.output.push import PushWriter
from tiler.output.segments import SegmentWriter
from tiler.types import SoundFormat

_FINISH_S = 30.0
_REWRITE_S = 600.0
"""A file that is not fragmented is written a second time at its end, to have its index in front."""


def open_outlet(
    loaded: LoadedConfig,
    output: MosaicOutput,
    request_keyframe: Callable[[], None],
    measure: Callable[[], AbstractContextManager[None]],
    *,
    overwrite: bool,
    origin: int | None = 0,
    sound: SoundFormat | None = None,
) -> tuple[Outlet, Output | None]:
    """Open one output.

    Args:
        loaded: the config, for paths, sizes and the clock.
        output: the entry.
        request_keyframe: see `Outlet`.
        measure: see `Outlet`.
        overwrite: replace a file that exists.
        origin: of a file; see `tiler.output.mux.Muxer`.
        sound: of the packets' sound; see there.

    Returns:
        The outlet, and what writes behind it; None when the outlet opens that itself.

    Raises:
        InputError: it cannot be opened, or not with this sound.
    """
    mosaic, codec = loaded.config.mosaic, loaded.config.encoder.codec
    place = target_of(output) if isinstance(output, (PipeOutput, PushOutput)) else loaded.resolve(target_of(output))
    if sound is not None and (problem := sound_problem(output, sound.codec)) is not None:
        raise InputError(f"output {mask_uri(place)}: {problem}")
    writer: Output | None = None
    reopen = None
    finish_s = _FINISH_S
    match output:
        case FileOutput():
            writer = FileWriter(output, Path(place), mosaic, codec, overwrite=overwrite, origin=origin, sound=sound)
            finish_s = _FINISH_S if output.fragmented else _REWRITE_S
        case SegmentsOutput():
            index = Path(loaded.resolve(output.index)) if output.index else index_beside(Path(place))
            writer = SegmentWriter(output, Path(place), index, mosaic, codec, sound)
        case HlsOutput():
            writer = HlsWriter(output, Path(place), mosaic, codec, sound)
        case PipeOutput():
            writer = PipeWriter(output, mosaic, codec, sound)
        case ClipOutput():
            writer = Preroll(output, Path(place), mosaic, codec, sound)
        case PushOutput():
            _check_webrtc(output, place)
            reopen = lambda sample: PushWriter(output, mosaic, codec, sample, sound, request_keyframe)  # noqa: E731
    limits = policy(live=loaded.config.live, network=reopen is not None, fps=mosaic.fps, finish_s=finish_s)
    outlet = Outlet(kind_of(output), place, writer, limits, reopen=reopen, request_keyframe=request_keyframe,
                    measure=measure)
    return outlet, writer


def _check_webrtc(output: PushOutput, place: str) -> None:
    missing = [name for name in ("aiohttp", "aiortc") if find_spec(name) is None]
    if output.scheme in WHIP_SCHEMES and missing:
        raise InputError(
            f"output {mask_uri(place)}: needs {missing[0]}, which is not installed: pip install 'tiler[web]'"
        )
