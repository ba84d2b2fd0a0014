"""SOFTMAX in int8 as LiteRT's reference kernel computes it: fixed point, after gemmlowp.

Values are the raw integers of 32-bit fixed-point numbers, held in int64 arrays; Qm means m integer bits and 31 - m fraction bits.
"""

from __future__ import annotations

import math

import numpy as np

from .quant import double_rounding, quantize_multiplier, saturate32

__all__ = ["softmax"]

_DIFF_BITS, _SUM_BITS = 5, 12
_ONE = (1 << 31) - 1
_EXP_OF_POWERS = (1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242)
"""exp(-2**n), n = -2 .. 4, in Q0."""


def softmax(acts: np.ndarray, input_scale: float, beta: float = 1.0) -> np.ndarray:
    """Softmax over the last axis, int8 in and out; the output has scale 1/256 and zero point -128.

    Parameters
    ----------
    acts : int8, any shape; the input's zero point does not matter
    input_scale, beta : as in the file
    """
    factor = min(float(np.float32(beta)) * float(np.float32(input_scale)) * (1 << (31 - _DIFF_BITS)), _ONE * 1.0)
    mult, shift_left, _ = quantize_multiplier(factor)
    diff_min = -math.floor(((1 << _DIFF_BITS) - 1) * (1 << (31 - _DIFF_BITS)) / (1 << shift_left))
    diff = acts.astype(np.int64) - acts.max(axis=-1, keepdims=True)
    is_live = diff >= diff_min
    exps = _exp(double_rounding(np.where(is_live, diff, 0), mult, shift_left, 0))
    total = np.where(is_live, _round_shift(exps, _SUM_BITS), 0).sum(axis=-1, keepdims=True)
    headroom = 32 - np.frexp(total.astype(np.float64))[1].astype(np.int64)
    scale = _one_over_one_plus((total << headroom) - (1 << 31))
    values = _round_shift(_mul(scale, exps), _SUM_BITS - headroom + 31 - 8) - 128
    return np.where(is_live, np.clip(values, -128, 127), -128).astype(np.int8)


def _mul(a, b):
    """Product of fixed-point numbers; integer bits add up."""
    return double_rounding(a, b, 0, 0)


def _round_shift(value, shift):
    """Shift right, rounded half away from zero; the only rule here with negative halves is that of the Taylor series."""
    half = (np.int64(1) << shift) >> 1
    return (value + half - (value < 0)) >> shift


def _exp(value):
    """exp(value) in Q0 for value <= 0 in Q5."""
    quarter = 1 << (31 - _DIFF_BITS - 2)
    rest = (value & (quarter - 1)) - quarter
    result = _exp_small(rest << _DIFF_BITS)
    remainder = rest - value
    for n, constant in enumerate(_EXP_OF_POWERS):
        result = np.where(remainder & (quarter << n), _mul(result, constant), result)
    return np.where(value == 0, _ONE, result)


def _exp_small(value):
    """exp(value) in Q0 for -1/4 <= value < 0 in Q0: the Taylor series at -1/8."""
    exp_of_eighth, third = 1895147668, 715827883
    x = value + (1 << 28)
    x2 = _mul(x, x)
    x3, x4 = _mul(x2, x), _mul(x2, x2)
    series = _round_shift(_mul(_round_shift(x4, 2) + x3, third) + x2, 1)
    return exp_of_eighth + _mul(exp_of_eighth, x + series)


def _one_over_one_plus(value):
    """1 / (1 + value) in Q0 for 0 <= value < 1 in Q0: three Newton-Raphson steps in Q2."""
    half_denominator = (value + _ONE + 1) >> 1
    x = 1515870810 + _mul(half_denominator, -1010580540)
    for _ in range(3):
        x = x + saturate32(_mul(x, (1 << 29) - _mul(half_denominator, x)) << 2)
    return saturate32(x << 1)
