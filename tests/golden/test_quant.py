"""Rounding: hand-derived vectors first, then against exact rationals."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convoy.golden.quant import (
    double_rounding,
    float32_rounding,
    half_up_rounding,
    quantize_multiplier,
    reduced_rounding,
    round_half_away,
    round_half_up,
    saturate32,
    single_rounding,
    wrap32,
)
from convoy.golden.wide import split_bytes, wide_rounding
from convoy.spec.isa import FLOAT_PRODUCT_BITS, Rounding

INT32 = st.integers(-(1 << 31), (1 << 31) - 1)
MULT = st.integers(1 << 30, (1 << 31) - 1)


def half_away(value: Fraction) -> int:
    return int(math.copysign(math.floor(abs(value) + Fraction(1, 2)), value))


def test_reduced_rounding_vectors():
    """Halves go up; the multiplier is rounded to 15 bits, and saturates there; sums of more than 32 bits count in
    full.
    """
    assert reduced_rounding([5, -5, 7], 1 << 30, 0, 0).tolist() == [3, -2, 4]
    assert reduced_rounding(1 << 20, (1 << 30) + (1 << 15) - 1, 0, 0) == 1 << 19
    assert reduced_rounding(1 << 20, (1 << 30) + (1 << 15), 0, 0) == (1 << 19) + (1 << 5)
    assert reduced_rounding(1 << 15, (1 << 31) - 1, 0, 0) == 0x7FFF
    assert reduced_rounding(-(3 << 38), 1 << 30, 0, 27) == -(3 << 10)


@given(st.integers(-(1 << 40), 1 << 40), MULT, st.integers(0, 7), st.integers(0, 31))
def test_reduced_rounding_is_exact_product_rounded_half_up(acc, mult, left, right):
    mult &= ~0xFFFF
    left = 0 if right else left
    assert reduced_rounding(acc, mult, left, right) == math.floor(
        Fraction(acc * mult * 2**left, 2 ** (31 + right)) + Fraction(1, 2)
    )


@pytest.mark.parametrize(
    ("factor", "expected"),
    [
        (0.5, (1 << 30, 0, 0)),  # 0.5 * 2**0
        (0.75, (3 << 29, 0, 0)),
        (1.0, (1 << 30, 1, 0)),  # 0.5 * 2**1
        (6.0, (3 << 29, 3, 0)),  # 0.75 * 2**3
        (0.25, (1 << 30, 0, 1)),
        (2.0**-20, (1 << 30, 0, 19)),
        (1 - 2.0**-40, (1 << 30, 1, 0)),  # q would be 2**31: halved, exponent up
        (2.0**-32, (1 << 30, 0, 31)),
        (2.0**-33, (0, 0, 0)),
        (0.0, (0, 0, 0)),
    ],
)
def test_quantize_multiplier(factor, expected):
    assert quantize_multiplier(factor) == expected


@pytest.mark.parametrize("factor", [-1.0, math.inf, math.nan, 2.0**31])
def test_quantize_multiplier_refuses(factor):
    with pytest.raises(ValueError, match="cannot be quantised"):
        quantize_multiplier(factor)


@pytest.mark.parametrize(
    ("acc", "mult", "left", "right", "double", "single"),
    [
        # acc * 1/2 * 2**-R: no rounding, ties, and a tie that only D makes
        (6, 1 << 30, 0, 0, 3, 3),
        (5, 1 << 30, 0, 0, 3, 3),  # 2.5
        (-5, 1 << 30, 0, 0, -2, -3),  # -2.5: the high product of D rounds half up, SA away from zero
        (5, 1 << 30, 0, 1, 2, 1),  # 1.25: D rounds 2.5 to 3, then 1.5 to 2
        (6, 1 << 30, 0, 1, 2, 2),  # 1.5
        (-6, 1 << 30, 0, 1, -2, -2),  # -1.5: the shift of D rounds half away from zero
        (-4, 1 << 30, 0, 2, -1, -1),  # -0.5
        (3, 1 << 30, 2, 0, 6, 6),  # 3 * 4 / 2
        (
            1 << 30,
            1 << 30,
            1,
            0,
            -(1 << 30),
            (1 << 30),
        ),  # the shift wraps in D (-2**31 / 2), saturates in SA ((2**31 - 1) / 2 = 2**30 - 0.5)
        (100, 0, 0, 0, 0, 0),
    ],
)
def test_rounding_vectors(acc, mult, left, right, double, single):
    assert double_rounding(acc, mult, left, right) == double
    assert single_rounding(acc, mult, left, right) == single


@given(INT32, MULT, st.integers(0, 31))
def test_single_rounding_is_exact_product_rounded_once(acc, mult, right):
    assert single_rounding(acc, mult, 0, right) == half_away(Fraction(acc * mult, 1 << (31 + right)))


@given(INT32, MULT, st.integers(0, 31))
def test_double_rounding_is_two_roundings(acc, mult, right):
    high = math.floor(Fraction(acc * mult, 1 << 31) + Fraction(1, 2))
    expected = half_away(Fraction(high, 1 << right)) if right else high
    assert double_rounding(acc, mult, 0, right) == expected


@given(INT32, MULT, st.integers(0, 7))
def test_left_shift_wraps_or_saturates(acc, mult, left):
    assert double_rounding(acc, mult, left, 0) == double_rounding(wrap32(acc << left), mult, 0, 0)
    assert single_rounding(acc, mult, left, 0) == single_rounding(saturate32(acc << left), mult, 0, 0)


@given(st.floats(2.0**-30, 2.0**20))
def test_quantize_multiplier_is_within_half_a_unit(factor):
    q, left, right = quantize_multiplier(factor)
    assert 1 << 30 <= q < 1 << 31
    assert min(left, right) == 0
    assert abs(Fraction(q) - Fraction(factor) * Fraction(2) ** (31 + right - left)) <= Fraction(1, 2)


@given(st.integers(-(10**9), 10**9), st.integers(1, 10**4))
def test_round_half_away(total, count):
    assert round_half_away(total, count) == half_away(Fraction(total, count))


@given(st.integers(-(10**9), 10**9), st.integers(1, 10**4))
def test_round_half_up(total, count):
    assert round_half_up(total, count) == math.floor(Fraction(total, count) + Fraction(1, 2))


@given(st.integers(-(1 << 40), 1 << 40))
def test_wrap32(value):
    assert wrap32(value) == np.int64(value).astype(np.int32)


@given(INT32, st.integers(0, (1 << 31) - 1), st.integers(0, 31))
def test_half_up_rounding_is_exact_product_rounded_half_up(acc, mult, right):
    assert half_up_rounding(acc, mult, 0, right) == math.floor(Fraction(acc * mult, 2 ** (31 + right)) + Fraction(1, 2))


@pytest.mark.parametrize(
    ("acc", "mult", "right", "expected"),
    [
        (5, 1 << 30, 0, 2),  # 2.5
        (-7, 1 << 30, 0, -4),  # -3.5
        (3, 1 << 30, 1, 1),  # 0.75
        (5, 11744051 << 7, 0, 4),  # 3.5 - 2**-24, which float32 does not hold
        (-5, 11744051 << 7, 0, -4),
        (5, 15099495 << 7, 0, 4),  # 4.5 + 3 * 2**-24
        (5, 15099496 << 7, 0, 5),  # 4.5 + 8 * 2**-24, which it holds
    ],
)
def test_float32_rounding_vectors(acc, mult, right, expected):
    assert float32_rounding(acc, mult, 0, right) == expected


@given(
    st.integers(-(1 << 24), 1 << 24),
    st.integers(1 << 23, (1 << 24) - 1),
    st.integers(-20, 0),
    st.integers(0, 300),
    st.integers(-2, 2),
)
def test_float32_rounding_is_that_of_numpy(acc, mult, exponent, value, nudge):
    """Also where the product is next to a tie, so that float32 makes it one."""
    near = round((value + 0.5) * 2.0 ** (24 - exponent) / max(abs(acc), 1)) + nudge
    for significand in (mult, min(max(near, 1 << 23), (1 << 24) - 1)):
        up = max(exponent + 7, 0)
        found = float32_rounding(acc, significand << up, 0, max(-exponent - 7, 0))
        product = np.float32(acc) * np.float32(significand * 2.0 ** (exponent - 24))
        if abs(acc) * significand << up < 1 << (FLOAT_PRODUCT_BITS - 1):
            assert found == np.rint(product)
        else:
            assert found == math.copysign(1 << 31, acc) - (acc > 0)


def test_bytes_of_int16():
    low, high = split_bytes(np.array([-1, -1, 0x34, 0x12], np.int8))
    assert (low.tolist(), high.tolist()) == ([255, 0x34], [-1, 0x12])


@pytest.mark.parametrize(
    ("rounding", "narrow"),
    [(Rounding.DOUBLE, double_rounding), (Rounding.SINGLE, single_rounding), (Rounding.HALF_UP, half_up_rounding)],
)
@given(
    st.integers(0, (1 << 30) - 1),
    st.integers(-(1 << 22), (1 << 22) - 1),
    st.integers(0, (1 << 31) - 1),
    st.integers(0, 31),
)
def test_halves_of_32_bits_are_rounded_as_their_sum(rounding, narrow, low, high, mult, right):
    assert wide_rounding(rounding, low, high, mult, 0, right) == narrow(low + 256 * high, mult, 0, right)


@given(INT32, INT32, MULT, st.integers(0, 7), st.integers(0, 31))
def test_halves_of_40_bits(low, high, mult, left, right):
    """Each is saturated by itself; the product has up to 71 bits."""
    acc = int(saturate32(low << left)) + 256 * int(saturate32(high << left))
    exact = Fraction(acc * mult, 2 ** (31 + right))
    assert wide_rounding(Rounding.HALF_UP, low, high, mult, left, right) == math.floor(exact + Fraction(1, 2))
    assert wide_rounding(Rounding.SINGLE, low, high, mult, left, right) == half_away(exact)
