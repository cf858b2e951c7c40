"""Configs: what is accepted, and what a user reads when something is not."""

from __future__ import annotations

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pictures
import pytest
import yaml
from click.testing import CliRunner
from PIL import Image
from pydantic import BaseModel

from tiler.cli import main
from tiler.compose.overlay import OverlayBuilder
from tiler.config.loader import LoadedConfig, load
from tiler.config.models import Config, Source, Tile
from tiler.config.outputs import KINDS
from tiler.errors import ConfigError, InputError
from tools.write_reference import OUTPUTS

GOOD = "sources: [{id: a, uri: 'sample://plaza'}]\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "c.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def findings(folder: Path, text: str, *overrides: str) -> list[str]:
    path = write(folder, text)
    with pytest.raises(ConfigError) as caught:
        load(path, overrides)
    return [line.removeprefix(f"{path}:") for line in caught.value.findings]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", ["1: the config is empty; at least `sources:` is needed"], id="empty"),
        pytest.param("- 1", ["1: the config must be a mapping of keys; at least `sources:` is needed"], id="a list"),
        pytest.param(
            "sourcs: []",
            ["1: sources: is needed", "1: sourcs: unknown key; did you mean 'sources'?"],
            id="typo in a key",
        ),
        pytest.param("sources: []", ["1: sources: has too few entries (got [])"], id="no source"),
        pytest.param(
            "sources:\n  - {id: a, uri: no}",
            ["2: sources[0].uri: must be text (got the boolean false: quote it)"],
            id="YAML 1.1 no",
        ),
        pytest.param(
            GOOD + "mosaic:\n  width: 1281\n  background: red\n",
            [
                "3: mosaic.width: must be a multiple of 2 (got 1281)",
                "4: mosaic.background: must be a colour such as '#101418' (got 'red')",
            ],
            id="several at once, in the file's order",
        ),
        pytest.param(
            GOOD + "mosaic: {fps: 500}\n", ["2: mosaic.fps: expected 1 to 240 frames per second (got 500)"], id="fps"
        ),
        pytest.param(
            GOOD + "tiles: [{source: b}]\n",
            ["2: tiles[0].source: no source has this id; accepted: a (got 'b')"],
            id="unknown source",
        ),
        pytest.param(
            GOOD + "outputs: [{file: x.avi}]\n",
            ["2: outputs[0].file: a file name ending in .mp4, .mov, .mkv is needed (got 'x.avi')"],
            id="suffix",
        ),
        pytest.param(
            GOOD + "outputs: [{fil: x.mp4}]\n",
            ["2: outputs[0].file: is needed", "2: outputs[0].fil: unknown key; did you mean 'file'?"],
            id="typo in an output",
        ),
        pytest.param(
            GOOD + "detector: off\n",
            ["2: detector: must be none or a mapping such as {model: person-nano} (got the boolean false)"],
            id="detector off",
        ),
        pytest.param(
            GOOD + "detector: {model: person-nan}\n",
            ["2: detector.model: unknown model 'person-nan'; accepted: a model that tiler ships "
             "(person-nano, person-small) or the path of an .onnx file"],
            id="unknown model",
        ),
        pytest.param(
            GOOD + "detector: {classes: [person, dog]}\n",
            ["2: detector.classes[1]: the detector has no such class; accepted: person (got 'dog')"],
            id="unknown class",
        ),
        pytest.param(
            "sources:\n  - {id: a, uri: 'sample://duo', slots: {names: [ann], class_name: Person}}\n",
            ["2: sources[0].slots.class_name: the detector has no such class; did you mean 'person'? (got 'Person')"],
            id="unknown class of a cast",
        ),
        pytest.param(
            "base: &base {fps: 25}\nmosaic:\n  <<: *base\n",
            ["3: mosaic.<<: merge keys are not supported; write the keys out"],
            id="merge key",
        ),
        pytest.param(
            GOOD + "mosaic:\n\tfps: 25\n",
            ["3: not valid YAML: a tab in the indentation; YAML takes spaces"],
            id="tab",
        ),
        pytest.param(
            GOOD + "mosaic:\n  fps: 25\n\tgap_px: 4\n",
            ["4: not valid YAML: a tab in the indentation; YAML takes spaces"],
            id="tab after spaces",
        ),
        pytest.param(
            "a: {\n\tb: 1,\n\tc: ]}\n",
            ["3: not valid YAML: did not find expected node content"],
            id="another mistake after a tab that is fine",
        ),
        pytest.param("a: 1\na: 2\n", ["2: a: the key stands twice"], id="duplicate key"),
        pytest.param("a: &a [*a]", ["1: too large: aliases or nesting without bound"], id="alias of itself"),
        pytest.param(
            "a: !!python/object/apply:os.system [x]",
            ["1: the tag 'tag:yaml.org,2002:python/object/apply:os.system' is not accepted"],
            id="python tag",
        ),
        pytest.param(
            "sources:\n  - {id: a, uri: 'sample://plaza'}\n  - {id: a, uri: 'sample://duo'}\n",
            ["3: sources[1].id: 'a' is taken by sources[0]; ids are unique"],
            id="id twice",
        ),
    ],
)
def test_tells_what_is_wrong_where_and_what_is_accepted(tmp_path: Path, text: str, expected: list[str]) -> None:
    assert findings(tmp_path, text) == expected


