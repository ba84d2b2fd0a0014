"""Operators of the graph -> what the NPU computes. Here: what runs on the NN engine, and pools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from convoy.driver.graph.graph import Graph, GraphError, Op, Runtime, Tensor
from convoy.spec.isa import Rounding, TpOp

from .batch import one_image
from .elementwise import ELEMENTWISE_LOWERINGS
from .float_factors import requantised
from .host_ops import host_reason
from .lut import LUT_KINDS
from .moves import MOVE_LOWERINGS
from .operands import (
    MAX_PAD,
    MAX_POOL_STRIDE,
    MAX_TAPS,
    activation,
    centred,
    clamp,
    constant,
    describe,
    image,
    moved,
    require,
    weight_constant,
)
from .quantise import MAX_SHIFT_LEFT, quantise_multiplier, reduced_multiplier, single_multipliers
from .reduce import REDUCE_LOWERINGS
from .work import Axis, ConvWork, HostWork, InterleaveWork, Lowering, PoolWork, Work

__all__ = [
    "LOWERINGS",
    "InexactError",
    "check_axes",
    "conv_axis",
    "inexact_channels",
    "lower_op",
    "num_taps",
    "window_axis",
]

KERNEL_PER_STRIDE = 11
"""Kernels of at most this many taps per axis and stride, less one, have small windows in any image."""
_NUM_NAMED = 3
"""Channels that a message names."""


def lower_op(graph: Graph, op: Op) -> Work:
    """What to do for one operator; for one image, if it treats those of a batch alike.

    Raises
    ------
    GraphError
        When the NPU cannot run it, and it is not one for the host; names the operator, the limit and the value seen.
    """
    graph = one_image(graph, op)
    lowerings = LOWERINGS
    if graph.runtime == Runtime.ONNXRUNTIME:
        from .onnx_operators import ONNX_LOWERINGS

        lowerings = {**LOWERINGS, **ONNX_LOWERINGS}
    if reason := host_reason(graph, op, frozenset(lowerings), LUT_KINDS):
        return HostWork(reason)
    try:
        return lowerings[op.kind](graph, op)
    except GraphError as error:
        raise GraphError(f"{describe(graph, op)}: {error}") from error


def inexact_channels(graph: Graph, op: Op) -> InexactError | None:
    """The only thing that keeps an operator from the NPU, if it is that some channels are not exact there."""
    try:
        lower_op(graph, op)
    except GraphError as error:
        return error.__cause__ if isinstance(error.__cause__, InexactError) else None
    return None


def window_axis(op: Op, axis: str, size_in: int, size_out: int, kernel: int) -> Axis:
    """One axis of a convolution or pool, with the pads of the operator."""
    stride, dilation = op.options.get(f"stride_{axis}", 1), op.options.get(f"dilation_{axis}", 1)
    extent = (kernel - 1) * dilation + 1
    if "pads" in op.options:
        top, bottom, left, right = op.options["pads"]
        before, after = (top, bottom) if axis == "h" else (left, right)
    elif op.options.get("padding", "VALID") == "SAME":
        total = max((-(-size_in // stride) - 1) * stride + extent - size_in, 0)
        before, after = total // 2, total - total // 2
    else:
        before = after = 0
    expected = (size_in + before + after - extent) // stride + 1
    require(
        expected == size_out and size_out > 0,
        f"output size {size_out} along {axis}; input {size_in}, pads {before} and {after}, "
        f"kernel {kernel}, stride {stride}, dilation {dilation} give {expected}",
    )
    return Axis(size_in, size_out, kernel, stride, dilation, before)


def conv_axis(op: Op, axis: str, size_in: int, size_out: int, kernel: int) -> Axis:
    """One axis of a convolution; with one output any stride gives the same result, so it becomes the smallest for
    which the window is small.
    """
    found = window_axis(op, axis, size_in, size_out, kernel)
    if size_out == 1:
        found = replace(found, stride=-(-(kernel + 1) // KERNEL_PER_STRIDE))
    return found


def num_taps(rows: Axis, cols: Axis) -> int:
    """Taps of a kernel, of each phase plane if the tensor processor takes the strides."""
    return -(-rows.kernel // max(rows.stride, 1)) * -(-cols.kernel // max(cols.stride, 1))


def check_axes(rows: Axis, cols: Axis) -> None:
    """Refuse taps and pads that a descriptor cannot say; the tiling sees to what the window memory cannot hold."""
    require(rows.kernel * cols.kernel >= 1, f"a kernel of {rows.kernel} x {cols.kernel} taps")
    require(
        num_taps(rows, cols) <= MAX_TAPS, f"a kernel of {rows.kernel} x {cols.kernel} taps; the limit is {MAX_TAPS}"
    )
    for axis, name in ((rows, "height"), (cols, "width")):
        require(axis.stride >= 1, f"stride {axis.stride} along {name}; use 1 or more")
        extent = (axis.size_out - 1) * axis.stride + (axis.kernel - 1) * axis.dilation + 1
        after = max(extent - axis.pad - axis.size_in, 0)
        require(axis.pad >= 0, f"a pad of {axis.pad} along {name}")
        require(max(axis.pad, after) <= MAX_PAD, f"pads {axis.pad} and {after} along {name}; the limit is {MAX_PAD}")


class InexactError(GraphError):
    """Some channels have factors that the NPU's multiplier does not apply exactly."""

    def __init__(self, channels: np.ndarray, num_oc: int, dtype: np.dtype):
        first = ", ".join(map(str, channels[:_NUM_NAMED].tolist())) + ", ..." * (len(channels) > _NUM_NAMED)
        which = "most channels" if 2 * len(channels) > num_oc else f"{len(channels)} of {num_oc} channels ({first})"
        super().__init__(
            f"factors of {which} cannot be applied exactly by a multiplier of the NPU; "
            f"results have {8 * dtype.itemsize} bits"
        )
        self.channels = channels
        """int64 (n,), in order; not all of them if they are most."""


