"""The registry: a model's name or .onnx path -> everything a detector must know of it.

What the file says of itself comes first, in this order: `tiler.*` metadata of the file, the
metadata that Ultralytics exports write, MODEL.yaml beside MODEL.onnx, and last the customs of the
head that the shape of the output gives away:

| head   | output        | input by custom                                     |
| ------ | ------------- | --------------------------------------------------- |
| yolox  | (N, A, 5 + C) | BGR, 0..255, picture at the top left, padding 114   |
| yolov8 | (N, 4 + C, A) | RGB, 0..1, picture in the middle, padding 114       |

A is the number of cells of strides 8, 16 and 32. The metadata keys are `tiler.head` (yolox |
yolov8), `tiler.input` (JSON: the keys of `InputSpec`) and `tiler.classes` (JSON: a list of names).
MODEL.yaml has `head`, `classes` and the keys of `InputSpec` on one level.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import onnxruntime as ort
import yaml
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tiler.engines.shipped import find_model
from tiler.errors import InputError
from tiler.types import Float32

Head = Literal["yolox", "yolov8"]
Triple = tuple[float, float, float]

DEFAULT_SIZE = (640, 384)
"""(width, height) of the tensor for models that take any."""

ORT_ERRORS = (
    ort_errors.EPFail,
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NoModel,
    ort_errors.NoSuchFile,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)
"""What ONNX Runtime raises; it has no common base of its own."""

_COCO = (
    "person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, "
    "stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, "
    "backpack, umbrella, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball "
    "bat, baseball glove, skateboard, surfboard, tennis racket, bottle, wine glass, cup, fork, knife, "
    "spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, chair, "
    "couch, potted plant, bed, dining table, toilet, tv, laptop, mouse, remote, keyboard, cell phone, "
    "microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear, hair drier, "
    "toothbrush"
)
COCO_NAMES = tuple(_COCO.split(", "))
"""The 80 classes of COCO, in the order in which detectors number them."""


class InputSpec(BaseModel):
    """How a picture becomes the tensor: tensor = (value * scale - mean) / std.

    Attributes:
        channels: order of the tensor's three planes.
        scale: factor on values 0..255.
        mean, std: per channel, in the tensor's order.
        pad: value around the picture, 0..255, normalised like the picture.
        align: where the picture lies in the tensor.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    channels: Literal["rgb", "bgr"] = "rgb"
    scale: float = Field(default=1 / 255, gt=0)
    mean: Triple = (0.0, 0.0, 0.0)
    std: Triple = (1.0, 1.0, 1.0)
    pad: float = Field(default=114.0, ge=0, le=255)
    align: Literal["center", "top-left"] = "center"

    def affine(self) -> Float32:
        """(2, 3) float32: gain and bias of each channel; tensor = value * gain + bias."""
        mean, std = np.array(self.mean), np.array(self.std)
        return np.stack([self.scale / std, -mean / std]).astype(np.float32)


CUSTOMS: dict[Head, InputSpec] = {
    "yolox": InputSpec(channels="bgr", scale=1.0, align="top-left"),
    "yolov8": InputSpec(),
}
"""The input that a head comes with when nothing else is said."""


