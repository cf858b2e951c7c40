"""YAML text -> plain values that remember their lines.

Only what a config needs is accepted: mappings with text keys, lists and scalars. YAML 1.1
surprises are taken out: `1:30` and dates stay text, `1e3` is a number. Duplicate keys, merge
keys, tags and runaway aliases are findings, never a crash.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import yaml

MAX_BYTES = 1_000_000
MAX_NODES = 20_000
MAX_DEPTH = 32

Path = tuple[str | int, ...]
"""Where a value stands: ("sources", 2, "uri")."""

_STEP = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)|\[([0-9]{1,3})\]")
_FLOAT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")
_COMMENT = re.compile(r"(^|\s)#")
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_CONSTRUCTOR = yaml.constructor.SafeConstructor()
_PLAIN = ("str", "int", "float", "bool", "null", "timestamp", "value", "merge")


@dataclass(slots=True)
class Document:
    """A parsed file.

    Attributes:
        value: dicts, lists and scalars.
        lines: 1-based line of each key (for list items, of the item) by path.
        findings: (line, message) of what YAML itself gets wrong.
    """

    value: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    findings: list[tuple[int, str]] = field(default_factory=list)


def parse(text: str) -> Document:
    """Parse one YAML document; problems are in `findings`, nothing is raised."""
    document = Document()
    try:
        node = yaml.compose(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        problem = _one_line(error.problem or error.context or error)
        if "a tab character" in problem or (mark is not None and text[mark.index : mark.index + 1] == "\t"):
            problem = "a tab in the indentation; YAML takes spaces"
        document.findings.append((line, f"not valid YAML: {problem}"))
        return document
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        document.findings.append((1, f"not valid YAML: {_one_line(error)}"))
        return document
    if node is not None:
        _Builder(document).build(node)
    return document


def parse_scalar(text: str) -> Any:
    """The value of `--set key=VALUE`: a YAML scalar, list or mapping on one line, without comments.

    Raises:
        ValueError: it is not valid YAML.

    >>> parse_scalar("#ff0000"), parse_scalar("Gate #2"), parse_scalar("[1, 2]")
    ('#ff0000', 'Gate #2', [1, 2])
    """
    if _COMMENT.search(text) and not text.lstrip().startswith(("[", "{", '"', "'")):
        return text.strip()
    document = parse(text)
    if document.findings:
        raise ValueError(document.findings[0][1])
    return document.value


class _Builder:
    def __init__(self, document: Document) -> None:
        self._document = document
        self._nodes = 0

    def build(self, node: yaml.Node) -> None:
        try:
            self._document.value = self._value(node, ())
        except _TooMuch as error:
            self._document.findings.append((node.start_mark.line + 1, str(error)))
            self._document.value = None

    def _value(self, node: yaml.Node, path: Path) -> Any:
        self._nodes += 1
        if self._nodes > MAX_NODES or len(path) > MAX_DEPTH:
            raise _TooMuch("too large: aliases or nesting without bound")
        self._document.lines.setdefault(path, node.start_mark.line + 1)
        build: dict[type, Callable[[Any, Path], Any]] = {
            yaml.MappingNode: self._mapping,
            yaml.SequenceNode: self._sequence,
            yaml.ScalarNode: self._scalar,
        }
        return build[type(node)](node, path)

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        self._check_tag(node, "map")
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self._document.findings.append((line, "a key must be plain text"))
                continue
            key = key_node.value
            if key_node.tag.endswith(":merge"):
                where = dotted((*path, key))
                self._document.findings.append((line, f"{where}: merge keys are not supported; write the keys out"))
                continue
            if key in result:
                self._document.findings.append((line, f"{dotted((*path, key))}: the key stands twice"))
                continue
            self._document.lines[(*path, key)] = line
            result[key] = self._value(value_node, (*path, key))
        return result

    def _sequence(self, node: yaml.SequenceNode, path: Path) -> list[Any]:
        self._check_tag(node, "seq")
        return [self._value(item, (*path, index)) for index, item in enumerate(node.value)]

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> Any:
        self._check_tag(node, *_PLAIN)
        text, kind = node.value, node.tag.rpartition(":")[2]
        if kind in ("timestamp", "value", "merge") or kind not in _PLAIN or (kind in ("int", "float") and ":" in text):
            return text
        if kind == "str":
            return float(text) if not node.style and _FLOAT.fullmatch(text) else text
        try:
            return _CONSTRUCTOR.construct_object(node)
        except (ValueError, OverflowError, KeyError, IndexError, yaml.YAMLError):
            return text

    def _check_tag(self, node: yaml.Node, *kinds: str) -> None:
        prefix, _, kind = node.tag.rpartition(":")
        if prefix != "tag:yaml.org,2002" or kind not in kinds:
            shown = node.tag if len(node.tag) < 60 else node.tag[:57] + "..."
            self._document.findings.append((node.start_mark.line + 1, f"the tag {shown!r} is not accepted"))


class _TooMuch(Exception):  # noqa: N818  (never leaves this module)
    pass


def dotted(path: Path) -> str:
    """`sources[2].uri` of ("sources", 2, "uri")."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def undotted(text: str) -> Path:
    """The path of `sources[2].uri`; of what is no such name, something that `dotted` makes another text of."""
    return tuple(name or int(index) for name, index in _STEP.findall(text))


def _one_line(error: object) -> str:
    return " ".join(str(error).split())[:200]
