"""Multipliers that are exact, by trying every sum."""

import numpy as np
import pytest

from convoy.driver.lower.quantise import single_multiplier
from convoy.golden.quant import single_rounding


def scaled(sums: np.ndarray, factor: float) -> np.ndarray:
    """In float64, halves away from zero, as TFLite's FULLY_CONNECTED does; clamped to twice the range of 8 bits."""
    product = sums * factor
    return np.clip(np.trunc(product + np.copysign(0.5, product)), -512, 511)


@pytest.mark.parametrize(
    ("factor", "sums"),
    [
        (2**-16, (-200_000, 150_000)),
        (2**-9 + 2**-40, (-70_000, 70_000)),
        (1.0, (-700, 700)),
        (1.5, (-5000, 5000)),
        (100.3, (-90, 90)),
        (3e-12, (-100_000, 100_000)),
        (0.0, (-10, 10)),
        (0.017, (5, 5)),
    ],
)
def test_every_sum_in_reach(factor, sums):
    pair = single_multiplier(factor, sums=sums)
    assert pair is not None
    mult, exponent = pair
    values = np.arange(sums[0], sums[1] + 1)
    got = single_rounding(values, mult, max(exponent, 0), max(-exponent, 0))
    np.testing.assert_array_equal(np.clip(got, -512, 511), scaled(values, factor))


def test_only_sums_in_reach_decide():
    """A factor found by search, which no multiplier fits for every sum of 32 bits."""
    factor = 4.397437234266781e-06
    assert single_multiplier(factor) is None
    mult, exponent = single_multiplier(factor, sums=(-1_000_000, 1_000_000))
    values = np.arange(-1_000_000, 1_000_001)
    np.testing.assert_array_equal(single_rounding(values, mult, 0, -exponent), scaled(values, factor))


def test_a_factor_beyond_the_shifts_is_refused():
    assert single_multiplier(300.0, sums=(-5, 5)) is None
