"""The order of operators: few turns between NPU and host, whatever the data allow."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import numpy as np
import pytest

from convoy.driver.compile.order import BETWEEN_HOST, choose_order
from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.emit.program import HostStep, NpuStep
from convoy.driver.graph.graph import Graph, Op, Tensor
from convoy.driver.graph.tflite_reader import read_tflite
from convoy.driver.lower.work import HostWork, LutWork, ReshapeWork, Work
from convoy.spec.config import PRESETS
from convoy.verif.litert import ModelBuilder
from convoy.verif.models import check_model

WORKS: dict[str, Work] = {"h": HostWork("left"), "n": LutWork(1, np.zeros(256, np.int8)), "e": ReshapeWork()}


def network(sides: str, edges: Sequence[tuple[int, int]]) -> tuple[Graph, tuple[Work, ...]]:
    """Operators by side, "h", "n" or "e" (either), tensor p + 1 made by operator p; those without operand read the
    input.
    """
    operands = [[1 + a for a, b in edges if b == place] or [0] for place in range(len(sides))]
    ops = tuple(Op(place, side, tuple(operands[place]), (place + 1,)) for place, side in enumerate(sides))
    tensors = tuple(Tensor(index, f"t{index}", (1, 4), np.dtype(np.int8)) for index in range(len(sides) + 1))
    return Graph("g", tensors, ops, (0,), (len(sides),)), tuple(WORKS[side] for side in sides)


def turns(kinds: Sequence[str]) -> int:
    text = "".join(kind for kind in kinds if kind != "e")
    return sum(part != "" for part in text.split("n"))


def is_legal(order: Sequence[int], edges: Sequence[tuple[int, int]]) -> bool:
    return all(order.index(a) < order.index(b) for a, b in edges)


@pytest.mark.parametrize("seed", range(12))
def test_no_order_has_fewer_turns(seed):
    rng = np.random.default_rng(seed)
    sides = "".join(rng.choice(list("hne"), 6, p=[0.4, 0.4, 0.2]))
    edges = [(a, b) for b in range(6) for a in range(b) if rng.random() < 0.25]
    graph, works = network(sides, edges)
    ordered = choose_order(graph, works)
    found = [op.index for op in ordered.graph.ops]
    assert sorted(found) == list(range(6))
    assert is_legal(found, edges)
    assert [WORKS[op.kind] is work for op, work in zip(ordered.graph.ops, ordered.works, strict=True)] == [True] * 6
    best = min(turns([sides[p] for p in order]) for order in permutations(range(6)) if is_legal(order, edges))
    assert turns([op.kind for op in ordered.graph.ops]) == best


def test_without_gain_the_order_stays():
    graph, works = network("nhnn", [(0, 1), (1, 3)])
    assert [op.index for op in choose_order(graph, works).graph.ops] == [0, 1, 2, 3]


def test_what_nothing_waits_for_comes_last():
    """So that the NPU has one program, not two."""
    graph, works = network("nhn", [(0, 1)])
    assert [op.index for op in choose_order(graph, works).graph.ops] == [0, 2, 1]


def heads(num_heads: int = 3) -> bytes:
    """Each head is SOFTMAX on the host between two LOGISTICs of the NPU, one head after the other."""
    builder = ModelBuilder()
    source, ends = builder.tensor((1, 8), np.int8, 0.1, 3), []
    for _ in range(num_heads):
        first, turned, last = (builder.tensor((1, 8), np.int8, 1 / 256, -128) for _ in range(3))
        builder.op("LOGISTIC", [source], [first])
        builder.op("SOFTMAX", [first], [turned], beta=1.0)
        builder.op("LOGISTIC", [turned], [last])
        ends.append(last)
    return builder.finish([source], ends)


def test_branches_share_one_step_of_the_host():
    plan = check_model(heads(), PRESETS["Q"], num_host_steps=1)
    assert [type(step) for step in plan.steps] == [NpuStep, HostStep, NpuStep]
    assert [op.index for op in plan.steps[1].ops] == [1, 4, 7]


def test_an_operator_within_the_host_stays_there():
    builder = ModelBuilder()
    tensors = [builder.tensor((1, 8), np.int8, 1 / 256, -128) for _ in range(4)]
    for kind, source, target in zip(("SOFTMAX", "LOGISTIC", "SOFTMAX"), tensors, tensors[1:], strict=False):
        builder.op(kind, [source], [target], **({"beta": 1.0} if kind == "SOFTMAX" else {}))
    plan = check_model(builder.finish(tensors[:1], tensors[3:]), PRESETS["Q"], num_host_steps=1)
    (step,) = plan.steps
    assert step.reasons[1] == BETWEEN_HOST


def test_parts_of_an_ordered_network_are_those_of_its_file():
    from convoy.driver.parallel import parts_of

    graph = read_tflite(heads())
    parts = parts_of(compile_graph(graph, PRESETS["Q"], keep_tensors=True))
    assert [position for part in parts for position in part] == list(range(len(graph.ops)))
