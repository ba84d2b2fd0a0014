"""Operators that vanish: tables behind a layer or alone, sums into a convolution, and what keeps them from it."""

import numpy as np
import pytest
from hypothesis import given, settings

from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.emit.program import HostStep
from convoy.driver.graph.graph import GraphError, Tensor
from convoy.driver.graph.tflite_reader import read_tflite
from convoy.driver.graph.tflite_writer import write_tflite
from convoy.driver.workload.reference import run_reference
from convoy.golden.machine import Machine, MachineError
from convoy.spec.config import PRESETS
from convoy.spec.isa import DESCRIPTOR_BYTES, NN
from convoy.verif.graphs import GraphMaker, evaluate, random_values, run_plan
from convoy.verif.litert import ModelBuilder
from convoy.verif.models import check_model
from convoy.verif.strategies import configs, lut_graphs, residual_graphs

Q = PRESETS["Q"]


def random_inputs(graph):
    return random_values(graph, 0)


def check(graph, config=Q):
    """Every tensor that exists is right; the engines of the operators and the notes."""
    plan = compile_graph(graph, config, keep_tensors=True)
    inputs = random_inputs(graph)
    expected, got = evaluate(graph, inputs), run_plan(plan, dict(inputs))
    for index in (op.outputs[0] for op in graph.ops):
        if index in plan.placements:
            np.testing.assert_array_equal(got[index], expected[index], err_msg=graph.tensors[index].name)
    assert set(graph.outputs) <= set(plan.placements)
    return plan.steps[0].engines, plan.notes


def refusal(graph, config):
    """What the compiler says when it refuses the graph; empty when it does not."""
    try:
        compile_graph(graph, config)
    except GraphError as error:
        return str(error)
    return ""


def conv(maker, source, num_oc=6, **options):
    _, height, width, num_ic = maker.tensors[source].shape
    bias = maker.tensor((num_oc,), np.int32, maker.rng.integers(-2000, 2000, num_oc).astype(np.int32), zero_point=0)
    return maker.op(
        "CONV_2D",
        (source, maker.weights((num_oc, 3, 3, num_ic), num_oc, 0), bias),
        (1, height, width, num_oc),
        padding="SAME",
        stride_h=1,
        stride_w=1,
        **options,
    )


@settings(deadline=None, max_examples=25, derandomize=True)
@given(lut_graphs(), configs())
def test_random_layers_with_tables(graph, config):
    if message := refusal(graph, config):
        assert any(limit in message for limit in ("window memory", "stripe memory", "TP buffer"))
    else:
        check(graph, config)


@settings(deadline=None, max_examples=25, derandomize=True)
@given(residual_graphs(), configs())
def test_random_layers_with_sums(graph, config):
    if message := refusal(graph, config):
        assert any(limit in message for limit in ("window memory", "stripe memory"))
    else:
        check(graph, config)


def sum_of(maker, a, b):
    return maker.op("ADD", (a, b), maker.tensors[a].shape, activation="RELU")


def test_a_sum_is_fused_into_the_operand_made_last():
    for is_swapped in (False, True):
        maker = GraphMaker(8)
        source = maker.tensor((1, 24, 24, 16))
        trunk = conv(maker, source, 16)
        branch = conv(maker, trunk, 16)
        last = sum_of(maker, *((branch, trunk) if is_swapped else (trunk, branch)))
        engines, notes = check(maker.graph([source], [last]))
        assert (engines[1], engines[2]) == ("nn", "fused")
        assert notes == {
            1: "followed by operator 2 ADD, its own result is not stored",
            2: "fused into operator 1 CONV_2D",
        }


@pytest.mark.parametrize("stride", [3, 4])
@pytest.mark.parametrize("is_depthwise", [False, True])
def test_sums_and_tables_behind_phase_planes(stride, is_depthwise, monkeypatch):
    """Every part of a convolution over phase planes adds its own channels."""
    monkeypatch.setattr("convoy.driver.compile.fuse.is_sum_cheaper_fused", lambda *_: True)
    maker = GraphMaker(11)
    size, num_c = 11, 20
    source, other = (
        maker.tensor((1, size * stride, size * stride, num_c)),
        maker.tensor((1, size, size, num_c), scale=0.11),
    )
    bias = maker.tensor((num_c,), np.int32, maker.rng.integers(-2000, 2000, num_c).astype(np.int32), zero_point=0)
    kind, weights, options = "CONV_2D", maker.weights((num_c, 3, 3, num_c), num_c, 0), {}
    if is_depthwise:
        kind, weights, options = "DEPTHWISE_CONV_2D", maker.weights((1, 3, 3, num_c), num_c, 3), {"depth_multiplier": 1}
    trunk = maker.op(
        kind,
        (source, weights, bias),
        (1, size, size, num_c),
        padding="SAME",
        stride_h=stride,
        stride_w=stride,
        **options,
    )
    gate = maker.op("TANH", (trunk,), (1, size, size, num_c))
    engines, notes = check(maker.graph([source, other], [sum_of(maker, other, gate)]))
    assert engines == {0: "nn+tp", 1: "fused", 2: "fused"}
    assert notes[2] == "fused into operator 0 " + kind


