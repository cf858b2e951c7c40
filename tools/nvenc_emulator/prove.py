"""Whole runs on a GPU that decodes but has no encoder: what the one encoder session does, checked to the bit.

    python -m tools.nvenc_emulator.prove [--jobs 3] [--only TEXT] [--keep FOLDER]

NVDEC -> inference -> compose -> one session of the emulated encoder, through both client libraries. Prints a table;
the exit code is 1 when a check fails. What it needs: the product's CUDA libraries, `cc`, and 4 GB in the folder.
"""

from __future__ import annotations

import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click

from tiler.samples.prepare import prepare
from tools.nvenc_emulator import build, checks
from tools.nvenc_emulator.checks import Check
from tools.nvenc_emulator.runs import CLIPS, Case, Result, perform

LIBRARIES = ("pyav", "pynvvideocodec")
PROFILES = ("low_latency", "quality")
_4K = (3840, 2160)
_NO_SESSION = ("no NVENC session is left", "encoder.driver: x264")
_LOST_AFTER = 12


def _opening(library: str) -> int:
    """Pictures that open the session."""
    return 1 if library == "pyav" else 0


def together() -> list[tuple[Case, Check]]:
    """Runs whose times do not matter."""
    cases: list[tuple[Case, Check]] = [
        (Case(f"{streams} streams", library, profile, streams, keyframes=(7, 26)), checks.whole)
        for streams in (4, 16) for library in LIBRARIES for profile in PROFILES
    ]  # fmt: skip
    cases += [
        (Case("16 streams, 4K", library, profile, 16, pictures=30, size=_4K, keyframes=(7,)), checks.whole)
        for library, profile in (("pyav", "low_latency"), ("pyav", "quality"), ("pynvvideocodec", "low_latency"))
    ]
    for library in LIBRARIES:
        cases += failing(library)
    return [*cases, *ladder()]


def failing(library: str) -> list[tuple[Case, Check]]:
    """Session limits, and a session that is lost, through one library."""
    lose = f"nvEncEncodePicture@{_LOST_AFTER + _opening(library) + 1}=20"
    return [
        (Case("limit 0", library, driver={"NVENC_EMULATOR_SESSIONS": "0"}), checks.refused(2, *_NO_SESSION)),
        (Case("limit 1", library, driver={"NVENC_EMULATOR_SESSIONS": "1"}), checks.whole),
        (Case("limit 2", library, driver={"NVENC_EMULATOR_SESSIONS": "2"}), checks.whole),
        (Case("session lost", library, driver={"NVENC_EMULATOR_FAIL": lose}), checks.lost(_LOST_AFTER)),
    ]


def ladder() -> list[tuple[Case, Check]]:
    """Where a run lands when there is no session to be had, and nobody insisted on a library."""
    no_chip = {"NVENC_EMULATOR_FAIL": "nvEncOpenEncodeSessionEx=2"}
    no_session = {"NVENC_EMULATOR_SESSIONS": "0"}
    allowed = {"allow_cpu": ["encode"]}
    return [
        (Case("no NVENC", "auto", driver=no_chip), checks.refused(2, "encode cannot run on", "no NVENC", "allow_cpu")),
        (Case("no NVENC, CPU allowed", "auto", driver=no_chip, config=allowed), checks.fallen_back("no NVENC")),
        (Case("limit 0, CPU allowed", "auto", driver=no_session, config=allowed), checks.refused(2, *_NO_SESSION)),
    ]


def alone() -> list[tuple[Case, Check]]:
    """Runs whose times matter: one after the other."""
    driver = {"NVENC_EMULATOR_SLOW_MS": "40"}
    return [
        (Case("40 ms a picture", library, pictures=pictures, streams=4, driver=driver, live=live), checks.slow)
        for library in LIBRARIES for live, pictures in ((False, 40), (True, 150))
    ]  # fmt: skip


HEAD = ("case", "library", "profile", "streams", "mosaic", "given", "exact", "sessions", "flushed", "wait p50", "s", "")


def row(result: Result, problems: list[str]) -> tuple[str, ...]:
    """A line of the table."""
    case, encoder = result.case, result.report.get("encoder", {})
    sums = {(one["tick"] * 3000, one["sum"]) for one in result.seen}
    exact = sum((picture.pts, picture.sum) in sums for picture in result.played)
    return (
        f"{case.name}{', live' if case.live else ''}", case.library, case.profile, str(case.streams),
        f"{case.size[0]}x{case.size[1]}", str(len(result.seen)), str(exact), str(encoder.get("sessions", 0)),
        str(len(result.flushed)), f"{encoder.get('queue_wait_ms', {}).get('p50_ms', 0):.1f} ms",
        f"{result.seconds:.1f}", "ok" if not problems else f"{len(problems)} WRONG",
    )  # fmt: skip


def table(rows: list[tuple[str, ...]]) -> str:
    """Rows of text in columns, as Markdown."""
    lines = [HEAD, tuple("---" for _ in HEAD), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _one(case: Case, check: Check, folder: Path) -> tuple[tuple[str, ...], list[str]]:
    """The line of a case, and what is wrong with it. A fault of the tool is one, too: the other cases still run."""
    name = f"{case.name}, {case.library}, {case.profile}"
    folder.mkdir(parents=True)
    try:
        result = perform(case, folder)
        problems = check(result)
    except Exception:
        return (case.name, case.library, case.profile, *("" for _ in HEAD[4:]), "FAILED"), [traceback.format_exc()]
    (folder / "stderr.txt").write_text(result.said, encoding="utf-8")
    return row(result, problems), [f"{name}: {problem}" for problem in problems]


@click.command()
@click.option("--jobs", type=click.IntRange(1, 16), default=3, show_default=True, help="Runs at a time.")
@click.option("--only", default="", help="Cases whose name has this text.")
@click.option("--keep", type=click.Path(file_okay=False, path_type=Path), help="Keep logs and reports in this folder.")
def main(jobs: int, only: str, keep: Path | None) -> None:
    """Run every case, and say what is not as it must be."""
    if keep is not None and keep.exists() and any(keep.iterdir()):
        raise click.BadParameter(f"{keep} is not empty; logs are appended to", param_hint="--keep")
    build()
    prepare(list(CLIPS), lambda text: click.echo(text, err=True))
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory() as made, ThreadPoolExecutor(jobs) as pool:
        root = keep or Path(made)
        side, serial = ([one for one in cases if only in one[0].name] for cases in (together(), alone()))
        tasks = [(*one, root / f"{index:02}") for index, one in enumerate([*side, *serial])]
        first = [_one(*task) for task in tasks[:1]]  # compiles the kernels, once
        done = [*first, *pool.map(lambda task: _one(*task), tasks[1 : len(side)])]
        done += [_one(*task) for task in tasks[max(len(side), 1) :]]
    rows, wrong = [line for line, _ in done], [problem for _, problems in done for problem in problems]
    click.echo(table(rows))
    click.echo("\n".join([*wrong, f"{len(rows)} runs, {len(wrong)} problems, {time.monotonic() - began_s:.0f} s"]))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