class Sidecar(InputSpec):
    """MODEL.yaml beside MODEL.onnx."""

    head: Head | None = None
    classes: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A detector in a file.

    Attributes:
        name: short name, for reports.
        path: the .onnx file.
        precision: type of the tensor it takes: fp32 or fp16.
        input_name, output_name: of the graph.
        input_size: (width, height) of the tensor.
        dynamic_batch: False when the batch axis is fixed at 1.
        input: how pictures become the tensor.
        head: how the output is read; see Note [Heads] in kernels/decode_heads_cpu.py.
        class_names: one name per class.
        weights: other files that hold weights: ONNX's external data.
    """

    name: str
    path: Path
    precision: Literal["fp32", "fp16"]
    input_name: str
    output_name: str
    input_size: tuple[int, int]
    dynamic_batch: bool
    input: InputSpec
    head: Head
    class_names: tuple[str, ...]
    weights: tuple[Path, ...] = ()

    @property
    def sha256(self) -> str:
        """Lower-case hex digest of all its files, one after the other."""
        digest = hashlib.sha256()
        for path in (self.path, *self.weights):
            digest.update(path.read_bytes())
        return digest.hexdigest()

    @property
    def size_bytes(self) -> int:
        """Of all its files."""
        return sum(path.stat().st_size for path in (self.path, *self.weights))


def load_model(name_or_path: str, folder: Path) -> ModelSpec:
    """Find a model (see `find_model`) and learn from the file how to use it.

    Raises:
        InputError: there is no such model, or it is not a detector that tiler can read.
    """
    return _inspect(find_model(name_or_path, folder))


def open_session(path: Path, options: ort.SessionOptions) -> ort.InferenceSession:
    """An ONNX Runtime session on the CPU.

    Raises:
        InputError: the file is not a model that ONNX Runtime can load.
    """
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except ORT_ERRORS as error:
        raise InputError(f"model {path}: ONNX Runtime cannot load it: {_first_line(error)}") from error


def _inspect(path: Path) -> ModelSpec:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = open_session(path, options)
    metadata: dict[str, str] = session.get_modelmeta().custom_metadata_map
    sidecar, sidecar_keys = _read_sidecar(path)

    task = metadata.get("task", "detect")
    if task != "detect":
        raise InputError(f"model {path}: its task is {task!r}; accepted: detect")
    image, batch, size = _check_input(path, session, metadata)
    output, shape = _output_shape(path, session, image, size)
    said = metadata.get("tiler.head") or sidecar.head
    head, classes = _check_head(path, said, shape, size)

    spec = CUSTOMS[head]
    if sidecar_keys:
        spec = InputSpec(**{**spec.model_dump(), **sidecar_keys})
    if "tiler.input" in metadata:
        spec = _parse(path, "tiler.input", InputSpec, _json(path, metadata, "tiler.input"))
    if any(value == 0 for value in spec.std):
        raise InputError(f"model {path}: std must not be 0, got {spec.std}")
    return ModelSpec(
        name=path.stem,
        path=path,
        precision="fp16" if image.type == "tensor(float16)" else "fp32",
        input_name=image.name,
        output_name=output,
        input_size=size,
        dynamic_batch=batch,
        input=spec,
        head=head,
        class_names=_class_names(path, metadata, sidecar, classes),
        weights=_weights_of(path),
    )


_LOCATION = re.compile(rb"\x0a\x08location\x12([\x01-\x7f])")
"""How the name of a file of external data begins: a StringStringEntryProto, up to the length of its value."""


def _weights_of(path: Path) -> tuple[Path, ...]:
    """The files beside a model that hold weights of it."""
    content = path.read_bytes()
    names = {content[at.end() : at.end() + at[1][0]] for at in _LOCATION.finditer(content)}
    beside = (path.parent / name.decode(errors="replace") for name in sorted(names))
    return tuple(other for other in beside if other.is_file())


def _check_input(
    path: Path, session: ort.InferenceSession, metadata: dict[str, str]
) -> tuple[Any, bool, tuple[int, int]]:
    """The image input, whether its batch axis is free, and (width, height)."""
    inputs = session.get_inputs()
    accepted = "accepted: one input (N, 3, H, W), float32 or float16, N free or 1"
    found = ", ".join(f"{i.name} {i.shape} {i.type}" for i in inputs)
    image = inputs[0]
    typed = image.type in ("tensor(float)", "tensor(float16)")
    if len(inputs) != 1 or len(image.shape) != 4 or image.shape[1] != 3 or not typed:
        raise InputError(f"model {path}: unusable input {found}; {accepted}")
    batch, _, height, width = image.shape
    if isinstance(batch, int) and batch != 1:
        raise InputError(f"model {path}: the batch axis is fixed at {batch}; {accepted}")
    if not isinstance(height, int) or not isinstance(width, int):
        said = _literal(metadata.get("imgsz", ""))
        pair = said if isinstance(said, list) and len(said) == 2 else DEFAULT_SIZE[::-1]
        height = height if isinstance(height, int) else int(pair[0])
        width = width if isinstance(width, int) else int(pair[1])
    if min(width, height) < 32 or width % 32 or height % 32:
        raise InputError(f"model {path}: input of {width}x{height}; accepted: multiples of 32")
    return image, not isinstance(batch, int), (width, height)


def _output_shape(
    path: Path, session: ort.InferenceSession, image: Any, size: tuple[int, int]
) -> tuple[str, tuple[int, ...]]:
    """Name and shape of the output for one picture; runs the model when the file does not say."""
    outputs = session.get_outputs()
    if len(outputs) != 1:
        names = ", ".join(output.name for output in outputs)
        raise InputError(f"model {path}: outputs {names}; accepted: a single one, a yolox or yolov8 head")
    shape = outputs[0].shape
    if len(shape) != 3 or not all(isinstance(n, int) for n in shape[1:]):
        dtype = np.float16 if image.type == "tensor(float16)" else np.float32
        blank = np.zeros((1, 3, size[1], size[0]), dtype)
        try:
            shape = session.run(None, {image.name: blank})[0].shape
        except ORT_ERRORS as error:
            raise InputError(
                f"model {path}: it does not run at {size[0]}x{size[1]}: {_first_line(error)}"
            ) from error
    return outputs[0].name, tuple(n if isinstance(n, int) else 1 for n in shape)


def _check_head(
    path: Path, said: str | None, shape: tuple[int, ...], size: tuple[int, int]
) -> tuple[Head, int]:
    """Which head the output is, and its number of classes."""
    anchors = size[0] * size[1] * 21 // 1024
    found: Head | None = None
    if len(shape) == 3 and shape[1] == anchors and shape[2] >= 5:
        found = "yolox"
    elif len(shape) == 3 and shape[2] == anchors and shape[1] >= 5:
        found = "yolov8"
    if found is None or said not in (None, found):
        raise InputError(
            f"model {path}: output of shape {list(shape)}{f' said to be {said}' if said else ''}; accepted "
            f"for an input of {size[0]}x{size[1]}: yolox [N, {anchors}, 5 + classes] or yolov8 "
            f"[N, 4 + classes, {anchors}], raw (no NMS in the model)"
        )
    return found, shape[2] - 5 if found == "yolox" else shape[1] - 4


def _class_names(path: Path, metadata: dict[str, str], sidecar: Sidecar, classes: int) -> tuple[str, ...]:
    count = max(classes, 1)
    names: tuple[str, ...] | None = sidecar.classes
    if "names" in metadata:
        said = _literal(metadata["names"])
        said = list(said.values()) if isinstance(said, dict) else said
        names = tuple(str(name) for name in said) if isinstance(said, list) else ()
    if "tiler.classes" in metadata:
        said = _json(path, metadata, "tiler.classes")
        if not isinstance(said, list):
            raise InputError(f"model {path}: metadata tiler.classes is not a list of names: {said!r}")
        names = tuple(str(name) for name in said)
    if names is None:
        if classes == 0:
            names = ("person",)
        else:
            names = COCO_NAMES if classes == len(COCO_NAMES) else tuple(f"class{i}" for i in range(classes))
    if len(names) != count:
        raise InputError(f"model {path}: {len(names)} class names for an output of {count} classes")
    return names


def _read_sidecar(path: Path) -> tuple[Sidecar, dict[str, Any]]:
    """MODEL.yaml and those of its keys that describe the input."""
    beside = path.with_suffix(".yaml")
    if not beside.is_file():
        return Sidecar(), {}
    try:
        content = yaml.safe_load(beside.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{beside}: not YAML: {error}") from error
    sidecar = _parse(beside, "model description", Sidecar, content)
    return sidecar, sidecar.model_dump(include=set(InputSpec.model_fields), exclude_unset=True)


_Spec = TypeVar("_Spec", bound=InputSpec)


def _parse(path: Path, what: str, model: type[_Spec], content: Any) -> _Spec:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "content"
        raise InputError(
            f"{path}: {what}: {where}: {first['msg']}; accepted keys: {', '.join(model.model_fields)}"
        ) from error


def _json(path: Path, metadata: dict[str, str], key: str) -> Any:
    try:
        return json.loads(metadata[key])
    except json.JSONDecodeError as error:
        raise InputError(f"model {path}: metadata {key} is not JSON: {metadata[key]!r}") from error


def _literal(text: str) -> Any:
    """A Python literal, as Ultralytics writes its metadata; None when it is not one."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return None


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
