"""Operators of ONNX on bytes, as onnxruntime makes them or as the file has them, against onnxruntime."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from convoy.spec.config import PRESETS
from convoy.verif.onnx_models import WEIGHTS, check_onnx, onnx_network, plain, qdq_model, weighted

Q = PRESETS["Q"]
NODE = helper.make_node
IMAGE = (1, 6, 7, 5)
RNG = np.random.default_rng(1)
SCALES = RNG.uniform(0.002, 0.01, 8)
CASES = {
    "conv": ([IMAGE], partial(weighted, "Conv", scale=SCALES, pads=[1, 0, 2, 1], strides=[2, 1]), set()),
    "conv_bias": ([IMAGE], partial(weighted, "Conv", bias=RNG.normal(size=8)), set()),
    "conv_same_lower": ([IMAGE], partial(weighted, "Conv", auto_pad="SAME_LOWER", strides=[2, 2]), set()),
    "conv_dilated": ([(1, 6, 9, 9)], partial(weighted, "Conv", dilations=[2, 3]), set()),
    "conv_depthwise": ([IMAGE], partial(weighted, "Conv", weights=WEIGHTS[:6, :1], group=6), set()),
    "conv_1d": ([(1, 6, 11)], partial(weighted, "Conv", weights=WEIGHTS[:, :, 0].copy(), pads=[1, 1]), set()),
    "conv_1d_batch": ([(2, 6, 11)], partial(weighted, "Conv", weights=WEIGHTS[:, :3, 0].copy(), group=2), set()),
    "matmul": ([(1, 4, 6)], partial(weighted, "MatMul", weights=WEIGHTS[:6, 0].reshape(6, 9)), set()),
    "gemm": ([(3, 6)], partial(weighted, "Gemm", weights=WEIGHTS[:, :, 0, 0].copy(), bias=np.ones(8), transB=1), set()),
    "gemm_turned": (
        [(6, 3)],
        partial(weighted, "Gemm", weights=WEIGHTS[:, :, 0, 0].copy(), bias=np.ones(8), transA=1, transB=1),
        set(),
    ),
    "matmul_activations": ([(1, 4, 6), (1, 6, 5)], partial(plain, "MatMul"), {"QLinearMatMul"}),
    "add": ([IMAGE, IMAGE], partial(plain, "Add"), set()),
    "add_broadcast": ([IMAGE, (1, 6, 1, 1)], partial(plain, "Add"), set()),
    "add_scalar": ([IMAGE], partial(plain, "Add", constants=[np.float32(0.7)]), set()),
    "mul": ([IMAGE, IMAGE], partial(plain, "Mul"), set()),
    "leaky_relu": ([IMAGE], partial(plain, "LeakyRelu", alpha=0.1), set()),
    "sigmoid": ([IMAGE], partial(plain, "Sigmoid"), set()),
    "softmax": ([(1, 6)], partial(plain, "Softmax", axis=1), {"QLinearSoftmax"}),
    "average_pool": ([IMAGE], partial(plain, "AveragePool", kernel_shape=[3, 3]), set()),
    "global_average": ([IMAGE], partial(plain, "GlobalAveragePool"), set()),
    "concat": ([IMAGE, (1, 4, 7, 5)], partial(plain, "Concat", axis=1), set()),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_operators_that_onnxruntime_makes_of_float_ones(name, dtype):
    shapes, make, hosted = CASES[name]
    _, found = check_onnx(qdq_model(shapes, make, dtype=dtype), Q)
    assert found == hosted


def test_products_with_too_many_ties_are_left_to_the_host():
    _, hosted = check_onnx(qdq_model([IMAGE, IMAGE], partial(plain, "Mul"), scale=0.0625, scale_out=0.125), Q)
    assert hosted == {"MUL"}


@pytest.mark.parametrize("opset", [13, 18, 21])
@pytest.mark.parametrize(("dtype", "zero_point"), [(np.uint8, 120), (np.int8, 5)])
def test_asymmetric_weights_in_every_opset(opset, dtype, zero_point):
    weights = (WEIGHTS.view(np.uint8) ^ 0x80 if dtype is np.uint8 else WEIGHTS).copy()
    make = partial(weighted, "Conv", weights=weights, zero_point=zero_point)
    _, hosted = check_onnx(qdq_model([IMAGE], make, dtype=np.uint8, opset=opset), Q)
    assert hosted == set()


def conv_network(**attrs) -> bytes:
    """A QLinearConv on bytes, as the operator's own quantised form, with bytes at the edges."""
    constants = {
        "x_scale": np.float32(0.02), "x_zero_point": np.uint8(120), "w": WEIGHTS[:, :3].view(np.uint8),
        "w_scale": np.float32(0.004), "w_zero_point": np.uint8(99), "y_scale": np.float32(0.06),
        "y_zero_point": np.uint8(30), "bias": np.arange(8, dtype=np.int32) * 100,
    }  # fmt: skip
    graph = helper.make_graph(
        [NODE("QLinearConv", ["x", *constants], ["y"], **attrs)],
        "qlinear",
        [helper.make_tensor_value_info("x", onnx.TensorProto.UINT8, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.UINT8, None)],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10).SerializeToString()


def test_qlinear_operators_on_bytes():
    plan, hosted = check_onnx(conv_network(pads=[1, 1, 1, 1]), Q)
    assert hosted == set()
    assert [op.kind for op in plan.graph.ops] == ["TRANSPOSE", "CONV_2D", "TRANSPOSE"]
    assert any("batch" in note for note in plan.graph.notes)


@pytest.mark.parametrize("shape", [(8,), (1, 8)])
def test_a_qgemm_with_a_factor(shape):
    constants = {"s": np.float32(0.05), "z": np.uint8(99), "w": WEIGHTS[:, :, 0, 0], "v": np.float32(0.004),
                 "n": np.int8(0), "bias": np.arange(8, dtype=np.int32).reshape(shape) * 100,
                 "t": np.float32(0.0213)}  # fmt: skip
    names = ["x", "s", "z", "w", "v", "n", "bias", "t", "z"]
    node = NODE("QGemm", names, ["y"], domain="com.microsoft", alpha=0.3, transB=1)
    plan, hosted = check_onnx(onnx_network([node], {"x": (np.uint8, (5, 6))}, ["y"], constants, np.uint8), Q)
    assert hosted == set()
    assert not plan.doubts


@pytest.mark.parametrize("names", [("x", "one"), ("one", "x"), ("x", "x")])
def test_a_qlinear_operator_on_one_tensor_is_a_table(names):
    quant = {"s": np.float32(0.05), "z": np.uint8(99), "t": np.float32(0.0713), "one": np.uint8(180)}
    node = NODE("QLinearAdd", [names[0], "s", "z", names[1], "s", "z", "t", "z"], ["y"], domain="com.microsoft")
    plan, hosted = check_onnx(onnx_network([node], {"x": (np.uint8, IMAGE)}, ["y"], quant, np.uint8), Q)
    assert hosted == set()
    assert "TABLE" in {op.kind for op in plan.graph.ops}
