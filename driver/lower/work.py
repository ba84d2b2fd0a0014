"""What operators of the graph are lowered to: geometry, weights and folded constants, still without layout or tiles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod

import numpy as np

from convoy.driver.graph.graph import Graph, GraphError, Op
from convoy.spec.isa import FRACTION_BITS, TP, Rounding, TpOp

__all__ = [
    "NATIVE_STRIDES",
    "AssignWork",
    "Axis",
    "ConcatWork",
    "ConvWork",
    "ElementwiseWork",
    "ExtremeWork",
    "FusedWork",
    "HostWork",
    "InterleaveWork",
    "Lowering",
    "LutWork",
    "MoveAxis",
    "MoveWork",
    "MovesWork",
    "Pieces",
    "PoolWork",
    "ReadWork",
    "RepeatWork",
    "ReshapeWork",
    "Residual",
    "ResizeWork",
    "TransposeWork",
    "Work",
    "ZoomAxis",
    "ZoomPiece",
    "ZoomWork",
    "composed",
    "is_rising",
]


NATIVE_STRIDES = 1, 2
"""Strides of the NN engine; of others the tensor processor takes a factor: it splits the image into phases first."""


def composed(first: np.ndarray | None, then: np.ndarray) -> np.ndarray:
    """Two tables one after the other as one: int8 (256,), entry `x & 255` for the element x."""
    return then if first is None else then[first.view("u1")]


def is_rising(lut: np.ndarray) -> bool:
    """Does a table, as of `composed`, never fall? The maximum of its values is its value of the maximum then."""
    return bool((np.diff(np.roll(lut, 128).astype(int)) >= 0).all())


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

    @cached_property
    def taps(self) -> list[tuple[int, int]]:
        """(phase, shift within the phase plane) of each kernel position."""
        return [((k * self.dilation) % self.stride, (k * self.dilation) // self.stride) for k in range(self.kernel)]

    @cached_property
    def phases(self) -> tuple[int, ...]:
        """Phases that a tap reads, ascending."""
        return tuple(sorted({phase for phase, _ in self.taps}))

    @cached_property
    def max_shift(self) -> int:
        """Largest shift of a tap within its phase plane."""
        return max(shift for _, shift in self.taps)

    @property
    def end(self) -> int:
        """Where the pixels that outputs need end, counted from the end of the image: that many pads, if positive."""
        extent = (self.size_out - 1) * self.stride + (self.kernel - 1) * self.dilation + 1
        return extent - self.pad - self.size_in

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
class InterleaveWork:
    """Blocks of channels put next to one another on the TP engine: pixel (y, x) of the source channel that dy, dx and c
    count becomes pixel (y*block_h + dy, x*block_w + dx) of channel c, where that lies inside the result.
    """

    num_c: int
    """Channels of the result, or of int16 twice as many."""
    block_h: int
    block_w: int
    size_in: tuple[int, int]
    """Rows and columns of the source."""
    size_out: tuple[int, int]
    """Rows and columns of the result."""
    order: tuple[int, int, int] = (0, 1, 2)
    """What counts the source channels, outermost first: dy (0), dx (1) and c (2)."""
    lut: np.ndarray | None = None
    """Table that the outputs are looked up in."""
    only_dy: int | None = None
    """The row within a block that is made, of which alone the source has the channels; None: all."""

    @property
    def rows_made(self) -> range:
        """Rows within a block that are made, in the order of their source channels."""
        return range(self.block_h) if self.only_dy is None else range(self.only_dy, self.only_dy + 1)

    @property
    def counts(self) -> tuple[int, int, int]:
        """Of dy, dx and c."""
        return self.block_h, self.block_w, self.num_c

    @property
    def channel_steps(self) -> tuple[int, int, int]:
        """Source channels from one dy, dx and c to the next."""
        dy, dx, c = (
            prod(self.counts[inner] for inner in self.order[self.order.index(axis) + 1 :]) for axis in range(3)
        )
        return dy, dx, c

    @property
    def num_out(self) -> int:
        """Bytes of the result."""
        return self.num_c * self.size_out[0] * self.size_out[1]

    @property
    def whole_size(self) -> tuple[int, int]:
        """Rows and columns of the result if all pixels of the source are inside."""
        return self.size_in[0] * self.block_h, self.size_in[1] * self.block_w

    def oriented(self, is_transposed: bool) -> InterleaveWork:
        """The same work on images stored with rows and columns exchanged."""
        if not is_transposed:
            return self
        (height_in, width_in), (height_out, width_out) = self.size_in, self.size_out
        first, second, third = ((1, 0, 2)[axis] for axis in self.order)
        return replace(
            self,
            block_h=self.block_w,
            block_w=self.block_h,
            size_in=(width_in, height_in),
            size_out=(width_out, height_out),
            order=(first, second, third),
        )


@dataclass(frozen=True)
class Residual:
    """A tensor that is added to the outputs of a convolution; `fields` are the arithmetic fields of the NN
    descriptor.
    """

    tensor: int
    fields: dict[str, int]


@dataclass(frozen=True)
class Pieces:
    """Input channels that are pieces of planes: channel `piece * num_channels + c` begins `piece * pitch` pixels
    behind the beginning of plane c.
    """

    num_channels: int
    """Planes, of `plane` pixels each."""
    pitch: int
    plane: int


@dataclass(frozen=True)
class ConvWork:
    """A convolution, depthwise convolution or fully connected layer on the NN engine. Image batch 1."""

    num_ic: int
    rows: Axis
    cols: Axis
    is_depthwise: bool
    weights: np.ndarray
    """Less their zero point, int16 (OC, KH, KW, IC); depthwise (OC, KH, KW, 1), output channel = input channel *
    multiplier + m.
    """
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
    wgt_zero_point: int = 0
    """Of the stored weights, less 128 if these are uint8."""
    is_wide: bool = False
    """Activations are int16."""
    residual: Residual | None = None
    """Added to the outputs last."""
    interleave: InterleaveWork | None = None
    """What the tensor processor makes of the outputs."""
    source: int = 0
    """Number of the operator's input."""
    num_doubts: int = 0
    """Sums of channels for which the result may differ by one from the runtime's."""
    pool_size: int = 0
    """Rows and columns of the window of a maximum pool of stride 2 on the outputs, last of all; 0: none. Never with
    a residual.
    """
    pieces: Pieces | None = None
    """How the input channels lie in memory, if they are not planes."""

    @property
    def num_oc(self) -> int:
        """Output channels."""
        return self.weights.shape[0]

    @property
    def out_shape(self) -> tuple[int, int, int, int]:
        """What is stored, seen as NHWC: the outputs, or their pool."""
        step = 2 if self.pool_size else 1
        return 1, self.rows.size_out // step, self.cols.size_out // step, self.num_oc

    @property
    def num_in_bytes(self) -> int:
        """Bytes of the input."""
        if self.pieces is not None:
            return self.value_bytes * self.pieces.num_channels * self.pieces.plane
        return self.value_bytes * self.num_ic * self.rows.size_in * self.cols.size_in

    @property
    def value_bytes(self) -> int:
        """Bytes of an activation."""
        return 1 + self.is_wide

    def folded(self, num_taps: int) -> ConvWork:
        """A fully connected layer on one pixel, seen as `num_ic / num_taps` channels of `num_taps` columns: the same
        bytes, denser in the stripe.
        """
        weights = self.weights.reshape(self.num_oc, 1, -1, num_taps).transpose(0, 1, 3, 2)
        return replace(
            self,
            num_ic=self.num_ic // num_taps,
            cols=Axis(num_taps, 1, num_taps),
            weights=np.ascontiguousarray(weights),
        )

    @property
    def covers_image(self) -> bool:
        """Is the kernel the whole image, for one output pixel that each element has a weight for?"""
        axes = self.rows, self.cols
        is_whole = all(
            (axis.size_in, axis.size_out, axis.dilation, axis.pad) == (axis.kernel, 1, 1, 0) for axis in axes
        )
        return is_whole and not self.is_depthwise

    @property
    def flat(self) -> ConvWork:
        """The same work, of a kernel that covers the image, on elements in the order of tensors: a channel each."""
        num_ic = self.num_ic * self.rows.size_in * self.cols.size_in
        weights = self.weights.reshape(self.num_oc, 1, 1, num_ic)
        in_shape = 1, 1, 1, num_ic
        return replace(self, num_ic=num_ic, rows=Axis(1, 1), cols=Axis(1, 1), weights=weights, in_shape=in_shape)

    @property
    def multiplier(self) -> int:
        """Output channels per input channel of a depthwise convolution."""
        return self.num_oc // self.num_ic

    def oriented(self, is_transposed: bool) -> ConvWork:
        """The same work on images stored with rows and columns exchanged."""
        if not is_transposed:
            return self
        turned = replace(
            self, rows=self.cols, cols=self.rows, weights=np.ascontiguousarray(self.weights.transpose(0, 2, 1, 3))
        )
        return turned if self.interleave is None else turned._with_places_exchanged(self.interleave)

    def _with_places_exchanged(self, interleave: InterleaveWork) -> ConvWork:
        """The outputs in the order in which the transposed form of `interleave` counts them by row, column and
        channel.
        """
        order = np.arange(self.num_oc).reshape(interleave.block_h, interleave.block_w, -1).swapaxes(0, 1).ravel()
        return replace(
            self,
            weights=self.weights[order],
            bias=self.bias[order],
            mult=self.mult[order],
            exponent=self.exponent[order],
            interleave=replace(interleave.oriented(True), order=(0, 1, 2)),
        )


