"""The rules that tie several keys of a config, or keys and files, together."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from tiler.compose.layout import LayoutError, place_tiles
from tiler.config.document import Path as Where
from tiler.config.document import undotted
from tiler.config.explain import nearest, unknown_class
from tiler.config.files import clashes, files_read
from tiler.config.findings import Findings, short
from tiler.config.models import MAX_SOURCES, SOURCE_SCHEMES, Config, DetectorConfig, Source, is_loopback, is_remote
from tiler.config.outputs import AnyOutput, TracksOutput, kind_of, problem_of, sound_problem
from tiler.encode.parameters import contradictions
from tiler.engines.shipped import find_model
from tiler.errors import InputError

if TYPE_CHECKING:
    from tiler.config.loader import LoadedConfig


def check(loaded: LoadedConfig, report: Findings) -> None:
    """Find what is wrong; what a key alone must be is said by the models."""
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
            report.at(undotted(error.key), error.problem)
    if (problem := too_short(config)) is not None:
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
    _check_classes(loaded, report)
    _check_font(loaded, report)
    for found in contradictions(config.encoder):
        key, _, problem = found.partition(": ")
        report.at(tuple(key.split(".")), problem)
    _check_outputs(loaded, report)
    _check_audio(loaded, report)
    _check_preview(loaded, report)


def _check_source(loaded: LoadedConfig, index: int, source: Source, report: Findings) -> None:
    named = "format" in source.options  # such as lavfi, to which the URI may mean anything
    if not named and (problem := _scheme_problem(source.uri)) is not None:  # would be tried for ever, as a camera is
        report.at(("sources", index, "uri"), f"{problem} (got {short(source.uri)})")
        return
    if source.end_s is not None and source.end_s <= source.start_s:
        report.at(("sources", index, "end_s"), f"must be more than start_s ({source.start_s:g}) (got {source.end_s:g})")
    live = is_remote(source)
    timed = [key for key in ("start_s", "end_s", "loop") if key in source.model_fields_set and getattr(source, key)]
    if timed and (live or _is_picture(source.uri)):
        why = "a live source has no start, end or loop" if live else "a picture has no time, and stays; leave it out"
        for key in timed:
            report.at(("sources", index, key), why)
    if live:
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
    elif (problem := loaded.read_problem(source.uri)) is not None:
        report.at(("sources", index, "uri"), f"{problem} (got {short(source.uri)}, in {loaded.folder})")


def _scheme_problem(uri: str) -> str | None:
    """What is wrong with how a URL begins; None where FFmpeg knows it.

    >>> _scheme_problem("rstp://cam/1"), _scheme_problem("cache:http://host/a.mp4")
    ("nothing opens rstp://; did you mean 'rtsp'?", None)
    """
    scheme, separator, _ = uri.partition("://")
    scheme = re.split("[:+]", scheme)[-1]  # FFmpeg's protocols may stand before each other
    if not separator or scheme in SOURCE_SCHEMES:
        return None
    if scheme == "srt":
        return "the PyAV wheels have no SRT; let a MediaMTX server take it, and open its rtsp://"
    return f"nothing opens {scheme}://{nearest(scheme, SOURCE_SCHEMES)}"


def _is_picture(uri: str) -> bool:
    from tiler.decode.still import image_file  # which imports FFmpeg

    return image_file(uri) is not None


def _check_classes(loaded: LoadedConfig, report: Findings) -> None:
    """What the detector is asked to find, it must know; the model is looked at only where something is asked."""
    config, detector = loaded.config, loaded.config.detector
    if not isinstance(detector, DetectorConfig):
        return
    asked: dict[Where, str] = {
        ("detector", "classes", index): name for index, name in enumerate(detector.classes or ())
    }
    for index, source in enumerate(config.sources):
        if source.slots is not None and source.slots.class_name is not None:
            asked["sources", index, "slots", "class_name"] = source.slots.class_name
    if not asked:
        return
    from tiler.engines.registry import load_model

    try:
        known = load_model(detector.model, loaded.folder).class_names
    except InputError as error:
        report.at(("detector", "model"), str(error))
        return
    for where, name in asked.items():
        if (problem := unknown_class(name, known)) is not None:
            report.at(where, problem)


def _check_font(loaded: LoadedConfig, report: Findings) -> None:
    font = loaded.config.overlay.font
    if font is None:
        return
    if (problem := loaded.read_problem(font)) is not None:
        report.at(("overlay", "font"), f"{problem} (got {short(font)}, in {loaded.folder})")
        return
    from tiler.compose.glyphs import check_font

    try:
        check_font(Path(loaded.resolve(font)))
    except InputError as error:
        report.at(("overlay", "font"), str(error).removeprefix("overlay.font: "))


def _check_outputs(loaded: LoadedConfig, report: Findings) -> None:
    outputs = outputs_of(loaded.config)
    alone = [(where, problem_of(output, loaded.config.encoder)) for where, output in outputs.items()]
    found = [(where, *problem) for where, problem in alone if problem is not None]
    for where, key, problem in [*found, *clashes(loaded, files_read(loaded), outputs)]:
        report.at((*where, key), f"{problem} (got {short(getattr(outputs[where], key))})")


def outputs_of(config: Config) -> dict[Where, AnyOutput]:
    """By where they stand."""
    return {("outputs", index): output for index, output in enumerate(config.outputs)}


def _check_audio(loaded: LoadedConfig, report: Findings) -> None:
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


def _check_preview(loaded: LoadedConfig, report: Findings) -> None:
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


def too_short(config: Config) -> str | None:
    """What is wrong with a duration in which there is no picture; None where there is one."""
    if config.duration_s is None or config.ticks:
        return None
    fps = config.mosaic.fps
    return f"{config.duration_s:g} s is shorter than one picture ({float(1 / fps):.2g} s at {float(fps):g} fps)"
