"""Whole runs through the emulated encoder without a GPU: stages on the CPU, the real client libraries for the encoder.

The same cases and the same checks as `python -m tools.nvenc_emulator.prove`, which runs them on a GPU.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tools.nvenc_emulator import checks, prove
from tools.nvenc_emulator.runs import Case, Result, perform

pytest_plugins = ("fakes.nvenc_fixtures",)

needs_pynvvideocodec = pytest.mark.skipif(
    importlib.util.find_spec("PyNvVideoCodec") is None, reason="PyNvVideoCodec is not installed"
)
LIBRARIES = [pytest.param("pyav"), pytest.param("pynvvideocodec", marks=needs_pynvvideocodec)]
Go = Callable[[Case], Result]


@pytest.fixture(scope="module")
def go(driver_folder: Path, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Go:
    """Runs a case on the CPU, small."""

    def run(case: Case) -> Result:
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("PYTHONPATH", f"{repository}:{repository / 'tests'}")
            small = replace(case, streams=min(case.streams, 2), size=(320, 192))
            small = replace(small, config={"detector": "none", **case.config, "device": "cpu"})
            return perform(small, tmp_path_factory.mktemp("run"), module="fakes.nvenc_run", host_cuda=True)

    return run


def case_of(name: str, library: str, *, live: bool = False) -> tuple[Case, checks.Check]:
    every = [*prove.together(), *prove.alone()]
    return next(one for one in every if (one[0].name, one[0].library, one[0].live) == (name, library, live))


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("profile", prove.PROFILES)
def test_a_whole_run_is_one_session_and_its_file_is_the_mosaic(library: str, profile: str, go: Go) -> None:
    assert checks.whole(go(Case("whole", library, profile, keyframes=(7, 26)))) == []


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("name", ["limit 0", "session lost"])
def test_a_run_without_its_session_says_so_and_keeps_what_it_has(library: str, name: str, go: Go) -> None:
    case, check = case_of(name, library)
    assert check(go(case)) == []


@pytest.mark.parametrize(("case", "check"), [pytest.param(*one, id=one[0].name) for one in prove.ladder()])
def test_a_run_that_insists_on_no_library_lands_where_the_config_allows(
    case: Case, check: checks.Check, go: Go
) -> None:
    device = {} if case.config else {"allow_cpu": []}
    assert check(go(replace(case, config={**case.config, **device}))) == []


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("live", [False, True], ids=["offline", "live"])
def test_a_slow_encoder_is_seen_in_the_queue_before_it(library: str, live: bool, go: Go) -> None:
    case, check = case_of("40 ms a picture", library, live=live)
    assert check(go(replace(case, streams=1))) == []


# The checks themselves


@pytest.fixture(scope="module")
def good(go: Go) -> Result:
    result = go(Case("good", "pyav", pictures=20, keyframes=(7,)))
    assert checks.whole(result) == []
    return result


def _without_packet(result: Result) -> Result:
    seen = [{**one, "packets": [] if one["tick"] == 3 else one["packets"]} for one in result.seen]
    return replace(result, seen=seen)


def _reported(result: Result, **section: Any) -> Result:
    return replace(result, report={**result.report, **section})


def _logged(result: Result, call: str, **values: Any) -> Result:
    return replace(result, log=[{**line, **values} if line["call"] == call else line for line in result.log])


def _with_b_frames(result: Result) -> Result:
    (line,) = (line for line in result.log if line["call"] == "nvEncInitializeEncoder")
    return _logged(result, line["call"], config={**line["config"], "frameIntervalP": 3})


SPOILT: dict[str, tuple[Callable[[Result], Result], str]] = {
    "a wrong sample": (lambda r: replace(r, played=[*r.played[:-1], replace(r.played[-1], sum="")]), "1 of 20"),
    "two pictures swapped": (lambda r: replace(r, played=[r.played[1], r.played[0], *r.played[2:]]), "2 of 20"),
    "a picture lost": (lambda r: replace(r, played=r.played[:-1]), "19 pictures in the file"),
    "a late picture": (lambda r: replace(r, played=[*r.played[:-1], replace(r.played[-1], pts=0)]), "at their times"),
    "a wrong duration": (lambda r: replace(r, durations=[*r.durations[:-1], 1]), "durations"),
    "no keyframe where asked": (lambda r: replace(r, case=replace(r.case, keyframes=(8,))), "keyframes of the file"),
    "an IDR that is not forced": (lambda r: _logged(r, "nvEncEncodePicture", flags=0), "IDR forced at"),
    "no colour": (lambda r: replace(r, colour=(2, 2, 2, 0)), "not BT.709"),
    "a packet late": (_without_packet, "1 pictures came without their packet"),
    "a failure": (lambda r: replace(r, exit_code=1), "exit code 1"),
    "B-frames": (_with_b_frames, "2 B-frames"),
    "another encoder": (lambda r: _reported(r, encoder={"name": "libx264", "sessions": 1}), "encoder is libx264"),
    "two sessions": (lambda r: _reported(r, encoder={**r.report["encoder"], "sessions": 2}), "2 sessions"),
    "a picture read back": (
        lambda r: _reported(r, copies={"by_name": {"m": {"direction": "down", "bytes_per_tick": 10**6}}}),
        "m: 1000000 bytes a tick",
    ),
    "stages on the CPU": (lambda r: replace(r, case=replace(r.case, config={"device": "cuda"})), "decoded by ['pyav']"),
    "a session never ended": (lambda r: replace(r, log=r.log[:-1]), "1 sessions opened, 0 ended"),
    "memory left mapped": (
        lambda r: _logged(r, "nvEncDestroyEncoder", left={"mapped": 2}), "2 mapped left in session 1",
    ),
    "rewritten memory": (lambda r: _logged(r, "nvEncLockBitstream", problem="rewritten"), "LockBitstream: rewritten"),
}  # fmt: skip


@pytest.mark.parametrize("spoilt", SPOILT)
def test_what_is_wrong_with_a_run_is_found(spoilt: str, good: Result) -> None:
    spoil, text = SPOILT[spoilt]
    assert any(text in line for line in checks.whole(spoil(good)))
