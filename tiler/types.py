"""The values that pass between the stages: few, frozen, array-shaped.

Arrays live where the backend lives: NumPy arrays on the CPU, CuPy arrays on CUDA.
Detections and tracks are small and always NumPy, on the host. All times are integer
pts on one clock of 1/90000 s; the conversion happens in decode and output only.

Two coordinate frames exist. *Picture* pixels are the samples that the source encodes, once
turned upright (after `Frame.rotation`, before `Frame.sample_aspect`): boxes and tracks use
them, also where a decoder hands out fewer samples (`Frame.source_size`). *Mosaic* pixels are
samples of the output picture: tiles and overlays use them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from fractions import Fraction
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from tiler.crowd import People

CLOCK_HZ = 90_000
"""Ticks of the internal clock in a second; every pts is a count of these."""

Plane = Any
"""A 2-D array of samples: numpy.ndarray on the CPU, cupy.ndarray on CUDA."""

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]
UInt8 = npt.NDArray[np.uint8]
Bool = npt.NDArray[np.bool_]

APPEARANCE = 128
"""Numbers that say what somebody looks like."""

_NO_SLOTS: Int32 = np.full(256, -1, np.int32)   # copied, which takes a third of what making them does


class Matrix(IntEnum):
    """YCbCr matrix coefficients, by the standard that defines them."""

    BT601 = 0
    BT709 = 1
    BT2020 = 2


class State(IntEnum):
    """What a tile is showing."""

    WAITING = 0
    """No picture has come yet."""
    LIVE = 1
    """The picture of this tick's time."""
    STALE = 2
    """A live source is silent: its last picture, dimmed."""
    NO_SIGNAL = 3
    """Silent for longer, or broken: a slate."""
    ENDED = 4
    """A file came to its end: its last picture, marked."""
    PAUSED = 5
    """Held on request."""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One decoded 4:2:0 picture.

    Attributes:
        stream: place of the source in the run: its index in the config, from 0; added ones have others.
        pts: time of the picture in 1/90000 s, 0 at the start of the source.
        y: luma (H, W), uint8, or uint16 with the value in the high bits as in P016
            (`sample >> 8` is the 8-bit value). Rows may be padded (any row stride).
        u, v: chroma (ceil(H/2), ceil(W/2)), same dtype; planar, or the even and odd
            columns of an interleaved NV12 plane (column stride 1 or 2 samples).
        matrix, full_range: how the samples encode colour.
        rotation: degrees clockwise, 0 | 90 | 180 | 270, that turn the picture upright.
        sample_aspect: width : height of a sample *as the source stores it*, before rotation.
        source_size: (width, height) of the picture as the source stores it, before rotation, where
            the decoder has scaled it down to the planes' size. None: the planes' own size.
        arrival_s: time.monotonic() at which the decoder gave it out.
        owner: keeps the memory behind the planes alive (a decoder's frame).
        ready: CUDA event after which the planes hold the picture: a stream waits for it
            before it reads them. None on the CPU, where they always do, and after `arrived`.
        layout: the same object for pictures that lie in the same memory in the same way, and are of one kind: they
            differ in time, stream and owner only. None: that is not known.
    """

    stream: int
    pts: int
    y: Plane
    u: Plane
    v: Plane
    matrix: Matrix = Matrix.BT709
    full_range: bool = False
    rotation: int = 0
    sample_aspect: Fraction = Fraction(1)
    arrival_s: float = 0.0
    owner: Any = None
    ready: Any = None
    source_size: tuple[int, int] | None = None
    layout: object = None

    def __post_init__(self) -> None:
        if self.y.ndim != 2 or min(self.y.shape) < 1:
            raise ValueError(f"y must be a non-empty (H, W) plane, got {self.y.shape = }")
        height, width = self.y.shape
        half = ((height + 1) // 2, (width + 1) // 2)
        for name, plane in (("u", self.u), ("v", self.v)):
            if plane.shape != half:
                raise ValueError(f"{name} must have shape {half} beside y {self.y.shape}, got {plane.shape}")
            if plane.dtype != self.y.dtype:
                raise ValueError(f"{name} must be {self.y.dtype} like y, got {plane.dtype}")
        if self.rotation not in (0, 90, 180, 270):
            raise ValueError(f"rotation must be 0, 90, 180 or 270 degrees, got {self.rotation}")
        if self.source_size is not None and (self.source_size[0] < width or self.source_size[1] < height):
            raise ValueError(f"planes of {width}x{height} are more than the source's {self.source_size}")

    def at(self, pts: int, arrival_s: float, owner: Any) -> Frame:
        """Another picture that lies where this one does; what holds for this one is not checked again."""
        frame = object.__new__(Frame)
        for take, put in _LASTING:
            put(frame, take(self))
        _PTS(frame, pts)
        _ARRIVAL_S(frame, arrival_s)
        _OWNER(frame, owner)
        return frame

    def arrived(self) -> None:
        """The planes are known to hold the picture: nobody need wait for `ready` any more."""
        _READY(self, None)

    @property
    def plane_size(self) -> tuple[int, int]:
        """(width, height) in samples of y, upright."""
        height, width = self.y.shape
        return (height, width) if self.rotation in (90, 270) else (width, height)

    @property
    def picture_size(self) -> tuple[int, int]:
        """(width, height) in picture pixels: upright, samples not stretched."""
        if self.source_size is None:
            return self.plane_size
        width, height = self.source_size
        return (height, width) if self.rotation in (90, 270) else (width, height)

    @property
    def picture_aspect(self) -> Fraction:
        """Width : height of a picture pixel, upright."""
        return 1 / self.sample_aspect if self.rotation in (90, 270) else self.sample_aspect

    def __repr__(self) -> str:
        return f"Frame(stream={self.stream}, pts={self.pts}, y={self.y.shape} {self.y.dtype})"


_PTS, _ARRIVAL_S, _OWNER, _READY = (Frame.__dict__[name].__set__ for name in ("pts", "arrival_s", "owner", "ready"))
_LASTING = [
    (slot.__get__, slot.__set__)
    for name, slot in Frame.__dict__.items()
    if name in Frame.__slots__ and name not in ("pts", "arrival_s", "owner")
]


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """The detector's input: one entry for each frame that is new, of one tick or of some that follow one another.

    Attributes:
        tensor: (N, 3, H, W) float32 or float16, on the backend's device.
        letterbox: (N, 4) float32: sx, sy, dx, dy of each entry, on the host;
            tensor x = picture x * sx + dx, tensor y = picture y * sy + dy.
        sizes: (N, 2) int32: picture width and height of each entry.
        streams: source index of each entry; with more ticks than one it comes again.
    """

    tensor: Any
    letterbox: Float32
    sizes: Int32
    streams: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.streams)


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """What the detector saw in one picture, best score first. Host arrays.

    Attributes:
        xyxy: (n, 4) float32, picture pixels, clipped to the picture.
        score: (n,) float32 in 0..1.
        class_id: (n,) int32.
    """

    xyxy: Float32
    score: Float32
    class_id: Int32

    def __post_init__(self) -> None:
        n = len(self.score)
        if self.xyxy.shape != (n, 4) or self.class_id.shape != (n,):
            raise ValueError(
                f"expected xyxy (n, 4), score (n,), class_id (n,); "
                f"got {self.xyxy.shape}, {self.score.shape}, {self.class_id.shape}"
            )

    def __len__(self) -> int:
        return len(self.score)

    @staticmethod
    def empty() -> Detections:
        return Detections(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int32))


@dataclass(frozen=True, slots=True, eq=False)
class Tracks:
    """Who is where in one stream at one time, ordered by track_id. Host arrays, C-contiguous.

    Only tracks to be shown are in here: confirmed, and seen at `pts` (or predicted to it
    when the detector did not run for this picture).

    Attributes:
        pts: time of the picture these belong to, 1/90000 s.
        track_id: (n,) int32, from 1, never used twice in a stream.
        xyxy: (n, 4) float32, picture pixels.
        score: (n,) float32 of the last detection.
        class_id: (n,) int32.
        slot: (n,) int32, index of the source's `slots.names`, -1 for none. An index stands once at most.
    """

    pts: int
    track_id: Int32
    xyxy: Float32
    score: Float32
    class_id: Int32
    slot: Int32 = field(default_factory=lambda: _NO_SLOTS)

    def __post_init__(self) -> None:
        n = len(self.track_id)
        if self.slot is _NO_SLOTS:
            object.__setattr__(self, "slot", _NO_SLOTS[:n].copy() if n <= len(_NO_SLOTS) else np.full(n, -1, np.int32))
        elif self.slot.shape != (n,):
            raise ValueError(f"expected slot (n,) beside {n} track ids; got {self.slot.shape}")
        if self.xyxy.shape != (n, 4) or self.score.shape != (n,) or self.class_id.shape != (n,):
            raise ValueError(
                f"expected xyxy (n, 4), score (n,), class_id (n,) beside {n} track ids; "
                f"got {self.xyxy.shape}, {self.score.shape}, {self.class_id.shape}"
            )

    def __len__(self) -> int:
        return len(self.track_id)

    @staticmethod
    def empty(pts: int = 0) -> Tracks:
        none = Detections.empty()
        return Tracks(pts, np.empty(0, np.int32), none.xyxy, none.score, none.class_id)


@dataclass(frozen=True, slots=True, eq=False)
class Appearance:
    """What some tracks look like at one time. Host arrays.

    Attributes:
        vectors: (n, 128) float32, unit rows, aligned with the rows of a `Tracks`.
        known: (n,) bool; False: no evidence for that row, whatever its vector holds.
    """

    vectors: Float32
    known: Bool

    def __post_init__(self) -> None:
        n = len(self.known)
        if self.vectors.shape != (n, APPEARANCE) or self.known.shape != (n,):
            raise ValueError(
                f"expected vectors (n, {APPEARANCE}), known (n,); got {self.vectors.shape}, {self.known.shape}"
            )

    def __len__(self) -> int:
        return len(self.known)


Crop = tuple[float, float, float, float]
"""x, y, width, height of a part of a picture, as fractions of it."""
Follow = tuple[int, float]
"""Whom a view follows, by the index of the slot, and its zoom."""


class TileInput(NamedTuple):
    """What one source shows at one tick: all that compose knows of it.

    Attributes:
        frame: the picture, or None before the first one.
        people: who is where in that picture, and came from where (the newest there are).
        state: what to show.
        fps: pictures a second that came lately, for the tile's caption.
        crops: the part of the picture that each view of this source shows now.
    """

    frame: Frame | None
    people: People
    state: State
    fps: float
    crops: Mapping[Follow, Crop] = MappingProxyType({})


@dataclass(frozen=True, slots=True, eq=False)
class Mosaic:
    """The composed picture of one tick: 4:2:0, 8 bit, limited range, BT.709.

    Attributes:
        tick: index of the tick, from 0; its time is tick / fps.
        planes: (y, u, v): I420 on the CPU; u and v are the two halves of NV12 on CUDA.
        sources: pts of the frame in each source's tile, or None for a slate; in the order of the config in force.
        nv12: CUDA: the same memory as one C-contiguous (H * 3 / 2, W) uint8 array.
        ready: CUDA: event after which the memory holds the picture.
    """

    tick: int
    planes: tuple[Plane, Plane, Plane]
    sources: tuple[int | None, ...]
    nv12: Plane = None
    ready: Any = None


@dataclass(frozen=True, slots=True)
class SoundFormat:
    """What a container must know of the sound before its first packet.

    Attributes:
        codec: FFmpeg's name.
        header: a media file of one packet, of which a muxer takes the parameters of its stream.
    """

    codec: str
    header: bytes


@dataclass(frozen=True, slots=True)
class SoundPacket:
    """A piece of encoded sound.

    Attributes:
        data: bytes of the codec, parameters not in band.
        pts, duration: 1/90000 s of the mosaic's time.
    """

    data: bytes
    pts: int
    duration: int


@dataclass(frozen=True, slots=True)
class Packet:
    """One encoded picture of the mosaic, and the sound that goes with it.

    The packets from one keyframe to the next carry exactly the sound of the time that their pictures last (live:
    as far as it has come by then), so that who leaves pictures out, or cuts at a keyframe, does so with both.

    Attributes:
        data: Annex-B (H.264, HEVC) or OBU (AV1) bytes, parameter sets in band.
        pts, dts: ticks of the mosaic's clock (1 / fps).
        keyframe: True for IDR.
        sound: in order; none without `audio` in the config.
    """

    data: bytes
    pts: int
    dts: int
    keyframe: bool
    sound: tuple[SoundPacket, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Of picture and sound."""
        return len(self.data) + (sum(len(sound.data) for sound in self.sound) if self.sound else 0)
