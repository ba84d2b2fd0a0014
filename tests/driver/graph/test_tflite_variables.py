"""Networks with variables: what is read, what is kept, in which order, against LiteRT's reference kernels that keep
their own.
"""

from __future__ import annotations

from dataclasses import replace

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given, settings
from hypothesis import strategies as st

from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.devices import open_device
from convoy.driver.emit.program import HostStep
from convoy.driver.graph.graph import GraphError, Variable
from convoy.driver.graph.tflite_reader import read_tflite
from convoy.driver.graph.tflite_writer import write_tflite
from convoy.driver.runtime.session import Session
from convoy.driver.workload.inputs import random_inputs
from convoy.driver.workload.reference import Reference
from convoy.spec.config import PRESETS
from convoy.verif.graphs import GraphMaker
from convoy.verif.strategies import configs, state_graphs

Q = PRESETS["Q"]
SHAPE = 1, 3, 4, 5


def steps(graph, count):
    """Random inputs of successive runs."""
    return [random_inputs([graph.tensors[index] for index in graph.inputs], step) for step in range(count)]


def check(graph, config=Q, count=4, **options):
    """Every tensor of every run, stored and packed; the plan."""
    model = write_tflite(graph)
    graph = read_tflite(model)
    for keep_tensors in (False, True):
        plan = compile_graph(graph, config, keep_tensors=keep_tensors, **options)
        device = open_device("golden", config)
        device.write_memory(0, np.random.default_rng(1).integers(0, 256, plan.memory_bytes, np.uint8).tobytes())
        session, reference = Session(plan, device, keep_tensors=keep_tensors), Reference(model)
        for number, inputs in enumerate(steps(graph, count)):
            found, expected = session.run(inputs).tensors, reference.run([inputs[index] for index in graph.inputs])
            assert set(graph.outputs) <= found.keys()
            for index, values in found.items():
                np.testing.assert_array_equal(
                    values, expected[index], err_msg=f"run {number}: {graph.tensors[index].name}", strict=True
                )
    return plan


def with_variables(maker, inputs, outputs, count=1, shape=SHAPE):
    """The graph with `count` variables that start with random values."""
    rng = np.random.default_rng(5)
    made = tuple(
        Variable(f"v{n}", shape, np.dtype(np.int8), rng.integers(-128, 128, shape).astype(np.int8))
        for n in range(count)
    )
    return replace(maker.graph(inputs, outputs), variables=made)


def num_copies(plan):
    """Descriptors that work for assignments."""
    kinds = {op.index: op.kind for op in plan.graph.ops}
    return sum(
        kinds[index] == "ASSIGN_VARIABLE"
        for step in plan.steps
        if not isinstance(step, HostStep)
        for index in step.program.ops
    )


def test_a_sum_of_all_inputs():
    """What hand and eye can follow: scales of 1, so that the variable is the running sum."""
    maker = GraphMaker()
    source = maker.tensor((1, 2), scale=1.0, zero_point=0)
    before = maker.read(0, (1, 2), scale=1.0, zero_point=0)
    total = maker.op("ADD", (before, source), (1, 2), activation="NONE")
    maker.tensors[total] = replace(maker.tensors[total], quant=maker.tensors[source].quant)
    maker.assign(0, total)
    start = Variable("total", (1, 2), np.dtype(np.int8), np.array([[10, -5]], np.int8))
    graph = replace(maker.graph([source], [total]), variables=(start,))
    check(graph)
    device = open_device("golden", Q)
    session = Session(compile_graph(graph, Q), device)
    for _ in range(2):
        sums = [session.run({source: np.array([[n, 2]], np.int8)}).tensors[total].tolist() for n in (1, 20, -4)]
        assert sums == [[[11, -3]], [[31, -1]], [[27, 1]]]
        session.reset_state()


def test_a_ring_buffer_needs_no_copy_of_its_own():
    """Rows behind the kept ones; the last rows are kept, made in the variable's place."""
    maker = GraphMaker(1)
    source = maker.tensor((1, 2, 1, 5), zero_point=3)
    kept = maker.read(0, (1, 3, 1, 5), zero_point=3)
    rows = maker.op("CONCATENATION", (kept, source), (1, 5, 1, 5), axis=1, activation="NONE")
    masks = dict.fromkeys(("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask"), 0)
    parts = [maker.constant(values) for values in ([0, 2, 0, 0], [1, 5, 1, 5], [1, 1, 1, 1])]
    maker.assign(0, maker.op("STRIDED_SLICE", (rows, *parts), (1, 3, 1, 5), **masks))
    bias = maker.tensor((7,), np.int32, np.zeros(7, np.int32), zero_point=0)
    result = maker.op(
        "CONV_2D",
        (rows, maker.weights((7, 5, 1, 5), 7, 0), bias),
        (1, 1, 1, 7),
        stride_h=3,
        stride_w=1,
        padding="VALID",
        activation="RELU",
    )
    plan = check(with_variables(maker, [source], [result], shape=(1, 3, 1, 5)))
    assert num_copies(plan) == 0
    assert plan.steps[0].engines[plan.graph.ops[-1].index] == "swapped", "no planes of phases"