def test_missing_source_file_is_named_with_its_folder(tmp_path: Path) -> None:
    (line,) = findings(tmp_path, "sources: [{id: a, uri: nowhere.mp4}]")
    assert line == f"1: sources[0].uri: there is no such file (got 'nowhere.mp4', in {tmp_path})"


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("folder", "is a folder, not a file"),
        ("pipe", "is a named pipe, not a file"),
        ("closed/a.mp4", "cannot be looked at: Permission denied"),
        ("loop", "cannot be looked at: Too many levels of symbolic links"),
        ("c.yaml/a.mp4", "there is no such file"),
    ],
)
def test_a_source_that_is_no_file_is_told_what_it_is(closed: Path, uri: str, said: str) -> None:
    folder = closed.parent
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    (folder / "loop").symlink_to("loop")
    (line,) = findings(folder, f"sources: [{{id: a, uri: {uri}}}]")
    assert line == f"1: sources[0].uri: {said} (got '{uri}', in {folder})"


@pytest.mark.parametrize("key", ["start_s: 1", "end_s: 2", "loop: true"])
def test_a_picture_has_no_time(tmp_path: Path, key: str) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    (line,) = findings(tmp_path, f"sources: [{{id: a, uri: a.png, {key}}}]")
    assert line == f"1: sources[0].{key.partition(':')[0]}: a picture has no time, and stays; leave it out"


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("rstp://u:hunter2@cam/1", "nothing opens rstp://; did you mean 'rtsp'? (got 'rstp://u:***@cam/1')"),
        ("foo://bar", "nothing opens foo://; accepted: rtsp, rtsps, "),
        ("Htpp://host/a.mp4", "nothing opens htpp://; did you mean 'http'? (got 'htpp://host/a.mp4')"),
        ("srt://host:9000", "the PyAV wheels have no SRT; let a MediaMTX server take it, and open its rtsp://"),
    ],
)
def test_a_url_that_nothing_opens_is_refused(tmp_path: Path, uri: str, said: str) -> None:
    (line,) = findings(tmp_path, f"sources: [{{id: a, uri: '{uri}', realtime: true}}]")
    assert line.startswith(f"1: sources[0].uri: {said}")


@pytest.mark.parametrize("uri", ["RTSP://Cam/Main", "Sample://duo", "cache:http://host/A.mp4", "rtmpt://h/live/k"])
def test_a_url_may_begin_with_any_protocol_in_any_case(tmp_path: Path, uri: str) -> None:
    scheme, _, rest = uri.partition("://")
    assert load(write(tmp_path, f"sources: [{{id: a, uri: '{uri}'}}]")).config.sources[0].uri == f"{scheme.lower()}://{rest}"


def test_secrets_never_show(tmp_path: Path) -> None:
    text = "sources: [{id: a, uri: 'rtsp://u:hunter2@h/x', start_s: 3}, {id: 'b!', uri: 'rtsp://u:hunter2@h/x'}]"
    assert "hunter2" not in "\n".join(findings(tmp_path, text))


