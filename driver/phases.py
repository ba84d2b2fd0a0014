"""Strides that the NN engine does not have: the tensor processor writes the image as phase planes, a convolution of stride 1 runs over them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby, product

import numpy as np

from convoy.spec.config import NpuConfig
from convoy.spec.isa import TpOp

from .blocks import BLANK, block_cycles
from .work import Axis, ConvWork

__all__ = ["NATIVE_STRIDES", "AxisPhases", "PhaseSplit", "is_native", "split_blocks", "split_parts", "stride_choices"]

NATIVE_STRIDES = 1, 2
"""Strides of the NN engine; of others the tensor processor takes a factor: it splits the image into phases first."""


@dataclass(frozen=True)
class AxisPhases:
    """One axis of an image in phases: plane `phase` has pixel `stride * i + phase` at place i. An axis left as it is has stride 1."""

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
    """A planar image in phase planes, each planar, in the order (channel, row phase, column phase).

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


def is_native(work: ConvWork) -> bool:
    """Does the NN engine have the strides of this convolution?"""
    return work.rows.stride in NATIVE_STRIDES and work.cols.stride in NATIVE_STRIDES


def stride_choices(work: ConvWork) -> list[tuple[int, int]]:
    """Strides of rows and columns that may be left to the NN engine, the largest first. The tensor processor takes the rest, which makes fewer pixels
    than there are where taps do not read all phases, and windows of one phase each."""
    rows, cols = ([step for step in sorted(NATIVE_STRIDES, reverse=True) if axis.stride % step == 0] for axis in (work.rows, work.cols))
    return list(product(rows, cols))


