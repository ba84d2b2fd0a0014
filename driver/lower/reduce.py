"""Operators that reduce axes to one element: means, sums and extremes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from math import prod

import numpy as np

from convoy.driver.graph.graph import Graph, Op, Tensor
from convoy.spec.config import MIN_TP_BUFFER_BYTES
from convoy.spec.isa import Rounding, TpOp

from .operands import (
    MAX_POOL_STRIDE,
    MAX_TAPS,
    activation,
    axis_number,
    integers,
    moved,
    nhwc,
    require,
    require_same_quant,
)
from .quantise import MAX_SHIFT_LEFT, mean_multiplier, quantise_multiplier
from .work import Axis, ConvWork, ExtremeWork, Lowering, PoolWork, ReshapeWork

__all__ = ["REDUCE_LOWERINGS"]

MAX_WINDOW = MIN_TP_BUFFER_BYTES // 2
"""Bytes of a pooling window that the TP buffer of every legal configuration holds."""


@dataclass(frozen=True)
class _View:
    """A tensor as an image of batch 1, of whose rows, columns and channels some are reduced."""

    shape: tuple[int, int, int, int]
    is_reduced: tuple[bool, bool, bool]

    @property
    def count(self) -> int:
        """Elements that become one."""
        return prod(size for size, is_reduced in zip(self.shape[1:], self.is_reduced, strict=True) if is_reduced)


def _view(graph: Graph, op: Op, source: Tensor) -> _View:
    """The tensor's own rows, columns and channels where it has batch 1 and at most four axes; otherwise neighbouring
    axes are taken together.
    """
    rank = len(source.shape)
    reduced = {axis_number(axis, rank) for axis in integers(graph, op.inputs[1]).reshape(-1).tolist()}
    flags = [axis in reduced and extent > 1 for axis, extent in enumerate(source.shape)]
    sizes, marks = list(source.shape), flags
    if rank > 4 or (rank == 4 and source.shape[0] > 1):
        axes = [(is_reduced, extent) for is_reduced, extent in zip(flags, source.shape, strict=True) if extent > 1]
        groups = [(key, prod(extent for _, extent in axes)) for key, axes in groupby(axes, key=lambda axis: axis[0])]
        require(
            len(groups) <= 3,
            f"axes {sorted(reduced)} of {list(source.shape)}: the NPU reduces those of an image of rows, columns and "
            "channels",
        )
        marks, sizes = [key for key, _ in groups], [size for _, size in groups]
    marks = [False] * (3 - len(marks)) + marks
    return _View(nhwc(tuple(sizes)), (marks[-3], marks[-2], marks[-1]))


def _lower_sum(graph: Graph, op: Op) -> ConvWork:
    """The sum or mean over some axes: a convolution with a kernel of ones."""
    source, target = (activation(graph, index, is_wide_ok=True) for index in (op.inputs[0], op.outputs[0]))
    view = _view(graph, op, source)
    _, height, width, num_c = view.shape
    by_rows, by_cols, by_channels = view.is_reduced
    kernel_h, kernel_w = height if by_rows else 1, width if by_cols else 1
    if by_channels and (kernel_h, kernel_w) == (height, width):
        return _ones(source, target, op, _View((1, 1, height * width * num_c, 1), (False, True, False)))
    require(
        kernel_h * kernel_w <= MAX_TAPS or ((kernel_h, kernel_w) == (height, width) and not by_channels),
        f"{kernel_h} x {kernel_w} pixels of {height} x {width} become one; the limit is {MAX_TAPS} if not all do",
    )
    return _ones(source, target, op, view)


def _ones(source: Tensor, target: Tensor, op: Op, view: _View) -> ConvWork:
    _, height, width, num_c = view.shape
    by_rows, by_cols, by_channels = view.is_reduced
    rows = Axis(height, 1, height) if by_rows else Axis(height, height)
    cols = Axis(width, 1, width) if by_cols else Axis(width, width)
    is_depthwise = num_c > 1 and not by_channels
    num_oc = 1 if by_channels else num_c
    factor = float(source.quantisation.scale[0]) / float(target.quantisation.scale[0])
    mult, exponent = mean_multiplier(factor, view.count) if op.kind == "MEAN" else quantise_multiplier(factor)
    require(
        exponent <= MAX_SHIFT_LEFT, f"requantisation needs a left shift of {exponent}; the limit is {MAX_SHIFT_LEFT}"
    )
    info = np.iinfo(target.dtype)
    require(
        view.count << info.bits + max(exponent, 0) < 1 << 31,
        f"the sum of {view.count} values of {source.dtype} may exceed 32 bits",
    )
    zero_point_in = int(source.quantisation.zero_point[0])
    return ConvWork(
        num_c,
        rows,
        cols,
        is_depthwise,
        np.ones((num_oc, rows.kernel, cols.kernel, num_c if by_channels else 1), np.int16),
        np.full(num_oc, -zero_point_in * view.count, np.int64),
        np.full(num_oc, mult, np.int64),
        np.full(num_oc, exponent, np.int64),
        zero_point_in,
        int(target.quantisation.zero_point[0]),
        int(info.min),
        int(info.max),
        Rounding.DOUBLE,
        view.shape,
        is_wide=source.dtype == np.int16,
    )


def _lower_extreme(graph: Graph, op: Op) -> PoolWork | ExtremeWork | ReshapeWork:
    """The maximum or minimum over some axes: a pool, or one after another for each axis."""
    source, target = moved(graph, op.inputs[0]), moved(graph, op.outputs[0])
    require_same_quant(source, target)
    view, is_wide, is_min = _view(graph, op, source), source.dtype == np.int16, op.kind == "REDUCE_MIN"
    _, height, width, num_c = view.shape
    by_rows, by_cols, by_channels = view.is_reduced
    require(
        not (is_wide and (by_channels or is_min)),
        f"{source.name!r} is int16; the NPU finds the maximum over rows and columns",
    )
    if view.count == 1:
        return ReshapeWork()
    info = np.iinfo(source.dtype)
    limits = int(info.min), int(info.max)
    if by_rows and by_cols and not by_channels and not is_min and height * width * source.dtype.itemsize <= MAX_WINDOW:
        return PoolWork(TpOp.MAX_POOL, num_c, Axis(height, 1, height), Axis(width, 1, width), *limits, is_wide=is_wide)
    pools = []
    for axis in _pool_axes(width) if by_cols else ():
        pools.append(PoolWork(TpOp.MAX_POOL, num_c, Axis(height, height), axis, *limits, is_wide=is_wide))
    left = 1 if by_cols else width
    for axis in _pool_axes(height) if by_rows else ():
        pools.append(PoolWork(TpOp.MAX_POOL, num_c, axis, Axis(left, left), *limits, is_wide=is_wide))
    pixels = left * (1 if by_rows else height)
    across = [
        PoolWork(TpOp.MAX_POOL, 1, axis, Axis(pixels, pixels), *limits)
        for axis in (_pool_axes(num_c) if by_channels else ())
    ]
    return ExtremeWork(view.shape, tuple(pools), tuple(across), is_min)


def _pool_axes(size: int) -> Iterator[Axis]:
    """Pools one after another that leave one pixel of an axis."""
    while size > 1:
        kernel = size if size <= MAX_POOL_STRIDE else min(math.isqrt(size - 1) + 1, MAX_POOL_STRIDE)
        num_out = -(-size // kernel)
        yield Axis(size, num_out, kernel, kernel if num_out > 1 else 1)
        size = num_out


REDUCE_LOWERINGS: dict[str, Lowering] = {
    "MEAN": _lower_sum,
    "SUM": _lower_sum,
    "REDUCE_MAX": _lower_extreme,
    "REDUCE_MIN": _lower_extreme,
}
"""By kind of operator: (graph, operator) -> work. They raise `GraphError`."""
