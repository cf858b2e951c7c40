"""A run from the command line: samples, progress, signals, the preview, and what came of it."""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import click

from tiler.errors import RunError, TilerError, mask_uri


def execute(loaded: Any, *, report: Path | None = None, overwrite: bool = False, browser: bool = False) -> None:
    """Run a config to its end, with progress, signals and the preview."""
    # Loading the stages makes some hundred thousand objects that live as long as the process. The collector
    # would look through them again and again, and hold up a picture each time: it starts after them.
    gc.disable()
    from tiler import stages
    from tiler.config.files import check_places
    from tiler.config.outputs import FileOutput
    from tiler.observe.progress import Progress
    from tiler.observe.run import RunObserver
    from tiler.output.file import check_writable
    from tiler.pipeline import Run

    files = [Path(loaded.resolve(output.file)) for output in loaded.config.outputs if isinstance(output, FileOutput)]
    check_places(loaded)  # not only after minutes of compiling
    for path in [*files, *([report] if report is not None else ())]:
        check_writable(path, overwrite=overwrite)
    stages.choose(loaded)  # a device that cannot be used is said before samples are rendered
    with _compiling(loaded.config) as finish_compiling:
        _make_samples(loaded.config)
        built = stages.build(loaded)
        finish_compiling()
    observer = RunObserver(loaded.config, built.choices, built.feeds, built.encoder, built.copies)
    stopped: list[int] = []
    reported = True
    gc.freeze()
    gc.enable()
    try:
        runner = Run(loaded, built, observer, overwrite=overwrite)
    except BaseException:
        built.close()
        raise
    try:
        with runner, _signals(runner.stop, stopped, lambda: _save_clip(runner)):
            page = _open_preview(loaded, runner, observer) if loaded.config.preview is not None else None
            try:
                with Progress(observer, _total_ticks(loaded.config, built.feeds)) as progress:
                    runner.start()
                    if browser and page is not None:
                        _open_browser(page.url)
                    runner.wait(progress.update)
            finally:
                reported = report is None or _write_report(report, observer)
    except RunError:
        if observer.frames:  # what was recorded is there all the same
            _say_result(observer)
        raise
    _say_result(observer)
    if not observer.frames and not stopped:
        raise RunError("no picture: nothing is written; start_s, end_s and duration_s must leave something to decode")
    if not reported:
        sys.exit(RunError.exit_code)
    if stopped:
        sys.exit(128 + stopped[0])


def _open_preview(loaded: Any, runner: Any, observer: Any) -> Any:
    from tiler.preview import open_preview

    page = open_preview(loaded, runner, observer)
    click.echo(f"preview: {page.url}", err=True)
    return page


def _open_browser(url: str) -> None:
    """On a machine with a screen; a text browser would take the terminal."""
    import webbrowser

    if sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        webbrowser.open(url)


@contextmanager
def _compiling(config: Any) -> Iterator[Callable[[], None]]:
    """Compile meanwhile what a run on the CPU needs, if it is the first; gives what waits until that is done."""
    from tiler import stages
    from tiler.compile_ahead import CompileAhead

    if stages.wanted_device(config)[0] is not None:
        yield lambda: None
        return
    with CompileAhead() as ahead:
        if ahead.needed:
            click.echo("the first run on this machine: compiling, which takes up to a minute", err=True)
        yield ahead.finish


def _make_samples(config: Any) -> None:
    """Render the sample scenes that are not in the cache yet, saying so."""
    from tiler.samples.prepare import prepare

    wanted = [source.uri for source in config.sources if source.uri.startswith("sample://")]
    if wanted:
        prepare(wanted, lambda text: click.echo(text, err=True))


def _total_ticks(config: Any, feeds: Any) -> int | None:
    """Ticks of the whole run, None when it has no known end."""
    ticks: int | None = config.ticks
    if ticks is None:
        ending = [f for f in feeds if not f.reader.source.loop and not f.reader.endless]
        lengths = [f.reader.info.duration_s for f in ending if f.reader.info and f.reader.info.duration_s]
        if not lengths or len(lengths) < len(ending):
            return None
        ticks = round(max(lengths) * config.mosaic.fps)
    return ticks


class _signals:  # noqa: N801  (a context manager, used like a function)
    """Ctrl-C, SIGTERM and a closed terminal stop the run cleanly; a second Ctrl-C or SIGTERM ends it at once. SIGUSR1
    saves the clip."""

    def __init__(self, stop: Callable[[], None], got: list[int], save: Callable[[], None]) -> None:
        self._stop, self._got, self._save = stop, got, save
        self._before: dict[int, Any] = {}
        self._terminal: list[int] = []

    def __enter__(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._handle)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup: the run goes on without a terminal
            self._terminal = [file.fileno() for file in (sys.stdout, sys.stderr) if file.isatty()]
            self._before[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._handle_hangup)
        self._before[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, self._handle_save)

    def _handle_save(self, number: int, frame: FrameType | None) -> None:
        threading.Thread(target=self._save, name="tiler-clip", daemon=True).start()  # a disk must not hold the run up

    def _handle_hangup(self, number: int, frame: FrameType | None) -> None:
        """The terminal is closed: nobody reads what is said there, and to say it would be an error."""
        with open(os.devnull, "wb") as nowhere:
            for terminal in self._terminal:
                os.dup2(nowhere.fileno(), terminal)
        if not self._got:  # a shell and the system may both send one
            self._handle(number, frame)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._got:
            sys.exit(128 + number)
        self._got.append(number)
        self._stop()
        click.echo("stopping: finalising the outputs (once more to stop at once)", err=True)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def _save_clip(runner: Any) -> None:
    try:
        for path in runner.outputs.save_clip():
            click.echo(f"wrote {path}", err=True)
    except TilerError as error:
        click.echo(mask_uri(str(error)), err=True)


def _write_report(path: Path, observer: Any) -> bool:
    """Whether it is written. What keeps it from that is said, and hides neither the run's result nor its error."""
    try:
        path.write_text(json.dumps(observer.report(), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        click.echo(f"report {path}: cannot be written: {error.strerror or error}", err=True)
        return False
    return True


def _say_result(observer: Any) -> None:
    report = observer.report()
    click.echo(
        f"{report['frames']} frames in {report['seconds']:.1f} s ({report['fps']:.1f} fps), "
        f"{report['encoder']['name']}, {report['encoder']['sessions']} encoder session, "
        f"tick to packet p95 {report['end_to_end']['p95_ms']:.0f} ms"
    )
    for row in report["outputs"]:
        if row["kind"] in ("clip", "preview") or not report["frames"]:
            continue
        lost = f" (left out {row['dropped']} packets)" if row["dropped"] else ""
        lost += f" ({row['error']})" if row["error"] else ""
        done = "sent to" if row["kind"] in ("push", "pipe") else "wrote"
        if row["kind"] == "push" and not row["packets"]:
            done = "nothing was sent to"
        click.echo(f"{done} {row['name']}{lost}")
    if report["cpu_fallback"]:
        reasons = {report["stages"][stage]["reason"] for stage in report["cpu_fallback"]}
        click.echo(f"on the CPU: {', '.join(report['cpu_fallback'])} ({'; '.join(sorted(reasons))})")
    sound = report.get("audio")
    if sound is not None and sound["error"]:
        click.echo(f"sound of {sound['source']}: {sound['error']}", err=True)
    for row in report["streams"]:
        if row["failure"]:
            click.echo(f"stream {row['id']}: {row['failure']}", err=True)
