"""Operators replaced by sequences that the NPU takes, against LiteRT; how parts are numbered and shown."""

from __future__ import annotations

import numpy as np

from convoy.driver.compile import expand as expanding
from convoy.driver.compile.expand import expand
from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.graph.graph import Part
from convoy.driver.report.plan_report import plan_report
from convoy.spec.config import PRESETS
from convoy.verif.graphs import GraphMaker, evaluate, random_values, run_plan

Q = PRESETS["Q"]


def halved(parts):
    """A RELU as a SPLIT, two RELUs and a CONCATENATION."""
    op = parts.op
    (source,), (target,) = op.inputs, op.outputs
    half = (*parts[source].shape[:3], parts[source].shape[3] // 2)
    halves = [parts.tensor(half, source) for _ in range(2)]
    done = [parts.tensor(half, target) for _ in range(2)]
    parts.add("SPLIT", (parts.constant(np.int32(3)), source), halves)
    parts.note("in halves")
    for before, after in zip(halves, done, strict=True):
        parts.add("RELU", (before,), (after,))
    parts.add("CONCATENATION", done, (target,), axis=3, activation="NONE")
    return True


def relu_behind_a_pool():
    maker = GraphMaker(3)
    source = maker.tensor((1, 4, 4, 8))
    pooled = maker.op(
        "MAX_POOL_2D", (source,), (1, 2, 2, 8), padding="VALID", filter_h=2, filter_w=2, stride_h=2, stride_w=2
    )
    last = maker.op("LOGISTIC", (maker.op("RELU", (pooled,), (1, 2, 2, 8)),), (1, 2, 2, 8))
    return maker.graph([source], [last])


def test_parts_are_numbered_behind_the_file(monkeypatch):
    graph = relu_behind_a_pool()
    monkeypatch.setitem(expanding.EXPANSIONS, "RELU", (halved,))
    plan = compile_graph(graph, Q, keep_tensors=True, is_fusing=False)
    assert [op.index for op in plan.graph.ops] == [0, 3, 4, 5, 6, 2]
    assert [op.number for op in plan.graph.ops] == ["0", "1.1", "1.2", "1.3", "1.4", "2"]
    assert plan.graph.ops[2].part == Part(1, "RELU", 2, 4)
    assert plan.graph.tensors[: len(graph.tensors)] == graph.tensors
    assert plan.graph.is_added(len(graph.tensors))
    assert not plan.graph.is_added(len(graph.tensors) - 1)
    assert expand(plan.graph, Q) == plan.graph
    rows = plan_report(plan)["ops"]
    assert [(row["number"], row["op"]) for row in rows][1:3] == [("1.1", "RELU 1/4: SPLIT"), ("1.2", "RELU 2/4: RELU")]
    assert rows[1]["reason"] == "in halves"
    inputs = random_values(graph, 0)
    expected, got = evaluate(graph, inputs), run_plan(plan, dict(inputs))
    for index in range(len(graph.tensors)):
        if index in expected:
            np.testing.assert_array_equal(got[index], expected[index])


def test_what_the_npu_does_not_take_is_not_put_in_place(monkeypatch):
    def foreign(parts):
        parts.add("EXP", parts.op.inputs, parts.op.outputs)
        return True

    graph = relu_behind_a_pool()
    monkeypatch.setitem(expanding.EXPANSIONS, "RELU", (foreign,))
    assert expand(graph, Q) == graph


def test_kept_operators_stay(monkeypatch):
    graph = relu_behind_a_pool()
    monkeypatch.setitem(expanding.EXPANSIONS, "RELU", (halved,))
    assert expand(graph, Q, frozenset({1})) == graph
