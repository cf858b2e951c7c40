"""Write configs/reference.yaml from the models: every key, its default and what it means.

    python tools/write_reference.py > configs/reference.yaml
"""

from __future__ import annotations

import types
from fractions import Fraction
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel

from tiler.config.models import Config, Source, Tile
from tiler.config.outputs import KINDS

HEADER = """\
# Every key with its default. Only `sources` is needed; an id and a uri make a source.
# Optional keys without a value are shown as comments. Durations are seconds (_s), sizes are
# pixels of the mosaic (_px). Made by tools/write_reference.py; a test keeps it equal to the models.
"""
EXAMPLES: dict[str, Any] = {
    "id": "plaza",
    "uri": "sample://plaza",
    "source": "plaza",
    "names": ["left", "right"],
    "follow": "left",
}
OUTPUTS = {
    "file": "../out/reference.mp4",
    "segments": "../out/reference-{time}.mp4",
    "hls": "../out/live",
    "push": "rtsp://127.0.0.1:8554/mosaic",
    "pipe": "stdout",
    "clip": "../out/clip-{time}.mp4",
    "tracks": "../out/tracks.jsonl",
}
"""Where each kind of output goes in the reference."""


def main() -> None:
    print(HEADER, end="")
    _section(Config, "", {})


def _section(model: type[BaseModel], indent: str, given: dict[str, Any]) -> None:
    for name, field in model.model_fields.items():
        inner = next((m for m in _models(field.annotation)), None)
        if name == "sources":
            print(f"{indent}\n{indent}sources:")
            _item(Source, indent + "  ", EXAMPLES)
        elif name == "tiles":
            print(f"{indent}\n{indent}# One rectangle each; without `tiles`, one per source in order.\n{indent}tiles:")
            _item(Tile, indent + "  ", EXAMPLES)
        elif name == "outputs":
            print(f"{indent}\n{indent}# Any number of each kind.\n{indent}outputs:")
            for kind, output in KINDS.items():
                _item(output, indent + "  ", {kind: OUTPUTS[kind]})
        elif inner is not None and field.default is None:
            print(f"{indent}# {name}:".ljust(34) + f"  # {field.description}")
            _section(inner, indent + "#   ", EXAMPLES)
        elif inner is not None:
            note = "   # or  detector: none" if name == "detector" else ""
            print(f"{indent}\n{indent}{name}:{note}")
            _section(inner, indent + "  ", {})
        else:
            value = given.get(name, field.get_default(call_default_factory=True))
            shown = _scalar(value)
            comment = "# " if value is None else ""
            print(f"{indent}{comment}{name}: {shown}".ljust(34) + f"  # {field.description}")


def _item(model: type[BaseModel], indent: str, given: dict[str, Any]) -> None:
    print(f"{indent}-")
    _section(model, indent + "  ", given)


def _scalar(value: Any) -> str:
    if isinstance(value, Fraction):
        value = int(value) if value.denominator == 1 else str(value)
    if value is None:
        return ""
    return yaml.safe_dump(value, default_flow_style=True, allow_unicode=True).removesuffix("...\n").strip()


def _models(kind: Any) -> list[type[BaseModel]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [kind]
    if get_origin(kind) in (Union, types.UnionType, list):
        return [model for part in get_args(kind) for model in _models(part)]
    return []


if __name__ == "__main__":
    main()
