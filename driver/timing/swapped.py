"""What a job with swapped operands makes the units do, from its descriptor."""

from __future__ import annotations

import numpy as np

from convoy.driver.plan.swap import met_by_cores
from convoy.spec.config import NpuConfig

from . import fitted

__all__ = ["core_cycles", "num_tokens", "zero_share"]

LEAST_VALUE = -128
"""The zero point of what a ReLU makes."""


def _is_inside(d: dict[str, int], axis: str, side: str) -> np.ndarray:
    """Does each tap (first index) of each position (second) meet a pixel on an axis?"""
    taps, positions = np.arange(d[f"src_kernel_{side}"])[:, None], np.arange(d[f"src_o{side}"])
    place = d[f"src_start_{axis}"] + taps * d[f"src_dilation_{side}"] + positions * d[f"src_stride_{side}"]
    return (place >= 0) & (place < d[f"src_i{side}"])


def zero_share(d: dict[str, int]) -> float:
    """How many of the activations of a job are expected to be zero."""
    return fitted.ZERO_SHARE * (d["wgt_zero_point"] == LEAST_VALUE)


def num_tokens(d: dict[str, int], config: NpuConfig) -> np.ndarray:
    """Activations that are not zero and that each core meets at each tap of a plane; float (taps, cores)."""
    return (1 - zero_share(d)) * met_by_cores(_is_inside(d, "y", "h"), _is_inside(d, "x", "w"), config.num_cores)


def core_cycles(d: dict[str, int], config: NpuConfig) -> np.ndarray:
    """Cycles of each core for each tap of a plane, as far as zeros can be foreseen; float (taps, cores).

    An activation takes T cycles. The decoder needs one for each, also for a zero, which it drops: if K activations are
    zero independently of one another with probability p, runs of zeros longer than T - 1 cost K * p**T cycles.
    """
    num_vec, num_kernels = d["num_vec"], d["num_kernels"]
    met = num_tokens(d, config)
    return met * num_vec + num_kernels * (1 - met / num_kernels) ** num_vec
