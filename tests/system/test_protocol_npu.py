"""Both buses of the NPU against the bus models of cocotbext-axi, with stalls and monitors, while it computes a layer."""

import shutil

import numpy as np
import pytest

from convoy.driver.compile import compile_graph
from convoy.driver.devices import open_device
from convoy.driver.program import NpuStep
from convoy.driver.synthetic import LayerSpec, make_layer
from convoy.hw.emit import verilog
from convoy.spec.config import NpuConfig
from convoy.spec.csr import REGISTERS

CONFIG = NpuConfig(num_cores=1, num_lanes=8, num_acc_entries=16, post_lanes=2, stripe_bytes=4096, window_words=16, weight_fifo_beats=32,
                   tp_buffer_bytes=1024)


@pytest.mark.skipif(shutil.which("iverilog") is None, reason="needs Icarus Verilog: apt-get install iverilog")
def test_layer(tmp_path):
    from convoy.verif.cocotb_protocol import run_protocol

    graph = make_layer(LayerSpec("conv", (5, 6, 2), 3, (3, 3), pads=(1, 1, 1, 1)), 1).graph
    plan = compile_graph(graph, CONFIG, keep_tensors=True)
    step = next(step for step in plan.steps if isinstance(step, NpuStep))
    values = np.random.default_rng(0).integers(-128, 128, graph.tensors[0].shape).astype(np.int8)
    placed, output = plan.placements[graph.inputs[0]], plan.placements[graph.outputs[0]]
    image = [*step.program.image, (placed.addr, placed.pack(values))]
    registers = {"PROGRAM_BASE": step.program.program_addr, "PROGRAM_COUNT": len(step.program.descriptors),
                 "RECORD_BASE": step.program.record_addr}
    golden = open_device("golden", CONFIG)
    for addr, data in image:
        golden.write_memory(addr, data)
    for name, value in {**registers, "IRQ_ENABLE": 1, "CONTROL": 1}.items():
        golden.write32(REGISTERS[name].addr, value)
    expected = golden.read_memory(output.addr, output.num_bytes)
    assert len(set(expected)) > 10
    run_protocol(verilog(CONFIG), tmp_path, registers, image, [(output.addr, expected)], step.program.program_addr)
