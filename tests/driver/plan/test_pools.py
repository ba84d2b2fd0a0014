"""Averages on the NN engine and sums on the tensor processor: that they are exact, and which is chosen."""

from dataclasses import replace

import numpy as np
import pytest

from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.graph.tflite_reader import read_tflite
from convoy.driver.lower.work import Axis, ConvWork, PoolWork
from convoy.driver.plan import pools
from convoy.driver.plan.cost import pool_cycles
from convoy.driver.plan.pools import PoolSteps, average_multiplier, best_pool, summing_pool
from convoy.spec.config import PRESETS, NpuConfig
from convoy.spec.isa import TpOp
from convoy.verif.graphs import GraphMaker, evaluate, random_values, run_plan
from convoy.verif.litert import pool_model
from convoy.verif.models import check_model, one_op

Q = PRESETS["Q"]
SMALL = NpuConfig(num_cores=2, tp_buffer_bytes=1024)


def requantised(sums, mult, exponent):
    """Single rounding of docs/quantisation.md."""
    product = (sums << max(exponent, 0)) * mult
    shift = 31 + max(-exponent, 0)
    return (product + (1 << (shift - 1)) - (product < 0)) >> shift


def average(kernel, size, stride=1, pad=0, **options):
    (kernel_h, kernel_w), (height, width) = kernel, size
    rows, cols = (
        Axis(extent, (extent + 2 * pad - taps) // stride + 1, taps, stride, pad=pad)
        for extent, taps in ((height, kernel_h), (width, kernel_w))
    )
    return PoolWork(TpOp.AVG_POOL, 44, rows, cols, -128, 127, **options)


@pytest.mark.parametrize("counts", [range(1, 101), (121, 169, 196, 225, 256, 400, 511, 512)])
def test_averages_are_exact_for_every_sum(counts):
    for count in counts:
        mult, exponent = average_multiplier(count, 256 * count)
        sums = np.arange(-128 * count, 127 * count + 1)
        away = np.sign(sums) * ((2 * np.abs(sums) + count) // (2 * count))
        np.testing.assert_array_equal(requantised(sums, mult, exponent), away)
        half_up = (2 * sums + count) // (2 * count)
        np.testing.assert_array_equal(requantised(sums + 128 * count, mult, exponent) - 128, half_up)


def test_no_multiplier_where_the_next_tie_is_too_near():
    assert average_multiplier(3, 1 << 40) is None


def test_an_average_is_a_convolution_and_its_edges_are_pools():
    work = average((3, 3), (12, 12), pad=1)
    conv, *edges = best_pool(work, Q).works
    assert isinstance(conv, ConvWork)
    assert [edge.part for edge in edges] == [
        (range(1), range(12)),
        (range(11, 12), range(12)),
        (range(12), range(1)),
        (range(12), range(11, 12)),
    ]
    assert len(best_pool(average((2, 2), (12, 12), stride=2), Q).works) == 1


@pytest.mark.parametrize(
    "work",
    [average((3, 3), (3, 3), pad=1), average((3, 3), (12, 12), stride=3), average((3, 3), (12, 12), is_wide=True)],
    ids=["nearly all edge", "stride 3", "int16"],
)
def test_other_averages_stay_pools(work):
    assert best_pool(work, Q) is None


@pytest.fixture
def slow_pools(monkeypatch):
    """What the NN engine can do of pools is left to it."""
    monkeypatch.setattr(pools, "pool_cycles", lambda work, config: 100 * pool_cycles(work, config))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@pytest.mark.parametrize("config", [Q, SMALL], ids=["Q", "small"])
@pytest.mark.parametrize(
    ("shape", "kernel", "stride", "padding"),
    [
        ((1, 13, 14, 21), (3, 3), (1, 1), "SAME"),
        ((1, 24, 23, 9), (5, 2), (2, 1), "SAME"),
        ((1, 16, 18, 12), (2, 2), (2, 2), "VALID"),
        ((1, 11, 11, 65), (1, 1), (2, 2), "VALID"),
        ((1, 40, 40, 14), (4, 4), (2, 2), "VALID"),
    ],
)
@pytest.mark.usefixtures("slow_pools")
def test_averages_on_the_nn_engine(shape, kernel, stride, padding, config, dtype):
    plan = check_model(
        pool_model("AVERAGE_POOL_2D", shape, kernel, stride, (0.05, 7), padding, "RELU", dtype=dtype), config
    )
    assert "nn" in plan.steps[0].engines[0]


@pytest.mark.parametrize("dtype", [np.int8, np.int16])
@pytest.mark.parametrize("config", [Q, SMALL], ids=["Q", "small"])
@pytest.mark.parametrize(
    ("shape", "kernel", "stride", "padding"),
    [
        ((1, 24, 22, 9), (2, 2), (2, 2), "VALID"),
        ((1, 25, 23, 9), (2, 2), (2, 2), "VALID"),
        ((1, 25, 23, 9), (2, 2), (2, 2), "SAME"),
        ((1, 24, 22, 9), (3, 3), (2, 2), "VALID"),
        ((1, 24, 22, 9), (3, 3), (2, 2), "SAME"),
        ((1, 25, 25, 9), (3, 3), (2, 2), "SAME"),
        ((1, 10, 131, 9), (3, 3), (2, 2), "SAME"),
        ((1, 1, 301, 9), (1, 3), (1, 2), "SAME"),
        ((1, 1, 300, 9), (1, 2), (1, 2), "VALID"),
        ((1, 19, 40, 9), (1, 2), (1, 2), "VALID"),
        ((1, 40, 19, 9), (2, 1), (2, 1), "VALID"),
    ],
)
@pytest.mark.usefixtures("slow_pools")
def test_maxima_on_the_nn_engine(shape, kernel, stride, padding, config, dtype):
    """Pixels or rows that no window has, pads, rows longer than the line memory, and one axis alone."""
    zero_point = 0 if dtype == np.int16 else 7
    plan = check_model(
        pool_model("MAX_POOL_2D", shape, kernel, stride, (0.05, zero_point), padding, "RELU", dtype), config
    )
    if config is Q and (dtype == np.int8 or (padding == "VALID" and shape[1] == 24)):
        assert plan.steps[0].engines[0].startswith("nn")


@pytest.mark.usefixtures("slow_pools")
def test_tables_of_maxima():
    """One that falls is for the maximum, one that never does for every pixel too."""
    pool = replace(average((2, 2), (24, 24), stride=2), op=TpOp.MAX_POOL)
    rising = np.roll(np.arange(-128, 128), -128).astype(np.int8)
    assert isinstance(best_pool(replace(pool, lut=rising), Q).works[0], ConvWork)
    assert best_pool(replace(pool, lut=~rising), Q) is None
    for kind, is_pool in (("LOGISTIC", False), ("GELU", True)):
        maker = GraphMaker(3)
        source = maker.tensor((1, 24, 24, 9))
        options = {"padding": "VALID", "filter_h": 2, "filter_w": 2, "stride_h": 2, "stride_w": 2}
        maxima = maker.op("MAX_POOL_2D", (source,), (1, 12, 12, 9), **options)
        last = maker.op(kind, (maxima,), (1, 12, 12, 9), **({"approximate": False} if is_pool else {}))
        graph, inputs = maker.graph([source], [last]), None
        plan, inputs = compile_graph(graph, Q), random_values(graph, 0)
        np.testing.assert_array_equal(run_plan(plan, dict(inputs))[last], evaluate(graph, inputs)[last])
        assert ("nn" in plan.steps[0].engines[0]) != is_pool


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16])
def test_large_maxima_take_two_steps(dtype):
    for shape, kernel, stride, padding in (
        ((1, 13, 11, 6), (13, 9), (1, 1), "SAME"),
        ((1, 12, 17, 5), (6, 7), (1, 2), "VALID"),
    ):
        check_model(pool_model("MAX_POOL_2D", shape, kernel, stride, (0.05, 0), padding, "RELU", dtype=dtype), SMALL)
    work = replace(average((13, 13), (13, 13), pad=6), op=TpOp.MAX_POOL)
    steps = best_pool(work, Q)
    assert isinstance(steps, PoolSteps)
    assert sum(pool_cycles(step, Q) for step in steps.works) < 0.5 * pool_cycles(work, Q)
    assert best_pool(replace(average((3, 3), (12, 12)), op=TpOp.MAX_POOL), Q) is None


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16])
def test_means_on_the_tensor_processor(dtype):
    """Rows and columns, or one of them, with scales of their own."""
    quant, out_quant = ((0.05, 0 if dtype == np.int16 else 7), (0.041, 0 if dtype == np.int16 else 9))
    for axes, shape in (([1, 2], (1, 32)), ([1], (1, 5, 32)), ([2], (1, 6, 32))):
        plan = check_model(one_op("MEAN", (1, 6, 5, 32), shape, [axes], quant, out_quant, dtype), SMALL)
        assert not plan.steps[0].engines[0].startswith("host")
    model = one_op("MEAN", (1, 14, 14, 96), (1, 96), [[1, 2]], quant, out_quant)
    assert compile_graph(read_tflite(model), Q).steps[0].engines[0] == "tp"


def test_weights_and_factors_of_their_own_make_no_pool():
    values = np.zeros(4, np.int64), np.full(4, 1 << 30), np.full(4, -3)
    fields = {"zero_point_in": 0, "zero_point_out": 0, "act_min": -128, "act_max": 127, "rounding": 0}
    work = ConvWork(
        4, Axis(3, 1, 3), Axis(3, 1, 3), True, np.ones((4, 3, 3, 1), np.int16), *values, **fields, in_shape=(1, 3, 3, 4)
    )
    assert summing_pool(work).fields["out_shift"] == 3
    for changes in (
        {"weights": work.weights * 2},
        {"bias": values[0] + 1},
        {"exponent": np.array([-3, -3, -3, -4])},
        {"exponent": np.full(4, 1)},
        {"rounding": 1},
    ):
        assert summing_pool(ConvWork(**vars(work) | changes)) is None
