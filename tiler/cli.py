"""The command line: it parses, delegates and says what went wrong; nothing else."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from tiler import __version__
from tiler.errors import InputError, TilerError, mask_uri

# The matrices here are tiny, and OpenBLAS makes a thread for each core that spins before it sleeps.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _tells_errors(command: _Command) -> _Command:
    """One clear message and an exit code instead of a traceback, for every error made on purpose."""

    @functools.wraps(command)
    def told(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except TilerError as error:
            click.echo(mask_uri(str(error)), err=True)
            sys.exit(error.exit_code)

    return told  # type: ignore[return-value]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
@click.option("-v", "--verbose", is_flag=True, help="Log what happens, not only what goes wrong.")
def main(verbose: bool) -> None:
    """Many cameras, one picture, one encoder."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # the layout has lines that not every encoding knows
        sys.stdout.reconfigure(errors="replace")  # of stderr, Python itself sees to it
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )
    if not verbose:
        warnings.simplefilter("ignore")


_config = click.argument("config", type=click.Path(path_type=Path))
_set = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change one key, e.g. --set mosaic.fps=25."
)


@main.command()
@_config
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the mosaic here instead.")
@click.option("--duration", type=float, metavar="S", help="Stop after S seconds of mosaic.")
@_set
@click.option("--report", type=click.Path(path_type=Path), help="Write the run's numbers as JSON.")
@click.option("--tracks", type=click.Path(path_type=Path), help="Write the tracks: .jsonl or .txt (MOT).")
@click.option("--overwrite", is_flag=True, help="Replace outputs that exist.")
@_tells_errors
def run(
    config: Path,
    output: Path | None,
    duration: float | None,
    overrides: tuple[str, ...],
    report: Path | None,
    tracks: Path | None,
    overwrite: bool,
) -> None:
    """Run CONFIG: decode, detect, track, compose and encode one mosaic."""
    from tiler.command_run import execute
    from tiler.config.loader import load

    loaded = load(config, overrides, duration).with_outputs(output, tracks, report)
    if not loaded.config.outputs and loaded.config.preview is None:
        raise InputError(f"{config}: no outputs: add `outputs: [{{file: mosaic.mp4}}]` or give -o FILE")
    execute(loaded, report=report, overwrite=overwrite)


@main.command()
@_config
@click.option("--duration", type=float, metavar="S", help="Stop after S seconds of mosaic.")
@click.option("--no-browser", is_flag=True, help="Say the page's address and open no browser.")
@_set
@_tells_errors
def preview(config: Path, duration: float | None, no_browser: bool, overrides: tuple[str, ...]) -> None:
    """Run CONFIG and show the mosaic in the browser; nothing is written but what the page asks for.

    Files are played in their own time, round and round. The encoder works for low latency, unless CONFIG
    says another profile.
    """
    from tiler.command_run import execute
    from tiler.config.loader import load

    loaded = load(config, overrides).for_preview(duration)
    execute(loaded, browser=not no_browser)


@main.command()
@_config
@_set
@_tells_errors
def check(config: Path, overrides: tuple[str, ...]) -> None:
    """Validate CONFIG and print what it would do, without running it."""
    from tiler import stages
    from tiler.config.files import check_places
    from tiler.config.loader import load
    from tiler.config.plan import StagePlan, resolve_plan

    loaded = load(config, overrides)
    check_places(loaded)
    choices = [StagePlan(c.stage, f"{c.device}: {c.backend}", c.reason) for c in stages.choose(loaded)]
    plan = resolve_plan(loaded, choices)
    click.echo(plan.render())
    index, _ = stages.wanted_device(loaded.config)
    if index is not None:
        from tiler.stages_cuda import total_memory

        memory = plan.device_memory(total_memory(index))
        click.echo("\n".join([f"GPU memory, cuda:{index}", *memory.render()]))
        memory.check(loaded.config)


