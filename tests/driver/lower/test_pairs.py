"""Factors for given results of two bytes; on the tensor processor by the networks of the reader's tests."""

from __future__ import annotations

import numpy as np
import pytest

from convoy.driver.graph.graph import GraphError
from convoy.driver.lower.pairs import pair_fields
from convoy.golden.quant import double_rounding
from convoy.spec.isa import ADD_SHIFT, TpOp

VALUES = np.arange(-128, 128)


def results(kind, scales, zero_points):
    """As onnxruntime computes them, but for the noise of float32."""
    a, b = ((VALUES - zero_points[n]) * scales[n] for n in (0, 1))
    real = a[:, None] * b if kind == TpOp.MUL else a[:, None] + (b if kind == TpOp.ADD else -b)
    return np.clip(np.rint(real / scales[2]) + zero_points[2], -128, 127).astype(np.int8)


def computed(kind, fields, zero_points):
    """As the tensor processor computes them."""
    a, b = VALUES[:, None] - zero_points[0], VALUES - zero_points[1]
    if kind == TpOp.MUL:
        total = double_rounding(a * b, fields["out_mult"], fields["b_shift"], fields["out_shift"])
    else:
        a, b = (
            double_rounding(x << ADD_SHIFT, fields[f"{name}_mult"], 0, fields[f"{name}_shift"])
            for x, name in ((a, "a"), (b, "b"))
        )
        total = double_rounding(a + b if kind == TpOp.ADD else a - b, fields["out_mult"], 0, fields["out_shift"])
    return np.clip(total + zero_points[2], fields["act_min"], fields["act_max"])


@pytest.mark.parametrize("kind", [TpOp.ADD, TpOp.SUB, TpOp.MUL])
@pytest.mark.parametrize("scales", [(0.0213, 0.0371, 0.0457), (0.31, 0.022, 0.053), (0.047, 0.047, 0.047)])
def test_doubts_are_counted(kind, scales):
    zero_points = 3, -7, 5
    expected = results(kind, scales, zero_points)
    fields, num_doubts = pair_fields(kind, expected, scales, zero_points)
    difference = np.abs(computed(kind, fields, zero_points) - expected)
    assert difference.sum() == num_doubts <= 64
    assert difference.max() <= 1


@pytest.mark.parametrize(("kind", "scales"), [(TpOp.ADD, (0.1, 0.1, 0.2)), (TpOp.MUL, (0.0625, 0.0625, 0.125))])
def test_too_many_ties_are_refused(kind, scales):
    with pytest.raises(GraphError, match="of 65,536 results of the NPU would differ"):
        pair_fields(kind, results(kind, scales, (0, 0, 0)), scales, (0, 0, 0))


def test_other_functions_are_refused():
    largest = np.maximum(VALUES[:, None], VALUES).astype(np.int8)
    with pytest.raises(GraphError, match="would differ"):
        pair_fields(TpOp.ADD, largest, (0.1, 0.1, 0.1), (0, 0, 0))
