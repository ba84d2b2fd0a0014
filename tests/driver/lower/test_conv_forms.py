"""Convolutions in other forms, against LiteRT."""

from __future__ import annotations

import numpy as np
import pytest

from convoy.driver.graph.tflite_writer import write_tflite
from convoy.spec.config import PRESETS
from convoy.verif.graphs import GraphMaker
from convoy.verif.models import check_model

Q = PRESETS["Q"]
DTYPES = np.int8, np.uint8, np.int16


def conv(shape, num_oc, kernel, dtype=np.int8, *, num_ic=None, kind="CONV_2D", padding="VALID", seed=1, **options):
    """A file of one convolution with bias, of kernels of `num_ic` channels."""
    maker = GraphMaker(seed, dtype)
    strides, dilations = (tuple(options.pop(name, (1, 1))) for name in ("stride", "dilation"))
    is_depthwise = kind == "DEPTHWISE_CONV_2D"
    depth = 1 if is_depthwise else num_ic or shape[2]
    weights = maker.weights(
        (1, *kernel, num_oc) if is_depthwise else (num_oc, *kernel, depth), num_oc, 3 * is_depthwise
    )
    source, bias_type = maker.tensor((1, *shape)), np.int64 if dtype == np.int16 else np.int32
    values = maker.rng.integers(-2000, 2000, num_oc).astype(bias_type)
    scale = 0.05 * float(maker.tensors[weights].quant.scale[0])
    bias = maker.tensor((num_oc,), bias_type, values, scale, zero_point=0)
    sizes = [
        -(-size // stride) if padding == "SAME" else (size - (taps - 1) * dilation - 1) // stride + 1
        for size, taps, stride, dilation in zip(shape, kernel, strides, dilations, strict=False)
    ]
    options |= {"depth_multiplier": num_oc // shape[2]} if is_depthwise else {}
    target = maker.op(
        kind,
        (source, weights, bias),
        (1, *sizes, num_oc),
        padding=padding,
        stride_h=strides[0],
        stride_w=strides[1],
        dilation_h=dilations[0],
        dilation_w=dilations[1],
        **{"activation": "NONE"} | options,
    )
    return write_tflite(maker.graph([source], [target]))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("channels", "num_groups", "num_oc"), [(12, 3, 6), (6, 6, 12), (8, 2, 8)])
def test_grouped(dtype, channels, num_groups, num_oc):
    check_model(conv((5, 6, channels), num_oc, (3, 3), dtype, num_ic=channels // num_groups, padding="SAME"), Q)
