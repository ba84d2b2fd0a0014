"""Dtypes, scales and zero points: what LiteRT runs is exact or refused, and what it does not look at refuses
nothing.
"""

from __future__ import annotations

import random

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.emit.program import HostStep
from convoy.driver.graph.graph import GraphError
from convoy.driver.graph.tflite_reader import load_tflite, read_tflite
from convoy.driver.lower.table_forms import TABLE_EXPANSIONS
from convoy.spec.config import NpuConfig
from convoy.verif.graphs import random_values, run_plan
from convoy.verif.litert import ModelBuilder, conv_model, depthwise_model, fully_connected_model, run_reference
from convoy.verif.models import check_model, one_op
from convoy.verif.operators import NO_REFERENCE, edited, operator_files, retyped

SMALL = NpuConfig(
    num_cores=2, num_lanes=8, num_acc_entries=16, post_lanes=2, stripe_bytes=4096, window_words=32, tp_buffer_bytes=1024
)
DTYPES = (np.int8, np.uint8, np.int16, np.int32, np.int64, np.float32)
RNG = np.random.default_rng(7)


def outcome(model: bytes) -> str:
    """ "refused" by the compiler in one line, "litert" when only LiteRT refuses the file, or "exact"; anything else
    raises.
    """
    try:
        loaded = load_tflite(model)
        plan = compile_graph(loaded.graph, SMALL)
    except GraphError as error:
        return "refused" if "\n" not in str(error) else str(error)
    inputs = random_values(loaded.graph, 0)
    try:
        expected = run_reference(loaded.data, list(inputs.values()))
    except (ValueError, RuntimeError):
        return "litert"
    got = run_plan(plan, dict(inputs))
    for index in loaded.graph.outputs:
        assert got[index].dtype == expected[index].dtype
        np.testing.assert_array_equal(got[index], expected[index])
    return "exact"


def changed(index: int, **fields):
    """Sets fields of a tensor's quantisation, which are values or functions of the one before."""

    def edit(packed, subgraph):
        tensor = subgraph.tensors[index]
        tensor.quantization = tensor.quantization or schema.QuantizationParametersT()
        for name, value in fields.items():
            setattr(tensor.quantization, name, value(getattr(tensor.quantization, name)) if callable(value) else value)

    return edit


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.float32])
def test_every_operator_is_exact(dtype):
    outcomes = {kind: outcome(model) for kind, model in operator_files(dtype).items()}
    assert {kind for kind, found in outcomes.items() if found != "exact"} == NO_REFERENCE & outcomes.keys()


@pytest.mark.parametrize("kind", sorted(NO_REFERENCE - {"ELU"}))
def test_operators_without_a_reference_kernel_are_the_ordinary_ones(kind):
    """ELU of int8 is compared with its table; of ordinary kernels QUANTIZE rounds ties otherwise, which whole numbers
    do not show.
    """
    model = operator_files(np.float32)[kind]
    loaded = load_tflite(model)
    ((source, values),) = random_values(loaded.graph, 0).items()
    interpreter = Interpreter(
        model_content=model, experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    )
    interpreter.allocate_tensors()
    interpreter.set_tensor(source, values)
    interpreter.invoke()
    (target,) = loaded.graph.outputs
    got = run_plan(compile_graph(loaded.graph, SMALL), {source: values})[target]
    np.testing.assert_array_equal(got, interpreter.get_tensor(target))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16])
def test_other_dtypes_of_any_tensor_are_exact_or_refused(dtype):
    """Each tensor of each operator in each other dtype. Conversions, which the host makes, are tested with the host;
    what LiteRT tabulates has no rule here.
    """
    outcomes = []
    for kind, model in operator_files(dtype).items():
        if kind in TABLE_EXPANSIONS:
            continue
        tensors = schema.ModelT.InitFromPackedBuf(model, 0).subgraphs[0].tensors
        outcomes += [outcome(retyped(model, index, other)) for index in range(len(tensors)) for other in DTYPES]
    assert outcomes.count("refused") > outcomes.count("exact") > len(operator_files(dtype))


