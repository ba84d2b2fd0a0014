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


def rounded(sums: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """onnxruntime's outputs before the zero point, int64, for int64 sums and factors of float32."""
    return np.rint(sums.astype(np.float32) * factor).astype(np.int64)


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
    usual = [quantise_multiplier(float(factor)) for factor in factors]
    mult, exponent = (np.array(column, np.int64) for column in zip(*usual, strict=True))
    is_far = (exponent < -MAX_SHIFT_RIGHT) | (exponent > MAX_SHIFT_LEFT)
    mult, exponent = np.where(is_far, 0, mult), np.where(is_far, 0, exponent)
    levels = np.arange(low + 1, high + 1)
    expected = _first_sums(lambda total: rounded(total, factors[:, None]), levels, sums)
    best, num_doubts = mult.copy(), np.full(len(mult), 1 << 62)
    for step in sorted(range(-_NEIGHBOURS, _NEIGHBOURS + 1), key=abs):
        open_channels = np.flatnonzero(num_doubts > 0)
        candidates = (mult + step * (mult > 0))[open_channels]
        found = _first_sums(_single(candidates, exponent[open_channels]), levels, sums[open_channels])
        counts = np.abs(found - expected[open_channels]).sum(axis=1)
        is_better = (counts < num_doubts[open_channels]) & (candidates < 1 << 31)
        best[open_channels[is_better]] = candidates[is_better]
        num_doubts[open_channels[is_better]] = counts[is_better]
    return best, exponent, num_doubts


def _single(mult: np.ndarray, exponent: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The NPU's outputs for sums (OC, n)."""
    shift, factor = (31 - exponent)[:, None], mult[:, None]
    return lambda total: (total * factor + (np.int64(1) << (shift - 1)) - (total * factor < 0)) >> shift


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


def _first_sums(function: Callable[[np.ndarray], np.ndarray], levels: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """The least sum of each channel for which a rising function reaches each level, int64 (OC, levels); one more than
    the greatest sum if none does.
    """
    first, last = (np.repeat(bound[:, None], len(levels), axis=1) for bound in (sums[:, 0], sums[:, 1] + 1))
    while (first < last).any():
        middle = (first + last) >> 1
        reaches = function(middle) >= levels
        last = np.where(reaches, middle, last)
        first = np.where(reaches, first, np.minimum(middle + 1, last))
    return first
