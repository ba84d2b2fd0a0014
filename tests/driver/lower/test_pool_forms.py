"""Pools of one pixel in front of convolutions of one tap."""

import numpy as np
import pytest

from convoy.driver.compile.pipeline import compile_graph
from convoy.spec.config import PRESETS
from convoy.verif.graphs import GraphMaker, evaluate, random_values, run_plan

Q = PRESETS["Q"]


def network(kind="AVERAGE_POOL_2D", kernel=1, taps=1, **options):
    """A pool at stride 2 and a convolution at stride 1."""
    maker = GraphMaker(1, np.int8)
    source = maker.tensor((1, 9, 12, 5))
    options = dict(padding="VALID", filter_h=kernel, filter_w=kernel, stride_h=2, stride_w=2) | options
    shape = 1, (9 - kernel) // 2 + 1, (12 - kernel) // 2 + 1, 5
    pooled = maker.op(kind, (source,), shape, **options)
    weights = maker.weights((8, taps, taps, 5), 8, 0)
    made = maker.op(
        "CONV_2D",
        (pooled, weights, maker.bias(8, 5 * taps * taps)),
        (1, shape[1] - taps + 1, shape[2] - taps + 1, 8),
        stride_h=1,
        stride_w=1,
    )
    return maker, source, pooled, made


@pytest.mark.parametrize("kind", ["AVERAGE_POOL_2D", "MAX_POOL_2D"])
def test_a_convolution_takes_the_stride_of_a_pool_of_one_pixel(kind):
    maker, source, pooled, made = network(kind)
    graph = maker.graph([source], [made])
    plan = compile_graph(graph, Q)
    (op,) = plan.graph.ops
    assert (op.kind, op.options["stride_h"], op.options["stride_w"]) == ("CONV_2D", 2, 2)
    assert pooled not in plan.placements
    inputs = random_values(graph, 0)
    np.testing.assert_array_equal(run_plan(plan, dict(inputs))[made], evaluate(graph, inputs)[made])


@pytest.mark.parametrize(
    "changes", [dict(kernel=2), dict(taps=2), dict(activation="RELU")], ids=["windows", "taps", "clamp"]
)
def test_other_pools_stay(changes):
    maker, source, _, made = network(**changes)
    assert len(compile_graph(maker.graph([source], [made]), Q).graph.ops) == 2


def test_a_pool_with_another_reader_stays():
    maker, source, pooled, made = network()
    assert len(compile_graph(maker.graph([source], [made, pooled]), Q).graph.ops) == 2
