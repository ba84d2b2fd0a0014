"""Convolutions that read pixels where they are: behind pools of one pixel, slices, and pads around them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convoy.driver.compile.pipeline import compile_graph
from convoy.spec.config import PRESETS
from convoy.verif.graphs import GraphMaker, evaluate, random_values, run_plan

Q = PRESETS["Q"]


def check(graph, config=Q):
    """The result is right; the plan."""
    plan, inputs, last = compile_graph(graph, config), random_values(graph, 0), graph.outputs[0]
    np.testing.assert_array_equal(run_plan(plan, dict(inputs))[last], evaluate(graph, inputs)[last])
    return plan


def network(kind="AVERAGE_POOL_2D", kernel=1, taps=1, **options):
    """A pool at stride 2 and a convolution at stride 1."""
    maker = GraphMaker(1, np.int8)
    source = maker.tensor((1, 9, 12, 5))
    options = dict(padding="VALID", filter_h=kernel, filter_w=kernel, stride_h=2, stride_w=2) | options
    shape = 1, (9 - kernel) // 2 + 1, (12 - kernel) // 2 + 1, 5
    pooled = maker.op(kind, (source,), shape, **options)
    weights = maker.weights((8, taps, taps, 5), 8, 0)
    made = maker.op(
        "CONV_2D",
        (pooled, weights, maker.bias(8, 5 * taps * taps)),
        (1, shape[1] - taps + 1, shape[2] - taps + 1, 8),
        stride_h=1,
        stride_w=1,
    )
    return maker, source, pooled, made


@pytest.mark.parametrize("kind", ["AVERAGE_POOL_2D", "MAX_POOL_2D"])
def test_a_convolution_takes_the_stride_of_a_pool_of_one_pixel(kind):
    maker, source, pooled, made = network(kind)
    plan = check(maker.graph([source], [made]))
    (op,) = plan.graph.ops
    assert (op.kind, op.options["stride_h"], op.options["stride_w"]) == ("CONV_2D", 2, 2)
    assert pooled not in plan.placements


def test_taps_are_as_far_apart_as_the_pixels():
    maker, source, _, made = network(taps=2)
    (op,) = check(maker.graph([source], [made])).graph.ops
    assert [op.options[f"{name}_h"] for name in ("stride", "dilation")] == [2, 2]


@pytest.mark.parametrize("changes", [dict(kernel=2), dict(activation="RELU")], ids=["windows", "clamp"])
def test_other_pools_stay(changes):
    maker, source, _, made = network(**changes)
    assert len(compile_graph(maker.graph([source], [made]), Q).graph.ops) == 2


def test_a_pool_with_another_reader_stays():
    maker, source, pooled, made = network()
    assert len(compile_graph(maker.graph([source], [made, pooled]), Q).graph.ops) == 2


def moved(*steps, shape=(1, 9, 12, 5), kernel=1, stride=1, dilation=1, is_depthwise=False, dtype=np.int8):
    """A convolution of what pads (rows, columns, each before and behind) and slices (rows, columns, each begin, end and
    step) make of an image, in this order.
    """
    maker = GraphMaker(1, dtype)
    last = source = maker.tensor(shape, zero_point=0 if dtype == np.int16 else 3)
    for kind, rows, cols in steps:
        height, width = maker.tensors[last].shape[1:3]
        if kind == "PAD":
            pads = maker.constant([[0, 0], rows, cols, [0, 0]])
            size = height + sum(rows), width + sum(cols)
            last = maker.op(kind, (last, pads), (1, *size, shape[3]))
        else:
            begins, ends, steps = ([0, *part, 0] for part in zip(rows, cols, strict=True))
            size = len(range(*rows)), len(range(*cols))
            inputs = [maker.constant(values) for values in (begins, [1, *ends[1:3], shape[3]], [1, *steps[1:3], 1])]
            masks = dict.fromkeys(("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask"), 0)
            last = maker.op(kind, (last, *inputs), (1, *size, shape[3]), **masks)
    sizes = [(extent - (kernel - 1) * dilation - 1) // stride + 1 for extent in maker.tensors[last].shape[1:3]]
    num_oc, kind = (shape[3], "DEPTHWISE_CONV_2D") if is_depthwise else (8, "CONV_2D")
    weights = (1, kernel, kernel, num_oc) if is_depthwise else (num_oc, kernel, kernel, shape[3])
    made = maker.op(
        kind,
        (last, maker.weights(weights, num_oc, 3 if is_depthwise else 0), maker.bias(num_oc, 9, is_depthwise)),
        (1, *sizes, num_oc),
        **{f"{name}_{axis}": step for name, step in (("stride", stride), ("dilation", dilation)) for axis in "hw"},
    )
    return maker.graph([source], [made])


SHIFT = ("PAD", (0, 1), (0, 1)), ("STRIDED_SLICE", (1, 10, 1), (1, 13, 1))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16])
@pytest.mark.parametrize("is_depthwise", [False, True])
@pytest.mark.parametrize(
    ("steps", "options"),
    [
        (SHIFT, {"stride": 2}),
        (SHIFT, {"kernel": 3, "dilation": 2}),
        ((("STRIDED_SLICE", (1, 9, 2), (3, 12, 2)),), {"kernel": 3}),
        ((("STRIDED_SLICE", (2, 8, 1), (0, 12, 1)), ("STRIDED_SLICE", (1, 5, 1), (1, 12, 1))), {}),
        ((("PAD", (2, 0), (1, 3)), ("STRIDED_SLICE", (1, 11, 1), (0, 15, 1))), {"kernel": 2}),
    ],
    ids=["shift", "dilated", "steps", "twice", "frame"],
)
def test_what_slices_and_pads_make_is_read_where_it_is(steps, options, is_depthwise, dtype):
    (op,) = check(moved(*steps, is_depthwise=is_depthwise, dtype=dtype, **options)).graph.ops
    assert op.kind == ("DEPTHWISE_CONV_2D" if is_depthwise else "CONV_2D")
    assert op.note.startswith("reads what operator")


@pytest.mark.parametrize(
    ("steps", "options"),
    [
        ((("STRIDED_SLICE", (1, 9, 1), (0, 12, 1)), ("PAD", (1, 1), (0, 0))), {"kernel": 3}),
        ((("STRIDED_SLICE", (0, 9, 3), (0, 12, 3)),), {"kernel": 3}),
        ((("STRIDED_SLICE", (6, 9, 1), (0, 12, 1)),), {}),
    ],
    ids=["pads over pixels", "large steps", "far"],
)
def test_what_no_convolution_reads_stays(steps, options):
    assert [op.kind for op in check(moved(*steps, **options)).graph.ops][-2:][0] in ("STRIDED_SLICE", "PAD")


def test_a_slice_with_another_reader_stays():
    graph = moved(*SHIFT, stride=2)
    shifted = graph.ops[-1].inputs[0]
    plan = check(replace(graph, outputs=(*graph.outputs, shifted)))
    assert [op.kind for op in plan.graph.ops] == ["PAD", "STRIDED_SLICE", "CONV_2D"]


@settings(deadline=None, max_examples=30, derandomize=True)
@given(st.data())
def test_random_moves(data):
    """Pads and slices of any kind, in any order."""
    sizes, steps = [9, 12], []
    for _ in range(data.draw(st.integers(1, 3))):
        if data.draw(st.booleans()):
            pads = [data.draw(st.tuples(st.integers(0, 2), st.integers(0, 2))) for _ in sizes]
            steps.append(("PAD", *pads))
            sizes = [size + sum(pad) for size, pad in zip(sizes, pads, strict=True)]
        else:
            begins = [data.draw(st.integers(0, min(3, size - 1))) for size in sizes]
            ends = [
                data.draw(st.integers(max(begin + 1, size - 3), size))
                for begin, size in zip(begins, sizes, strict=True)
            ]
            parts = [(begin, end, data.draw(st.integers(1, 2))) for begin, end in zip(begins, ends, strict=True)]
            steps.append(("STRIDED_SLICE", *parts))
            sizes = [len(range(*part)) for part in parts]
    kernel, stride = data.draw(st.integers(1, min(3, *sizes))), data.draw(st.integers(1, 2))
    check(moved(*steps, kernel=kernel, stride=stride, is_depthwise=data.draw(st.booleans())))
