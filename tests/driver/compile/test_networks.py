"""Whole small networks: layouts, reshapes, host steps, memory reuse, parts of a network, and waits under the worst
order of the engines.
"""

from dataclasses import replace

import numpy as np
import pytest

from convoy.driver.compile.pipeline import compile_graph, compile_with_costs
from convoy.driver.emit.program import HostStep, NpuStep
from convoy.driver.graph.graph import GraphError
from convoy.spec.config import PRESETS, NpuConfig
from convoy.spec.isa import HEADER, NN, TP, Opcode
from convoy.verif.graphs import GraphMaker, evaluate, run_plan

SMALL = NpuConfig(
    num_cores=2, num_lanes=8, post_lanes=4, num_acc_entries=16, stripe_bytes=4096, window_words=32, tp_buffer_bytes=1024
)


def conv(maker, source, num_oc, kernel=3, stride=1, kind="CONV_2D"):
    _, height, width, num_ic = maker.tensors[source].shape
    shape = (1, kernel, kernel, num_oc) if kind == "DEPTHWISE_CONV_2D" else (num_oc, kernel, kernel, num_ic)
    weights = maker.weights(shape, num_oc, 3 if kind == "DEPTHWISE_CONV_2D" else 0)
    bias = maker.tensor((num_oc,), np.int32, maker.rng.integers(-2000, 2000, num_oc).astype(np.int32), zero_point=0)
    return maker.op(
        kind,
        (source, weights, bias),
        (1, -(-height // stride), -(-width // stride), num_oc),
        padding="SAME",
        stride_h=stride,
        stride_w=stride,
        activation="RELU",
    )


def fully_connected(maker, source, num_oc):
    num_ic = int(np.prod(maker.tensors[source].shape))
    bias = maker.tensor((num_oc,), np.int32, maker.rng.integers(-2000, 2000, num_oc).astype(np.int32), zero_point=0)
    return maker.op("FULLY_CONNECTED", (source, maker.weights((num_oc, num_ic), 1, 0), bias), (1, num_oc))


def residual_network(height=9, width=13):
    """Convolutions, a residual addition whose operands live long, a pool, a flatten and a softmax."""
    maker = GraphMaker(7)
    source = maker.tensor((1, height, width, 3))
    trunk = conv(maker, source, 6)
    left = conv(maker, conv(maker, trunk, 6), 6)
    total = maker.op("ADD", (left, trunk), (1, height, width, 6), activation="RELU")
    right = conv(maker, conv(maker, total, 10, stride=2), 10, kind="DEPTHWISE_CONV_2D")
    shortcut = conv(maker, total, 10, kernel=1, stride=2)
    total = maker.op("ADD", (right, shortcut), maker.tensors[right].shape)
    _, height, width, _ = maker.tensors[total].shape
    pooled = maker.op(
        "MAX_POOL_2D", (total,), (1, height // 2, width // 2, 10), filter_h=2, filter_w=2, stride_h=2, stride_w=2
    )
    flat = maker.op("RESHAPE", (pooled,), (1, int(np.prod(maker.tensors[pooled].shape))))
    logits = fully_connected(maker, flat, 5)
    output = maker.op("SOFTMAX", (logits,), (1, 5), beta=1.0)
    quant = maker.tensors[output].quant
    maker.tensors[output] = replace(
        maker.tensors[output], quant=replace(quant, scale=np.array([1 / 256], np.float32), zero_point=np.array([-128]))
    )
    return maker.graph([source], [output])


def random_inputs(graph):
    rng = np.random.default_rng(0)
    return {index: rng.integers(-128, 128, graph.tensors[index].shape).astype(np.int8) for index in graph.inputs}


def check(graph, plan):
    """Everything that survives in memory is right: all tensors with `keep_tensors`, else the network's outputs."""
    expected, got = evaluate(graph, random_inputs(graph)), run_plan(plan, random_inputs(graph))
    for index in {tensor for op in plan.graph.ops for tensor in op.outputs} & expected.keys():
        if index not in got:
            assert any("is not stored" in plan.notes[op.index] for op in plan.graph.ops if index in op.outputs)
            continue
        np.testing.assert_array_equal(got[index], expected[index], err_msg=graph.tensors[index].name)


@pytest.mark.parametrize("config", [SMALL, PRESETS["Q"], PRESETS["X"]])
@pytest.mark.parametrize("size", [(9, 13), (20, 6), (3, 17)])
def test_residual_network(config, size):
    graph = residual_network(*size)
    plan = compile_graph(graph, config, keep_tensors=True)
    check(graph, plan)
    assert [type(step) for step in plan.steps] == [NpuStep, HostStep]
    assert plan.steps[0].engines[0] in ("nn+tp", "nn")
    assert plan.steps[1].reasons == ("SOFTMAX is not supported by the NPU",)


def test_memory_is_reused():
    graph = residual_network()
    kept, reused = (compile_graph(graph, SMALL, keep_tensors=keep) for keep in (True, False))
    assert reused.memory_bytes < kept.memory_bytes
    expected, got = evaluate(graph, random_inputs(graph)), run_plan(reused, random_inputs(graph))
    np.testing.assert_array_equal(got[graph.outputs[0]], expected[graph.outputs[0]])


def reordered(step, laggard):
    """The program in an order that the engines may really take: `laggard` does nothing before another descriptor
    waits for it.
    """
    order, held = [], []
    for raw in step.program.descriptors:
        header = HEADER.decode(raw[: HEADER.num_bytes])
        if header["opcode"] == laggard:
            held.append(raw)
            continue
        if header["wait_nn" if laggard == Opcode.NN else "wait_tp"]:
            num_done = max(0, len(held) - header["tp_ahead"] * (laggard == Opcode.TP))
            order, held = order + held[:num_done], held[num_done:]
        order.append(raw)
    return order + held


@pytest.mark.parametrize("laggard", [Opcode.NN, Opcode.TP])
@pytest.mark.parametrize("keep_tensors", [True, False])
def test_waits_make_any_order_of_the_engines_right(laggard, keep_tensors):
    graph = residual_network()
    plan = compile_graph(graph, SMALL, keep_tensors=keep_tensors)
    step = plan.steps[0]
    order = reordered(step, laggard)
    assert sorted(order) == sorted(step.program.descriptors)
    image = tuple(
        (addr, b"".join(order) if addr == step.program.program_addr else raw) for addr, raw in step.program.image
    )
    changed = replace(plan, steps=(replace(step, program=replace(step.program, image=image)), *plan.steps[1:]))
    expected, got = evaluate(graph, random_inputs(graph)), run_plan(changed, random_inputs(graph))
    np.testing.assert_array_equal(got[graph.outputs[0]], expected[graph.outputs[0]])


def test_an_engine_waits_for_what_it_wrote_itself():
    graph = residual_network()
    plan = compile_graph(graph, SMALL, keep_tensors=True)
    step, waited = plan.steps[0], {Opcode.NN: set(), Opcode.TP: set()}
    writers = {}  # placement -> (engine, op)
    for raw, op in zip(step.program.descriptors, step.program.ops, strict=True):
        header = HEADER.decode(raw[: HEADER.num_bytes])
        engine = Opcode(header["opcode"])
        record = (NN if engine == Opcode.NN else TP).decode(raw)
        if header["wait_nn" if engine == Opcode.NN else "wait_tp"]:
            waited[engine] = {key for key, (by, _) in writers.items() if by == engine}
        read = record["act_addr" if engine == Opcode.NN else "a_addr"]
        for index, place in plan.placements.items():
            if (
                place.addr <= read < place.addr + place.num_bytes
                and writers.get(index, (None, op))[0] == engine
                and writers[index][1] != op
            ):
                assert index in waited[engine], f"operator {op} reads tensor {index}"
            if place.addr <= record["out_addr"] < place.addr + place.num_bytes:
                writers[index] = engine, op


@pytest.mark.parametrize("is_wide", [False, True])
def test_orientation_follows_the_shape(is_wide):
    maker = GraphMaker(3)
    size = (5, 48) if is_wide else (48, 5)
    source = maker.tensor((1, *size, 8))
    target = conv(maker, conv(maker, source, 16), 16)
    compiled = compile_with_costs(maker.graph([source], [target]), PRESETS["Q"])
    assert compiled.is_transposed == (not is_wide)
    check(maker.graph([source], [target]), compiled.plan)


def test_a_part_of_a_network():
    graph = residual_network()
    expected = evaluate(graph, random_inputs(graph))
    plan = compile_graph(graph, SMALL, keep_tensors=True, layers=range(1, 5))
    assert set(plan.graph.inputs) == {graph.ops[0].outputs[0]}
    assert set(plan.graph.outputs) == {graph.ops[4].outputs[0], graph.ops[3].outputs[0]} & set(plan.graph.outputs)
    got = run_plan(plan, {index: expected[index] for index in plan.graph.inputs})
    assert graph.ops[2].outputs[0] not in plan.placements, "fused into the sum"
    for op in (graph.ops[1], *graph.ops[3:5]):
        np.testing.assert_array_equal(got[op.outputs[0]], expected[op.outputs[0]])
    assert plan.steps[0].engines[graph.ops[1].index] == "nn", "inputs of a part come in the layout of the NPU"
    with pytest.raises(GraphError, match="layers 3:3 are not part of 0:12"):
        compile_graph(graph, SMALL, layers=range(3, 3))


def test_reshape_at_the_edges():
    """A flat input becomes an image; a lone reshape is left to the host; a one-channel image is already planar."""
    maker = GraphMaker(5)
    source = maker.tensor((1, 60))
    image = maker.op("RESHAPE", (source,), (1, 10, 6, 1))
    target = conv(maker, image, 4)
    logits = maker.op("SOFTMAX", (maker.op("RESHAPE", (target,), (1, 240)),), (1, 240), beta=1.0)
    last = maker.op("RESHAPE", (logits,), (4, 60))
    graph = maker.graph([source], [last])
    for index in (logits, last):
        maker.tensors[index] = replace(
            graph.tensors[index],
            quant=replace(
                graph.tensors[index].quant, scale=np.array([1 / 256], np.float32), zero_point=np.array([-128])
            ),
        )
    graph = maker.graph([source], [last])
    plan = compile_graph(graph, PRESETS["Q"], keep_tensors=True)
    check(graph, plan)
    assert [type(step) for step in plan.steps] == [NpuStep, HostStep]
    assert plan.steps[0].engines[0] == "alias"
    assert plan.steps[0].engines[2] == "tp"


def test_a_convolution_does_not_wait_for_blocks_before_it():
    """Pixels with their channels are made in several blocks; the next convolution comes behind the first of them."""
    maker = GraphMaker(4)
    source = maker.tensor((1, 40, 40, 3))
    boxes = conv(maker, source, 12)
    rows = maker.op("RESHAPE", (boxes,), (1, 4800, 4))
    graph = maker.graph([source], [rows, conv(maker, source, 8)])
    plan = compile_graph(graph, PRESETS["Q"], keep_tensors=True)
    check(graph, plan)
    program = plan.steps[0].program
    engines = [raw[0] for raw, op in zip(program.descriptors, program.ops, strict=True) if op]
    assert engines[:3] == [Opcode.TP, Opcode.NN, Opcode.TP]
    assert not HEADER.decode(program.descriptors[list(program.ops).index(2)][: HEADER.num_bytes])["wait_tp"]


def test_pixels_in_a_row_stay_where_they_are():
    """Planes of an image are planes of one row of its pixels; rows that are cut apart are made in one piece."""
    maker = GraphMaker(6)
    source = maker.tensor((1, 7, 6, 5))
    image = conv(maker, source, 6)
    row = maker.op("RESHAPE", (image,), (1, 42, 6))
    layer = maker.op("FULLY_CONNECTED", (row, maker.weights((9, 6), 1, 0), -1), (1, 42, 9), keep_num_dims=True)
    steps = maker.op("RESHAPE", (layer,), (42, 1, 9))
    half = 21, 1, 9
    parts = [maker.op("SLICE", (steps, maker.constant((n, 0, 0)), maker.constant(half)), half) for n in (0, 21)]
    graph = maker.graph([source], [maker.op("ADD", parts, half)])
    plan = compile_graph(graph, PRESETS["Q"], keep_tensors=True)
    check(graph, plan)
    engines = [plan.steps[0].engines[op.index] for op in graph.ops[1:6]]
    assert [engines[0], engines[2:]] == ["alias", ["tp", "alias", "alias"]]


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("CONV_2D", {"pads": (-1, 0, 0, 0)}, "a pad of -1 along height"),
        ("DIV", {}, "DIV is not supported by the NPU; the host would execute it"),
    ],
)
def test_refusals_name_the_operator(kind, options, message):
    maker = GraphMaker()
    source, weights = maker.tensor((1, 12, 12, 2)), maker.weights((4, 3, 3, 2), 4, 0)
    stride = options.get("stride_h", 1)
    height = (12 + options.get("pads", (0,))[0] - 3) // stride + 1
    target = maker.op(kind, (source, weights, -1), (1, height, 10, 4), **options)
    with pytest.raises(GraphError, match=rf"operator 0 {kind} \('t2'\).*{message}"):
        compile_graph(maker.graph([source], [target]), PRESETS["Q"], is_strict=True)


def test_types_beyond_the_contract():
    maker = GraphMaker()
    source, weights = maker.tensor((1, 20, 20, 1)), maker.weights((1, 11, 1, 1), 1, 0)
    target = maker.op("CONV_2D", (source, weights, -1), (1, 10, 20, 1))
    maker.tensors[source] = replace(maker.tensors[source], dtype=np.dtype(np.uint16))
    with pytest.raises(GraphError, match="'t0' is uint16, 't2' is int8; they should have one dtype"):
        compile_graph(maker.graph([source], [target]), PRESETS["Q"], is_strict=True)
