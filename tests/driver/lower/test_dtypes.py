"""Networks of uint8, of int16, and of several dtypes, read from files: the plan on the golden machine against
LiteRT, every tensor.
"""

import numpy as np
import pytest
from ai_edge_litert.schema_py_generated import TensorType
from hypothesis import given, settings
from hypothesis import strategies as st

from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.emit.program import HostStep
from convoy.driver.graph.graph import GraphError
from convoy.driver.graph.tflite_reader import read_tflite
from convoy.spec.config import PRESETS, NpuConfig
from convoy.verif.graphs import random_values, run_plan
from convoy.verif.litert import ModelBuilder, conv_model, pool_model, run_reference
from convoy.verif.strategies import configs

SMALL = NpuConfig(
    num_cores=2, num_lanes=8, num_acc_entries=16, post_lanes=2, stripe_bytes=4096, window_words=32, tp_buffer_bytes=1024
)


def check(model: bytes, config: NpuConfig) -> None:
    graph = read_tflite(model)
    plan = compile_graph(graph, config, keep_tensors=True, is_fusing=False)
    inputs = random_values(graph, 5)
    expected, got = run_reference(model, list(inputs.values())), run_plan(plan, dict(inputs))
    for op in graph.ops:
        for index in op.outputs:
            assert got[index].dtype == graph.tensors[index].dtype
            np.testing.assert_array_equal(got[index], expected[index], err_msg=f"{op.index} {op.kind}")


def unsigned_network() -> bytes:
    """From float32 through uint8 to int8 and back: conversions on the host and on the NPU, layers of all engines."""
    rng, b = np.random.default_rng(3), ModelBuilder()

    def tensor(shape, scale=0.05, zero_point=100, dtype=np.uint8, data=None):
        return b.tensor(shape, dtype, scale, zero_point, data=data)

    def layer(kind, source, shape, wgt_shape, dtype=np.uint8, **options):
        is_unsigned = dtype == np.uint8
        num_oc, info = shape[-1], np.iinfo(dtype)
        wgt = tensor(wgt_shape, 0.01, 90 if is_unsigned else 0, dtype, rng.integers(info.min, info.max + 1, wgt_shape))
        bias = b.tensor((num_oc,), np.int32, 0.0005, 0, data=rng.integers(-3000, 3000, num_oc))
        target = tensor(shape, 0.3, 120 if is_unsigned else -5, dtype)
        b.op(kind, [source, wgt, bias], [target], **options)
        return target

    image = b.tensor((1, 9, 7, 3), np.float32)
    first = tensor((1, 9, 7, 3), 0.008, 128)
    b.op("QUANTIZE", [image], [first])
    conv = layer(
        "CONV_2D", first, (1, 9, 7, 6), (6, 3, 3, 3), strideH=1, strideW=1, padding=0, fusedActivationFunction=3
    )
    deep = layer(
        "DEPTHWISE_CONV_2D", conv, (1, 5, 4, 12), (1, 3, 3, 12), strideH=2, strideW=2, depthMultiplier=2, padding=0
    )
    pads = b.tensor((4, 2), np.int32, data=np.array([[0, 0], [1, 0], [0, 1], [0, 0]]))
    padded = tensor((1, 6, 5, 12), 0.3, 120)
    b.op("PAD", [deep, pads], [padded])
    peak, average = tensor((1, 3, 2, 12), 0.3, 120), tensor((1, 3, 2, 12), 0.3, 120)
    for kind, pooled in (("MAX_POOL_2D", peak), ("AVERAGE_POOL_2D", average)):
        b.op(kind, [padded], [pooled], filterHeight=2, filterWidth=2, strideH=2, strideW=2, padding=1)
    total, curve, other = (
        tensor((1, 3, 2, 12), 0.4, 77),
        tensor((1, 3, 2, 12), 1 / 256, 0),
        tensor((1, 3, 2, 12), 0.005, -128, np.int8),
    )
    b.op("ADD", [peak, average], [total])
    b.op("LOGISTIC", [total], [curve])
    b.op("QUANTIZE", [curve], [other])
    flat, last = tensor((1, 72), 0.005, -128, np.int8), tensor((1, 10), 0.1, 3)
    b.op("RESHAPE", [other], [flat], newShape=[1, 72])
    scores = layer("FULLY_CONNECTED", flat, (1, 10), (10, 72), np.int8)
    b.op("QUANTIZE", [scores], [last])
    soft, real = tensor((1, 10), 1 / 256, 0), b.tensor((1, 10), np.float32)
    b.op("SOFTMAX", [last], [soft], beta=1.0)
    b.op("DEQUANTIZE", [soft], [real])
    return b.finish([image], [real])


