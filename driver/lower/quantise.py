"""Requantisation constants as TFLite derives them from scales (docs/quantisation.md)."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from convoy.driver.graph.graph import Quant
from convoy.spec.isa import PARAM

__all__ = [
    "MAX_SHIFT_LEFT",
    "activation_range",
    "add_multipliers",
    "mean_multiplier",
    "power_multipliers",
    "quantise_multiplier",
    "reduced_multiplier",
    "single_multiplier",
]


MAX_SHIFT_LEFT, MAX_SHIFT_RIGHT = PARAM.fields["shift_left"].max, PARAM.fields["shift_right"].max
"""Before and after the multiplication."""


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
