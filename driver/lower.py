"""Operators of the graph -> what the NPU computes: geometry, weights and folded constants, still without layout or tiles."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from convoy.spec.isa import NN, Rounding, TpOp

from .graph import Graph, GraphError, Op, Tensor
from .host import HOST_OPS
from .lut import LUT_KINDS, make_lut
from .quantise import activation_range, add_multipliers, mean_multiplier, quantise_multiplier, single_multiplier

__all__ = ["NATIVE_STRIDES", "AddWork", "Axis", "ConcatWork", "ConvWork", "FusedWork", "HostWork", "LutWork", "MoveAxis", "MoveWork", "MovesWork", "PoolWork",
           "RepeatWork", "ReshapeWork", "Residual", "ResizeWork", "Work", "describe", "lower_op", "nhwc"]

NATIVE_STRIDES = 1, 2
"""Strides of the NN engine; for others the tensor processor splits the image into phases first."""
MAX_STRIDE = 8
MAX_PAD = 7
MAX_SHIFT_LEFT = 7
MAX_TAPS = NN.fields["num_taps"].max
HOST_KINDS = {
    "SOFTMAX": "the NPU has no exponential",
    "DEQUANTIZE": "conversion between number formats at the edge of the network",
}


@dataclass(frozen=True)
class Axis:
    """One axis (rows or columns) of a convolution or pool; coordinates with pads count from the first pad pixel."""

    size_in: int
    size_out: int
    kernel: int = 1
    stride: int = 1
    dilation: int = 1
    pad: int = 0
    """Pad pixels before the image; those behind follow from `size_out`."""

    @property
    def taps(self) -> list[tuple[int, int]]:
        """(phase, shift within the phase plane) of each kernel position."""
        return [((k * self.dilation) % self.stride, (k * self.dilation) // self.stride) for k in range(self.kernel)]

    @property
    def phases(self) -> tuple[int, ...]:
        """Phases that a tap reads, ascending."""
        return tuple(sorted({phase for phase, _ in self.taps}))

    @property
    def max_shift(self) -> int:
        """Largest shift of a tap within its phase plane."""
        return max(shift for _, shift in self.taps)

    @property
    def is_plain(self) -> bool:
        """A kernel of 1 at stride 1 without pads."""
        return (self.kernel, self.stride, self.pad) == (1, 1, 0) and self.size_in == self.size_out

    def clip(self, first_out: int, num_out: int) -> tuple[int, int, int]:
        """(first input pixel, number of input pixels, pads before them) that outputs `first_out ..` need.

        At least one input pixel is loaded: when all that is needed is pad, one follows the pads and is not used.
        """
        start = first_out * self.stride - self.pad
        extent = (num_out - 1) * self.stride + (self.kernel - 1) * self.dilation + 1
        first, end = max(start, 0), min(start + extent, self.size_in)
        return (first, end - first, first - start) if end > first else (0, 1, extent)


@dataclass(frozen=True)
class Residual:
    """A tensor that is added to the outputs of a convolution; `fields` are the arithmetic fields of the NN descriptor."""

    tensor: int
    fields: dict[str, int]


@dataclass(frozen=True)
class ConvWork:
    """A convolution, depthwise convolution or fully connected layer on the NN engine. Image batch 1."""

    num_ic: int
    rows: Axis
    cols: Axis
    is_depthwise: bool
    weights: np.ndarray
    """int8 (OC, KH, KW, IC); depthwise (OC, KH, KW, 1), output channel = input channel * multiplier + m."""
    bias: np.ndarray
    """int64 (OC,), zero point of the input folded in."""
    mult: np.ndarray
    """int64 (OC,), Q31."""
    exponent: np.ndarray
    """int64 (OC,): left shift if positive, right shift if negative."""
    zero_point_in: int
    zero_point_out: int
    act_min: int
    act_max: int
    rounding: Rounding
    in_shape: tuple[int, int, int, int]
    """The input seen as NHWC."""
    lut: np.ndarray | None = None
    """Table that the outputs are looked up in, as from `make_lut`."""
    residual: Residual | None = None
    """Added to the outputs last."""

    @property
    def num_oc(self) -> int:
        """Output channels."""
        return self.weights.shape[0]

    def folded(self, num_taps: int) -> ConvWork:
        """A fully connected layer on one pixel, seen as `num_ic / num_taps` channels of `num_taps` columns: the same bytes, denser in the stripe."""
        weights = self.weights.reshape(self.num_oc, 1, -1, num_taps).transpose(0, 1, 3, 2)
        return replace(self, num_ic=self.num_ic // num_taps, cols=Axis(num_taps, 1, num_taps), weights=np.ascontiguousarray(weights))

    @property
    def multiplier(self) -> int:
        """Output channels per input channel of a depthwise convolution."""
        return self.num_oc // self.num_ic

    def oriented(self, is_transposed: bool) -> ConvWork:
        """The same work on images stored with rows and columns exchanged."""
        if not is_transposed:
            return self
        return replace(self, rows=self.cols, cols=self.rows, weights=np.ascontiguousarray(self.weights.transpose(0, 2, 1, 3)))


@dataclass(frozen=True)
class PoolWork:
    """A maximum or average pool on the TP engine."""

    op: TpOp
    num_ic: int
    rows: Axis
    cols: Axis
    act_min: int
    act_max: int
    lut: np.ndarray | None = None
    """Table that the outputs are looked up in."""

    def oriented(self, is_transposed: bool) -> PoolWork:
        """The same work on images stored with rows and columns exchanged."""
        return replace(self, rows=self.cols, cols=self.rows) if is_transposed else self


@dataclass(frozen=True)
class AddWork:
    """Elementwise sum of two tensors of one shape; `fields` are the arithmetic fields of a TP descriptor."""

    num_elements: int
    fields: dict[str, int]
    lut: np.ndarray | None = None
    """Table that the outputs are looked up in."""


@dataclass(frozen=True)
class LutWork:
    """A function of each element on the TP engine."""

    num_elements: int
    lut: np.ndarray


@dataclass(frozen=True)
class FusedWork:
    """Done by the operator that makes the operand."""

    operand: int


@dataclass(frozen=True)
class MoveAxis:
    """One axis of a move: `count` pixels of the source from `start`, `step` apart, go to the target from `target_start`, in a frame."""

    source_size: int
    target_size: int
    count: int
    start: int = 0
    step: int = 1
    target_start: int = 0
    before: int = 0
    """Pixels of the frame before those of the source; they come first at `target_start`."""
    behind: int = 0

    @property
    def extent(self) -> int:
        """Pixels of the target that are written."""
        return self.before + self.count + self.behind


@dataclass(frozen=True)
class MoveWork:
    """A box of an image put into another one on the TP engine: pads, slices, concatenations. Channels have no frame."""

    rows: MoveAxis
    cols: MoveAxis
    channels: MoveAxis
    zero_point: int
    """The value of the frame."""

    def oriented(self, is_transposed: bool) -> MoveWork:
        """The same work on images stored with rows and columns exchanged."""
        return replace(self, rows=self.cols, cols=self.rows) if is_transposed else self


@dataclass(frozen=True)
class MovesWork:
    """Boxes of one image put into others: (number of the output, move)."""

    source: int
    """Number of the operator's input."""
    moves: tuple[tuple[int, MoveWork], ...]


