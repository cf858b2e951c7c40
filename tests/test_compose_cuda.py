"""The CUDA compositor without a GPU, its kernel run on the CPU: the same mosaics as the CPU's compositor draws."""

from __future__ import annotations

import ctypes
import importlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import tiler.compose
import tiler.kernels
from tests.compose_parts import OnDevice, aligned, compile_compose
from tests.gpu import random_picture
from tests.kernel_on_host import needs_compiler
from tiler.compose.cpu import CpuCompositor
from tiler.config.models import Config
from tiler.crowd import People
from tiler.kernels import enqueue_cuda
from tiler.observe.copies import Copies
from tiler.types import Frame, Matrix, State, TileInput, Tracks

MODULES = ["tiler.kernels.module_cuda", "tiler.kernels.compose_cuda", "tiler.compose.cuda"]
TICKS = 3


class Entered:
    """A stream or device that is current for a while; all work is done at once."""

    ptr = 0x51

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __enter__(self) -> Entered:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def synchronize(self) -> None:
        pass

    use = synchronize


def cupy_on_host() -> ModuleType:
    """The part of CuPy that the compositor uses, on host memory full of what was there before."""

    def made(shape: int | tuple[int, ...], dtype: Any, fill: int) -> OnDevice:
        array = aligned(shape if isinstance(shape, tuple) else (shape,), dtype)
        array.view(np.uint8)[...] = fill
        return array.view(OnDevice)

    def asarray(values: np.ndarray) -> OnDevice:
        copy = made(values.shape, values.dtype, 0)
        copy[...] = values
        return copy

    cupy: Any = ModuleType("cupy")
    cupy.zeros, cupy.empty = (lambda shape, dtype, fill=fill: made(shape, dtype, fill) for fill in (0, 0xA5))
    cupy.asarray, cupy.uint8, cupy.int32 = asarray, np.uint8, np.int32
    cupy.cuda = SimpleNamespace(
        Stream=Entered, Device=Entered, Event=Entered, get_current_stream=Entered,
        alloc_pinned_memory=lambda size: (ctypes.c_uint8 * size)(),
    )  # fmt: skip
    return cupy


