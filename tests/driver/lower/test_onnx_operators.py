"""Averages of ONNX networks; the other operators are tested where they are read."""

from __future__ import annotations

from functools import partial

import pytest

from convoy.spec.config import PRESETS
from convoy.verif.onnx_models import check_onnx, qdq_model

from ..graph.test_onnx_reader import plain

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


def test_means_of_more_pixels_than_the_npu_adds_are_the_hosts():
    _, hosted = check_onnx(qdq_model([(1, 3, 23, 23)], partial(plain, "GlobalAveragePool")), Q)
    assert hosted == {"MEAN"}
