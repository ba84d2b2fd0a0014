"""Float networks quantised by onnxruntime."""

from __future__ import annotations

import logging

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from convoy.driver.ort.quantise import quantise_network
from convoy.driver.ort.runtime import OrtError
from convoy.spec.config import PRESETS
from convoy.verif.onnx_models import check_onnx

RNG = np.random.default_rng(0)


def float_network(kind: str = "GlobalAveragePool", **attrs) -> bytes:
    """A convolution of 3 to 4 channels, a Relu and a mean."""
    floats = onnx.TensorProto.FLOAT
    shape = [1, 4] if attrs.get("keepdims") == 0 else [1, 4, 1, 1]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node(kind, ["r"], ["y"], **attrs),
    ]
    graph = helper.make_graph(
        nodes,
        "float",
        [helper.make_tensor_value_info("x", floats, [1, 3, 6, 6])],
        [helper.make_tensor_value_info("y", floats, shape)],
        [numpy_helper.from_array(RNG.normal(size=(4, 3, 3, 3)).astype(np.float32), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


@pytest.mark.parametrize("is_unsigned", [False, True])
def test_a_quantised_network_runs_on_the_npu(is_unsigned):
    samples, seen = [{"x": RNG.normal(size=(1, 3, 6, 6)).astype(np.float32)} for _ in range(3)], []
    level = logging.root.manager.disable
    model = quantise_network(float_network(), samples, is_unsigned=is_unsigned, progress=seen.append)
    assert seen == [1, 2, 3]
    assert logging.root.manager.disable == level
    plan, hosted = check_onnx(model, PRESETS["Q"])
    assert hosted == set()
    dtypes = {plan.graph.tensors[op.outputs[0]].dtype.name for op in plan.graph.ops if op.kind == "CONV_2D"}
    assert dtypes == {"uint8" if is_unsigned else "int8"}


@pytest.mark.parametrize("keeps_axes", [0, 1])
def test_means_of_images_are_pools(keeps_axes):
    samples = [{"x": RNG.normal(size=(1, 3, 6, 6)).astype(np.float32)}]
    model = quantise_network(float_network("ReduceMean", axes=[-1, 2], keepdims=keeps_axes), samples)
    plan, hosted = check_onnx(model, PRESETS["Q"])
    assert hosted == set()
    assert not plan.doubts


def test_what_cannot_be_quantised_is_one_line():
    with pytest.raises(OrtError, match="onnxruntime cannot quantise it"):
        quantise_network(float_network(), [{"z": np.zeros(3, np.float32)}])
