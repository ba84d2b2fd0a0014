"""The NPU itself on every device: the same bytes as the golden model, and the same cycles in every simulator."""


import numpy as np
import pytest

from convoy.driver.compile import compile_graph
from convoy.driver.device import MemoryModel
from convoy.driver.devices import open_device
from convoy.driver.devices.native import NativeDevice
from convoy.driver.runtime import Session
from convoy.driver.synthetic import LayerSpec, make_layer
from convoy.spec.config import NpuConfig
from convoy.spec.csr import REGISTERS, Error

CONFIG = NpuConfig(num_cores=1, num_lanes=8, num_acc_entries=16, post_lanes=2, stripe_bytes=4096, window_words=16, weight_fifo_beats=32,
                   tp_buffer_bytes=1024)
"""Small, so that it is compiled quickly."""
SIMULATORS = [
    "native", "pysim",
    pytest.param("icarus", marks=pytest.mark.icarus),
]
MODEL = MemoryModel(latency_cycles=12, stall_percent=10, seed=1)


@pytest.fixture(scope="module")
def layer():
    """A compiled convolution and its input."""
    graph = make_layer(LayerSpec("conv", (5, 6, 2), 3, (3, 3), pads=(1, 1, 1, 1)), 1).graph
    values = np.random.default_rng(0).integers(-128, 128, graph.tensors[0].shape).astype(np.int8)
    return compile_graph(graph, CONFIG, keep_tensors=True), {graph.inputs[0]: values}


@pytest.fixture(scope="module")
def cycles():
    """Cycles of the layer by simulator, and what they went to, as far as tested."""
    return {}


def run(device, layer):
    plan, inputs = layer
    execution = Session(plan, device).run(inputs)
    return execution.tensors[plan.graph.outputs[0]], execution


@pytest.mark.parametrize("name", SIMULATORS)
def test_simulators_agree_with_golden(name, layer, cycles):
    golden = open_device("golden", CONFIG)
    expected, untimed = run(golden, layer)
    assert untimed.cycles == 0
    assert expected.min() < expected.max()
    device = open_device(name, CONFIG, MODEL)
    values, execution = run(device, layer)
    np.testing.assert_array_equal(values, expected)
    cycles[name] = execution.cycles, *execution.costs[0].core_cycles.values()
    assert len(set(cycles.values())) == 1, cycles
    assert execution.cycles > 100
    device.close()


@pytest.mark.parametrize("name", ["golden", "native"])
def test_bad_opcode(name):
    """The second descriptor does not exist: an error with its address, and an interrupt."""
    device = open_device(name, CONFIG)
    device.write_memory(0x1000, bytes(256))
    for register, value in (("PROGRAM_BASE", 0x1000), ("PROGRAM_COUNT", 2), ("RECORD_BASE", 0x2000), ("IRQ_ENABLE", 1), ("CONTROL", 1)):
        device.write32(REGISTERS[register].addr, value)
    device.wait(10_000)
    assert device.read32(REGISTERS["ERROR"].addr) == Error.OPCODE
    assert device.read32(REGISTERS["ERROR_ADDR"].addr) == 0x1000
    assert device.read32(REGISTERS["STATUS"].addr) == 2
    device.write32(REGISTERS["CONTROL"].addr, 2)
    assert device.read32(REGISTERS["ERROR"].addr) == Error.NONE
    device.close()


def test_read_fault():
    device = open_device("native", CONFIG)
    device.inject_fault(0x1000, 1)
    for register, value in (("PROGRAM_BASE", 0x1000), ("PROGRAM_COUNT", 1), ("RECORD_BASE", 0x2000), ("IRQ_ENABLE", 1), ("CONTROL", 1)):
        device.write32(REGISTERS[register].addr, value)
    device.wait(10_000)
    assert device.read32(REGISTERS["ERROR"].addr) == Error.BUS_READ
    assert device.read32(REGISTERS["ERROR_ADDR"].addr) == 0x1000
    device.close()


@pytest.mark.parametrize("stall_percent", [0, 30])
def test_rest_changes_nothing(layer, stall_percent):
    """Units that could rest get their clocks in every cycle: the same bytes and cycles."""
    plan, inputs = layer
    results = []
    for never_rests in (False, True):
        device = NativeDevice(CONFIG, MemoryModel(latency_cycles=20, stall_percent=stall_percent, seed=2), never_rests=never_rests)
        execution = Session(plan, device).run(inputs)
        results.append((execution.cycles, device.read_memory(0, 1 << 16)))
        device.close()
    assert results[0] == results[1]