SCALES = {
    "none": {"scale": None, "zeroPoint": None},
    "along axis 3": {"quantizedDimension": 3},
    "a bit larger": {"scale": lambda old: old * np.float32(1 + 2e-7)},
    "three times": {"scale": lambda old: old * np.float32(3)},
    "10 million times": {"scale": lambda old: old * np.float32(1e7)},
    "nearly 0": {"scale": np.float32([1e-30])},
    "denormal": {"scale": np.float32([1e-40])},
    "huge": {"scale": np.float32([1e30])},
    "0": {"scale": np.float32([0])},
    "negative": {"scale": lambda old: -old},
    "nan": {"scale": np.float32([np.nan])},
    "infinite": {"scale": np.float32([np.inf])},
    "two": {"scale": lambda old: np.float32([old[0], 2 * old[0]]), "zeroPoint": lambda old: np.array([old[0], old[0]])},
    "zero point 1 more": {"zeroPoint": lambda old: np.array(old) + 1},
    **{f"zero point {value}": {"zeroPoint": np.array([value])} for value in (-129, 200, 300, 1 << 32, 1 << 40)},
    "with range": {"min": np.float32([-1]), "max": np.float32([1, 2])},
}


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16])
def test_other_quantisation_of_any_tensor_is_exact_or_refused(dtype):
    """A sample: each change to a tensor of some operators."""
    cases = []
    for model in operator_files(dtype).values():
        for index, tensor in enumerate(schema.ModelT.InitFromPackedBuf(model, 0).subgraphs[0].tensors):
            cases += [(model, index, name) for name in SCALES if tensor.quantization is not None]
    outcomes = [
        outcome(edited(model, changed(index, **SCALES[name])))
        for model, index, name in random.Random(0).sample(cases, 100)
    ]
    assert outcomes.count("exact") > 50
    assert outcomes.count("refused") < 30


# What LiteRT does not look at


def wide_bias() -> bytes:
    return depthwise_model(
        (1, 5, 6, 8),
        RNG.integers(-127, 128, (1, 3, 3, 8)).astype(np.int8),
        RNG.integers(-900, 900, 8).astype(np.int32),
        (0.05, 3),
        np.linspace(0.005, 0.02, 8),
        (0.2, -5),
    )


@pytest.mark.parametrize("axis", [0, 1, 3, -1])
@pytest.mark.parametrize("num_scales", [1, 2, 8])
def test_scales_and_axis_of_a_bias_refuse_nothing(axis, num_scales):
    """LiteRT reads them nowhere but where it loads the file: the reference runs without them."""
    scales = {
        "scale": np.linspace(0.1, 7, num_scales).astype(np.float32),
        "zeroPoint": np.zeros(num_scales, np.int64),
        "quantizedDimension": axis,
    }
    assert outcome(edited(wide_bias(), changed(2, **scales))) == "exact"


@pytest.mark.parametrize("scale", [0, -1, np.nan, np.inf])
def test_a_scale_of_a_bias_may_be_any_number(scale):
    assert outcome(edited(wide_bias(), changed(2, scale=np.float32([scale] * 8)))) == "exact"


MOVES = (
    "MAXIMUM",
    "MAX_POOL_2D",
    "AVERAGE_POOL_2D",
    "RESHAPE",
    "SQUEEZE",
    "SLICE",
    "STRIDED_SLICE",
    "TRANSPOSE",
    "RESIZE_NEAREST_NEIGHBOR",
    "SPLIT",
    "SPLIT_V",
    "SPACE_TO_DEPTH",
    "DEPTH_TO_SPACE",
    "RESIZE_BILINEAR",
    "PADV2",
)


@pytest.mark.parametrize("kind", MOVES)
@pytest.mark.parametrize("name", ["none", "three times", "zero point 200", "negative", "nan"])
def test_values_that_are_only_moved_need_no_quantisation(kind, name):
    """Of the first activation; the others have one."""
    model = operator_files(np.int8)[kind]
    assert (
        outcome(
            edited(model, changed(schema.ModelT.InitFromPackedBuf(model, 0).subgraphs[0].inputs[0], **SCALES[name]))
        )
        == "exact"
    )


@pytest.mark.parametrize(("kind", "index", "dtype"), [("PAD", 1, np.int64), ("PAD", 1, np.int8)])
def test_pads_may_have_other_dtypes(kind, index, dtype):
    assert outcome(retyped(operator_files(np.int8)[kind], index, dtype)) == "exact"


@pytest.mark.parametrize("kind", ["DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED"])
@pytest.mark.parametrize("zero_point", [-128, 5, 127])
def test_int8_weights_with_a_zero_point(kind, zero_point):
    """FULLY_CONNECTED subtracts it, the others do not look at it; nor does FULLY_CONNECTED with a scale for each
    channel.
    """
    model = operator_files(np.int8)[kind]
    assert outcome(edited(model, changed(1, zeroPoint=np.array([zero_point])))) == "exact"
    many = {"scale": np.full(5, 0.01, np.float32), "zeroPoint": np.full(5, zero_point)}
    assert kind != "FULLY_CONNECTED" or outcome(edited(model, changed(1, **many))) == "exact"


# Exactly as LiteRT compares


