"""`tiler run` as a user starts it: what it refuses, what it says, and how it ends."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from click.testing import CliRunner
from pictures import decoded

from tiler import stages
from tiler.cli import main
from tiler.config.loader import load

pytest_plugins = ("fakes.run_fixtures",)


def test_outputs_are_not_replaced_unless_told(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is said before anything is opened: that may take a minute on a new machine."""
    monkeypatch.delattr(stages, "build")
    (config.parent / "out.mp4").write_bytes(b"precious")
    result = CliRunner().invoke(main, ["run", str(config), "--set", "detector=none"])
    assert result.exit_code == 2
    assert "--overwrite" in result.output
    assert (config.parent / "out.mp4").read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-o", "a.mp4"], "-o: is the file of source 'a'; another name is needed (got"),
        (["--set", "outputs[0].file=a.mp4"], "outputs[0].file: is the file of source 'a'; another name is needed (got"),
        (["--set", "outputs[0].file=link.mp4"], "outputs[0].file: is the file of source 'a'"),
        (["--set", "outputs[0].file=hard.mp4"], "outputs[0].file: is the file of source 'a'"),
        (["--set", "sources[0].uri=file://FOLDER/a.mp4", "-o", "hard.mp4"], "-o: is the file of source 'a'"),
        (["--set", "sources[0].realtime=true", "-o", "a.mp4"], "-o: is the file of source 'a'"),
        (["--report", "a.mp4"], "--report: is the file of source 'a'"),
        (["--report", "c.yaml"], "--report: is the config itself"),
        (["--report", "out.mp4"], "--report: is where outputs[0] writes"),
        (["-o", "o.mp4", "--report", "o.mp4"], "--report: is where -o writes"),
        (["--tracks", "t.txt", "--report", "t.b.txt"], "--report: is where --tracks writes"),
        (["--set", "sources[0].uri=t.a.txt", "--tracks", "t.txt"], "--tracks: its t.a.txt is the file of source 'a'"),
        (["--set", "sources[0].uri=link.jsonl", "--tracks", "a.jsonl"], "--tracks: is the file of source 'a'"),
        (["--set", "detector.model=m.onnx", "--report", "m.onnx"], "--report: is the file of the model"),
        (["--set", "sources[0].uri=h/init.mp4", "--set", "outputs[0]={hls: h}"], "hls: its init.mp4 is the file of"),
    ],
)
def test_what_a_run_reads_or_writes_already_is_never_replaced(
    config: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    folder = config.parent
    monkeypatch.chdir(folder)
    monkeypatch.delattr(stages, "build")
    (folder / "h").mkdir()
    for name in ("a.jsonl", "t.a.txt", "m.onnx", "h/init.mp4"):
        (folder / name).write_bytes(b"precious")
    (folder / "link.mp4").symlink_to("a.mp4")
    (folder / "link.jsonl").symlink_to("a.jsonl")
    (folder / "hard.mp4").hardlink_to(folder / "a.mp4")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    arguments = [argument.replace("FOLDER", str(folder)) for argument in arguments]
    result = CliRunner().invoke(main, ["run", "c.yaml", "--overwrite", *arguments])
    assert result.exit_code == 2, result.output
    assert said in result.output
    assert len(result.output.splitlines()) == 1
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_device_may_be_written_twice_and_a_url_is_no_file_of_this_machine(config: Path) -> None:
    (config.parent / "x.mkv").symlink_to("/dev/null")
    args = ["run", str(config), "--set", "detector=none", "-o", str(config.parent / "x.mkv"), "--duration", "0.4",
            "--overwrite", "--report", "/dev/null"]  # fmt: skip
    assert CliRunner().invoke(main, args).exit_code == 0
    text = config.read_text().replace("uri: b.mp4", "uri: 'http://127.0.0.1:9/out.mp4'")
    config.write_text(text, encoding="utf-8")
    assert load(config).config.sources[1].uri.endswith("/out.mp4")


def test_command_line_run_reports_what_it_did(config: Path, tmp_path: Path) -> None:
    args = ["run", str(config), "--set", "detector=none", "-o", str(tmp_path / "x.mkv"), "--duration", "0.4",
            "--report", str(tmp_path / "r.json")]  # fmt: skip
    result = CliRunner().invoke(main, args)
    assert result.exit_code == 0, result.output
    assert "10 frames" in result.output
    assert "1 encoder session" in result.output
    assert len(decoded(tmp_path / "x.mkv")) == 10
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["versions"]["tiler"]


@pytest.mark.parametrize("more", [[], ["--overwrite"]])
def test_a_run_without_a_picture_says_so_and_claims_no_file(config: Path, more: list[str]) -> None:
    old = config.parent / "out.mp4"
    if more:
        old.write_bytes(b"of an earlier run")
    begins = [f"--set=sources[{index}].start_s={last}" for index, last in enumerate((0.79, 0.95))]  # after the last
    result = CliRunner().invoke(main, ["run", str(config), "--set", "detector=none", *begins, *more])
    assert result.exit_code == 1
    assert "wrote" not in result.output
    assert "stream a: decode (a): no picture from 0.79 s on\n" in result.output
    assert result.output.splitlines()[-1].startswith("no picture: nothing is written; start_s, end_s and duration_s ")
    assert old.exists() == bool(more)


@pytest.mark.parametrize("command", ["check", "run"])
@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["sources[0].start_s=100"], "source a: start_s: the file is over before; it has 0.8 s (got 100)\n"),
        (["sources[0].start_s=100", "sources[0].loop=true"], "source a: start_s: the file is over before; it has 0.8"),
        (
            ["sources[1].uri=sample://duo?seconds=2", "sources[1].start_s=2"],
            "--set sources[1].start_s: the sample is over before; it has 2.0 s (got 2)\n",
        ),
        (["duration_s=0.01"], "duration_s: 0.01 s is shorter than one picture (0.04 s at 25 fps)\n"),
        (["mosaic.fps=1", "duration_s=0.5"], "duration_s: 0.5 s is shorter than one picture (1 s at 1 fps)\n"),
    ],
)
def test_what_leaves_no_picture_is_refused_where_it_is_known(
    config: Path, command: str, overrides: list[str], said: str
) -> None:
    given = [f"--set={override}" for override in ("detector=none", *overrides)]
    result = CliRunner().invoke(main, [command, str(config), *given])
    assert result.exit_code == 2, result.output
    assert said in result.output
    assert result.output.count("\n") == 1
    assert not (config.parent / "out.mp4").exists()


