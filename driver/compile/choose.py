"""What the compiler chooses by cost: strides that the tensor processor splits, sums and pools that are fused,
tilings.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from itertools import product

import numpy as np

from convoy.driver.emit.descriptors import phase_blocks, tp_blocks
from convoy.driver.graph.graph import Graph, GraphError
from convoy.driver.lower.operands import describe
from convoy.driver.lower.work import (
    Axis,
    ConvWork,
    ElementwiseWork,
    InterleaveWork,
    LutWork,
    MoveWork,
    PoolWork,
    RepeatWork,
    ZoomWork,
)
from convoy.driver.plan import fitted
from convoy.driver.plan.cost import block_cycles, tp_cycles
from convoy.driver.plan.geometry import Geometry
from convoy.driver.plan.phases import is_native, split_parts, stride_choices
from convoy.driver.plan.schedule import CopyWork, PhaseWork, Schedule, Task
from convoy.driver.plan.tile import Tiling, deal_channels, tile_conv
from convoy.spec.config import NpuConfig

__all__ = [
    "conv_geometry",
    "is_sum_cheaper_fused",
    "nn_strides",
    "nnz_per_channel",
    "op_cycles",
    "pool_refusal",
    "tile_all",
]

SPLIT_GAIN = 1.5
"""The tensor processor splits a convolution of native strides only if it is estimated to be so many times as fast
then.
"""


def conv_geometry(work: ConvWork) -> Geometry:
    return Geometry(
        work.num_ic,
        work.num_oc,
        work.rows,
        work.cols,
        work.is_depthwise,
        work.residual is not None,
        work.pool_size,
        work.value_bytes,
    )


def is_sum_cheaper_fused(conv: ConvWork, add: ElementwiseWork, config: NpuConfig) -> bool:
    """Is a convolution with a residual estimated to take less time than a convolution and a sum? False when it
    cannot be tiled.
    """
    parts = _parts(conv, config)
    try:
        alone, fused = (
            sum(
                _tile_cached(
                    replace(conv_geometry(part), has_residual=has), tuple(nnz_per_channel(part).tolist()), config
                ).cost.cycles
                for part in parts
            )
            for has in (False, True)
        )
    except GraphError:
        return False
    return fused < alone + tp_cycles("add", add.num_elements, 2 * add.num_elements, config)


def pool_refusal(conv: ConvWork, config: NpuConfig) -> str | None:
    """Why a convolution with a pool cannot be tiled in one of the orientations, if so."""
    parts = _parts(conv, config)
    try:
        for part, is_transposed in product(parts, (False, True)):
            _tile_work(part.oriented(is_transposed), config)
    except GraphError as error:
        return str(error)
    return None


def _parts(conv: ConvWork, config: NpuConfig) -> list[ConvWork]:
    """What the NN engine computes at strides of 1, or the convolution itself if its strides are native."""
    return [conv] if is_native(conv) else [part for part, _ in split_parts(conv, (1, 1), config)[1]]


def nnz_per_channel(work: ConvWork) -> np.ndarray:
    return np.count_nonzero(work.weights.reshape(work.num_oc, -1), axis=1)


def _tile_work(work: ConvWork, config: NpuConfig) -> Tiling:
    return _tile_cached(conv_geometry(work), tuple(nnz_per_channel(work).tolist()), config)


@lru_cache(maxsize=1024)
def _tile_cached(geometry: Geometry, nnz: tuple[int, ...], config: NpuConfig) -> Tiling:
    counts = np.array(nnz, np.int64)
    return tile_conv(geometry, counts, deal_channels(geometry, counts, config.num_cores), config)


def tile_all(graph: Graph, plan: Schedule, config: NpuConfig) -> dict[int, Tiling]:
    """Tilings by task number.

    A layer on a single pixel with too many channels for the stripe is folded; its task in `plan` is replaced.
    """
    tilings = {}
    for number, task in enumerate(plan.tasks):
        if not isinstance(task.work, ConvWork):
            continue
        error = None
        for work in _foldings(task.work, config):
            try:
                tilings[number] = _tile_work(work, config)
                plan.tasks[number] = replace(task, work=work)
                break
            except GraphError as refusal:
                error = error or refusal
        else:
            raise GraphError(f"{describe(graph, task.op)}: {error}") from error
    return tilings


def _foldings(work: ConvWork, config: NpuConfig) -> Iterator[ConvWork]:
    """The work itself, and if it is a fully connected layer on one pixel, its folded forms."""
    yield work
    if work.rows == work.cols == Axis(1, 1) and not work.is_depthwise and not work.is_wide:
        yield from (
            work.folded(num_taps) for num_taps in range(2, config.num_lanes * 4 + 1) if work.num_ic % num_taps == 0
        )


def nn_strides(work: ConvWork, config: NpuConfig) -> tuple[int, int]:
    """The strides left to the NN engine with which a convolution is estimated to take least time.

    The tensor processor takes a part of native strides only where the NN engine alone is far from its ideal, because
    its windows hold too few pixels.
    """
    choices = stride_choices(work)
    if len(choices) == 1:
        return choices[0]
    best, least = choices[0], np.inf
    if is_native(work):
        with suppress(GraphError):
            least = _tile_work(work, config).cost.cycles / SPLIT_GAIN
        if (
            work.is_depthwise
            or least
            < int(nnz_per_channel(work).sum()) * work.rows.size_out * work.cols.size_out / config.macs_per_cycle
        ):
            return best
        choices = choices[1:]
    for strides in choices:
        split, parts = split_parts(work, strides, config)
        try:
            cycles = _nn_cycles(
                [
                    (part, PhaseWork(split, channels, 0) if channels else None, _tile_work(part, config))
                    for part, channels in parts
                ],
                config,
            )
        except GraphError:
            continue
        if cycles < least:
            best, least = strides, cycles
    return best


def op_cycles(numbers: list[int], plan: Schedule, tilings: dict[int, Tiling], config: NpuConfig) -> float:
    """Estimated cycles of the tasks of an operator."""
    convs = [
        (plan.tasks[number].work, plan.tasks[number].phases, tilings[number]) for number in numbers if number in tilings
    ]
    return (_nn_cycles(convs, config) if convs else 0.0) + sum(
        _tp_cycles(plan.tasks[number], plan, config) for number in numbers if number not in tilings
    )


def _nn_cycles(convs: list[tuple[ConvWork, PhaseWork | None, Tiling]], config: NpuConfig) -> float:
    """Estimated cycles of the convolutions of an operator and of the phase planes made for them, each stripe's while
    the one before is computed.
    """
    nn = sum(tiling.cost.cycles for _, _, tiling in convs)
    tp = [
        sum(block_cycles(block, config) for block in blocks)
        for work, phases, tiling in convs
        for blocks in phase_blocks(phases, work, tiling, 0, 0, config)
    ]
    num_stages = max(1, sum(cycles > 0 for cycles in tp))
    return max(sum(tp), nn) + min(sum(tp), nn) / num_stages + fitted.TP_START_CYCLES * any(tp)


def _tp_cycles(task: Task, plan: Schedule, config: NpuConfig) -> float:
    """Estimated cycles of a task that is not a convolution."""
    work = task.work
    if isinstance(work, PoolWork):
        pixels = (
            work.value_bytes
            * work.num_ic
            * work.rows.size_out
            * work.cols.size_out
            * work.rows.kernel
            * work.cols.kernel
        )
        return tp_cycles(
            "pool", pixels, work.value_bytes**2 * work.num_ic * work.rows.size_in * work.cols.size_in, config
        )
    if isinstance(work, ElementwiseWork) and work.is_plain_sum:
        return tp_cycles("add", work.num_elements, 2 * work.num_elements, config)
    if isinstance(work, LutWork):
        return tp_cycles("copy", work.num_elements, work.num_elements, config)
    if isinstance(work, CopyWork):
        return tp_cycles("copy", int(np.prod(work.sizes)), int(np.prod(work.sizes)), config)
    if isinstance(work, ZoomWork):
        return tp_cycles(
            "zoom",
            work.num_ic * work.rows.size_out * work.cols.size_out,
            work.num_ic * work.rows.size_in * work.cols.size_in,
            config,
        )
    if isinstance(work, (ElementwiseWork, InterleaveWork, MoveWork, RepeatWork)):
        return fitted.TP_START_CYCLES + sum(
            block_cycles(block, config) for block in tp_blocks(task, [0] * len(plan.buffers), 0, config)
        )
    return 0.0
