"""Maximum pools behind convolutions: which are fused, that those are right in any tiling, and what is said of the
others.
"""

import numpy as np
import pytest
from hypothesis import assume, given, settings

from convoy.driver.compile.pipeline import compile_graph, compile_with_costs
from convoy.driver.devices import open_device
from convoy.driver.graph.graph import GraphError
from convoy.driver.runtime.device import PoolError, npu_error
from convoy.driver.runtime.session import Session
from convoy.driver.workload.reference import run_reference
from convoy.driver.workload.synthetic import LayerSpec, make_layer
from convoy.spec.config import PRESETS, NpuConfig
from convoy.spec.csr import Error
from convoy.spec.isa import DESCRIPTOR_BYTES, NN
from convoy.spec.limits import FusedPool, broken_limit
from convoy.verif.graphs import GraphMaker, evaluate, random_values, run_plan
from convoy.verif.strategies import configs, fused_pool_graphs

Q = PRESETS["Q"]


def check(graph, config=Q):
    """Every tensor that exists is right; the plan."""
    plan = compile_graph(graph, config, keep_tensors=True)
    inputs = random_values(graph, 0)
    expected, got = evaluate(graph, inputs), run_plan(plan, dict(inputs))
    for index in (op.outputs[0] for op in graph.ops):
        if index in plan.placements:
            np.testing.assert_array_equal(got[index], expected[index], err_msg=graph.tensors[index].name)
    assert set(graph.outputs) <= set(plan.placements)
    return plan


def conv(maker, source, num_oc, kernel=1, stride=1, is_depthwise=False):
    _, height, width, num_ic = maker.tensors[source].shape
    shape = (1, (height - kernel) // stride + 1, (width - kernel) // stride + 1, num_oc)
    bias = maker.bias(num_oc, kernel * kernel * num_ic, is_depthwise)
    kind, weights = "CONV_2D", (num_oc, kernel, kernel, num_ic)
    if is_depthwise:
        kind, weights = "DEPTHWISE_CONV_2D", (1, kernel, kernel, num_oc)
    return maker.op(
        kind,
        (source, maker.weights(weights, num_oc, 3 if is_depthwise else 0), bias),
        shape,
        stride_h=stride,
        stride_w=stride,
    )


def pool(maker, source, size, **options):
    _, height, width, num_c = maker.tensors[source].shape
    options = {"padding": "VALID", "filter_h": size, "filter_w": size, "stride_h": 2, "stride_w": 2} | options
    sizes = (
        (-(-height // 2), -(-width // 2))
        if options["padding"] == "SAME"
        else (
            (height - options["filter_h"]) // options["stride_h"] + 1,
            (width - options["filter_w"]) // options["stride_w"] + 1,
        )
    )
    return maker.op("MAX_POOL_2D", (source,), (1, *sizes, num_c), **options)


def pooled_layer(height, width, size, num_oc=6, dtype=np.int8, **options):
    """A convolution with `height` x `width` outputs and a pool."""
    maker = GraphMaker(height * 100 + width, dtype)
    source = maker.tensor((1, height, width, 3))
    return maker.graph([source], [pool(maker, conv(maker, source, num_oc), size, **options)])


@pytest.mark.parametrize(
    ("height", "width", "size", "is_legal"),
    [
        (2, 2, 2, True),
        (3, 2, 2, True),
        (2, 3, 2, True),
        (62, 62, 2, True),
        (62, 63, 2, True),
        (64, 64, 2, True),
        (62, 65, 2, True),
        (2, 300, 2, True),
        (3, 3, 3, True),
        (3, 4, 3, True),
        (4, 3, 3, True),
        (31, 61, 3, True),
        (31, 62, 3, True),
        (31, 63, 3, True),
        (31, 64, 3, True),
        (31, 65, 3, False),
        (5, 30, 3, True),
        (5, 31, 3, True),
        (5, 32, 3, True),
        (5, 33, 3, True),
        (201, 63, 3, True),
        (65, 5, 3, True),
    ],
)
def test_both_sides_of_each_limit(height, width, size, is_legal):
    check_verdict(pooled_layer(height, width, size), size, is_legal)


@pytest.mark.parametrize(
    ("height", "width", "size", "is_legal"),
    [
        (2, 2, 2, True),
        (3, 2, 2, True),
        (2, 3, 2, True),
        (62, 64, 2, True),
        (2, 300, 2, True),
        (3, 3, 3, True),
        (3, 4, 3, True),
        (4, 3, 3, True),
        (31, 29, 3, True),
        (31, 30, 3, True),
        (31, 31, 3, True),
        (31, 32, 3, True),
        (31, 33, 3, False),
        (31, 63, 3, False),
        (201, 31, 3, True),
        (65, 5, 3, True),
    ],
)
def test_both_sides_of_each_limit_of_int16(height, width, size, is_legal):
    check_verdict(pooled_layer(height, width, size, dtype=np.int16), size, is_legal)


def check_verdict(graph, size, is_legal):
    plan = check(graph)
    assert (plan.steps[0].engines[1] == "fused") == is_legal
    assert plan.notes[1].startswith(
        "fused into operator 0 CONV_2D" if is_legal else f"not fused: a fused {size}x{size} pool takes"
    )


@pytest.mark.parametrize(("element_bytes", "widths"), [(1, (31, 33, 61, 63)), (2, (3, 29, 31))])
def test_widths_of_a_3x3_pool(element_bytes, widths):
    """Of all around the limits; in the 16-bit mode half as wide."""

    def legal(width):
        return broken_limit(FusedPool((3, 3), (2, 2), False, (5, width), element_bytes), Q) is None

    assert [width for width in (1, 2, 3, *range(29, 34), *range(61, 67)) if legal(width)] == [
        width for width in (3, 29, 31, 33, 61, 63) if width <= widths[-1]
    ]
    assert set(widths) <= {width for width in range(70) if legal(width)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"filter_h": 4}, "a fused pool has a 2x2 or 3x3 window; this is a 4x3 pool of stride 2x2 reading 8x9"),
        ({"filter_w": 2}, "a fused pool has a 2x2 or 3x3 window; this is a 3x2 pool"),
        ({"stride_w": 1}, "a fused pool has stride 2; this is a 3x3 pool of stride 2x1"),
        ({"padding": "SAME"}, "a fused pool has no pads"),
    ],
)
def test_other_pools_run_on_tp(options, message):
    plan = check(pooled_layer(9, 9, 3, **options))
    assert plan.steps[0].engines[1] == "tp"
    assert plan.notes[1].startswith(f"not fused: {message}")