def test_a_report_that_the_disk_does_not_take_hides_no_result(config: Path, tmp_path: Path) -> None:
    args = ["run", str(config), "--set", "detector=none", "--duration", "0.4", "--overwrite", "--report", "/dev/full"]
    result = CliRunner().invoke(main, args)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)  # and no traceback
    assert "report /dev/full: cannot be written: No space left on device\n" in result.output
    assert f"wrote {tmp_path / 'out.mp4'}\n" in result.output
    assert len(decoded(tmp_path / "out.mp4")) == 10


def test_a_report_that_the_disk_does_not_take_hides_no_error(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("broken on purpose")

    monkeypatch.setattr("tiler.encode.cpu.X264Encoder.encode", fail)
    result = CliRunner().invoke(
        main, ["run", str(config), "--set", "detector=none", "--overwrite", "--report", "/dev/full"]
    )
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert "report /dev/full: cannot be written: No space left on device\n" in result.output
    assert result.output.splitlines()[-1].startswith("encode: ")
    assert "broken on purpose" in result.output.splitlines()[-1]


def endless(config: Path) -> list[str]:
    """The command of a run that goes on until it is told to stop."""
    text = config.read_text() + "duration_s: 60\n"
    config.write_text(text.replace("uri: a.mp4", "uri: a.mp4, loop: true, realtime: true"), encoding="utf-8")
    return [sys.executable, "-c", "from tiler.cli import main; main()", "run", str(config), "--set", "detector=none"]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=["int", "term", "hup"]
)
def test_signals_finalise_the_file(config: Path, number: int, code: int) -> None:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(endless(config), stderr=subprocess.PIPE, env=environment, text=True)
    assert process.stderr is not None
    assert any("frames" in line for line in process.stderr)  # a line of progress: the run is on
    process.send_signal(number)
    process.communicate(timeout=20)
    assert process.returncode == code
    assert len(decoded(config.parent / "out.mp4")) > 10


def test_a_closed_terminal_finalises_the_file(config: Path) -> None:
    ours, terminal = pty.openpty()
    process = subprocess.Popen(
        endless(config), stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(terminal)
    said = b""
    while not re.search(rb"mosaic [1-9]\d+", said):  # in the table: the run is on
        said += os.read(ours, 65536)
    os.close(ours)
    assert process.wait(timeout=20) == 129
    assert len(decoded(config.parent / "out.mp4")) > 10


def test_a_run_under_nohup_outlives_its_terminal(config: Path) -> None:
    process = subprocess.Popen(
        endless(config), stderr=subprocess.PIPE, env={**os.environ, "PYTHONUNBUFFERED": "1"}, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )  # fmt: skip
    assert process.stderr is not None
    assert any("frames" in line for line in process.stderr)
    process.send_signal(signal.SIGHUP)
    assert any("frames" in line for line in process.stderr)  # another one: it goes on
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 143