class Driver:
    """Runs compose.cu when it is launched, with the arguments that it is given."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library

    def cuLaunchKernel(self, function: int, *given: Any) -> int:  # noqa: N802
        across, down, _, threads, *_, pointers, _ = given
        # Four bytes are a number, unless they are half of an address: those of compose.cu, in order.
        kinds = "pnnnpnnnpppnpppnp"
        values = [
            (ctypes.c_void_p if kind == "p" else ctypes.c_uint32).from_address(pointers[k]).value
            for k, kind in enumerate(kinds)
        ]
        self._library.run(across, down, threads, *(ctypes.c_void_p(value) for value in values))
        return 0


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return compile_compose(tmp_path_factory.mktemp("compose"))


@pytest.fixture
def compositor(library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """CudaCompositor on that; what was imported before is put back."""
    before = {name: sys.modules.pop(name, None) for name in ("cupy", *MODULES)}
    sys.modules["cupy"] = cupy_on_host()
    for name in ("finish", "wait", "record"):
        monkeypatch.setattr(enqueue_cuda, name, lambda *_: None)
    monkeypatch.setattr(enqueue_cuda, "passed", lambda _: True)
    monkeypatch.setattr(enqueue_cuda, "copy", lambda to, of, size, stream: ctypes.memmove(to, of, size))
    monkeypatch.setattr(enqueue_cuda, "_driver", lambda: Driver(library))
    try:
        launcher = importlib.import_module("tiler.kernels.compose_cuda")
        monkeypatch.setattr(launcher, "kernel", lambda *_: SimpleNamespace(kernel=SimpleNamespace(ptr=1)))
        yield importlib.import_module("tiler.compose.cuda").CudaCompositor
    finally:
        for package, name in ((tiler.kernels, "module_cuda"), (tiler.kernels, "compose_cuda"), (tiler.compose, "cuda")):
            vars(package).pop(name, None)
        for name, module in before.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module


def on_device(frame: Frame) -> Frame:
    """The same picture in aligned memory, u and v side by side."""
    height, width = np.asarray(frame.u).shape
    luma, chroma = aligned(frame.y.shape, frame.y.dtype), aligned((height, 2 * width), frame.u.dtype)
    luma[...], chroma[:, 0::2], chroma[:, 1::2] = frame.y, frame.u, frame.v
    return replace(frame, y=luma.view(OnDevice), u=chroma[:, 0::2].view(OnDevice), v=chroma[:, 1::2].view(OnDevice))


def people(rng: np.random.Generator, count: int, size: tuple[int, int]) -> tuple[Tracks, np.ndarray]:
    corner = rng.uniform(-20, size, (count, 2))
    xyxy = np.concatenate([corner, corner + rng.uniform(5, 90, (count, 2))], 1).astype(np.float32)
    ids = np.arange(1, count + 1, dtype=np.int32)
    ages = np.arange(20) / 12
    trails = [np.column_stack([np.full(20, n), rng.normal(corner[n - 1], 20, (20, 2)), ages]) for n in ids]
    history = np.concatenate(trails or [np.zeros((0, 4))]).astype(np.float32)
    return Tracks(0, ids, xyxy, rng.uniform(0, 1, count).astype(np.float32), np.zeros(count, np.int32)), history


def shown(rng: np.random.Generator, most: int) -> TileInput:
    """A picture of any kind with people in it, or none, in any state."""
    size = ((640, 360), (320, 180), (1280, 720), (322, 182))[rng.integers(4)]
    kind = {"matrix": Matrix(int(rng.choice([1, 1, 1, 0]))), "rotation": int(rng.choice([0, 0, 0, 90]))}
    frame = random_picture(rng, size, sixteen=rng.integers(5) == 0, **kind) if rng.integers(6) else None
    tracks, history = people(rng, int(rng.integers(0, most + 1)), size)
    state = State.LIVE if rng.integers(4) else list(State)[rng.integers(len(State))]
    return TileInput(frame, People.of(tracks, history), state, 25.0)


def expect_the_same(config: Config, make: Callable[..., Any], rng: np.random.Generator, most: int) -> None:
    copies = Copies()
    with make(config, 0, copies, ("person",)) as gpu, CpuCompositor(config, 2, ("person",)) as cpu:
        for tick in range(TICKS):
            sources = [shown(rng, most) for _ in config.sources]
            clock = f"12:00:0{tick}" if config.overlay.clock else ""
            twins = [one if one.frame is None else one._replace(frame=on_device(one.frame)) for one in sources]
            found, wanted = gpu.compose(tick, twins, clock), cpu.compose(tick, sources, clock)
            for name, one, other in zip("yuv", found.planes, wanted.planes, strict=True):
                wrong = np.argwhere(np.asarray(one) != other)
                assert len(wrong) == 0, f"tick {tick}: {name} has {len(wrong)} wrong samples, the first at {wrong[0]}"
            assert found.sources == wanted.sources


@needs_compiler
@pytest.mark.parametrize("seed", range(6))
def test_mosaics_are_those_of_the_cpu(compositor: Callable[..., Any], seed: int, tmp_path: Path) -> None:
    """One to nine sources; a clock over all of them; tiles that let others through."""
    rng = np.random.default_rng(seed)
    names = [f"s{n}" for n in range((1, 4, 4, 9, 2, 3)[seed])]
    config: dict[str, Any] = {
        "sources": [{"id": name, "uri": "x"} for name in names],
        "mosaic": {"width": (640, 642)[seed % 2], "height": 360, "gap_px": 2 * (seed % 3)},
        "overlay": {"clock": seed % 2 == 0},
    }
    if seed > 3:
        config["tiles"] = [{"source": name, "opacity": 0.6} for name in names] + [
            {"source": names[0], "rect": [0.2, 0.2, 0.5, 0.6]}
        ]
    expect_the_same(Config.model_validate(config), compositor, rng, 12)


@needs_compiler
def test_more_people_than_there_was_room_for(compositor: Callable[..., Any]) -> None:
    config = Config.model_validate({
        "sources": [{"id": "a", "uri": "x"}], "mosaic": {"width": 640, "height": 360},
    })  # fmt: skip
    expect_the_same(config, compositor, np.random.default_rng(1), 700)