def _requantisation(
    source: Tensor, weights: Tensor, target: Tensor, sums: np.ndarray, rounding: Rounding, limits: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Q31 multipliers and exponents per output channel.

    TFLite rounds a fully connected layer in float64; single rounding is proven equal for each channel, for every one of
    its `sums` (from, to; int64 (OC, 2)) and results clamped to `limits`, or the operator is refused: `InexactError`.
    With `HALF_UP` the multiplier has 15 bits.
    """
    num_oc = len(sums)
    quant = weights.quantisation
    require(quant.scale.size in (1, num_oc), f"{weights.name!r} has {quant.scale.size} scales; it needs 1 or {num_oc}")
    require(
        weights.dtype == np.int8 or quant.scale.size == 1,
        f"{weights.name!r} has {quant.scale.size} scales; weights of uint8 have one",
    )
    for scale in quant.scale.tolist():
        require(
            0 <= scale < float("inf"), f"a scale of {weights.name!r} is {scale:g}; scales are finite and not negative"
        )
    scales = np.broadcast_to(quant.scale, (num_oc,))
    scale_in, scale_out = float(source.quantisation.scale[0]), float(target.quantisation.scale[0])
    factors = [scale_in * float(scale) / scale_out for scale in scales]
    if rounding == Rounding.SINGLE:
        zero_point = int(target.quantisation.zero_point[0])
        clamped = limits[0] - zero_point, limits[1] - zero_point
        mult, exponent, is_exact = single_multipliers(np.array(factors), sums, clamped, num_oc // 2)
        if not is_exact.all():
            raise InexactError(np.flatnonzero(~is_exact), num_oc, target.dtype)
        return mult, exponent
    found = [(quantise_multiplier if rounding == Rounding.DOUBLE else reduced_multiplier)(factor) for factor in factors]
    mult, exponent = (np.array(column, np.int64) for column in zip(*found, strict=True))
    require(
        exponent.max() <= MAX_SHIFT_LEFT,
        f"requantisation needs a left shift of {exponent.max()}; the limit is {MAX_SHIFT_LEFT}",
    )
    return mult, exponent


def _fold(graph: Graph, op: Op, weights: np.ndarray, zero_point_in: int, copies: int) -> np.ndarray:
    """bias - zero_point_in * sum(weights), int64 (OC,); of 8 bits wrapped to 32 bits, as LiteRT's sums and the NPU's
    do.
    """
    bias, is_wide = np.zeros(weights.shape[0], np.int64), graph.tensors[op.inputs[0]].dtype == np.int16
    if len(op.inputs) > 2 and op.inputs[2] >= 0:
        is_long = graph.tensors[op.inputs[2]].dtype == np.int64
        bias = np.tile(
            constant(graph, op.inputs[2], np.int64 if is_wide and is_long else np.int32)
            .values.astype(np.int64)
            .reshape(-1),
            copies,
        )
        require(bias.size == weights.shape[0], f"{bias.size} biases for {weights.shape[0]} output channels")
    folded = bias - zero_point_in * weights.reshape(weights.shape[0], -1).sum(axis=1, dtype=np.int64)
    return folded if is_wide else folded.astype(np.int32).astype(np.int64)


def _sums(kernels: np.ndarray, bias: np.ndarray, is_wide: bool) -> np.ndarray:
    """Least and greatest sum of each output channel over all inputs, int64 (OC, 2); all of 32 bits where sums wrap."""
    weights, info = kernels.reshape(len(kernels), -1), np.iinfo(np.int16 if is_wide else np.int8)
    signed = np.stack([part(weights, 0).sum(axis=1, dtype=np.int64) for part in (np.maximum, np.minimum)], axis=1)
    ends = np.array([info.min, info.max], np.int64)
    sums = np.stack([signed @ ends, signed @ ends[::-1]], axis=1) + bias[:, None]
    limits = np.iinfo(np.int32)
    wraps = (sums[:, 0] < limits.min) | (sums[:, 1] > limits.max)
    return np.where(wraps[:, None], [limits.min, limits.max], sums)


def _has_room(work: ConvWork) -> bool:
    """Do the 16-bit sums fit? Those of low and of high bytes need 32 bits; the whole sums too, unless `HALF_UP` is
    what they are rounded with.
    """
    weights = np.abs(work.weights.reshape(work.num_oc, -1).astype(np.int64)).sum(axis=1)
    left = np.maximum(work.exponent, 0)
    sums = [255 * (weights + 1) << left, (128 * weights + np.abs(work.bias >> 8) + 1) << left]
    if work.rounding != Rounding.HALF_UP:
        sums.append((32768 * weights + np.abs(work.bias)) << left)
    return max(int(total.max()) for total in sums) < 1 << 31


def _conv_work(
    graph: Graph,
    op: Op,
    kernels: np.ndarray,
    rows: Axis,
    cols: Axis,
    in_shape: tuple[int, int, int, int],
    is_depthwise: bool,
    rounding: Rounding,
    copies: int = 1,
) -> ConvWork:
    """`kernels` are `copies` sets of as many as there are scales and biases."""
    source, (weights, zero_point), target = (
        graph.tensors[op.inputs[0]],
        weight_constant(graph, op),
        graph.tensors[op.outputs[0]],
    )
    wgt_zero_point = zero_point - 128 if weights.dtype == np.uint8 else zero_point
    is_wide = activation(graph, op.outputs[0], is_wide_ok=True).dtype == np.int16
    require(
        source.dtype == target.dtype,
        f"{source.name!r} is {source.dtype}, {target.name!r} is {target.dtype}; they should be the same",
    )
    require(not (is_wide and wgt_zero_point), f"{weights.name!r} has a zero point; with int16 activations use 0")
    zero_point_in = int(source.quantisation.zero_point[0])
    bias = _fold(graph, op, kernels, zero_point_in, copies)
    act_min, act_max = clamp(op, target)
    num_oc, num_doubts, factors = kernels.shape[0] // copies, 0, list[np.ndarray]()
    sums = _sums(kernels, bias, is_wide)[:num_oc]
    if graph.runtime == Runtime.ONNXRUNTIME:
        rounding = Rounding.FLOAT
        *factors, num_doubts = requantised(source, weights, target, sums, is_float=op.options.get("is_float", False))
    else:
        factors[:] = _requantisation(source, weights, target, sums, rounding, (act_min, act_max))
    mult, exponent = (np.tile(values, copies) for values in factors)
    work = ConvWork(
        in_shape[3],
        rows,
        cols,
        is_depthwise,
        np.ascontiguousarray(kernels),
        bias,
        mult,
        exponent,
        zero_point_in,
        int(target.quantisation.zero_point[0]),
        act_min,
        act_max,
        rounding,
        in_shape,
        wgt_zero_point=wgt_zero_point,
        is_wide=is_wide,
        num_doubts=num_doubts,
    )
    require(
        not is_wide or _has_room(work),
        "the sums of a channel may exceed 32 bits; smaller weights, a smaller bias or fewer inputs are needed",
    )
    return work


def _lower_conv(graph: Graph, op: Op) -> ConvWork:
    source, (weights, zero_point), target = (
        activation(graph, op.inputs[0], is_wide_ok=True),
        weight_constant(graph, op),
        graph.tensors[op.outputs[0]],
    )
    in_shape, out_shape = image(source), image(target)
    is_depthwise = op.kind == "DEPTHWISE_CONV_2D"
    if is_depthwise:
        _, kernel_h, kernel_w, num_oc = weights.shape
        kernels = centred(weights, zero_point).transpose(3, 1, 2, 0)
        require(
            num_oc % in_shape[3] == 0, f"{num_oc} output channels are not a multiple of {in_shape[3]} input channels"
        )
        is_depthwise = in_shape[3] > 1
    else:
        num_oc, kernel_h, kernel_w, num_ic = weights.shape
        kernels = centred(weights, zero_point)
        require(
            num_ic == in_shape[3],
            f"kernels of {num_ic} channels on an input of {in_shape[3]}: grouped convolutions are not supported",
        )
    require(out_shape[3] == num_oc, f"{num_oc} kernels for {out_shape[3]} output channels")
    rows = conv_axis(op, "h", in_shape[1], out_shape[1], kernel_h)
    cols = conv_axis(op, "w", in_shape[2], out_shape[2], kernel_w)
    check_axes(rows, cols)
    return _conv_work(graph, op, kernels, rows, cols, in_shape, is_depthwise, _conv_rounding(graph, op))


def _conv_rounding(graph: Graph, op: Op) -> Rounding:
    """How LiteRT rounds the sums of a convolution with inputs (source, weights, bias)."""
    has_int32 = len(op.inputs) > 2 and op.inputs[2] >= 0 and graph.tensors[op.inputs[2]].dtype == np.int32
    is_wide = graph.tensors[op.inputs[0]].dtype == np.int16
    return Rounding.HALF_UP if is_wide and not has_int32 else Rounding.DOUBLE


def _lower_fully_connected(graph: Graph, op: Op) -> ConvWork:
    require(not op.options.get("is_shuffled"), "only the default weights format is supported")
    source, (weights, zero_point) = activation(graph, op.inputs[0], is_wide_ok=True), weight_constant(graph, op)
    num_oc, num_ic = weights.shape
    size = int(np.prod(source.shape))
    require(size % num_ic == 0, f"{size} inputs are not a multiple of the {num_ic} that a kernel takes")
    batch = size // num_ic
    target = graph.tensors[op.outputs[0]]
    require(int(np.prod(target.shape)) == batch * num_oc, f"output shape {target.shape} is not {batch} x {num_oc}")
    rows, cols, in_shape = Axis(1, 1), Axis(batch, batch), (1, 1, batch, num_ic)
    if "is_image" in op.options:
        in_shape = image(source)
        rows, cols = (Axis(size, 1, size) for size in in_shape[1:3])
    return _conv_work(
        graph,
        op,
        centred(weights, zero_point).reshape(num_oc, rows.kernel, cols.kernel, in_shape[3]),
        rows,
        cols,
        in_shape,
        False,
        Rounding.SINGLE,
    )


def _lower_transpose_conv(graph: Graph, op: Op) -> ConvWork | HostWork:
    """Each place (y, x) within a stride is a convolution of stride 1 with the taps that reach it; they are the
    kernels of one convolution, whose outputs are then interleaved. With r the stride and p the pads, output r*i + y
    gets tap k = (y + p) mod r + r*t from input i + (y + p) div r - t.
    """
    require(len(op.inputs) >= 3, f"{len(op.inputs)} inputs")
    source, (weights, zero_point), target = (
        activation(graph, op.inputs[2], is_wide_ok=True),
        weight_constant(graph, op),
        activation(graph, op.outputs[0], is_wide_ok=True),
    )
    in_shape, out_shape = image(source), image(target)
    require(len(weights.shape) == 4, f"{weights.name!r} has {len(weights.shape)} axes")
    num_oc, _, _, num_ic = weights.shape
    require(
        (num_ic, num_oc) == (in_shape[3], out_shape[3]),
        f"kernels {weights.shape} for {in_shape[3]} input and {out_shape[3]} output channels",
    )
    kernels, rows, cols = transposed_kernels(op, in_shape, out_shape, centred(weights, zero_point))
    stride_h, stride_w = op.options["stride_h"], op.options["stride_w"]
    check_axes(rows, cols)
    op = replace(op, inputs=(op.inputs[2], op.inputs[1], *op.inputs[3:]))
    work = _conv_work(graph, op, kernels, rows, cols, in_shape, False, _conv_rounding(graph, op), stride_h * stride_w)
    if isinstance(work, HostWork):
        return work
    has_strides = (stride_h, stride_w) != (1, 1)
    interleave = (
        InterleaveWork(work.value_bytes * num_oc, stride_h, stride_w, (rows.size_out, cols.size_out), out_shape[1:3])
        if has_strides
        else None
    )
    return replace(work, source=2, interleave=interleave)


def transposed_kernels(
    op: Op, in_shape: Sequence[int], out_shape: Sequence[int], values: np.ndarray
) -> tuple[np.ndarray, Axis, Axis]:
    """Kernels and axes of a convolution of stride 1 that computes a transposed one: its output channel (y*stride_w +
    x)*OC + c is channel c at place (y, x) within a stride.

    Parameters
    ----------
    in_shape, out_shape : NHWC
    values : the operator's kernels (OC, KH, KW, IC), less their zero point

    Returns
    -------
    kernels (stride_h*stride_w*OC, rows.kernel, cols.kernel, IC) of the dtype of `values`; rows; columns
    """
    (rows, row_taps), (cols, col_taps) = (
        _transposed_axis(op, name, in_shape[n], out_shape[n], values.shape[n]) for n, name in ((1, "h"), (2, "w"))
    )
    num_oc, _, _, num_ic = values.shape
    strides = op.options["stride_h"], op.options["stride_w"]
    kernels = np.zeros((*strides, num_oc, rows.kernel, cols.kernel, num_ic), values.dtype)
    for y, y_tap, ky in row_taps:
        for x, x_tap, kx in col_taps:
            kernels[y, x, :, y_tap, x_tap] = values[:, ky, kx]
    return kernels.reshape(-1, *kernels.shape[3:]), rows, cols


def _transposed_axis(
    op: Op, axis: str, size_in: int, size_out: int, kernel: int
) -> tuple[Axis, list[tuple[int, int, int]]]:
    """The axis of the convolution of stride 1, and (place within the stride, its tap, tap of the operator) of each
    tap.
    """
    stride = op.options[f"stride_{axis}"]
    require(stride >= 1, f"stride {stride} along {axis}; use 1 or more")
    if "pads" in op.options:
        pad = op.options["pads"][{"h": 0, "w": 2}[axis]]
    else:
        is_same = op.options["padding"] == "SAME"
        expected = -(-size_out // stride) if is_same else (size_out - kernel + stride) // stride
        require(expected == size_in, f"{size_in} inputs along {axis}; an output of {size_out} needs {expected}")
        pad = max((size_in - 1) * stride + kernel - size_out, 0) // 2
    reads = [
        (place, (place + pad) // stride - t, (place + pad) % stride + stride * t)
        for place in range(stride)
        for t in range(-(-(kernel - (place + pad) % stride) // stride))
    ]
    first = min(0, *(shift for _, shift, _ in reads))
    last = max(0, *(shift for _, shift, _ in reads))
    return Axis(size_in, -(-size_out // stride), last - first + 1, pad=-first), [
        (place, shift - first, tap) for place, shift, tap in reads
    ]


def _lower_pool(graph: Graph, op: Op) -> PoolWork:
    source, target = moved(graph, op.inputs[0]), moved(graph, op.outputs[0])
    in_shape, out_shape = image(source), image(target)
    require(
        source.dtype == target.dtype,
        f"{source.name!r} is {source.dtype}, {target.name!r} is {target.dtype}; they should be the same",
    )
    rows = window_axis(op, "h", in_shape[1], out_shape[1], op.options["filter_h"])
    cols = window_axis(op, "w", in_shape[2], out_shape[2], op.options["filter_w"])
    require(max(rows.stride, cols.stride) <= MAX_POOL_STRIDE, f"the limit of a pool's stride is {MAX_POOL_STRIDE}")
    act_min, act_max = clamp(op, target)
    return PoolWork(
        TpOp.MAX_POOL if op.kind == "MAX_POOL_2D" else TpOp.AVG_POOL,
        in_shape[3],
        rows,
        cols,
        act_min,
        act_max,
        op.options.get("is_half_up", False),
        is_wide=source.dtype == np.int16,
        fill=op.options.get("fill"),
    )


LOWERINGS: dict[str, Lowering] = {
    "CONV_2D": _lower_conv,
    "DEPTHWISE_CONV_2D": _lower_conv,
    "FULLY_CONNECTED": _lower_fully_connected,
    "TRANSPOSE_CONV": _lower_transpose_conv,
    "AVERAGE_POOL_2D": _lower_pool,
    "MAX_POOL_2D": _lower_pool,
    **REDUCE_LOWERINGS,
    **MOVE_LOWERINGS,
    **ELEMENTWISE_LOWERINGS,
}
