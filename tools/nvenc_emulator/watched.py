"""`tiler` as always, but what its encoder is given is written down: a checksum of each mosaic, the packets for it.

    python -m tools.nvenc_emulator.watched SEEN.jsonl --keyframe 7 run tiler.yaml

Each line of SEEN: `tick`, `sum` of its NV12 bytes as composed, `packets` ([pts, dts, keyframe] each) that came out
when it was given; last a line with tick null, for what the flush gave. Nothing of this is in the product: the
encoder of a run is wrapped here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from tiler import stages
from tiler.cli import main as tiler
from tiler.encode.base import Encoder
from tiler.stages import Stages
from tiler.types import Mosaic, Packet

Build = Callable[..., Stages]


def checksum(nv12: np.ndarray) -> str:
    """Of a picture: NV12, uint8 (H * 3 / 2, W), on the host."""
    return hashlib.blake2b(np.ascontiguousarray(nv12).data, digest_size=16).hexdigest()


def nv12_of(mosaic: Mosaic) -> np.ndarray:
    """The mosaic on the host as NV12, uint8 (H * 3 / 2, W), wherever it lies."""
    if mosaic.nv12 is not None:
        mosaic.ready.synchronize()
        return np.asarray(mosaic.nv12.get())
    y, u, v = (np.asarray(plane) for plane in mosaic.planes)
    return np.concatenate([y, np.stack([u, v], axis=-1).reshape(u.shape[0], y.shape[1])])


class Watched:
    """An encoder that does what another does (see `tiler.encode.base.Encoder`), and says so in a file.

    Args:
        encoder: the one that works.
        seen: file that gets the lines.
        keyframes: ticks before which a keyframe is asked for.
    """

    def __init__(self, encoder: Encoder, seen: Path, keyframes: tuple[int, ...]) -> None:
        self._encoder = encoder
        self._seen = seen.open("w", encoding="utf-8", buffering=1)  # a run that crashes leaves its lines, too
        self._keyframes = keyframes
        self.name, self.sessions = encoder.name, encoder.sessions

    def encode(self, mosaic: Mosaic) -> list[Packet]:
        if mosaic.tick in self._keyframes:
            self._encoder.request_keyframe()
        packets = self._encoder.encode(mosaic)
        # Read afterwards: to wait for the picture before would hide an encoder that does not.
        self._say(mosaic.tick, checksum(nv12_of(mosaic)), packets)
        return packets

    def flush(self) -> list[Packet]:
        packets = self._encoder.flush()
        self._say(None, None, packets)
        return packets

    def _say(self, tick: int | None, digest: str | None, packets: list[Packet]) -> None:
        out = [(packet.pts, packet.dts, packet.keyframe) for packet in packets]
        self._seen.write(json.dumps({"tick": tick, "sum": digest, "packets": out}) + "\n")

    def request_keyframe(self) -> None:
        self._encoder.request_keyframe()

    def close(self) -> None:
        self._encoder.close()
        self._seen.close()


def watch(build: Build, seen: Path, keyframes: tuple[int, ...]) -> Build:
    """`tiler.stages.build`, or what stands in for it, with the encoder watched."""

    def watched(*arguments: Any, **more: Any) -> Stages:
        built = build(*arguments, **more)
        return replace(built, encoder=Watched(built.encoder, seen, keyframes))

    return watched


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--keyframe", "keyframes", type=int, multiple=True, help="Ask for one before this tick.")
@click.argument("seen", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def main(keyframes: tuple[int, ...], seen: Path, command: tuple[str, ...]) -> None:
    """Run the tiler COMMAND, and write to SEEN what its encoder is given and gives."""
    stages.build = watch(stages.build, seen, keyframes)
    tiler(list(command))


if __name__ == "__main__":
    main()
