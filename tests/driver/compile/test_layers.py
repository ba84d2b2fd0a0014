"""Single layers of random shape on random, mostly small configurations: the compiled plan on the golden machine
against the golden layers.
"""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convoy.driver.compile import pipeline
from convoy.driver.compile.lowering import lower_graph
from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.graph.graph import GraphError
from convoy.driver.lower.work import ConvWork
from convoy.driver.plan.cost import words_per_row
from convoy.driver.plan.phases import Splits, in_columns, split_conv, stride_choices
from convoy.driver.plan.tile import tile_work
from convoy.spec.config import PRESETS, NpuConfig
from convoy.spec.isa import NN, TP, Opcode
from convoy.verif.graphs import GraphMaker, evaluate, random_values, run_plan
from convoy.verif.strategies import configs, layer_graphs, out_size

PROPERTY = settings(deadline=None, max_examples=30, derandomize=True)


def check(graph, config):
    """Every tensor in NPU memory is what the golden layers make of random inputs."""
    plan = compile_graph(graph, config, keep_tensors=True)
    inputs = random_values(graph, 0)
    expected, got = evaluate(graph, inputs), run_plan(plan, dict(inputs))
    for op in graph.ops:
        if op.outputs[0] not in plan.placements:
            assert "is not stored" in plan.notes[op.index]
            continue
        np.testing.assert_array_equal(got[op.outputs[0]], expected[op.outputs[0]], err_msg=f"{op.index} {op.kind}")


def refusal(graph, config) -> str:
    """What the compiler says when it refuses the graph; empty when it does not."""
    try:
        compile_graph(graph, config)
    except GraphError as error:
        return str(error)
    return ""


@PROPERTY
@given(layer_graphs(), configs())
def test_layers(graph, config):
    if message := refusal(graph, config):
        assert any(limit in message for limit in ("window memory", "stripe memory", "TP buffer"))
    else:
        check(graph, config)


