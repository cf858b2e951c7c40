"""A YAML file (and --set overrides) -> a Config, or every mistake with its line."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from tiler.config import document as yaml_document
from tiler.config.document import Document, dotted, parse, parse_scalar, undotted
from tiler.config.explain import explain
from tiler.config.files import clashes, files_read, read_problem
from tiler.config.findings import Findings, short
from tiler.config.models import Config, PreviewConfig, is_live
from tiler.config.outputs import TRACKS_SUFFIXES, VIDEO_SUFFIXES, ClipOutput, FileOutput, TracksOutput
from tiler.config.rules import check, outputs_of, too_short
from tiler.encode.parameters import contradictions
from tiler.errors import ConfigError, InputError


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """A valid config and the place its relative paths start from."""

    config: Config
    path: Path
    folder: Path

    def resolve(self, uri: str) -> str:
        """A path relative to the YAML as an absolute one; URLs and devices untouched."""
        if _is_url(uri):
            return uri
        # Not `Path.resolve`, which raises where links go round in a circle: whoever opens the file says so.
        return os.path.realpath(self.folder / Path(uri.removeprefix("file://")).expanduser())

    def read_problem(self, uri: str) -> str | None:
        """Why there is no file to read, see `files.read_problem`; None of what is a URL."""
        if _is_url(uri):
            return None
        try:
            return read_problem(Path(self.resolve(uri)))
        except (ValueError, RuntimeError):  # names that no file system takes
            return "is not a file name"

    def file_of(self, uri: str) -> Path | None:
        """The file that a source is read from; None for a URL, a device, a sample, and what is not there."""
        return None if _is_url(uri) or self.read_problem(uri) is not None else Path(self.resolve(uri))

    def with_outputs(self, file: Path | None, tracks: Path | None, report: Path | None = None) -> LoadedConfig:
        """The same config with the outputs of the command line, which start from the current folder.

        `file` takes the place of the config's file outputs, `tracks` that of its tracks outputs. `report` is none of
        the config's, but must not be one of its files either.

        Raises:
            InputError: a suffix that is not accepted, or a file that the run reads or writes already.
        """
        outputs = outputs_of(self.config)
        if file is not None:
            _check_suffix("-o", str(file), VIDEO_SUFFIXES)
            outputs = {where: o for where, o in outputs.items() if not isinstance(o, FileOutput)}
            outputs["-o",] = FileOutput(file=str(file.absolute()))
        if tracks is not None:
            _check_suffix("--tracks", str(tracks), TRACKS_SUFFIXES)
            outputs = {where: o for where, o in outputs.items() if not isinstance(o, TracksOutput)}
            outputs["--tracks",] = TracksOutput(tracks=str(tracks.absolute()))
        files = files_read(self)
        for where, key, problem in clashes(self, files, outputs):
            raise InputError(f"{dotted(where)}: {problem} (got {short(getattr(outputs[where], key))})")
        if report is not None and (taken := files.claim(report, "the report")) is not None:
            raise InputError(f"--report: {taken} (got {short(str(report))})")
        return replace(self, config=self.config.model_copy(update={"outputs": list(outputs.values())}))

    def for_preview(self, duration_s: float | None) -> LoadedConfig:
        """The same config to look at: files in their own time and round and round, low latency, and no outputs.

        A `clip` output stays: it writes only when somebody asks.

        Raises:
            InputError: the duration is none, or too short for a picture.
        """
        if duration_s is not None and not 0 < duration_s < math.inf:
            raise InputError(f"--duration: seconds, more than 0, are needed (got {duration_s:g})")
        config = self.config
        sources = [
            source if is_live(source) else source.model_copy(update={"realtime": True, "loop": True})
            for source in config.sources
        ]
        encoder = config.encoder
        quick = encoder.model_copy(update={"profile": "low_latency"})
        if "profile" not in encoder.model_fields_set and not contradictions(quick):
            encoder = quick
        outputs = [output for output in config.outputs if isinstance(output, ClipOutput)]
        update = {"sources": sources, "encoder": encoder, "outputs": outputs, "duration_s": duration_s,
                  "preview": config.preview or PreviewConfig()}  # fmt: skip
        config = config.model_copy(update=update)
        if (problem := too_short(config)) is not None:
            raise InputError(f"--duration: {problem}")
        return replace(self, config=config)


def load(path: Path, overrides: Sequence[str] = (), duration_s: float | None = None) -> LoadedConfig:
    """Read and check a config.

    Args:
        path: the YAML file.
        overrides: `key=value` of --set, such as `mosaic.fps=25` or `sources[0].uri=x.mp4`.
        duration_s: of --duration, in place of the config's.

    Raises:
        ConfigError: with every finding, each `FILE:LINE: key: what is accepted (got VALUE)`.
    """
    found = parse(_read(path))
    report = Findings(path, found)
    for line, message in found.findings:
        report.at_line(line, message)
    report.stop()
    if not isinstance(found.value, dict):
        what = "is empty" if found.value is None else "must be a mapping of keys"
        raise ConfigError([f"{path}:1: the config {what}; at least `sources:` is needed"])
    for override in overrides:
        _apply(found, override, report)
    if duration_s is not None:
        found.value["duration_s"] = duration_s
        report.options["duration_s",] = "--duration"
    report.stop()
    try:
        config = Config.model_validate(found.value)
    except ValidationError as error:
        for where, message in explain(error, found.value):
            report.at(where, message)
        report.stop()
        raise ConfigError([f"{path}: the config is not valid"]) from error
    loaded = LoadedConfig(config, path, path.absolute().parent)
    check(loaded, report)
    report.stop()
    overlay = config.overlay
    if overlay.font is not None:  # those who draw know no folder
        overlay = overlay.model_copy(update={"font": loaded.resolve(overlay.font)})
    return replace(loaded, config=config.model_copy(update={"overlay": overlay}))


def _read(path: Path) -> str:
    try:
        if path.is_file() and path.stat().st_size > yaml_document.MAX_BYTES:
            raise ConfigError([f"{path}: larger than 1 MB; this is not a config"])
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError([f"{path}: not UTF-8 text"]) from None
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror or error}"]) from error
    except ValueError as error:  # a NUL in the name
        raise ConfigError([f"{str(path)!r}: not a file name"]) from error


def _apply(document: Document, override: str, report: Findings) -> None:
    """Set one key of the document, as `--set` says."""
    key, equals, text = override.partition("=")
    steps = undotted(key)
    if not equals or not steps or dotted(steps) != key.strip():
        raise ConfigError([f"--set {override}: expected KEY=VALUE, such as mosaic.fps=25 or sources[0].loop=true"])
    try:
        value = parse_scalar(text)
    except ValueError as error:
        raise ConfigError([f"--set {override}: {error}"]) from None
    place = document.value
    for step, after in zip(steps, [*steps[1:], None], strict=True):
        last = after is None
        if isinstance(place, list) and isinstance(step, int) and step < len(place):
            if last:
                place[step] = value
            place = place[step]
        elif isinstance(place, dict) and isinstance(step, str):
            if last:
                place[step] = value
            place = place.setdefault(step, [] if isinstance(after, int) else {})
        else:
            raise ConfigError([f"--set {key}: there is no {key!r} in the config"])
    report.options[steps] = f"--set {key}"


def _is_url(uri: str) -> bool:
    return "://" in uri and not uri.startswith("file://")


def _check_suffix(option: str, name: str, accepted: Sequence[str]) -> None:
    if Path(name).suffix.lower() not in accepted or "\0" in name:
        raise InputError(f"{option}: a file name ending in {', '.join(accepted)} is needed (got {short(name)})")
