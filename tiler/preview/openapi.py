"""The API as a table of operations, and the OpenAPI document made of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from tiler import __version__
from tiler.preview.answers import Problem

Handler = Callable[[web.Request, Any], Awaitable[web.StreamResponse]]

MAX_NUMBER = 4  # digits of a tile's number
_REFUSALS = {
    400: "not the JSON or the parameters that are accepted", 401: "a token is needed", 403: "another web page asks",
    404: "there is no such thing", 409: "it cannot be done now", 413: "too large", 415: "not JSON",
    429: "too many requests",
}  # fmt: skip
TILE = {
    "name": "tile", "in": "path", "required": True, "description": "number of a tile, from 0",
    "schema": {"type": "integer", "minimum": 0, "maximum": 10**MAX_NUMBER - 1},
}  # fmt: skip
SOURCE = {
    "name": "source", "in": "path", "required": True, "description": "id of a source",
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$"},
}  # fmt: skip
SNAPSHOT = (
    {
        "name": "format", "in": "query", "description": "of the file", "required": False,
        "schema": {"type": "string", "enum": ["png", "jpeg"], "default": "png"},
    },
    {**TILE, "in": "query", "required": False, "description": "only this tile"},
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Operation:
    """One request that is answered.

    Attributes:
        body, answer: models of the JSON that goes in and out; an answer without one is a picture.
        parameters: in OpenAPI's terms.
    """

    method: str
    path: str
    name: str
    summary: str
    handle: Handler
    body: type[BaseModel] | None = None
    answer: type[BaseModel] | None = None
    parameters: tuple[dict[str, Any], ...] = ()


def document(operations: Sequence[Operation], locked: bool) -> dict[str, Any]:
    """OpenAPI 3.1.

    Args:
        operations: all there are.
        locked: a token is needed.
    """
    models = {m for o in operations for m in (o.body, o.answer) if m is not None} | {Problem}
    ordered = sorted(models, key=lambda model: model.__name__)
    _, schemas = models_json_schema(
        [(model, "serialization") for model in ordered], ref_template="#/components/schemas/{model}"
    )
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "tiler", "version": __version__, "description": "A change lands at the next tick."},
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}] if locked else [],
    }


def _described(operation: Operation) -> dict[str, Any]:
    def content(model: type[BaseModel]) -> dict[str, Any]:
        return {"application/json": {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}}

    if operation.answer is not None:
        good = content(operation.answer)
    else:
        binary = {"schema": {"type": "string", "format": "binary"}}
        good = {"image/png": binary, "image/jpeg": binary}
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "responses": {
            "200": {"description": "done", "content": good},
            **{str(code): {"description": text, "content": content(Problem)} for code, text in _REFUSALS.items()},
        },
    }
    if operation.parameters:
        described["parameters"] = list(operation.parameters)
    if operation.body is not None:
        described["requestBody"] = {"required": True, "content": content(operation.body)}
    return described
