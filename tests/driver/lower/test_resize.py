"""Resized, interleaved and transposed images, and transposed convolutions: files of one operator, on the golden
machine, against LiteRT.
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
from convoy.verif.models import QUANT, check_model, one_op
from convoy.verif.strategies import configs

PROPERTY = settings(deadline=None, max_examples=20, derandomize=True)
SMALL = NpuConfig(tp_buffer_bytes=1024)
sizes, channels = st.integers(1, 14), st.integers(1, 9)
modes = st.sampled_from([{}, {"halfPixelCenters": True}, {"alignCorners": True}])


@PROPERTY
@given(
    st.sampled_from(["RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"]),
    sizes,
    sizes,
    channels,
    st.integers(1, 40),
    st.integers(1, 40),
    modes,
    configs(),
)
def test_any_factor(kind, height, width, num_c, out_height, out_width, mode, config):
    size = out_height, out_width
    check_model(one_op(kind, (1, height, width, num_c), (1, *size, num_c), [size], **mode), config)


@pytest.mark.parametrize("kind", ["RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"])
@pytest.mark.parametrize("mode", [{}, {"halfPixelCenters": True}, {"alignCorners": True}])
def test_factors_of_networks(kind, mode):
    """Twice, eight times, a third, 3 of 2; images larger than the buffer."""
    for size, out in (((16, 16), (32, 32)), ((5, 7), (40, 56)), ((33, 30), (11, 10)), ((160, 2), (240, 3))):
        check_model(one_op(kind, (1, *size, 3), (1, *out, 3), [out], **mode), SMALL)


@pytest.mark.parametrize("mode", [{}, {"halfPixelCenters": True}, {"alignCorners": True}])
@pytest.mark.parametrize(
    ("size", "out", "config"),
    [
        ((161, 3), (300, 5), SMALL),
        ((3, 161), (5, 300), PRESETS["Q"]),
        ((161, 161), (300, 300), SMALL),
        ((7, 1), (3001, 1), PRESETS["Q"]),
        ((1, 7), (1, 3001), SMALL),
        ((30, 161), (61, 300), PRESETS["Q"]),
    ],
)
def test_nearest_pixels_that_no_single_step_leads_to(size, out, config, mode):
    """Many pixels and sizes without a common factor: rows, columns or both are made in pieces, of one channel or of
    several at a time.
    """
    check_model(one_op("RESIZE_NEAREST_NEIGHBOR", (1, *size, 2), (1, *out, 2), [out], **mode), config)


@PROPERTY
@given(st.integers(1, 6), st.integers(1, 9), channels, st.integers(1, 4), configs())
def test_depth_to_space(height, width, num_c, block, config):
    check_model(
        one_op(
            "DEPTH_TO_SPACE",
            (1, height, width, num_c * block * block),
            (1, height * block, width * block, num_c),
            [],
            blockSize=block,
        ),
        config,
    )


def transpose_conv(size, num_ic, num_oc, kernel, stride, padding, cut=(0, 0), has_bias=True, activation=0, seed=0):
    """A file; SAME with `cut` pixels less than a whole number of strides. A table follows."""
    builder, rng = ModelBuilder("transpose_conv"), np.random.default_rng(seed)
    out = [
        n * step - less if padding == 0 else (n - 1) * step + taps
        for n, step, less, taps in zip(size, stride, cut, kernel, strict=True)
    ]
    source = builder.tensor((1, *size, num_ic), np.int8, 0.05, 3)
    scales = rng.uniform(0.001, 0.01, num_oc).astype(np.float32)
    weights = builder.tensor(
        (num_oc, *kernel, num_ic), np.int8, scales, 0, 0, rng.integers(-127, 128, (num_oc, *kernel, num_ic))
    )
    shape = builder.tensor((4,), np.int32, data=np.array([1, *out, num_oc]))
    inputs = [shape, weights, source]
    if has_bias:
        inputs.append(
            builder.tensor((num_oc,), np.int32, np.float32(0.05) * scales, 0, 0, rng.integers(-3000, 3000, num_oc))
        )
    target, last = (
        builder.tensor((1, *out, num_oc), np.int8, 0.1, -4),
        builder.tensor((1, *out, num_oc), np.int8, 1 / 128, 0),
    )
    builder.op(
        "TRANSPOSE_CONV",
        inputs,
        [target],
        padding=padding,
        strideH=stride[0],
        strideW=stride[1],
        fusedActivationFunction=activation,
    )
    builder.op("TANH", [target], [last])
    return builder.finish([source], [target, last] if seed % 2 else [last])


@PROPERTY
@given(
    st.tuples(sizes, sizes),
    channels,
    channels,
    st.tuples(*[st.integers(1, 7)] * 2),
    st.tuples(*[st.integers(1, 4)] * 2),
    st.integers(0, 1),
    st.booleans(),
    st.integers(0, 1),
    st.integers(0, 99),
    st.sampled_from([PRESETS["Q"], NpuConfig(num_cores=2, num_lanes=8, post_lanes=4, tp_buffer_bytes=1024)]),
)
def test_transposed_convolution(size, num_ic, num_oc, kernel, stride, padding, has_bias, activation, seed, config):
    cut = tuple(seed // step % step for step in stride)
    check_model(transpose_conv(size, num_ic, num_oc, kernel, stride, padding, cut, has_bias, activation, seed), config)


def test_a_table_behind_a_transposed_convolution_is_free():
    plan = compile_graph(read_tflite(transpose_conv((8, 8), 16, 8, (4, 4), (2, 2), 0)), PRESETS["Q"])
    assert plan.steps[0].engines == {0: "nn+tp", 1: "fused"}


@PROPERTY
@given(st.tuples(sizes, sizes, channels), st.permutations([1, 2, 3]), configs())
def test_transpose(shape, order, config):
    full = 1, *shape
    check_model(one_op("TRANSPOSE", full, [full[axis] for axis in (0, *order)], [[0, *order]]), config)


def test_reshapes():
    for kind, shape, out, constants, options in (
        ("SQUEEZE", (1, 3, 1, 5), (3, 5), [], {"squeezeDims": [0, 2]}),
        ("EXPAND_DIMS", (3, 4, 5), (1, 3, 4, 5), [0], {}),
        ("EXPAND_DIMS", (1, 4, 5), (1, 4, 5, 1), [-1], {}),
    ):
        check_model(one_op(kind, shape, out, constants, **options), PRESETS["Q"], num_host_steps=1)


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_pack(axis):
    builder, shape = ModelBuilder("pack"), (1, 5, 6)
    sources = [builder.tensor(shape, np.int8, *QUANT) for _ in range(3)]
    target = builder.tensor([*shape[:axis], 3, *shape[axis:]], np.int8, *QUANT)
    builder.op("PACK", sources, [target], valuesCount=3, axis=axis)
    check_model(builder.finish(sources, [target]), PRESETS["Q"])


def test_split_in_parts_of_several_sizes():
    builder, shape = ModelBuilder("split"), (1, 5, 6, 9)
    source = builder.tensor(shape, np.int8, *QUANT)
    targets = [builder.tensor((*shape[:3], size), np.int8, *QUANT) for size in (2, 6, 1)]
    sizes_input, axis = (
        builder.tensor((3,), np.int32, data=np.array([2, 6, 1])),
        builder.tensor((), np.int32, data=np.array(-1)),
    )
    builder.op("SPLIT_V", [source, sizes_input, axis], targets, numSplits=3)
    check_model(builder.finish([source], targets), PRESETS["Q"])


def test_pad_with_a_value():
    builder = ModelBuilder("padv2")
    source, target = builder.tensor((1, 5, 6, 3), np.int8, *QUANT), builder.tensor((1, 7, 9, 3), np.int8, *QUANT)
    pads = builder.tensor((4, 2), np.int32, data=np.array([[0, 0], [2, 0], [1, 2], [0, 0]]))
    builder.op("PADV2", [source, pads, builder.tensor((1,), np.int8, *QUANT, data=np.array([-128]))], [target])
    check_model(builder.finish([source], [target]), PRESETS["Q"])


def test_maximum_of_an_image():
    check_model(one_op("REDUCE_MAX", (1, 9, 7, 5), (1, 1, 1, 5), [[1, 2]], keepDims=True), PRESETS["Q"])
    check_model(one_op("REDUCE_MAX", (1, 9, 7, 5), (1, 5), [[1, 2]], keepDims=False), SMALL)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            one_op("RESIZE_NEAREST_NEIGHBOR", (1, 600, 1, 1), (1, 2, 1, 1), [[2, 1]]),
            "600 pixels to 2; the limit is a factor of 255",
        ),
        (transpose_conv((4, 4), 2, 2, (25, 25), (1, 1), 0), "a kernel of 25 x 25 taps; the limit is 511"),
    ],
)
def test_refusals(model, message):
    with pytest.raises(GraphError, match=message):
        compile_graph(read_tflite(model), PRESETS["Q"], is_strict=True)


@pytest.mark.parametrize(
    ("kind", "shape", "out_shape", "constants", "options", "message"),
    [
        (
            "RESIZE_BILINEAR",
            (1, 2, 3, 4),
            (1, 4, 6, 4),
            [[4, 6]],
            {},
            "is int16; it can be resized to nearest pixels in whole factors",
        ),
        (
            "RESIZE_NEAREST_NEIGHBOR",
            (1, 2, 3, 4),
            (1, 3, 5, 4),
            [[3, 5]],
            {},
            "is int16; it can be resized to nearest pixels in whole factors",
        ),
        ("DEPTH_TO_SPACE", (1, 2, 3, 4), (1, 4, 6, 1), [], {"blockSize": 2}, "is int16, which only"),
    ],
)
def test_what_is_refused_of_int16(kind, shape, out_shape, constants, options, message):
    with pytest.raises(GraphError, match=message):
        compile_graph(
            read_tflite(one_op(kind, shape, out_shape, constants, *[(0.05, 0)] * 2, np.int16, **options)),
            PRESETS["Q"],
            is_strict=True,
        )


def test_rows_and_columns_of_int16_exchanged():
    check_model(
        one_op("TRANSPOSE", (1, 5, 4, 3), (1, 4, 5, 3), [[0, 2, 1, 3]], *[(0.05, 0)] * 2, np.int16), PRESETS["Q"]
    )


def test_interpolation_is_one_descriptor():
    plan = compile_graph(
        read_tflite(one_op("RESIZE_BILINEAR", (1, 8, 8, 16), (1, 24, 24, 16), [(24, 24)])), PRESETS["Q"]
    )
    assert [TP.decode(raw)["op"] for raw in plan.steps[0].program.descriptors].count(TpOp.BILINEAR) == 1
