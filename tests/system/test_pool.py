"""Fused maximum pools on the compiled RTL: both sides of each limit, with stalls; no cycles lost; and refusals."""

from dataclasses import replace

import numpy as np
import pytest

from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.devices import open_device
from convoy.driver.runtime.device import MemoryModel, PoolError
from convoy.driver.runtime.session import Session
from convoy.driver.workload.reference import run_reference
from convoy.driver.workload.synthetic import LayerSpec, make_layer
from convoy.spec.config import PRESETS
from convoy.spec.isa import DESCRIPTOR_BYTES, NN, Opcode
from convoy.verif.graphs import random_values

Q = PRESETS["Q"]


def run(spec, memory_model=MemoryModel()):
    """Engine of the pool, and the execution, whose every tensor equals LiteRT's."""
    layer = make_layer(spec)
    plan = compile_graph(layer.graph, Q, keep_tensors=True)
    value = random_values(layer.graph, 0)[0]
    device = open_device("native", Q, memory_model)
    try:
        execution = Session(plan, device).run({0: value})
    finally:
        device.close()
    expected = run_reference(layer.reference_model, [value])
    for index in (op.outputs[0] for op in layer.graph.ops):
        if index in plan.placements:
            np.testing.assert_array_equal(execution.tensors[index], expected[index])
    return plan.steps[0].engines.get(1), execution


@pytest.mark.parametrize(
    ("height", "width", "pool", "is_fused"),
    [
        (2, 2, "2x2", True),
        (3, 2, "2x2", True),
        (4, 62, "2x2", True),
        (4, 63, "2x2", True),
        (4, 64, "2x2", True),
        (4, 65, "2x2", True),
        (3, 3, "3x3", True),
        (4, 3, "3x3", True),
        (7, 30, "3x3", True),
        (7, 31, "3x3", True),
        (7, 32, "3x3", True),
        (7, 33, "3x3", True),
        (9, 61, "3x3", True),
        (9, 62, "3x3", True),
        (9, 63, "3x3", True),
        (9, 64, "3x3", True),
        (9, 65, "3x3", False),
        (71, 9, "3x3", True),
        (20, 20, "2x2", True),
        (21, 21, "3x3", True),
    ],
)
@pytest.mark.parametrize("stall_percent", [0, 40])
def test_both_sides_of_each_limit(height, width, pool, is_fused, stall_percent):
    """Where a window has not all rows or columns the convolution makes those that it has; longer rows than the line
    memory are pooled behind it.
    """
    engine, _ = run(
        LayerSpec("conv", (height, width, 3), 9, (1, 1), pool=pool),
        MemoryModel(stall_percent=stall_percent, seed=width),
    )
    assert engine == ("fused" if is_fused else "nn")


@pytest.mark.parametrize(
    ("height", "width", "pool", "is_fused"),
    [
        (2, 2, "2x2", True),
        (4, 63, "2x2", True),
        (4, 64, "2x2", True),
        (3, 3, "3x3", True),
        (7, 29, "3x3", True),
        (7, 30, "3x3", True),
        (9, 31, "3x3", True),
        (9, 32, "3x3", True),
        (9, 33, "3x3", False),
        (71, 9, "3x3", True),
        (20, 20, "2x2", True),
        (21, 21, "3x3", True),
    ],
)
@pytest.mark.parametrize("stall_percent", [0, 40])
def test_both_sides_of_each_limit_of_int16(height, width, pool, is_fused, stall_percent):
    engine, _ = run(
        LayerSpec("conv", (height, width, 3), 9, (1, 1), pool=pool, dtype="int16"),
        MemoryModel(stall_percent=stall_percent, seed=width),
    )
    assert engine == ("fused" if is_fused else "nn")


@pytest.mark.parametrize("op", ["conv", "depthwise"])
@pytest.mark.parametrize(("extent", "pool"), [(16, "2x2"), (15, "3x3")])
@pytest.mark.parametrize("dtype", ["int8", "int16"])
def test_costs_next_to_nothing(monkeypatch, op, extent, pool, dtype):
    """Against the same layer without the pool, both with an input that is made before."""
    monkeypatch.setattr("convoy.driver.plan.schedule._Scheduler._ahead", lambda _: ())
    layer = LayerSpec(op, (extent, extent, 16), 16, (3, 3), pads=(1, 1, 1, 1), dtype=dtype)
    _, alone = run(layer)
    engine, pooled = run(replace(layer, pool=pool))
    assert engine == "fused"
    assert pooled.cycles <= 1.03 * alone.cycles + 40
    outputs = 16 * np.dtype(dtype).itemsize
    assert pooled.costs[0].traffic.write_bytes == (extent // 2) ** 2 * outputs + (
        alone.costs[0].traffic.write_bytes - extent**2 * outputs
    )


def test_refusal():
    """A 3x3 pool of a descriptor made one of 2x2: the NPU stops before it writes anything of it, and then works
    again.
    """
    layer = make_layer(LayerSpec("conv", (9, 9, 3), 5, (3, 3), pool="3x3"))
    plan = compile_graph(layer.graph, Q, keep_tensors=True)
    value = {0: np.random.default_rng(0).integers(-128, 128, (1, 9, 9, 3)).astype(np.int8)}
    device = open_device("native", Q, MemoryModel())
    try:
        session = Session(plan, device)
        program, place = plan.steps[0].program, plan.placements[layer.graph.outputs[0]]
        index = next(n for n, raw in enumerate(program.descriptors) if raw[0] == Opcode.NN)
        addr = program.program_addr + index * DESCRIPTOR_BYTES
        before = device.read_memory(place.addr, place.num_bytes)
        device.write_memory(addr, NN.encode(**NN.decode(program.descriptors[index]) | {"pool_size": 2}))
        with pytest.raises(PoolError) as caught:
            session.run(value)
        assert (caught.value.addr, device.read_memory(place.addr, place.num_bytes)) == (addr, before)
        device.write_memory(addr, program.descriptors[index])
        session.run(value)
        assert device.read_memory(place.addr, place.num_bytes) != before
    finally:
        device.close()
