"""Means, sums and extremes over any axes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.graph.graph import GraphError
from convoy.driver.graph.tflite_reader import read_tflite
from convoy.spec.config import PRESETS
from convoy.verif.models import check_model, one_op
from convoy.verif.strategies import configs

PROPERTY = settings(max_examples=25, deadline=None)


def reduction(kind, shape, axes, dtype=np.int8, ratio=1.0, *, keep_dims=False):
    """A file of one reduction; the scale of a sum grows with the number of elements."""
    kept = [axis not in axes for axis in range(len(shape))]
    out = [extent if is_kept else 1 for extent, is_kept in zip(shape, kept, strict=True) if is_kept or keep_dims]
    zero_points = (0, 0) if dtype == np.int16 else np.array([-7, 11]) + 128 * (dtype == np.uint8)
    if kind.startswith("REDUCE"):
        ratio, zero_points = 1.0, (zero_points[0],) * 2
    elif kind == "SUM":
        ratio *= float(np.sqrt(np.prod([shape[axis] for axis in axes])))
    quants = (0.05, int(zero_points[0])), (0.05 * ratio, int(zero_points[1]))
    return one_op(kind, shape, out, [axes], *quants, dtype, keepDims=keep_dims)


@PROPERTY
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=5),
    st.data(),
    st.sampled_from([np.int8, np.uint8, np.int16]),
    st.sampled_from([1.0, 0.5, 0.25, 0.37, 0.9, 2.1]),
    st.booleans(),
    configs(),
)
def test_mean_of_any_axes(sizes, data, dtype, ratio, keep_dims, config):
    axes = data.draw(st.lists(st.integers(0, len(sizes) - 1), min_size=1, unique=True))
    groups = [key for n, key in enumerate(n in axes for n, size in enumerate(sizes) if size > 1)]
    num_groups = sum(n == 0 or key != groups[n - 1] for n, key in enumerate(groups))
    is_image = len(sizes) <= 3 or (len(sizes) == 4 and sizes[0] == 1)
    check_model(
        reduction("MEAN", sizes, axes, dtype, ratio, keep_dims=keep_dims),
        config,
        num_host_steps=int(num_groups > 3 and not is_image),
    )


@pytest.mark.parametrize(
    ("kind", "shape", "axes", "dtype"),
    [
        ("MEAN", (1, 28, 28, 12), (1, 2), np.int8),
        ("MEAN", (1, 30, 30, 3), (1, 2), np.int16),
        ("MEAN", (1, 67, 61, 2), (1, 2), np.uint8),
        ("MEAN", (1, 16000, 1), (1,), np.int8),
        ("MEAN", (1, 5003, 3), (1,), np.int16),
        ("MEAN", (1, 30, 30, 5), (1, 2, 3), np.int8),
        ("SUM", (1, 30, 20, 5), (1, 2), np.uint8),
        ("SUM", (1, 4, 5, 40), (3,), np.uint8),
        ("REDUCE_MAX", (1, 60, 50, 3), (1, 2), np.int8),
        ("REDUCE_MAX", (1, 40, 50, 3), (1, 2), np.int16),
        ("REDUCE_MAX", (1, 16001, 2), (1,), np.uint8),
        ("REDUCE_MAX", (1, 5, 6, 300), (3,), np.int8),
        ("REDUCE_MIN", (1, 30, 20, 5), (1, 2), np.int8),
        ("REDUCE_MIN", (2, 3, 4, 5), (1, 2), np.uint8),
    ],
)
def test_large_images_and_other_axes(kind, shape, axes, dtype):
    check_model(reduction(kind, shape, axes, dtype), PRESETS["Q"])


def test_sums_of_other_dtypes_follow_litert():
    """Of int8 the bytes are summed as if they were uint8; of int16 half of the result is whatever was there."""
    check_model(reduction("SUM", (1, 4, 4, 2), (1, 2)), PRESETS["Q"], num_host_steps=1)
    with pytest.raises(GraphError, match="a SUM of int16 unwritten; use MEAN"):
        compile_graph(read_tflite(reduction("SUM", (1, 4, 4, 2), (1, 2), np.int16)), PRESETS["Q"])