def test_overrides_change_keys_and_their_errors_say_so(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    config = load(path, ["mosaic.fps=29.97", "detector=none", "sources[0].loop=true"]).config
    assert config.mosaic.fps == Fraction(30000, 1001)
    assert config.detector == "none"
    assert config.sources[0].loop
    with pytest.raises(ConfigError) as caught:
        load(path, ["mosaic.fps=fast"])
    assert caught.value.findings[0].startswith("--set mosaic.fps: expected a number of frames per second")


def test_an_override_is_taken_whole(tmp_path: Path) -> None:
    config = load(write(tmp_path, GOOD), ["mosaic.background=#ff0000", "sources[0].label=Gate #2"]).config
    assert (config.mosaic.background, config.sources[0].label) == ("#ff0000", "Gate #2")


@pytest.mark.parametrize("override", ["mosaic", "=3", "sources[9].loop=true", "a..b=1", "mosaic.fps=[", "mosaic.fsp=3"])
def test_bad_overrides_are_user_errors(tmp_path: Path, override: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, GOOD), [override])
    assert all("--set" in line for line in caught.value.findings)


def test_numbers_with_an_exponent_are_numbers(tmp_path: Path) -> None:
    loaded = load(write(tmp_path, GOOD + "duration_s: 1e300\nmosaic: {stale_after_s: 5e-1}\n"), ["encoder.gop_s=1e1"])
    assert (loaded.config.duration_s, loaded.config.mosaic.stale_after_s) == (1e300, 0.5)
    assert loaded.config.encoder.gop_s == 10
    assert findings(tmp_path, GOOD + "encoder: {gop_s: 1e9}\n") == [
        "2: encoder.gop_s: must be less than or equal to 60 (got 1000000000.0)"
    ]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        ("0.00001", "--duration: 1e-05 s is shorter than one picture (0.033 s at 30 fps)\n"),
        ("-1", "--duration: must be greater than 0 (got -1.0)\n"),
        ("nan", "--duration: must be a finite number (got nan)\n"),
    ],
)
def test_a_wrong_duration_is_told_by_the_option_that_was_typed(tmp_path: Path, seconds: str, said: str) -> None:
    arguments = ["run", str(write(tmp_path, GOOD)), "-o", str(tmp_path / "o.mp4"), "--duration", seconds]
    result = CliRunner().invoke(main, arguments)
    assert (result.exit_code, result.output) == (2, said)


def test_paths_start_from_the_folder_of_the_file(tmp_path: Path) -> None:
    loaded: LoadedConfig = load(write(tmp_path, GOOD))
    assert loaded.resolve("../a.mp4") == str(tmp_path.parent / "a.mp4")
    assert loaded.resolve("rtsp://h/x") == "rtsp://h/x"


@pytest.mark.parametrize(
    ("font", "said"),
    [
        ("none.ttf", "2: overlay.font: there is no such file (got 'none.ttf', in FOLDER)"),
        (
            "c.yaml",
            "2: overlay.font: cannot read FOLDER/c.yaml (unknown file format); expected a TrueType or OpenType font, "
            ".ttf or .otf",
        ),
    ],
)
def test_a_font_that_is_none_is_told(tmp_path: Path, font: str, said: str) -> None:
    assert findings(tmp_path, GOOD + f"overlay: {{font: {font}}}\n") == [said.replace("FOLDER", str(tmp_path))]


def test_a_font_is_looked_for_beside_the_config(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.ttf").write_bytes((repository / "tiler/compose/fonts/DroidSansFallback.ttf").read_bytes())
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    loaded = load(write(tmp_path, GOOD + "overlay: {font: mine.ttf}\n"))
    assert OverlayBuilder(loaded.config).atlas.layout_text("監").width > 0
    with pytest.raises(InputError, match="--report: is the font; another name is needed"):
        loaded.with_outputs(None, None, tmp_path / "mine.ttf")


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("{file: folder.mp4}", "output FOLDER/folder.mp4: is a folder; a file name is needed\n"),
        ("{hls: c.yaml}", "output FOLDER/c.yaml/index.m3u8: its folder cannot be made: FOLDER/c.yaml is a file\n"),
        ("{tracks: closed/t.txt}", "output FOLDER/closed/t.txt: cannot be written: Permission denied\n"),
    ],
)
def test_check_refuses_an_output_that_a_run_cannot_write(closed: Path, output: str, said: str) -> None:
    folder = closed.parent
    (folder / "folder.mp4").mkdir()
    path = write(folder, GOOD + f"outputs: [{output}, {{file: new/o.mp4}}]\n")
    before = sorted(folder.iterdir())
    result = CliRunner().invoke(main, ["check", str(path)])
    assert (result.exit_code, result.output) == (2, said.replace("FOLDER", str(folder)))
    assert sorted(folder.iterdir()) == before


