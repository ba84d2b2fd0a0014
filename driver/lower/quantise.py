"""Requantisation constants as TFLite and onnxruntime derive them from scales (docs/quantisation.md)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import lru_cache, partial

import numpy as np

from convoy.driver.graph.graph import Quant
from convoy.spec.isa import ADD_SHIFT, FLOAT_PRODUCT_BITS, PARAM

__all__ = [
    "MAX_SHIFT_LEFT",
    "activation_range",
    "add_multipliers",
    "float_add_multipliers",
    "float_differences",
    "float_multipliers",
    "mean_multiplier",
    "power_multipliers",
    "quantise_multiplier",
    "reduced_multiplier",
    "single_multiplier",
]


MAX_SHIFT_LEFT, MAX_SHIFT_RIGHT = PARAM.fields["shift_left"].max, PARAM.fields["shift_right"].max
"""Before and after the multiplication."""
SIGNIFICAND_BITS = 24
"""Of float32, the leading one included."""


def quantise_multiplier(real: float) -> tuple[int, int]:
    """`(q, e)` with `real` about `q * 2**(e - 31)`, `2**30 <= q < 2**31`; `(0, 0)` when `real` is zero or below
    `2**-32`.
    """
    fraction, exponent = math.frexp(real)
    q = math.floor(fraction * (1 << 31) + 0.5)
    if q == 1 << 31:
        q, exponent = q // 2, exponent + 1
    return (0, 0) if q == 0 or exponent < -31 else (q, exponent)


def reduced_multiplier(real: float) -> tuple[int, int]:
    """`quantise_multiplier` with q rounded to 15 bits, and kept below 2**31, as TFLite does for 16-bit convolutions."""
    q, exponent = quantise_multiplier(real)
    return ((q + (1 << 15)) >> 16 if q < 0x7FFF0000 else 0x7FFF) << 16, exponent


@lru_cache(maxsize=4096)
def single_multiplier(
    real: float, out_bits: int = 8, sums: tuple[int, int] = (-(1 << 31), (1 << 31) - 1)
) -> tuple[int, int] | None:
    """`(q, e)` such that single rounding by them equals `acc * real` in float64 rounded half away from zero, for
    every sum from `sums[0]` to `sums[1]`.

    Both are steps that rise with the sum, so they are equal when they are at the sums next to every step inside the
    output's range of `2**out_bits` (with any zero point: twice as many) values; beyond it both are clamped alike.
    Neighbours of the usual q are tried too. None when there is no such pair.
    """
    q, exponent = quantise_multiplier(real)
    if max(abs(bound) for bound in sums) * real < 0.5:
        return 0, 0
    if q == 0 or not -MAX_SHIFT_RIGHT <= exponent <= MAX_SHIFT_LEFT:
        return None
    steps = (np.arange(-2 << out_bits, 2 << out_bits) + 0.5) / real
    near = np.clip(np.floor(steps)[:, None] + np.arange(-1, 3), *sums)
    product = near * real
    expected = np.trunc(product + np.copysign(0.5, product)).astype(np.int64)
    shift = 31 - exponent
    for candidate in (q, q + 1, q - 1):
        exact = near.astype(np.int64) * candidate
        if candidate < 1 << 31 and np.array_equal((exact + (1 << (shift - 1)) - (exact < 0)) >> shift, expected):
            return candidate, exponent
    return None


def float_multipliers(factors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`(q, e)` of factors, float32 (OC,), finite and not negative, for `Rounding.FLOAT`: int64 arrays (OC,).

    onnxruntime's factors are `(scale_in * scale_w) / scale_out` computed in float32, in this order.

    `q * 2**(e - 31)` is the factor, exactly, with the smallest q that has no left shift, so that products are short.
    `(0, 0)` for those too small for `MAX_SHIFT_RIGHT`: every 32-bit sum becomes 0. e may exceed `MAX_SHIFT_LEFT`, which
    PARAM does not hold.
    """
    fraction, exponent = np.frexp(factors.astype(np.float64))
    spare_bits = 31 - SIGNIFICAND_BITS
    shift = exponent.astype(np.int64) + spare_bits
    up = np.clip(shift, 0, spare_bits)
    mult = np.ldexp(fraction, SIGNIFICAND_BITS).astype(np.int64) << up
    is_zero = (mult == 0) | (shift < -MAX_SHIFT_RIGHT)
    return np.where(is_zero, 0, mult), np.where(is_zero, 0, shift - up)


