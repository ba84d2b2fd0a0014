"""Float operators of ONNX that the NPU computes on bytes, against onnxruntime."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from onnx import helper

from convoy.spec.config import PRESETS
from convoy.verif.onnx_models import WEIGHTS, check_onnx, onnx_network, plain, qdq_model, quantised_weights, weighted

Q = PRESETS["Q"]
NODE = helper.make_node
IMAGE = (1, 6, 7, 5)
RNG = np.random.default_rng(2)
SCALES = RNG.uniform(0.002, 0.01, 8)
CASES = {
    "conv_leaky": ([IMAGE], partial(weighted, "Conv", then=["LeakyRelu"]), {"FusedConv"}),
    "reduce_mean": ([(1, 6, 2, 2)], partial(plain, "ReduceMean", axes=[2, 3]), set()),
    "reduce_mean_of_channels": ([IMAGE], partial(plain, "ReduceMean", axes=[1]), {"ReduceMean"}),
}
TRANSPOSED = {"weights": WEIGHTS.transpose(1, 0, 2, 3)[:6].copy(), "strides": [2, 2], "pads": [1, 1, 0, 0]}
TURNED = {"transA": 1, "transB": 1}
FLOATS = {
    "conv_transpose": ([IMAGE], partial(weighted, "ConvTranspose", **TRANSPOSED, bias=np.ones(8))),
    "conv_transpose_groups": (
        [(2, 6, 7, 5)],
        partial(weighted, "ConvTranspose", **TRANSPOSED | {"group": 2}, bias=np.ones(16)),
    ),
    "conv_transpose_group_scales": (
        [IMAGE],
        partial(weighted, "ConvTranspose", **TRANSPOSED | {"group": 3, "dilations": [2, 3]}, scale=SCALES, axis=1),
    ),
    "conv_transpose_size": (
        [IMAGE],
        partial(weighted, "ConvTranspose", weights=TRANSPOSED["weights"], strides=[2, 2], output_shape=[14, 11]),
    ),
    "conv_transpose_same": (
        [IMAGE],
        partial(weighted, "ConvTranspose", weights=TRANSPOSED["weights"], strides=[3, 2], auto_pad="SAME_UPPER"),
    ),
    "conv_transpose_1d": (
        [(1, 6, 11)],
        partial(weighted, "ConvTranspose", weights=TRANSPOSED["weights"][:, :, 0].copy(), strides=[2], pads=[1, 0]),
    ),
    "conv_relu": ([IMAGE], partial(weighted, "Conv", bias=RNG.normal(size=8), then=["Relu"])),
    "depthwise_relu": ([IMAGE], partial(weighted, "Conv", weights=WEIGHTS[:6, :1], group=6, then=["Relu"])),
    "gemm_factors": (
        [(6, 3)],
        partial(
            weighted, "Gemm", weights=WEIGHTS[:, :, 0, 0].copy(), bias=np.ones((1, 8)), alpha=0.3, beta=2.0, **TURNED
        ),
    ),
    "gemm_relu": ([(3, 6)], partial(weighted, "Gemm", weights=WEIGHTS[:6, :, 0, 0].copy(), then=["Relu"])),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_float_operators_that_are_exact_or_the_hosts(name, dtype):
    shapes, make, hosted = CASES[name]
    _, found = check_onnx(qdq_model(shapes, make, dtype=dtype), Q)
    assert found == hosted


@pytest.mark.parametrize("name", FLOATS)
def test_what_onnxruntime_adds_in_float32_may_differ_by_one(name):
    shapes, make = FLOATS[name]
    num_groups = make.keywords.get("group", 1) if make.args == ("ConvTranspose",) else 1
    plan, hosted = check_onnx(qdq_model(shapes, make), Q, num_doubts=num_groups * 8 * 255)
    assert hosted == set()
    assert plan.doubts


def test_bytes_that_become_float_at_once():
    weights, constants = quantised_weights("w", WEIGHTS, 0.004)
    nodes = [NODE("DequantizeLinear", ["x", "s", "z"], ["f"]), *weights, NODE("Conv", ["f", "w"], ["y"])]
    constants |= {"s": np.float32(0.02), "z": np.uint8(128)}
    _, hosted = check_onnx(onnx_network(nodes, {"x": (np.uint8, IMAGE)}, ["y"], constants), Q)
    assert hosted == {"Conv"}
