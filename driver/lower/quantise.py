"""Requantisation constants as TFLite and onnxruntime derive them from scales (docs/quantisation.md)."""

from __future__ import annotations

import math

import numpy as np

from convoy.driver.graph.graph import Quant
from convoy.spec.isa import FLOAT_PRODUCT_BITS, PARAM

__all__ = [
    "MAX_SHIFT_LEFT",
    "activation_range",
    "add_multipliers",
    "float_differences",
    "float_multipliers",
    "mean_multiplier",
    "power_multipliers",
    "quantise_multiplier",
    "reduced_multiplier",
    "single_multipliers",
]


MAX_SHIFT_LEFT, MAX_SHIFT_RIGHT = PARAM.fields["shift_left"].max, PARAM.fields["shift_right"].max
"""Before and after the multiplication."""
SIGNIFICAND_BITS = 24
"""Of float32, the leading one included."""
_MAX_MULTIPLIER = PARAM.fields["mult"].max
_FLOAT64_BITS = 53
"""Of its significand."""
_STEPS_AT_ONCE = 256
"""As many as results of 8 bits have on one side, so that those take one turn."""


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


def single_multipliers(
    factors: np.ndarray, sums: np.ndarray, limits: tuple[int, int], most_inexact: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Multipliers by which single rounding equals `sum * factor` in float64 rounded half away from zero, clamped, for
    every sum of a channel, where there are such.

    Both are steps that rise with the sum and are odd. They are equal when each of them that the clamp does not hide is
    at the same sum; so each step says how large and how small q may be, and what all of them leave is an interval.

    Parameters
    ----------
    factors : float64 (OC,), finite and not negative
    sums : least and greatest sum of each channel, int64 (OC, 2), within 32 bits
    limits : the clamp, less the zero point
    most_inexact : the search may stop when more channels than this have none; None: every channel is decided

    Returns
    -------
    q, e : int64 (OC,), as from `quantise_multiplier`, which is taken if it may be; e is at most `MAX_SHIFT_LEFT`
    is_exact : bool (OC,)
    """
    exponent = np.clip(np.frexp(factors)[1], -MAX_SHIFT_RIGHT, MAX_SHIFT_LEFT).astype(np.int64)
    wanted = np.ldexp(factors, 31 - exponent)
    greatest = _MAX_MULTIPLIER + (exponent < MAX_SHIFT_LEFT)  # 2**31 is 2**30 with the next exponent
    q = np.minimum(np.floor(wanted + 0.5), greatest).astype(np.int64)
    farthest = np.abs(sums).max(axis=1)
    is_nil = farthest * factors < 0.5
    with np.errstate(divide="ignore"):
        farthest = np.minimum(farthest, (np.abs(limits).max() + 1) / factors).astype(np.int64)
    unit = np.maximum(q & -q, 1)
    longest = farthest * (q // unit) + (np.int64(1) << (30 - exponent)) // unit
    is_sure = is_nil | ((q == wanted) & (longest <= 1 << _FLOAT64_BITS))  # product and sum are exact in float64
    low, high = np.zeros(len(factors), np.int64), greatest
    sides = [(sums, limits), (-sums[:, ::-1], (-limits[1], -limits[0]))]
    for reach, (least, most) in sides:
        alive = np.flatnonzero(~is_sure & (low <= high))
        last = np.minimum(most, _rounded(np.maximum(reach[alive, 1], 0), factors[alive]))
        while len(alive) and (most_inexact is None or np.count_nonzero(low > high) <= most_inexact):
            going = (last > max(least, 0)) & (low[alive] <= high[alive])
            alive, last = alive[going], last[going]
            if not len(alive):
                break
            steps = np.maximum(last[:, None] - np.arange(_STEPS_AT_ONCE), max(least, 0) + 1)
            found = _multipliers_between(steps, factors[alive, None], exponent[alive, None], reach[alive, :, None])
            low[alive], high[alive] = np.maximum(low[alive], found[0]), np.minimum(high[alive], found[1])
            last = last - _STEPS_AT_ONCE
    is_exact = low <= high
    q = np.where(is_exact, np.clip(q, low, high), q)
    is_next = q > _MAX_MULTIPLIER
    return np.where(is_nil, 0, q >> is_next), np.where(is_nil, 0, exponent + is_next), is_exact


def _multipliers_between(
    steps: np.ndarray, factor: np.ndarray, exponent: np.ndarray, reach: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The least and the greatest q, int64 (OC,), with which the results `steps`, positive, int64 (OC, n), begin at the
    same sums as those of float64.
    """
    first = np.ceil((steps - 0.5) / factor).astype(np.int64)
    first += _rounded(first, factor) < steps
    first -= _rounded(first - 1, factor) >= steps
    (least, most), half = (np.maximum(reach[:, 0], 1), reach[:, 1]), np.int64(1) << (30 - exponent)
    reaches, stays = np.maximum(first, least), np.minimum(first - 1, most)
    is_reached, is_left = reaches <= most, stays >= least
    bound = (2 * steps - 1) * half
    low = np.where(is_reached, -(-bound // np.maximum(reaches, 1)), 0)
    high = np.where(is_left, (bound - 1) // np.maximum(stays, 1), _MAX_MULTIPLIER + 1)
    return low.max(axis=1), high.min(axis=1)


def _rounded(sums: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """In float64, half away from zero, of sums that are not negative; int64, no more than 2**32."""
    return np.minimum(np.floor(sums * factor + 0.5), 1 << 32).astype(np.int64)


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
    firsts = []
    for rounded in (by_float32, by_npu):
        low, high = (np.repeat(sums[unsure, end, None] + end, len(values), axis=1) for end in (0, 1))
        while (low < high).any():
            middle = (low + high) >> 1
            is_reached = rounded(middle, unsure) >= values
            low, high = np.where(is_reached | (low == high), low, middle + 1), np.where(is_reached, middle, high)
        firsts.append(low)
    lower, upper = np.minimum(*firsts), np.maximum(*firsts)
    counted = np.concatenate([lower[:, :1], upper[:, :-1]], axis=1)  # what differs by several is one sum
    differences[unsure] = np.maximum(upper - np.maximum(lower, counted), 0).sum(axis=1)
    return differences


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
