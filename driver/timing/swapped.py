"""What a job with swapped operands makes the units do, from its descriptor."""

from __future__ import annotations

import numpy as np

from convoy.spec.config import NpuConfig

from . import fitted

__all__ = ["core_cycles", "num_tokens"]

LEAST_VALUE = -128


def _is_inside(d: dict[str, int], axis: str, side: str) -> np.ndarray:
    """Does each tap (first index) of each position (second) meet a pixel on an axis?"""
    taps, positions = np.arange(d[f"src_kernel_{side}"])[:, None], np.arange(d[f"src_o{side}"])
    place = d[f"src_start_{axis}"] + taps * d[f"src_dilation_{side}"] + positions * d[f"src_stride_{side}"]
    return (place >= 0) & (place < d[f"src_i{side}"])


def num_tokens(d: dict[str, int], config: NpuConfig) -> np.ndarray:
    """Activations that are not zero and that each core meets at each tap of a plane; float (taps, cores)."""
    rows, cols = _is_inside(d, "y", "h"), _is_inside(d, "x", "w")
    is_inside = (rows[:, None, :, None] & cols[None, :, None, :]).reshape(len(rows) * len(cols), -1)
    dealt = np.pad(is_inside, ((0, 0), (0, -is_inside.shape[1] % config.num_cores)))
    share = 1 - fitted.ZERO_SHARE * (d["wgt_zero_point"] == LEAST_VALUE)
    return share * dealt.reshape(len(dealt), -1, config.num_cores).sum(axis=1)


def core_cycles(d: dict[str, int], config: NpuConfig) -> np.ndarray:
    """Cycles of each core for each tap of a plane, as far as zeros can be foreseen; float (taps, cores)."""
    return np.maximum(num_tokens(d, config) * d["num_vec"], 1)
