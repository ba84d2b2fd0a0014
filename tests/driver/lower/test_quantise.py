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
    single_multipliers,
)
from convoy.golden.quant import float32_rounding, single_rounding


def scaled(sums: np.ndarray, factor: float, limits: tuple[int, int]) -> np.ndarray:
    """In float64, halves away from zero, as TFLite's FULLY_CONNECTED does; clamped."""
    product = sums * factor
    return np.clip(np.trunc(product + np.copysign(0.5, product)), *limits)


def differing(q: int, exponent: int, factor: float, sums: tuple[int, int], limits: tuple[int, int]) -> int:
    """How many of the sums single rounding by a multiplier scales otherwise; all of them are tried."""
    values = np.arange(sums[0], sums[1] + 1)
    got = single_rounding(values, q, max(exponent, 0), max(-exponent, 0))
    return np.count_nonzero(np.clip(got, *limits) != scaled(values, factor, limits))


def single_multiplier(factor: float, sums: tuple[int, int], limits: tuple[int, int]) -> tuple[int, int, bool]:
    return tuple(found.item() for found in single_multipliers(np.array([factor]), np.array([sums]), limits))


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
        (300.0, (0, 0)),
        (2**-7 - 2**-45, (-3000, 90_000)),
    ],
)
@pytest.mark.parametrize("limits", [(-128, 127), (-255, 0), (0, 255), (3, 9), (-9, -3), (-32768, 32767)])
def test_every_sum_in_reach(factor, sums, limits):
    q, exponent, is_exact = single_multiplier(factor, sums, limits)
    assert is_exact
    assert not differing(q, exponent, factor, sums, limits)


@given(
    st.one_of(st.floats(2.0**-14, 2.0**6), st.floats(2.0**-14, 2.0**6, width=32)),
    st.integers(-150_000, 150_000),
    st.integers(0, 150_000),
    st.integers(-300, 300),
    st.integers(0, 300),
)
def test_any_factor(factor, least, num_sums, lowest, num_results):
    sums, limits = (least, least + num_sums), (lowest, lowest + num_results)
    q, exponent, is_exact = single_multiplier(factor, sums, limits)
    assert not is_exact or not differing(q, exponent, factor, sums, limits)
    assert is_exact or factor > 100 or differing(q, exponent, factor, sums, limits)


@pytest.mark.parametrize(
    ("factor", "sums", "limits", "is_exact"),
    [
        (256.0, (-1, 0), (-128, 127), True),
        (256.0, (-1, 0), (-255, 0), False),
        (256.0, (0, 1), (-255, 0), True),
        # in float64 64 of them are a half, but 192 are less than 1.5
        (2**-7 * (1 - 2**-53), (0, 10_000), (-128, 127), False),
        (2**-7 * (1 - 2**-53), (100, 10_000), (-128, 127), True),
        (2**-7 * (1 - 2**-53), (0, 10_000), (1, 127), True),
        (2**-7 * (1 - 2**-53), (0, 100), (-128, 127), True),
    ],
)
def test_what_decides(factor, sums, limits, is_exact):
    *found, decided = single_multiplier(factor, sums, limits)
    assert decided == is_exact
    assert is_exact == (not differing(*found, factor, sums, limits))


WIDE_SUMS, LEFT_OUT = (-2_000_000, 2_000_000), 0.01741582602394186


def test_only_what_the_clamp_and_the_sums_let_through_decides():
    """Both hide steps at which no multiplier is right."""
    limits = -32768, 32767
    exponent, usual = -5, round(LEFT_OUT * 2**36)
    assert not single_multiplier(LEFT_OUT, WIDE_SUMS, limits)[2]
    assert all(differing(usual + n, exponent, LEFT_OUT, WIDE_SUMS, limits) for n in (-1, 0, 1))
    for sums, shown in ((WIDE_SUMS, (-128, 127)), ((-5000, 5000), limits)):
        q, exponent, is_exact = single_multiplier(LEFT_OUT, sums, shown)
        assert is_exact
        assert not differing(q, exponent, LEFT_OUT, sums, shown)


def test_channels_are_decided_one_by_one():
    factors = np.array([2**-16, 300.0, 0.0, 0.017, LEFT_OUT])
    sums = np.array([(-5, 5)] * 4 + [WIDE_SUMS])
    q, exponent, is_exact = single_multipliers(factors, sums, (-32768, 32767))
    np.testing.assert_array_equal(is_exact, [True, False, True, True, False])
    for n in np.flatnonzero(is_exact):
        assert not differing(q[n], exponent[n], factors[n], tuple(sums[n]), (-32768, 32767))


def test_a_layer_with_too_many_inexact_channels_is_given_up_early():
    """Of 1,000 channels of int16 nearly all are inexact: the first steps tell."""
    factors = np.random.default_rng(0).uniform(2**-10, 2**-9, 1000)
    sums = np.tile([-(1 << 26), 1 << 26], (1000, 1))
    found = [single_multipliers(factors, sums, (-32768, 32767), limit)[2] for limit in (None, 500)]
    assert found[0].sum() <= found[1].sum() < 500
    assert not (found[0] & ~found[1]).any()


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
