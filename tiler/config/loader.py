"""A YAML file (and --set overrides) -> a Config, or every mistake with its line."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from pydantic import ValidationError

from tiler.compose.layout import LayoutError, place_tiles
from tiler.config import document as yaml_document
from tiler.config.document import Document, dotted, parse, parse_scalar
from tiler.config.explain import explain, nearest
from tiler.config.files import clashes, files_read
from tiler.config.models import MAX_SOURCES, Config, DetectorConfig, PreviewConfig, Source, is_live, is_loopback
from tiler.config.outputs import (
    TRACKS_SUFFIXES,
    VIDEO_SUFFIXES,
    AnyOutput,
    ClipOutput,
    FileOutput,
    TracksOutput,
    kind_of,
    problem_of,
    sound_problem,
)
from tiler.encode.parameters import contradictions
from tiler.engines.shipped import find_model
from tiler.errors import ConfigError, InputError, mask_uri

_STEP = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)|\[([0-9]{1,3})\]")


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

    def file_of(self, uri: str) -> Path | None:
        """The file that a source is read from; None for a URL, a device, a sample, and what is not there."""
        try:
            path = None if _is_url(uri) else Path(self.resolve(uri))
            return path if path is not None and path.is_file() else None
        except (OSError, ValueError, RuntimeError):  # names that no file system takes
            return None

    def with_outputs(self, file: Path | None, tracks: Path | None, report: Path | None = None) -> LoadedConfig:
        """The same config with the outputs of the command line, which start from the current folder.

        `file` takes the place of the config's file outputs, `tracks` that of its tracks outputs. `report` is none of
        the config's, but must not be one of its files either.

        Raises:
            InputError: a suffix that is not accepted, or a file that the run reads or writes already.
        """
        outputs = _outputs_of(self.config)
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
            raise InputError(f"{dotted(where)}: {problem} (got {_short(getattr(outputs[where], key))})")
        if report is not None and (taken := files.claim(report, "the report")) is not None:
            raise InputError(f"--report: {taken} (got {_short(str(report))})")
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
        if duration_s is not None and (problem := _too_short(duration_s, config.mosaic.fps)) is not None:
            raise InputError(f"--duration: {problem}")
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
        return replace(self, config=config.model_copy(update=update))


def load(path: Path, overrides: Sequence[str] = ()) -> LoadedConfig:
    """Read and check a config.

    Args:
        path: the YAML file.
        overrides: `key=value` of --set, such as `mosaic.fps=25` or `sources[0].uri=x.mp4`.

    Raises:
        ConfigError: with every finding, each `FILE:LINE: key: what is accepted (got VALUE)`.
    """
    found = parse(_read(path))
    report = _Findings(path, found)
    for line, message in found.findings:
        report.at_line(line, message)
    report.stop()
    if not isinstance(found.value, dict):
        what = "is empty" if found.value is None else "must be a mapping of keys"
        raise ConfigError([f"{path}:1: the config {what}; at least `sources:` is needed"])
    for override in overrides:
        _apply(found, override, report)
    report.stop()
    try:
        config = Config.model_validate(found.value)
    except ValidationError as error:
        for where, message in explain(error, found.value):
            report.at(where, message)
        report.stop()
        raise ConfigError([f"{path}: the config is not valid"]) from error
    loaded = LoadedConfig(config, path, path.absolute().parent)
    _check(loaded, report)
    report.stop()
    return loaded


class _Findings:
    """Collects findings in the order of the file."""

    def __init__(self, path: Path, document: Document) -> None:
        self._path = path
        self._document = document
        self._rows: list[tuple[int, str]] = []
        self.overridden: dict[yaml_document.Path, str] = {}

    def at_line(self, line: int, message: str) -> None:
        self._rows.append((line, f"{self._path}:{line}: {mask_uri(message)}"))

    def at(self, where: yaml_document.Path, message: str) -> None:
        """A finding about a key: its line, or that of the nearest mapping around it."""
        text = mask_uri(f"{dotted(where)}: {message}" if where else message)
        for length in range(len(where), 0, -1):
            if where[:length] in self.overridden:
                key = self.overridden[where[:length]]
                self._rows.append((0, f"--set {key}: {text.removeprefix(f'{key}: ')}"))
                return
        for length in range(len(where), -1, -1):
            if where[:length] in self._document.lines:
                line = self._document.lines[where[:length]]
                self._rows.append((line, f"{self._path}:{line}: {text}"))
                return
        self._rows.append((1, f"{self._path}:1: {text}"))

    def stop(self) -> None:
        """Raise what was found so far."""
        if self._rows:
            rows = sorted(dict.fromkeys(self._rows), key=lambda row: row[0])
            raise ConfigError([" ".join(text.split()) for _, text in rows])


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


def _apply(document: Document, override: str, report: _Findings) -> None:
    """Set one key of the document, as `--set` says."""
    key, equals, text = override.partition("=")
    steps = [name or int(index) for name, index in _STEP.findall(key)]
    if not equals or not steps or dotted(tuple(steps)) != key.strip():
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
    report.overridden[tuple(steps)] = key


def _check(loaded: LoadedConfig, report: _Findings) -> None:
    """Rules that tie several keys, or keys and files, together."""
    config = loaded.config
    ids: dict[str, int] = {}
    for index, source in enumerate(config.sources):
        if source.id in ids:
            report.at(("sources", index, "id"), f"{source.id!r} is taken by sources[{ids[source.id]}]; ids are unique")
        ids.setdefault(source.id, index)
        _check_source(loaded, index, source, report)
    known = True
    for index, source in enumerate(config.sources):
        if source.slots is not None and config.detector == "none":
            report.at(("sources", index, "slots"), "slots need a detector (detector: none)")
    for index, tile in enumerate(config.tiles or ()):
        if tile.source not in ids:
            known = False
            close = nearest(tile.source, ids)
            report.at(("tiles", index, "source"), f"no source has this id{close} (got {tile.source!r})")
        elif tile.view is not None:
            slots = config.sources[ids[tile.source]].slots
            known &= slots is not None and tile.view.follow in slots.names
            if slots is None:
                report.at(("tiles", index, "view", "follow"), f"source {tile.source!r} has no slots to follow")
            elif tile.view.follow not in slots.names:
                close = nearest(tile.view.follow, slots.names)
                message = f"no slot has this name{close} (got {tile.view.follow!r})"
                report.at(("tiles", index, "view", "follow"), message)
            if tile.crop is not None:
                report.at(("tiles", index, "crop"), "view chooses the part to show; give one of crop and view")
    if known:
        try:
            place_tiles(config)
        except LayoutError as error:
            where = tuple(name or int(i) for name, i in _STEP.findall(error.key))
            report.at(where, error.problem)
    if config.duration_s is not None and (problem := _too_short(config.duration_s, config.mosaic.fps)) is not None:
        report.at(("duration_s",), problem)
    if config.mosaic.no_signal_after_s <= config.mosaic.stale_after_s:
        report.at(("mosaic", "no_signal_after_s"), f"must be more than stale_after_s ({config.mosaic.stale_after_s:g})")
    if isinstance(config.detector, DetectorConfig) and config.tracker.low_score > config.detector.score:
        report.at(("tracker", "low_score"), f"must not be above detector.score ({config.detector.score:g})")
    if isinstance(config.detector, DetectorConfig):
        try:
            find_model(config.detector.model, loaded.folder)
        except InputError as error:
            report.at(("detector", "model"), str(error))
    for found in contradictions(config.encoder):
        key, _, problem = found.partition(": ")
        report.at(tuple(key.split(".")), problem)
    _check_outputs(loaded, report)
    _check_audio(loaded, report)
    _check_preview(loaded, report)


def _check_source(loaded: LoadedConfig, index: int, source: Source, report: _Findings) -> None:
    if source.end_s is not None and source.end_s <= source.start_s:
        report.at(("sources", index, "end_s"), f"must be more than start_s ({source.start_s:g}) (got {source.end_s:g})")
    if is_live(source.model_copy(update={"realtime": False})):
        for key in ("start_s", "end_s", "loop"):
            if key in source.model_fields_set and getattr(source, key):
                report.at(("sources", index, key), "a live source has no start, end or loop")
        return
    if source.uri.startswith("sample://"):
        from tiler.samples import describe

        try:
            spec = describe(source.uri)
        except InputError as error:
            report.at(("sources", index, "uri"), str(error))
            return
        seconds = float(spec.frames / spec.fps)
        if source.start_s >= seconds:
            message = f"the sample is over before; it has {seconds:.1f} s (got {source.start_s:g})"
            report.at(("sources", index, "start_s"), message)
    elif not _is_url(source.uri) and loaded.file_of(source.uri) is None:
        message = f"there is no such file (got {_short(source.uri)}, in {loaded.folder})"
        report.at(("sources", index, "uri"), message)


def _check_outputs(loaded: LoadedConfig, report: _Findings) -> None:
    outputs = _outputs_of(loaded.config)
    alone = [(where, problem_of(output, loaded.config.encoder)) for where, output in outputs.items()]
    found = [(where, *problem) for where, problem in alone if problem is not None]
    for where, key, problem in [*found, *clashes(loaded, files_read(loaded), outputs)]:
        report.at((*where, key), f"{problem} (got {_short(getattr(outputs[where], key))})")


def _outputs_of(config: Config) -> dict[yaml_document.Path, AnyOutput]:
    """By where they stand."""
    return {("outputs", index): output for index, output in enumerate(config.outputs)}


def _check_audio(loaded: LoadedConfig, report: _Findings) -> None:
    config = loaded.config
    if config.audio is None:
        return
    source, codec = config.audio.source, config.audio.codec
    ids = [other.id for other in config.sources]
    if source not in ids:
        report.at(("audio", "source"), f"no source has this id{nearest(source, ids)} (got {source!r})")
    elif config.sources[ids.index(source)].uri.startswith("sample://"):
        report.at(("audio", "source"), f"the samples have no sound (got {source!r})")
    if codec == "copy" and "bitrate" in config.audio.model_fields_set:
        report.at(("audio", "bitrate"), "copy takes the sound as it is; give a bitrate with aac or opus")
    for index, output in enumerate(config.outputs):
        if isinstance(output, TracksOutput) or codec == "copy" or problem_of(output, config.encoder):
            continue
        problem = sound_problem(output, codec)
        if problem is not None:
            report.at(("outputs", index, kind_of(output)), f"{problem} (audio.codec is {codec})")


def _check_preview(loaded: LoadedConfig, report: _Findings) -> None:
    """Nobody listens on a network by accident."""
    preview = loaded.config.preview
    if preview is None:
        return
    try:
        loaded.resolve(preview.recordings or "")
    except (ValueError, RuntimeError, OSError) as error:
        report.at(("preview", "recordings"), str(error))
    if loaded.config.places > MAX_SOURCES:
        most = MAX_SOURCES - len(loaded.config.sources)
        report.at(("preview", "spare_sources"), f"a run has at most {MAX_SOURCES} sources; accepted here: 0 to {most}")
    if not is_loopback(preview.host) and preview.token is None and not preview.behind_proxy:
        report.at(
            ("preview", "host"),
            f"anybody who reaches {preview.host} could watch and control the run; accepted: 127.0.0.1 (this machine "
            "only), any address with preview.token, or preview.behind_proxy: true if a proxy in front asks who comes",
        )


def _too_short(seconds: float, fps: Fraction) -> str | None:
    """What is wrong with a duration in which there is no picture; None where there is one.

    >>> _too_short(0.01, Fraction(30))
    '0.01 s is shorter than one picture (0.033 s at 30 fps)'
    """
    if round(seconds * fps):
        return None
    return f"{seconds:g} s is shorter than one picture ({float(1 / fps):.2g} s at {float(fps):g} fps)"


def _is_url(uri: str) -> bool:
    return "://" in uri and not uri.startswith("file://")


def _check_suffix(option: str, name: str, accepted: Sequence[str]) -> None:
    if Path(name).suffix.lower() not in accepted or "\0" in name:
        raise InputError(f"{option}: a file name ending in {', '.join(accepted)} is needed (got {_short(name)})")


def _short(text: str) -> str:
    return repr(text if len(text) <= 120 else text[:117] + "...")
