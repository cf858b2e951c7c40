"""FP32 -> FP16: the same answers, and what cannot be converted is refused."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from engine_parts import SIZE, nano, small_model
from onnx import TensorProto, helper, numpy_helper

from tiler.engines.convert import convert, half_model
from tiler.engines.registry import ModelSpec, load_model
from tiler.errors import InputError

pytest_plugins = ("fakes.engine_fixtures",)
pytestmark = pytest.mark.usefixtures("engines")


def copied_nano(folder: Path) -> ModelSpec:
    """The model that tiler ships as anybody's own: nothing lies beside it."""
    own = shutil.copy(nano(half=False).path, folder / "own.onnx")
    return load_model(str(own), folder)


def test_a_converted_model_gives_what_the_full_one_gives(tmp_path: Path) -> None:
    full = copied_nano(tmp_path)
    half, note = half_model(full)
    assert note == "converted from FP32"
    assert (half.precision, half.head, half.input) == ("fp16", full.head, full.input)
    again = load_model(str(half.path), Path.cwd())  # what the file says of itself came along
    assert (again.precision, again.class_names, again.input) == ("fp16", full.class_names, full.input)
    pictures = np.random.default_rng(5).random((2, 3, 384, 640), np.float32)
    outputs = [
        ort.InferenceSession(str(model.path), providers=["CPUExecutionProvider"]).run(
            None, {"images": pictures.astype(np.float16 if model.precision == "fp16" else np.float32)}
        )[0]
        for model in (full, half, nano())
    ]
    assert outputs[1].dtype == np.float16
    np.testing.assert_allclose(outputs[1], outputs[0], atol=0.02)
    # No worse than the FP16 file that comes with tiler, which the exporter wrote.
    errors = [np.abs(output.astype(np.float32) - outputs[0]).max() for output in outputs[1:]]
    assert errors[0] <= 2 * errors[1] + 1e-3


def test_what_is_half_already_is_taken_as_it_is() -> None:
    model = nano()
    assert half_model(model) == (model, "the model is in FP16")


def test_a_shipped_model_comes_in_fp16_without_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    half, note = half_model(nano(half=False))
    assert (half.name, half.precision, half.path, note) == ("person-nano", "fp16", nano().path, "comes with tiler")
    assert (half.input_name, half.output_name, half.class_names) == (nano().input_name, nano().output_name, ("person",))


def test_a_model_is_converted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = half_model(copied_nano(tmp_path))
    monkeypatch.setattr("tiler.engines.convert.convert", None)
    assert half_model(copied_nano(tmp_path))[0] == first


def test_a_model_that_was_never_checked_is_not_kept(
    tmp_path: Path, engines: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tiler.engines.convert.open_session", interrupted)
    with pytest.raises(KeyboardInterrupt):
        half_model(copied_nano(tmp_path))
    assert list(engines.iterdir()) == []


def test_weights_in_a_file_of_their_own_are_the_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative to the model's folder, wherever one is, and other weights are another model."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "big").mkdir()
    before = small_model(tmp_path / "big" / "m.onnx", dtype=TensorProto.FLOAT)
    proto = onnx.load(before.path)
    onnx.save(proto, before.path, save_as_external_data=True, location="m.onnx.data", size_threshold=100)
    first = load_model("m.onnx", tmp_path / "big")
    data = tmp_path / "big" / "m.onnx.data"
    assert first.weights == (data,)
    assert first.size_bytes == before.path.stat().st_size + data.stat().st_size
    digest = first.sha256
    half, _ = half_model(first)
    assert half.weights == ()
    picture = np.full((1, 3, SIZE[1], SIZE[0]), 0.5, np.float16)
    answer = ort.InferenceSession(str(half.path), providers=["CPUExecutionProvider"]).run(None, {"images": picture})[0]
    np.testing.assert_allclose(answer.max(), 0.5, rtol=1e-3)

    proto = onnx.load(before.path)
    head = next(tensor for tensor in proto.graph.initializer if tensor.name == "head")
    head.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(head) * 2, "head"))
    data.unlink()
    onnx.save(proto, before.path, save_as_external_data=True, location="m.onnx.data", size_threshold=100)
    other = load_model("m.onnx", tmp_path / "big")
    assert other.sha256 != digest
    assert half_model(other)[0].path != half.path