def test_what_keeps_a_sum_apart():
    maker = GraphMaker(9)
    source = maker.tensor((1, 24, 24, 16))
    trunk, other = conv(maker, source, 16), conv(maker, source, 16)
    total = sum_of(maker, trunk, other)
    again = sum_of(maker, total, source)
    gate = maker.op("TANH", (again,), (1, 24, 24, 16))
    _, notes = check(maker.graph([source], [gate, other]))
    assert notes[2] == "not fused: its operand is an output of the network"
    _, notes = check(maker.graph([source], [gate]))
    assert notes[2] == "fused into operator 1 CONV_2D"
    assert (
        notes[3] == "not fused: a sum is fused there already; followed by operator 4 TANH, its own result is not stored"
    )
    assert notes[4] == "fused into operator 3 ADD"
    maker.ops[3:] = []
    gate = maker.op("TANH", (total,), (1, 24, 24, 16))
    _, notes = check(maker.graph([source], [gate]))
    assert notes[3] == "not fused: a sum is fused there, which comes last"


def test_two_tables_behind_a_convolution_are_one():
    maker = GraphMaker(1)
    source = maker.tensor((1, 9, 11, 4))
    first = maker.op("TANH", (conv(maker, source, activation="RELU"),), (1, 9, 11, 6))
    last = maker.op("LEAKY_RELU", (first,), (1, 9, 11, 6), alpha=0.3)
    engines, notes = check(maker.graph([source], [last]))
    assert engines == {0: "nn+tp", 1: "fused", 2: "fused"}
    assert notes == {
        0: "followed by operator 1 TANH, its own result is not stored",
        2: "fused into operator 0 CONV_2D",
        1: "fused into operator 0 CONV_2D; followed by operator 2 LEAKY_RELU, its own result is not stored",
    }


def test_tables_run_alone_when_the_operand_is_wanted():
    maker = GraphMaker(2)
    source = maker.tensor((1, 9, 11, 4))
    trunk = conv(maker, source)
    gate = maker.op("LOGISTIC", (trunk,), (1, 9, 11, 6))
    engines, notes = check(maker.graph([source], [gate, conv(maker, trunk)]))
    assert (engines[1], notes) == ("tp", {1: "not fused: its operand has 2 readers"})
    maker.ops.pop()
    _, notes = check(maker.graph([source], [gate, trunk]))
    assert notes == {1: "not fused: its operand is an output of the network"}
    alone = GraphMaker(3)
    source = alone.tensor((1, 90, 11, 40))
    engines, notes = check(alone.graph([source], [alone.op("QUANTIZE", (source,), (1, 90, 11, 40))]))
    assert (engines, notes) == ({0: "tp"}, {0: "not fused: its operand is an input of the network"})


def test_floats_go_to_the_host():
    maker = GraphMaker(4)
    source = maker.tensor((1, 5, 5, 3))
    floats = []
    for kind in ("DEQUANTIZE", "LOGISTIC", "TANH", "RELU", "RELU6", "RELU_N1_TO_1", "LEAKY_RELU"):
        last = maker.op(
            kind,
            (floats[0] if floats else conv(maker, source, 3),),
            (1, 5, 5, 3),
            **({"alpha": 0.1} if kind == "LEAKY_RELU" else {}),
        )
        floats.append(last)
        maker.tensors[last] = Tensor(last, f"t{last}", (1, 5, 5, 3), np.dtype(np.float32))
    graph = read_tflite(write_tflite(maker.graph([source], floats)))
    plan = compile_graph(graph, Q, keep_tensors=True)
    inputs = random_inputs(graph)
    expected, got = run_reference(write_tflite(graph), [inputs[source]]), run_plan(plan, dict(inputs))
    (hosted,) = [step for step in plan.steps if isinstance(step, HostStep)]
    assert hosted.reasons[1:] == ("the NPU computes on int8, not on float32",) * 6
    for index in floats:
        np.testing.assert_array_equal(got[index], expected[index], strict=True)


