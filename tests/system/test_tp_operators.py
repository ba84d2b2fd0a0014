"""The operators of the tensor processor in one network, on the compiled RTL, every tensor against LiteRT."""

import numpy as np
import pytest

from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.devices import open_device
from convoy.driver.graph.tflite_reader import read_tflite
from convoy.driver.runtime.device import MemoryModel
from convoy.driver.runtime.session import Session
from convoy.spec.config import PRESETS
from convoy.verif.litert import ModelBuilder, run_reference


class Net:
    """A file put together operator by operator."""

    def __init__(self):
        self.builder, self.rng, self.outputs = ModelBuilder("operators"), np.random.default_rng(4), []

    def constant(self, shape, dtype=np.int8, data=None, **quant):
        data = self.rng.integers(-128, 128, shape) if data is None else np.array(data)
        return self.builder.tensor(shape, dtype, data=data, **quant)

    def op(self, kind, inputs, shape, scale=0.05, zero_point=3, **options):
        """The output of an operator; all of them are outputs of the network, so that nothing is fused."""
        target = self.builder.tensor(shape, np.int8, scale, zero_point)
        self.builder.op(kind, inputs, [target], **options)
        self.outputs.append(target)
        return target


def network() -> bytes:
    """Resizes of several kinds, elementwise operators with operands of several shapes, a transposed convolution,
    rearrangements.
    """
    net, shape = Net(), (1, 20, 17, 8)
    source = net.builder.tensor((1, 12, 10, 8), np.int8, 0.05, 3)
    size = net.constant((2,), np.int32, shape[1:3])
    smooth = net.op("RESIZE_BILINEAR", [source, size], shape, halfPixelCenters=True)
    corners = net.op("RESIZE_BILINEAR", [source, size], shape, alignCorners=True)
    nearest = net.op("RESIZE_NEAREST_NEIGHBOR", [source, size], shape)
    difference = net.op("SUB", [smooth, nearest], shape, 0.07, -9, fusedActivationFunction=0)
    gate = net.op("MEAN", [corners, net.constant((2,), np.int32, [1, 2])], (1, 1, 1, 8), keepDims=True)
    product = net.op("MUL", [gate, difference], shape, 0.01, 5, fusedActivationFunction=1)
    shifted = net.op("ADD", [product, net.constant((8,), scale=0.02, zero_point=7)], shape, fusedActivationFunction=0)
    largest = net.op("MAXIMUM", [shifted, net.constant((1, 20, 1, 1), scale=0.05, zero_point=3)], shape)
    least = net.op("MINIMUM", [corners, largest], shape)
    deep = net.op("DEPTH_TO_SPACE", [least], (1, 40, 34, 2), blockSize=2)
    weights = net.constant((5, 4, 3, 2), scale=[0.01, 0.02, 0.004, 0.03, 0.011], zero_point=0, axis=0)
    bias = net.constant((5,), np.int32, scale=[0.0005, 0.001, 0.0002, 0.0015, 0.00055], zero_point=0, axis=0)
    wide = net.op(
        "TRANSPOSE_CONV",
        [net.constant((4,), np.int32, [1, 79, 102, 5]), weights, deep, bias],
        (1, 79, 102, 5),
        0.1,
        strideH=2,
        strideW=3,
    )
    net.op("TRANSPOSE", [wide, net.constant((4,), np.int32, [0, 3, 1, 2])], (1, 5, 79, 102), 0.1)
    net.op("REDUCE_MAX", [wide, net.constant((2,), np.int32, [1, 2])], (1, 5), 0.1)
    net.op(
        "AVERAGE_POOL_2D", [wide], (1, 39, 34, 5), 0.1, filterHeight=3, filterWidth=2, strideH=2, strideW=3, padding=1
    )
    return net.builder.finish([source], net.outputs)


@pytest.mark.parametrize(
    "memory", [MemoryModel(), MemoryModel(latency_cycles=7, stall_percent=40, seed=3, is_shared=True)]
)
def test_operators_on_rtl(memory):
    model = network()
    plan = compile_graph(read_tflite(model), PRESETS["Q"], keep_tensors=True)
    inputs = np.random.default_rng(1).integers(-128, 128, (1, 12, 10, 8)).astype(np.int8)
    device = open_device("native", PRESETS["Q"], memory)
    try:
        tensors = Session(plan, device).run({plan.graph.inputs[0]: inputs}).tensors
    finally:
        device.close()
    expected = run_reference(model, inputs)
    for op in plan.graph.ops:
        np.testing.assert_array_equal(tensors[op.outputs[0]], expected[op.outputs[0]], err_msg=f"{op.index} {op.kind}")
