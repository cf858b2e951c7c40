"""The base of every section of the config, and how amounts are written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ConfigDict


class Model(BaseModel):
    """Base: frozen, strict about types, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def amount(least: int, most: int, expected: str) -> Callable[[Any], int]:
    """Reads `20M`, `800k` and `20000000`.

    Args:
        least, most: that are accepted.
        expected: what to say otherwise.

    >>> amount(1, 10**9, "expected some")("1.5k")
    1500
    """

    def read(value: Any) -> int:
        text = str(value).strip()
        factor = {"k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}.get(text[-1:], 1)
        try:
            number = int(float(text[:-1] if factor != 1 else text) * factor)
        except (ValueError, OverflowError):
            number = least - 1
        if isinstance(value, bool) or not least <= number <= most:
            raise ValueError(expected)
        return number

    return read
