"""A model in FP32 -> the same model in FP16: weights, arithmetic, input and output.

TensorRT's strongly typed networks and ONNX Runtime run a graph in the types that it is written in,
so half precision is a property of the file. Every tensor of a graph becomes half, except where
ONNX's own definition of an operator allows no half (the scales of Resize, Range): there the
constant stays as it is, or a Cast goes in between.

Needs the package `onnx`, which tiler itself does without; the models that it ships have their
FP16 file beside them.
"""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from tiler.engines.registry import ORT_ERRORS, ModelSpec, open_session
from tiler.engines.shipped import shipped_half
from tiler.engines.store import engine_folder, safe_name, write_atomically
from tiler.errors import InputError

if TYPE_CHECKING:
    import onnx

_log = logging.getLogger(__name__)

_LARGEST = 65504.0
"""The largest half-precision number."""

_VERSION = 1
"""Raise when the same model converts to another file."""


def half_model(model: ModelSpec) -> tuple[ModelSpec, str]:
    """The model in FP16, converted now if the cache does not have it yet, and where it comes from.

    A model that tiler ships has its FP16 file beside it. What is converted is run once on noise, on the CPU,
    before it is kept: weights that fit may still lead to activations that do not.

    Raises:
        InputError: it cannot be converted, or `onnx` is not installed; the text says why.
    """
    if model.precision == "fp16":
        return model, "the model is in FP16"
    if (shipped := shipped_half(model.path)) is not None:
        return dataclasses.replace(model, path=shipped, precision="fp16"), "comes with tiler"
    path = engine_folder() / f"{safe_name(model.name)}-{model.sha256[:12]}-fp16-{_VERSION}.onnx"
    half = dataclasses.replace(model, path=path, precision="fp16", weights=())
    if not path.is_file():
        write_atomically(path, convert(model.path, model.name), lambda made: _check_finite(half, made))
        _log.info("Converted %s to FP16: %s", model.path, path)
    return half, "converted from FP32"


def convert(path: Path, name: str) -> bytes:
    """An ONNX file in FP32 as one in FP16.

    Args:
        path: of the file; what it has of external data lies beside it.
        name: what to call the model in messages.

    Raises:
        InputError: a weight is too large, an operator is unknown, or `onnx` is not installed.
    """
    try:
        import onnx
        import onnx.checker
        import onnx.shape_inference
    except ImportError as error:
        raise InputError(f"model {name}: converting it to FP16 needs the package onnx: pip install onnx") from error
    model = onnx.load(path)
    try:
        model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
        half = _Converter(model, name).run()
        onnx.checker.check_model(half, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, onnx.defs.SchemaError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"model {name}: cannot be converted to FP16: {reason}") from error
    data: bytes = half.SerializeToString()
    return data


