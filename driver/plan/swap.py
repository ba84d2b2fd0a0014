"""Convolutions with swapped operands: weights are the image, a lane for each output channel; activations are the
stream, a kernel for each output position. For maps of few pixels, where lanes of a pixel each would be empty.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache

import numpy as np

from convoy.driver.graph.graph import GraphError
from convoy.driver.lower.work import Axis, ConvWork
from convoy.spec.config import NpuConfig
from convoy.spec.cycles import MIN_FILL_CYCLES
from convoy.spec.isa import DESCRIPTOR_BYTES, MAX_SRC_PLANE_BYTES, NN, PARAM

from . import fitted
from .cost import TilingCost
from .geometry import Geometry
from .phases import native_parts
from .tile import tile_work

__all__ = [
    "SwappedJob",
    "SwappedTiling",
    "expected_zeros",
    "met_by_cores",
    "nn_cycles",
    "plain_form",
    "swap_form",
    "swap_obstacle",
    "swap_work",
    "tap_cycles",
    "token_cycles",
]

ROW_WORDS = 4
"""Of the window of a layer on one pixel, at most."""
MAX_POSITION_TILES = 4
"""Each reads the weights again; with more of them lanes of pixels are full."""
LEAST_VALUE = -128
"""The zero point of what a ReLU makes."""


@dataclass(frozen=True)
class SwappedJob:
    """Some output channels at some positions, which are whole rows or a part of the only row: one NN descriptor."""

    first_oc: int
    num_oc: int
    first_row: int
    num_rows: int
    first_col: int
    num_cols: int

    @property
    def num_pos(self) -> int:
        """Output positions."""
        return self.num_rows * self.num_cols

    def num_vec(self, config: NpuConfig) -> int:
        """T: lane vectors of output channels."""
        return -(-self.num_oc // config.num_lanes)

    def num_kernels(self, config: NpuConfig) -> int:
        """K: positions per core."""
        return -(-self.num_pos // config.num_cores)


@dataclass(frozen=True)
class SwappedTiling:
    """The choice for one layer."""

    geometry: Geometry
    jobs: tuple[SwappedJob, ...]
    cost: TilingCost
    """If no activation is zero."""
    expected_cycles: float
    """With as many zeros as are expected."""

    @cached_property
    def row_taps(self) -> range:
        """Taps of a kernel column that meet a pixel for some output; those before and behind meet pads only."""
        return _used_taps(self.geometry.rows)

    @cached_property
    def col_taps(self) -> range:
        """The same of a kernel row."""
        return _used_taps(self.geometry.cols)

    @property
    def num_z(self) -> int:
        """Planes of the image: the used taps of every input channel."""
        return self.geometry.num_ic * len(self.row_taps) * len(self.col_taps)

    def is_faster(self, cycles: float) -> bool:
        """Is it clearly faster than a plain form that is estimated to take so many cycles, as far as zeros can be
        foreseen, and not much slower without any?
        """
        return self.expected_cycles < fitted.SWAP_GAIN * cycles and self.cost.cycles < fitted.SWAP_LOSS * cycles

    def num_tokens(self, job: SwappedJob, num_cores: int) -> np.ndarray:
        """Pixels that each core meets with each tap of an input channel; int64 (taps, cores)."""
        rows, cols = self.geometry.rows, self.geometry.cols
        in_rows = _is_inside(rows, self.row_taps, range(job.first_row, job.first_row + job.num_rows))
        in_cols = _is_inside(cols, self.col_taps, range(job.first_col, job.first_col + job.num_cols))
        return met_by_cores(in_rows, in_cols, num_cores)


def met_by_cores(in_rows: np.ndarray, in_cols: np.ndarray, num_cores: int) -> np.ndarray:
    """Pixels that each core meets with each tap, int64 (taps, cores), if positions are dealt to cores in turn: from
    whether each tap of an axis (first index) of each position (second) meets one.
    """
    num_pos = in_rows.shape[1] * in_cols.shape[1]
    is_inside = (in_rows[:, None, :, None] & in_cols[None, :, None, :]).reshape(-1, num_pos)
    dealt = np.pad(is_inside, ((0, 0), (0, -num_pos % num_cores)))
    return dealt.reshape(len(dealt), -1, num_cores).sum(axis=1, dtype=np.int64)


def expected_zeros(zero_point: int) -> float:
    """How many of the activations of a tensor with this zero point, in a byte with a sign, are expected to be zero."""
    return fitted.ZERO_SHARE * (zero_point == LEAST_VALUE)


def token_cycles(tokens: np.ndarray, num_vec: int, num_kernels: int) -> np.ndarray:
    """Cycles of cores that meet so many activations which are not zero at each tap of a plane; float.

    An activation takes T cycles. The decoder needs one for each, also for a zero, which it drops: if K activations are
    zero independently of one another with probability p, runs of zeros longer than T - 1 cost K * p**T cycles.
    """
    return tokens * num_vec + num_kernels * (1 - tokens / num_kernels) ** num_vec


def swap_form(work: ConvWork) -> ConvWork:
    """The form in which a convolution as stored is computed with its operands swapped: a layer on one pixel is a row,
    for each channel costs the gather a cycle.
    """
    return _as_row(work, min(NN.fields["src_kernel_w"].max, MAX_SRC_PLANE_BYTES))


def plain_form(work: ConvWork, config: NpuConfig) -> ConvWork:
    """The same of the plain form: a row of some words has one window, and is denser in the stripe."""
    return _as_row(work, ROW_WORDS * config.num_lanes)


def _as_row(work: ConvWork, most: int) -> ConvWork:
    """A layer of 8 bits on one pixel as a row of at most `most` pixels of as few channels as can be."""
    if not (work.rows == work.cols == Axis(1, 1)) or work.is_depthwise or work.is_wide:
        return work
    return work.folded(max(count for count in range(1, most + 1) if work.num_ic % count == 0))


def swap_work(work: ConvWork, config: NpuConfig) -> SwappedTiling | None:
    """The cheapest tiling of the `swap_form` of a convolution with its operands swapped; None where that cannot be.

    Equal geometries are tiled once.
    """
    if work.is_depthwise or work.is_wide or work.pool_size or work.pieces is not None or not _has_narrow_weights(work):
        return None
    return _swap_once(Geometry.of(swap_form(work)), expected_zeros(work.zero_point_in), config)


def swap_obstacle(work: ConvWork, config: NpuConfig) -> str | None:
    """Why a layer of fewer output positions than lanes has no swapped operands, if its weights are the reason."""
    has_few = not work.is_depthwise and work.rows.size_out * work.cols.size_out < config.num_lanes
    if not has_few or work.is_wide or _has_narrow_weights(work):
        return None
    return "operands not swapped: weights less their zero point do not fit 8 bits"


def _has_narrow_weights(work: ConvWork) -> bool:
    return bool(work.weights.min() >= -128 and work.weights.max() <= 127)


def nn_cycles(work: ConvWork, config: NpuConfig) -> float:
    """Estimated cycles of a convolution on the NN engine in its cheaper form.

    Raises
    ------
    GraphError
        When it can be tiled in none.
    """
    swapped = swap_work(work, config)
    try:
        cycles = sum(tile_work(plain_form(part, config), config).cost.cycles for part in native_parts(work, config))
    except GraphError:
        if swapped is None:
            raise
        return swapped.cost.cycles
    return swapped.cost.cycles if swapped is not None and swapped.is_faster(cycles) else cycles


@lru_cache(maxsize=1024)
def _swap_once(geometry: Geometry, zeros: float, config: NpuConfig) -> SwappedTiling | None:
    if not _is_sayable(geometry):
        return None
    tilings = [
        SwappedTiling(geometry, tuple(_jobs(geometry, rows, cols, num_vec * config.num_lanes)), _NO_COST, 0.0)
        for rows, cols in _position_tiles(geometry, config)
        for num_vec in _vector_counts(geometry, -(-rows * cols // config.num_cores), config)
    ]
    costed = [replace(tiling, cost=_cost(tiling, 0.0, config)) for tiling in tilings]
    if (best := min(costed, key=lambda tiling: tiling.cost.cycles, default=None)) is None:
        return None
    return replace(best, expected_cycles=_cost(best, zeros, config).cycles)


_NO_COST = TilingCost(*(0.0,) * len(fields(TilingCost)))


def _is_sayable(geometry: Geometry) -> bool:
    """Do the descriptor's fields hold it?"""
    rows, cols = geometry.rows, geometry.cols
    taps = _used_taps(rows), _used_taps(cols)
    if not all(taps) or rows.size_in * cols.size_in > MAX_SRC_PLANE_BYTES:
        return False
    for axis, used, name in zip((rows, cols), taps, "hw", strict=True):
        if (
            len(used) > NN.fields[f"src_kernel_{name}"].max
            or axis.stride > NN.fields[f"src_stride_{name}"].max
            or axis.dilation > NN.fields[f"src_dilation_{name}"].max
        ):
            return False
    num_z = geometry.num_ic * len(taps[0]) * len(taps[1])
    return num_z <= NN.fields["num_z"].max


