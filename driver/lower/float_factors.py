"""Requantisation as onnxruntime does it, y = rint(float32(sum) * float32(factor)), on the NPU's multiplier."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from convoy.driver.graph.graph import Tensor
from convoy.spec.isa import Rounding

from .quantise import MAX_SHIFT_LEFT, MAX_SHIFT_RIGHT, quantise_multiplier

__all__ = ["FLOAT_ROUNDING", "float_factors", "requantised", "rounded"]

FLOAT_ROUNDING = Rounding.SINGLE
"""How the NPU rounds the outputs of an ONNX network's convolutions."""
_NEIGHBOURS = 32
"""Multipliers below and above the usual one that are tried."""


def rounded(sums: np.ndarray, factor: np.float32) -> np.ndarray:
    """onnxruntime's outputs before the zero point, int64, for int64 sums."""
    return np.rint(sums.astype(np.float32) * np.float32(factor)).astype(np.int64)


def float_factors(
    factors: np.ndarray, sums: np.ndarray, low: int, high: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Q31 multipliers and exponents per channel, and how many sums of a channel give another output than
    onnxruntime's: int64 (OC,) each.

    Parameters
    ----------
    factors : float32 (OC,)
    sums : int64 (OC, 2), least and greatest sum of each channel
    low, high : outputs before the zero point are clamped to these
    """
    found = [_factor(factor, tuple(bounds), low, high) for factor, bounds in zip(factors, sums.tolist(), strict=True)]
    mult, exponent, num_doubts = (np.array(column, np.int64) for column in zip(*found, strict=True))
    return mult, exponent, num_doubts


def requantised(
    source: Tensor, weights: Tensor, target: Tensor, sums: np.ndarray, *, is_float: bool = False
) -> tuple[np.ndarray, np.ndarray, int]:
    """Multipliers and exponents of a convolution's channels, int64 (OC,), and the number of sums in doubt.

    Parameters
    ----------
    sums : int64 (OC, 2), least and greatest sum of each channel
    is_float : onnxruntime adds in float32, so that a sum next to any step may be in doubt
    """
    scales = np.broadcast_to(weights.quantisation.scale, (len(sums),))
    factors = source.quantisation.scale[0] * scales / target.quantisation.scale[0]
    zero_point, info = int(target.quantisation.zero_point[0]), np.iinfo(target.dtype)
    mult, exponent, doubts = float_factors(factors, sums, info.min - zero_point, info.max - zero_point)
    num_steps = len(sums) * (info.max - info.min) if is_float else 0
    return mult, exponent, max(int(doubts.sum()), num_steps)


def _factor(factor: np.float32, sums: tuple[int, int], low: int, high: int) -> tuple[int, int, int]:
    q, exponent = quantise_multiplier(float(factor))
    levels = np.arange(low + 1, high + 1)
    expected = _first_sums(lambda total: rounded(total, factor), levels, sums)
    if q == 0 or not -MAX_SHIFT_RIGHT <= exponent <= MAX_SHIFT_LEFT:
        q, exponent = 0, 0
    best = q, exponent, 1 << 62
    shift = 31 - exponent
    for step in sorted(range(-_NEIGHBOURS, _NEIGHBOURS + 1), key=abs):
        candidate = q + step
        if not 0 <= candidate < 1 << 31 or (q == 0 and step):
            continue

        def single(total: np.ndarray, mult: int = candidate) -> np.ndarray:
            return (total * mult + (1 << (shift - 1)) - (total * mult < 0)) >> shift

        num_doubts = int(np.abs(_first_sums(single, levels, sums) - expected).sum())
        if num_doubts < best[2]:
            best = candidate, exponent, num_doubts
        if not num_doubts:
            break
    return best


def _first_sums(function: Callable[[np.ndarray], np.ndarray], levels: np.ndarray, sums: tuple[int, int]) -> np.ndarray:
    """The least sum for which a rising function reaches each level; one more than the greatest sum if none does."""
    first, last = np.full(len(levels), sums[0], np.int64), np.full(len(levels), sums[1] + 1, np.int64)
    while (first < last).any():
        middle = (first + last) >> 1
        reaches = function(middle) >= levels
        last = np.where(reaches, middle, last)
        first = np.where(reaches, first, np.minimum(middle + 1, last))
    return first
