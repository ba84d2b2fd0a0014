"""Kernels are exchanged between cores until all cores need about as long up to each window."""

import numpy as np
import pytest

from convoy.driver.plan.balance import balance_windows


def leads(dealt, nnz, num_kernels):
    """Sum of squares of how far each core is from the mean of the cores behind each window, over all superblocks."""
    nnz = np.concatenate([nnz, np.zeros((1, nnz.shape[1]))])
    total = 0.0
    for first in range(0, len(dealt), num_kernels):
        ends = np.cumsum(nnz[dealt[first : first + num_kernels]].sum(axis=0), axis=1)
        total += float(((ends - ends.mean(axis=0)) ** 2).sum())
    return total


def test_early_and_late_kernels_are_paired():
    """Two cores of two kernels: each gets one whose weights come first and one whose weights come last."""
    nnz = np.array([[4, 0], [0, 4], [4, 0], [0, 4]])
    found = balance_windows(np.array([[0, 1], [2, 3]]), nnz, 2)
    assert sorted(map(sorted, nnz[found.T][:, :, 0].tolist())) == [[0, 4], [0, 4]]
    assert leads(found, nnz, 2) == 0


@pytest.mark.parametrize(("num_oc", "num_cores", "num_kernels"), [(64, 4, 4), (23, 4, 3), (5, 16, 1), (40, 1, 8)])
def test_superblocks_keep_their_channels(num_oc, num_cores, num_kernels):
    rng = np.random.default_rng(num_oc)
    nnz = rng.binomial(9, 0.4, (num_oc, 24))
    dealt = np.append(rng.permutation(num_oc), np.full(-num_oc % num_cores, -1)).reshape(-1, num_cores)
    found = balance_windows(dealt, nnz, num_kernels)
    assert found.shape == dealt.shape
    for first in range(0, len(dealt), num_kernels):
        there = slice(first, first + num_kernels)
        np.testing.assert_array_equal(np.sort(found[there], axis=None), np.sort(dealt[there], axis=None))
    assert leads(found, nnz, num_kernels) <= leads(dealt, nnz, num_kernels)
    if num_kernels > 1 and num_cores > 1:
        assert leads(found, nnz, num_kernels) < 0.7 * leads(dealt, nnz, num_kernels)