def float_differences(factors: np.ndarray, sums: np.ndarray, limits: tuple[int, int]) -> np.ndarray:
    """Of how many sums does `Rounding.FLOAT` by `float_multipliers` give something else than
    `rint(float32(sum) * factor)`, as onnxruntime and XNNPACK compute it?

    None of up to 24 bits with a product that fits, by construction; others may, unless both are clamped there. Both
    rise with the sum, so that it is enough to find, for each value within the limits, the first sum that reaches it.

    Parameters
    ----------
    factors : as for `float_multipliers`
    sums : least and greatest sum of each channel, bias included, int64 (OC, 2), within 32 bits
    limits : the clamp, less the zero point

    Returns
    -------
    int64 array (OC,)
    """
    mult, exponent = float_multipliers(factors)
    left, right = np.maximum(exponent, 0), np.maximum(-exponent, 0)
    longest = (1 << (FLOAT_PRODUCT_BITS - 1)) - 1
    sure = np.minimum(1 << SIGNIFICAND_BITS, longest // np.maximum(mult << left, 1))

    def by_float32(total: np.ndarray, channels: np.ndarray) -> np.ndarray:
        return np.clip(np.rint(total.astype(np.float32) * factors[channels, None]), *limits)

    def by_npu(total: np.ndarray, channels: np.ndarray) -> np.ndarray:
        product = np.clip(total << left[channels, None], -(1 << 31), (1 << 31) - 1) * mult[channels, None]
        scaled = np.ldexp(product.astype(np.float64), -31 - right[channels, None]).astype(np.float32)
        is_long = (product < ~longest) | (product > longest)
        return np.clip(np.where(is_long, np.copysign(np.inf, product), np.rint(scaled)), *limits)

    every = np.arange(len(factors))
    ends = by_float32(np.stack([-sure, sure], axis=1), every)
    is_sure = [(-sure <= sums[:, 0]) | (ends[:, 0] == limits[0]), (sums[:, 1] <= sure) | (ends[:, 1] == limits[1])]
    differences = np.zeros(len(factors), np.int64)
    unsure = every[~np.logical_and(*is_sure)]
    values = np.arange(limits[0] + 1, limits[1] + 1)
    firsts = [_first_sums(partial(rounded, channels=unsure), values, sums[unsure]) for rounded in (by_float32, by_npu)]
    lower, upper = np.minimum(*firsts), np.maximum(*firsts)
    counted = np.concatenate([lower[:, :1], upper[:, :-1]], axis=1)  # what differs by several is one sum
    differences[unsure] = np.maximum(upper - np.maximum(lower, counted), 0).sum(axis=1)
    return differences


def _first_sums(rising: Callable[[np.ndarray], np.ndarray], values: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """For each row of `sums` and each of `values` the first sum of which `rising` is at least the value; the one
    behind the greatest if there is none.
    """
    low, high = (np.repeat(bound[:, None], len(values), axis=1) for bound in (sums[:, 0], sums[:, 1] + 1))
    while (low < high).any():
        middle = (low + high) >> 1
        is_reached = rising(middle) >= values
        low, high = np.where(is_reached | (low == high), low, middle + 1), np.where(is_reached, middle, high)
    return low


def mean_multiplier(real: float, count: int) -> tuple[int, int]:
    """`(q, e)` by which TFLite's int8 MEAN rescales the sum of `count` values: q of the ratio of scales, divided by
    `count` and rounded down.
    """
    q, exponent = quantise_multiplier(real)
    shift = min(count.bit_length() - 1, 31 + exponent)
    return (q << shift) // count, exponent - shift


def add_multipliers(scale_a: float, scale_b: float, scale_out: float, shift: int) -> tuple[tuple[int, int], ...]:
    """`quantise_multiplier` of the factors that TFLite's ADD applies to A, to B and to their sum (inputs shifted
    left by `shift`).
    """
    twice_max = 2.0 * max(float(scale_a), float(scale_b))
    factors = float(scale_a) / twice_max, float(scale_b) / twice_max, twice_max / ((1 << shift) * float(scale_out))
    return tuple(quantise_multiplier(factor) for factor in factors)


def float_add_multipliers(
    quants: tuple[tuple[float, int], tuple[float, int], tuple[float, int]], dtype: np.dtype
) -> tuple[tuple[tuple[int, int], ...], int]:
    """Multipliers by which the NPU's ADD of 8 bits computes onnxruntime's QLinearAdd, and of how many of the 65,536
    pairs of operands it does not.

    onnxruntime adds the operands times `scale / scale_out` in float32 to the zero points, which are put together
    before, and rounds ties to even. What differs from `add_multipliers` is a few pairs next to a tie, and such pairs
    alone are tried with multipliers next to those: of A, of B or of the sum. Where scales are powers of two many pairs
    *are* ties, and no multiplier helps.

    Parameters
    ----------
    quants : scale (float32) and zero point of A, of B and of the sum
    dtype : int8 or uint8

    Returns
    -------
    (q, e) of A, of B and of their sum as from `add_multipliers`; number of pairs that differ, all of them where a
    factor is 1 or more, which ADD does not take.
    """
    (scale_a, zero_a), (scale_b, zero_b), (scale_out, zero_out) = quants
    usual = add_multipliers(scale_a, scale_b, scale_out, ADD_SHIFT)
    info = np.iinfo(dtype)
    values = np.arange(info.min, info.max + 1)
    a, b = (grid.ravel() for grid in np.meshgrid(values, values))

    def added(multipliers: tuple[tuple[int, int], ...], a: np.ndarray, b: np.ndarray) -> np.ndarray:
        of_a, of_b, of_sum = multipliers
        total = _doubly_rounded((a - zero_a) << ADD_SHIFT, of_a) + _doubly_rounded((b - zero_b) << ADD_SHIFT, of_b)
        return np.clip(_doubly_rounded(total, of_sum) + zero_out, info.min, info.max)

    if max(exponent for _, exponent in usual) > 0:
        return usual, len(a)
    exact = _added_in_float32(quants, a, b)
    expected, is_near = np.clip(np.rint(exact), info.min, info.max), np.abs(exact - np.floor(exact) - 0.5) < 2**-10
    best, fewest = usual, len(a)
    for candidate in _next_to(usual):
        if (found := int((added(candidate, a[is_near], b[is_near]) != expected[is_near]).sum())) < fewest:
            best, fewest = candidate, found
        if not fewest:
            break
    return best, int((added(best, a, b) != expected).sum())


def _next_to(multipliers: tuple[tuple[int, int], ...]) -> Iterator[tuple[tuple[int, int], ...]]:
    """The multipliers, then with one of them changed by a power of two, the smallest changes first."""
    yield multipliers
    for step in (sign << bit for bit in range(2, 14) for sign in (1, -1)):
        for index in (2, 0, 1):
            q, exponent = multipliers[index]
            if 0 < q + step < 1 << 31:
                yield (*multipliers[:index], (q + step, exponent), *multipliers[index + 1 :])


def _added_in_float32(quants: tuple[tuple[float, int], ...], a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """QLinearAdd of onnxruntime before it is rounded, float32; as it is vectorised, with fused multiplications and
    additions.
    """

    def fused(x: np.ndarray, factor: np.float32, addend: np.ndarray) -> np.ndarray:
        return (x * np.float64(factor) + addend).astype(np.float32)

    ratio_a, ratio_b = (np.float32(scale) / np.float32(quants[2][0]) for scale, _ in quants[:2])
    zero_a, zero_b, zero_out = (np.float32(zero_point) for _, zero_point in quants)
    fixed = zero_out - fused(np.asarray(zero_a), ratio_a, np.asarray(ratio_b * zero_b))
    return fused(b, ratio_b, fused(a, ratio_a, fixed))


def _doubly_rounded(x: np.ndarray, multiplier: tuple[int, int]) -> np.ndarray:
    """By the high product, rounded, and a right shift, rounded half away from zero, as ADD scales; `x` of 32 bits."""
    q, exponent = multiplier
    high, half = (x * q + (1 << 30)) >> 31, (1 << -exponent) >> 1
    return (high + half - ((high < 0) & (exponent < 0))) >> -exponent


def power_multipliers(scale_a: float, scale_b: float, scale_out: float) -> tuple[tuple[int, int], ...] | None:
    """`(q, e)` of A, of B and of their sum for TFLite's int16 ADD of scales that are powers of two.

    Scales are powers of two for LiteRT when their logarithm is within 1e-3 of an integer, and so they are here.

    One operand is divided by a power of two, rounded half away from zero, the other one and the sum are as they are.
    None for other scales. Elements that are shifted left by `ADD_SHIFT_WIDE` and multiplied by a half are 2**14 times
    as large, exactly; 1 - 2**-31 leaves sums of this size as they are.
    """
    logs = [math.log2(float(scale)) for scale in (scale_a, scale_b, scale_out)]
    shifts = [round(logs[2] - log) for log in logs[:2]]
    if any(abs(log - round(log)) > 1e-3 for log in logs) or min(shifts) != 0 or max(shifts) > 16:
        return None
    half, one = 1 << 30, (1 << 31) - 1
    return (half, -14 - shifts[0]), (half, -14 - shifts[1]), (one, 0)


def activation_range(activation: str, quant: Quant, dtype: np.dtype) -> tuple[int, int]:
    """Lowest and highest quantised output under a fused activation (`NONE`, `RELU`, `RELU6`, `RELU_N1_TO_1`).

    Raises
    ------
    KeyError
        For any other activation.
    """
    info = np.iinfo(dtype)
    real_min, real_max = {"NONE": (None, None), "RELU": (0.0, None), "RELU6": (0.0, 6.0), "RELU_N1_TO_1": (-1.0, 1.0)}[
        activation
    ]

    def quantised(real: float) -> int:
        with np.errstate(over="ignore"):
            ratio = max(-1e9, min(float(np.float32(real) / np.float32(quant.scale[0])), 1e9))
        return int(quant.zero_point[0]) + int(math.copysign(math.floor(abs(ratio) + 0.5), ratio))

    low = int(info.min) if real_min is None else max(int(info.min), quantised(real_min))
    high = int(info.max) if real_max is None else min(int(info.max), quantised(real_max))
    return low, high