def test_an_average_is_not_fused():
    maker = GraphMaker(3)
    source = maker.tensor((1, 8, 8, 3))
    trunk = conv(maker, source, 4)
    last = maker.op(
        "AVERAGE_POOL_2D", (trunk,), (1, 4, 4, 4), padding="VALID", filter_h=2, filter_w=2, stride_h=2, stride_w=2
    )
    assert check(maker.graph([source], [last])).steps[0].engines[1] == "tp"


def test_what_keeps_a_pool_apart():
    maker = GraphMaker(4)
    source = maker.tensor((1, 8, 8, 6))
    trunk = conv(maker, source, 6)
    last = pool(maker, trunk, 2)
    assert check(maker.graph([source], [last, trunk])).notes == {
        1: "not fused: its operand is an output of the network"
    }
    gate = maker.op("TANH", (trunk,), (1, 8, 8, 6))
    assert check(maker.graph([source], [last, gate])).notes[1] == "not fused: its operand has 2 readers"
    maker.ops[1:] = []
    total = maker.op("ADD", (trunk, source), (1, 8, 8, 6))
    maker.ops.append(maker.ops.pop())
    notes = check(maker.graph([source], [pool(maker, total, 2)])).notes
    assert notes[2].startswith(
        "not fused: its operand comes from ADD"
        if "not fused" in notes[1]
        else "not fused: a sum or a pool is fused there"
    )
    alone = GraphMaker(5)
    source = alone.tensor((1, 8, 8, 6))
    assert check(alone.graph([source], [pool(alone, source, 2)])).notes == {
        0: "not fused: its operand is an input of the network"
    }


def test_two_pools_and_a_sum():
    """The first pool is fused; what comes behind is not."""
    maker = GraphMaker(6)
    source, other = maker.tensor((1, 8, 8, 3)), maker.tensor((1, 4, 4, 6))
    first = pool(maker, conv(maker, source, 6), 2)
    total = maker.op("ADD", (first, other), (1, 4, 4, 6))
    plan = check(maker.graph([source, other], [pool(maker, total, 2)]))
    assert plan.notes[2] == "not fused: a pool is fused there, which comes last"
    maker.ops[2:] = []
    plan = check(maker.graph([source], [pool(maker, first, 2)]))
    assert plan.notes[2] == "not fused: a sum or a pool is fused there, which comes last"


