"""Networks of uint8, and of several dtypes, read from files: the plan on the golden machine against LiteRT, every tensor."""

import numpy as np
import pytest

from convoy.driver.compile import compile_graph
from convoy.driver.graph import GraphError
from convoy.driver.importers.tflite import read_tflite
from convoy.spec.config import PRESETS, NpuConfig
from convoy.verif.graphs import random_values, run_plan
from convoy.verif.litert import ModelBuilder, conv_model, run_reference

SMALL = NpuConfig(num_cores=2, num_lanes=8, num_acc_entries=16, post_lanes=2, stripe_bytes=4096, window_words=32, tp_buffer_bytes=1024)


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
    conv = layer("CONV_2D", first, (1, 9, 7, 6), (6, 3, 3, 3), strideH=1, strideW=1, padding=0, fusedActivationFunction=3)
    deep = layer("DEPTHWISE_CONV_2D", conv, (1, 5, 4, 12), (1, 3, 3, 12), strideH=2, strideW=2, depthMultiplier=2, padding=0)
    pads = b.tensor((4, 2), np.int32, data=np.array([[0, 0], [1, 0], [0, 1], [0, 0]]))
    padded = tensor((1, 6, 5, 12), 0.3, 120)
    b.op("PAD", [deep, pads], [padded])
    peak, average = tensor((1, 3, 2, 12), 0.3, 120), tensor((1, 3, 2, 12), 0.3, 120)
    for kind, pooled in (("MAX_POOL_2D", peak), ("AVERAGE_POOL_2D", average)):
        b.op(kind, [padded], [pooled], filterHeight=2, filterWidth=2, strideH=2, strideW=2, padding=1)
    total, curve, other = tensor((1, 3, 2, 12), 0.4, 77), tensor((1, 3, 2, 12), 1 / 256, 0), tensor((1, 3, 2, 12), 0.005, -128, np.int8)
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


@pytest.mark.parametrize(("weights", "zero_point", "scales", "message"), [
    (np.uint8, [3, 4], [0.1, 0.1], "needs one zero point, 0..255"), (np.int8, 1, 0.1, "has a zero point; int8 weights are symmetric"),
    (np.int16, 0, 0.1, "is int16; the NPU takes int8"),
])
def test_weights_that_are_refused(weights, zero_point, scales, message):
    model = conv_model((1, 4, 4, 3), np.ones((2, 1, 1, 3), weights), np.zeros(2, np.int32), (0.1, 0), scales, (0.1, 0), dtype=np.uint8,
                       weight_zero_point=zero_point)
    with pytest.raises(GraphError, match=f"operator 0 CONV_2D .*{message}"):
        compile_graph(read_tflite(model), SMALL)