def test_a_variable_that_is_still_read_is_overwritten_later():
    """Assigned from the input before the old value is read, through another shape too; one copy."""
    maker = GraphMaker(2)
    source = maker.tensor(SHAPE)
    before = maker.read(0, SHAPE)
    flat = maker.op("RESHAPE", (before,), (1, 60), new_shape=(1, 60))
    gate = maker.op("TANH", (source,), SHAPE)
    maker.assign(0, gate)
    after = maker.read(0, SHAPE, scale=1 / 128, zero_point=0)
    outputs = [maker.op("ADD", (before, after), SHAPE, activation="NONE"), maker.op("LOGISTIC", (flat,), (1, 60))]
    plan = check(with_variables(maker, [source], [*outputs, before]))
    assert num_copies(plan) == 1


def test_exchange_delay_and_repeated_assignment():
    """Two variables exchange values, a third follows one of them, a fourth is assigned three times, in the end what
    it was.
    """
    maker = GraphMaker(3)
    source = maker.tensor(SHAPE)
    values = [maker.read(n, SHAPE, zero_point=2) for n in range(4)]
    maker.assign(0, values[1])
    maker.assign(1, values[0])
    maker.assign(2, values[0])
    maker.assign(3, maker.op("TANH", (source,), SHAPE))
    again = maker.read(3, SHAPE, scale=1 / 128, zero_point=0)
    maker.assign(3, source)
    maker.assign(3, values[3])
    total = maker.op("ADD", (maker.read(0, SHAPE, zero_point=2), again), SHAPE, activation="NONE")
    check(with_variables(maker, [source], [total, maker.read(2, SHAPE, zero_point=2), maker.read(3, SHAPE)], count=4))


def test_the_host_reads_and_writes_variables():
    """A softmax of the old value on the host, whose result is the next one."""
    maker = GraphMaker(4)
    source = maker.tensor((1, 12))
    before = maker.read(0, (1, 12))
    soft = maker.op("SOFTMAX", (before,), (1, 12), beta=1.0)
    quant = maker.tensors[soft].quant
    maker.tensors[soft] = replace(
        maker.tensors[soft], quant=replace(quant, scale=np.array([1 / 256], np.float32), zero_point=np.array([-128]))
    )
    maker.assign(0, soft)
    plan = check(
        with_variables(
            maker, [source], [maker.op("ADD", (before, source), (1, 12), activation="NONE"), before], shape=(1, 12)
        )
    )
    assert sum(isinstance(step, HostStep) for step in plan.steps) == 1


def test_variables_without_work_next_to_them():
    """Everything but the assignment is the host's."""
    maker = GraphMaker(5)
    source = maker.tensor((1, 12))
    before = maker.read(0, (1, 12))
    flat = maker.op("RESHAPE", (before,), (2, 6), new_shape=(2, 6))
    soft = maker.op("SOFTMAX", (flat,), (2, 6), beta=1.0)
    quant = maker.tensors[soft].quant
    maker.tensors[soft] = replace(
        maker.tensors[soft], quant=replace(quant, scale=np.array([1 / 256], np.float32), zero_point=np.array([-128]))
    )
    maker.assign(0, source)
    check(with_variables(maker, [source], [soft], shape=(1, 12)))


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4, 5)], ids=["rows", "images"])
def test_batches(shape):
    maker = GraphMaker(6)
    source = maker.tensor(shape)
    before = maker.read(0, shape)
    maker.assign(0, source)
    total = maker.op("ADD", (before, source), shape, activation="NONE")
    check(with_variables(maker, [source], [total], shape=shape))


@settings(deadline=None, max_examples=25, derandomize=True)
@given(state_graphs(), configs(), st.booleans())
def test_random_networks(graph, config, is_fusing):
    check(graph, config, count=3, is_fusing=is_fusing)


def test_a_part_of_a_network_takes_variables_from_outside():
    maker = GraphMaker(7)
    source = maker.tensor(SHAPE)
    before = maker.read(0, SHAPE)
    total = maker.op("ADD", (before, source), SHAPE, activation="NONE")
    maker.assign(0, total)
    plan = compile_graph(with_variables(maker, [source], [total]), Q, layers=range(0, 3))
    assert set(plan.graph.inputs) == {before, source}
    assert plan.keeps == ()