def split_parts(work: ConvWork, strides: tuple[int, int], config: NpuConfig) -> tuple[PhaseSplit, list[tuple[ConvWork, range]]]:
    """The split of a convolution's input that leaves `strides` to the NN engine, and convolutions over the planes, each with the channels whose planes are made for it.

    The planes are input channels. A tap of the kernel is a weight in the plane that it reads; other weights are zero, which costs nothing. A depthwise
    convolution has a part for every `num_cores` channels: its planes are separate channels to the NN engine, whose windows go to all cores, so that more
    channels would only wait for one another. Planes are made for as many channels at once as half a TP buffer holds.
    """
    (row_phases, rows, row_taps), (col_phases, cols, col_taps) = (
        _split_axis(axis, stride) for axis, stride in zip((work.rows, work.cols), strides, strict=True))
    split = PhaseSplit(work.num_ic, row_phases, col_phases, work.zero_point_in, work.value_bytes)
    num_channels = min(config.num_cores, work.num_ic) if work.is_depthwise else work.num_ic
    num_ahead = max(1, config.tp_buffer_bytes // 2 // (row_phases.size_in * col_phases.size_in) // num_channels) * num_channels
    parts = []
    for first in range(0, work.num_ic, num_channels):
        count = min(num_channels, work.num_ic - first)
        outputs = slice(first * work.multiplier, (first + count) * work.multiplier) if work.is_depthwise else slice(None)
        kernels = work.weights[outputs]
        if work.is_depthwise:
            kernels = kernels * (np.arange(len(kernels))[:, None] // work.multiplier == np.arange(count))[:, None, None, :]
        weights = np.zeros((len(kernels), rows.kernel, cols.kernel, count, len(row_phases.phases), len(col_phases.phases)), work.weights.dtype)
        for ky, (qy, y) in enumerate(row_taps):
            for kx, (qx, x) in enumerate(col_taps):
                weights[:, y, x, :, qy, qx] = kernels[:, ky, kx, :]
        num_ic = count * split.num_planes
        in_shape = 1, rows.size_in, cols.size_in, num_ic
        part = replace(work, num_ic=num_ic, rows=rows, cols=cols, in_shape=in_shape, is_depthwise=False, weights=weights.reshape(*weights.shape[:3], num_ic),
                       bias=work.bias[outputs], mult=work.mult[outputs], exponent=work.exponent[outputs])
        parts.append((part, range(first, min(first + num_ahead, work.num_ic)) if first % num_ahead == 0 else range(0)))
    return split, parts


def _split_axis(axis: Axis, stride: int) -> tuple[AxisPhases, Axis, list[tuple[int, int]]]:
    """Phases of an axis, the axis of the convolution of this stride over them, and (position of the phase, kernel position) of each tap."""
    if axis.stride == stride:
        return AxisPhases(axis.size_in, 1, (0,)), axis, [(0, k) for k in range(axis.kernel)]
    num_phases = axis.stride // stride
    reads = [divmod(k * axis.dilation - axis.pad, num_phases) for k in range(axis.kernel)]
    phases = AxisPhases(axis.size_in, num_phases, tuple(sorted({phase for _, phase in reads})))
    first = reads[0][0]
    dilation = int(np.gcd.reduce([shift - first for shift, _ in reads])) or 1
    taps = [(phases.phases.index(phase), (shift - first) // dilation) for shift, phase in reads]
    return phases, Axis(phases.size, axis.size_out, max(k for _, k in taps) + 1, stride, dilation, -first), taps


def split_blocks(split: PhaseSplit, channels: range, rows: range, addr: int, out_addr: int, config: NpuConfig) -> list[dict[str, int]]:
    """Fields of TP descriptors that write `rows` of the planes of `channels`; `addr` and `out_addr` are those of the whole image and all planes.

    A descriptor loops over channels, over row phases or over column phases, whichever is cheapest; of int16 it moves either low or high bytes.
    """
    choices = (_Blocks(split, channels, rows, addr, out_addr, config) for _ in range(3))
    return min((list(blocks.generate(loop)) for blocks, loop in zip(choices, ("channel", "row", "col"), strict=True)),
               key=lambda blocks: sum(block_cycles(block, config) for block in blocks))


class _Blocks:
    """One call of `split_blocks`."""

    def __init__(self, split: PhaseSplit, channels: range, rows: range, addr: int, out_addr: int, config: NpuConfig):
        self.split, self.channels, self.rows, self.addr, self.out_addr = split, channels, rows, addr, out_addr
        self.limit = config.tp_buffer_bytes // 2

    def generate(self, loop: str) -> Iterator[dict[str, int]]:
        """Blocks whose outer loop is `loop`: "channel", "row" (phase) or "col" (phase)."""
        rows, cols, width = self.split.rows, self.split.cols, self.split.cols.size_in
        row_runs = rows.even_runs() if loop == "row" else [[n] for n in range(len(rows.phases))]
        col_runs = cols.even_runs() if loop == "col" else [[n] for n in range(len(cols.phases))]
        num_rows, num_cols, num_c = min(len(self.rows), self.limit // width), cols.size, 1
        if width > self.limit:
            num_rows, num_cols = 1, self.limit // cols.stride
        elif loop == "channel":
            all_rows = (len(self.rows) - 1) * rows.stride + 1
            num_c = max(1, min(len(self.channels), self.limit // (all_rows * width)))
        elif loop == "row":
            num_rows = min(len(self.rows), (self.limit // width - max(map(len, row_runs))) // rows.stride + 1)
        if num_rows < 1 or (width > self.limit and loop != "channel"):
            loop, num_rows, row_runs, col_runs = "channel", max(num_rows, 1), [[n] for n in range(len(rows.phases))], [[n] for n in range(len(cols.phases))]
        for c in range(self.channels.start, self.channels.stop, num_c):
            for row_run in row_runs:
                for col_run in col_runs:
                    for i in range(self.rows.start, self.rows.stop, num_rows):
                        for j, byte in product(range(0, cols.size, num_cols), range(self.split.value_bytes)):
                            yield self._block(range(c, min(c + num_c, self.channels.stop)), row_run, col_run, range(i, min(i + num_rows, self.rows.stop)),
                                              range(j, min(j + num_cols, cols.size)), byte)

    def _block(self, channels: range, row_run: list[int], col_run: list[int], rows: range, cols: range, byte: int) -> dict[str, int]:
        """One descriptor, for a byte of each pixel; at most one of `channels`, `row_run` and `col_run` has more than one entry."""
        split, row_axis, col_axis = self.split, self.split.rows, self.split.cols
        phase_y, phase_x = row_axis.phases[row_run[0]], col_axis.phases[col_run[0]]
        tile_ih = min(max(row_axis.num_inside(phase_y) - rows.start, 0), len(rows))
        tile_iw = min(max(col_axis.num_inside(phase_x) - cols.start, 0), len(cols))
        width, num_planes, image_bytes = col_axis.size_in, split.num_planes, split.value_bytes * row_axis.size_in * col_axis.size_in
        fields = {
            "op": TpOp.COPY, "num_0": len(channels) * len(row_run) * len(col_run), "num_1": len(rows), "num_2": len(cols),
            "tile_ih": tile_ih, "tile_iw": tile_iw, "zero_point_out": split.zero_point,
            "out_addr": self.out_addr + ((channels.start * len(row_axis.phases) + row_run[0]) * len(col_axis.phases) + col_run[0]) * split.plane_bytes
            + (byte * row_axis.size + rows.start) * col_axis.size + cols.start,
            "out_run_bytes": len(rows) * len(cols) if len(cols) == col_axis.size else len(cols),
            "out_pitch_bytes": col_axis.size if len(cols) < col_axis.size else split.plane_bytes * (
                num_planes if len(channels) > 1 else len(col_axis.phases) if len(row_run) > 1 else 1),
        }
        if tile_ih == 0 or tile_iw == 0:
            return BLANK | fields | {"a_addr": self.addr, "a_run_bytes": 1, "tile_ih": 0}
        first_x = cols.start * col_axis.stride + phase_x
        loaded = (tile_iw - 1) * col_axis.stride + len(col_run)
        first = channels.start * image_bytes + (byte * row_axis.size_in + rows.start * row_axis.stride + phase_y) * width + first_x
        fields |= {"a_addr": self.addr + first, "step_2": col_axis.stride}
        if len(channels) == len(row_run) == 1:  # only rows that are needed
            return BLANK | fields | {"a_run_bytes": loaded, "num_a_runs": tile_ih, "a_pitch_bytes": row_axis.stride * width, "step_0": 1, "step_1": loaded}
        run = ((tile_ih - 1) * row_axis.stride + len(row_run) - 1) * width + loaded
        return BLANK | fields | {
            "a_run_bytes": run, "num_a_runs": len(channels), "a_pitch_bytes": image_bytes,
            "step_0": run if len(channels) > 1 else width, "step_1": row_axis.stride * width,
        }
