"""ONNX files: shapes that are given or assumed, and files that are refused."""

from __future__ import annotations

import sys
from functools import partial

import onnx
import pytest
from onnx import helper

from convoy.driver.graph.graph import GraphError
from convoy.driver.graph.onnx_file import load_float
from convoy.driver.graph.onnx_reader import load_onnx

from .test_onnx_bytes import conv_network


def test_the_shapes_of_inputs_can_be_given():
    assert load_onnx(conv_network(), {"x": (1, 3, 8, 8)}).graph.notes == ()
    with pytest.raises(GraphError, match="axis 2 is 8 in the file"):
        load_onnx(conv_network(), {"": (1, 3, 9, 9)})
    with pytest.raises(GraphError, match="--shape z: no such input; the inputs are x"):
        load_onnx(conv_network(), {"z": (1, 3, 8, 8)})


def test_an_input_without_a_shape_is_given_one():
    model = onnx.load_model_from_string(conv_network())
    model.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(GraphError, match="input x: its shape is not known; give it by --shape x=1x"):
        load_onnx(model.SerializeToString())
    loaded = load_onnx(model.SerializeToString(), {"x": (1, 3, 8, 8)})
    assert loaded.graph.tensors[loaded.graph.inputs[0]].shape == (1, 3, 8, 8)


def _float_network() -> bytes:
    value = partial(helper.make_tensor_value_info, elem_type=onnx.TensorProto.FLOAT)
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])], "float", [value("x", shape=[1, 4])], [value("y", shape=[1, 4])]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10).SerializeToString()


def test_a_float_network_says_how_to_quantise_it(tmp_path):
    with pytest.raises(GraphError, match="not quantised: convoy quantize MODEL --calibration FOLDER"):
        load_onnx(_float_network())
    path = tmp_path / "float.onnx"
    path.write_bytes(_float_network())
    assert load_float(path)[1]["x"].shape == (1, 4)
    path.write_bytes(conv_network())
    with pytest.raises(GraphError, match="quantised already"):
        load_float(path)


@pytest.mark.parametrize(
    ("raw", "text"),
    [(b"", "not an ONNX file"), (b"\xff" * 99, "not an ONNX file"), (conv_network()[:-99], "not an ONNX file")],
)
def test_damaged_files_are_one_line(raw, text):
    with pytest.raises(GraphError, match=text) as info:
        load_onnx(raw)
    assert "\n" not in str(info.value)


def test_a_missing_package_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(GraphError, match=r"pip install 'convoy-npu\[onnx\]'"):
        load_onnx(b"")
