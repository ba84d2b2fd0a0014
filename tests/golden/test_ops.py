"""Golden layers against LiteRT's reference kernels on random layers, half of them with power-of-two scales that force ties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convoy.golden import ops
from convoy.golden.softmax import softmax
from convoy.verif import litert

SEEDS = st.integers(0, 2 ** 32 - 1)
ACTIVATIONS = ("NONE", "RELU", "RELU6", "RELU_N1_TO_1")
LAYERS = settings(max_examples=80)


class Draw:
    """Random layer parameters from one seed; `is_tied` layers have power-of-two scales."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)
        self.is_tied = seed % 2 == 0

    def extent(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    def pair(self, low: int, high: int) -> tuple[int, int]:
        return self.extent(low, high), self.extent(low, high)

    def acts(self, *shape: int) -> np.ndarray:
        return self.rng.integers(-128, 128, shape).astype(np.int8)

    def weights(self, *shape: int) -> np.ndarray:
        return self.rng.integers(-127, 128, shape).astype(np.int8)

    def bias(self, num_oc: int) -> np.ndarray:
        return self.rng.integers(-4000, 4000, num_oc).astype(np.int32)

    def scale(self, low: float, high: float, size: int | None = None) -> np.ndarray:
        if self.is_tied:
            return np.float32(2.0) ** self.rng.integers(round(np.log2(low)), round(np.log2(high)) + 1, size).astype(np.float32)
        return self.rng.uniform(low, high, size) if size is None else self.rng.uniform(low, high, size).astype(np.float32)

    def quant(self, low: float = 2 ** -5, high: float = 1.0) -> tuple[float, int]:
        return float(self.scale(low, high)), self.extent(-128, 127)

    def weight_scale(self, num_oc: int) -> np.ndarray:
        return self.scale(2 ** -9, 2 ** -5, num_oc if self.rng.random() < 0.7 else 1)

    def activation(self) -> str:
        return str(self.rng.choice(ACTIVATIONS))

    def padding(self, extents: tuple[int, int], spans: tuple[int, int]) -> str:
        return "VALID" if self.rng.random() < 0.4 and spans[0] <= extents[0] and spans[1] <= extents[1] else "SAME"


def reference(model: bytes, *inputs: np.ndarray) -> np.ndarray:
    tensors = litert.run_reference(model, inputs)
    return tensors[max(tensors)]


@LAYERS
@given(SEEDS)
def test_conv2d(seed):
    draw = Draw(seed)
    (num_ih, num_iw), kernel, num_oc = draw.pair(1, 12), draw.pair(1, 4), draw.extent(1, 9)
    dilation = (1, 1) if draw.extent(0, 2) else draw.pair(1, 2)
    padding = draw.padding((num_ih, num_iw), tuple((kernel[axis] - 1) * dilation[axis] + 1 for axis in (0, 1)))
    acts = draw.acts(2, num_ih, num_iw, draw.extent(1, 9))
    arguments = (draw.weights(num_oc, *kernel, acts.shape[3]), draw.bias(num_oc), draw.quant(),
                 draw.weight_scale(num_oc), draw.quant(), draw.pair(1, 3), dilation, padding, draw.activation())
    np.testing.assert_array_equal(ops.conv2d(acts, *arguments), reference(litert.conv_model(acts.shape, *arguments), acts))


@LAYERS
@given(SEEDS)
def test_depthwise_conv2d(seed):
    draw = Draw(seed)
    (num_ih, num_iw), kernel = draw.pair(1, 12), draw.pair(1, 4)
    dilation, stride = ((1, 1), draw.extent(1, 3)) if draw.extent(0, 2) else (draw.pair(1, 2), 1)
    padding = draw.padding((num_ih, num_iw), tuple((kernel[axis] - 1) * dilation[axis] + 1 for axis in (0, 1)))
    acts = draw.acts(2, num_ih, num_iw, draw.extent(1, 9))
    num_oc = acts.shape[3] * draw.extent(1, 3)
    arguments = (draw.weights(1, *kernel, num_oc), draw.bias(num_oc), draw.quant(), draw.weight_scale(num_oc), draw.quant(),
                 (stride, stride), dilation, padding, draw.activation())
    np.testing.assert_array_equal(ops.depthwise_conv2d(acts, *arguments), reference(litert.depthwise_model(acts.shape, *arguments), acts))


@LAYERS
@given(SEEDS)
def test_fully_connected(seed):
    draw = Draw(seed)
    num_oc = draw.extent(2, 300)
    acts = draw.acts(draw.extent(1, 20), draw.extent(1, 50))
    arguments = (draw.weights(num_oc, acts.shape[1]), draw.bias(num_oc), draw.quant(), draw.weight_scale(num_oc), draw.quant(), draw.activation())
    np.testing.assert_array_equal(ops.fully_connected(acts, *arguments), reference(litert.fully_connected_model(acts.shape, *arguments), acts))


@given(SEEDS)
def test_fully_connected_near_ties(seed):
    """Biases chosen so that the products come as close to a tie as they can: per-channel layers do not quantise the factor."""
    rng = np.random.default_rng(seed)
    input_scale, output_scale = np.float32(rng.uniform(0.01, 0.1)), np.float32(rng.uniform(0.1, 0.3))
    num_oc = 1000
    scales = rng.uniform(0.001, 0.02, num_oc if seed % 2 else 1).astype(np.float32)
    factors = float(input_scale) * np.broadcast_to(scales, num_oc).astype(np.float64) / float(output_scale)
    accs = rng.integers(1, 20000, (num_oc, 200))
    bias = accs[np.arange(num_oc), np.abs(accs * factors[:, None] % 1 - 0.5).argmin(axis=1)] * rng.choice([-1, 1], num_oc)
    arguments = (np.zeros((num_oc, 1), np.int8), bias.astype(np.int32), (input_scale, 0), scales, (output_scale, 0), "NONE")
    acts = np.zeros((1, 1), np.int8)
    np.testing.assert_array_equal(ops.fully_connected(acts, *arguments), reference(litert.fully_connected_model(acts.shape, *arguments), acts))


@LAYERS
@given(SEEDS)
def test_add(seed):
    draw = Draw(seed)
    a, b = draw.acts(2, 5, 6, 7), draw.acts(2, 5, 6, 7)
    arguments = (draw.quant(), draw.quant(), draw.quant(), draw.activation())
    np.testing.assert_array_equal(ops.add(a, b, *arguments), reference(litert.add_model(a.shape, *arguments), a, b))


@pytest.mark.parametrize(("kind", "layer"), [("MAX_POOL_2D", ops.max_pool), ("AVERAGE_POOL_2D", ops.average_pool)])
@given(seed=SEEDS)
def test_pool(kind, layer, seed):
    draw = Draw(seed)
    (num_ih, num_iw), kernel = draw.pair(1, 12), draw.pair(1, 5)
    acts = draw.acts(2, num_ih, num_iw, draw.extent(1, 5))
    arguments = (kernel, draw.pair(1, 3), draw.quant(), draw.padding((num_ih, num_iw), kernel), draw.activation())
    np.testing.assert_array_equal(layer(acts, *arguments), reference(litert.pool_model(kind, acts.shape, *arguments), acts))


@LAYERS
@given(SEEDS)
def test_softmax(seed):
    draw = Draw(seed)
    acts = draw.acts(4, draw.extent(1, 200))
    acts[0] //= 16
    scale, beta = float(draw.scale(2 ** -8, 1.0)), float(draw.rng.choice([0.5, 1.0, 2.0]))
    np.testing.assert_array_equal(softmax(acts, scale, beta), reference(litert.softmax_model(acts.shape, (scale, 3), beta), acts))


def test_softmax_of_equal_inputs():
    """Four equal inputs: 1/4 each, that is 64 - 128; a single one: 1, clamped to 255 - 128."""
    assert softmax(np.zeros((1, 4), np.int8), 0.1).tolist() == [[-64] * 4]
    assert softmax(np.zeros((1, 1), np.int8), 0.1).tolist() == [[127]]


@given(SEEDS)
def test_unary(seed):
    draw = Draw(seed)
    acts = draw.acts(6, 50)
    source, target = draw.quant(), draw.quant()
    for kind in ACTIVATIONS[1:]:
        np.testing.assert_array_equal(ops.relu(acts, source, target, kind), reference(litert.unary_model(kind, acts.shape, source, target), acts))
    np.testing.assert_array_equal(ops.requantize(acts, source, target), reference(litert.unary_model("QUANTIZE", acts.shape, source, target), acts))
    values = (acts * target[0] / 2).astype(np.float32)
    model = litert.unary_model("QUANTIZE", acts.shape, (1.0, 0), target, (np.float32, np.int8))
    np.testing.assert_array_equal(ops.quantize(values, target), reference(model, values))
    model = litert.unary_model("DEQUANTIZE", acts.shape, source, (1.0, 0), (np.int8, np.float32))
    np.testing.assert_array_equal(ops.dequantize(acts, source), reference(model, acts))


def test_explicit_pads_equal_same():
    draw = Draw(4)
    acts, weights = draw.acts(1, 6, 7, 3), draw.weights(2, 3, 3, 3)
    same = ops.conv2d(acts, weights, None, (0.5, 3), 0.01, (0.5, 1), stride=(2, 2))
    np.testing.assert_array_equal(same, ops.conv2d(acts, weights, None, (0.5, 3), 0.01, (0.5, 1), stride=(2, 2), padding=(0, 1, 1, 1)))


def test_reshape_and_pad():
    acts = np.arange(6, dtype=np.int8).reshape(1, 2, 3)
    assert ops.reshape(acts, (3, -1)).tolist() == [[0, 1], [2, 3], [4, 5]]
    assert ops.pad(acts, [(0, 0), (1, 0), (0, 1)], -7).tolist() == [[[-7] * 4, [0, 1, 2, -7], [3, 4, 5, -7]]]


@LAYERS
@given(SEEDS)
def test_mean(seed):
    draw = Draw(seed)
    acts, source, target = draw.acts(1, draw.extent(1, 30), draw.extent(1, 30), 5), draw.quant(), draw.quant()
    builder = litert.ModelBuilder()
    inputs = [builder.tensor(acts.shape, np.int8, *source), builder.tensor((2,), np.int32, data=np.array([1, 2]))]
    output = builder.tensor((1, 5), np.int8, *target)
    builder.op("MEAN", inputs, [output], keepDims=False)
    np.testing.assert_array_equal(ops.mean(acts, source, target), litert.run_reference(builder.finish(inputs[:1], [output]), acts)[output])


def test_moves():
    acts = np.arange(12, dtype=np.int8).reshape(1, 3, 2, 2)
    assert ops.strided_slice(acts, [0, None, -1, 1], [1, 3, 2, None], [1, 2, 1, 1]).ravel().tolist() == [3, 11]
    assert ops.concatenate([acts, acts + 12], 3)[0, 0, 1].tolist() == [2, 3, 14, 15]
    assert ops.resize_nearest(acts[:, :1], (2, 6))[0, :, :, 1].tolist() == [[1, 1, 1, 3, 3, 3]] * 2


def test_refusals():
    with pytest.raises(ValueError, match="activation = 'TANH' is unknown: use NONE, RELU, RELU6, RELU_N1_TO_1"):
        ops.activation_range("TANH", (1.0, 0))
    with pytest.raises(ValueError, match="padding = 'FULL' is unknown"):
        ops.max_pool(np.zeros((1, 2, 2, 1), np.int8), (2, 2), (1, 1), padding="FULL")
    builder = litert.ModelBuilder()
    with pytest.raises(ValueError, match="operator LSTM is unknown"):
        builder.op("LSTM", [], [])
    with pytest.raises(ValueError, match="operator SOFTMAX has no option alpha"):
        builder.op("SOFTMAX", [0], [1], alpha=1.0)
    with pytest.raises(ValueError, match="tensor x: 3 values for the shape"):
        builder.tensor((2, 2), data=np.zeros(3), name="x")