@dataclass(frozen=True)
class RepeatWork:
    """Every pixel `times_h` by `times_w` times on the TP engine, in `num_rows` rows of all channels."""

    num_rows: int
    width: int
    times_h: int
    times_w: int


@dataclass(frozen=True)
class ResizeWork:
    """Nearest neighbours at whole factors."""

    times_h: int
    times_w: int


@dataclass(frozen=True)
class ConcatWork:
    """Tensors put next to one another along an axis of (h, w, c)."""

    axis: int


@dataclass(frozen=True)
class ReshapeWork:
    """Another shape for the same elements."""


@dataclass(frozen=True)
class HostWork:
    """Left to the host."""

    reason: str


Work = ConvWork | PoolWork | AddWork | LutWork | MovesWork | ResizeWork | ConcatWork | ReshapeWork | HostWork
"""What an operator is lowered to."""


def nhwc(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """A shape of at most four axes with ones put in front.

    Raises
    ------
    GraphError
        When there are more than four axes.
    """
    if len(shape) > 4:
        raise GraphError(f"shape {tuple(shape)} has more than 4 axes")
    return (1,) * (4 - len(shape)) + tuple(int(extent) for extent in shape)


def describe(graph: Graph, op: Op) -> str:
    """How errors name an operator: kind, position, output tensor."""
    return f"operator {op.index} {op.kind} ({graph.tensors[op.outputs[0]].name!r})"


def lower_op(graph: Graph, op: Op) -> Work:
    """What to do for one operator.

    Raises
    ------
    GraphError
        When neither NPU nor host can run it; names the operator, the limit and the value seen.
    """
    if op.kind in HOST_KINDS:
        return HostWork(HOST_KINDS[op.kind])
    lowering = {
        "CONV_2D": _lower_conv, "DEPTHWISE_CONV_2D": _lower_conv, "FULLY_CONNECTED": _lower_fully_connected, "ADD": _lower_add,
        "AVERAGE_POOL_2D": _lower_pool, "MAX_POOL_2D": _lower_pool, "RESHAPE": _lower_reshape,
        "MEAN": _lower_mean, "PAD": _lower_pad, "SLICE": _lower_slice, "STRIDED_SLICE": _lower_slice, "CONCATENATION": _lower_concatenation,
        "RESIZE_NEAREST_NEIGHBOR": _lower_resize, "SPLIT": _lower_split, "SPACE_TO_DEPTH": _lower_space_to_depth,
        **dict.fromkeys(LUT_KINDS, _lower_lut),
    }.get(op.kind)
    if lowering is None:
        raise GraphError(f"{describe(graph, op)} is not supported by the NPU or the host")
    try:
        return lowering(graph, op)
    except GraphError as error:
        raise GraphError(f"{describe(graph, op)}: {error}") from error


def _require(legal: bool, message: str) -> None:
    if not legal:
        raise GraphError(message)


def _activation(graph: Graph, index: int) -> Tensor:
    tensor = graph.tensors[index]
    _require(tensor.data is None, f"{tensor.name!r} is a constant where an activation is expected")
    _require(tensor.dtype == np.int8, f"{tensor.name!r} is {tensor.dtype}; the NPU computes on int8")
    _require(tensor.quant is not None and tensor.quant.scale.size == 1, f"{tensor.name!r} needs one scale and zero point")
    return tensor


def _constant(graph: Graph, index: int, dtype: type) -> Tensor:
    tensor = graph.tensors[index]
    _require(tensor.data is not None, f"{tensor.name!r} must be a constant")
    _require(tensor.dtype == dtype, f"{tensor.name!r} is {tensor.dtype}; the NPU takes {np.dtype(dtype)}")
    return tensor


def _image(tensor: Tensor) -> tuple[int, int, int, int]:
    shape = nhwc(tensor.shape)
    _require(shape[0] == 1, f"batch {shape[0]} of {tensor.name!r}; only batch 1 is supported")
    return shape


def _axis(op: Op, axis: str, size_in: int, size_out: int, kernel: int) -> Axis:
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
    _require(expected == size_out and size_out > 0, f"output size {size_out} along {axis}; input {size_in}, pads {before} and {after}, "
             f"kernel {kernel}, stride {stride}, dilation {dilation} give {expected}")
    return Axis(size_in, size_out, kernel, stride, dilation, before)


def _check_axis(axis: Axis, name: str) -> None:
    _require(1 <= axis.stride <= MAX_STRIDE, f"stride {axis.stride} along {name}; the limit is 1..{MAX_STRIDE}")
    limit = 11 * axis.stride - 1
    _require(1 <= axis.kernel <= limit, f"kernel {axis.kernel} along {name}; at stride {axis.stride} the limit is 1..{limit}")
    extent = (axis.size_out - 1) * axis.stride + (axis.kernel - 1) * axis.dilation + 1
    after = max(extent - axis.pad - axis.size_in, 0)
    _require(max(axis.pad, after) <= MAX_PAD, f"pads {axis.pad} and {after} along {name}; the limit is {MAX_PAD}")


def _requantisation(source: Tensor, weights: Tensor, target: Tensor, num_oc: int, rounding: Rounding) -> tuple[np.ndarray, np.ndarray]:
    """Q31 multipliers and exponents per output channel.

    TFLite rounds a fully connected layer with a scale per channel in float64; single rounding is proven equal for each channel, or refused.
    """
    _require(weights.quant is not None and weights.quant.scale.size in (1, num_oc), f"{weights.name!r} needs 1 or {num_oc} scales")
    _require(not np.any(weights.quant.zero_point), f"{weights.name!r} has a zero point; int8 weights are symmetric")
    scales = np.broadcast_to(weights.quant.scale, (num_oc,))
    scale_in, scale_out = float(source.quant.scale[0]), float(target.quant.scale[0])
    factors = [scale_in * float(scale) / scale_out for scale in scales]
    is_float64 = rounding == Rounding.SINGLE and weights.quant.scale.size > 1
    pairs = [single_multiplier(factor) if is_float64 else quantise_multiplier(factor) for factor in factors]
    _require(None not in pairs, f"the factor {factors[pairs.index(None)] if None in pairs else 0} of a channel cannot be applied exactly")
    mult, exponent = (np.array(column, np.int64) for column in zip(*pairs, strict=True))
    _require(exponent.max() <= MAX_SHIFT_LEFT, f"requantisation needs a left shift of {exponent.max()}; the limit is {MAX_SHIFT_LEFT}")
    return mult, exponent


def _fold(graph: Graph, op: Op, weights: np.ndarray, zero_point_in: int) -> np.ndarray:
    """bias - zero_point_in * sum(weights), int64 (OC,)."""
    bias = np.zeros(weights.shape[0], np.int64)
    if len(op.inputs) > 2 and op.inputs[2] >= 0:
        bias = _constant(graph, op.inputs[2], np.int32).data.astype(np.int64).reshape(-1)
        _require(bias.size == weights.shape[0], f"{bias.size} biases for {weights.shape[0]} output channels")
    folded = bias - zero_point_in * weights.reshape(weights.shape[0], -1).sum(axis=1, dtype=np.int64)
    _require(np.abs(folded).max() < 1 << 31, "a bias with the input zero point folded in exceeds 32 bits")
    return folded


def _conv_work(graph: Graph, op: Op, source: Tensor, weights: Tensor, kernels: np.ndarray, rows: Axis, cols: Axis,
               in_shape: tuple[int, int, int, int], is_depthwise: bool, rounding: Rounding) -> ConvWork:
    target = _activation(graph, op.outputs[0])
    mult, exponent = _requantisation(source, weights, target, kernels.shape[0], rounding)
    zero_point_in = int(source.quant.zero_point[0])
    act_min, act_max = _clamp(op, target)
    return ConvWork(in_shape[3], rows, cols, is_depthwise, np.ascontiguousarray(kernels), _fold(graph, op, kernels, zero_point_in), mult,
                    exponent, zero_point_in, int(target.quant.zero_point[0]), act_min, act_max, rounding, in_shape)


def _clamp(op: Op, target: Tensor) -> tuple[int, int]:
    activation = op.options.get("activation", "NONE")
    try:
        return activation_range(activation, target.quant, target.dtype)
    except KeyError:
        raise GraphError(f"fused activation {activation} is not supported") from None


def _lower_conv(graph: Graph, op: Op) -> ConvWork:
    source, weights, target = _activation(graph, op.inputs[0]), _constant(graph, op.inputs[1], np.int8), graph.tensors[op.outputs[0]]
    in_shape, out_shape = _image(source), _image(target)
    is_depthwise = op.kind == "DEPTHWISE_CONV_2D"
    if is_depthwise:
        _, kernel_h, kernel_w, num_oc = weights.shape
        kernels = weights.data.transpose(3, 1, 2, 0)
        _require(num_oc % in_shape[3] == 0, f"{num_oc} output channels are not a multiple of {in_shape[3]} input channels")
        is_depthwise = in_shape[3] > 1
    else:
        num_oc, kernel_h, kernel_w, num_ic = weights.shape
        kernels = weights.data
        _require(num_ic == in_shape[3], f"kernels of {num_ic} channels on an input of {in_shape[3]}: grouped convolutions are not supported")
    _require(out_shape[3] == num_oc, f"{num_oc} kernels for {out_shape[3]} output channels")
    rows = _axis(op, "h", in_shape[1], out_shape[1], kernel_h)
    cols = _axis(op, "w", in_shape[2], out_shape[2], kernel_w)
    _check_axis(rows, "height")
    _check_axis(cols, "width")
    return _conv_work(graph, op, source, weights, kernels, rows, cols, in_shape, is_depthwise, Rounding.DOUBLE)


def _lower_fully_connected(graph: Graph, op: Op) -> ConvWork:
    source, weights = _activation(graph, op.inputs[0]), _constant(graph, op.inputs[1], np.int8)
    num_oc, num_ic = weights.shape
    size = int(np.prod(source.shape))
    _require(size % num_ic == 0, f"{size} inputs are not a multiple of the {num_ic} that a kernel takes")
    batch = size // num_ic
    target = graph.tensors[op.outputs[0]]
    _require(int(np.prod(target.shape)) == batch * num_oc, f"output shape {target.shape} is not {batch} x {num_oc}")
    return _conv_work(graph, op, source, weights, weights.data.reshape(num_oc, 1, 1, num_ic), Axis(1, 1), Axis(batch, batch),
                      (1, 1, batch, num_ic), False, Rounding.SINGLE)


def _require_same_quant(source: Tensor, target: Tensor) -> None:
    same = np.isclose(source.quant.scale[0], target.quant.scale[0], rtol=1e-6) and source.quant.zero_point[0] == target.quant.zero_point[0]
    _require(bool(same), "input and output must have the same scale and zero point")


def _lower_mean(graph: Graph, op: Op) -> ConvWork:
    """The mean of each channel: a depthwise convolution with a kernel of ones as large as the image."""
    source, target = _activation(graph, op.inputs[0]), _activation(graph, op.outputs[0])
    _, height, width, num_ic = in_shape = _image(source)
    axes = sorted(int(axis) % len(source.shape) for axis in _constant(graph, op.inputs[1], np.int32).data.reshape(-1))
    _require(len(source.shape) == 4 and axes == [1, 2], f"mean over axes {axes} of {source.shape}; the NPU takes rows and columns of a tensor of 4 axes")
    _require(height * width <= MAX_TAPS, f"mean of {height} x {width} pixels; the limit is {MAX_TAPS}")
    factor = float(source.quant.scale[0]) / float(target.quant.scale[0])
    mult, exponent = mean_multiplier(factor, height * width)
    _require(exponent <= MAX_SHIFT_LEFT, f"requantisation needs a left shift of {exponent}; the limit is {MAX_SHIFT_LEFT}")
    zero_point_in, act_range = int(source.quant.zero_point[0]), np.iinfo(np.int8)
    return ConvWork(num_ic, Axis(height, 1, height), Axis(width, 1, width), num_ic > 1, np.ones((num_ic, height, width, 1), np.int8),
                    np.full(num_ic, -zero_point_in * height * width, np.int64), np.full(num_ic, mult, np.int64), np.full(num_ic, exponent, np.int64),
                    zero_point_in, int(target.quant.zero_point[0]), int(act_range.min), int(act_range.max), Rounding.DOUBLE, in_shape)


def _move_tensors(graph: Graph, op: Op) -> tuple[Tensor, Tensor]:
    """Input and output of an operator that moves values."""
    source, target = _activation(graph, op.inputs[0]), _activation(graph, op.outputs[0])
    _image(source)
    _image(target)
    _require_same_quant(source, target)
    return source, target


def _lower_pad(graph: Graph, op: Op) -> MovesWork:
    source, target = _move_tensors(graph, op)
    values = _constant(graph, op.inputs[1], np.int32).data
    _require(values.size == 2 * len(source.shape), f"{values.size} pads for {len(source.shape)} axes")
    pads = values.reshape(-1, 2).astype(np.int64)
    pads = np.concatenate([np.zeros((4 - len(pads), 2), np.int64), pads])
    _require(not pads[[0, 3]].any(), "only rows and columns can be padded")
    _require(bool((pads >= 0).all()), "a pad is negative")
    sizes, padded = nhwc(source.shape), nhwc(target.shape)
    _require(all(size + pad.sum() == total for size, pad, total in zip(sizes, pads, padded, strict=True)), f"{sizes} with the pads is not {padded}")
    rows, cols, channels = (MoveAxis(sizes[axis], padded[axis], sizes[axis], before=int(pads[axis, 0]), behind=int(pads[axis, 1])) for axis in (1, 2, 3))
    return MovesWork(0, ((0, MoveWork(rows, cols, channels, int(target.quant.zero_point[0]))),))


def _lower_slice(graph: Graph, op: Op) -> MovesWork:
    source, target = _move_tensors(graph, op)
    begins, ends = (_constant(graph, index, np.int32).data.reshape(-1).astype(int).tolist() for index in op.inputs[1:3])
    steps = [1] * len(begins)
    if op.kind == "STRIDED_SLICE":
        _require(not op.options["shrink_axis_mask"] | op.options["new_axis_mask"] | op.options["ellipsis_mask"], "the slice adds or removes axes")
        steps = _constant(graph, op.inputs[3], np.int32).data.reshape(-1).astype(int).tolist()
        begins = [None if op.options["begin_mask"] >> axis & 1 else begin for axis, begin in enumerate(begins)]
        ends = [None if op.options["end_mask"] >> axis & 1 else end for axis, end in enumerate(ends)]
    else:
        ends = [None if size == -1 else begin + size for begin, size in zip(begins, ends, strict=True)]
    rank = len(source.shape)
    _require({len(begins), len(ends), len(steps), len(target.shape)} == {rank} and min(steps) >= 1, "the slice has another number of axes, or a step below 1")
    chosen = [range(size)[begin:end:step] for size, begin, end, step in zip(source.shape, begins, ends, steps, strict=True)]
    _require(tuple(map(len, chosen)) == tuple(target.shape), f"the slice has {list(map(len, chosen))} elements, its tensor {list(target.shape)}")
    axes = [MoveAxis(size, len(part), len(part), part.start, part.step) for size, part in zip(source.shape, chosen, strict=True)]
    rows, cols, channels = ([MoveAxis(1, 1, 1)] * 3 + axes)[-3:]
    return MovesWork(0, ((0, MoveWork(rows, cols, channels, 0)),))


def _lower_split(graph: Graph, op: Op) -> MovesWork:
    _require(len(op.inputs) == 2, f"{len(op.inputs)} inputs")
    source, axis = _activation(graph, op.inputs[1]), _constant(graph, op.inputs[0], np.int32).data
    _require(axis.size == 1 and -len(source.shape) <= axis.item() < len(source.shape), "the axis does not exist")
    shape, part = _image(source), axis.item() % len(source.shape) + 4 - len(source.shape)
    _require(part > 0 and shape[part] % len(op.outputs) == 0, f"{shape} cannot be cut in {len(op.outputs)} parts along axis {axis.item()}")
    size, moves = shape[part] // len(op.outputs), []
    for n, index in enumerate(op.outputs):
        target = _activation(graph, index)
        _require_same_quant(source, target)
        expected = tuple(size if axis == part else extent for axis, extent in enumerate(shape))
        _require(nhwc(target.shape) == expected, f"{target.name!r} should be {expected}")
        axes = [MoveAxis(extent, extent, extent) for extent in shape]
        axes[part] = MoveAxis(shape[part], size, size, start=n * size)
        moves.append((n, MoveWork(*axes[1:], 0)))
    return MovesWork(1, tuple(moves))


def _lower_space_to_depth(graph: Graph, op: Op) -> MovesWork:
    source, target = _move_tensors(graph, op)
    (_, height, width, num_c), block, shape = nhwc(source.shape), op.options["block_size"], nhwc(target.shape)
    _require(shape == (1, height // block, width // block, num_c * block * block) and not height % block and not width % block,
             f"blocks of {block} of {source.shape} do not give {target.shape}")
    return MovesWork(0, tuple((0, MoveWork(
        MoveAxis(height, shape[1], shape[1], dy, block), MoveAxis(width, shape[2], shape[2], dx, block),
        MoveAxis(num_c, shape[3], num_c, target_start=(dy * block + dx) * num_c), 0)) for dy in range(block) for dx in range(block)))


def _lower_concatenation(graph: Graph, op: Op) -> ConcatWork:
    target = _activation(graph, op.outputs[0])
    axis = op.options["axis"] % len(target.shape) + 4 - len(target.shape) - 1
    _require(axis >= 0, "tensors cannot be concatenated along the batch")
    _require(op.options["activation"] == "NONE", f"fused activation {op.options['activation']} is not supported")
    _image(target)
    for index in op.inputs:
        source = _activation(graph, index)
        _require_same_quant(source, target)
        _require(len(source.shape) == len(target.shape), "the tensors differ in their number of axes")
    shapes, result = np.array([nhwc(graph.tensors[index].shape) for index in op.inputs]), np.array(nhwc(target.shape))
    total = np.where(np.arange(4) == axis + 1, shapes.sum(axis=0), shapes[0])
    _require(bool((np.delete(shapes, axis + 1, 1) == np.delete(result, axis + 1)).all() and (total == result).all()), "the shapes do not fit together")
    return ConcatWork(axis)


def _lower_resize(graph: Graph, op: Op) -> ResizeWork:
    source, target = _move_tensors(graph, op)
    _require(len(source.shape) == len(target.shape) == 4, f"shapes {source.shape} and {target.shape}; a resized image has 4 axes")
    _require(source.shape[3] == target.shape[3], "input and output should have the same channels")
    _require(not op.options["align_corners"], "corners are aligned")
    times = []
    for axis in (1, 2):
        size_in, size_out = source.shape[axis], target.shape[axis]
        offset = np.float32(0.5 if op.options["half_pixel_centers"] else 0.0)
        nearest = np.floor((np.arange(size_out, dtype=np.float32) + offset) * (np.float32(size_in) / np.float32(size_out)))
        times.append(size_out // size_in)
        _require(size_out % size_in == 0 and np.array_equal(nearest, np.arange(size_out) // times[-1]), f"{size_in} pixels to {size_out}; the factor must be whole")
    return ResizeWork(*times)


def _lower_pool(graph: Graph, op: Op) -> PoolWork:
    source, target = _activation(graph, op.inputs[0]), _activation(graph, op.outputs[0])
    in_shape, out_shape = _image(source), _image(target)
    _require_same_quant(source, target)
    rows = _axis(op, "h", in_shape[1], out_shape[1], op.options["filter_h"])
    cols = _axis(op, "w", in_shape[2], out_shape[2], op.options["filter_w"])
    _require(max(rows.stride, cols.stride) <= 255, "the limit of a pool's stride is 255")
    act_min, act_max = _clamp(op, target)
    return PoolWork(TpOp.MAX_POOL if op.kind == "MAX_POOL_2D" else TpOp.AVG_POOL, in_shape[3], rows, cols, act_min, act_max)


def _lower_add(graph: Graph, op: Op) -> AddWork | HostWork:
    a, b, target = (graph.tensors[index] for index in (*op.inputs[:2], op.outputs[0]))
    if not a.shape == b.shape == target.shape:
        raise GraphError(f"shapes {a.shape} and {b.shape} differ: the NPU adds tensors of the same shape")
    a, b, target = (_activation(graph, tensor.index) for tensor in (a, b, target))
    multipliers = add_multipliers(*(tensor.quant.scale[0] for tensor in (a, b, target)))
    names = "a", "b", "out"
    for name, (_, exponent) in zip(names, multipliers, strict=True):
        _require(-31 <= exponent <= 0, f"the factor of {name} needs a shift of {exponent}; factors below 1 are supported")
    act_min, act_max = _clamp(op, target)
    fields = {f"{name}_mult": mult for name, (mult, _) in zip(names, multipliers, strict=True)}
    fields |= {f"{name}_shift": -exponent for name, (_, exponent) in zip(names, multipliers, strict=True)}
    zero_points = {f"{name}_zero_point": int(tensor.quant.zero_point[0]) for name, tensor in (("a", a), ("b", b))}
    return AddWork(int(np.prod(target.shape)), fields | zero_points | {"zero_point_out": int(target.quant.zero_point[0]), "act_min": act_min, "act_max": act_max})


def _lower_lut(graph: Graph, op: Op) -> LutWork | HostWork:
    dtypes = {graph.tensors[index].dtype for index in (op.inputs[0], op.outputs[0])}
    if op.kind == "QUANTIZE" and dtypes != {np.dtype(np.int8)}:
        return HostWork("conversion between number formats at the edge of the network")
    if dtypes == {np.dtype(np.float32)} and op.kind in HOST_OPS:
        return HostWork("the NPU computes on int8, not on float32")
    source, target = _activation(graph, op.inputs[0]), _activation(graph, op.outputs[0])
    return LutWork(int(np.prod(target.shape)), make_lut(op.kind, source.quant, target.quant, op.options))


def _lower_reshape(graph: Graph, op: Op) -> ReshapeWork | HostWork:
    source, target = graph.tensors[op.inputs[0]], graph.tensors[op.outputs[0]]
    if source.dtype != np.int8:
        return HostWork(f"a tensor of {source.dtype} is not in NPU memory")
    _require(source.data is None, f"{source.name!r} is a constant where an activation is expected")
    _require(max(len(source.shape), len(target.shape)) <= 4, f"shapes {source.shape} and {target.shape}; the limit is 4 axes")
    _require(np.prod(source.shape) == np.prod(target.shape), f"{source.shape} and {target.shape} differ in size")
    return ReshapeWork()