@pytest.mark.parametrize("scale", [1.0, 1 + 2e-7, 1.0005, 1.01, 3.0])
@pytest.mark.parametrize("unit", [0.05, 1e-9, 1e9])
def test_concatenation_of_uint8(scale, unit):
    """LiteRT converts what has another scale, however small the scales are, and so does the NPU; almost the same
    scale leaves all values as they are.
    """
    builder = ModelBuilder()
    sources = [
        builder.tensor((1, 3, 40, channels), np.uint8, factor, 131)
        for channels, factor in ((2, unit), (3, unit * scale))
    ]
    target = builder.tensor((1, 3, 40, 5), np.uint8, unit, 131)
    builder.op("CONCATENATION", sources, [target], axis=3)
    model = builder.finish(sources, [target])
    assert outcome(model) == "exact"
    steps = compile_graph(read_tflite(model), SMALL).steps
    assert not any(isinstance(step, HostStep) for step in steps)


@pytest.mark.parametrize("kind", ["CONCATENATION", "PACK", "REDUCE_MAX", "EXPAND_DIMS"])
@pytest.mark.parametrize("unit", [0.05, 1e-9])
def test_scales_that_must_be_the_same_are_compared_exactly(kind, unit):
    model = operator_files(np.int8)[kind]
    source = schema.ModelT.InitFromPackedBuf(model, 0).subgraphs[0].inputs[0]
    tiny = edited(
        model,
        lambda packed, subgraph: [
            changed(index, scale=np.float32([unit]))(packed, subgraph)
            for index, tensor in enumerate(subgraph.tensors)
            if tensor.type == schema.TensorType.INT8
        ],
    )
    assert outcome(tiny) == "exact"
    with pytest.raises(GraphError, match=rf"operator 0 {kind} .*they must have the same scale and zero point"):
        compile_graph(read_tflite(edited(tiny, changed(source, scale=lambda old: old * np.float32(1 + 2e-7)))), SMALL)


# Values that a converter may write


@pytest.mark.parametrize(
    ("zero_point", "dtype"), [(200, np.int8), (-129, np.int8), (1 << 32, np.int8), (-1, np.uint8), (256, np.uint8)]
)
@pytest.mark.parametrize("kind", ["CONV_2D", "FULLY_CONNECTED", "ADD", "MUL", "MEAN", "TANH", "HARD_SWISH", "QUANTIZE"])
def test_zero_points_outside_the_dtype(kind, zero_point, dtype):
    """The NPU has no such values; LiteRT computes something all the same, or says why not."""
    model = operator_files(dtype)[kind]
    for tensor in (subgraph := schema.ModelT.InitFromPackedBuf(model, 0).subgraphs[0]).inputs[0], subgraph.outputs[0]:
        other = edited(model, changed(tensor, zeroPoint=np.array([zero_point])))
        reason = rf"the zero point of .* is {zero_point}; in {np.dtype(dtype)} it is "
        with pytest.raises(GraphError, match=f"operator 0 {kind} .*{reason}.*; the host would execute it"):
            compile_graph(read_tflite(other), SMALL, is_strict=True)
        assert outcome(other) in ("exact", "refused")


@pytest.mark.parametrize(("acts", "weights"), [(np.uint8, np.int8), (np.int8, np.uint8)])
@pytest.mark.parametrize("kind", ["CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"])
def test_activations_and_weights_of_different_dtypes(acts, weights, kind):
    message = (
        f"weights 'weights' are {np.dtype(weights)}; with activations of {np.dtype(acts)} LiteRT takes {np.dtype(acts)}"
    )
    model = retyped(operator_files(acts)[kind], 1, weights)
    with pytest.raises(GraphError, match=f"operator 0 {kind} .*{message} only"):
        compile_graph(read_tflite(model), SMALL, is_strict=True)
    assert outcome(model) in ("exact", "refused")
    with pytest.raises(GraphError, match=f"operator 0 {kind} .*{np.dtype(np.int16)}"):
        compile_graph(read_tflite(retyped(model, 1, np.int16)), SMALL)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@pytest.mark.parametrize("bias", [-(2**31), 2**31 - 1, 2**31 - 5000])
@pytest.mark.parametrize("zero_point", [-128, 0, 127])
def test_the_largest_biases(dtype, bias, zero_point):
    """Sums of 32 bits wrap, in LiteRT and here."""
    offset, info = 128 * (dtype == np.uint8), np.iinfo(dtype)
    weights = RNG.integers(info.min + (dtype == np.int8), info.max + 1, (6, 3, 3, 4)).astype(dtype)
    options = {"dtype": dtype, "weight_zero_point": offset}
    biases, source, target = np.full(6, bias, np.int64).astype(np.int32), (0.05, zero_point + offset), (1e6, offset)
    assert outcome(conv_model((1, 5, 6, 4), weights, biases, source, 0.01, target, **options)) == "exact"
    assert (
        outcome(
            depthwise_model(
                (1, 5, 6, 4), weights[:4, :, :, 0].transpose(1, 2, 0)[None], biases[:4], source, 0.01, target, **options
            )
        )
        == "exact"
    )
    assert (
        outcome(fully_connected_model((3, 4), weights[:, 0, 0], biases, source, 0.01, (0.01, offset), **options))
        == "exact"
    )


