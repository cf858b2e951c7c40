"""The mosaic as an MP4, MOV or MKV file, muxed from packets that are already encoded."""

from __future__ import annotations

from pathlib import Path

from tiler.config.files import write_problem
from tiler.config.models import MosaicConfig
from tiler.config.outputs import FileOutput, sound_problem
from tiler.errors import InputError
from tiler.output.mux import FRAGMENTED, MATROSKA, Muxer
from tiler.types import SoundFormat

_CONTAINERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}


class FileWriter(Muxer):
    """One file (see `tiler.output.base.Output`)."""

    def __init__(
        self,
        output: FileOutput,
        path: Path,
        mosaic: MosaicConfig,
        codec: str,
        *,
        overwrite: bool,
        origin: int | None = 0,
        sound: SoundFormat | None = None,
    ) -> None:
        """Open the file for writing.

        Args:
            output: its suffix says the format; whether it is fragmented.
            path: absolute, with links followed.
            mosaic: size and rate of the pictures.
            codec: of the packets.
            overwrite: replace a file that exists.
            origin, sound: see `Muxer`.

        Raises:
            InputError: it exists and `overwrite` is False, cannot be written, or its format cannot hold the codec.
        """
        suffix = Path(output.file).suffix.lower()  # a link may lead to a file that is called otherwise
        if codec == "av1" and suffix == ".mov":
            raise InputError(f"output {path}: a .mov file cannot hold AV1; accepted for it: .mp4, .mkv")
        if sound is not None and (problem := sound_problem(output, sound.codec)) is not None:
            raise InputError(f"output {path}: {problem}")
        self.path = path
        options = MATROSKA
        if suffix != ".mkv":
            options = FRAGMENTED if output.fragmented else {"movflags": "faststart"}
        check_writable(path, overwrite=overwrite)
        super().__init__(str(path), mosaic, codec, container=_CONTAINERS[suffix], options=options, origin=origin,
                         sound=sound)


def check_writable(path: Path, *, overwrite: bool) -> None:
    """Make the folder of an output, see that it takes a file, and refuse to replace one that nobody said to replace.

    Raises:
        InputError: the file exists or cannot be written, or its folder cannot be made.
    """
    if (problem := write_problem(path)) is not None:
        raise InputError(f"output {path}: {problem}")
    if path.exists() and not overwrite:
        raise InputError(f"output {path}: exists already; give --overwrite to replace it, or another name with -o")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output {path}: its folder cannot be made: {error.strerror}") from error
    try:
        existed = path.exists()
        with path.open("ab"):
            pass
        if not existed:
            path.unlink()
    except OSError as error:
        raise InputError(f"output {path}: cannot be written: {error.strerror}") from error
