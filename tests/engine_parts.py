"""What tests of engines and networks share: models, small and shipped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.fakes.tensorrt_cupy import DEVICE_NAME
from tiler.engines.build import Target
from tiler.engines.registry import ModelSpec, load_model
from tiler.engines.shipped import SHIPPED

KINDS = ("tensorrt", "tensorrt11", "tensorrt-rtx")
HERE = Target(89, DEVICE_NAME)
SIZE = (64, 32)
ANCHORS = 42


def small_model(
    path: Path,
    *,
    batch: int | str = "N",
    dtype: int = TensorProto.FLOAT16,
    nodes: list[Any] | None = None,
    constants: list[Any] | None = None,
) -> ModelSpec:
    """A yolox model of 64 x 32: the head is the mean of the picture unless `nodes` says otherwise."""
    if nodes is None:
        nodes = [
            helper.make_node("ReduceMean", ["images"], ["mean"], axes=[1, 2, 3], keepdims=1),
            helper.make_node("Reshape", ["mean", "flat"], ["one"]),
            helper.make_node("Mul", ["one", "head"], ["out"]),
        ]
    kind = helper.tensor_dtype_to_np_dtype(dtype)
    constants = constants or []
    constants += [
        numpy_helper.from_array(np.array([-1, 1, 1]), "flat"),
        numpy_helper.from_array(np.linspace(0, 1, ANCHORS * 5).reshape(1, ANCHORS, 5).astype(kind), "head"),
    ]
    image = helper.make_tensor_value_info("images", dtype, [batch, 3, SIZE[1], SIZE[0]])
    output = helper.make_tensor_value_info("out", dtype, [batch, ANCHORS, 5])
    graph = helper.make_graph(nodes, "small", [image], [output], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return load_model(path.name, path.parent)


def nano(half: bool = True) -> ModelSpec:
    return load_model(str(SHIPPED / "person-nano-fp16.onnx") if half else "person-nano", Path.cwd())


def flavour(kind: str) -> Any:
    return "tensorrt-rtx" if kind == "tensorrt-rtx" else "tensorrt"