@dataclass(frozen=True)
class PoolWork:
    """A maximum or average pool on the TP engine, or sums of windows that it scales."""

    op: TpOp
    num_ic: int
    rows: Axis
    cols: Axis
    act_min: int
    act_max: int
    is_half_up: bool = False
    """Averages round halves up."""
    lut: np.ndarray | None = None
    """Table that the outputs are looked up in."""
    is_wide: bool = False
    """Activations are int16."""
    fields: dict[str, int] = field(default_factory=dict)
    """Arithmetic fields of the TP descriptor, for MEAN."""
    part: tuple[range, range] | None = None
    """Rows and columns of the result that are made; None: all."""
    fill: int | None = None
    """What windows have beyond the image, which only the NN engine does; None: nothing."""

    @property
    def value_bytes(self) -> int:
        """Bytes of an activation."""
        return 1 + self.is_wide

    @property
    def made(self) -> tuple[range, range]:
        """Rows and columns of the result that are made."""
        return self.part or (range(self.rows.size_out), range(self.cols.size_out))

    @property
    def flat(self) -> PoolWork:
        """The same work with windows of one row where they are as wide as the image."""
        rows, cols, width = self.rows, self.cols, self.cols.size_in
        stride = rows.stride * width if rows.size_out > 1 else 1
        is_whole = cols.size_out == 1 and cols.kernel - cols.pad >= width
        if not is_whole or self.part is not None or stride > TP.fields["stride_w"].max:
            return self
        return replace(
            self,
            rows=Axis(1, 1),
            cols=Axis(rows.size_in * width, rows.size_out, rows.kernel * width, stride, pad=rows.pad * width),
        )

    def oriented(self, is_transposed: bool) -> PoolWork:
        """The same work on images stored with rows and columns exchanged."""
        if not is_transposed:
            return self
        return replace(self, rows=self.cols, cols=self.rows, part=self.part and self.part[::-1])


