"""ONNX networks of every kind: read, run on the golden machine, and compared with onnxruntime tensor by tensor."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from onnx import helper

from convoy.driver.graph.graph import GraphError
from convoy.driver.graph.onnx_reader import load_onnx
from convoy.spec.config import PRESETS
from convoy.verif.onnx_models import check_onnx, onnx_network, plain, qdq_model, quantised_weights

Q = PRESETS["Q"]
NODE = helper.make_node
IMAGE = (1, 6, 7, 5)
RNG = np.random.default_rng(0)


def silu(x):
    return [NODE("Sigmoid", x, ["s"]), NODE("Mul", [x[0], "s"], ["y"])], {}


def moved(x):
    return [
        NODE("Transpose", x, ["t"], perm=[0, 2, 3, 1]),
        NODE("Relu", ["t"], ["r"]),
        NODE("Flatten", ["r"], ["y"]),
    ], {}


CASES = {
    "sub": ([IMAGE, IMAGE], partial(plain, "Sub"), set()),
    "div": ([IMAGE, (1, 1, 1, 1)], partial(plain, "Div"), {"Div"}),
    "relu": ([IMAGE], partial(plain, "Relu"), set()),
    "clip": ([IMAGE], partial(plain, "Clip", constants=[np.float32(0), np.float32(6)]), set()),
    "tanh": ([IMAGE], partial(plain, "Tanh"), set()),
    "hard_swish": ([IMAGE], partial(plain, "HardSwish"), set()),
    "silu": ([IMAGE], silu, set()),
    "prelu": ([IMAGE], partial(plain, "PRelu", constants=[RNG.random((6, 1, 1), np.float32)]), {"PRelu"}),
    "moved": ([IMAGE], moved, set()),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_functions_of_elements_between_quantised_tensors(name, dtype):
    shapes, make, hosted = CASES[name]
    _, found = check_onnx(qdq_model(shapes, make, dtype=dtype), Q)
    assert found == hosted


def test_sequences_are_refused():
    def split(x):
        nodes = [NODE("SplitToSequence", x, ["s"], axis=1), NODE("SequenceAt", ["s", "at"], ["y"])]
        return nodes, {"at": np.array(0, np.int64)}

    with pytest.raises(GraphError, match="sequences and subgraphs"):
        load_onnx(qdq_model([(1, 4)], split))


def test_scales_chosen_at_run_time_are_the_hosts():
    nodes = [
        NODE("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        NODE("Neg", ["x"], ["n"]),
        NODE("QuantizeLinear", ["n", "s", "z"], ["m"]),
        NODE("DequantizeLinear", ["m", "s", "z"], ["y"]),
    ]
    plan, hosted = check_onnx(onnx_network(nodes, {"x": (np.float32, [1, 4])}, ["y"]), Q)
    assert hosted == {"DynamicQuantizeLinear", "Neg", "QuantizeLinear", "DequantizeLinear"}
    assert any("quantise the float network statically" in note for note in plan.graph.notes)


def test_a_function_keeps_the_scale_of_its_operand():
    """Also behind a constant that is dequantised first."""
    nodes, constants = quantised_weights("k", np.array(50, np.int8), 0.02, 7)
    constants |= {"s": np.float32(0.05), "z": np.int8(3), "low": np.float32(-1.5), "high": np.float32(2)}
    nodes += [
        helper.make_node("DequantizeLinear", ["x", "s", "z"], ["real"]),
        helper.make_node("Clip", ["real", "low", "high"], ["clipped"]),
        helper.make_node("Mul", ["clipped", "k"], ["y"]),
        helper.make_node("QuantizeLinear", ["y", "s", "z"], ["bytes"]),
    ]
    model = onnx_network(nodes, {"x": (np.int8, (1, 3, 4, 5))}, ["bytes"], constants, np.int8)
    graph = load_onnx(model).graph
    assert [op.kind for op in graph.ops] == ["TABLE"]
    assert graph.tensors[graph.inputs[0]].quantisation.scale == np.float32(0.05)
    check_onnx(model, PRESETS["Q"])
