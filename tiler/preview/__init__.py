"""Preview: the encoded mosaic in a browser, and the controls of a run. Off the hot path: packets in, one thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tiler.errors import InputError

if TYPE_CHECKING:
    from tiler.config.loader import LoadedConfig
    from tiler.control import Control
    from tiler.observe.run import RunObserver
    from tiler.preview.server import PreviewServer


def open_preview(loaded: LoadedConfig, control: Control, observer: RunObserver) -> PreviewServer:
    """The server of a run, listening.

    Args:
        loaded: a config with `preview`.
        control: takes the requests.
        observer: what the run measures.

    Raises:
        InputError: the `web` extra is not installed, or the address cannot be had.
    """
    from pathlib import Path

    try:
        from tiler.preview.server import PreviewServer
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("tiler"):
            raise
        raise InputError(f"preview: needs {error.name}, which is not installed: pip install 'tiler[web]'") from error
    assert loaded.config.preview is not None
    folder = loaded.config.preview.recordings
    return PreviewServer(loaded.config, control, observer, Path(loaded.resolve(folder)) if folder else None)