@main.command()
@click.argument("detections", type=click.Path(path_type=Path))
@click.option("--fps", type=float, required=True, help="Frames a second of the video that DETECTIONS belong to.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Write the tracks here: .txt.")
@click.option("--slots", metavar="NAME,NAME", help="Names of a fixed cast: only they are written, by place from 1.")
@click.option("--overwrite", is_flag=True, help="Replace an output that exists.")
@_tells_errors
def track(detections: Path, fps: float, output: Path, slots: str | None, overwrite: bool) -> None:
    """Track the people of DETECTIONS, MOT text, without a video.

    Both files are MOT text: frame from 1, id, left, top, width, height, score. The tracker is that of `tiler run`,
    with its defaults; so it looks for scores from 0 to 1. Others are taken through a logistic curve. With --slots
    the id in the output is the place of a person's name, 1 for the first; who has no name is left out.
    """
    from tiler.config.files import Files
    from tiler.config.models import DetectorConfig, TrackerConfig
    from tiler.output.tracks import open_tracks
    from tiler.track.bytetrack import ByteTracker
    from tiler.track.mot import follow, read_detections
    from tiler.track.slots import Slots, slots_of

    if output.suffix.lower() != ".txt":
        raise InputError(f"output {output}: MOT text needs a name that ends in .txt")
    files = Files()
    files.claim(detections, "the file of detections")
    if (problem := files.claim(output, "the tracks")) is not None:
        raise InputError(f"output {output}: {problem}")
    cast = Slots(slots_of(slots)) if slots is not None else None
    given = read_detections(detections)
    tracker = ByteTracker(TrackerConfig(), DetectorConfig().score)
    ids: set[int] = set()
    frames = follow(given, fps, tracker)
    names = {0: cast.names} if cast is not None else None
    with open_tracks(output, [(detections.stem, 0)], ["person"], slots=names, overwrite=overwrite) as writer:
        for frame, tracks in frames:
            if cast is not None:
                tracks = cast.update(tracks)
            writer.write(0, frame - 1, tracks, (0, 0))
            ids.update(tracks.track_id.tolist())
    click.echo(f"{max(given, default=0)} frames, {len(ids)} identities\nwrote {output}")


@main.command()
def doctor() -> None:
    """Say what this machine can do, and why not the rest."""
    from tiler.doctor import examine

    click.echo(examine())


@main.group()
def engine() -> None:
    """Build, inspect and verify TensorRT engines."""


@engine.command("build")
@click.argument("model")
@click.option(
    "--max-batch",
    type=click.IntRange(min=1),
    required=True,
    help="Largest batch: streams, times the ticks of a batch that `tiler check` names. A run takes a larger one, too.",
)
@click.option("--device", metavar="cuda[:N]", default="cuda:0", show_default=True, help="GPU to build for.")
@click.option(
    "--capability",
    type=int,
    metavar="NN",
    help="Build for another GPU of this compute capability, e.g. 89 for 8.9. No GPU is needed (TensorRT-RTX).",
)
@_tells_errors
def engine_build(model: str, max_batch: int, device: str, capability: int | None) -> None:
    """Build the engine of MODEL (a name or an .onnx file) and keep it in the cache."""
    from tiler.engines.build import Target, choose_tensorrt, ensure_engine
    from tiler.engines.convert import half_model
    from tiler.engines.registry import load_model

    half, _ = half_model(load_model(model, Path.cwd()))
    with contextlib.ExitStack() as stack:
        if capability is not None:
            target = Target(capability)
            tensorrt = choose_tensorrt(["tensorrt-rtx"], capability)
        else:
            target = stack.enter_context(_current_device(device))
            tensorrt = choose_tensorrt(["tensorrt", "tensorrt-rtx"], target.capability)
        made = ensure_engine(tensorrt, half, max_batch, target, lambda text: click.echo(text, err=True), exact=True)
    click.echo(f"{made.path} ({made.reason})")


@engine.command("inspect")
@click.argument("file", type=click.Path(path_type=Path))
@_tells_errors
def engine_inspect(file: Path) -> None:
    """Say what the engine FILE is."""
    from tiler.engines.build import inspect_engine

    click.echo("\n".join(inspect_engine(file)))


@engine.command("verify")
@click.argument("engine_or_model")
@_tells_errors
def engine_verify(engine_or_model: str) -> None:
    """Check an .engine file, or every engine of a model that is in the cache.

    Those that another version of TensorRT built are told, and are no fault where there is one of this version.
    """
    from tiler import cuda
    from tiler.engines.build import OtherVersionError, engines_of, verify_engine
    from tiler.engines.convert import half_model
    from tiler.engines.registry import load_model

    if engine_or_model.lower().endswith(".engine"):
        paths = [Path(engine_or_model)]
    else:
        half, _ = half_model(load_model(engine_or_model, Path.cwd()))
        paths = engines_of(half)
        if not paths:
            raise InputError(f"no engine of {engine_or_model} is built yet (tiler engine build)")
    old: list[OtherVersionError] = []
    with contextlib.ExitStack() as stack:
        here = stack.enter_context(_current_device("cuda:0")) if cuda.problem() is None else None
        for path in paths:
            try:
                click.echo("\n".join(verify_engine(path, here)))
            except OtherVersionError as error:
                old.append(error)
    if len(old) == len(paths):
        raise old[-1]
    for other in old:
        click.echo(f"--  version  {other}")


def _current_device(name: str) -> Any:
    """Context in which a GPU is current; it gives the engines' `Target`."""
    from tiler import cuda

    match = re.fullmatch(r"cuda(?::(\d+))?", name)
    if match is None:
        raise InputError(f"--device: {name!r}; accepted: cuda, cuda:N")
    index = int(match[1] or 0)
    if (problem := cuda.problem(index)) is not None:
        raise InputError(f"--device: {name} cannot be used: {problem}; --capability NN builds without a GPU")
    from tiler.engines.device_cuda import current_device

    return current_device(index)
