"""pydantic's errors in the user's words: where, what is accepted, what was found."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from tiler.config.document import Path
from tiler.config.models import Config
from tiler.config.outputs import KINDS, FileOutput

_PATTERNS = {
    "^#": "must be a colour such as '#101418'",
    "^[A-Za-z0-9_]": "must be 1 to 64 letters, digits, '_', '-' or '.', not starting with '-' or '.'",
    r"^[\w": "must be 1 to 24 letters, digits, '_', '-' or '.'",
    "^(auto": "must be auto, cpu, cuda or cuda:N",
    "^[!-~]": "must be printable ASCII without spaces",
}
_TYPES = {
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "list_type": "must be a list, as in [a, b]",
    "dict_type": "must be a mapping of keys",
    "model_type": "must be a mapping of keys",
    "model_attributes_type": "must be a mapping of keys",
    "missing": "is needed",
    "too_short": "has too few entries",
    "too_long": "has too many entries",
}


def explain(error: ValidationError, data: Any) -> Iterator[tuple[Path, str]]:
    """(path, message) of each finding, one per place."""
    told: set[Path] = set()
    for item in error.errors(include_url=False):
        where, tags = _place(item["loc"], data)
        if not _wanted(where, tags, data) or where in told:
            continue
        told.add(where)
        yield where, _message(item, where, data)


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` or the list of what there is."""
    known = list(known)
    close = [one for one in known if sorted(one) == sorted(word)]  # two letters exchanged are the nearest of all
    close = close or difflib.get_close_matches(word, known, 1, 0.6)
    return f"; did you mean {close[0]!r}?" if close else f"; accepted: {', '.join(known[:30])}"


def unknown_class(name: str, known: Sequence[str]) -> str | None:
    """What is wrong with the name of a class that is to be found; None where the detector knows it.

    >>> unknown_class("preson", ("person", "car"))
    "the detector has no such class; did you mean 'person'? (got 'preson')"
    """
    return None if name in known else f"the detector has no such class{nearest(name, known)} (got {name!r})"


def _place(loc: tuple[int | str, ...], data: Any) -> tuple[Path, list[str]]:
    """The path in the file, and what pydantic put between its steps (names of union members)."""
    path: list[str | int] = []
    tags: list[str] = []
    value = data
    for step in loc:
        model = _model_at(tuple(path), tags)
        if isinstance(value, dict) and isinstance(step, str) and (
            step in value or (model is not None and step in model.model_fields)
        ):
            path.append(step)
            value = value.get(step)
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            path.append(step)
            value = value[step]
        else:
            tags.append(str(step))
    return tuple(path), tags


def _wanted(where: Path, tags: list[str], data: Any) -> bool:
    """Of a union's members, only the one that the user meant may complain."""
    if where[:1] == ("outputs",) and len(where) >= 2:
        return not tags or _meant(where, data) in tags
    if where[:1] == ("detector",):
        meant_model = isinstance(data.get("detector"), dict)
        return not meant_model or not any(tag.startswith("literal") for tag in tags)
    return True


def _message(item: Any, where: Path, data: Any) -> str:
    kind, context = item["type"], item.get("ctx", {})
    value = _value_at(where, data)
    if kind == "missing":
        return _TYPES[kind]
    if kind == "extra_forbidden":
        model = _model_at(where[:-1], [_meant(where, data)])
        return f"unknown key{nearest(str(where[-1]), model.model_fields if model else ())}"
    if where == ("detector",):
        said = "must be none or a mapping such as {model: person-nano}"
    elif where[:1] == ("outputs",) and len(where) == 2:
        said = f"must be a mapping such as {{file: NAME.mp4}}; the kinds are {', '.join(KINDS)}"
    elif kind == "string_pattern_mismatch":
        said = next(text for start, text in _PATTERNS.items() if context["pattern"].startswith(start))
    elif kind == "value_error":
        said = str(context["error"])
    else:
        said = _TYPES.get(kind) or str(item["msg"]).replace("Input should", "must", 1)
    hint = ": quote it" if isinstance(value, bool) and kind == "string_type" else ""
    secret = where[-1:] == ("token",) or where == ("preview",) or (where[:1] == ("outputs",) and len(where) <= 2)
    return said if secret else f"{said} (got {_shown(value)}{hint})"


def _meant(where: Path, data: Any) -> str:
    """Name of the model that an entry of `outputs` is meant to be, by the kind that stands in it."""
    entry = _value_at(where[:2], data) if where[:1] == ("outputs",) else None
    kinds = [kind for kind in KINDS if isinstance(entry, dict) and kind in entry]
    return KINDS[kinds[0]].__name__ if kinds else FileOutput.__name__


def _value_at(where: Path, data: Any) -> Any:
    for step in where:
        try:
            data = data[step]
        except (KeyError, IndexError, TypeError):
            return None
    return data


def _model_at(where: Path, tags: list[str]) -> type[BaseModel] | None:
    """The model whose keys stand at `where`."""
    kind: Any = Config
    for step in where:
        models = _models(kind)
        if isinstance(step, str):
            owner = next((m for m in models if step in m.model_fields), None)
            if owner is None:
                return None
            kind = owner.model_fields[step].annotation
    models = _models(kind)
    return next((m for m in models if m.__name__ in tags), models[0] if models else None)


def _models(kind: Any) -> list[type[BaseModel]]:
    """The models in an annotation such as `list[A | B] | None`."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [kind]
    if get_origin(kind) in (Union, types.UnionType, list) or hasattr(kind, "__metadata__"):
        return [model for part in get_args(kind) for model in _models(part)]
    return []


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return f"the boolean {str(value).lower()}"
    if value is None:
        return "nothing"
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
