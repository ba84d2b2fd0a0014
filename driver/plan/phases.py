"""Strides that the NN engine does not have: the tensor processor writes the image as phase planes, a convolution of
stride 1 runs over them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import groupby, product

import numpy as np

from convoy.driver.lower.work import NATIVE_STRIDES, Axis, ConvWork
from convoy.spec.config import NpuConfig

from .pools import Pools, PoolSteps
from .sums import CutConv, TurnedConv
from .turns import Steps

__all__ = [
    "AxisPhases",
    "PhaseSplit",
    "SplitConv",
    "Splits",
    "in_columns",
    "is_native",
    "native_parts",
    "split_conv",
    "stride_choices",
]


@dataclass(frozen=True)
class AxisPhases:
    """One axis of an image in phases: plane `phase` has pixel `stride * i + phase` at place i. An axis left as it is
    has stride 1.
    """

    size_in: int
    stride: int
    phases: tuple[int, ...]
    """Those that taps read, ascending."""

    @property
    def size(self) -> int:
        """Pixels of a plane; the last one may lie outside the image."""
        return -(-self.size_in // self.stride)

    def num_inside(self, phase: int) -> int:
        """Pixels of a plane that lie inside the image."""
        return max(0, -(-(self.size_in - phase) // self.stride))

    def even_runs(self) -> list[list[int]]:
        """Positions in `phases`, cut so that the phases of a run follow one another and have the same `num_inside`."""
        keys = [(self.num_inside(phase), phase - n) for n, phase in enumerate(self.phases)]
        return [list(run) for _, run in groupby(range(len(keys)), key=keys.__getitem__)]


@dataclass(frozen=True)
class PhaseSplit:
    """A planar image in phase planes, each planar, in the order (channel, column phase, row phase).

    Of int16 an image has a plane of low bytes and one of high bytes per channel, and so has a phase.
    """

    num_ic: int
    rows: AxisPhases
    cols: AxisPhases
    zero_point: int
    """What pixels outside the image are; 0 of int16."""
    value_bytes: int = 1
    """Bytes of a pixel."""

    @property
    def num_planes(self) -> int:
        """Phases of a channel."""
        return len(self.rows.phases) * len(self.cols.phases)

    @property
    def plane_bytes(self) -> int:
        """Bytes of a phase."""
        return self.value_bytes * self.rows.size * self.cols.size


@dataclass(frozen=True)
class SplitConv:
    """A convolution whose strides the tensor processor takes, all of them or a factor."""

    split: PhaseSplit
    parts: tuple[tuple[ConvWork, range], ...]
    """Convolutions over the planes, each with the channels whose planes are made for it."""
    is_of_columns: bool = False
    """Of an `in_columns` convolution."""


@dataclass(frozen=True)
class Splits:
    """What is chosen for all convolutions and pools of a network in one orientation."""

    is_transposed: bool
    """Images are stored with columns as rows."""
    convs: dict[int, SplitConv | CutConv | TurnedConv | Pools | PoolSteps | Steps]
    """By position of the operator; convolutions that the NN engine runs as they are, and pools that the tensor
    processor makes in one step, have no entry.
    """
    moves: dict[int, Steps] = field(default_factory=dict)
    """By position of the operator, how images are interleaved and resized; those in one step have no entry."""


def is_native(work: ConvWork) -> bool:
    """Does the NN engine have the strides of this convolution?"""
    return work.rows.stride in NATIVE_STRIDES and work.cols.stride in NATIVE_STRIDES


def in_columns(work: ConvWork) -> ConvWork | None:
    """A convolution on an image in the order of tensors as one on a single plane, which has a column for each channel
    of a pixel; None where that is none.
    """
    if work.is_depthwise or work.is_wide or (work.cols.dilation > 1 and work.cols.kernel > 1):
        return None
    cols, count = work.cols, work.num_ic
    wide = Axis(cols.size_in * count, cols.size_out, cols.kernel * count, cols.stride * count, pad=cols.pad * count)
    weights = work.weights.reshape(work.num_oc, work.rows.kernel, wide.kernel, 1)
    in_shape = 1, work.rows.size_in, wide.size_in, 1
    return replace(work, num_ic=1, cols=wide, weights=weights, in_shape=in_shape)


def stride_choices(work: ConvWork) -> list[tuple[int, int]]:
    """Strides of rows and columns that may be left to the NN engine, the largest first.

    The tensor processor takes the rest, which makes fewer pixels than there are where taps do not read all phases, and
    windows of one phase each.
    """
    rows, cols = (
        [step for step in sorted(NATIVE_STRIDES, reverse=True) if axis.stride % step == 0]
        for axis in (work.rows, work.cols)
    )
    return list(product(rows, cols))


def split_conv(work: ConvWork, strides: tuple[int, int], config: NpuConfig) -> SplitConv:
    """The split of a convolution's input that leaves `strides` of rows and columns to the NN engine.

    The planes are input channels. A tap of the kernel is a weight in the plane that it reads; other weights are zero,
    which costs nothing. A depthwise convolution has a part for every `num_cores` channels: its planes are separate
    channels to the NN engine, whose windows go to all cores, so that more channels would only wait for one another.
    Planes are made for as many channels at once as half a TP buffer holds.
    """
    (row_phases, rows, row_taps), (col_phases, cols, col_taps) = (
        _split_axis(axis, stride) for axis, stride in zip((work.rows, work.cols), strides, strict=True)
    )
    split = PhaseSplit(work.num_ic, row_phases, col_phases, work.zero_point_in, work.value_bytes)
    num_channels = min(config.num_cores, work.num_ic) if work.is_depthwise else work.num_ic
    num_ahead = (
        max(1, config.tp_buffer_bytes // 2 // (row_phases.size_in * col_phases.size_in) // num_channels) * num_channels
    )
    parts = []
    for first in range(0, work.num_ic, num_channels):
        count = min(num_channels, work.num_ic - first)
        outputs = (
            slice(first * work.multiplier, (first + count) * work.multiplier) if work.is_depthwise else slice(None)
        )
        kernels = work.weights[outputs]
        if work.is_depthwise:
            kernels = (
                kernels * (np.arange(len(kernels))[:, None] // work.multiplier == np.arange(count))[:, None, None, :]
            )
        weights = np.zeros(
            (len(kernels), rows.kernel, cols.kernel, count, len(col_phases.phases), len(row_phases.phases)),
            work.weights.dtype,
        )
        for ky, (qy, y) in enumerate(row_taps):
            for kx, (qx, x) in enumerate(col_taps):
                weights[:, y, x, :, qx, qy] = kernels[:, ky, kx, :]
        num_ic = count * split.num_planes
        in_shape = 1, rows.size_in, cols.size_in, num_ic
        part = replace(
            work,
            num_ic=num_ic,
            rows=rows,
            cols=cols,
            in_shape=in_shape,
            is_depthwise=False,
            weights=weights.reshape(*weights.shape[:3], num_ic),
            bias=work.bias[outputs],
            mult=work.mult[outputs],
            exponent=work.exponent[outputs],
        )
        parts.append((part, range(first, min(first + num_ahead, work.num_ic)) if first % num_ahead == 0 else range(0)))
    return SplitConv(split, tuple(parts))


def _split_axis(axis: Axis, stride: int) -> tuple[AxisPhases, Axis, list[tuple[int, int]]]:
    """Phases of an axis, the axis of the convolution of this stride over them, and (position of the phase, kernel
    position) of each tap.
    """
    if axis.stride == stride:
        return AxisPhases(axis.size_in, 1, (0,)), axis, [(0, k) for k in range(axis.kernel)]
    num_phases = axis.stride // stride
    reads = [divmod(k * axis.dilation - axis.pad, num_phases) for k in range(axis.kernel)]
    phases = AxisPhases(axis.size_in, num_phases, tuple(sorted({phase for _, phase in reads})))
    first = reads[0][0]
    dilation = int(np.gcd.reduce([shift - first for shift, _ in reads])) or 1
    taps = [(phases.phases.index(phase), (shift - first) // dilation) for shift, phase in reads]
    return phases, Axis(phases.size, axis.size_out, max(k for _, k in taps) + 1, stride, dilation, -first), taps


def native_parts(work: ConvWork, config: NpuConfig) -> list[ConvWork]:
    """What the NN engine computes at strides of 1, or the convolution itself if its strides are native."""
    return [work] if is_native(work) else [part for part, _ in split_conv(work, (1, 1), config).parts]
