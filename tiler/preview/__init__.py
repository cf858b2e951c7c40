"""Preview: the encoded mosaic in a browser, and the controls of a run. Off the hot path: packets in, one thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tiler.errors import InputError

if TYPE_CHECKING:
    from tiler.config.loader import LoadedConfig
    from tiler.observe.run import RunObserver
    from tiler.pipeline import Run
    from tiler.preview.server import PreviewServer

_FINISH_S = 10.0


def open_preview(loaded: LoadedConfig, run: Run, observer: RunObserver) -> PreviewServer:
    """The server of a run, listening and one of the run's outputs, which closes it.

    Args:
        loaded: a config with `preview`.
        run: has not ended.
        observer: what the run measures.

    Raises:
        InputError: the `web` extra is not installed, or the address cannot be had.
    """
    from pathlib import Path

    from tiler.output.outlet import Outlet, Policy

    try:
        from tiler.preview.server import PreviewServer
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("tiler"):
            raise
        raise InputError(f"preview: needs {error.name}, which is not installed: pip install 'tiler[web]'") from error
    preview = loaded.config.preview
    assert preview is not None
    folder = Path(loaded.resolve(preview.recordings)) if preview.recordings else None
    server = PreviewServer(loaded.config, run, observer, folder)
    limits = Policy(round(5 * loaded.config.mosaic.fps), newest=True, stall_s=5.0, finish_s=_FINISH_S)
    run.outputs.add(
        Outlet("preview", server.url, server, limits, request_keyframe=run.outputs.request_keyframe)
    )
    return server
