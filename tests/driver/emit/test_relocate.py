"""Plans for memory at another address: they compute the same, and touch nothing below."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.devices import open_device
from convoy.driver.emit.relocate import ADDRESS_SPACE_BYTES, lsb, relocated
from convoy.driver.graph.graph import GraphError, Variable
from convoy.driver.runtime.session import Session
from convoy.driver.workload.inputs import random_inputs
from convoy.spec.config import PAGE_BYTES, PRESETS
from convoy.spec.isa import COMPLETION, NN
from convoy.verif.graphs import GraphMaker

S = PRESETS["S"]
BASE = 5 * PAGE_BYTES


@pytest.fixture(scope="module")
def plan():
    """A convolution, a sum on TP with a variable, a table."""
    maker = GraphMaker(4)
    shape = 1, 6, 6, 4
    source = maker.tensor(shape)
    made = maker.op(
        "CONV_2D",
        (source, maker.weights((4, 3, 3, 4), 4, 0), maker.bias(4, 36)),
        shape,
        stride_h=1,
        stride_w=1,
        padding="SAME",
        activation="NONE",
    )
    total = maker.op("ADD", (maker.read(0, shape), made), shape, activation="NONE")
    maker.assign(0, total)
    out = maker.op("TANH", (total,), shape)
    initial = np.random.default_rng(1).integers(-9, 9, shape).astype(np.int8)
    graph = replace(maker.graph([source], [out]), variables=(Variable("v", shape, initial.dtype, initial),))
    return compile_graph(graph, S)


def test_it_computes_the_same(plan):
    sessions = [Session(each, open_device("golden", S)) for each in (plan, relocated(plan, BASE))]
    (output,) = plan.graph.outputs
    for seed in range(3):
        inputs = random_inputs([plan.graph.tensors[index] for index in plan.graph.inputs], seed)
        first, second = (session.run(inputs).tensors[output] for session in sessions)
        assert np.array_equal(first, second)
    memories = [
        session.device.read_memory(base, plan.memory_bytes) for session, base in zip(sessions, (0, BASE), strict=True)
    ]
    differ = np.flatnonzero(np.frombuffer(memories[0], np.uint8) != np.frombuffer(memories[1], np.uint8))
    program = plan.steps[0].program
    assert set(differ) <= set(range(program.program_addr, program.record_addr))  # the addresses in descriptors
    assert not any(sessions[1].device.read_memory(0, BASE))


def test_twice_is_once(plan):
    twice = relocated(relocated(plan, PAGE_BYTES), BASE - PAGE_BYTES)
    assert (twice.base, twice.steps, twice.placements) == (
        BASE,
        relocated(plan, BASE).steps,
        relocated(plan, BASE).placements,
    )


def test_bases_that_are_refused(plan):
    with pytest.raises(GraphError, match="base 0x1010: give a multiple of 4096, such as 0x1000"):
        relocated(plan, 0x1010)
    most = (ADDRESS_SPACE_BYTES - 1 - plan.memory_bytes) & -PAGE_BYTES
    with pytest.raises(GraphError, match=f"do not end below 4 GiB; give at most {most:#x}"):
        relocated(plan, most + PAGE_BYTES)
    assert relocated(plan, most).steps[0].program.windows[-1].limit < ADDRESS_SPACE_BYTES


def test_lsb():
    assert lsb(NN, "opcode") == 0
    assert lsb(NN, "tap_addr") == 32
    value = COMPLETION.encode(**dict.fromkeys(COMPLETION.fields, 0) | {"read_bytes": 1})
    assert int.from_bytes(value, "little") == 1 << lsb(COMPLETION, "read_bytes")
