"""Requantisation of convolutions as onnxruntime does it, channel by channel."""

from __future__ import annotations

import numpy as np

from convoy.driver.graph.graph import Tensor

from .operands import require
from .quantise import MAX_SHIFT_LEFT, float_differences, float_multipliers

__all__ = ["float_factors", "requantised"]


def float_factors(factors: np.ndarray, sums: np.ndarray, target: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Multipliers and exponents per channel for `Rounding.FLOAT`, and how many sums of a channel give another output
    than onnxruntime's: int64 (OC,) each.

    Parameters
    ----------
    factors : float32 (OC,)
    sums : int64 (OC, 2), least and greatest sum of each channel
    target : of one scale and zero point

    Raises
    ------
    GraphError
        When a factor is too large for the NPU's shift to the left.
    """
    mult, exponent = float_multipliers(factors)
    require(
        exponent.max() <= MAX_SHIFT_LEFT,
        f"requantisation needs a left shift of {exponent.max()}; the limit is {MAX_SHIFT_LEFT}",
    )
    zero_point, info = int(target.quantisation.zero_point[0]), np.iinfo(target.dtype)
    return mult, exponent, float_differences(factors, sums, (int(info.min) - zero_point, int(info.max) - zero_point))


def requantised(
    source: Tensor, weights: Tensor, target: Tensor, sums: np.ndarray, *, is_float: bool = False
) -> tuple[np.ndarray, np.ndarray, int]:
    """Multipliers and exponents of a convolution's channels, int64 (OC,), and the number of sums in doubt.

    Parameters
    ----------
    sums : int64 (OC, 2), least and greatest sum of each channel
    is_float : onnxruntime adds in float32, so that a sum next to any step may be in doubt

    Raises
    ------
    GraphError
        When a factor is too large for the NPU's shift to the left.
    """
    scales = np.broadcast_to(weights.quantisation.scale, (len(sums),))
    factors = source.quantisation.scale[0] * scales / target.quantisation.scale[0]
    mult, exponent, doubts = float_factors(factors, sums, target)
    info = np.iinfo(target.dtype)
    num_steps = len(sums) * (info.max - info.min) if is_float else 0
    return mult, exponent, max(int(doubts.sum()), num_steps)
