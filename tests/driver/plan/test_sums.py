"""Convolutions whose kernel is the whole image, in the forms that the compiler chooses among."""

import numpy as np
import pytest

from convoy.driver.graph.graph import GraphError
from convoy.driver.lower.work import Axis, ConvWork, Pieces
from convoy.driver.plan.sums import CutConv, TurnedConv, best_sum
from convoy.spec.config import PRESETS, NpuConfig
from convoy.spec.isa import Rounding, TpOp

Q = PRESETS["Q"]


def layer(height, width, num_c, weights=None, **options) -> ConvWork:
    """A depthwise convolution with one output pixel; a mean if there are no weights."""
    kernels = np.ones((num_c, height, width, 1), np.int16) if weights is None else weights
    fields = {
        "zero_point_in": 0,
        "zero_point_out": 0,
        "act_min": -128,
        "act_max": 127,
        "rounding": Rounding.DOUBLE,
        "in_shape": (1, height, width, num_c),
    }
    rows, cols = Axis(height, 1, height), Axis(width, 1, width)
    values = np.zeros(num_c, np.int64), np.full(num_c, 1 << 30), np.zeros(num_c, np.int64)
    return ConvWork(num_c, rows, cols, num_c > 1, kernels, *values, **fields, **options)


def test_a_mean_is_pooled():
    (pool,) = best_sum(layer(7, 7, 64), Q).works
    assert (pool.op, pool.flat.cols) == (TpOp.MEAN, Axis(49, 1, 49))


def test_channels_of_one_kernel_are_turned():
    found = best_sum(layer(7, 7, 64, np.full((64, 7, 7, 1), 2, np.int16)), PRESETS["S"])
    assert isinstance(found, TurnedConv)
    assert (found.work.num_ic, found.work.num_oc, found.work.cols) == (49, 1, Axis(64, 64))


def test_channels_with_kernels_of_their_own_are_cut_into_pieces_of_planes():
    """37 * 31 pixels: pieces overlap, and no weight is used twice."""
    rng = np.random.default_rng(0)
    weights = rng.integers(1, 128, (6, 37, 31, 1)).astype(np.int16)
    found = best_sum(layer(37, 31, 6, weights), Q)
    assert isinstance(found, CutConv)
    planes, done = rng.integers(-128, 128, (6, 37 * 31)), []
    for part in found.parts:
        pieces = part.pieces
        first = len(done)
        starts = np.arange(part.num_ic // pieces.num_channels) * pieces.pitch
        inputs = np.stack(
            [
                planes[first + c, start : start + part.cols.size_in]
                for start in starts
                for c in range(pieces.num_channels)
            ]
        )
        done += list(np.einsum("otc,ct->o", part.weights[:, 0].astype(np.int64), inputs))
    np.testing.assert_array_equal(done, (weights.reshape(6, -1) * planes).sum(axis=1))
    assert sum(part.num_in_bytes for part in found.parts) == planes.size


def test_a_kernel_that_leaves_more_than_one_pixel_stays_what_it_is():
    work = layer(7, 7, 8, np.full((8, 7, 7, 1), 2, np.int16))
    smaller = ConvWork(**{**vars(work), "rows": Axis(8, 2, 7), "in_shape": (1, 8, 7, 8)})
    assert best_sum(smaller, Q) is None
    assert best_sum(layer(1, 1, 8, np.full((8, 1, 1, 1), 2, np.int16)), Q) is None


def test_pieces_say_where_channels_lie():
    work = layer(5, 4, 1, pieces=Pieces(num_channels=3, pitch=8, plane=20))
    assert work.num_in_bytes == 60


def test_a_plane_beyond_the_stripe_memory_is_refused():
    small = NpuConfig(stripe_bytes=4096)
    with pytest.raises(GraphError, match="a sum of 10000 pixels exceeds the stripe memory of 4096 bytes"):
        best_sum(layer(100, 100, 2), small)
