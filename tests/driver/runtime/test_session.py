"""`Session` on the golden device, and on a device that invents its timing or misbehaves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.devices import open_device
from convoy.driver.emit.program import HostStep, NpuStep
from convoy.driver.emit.traffic import Traffic
from convoy.driver.graph.graph import GraphError
from convoy.driver.graph.tflite_reader import read_tflite
from convoy.driver.plan.macs import dense_macs
from convoy.driver.report.plan_report import plan_report
from convoy.driver.report.report import build_report, compare, layer_cells, summary
from convoy.driver.runtime.device import DeviceError, MemoryModel
from convoy.driver.runtime.session import Session, plan_inputs
from convoy.driver.workload.inputs import random_inputs
from convoy.driver.workload.reference import run_reference
from convoy.spec.config import PRESETS
from convoy.spec.csr import REGISTERS, Error
from convoy.spec.isa import CAUSE_FIELDS, COMPLETION, NN, Opcode
from convoy.verif.graphs import GraphMaker

DIGITS = Path(__file__).parents[3] / "examples" / "digits_int8.tflite"
CONFIG = PRESETS["Q"]


@pytest.fixture(scope="module")
def graph():
    return read_tflite(DIGITS)


@pytest.fixture(scope="module")
def plan(graph):
    return compile_graph(graph, CONFIG, keep_tensors=True, layers=None, is_fusing=False)


@pytest.fixture
def device():
    device = open_device("golden", CONFIG)
    yield device
    device.close()


class TimedDevice:
    """The golden device with invented time: descriptor i completes at `cycles[i]`, and every counter is a multiple
    of it.
    """

    def __init__(self, golden, cycles):
        self.golden, self.config, self.memory_model, self.cycles = golden, golden.config, MemoryModel(), cycles
        self.overrides: dict[str, int] = {}

    def read32(self, addr):
        name = next(name for name, register in REGISTERS.items() if register.addr == addr)
        return self.overrides.get(name, self.golden.read32(addr))

    def write32(self, addr, value):
        self.golden.write32(addr, value)

    def read_memory(self, addr, num_bytes):
        return self.golden.read_memory(addr, num_bytes)

    def write_memory(self, addr, data):
        self.golden.write_memory(addr, data)

    def wait(self, max_cycles, progress=None):
        base = self.golden.read32(REGISTERS["RECORD_BASE"].addr)
        for i, cycle in enumerate(self.cycles):
            causes = dict.fromkeys(CAUSE_FIELDS.values(), 0) | {"busy_cycles": 3 * cycle, "drain_cycles": cycle}
            record = COMPLETION.encode(
                cycle=cycle, read_bytes=3 * cycle, write_bytes=2 * cycle, weight_bytes=cycle // 2, **causes
            )
            self.golden.write_memory(base + i * COMPLETION.num_bytes, record)
        self.overrides["CYCLES"] = max(self.cycles) + 10
        return self.overrides["CYCLES"]

    def close(self):
        self.golden.close()


def test_every_tensor_equals_the_reference(graph, plan, device):
    inputs = random_inputs([graph.tensors[0]], 5)
    execution = Session(plan, device).run(inputs)
    expected = run_reference(DIGITS.read_bytes(), [inputs[0]])
    outputs = [op.outputs[0] for op in graph.ops]
    assert set(outputs) <= set(execution.tensors)
    for index in outputs:
        np.testing.assert_array_equal(execution.tensors[index], expected[index], strict=True)


def test_a_result_that_is_fused_away_is_not_compared(graph, device):
    fused = compile_graph(graph, CONFIG, keep_tensors=True)
    inputs = random_inputs([graph.tensors[0]], 5)
    execution = Session(fused, device).run(inputs)
    expected = run_reference(DIGITS.read_bytes(), [inputs[0]])
    report, mismatches = build_report(
        fused, device, execution, model="m", config="Q", device_name="golden", reference="litert", expected=expected
    )
    assert (report["bit_exact"], mismatches) == (True, [])
    assert [(layer["op"], layer["engine"], layer["bit_exact"]) for layer in report["layers"][2:4]] == [
        ("CONV_2D", "nn", None),
        ("ADD", "fused", True),
    ]
    assert "CONV_2D (operator 2): followed by operator 3 ADD, its own result is not stored" in summary(report)


def test_a_session_runs_again_and_again(graph, plan, device):
    session = Session(plan, device)
    results = [session.run(random_inputs([graph.tensors[0]], seed)).tensors[graph.outputs[0]] for seed in (1, 2, 1)]
    np.testing.assert_array_equal(results[0], results[2])
    assert not np.array_equal(results[0], results[1])


def test_without_keep_tensors_only_what_is_needed_is_read(graph, device):
    small = compile_graph(graph, CONFIG, keep_tensors=False, layers=None)
    execution = Session(small, device, keep_tensors=False).run(random_inputs([graph.tensors[0]], 1))
    softmax = graph.ops[-1]
    assert set(execution.tensors) == {graph.inputs[0], softmax.inputs[0], softmax.outputs[0]}


def test_some_layers_alone(graph, plan, device):
    whole = Session(plan, device).run(random_inputs([graph.tensors[0]], 1)).tensors
    part = compile_graph(graph, CONFIG, keep_tensors=True, layers=range(3, 5))
    assert plan_inputs(part) == list(graph.ops[3].inputs)
    again = Session(part, device).run({index: whole[index] for index in plan_inputs(part)}).tensors
    for op in graph.ops[3:5]:
        np.testing.assert_array_equal(again[op.outputs[0]], whole[op.outputs[0]])


@pytest.mark.parametrize("value", [None, np.zeros((1, 8, 8, 1), np.float32), np.zeros((8, 8, 1), np.int8)])
def test_wrong_inputs_are_refused_by_name(plan, device, value):
    with pytest.raises(GraphError, match=r"tensor 0 \(input\) must be int8 \[1, 8, 8, 1\]"):
        Session(plan, device).run({} if value is None else {0: value})


def test_bytes_belong_to_the_descriptors_that_ask_for_them(graph, plan, device):
    """Whatever the counters say in between: weights are read ahead. A convolution's are its streams, once for each
    group, or, where operands are swapped, its image.
    """
    execution = Session(plan, device).run(random_inputs([graph.tensors[0]], 1))
    report, _ = build_report(
        plan, device, execution, model="m", config="Q", device_name="golden", reference="none", expected=None
    )
    step = next(step for step in plan.steps if isinstance(step, NpuStep))
    for layer in report["layers"]:
        fields = [
            NN.decode(raw)
            for raw, op in zip(step.program.descriptors, step.program.ops, strict=True)
            if op == layer["index"] and raw[0] == Opcode.NN
        ]
        streams = sum(
            d["num_groups"] * sum(stream.num_beats for stream in step.program.streams[d["stream_addr"]].counts)
            for d in fields
            if not d["is_swapped"]
        )
        images = sum(d["num_act_outer"] * d["num_act_inner"] * d["act_run_bytes"] for d in fields if d["is_swapped"])
        assert layer["weight_bytes"] == streams * CONFIG.port_bytes + images
    connected = next(layer for layer in report["layers"] if layer["op"] == "FULLY_CONNECTED")
    assert connected["weight_bytes"] == step.weight_bytes[connected["index"]]  # one pixel: one group
    for name in ("macs", "read_bytes", "write_bytes", "weight_bytes"):
        assert report[name] == sum(layer[name] for layer in report["layers"])


def test_costs_are_differences_in_order_of_completion(graph, plan):
    program = next(step for step in plan.steps if isinstance(step, NpuStep)).program
    cycles = [100 * (i + 1) for i in range(len(program.descriptors))]
    cycles[1], cycles[2] = cycles[2], cycles[1]
    device = TimedDevice(open_device("golden", CONFIG), cycles)
    execution = Session(plan, device).run(random_inputs([graph.tensors[0]], 1))
    assert execution.cycles == max(cycles) + 10
    for index, cost in execution.costs.items():
        count = program.ops.count(index)
        assert cost.cycles == 100 * count
    assert execution.counted == Traffic(3 * max(cycles), 2 * max(cycles), max(cycles) // 2)
    report, _ = build_report(
        plan, device, execution, model="m", config="Q", device_name="timed", reference="none", expected=None
    )
    macs = sum(dense_macs(graph, op) for op in graph.ops)
    assert report["macs"] == macs
    assert report["utilisation"] == pytest.approx(macs / (execution.cycles * 64))
    assert report["layers"][0]["utilisation"] == pytest.approx(9216 / (report["layers"][0]["cycles"] * 64))
    assert report["bit_exact"] is None
    assert (report["busy_cycles"], report["lost"]["drain"], report["lost"]["dispatch"]) == (
        0.75 * max(cycles),
        0.25 * max(cycles),
        10,
    )
    for layer in report["layers"]:
        assert (layer["busy_cycles"], layer["lost"]["drain"]) == (0.75 * layer["cycles"], 0.25 * layer["cycles"])
    device.close()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"ID": 1}, "identifies itself as 0x1"),
        ({"CONFIG0": 5}, "configuration is 0x00000005"),
        ({"FEATURES": 0}, "has_int16, .*which the device lacks: compile for"),
        ({"STATUS": 2, "ERROR": Error.BUS_READ, "ERROR_ADDR": 0x40}, "error BUS_READ at address 0x40"),
        (
            {"STATUS": 2, "ERROR": Error.ACCESS_WRITE, "ERROR_ADDR": 0x80},
            "error ACCESS_WRITE at address 0x80: no memory window allows this",
        ),
        ({"STATUS": 2, "ERROR": 99, "ERROR_ADDR": 0}, "error 99 at address 0x0: the driver does not know this code"),
        ({"STATUS": 1}, "does not answer bursts that are under way"),
        ({"STATUS": 4}, "does not answer bursts that are under way"),
    ],
)
def test_a_bad_device_is_reported(graph, plan, overrides, message):
    device = TimedDevice(open_device("golden", CONFIG), [1])
    device.overrides = overrides
    with pytest.raises(DeviceError, match=message):
        Session(plan, device).run(random_inputs([graph.tensors[0]], 1))
    device.close()


def test_a_difference_is_located(graph, plan, device):
    inputs = random_inputs([graph.tensors[0]], 5)
    execution = Session(plan, device).run(inputs)
    expected = run_reference(DIGITS.read_bytes(), [inputs[0]])
    victim = graph.ops[4].outputs[0]
    expected[victim] = expected[victim].copy()
    expected[victim][0, 1, 2, 3] ^= 4
    report, mismatches = build_report(
        plan, device, execution, model="m", config="Q", device_name="golden", reference="litert", expected=expected
    )
    assert report["bit_exact"] is False
    assert [layer["bit_exact"] for layer in report["layers"]] == [index != 4 for index in range(9)]
    assert report["layers"][4]["max_abs_diff"] == 4
    assert [(m.op, m.tensor, m.num_different, m.max_abs_diff, m.where) for m in mismatches] == [
        (4, victim, 1, 4.0, (0, 1, 2, 3))
    ]
    assert (
        str(mismatches[0])
        == f"layer 4: tensor {victim} (down) differs in 1 of 512 elements, by 4 at most, first at [0, 1, 2, 3]"
    )


def test_comparison_minds_shape_and_dtype(graph):
    x = np.zeros((1, 10), np.int8)
    assert compare(graph, 0, 0, x, x) is None
    assert compare(graph, 0, 0, x, x.reshape(10)) is not None
    assert compare(graph, 0, 0, x, x.astype(np.int16)) is not None


def test_host_steps_are_reported_with_their_reason(plan, device, graph):
    execution = Session(plan, device).run(random_inputs([graph.tensors[0]], 1))
    report, _ = build_report(
        plan, device, execution, model="m", config="Q", device_name="golden", reference="none", expected=None
    )
    host = [step for step in plan.steps if isinstance(step, HostStep)]
    assert [entry["op"] for entry in report["host_ops"]] == [op.kind for step in host for op in step.ops] == ["SOFTMAX"]
    assert all(entry["reason"] for entry in report["host_ops"])
    assert any(line.startswith("SOFTMAX (operator 9) runs on the CPU: ") for line in summary(report))


def test_the_table_has_every_operator_and_the_sums_of_its_rows(graph, plan):
    program = next(step for step in plan.steps if isinstance(step, NpuStep)).program
    device = TimedDevice(open_device("golden", CONFIG), [100 * (i + 1) for i in range(len(program.descriptors))])
    execution = Session(plan, device).run(random_inputs([graph.tensors[0]], 1))
    report, _ = build_report(
        plan, device, execution, model="m", config="Q", device_name="timed", reference="none", expected=None
    )
    device.close()
    titles, rows = layer_cells(report)
    *rows, end, total = [dict(zip(titles, row, strict=True)) for row in rows]
    assert [(row["#"], row["op"]) for row in rows] == [(str(op.index), op.kind) for op in graph.ops]
    assert rows[-1] | {"engine": "cpu", "cycles": "-", "read B": "-"} == rows[-1]
    assert (end["op"], end["cycles"], total["op"]) == ("end of program", "10", "total")
    for title in ("cycles", "floor", "MACs", "read B", "written B", "weights B"):
        assert sum(int(row[title].replace(",", "")) for row in (*rows, end) if row[title] not in ("", "-")) == int(
            total[title].replace(",", "")
        )


def test_macs_of_the_digits_network(graph):
    assert [dense_macs(graph, op) for op in graph.ops] == [9216, 9216, 16384, 0, 73728, 221184, 0, 0, 1920, 0]
    assert dense_macs(graph, replace(graph.ops[0], kind="ADD")) == 0


def test_macs_of_a_transposed_convolution():
    """Each of 4x5 inputs of 3 channels meets a kernel of 2x3 for each of 7 outputs, whatever the strides and the
    padding.
    """
    maker = GraphMaker(1)
    shape, source = maker.constant(np.array((1, 8, 15, 7), np.int32)), maker.tensor((1, 4, 5, 3))
    target = maker.op(
        "TRANSPOSE_CONV",
        (shape, maker.weights((7, 2, 3, 3), 7, 0), source),
        (1, 8, 15, 7),
        stride_h=2,
        stride_w=3,
        padding="VALID",
        activation="NONE",
    )
    graph = maker.graph([source], [target])
    assert dense_macs(graph, graph.ops[0]) == 4 * 5 * 3 * 2 * 3 * 7
    plan = compile_graph(graph, CONFIG)
    report = plan_report(plan)
    assert (report["macs"], report["host_macs"]) == (4 * 5 * 3 * 2 * 3 * 7, 0)
