"""Functions of one byte change places with operators that only move bytes, against LiteRT."""

import numpy as np
import pytest

from convoy.driver.compile.hoist import hoist_functions
from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.graph.graph import Part
from convoy.driver.graph.tflite_reader import load_tflite
from convoy.spec.config import PRESETS
from convoy.verif.litert import ModelBuilder
from convoy.verif.models import check_model

Q = PRESETS["Q"]


class Network:
    """Convolutions of one image, and what others make of their results."""

    def __init__(self, dtype=np.int8):
        self.builder, self.dtype, self.rng = ModelBuilder(), dtype, np.random.default_rng(3)
        self.offset = 128 * (dtype == np.uint8)
        self.source = self.tensor((1, 6, 5, 4))

    def tensor(self, shape, scale=0.05):
        return self.builder.tensor(shape, self.dtype, scale, self.offset + 3)

    def conv(self, num_oc=4):
        weights = self.rng.integers(-128, 128, (num_oc, 1, 1, 4)) + self.offset
        weights = self.builder.tensor((num_oc, 1, 1, 4), self.dtype, 0.01, self.offset, data=weights)
        bias, target = self.builder.tensor((num_oc,), np.int32, data=np.zeros(num_oc)), self.tensor((1, 6, 5, num_oc))
        strides = {"strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1}
        self.builder.op("CONV_2D", [self.source, weights, bias], [target], padding=1, **strides)
        return target

    def op(self, kind, inputs, shape, scale=0.05, **options):
        target = self.tensor(shape, scale)
        self.builder.op(kind, inputs, [target], **options)
        return target

    def integers(self, *values):
        return self.builder.tensor((len(values),), np.int32, data=np.array(values))

    def finish(self, *outputs):
        return self.builder.finish([self.source], outputs)


def kinds(model):
    return [op.kind for op in hoist_functions(load_tflite(model).graph).ops]


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_a_table_vanishes_past_a_reshape_and_a_transposition(dtype):
    network = Network(dtype)
    flat = network.op("RESHAPE", [network.conv(), network.integers(1, 30, 4)], (1, 30, 4))
    turned = network.op("TRANSPOSE", [flat, network.integers(0, 2, 1)], (1, 4, 30))
    model = network.finish(network.op("LOGISTIC", [turned], (1, 4, 30), 1 / 256))
    assert kinds(model) == ["CONV_2D", "TABLE", "RESHAPE", "TRANSPOSE"]
    plan = check_model(model, Q)
    assert plan.graph.ops[1].part == Part(3, "LOGISTIC", 1, 1)
    assert plan.notes[3] == "fused into operator 0 CONV_2D"


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@pytest.mark.parametrize("kind", ["TANH", "QUANTIZE"])
def test_a_table_behind_a_concatenation_is_one_for_each_part(dtype, kind):
    network = Network(dtype)
    parts = [network.conv(4), network.conv(8)]
    joined = network.op("CONCATENATION", parts, (1, 6, 5, 12), axis=3)
    model = network.finish(network.op(kind, [joined], (1, 6, 5, 12), 0.02))
    assert kinds(model) == ["CONV_2D", "CONV_2D", "TABLE", "TABLE", "CONCATENATION"]
    plan = check_model(model, Q)
    assert [op.part for op in plan.graph.ops[2:4]] == [Part(3, kind, n, 2) for n in (1, 2)]
    assert sum(engine == "fused" for step in plan.steps for engine in step.engines.values()) == 2


def test_what_others_read_is_not_passed():
    network = Network()
    trunk = network.conv()
    flat = network.op("RESHAPE", [trunk, network.integers(1, 30, 4)], (1, 30, 4))
    model = network.finish(network.op("TANH", [flat], (1, 30, 4)), trunk)
    assert kinds(model) == ["CONV_2D", "RESHAPE", "TANH"]
    check_model(model, Q)


def test_less_than_half_of_the_parts_are_not_enough():
    network = Network()
    first, other = network.conv(4), network.conv(8)
    joined = network.op("CONCATENATION", [first, other], (1, 6, 5, 12), axis=3)
    model = network.finish(network.op("TANH", [joined], (1, 6, 5, 12)), other)
    assert kinds(model) == ["CONV_2D", "CONV_2D", "CONCATENATION", "TANH"]
    check_model(model, Q)


def test_parts_of_other_scales_are_converted_first():
    network = Network(np.uint8)
    first, other = network.conv(), network.builder.tensor((1, 6, 5, 4), np.uint8, 0.03, 9)
    network.builder.op("QUANTIZE", [network.conv()], [other])
    joined = network.op("CONCATENATION", [first, other], (1, 6, 5, 8), axis=3)
    model = network.finish(network.op("TANH", [joined], (1, 6, 5, 8)))
    assert kinds(model)[-2:] == ["CONCATENATION", "TANH"]
    check_model(model, Q)


def test_nothing_moves_without_fusions():
    network = Network()
    flat = network.op("RESHAPE", [network.conv(), network.integers(1, 30, 4)], (1, 30, 4))
    graph = load_tflite(network.finish(network.op("TANH", [flat], (1, 30, 4)))).graph
    plan = compile_graph(graph, Q, is_fusing=False)
    assert [op.kind for op in plan.graph.ops] == ["CONV_2D", "RESHAPE", "TANH"]
