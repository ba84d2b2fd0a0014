"""Networks of the kinds people deploy, on the compiled RTL, every tensor against LiteRT's reference kernels."""

from pathlib import Path

import numpy as np
import pytest

from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.devices import open_device
from convoy.driver.emit.program import HostStep
from convoy.driver.graph.tflite_reader import read_tflite
from convoy.driver.graph.tflite_writer import write_tflite
from convoy.driver.runtime.session import Session
from convoy.driver.workload.reference import Reference
from convoy.spec.config import PRESETS
from convoy.verif.graphs import GraphMaker

DIGITS = Path(__file__).parents[2] / "examples" / "digits_int8.tflite"


def _layer(maker, source, kind, num_oc, kernel, stride=(1, 1), activation="NONE", padding="SAME"):
    _, height, width, num_ic = maker.tensors[source].shape
    kernel_h, kernel_w = kernel
    is_depthwise = kind == "DEPTHWISE_CONV_2D"
    weights = maker.weights(
        (1, kernel_h, kernel_w, num_oc) if is_depthwise else (num_oc, kernel_h, kernel_w, num_ic),
        num_oc,
        3 if is_depthwise else 0,
    )
    bias = maker.tensor((num_oc,), np.int32, maker.rng.integers(-2000, 2000, num_oc).astype(np.int32), zero_point=0)
    shrink = (0, 0) if padding == "SAME" else (kernel_h - 1, kernel_w - 1)
    size = -(-(height - shrink[0]) // stride[0]), -(-(width - shrink[1]) // stride[1])
    options = {"depth_multiplier": num_oc // num_ic} if is_depthwise else {}
    return maker.op(
        kind,
        (source, weights, bias),
        (1, *size, num_oc),
        stride_h=stride[0],
        stride_w=stride[1],
        dilation_h=1,
        dilation_w=1,
        activation=activation,
        padding=padding,
        **options,
    )


def _dense(maker, source, num_oc):
    num_ic = int(np.prod(maker.tensors[source].shape))
    flat = maker.op("RESHAPE", (source,), (1, num_ic), new_shape=(1, num_ic))
    weights = maker.weights((num_oc, num_ic), 1, 0)
    scale = maker.tensors[flat].quant.scale[0] * maker.tensors[weights].quant.scale[0]
    bias = maker.tensor(
        (num_oc,), np.int32, maker.rng.integers(-2000, 2000, num_oc).astype(np.int32), scale=scale, zero_point=0
    )
    return maker.op("FULLY_CONNECTED", (flat, weights, bias), (1, num_oc), activation="NONE")


def mobilenet_v2():
    """Inverted residuals: expand with ReLU6, depthwise stride 1 or 2, project linearly, add where shapes agree."""
    maker = GraphMaker(11)
    source = maker.tensor((1, 32, 24, 3))
    trunk = _layer(maker, source, "CONV_2D", 8, (3, 3), (2, 2), "RELU6")
    for num_oc, stride in ((8, 1), (12, 2), (12, 1), (20, 2)):
        wide = _layer(maker, trunk, "CONV_2D", 6 * maker.tensors[trunk].shape[3], (1, 1), activation="RELU6")
        wide = _layer(maker, wide, "DEPTHWISE_CONV_2D", maker.tensors[wide].shape[3], (3, 3), (stride, stride), "RELU6")
        thin = _layer(maker, wide, "CONV_2D", num_oc, (1, 1))
        trunk = (
            maker.op("ADD", (trunk, thin), maker.tensors[thin].shape, activation="NONE")
            if maker.tensors[trunk].shape == maker.tensors[thin].shape
            else thin
        )
    _, height, width, num_ic = maker.tensors[trunk].shape
    pooled = maker.op(
        "AVERAGE_POOL_2D",
        (trunk,),
        (1, 1, 1, num_ic),
        filter_h=height,
        filter_w=width,
        stride_h=height,
        stride_w=width,
        padding="VALID",
        activation="NONE",
    )
    return maker.graph([source], [_dense(maker, pooled, 10)])


def micro_speech():
    """A depthwise layer first, one input channel times eight, kernel 10 x 8, stride 2; then a wide fully connected
    layer.
    """
    maker = GraphMaker(12)
    source = maker.tensor((1, 49, 40, 1))
    features = _layer(maker, source, "DEPTHWISE_CONV_2D", 8, (10, 8), (2, 2), "RELU")
    return maker.graph([source], [_dense(maker, features, 4)])


def streaming():
    """One-dimensional convolutions: kernels 1 x 9 and 5 x 1, depthwise with a multiplier, strides on one axis."""
    maker = GraphMaker(13)
    source = maker.tensor((1, 30, 17, 2))
    hidden = _layer(maker, source, "DEPTHWISE_CONV_2D", 6, (1, 9), (1, 2), "RELU")
    hidden = _layer(maker, hidden, "CONV_2D", 9, (5, 1), (2, 1), "RELU6", padding="VALID")
    hidden = _layer(maker, hidden, "CONV_2D", 7, (3, 3), (1, 1), "RELU_N1_TO_1")
    return maker.graph([source], [hidden])


def run(model: bytes, config, device_name: str, seed: int = 0):
    """Every tensor of the network on the device, the reference's, and the plan."""
    graph = read_tflite(model)
    plan = compile_graph(graph, config, keep_tensors=True)
    rng = np.random.default_rng(seed)
    inputs = {index: rng.integers(-128, 128, graph.tensors[index].shape).astype(np.int8) for index in graph.inputs}
    device = open_device(device_name, config)
    try:
        execution = Session(plan, device).run(inputs)
    finally:
        device.close()
    return graph, plan, execution, Reference(model).run(list(inputs.values()))


def check_stored(graph, plan, execution, expected):
    """Every result that exists is right; one that does not was fused into the operator that reads it, or is none of the
    plan's.
    """
    made = {op.index for op in plan.graph.ops}
    for op in graph.ops:
        if op.outputs[0] not in execution.tensors:
            assert op.index not in made or "is not stored" in plan.notes[op.index]
            continue
        np.testing.assert_array_equal(
            execution.tensors[op.outputs[0]], expected[op.outputs[0]], err_msg=f"{op.index} {op.kind}"
        )


@pytest.mark.parametrize("make", [mobilenet_v2, micro_speech, streaming])
def test_network_on_native(make):
    graph, plan, execution, expected = run(write_tflite(make()), PRESETS["Q"], "native")
    assert not any(isinstance(step, HostStep) for step in plan.steps)
    check_stored(graph, plan, execution, expected)
    assert execution.cycles > 0


@pytest.mark.parametrize("name", ["S", "Q"])
def test_digits_on_native(name):
    graph, plan, execution, expected = run(DIGITS.read_bytes(), PRESETS[name], "native")
    check_stored(graph, plan, execution, expected)