def _used_taps(axis: Axis) -> range:
    """From the first to the last tap that meets a pixel for some output."""
    met = np.flatnonzero(_is_inside(axis, range(axis.kernel), range(axis.size_out)).any(axis=1))
    return range(int(met[0]), int(met[-1]) + 1) if met.size else range(0)


def _is_inside(axis: Axis, taps: range, outputs: range) -> np.ndarray:
    """Does a tap (first index) of an output (second) meet a pixel?"""
    place = np.array(taps)[:, None] * axis.dilation + np.array(outputs) * axis.stride - axis.pad
    return (place >= 0) & (place < axis.size_in)


def _position_tiles(geometry: Geometry, config: NpuConfig) -> Iterator[tuple[int, int]]:
    """Rows and columns of positions of a job, to try: one job has as many as the accumulators hold."""
    num_rows, num_cols = geometry.rows.size_out, geometry.cols.size_out
    limit = config.num_cores * min(config.num_acc_entries, NN.fields["num_kernels"].max)
    for count in range(1, MAX_POSITION_TILES + 1):
        rows, cols = (-(-num_rows // count), num_cols) if num_rows > 1 else (1, -(-num_cols // count))
        if count <= max(num_rows, num_cols if num_rows == 1 else 1) and rows * cols <= limit:
            yield rows, cols


def _vector_counts(geometry: Geometry, num_kernels: int, config: NpuConfig) -> list[int]:
    """T to try: as many jobs as it takes, of about equal size, whose windows fit at least twice."""
    num_vec = -(-geometry.num_oc // config.num_lanes)
    most = min(num_vec, config.num_acc_entries // num_kernels, config.window_words // 2, NN.fields["num_vec"].max)
    return sorted({-(-num_vec // count) for count in range(-(-num_vec // most), num_vec + 1)}, reverse=True)


def _jobs(geometry: Geometry, tile_rows: int, tile_cols: int, tile_oc: int) -> Iterator[SwappedJob]:
    for first_oc in range(0, geometry.num_oc, tile_oc):
        for first_row in range(0, geometry.rows.size_out, tile_rows):
            for first_col in range(0, geometry.cols.size_out, tile_cols):
                yield SwappedJob(
                    first_oc,
                    min(tile_oc, geometry.num_oc - first_oc),
                    first_row,
                    min(tile_rows, geometry.rows.size_out - first_row),
                    first_col,
                    min(tile_cols, geometry.cols.size_out - first_col),
                )


def tap_cycles(num_pos: int, config: NpuConfig) -> int:
    """Cycles to gather the activations of a tap: one for each position, and one for the cores that have none in the
    last round. A plane takes one more.
    """
    return num_pos + (num_pos % config.num_cores != 0)


def _cost(tiling: SwappedTiling, zeros: float, config: NpuConfig) -> TilingCost:
    """Estimate, if this part of the activations is zero: each job takes as long as the slowest of the port, the filler,
    the cores and the gather, and is drained while the next one is computed.
    """
    geometry = tiling.geometry
    source_bytes = geometry.num_ic * geometry.rows.size_in * geometry.cols.size_in
    cycles, drain, totals = float(fitted.SWAPPED_CYCLES), 0.0, np.zeros(4)
    for job in tiling.jobs:
        num_vec = job.num_vec(config)
        tokens = tiling.num_tokens(job, config.num_cores)
        spent = tokens * num_vec if not zeros else token_cycles((1 - zeros) * tokens, num_vec, job.num_kernels(config))
        compute = geometry.num_ic * float(np.maximum(spent, 1).sum(axis=0).max())
        fill = tiling.num_z * max(num_vec, MIN_FILL_CYCLES)
        gather = tiling.num_z * tap_cycles(job.num_pos, config) + geometry.num_ic
        num_bytes = job.num_oc * (tiling.num_z + PARAM.num_bytes) + source_bytes + DESCRIPTOR_BYTES
        load = num_bytes / config.port_bytes
        cycles += max(compute, fill, gather, load, drain) + fitted.NEXT_SWAPPED_CYCLES
        drain = float(job.num_oc * job.num_pos)
        totals += compute, fill, drain, load
    return TilingCost(cycles + drain, totals[0], totals[1], totals[2], 0.0, totals[3])
