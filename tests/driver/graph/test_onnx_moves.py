"""Operators of ONNX that move or compare values, against onnxruntime."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from onnx import helper

from convoy.spec.config import PRESETS
from convoy.verif.onnx_models import check_onnx, plain, qdq_model

Q = PRESETS["Q"]
NODE = helper.make_node
IMAGE = (1, 6, 7, 5)


def pixel_shuffle(x):
    shapes = {"c0": np.int64([1, 2, 3, 3, 3, 4]), "c1": np.int64([1, 2, 9, 12])}
    return [
        NODE("Reshape", [*x, "c0"], ["r"]),
        NODE("Transpose", ["r"], ["t"], perm=[0, 1, 4, 2, 5, 3]),
        NODE("Reshape", ["t", "c1"], ["y"]),
    ], shapes


CASES = {
    "max_pool": ([IMAGE], partial(plain, "MaxPool", kernel_shape=[3, 2], strides=[2, 2], ceil_mode=1), set()),
    "global_max": ([IMAGE], partial(plain, "GlobalMaxPool"), set()),
    "resize": (
        [IMAGE],
        partial(plain, "Resize", constants=[np.float32([]), np.float32([1, 1, 2, 1.5])], mode="nearest"),
        set(),
    ),
    "resize_linear": (
        [IMAGE],
        partial(plain, "Resize", constants=[np.float32([]), np.float32([1, 1, 2, 2])], mode="linear"),
        {"Resize"},
    ),
    "pad": ([IMAGE], partial(plain, "Pad", constants=[np.int64([0, 0, 1, 2, 0, 0, 0, 1])]), set()),
    "slice": ([IMAGE], partial(plain, "Slice", constants=[np.int64(v) for v in ([1], [-1], [2], [2])]), set()),
    "gather": ([IMAGE], partial(plain, "Gather", constants=[np.int64([1, 3, 5])], axis=1), set()),
    "gather_one": ([IMAGE], partial(plain, "Gather", constants=[np.int64(2)], axis=2), set()),
    "depth_to_space": ([(1, 8, 3, 4)], partial(plain, "DepthToSpace", blocksize=2), set()),
    "depth_to_space_by_channel": ([(1, 12, 3, 4)], partial(plain, "DepthToSpace", blocksize=2, mode="CRD"), set()),
    "pixel_shuffle": ([(1, 18, 3, 4)], pixel_shuffle, set()),
    "space_to_depth": ([(1, 3, 4, 6)], partial(plain, "SpaceToDepth", blocksize=2), set()),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_moves_are_onnxruntimes(name, dtype):
    shapes, make, hosted = CASES[name]
    _, found = check_onnx(qdq_model(shapes, make, dtype=dtype), Q)
    assert found == hosted
