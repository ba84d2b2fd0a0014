"""Golden layers against LiteRT's reference kernels on random layers, half of them with power-of-two scales that
force ties.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convoy.golden import ops
from convoy.golden.quant import float64_rounding, quantize_multiplier, single_rounding
from convoy.verif import litert

SEEDS = st.integers(0, 2**32 - 1)
ACTIVATIONS = ("NONE", "RELU", "RELU6", "RELU_N1_TO_1")
LAYERS = settings(max_examples=80)


class Draw:
    """Random layer parameters from one seed, which chooses among `dtypes` of activations; `is_tied` layers have
    power-of-two scales.
    """

    def __init__(self, seed: int, dtypes: tuple = (np.int8, np.uint8)):
        self.rng = np.random.default_rng(seed)
        self.is_tied = seed % 2 == 0
        self.dtype = dtypes[seed // 2 % len(dtypes)]
        self.weight_zero_point = self.extent(0, 255) if self.dtype == np.uint8 else 0

    def extent(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    def pair(self, low: int, high: int) -> tuple[int, int]:
        return self.extent(low, high), self.extent(low, high)

    def acts(self, *shape: int) -> np.ndarray:
        info = np.iinfo(self.dtype)
        return self.rng.integers(info.min, info.max, shape, self.dtype, endpoint=True)

    def weights(self, *shape: int) -> np.ndarray:
        if self.dtype == np.uint8:
            return self.rng.integers(0, 256, shape).astype(np.uint8)
        return self.rng.integers(-127, 128, shape).astype(np.int8)

    def bias(self, num_oc: int, is_narrow: bool = True) -> np.ndarray:
        """int32, or with int16 activations int64, unless `is_narrow` and chance decide otherwise."""
        if self.dtype != np.int16:
            return self.rng.integers(-4000, 4000, num_oc).astype(np.int32)
        if is_narrow and self.rng.random() < 0.5:
            return self.rng.integers(-400_000, 400_000, num_oc).astype(np.int32)
        return self.rng.integers(-400_000, 400_000, num_oc) << self.extent(0, 12)

    def scale(self, low: float, high: float, size: int | None = None) -> np.ndarray:
        if self.is_tied:
            return np.float32(2.0) ** self.rng.integers(round(np.log2(low)), round(np.log2(high)) + 1, size).astype(
                np.float32
            )
        return (
            self.rng.uniform(low, high, size) if size is None else self.rng.uniform(low, high, size).astype(np.float32)
        )

    def quant(self, low: float = 2**-5, high: float = 1.0) -> tuple[float, int]:
        if self.dtype == np.int16:
            return float(self.scale(low / 256, high / 256)), 0
        return float(self.scale(low, high)), self.extent(-128, 127) + 128 * (self.dtype == np.uint8)

    def weight_scale(self, num_oc: int) -> np.ndarray:
        return self.scale(2**-9, 2**-5, num_oc if self.rng.random() < 0.7 and self.dtype != np.uint8 else 1)

    def activation(self) -> str:
        return str(self.rng.choice(ACTIVATIONS))

    def padding(self, extents: tuple[int, int], spans: tuple[int, int]) -> str:
        return "VALID" if self.rng.random() < 0.4 and spans[0] <= extents[0] and spans[1] <= extents[1] else "SAME"


def reference(model: bytes, *inputs: np.ndarray) -> np.ndarray:
    tensors = litert.run_reference(model, inputs)
    return tensors[max(tensors)]


def check(layer, model, draw: Draw, acts: np.ndarray, arguments: tuple) -> None:
    """A layer with weights against its one-operator model."""
    zero_point = draw.weight_zero_point
    expected = reference(model(acts.shape, *arguments, dtype=draw.dtype, weight_zero_point=zero_point), acts)
    np.testing.assert_array_equal(layer(acts, *arguments, weight_zero_point=zero_point), expected)


@LAYERS
@given(SEEDS)
def test_conv2d(seed):
    draw = Draw(seed, (np.int8, np.uint8, np.int16))
    (num_ih, num_iw), kernel, num_oc = draw.pair(1, 12), draw.pair(1, 4), draw.extent(1, 9)
    dilation = (1, 1) if draw.extent(0, 2) else draw.pair(1, 2)
    padding = draw.padding((num_ih, num_iw), tuple((kernel[axis] - 1) * dilation[axis] + 1 for axis in (0, 1)))
    acts = draw.acts(2, num_ih, num_iw, draw.extent(1, 9))
    arguments = (
        draw.weights(num_oc, *kernel, acts.shape[3]),
        draw.bias(num_oc),
        draw.quant(),
        draw.weight_scale(num_oc),
        draw.quant(),
        draw.pair(1, 3),
        dilation,
        padding,
        draw.activation(),
    )
    check(ops.conv2d, litert.conv_model, draw, acts, arguments)


@LAYERS
@given(SEEDS)
def test_depthwise_conv2d(seed):
    draw = Draw(seed, (np.int8, np.uint8, np.int16))
    (num_ih, num_iw), kernel = draw.pair(1, 12), draw.pair(1, 4)
    dilation, stride = ((1, 1), draw.extent(1, 3)) if draw.extent(0, 2) else (draw.pair(1, 2), 1)
    padding = draw.padding((num_ih, num_iw), tuple((kernel[axis] - 1) * dilation[axis] + 1 for axis in (0, 1)))
    acts = draw.acts(2, num_ih, num_iw, draw.extent(1, 9))
    num_oc = acts.shape[3] * draw.extent(1, 3)
    arguments = (
        draw.weights(1, *kernel, num_oc),
        draw.bias(num_oc, is_narrow=False),
        draw.quant(),
        draw.weight_scale(num_oc),
        draw.quant(),
        (stride, stride),
        dilation,
        padding,
        draw.activation(),
    )
    check(ops.depthwise_conv2d, litert.depthwise_model, draw, acts, arguments)


@LAYERS
@given(SEEDS)
def test_fully_connected(seed):
    draw = Draw(seed, (np.int8, np.uint8, np.int16))
    num_oc = draw.extent(2, 300)
    acts = draw.acts(draw.extent(1, 20), draw.extent(1, 50))
    arguments = (
        draw.weights(num_oc, acts.shape[1]),
        draw.bias(num_oc),
        draw.quant(),
        draw.weight_scale(num_oc),
        draw.quant(),
        draw.activation(),
    )
    check(ops.fully_connected, litert.fully_connected_model, draw, acts, arguments)


@given(SEEDS)
def test_fully_connected_does_not_quantise_the_factor(seed):
    """Biases next to ties, where the product by the factor and the product by its quantised form lie on different
    sides.
    """
    draw = Draw(seed, (np.int8, np.uint8, np.int16))
    max_out, max_acc = (30_000, 1 << 25) if draw.dtype == np.int16 else (120, 1 << 22)
    accs = np.zeros(0, np.int64)
    while not accs.size:
        input_scale, weight_scale = np.float32(draw.rng.uniform(1e-4, 1e-3)), np.float32(draw.rng.uniform(0.001, 0.02))
        output_scale = np.float32(float(input_scale) * float(weight_scale) * max_acc / max_out)
        factor = float(input_scale) * float(weight_scale) / float(output_scale)
        near = (np.floor((np.arange(max_out) + 0.5) / factor)[:, None] + np.arange(-1, 3)).ravel().astype(np.int64)
        accs = near[float64_rounding(near, factor) != single_rounding(near, *quantize_multiplier(factor))]
    bias = np.concatenate([accs, -accs]).astype(np.int32)
    zero_point = 128 * (draw.dtype == np.uint8)
    scales = np.full(bias.size if seed % 2 and not zero_point else 1, weight_scale)
    arguments = (
        np.full((bias.size, 1), draw.weight_zero_point, draw.weights(1).dtype),
        bias,
        (input_scale, zero_point),
        scales,
        (output_scale, zero_point),
        "NONE",
    )
    check(ops.fully_connected, litert.fully_connected_model, draw, np.zeros((1, 1), draw.dtype), arguments)


@LAYERS
@given(SEEDS)
def test_add(seed):
    draw = Draw(seed, (np.int8, np.uint8, np.int16))
    a, b = draw.acts(2, 5, 6, 7), draw.acts(2, 5, 6, 7)
    arguments = (draw.quant(), draw.quant(), draw.quant(), draw.activation())
    np.testing.assert_array_equal(
        ops.add(a, b, *arguments), reference(litert.add_model(a.shape, *arguments, dtype=draw.dtype), a, b)
    )
    if draw.dtype == np.int16:
        difference = reference(litert.add_model(a.shape, *arguments, dtype=draw.dtype, kind="SUB"), a, b)
        np.testing.assert_array_equal(ops.add(a, b, *arguments, sign=-1), difference)


@LAYERS
@given(SEEDS)
def test_multiply(seed):
    draw = Draw(seed, (np.int8, np.uint8, np.int16))
    a, b = draw.acts(2, 5, 6, 7), draw.acts(2, 5, 6, 7)
    quants = [draw.quant(), draw.quant(), draw.quant()]
    if draw.dtype == np.int16:  # products over the whole range, the least value times itself too, and a factor below 1
        quants[2] = (float(np.float32(quants[0][0] * quants[1][0] * 2.0 ** draw.extent(1, 16))), 0)
        a[0, 0, 0, 0] = b[0, 0, 0, 0] = -32768
    activation = draw.activation()
    np.testing.assert_array_equal(
        ops.multiply(a, b, *quants, activation),
        reference(litert.add_model(a.shape, *quants, activation, dtype=draw.dtype, kind="MUL"), a, b),
    )


@LAYERS
@given(SEEDS)
def test_sums_of_scales_that_are_powers_of_two(seed):
    """As files of int16 may ask for: one operand's scale is the result's, the other's is smaller."""
    draw = Draw(seed, (np.int16,))
    a, b = draw.acts(2, 5, 6, 7), draw.acts(2, 5, 6, 7)
    logs = [draw.extent(-16, -8), -8, -8]
    quants = [(2.0**log, 0) for log in (logs if draw.extent(0, 1) else [logs[1], logs[0], logs[2]])]
    for kind, sign in (("ADD", 1), ("SUB", -1)):
        activation = draw.activation()
        model = litert.add_model(a.shape, *quants, activation, dtype=np.int16, kind=kind, has_pot_scales=True)
        np.testing.assert_array_equal(
            ops.add(a, b, *quants, activation, sign, has_pot_scales=True), reference(model, a, b)
        )