def test_room_for_sources_is_within_what_a_run_can_have(tmp_path: Path) -> None:
    sources = ", ".join(f"{{id: s{i}, uri: 'rtsp://host/{i}'}}" for i in range(40))
    text = f"sources: [{sources}]\npreview: {{spare_sources: %d}}\n"
    assert load(write(tmp_path, text % 24)).config.places == 64
    assert findings(tmp_path, text % 25) == [
        "2: preview.spare_sources: a run has at most 64 sources; accepted here: 0 to 24"
    ]


def shipped(repository: Path) -> list[Path]:
    return sorted((repository / "configs").glob("*.yaml"))


def test_shipped_configs_are_valid_and_check_prints_their_plan(repository: Path) -> None:
    paths = shipped(repository)
    assert {path.stem for path in paths} >= {"2x", "4x", "9x", "spotlight", "reference"}
    for path in paths:
        result = CliRunner().invoke(main, ["check", str(path)])
        assert result.exit_code == 0, result.output
        for source in load(path).config.sources:
            assert source.id in result.output
        assert "detector  person-nano: 640x384 fp32" in result.output
        assert "tracker   bytetrack, reid auto: remembers who is away for 30 s" in result.output
    result = CliRunner().invoke(main, ["check", str(paths[0]), "--set", "preview.spare_sources=3"])
    assert "3 more may be added while a live run goes on" in result.output
    result = CliRunner().invoke(main, ["check", str(paths[0]), "--set", "tracker.reid=off"])
    assert "tracker   bytetrack, reid off: by motion alone" in result.output


def test_check_prints_its_plan_in_any_encoding(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from tiler.cli import main; main()", "check", str(write(tmp_path, GOOD))]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "latin-1"}, check=False)
    assert done.returncode == 0, done.stderr
    assert b"mosaic  3840x2160" in done.stdout


def test_check_shows_wide_pixels_as_the_run_draws_them(tmp_path: Path) -> None:
    pictures.write(tmp_path / "pal.mp4", 3, size=(352, 288), sample_aspect=Fraction(16, 11))
    path = write(tmp_path, "sources: [{id: a, uri: pal.mp4}]\nmosaic: {width: 640, height: 360}\n")
    result = CliRunner().invoke(main, ["check", str(path), "--set", "tracker.memory_s=0.1"])
    assert "picture 640x360 " in result.output  # of 352x288: 440x360 with square ones
    assert "remembers who is away for 1.5 s" in result.output


def test_reference_has_every_key_with_its_default(repository: Path) -> None:
    text = (repository / "configs" / "reference.yaml").read_text(encoding="utf-8")
    loaded = load(repository / "configs" / "reference.yaml").config
    plain = Config(
        sources=[Source(id="plaza", uri="sample://plaza")],
        tiles=[Tile(source="plaza")],
        outputs=[model.model_validate({kind: OUTPUTS[kind]}) for kind, model in KINDS.items()],
    )
    assert loaded == plain
    written = yaml.safe_load(text)

    def compare(model: type[BaseModel], values: dict[str, object], name: str) -> None:
        for key, field in model.model_fields.items():
            shown = key in values or (field.default is None and f"# {key}:" in text)
            assert shown, f"{name}.{key} is missing"

    compare(Config, written, "config")
    compare(Source, written["sources"][0], "sources[0]")
    compare(Tile, written["tiles"][0], "tiles[0]")
    for (kind, model), entry in zip(KINDS.items(), written["outputs"], strict=True):
        compare(model, entry, kind)
    for key in ("mosaic", "detector", "tracker", "overlay", "encoder"):
        compare(type(getattr(plain, key)), written[key], key)


@pytest.mark.parametrize("command", ["run", "check"])
def test_a_wrong_config_exits_2_without_a_traceback(tmp_path: Path, command: str) -> None:
    result = CliRunner().invoke(main, [command, str(write(tmp_path, "sources: 5"))])
    assert result.exit_code == 2
    assert "sources: must be a list" in result.output
    assert "Traceback" not in result.output
