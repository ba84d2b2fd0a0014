"""Which core takes which output channel, so that cores need about the same time for every window.

All cores of a superblock go through the same windows, and one that is `num_slots` windows ahead waits for the slowest.
Equal sums of non-zero weights are not enough: what counts is how far apart cores are after each window.
"""

from __future__ import annotations

import numpy as np

from convoy.driver.lower.work import ConvWork

from .tile import Tiling

__all__ = ["balance_windows", "balanced"]

MAX_STEPS = 4
"""Exchanges of kernels between cores at most, as a multiple of the kernels of a superblock."""
MAX_WORK = 1 << 23
"""Pairs that are looked at at most for a layer."""


def balanced(work: ConvWork, tiling: Tiling) -> np.ndarray:
    """The channels of a tiling's kernels, as `Tiling.dealt`. Those of a single group that are dealt in their own order
    stay: neighbours are written together.
    """
    dealt = tiling.dealt
    is_ordered = np.array_equal(dealt.ravel()[: work.num_oc], np.arange(work.num_oc))
    if work.is_depthwise or (is_ordered and any(stripe.num_groups == 1 for stripe in tiling.stripes)):
        return dealt
    return balance_windows(dealt, np.count_nonzero(work.weights, axis=(1, 2)), tiling.num_kernels)


def balance_windows(dealt: np.ndarray, nnz: np.ndarray, num_kernels: int) -> np.ndarray:
    """Exchange kernels between the cores of each superblock, the best pair first, as long as the cores' non-zero
    weights up to each window come nearer to one another.

    Parameters
    ----------
    dealt : as from `deal_channels`, int64 (kernels, cores)
    nnz : non-zero weights of each output channel in each window, int64 (num_oc, windows)
    num_kernels : kernels of a core in a superblock

    Returns
    -------
    ndarray
        Like `dealt`: each superblock has the same channels.
    """
    num_all, num_cores = dealt.shape
    num_sb, size = -(-num_all // num_kernels), num_kernels * num_cores
    members = np.full((num_sb * num_kernels, num_cores), -1)
    members[:num_all] = dealt
    members = members.reshape(num_sb, size)
    core = np.tile(np.arange(num_cores), num_kernels)[None, :].repeat(num_sb, axis=0)
    sums = np.concatenate([np.cumsum(nnz, axis=1, dtype=np.float64), np.zeros((1, nnz.shape[1]))])[members]
    is_there = np.arange(num_sb * num_kernels).repeat(num_cores).reshape(num_sb, size) < num_all
    sums -= sums.mean(axis=1, keepdims=True)
    products = sums @ sums.transpose(0, 2, 1)
    own = np.einsum("snn->sn", products)
    distance = own[:, :, None] + own[:, None, :] - 2 * products
    everyone = np.arange(num_sb)
    for _ in range(min(MAX_STEPS * size, MAX_WORK // (num_sb * size * size))):
        is_core = (core[:, :, None] == np.arange(num_cores)).astype(np.float64)
        with_core = products @ is_core
        gain = with_core @ is_core.transpose(0, 2, 1)  # of each kernel with the core of each other one
        mine = np.einsum("snn->sn", gain)
        change = gain + gain.transpose(0, 2, 1) - mine[:, :, None] - mine[:, None, :] + distance
        change[(core[:, :, None] == core[:, None, :]) | ~is_there[:, :, None] | ~is_there[:, None, :]] = 0
        best = change.reshape(num_sb, -1).argmin(axis=1)
        first, second = np.divmod(best, size)
        is_better = change[everyone, first, second] < -1e-6 * (1 + np.abs(distance[everyone, first, second]))
        if not is_better.any():
            break
        rows, first, second = everyone[is_better], first[is_better], second[is_better]
        core[rows, first], core[rows, second] = core[rows, second], core[rows, first]
    order = np.argsort(core, axis=1, kind="stable")
    found = np.take_along_axis(members, order, axis=1).reshape(num_sb, num_cores, num_kernels).transpose(0, 2, 1)
    return found.reshape(-1, num_cores)[:num_all]
