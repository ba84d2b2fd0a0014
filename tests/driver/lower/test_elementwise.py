"""Elementwise operators with broadcasting: files of one operator, compiled and run on the golden machine, against
LiteRT.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.graph.graph import GraphError
from convoy.driver.graph.tflite_reader import read_tflite
from convoy.spec.config import PRESETS, NpuConfig
from convoy.spec.isa import TP, TpOp
from convoy.verif.litert import ModelBuilder
from convoy.verif.models import check_model
from convoy.verif.strategies import configs

PROPERTY = settings(deadline=None, max_examples=30, derandomize=True)
KINDS = ["ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM"]


def model(kind, shape, shapes, quants, constant=None, activation=0, seed=0, dtype=np.int8, **others):
    """One operator on operands of `shapes`; number `constant` of them is constant.

    Zero points are those of int8; int16 has none.
    """
    quants = [
        (scale, 0 if dtype is np.int16 else zero_point + 128 * (dtype is np.uint8)) for scale, zero_point in quants
    ]
    builder, rng = ModelBuilder(kind), np.random.default_rng(seed)
    info = np.iinfo(dtype)
    operands = [
        builder.tensor(form, dtype, *quant, data=rng.integers(info.min, info.max + 1, form) if n == constant else None)
        for n, (form, quant) in enumerate(zip(shapes, quants[:2], strict=True))
    ]
    target = builder.tensor(shape, dtype, *quants[2])
    options = {} if kind in ("MAXIMUM", "MINIMUM") else {"fusedActivationFunction": activation} | others
    builder.op(kind, operands, [target], **options)
    return builder.finish([index for n, index in enumerate(operands) if n != constant], [target])


scales = st.one_of(st.sampled_from([0.25, 0.5, 0.0625]), st.floats(0.01, 0.9))
quantisations = st.tuples(*[st.tuples(scales, st.integers(-128, 127))] * 3)


@PROPERTY
@given(
    st.sampled_from(KINDS),
    st.tuples(*[st.integers(1, 12)] * 3),
    st.integers(0, 7),
    st.integers(0, 1),
    st.sampled_from([None, None, 0, 1]),
    quantisations,
    st.integers(0, 1),
    configs(),
    st.integers(0, 99),
    st.sampled_from([np.int8, np.uint8]),
)
def test_operators_broadcast(kind, sizes, repeated, smaller, constant, quants, activation, config, seed, dtype):
    """Any axes of one operand are 1."""
    if kind in ("MAXIMUM", "MINIMUM"):
        quants = (quants[0],) * 3
    full, small = (1, *sizes), (1, *(1 if repeated >> n & 1 else size for n, size in enumerate(sizes)))
    shapes = (small, full) if smaller == 0 else (full, small)
    check_model(model(kind, full, shapes, quants, constant, activation, seed, dtype), config)


SQUARE = (1, 2, 2, 2)
wide_scales = st.one_of(st.sampled_from([2.0**-9, 2.0**-10, 2.0**-13]), st.floats(0.0001, 0.004))


@PROPERTY
@given(
    st.sampled_from(KINDS),
    st.tuples(*[st.integers(1, 12)] * 3),
    st.integers(0, 7),
    st.integers(0, 1),
    st.sampled_from([None, None, 0, 1]),
    st.tuples(*[wide_scales] * 3),
    st.sampled_from([None, None, (0, 0), (0, 3), (7, 0)]),
    st.integers(0, 1),
    configs(),
    st.integers(0, 99),
)
def test_int16_broadcasts(kind, sizes, repeated, smaller, constant, scales, shifts, activation, config, seed):
    """With scales of any ratio; with `shifts`, powers of two that the file of a sum or difference says to be used as
    such.
    """
    options = {} if kind not in ("ADD", "SUB") else {"potScaleInt16": shifts is not None}
    if kind in ("MAXIMUM", "MINIMUM"):
        scales = scales[:1] * 3
    elif options.get("potScaleInt16"):  # LiteRT aborts when it has to broadcast these
        repeated, scales = 0, [2.0 ** (-9 - shift) for shift in (*shifts, 0)]
    full, small = (1, *sizes), (1, *(1 if repeated >> n & 1 else size for n, size in enumerate(sizes)))
    shapes = (small, full) if smaller == 0 else (full, small)
    quants = [(scale, 0) for scale in scales]
    check_model(model(kind, full, shapes, quants, constant, activation, seed, np.int16, **options), config)


@pytest.mark.parametrize("shape", [(1, 30, 40, 3), (1, 2, 700, 2), (1, 1, 1, 900), (40, 9)])
def test_int16_in_blocks(shape):
    """Planes of more than a block, rows of more than a block, many channels, two axes."""
    quants = [(0.0004, 0), (0.0011, 0), (0.0013, 0)]
    small = NpuConfig(tp_buffer_bytes=1024)
    check_model(model("ADD", shape, (shape, shape), quants, dtype=np.int16, potScaleInt16=False), small)
    check_model(
        model(
            "SUB", shape, (shape, (*shape[:-2], 1, shape[-1])), quants, constant=1, dtype=np.int16, potScaleInt16=False
        ),
        small,
    )
    check_model(model("MUL", shape, (shape, (*shape[:-1], 1)), quants, dtype=np.int16), small)
    check_model(model("MINIMUM", shape, ((1,), shape), quants[:1] * 3, constant=0, dtype=np.int16), small)


@pytest.mark.parametrize(
    ("kind", "b_shape", "scales", "pot", "message"),
    [
        ("MUL", SQUARE, (0.5, 0.5, 0.125), None, "the factor of the product needs a left shift of 2; the limit is 0"),
        ("ADD", SQUARE, (0.001, 2.0**-9, 2.0**-9), True, "with pot_scale_int16 they are powers of two"),
        ("SUB", SQUARE, (2.0**-10, 2.0**-10, 2.0**-9), True, "with pot_scale_int16 they are powers of two"),
        ("ADD", (1, 1, 1, 2), (2.0**-9,) * 3, True, "with pot_scale_int16 operands have one shape"),
    ],
)
def test_int16_that_is_refused(kind, b_shape, scales, pot, message):
    options = {} if pot is None else {"potScaleInt16": pot}
    shape = max(SQUARE, b_shape)
    file = model(kind, shape, (shape, b_shape), [(scale, 0) for scale in scales], dtype=np.int16, **options)
    with pytest.raises(GraphError, match=f"operator 0 {kind} .*{message}"):
        compile_graph(read_tflite(file), PRESETS["Q"], is_strict=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "shapes", [((1, 5, 7, 6), (6,)), ((1, 5, 7, 6), (1,)), ((1, 1, 7, 1), (1, 5, 1, 6)), ((5, 7, 6), (1, 5, 7, 6))]
)
def test_operands_of_several_ranks(kind, shapes):
    quants = [(0.03, -5)] * 3 if kind.startswith("M") and kind != "MUL" else [(0.031, -128), (0.0125, 19), (0.024, 3)]
    check_model(model(kind, (1, 5, 7, 6), shapes, quants), PRESETS["Q"])
    check_model(model(kind, (1, 5, 7, 6), shapes, quants, constant=1), NpuConfig(tp_buffer_bytes=1024))


def gated(gate_shape, kind="MUL"):
    """Squeeze and excite: a pooled image, a sigmoid, and the image times the gate."""
    builder, shape = ModelBuilder("gate"), (1, 9, 12, 16)
    first, source = builder.tensor(shape, np.int8, 0.05, 3), builder.tensor(shape, np.int8, 0.05, 3)
    builder.op("MAX_POOL_2D", [first], [source], filterHeight=1, filterWidth=1, strideH=1, strideW=1)
    mean, gate = builder.tensor(gate_shape, np.int8, 0.05, 3), builder.tensor(gate_shape, np.int8, 1 / 256, -128)
    axes = builder.tensor((2,), np.int32, data=np.array([1, 2]))
    builder.op("MEAN", [source, axes], [mean], keepDims=len(gate_shape) == 4)
    builder.op("LOGISTIC", [mean], [gate])
    target, last = builder.tensor(shape, np.int8, 0.04, 1), builder.tensor(shape, np.int8, 1 / 128, 0)
    builder.op(kind, [gate, source], [target])
    builder.op("TANH", [target], [last])
    return builder.finish([first], [last])


@pytest.mark.parametrize("gate_shape", [(1, 1, 1, 16), (1, 16)])
def test_a_gate_takes_a_cycle_per_four_elements_and_its_table_is_free(gate_shape):
    check_model(gated(gate_shape), PRESETS["Q"])
    plan = compile_graph(read_tflite(gated(gate_shape)), PRESETS["Q"])
    products = [
        fields
        for raw in plan.steps[0].program.descriptors
        if raw[0] == 2 and (fields := TP.decode(raw))["op"] == TpOp.MUL
    ]
    assert len(products) == 1
    assert (products[0]["num_1"], products[0]["num_2"], products[0]["has_lut"]) == (16, 108, 1)


def test_a_scalar_constant_is_a_table():
    """It costs nothing behind a layer; alone it is a copy."""
    plan = compile_graph(
        read_tflite(model("MUL", (1, 4, 4, 8), ((1, 4, 4, 8), (1,)), [(0.1, 3), (0.01, 0), (0.02, 1)], constant=1)),
        PRESETS["Q"],
    )
    assert [TP.decode(raw)["op"] for raw in plan.steps[0].program.descriptors] == [TpOp.COPY]


@pytest.mark.parametrize(
    ("kind", "shapes", "quants", "message"),
    [
        (
            "MUL",
            ((1, 2, 2, 2), (1, 2, 2, 2)),
            [(0.9, 0), (0.9, 0), (0.001, 0)],
            "the factor of the product needs a left shift of 10; the limit is 7",
        ),
        (
            "ADD",
            ((2, 2, 2, 2), (1, 1, 1, 2)),
            [(0.9, 0), (0.9, 0), (0.9, 0)],
            "batch 2: an operand is not the same for each image",
        ),
    ],
)
def test_refusals(kind, shapes, quants, message):
    with pytest.raises(GraphError, match=message):
        compile_graph(read_tflite(model(kind, shapes[0], shapes, quants)), PRESETS["Q"], is_strict=True)