def refused(edit=lambda graph: graph, dtype=np.int8, shape=SHAPE, initial=True):
    """A network that reads and assigns a variable, written and read back after `edit`."""
    maker = GraphMaker(8)
    source = maker.tensor(shape, dtype)
    before = maker.read(0, shape, dtype=dtype)
    maker.assign(0, source)
    variable = Variable("ring", shape, np.dtype(dtype), np.zeros(shape, dtype) if initial else None)
    graph = replace(maker.graph([source], [before]), variables=(variable,))
    return read_tflite(write_tflite(edit(graph)))


def _other_shape(graph):
    return replace(graph, tensors=(replace(graph.tensors[0], shape=(1, 3, 4, 6)), *graph.tensors[1:]))


def test_refusals_name_the_variable():
    with pytest.raises(
        GraphError, match=r"operator \d+ \(READ_VARIABLE\): nothing gives variable ring a value before it is read"
    ):
        refused(initial=False)
    with pytest.raises(
        GraphError,
        match=(
            r"operator \d+ \(ASSIGN_VARIABLE\): variable ring is int8 \[1, 3, 4, 5\], but tensor 0 \(t0\) is int8 "
            r"\[1, 3, 4, 6\]"
        ),
    ):
        refused(_other_shape)
    with pytest.raises(GraphError, match=r"READ_VARIABLE \('t1'\): 't1' is float32; the NPU"):
        compile_graph(refused(dtype=np.float32), Q)
    with pytest.raises(GraphError, match=r"a variable of shape .*; the limit is 4 axes"):
        compile_graph(refused(shape=(1, 1, 2, 2, 3)), Q)


def edited(edit) -> bytes:
    """The file of a network with one variable after `edit` (given the object-API model)."""
    maker = GraphMaker(9)
    source, before = maker.tensor(SHAPE), maker.read(0, SHAPE)
    maker.assign(0, source)
    model = schema.ModelT.InitFromPackedBuf(write_tflite(with_variables(maker, [source], [before])), 0)
    edit(model, model.subgraphs[0])
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda m, g: setattr(g.operators[0].builtinOptions, "initSubgraphIndex", 7), "subgraph 7 does not exist"),
        (
            lambda m, g: setattr(g.operators[0].builtinOptions, "initSubgraphIndex", 0),
            "of the initialisation: only constants can be assigned there",
        ),
        (
            lambda m, g: g.operators.append(g.operators.pop(0)),
            r"operator 2 \(ASSIGN_VARIABLE\)|operator \d \(READ_VARIABLE\): nothing gives variable v0",
        ),
        (
            lambda m, g: g.operators.append(g.operators[0]),
            r"operator 4 \(CALL_ONCE\) comes after operators that use variables",
        ),
        (
            lambda m, g: setattr(m.subgraphs[1].tensors[0], "buffer", 0),
            r"operator 0 \(CALL_ONCE\): operator 1 \(ASSIGN_VARIABLE\) of the initialisation: only constants",
        ),
        (
            lambda m, g: setattr(m.subgraphs[1].operators[0], "opcodeIndex", g.operators[2].opcodeIndex),
            r"of the initialisation|inputs and",
        ),
        (
            lambda m, g: setattr(g.operators[2], "inputs", [0]),
            r"operator 2 \(READ_VARIABLE\): tensor 0 is not the handle of a variable",
        ),
        (
            lambda m, g: setattr(g.operators[2], "inputs", []),
            r"operator 2 \(READ_VARIABLE\) has 0 inputs and 1 outputs",
        ),
        (lambda m, g: setattr(g, "inputs", [0, 2]), r"tensor 2 \(v0\) is an input of the network but a handle"),
        (
            lambda m, g: setattr(g, "outputs", [2]),
            r"tensor 2 \(v0\) is an output of the network, but nothing has written it",
        ),
        (
            lambda m, g: setattr(g.operators[1], "builtinOptions", None),
            r"operator 1 \(VAR_HANDLE\): its VarHandleOptions are missing",
        ),
    ],
)
def test_damaged_declarations_are_named(edit, message):
    with pytest.raises(GraphError, match=message) as caught:
        read_tflite(edited(edit))
    assert "\n" not in str(caught.value)


def test_a_variable_assigned_before_it_is_read_needs_no_first_value():
    graph = refused(lambda graph: replace(graph, ops=tuple(reversed(graph.ops))), initial=False)
    assert graph.variables[0].initial is None
    plan = compile_graph(graph, Q)
    device = open_device("golden", Q)
    inputs = steps(graph, 1)[0]
    np.testing.assert_array_equal(Session(plan, device).run(inputs).tensors[graph.outputs[0]], inputs[graph.inputs[0]])
