"""Averages on the NN engine, as depthwise convolutions; maxima there, as the pool of a convolution that changes
nothing, or in two steps; and sums of pixels on the tensor processor, as pools.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from convoy.driver.graph.graph import GraphError
from convoy.driver.lower.operands import MAX_PAD, MAX_TAPS
from convoy.driver.lower.work import NATIVE_STRIDES, Axis, ConvWork, PoolWork, is_rising
from convoy.spec.config import NpuConfig
from convoy.spec.isa import PARAM, TP, Rounding, TpOp

from .cost import pool_cycles
from .tile import tile_work

__all__ = ["PoolSteps", "Pools", "alone_cycles", "average_multiplier", "best_pool", "summing_pool", "works_cycles"]


@dataclass(frozen=True)
class Pools:
    """Works in place of one, one after another, which make parts of its result; a later one overwrites what those
    before it made.
    """

    works: tuple[ConvWork | PoolWork, ...]


@dataclass(frozen=True)
class PoolSteps:
    """Pools in place of one, each on what the one before made."""

    works: tuple[PoolWork, ...]


def best_pool(work: PoolWork, config: NpuConfig) -> Pools | PoolSteps | None:
    """The form in which a pool is estimated to take least time; None if that is its own."""
    is_average = work.op != TpOp.MAX_POOL or work.rows.kernel * work.cols.kernel == 1
    if work.fill is not None:
        return _on_nn_engine(_averaging_conv(work) if is_average else _pooling_conv(work), (), np.inf, config)
    if is_average:
        return _on_nn_engine(_averaging_conv(work), tuple(_edges(work)), pool_cycles(work, config), config)
    steps, conv = _best_steps(work, config), _pooling_conv(work)
    limit = works_cycles(steps.works if steps else (work,), config)
    return _on_nn_engine(conv, (), limit, config) or steps


def alone_cycles(work: PoolWork, config: NpuConfig) -> float:
    """Estimated cycles of a pool in its best form."""
    form = best_pool(work, config)
    return works_cycles(form.works if form else (work,), config)


def works_cycles(works: Sequence[ConvWork | PoolWork], config: NpuConfig) -> float:
    """Estimated cycles of works, one after another.

    Raises
    ------
    GraphError
        When a convolution cannot be tiled.
    """
    return sum(
        pool_cycles(work, config) if isinstance(work, PoolWork) else tile_work(work, config).cost.cycles
        for work in works
    )


def _on_nn_engine(conv: ConvWork | None, edges: tuple[PoolWork, ...], limit: float, config: NpuConfig) -> Pools | None:
    """A convolution and what the tensor processor makes again of its result, if that is estimated to take less than
    `limit` cycles, and the NN engine has the units for it.
    """
    if (
        conv is not None
        and (config.has_lut or conv.lut is None)
        and (config.has_fused_pool or not conv.pool_size)
        and (config.has_int16 or not conv.is_wide)
    ):
        with suppress(GraphError):
            if works_cycles((conv, *edges), config) < limit:
                return Pools((conv, *edges))
    return None


def _best_steps(work: PoolWork, config: NpuConfig) -> PoolSteps | None:
    """Maxima along one axis and then of those along the other, if that takes less time."""
    info = np.iinfo(np.int16 if work.is_wide else np.int8)
    first = replace(work, act_min=int(info.min), act_max=int(info.max), lut=None)
    rows, cols = work.rows, work.cols
    best, limit = None, pool_cycles(work, config)
    for steps in (
        (replace(first, rows=_kept(rows.size_in)), replace(work, cols=_kept(cols.size_out))),
        (replace(first, cols=_kept(cols.size_in)), replace(work, rows=_kept(rows.size_out))),
    ):
        cycles = sum(pool_cycles(step, config) for step in steps)
        if cycles < limit:
            best, limit = PoolSteps(steps), cycles
    return best


def _kept(size: int) -> Axis:
    """An axis on which nothing changes."""
    return Axis(size, size)


@lru_cache(maxsize=1024)
def average_multiplier(count: int, farthest: int) -> tuple[int, int] | None:
    """`(q, e)` by which single rounding gives `sum / count`, rounded half away from zero, for all sums of at most
    `farthest` on either side; None if there are none.

    q is the least that is not below `2**(31-e) / count`, so that ties, which exist for even counts, go away from zero.
    What it is above that, times the sum, must not reach the next tie: half of `1 / count` at least.
    """
    exponent = 2 - count.bit_length() if count & (count - 1) == 0 else 1 - count.bit_length()
    one = 1 << (31 - exponent)
    q = -(-one // count)
    excess = q * count - one
    return (q, exponent) if -exponent <= PARAM.fields["shift_right"].max and 2 * farthest * excess < one else None


def _averaging_conv(work: PoolWork) -> ConvWork | None:
    """An average of int8, or a maximum of one pixel, every window of which is taken to have all its pixels; None if the
    NN engine has none.
    """
    axes, count = (work.rows, work.cols), work.rows.kernel * work.cols.kernel
    if (
        (work.op != TpOp.AVG_POOL and count > 1)
        or work.is_wide
        or count > MAX_TAPS
        or any(axis.stride not in NATIVE_STRIDES for axis in axes)
        or max(max(axis.pad, axis.end) for axis in axes) > MAX_PAD
    ):
        return None
    # Of halves rounded up, sums are counted from that of all lowest values: then none is negative.
    lowest = np.iinfo(np.int8).min if work.is_half_up else 0
    factor = average_multiplier(count, count * 256)
    if factor is None:
        return None
    return _depthwise(work, (work.rows, work.cols), factor, -lowest * count, zero_points=(work.fill or 0, lowest))


def _pooling_conv(work: PoolWork) -> ConvWork | None:
    """A maximum as the pool of a convolution with kernels of one tap, 1, which hands on the pixels and has pads of the
    lowest value where windows reach beyond the image; None if the NN engine has none, as of int16, whose pads are 0.
    Windows that have what is beyond the image get that.
    """
    if work.lut is not None and not is_rising(work.lut):
        return None
    rows, cols = work.rows, work.cols
    if (
        work.fill is None
        and rows.is_plain
        and (cols.kernel, cols.stride, cols.pad, cols.size_in) == (2, 2, 0, 2 * cols.size_out)
    ):
        rows, cols = Axis(1, 1), Axis(rows.size_in * cols.size_in, rows.size_in * cols.size_out, 2, 2)
    for size in (2, 3):
        if work.fill is not None and (rows.kernel, cols.kernel) != (size, size):
            continue
        handed = [_handed_on(axis, size, 0 if work.is_wide and work.fill is None else MAX_PAD) for axis in (rows, cols)]
        if (axes := [axis for axis in handed if axis is not None]) == handed:
            beyond = 0 if work.is_wide else np.iinfo(np.int8).min if work.fill is None else work.fill
            conv = _depthwise(work, axes, _UNCHANGED, -beyond, zero_points=(beyond, beyond))
            return replace(conv, pool_size=size)
    return None


def _handed_on(axis: Axis, size: int, max_pad: int) -> Axis | None:
    """What a convolution has to hand on, with at most so many pads, for a pool with windows of `size` at a stride of
    2, if that is this one.
    """
    num_pixels = (axis.size_out - 1) * 2 + size
    is_whole = axis.size_out == 1 and axis.pad + axis.size_in <= min(axis.kernel, size)
    is_legal = is_whole or (axis.kernel == size and (axis.stride == 2 or axis.size_out == 1))
    if not is_legal or max(axis.pad, num_pixels - axis.pad - axis.size_in) > max_pad:
        return None
    return Axis(axis.size_in, num_pixels, pad=axis.pad)


_UNCHANGED = 1 << 30, 1
"""`(q, e)` of a factor of 1."""


def _depthwise(
    work: PoolWork, axes: Sequence[Axis], factor: tuple[int, int], bias: int, zero_points: tuple[int, int]
) -> ConvWork:
    """The sums of windows of one channel each, and `bias`, times a factor, in place of a pool."""
    rows, cols = axes
    return ConvWork(
        work.num_ic,
        rows,
        cols,
        is_depthwise=work.num_ic > 1,
        weights=np.ones((work.num_ic, rows.kernel, cols.kernel, 1), np.int16),
        bias=np.full(work.num_ic, bias, np.int64),
        mult=np.full(work.num_ic, factor[0], np.int64),
        exponent=np.full(work.num_ic, factor[1], np.int64),
        zero_point_in=zero_points[0],
        zero_point_out=zero_points[1],
        act_min=work.act_min,
        act_max=work.act_max,
        rounding=Rounding.SINGLE,
        in_shape=(1, rows.size_in, cols.size_in, work.num_ic),
        lut=work.lut,
        is_wide=work.is_wide,
    )


def _edges(work: PoolWork) -> Iterator[PoolWork]:
    """Rows and columns of the result whose windows reach beyond the image."""
    rows, cols = work.made
    inside = [_inside(axis) for axis in (work.rows, work.cols)]
    for part in (range(inside[0].start), range(inside[0].stop, rows.stop)):
        if part:
            yield replace(work, part=(part, cols))
    for part in (range(inside[1].start), range(inside[1].stop, cols.stop)):
        if part:
            yield replace(work, part=(rows, part))


def _inside(axis: Axis) -> range:
    """Outputs whose windows are inside the image."""
    first = min(-(-axis.pad // axis.stride), axis.size_out)
    end = (axis.size_in + axis.pad - axis.kernel) // axis.stride + 1
    return range(first, max(first, min(end, axis.size_out)))


def summing_pool(work: ConvWork) -> PoolWork | None:
    """A convolution that adds up pixels of one channel each, with one factor for all channels, on the tensor
    processor; None if it is another one.
    """
    rows, cols = work.rows, work.cols
    if (
        work.rounding != Rounding.DOUBLE
        or not (work.is_depthwise or work.num_ic == work.num_oc == 1)
        or work.num_oc != work.num_ic
        or (rows.dilation, cols.dilation) != (1, 1)
        or max(rows.stride, cols.stride) > TP.fields["stride_w"].max
        or work.residual is not None
        or work.interleave is not None
        or work.pool_size
        or not (work.weights == 1).all()
        or (work.bias != -work.zero_point_in * rows.kernel * cols.kernel).any()
        or (work.mult != work.mult[0]).any()
        or (work.exponent != work.exponent[0]).any()
        or not -TP.fields["out_shift"].max <= work.exponent[0] <= 0
    ):
        return None
    return PoolWork(
        TpOp.MEAN,
        work.num_ic,
        rows,
        cols,
        work.act_min,
        work.act_max,
        lut=work.lut,
        is_wide=work.is_wide,
        fields={
            "a_zero_point": work.zero_point_in,
            "zero_point_out": work.zero_point_out,
            "out_mult": int(work.mult[0]),
            "out_shift": -int(work.exponent[0]),
        },
    )
