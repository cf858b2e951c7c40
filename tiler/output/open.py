"""An entry of `outputs:` -> an open `Outlet`: the only place that knows which class writes what."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from tiler.config.loader import LoadedConfig
from tiler.config.models import FileOutput
from tiler.output.file import FileWriter
from tiler.output.outlet import Outlet, policy

_FINALISE_S = 600.0
"""A file that is not fragmented is written a second time at its end, to have its index in front."""


def open_outlet(
    loaded: LoadedConfig,
    output: FileOutput,
    request_keyframe: Callable[[], None],
    measure: Callable[[], AbstractContextManager[None]],
    *,
    overwrite: bool,
) -> Outlet:
    """Open one output.

    Args:
        loaded: the config, for paths, sizes and the clock.
        output: the entry.
        request_keyframe: see `Outlet`.
        measure: see `Outlet`.
        overwrite: replace a file that exists.

    Raises:
        InputError: it cannot be opened.
    """
    config = loaded.config
    path = Path(loaded.resolve(output.file))
    writer = FileWriter(output, path, config.mosaic, config.encoder.codec, overwrite=overwrite)
    finish_s = 30.0 if output.fragmented else _FINALISE_S
    limits = policy(live=config.live, network=False, fps=config.mosaic.fps, finish_s=finish_s)
    return Outlet("file", str(path), writer, limits, measure=measure)
