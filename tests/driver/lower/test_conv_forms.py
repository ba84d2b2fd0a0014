"""Convolutions in other forms, against LiteRT."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from convoy.driver.graph.tflite_writer import write_tflite
from convoy.spec.config import PRESETS
from convoy.verif.graphs import GraphMaker
from convoy.verif.litert import ModelBuilder
from convoy.verif.models import check_model

Q = PRESETS["Q"]
DTYPES = np.int8, np.uint8, np.int16


def conv(
    shape, num_oc, kernel, dtype=np.int8, *, num_ic=None, kind="CONV_2D", padding="VALID", seed=1, batch=1, **options
):
    """A file of one convolution with bias, of kernels of `num_ic` channels."""
    maker = GraphMaker(seed, dtype)
    strides, dilations = (tuple(options.pop(name, (1, 1))) for name in ("stride", "dilation"))
    is_depthwise = kind == "DEPTHWISE_CONV_2D"
    depth = 1 if is_depthwise else num_ic or shape[2]
    weights = maker.weights(
        (1, *kernel, num_oc) if is_depthwise else (num_oc, *kernel, depth), num_oc, 3 * is_depthwise
    )
    source, bias_type = maker.tensor((batch, *shape)), np.int64 if dtype == np.int16 else np.int32
    values = maker.rng.integers(-2000, 2000, num_oc).astype(bias_type)
    scale = 0.05 * float(maker.tensors[weights].quant.scale[0])
    bias = maker.tensor((num_oc,), bias_type, values, scale, zero_point=0)
    sizes = [
        -(-size // stride) if padding == "SAME" else (size - (taps - 1) * dilation - 1) // stride + 1
        for size, taps, stride, dilation in zip(shape, kernel, strides, dilations, strict=False)
    ]
    options |= {"depth_multiplier": num_oc // shape[2]} if is_depthwise else {}
    target = maker.op(
        kind,
        (source, weights, bias),
        (batch, *sizes, num_oc),
        padding=padding,
        stride_h=strides[0],
        stride_w=strides[1],
        dilation_h=dilations[0],
        dilation_w=dilations[1],
        **{"activation": "NONE"} | options,
    )
    return write_tflite(maker.graph([source], [target]))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("channels", "num_groups", "num_oc"), [(12, 3, 6), (6, 6, 12), (8, 2, 8)])
def test_grouped(dtype, channels, num_groups, num_oc):
    check_model(conv((5, 6, channels), num_oc, (3, 3), dtype, num_ic=channels // num_groups, padding="SAME"), Q)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["CONV_2D", "DEPTHWISE_CONV_2D"])
@pytest.mark.parametrize(
    ("size", "dilation", "kinds"),
    [
        ((9, 40), (36, 18), ["{kind}"]),  # of the rows only the middle tap meets the image
        ((9, 9), (12, 12), ["{kind}"]),  # only the middle tap does
        ((24, 24), (20, 1), ["{kind}"]),
        ((1, 300), (1, 260), ["PAD", "{kind}"]),
    ],
)
def test_wide_pads(dtype, kind, size, dilation, kinds):
    model = conv((*size, 4), 4, (3, 3), dtype, kind=kind, padding="SAME", dilation=dilation, activation="RELU")
    plan = check_model(model, Q)
    found = [op.kind for op in plan.graph.ops]
    if dtype == np.int16 and dilation == (1, 260):  # a window of these taps would be too large
        kinds = ["PAD", *["SLICE"] * 9, "CONCATENATION", "CONV_2D"]
    assert found == [name.format(kind=kind) for name in kinds]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "kernel", "kind", "stride"),
    [
        ((30, 25, 1), (24, 24), "CONV_2D", (1, 1)),
        ((1, 700, 2), (1, 600), "CONV_2D", (1, 1)),
        ((25, 24, 3), (23, 23), "DEPTHWISE_CONV_2D", (1, 1)),
    ],
)
def test_many_taps(dtype, shape, kernel, kind, stride):
    plan = check_model(conv(shape, 3, kernel, dtype, kind=kind, stride=stride, seed=2), Q)
    assert plan.graph.ops[-1].title.endswith(": CONV_2D")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("channels", "num_groups"), [(4, 2), (2, 2)])
def test_groups_of_many_taps(dtype, channels, num_groups):
    plan = check_model(conv((1, 650, channels), 4, (1, 600), dtype, num_ic=channels // num_groups), Q)
    assert plan.graph.ops[-1].title.endswith(": CONV_2D")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "kernel", "stride"), [((1, 300, 1), (1, 251), (1, 1)), ((40, 33, 3), (3, 3), (9, 16))]
)
def test_large_kernels_and_strides(dtype, shape, kernel, stride):
    check_model(conv(shape, 4, kernel, dtype, stride=stride), Q)


@pytest.mark.parametrize(
    "make",
    [
        partial(conv, (5, 6, 12), 6, (3, 3), num_ic=4, padding="SAME"),
        partial(conv, (24, 24, 4), 4, (3, 3), padding="SAME", dilation=(20, 1)),
        partial(conv, (1, 700, 2), 3, (1, 600), seed=2),
        partial(conv, (24, 24, 8), 4, (3, 3), num_ic=4, padding="SAME", dilation=(20, 1)),
        partial(conv, (24, 24, 4), 8, (3, 3), num_ic=1, padding="SAME", dilation=(20, 1)),
    ],
    ids=["grouped", "wide_pads", "many_taps", "wide_groups", "wide_channels"],
)
def test_each_image_of_a_batch(make):
    check_model(make(batch=2), Q)


def spread(dtype, rank, kind, pads, crops, block, behind=()):
    """A dilated convolution as converters write it: SPACE_TO_BATCH_ND, convolution, BATCH_TO_SPACE_ND."""
    maker, channels, kernel = GraphMaker(4, dtype), 4, (3, 3) if rank == 4 else (1, 3)
    size = (10, 13) if rank == 4 else (13,)
    parts = [(extent + sum(pad)) // step for extent, pad, step in zip(size, pads, block, strict=True)]
    batch = int(np.prod(block))
    source = maker.tensor((1, *size, channels))
    blocks, padding, cut = (maker.constant(values) for values in (block, pads, crops))

    def add(kind, inputs, shape, like, **options):
        made = maker.op(kind, inputs, shape, **options)
        maker.tensors[made] = replace(maker.tensors[made], quant=maker.tensors[like].quant)
        return made

    tensor = add("SPACE_TO_BATCH_ND", (source, blocks, padding), (batch, *parts, channels), source)
    if rank == 3:
        shape = (batch, 1, *parts, channels)
        tensor = add("RESHAPE", (tensor, maker.constant(shape)), shape, source, new_shape=shape)
        parts = [1, *parts]
    parts = [extent - taps + 1 for extent, taps in zip(parts, kernel, strict=True)]
    is_depthwise = kind == "DEPTHWISE_CONV_2D"
    shape = (1, *kernel, channels) if is_depthwise else (channels, *kernel, channels)
    bias_type = np.int64 if dtype == np.int16 else np.int32
    weights = maker.weights(shape, channels, 3 * is_depthwise)
    scale = 0.05 * float(maker.tensors[weights].quant.scale[0])
    bias = maker.tensor((channels,), bias_type, maker.rng.integers(-2000, 2000, channels).astype(bias_type), scale, 0)
    options = {"depth_multiplier": 1} if is_depthwise else {}
    options |= {"padding": "VALID", "stride_h": 1, "stride_w": 1, "activation": "RELU"}
    tensor = maker.op(kind, (tensor, weights, bias), (batch, *parts, channels), dilation_h=1, dilation_w=1, **options)
    for name in behind:
        values = maker.tensor((channels,), dtype, maker.rng.integers(1, 100, channels).astype(dtype))
        tensor = maker.op(name, (tensor, values), (batch, *parts, channels), activation="NONE")
    last = tensor
    if rank == 3:
        parts = parts[1:]
        shape = (batch, *parts, channels)
        tensor = add("RESHAPE", (tensor, maker.constant(shape)), shape, last, new_shape=shape)
    sizes = [extent * step - sum(crop) for extent, step, crop in zip(parts, block, crops, strict=True)]
    target = add("BATCH_TO_SPACE_ND", (tensor, blocks, cut), (1, *sizes, channels), last)
    return write_tflite(maker.graph([source], [target]))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("rank", "kind", "pads", "crops", "block", "behind"),
    [
        (4, "CONV_2D", [[2, 2], [2, 3]], [[0, 0], [0, 1]], (2, 2), ()),
        (4, "CONV_2D", [[0, 2], [0, 2]], [[0, 0], [0, 0]], (3, 3), ("ADD",)),
        (4, "DEPTHWISE_CONV_2D", [[20, 30], [4, 3]], [[0, 0], [0, 0]], (20, 4), ()),
        (4, "CONV_2D", [[18, 26], [18, 23]], [[0, 0], [0, 0]], (18, 18), ()),  # the taps are too far apart
        (3, "CONV_2D", [[4, 1]], [[0, 1]], (2,), ("MUL", "ADD")),
    ],
)
def test_dilation(dtype, rank, kind, pads, crops, block, behind):
    plan = check_model(spread(dtype, rank, kind, pads, crops, block, behind), Q)
    assert not {"SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND"} & {op.kind for op in plan.graph.ops}


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "has_bias"),
    [((3, 3), (2, 2), 0, True), ((2, 2), (2, 2), 1, False), ((4, 5), (3, 2), 1, True), ((3, 2), (1, 1), 0, True)],
)
def test_transposed_convolutions_of_int16(kernel, stride, padding, has_bias, batch):
    builder, rng, size, num_ic, num_oc = ModelBuilder(), np.random.default_rng(4), (5, 4), 6, 3
    out = [
        n * step if padding == 0 else (n - 1) * step + taps for n, step, taps in zip(size, stride, kernel, strict=True)
    ]
    source = builder.tensor((batch, *size, num_ic), np.int16, 0.001, 0)
    scales = rng.uniform(0.001, 0.01, num_oc).astype(np.float32)
    values = rng.integers(-127, 128, (num_oc, *kernel, num_ic))
    inputs = [
        builder.tensor((4,), np.int32, data=np.array([batch, *out, num_oc])),
        builder.tensor(values.shape, np.int8, scales, 0, 0, values),
        source,
    ]
    if has_bias:
        inputs.append(
            builder.tensor((num_oc,), np.int64, np.float32(0.001) * scales, 0, 0, rng.integers(-9999, 9999, 3))
        )
    target = builder.tensor((batch, *out, num_oc), np.int16, 0.002, 0)
    builder.op("TRANSPOSE_CONV", inputs, [target], padding=padding, strideH=stride[0], strideW=stride[1])
    check_model(builder.finish([source], [target]), Q)


def framed(dtype, kind, pads, *, has_reader=False, dilation=1) -> bytes:
    """A PAD, and a convolution of what it makes."""
    builder, quant = ModelBuilder(), (0.05, 0 if dtype == np.int16 else 3)
    shape = (1, 6, 5, 8)
    whole = tuple(size + before + behind for size, (before, behind) in zip(shape, pads, strict=True))
    source, padded = builder.tensor(shape, dtype, *quant), builder.tensor(whole, dtype, *quant)
    builder.op("PAD", [source, builder.tensor((4, 2), np.int32, data=np.array(pads))], [padded])
    rng = np.random.default_rng(1)
    out = builder.tensor((1, *(size - 2 * dilation for size in whole[1:3]), 8), dtype, 0.1, 0)
    shape = (8, 3, 3, 8) if kind == "CONV_2D" else (1, 3, 3, 8)
    weights = builder.tensor(shape, np.int8, 0.02, 0, data=rng.integers(-127, 128, shape))
    bias_dtype = np.int64 if dtype == np.int16 else np.int32
    bias = builder.tensor((8,), bias_dtype, 0.001, 0, data=rng.integers(-99, 99, 8))
    options = {"depthMultiplier": 1} if kind == "DEPTHWISE_CONV_2D" else {}
    steps = {"strideH": 1, "strideW": 1, "dilationHFactor": dilation, "dilationWFactor": dilation}
    builder.op(kind, [padded, weights, bias], [out], padding=1, **steps, **options)
    return builder.finish([source], [out, padded] if has_reader else [out])


@pytest.mark.parametrize("dtype", [np.int8, np.int16])
@pytest.mark.parametrize("kind", ["CONV_2D", "DEPTHWISE_CONV_2D"])
@pytest.mark.parametrize("pads", [((0, 0), (1, 2), (3, 0), (0, 0)), ((0, 0), (0, 0), (40, 0), (0, 0))])
def test_a_pad_before_a_convolution_is_its_own(dtype, kind, pads):
    plan = check_model(framed(dtype, kind, pads), Q)
    assert [op.kind for op in plan.graph.ops] == [kind]


def test_a_pad_stays_for_other_readers():
    plan = check_model(framed(np.int8, "CONV_2D", ((0, 0), (1, 1), (1, 1), (0, 0)), has_reader=True), Q)
    assert [op.kind for op in plan.graph.ops] == ["PAD", "CONV_2D"]


def test_a_pad_of_channels_stays():
    builder = ModelBuilder()
    source, padded, out = (builder.tensor((1, 4, 4, n), np.int8, 0.05, 3) for n in (3, 4, 4))
    pads = builder.tensor((4, 2), np.int32, data=np.array([[0, 0], [0, 0], [0, 0], [0, 1]]))
    weights = builder.tensor((4, 1, 1, 4), np.int8, 0.02, 0, data=np.arange(16).reshape(4, 1, 1, 4))
    bias = builder.tensor((4,), np.int32, 0.001, 0, data=np.arange(4))
    builder.op("PAD", [source, pads], [padded])
    builder.op("CONV_2D", [padded, weights, bias], [out], strideH=1, strideW=1)
    plan = check_model(builder.finish([source], [out]), Q)
    assert [op.kind for op in plan.graph.ops] == ["PAD", "CONV_2D"]


def test_two_dilated_convolutions_share_the_phases():
    """As gate and filter do: PAD and SPACE_TO_BATCH_ND go with the last of them."""
    builder, quant, rng = ModelBuilder(), (0.05, 3), np.random.default_rng(3)

    def integers(*values):
        return builder.tensor(np.shape(values), np.int32, data=np.array(values))

    def act(*shape):
        return builder.tensor(shape, np.int8, *quant)

    source, padded, phases, seen = act(1, 16, 4), act(1, 20, 4), act(4, 5, 4), act(4, 1, 5, 4)
    builder.op("PAD", [source, integers((0, 0), (4, 0), (0, 0))], [padded])
    builder.op("SPACE_TO_BATCH_ND", [padded, integers(4), integers((0, 0))], [phases])
    builder.op("RESHAPE", [phases, integers(4, 1, 5, 4)], [seen])
    results = []
    for _ in range(2):
        weights = builder.tensor((4, 1, 2, 4), np.int8, 0.02, 0, data=rng.integers(-127, 128, (4, 1, 2, 4)))
        made, flat, result = act(4, 1, 4, 4), act(4, 4, 4), act(1, 16, 4)
        bias = builder.tensor((4,), np.int32, 0.001, 0, data=rng.integers(-99, 99, 4))
        builder.op("CONV_2D", [seen, weights, bias], [made], padding=1, strideH=1, strideW=1)
        builder.op("RESHAPE", [made, integers(4, 4, 4)], [flat])
        builder.op("BATCH_TO_SPACE_ND", [flat, integers(4), integers((0, 0))], [result])
        results.append(result)
    plan = check_model(builder.finish([source], results), Q)
    assert {op.kind for op in plan.graph.ops} == {"RESHAPE", "CONV_2D"}
