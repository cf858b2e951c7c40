"""Turns the numbers of NVENC's binary interface (abi_13_0.json) into a C header.

Structures come out packed, with the gaps written out, so that only the offsets of the JSON decide where a field
lies. Beside each there is a table of its fields, from which the emulator logs every parameter by its name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ABI = Path(__file__).parent / "abi_13_0.json"
_SCALARS = {
    "unsigned int": "uint32_t",
    "int": "int32_t",
    "long unsigned int": "uint64_t",
    "short unsigned int": "uint16_t",
    "short int": "int16_t",
    "unsigned char": "uint8_t",
    "signed char": "int8_t",
    "pointer": "void *",
}
_SIGNED = ("int", "short int", "signed char")
_BYTE_BITS = 8
_PREAMBLE = """\
/* Generated from {source}: do not edit. */
#pragma once
#include <stddef.h>
#include <stdint.h>

typedef struct {{ uint8_t bytes[16]; }} GUID;
typedef struct {{ uint32_t value; const char *name; }} AbiName;
typedef enum {{ ABI_UNSIGNED, ABI_SIGNED, ABI_ENUM, ABI_GUID, ABI_STRUCT }} AbiKind;
typedef struct AbiField {{
    const char *name;
    uint32_t bit, bits;
    AbiKind kind;
    const AbiName *names;
    const struct AbiField *fields;
}} AbiField;
#define ABI_TABLE static const __attribute__((unused))
"""


def header(source: Path = ABI) -> str:
    """The text of the header.

    Raises:
        ValueError: two fields of a structure overlap, or one has a type that is not known here.
    """
    abi = json.loads(source.read_text(encoding="utf-8"))
    out = [_PREAMBLE.format(source=source.name)]
    for name, values in abi["enums"].items():
        out.append("enum { " + ", ".join(f"{key} = {value}" for key, value in values.items()) + " };")
        rows = "".join(f'{{{value}u, "{key}"}}, ' for key, value in values.items())
        out.append(f"ABI_TABLE AbiName {name}_names[] = {{{rows}{{0, 0}}}};")
    out += [f"#define {name} {value}u" for name, value in abi["versions"].items()]
    rows = ""
    for name, digits in abi["guids"].items():
        data = ", ".join(f"0x{byte:02x}" for byte in bytes.fromhex(digits))
        out.append(f"ABI_TABLE GUID {name} = {{{{{data}}}}};")
        rows += f'{{{{{{{data}}}}}, "{name}"}}, '
    out.append(f"ABI_TABLE struct {{ GUID guid; const char *name; }} abi_guids[] = {{{rows}{{{{{{0}}}}, 0}}}};")
    written = {"GUID"}
    for name in abi["structs"]:
        _write(name, abi["structs"], written, out)
    return "\n".join(out) + "\n"


def _write(name: str, structs: dict[str, Any], written: set[str], out: list[str]) -> None:
    """A structure, behind those that it holds."""
    if name in written:
        return
    written.add(name)
    fields = structs[name]["fields"]
    for field in fields.values():
        kind, _, inner = field.get("type", "").partition(" ")
        if kind in ("struct", "union"):
            _write(inner, structs, written, out)
    size, keyword = structs[name]["size"], structs[name]["kind"]
    if keyword == "union":
        members = [_member(key, field) for key, field in fields.items()] + [f"uint8_t all[{size}];"]
    else:
        members = _members(name, fields, size)
    body = "\n    ".join(members)
    out.append(f"typedef {keyword} __attribute__((packed)) {{\n    {body}\n}} {name};")
    out.append(f'_Static_assert(sizeof({name}) == {size}, "{name}");')
    out += [
        f'_Static_assert(offsetof({name}, {key}) == {field["offset"]}, "{name}.{key}");'
        for key, field in fields.items() if "offset" in field
    ]  # fmt: skip
    rows = "".join(_row(key, field) for key, field in fields.items())
    out.append(f"ABI_TABLE AbiField {name}_fields[] = {{{rows}{{0}}}};")


def _members(name: str, fields: dict[str, Any], size: int) -> list[str]:
    members, at = [], 0
    for key, field in sorted(fields.items(), key=lambda item: _bit(item[1])):
        if _bit(field) < at:
            raise ValueError(f"{name}.{key} overlaps the field before it")
        members += _gap(at, _bit(field))
        members.append(_member(key, field))
        at = _bit(field) + _bits(field)
    return members + _gap(at, size * _BYTE_BITS)


def _gap(at: int, until: int) -> list[str]:
    """Unnamed bits up to a whole byte, then bytes, then the bits before a bit field."""
    whole = min(-(-at // _BYTE_BITS) * _BYTE_BITS, until)
    out = [f"uint32_t : {whole - at};"] if whole > at else []
    count, rest = divmod(until - whole, _BYTE_BITS)
    if count:
        out.append(f"uint8_t gap_{whole // _BYTE_BITS}[{count}];")
    return [*out, f"uint32_t : {rest};"] if rest else out


def _bit(field: dict[str, Any]) -> int:
    return int(field["bit_offset"]) if "bits" in field else int(field["offset"]) * _BYTE_BITS


def _bits(field: dict[str, Any]) -> int:
    return int(field["bits"]) if "bits" in field else int(field["size"]) * _BYTE_BITS


def _member(key: str, field: dict[str, Any]) -> str:
    if "bits" in field:
        return f"uint32_t {key} : {field['bits']};"
    kind = field["type"]
    if kind == "array":
        return f"uint8_t {key}[{field['size']}];"
    if kind.startswith("enum "):
        return f"uint32_t {key};"
    if kind.startswith(("struct ", "union ")):
        return f"{kind.partition(' ')[2]} {key};"
    if kind not in _SCALARS:
        raise ValueError(f"{key}: no C type for {kind}")
    return f"{_SCALARS[kind]} {key};".replace("* ", "*")


def _row(key: str, field: dict[str, Any]) -> str:
    """A line of the table of fields; pointers, arrays and unions have none."""
    kind, _, inner = field.get("type", "").partition(" ")
    names, fields, what = "0", "0", "ABI_SIGNED" if field.get("type") in _SIGNED else "ABI_UNSIGNED"
    if key == "version" or kind in ("pointer", "array", "union"):
        return ""
    if kind == "enum":
        what, names = "ABI_ENUM", f"{inner}_names"
    elif kind == "struct" and inner == "GUID":
        what = "ABI_GUID"
    elif kind == "struct":
        what, fields = "ABI_STRUCT", f"{inner}_fields"
    return f'{{"{key}", {_bit(field)}, {_bits(field)}, {what}, {names}, {fields}}}, '
