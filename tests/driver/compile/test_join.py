"""Functions of one byte become tables, which vanish behind a layer; against LiteRT and onnxruntime."""

import numpy as np
import pytest
from onnx import helper

from convoy.driver.compile.join import join_functions
from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.graph.graph import Part
from convoy.driver.graph.tflite_reader import load_tflite
from convoy.spec.config import PRESETS
from convoy.verif.litert import ModelBuilder
from convoy.verif.models import check_model
from convoy.verif.onnx_models import check_onnx, qdq_model

Q, SHAPE = PRESETS["Q"], (1, 5, 6, 4)


def kinds(model) -> list[str]:
    """The operators that stand in the file's place."""
    return [op.kind for op in join_functions(load_tflite(model).graph).ops]


def network(dtype, is_gate_read=False, is_trunk_read=False) -> bytes:
    """A convolution and its swish, whose parts others may read; then a second convolution."""
    builder, offset, rng = ModelBuilder(), 128 * (dtype == np.uint8), np.random.default_rng(1)
    source, trunk, last = (builder.tensor(SHAPE, dtype, scale, offset + 3) for scale in (0.05, 0.04, 0.1))
    gate, product = (builder.tensor(SHAPE, dtype, scale, offset - 100) for scale in (1 / 256, 0.02))

    def conv(a, b):
        weights = builder.tensor((4, 3, 3, 4), dtype, 0.01, offset, data=rng.integers(-128, 128, (4, 3, 3, 4)) + offset)
        bias = builder.tensor((4,), np.int32, data=rng.integers(-999, 999, 4))
        builder.op(
            "CONV_2D", [a, weights, bias], [b], padding=0, strideH=1, strideW=1, dilationHFactor=1, dilationWFactor=1
        )

    conv(source, trunk)
    builder.op("LOGISTIC", [trunk], [gate])
    builder.op("MUL", [gate, trunk], [product])
    conv(product, last)
    return builder.finish([source], [last, *[gate] * is_gate_read, *[trunk] * is_trunk_read])


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_a_swish_vanishes_into_the_convolution(dtype):
    model = network(dtype)
    assert kinds(model) == ["CONV_2D", "TABLE", "CONV_2D"]
    plan = check_model(model, Q)
    (step,) = plan.steps
    assert step.engines == {0: "nn+tp", 2: "fused", 3: "nn"}
    table = plan.graph.ops[1]
    assert (table.part, table.note) == (Part(2, "MUL", 1, 1), "one TABLE with operator 1 LOGISTIC")


@pytest.mark.parametrize(
    "read", [{"is_gate_read": True}, {"is_trunk_read": True}, {"is_gate_read": True} | {"is_trunk_read": True}]
)
def test_inner_results_that_others_read_stay(read):
    model = network(np.int8, **read)
    assert kinds(model) == ["CONV_2D", *["LOGISTIC"] * ("is_gate_read" in read), "TABLE", "CONV_2D"]
    check_model(model, Q)


def test_every_result_is_stored_without_fusions():
    graph = load_tflite(network(np.int8)).graph
    assert [op.kind for op in compile_graph(graph, Q, is_fusing=False).graph.ops] == [op.kind for op in graph.ops]


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@pytest.mark.parametrize("is_read_twice", [False, True])
def test_operators_in_float_become_one_table(dtype, is_read_twice):
    offset = 128 * (dtype == np.uint8)
    builder = ModelBuilder()
    source, target = builder.tensor(SHAPE, dtype, 0.05, offset + 3), builder.tensor(SHAPE, dtype, 0.02, offset - 5)
    a, b, c, d = (builder.tensor(SHAPE, np.float32) for _ in range(4))
    factor = builder.tensor((), np.float32, data=np.array(0.3))
    builder.op("DEQUANTIZE", [source], [a])
    builder.op("EXP", [a], [b], version=1)
    builder.op("MUL", [b, factor], [c])
    builder.op("TANH", [c], [d], version=1)
    builder.op("QUANTIZE", [d], [target])
    model = builder.finish([source], [target, c] if is_read_twice else [target])
    assert kinds(model) == [*["DEQUANTIZE", "EXP", "MUL"] * is_read_twice, "TABLE"]
    check_model(model, Q, num_host_steps=int(is_read_twice))


