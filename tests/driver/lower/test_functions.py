"""Parts of a network that are functions of one byte: which are found, and their tables, against LiteRT."""

import numpy as np
import pytest

from convoy.driver.graph.graph import Op, Runtime
from convoy.driver.graph.tflite_reader import load_tflite
from convoy.driver.lower.functions import find_functions, paired, tabulated
from convoy.verif.graphs import GraphMaker
from convoy.verif.litert import ModelBuilder, run_reference

SHAPE = (1, 16, 16, 1)


def found(graph, kept=()):
    """(operators, source, target) of each function, and what is idle."""
    functions, idle = find_functions(graph, kept)
    return [([op.index for op in f.ops], f.sources[0], f.target) for f in functions], sorted(idle)


def swish(maker, x):
    return maker.op("MUL", (x, maker.op("LOGISTIC", (x,), SHAPE)), SHAPE)


def test_a_product_with_its_own_sigmoid():
    maker = GraphMaker(1)
    x = maker.tensor(SHAPE)
    y = swish(maker, x)
    assert found(maker.graph([x], [y])) == ([([0, 1], x, y)], [0])
    assert found(maker.graph([x], [y, maker.ops[0].outputs[0]])) == ([([0, 1], x, y)], [])
    assert found(maker.graph([x], [y]), kept={0}) == ([], [])


def test_the_nearest_tensor_that_is_read_elsewhere_is_the_source():
    """Otherwise the farthest one, so that tables before are part of it."""
    maker = GraphMaker(2)
    x = maker.tensor(SHAPE)
    middle = maker.op("TANH", (x,), SHAPE)
    y = swish(maker, middle)
    assert found(maker.graph([x], [y])) == ([([0, 1, 2], x, y)], [0, 1])
    assert found(maker.graph([x], [y, middle])) == ([([1, 2], middle, y)], [1])
    z = swish(maker, y)
    pooled = maker.op("SOFTMAX", (y,), SHAPE)
    assert found(maker.graph([x], [z, pooled])) == ([([0, 1, 2], x, y), ([3, 4], y, z)], [0, 1, 3])


def test_what_is_no_function_of_one_byte():
    maker = GraphMaker(3)
    x, other = maker.tensor(SHAPE), maker.tensor(SHAPE)
    gate = maker.op("MUL", (x, maker.op("LOGISTIC", (other,), SHAPE)), SHAPE)
    assert found(maker.graph([x, other], [gate])) == ([], [])
    maker.ops.clear()
    tables = maker.op("TANH", (maker.op("RELU", (x,), SHAPE),), SHAPE)
    assert found(maker.graph([x], [tables])) == ([], [])
    maker.ops.clear()
    vector = maker.tensor((1, 1, 16, 1), data=np.arange(16, dtype=np.int8).reshape(1, 1, 16, 1))
    scaled = maker.op("MUL", (x, vector), SHAPE)
    assert found(maker.graph([x], [maker.op("ADD", (scaled, scaled), SHAPE)]))[0] == [([1], scaled, scaled + 1)]


def h_swish(builder, x, dtype, offset):
    """x * relu6(x + 3) / 6 in four operators, each with a scale of its own."""
    three, sixth = (
        builder.tensor((1, 1, 1, 1), dtype, scale, offset - 128, data=np.full((1, 1, 1, 1), offset + 127))
        for scale in (3 / 255, 1 / 6 / 255)
    )
    a, b, c, y = (builder.tensor(SHAPE, dtype, scale, offset - 128) for scale in (0.05, 0.024, 0.004, 0.03))
    builder.op("ADD", [x, three], [a])
    builder.op("RELU6", [a], [b])
    builder.op("MUL", [b, sixth], [c])
    builder.op("MUL", [c, x], [y])
    return y


def in_float(builder, x, dtype, offset):
    a, b, c = (builder.tensor(SHAPE, np.float32) for _ in range(3))
    y = builder.tensor(SHAPE, dtype, 0.02, offset - 50)
    builder.op("DEQUANTIZE", [x], [a])
    builder.op("LOGISTIC", [a], [b], version=1)
    builder.op("MUL", [a, b], [c])
    builder.op("QUANTIZE", [c], [y])
    return y


def difference(builder, x, dtype, offset):
    squares, y = builder.tensor(SHAPE, dtype, 0.03, offset - 128), builder.tensor(SHAPE, dtype, 0.03, offset)
    builder.op("MUL", [x, x], [squares])
    builder.op("SUB", [squares, x], [y])
    return y


