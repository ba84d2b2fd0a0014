"""The yardstick of a network's cycles: by hand for one layer, and never above what an estimate says."""

from pathlib import Path

import numpy as np
import pytest

from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.graph.tflite_reader import read_tflite
from convoy.driver.report.floor import find_floors
from convoy.driver.runtime.device import MemoryModel
from convoy.driver.timing.estimate import estimate
from convoy.driver.workload.synthetic import LayerSpec, make_layer
from convoy.spec.config import PRESETS
from convoy.verif.graphs import GraphMaker

DIGITS = Path(__file__).parents[3] / "examples" / "digits_int8.tflite"
Q = PRESETS["Q"]
PLAIN = {"stride_h": 1, "stride_w": 1, "dilation_h": 1, "dilation_w": 1, "padding": "VALID", "activation": "NONE"}


def _floors(graph):
    return {index: floor.cycles for index, floor in find_floors(compile_graph(graph, Q, keep_tensors=True)).items()}


def test_multipliers_are_the_limit_of_a_convolution():
    graph = make_layer(LayerSpec("conv", (12, 10, 32), 24, (3, 3), pads=(1, 1, 1, 1))).graph
    assert np.all(graph.tensors[graph.ops[0].inputs[1]].data)
    assert _floors(graph)[0] == 12 * 10 * 24 * 32 * 9 / Q.macs_per_cycle


def test_weights_that_are_zero_are_left_out():
    graph = make_layer(LayerSpec("conv", (12, 10, 32), 24, (3, 3), pads=(1, 1, 1, 1), density=0.5)).graph
    weights = graph.tensors[graph.ops[0].inputs[1]].data
    assert _floors(graph)[0] == pytest.approx(12 * 10 * np.count_nonzero(weights) / Q.macs_per_cycle, abs=1)


def test_the_port_is_the_limit_of_a_sum():
    maker = GraphMaker()
    a, b = maker.tensor((1, 8, 16, 20)), maker.tensor((1, 8, 16, 20))
    graph = maker.graph([a, b], [maker.op("ADD", (a, b), (1, 8, 16, 20), activation="NONE")])
    assert _floors(graph) == {0: 2 * 8 * 16 * 20 / Q.port_bytes}


def test_a_cut_reads_what_it_writes():
    maker = GraphMaker()
    source = maker.tensor((1, 8, 16, 24))
    begin, size = (maker.tensor((4,), np.int32, np.array(value, np.int32)) for value in ([0] * 4, [1, 4, 16, 24]))
    graph = maker.graph([source], [maker.op("SLICE", (source, begin, size), (1, 4, 16, 24))])
    assert sum(_floors(graph).values()) <= 4 * 16 * 24 / Q.port_bytes


def test_a_network_is_above_the_sum_of_its_floors():
    plan = compile_graph(read_tflite(DIGITS), Q, keep_tensors=True)
    assert 0 < sum(floor.cycles for floor in find_floors(plan).values()) < estimate(plan, MemoryModel()).cycles


def test_what_is_fused_counts_with_what_does_it():
    maker = GraphMaker()
    source, other = maker.tensor((1, 8, 16, 20)), maker.tensor((1, 8, 16, 8))
    weights, bias = maker.weights((8, 1, 1, 20), 8, 0), maker.bias(8, 20)
    made = maker.op("CONV_2D", (source, weights, bias), (1, 8, 16, 8), **PLAIN)
    graph = maker.graph([source, other], [maker.op("ADD", (made, other), (1, 8, 16, 8), activation="NONE")])
    plan = compile_graph(graph, Q)
    assert "fused" in plan.steps[0].engines.values()
    (floor,) = find_floors(plan).values()
    assert floor.write_bytes == 8 * 16 * 8
    constants = sum(np.count_nonzero(graph.tensors[index].data) * size for index, size in ((weights, 1), (bias, 4)))
    assert floor.read_bytes == 8 * 16 * (20 + 8) + constants