def test_what_the_runtime_does_not_compute_stays():
    builder = ModelBuilder()
    source, root, target = (builder.tensor(SHAPE, np.int8, 0.05, zero) for zero in (0, 0, 0))
    builder.op("HARD_SWISH", [source], [root])
    builder.op("SUB", [root, source], [target])
    graph = load_tflite(builder.finish([source], [target])).graph
    assert join_functions(graph, kept={1}) == graph


def float_residual(dtype, kind="ADD", activation=0, scales=(0.0513, 0.0391, 0.0637)) -> bytes:
    """A sum in float of a convolution and of what it reads."""
    builder, offset, rng = ModelBuilder(), 128 * (dtype == np.uint8), np.random.default_rng(2)
    source, trunk, target = (builder.tensor(SHAPE, dtype, s, offset + 3) for s in scales)
    weights = builder.tensor((4, 1, 1, 4), dtype, 0.01, offset, data=rng.integers(-128, 128, (4, 1, 1, 4)) + offset)
    bias = builder.tensor((4,), np.int32, data=rng.integers(-999, 999, 4))
    a, b, total = (
        builder.tensor(SHAPE, np.float32),
        builder.tensor(SHAPE, np.float32),
        builder.tensor(SHAPE, np.float32),
    )
    builder.op(
        "CONV_2D",
        [source, weights, bias],
        [trunk],
        padding=1,
        strideH=1,
        strideW=1,
        dilationHFactor=1,
        dilationWFactor=1,
    )
    builder.op("DEQUANTIZE", [trunk], [a])
    builder.op("DEQUANTIZE", [source], [b])
    builder.op(kind, [a, b], [total], fusedActivationFunction=activation)
    builder.op("QUANTIZE", [total], [target])
    return builder.finish([source], [target])


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@pytest.mark.parametrize(("kind", "activation"), [("ADD", 0), ("ADD", 1), ("SUB", 0), ("MUL", 0)])
def test_sums_in_float_of_two_bytes_are_sums_of_bytes(dtype, kind, activation):
    model = float_residual(dtype, kind, activation)
    assert kinds(model) == ["CONV_2D", kind]
    check_model(model, Q)


def test_a_sum_that_is_not_exact_stays_in_float():
    """Where many sums lie between two results, float32 decides which way each goes."""
    model = float_residual(np.int8, scales=(0.05, 0.04, 0.06))
    assert "QUANTIZE" in kinds(model)
    check_model(model, Q, num_host_steps=1)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_a_swish_of_onnxruntime_is_what_its_parts_are(dtype):
    """No pair of operands is in doubt, as those of its product would be."""

    def swish(x):
        names = ["gate_scale", "gate_zero_point"]
        nodes = [
            helper.make_node("Sigmoid", x, ["s"]),
            helper.make_node("QuantizeLinear", ["s", *names], ["s_bytes"]),
            helper.make_node("DequantizeLinear", ["s_bytes", *names], ["gate"]),
            helper.make_node("Mul", [*x, "gate"], ["y"]),
        ]
        return nodes, dict(zip(names, (np.float32(0.0041), np.array(np.iinfo(dtype).min, dtype)), strict=True))

    plan, hosted = check_onnx(qdq_model([(1, 6, 8, 9)], swish, dtype=dtype), Q)
    assert (hosted, plan.doubts) == (set(), {})
    assert [op.kind for op in plan.graph.ops if op.kind in ("TABLE", "LOGISTIC", "MUL")] == ["TABLE"]