def chosen(builder, x, dtype, offset):
    """Numbers below a limit are left out."""
    limit = builder.tensor(SHAPE, dtype, 0.05, offset, data=np.full(SHAPE, offset + 30))
    least = builder.tensor(SHAPE, dtype, 0.05, offset, data=np.full(SHAPE, offset - 99))
    is_large, y = builder.tensor(SHAPE, np.bool_), builder.tensor(SHAPE, dtype, 0.05, offset)
    builder.op("GREATER", [x, limit], [is_large])
    builder.op("SELECT_V2", [is_large, x, least], [y])
    return y


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@pytest.mark.parametrize("make", [h_swish, in_float, difference, chosen])
def test_tables_are_those_of_the_reference_kernels(make, dtype):
    builder, offset = ModelBuilder(), 128 * (dtype == np.uint8)
    x = builder.tensor(SHAPE, dtype, 0.05, offset)
    y = make(builder, x, dtype, offset)
    loaded = load_tflite(builder.finish([x], [y]))
    (function,), idle = find_functions(loaded.graph)
    assert len(function.ops) == len(loaded.graph.ops) == len(idle) + 1
    table, note = tabulated(loaded.graph, function)
    values = np.arange(256, dtype=np.uint8)
    expected = run_reference(loaded.data, values.view(dtype).reshape(SHAPE))[loaded.graph.outputs[0]].reshape(-1)
    got = table[(values - np.uint8(offset)).view(np.uint8)]
    np.testing.assert_array_equal(got, (expected.view(np.uint8) - np.uint8(offset)).view(np.int8))
    assert note == ""


def test_values_that_kernels_refuse_give_0():
    builder = ModelBuilder()
    x, root, y = (builder.tensor(SHAPE, np.int8, scale, 0) for scale in (0.05, 0.02, 0.01))
    builder.op("SQRT", [x], [root])
    builder.op("MUL", [root, x], [y])
    graph = load_tflite(builder.finish([x], [y])).graph
    (function,), _ = find_functions(graph)
    table, note = tabulated(graph, function)
    assert (note, table[128:].any(), table[:128].all()) == ("inputs that LiteRT refuses give 0", False, False)
    assert table[1:128].all()


def test_tables_of_onnxruntime_are_looked_up():
    maker, rng = GraphMaker(4), np.random.default_rng(5)
    x = maker.tensor(SHAPE)
    gate, y = maker.tensor(SHAPE), maker.tensor(SHAPE)
    table = rng.integers(-128, 128, 256).astype(np.int8)
    pairs = rng.integers(-128, 128, (256, 256)).astype(np.int8)
    maker.ops.append(Op(0, "LOGISTIC", (x,), (gate,), {"table": table}))
    maker.ops.append(Op(1, "MUL", (gate, x), (y,), {"pairs": pairs}))
    graph = maker.graph([x], [y])
    object.__setattr__(graph, "runtime", Runtime.ONNXRUNTIME)
    (function,), _ = find_functions(graph)
    got, _ = tabulated(graph, function)
    for value in (-128, -1, 0, 77):
        assert got[value & 255] == pairs[int(table[value & 255]) + 128, value + 128]


def float_sum(dtype, kind="ADD", is_read=False):
    """(network, graph) of two bytes brought together in float, with a function of one operand and one behind."""
    builder, offset = ModelBuilder(), 128 * (dtype == np.uint8)
    a, b = (builder.tensor((1, 256, 256, 1), dtype, scale, offset + zero) for scale, zero in ((0.05, 3), (0.03, -7)))
    x, y, z, total = (builder.tensor((1, 256, 256, 1), np.float32) for _ in range(4))
    target = builder.tensor((1, 256, 256, 1), dtype, 0.06, offset - 100)
    builder.op("DEQUANTIZE", [a], [x])
    builder.op("DEQUANTIZE", [b], [y])
    builder.op("RELU", [y], [z])
    builder.op(kind, [z, x], [total])
    builder.op("QUANTIZE", [total], [target])
    model = builder.finish([a, b], [target, *[total] * is_read])
    return model, load_tflite(model).graph


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@pytest.mark.parametrize("kind", ["ADD", "MUL"])
def test_pairs_are_those_of_the_reference_kernels(kind, dtype):
    model, graph = float_sum(dtype, kind)
    (function,), idle = find_functions(graph)
    assert (function.pair, function.sources) == (graph.ops[3], graph.inputs[::-1])
    assert (len(function.ops), len(idle)) == (5, 4)
    b, a = np.indices((256, 256)).astype(np.uint8)
    signed = [(axis ^ 0x80).view(np.int8) if dtype == np.int8 else axis for axis in (a, b)]
    expected = run_reference(model, [axis.reshape(1, 256, 256, 1) for axis in signed])[graph.outputs[0]]
    expected = expected.reshape(256, 256).astype(int) - 128 * (dtype == np.uint8)
    np.testing.assert_array_equal(paired(graph, function), expected)


def test_what_others_read_of_a_pair_is_made_too():
    _, graph = float_sum(np.int8, is_read=True)
    (function,), idle = find_functions(graph)
    assert (len(function.ops), len(idle)) == (5, 0)


def test_sums_of_three_are_no_pairs():
    builder = ModelBuilder()
    bytes_ = [builder.tensor(SHAPE, np.int8, 0.05, 3) for _ in range(3)]
    first, last, target = *(builder.tensor(SHAPE, np.float32) for _ in range(2)), builder.tensor(SHAPE, np.int8, 0.1, 0)
    floats = [builder.tensor(SHAPE, np.float32) for _ in range(3)]
    for source, made in zip(bytes_, floats, strict=True):
        builder.op("DEQUANTIZE", [source], [made])
    builder.op("ADD", floats[:2], [first])
    builder.op("ADD", [first, floats[2]], [last])
    builder.op("QUANTIZE", [last], [target])
    assert find_functions(load_tflite(builder.finish(bytes_, [target])).graph) == ((), frozenset())
