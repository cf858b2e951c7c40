"""Infer: registry, heads, NMS and ONNX Runtime, with small models made on the spot."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from tiler.config.models import DetectorConfig, Source
from tiler.decode.cpu import PyavDecoder
from tiler.engines.registry import COCO_NAMES, InputSpec, ModelSpec, load_model
from tiler.errors import InputError, StageError
from tiler.infer.cpu import OrtDetector
from tiler.infer.heads import HeadDecoder
from tiler.kernels.nms_cpu import nms
from tiler.preprocess.cpu import CpuPreprocessor, letterbox
from tiler.types import Batch, Detections

SIZE = (64, 32)
"""A tensor of 64 x 32 has 8 x 4 + 4 x 2 + 2 x 1 = 42 anchors."""
ANCHORS = 42


def write_model(
    path: Path,
    head: np.ndarray,
    *,
    batch: int | str = "N",
    size: Sequence[int | str] = SIZE,
    metadata: dict[str, str] | None = None,
    dtype: int = TensorProto.FLOAT,
    output_shape: Sequence[int | str | None] | None = None,
) -> Path:
    """A model whose output is `head` (2-D) times the first sample of each picture."""
    image = helper.make_tensor_value_info("images", dtype, [batch, 3, size[1], size[0]])
    shape = output_shape or [batch, *head.shape]
    output = helper.make_tensor_value_info("out", dtype, shape)
    constants = [
        helper.make_tensor("head", dtype, [1, *head.shape], head.astype(np.float32).ravel()),
        helper.make_tensor("zero", TensorProto.INT64, [4], [0, 0, 0, 0]),
        helper.make_tensor("one", TensorProto.INT64, [4], [2**31, 1, 1, 1]),
        helper.make_tensor("flat", TensorProto.INT64, [3], [-1, 1, 1]),
    ]
    nodes = [
        helper.make_node("Slice", ["images", "zero", "one"], ["corner"]),
        helper.make_node("Reshape", ["corner", "flat"], ["factor"]),
        helper.make_node("Mul", ["head", "factor"], ["out"]),
    ]
    graph = helper.make_graph(nodes, "tiny", [image], [output], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, metadata or {})
    onnx.save(model, str(path))
    return path


def yolox_head(classes: int = 0, **anchors: Sequence[float]) -> np.ndarray:
    head = np.zeros((ANCHORS, 5 + classes), np.float32)
    for name, values in anchors.items():
        head[int(name[1:])] = values
    return head


def whole(count: int, size: tuple[int, int] = SIZE, first_samples: Sequence[float] | None = None) -> Batch:
    """Pictures as large as the tensor; the models above multiply their head by the first sample."""
    tensor = np.zeros((count, 3, size[1], size[0]), np.float32)
    tensor[:, 0, 0, 0] = 1 if first_samples is None else first_samples
    letterbox = np.tile(np.array([1, 1, 0, 0], np.float32), (count, 1))
    return Batch(tensor, letterbox, np.tile(np.array(size, np.int32), (count, 1)), tuple(range(count)))


def detect(path: Path, batch: Batch, min_score: float = 0.1, **config: Any) -> list[Detections]:
    model = load_model(path.name, path.parent)
    with OrtDetector(model, DetectorConfig(**config), 1, min_score=min_score) as detector:
        return detector.infer(batch)


# --- heads ---------------------------------------------------------------------------------------


def test_yolox_boxes_by_hand(tmp_path: Path) -> None:
    """Anchor 10: stride 8, column 2, row 1. Anchor 37: stride 16, column 1, row 1. Anchor 41: stride 32."""
    head = yolox_head(
        a10=[0.5, 0.25, 0.0, np.log(2), 0.9],
        a37=[0.0, 0.0, np.log(0.5), 0.0, 0.8],
        a41=[0.0, 0.5, 0.0, 0.0, 0.7],
    )
    (found,) = detect(write_model(tmp_path / "m.onnx", head), whole(1))
    expected = [
        [20 - 4, 10 - 8, 20 + 4, 10 + 8],
        [16 - 4, 16 - 8, 16 + 4, 16 + 8],
        [32 - 16, 16 - 16, 32 + 16, 16 + 16],
    ]
    np.testing.assert_allclose(found.xyxy, expected, atol=1e-4)
    np.testing.assert_allclose(found.score, [0.9, 0.8, 0.7])
    assert found.class_id.tolist() == [0, 0, 0]


def test_yolox_with_classes_multiplies_objectness_and_best_class(tmp_path: Path) -> None:
    head = yolox_head(
        3,
        a0=[1, 1, 0, 0, 0.5, 0.2, 0.9, 0.9],
        a20=[0, 0, 0, 0, 0.9, 0.1, 0.0, 0.1],
        a31=[0, 0, 0, 0, 0.9, 1, 0, 0],
    )
    path = write_model(tmp_path / "m.onnx", head)
    (found,) = detect(path, whole(1))
    np.testing.assert_allclose(found.score, [0.9, 0.45], rtol=1e-6)  # anchor 20 has 0.09: too weak
    assert found.class_id.tolist() == [0, 1]  # of equal classes the lower one
    (found,) = detect(path, whole(1), classes=["class1"])
    assert found.class_id.tolist() == [1]


def test_yolov8_boxes_by_hand(tmp_path: Path) -> None:
    head = np.zeros((4 + 2, ANCHORS), np.float32)
    head[:, 5] = [20, 10, 8, 16, 0.3, 0.6]
    head[:, 40] = [60, 30, 20, 20, 0.8, 0.8]
    (found,) = detect(write_model(tmp_path / "m.onnx", head), whole(1))
    np.testing.assert_allclose(found.xyxy, [[50, 20, 64, 32], [16, 2, 24, 18]])  # the first is clipped
    np.testing.assert_allclose(found.score, [0.8, 0.6])
    assert found.class_id.tolist() == [0, 1]


def test_boxes_in_the_padding_and_broken_numbers_are_dropped(tmp_path: Path) -> None:
    head = np.zeros((5, ANCHORS), np.float32)
    head[:, 0] = [4, 4, 4, 4, 0.9]  # left of the picture
    head[:, 1] = [30, 16, np.inf, 4, 0.9]
    head[:, 2] = [np.nan, 16, 4, 4, 0.9]
    head[:, 3] = [30, 16, 4, 4, np.nan]
    head[:, 4] = [30, 16, 0, 4, 0.9]  # no area
    head[:, 5] = [30, 16, 4, 4, 0.5]
    batch = whole(1)
    batch.letterbox[0] = [0.5, 1, 16, 0]
    batch.sizes[0] = [64, 32]
    (found,) = detect(write_model(tmp_path / "m.onnx", head), batch)
    np.testing.assert_allclose(found.xyxy, [[(28 - 16) * 2, 14, (32 - 16) * 2, 18]])


def test_best_first_limited_and_ties_by_anchor(tmp_path: Path) -> None:
    head = np.zeros((5, ANCHORS), np.float32)
    for anchor, score in ((3, 0.5), (7, 0.7), (11, 0.5), (13, 0.7), (17, 0.2)):
        head[:, anchor] = [anchor * 3, 10, 2, 4, score]
    path = write_model(tmp_path / "m.onnx", head)
    (found,) = detect(path, whole(1))
    assert ((found.xyxy[:, 0] + 1) / 3).round().tolist() == [7, 13, 3, 11, 17]
    (found,) = detect(path, whole(1), max_detections=3)
    assert ((found.xyxy[:, 0] + 1) / 3).round().tolist() == [7, 13, 3]


def test_weak_detections_reach_down_to_min_score(tmp_path: Path) -> None:
    head = np.zeros((5, ANCHORS), np.float32)
    head[:, 3] = [10, 10, 4, 4, 0.2]
    model = load_model(write_model(tmp_path / "m.onnx", head).name, tmp_path)
    config = DetectorConfig(score=0.35)
    with OrtDetector(model, config, 1, min_score=0.1) as detector:
        assert len(detector.infer(whole(1))[0]) == 1
    with OrtDetector(model, config, 1) as detector:
        assert len(detector.infer(whole(1))[0]) == 0


def test_unknown_class_is_refused_with_a_hint(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.onnx", yolox_head(80))
    message = r"detector.classes: the detector has no such class; did you mean 'person'\? \(got 'persn'\)"
    with pytest.raises(InputError, match=message):
        detect(path, whole(1), classes=["persn"])


@settings(max_examples=60)
@given(
    st.tuples(st.integers(8, 4000), st.integers(8, 4000)),
    st.tuples(*[st.floats(0, 1)] * 4),
    st.sampled_from(["center", "top-left"]),
)
def test_a_box_survives_the_letterbox(picture: tuple[int, int], box: tuple[float, ...], align: Any) -> None:
    """Picture -> tensor -> head -> picture gives the box back."""
    x0, x1 = sorted((box[0] * picture[0], box[2] * picture[0]))
    y0, y1 = sorted((box[1] * picture[1], box[3] * picture[1]))
    assume(x1 - x0 >= 1 and y1 - y0 >= 1)
    place = letterbox(picture, Fraction(1), (640, 384), align)
    sx, sy = place.width / picture[0], place.height / picture[1]
    size = (640, 384)
    model = ModelSpec("m", Path("m"), "fp32", "i", "o", size, True, InputSpec(), "yolov8", ("person",))
    raw = np.zeros((1, 5, 640 * 384 * 21 // 1024), np.float32)
    cx, cy = (x0 + x1) / 2 * sx + place.x, (y0 + y1) / 2 * sy + place.y
    raw[0, :, 77] = [cx, cy, (x1 - x0) * sx, (y1 - y0) * sy, 0.9]
    entry = np.array([[sx, sy, place.x, place.y]], np.float32)
    batch = Batch(None, entry, np.array([picture], np.int32), (0,))
    (found,) = HeadDecoder(model, DetectorConfig(), 0.1).decode(raw, batch)
    tolerance = 2e-3 + 1e-3 / min(sx, sy)
    np.testing.assert_allclose(found.xyxy[0], [x0, y0, x1, y1], atol=tolerance)


# --- NMS -----------------------------------------------------------------------------------------


def naive_nms(xyxy: np.ndarray, score: np.ndarray, class_id: np.ndarray, limit: float) -> list[int]:
    left = sorted(range(len(score)), key=lambda i: (-score[i], i))
    kept: list[int] = []
    while left:
        best = left.pop(0)
        kept.append(best)
        left = [i for i in left if class_id[i] != class_id[best] or iou(xyxy[i], xyxy[best]) <= limit]
    return kept


def iou(a: np.ndarray, b: np.ndarray) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return float(shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared))


@pytest.mark.parametrize("seed", range(20))
def test_nms_equals_the_naive_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(0, 120))
    corner, extent = rng.uniform(0, 50, (n, 2)), rng.uniform(5, 40, (n, 2))
    xyxy = np.concatenate([corner, corner + extent], axis=1).astype(np.float32)
    score = rng.integers(0, 12, n).astype(np.float32) / 12  # many ties
    class_id = rng.integers(0, 3, n).astype(np.int32)
    expected = naive_nms(xyxy, score, class_id, 0.5)
    assert nms(xyxy, score, class_id, 0.5, n).tolist() == expected
    assert nms(xyxy, score, class_id, 0.5, 7).tolist() == expected[:7]


# --- ONNX Runtime --------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", ["N", 1])
def test_each_entry_of_a_batch_gets_its_own_detections(
    tmp_path: Path, batch: int | str, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_model(tmp_path / "m.onnx", yolox_head(a10=[0, 0, 0, 0, 1.0]), batch=batch)
    with caplog.at_level(logging.WARNING):
        found = detect(path, whole(4, first_samples=[0.3, 0.9, 0.0, 0.6]))
    scores = [detections.score.astype(float).round(4).tolist() for detections in found]
    assert scores == [[0.3], [0.9], [], [0.6]]
    said = [record.message for record in caplog.records if "one by one" in record.message]
    assert len(said) == (batch == 1)


def test_an_empty_batch_is_no_work(tmp_path: Path) -> None:
    assert detect(write_model(tmp_path / "m.onnx", yolox_head()), whole(0)) == []


def test_half_precision_models_run_on_the_cpu(tmp_path: Path) -> None:
    head = yolox_head(a10=[0.5, 0.25, 0, 0, 0.75])
    path = write_model(tmp_path / "m.onnx", head, dtype=TensorProto.FLOAT16)
    assert load_model("m.onnx", tmp_path).precision == "fp16"
    (found,) = detect(path, whole(1))
    np.testing.assert_allclose(found.xyxy, [[16, 6, 24, 14]])


def test_closed_detectors_say_so(tmp_path: Path) -> None:
    model = load_model(write_model(tmp_path / "m.onnx", yolox_head()).name, tmp_path)
    detector = OrtDetector(model, DetectorConfig(), 1, (1, 2))
    detector.close()
    detector.close()
    with pytest.raises(StageError, match="infer: m is closed"):
        detector.infer(whole(1))


# --- registry ------------------------------------------------------------------------------------


def test_customs_of_the_heads(tmp_path: Path) -> None:
    write_model(tmp_path / "x.onnx", yolox_head(80))
    write_model(tmp_path / "v.onnx", np.zeros((84, ANCHORS)))
    write_model(tmp_path / "p.onnx", yolox_head())
    x, v, p = (load_model(f"{name}.onnx", tmp_path) for name in "xvp")
    assert (x.head, x.input.channels, x.input.scale, x.input.align) == ("yolox", "bgr", 1.0, "top-left")
    assert (v.head, v.input) == ("yolov8", InputSpec(channels="rgb", scale=1 / 255, align="center", pad=114))
    assert x.class_names == v.class_names == COCO_NAMES
    assert len(COCO_NAMES) == 80
    assert p.class_names == ("person",)
    assert x.input_size == SIZE


def test_own_metadata_comes_first(tmp_path: Path) -> None:
    said = {"channels": "rgb", "scale": 0.5, "mean": [1, 2, 3], "std": [4, 5, 6], "pad": 0, "align": "center"}
    metadata = {"tiler.head": "yolox", "tiler.input": json.dumps(said), "tiler.classes": '["dog"]'}
    write_model(tmp_path / "m.onnx", yolox_head(1), metadata={**metadata, "names": "{0: 'cat'}"})
    (tmp_path / "m.yaml").write_text("{channels: bgr, classes: [bird]}")
    model = load_model("m.onnx", tmp_path)
    assert model.class_names == ("dog",)
    assert model.input == InputSpec(**said)
    expected = [[0.5 / 4, 0.5 / 5, 0.5 / 6], [-1 / 4, -2 / 5, -3 / 6]]
    np.testing.assert_allclose(model.input.affine(), expected, rtol=1e-6)


def test_ultralytics_metadata(tmp_path: Path) -> None:
    metadata = {"task": "detect", "names": "{0: 'cat', 1: 'dog'}", "imgsz": "[32, 64]", "stride": "32"}
    write_model(tmp_path / "m.onnx", np.zeros((6, ANCHORS)), size=("w", "h"), metadata=metadata)
    model = load_model("m.onnx", tmp_path)
    assert model.class_names == ("cat", "dog")
    assert model.input_size == SIZE


def test_sidecar_describes_a_silent_model(tmp_path: Path) -> None:
    write_model(tmp_path / "m.onnx", yolox_head(2))
    (tmp_path / "m.yaml").write_text(
        "head: yolox\nclasses: [cat, dog]\n"
        "channels: rgb\nmean: [123.7, 116.3, 103.5]\nstd: [58.4, 57.1, 57.4]\n"
    )
    model = load_model("m.onnx", tmp_path)
    assert model.class_names == ("cat", "dog")
    assert model.input == InputSpec(
        channels="rgb", scale=1.0, mean=(123.7, 116.3, 103.5), std=(58.4, 57.1, 57.4), align="top-left"
    )


def test_a_shape_that_the_file_does_not_say_is_found_by_running(tmp_path: Path) -> None:
    write_model(tmp_path / "m.onnx", np.zeros((6, ANCHORS)), output_shape=["N", None, None])
    model = load_model("m.onnx", tmp_path)
    assert (model.head, len(model.class_names)) == ("yolov8", 2)


BAD_MODELS: dict[str, tuple[dict[str, Any], str]] = {
    "another head": ({"head": np.zeros((ANCHORS, 4))}, r"shape \[1, 42, 4\]; accepted .* \[N, 42, 5 \+"),
    "NMS inside": ({"head": np.zeros((300, 6))}, "no NMS in the model"),
    "wrong head said": ({"metadata": {"tiler.head": "yolov8"}}, "said to be yolov8"),
    "another task": ({"metadata": {"task": "segment"}}, "its task is 'segment'; accepted: detect"),
    "broken JSON": ({"metadata": {"tiler.input": "{"}}, "tiler.input is not JSON"),
    "unknown key": ({"metadata": {"tiler.input": '{"order": "rgb"}'}}, "accepted keys: channels, scale"),
    "std of 0": ({"metadata": {"tiler.input": '{"std": [1, 0, 1]}'}}, "std must not be 0"),
    "too few names": ({"head": yolox_head(2), "metadata": {"names": "['cat']"}}, "1 class names for .* 2"),
    "no names": ({"head": yolox_head(2), "metadata": {"names": "oops"}}, "0 class names for .* 2"),
    "names that are no list": ({"metadata": {"tiler.classes": "3"}}, "tiler.classes is not a list of names"),
    "fixed batch": ({"batch": 4}, "the batch axis is fixed at 4"),
    "odd size": ({"size": (60, 32)}, "input of 60x32; accepted: multiples of 32"),
    "double precision": ({"dtype": TensorProto.DOUBLE}, r"unusable input images .*tensor\(double\)"),
}


@pytest.mark.parametrize("name", BAD_MODELS)
def test_bad_models_are_explained(tmp_path: Path, name: str) -> None:
    model, message = BAD_MODELS[name]
    path = write_model(tmp_path / "m.onnx", **({"head": yolox_head()} | model))
    with pytest.raises(InputError, match=message) as caught:
        load_model(path.name, tmp_path)
    assert "m.onnx" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"not a model", bytes(range(256)) * 9])
def test_files_that_are_no_models(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(InputError, match=r"m\.onnx"):
        load_model("m.onnx", tmp_path)


def test_names_and_paths_that_do_not_exist(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"unknown model 'person-giant'; accepted: .* path of an \.onnx"):
        load_model("person-giant", tmp_path)
    with pytest.raises(InputError, match=r"none\.onnx' does not exist"):
        load_model("none.onnx", tmp_path)


@pytest.mark.parametrize("content", ["[", "head: detr", "mean: [1, 2]", "colour: red", "just text"])
def test_bad_sidecars(tmp_path: Path, content: str) -> None:
    write_model(tmp_path / "m.onnx", yolox_head())
    (tmp_path / "m.yaml").write_text(content)
    with pytest.raises(InputError, match=r"m\.yaml: (not YAML|model description)"):
        load_model("m.onnx", tmp_path)


# --- a real model on a real picture --------------------------------------------------------------


@pytest.mark.skipif("TILER_TEST_DATA" not in os.environ, reason="TILER_TEST_DATA is not set")
def test_people_are_found_where_they_are() -> None:
    data = Path(os.environ["TILER_TEST_DATA"])
    model = load_model("yolox_nano_416x416_dynN.onnx", data / "models")
    video = str(data / "video" / "TUD-Campus_25fps.mp4")
    truth = np.array(  # x, y, width, height of frame 1
        [[399, 182, 121, 229], [282, 201, 92, 184], [63, 153, 82, 288], [192, 206, 62, 137]], np.float32
    )
    truth[:, 2:] += truth[:, :2]
    with (
        PyavDecoder(Source(id="campus", uri=video), video, 0, 1) as decoder,
        CpuPreprocessor(model.input_size, model.input, 1, 2) as preprocessor,
        OrtDetector(model, DetectorConfig(classes=["person"]), 2) as detector,
    ):
        frame = decoder.read()
        assert frame is not None
        (found,) = detector.infer(preprocessor.prepare([frame]))
    assert 4 <= len(found) <= 9
    assert set(found.class_id.tolist()) == {0}
    assert (np.diff(found.score) <= 0).all()
    overlaps = [max(iou(box, person) for box in found.xyxy) for person in truth]
    assert min(overlaps) > 0.6, overlaps