class _Converter:
    """One model on its way. Nodes stay in their order, with Casts between them."""

    def __init__(self, model: onnx.ModelProto, name: str) -> None:
        import onnx

        self._onnx = onnx
        self._model = model
        self._name = name
        self._opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)
        graph = model.graph
        self._floats = {
            value.name
            for value in (*graph.input, *graph.output, *graph.value_info)
            if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        }
        self._constants = {t.name: t for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT}
        self._floats |= self._constants.keys()
        self._full: dict[str, str] = {}
        """Name of a half tensor -> name of the same values in FP32."""
        self._nodes: list[Any] = []

    def run(self) -> onnx.ModelProto:
        graph = self._model.graph
        for node in graph.node:
            if node.op_type == "Constant":
                self._take_constant(node)
        for node in graph.node:
            if node.op_type == "Constant" and node.output[0] in self._constants:
                continue
            self._convert_node(node)
        others = [t for t in graph.initializer if t.name not in self._constants]
        full = [self._full_constant(name) for name in self._full if name in self._constants]
        half = [self._half_constant(tensor) for tensor in self._constants.values()]
        used = {name for node in self._nodes for name in node.input} | {out.name for out in graph.output}
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(self._nodes)
        graph.initializer.extend(others + full + [tensor for tensor in half if tensor.name in used])
        for value in (*graph.input, *graph.output):
            if value.name in self._floats:
                value.type.tensor_type.elem_type = self._onnx.TensorProto.FLOAT16
        return self._model

    def _take_constant(self, node: Any) -> None:
        """A Constant node of floats becomes an initializer, which can be had in both types."""
        numpy_helper, output = self._onnx.numpy_helper, node.output[0]
        for attribute in node.attribute:
            value = self._onnx.helper.get_attribute_value(attribute)
            if attribute.name == "value" and value.data_type == self._onnx.TensorProto.FLOAT:
                self._constants[output] = numpy_helper.from_array(numpy_helper.to_array(value), output)
            elif attribute.name in ("value_float", "value_floats"):
                self._constants[output] = numpy_helper.from_array(np.array(value, np.float32), output)
        if output in self._constants:
            self._floats.add(output)

    def _convert_node(self, node: Any) -> None:
        if any(a.type in (a.GRAPH, a.GRAPHS) for a in node.attribute):
            raise InputError(f"model {self._name}: cannot be converted to FP16: {node.op_type} has a graph inside")
        schema = self._onnx.defs.get_schema(node.op_type, self._opset, node.domain)
        # A type variable that some float of the node cannot have as half stays FP32 throughout the node.
        full = {
            kind
            for values, formals in ((node.input, schema.inputs), (node.output, schema.outputs))
            for value, (kind, half) in zip(values, _kinds(schema, formals, len(values)), strict=True)
            if value in self._floats and not half
        }
        for i, (kind, _) in enumerate(_kinds(schema, schema.inputs, len(node.input))):
            if node.input[i] in self._floats and kind in full:
                node.input[i] = self._as_full(node.input[i])
        self._retype(node)
        self._nodes.append(node)
        for i, (kind, _) in enumerate(_kinds(schema, schema.outputs, len(node.output))):
            if node.output[i] in self._floats and kind in full:
                name, node.output[i] = node.output[i], f"{node.output[i]}__fp32"
                self._cast(node.output[i], name, self._onnx.TensorProto.FLOAT16)
                self._full[name] = node.output[i]

    def _retype(self, node: Any) -> None:
        """Attributes that name the type of the output."""
        proto = self._onnx.TensorProto
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype") and attribute.i == proto.FLOAT and node.output[0] in self._floats:
                attribute.i = proto.FLOAT16
            elif attribute.name == "value" and attribute.t.data_type == proto.FLOAT:  # ConstantOfShape
                attribute.t.CopyFrom(self._half_constant(attribute.t))

    def _as_full(self, name: str) -> str:
        if name not in self._full:
            self._full[name] = f"{name}__fp32"
            if name not in self._constants:
                self._cast(name, self._full[name], self._onnx.TensorProto.FLOAT)
        return self._full[name]

    def _cast(self, source: str, target: str, kind: int) -> None:
        self._nodes.append(self._onnx.helper.make_node("Cast", [source], [target], f"{target}__cast", to=kind))

    def _full_constant(self, name: str) -> Any:
        values = self._onnx.numpy_helper.to_array(self._constants[name])
        return self._onnx.numpy_helper.from_array(values, self._full[name])

    def _half_constant(self, tensor: Any) -> Any:
        values = self._onnx.numpy_helper.to_array(tensor)
        finite = values[np.isfinite(values)]
        if finite.size and float(np.abs(finite).max()) > _LARGEST:
            raise InputError(
                f"model {self._name}: cannot be converted to FP16: {tensor.name} has the value "
                f"{float(np.abs(finite).max()):g}, FP16 ends at {_LARGEST:g}"
            )
        return self._onnx.numpy_helper.from_array(values.astype(np.float16), tensor.name)


def _kinds(schema: Any, formals: Any, count: int) -> list[tuple[str, bool]]:
    """Of each actual parameter: its type variable (or fixed type), and whether that may be half."""
    allowed = {c.type_param_str: set(c.allowed_type_strs) for c in schema.type_constraints}
    found = []
    for i in range(count):
        kind = formals[min(i, len(formals) - 1)].type_str  # the last one of a variadic operator repeats
        found.append((kind, "tensor(float16)" in allowed.get(kind, {kind})))
    return found


def _check_finite(model: ModelSpec, path: Path) -> None:
    width, height = model.input_size
    gain, bias = model.input.affine()
    noise = np.random.default_rng(0).integers(0, 256, (1, 3, height, width)).astype(np.float32)
    tensor = noise * gain.reshape(1, 3, 1, 1) + bias.reshape(1, 3, 1, 1)
    session = open_session(path, ort.SessionOptions())
    try:
        output = session.run([model.output_name], {model.input_name: tensor.astype(np.float16)})[0]
    except ORT_ERRORS as error:
        raise InputError(f"model {model.name}: its FP16 form does not run: {error}") from error
    if not np.isfinite(output).all():
        raise InputError(f"model {model.name}: in FP16 its activations overflow; it can be used in FP32 only")
