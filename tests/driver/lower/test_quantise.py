"""Multipliers that are exact, by trying every sum."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convoy.driver.lower.quantise import (
    MAX_SHIFT_LEFT,
    MAX_SHIFT_RIGHT,
    float_differences,
    float_multipliers,
    single_multiplier,
)
from convoy.golden.quant import float32_rounding, single_rounding


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


def as_float32(sums: np.ndarray, factor: float, limits: tuple[int, int]) -> np.ndarray:
    """As onnxruntime requantises, clamped."""
    return np.clip(np.rint(sums.astype(np.float32) * np.float32(factor)), *limits)


def as_npu(sums: np.ndarray, factor: float, limits: tuple[int, int]) -> np.ndarray:
    """By the golden requantiser with the multiplier of this factor, clamped."""
    (mult,), (exponent,) = float_multipliers(np.float32([factor]))
    return np.clip(float32_rounding(sums, mult, max(exponent, 0), max(-exponent, 0)), *limits)


factors = st.one_of(
    st.floats(2.0**-24, 2.0**7, exclude_max=True, width=32),
    st.integers(-24, 6).map(lambda exponent: 2.0**exponent),
    st.builds(lambda odd, exponent: (2 * odd + 1) * 2.0**exponent, st.integers(0, 63), st.integers(-30, 0)),
)


@given(factors)
def test_float_multipliers_are_the_factor(factor):
    (mult,), (exponent,) = float_multipliers(np.float32([factor]))
    assert 1 << 23 <= mult < 1 << 31
    assert -MAX_SHIFT_RIGHT <= exponent <= MAX_SHIFT_LEFT
    assert Fraction(int(mult)) * Fraction(2) ** int(exponent - 31) == Fraction(factor)


def test_float_multipliers_of_factors_beyond():
    """Zeros where every sum gives 0; the left shift that PARAM does not hold is said."""
    found = float_multipliers(np.float32([0, 2.0**-149, 2.0**-40, 2.0**-39, 128]))
    assert [column.tolist() for column in found] == [[0, 0, 0, 1 << 23, 1 << 30], [0, 0, 0, -31, 8]]


@given(factors, st.integers(-128, 127), st.integers(-255, 255), st.integers(-2000, 2000))
def test_float_sums_within_24_bits_are_exact(factor, zero_point, value, away):
    """Around the ties, and nothing is said to differ."""
    limits = -128 - zero_point, 127 - zero_point
    tie = min(max(round((value + 0.5) / factor), -(1 << 24)), 1 << 24)
    sums = np.clip(np.concatenate([np.arange(tie - 9, tie + 10), [tie + away]]), -(1 << 24), 1 << 24)
    assert not float_differences(np.float32([factor]), np.array([[sums.min(), sums.max()]]), limits).any()
    assert np.array_equal(as_npu(sums, factor, limits), as_float32(sums, factor, limits))


@given(
    st.floats(2.0**-26, 2.0**-17, width=32), st.integers(-(1 << 31), (1 << 31) - 1), st.integers(0, 30_000), st.data()
)
def test_float_differences_are_counted(factor, low, count, data):
    """Sums of more than 24 bits, each tried."""
    limits = tuple(sorted([data.draw(st.integers(-255, 255)), data.draw(st.integers(-255, 255))]))
    sums = np.arange(low, min(low + count, (1 << 31) - 1) + 1)
    differs = as_npu(sums, factor, limits) != as_float32(sums, factor, limits)
    assert float_differences(np.float32([factor]), np.array([[low, sums[-1]]]), limits).tolist() == [differs.sum()]


def test_float_differences_are_found():
    """2**24 + 1 is no float32; of several channels only those that can reach it differ, unless it is clamped."""
    factor, reach = np.float32(21.5 / ((1 << 24) + 1)), (1 << 24) + 1
    sums = np.array([[0, reach], [0, reach - 1], [-reach, reach], [reach, reach]])
    factors = np.full(4, factor)
    assert float_differences(factors, sums, (-128, 127)).tolist() == [1, 0, 2, 1]
    assert float_differences(factors, sums, (-20, 20)).tolist() == [0, 0, 0, 0]
