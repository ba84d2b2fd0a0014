"""What the C runtime executes of a network, and what it leaves to the application."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from convoy.driver.c.offload import find_offload
from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.graph.graph import GraphError, Quant
from convoy.spec.config import PRESETS
from convoy.verif.graphs import GraphMaker

SHAPE = 1, 4, 4, 3


def network(*kinds):
    """Operators in a row on one shape; SOFTMAX is one of the CPU's."""
    maker = GraphMaker(2)
    value = first = maker.tensor(SHAPE)
    for kind in kinds:
        inputs, options = (value,), {}
        if kind == "CONV_2D":
            inputs = (value, maker.weights((3, 1, 1, 3), 3, 0), maker.bias(3, 3))
            options = {"stride_h": 1, "stride_w": 1, "padding": "SAME", "activation": "NONE"}
        value = maker.op(kind, inputs, SHAPE, **options | ({"beta": 1.0} if kind == "SOFTMAX" else {}))
        if kind == "SOFTMAX":
            probability = Quant(np.array([1 / 256], np.float32), np.array([-128]))
            maker.tensors[value] = replace(maker.tensors[value], quant=probability)
    return compile_graph(maker.graph([first], [value]), PRESETS["S"])


def kinds_of(ops):
    return [op.kind for op, _ in ops]


@pytest.mark.parametrize(
    ("kinds", "before", "after"),
    [
        (("CONV_2D", "TANH"), [], []),
        (("SOFTMAX", "CONV_2D", "SOFTMAX"), ["SOFTMAX"], ["SOFTMAX"]),
        (("SOFTMAX", "TANH"), ["SOFTMAX"], []),
        (("CONV_2D", "SOFTMAX", "TANH"), [], ["SOFTMAX", "TANH"]),  # as of results of uint8
        (("TANH", "SOFTMAX", "CONV_2D"), ["TANH", "SOFTMAX"], []),
    ],
)
def test_what_is_left_out_at_the_edges(kinds, before, after):
    plan = network(*kinds)
    found = find_offload(plan)
    assert (kinds_of(found.before), kinds_of(found.after)) == (before, after)
    ops = {op.index: op for op in plan.graph.ops}
    layers = [ops[index] for step in found.steps for index in step.layers]
    assert [op.kind for op in layers] == list(kinds[len(before) : len(kinds) - len(after)])
    assert (found.inputs, found.outputs) == (layers[0].inputs[:1], layers[-1].outputs)


def test_operators_of_the_cpu_between_are_refused():
    expected = r"SOFTMAX \(operator 1\) runs on the CPU: SOFTMAX is not supported by the NPU \(usual at the end"
    with pytest.raises(GraphError, match=expected):
        find_offload(network("CONV_2D", "SOFTMAX", "CONV_2D"))


def test_what_the_cpu_multiplies_is_not_left_to_the_application():
    plan = network("SOFTMAX", "CONV_2D")
    host = plan.steps[0]
    ops = tuple(replace(op, options=op.options | {"macs": 100}) for op in host.ops)
    with pytest.raises(GraphError, match=r"between its first and last multiplication: SOFTMAX \(operator 0\)"):
        find_offload(replace(plan, steps=(replace(host, ops=ops), *plan.steps[1:])))


def test_networks_of_the_cpu_alone_are_refused():
    with pytest.raises(GraphError, match="no operator of the network runs on the NPU"):
        find_offload(network("SOFTMAX"))
