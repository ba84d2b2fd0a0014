"""Every cycle of every core is booked to one cause, on every layer, and busy cycles are those that the plan says."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings

from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.devices import open_device
from convoy.driver.emit.program import NpuStep
from convoy.driver.emit.traffic import Traffic
from convoy.driver.graph.graph import GraphError
from convoy.driver.graph.tflite_reader import read_tflite
from convoy.driver.report.report import build_report
from convoy.driver.runtime.device import MemoryModel
from convoy.driver.runtime.session import Session
from convoy.driver.workload.inputs import random_inputs
from convoy.verif.campaign import RTL_CONFIGS
from convoy.verif.strategies import layer_graphs, memory_models

DIGITS = Path(__file__).parents[2] / "examples" / "digits_int8.tflite"
CONFIGS = {name: RTL_CONFIGS[name] for name in ("Q", "small")}


def check(graph, config, memory_model, name="native", is_fusing=True):
    """Run a network; the sums of all layers and of the whole. The report."""
    plan = compile_graph(graph, config, keep_tensors=True, is_fusing=is_fusing)
    device = open_device(name, config, memory_model)
    execution = Session(plan, device).run(random_inputs([graph.tensors[index] for index in graph.inputs], 0))
    report, _ = build_report(
        plan, device, execution, model="m", config="c", device_name=name, reference="none", expected=None
    )
    device.close()
    images = sum(layer["weight_bytes"] for layer in report["layers"] if layer["engine"].startswith("swapped"))
    streams = report["weight_bytes"] - images  # weights that are an image are not counted as such
    assert execution.counted == Traffic(report["read_bytes"], report["write_bytes"], streams)
    assert report["cycles"] == sum(layer["cycles"] for layer in report["layers"]) + report["end_cycles"]
    for cost in execution.costs.values():
        assert sum(cost.core_cycles.values()) == cost.cycles * config.num_cores
    for part in (report, *report["layers"]):
        assert part["busy_cycles"] + sum(part["lost"].values()) == part["cycles"]
    assert all(
        report[name] == sum(layer[name] for layer in report["layers"]) for name in ("busy_cycles", "edge_cycles")
    )
    steps = [step for step in plan.steps if isinstance(step, NpuStep)]
    issued = sum((Counter({op: macs.issued for op, macs in step.lane_macs.items()}) for step in steps), Counter())
    for layer in report["layers"]:
        done = layer["busy_cycles"] * config.macs_per_cycle
        if layer["engine"].startswith("swapped"):  # activations that are zero are skipped
            assert done <= issued[layer["index"]]
        else:
            assert done == issued[layer["index"]]
    return report, execution


@pytest.mark.parametrize("name", CONFIGS)
def test_digits(name):
    report, _ = check(read_tflite(DIGITS), CONFIGS[name], MemoryModel(), is_fusing=False)
    by_op = {layer["op"]: layer for layer in report["layers"]}
    assert by_op["MAX_POOL_2D"]["lost"]["tp"] > 0.9 * by_op["MAX_POOL_2D"]["cycles"]
    assert by_op["CONV_2D"]["lost"]["bus"] > 0


@pytest.mark.parametrize("name", CONFIGS)
@settings(deadline=None, max_examples=5, suppress_health_check=list(HealthCheck), derandomize=True)
@given(graph=layer_graphs(), memory_model=memory_models())
def test_random_layers(name, graph, memory_model):
    try:
        check(graph, CONFIGS[name], memory_model)
    except GraphError:
        assume(False)


def test_a_slow_memory_is_a_loss_on_the_bus():
    graph = read_tflite(DIGITS)
    fast, slow = (check(graph, CONFIGS["Q"], MemoryModel(latency_cycles=latency))[0] for latency in (8, 200))
    assert slow["busy_cycles"] == fast["busy_cycles"]
    assert slow["lost"]["bus"] > 2 * fast["lost"]["bus"]