@dataclass(frozen=True)
class ExtremeWork:
    """The largest or smallest elements along some axes: pools one after another on the TP engine."""

    in_shape: tuple[int, int, int, int]
    """The input seen as NHWC."""
    pools: tuple[PoolWork, ...]
    """Of rows and columns."""
    across: tuple[PoolWork, ...]
    """Of channels: on one channel with a row for each of them."""
    is_min: bool
    """Elements are inverted before, and what is left of them behind; int8 only."""


@dataclass(frozen=True)
class ElementwiseWork:
    """An operation on each element of two operands on the TP engine; `fields` are the arithmetic fields of a TP
    descriptor.
    """

    op: TpOp
    shape: tuple[int, int, int, int]
    """NHWC of the result."""
    operands: tuple[tuple[int, int, int, int], tuple[int, int, int, int]]
    """NHWC of A and B; an extent of 1 is repeated."""
    constants: tuple[np.ndarray | None, np.ndarray | None]
    """Values of those that are constant, at most one; int8, or int16 if `is_wide`, in the shape of the operand."""
    fields: dict[str, int]
    axes: tuple[int, ...] = (0, 1, 2)
    """Order in memory of (h, w, c), outermost first; c is outermost if `is_wide`."""
    lut: np.ndarray | None = None
    """Table that the outputs are looked up in."""
    is_wide: bool = False
    """Activations are int16; batch 1."""
    num_doubts: int = 0
    """Pairs of operands for which the result may differ by one from the runtime's."""

    @property
    def value_bytes(self) -> int:
        """Bytes of an activation."""
        return 1 + self.is_wide

    @property
    def num_elements(self) -> int:
        """Elements of the result."""
        return int(np.prod(self.shape))

    @property
    def is_plain_sum(self) -> bool:
        """A sum of two activations of 8 bits and of one shape."""
        return (
            self.op == TpOp.ADD
            and not self.is_wide
            and self.operands[0] == self.operands[1]
            and all(values is None for values in self.constants)
        )


