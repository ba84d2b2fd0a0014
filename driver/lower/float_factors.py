"""Requantisation as onnxruntime does it, y = rint(float32(sum) * float32(factor)), on the NPU's multiplier."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from convoy.driver.graph.graph import Tensor
from convoy.spec.isa import FLOAT_PRODUCT_BITS, Rounding

from .operands import require
from .quantise import MAX_SHIFT_LEFT, MAX_SHIFT_RIGHT

__all__ = ["FLOAT_ROUNDING", "float_factors", "requantised", "rounded"]

FLOAT_ROUNDING = Rounding.FLOAT
"""How the NPU rounds the outputs of an ONNX network's convolutions."""
_MANTISSA_BITS = 24
"""Of float32."""


def rounded(sums: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """onnxruntime's outputs before the zero point, int64, for int64 sums and factors of float32."""
    return np.rint(sums.astype(np.float32) * factor).astype(np.int64)


def float_factors(
    factors: np.ndarray, sums: np.ndarray, low: int, high: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Multipliers and exponents per channel for `Rounding.FLOAT`, and how many sums of a channel give another output
    than onnxruntime's: int64 (OC,) each.

    The multiplier is the factor's mantissa, so that results differ only for sums that float32 does not hold.

    Parameters
    ----------
    factors : float32 (OC,)
    sums : int64 (OC, 2), least and greatest sum of each channel
    low, high : outputs before the zero point are clamped to these

    Raises
    ------
    GraphError
        When a factor is too large for the NPU's shift to the left.
    """
    fractions, exponent = np.frexp(factors.astype(np.float64))
    mult = (fractions * (1 << _MANTISSA_BITS)).astype(np.int64)
    exponent = exponent.astype(np.int64) + 31 - _MANTISSA_BITS
    spare = np.clip(exponent - MAX_SHIFT_LEFT, 0, 31 - _MANTISSA_BITS)
    mult, exponent = mult << spare, exponent - spare
    is_zero = (factors == 0) | (exponent < -MAX_SHIFT_RIGHT)
    mult, exponent = np.where(is_zero, 0, mult), np.where(is_zero, 0, exponent)
    require(
        exponent.max() <= MAX_SHIFT_LEFT,
        f"requantisation needs a left shift of {exponent.max()}; the limit is {MAX_SHIFT_LEFT}",
    )
    num_doubts = np.zeros(len(mult), np.int64)
    reach = np.minimum(
        np.abs(sums).max(axis=1), 2 * (high - low) / np.maximum(factors.astype(np.float64), np.finfo(np.float32).tiny)
    )
    if (unsure := np.flatnonzero(is_zero | (reach > 1 << _MANTISSA_BITS))).size:
        levels = np.arange(low + 1, high + 1)
        expected = _first_sums(lambda total: rounded(total, factors[unsure, None]), levels, sums[unsure])
        found = _first_sums(_float(mult[unsure, None], exponent[unsure, None]), levels, sums[unsure])
        num_doubts[unsure] = np.abs(found - expected).sum(axis=1)
    return mult, exponent, num_doubts


def _float(mult: np.ndarray, exponent: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The NPU's outputs for sums (OC, n)."""
    limit = 1 << (FLOAT_PRODUCT_BITS - 1)

    def apply(total: np.ndarray) -> np.ndarray:
        product = (total << np.maximum(exponent, 0)) * mult
        scaled = np.ldexp(product.astype(np.float64), np.minimum(exponent, 0) - 31).astype(np.float32)
        return np.where(np.abs(product) < limit, np.rint(scaled), np.sign(product) * float(limit)).astype(np.int64)

    return apply


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
