"""Estimates: the form of a run's report, sums, and what must make a network slower or faster."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.emit.pack import count_stream, encode_stream
from convoy.driver.emit.program import NpuStep
from convoy.driver.graph.graph import GraphError
from convoy.driver.graph.tflite_reader import read_tflite
from convoy.driver.report.report import build_report, summary
from convoy.driver.runtime.device import MemoryModel
from convoy.driver.timing.estimate import Estimator, estimate
from convoy.spec.config import PRESETS
from convoy.verif.strategies import layer_graphs

DIGITS = Path(__file__).parents[3] / "examples" / "digits_int8.tflite"


def report_of(graph, config, latency_cycles=32):
    plan = compile_graph(graph, config, keep_tensors=True)
    memory = MemoryModel(latency_cycles=latency_cycles)
    report, _ = build_report(
        plan,
        Estimator(memory),
        estimate(plan, memory),
        model="m",
        config="c",
        device_name="estimate",
        reference="none",
        expected=None,
    )
    return plan, report


@pytest.mark.parametrize("name", PRESETS)
def test_sums(name):
    config = PRESETS[name]
    plan, report = report_of(read_tflite(DIGITS), config)
    for part in (report, *report["layers"]):
        assert part["busy_cycles"] + sum(part["lost"].values()) == part["cycles"]
        assert min(part["lost"].values()) >= 0
    issued = {
        index: macs.issued for step in plan.steps if isinstance(step, NpuStep) for index, macs in step.lane_macs.items()
    }
    for layer in report["layers"]:
        done = layer["busy_cycles"] * config.macs_per_cycle
        if layer["engine"].startswith("swapped"):  # activations that are zero are skipped
            assert done <= issued[layer["index"]]
        else:
            assert done == issued.get(layer["index"], 0)
    assert report["macs"] == 331648
    assert all(layer["weight_bytes"] == 0 for layer in report["layers"] if layer["engine"] == "tp")
    assert "estimated in" in " ".join(summary(report))


@settings(deadline=None, max_examples=10, derandomize=True)
@given(graph=layer_graphs())
def test_random_layers_have_estimates(graph):
    try:
        _, report = report_of(graph, PRESETS["Q"])
    except GraphError:
        return
    assert report["cycles"] > 0
    assert all(layer["busy_cycles"] + sum(layer["lost"].values()) == layer["cycles"] for layer in report["layers"])


def test_a_slower_memory_costs():
    graph = read_tflite(DIGITS)
    cycles = [report_of(graph, PRESETS["Q"], latency)[1]["cycles"] for latency in (8, 32, 100, 300)]
    assert cycles == sorted(set(cycles))


def test_written_bytes_are_the_outputs():
    graph = read_tflite(DIGITS)
    _, report = report_of(graph, PRESETS["Q"])
    first = report["layers"][0]
    assert first["write_bytes"] == np.prod(graph.tensors[graph.ops[0].outputs[0]].shape)


def test_counts_of_a_stream():
    """Two windows of two kernels with two taps: 3 0 | 0 5 || 0 0 | 0 0; one bit of run says at most one zero."""
    weights = np.array([[3, 0, 0, 5], [0, 0, 0, 0]], np.int8)
    counts = count_stream(weights, 1, 1)
    assert (counts.nnz, counts.zeros) == (
        (2, 0),
        (1, 2),
    )  # 3, run of 2 cut by a token of zero, 5, then 4 zeros in two tokens
    assert counts.idle == (0, 2)  # the first one is dropped; then one begins a window, and one ends the stream
    assert len(encode_stream(weights.ravel(), 1)) == -(-9 * (sum(counts.nnz) + sum(counts.zeros)) // 8)


@settings(deadline=None, max_examples=50, derandomize=True)
@given(st.lists(st.integers(-1, 1), min_size=8, max_size=64), st.integers(0, 3))
def test_tokens_are_those_of_the_stream(values, run_bits):
    weights = np.array(values[: len(values) // 8 * 8], np.int8).reshape(-1, 8)
    counts = count_stream(weights, run_bits, 1)
    tokens = sum(counts.nnz) + sum(counts.zeros)
    assert len(encode_stream(weights.ravel(), run_bits)) == -(-(8 + run_bits) * tokens // 8)
    assert counts.nnz == tuple(np.count_nonzero(weights, axis=1))
    assert all(
        idle <= min(zeros, 1 + is_last)
        for idle, zeros, is_last in zip(counts.idle, counts.zeros, [*[0] * (len(weights) - 1), 1], strict=True)
    )