@dataclass(frozen=True)
class LutWork:
    """A function of each element on the TP engine."""

    num_elements: int
    lut: np.ndarray
    source: int = 0
    """Number of the operator's input."""


@dataclass(frozen=True)
class FusedWork:
    """Done by the operator that makes the operand."""

    operand: int


@dataclass(frozen=True)
class MoveAxis:
    """One axis of a move: `count` pixels of the source from `start`, `step` apart, go to the target from
    `target_start`, in a frame.
    """

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

    def repeated(self, times: int) -> MoveAxis:
        """The same with `times` pixels for each one.

        Raises
        ------
        GraphError
            When there are gaps between the pixels.
        """
        if times > 1 and self.step > 1:
            raise GraphError(f"step {self.step} through the channels of int16; the limit is 1")
        return replace(
            self,
            source_size=self.source_size * times,
            target_size=self.target_size * times,
            count=self.count * times,
            start=self.start * times,
            target_start=self.target_start * times,
        )


@dataclass(frozen=True)
class MoveWork:
    """A box of an image put into another one on the TP engine: pads, slices, concatenations. Channels have no frame."""

    rows: MoveAxis
    cols: MoveAxis
    channels: MoveAxis
    zero_point: int
    """The value of the frame."""
    lut: np.ndarray | None = None
    """Table that the outputs are looked up in."""

    @property
    def has_frame(self) -> bool:
        """Are there pixels around those of the source?"""
        return any(axis.before or axis.behind for axis in (self.rows, self.cols))

    @property
    def is_box(self) -> bool:
        """Is the target a box of the source, without gaps and frame?"""
        axes = self.rows, self.cols, self.channels
        return all(axis.count == axis.target_size and (axis.step == 1 or axis.count == 1) for axis in axes)

    def oriented(self, is_transposed: bool) -> MoveWork:
        """The same work on images stored with rows and columns exchanged."""
        return replace(self, rows=self.cols, cols=self.rows) if is_transposed else self


@dataclass(frozen=True)
class MovesWork:
    """Boxes of one image put into others: (number of the output, move)."""

    source: int
    """Number of the operator's input."""
    in_shape: tuple[int, int, int, int]
    """The input seen as NHWC."""
    moves: tuple[tuple[int, MoveWork], ...]

    def with_table(self, output: int, lut: np.ndarray) -> MovesWork:
        """The same with one of the outputs looked up in a table, behind the one that there may be."""
        moves = tuple(
            (number, replace(move, lut=composed(move.lut, lut)) if number == output else move)
            for number, move in self.moves
        )
        return replace(self, moves=moves)


@dataclass(frozen=True)
class RepeatWork:
    """Every pixel `times_h` by `times_w` times on the TP engine, in `num_rows` rows of all channels."""

    num_rows: int
    width: int
    times_h: int
    times_w: int


