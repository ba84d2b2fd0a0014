"""Fitted numbers: that each can be changed, counts where it should, and comes back."""

from dataclasses import replace

import pytest

from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.plan import fitted as plan_numbers
from convoy.driver.runtime.device import MemoryModel
from convoy.driver.timing import fitted as timing_numbers
from convoy.driver.workload.synthetic import make_layer
from convoy.spec.config import PRESETS
from convoy.verif.fit import LAYERS, neighbours, numbers, plan_cycles, residual, with_number

Q, MEMORY = PRESETS["Q"], MemoryModel()
GRAPH = replace(make_layer(LAYERS[0]).graph, inputs=())


def test_names_have_one_meaning():
    assert not set(vars(timing_numbers)) & set(numbers(plan_numbers))
    assert {"TP_BYTE_CYCLES[zoom]", "SLOT_PENALTY[1]"} <= set(numbers(plan_numbers))


def test_neighbours():
    assert neighbours(100) == (80, 120)
    assert neighbours(1) == (0, 2)
    assert neighbours(0.5) == pytest.approx((0.4, 0.6))


@pytest.mark.parametrize("name", ["CHUNK_WRITE_CYCLES", "WRITE_BURST_CYCLES", "JOB_CYCLES", "DRAIN_JOB_CYCLES"])
def test_the_model_follows_a_number_and_comes_back(name):
    """Also where it is a part of a sum."""
    plan = compile_graph(GRAPH, Q)
    measured = [(plan, {0: 10_000})]
    before = residual(measured, MEMORY)
    with with_number(timing_numbers, name, 100_000):
        assert residual(measured, MEMORY) != before
    assert residual(measured, MEMORY) == before


def test_the_compiler_follows_a_number():
    before = plan_cycles([GRAPH], Q, MEMORY)
    with with_number(plan_numbers, "NEXT_STRIPE_CYCLES", -10_000):  # the more stripes, the better
        assert plan_cycles([GRAPH], Q, MEMORY) != before
    assert plan_cycles([GRAPH], Q, MEMORY) == before