@pytest.mark.parametrize("kind", ["CONV_2D", "FULLY_CONNECTED"])
def test_a_bias_of_int32_beside_int16_must_be_announced(kind):
    """LiteRT reads it as int64 otherwise."""
    model = retyped(operator_files(np.int16)[kind], 2, np.int32)
    assert (
        outcome(
            edited(
                model,
                lambda packed, subgraph: setattr(
                    subgraph.operators[0].builtinOptions, "quantizedBiasType", schema.TensorType.INT32
                ),
            )
        )
        == "exact"
    )
    with pytest.raises(
        GraphError,
        match=(
            rf"operator 0 \({kind}\): the bias is int32; with activations of int16 and these options it should be "
            r"int64"
        ),
    ):
        read_tflite(model)


def test_a_transposed_convolution_has_no_bias_of_int32_beside_int16():
    """LiteRT reads it as int64, beyond its end."""
    model = operator_files(np.int8)["TRANSPOSE_CONV"]
    for tensor in (2, 4):
        model = retyped(model, tensor, np.int16)
    with pytest.raises(GraphError, match="the bias is int32; with activations of int16"):
        read_tflite(model)


@pytest.mark.parametrize(
    ("begin", "end", "step", "shape"),
    [
        ([0, 1, 0, 0], [1, 4, 4, 2], [1, 2, 2, 1], (1, 2, 2, 2)),
        ([0, -5, 1, 0], [1, 4, 3, 2], [1, 2, 2, 1], (1, 2, 2, 2)),
        ([0, -9, 0, 0], [1, 3, 4, 2], [1, 1, 1, 1], (1, 3, 4, 2)),
    ],
)
def test_a_slice_whose_ends_are_offsets(begin, end, step, shape):
    plan = check_model(one_op("STRIDED_SLICE", (1, 6, 4, 2), shape, [begin, end, step], offset=True, endMask=15), SMALL)
    assert plan.graph.ops[0].options["is_offset"]


@pytest.mark.parametrize("count", [6, -1])
def test_a_slice_whose_offset_leaves_the_axis(count):
    model = one_op("STRIDED_SLICE", (1, 6, 4, 2), (1, 5, 4, 2), [[0, 1, 0, 0], [1, count, 4, 2], [1] * 4], offset=True)
    with pytest.raises(GraphError, match=rf"an offset of {count} from 1 in an axis of 6; use 1\.\.5"):
        compile_graph(read_tflite(model), SMALL)


@pytest.mark.parametrize(
    ("kind", "options", "shape"),
    [
        ("SQUEEZE", {"squeezeDims": []}, [4, 2]),
        ("SQUEEZE", {"squeezeDims": [0]}, [4, 1, 2]),
        ("MEAN", {"keepDims": True}, [1, 1, 1, 4]),
        ("REDUCE_MAX", {"keepDims": True}, [1, 1, 1, 4]),
    ],
)
def test_a_shape_that_contradicts_the_options(kind, options, shape):
    def edit(packed, subgraph):
        for name, value in options.items():
            setattr(subgraph.operators[0].builtinOptions, name, value)

    with pytest.raises(
        GraphError, match=rf"operator 0 \({kind}\): the output should be \[{', '.join(map(str, shape))}\]"
    ):
        read_tflite(edited(operator_files(np.int8)[kind], edit))


@pytest.mark.parametrize(
    "kind",
    [
        "ADD",
        "SUB",
        "MUL",
        "FULLY_CONNECTED",
        "STRIDED_SLICE",
        "RESIZE_NEAREST_NEIGHBOR",
        "RESIZE_BILINEAR",
        "LEAKY_RELU",
        "MEAN",
    ],
)
def test_options_that_are_missing_have_their_defaults(kind):
    def edit(packed, subgraph):
        subgraph.operators[0].builtinOptions, subgraph.operators[0].builtinOptionsType = None, 0

    assert outcome(edited(operator_files(np.int8)[kind], edit)) == "exact"


@pytest.mark.parametrize("axis", [7, -5])
@pytest.mark.parametrize("kind", ["CONCATENATION", "PACK"])
def test_an_axis_that_does_not_exist(kind, axis):
    model = edited(
        operator_files(np.int8)[kind],
        lambda packed, subgraph: setattr(subgraph.operators[0].builtinOptions, "axis", axis),
    )
    with pytest.raises(GraphError, match=rf"operator 0 {kind} .*axis {axis} of a tensor of 4 axes; use -4\.\.3"):
        compile_graph(read_tflite(model), SMALL)