@dataclass(frozen=True)
class ZoomPiece:
    """Outputs that follow one another: output first + i lies at input pixel (start + i*step) / 2**FRACTION_BITS."""

    first: int
    count: int
    start: int
    step: int


@dataclass(frozen=True)
class ZoomAxis:
    """One axis of a resized image, in pieces of evenly spaced outputs."""

    size_in: int
    size_out: int
    pieces: tuple[ZoomPiece, ...]

    def tile(self, piece: ZoomPiece, skip: int, count: int) -> tuple[int, int, int]:
        """(first input pixel, number of input pixels, start relative to it) that `count` outputs of a piece behind
        `skip` need, with a neighbour for interpolation.
        """
        start = piece.start + skip * piece.step
        low = max(start >> FRACTION_BITS, 0)
        high = min((start + (count - 1) * piece.step >> FRACTION_BITS) + 1, self.size_in - 1)
        return low, high - low + 1, start - (low << FRACTION_BITS)

    @property
    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each output the first pixel that counts, and the weight of the one behind it in 2**-FRACTION_BITS; int64
        (size_out,).
        """
        place = np.concatenate([piece.start + np.arange(piece.count) * piece.step for piece in self.pieces])
        pixel = place >> FRACTION_BITS
        has_next = (pixel >= 0) & (pixel + 1 < self.size_in)
        return np.maximum(pixel, 0), np.where(has_next, place & ((1 << FRACTION_BITS) - 1), 0)


@dataclass(frozen=True)
class ZoomWork:
    """An image resized by any factors on the TP engine: `op` is BILINEAR, or MAX_POOL of one pixel for the nearest
    neighbour.
    """

    op: TpOp
    num_ic: int
    rows: ZoomAxis
    cols: ZoomAxis
    lut: np.ndarray | None = None
    """Table that the outputs are looked up in."""

    def oriented(self, is_transposed: bool) -> ZoomWork:
        """The same work on images stored with rows and columns exchanged."""
        return replace(self, rows=self.cols, cols=self.rows) if is_transposed else self


@dataclass(frozen=True)
class TransposeWork:
    """Axes exchanged: axis n of the result is axis `order[n]` of the source seen as `shape`."""

    shape: tuple[int, ...]
    order: tuple[int, ...]


@dataclass(frozen=True)
class ResizeWork:
    """Nearest neighbours at whole factors."""

    num_planes: int
    """Channels, or of int16 twice as many."""
    size_in: tuple[int, int]
    """Rows and columns of the source."""
    times_h: int
    times_w: int

    def repeated(self, is_transposed: bool) -> RepeatWork:
        """What the TP engine does; columns may be stored as rows."""
        height, width = self.size_in
        if is_transposed:
            return RepeatWork(self.num_planes * width, height, self.times_w, self.times_h)
        return RepeatWork(self.num_planes * height, width, self.times_h, self.times_w)


@dataclass(frozen=True)
class ConcatWork:
    """Tensors put next to one another along an axis of (h, w, c)."""

    axis: int
    in_shapes: tuple[tuple[int, int, int, int], ...]
    """The inputs seen as NHWC."""
    out_shape: tuple[int, int, int, int]


@dataclass(frozen=True)
class ReshapeWork:
    """Another shape for the same elements."""


@dataclass(frozen=True)
class ReadWork:
    """The value of a variable."""

    variable: int


@dataclass(frozen=True)
class AssignWork:
    """Another value for a variable."""

    variable: int


@dataclass(frozen=True)
class HostWork:
    """Left to the host."""

    reason: str


Work = (
    ConvWork
    | PoolWork
    | ExtremeWork
    | ElementwiseWork
    | LutWork
    | MovesWork
    | ResizeWork
    | ZoomWork
    | InterleaveWork
    | TransposeWork
    | ConcatWork
    | ReshapeWork
    | ReadWork
    | AssignWork
    | HostWork
)
"""What an operator is lowered to."""

Lowering = Callable[[Graph, Op], Work]
"""The lowering of a kind of operator; raises `GraphError`."""
