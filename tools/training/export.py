"""From trained weights to an ONNX file and its FP16 twin, with the metadata that tiler reads.

The graph has one input, `images` (N, 3, 384, 640), and one output, `head` (N, 5040, 5): per anchor the box
centre relative to its cell and the logarithm of the box size, in strides, and the score in 0..1.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch

from .network import INPUT_HEIGHT, INPUT_WIDTH, PersonDetector

OPSET = 17
METADATA = {
    "tiler.head": "yolox",
    "tiler.classes": json.dumps(["person"]),
    "tiler.input": json.dumps(
        {
            "channels": "rgb",
            "scale": 1 / 255,
            "mean": [0, 0, 0],
            "std": [1, 1, 1],
            "pad": 114,
            "align": "center",
        }
    ),
}


def export_onnx(network: PersonDetector, folder: Path, name: str) -> tuple[Path, Path]:
    """Write `<name>.onnx` (float32) and `<name>-fp16.onnx` (float16 weights, arithmetic, input and output).

    Returns:
        The two paths, FP32 first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    twin = network.folded()
    paths = folder / f"{name}.onnx", folder / f"{name}-fp16.onnx"
    for path, dtype in zip(paths, (torch.float32, torch.float16), strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the TorchScript exporter announces its own retirement
            torch.onnx.export(
                twin.to(dtype),
                (torch.zeros(2, 3, INPUT_HEIGHT, INPUT_WIDTH, dtype=dtype),),
                str(path),
                input_names=["images"],
                output_names=["head"],
                dynamic_axes={"images": {0: "N"}, "head": {0: "N"}},
                opset_version=OPSET,
                dynamo=False,
            )
        model = onnx.load(str(path))
        model.producer_name, model.doc_string = "tiler", "person detector trained on procedural pictures"
        for dimension, size in zip(model.graph.output[0].type.tensor_type.shape.dim[1:], (5040, 5), strict=True):
            dimension.dim_value = size
        onnx.helper.set_model_props(model, METADATA)
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, str(path))
    return paths


def largest_difference(fp32: Path, fp16: Path, images: np.ndarray) -> tuple[float, float]:
    """Run both files with ONNX Runtime on `images` (N, 3, 384, 640) float32 and compare.

    Returns:
        The largest absolute difference of a score, and of a box value in strides over anchors scoring > 0.1.
    """
    import onnxruntime as ort

    ort.set_default_logger_severity(3)
    full = ort.InferenceSession(str(fp32), providers=["CPUExecutionProvider"]).run(None, {"images": images})[0]
    half = ort.InferenceSession(str(fp16), providers=["CPUExecutionProvider"]).run(
        None, {"images": images.astype(np.float16)}
    )[0]
    apart = np.abs(full - half.astype(np.float32))
    confident = full[..., 4] > 0.1
    return float(apart[..., 4].max()), float(apart[..., :4][confident].max(initial=0.0))
