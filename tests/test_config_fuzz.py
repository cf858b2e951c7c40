"""Whatever a config file holds: a valid plan, or findings of one line each; never anything else."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tiler.compose.layout import place_tiles
from tiler.config.loader import load
from tiler.errors import InputError

MUTATIONS = 2400
NASTY = st.sampled_from(
    ["null", "no", "1:30", "1e999", ".nan", "-.inf", "2020-01-01", "!!python/object:os.system x", "*a", "&a [*a]",
     "{", "[", "'",
     '"', "\t", "\0", "\ud7ff", "정문", "💥", "9" * 400, "0x_", "0b_", "-0o8", "? a", "<<: x", "---\n", "%", "|", ">-",
     "[" * 60, "{a: " * 60, "sources", "mosaic: 5", "tiles:\n", "- - -", "~", "=", "1_000_", "rtsp://u:p@h/"]
)  # fmt: skip
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["a", "b", "sample://duo", "30/1", "1/0", "#12345", "none", "20M", "x.mp4", "../x.mp4"]),
)
VALUES = st.recursive(
    SCALARS, lambda x: st.lists(x, max_size=4) | st.dictionaries(st.text(max_size=5), x, max_size=3), max_leaves=6
)


@pytest.fixture(scope="module")
def valid(repository: Path) -> list[str]:
    return [path.read_text(encoding="utf-8") for path in sorted((repository / "configs").glob("*.yaml"))]


def outcome(path: Path) -> None:
    try:
        loaded = load(path)
    except InputError as error:
        findings = str(error).splitlines()
        assert findings
        assert all(finding.strip() for finding in findings)
        return
    assert place_tiles(loaded.config)


@settings(max_examples=MUTATIONS // 2, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_mutated_text(tmp_path_factory: pytest.TempPathFactory, valid: list[str], data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(valid))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        length = data.draw(st.integers(0, 12))
        insert = data.draw(st.one_of(NASTY, st.text(string.printable, max_size=6), st.text(max_size=4)))
        text = text[:at] + insert + text[at + length :]
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    outcome(path)


@settings(max_examples=MUTATIONS // 2, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_mutated_structure(tmp_path_factory: pytest.TempPathFactory, valid: list[str], data: st.DataObject) -> None:
    document = yaml.safe_load(data.draw(st.sampled_from(valid)))
    for _ in range(data.draw(st.integers(1, 3))):
        place = document
        while isinstance(place, (dict, list)) and place:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = data.draw(st.sampled_from(keys))
            if isinstance(place[key], (dict, list)) and place[key] and data.draw(st.booleans()):
                place = place[key]
                continue
            action = data.draw(st.sampled_from(["delete", "replace", "rename"]))
            if action == "replace":
                place[key] = data.draw(VALUES)
            else:
                value = place.pop(key)
                if action == "rename" and isinstance(place, dict):
                    place[data.draw(st.text(max_size=8))] = value
            break
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_text(yaml.safe_dump(document, allow_unicode=True), encoding="utf-8", errors="replace")
    outcome(path)
