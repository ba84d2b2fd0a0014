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
        value = maker.op(kind, (value,), SHAPE, **({"beta": 1.0} if kind == "SOFTMAX" else {}))
        if kind == "SOFTMAX":
            probability = Quant(np.array([1 / 256], np.float32), np.array([-128]))
            maker.tensors[value] = replace(maker.tensors[value], quant=probability)
    return compile_graph(maker.graph([first], [value]), PRESETS["S"])


def kinds_of(ops):
    return [op.kind for op, _ in ops]


def test_operators_of_the_cpu_at_the_edges_are_left_out():
    plan = network("SOFTMAX", "LOGISTIC", "SOFTMAX")
    found = find_offload(plan)
    assert (kinds_of(found.before), kinds_of(found.after)) == (["SOFTMAX"], ["SOFTMAX"])
    assert [plan.graph.ops[index].kind for step in found.steps for index in step.layers] == ["LOGISTIC"]
    (op,) = (op for op in plan.graph.ops if op.kind == "LOGISTIC")
    assert (found.inputs, found.outputs) == (op.inputs, op.outputs)


def test_operators_of_the_cpu_between_are_refused():
    with pytest.raises(GraphError, match=r"operator 1 SOFTMAX \('t2'\): SOFTMAX is not supported by the NPU \(usual"):
        find_offload(network("LOGISTIC", "SOFTMAX", "LOGISTIC"))


def test_networks_of_the_cpu_alone_are_refused():
    with pytest.raises(GraphError, match="no operator of the network runs on the NPU"):
        find_offload(network("SOFTMAX"))
