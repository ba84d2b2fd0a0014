"""Multiply-accumulates of operators that the host executes, which the NPU's share is measured against."""

import numpy as np
import pytest

from convoy.driver.graph.graph import Graph, Op, Tensor
from convoy.driver.plan.macs import dense_macs


@pytest.mark.parametrize(
    ("kind", "shapes", "constants", "out", "macs"),
    [
        ("BATCH_MATMUL", [(2, 10, 8), (2, 8, 6)], (), (2, 10, 6), 2 * 10 * 8 * 6),
        ("BATCH_MATMUL", [(2, 8, 10), (2, 8, 6)], (), (2, 10, 6), 2 * 10 * 8 * 6),
        ("BATCH_MATMUL", [(3, 10, 10), (1, 10, 6)], (), (3, 10, 6), 3 * 10 * 10 * 6),
        ("MatMul", [(8,), (8, 6)], (), (6,), 8 * 6),
        ("CONV_3D", [(1, 5, 6, 7, 2), (3, 3, 3, 2, 4)], (1,), (1, 3, 4, 5, 4), 3 * 4 * 5 * 4 * 27 * 2),
        ("UNIDIRECTIONAL_SEQUENCE_RNN", [(1, 9, 4), (5, 4), (5, 5), (5,)], (1, 2, 3), (1, 9, 5), 9 * (20 + 25)),
        ("LSTM", [(9, 1, 4), (1, 20, 4), (1, 20, 5), (1, 40)], (1, 2), (9, 1, 1, 5), 9 * 20 * 9),
        ("ADD", [(1, 4), (1, 4)], (), (1, 4), 0),
    ],
)
def test_macs(kind, shapes, constants, out, macs):
    tensors = [
        Tensor(n, f"t{n}", shape, np.dtype(np.int8), data=np.zeros(shape, np.int8) if n in constants else None)
        for n, shape in enumerate([*shapes, out])
    ]
    op = Op(0, kind, tuple(range(len(shapes))), (len(shapes),))
    assert dense_macs(Graph("g", tuple(tensors), (op,), (0,), (len(shapes),)), op) == macs