def test_operators_that_have_no_half_keep_their_types(tmp_path: Path) -> None:
    """Range has no half; the scales of Resize are FP32 by definition, the roi need not be."""
    constants = [
        numpy_helper.from_array(np.array(value, np.float32), name)
        for name, value in (("start", 0.0), ("step", 1.0), ("scales", [1, 1, 1, 1]))
    ]
    nodes = [
        helper.make_node("Resize", ["images", "", "scales"], ["same"], mode="nearest"),
        helper.make_node("ReduceMean", ["same"], ["mean"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("ReduceMax", ["images"], ["most"], keepdims=0),
        helper.make_node("Constant", [], ["small"], value_float=1 / 64),
        helper.make_node("Mul", ["most", "small"], ["limit"]),
        helper.make_node("Range", ["start", "limit", "step"], ["ramp"]),
        helper.make_node("ReduceSum", ["ramp"], ["total"], keepdims=0),
        helper.make_node("Reshape", ["mean", "flat"], ["one"]),
        helper.make_node("Add", ["one", "total"], ["more"]),
        helper.make_node("Mul", ["more", "head"], ["out"]),
    ]
    full = small_model(tmp_path / "m.onnx", dtype=TensorProto.FLOAT, nodes=nodes, constants=constants)
    half, _ = half_model(full)
    picture = np.full((1, 3, SIZE[1], SIZE[0]), 240, np.float32)
    want, got = (
        ort.InferenceSession(str(m.path), providers=["CPUExecutionProvider"]).run(None, {"images": tensor})[0]
        for m, tensor in ((full, picture), (half, picture.astype(np.float16)))
    )
    assert want.max() == pytest.approx(246)  # the mean, and 0 + 1 + 2 + 3
    np.testing.assert_allclose(got, want, rtol=2e-3)


def test_weights_beyond_half_precision_are_refused(tmp_path: Path) -> None:
    big = numpy_helper.from_array(np.array([1e6], np.float32), "big")
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Mul", ["mean", "big"], ["large"]),
        helper.make_node("Reshape", ["large", "flat"], ["one"]),
        helper.make_node("Mul", ["one", "head"], ["out"]),
    ]
    model = small_model(tmp_path / "m.onnx", dtype=TensorProto.FLOAT, nodes=nodes, constants=[big])
    with pytest.raises(InputError, match=r"model m: cannot be converted to FP16: big has the value 1e\+06"):
        half_model(model)


def test_activations_beyond_half_precision_are_found(tmp_path: Path, engines: Path) -> None:
    nodes = [
        helper.make_node("ReduceSum", ["images"], ["sum"], keepdims=1),
        helper.make_node("Mul", ["sum", "sum"], ["square"]),
        helper.make_node("Reshape", ["square", "flat"], ["one"]),
        helper.make_node("Mul", ["one", "head"], ["out"]),
    ]
    model = small_model(tmp_path / "m.onnx", dtype=TensorProto.FLOAT, nodes=nodes)
    for _ in range(2):  # the file that was refused does not stay, to be taken the next time
        with pytest.raises(InputError, match="in FP16 its activations overflow"):
            half_model(model)
    assert list(engines.iterdir()) == []


def test_without_onnx_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(InputError, match="needs the package onnx: pip install onnx"):
        half_model(copied_nano(tmp_path))


@pytest.mark.parametrize("op", ["Mystery", "If"])
def test_operators_that_cannot_be_converted_are_named(op: str, tmp_path: Path) -> None:
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 32, 32])
    if op == "If":
        inner = helper.make_graph([helper.make_node("Constant", [], ["x"], value_float=1.0)], "inner", [], [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [])])  # fmt: skip
        yes = numpy_helper.from_array(np.array(True), "yes")
        node = helper.make_node("If", ["yes"], ["out"], then_branch=inner, else_branch=inner)
        graph = helper.make_graph([node], "g", [image], [helper.make_tensor_value_info("out", 1, [])], [yes])
    else:
        node = helper.make_node(op, ["images"], ["out"])
        graph = helper.make_graph([node], "g", [image], [helper.make_tensor_value_info("out", 1, None)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    onnx.save(model, tmp_path / "odd.onnx")
    with pytest.raises(InputError, match=rf"model odd: cannot be converted to FP16: .*{op}"):
        convert(tmp_path / "odd.onnx", "odd")
