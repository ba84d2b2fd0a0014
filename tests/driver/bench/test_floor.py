"""The yardstick of a network's cycles: by hand for one layer, and never above what an estimate says."""

from pathlib import Path

import numpy as np
import pytest

from convoy.driver.bench.floor import floor_cycles
from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.graph.tflite_reader import read_tflite
from convoy.driver.runtime.device import MemoryModel
from convoy.driver.timing.estimate import estimate
from convoy.driver.workload.synthetic import LayerSpec, make_layer
from convoy.spec.config import PRESETS
from convoy.verif.graphs import GraphMaker

DIGITS = Path(__file__).parents[3] / "examples" / "digits_int8.tflite"
Q = PRESETS["Q"]


def _floors(graph):
    return floor_cycles(compile_graph(graph, Q, keep_tensors=True))


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
    assert 0 < sum(floor_cycles(plan).values()) < estimate(plan, MemoryModel()).cycles