@pytest.mark.parametrize("config", [PRESETS["Q"], SMALL], ids=["Q", "small"])
def test_network_of_uint8(config):
    check(unsigned_network(), config)


def wide_network() -> bytes:
    """int16 from int8 on the host: convolutions with either bias, moves, and fully connected layers whose factor the
    NPU has and has not.
    """
    rng, b = np.random.default_rng(4), ModelBuilder()

    scales = {}

    def tensor(shape, scale=0.0005):
        index = b.tensor(shape, np.int16, scale, 0)
        scales[index] = np.float32(scale)
        return index

    def layer(kind, source, shape, wgt_shape, wgt_scale=0.004, bias_dtype=np.int64, scale=0.002, axis=0, **options):
        num_oc = shape[-1]
        wgt_scales = np.array([wgt_scale * (1 + n % 3) for n in range(num_oc if wgt_scale != 0.25 else 1)], np.float32)
        wgt = b.tensor(wgt_shape, np.int8, wgt_scales, 0, axis, rng.integers(-127, 128, wgt_shape))
        bias = b.tensor(
            (num_oc,), bias_dtype, scales[source] * wgt_scales, 0, data=rng.integers(-(10**6), 10**6, num_oc)
        )
        target = tensor(shape, scale)
        if bias_dtype == np.int32:
            options["quantizedBiasType"] = TensorType.INT32
        b.op(kind, [source, wgt, bias], [target], **options)
        return target

    image, first = b.tensor((1, 9, 7, 3), np.int8, 0.05, 3), tensor((1, 9, 7, 3))
    b.op("QUANTIZE", [image], [first])
    conv = layer(
        "CONV_2D", first, (1, 9, 7, 6), (6, 3, 3, 3), strideH=1, strideW=1, padding=0, fusedActivationFunction=1
    )
    deep = layer(
        "DEPTHWISE_CONV_2D",
        conv,
        (1, 5, 4, 12),
        (1, 3, 3, 12),
        axis=3,
        scale=0.004,
        strideH=2,
        strideW=2,
        depthMultiplier=2,
        padding=0,
    )
    pads = b.tensor((4, 2), np.int32, data=np.array([[0, 0], [1, 0], [0, 1], [0, 0]]))
    padded, both, part = tensor((1, 6, 5, 12), 0.004), tensor((1, 6, 5, 24), 0.004), tensor((1, 6, 2, 7), 0.004)
    b.op("PAD", [deep, pads], [padded])
    b.op("CONCATENATION", [padded, padded], [both], axis=3)
    begin, end = (b.tensor((4,), np.int32, data=np.array(values)) for values in ([0, 0, 1, 9], [1, 6, 2, 7]))
    b.op("SLICE", [both, begin, end], [part])
    narrow = layer(
        "CONV_2D", part, (1, 3, 1, 5), (5, 2, 2, 7), bias_dtype=np.int32, scale=0.05, strideH=2, strideW=2, padding=1
    )
    flat = tensor((1, 15), 0.05)
    b.op("RESHAPE", [narrow], [flat], newShape=[1, 15])
    exact = layer("FULLY_CONNECTED", flat, (1, 20), (20, 15), wgt_scale=0.25, scale=0.05, bias_dtype=np.int32)
    last = layer("FULLY_CONNECTED", exact, (1, 4), (4, 20), scale=0.0917)
    return b.finish([image], [last])


