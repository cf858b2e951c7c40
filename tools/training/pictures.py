"""Worker processes that render pictures without pause, and the store on the training device that they refresh.

Workers write into a ring of shared memory; a thread of the training process moves finished pictures to the device
on a stream of its own. The store is a second, larger ring: training draws from all of it except the rows that may
be rewritten while a step is in flight.
"""

from __future__ import annotations

import mmap
import multiprocessing
import os
import threading
from collections.abc import Callable
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Event
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .geometry import MAX_PEOPLE, Pool
from .network import INPUT_HEIGHT, INPUT_WIDTH

Renderer = Callable[[np.random.Generator, int, int], tuple[np.ndarray, np.ndarray, np.ndarray]]
"""(rng, width, height) -> rgb (H, W, 3) uint8, boxes (n, 4) float32 xyxy, visibility (n,) float32."""

RING_SLOTS = 512
WRITE_MARGIN = 2048
"""Rows ahead of the writer that training does not draw: a few seconds of rendering."""
TRAINING, HELD_OUT = 0, 1


def pack_people(boxes: np.ndarray, visibility: np.ndarray) -> np.ndarray:
    """Boxes (n, 4) and visibility (n,) as (MAX_PEOPLE, 5) float32, the largest first, -1 where unused."""
    rows = np.full((MAX_PEOPLE, 5), -1, np.float32)
    order = np.argsort(-(boxes[:, 2:] - boxes[:, :2]).prod(1))[:MAX_PEOPLE]
    rows[: len(order), :4] = boxes[order]
    rows[: len(order), 4] = np.clip(visibility[order], 0, 1)
    return rows


def render_one(render: Renderer, seed: int, kind: int, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Picture `index` of a kind (`TRAINING`, `HELD_OUT`): (H, W, 3) uint8 and its packed people."""
    rgb, boxes, visibility = render(np.random.default_rng([seed, kind, index]), INPUT_WIDTH, INPUT_HEIGHT)
    return rgb, pack_people(np.asarray(boxes, np.float32).reshape(-1, 4), np.asarray(visibility, np.float32))


def _work(
    render: Renderer,
    seed: int,
    first: int,
    step: int,
    ring: np.ndarray,
    free: SimpleQueue[int],
    ready: SimpleQueue[Any],
    stop: Event,
) -> None:
    os.nice(5)  # the process that feeds the device must never wait for a renderer
    index = first
    while not stop.is_set():
        slot = free.get()
        ring[slot], people = render_one(render, seed, TRAINING, index)
        ready.put((slot, people))
        index += step


class PictureStore:
    """Pictures on `device`, refreshed by `workers` processes until `close`.

    Args:
        render: the renderer; it must be compiled already, since workers are forked.
        capacity: pictures held on the device.

    Create it before the device is first used: processes cannot be forked afterwards.
    """

    def __init__(self, render: Renderer, *, seed: int, workers: int, capacity: int):
        context = multiprocessing.get_context("fork")
        shape = (RING_SLOTS, INPUT_HEIGHT, INPUT_WIDTH, 3)
        # Anonymous memory is inherited by fork and, unlike /dev/shm, not limited in containers.
        self._ring = np.frombuffer(mmap.mmap(-1, int(np.prod(shape))), np.uint8).reshape(shape)
        self._free: SimpleQueue[int] = context.SimpleQueue()
        self._ready: SimpleQueue[Any] = context.SimpleQueue()
        self._stop = context.Event()
        for slot in range(RING_SLOTS):
            self._free.put(slot)
        self._processes = [
            context.Process(
                target=_work,
                args=(render, seed, first, workers, self._ring, self._free, self._ready, self._stop),
                daemon=True,
            )
            for first in range(workers)
        ]
        for process in self._processes:
            process.start()
        self._capacity = capacity
        self.rendered = 0

    def attach(self, device: torch.device) -> None:
        """Allocate the store on `device`; `begin` fills it."""
        self._device = device
        self.pool = Pool(
            torch.zeros(self._capacity, INPUT_HEIGHT, INPUT_WIDTH, 3, dtype=torch.uint8, device=device),
            torch.full((self._capacity, MAX_PEOPLE, 5), -1.0, device=device),
        )

    def begin(self) -> None:
        """Move pictures to the device from now on."""
        self._thread = threading.Thread(target=self._feed, name="picture-feed", daemon=True)
        self._thread.start()

    def _feed(self) -> None:
        stream = torch.cuda.Stream(self._device) if self._device.type == "cuda" else None
        with torch.cuda.stream(stream):
            while (item := self._ready.get()) is not None:
                slot, people = item
                row = self.rendered % self._capacity
                self.pool.rgb[row].copy_(torch.from_numpy(self._ring[slot]))
                self.pool.people[row].copy_(torch.from_numpy(people))
                if stream is not None:
                    stream.synchronize()
                self._free.put(slot)
                self.rendered += 1

    def draw(self, generator: torch.Generator, batch: int) -> Tensor:
        """Random rows for `batch` images of four tiles each, (batch, 4) int64: the fuller of two pictures each."""
        rendered = self.rendered
        if rendered < self._capacity:
            first, count = 0, max(rendered, 1)
        else:
            first = rendered + min(WRITE_MARGIN, self._capacity // 4)
            count = self._capacity - min(WRITE_MARGIN, self._capacity // 4)
        drawn = torch.randint(count, (batch, 4, 2), generator=generator, device=self._device)
        pair = (drawn + first) % self._capacity
        crowd = (self.pool.people[pair][..., 4] >= 0).sum(-1)
        return torch.where(crowd[..., 0] >= crowd[..., 1], pair[..., 0], pair[..., 1])

    def close(self) -> None:
        """Stop workers and thread. Pictures on the device stay usable."""
        self._stop.set()
        for process in self._processes:
            process.join(timeout=20)
        self._ready.put(None)
        self._thread.join(timeout=20)


def held_out(render: Renderer, *, seed: int, count: int, workers: int) -> Pool:
    """Render `count` pictures that training never sees, on the CPU."""
    context = multiprocessing.get_context("fork")
    with context.Pool(workers) as processes:
        made = processes.starmap(render_one, [(render, seed, HELD_OUT, i) for i in range(count)], chunksize=8)
    return Pool(torch.from_numpy(np.stack([rgb for rgb, _ in made])), torch.from_numpy(np.stack([p for _, p in made])))
