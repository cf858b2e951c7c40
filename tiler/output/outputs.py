"""The outputs of a run: every packet to each of them, and what people ask for while it goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from tiler.closing import Closing
from tiler.config.loader import LoadedConfig
from tiler.config.outputs import FileOutput, TracksOutput, tracks_file
from tiler.errors import InputError, StageError
from tiler.output.clip import Preroll
from tiler.output.open import open_outlet
from tiler.output.outlet import Outlet
from tiler.output.tracks import TracksOutlet, open_tracks
from tiler.types import Frame, Packet, SoundFormat, Tracks


class Outputs(Closing):
    """All of them. The run's threads put in; the others call what they like. Iterates over those with a row in the
    report, recordings that have ended among them.
    """

    def __init__(
        self,
        loaded: LoadedConfig,
        class_names: Sequence[str],
        request_keyframe: Callable[[], None],
        measure: Callable[[], AbstractContextManager[None]],
        sound: SoundFormat | None,
        *,
        overwrite: bool,
    ) -> None:
        """Open those of the config.

        Args:
            loaded: the config.
            class_names: what the detector calls its classes, for tracks.
            request_keyframe: makes the next picture an IDR picture.
            measure: see `Outlet`.
            sound: of the packets' sound, None when they have none.
            overwrite: replace files that exist.

        Raises:
            InputError: one cannot be written.
        """
        self._loaded, self._measure, self._sound = loaded, measure, sound
        self.request_keyframe = request_keyframe
        self._changing = threading.Lock()  # of the lists; who reads one takes it as it is
        self._outlets: list[Outlet] = []
        self._tracks: list[TracksOutlet] = []
        self._clips: list[Preroll] = []
        config = loaded.config
        streams = [(source.id, index) for index, source in enumerate(config.sources)]
        slots = {index: tuple(source.slots.names) for index, source in enumerate(config.sources) if source.slots}
        with ExitStack() as opened:
            for output in config.outputs:
                if isinstance(output, TracksOutput):
                    path = Path(loaded.resolve(output.tracks))
                    text = open_tracks(
                        path, streams, class_names, slots=slots, more=config.places > len(streams), overwrite=overwrite
                    )
                    self._tracks.append(TracksOutlet(text, str(tracks_file(path, "ID", alone=config.places == 1))))
                    opened.callback(self._tracks[-1].close)
                    continue
                outlet, writer = open_outlet(
                    loaded, output, request_keyframe, measure, overwrite=overwrite, sound=sound
                )
                self._outlets.append(outlet)
                opened.callback(outlet.close)
                if isinstance(writer, Preroll):
                    self._clips.append(writer)
            self._opened = opened.pop_all()
        self._rows: list[Outlet | TracksOutlet] = [*self._outlets, *self._tracks]

    def __iter__(self) -> Iterator[Outlet | TracksOutlet]:
        return iter(self._rows)

    def put(self, packet: Packet) -> None:
        """Give a packet to every output of the mosaic; never fails."""
        for outlet in self._outlets:
            outlet.put(packet)

    @property
    def take_tracks(self) -> bool:
        """Whether one of them wants to know who is where."""
        return bool(self._tracks)

    def put_tracks(self, frame: Frame, frame_index: int, tracks: Tracks) -> None:
        """Give the tracks of a picture to every output of tracks; never fails. See `TrackWriter.write`."""
        for outlet in self._tracks:
            outlet.put(frame.stream, frame_index, tracks, frame.picture_size)

    def join(self, stream: int, name: str) -> None:
        """Let the outputs of tracks take one more stream; see `TrackWriter.join`.

        Raises:
            InputError: one of them cannot.
        """
        for outlet in self._tracks:
            outlet.join(stream, name)

    def leave(self, stream: int) -> None:
        """Nothing more comes of a stream; see `TrackWriter.leave`."""
        for outlet in self._tracks:
            outlet.leave(stream)

    @property
    def gone(self) -> bool:
        """Whether there were some, and errors have stopped all of them: nobody is left to run for."""
        running = self._running()
        return bool(running) and all(outlet.failed and outlet.stopped for outlet in running)

    def add(self, outlet: Outlet) -> None:
        """Give the packets to one more outlet, from the next keyframe; closed with the others."""
        with self._changing:
            self._outlets = [*self._outlets, outlet]
            self._rows = [*self._rows, outlet]
            self._opened.callback(outlet.close)

    def start_recording(self, output: FileOutput) -> Outlet:
        """Write the mosaic to one more file, from the next keyframe, which is asked for.

        Raises:
            InputError: the file exists or cannot be written.
        """
        outlet, _ = open_outlet(
            self._loaded, output, self.request_keyframe, self._measure, overwrite=False, origin=None, sound=self._sound
        )
        self.add(outlet)
        self.request_keyframe()
        return outlet

    def stop_recording(self, outlet: Outlet) -> None:
        """Finalise what `start_recording` began; its row stays in the report."""
        with self._changing:
            self._outlets = [other for other in self._outlets if other is not outlet]
        outlet.close()

    def save_clip(self, path: Path | None = None) -> list[Path]:
        """Write the last seconds of the mosaic, once for each `clip` output.

        Args:
            path: of the clip, where there is one output for it; the config's next name when absent.

        Raises:
            InputError: the config has no `clip` output, or the file exists or cannot be written.
            StageError: there is no picture yet, or the disk does not take it.
        """
        if not self._clips:
            raise InputError("outputs: no clip is kept; add `- {clip: clip-{time}.mp4, preroll_s: 30}`")
        return [clip.save(path) for clip in self._clips]

    def finish(self) -> None:
        """Finalise all of them, side by side.

        Raises:
            StageError: with those that failed.
        """
        running = self._running()
        for outlet in running:
            outlet.finish()
        self.close()
        failed = [f"{outlet.kind} {outlet.name}: {outlet.error}" for outlet in running if outlet.failed]
        if failed:
            raise StageError("output", "; ".join(failed))

    def _running(self) -> list[Outlet | TracksOutlet]:
        """Those that have not been stopped by somebody."""
        return [*self._outlets, *self._tracks]

    def close(self) -> None:
        """Close all of them; may be called twice."""
        self._opened.close()
