"""Operators of ONNX networks -> what the NPU computes, with the results that onnxruntime has.

What has weights stays on the NPU even if some sums may give a result that differs by one (`ConvWork.num_doubts` counts
them); everything else is exact, or left to the host.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from convoy.driver.graph.graph import Graph, Op, Tensor
from convoy.spec.isa import NN

from .float_factors import FLOAT_ROUNDING, float_factors
from .operands import activation, image, moved, require
from .work import Axis, ConvWork, Lowering, LutWork

__all__ = ["ONNX_LOWERINGS", "requantised"]

MAX_TAPS = NN.fields["num_taps"].max


def requantised(
    source: Tensor, weights: Tensor, target: Tensor, sums: np.ndarray
) -> tuple[np.ndarray, np.ndarray, int]:
    """Multipliers and exponents of a convolution's channels, int64 (OC,), and the number of sums in doubt.

    Parameters
    ----------
    sums : int64 (OC, 2), least and greatest sum of each channel
    """
    scales = np.broadcast_to(weights.quantisation.scale, (len(sums),))
    factors = source.quantisation.scale[0] * scales / target.quantisation.scale[0]
    zero_point, info = int(target.quantisation.zero_point[0]), np.iinfo(target.dtype)
    mult, exponent, doubts = float_factors(factors, sums, info.min - zero_point, info.max - zero_point)
    return mult, exponent, int(doubts.sum())


def _lower_mean(graph: Graph, op: Op) -> ConvWork:
    """The mean of each channel over the whole image, which onnxruntime scales as it does the sums of convolutions."""
    source, target = activation(graph, op.inputs[0]), activation(graph, op.outputs[0])
    _, height, width, num_ic = in_shape = image(source)
    num_pixels, info = height * width, np.iinfo(np.int8)
    require(num_pixels <= MAX_TAPS, f"mean of {height} x {width} pixels; the limit is {MAX_TAPS}")
    scale_in, scale_out = source.quantisation.scale[0], target.quantisation.scale[0]
    zero_in, zero_out = int(source.quantisation.zero_point[0]), int(target.quantisation.zero_point[0])
    factor = scale_in / (scale_out * np.float32(num_pixels))
    bounds = np.array([[(info.min - zero_in) * num_pixels, (info.max - zero_in) * num_pixels]], np.int64)
    found = float_factors(np.array([factor], np.float32), bounds, info.min - zero_out, info.max - zero_out)
    mult, exponent, doubts = (np.broadcast_to(values, (num_ic,)).copy() for values in found)
    return ConvWork(
        num_ic,
        Axis(height, 1, height),
        Axis(width, 1, width),
        num_ic > 1,
        np.ones((num_ic, height, width, 1), np.int16),
        np.full(num_ic, -zero_in * num_pixels, np.int64),
        mult,
        exponent,
        zero_in,
        zero_out,
        int(info.min),
        int(info.max),
        FLOAT_ROUNDING,
        in_shape,
        num_doubts=int(doubts[0]),
    )


def _lower_table(graph: Graph, op: Op) -> LutWork:
    source = moved(graph, op.inputs[0], is_wide_ok=False)
    moved(graph, op.outputs[0], is_wide_ok=False)
    require("table" in op.options, "its values are not those of a table")
    return LutWork(int(np.prod(source.shape)), op.options["table"])


ONNX_LOWERINGS: Mapping[str, Lowering] = {
    "MEAN": _lower_mean,
    **dict.fromkeys(
        ("TABLE", "LOGISTIC", "TANH", "HARD_SWISH", "LEAKY_RELU", "RELU", "ELU", "GELU", "QUANTIZE"), _lower_table
    ),
}
