"""Files that people ask for on the page: recordings and clips. They are named here, never by a client."""

from __future__ import annotations

import time
from pathlib import Path

from tiler.config.outputs import FileOutput
from tiler.errors import InputError
from tiler.output.names import Names
from tiler.output.outlet import Outlet
from tiler.output.outputs import Outputs
from tiler.preview.answers import RecordingAnswer

_PATTERN = "tiler-{time}.mp4"


class Recorder:
    """One recording at a time, and the run's clips. One thread at a time calls what touches the disk."""

    def __init__(self, outputs: Outputs, folder: Path | None) -> None:
        """
        Args:
            outputs: of the run; write the files.
            folder: absolute, where recordings go; None: there are none.
        """
        self._outputs, self._folder = outputs, folder
        self._outlet: Outlet | None = None
        self._name = ""
        self._since_s = 0.0

    def start(self) -> None:
        """Begin a file with the next keyframe; nothing happens when one is being written. Touches the disk.

        Raises:
            InputError: recording is not possible.
        """
        if self._folder is None:
            raise InputError("there is no folder for recordings: preview.recordings is not set")
        if self._running():
            return
        try:
            path = Names(self._folder / _PATTERN).free(time.time())
        except OSError as error:
            raise InputError(f"recordings {self._folder}: cannot be read: {error.strerror}") from error
        self._outlet = self._outputs.start_recording(FileOutput(file=str(path)))
        self._name, self._since_s = path.name, time.monotonic()

    def stop(self) -> None:
        """Finalise the file, if there is one. Touches the disk."""
        outlet, self._outlet = self._outlet, None
        if outlet is not None:
            self._outputs.stop_recording(outlet)

    def clip(self) -> list[str]:
        """Write the last seconds of the mosaic. Touches the disk.

        Returns:
            The files' names.

        Raises:
            InputError: the config keeps no clip, or a file cannot be written.
            StageError: there is no picture yet, or the disk does not take it.
        """
        return [path.name for path in self._outputs.save_clip()]

    def state(self) -> RecordingAnswer:
        """For the API."""
        outlet, running = self._outlet, self._running()
        return RecordingAnswer(
            possible=self._folder is not None,
            file=self._name if running else None,
            seconds=round(time.monotonic() - self._since_s, 1) if running else 0.0,
            error=outlet.error if outlet is not None else None,
        )

    def _running(self) -> bool:
        return self._outlet is not None and not self._outlet.stopped
