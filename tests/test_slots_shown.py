"""Where the names of a cast show: config, labels, exports, report and command line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from test_config import findings, write
from test_overlay import build, config, only, rendered, shown
from test_run import build as build_run
from test_track_command import rows, track, two_people
from test_track_command import write as write_detections
from test_tracks_output import CLASSES, PICTURE, SIZE

from tiler.cli import main
from tiler.compose.cpu import CpuCompositor
from tiler.config.loader import load
from tiler.config.models import Config
from tiler.errors import InputError
from tiler.kernels.primitives import KIND, X0, Y0
from tiler.observe.run import RunObserver
from tiler.output.tracks import open_tracks
from tiler.pipeline import Run
from tiler.stages import choose
from tiler.types import Tracks

pytest_plugins = ("fakes.run_fixtures",)

SOURCE = "sources:\n  - id: a\n    uri: 'sample://plaza'\n    slots: "


@pytest.mark.parametrize(
    ("slots", "expected"),
    [
        pytest.param("{names: []}", "4: sources[0].slots.names: must be 1 to 6 different names (got [])", id="none"),
        pytest.param(
            "{names: [a, b, a]}",
            "4: sources[0].slots.names: must be 1 to 6 different names (got ['a', 'b', 'a'])",
            id="twice",
        ),
        pytest.param(
            "{names: [a, b, c, d, e, f, g]}",
            "4: sources[0].slots.names: must be 1 to 6 different names (got ['a', 'b', 'c', 'd', 'e', 'f', 'g'])",
            id="too many",
        ),
        pytest.param(
            "{names: [a, 'b c']}",
            "4: sources[0].slots.names[1]: must be 1 to 24 letters, digits, '_', '-' or '.' (got 'b c')",
            id="a space",
        ),
        pytest.param("{names: [a, 2]}", "4: sources[0].slots.names[1]: must be text (got 2)", id="a number"),
        pytest.param(
            "{names: [a], mode: left}",
            "4: sources[0].slots.mode: must be 'person' or 'side' (got 'left')",
            id="mode",
        ),
        pytest.param("{mode: side}", "4: sources[0].slots.names: is needed", id="no names"),
        pytest.param(
            "{names: [a], dwell: 1}",
            "4: sources[0].slots.dwell: unknown key; did you mean 'dwell_s'?",
            id="unknown key",
        ),
    ],
)
def test_what_is_wrong_with_slots_is_said_where_it_stands(tmp_path: Path, slots: str, expected: str) -> None:
    assert findings(tmp_path, f"{SOURCE}{slots}\n") == [expected]


def test_slots_need_a_detector(tmp_path: Path) -> None:
    assert findings(tmp_path, f"{SOURCE}{{names: [a]}}\ndetector: none\n") == [
        "4: sources[0].slots: slots need a detector (detector: none)"
    ]


def test_check_shows_the_cast(tmp_path: Path) -> None:
    path = write(tmp_path, f"{SOURCE}{{names: [왼쪽, right], mode: side}}\n")
    result = CliRunner().invoke(main, ["check", str(path)])
    assert result.exit_code == 0, result.output
    assert "slots by side: 왼쪽, right" in result.output


def named(*names: str) -> Config:
    plain = config(1, only("labels"))
    return Config.model_validate(plain.model_dump() | {"sources": [{"id": "s0", "uri": "0.mp4",
                                                                    "slots": {"names": list(names)}}]})  # fmt: skip


def test_a_name_takes_the_place_of_the_number_in_the_label() -> None:
    what = shown([(100, 100, 160, 300), (400, 100, 460, 300)], ids=[7, 8])
    what.people.tracks.slot[:] = 1, -1

    def luma(settings: Config, what=what) -> np.ndarray:  # type: ignore[no-untyped-def]
        rows, builder, _ = build(settings, what)
        return rendered(settings, rows, builder)

    named_ab = luma(named("a", "b"))
    assert not np.array_equal(named_ab, luma(config(1, only("labels"))))
    assert not np.array_equal(named_ab, luma(named("a", "c")))
    assert np.array_equal(named_ab, luma(named("x", "b")))         # the other name is nobody's
    assert np.array_equal(named_ab[:, 640:], luma(config(1, only("labels")))[:, 640:])  # who has none keeps the number
    other = shown([(100, 100, 160, 300), (400, 100, 460, 300)], ids=[9, 8])
    other.people.tracks.slot[:] = 1, -1
    assert np.array_equal(named_ab, luma(named("a", "b"), other))  # colour and text are the name's


def test_a_slot_without_a_name_is_shown_by_its_number() -> None:
    what, plain = shown([(100, 100, 160, 300)], ids=[0]), shown([(100, 100, 160, 300)], ids=[0])
    what.people.tracks.slot[:] = 5
    labels = [build(config(1, only("labels")), tile)[0][:, [KIND, X0, Y0]] for tile in (what, plain)]
    assert np.array_equal(*labels)


def test_slots_in_jsonl_and_mot_text(tmp_path: Path) -> None:
    cast = replace(PICTURE, slot=np.array([-1, 1], np.int32))
    streams = [("plaza", 0), ("gate", 1)]
    with open_tracks(tmp_path / "a.jsonl", streams, CLASSES, slots={0: ("left", "right")}) as writer:
        writer.write(0, 0, cast, SIZE)
        writer.write(1, 0, PICTURE, SIZE)
    plaza, gate = (json.loads(line)["tracks"] for line in (tmp_path / "a.jsonl").read_text("utf-8").splitlines())
    assert [row["slot"] for row in plaza] == [None, "right"]
    assert [row["id"] for row in plaza] == [1, 4]
    assert all("slot" not in row for row in gate)
    with open_tracks(tmp_path / "a.txt", [("plaza", 0)], CLASSES, slots={0: ("left", "right")}) as writer:
        writer.write(0, 0, cast, SIZE)
    assert rows(tmp_path / "a.txt")[:, :2].tolist() == [[1, 2]]    # the place of `right`; who has no name is left out


def test_tracks_refuse_slots_of_another_length() -> None:
    with pytest.raises(ValueError, match="expected slot"):
        replace(PICTURE, slot=np.zeros(1, np.int32))
    assert Tracks.empty().slot.shape == (0,)


def run_with(clips: Path, slots: str, more: str = "") -> dict[str, Any]:
    """The report of a run of which the first source has these slots, and whose config has more lines."""
    _, built, _ = build_run(clips)
    path = clips.with_name("cast.yaml")
    text = clips.read_text("utf-8").replace("uri: a.mp4", f"uri: a.mp4, slots: {slots}")
    path.write_text(text + more, encoding="utf-8")
    loaded = load(path)
    built.compositor.close()
    built = replace(built, compositor=CpuCompositor(loaded.config, 1, ("person",)))
    observer = RunObserver(loaded.config, choose(loaded), built.feeds, built.encoder)
    try:
        with Run(loaded, built, observer, overwrite=True) as runner:
            runner.start()
            runner.wait()
    finally:
        built.close()
    return observer.report()


def test_a_run_names_its_cast_in_export_and_report(clips: Path) -> None:
    report = run_with(clips, "{names: [one, two]}")
    lines = [json.loads(line) for line in (clips.parent / "out.jsonl").read_text("utf-8").splitlines()]
    named_rows = [row for line in lines if line["stream"] == "a" for row in line["tracks"] if row["slot"]]
    assert {row["slot"] for row in named_rows} == {"one"}
    a, b = report["streams"]
    assert a["slots"] == {"one": len(named_rows), "two": 0}
    assert a["slots_revised"] == 0
    assert "slots" not in b


def test_a_run_refuses_a_class_that_the_detector_does_not_know(clips: Path) -> None:
    with pytest.raises(InputError, match=r"slots.class_name: the detector has no such class; accepted: person"):
        run_with(clips, "{names: [one], class_name: horse}")


def test_track_command_writes_the_cast(tmp_path: Path) -> None:
    hidden = frozenset(range(20, 60))    # longer than the tracker remembers: new ids, the same names
    path, output = write_detections(tmp_path, two_people(80, without=hidden)), tmp_path / "out.txt"
    result = track(path, output, "--slots", "left,right")
    assert result.exit_code == 0, result.output
    assert result.output.startswith("80 frames, 4 identities")
    table = rows(output)
    assert set(table[:, 1]) == {1, 2}
    assert (table[table[:, 1] == 1][:, 3] < 200).all()     # the lane of who was left at first
    assert (table[table[:, 1] == 2][:, 3] > 200).all()


def test_track_command_refuses_what_are_no_names(tmp_path: Path) -> None:
    result = track(write_detections(tmp_path, two_people(3)), tmp_path / "out.txt", "--slots", "a,a")
    assert result.exit_code == 2
    assert "--slots: 'a,a'; accepted: 1 to 6 different names" in result.output
    assert not (tmp_path / "out.txt").exists()
