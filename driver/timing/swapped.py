"""What a job with swapped operands makes the units do, from its descriptor."""

from __future__ import annotations

import numpy as np

from convoy.driver.plan.swap import expected_zeros, met_by_cores, token_cycles
from convoy.spec.config import NpuConfig

__all__ = ["core_cycles", "num_tokens", "zero_share"]


def _is_inside(d: dict[str, int], axis: str, side: str) -> np.ndarray:
    """Does each tap (first index) of each position (second) meet a pixel on an axis?"""
    taps, positions = np.arange(d[f"src_kernel_{side}"])[:, None], np.arange(d[f"src_o{side}"])
    place = d[f"src_start_{axis}"] + taps * d[f"src_dilation_{side}"] + positions * d[f"src_stride_{side}"]
    return (place >= 0) & (place < d[f"src_i{side}"])


def zero_share(d: dict[str, int]) -> float:
    """How many of the activations of a job are expected to be zero."""
    return expected_zeros(d["wgt_zero_point"])


def num_tokens(d: dict[str, int], config: NpuConfig) -> np.ndarray:
    """Activations that are not zero and that each core meets at each tap of a plane; float (taps, cores)."""
    return (1 - zero_share(d)) * met_by_cores(_is_inside(d, "y", "h"), _is_inside(d, "x", "w"), config.num_cores)


def core_cycles(d: dict[str, int], config: NpuConfig) -> np.ndarray:
    """Cycles of each core for each tap of a plane, as far as zeros can be foreseen; float (taps, cores)."""
    return token_cycles(num_tokens(d, config), d["num_vec"], d["num_kernels"])
