"""onnxruntime's requantisation on the NPU's multiplier."""

from __future__ import annotations

import numpy as np
import pytest

from convoy.driver.graph.graph import GraphError
from convoy.driver.lower.float_factors import float_factors, rounded
from convoy.golden.quant import float32_rounding

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("scale", [1e-5, 1e-3, 0.03125, 0.5, 3.0])
def test_every_sum_that_float32_holds_gives_the_same_output(scale):
    """Halves and quarters make ties."""
    factors = np.float32([scale, scale * 0.999, 0.25 * scale])
    sums = np.array([[-(1 << 24), 1 << 24]] * 3)
    mult, exponent, num_doubts = float_factors(factors, sums, -128, 127)
    assert num_doubts.tolist() == [0, 0, 0]
    for factor, q, e in zip(factors, mult, exponent, strict=True):
        reach = min(1 << 24, int(300 / float(factor)))
        totals = RNG.integers(-reach, reach, 20_000, endpoint=True)
        steps = np.rint((np.arange(-128, 128) + 0.5) / float(factor)).astype(np.int64)
        totals = np.concatenate([totals, *(np.clip(steps + n, -(1 << 24), 1 << 24) for n in (-1, 0, 1))])
        found = float32_rounding(totals, q, max(e, 0), max(-e, 0))
        np.testing.assert_array_equal(np.clip(found, -128, 127), np.clip(rounded(totals, factor), -128, 127))


def test_larger_sums_are_counted_where_they_differ():
    mult, exponent, num_doubts = float_factors(np.float32([1e-6]), np.array([[-(1 << 30), 1 << 30]]), -128, 127)
    assert num_doubts[0] > 0
    assert (mult > 0).all()
    assert (exponent < 0).all()


def test_a_factor_may_be_zero_but_not_too_large():
    mult, exponent, num_doubts = float_factors(np.float32([0]), np.array([[-1000, 1000]]), -128, 127)
    assert (mult[0], exponent[0], num_doubts[0]) == (0, 0, 0)
    with pytest.raises(GraphError, match="left shift"):
        float_factors(np.float32([2.0**40]), np.array([[-1000, 1000]]), -128, 127)