def test_clamps_and_tables_on_either_side():
    """The pool's clamp goes into the convolution's or into the table; a table behind the pool may move before it if
    it never falls.
    """
    maker = GraphMaker(7)
    source = maker.tensor((1, 9, 9, 3))
    first = pool(maker, conv(maker, source, 6), 3, activation="RELU6")
    rising = maker.op("LOGISTIC", (first,), (1, 4, 4, 6))
    assert check(maker.graph([source], [rising])).steps[0].engines == {0: "nn+tp", 1: "fused", 2: "fused"}
    falling = maker.op("GELU", (first,), (1, 4, 4, 6), approximate=False)
    maker.ops.pop(-2)
    assert check(maker.graph([source], [falling])).notes[3] == "not fused: a pool is fused there, which comes last"
    maker = GraphMaker(8)
    source = maker.tensor((1, 9, 9, 3))
    gate = maker.op("GELU", (conv(maker, source, 6),), (1, 9, 9, 6), approximate=False)
    assert check(maker.graph([source], [pool(maker, gate, 3, activation="RELU6")])).steps[0].engines == {
        0: "nn+tp",
        1: "fused",
        2: "fused",
    }


@pytest.mark.parametrize("dtype", [np.int8, np.int16])
@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize(
    ("config", "stride", "is_depthwise"),
    [
        (Q.with_(stripe_bytes=4096), 1, False),
        (Q.with_(pool_channels=4), 1, False),
        (Q.with_(pool_channels=4), 1, True),
        (Q.with_(window_words=16, num_lanes=8, post_lanes=4), 1, False),
        (Q.with_(window_words=16), 2, True),
        (NpuConfig(num_cores=1, num_lanes=8, post_lanes=1, num_acc_entries=16, window_words=32), 1, False),
        (Q, 3, False),
        (Q, 3, True),
    ],
    ids=["stripes", "channels", "depthwise", "columns", "depthwise_columns", "small", "phases", "depthwise_phases"],
)
def test_tilings(config, stride, is_depthwise, size, dtype):
    """Stripes of rows and of columns, few lines, phase planes."""
    extent = 28 + size
    is_cut = config.window_words == 16
    if is_depthwise and is_cut:
        config = config.with_(window_words=16 * np.dtype(dtype).itemsize)
    maker = GraphMaker(9, dtype)
    source = maker.tensor((1, (extent - 1) * stride + 5, (extent - 1) * stride + 5, 7))
    trunk = conv(maker, source, 7 if is_depthwise else 13, 5, stride, is_depthwise)
    graph = maker.graph([source], [pool(maker, trunk, size)])
    assert check(graph, config).steps[0].engines[1] == "fused"
    tilings = compile_with_costs(graph, config).tilings
    if config.stripe_bytes == 4096:
        assert len(tilings[0].stripes) > 1
    if is_cut:
        assert tilings[0].stripes[0].num_cols < extent


@settings(deadline=None, max_examples=25, derandomize=True)
@given(fused_pool_graphs(), configs())
def test_random_layers_with_pools(graph, config):
    try:
        compile_graph(graph, config)
    except GraphError as error:
        assume(not any(limit in str(error) for limit in ("window memory", "stripe memory", "TP buffer")))
        raise
    check(graph, config)


@pytest.mark.parametrize("dtype", ["int8", "int16"])
@pytest.mark.parametrize(("pool_name", "extent"), [("2x2", 10), ("3x3", 11)])
def test_equals_litert(pool_name, extent, dtype):
    """The same bytes as LiteRT's MAX_POOL_2D."""
    layer = make_layer(
        LayerSpec(
            "conv", (extent, extent, 4), 5, (3, 3), pads=(1, 1, 1, 1), activation="relu", pool=pool_name, dtype=dtype
        )
    )
    plan = compile_graph(layer.graph, Q)
    assert plan.steps[0].engines[1] == "fused"
    inputs = random_values(layer.graph, 1)
    last = layer.graph.outputs[0]
    np.testing.assert_array_equal(
        run_plan(plan, dict(inputs))[last], run_reference(layer.reference_model, [inputs[0]])[last]
    )


def test_illegal_pools_are_refused_by_name():
    """A descriptor spoilt in memory: the golden device stops like the hardware, and the driver has an exception for
    it.
    """
    graph = pooled_layer(9, 9, 3)
    plan = compile_graph(graph, Q)
    device = open_device("golden", Q)
    session = Session(plan, device)
    program = plan.steps[0].program
    index, addr = next(
        (n, program.program_addr + n * DESCRIPTOR_BYTES) for n, raw in enumerate(program.descriptors) if raw[0] == 1
    )
    device.write_memory(addr, NN.encode(**NN.decode(program.descriptors[index]) | {"pool_size": 2}))
    with pytest.raises(PoolError, match=r"error POOL at address 0x.*docs/reference/limits.md") as caught:
        session.run({graph.inputs[0]: np.zeros((1, 9, 9, 3), np.int8)})
    assert (caught.value.code, caught.value.addr) == (Error.POOL, addr)
    assert isinstance(npu_error(Error.POOL, 0), PoolError)