def share_of_strides(number, works, config, *, is_transposed, in_order):
    """Strides that the tensor processor takes by a number, not by cost; by an odd one of images in columns where they
    are in the order of tensors.
    """
    splits = {}
    for position, work in enumerate(works):
        if isinstance(work, ConvWork):
            is_wide = number % 2 and position in in_order and not is_transposed
            wide = in_columns(work) if is_wide else None
            stored = wide or work.oriented(is_transposed)
            choices = stride_choices(stored)
            strides = choices[number // 2 % len(choices)]
            if wide or strides != (stored.rows.stride, stored.cols.stride):
                split = split_conv(stored, strides, config)
                splits[position] = replace(split, is_of_columns=wide is not None)
    return Splits(is_transposed, splits)


@PROPERTY
@given(layer_graphs(), configs(), st.integers(0, 7))
def test_any_share_of_the_strides(graph, config, number):
    """Whatever the tensor processor takes of the strides, native ones too, the result is the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "choose_strides", partial(share_of_strides, number))
        if message := refusal(graph, config):
            assert any(limit in message for limit in ("window memory", "stripe memory", "TP buffer"))
        else:
            check(graph, config)


@pytest.mark.parametrize(
    ("height", "width", "num_ic", "num_oc", "kernel", "limit"),
    [(4, 4, 8192, 8, 3, "stripe memory of 4096 bytes"), (1, 1, 65537, 8, 1, "stripe memory of 4096 bytes")],
)
def test_what_does_not_fit_is_refused(height, width, num_ic, num_oc, kernel, limit):
    maker = GraphMaker()
    source = maker.tensor((1, height, width, num_ic))
    weights = maker.weights((num_oc, kernel, kernel, num_ic), num_oc, 0)
    target = maker.op("CONV_2D", (source, weights, -1), (1, height - kernel + 1, width - kernel + 1, num_oc))
    with pytest.raises(GraphError, match=rf"operator 0 CONV_2D \('t\d'\): .*{limit}"):
        compile_graph(
            maker.graph([source], [target]), NpuConfig(stripe_bytes=4096, window_words=16, num_lanes=8, post_lanes=4)
        )


def test_all_pad_combinations_of_one_axis():
    """Pads 0..7 on either side, wider than the kernel too, in stripes of few rows."""
    for top in (0, 1, 3, 7):
        for bottom in (0, 2, 5, 7):
            maker = GraphMaker(top * 8 + bottom)
            source, weights = maker.tensor((1, 9, 6, 3)), maker.weights((5, 3, 2, 3), 5, 0)
            sizes = out_size(9, 3, 1, 1, top, bottom), out_size(6, 2, 1, 1, bottom, top)
            bias = maker.tensor((5,), np.int32, np.zeros(5, np.int32))
            target = maker.op("CONV_2D", (source, weights, bias), (1, *sizes, 5), pads=(top, bottom, bottom, top))
            check(
                maker.graph([source], [target]),
                NpuConfig(num_cores=2, num_lanes=8, post_lanes=4, stripe_bytes=4096, window_words=16),
            )


def strided(height, width, num_ic, num_oc, kernel, stride, pads=(0, 0, 0, 0), kind="CONV_2D", dtype=np.int8):
    """A graph of one convolution."""
    maker = GraphMaker(height + kernel[0], dtype)
    source = maker.tensor((1, height, width, num_ic))
    shape, axis = ((1, *kernel, num_oc), 3) if kind == "DEPTHWISE_CONV_2D" else ((num_oc, *kernel, num_ic), 0)
    bias_dtype = np.int64 if dtype == np.int16 else np.int32
    weights, bias = (
        maker.weights(shape, num_oc, axis),
        maker.tensor((num_oc,), bias_dtype, np.arange(num_oc, dtype=bias_dtype)),
    )
    sizes = [
        out_size(size, kernel[n], stride[n], 1, *pads[2 * n : 2 * n + 2]) for n, size in enumerate((height, width))
    ]
    return maker.graph(
        [source],
        [
            maker.op(
                kind, (source, weights, bias), (1, *sizes, num_oc), pads=pads, stride_h=stride[0], stride_w=stride[1]
            )
        ],
    )


@pytest.mark.parametrize("dtype", [np.int8, np.int16])
@pytest.mark.parametrize("stride", range(3, 9))
def test_strides_that_the_core_does_not_have(stride, dtype):
    """With another stride on the other axis; the largest kernel; an image with fewer rows than there are phases."""
    config = PRESETS["Q"].with_(tp_buffer_bytes=1024)
    check(strided(20, 33, 3, 5, (3, 5), (stride, 1 + stride % 4), (1, 7, 2, 3), dtype=dtype), config)
    check(
        strided(
            11 * stride, 11 * stride + 5, 2, 3, (11 * stride - 1,) * 2, (stride, stride), (7, 0, 1, 6), dtype=dtype
        ),
        config,
    )
    check(strided(2, 25, 9, 18, (2, 3), (stride, stride), (0, 7, 0, 2), "DEPTHWISE_CONV_2D", dtype), config)


@pytest.mark.parametrize("dtype", [np.int8, np.int16])
def test_rows_wider_than_the_buffer_are_split(dtype):
    check(strided(7, 1100, 1, 2, (3, 4), (3, 5), dtype=dtype), PRESETS["Q"].with_(tp_buffer_bytes=1024))


def test_phase_planes_are_made_while_the_core_computes():
    """A large image is split stripe by stripe, a depthwise layer by channels: TP descriptors come between those of
    the NN engine.
    """
    for graph in (
        strided(96, 96, 3, 16, (3, 3), (3, 3)),
        strided(48, 48, 16, 16, (3, 3), (3, 3), kind="DEPTHWISE_CONV_2D"),
    ):
        (step,) = compile_graph(graph, PRESETS["Q"]).steps
        opcodes = [raw[0] for raw in step.program.descriptors]
        first = opcodes.index(Opcode.NN)
        assert Opcode.TP in opcodes[first:]
        assert step.engines == {0: "nn+tp"}


def test_even_strides_leave_two_to_the_core(monkeypatch):
    """Fewer planes: a stride of 4 costs the tensor processor no more than two phases per axis."""
    monkeypatch.setattr("convoy.driver.compile.strides.swap_work", lambda *_: None)
    for stride, num_planes in ((4, 4), (3, 9)):
        (step,) = compile_graph(strided(24, 24, 1, 4, (4, 4), (stride, stride)), PRESETS["Q"]).steps
        layers = [NN.decode(raw) for raw in step.program.descriptors if raw[0] == Opcode.NN]
        assert [layer["num_ic"] for layer in layers] == [num_planes]


def test_a_window_of_one_phase_holds_more_pixels():
    """The windows of a large kernel at stride 2 have room for a few outputs; split into phases they hold half of the
    image, so that weights are read twice.
    """
    large, small = strided(37, 37, 2, 16, (21, 21), (2, 2), (7, 7, 7, 7)), strided(37, 37, 2, 16, (7, 7), (2, 2))
    found = [
        [(layer["num_ic"], layer["num_groups"]) for layer in descriptors(graph, PRESETS["Q"])]
        for graph in (large, small)
    ]
    assert [{num_ic for num_ic, _ in stripes} for stripes in found] == [{2 * 2 * 2}, {2}]
    assert sum(num_groups for _, num_groups in found[0]) == 2
    check(large, PRESETS["Q"])


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@pytest.mark.parametrize(
    ("size", "num_ic", "kernel", "stride", "pads"),
    [
        ((28, 28), 3, (7, 7), (7, 7), (0, 0, 0, 0)),
        ((30, 23), 4, (4, 5), (4, 5), (1, 2, 0, 3)),
        ((20, 21), 2, (7, 7), (4, 3), (3, 3, 2, 1)),
        ((1, 90), 3, (1, 9), (1, 3), (0, 0, 4, 4)),
        ((40, 33), 1, (8, 8), (8, 8), (0, 0, 0, 0)),
    ],
    ids=["patches", "pads", "overlapping", "row", "one channel"],
)
def test_an_image_in_the_order_of_tensors_becomes_planes_at_once(size, num_ic, kernel, stride, pads, dtype):
    """One tensor processor's descriptor at most moves a byte."""
    graph = strided(*size, num_ic, 16, kernel, stride, pads, dtype=dtype)
    check(graph, PRESETS["Q"])
    (step,) = compile_graph(graph, PRESETS["Q"]).steps
    moves = [TP.decode(raw) for raw in step.program.descriptors if raw[0] == Opcode.TP]
    assert all(not move["wait_tp"] for move in moves)


def test_images_of_a_batch_in_columns():
    """The same with a plane of columns for each image."""
    maker = GraphMaker(3)
    source, weights = maker.tensor((3, 16, 16, 3)), maker.weights((8, 4, 4, 3), 8, 0)
    result = maker.op("CONV_2D", (source, weights, -1), (3, 4, 4, 8), padding="SAME", stride_h=4, stride_w=4)
    check(maker.graph([source], [result]), PRESETS["Q"])


def test_only_the_rows_that_are_read_are_made():
    """Of 4 rows and 4 columns the kernel reads 3 each."""
    assert {layer["num_ic"] for layer in descriptors(strided(63, 63, 32, 32, (3, 3), (4, 4)), PRESETS["Q"])} == {
        32 * 3 * 3
    }


def descriptors(graph, config):
    """The NN descriptors of a graph that is one program."""
    (step,) = compile_graph(graph, config).steps
    return [NN.decode(raw) for raw in step.program.descriptors if raw[0] == Opcode.NN]


@pytest.mark.parametrize(
    ("config", "num_oc", "stride", "num_ic"),
    [
        (PRESETS["Q"].with_(stripe_bytes=8192), 46, (2, 2), [24, 22]),
        (NpuConfig(num_cores=1, num_lanes=8, post_lanes=2, stripe_bytes=4096), 46, (2, 2), [24, 24, 22, 22]),
        (NpuConfig(num_cores=1, num_lanes=8, post_lanes=2, stripe_bytes=4096), 92, (1, 1), [24, 24, 22, 22]),
    ],
)
def test_depthwise_channels_in_parts(config, num_oc, stride, num_ic):
    """Where not all channels fit, some at a time; with a small memory some rows of them.

    Tables begin at legal addresses.
    """
    graph = strided(14, 14, 46, num_oc, (3, 3), stride, (1, 1, 1, 1), "DEPTHWISE_CONV_2D")
    assert [layer["num_ic"] for layer in descriptors(graph, config)] == num_ic
    check(graph, config)


def test_words_per_row_by_hand():
    """15 pixels from 0, 15, 14 ...

    of a word of 16: only those that start at 0 or 1 touch one word; every 16 pixels: one word.
    """
    assert words_per_row(15, 15, 16) == 2 - 2 / 16
    assert words_per_row(15, 16, 16) == 1
    assert words_per_row(17, 24, 16) == 2


def test_lanes_are_well_filled():
    """Estimates of layers that the dataflow is made for come within 15 % of one multiply per lane and cycle."""
    for height, width, num_ic, num_oc, kernel in (
        (32, 32, 16, 16, 3),
        (16, 16, 32, 32, 3),
        (8, 8, 64, 64, 3),
        (25, 5, 64, 64, 1),
        (48, 48, 32, 16, 1),
    ):
        maker = GraphMaker(1)
        source, weights = (
            maker.tensor((1, height, width, num_ic)),
            maker.weights((num_oc, kernel, kernel, num_ic), num_oc, 0),
        )
        target = maker.op("CONV_2D", (source, weights, -1), (1, height, width, num_oc), padding="SAME")
        (work,) = lower_graph(maker.graph([source], [target]))
        ideal = height * width * num_ic * num_oc * kernel * kernel / 64
        assert tile_work(work, PRESETS["Q"]).cost.cycles < 1.15 * ideal