@pytest.mark.parametrize(("kind", "layer"), [("MAX_POOL_2D", ops.max_pool), ("AVERAGE_POOL_2D", ops.average_pool)])
@given(seed=SEEDS)
def test_pool(kind, layer, seed):
    draw = Draw(seed, (np.int8, np.uint8, np.int16))
    (num_ih, num_iw), kernel = draw.pair(1, 12), draw.pair(1, 5)
    acts = draw.acts(2, num_ih, num_iw, draw.extent(1, 5))
    arguments = (kernel, draw.pair(1, 3), draw.quant(), draw.padding((num_ih, num_iw), kernel), draw.activation())
    np.testing.assert_array_equal(
        layer(acts, *arguments), reference(litert.pool_model(kind, acts.shape, *arguments, dtype=draw.dtype), acts)
    )


@given(SEEDS)
def test_unary(seed):
    draw = Draw(seed)
    dtype = draw.dtype
    acts = draw.acts(6, 50)
    source, target = draw.quant(), draw.quant()
    for kind in ACTIVATIONS[1:]:
        model = litert.unary_model(kind, acts.shape, source, target, (dtype, dtype))
        np.testing.assert_array_equal(ops.relu(acts, source, target, kind), reference(model, acts))
    for other, zero_point in ((dtype, target[1]), (np.int8, 5), (np.uint8, 100)):
        model = litert.unary_model("QUANTIZE", acts.shape, source, (target[0], zero_point), (dtype, other))
        np.testing.assert_array_equal(
            ops.requantize(acts, source, (target[0], zero_point), other), reference(model, acts)
        )
    values = (acts * target[0] / 2).astype(np.float32)
    model = litert.unary_model("QUANTIZE", acts.shape, (1.0, 0), target, (np.float32, dtype))
    np.testing.assert_array_equal(ops.quantize(values, target, dtype), reference(model, values))
    model = litert.unary_model("DEQUANTIZE", acts.shape, source, (1.0, 0), (dtype, np.float32))
    np.testing.assert_array_equal(ops.dequantize(acts, source), reference(model, acts))


def test_explicit_pads_equal_same():
    draw = Draw(4, (np.int8,))
    acts, weights = draw.acts(1, 6, 7, 3), draw.weights(2, 3, 3, 3)
    same = ops.conv2d(acts, weights, None, (0.5, 3), 0.01, (0.5, 1), stride=(2, 2))
    np.testing.assert_array_equal(
        same, ops.conv2d(acts, weights, None, (0.5, 3), 0.01, (0.5, 1), stride=(2, 2), padding=(0, 1, 1, 1))
    )


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
    inputs = [builder.tensor(acts.shape, draw.dtype, *source), builder.tensor((2,), np.int32, data=np.array([1, 2]))]
    output = builder.tensor((1, 5), draw.dtype, *target)
    builder.op("MEAN", inputs, [output], keepDims=False)
    np.testing.assert_array_equal(
        ops.mean(acts, source, target), litert.run_reference(builder.finish(inputs[:1], [output]), acts)[output]
    )


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
