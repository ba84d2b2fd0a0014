"""int16 as the NN engine computes it: sums of low and of high bytes, put together behind the multiplier."""

from __future__ import annotations

import numpy as np

from convoy.spec.isa import Rounding

from .quant import saturate32, wrap32

__all__ = ["split_bytes", "wide_rounding"]


def split_bytes(acts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int8 bytes (2 * channels, ...) -> low bytes, uint8, and high bytes, int8, of each channel."""
    return acts[0::2].view(np.uint8), acts[1::2]


def wide_rounding(rounding: Rounding, low, high, mult, shift_left, shift_right):
    """`low + 256 * high` times a multiplier, rounded.

    Parameters
    ----------
    low, high : sums with bias; each is wrapped to 32 bits, then shifted left with wrap-around (D) or saturated (others)
    mult, shift_left, shift_right : as for `double_rounding`

    Returns
    -------
    int64 array, broadcast over the arguments
    """
    low, high, mult, shift_left, shift_right = (
        np.asarray(value, np.int64) for value in (low, high, mult, shift_left, shift_right)
    )
    narrow = wrap32 if rounding == Rounding.DOUBLE else saturate32
    low, high = (narrow(wrap32(half) << shift_left) for half in (low, high))
    acc = low + (high << 8)
    if rounding == Rounding.DOUBLE:
        product = _scaled(acc, mult, 31, 0)
        half = (np.int64(1) << shift_right) >> 1
        return (product + half - ((product < 0) & (shift_right > 0))) >> shift_right
    nudge = (acc < 0) & (mult > 0) if rounding == Rounding.SINGLE else 0
    return _scaled(acc, mult, 31 + shift_right, nudge)


def _scaled(acc, mult, shift, nudge):
    """`(acc * mult - nudge + 2**(shift - 1)) >> shift` without the 71 bits of the product: |acc| < 2**41, shift at
    least 31.
    """
    upper = acc * (mult >> 16) + ((acc * (mult & 0xFFFF) - nudge) >> 16)
    return (upper + (np.int64(1) << (shift - 17))) >> (shift - 16)
