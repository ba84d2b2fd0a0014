"""Averages of ONNX networks; the other operators are tested where they are read."""

from __future__ import annotations

from functools import partial

import pytest

from convoy.spec.config import PRESETS
from convoy.verif.onnx_models import check_onnx, plain, qdq_model

Q = PRESETS["Q"]


@pytest.mark.parametrize(
    ("attrs", "scale_out", "is_hosted"),
    [
        ({"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}, 0.0713, False),
        ({"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, 0.0713, True),
        ({"kernel_shape": [2, 2], "strides": [2, 2]}, 0.0517, True),
        ({"kernel_shape": [3, 3], "strides": [2, 1]}, 0.0517, False),
    ],
)
def test_averages_are_the_npus_where_no_sum_is_at_a_tie(attrs, scale_out, is_hosted):
    plan, hosted = check_onnx(qdq_model([(1, 6, 8, 9)], partial(plain, "AveragePool", **attrs), scale_out=scale_out), Q)
    assert hosted == ({"AVERAGE_POOL_2D"} if is_hosted else set())
    assert not plan.doubts


def test_means_have_no_limit_of_pixels():
    _, hosted = check_onnx(qdq_model([(1, 3, 23, 23)], partial(plain, "GlobalAveragePool")), Q)
    assert hosted == set()


@pytest.mark.parametrize(
    ("shape", "attrs", "scales", "is_hosted"),
    [
        ((1, 6, 2, 2), {"axes": [2, 3]}, (0.0517, 0.0713), False),
        ((1, 6, 4), {"axes": [-1], "keepdims": 0}, (0.0517, 0.0713), False),
        ((1, 6, 24, 26), {"axes": [3, 2]}, (0.0517, 0.0713), True),
        ((1, 6, 7, 7), {"axes": [-1, -2], "keepdims": 0}, (0.25, 0.25), False),
        ((1, 6, 7, 7), {"axes": [-1, -2], "keepdims": 0}, (0.25, 0.5), True),
        ((1, 6, 32, 32), {"axes": [2, 3]}, (0.25, 0.5), False),
    ],
)
def test_means_in_float32_are_the_npus_where_no_rounding_is_in_doubt(shape, attrs, scales, is_hosted):
    model = qdq_model([shape], partial(plain, "ReduceMean", **attrs), scale=scales[0], scale_out=scales[1])
    plan, hosted = check_onnx(model, Q)
    assert hosted == ({"MEAN"} if is_hosted else set())
    assert not plan.doubts


def test_errors_of_float32_grow_with_what_is_added_not_with_the_sum():
    """Of sums near nought, the pixels are not."""
    attrs = {"kernel_shape": [2, 2], "strides": [2, 2]}
    scale = 0.0517
    model = qdq_model([(1, 2, 8, 8)], partial(plain, "AveragePool", **attrs), scale=scale, scale_out=scale / 1.00001)
    _, hosted = check_onnx(model, Q)
    assert hosted == {"AVERAGE_POOL_2D"}
