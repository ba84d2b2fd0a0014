"""Requantisation, bit for bit: multipliers and the ways of rounding that TFLite's and onnxruntime's kernels use.

Everything works on scalars and on numpy arrays alike, in int64; `docs/quantisation.md` derives the formulas.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from convoy.spec.isa import FLOAT_PRODUCT_BITS

__all__ = [
    "double_rounding",
    "float32_rounding",
    "float64_rounding",
    "half_up_rounding",
    "quantize_multiplier",
    "reduced_rounding",
    "round_half_away",
    "round_half_up",
    "saturate32",
    "single_rounding",
    "wrap32",
]

INT32_MIN, INT32_MAX = -(1 << 31), (1 << 31) - 1


def quantize_multiplier(factor: float) -> tuple[int, int, int]:
    """A real factor as a Q31 multiplier and shifts.

    Returns
    -------
    (q, L, R)
        `factor` is about `q * 2**(L - R - 31)`; q is 0 or 2**30 .. 2**31 - 1, and L or R is 0. A factor too small for R
        <= 31 gives (0, 0, 0), as in TFLite.

    Raises
    ------
    ValueError
        When the factor is negative, not finite, or 2**30 and more.
    """
    if not (math.isfinite(factor) and factor >= 0):
        raise ValueError(f"factor = {factor!r} cannot be quantised: use a finite number >= 0")
    fraction, exponent = math.frexp(factor)
    q = math.floor(fraction * (1 << 31) + 0.5)
    if q == 1 << 31:
        q, exponent = q // 2, exponent + 1
    if exponent > 30:
        raise ValueError(f"factor = {factor!r} cannot be quantised: use less than 2**30")
    if exponent < -31:
        return 0, 0, 0
    return q, max(exponent, 0), max(-exponent, 0)


def wrap32(value: ArrayLike) -> np.ndarray:
    """int64 array or integer -> int64 array of the same shape, reduced to two's complement of 32 bits."""
    return (np.asarray(value, np.int64) & 0xFFFFFFFF ^ 0x80000000) - 0x80000000


def saturate32(value: ArrayLike) -> np.ndarray:
    """int64 array or integer -> int64 array of the same shape, clamped to 32 bits."""
    return np.clip(np.asarray(value, np.int64), INT32_MIN, INT32_MAX)


def round_half_away(total: ArrayLike, count: ArrayLike) -> np.ndarray:
    """`total / count` rounded to the nearest integer, halves away from zero; int64 arrays, `count` > 0."""
    total, count = np.asarray(total, np.int64), np.asarray(count, np.int64)
    return np.sign(total) * ((np.abs(total) + count // 2) // count)


def round_half_up(total: ArrayLike, count: ArrayLike) -> np.ndarray:
    """`total / count` rounded to the nearest integer, halves up; int64 arrays, `count` > 0."""
    total, count = np.asarray(total, np.int64), np.asarray(count, np.int64)
    return (2 * total + count) // (2 * count)


def double_rounding(acc: ArrayLike, mult: ArrayLike, shift_left: ArrayLike, shift_right: ArrayLike) -> np.ndarray:
    """D: the rounding doubling high product, then a rounding shift right.

    Parameters
    ----------
    acc : int32 values; shifted left with wrap-around first
    mult : multiplier q, 0 .. 2**31 - 1
    shift_left, shift_right : L and R, 0 .. 31

    Returns
    -------
    int64 array, broadcast over the arguments
    """
    mult, shift_left, shift_right = (np.asarray(value, np.int64) for value in (mult, shift_left, shift_right))
    high = (wrap32(np.asarray(acc, np.int64) << shift_left) * mult + (1 << 30)) >> 31
    half = (np.int64(1) << shift_right) >> 1
    return (high + half - ((high < 0) & (shift_right > 0))) >> shift_right


def single_rounding(acc: ArrayLike, mult: ArrayLike, shift_left: ArrayLike, shift_right: ArrayLike) -> np.ndarray:
    """SA: the exact product, rounded once, halves away from zero.

    Arguments and result as `double_rounding`, but the shift to the left saturates.
    """
    mult, shift_left, shift_right = (np.asarray(value, np.int64) for value in (mult, shift_left, shift_right))
    product = saturate32(np.asarray(acc, np.int64) << shift_left) * mult
    return (product + (np.int64(1) << (30 + shift_right)) - (product < 0)) >> (31 + shift_right)


def half_up_rounding(acc: ArrayLike, mult: ArrayLike, shift_left: ArrayLike, shift_right: ArrayLike) -> np.ndarray:
    """The exact product, rounded once, halves up. Arguments and result as `single_rounding`."""
    mult, shift_left, shift_right = (np.asarray(value, np.int64) for value in (mult, shift_left, shift_right))
    product = saturate32(np.asarray(acc, np.int64) << shift_left) * mult
    return (product + (np.int64(1) << (30 + shift_right))) >> (31 + shift_right)


def reduced_rounding(acc: ArrayLike, mult: ArrayLike, shift_left: ArrayLike, shift_right: ArrayLike) -> np.ndarray:
    """S16: the multiplier rounded to 15 bits first, the exact product then rounded once, half up.

    Arguments and result as `double_rounding`, but `acc` may have up to 48 bits and L is at most 14.
    """
    acc, mult, shift_left, shift_right = (np.asarray(value, np.int64) for value in (acc, mult, shift_left, shift_right))
    reduced = np.where(mult < 0x7FFF0000, (mult + (1 << 15)) >> 16, 0x7FFF)
    shift = 15 - shift_left + shift_right
    return (acc * reduced + (np.int64(1) << (shift - 1))) >> shift


def float32_rounding(acc: ArrayLike, mult: ArrayLike, shift_left: ArrayLike, shift_right: ArrayLike) -> np.ndarray:
    """F: the product as float32, rounded to an integer; halves go to even both times.

    Arguments and result as `single_rounding`. A product of more than `FLOAT_PRODUCT_BITS` bits, sign included, gives
    the int32 farthest on its side.
    """
    mult, shift_left, shift_right = (np.asarray(value, np.int64) for value in (mult, shift_left, shift_right))
    product = saturate32(np.asarray(acc, np.int64) << shift_left) * mult
    limit = 1 << (FLOAT_PRODUCT_BITS - 1)
    scaled = np.ldexp(np.clip(product, -limit, limit - 1).astype(np.float64), -31 - shift_right)
    rounded = np.rint(scaled.astype(np.float32)).astype(np.int64)
    return np.select([product < -limit, product >= limit], [INT32_MIN, INT32_MAX], rounded)


def float64_rounding(acc: ArrayLike, factor: ArrayLike) -> np.ndarray:
    """R64: `acc * factor` in float64, rounded half away from zero; int64 array, broadcast over the arguments."""
    product = np.asarray(acc, np.float64) * np.asarray(factor, np.float64)
    return np.trunc(product + np.copysign(0.5, product)).astype(np.int64)
