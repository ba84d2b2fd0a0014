"""Factors of ONNX convolutions; the arithmetic is tested beside `float_multipliers`."""

from __future__ import annotations

import numpy as np
import pytest

from convoy.driver.graph.graph import GraphError, Quant, Tensor
from convoy.driver.lower.float_factors import float_factors, requantised


def tensor(scale, zero_point=0) -> Tensor:
    """A tensor of int8."""
    scales = np.atleast_1d(np.float32(scale))
    return Tensor(0, "t", (4,), np.dtype(np.int8), Quant(scales, np.full(scales.shape, zero_point)))


def test_factors_are_multiplied_in_float32():
    sums = np.array([[-1000, 1000]] * 2)
    mult, exponent, num_doubts = requantised(tensor(0.3), tensor([0.01, 0.7]), tensor(0.9, 5), sums)
    factors = np.float32(0.3) * np.float32([0.01, 0.7]) / np.float32(0.9)
    assert (mult * 2.0 ** (exponent - 31.0)).tolist() == factors.astype(np.float64).tolist()
    assert num_doubts == 0


def test_sums_in_float32_put_every_step_in_doubt():
    found = requantised(tensor(0.3), tensor([0.01, 0.7]), tensor(0.9), np.array([[-9, 9]] * 2), is_float=True)
    assert found[2] == 2 * 255


def test_too_large_factors_are_refused():
    with pytest.raises(GraphError, match="left shift"):
        float_factors(np.float32([2.0**40]), np.array([[-1000, 1000]]), tensor(1))
