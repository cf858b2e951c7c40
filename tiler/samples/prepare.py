"""Render what a run needs before it starts, two scenes at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from tiler.samples.cache import cache_folder, resolve


def prepare(uris: Sequence[str], say: Callable[[str], None]) -> None:
    """Render the samples that are not in the cache yet, telling `say` about it.

    Raises:
        InputError: as `resolve`.
    """

    def progress(uri: str, done: float) -> None:
        if done == 0.0:
            say(f"drawing {uri} into {cache_folder()} (once)")

    with ThreadPoolExecutor(2, "samples") as pool:
        for _ in pool.map(lambda uri: resolve(uri, progress), dict.fromkeys(uris)):
            pass
