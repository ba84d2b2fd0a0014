"""Quantised layers in numpy: int8 or uint8, convolutions also int16, NHWC, bit-exact with LiteRT's reference kernels
(BUILTIN_REF).

Scales and zero points come as pairs (scale, zero_point), scales being what the file holds as float32; `stride` and
`dilation` are pairs (vertical, horizontal); `padding` is "SAME", "VALID" or explicit (top, bottom, left, right);
`activation` is "NONE", "RELU", "RELU6" or "RELU_N1_TO_1". Every layer returns an array of the dtype of its activations;
none changes its arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import reduce
from operator import add as plus

import numpy as np

from .quant import double_rounding, float64_rounding, quantize_multiplier, reduced_rounding, round_half_away, wrap32

__all__ = [
    "activation_range",
    "add",
    "average_pool",
    "concatenate",
    "conv2d",
    "depthwise_conv2d",
    "dequantize",
    "fully_connected",
    "max_pool",
    "mean",
    "pad",
    "quantize",
    "relu",
    "requantize",
    "reshape",
    "resize_nearest",
    "strided_slice",
]

Quantisation = tuple[float, int]
Padding = str | tuple[int, int, int, int]
Dtype = np.dtype | type

_BOUNDS = {"NONE": (None, None), "RELU": (0.0, None), "RELU6": (0.0, 6.0), "RELU_N1_TO_1": (-1.0, 1.0)}


def activation_range(activation: str, quant: Quantisation, dtype: Dtype = np.int8) -> tuple[int, int]:
    """The clamp (act_min, act_max) that a fused activation is on outputs of `dtype`.

    Raises
    ------
    ValueError
        When the activation is not one of `NONE`, `RELU`, `RELU6`, `RELU_N1_TO_1`.
    """
    if activation not in _BOUNDS:
        raise ValueError(f"activation = {activation!r} is unknown: use {', '.join(_BOUNDS)}")
    info = np.iinfo(dtype)
    lower, upper = (
        None if bound is None else int(quantize(np.asarray(bound, np.float32), quant, dtype))
        for bound in _BOUNDS[activation]
    )
    return int(info.min) if lower is None else lower, int(info.max) if upper is None else upper


def conv2d(
    acts: np.ndarray,
    weights: np.ndarray,
    bias: np.ndarray | None,
    input_quant: Quantisation,
    weight_scale: float | np.ndarray,
    output_quant: Quantisation,
    stride: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
    padding: Padding = "SAME",
    activation: str = "NONE",
    weight_zero_point: int = 0,
) -> np.ndarray:
    """CONV_2D: acts (N, IH, IW, IC), weights (OC, KH, KW, IC), bias (OC,), one weight scale or one per channel.

    Rounding D; acts int16 without a bias of int32: S16.
    """
    dtype = np.float64  # sums are exact
    centred = weights.astype(dtype) - weight_zero_point
    products = (
        pixels.astype(dtype) @ centred[:, ky, kx].T
        for ky, kx, pixels in _taps(acts, input_quant[1], weights.shape[1:3], stride, dilation, padding)
    )
    acc = reduce(plus, products)
    factors = _factors(input_quant[0], weight_scale, output_quant[0], len(weights))
    return _finish(
        acc.astype(np.int64), bias, factors, output_quant, activation, _conv_rounding(acts, bias), acts.dtype
    )


def depthwise_conv2d(
    acts: np.ndarray,
    weights: np.ndarray,
    bias: np.ndarray | None,
    input_quant: Quantisation,
    weight_scale: float | np.ndarray,
    output_quant: Quantisation,
    stride: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
    padding: Padding = "SAME",
    activation: str = "NONE",
    weight_zero_point: int = 0,
) -> np.ndarray:
    """DEPTHWISE_CONV_2D, rounded as CONV_2D: weights (1, KH, KW, IC * m); output channel c reads input channel c div
    m.
    """
    multiplier = weights.shape[3] // acts.shape[3]
    by_channel = weights[0].reshape(*weights.shape[1:3], acts.shape[3], multiplier).astype(np.int64) - weight_zero_point
    products = (
        pixels[..., None] * by_channel[ky, kx]
        for ky, kx, pixels in _taps(acts, input_quant[1], weights.shape[1:3], stride, dilation, padding)
    )
    acc = reduce(plus, products)
    acc = acc.reshape(*acc.shape[:3], -1)
    factors = _factors(input_quant[0], weight_scale, output_quant[0], weights.shape[3])
    return _finish(
        acc.astype(np.int64), bias, factors, output_quant, activation, _conv_rounding(acts, bias), acts.dtype
    )


def fully_connected(
    acts: np.ndarray,
    weights: np.ndarray,
    bias: np.ndarray | None,
    input_quant: Quantisation,
    weight_scale: float | np.ndarray,
    output_quant: Quantisation,
    activation: str = "NONE",
    weight_zero_point: int = 0,
) -> np.ndarray:
    """FULLY_CONNECTED: acts with IC values per row, weights (OC, IC); result (rows, OC).

    The factor is not quantised: mode R64.
    """
    rows = acts.reshape(-1, weights.shape[1]).astype(np.float64) - input_quant[1]
    acc = (rows @ (weights.T.astype(np.float64) - weight_zero_point)).astype(np.int64)
    scales = (
        float(np.float32(input_quant[0]))
        * np.asarray(weight_scale, np.float32).astype(np.float64)
        / float(np.float32(output_quant[0]))
    )
    return _finish(acc, bias, (scales,), output_quant, activation, float64_rounding, acts.dtype)


def add(
    a: np.ndarray,
    b: np.ndarray,
    a_quant: Quantisation,
    b_quant: Quantisation,
    output_quant: Quantisation,
    activation: str = "NONE",
    sign: int = 1,
    has_pot_scales: bool = False,
) -> np.ndarray:
    """ADD, or SUB if `sign` is -1, with broadcasting: both operands are scaled to a common fraction, rounded, summed
    and rounded again, each time by D.

    The fraction has 20 bits, of int16 15. With `has_pot_scales` scales of int16 are powers of two, and the operand with
    the smaller one is divided by their ratio, rounded half away from zero.
    """
    if has_pot_scales and a.dtype == np.int16:
        shifted = [
            round_half_away(values.astype(np.int64), round(output_quant[0] / quant[0]))
            for values, quant in ((a, a_quant), (b, b_quant))
        ]
        return _clamp(shifted[0] + sign * shifted[1], activation_range(activation, output_quant, a.dtype), a.dtype)
    shift = 15 if a.dtype == np.int16 else 20
    scale_a, scale_b, scale_out = (float(np.float32(quant[0])) for quant in (a_quant, b_quant, output_quant))
    scale = 2 * max(scale_a, scale_b)
    scaled_a = double_rounding((a.astype(np.int64) - a_quant[1]) << shift, *quantize_multiplier(scale_a / scale))
    scaled_b = double_rounding((b.astype(np.int64) - b_quant[1]) << shift, *quantize_multiplier(scale_b / scale))
    total = double_rounding(scaled_a + sign * scaled_b, *quantize_multiplier(scale / ((1 << shift) * scale_out)))
    return _clamp(total + output_quant[1], activation_range(activation, output_quant, a.dtype), a.dtype)


def multiply(
    a: np.ndarray,
    b: np.ndarray,
    a_quant: Quantisation,
    b_quant: Quantisation,
    output_quant: Quantisation,
    activation: str = "NONE",
) -> np.ndarray:
    """MUL with broadcasting: the product, rescaled by D with a factor computed in float32."""
    scale_a, scale_b, scale_out = (np.float32(quant[0]) for quant in (a_quant, b_quant, output_quant))
    product = (a.astype(np.int64) - a_quant[1]) * (b.astype(np.int64) - b_quant[1])
    return _clamp(
        double_rounding(product, *quantize_multiplier(float(scale_a * scale_b / scale_out))) + output_quant[1],
        activation_range(activation, output_quant, a.dtype),
        a.dtype,
    )


def average_pool(
    acts: np.ndarray,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    quant: Quantisation = (1.0, 0),
    padding: Padding = "VALID",
    activation: str = "NONE",
) -> np.ndarray:
    """AVERAGE_POOL_2D over the pixels inside the image; halves are rounded away from zero, so up for uint8.

    `quant` only serves the activation.
    """
    total = sum(pixels for _, _, pixels in _taps(acts, 0, kernel, stride, (1, 1), padding))
    count = sum(pixels for _, _, pixels in _taps(np.ones_like(acts[:1, :, :, :1]), 0, kernel, stride, (1, 1), padding))
    return _clamp(round_half_away(total, count), activation_range(activation, quant, acts.dtype), acts.dtype)


def max_pool(
    acts: np.ndarray,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    quant: Quantisation = (1.0, 0),
    padding: Padding = "VALID",
    activation: str = "NONE",
) -> np.ndarray:
    """MAX_POOL_2D over the pixels inside the image. `quant` only serves the activation."""
    lowest = int(np.iinfo(acts.dtype).min)
    windows = _taps(acts, lowest, kernel, stride, (1, 1), padding)
    peak = np.max([pixels for _, _, pixels in windows], axis=0) + lowest
    return _clamp(peak, activation_range(activation, quant, acts.dtype), acts.dtype)


def relu(
    acts: np.ndarray, input_quant: Quantisation, output_quant: Quantisation, activation: str = "RELU"
) -> np.ndarray:
    """RELU, RELU6 or RELU_N1_TO_1 as an operator of its own: requantised by D, then clamped."""
    factor = float(np.float32(input_quant[0]) / np.float32(output_quant[0]))
    values = double_rounding(acts.astype(np.int64) - input_quant[1], *quantize_multiplier(factor)) + output_quant[1]
    return _clamp(values, activation_range(activation, output_quant, acts.dtype), acts.dtype)


def requantize(
    acts: np.ndarray, input_quant: Quantisation, output_quant: Quantisation, dtype: Dtype = np.int8
) -> np.ndarray:
    """QUANTIZE from int8 or uint8 to `dtype`, one of these."""
    factor = float(np.float32(input_quant[0])) / float(np.float32(output_quant[0]))
    values = double_rounding(acts.astype(np.int64) - input_quant[1], *quantize_multiplier(factor)) + output_quant[1]
    return _clamp(values, activation_range("NONE", output_quant, dtype), dtype)


def quantize(values: np.ndarray, quant: Quantisation, dtype: Dtype = np.int8) -> np.ndarray:
    """QUANTIZE from float32 to `dtype`: divided in float32, rounded half away from zero."""
    quotient = (np.asarray(values, np.float32) / np.float32(quant[0])).astype(np.float64)
    rounded = np.trunc(quotient + np.copysign(0.5, quotient))
    info = np.iinfo(dtype)
    return np.clip(rounded + quant[1], info.min, info.max).astype(dtype)


def dequantize(acts: np.ndarray, quant: Quantisation) -> np.ndarray:
    """DEQUANTIZE to float32."""
    return np.float32(quant[0]) * (acts.astype(np.int32) - quant[1]).astype(np.float32)


def reshape(acts: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """RESHAPE; one extent may be -1."""
    return acts.reshape(tuple(shape))


def pad(acts: np.ndarray, paddings: Sequence[tuple[int, int]], zero_point: int) -> np.ndarray:
    """PAD: (before, after) for each axis, filled with the zero point."""
    return np.pad(acts, paddings, constant_values=zero_point)


def strided_slice(
    acts: np.ndarray, begins: Sequence[int | None], ends: Sequence[int | None], steps: Sequence[int]
) -> np.ndarray:
    """STRIDED_SLICE and SLICE; None where a mask leaves out an end."""
    return acts[tuple(slice(*part) for part in zip(begins, ends, steps, strict=True))]


def concatenate(parts: Sequence[np.ndarray], axis: int) -> np.ndarray:
    """CONCATENATION of tensors of one quantisation."""
    return np.concatenate(parts, axis)


def resize_nearest(acts: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """RESIZE_NEAREST_NEIGHBOR at whole factors."""
    _, height, width, _ = acts.shape
    return acts[:, np.arange(size[0]) * height // size[0]][:, :, np.arange(size[1]) * width // size[1]]


def mean(acts: np.ndarray, input_quant: Quantisation, output_quant: Quantisation) -> np.ndarray:
    """MEAN over rows and columns, int8 or uint8, (N, C): the sum, rescaled by D with the factor's multiplier divided
    by the number of pixels and rounded down.
    """
    count = acts.shape[1] * acts.shape[2]
    mult, left, right = quantize_multiplier(float(np.float32(input_quant[0])) / float(np.float32(output_quant[0])))
    shift = min(count.bit_length() - 1, 31 + left - right)
    exponent = left - right - shift
    total = acts.astype(np.int64).sum(axis=(1, 2)) - input_quant[1] * count
    values = double_rounding(total, (mult << shift) // count, max(exponent, 0), max(-exponent, 0)) + output_quant[1]
    return _clamp(values, activation_range("NONE", output_quant, acts.dtype), acts.dtype)


def _pads(extents: Sequence[int], spans: Sequence[int], stride: Sequence[int], padding: Padding) -> tuple[int, ...]:
    """(top, bottom, left, right); of an odd total the larger part comes at the bottom and the right."""
    if not isinstance(padding, str):
        return tuple(padding)
    if padding == "VALID":
        return 0, 0, 0, 0
    if padding != "SAME":
        raise ValueError(f"padding = {padding!r} is unknown: use SAME, VALID or (top, bottom, left, right)")
    totals = [
        max((-(-extent // step) - 1) * step + span - extent, 0)
        for extent, span, step in zip(extents, spans, stride, strict=True)
    ]
    return totals[0] // 2, totals[0] - totals[0] // 2, totals[1] // 2, totals[1] - totals[1] // 2


def _taps(
    acts: np.ndarray,
    zero_point: int,
    kernel: Sequence[int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    padding: Padding,
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield (ky, kx, pixels) for each tap: int32 of shape (N, OH, OW, IC), the zero point subtracted, pads 0."""
    spans = [(kernel[axis] - 1) * dilation[axis] + 1 for axis in (0, 1)]
    top, bottom, left, right = _pads(acts.shape[1:3], spans, stride, padding)
    image = np.pad(acts.astype(np.int32) - zero_point, ((0, 0), (top, bottom), (left, right), (0, 0)))
    num_oh, num_ow = ((image.shape[1 + axis] - spans[axis]) // stride[axis] + 1 for axis in (0, 1))
    for ky in range(kernel[0]):
        for kx in range(kernel[1]):
            y, x = ky * dilation[0], kx * dilation[1]
            yield (
                ky,
                kx,
                image[
                    :,
                    y : y + (num_oh - 1) * stride[0] + 1 : stride[0],
                    x : x + (num_ow - 1) * stride[1] + 1 : stride[1],
                ],
            )


def _factors(input_scale: float, weight_scale: float | np.ndarray, output_scale: float, num_oc: int) -> np.ndarray:
    """(q, L, R) for each channel, int64 of shape (3, num_oc)."""
    scales = np.broadcast_to(np.asarray(weight_scale, np.float32), num_oc).astype(np.float64)
    factors = float(np.float32(input_scale)) * scales / float(np.float32(output_scale))
    return np.array([quantize_multiplier(float(factor)) for factor in factors], np.int64).T


def _conv_rounding(acts: np.ndarray, bias: np.ndarray | None) -> Callable[..., np.ndarray]:
    """How a convolution rounds."""
    is_wide = acts.dtype == np.int16 and (bias is None or bias.dtype == np.int64)
    return reduced_rounding if is_wide else double_rounding


def _finish(
    acc: np.ndarray,
    bias: np.ndarray | None,
    factors: Iterable[np.ndarray],
    output_quant: Quantisation,
    activation: str,
    rounding: Callable[..., np.ndarray],
    dtype: Dtype,
) -> np.ndarray:
    """Bias, `rounding(acc, *factors)`, zero point and clamp; channels are last."""
    total = acc + (0 if bias is None else bias.astype(np.int64))
    total = wrap32(total) if rounding is double_rounding else total
    return _clamp(rounding(total, *factors) + output_quant[1], activation_range(activation, output_quant, dtype), dtype)


def _clamp(values: np.ndarray, limits: tuple[int, int], dtype: Dtype) -> np.ndarray:
    return np.clip(values, *limits).astype(dtype)