@pytest.mark.parametrize("config", [PRESETS["Q"], SMALL], ids=["Q", "small"])
def test_network_of_int16(config):
    check(wide_network(), config)
    plan = compile_graph(read_tflite(wide_network()), config)
    assert [[op.index for op in step.ops] for step in plan.steps if isinstance(step, HostStep)] == [[0], [9]]


def test_int16_that_is_refused():
    rng = np.random.default_rng(1)
    weights, quant = rng.integers(-127, 128, (2, 3, 3, 4)).astype(np.int8), (0.001, 0)
    heavy, long_bias = np.full((1, 1, 1, 600), 127, np.int8), np.zeros(2, np.int64)
    for model, message in (
        (
            conv_model((1, 1, 1, 600), heavy, np.zeros(1, np.int32), quant, 1e-6, quant, dtype=np.int16),
            "the sums of a channel may exceed 32 bits",
        ),
        (
            conv_model((1, 9, 9, 4), weights, long_bias, (0.001, 1), 0.01, quant, dtype=np.int16),
            "'input' is int16 with a zero point; use 0",
        ),
        (
            pool_model("MAX_POOL_2D", (1, 900, 900, 1), (2, 2), (3, 3), quant, dtype=np.int16),
            "the 2 rows of 900 int16 of a pooling window exceed half of the TP buffer of 2 x 512 bytes",
        ),
    ):
        with pytest.raises(GraphError, match=message):
            compile_graph(read_tflite(model), SMALL, is_strict=True)


@settings(deadline=None, max_examples=30, derandomize=True)
@given(
    st.sampled_from(["MAX_POOL_2D", "AVERAGE_POOL_2D"]),
    st.tuples(*[st.integers(1, 20)] * 3),
    st.tuples(*[st.integers(1, 6)] * 2),
    st.tuples(*[st.integers(1, 4)] * 2),
    st.sampled_from(["SAME", "VALID"]),
    st.sampled_from(["NONE", "RELU6"]),
    configs(),
)
def test_pools_of_int16(kind, sizes, kernel, stride, padding, activation, config):
    kernel = tuple(min(size, extent) for size, extent in zip(kernel, sizes, strict=False))
    check(pool_model(kind, (1, *sizes), kernel, stride, (0.0005, 0), padding, activation, np.int16), config)


@pytest.mark.parametrize(
    ("kind", "kernel"), [("AVERAGE_POOL_2D", (30, 25)), ("MAX_POOL_2D", (30, 25)), ("AVERAGE_POOL_2D", (3, 2))]
)
def test_large_pools_of_int16(kind, kernel):
    """A window as large as the image, and images of more than a block."""
    model = pool_model(kind, (1, 30, 25, 3), kernel, (2, 1), (0.0005, 0), dtype=np.int16)
    check(model, PRESETS["Q"])
    if kernel == (3, 2):
        check(model, SMALL)


@pytest.mark.parametrize(
    ("acts", "weights", "zero_point", "scales", "message"),
    [
        (np.uint8, np.uint8, [3, 4], [0.1, 0.1], "needs one zero point, 0..255"),
        (np.int8, np.int8, 1, 0.1, "has a zero point; int8 weights of a CONV_2D are symmetric"),
        (np.int8, np.int16, 0, 0.1, "are int16; with activations of int8 LiteRT takes int8 only"),
    ],
)
def test_weights_that_are_refused(acts, weights, zero_point, scales, message):
    model = conv_model(
        (1, 4, 4, 3),
        np.ones((2, 1, 1, 3), weights),
        np.zeros(2, np.int32),
        (0.1, 0),
        scales,
        (0.1, 0),
        dtype=acts,
        weight_zero_point=zero_point,
    )
    with pytest.raises(GraphError, match=f"operator 0 CONV_2D .*{message}"):
        compile_graph(read_tflite(model), SMALL, is_strict=True)