def test_other_types_are_refused():
    maker = GraphMaker(5, np.int16)
    source = maker.tensor((1, 5, 5, 3))
    with pytest.raises(
        GraphError,
        match=(
            r"operator 0 HARD_SWISH .*: the NPU computes HARD_SWISH by tables of 256 bytes, .*, and LiteRT "
            r"cannot execute it on the CPU: "
        ),
    ):
        compile_graph(maker.graph([source], [maker.op("HARD_SWISH", (source,), (1, 5, 5, 3))]), Q)
    maker = GraphMaker(7)
    source = maker.tensor((1, 5, 5, 3))
    with pytest.raises(
        GraphError, match=r"operator 0 LEAKY_RELU .*alpha = -0.5: only LEAKY_RELU with alpha of at least 0"
    ):
        compile_graph(
            maker.graph([source], [maker.op("LEAKY_RELU", (source,), (1, 5, 5, 3), alpha=-0.5)]), Q, is_strict=True
        )
    maker = GraphMaker(6)
    source = maker.tensor((1, 5, 5, 3), scale=8.0)
    with pytest.raises(GraphError, match=r"HARD_SWISH .* needs an output scale of more than 1/128 of the input scale"):
        compile_graph(maker.graph([source], [maker.op("HARD_SWISH", (source,), (1, 5, 5, 3))]), Q, is_strict=True)


def test_the_golden_machine_checks_the_runs_of_a_sum():
    maker = GraphMaker(10)
    source = maker.tensor((1, 24, 24, 16))
    trunk = conv(maker, source, 16)
    graph = maker.graph([source], [sum_of(maker, trunk, conv(maker, trunk, 16))])
    plan = compile_graph(graph, Q)
    (step,) = plan.steps
    fields = NN.decode(step.program.descriptors[-1])
    assert fields["has_residual"]
    machine = Machine(Q, np.zeros(plan.memory_bytes, np.uint8))
    for addr, raw in step.program.image:
        machine.memory[addr : addr + len(raw)] = np.frombuffer(raw, np.uint8)
    last = step.program.program_addr + (len(step.program.descriptors) - 1) * DESCRIPTOR_BYTES
    for change, message in (
        (("num_res_runs_last", 2), "num_res_runs_last, res_run_bytes_last = 2, "),
        (("res_run_bytes", 0), "res_run_bytes = 0: use at least 1"),
        (("res_act_min", 100), "res_act_min, res_act_max = 100, "),
    ):
        raw = NN.encode(**(fields | dict([change]) | {"res_act_max": 99}))
        machine.memory[last : last + DESCRIPTOR_BYTES] = np.frombuffer(raw, np.uint8)
        with pytest.raises(MachineError, match=message):
            machine.run(step.program.program_addr, len(step.program.descriptors), step.program.record_addr)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_tables_behind_splits(dtype):
    """Each output has a table of its own, or two."""
    builder, offset = ModelBuilder(), 128 * (dtype == np.uint8)
    source, a, b = (builder.tensor((1, 6, 7, num_c), dtype, 0.05, offset) for num_c in (8, 4, 4))
    soft, twice = (builder.tensor((1, 6, 7, 4), dtype, 1 / 128, offset) for _ in range(2))
    gate = builder.tensor((1, 6, 7, 4), dtype, 1 / 256, offset - 128)
    builder.op("SPLIT", [builder.tensor((), np.int32, data=np.array(3)), source], [a, b], numSplits=2)
    builder.op("TANH", [a], [soft])
    builder.op("RELU", [soft], [twice])
    builder.op("LOGISTIC", [b], [gate])
    plan = check_model(builder.finish([source], [twice, gate]), Q)
    assert plan.steps[0].engines == {0: "tp", 1: "fused", 2: "fused", 3: "fused"}


def test_no_table_goes_behind_a_frame():
    maker = GraphMaker(12)
    source = maker.tensor((1, 6, 7, 8))
    framed = maker.op("PAD", (source, maker.constant([[0, 0], [1, 1], [2, 0], [0, 0]])), (1, 8, 9, 8))
    engines, notes = check(maker.graph([source], [maker.op("TANH", (framed,), (1, 8, 9, 8))]))
    assert (engines[1], notes[1]) == ("tp", "not fused: its operand has a frame")


def test_no_table_goes_behind_many_small_pieces():
    """Each descriptor would load it; here each takes a byte of some rows and columns."""
    maker = GraphMaker(13)
    source = maker.tensor((1, 3, 3, 40))
    begin, end, steps = ([0, 0, 0, 0], [1, 3, 3, 40], [1, 1, 1, 2])
    options = dict.fromkeys(("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask"), 0)
    operands = (source, *(maker.constant(values) for values in (begin, end, steps)))
    part = maker.op("STRIDED_SLICE", operands, (1, 3, 3, 20), **options)
    engines, notes = check(maker.graph([source], [maker.op("TANH", (part,), (1, 3, 3, 20))]))
    assert engines[1] == "tp"
    assert "so many pieces" in notes[1]
