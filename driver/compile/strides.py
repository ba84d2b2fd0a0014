"""Works -> splits: which strides of each convolution the tensor processor takes, which one is cut into sums, and how
pools are made.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np

from convoy.driver.graph.graph import Graph, GraphError
from convoy.driver.lower.work import (
    ConvWork,
    ElementwiseWork,
    FusedWork,
    HostWork,
    InterleaveWork,
    LutWork,
    PoolWork,
    RepeatWork,
    ReshapeWork,
    ResizeWork,
    Work,
    ZoomWork,
)
from convoy.driver.plan.cost import tp_cycles
from convoy.driver.plan.phases import SplitConv, Splits, in_columns, is_native, split_conv, stride_choices
from convoy.driver.plan.pools import Pools, PoolSteps, best_pool, works_cycles
from convoy.driver.plan.schedule import PhaseWork
from convoy.driver.plan.sums import CutConv, TurnedConv, best_sum
from convoy.driver.plan.swap import swap_work
from convoy.driver.plan.tile import tile_work
from convoy.driver.plan.turns import Steps, chain, conv_forms, image_forms, one_step
from convoy.spec.config import NpuConfig

from .weigh import conv_cycles, steps_cycles, striped_planes

__all__ = ["choose_strides", "readers_in_order"]

SPLIT_GAIN = 1.5
"""The tensor processor splits a convolution of native strides only if it is estimated to be so many times as fast
then.
"""


def readers_in_order(graph: Graph, works: Sequence[Work | FusedWork], edge_inputs: frozenset[int]) -> frozenset[int]:
    """Positions of the operators of `graph` whose first input is in the order of tensors: `edge_inputs`, results of the
    host, and what is made of these element by element or only seen otherwise.
    """
    found, positions = set(edge_inputs), list[int]()
    for position, (op, work) in enumerate(zip(graph.ops, works, strict=True)):
        is_like_source = isinstance(work, ReshapeWork | LutWork) and op.inputs[0] in found
        if isinstance(work, ElementwiseWork) and not work.is_wide:
            read = [index for index, values in zip(op.inputs, work.constants, strict=False) if values is None]
            is_like_source = found.issuperset(read)
        if isinstance(work, HostWork) or is_like_source:
            found |= set(op.outputs)
        if op.inputs and op.inputs[0] in found:
            positions.append(position)
    return frozenset(positions)


def choose_strides(
    works: Sequence[Work | FusedWork], config: NpuConfig, *, is_transposed: bool, in_order: frozenset[int] = frozenset()
) -> Splits:
    """The split of every convolution and pool with which it is estimated to take least time in this orientation; those
    that take least without have none.

    `in_order`: positions of operators that read an image in the order of tensors.
    """
    splits: dict[int, SplitConv | CutConv | TurnedConv | Pools | PoolSteps | Steps | None] = {}
    moves: dict[int, Steps] = {}
    for position, work in enumerate(works):
        if isinstance(work, ConvWork):
            split = _choose_split(work.oriented(is_transposed), config)
            if position in in_order and not is_transposed and (split is None or isinstance(split, SplitConv)):
                split = _choose_columns(work, split, config) or split
            splits[position] = split
        elif isinstance(work, PoolWork):
            splits[position] = best_pool(work.oriented(is_transposed), config)
        if (move := _image_move(work, is_transposed=is_transposed)) is None:
            continue
        if (steps := _choose_steps(move, config)) is not None:
            moves[position] = steps
        if isinstance(work, ConvWork) and splits[position] is None:
            splits[position] = _choose_parts(work.oriented(is_transposed), steps or one_step(move), config)
    return Splits(is_transposed, {position: split for position, split in splits.items() if split is not None}, moves)


def _image_move(work: Work | FusedWork, *, is_transposed: bool) -> InterleaveWork | RepeatWork | ZoomWork | None:
    """What the tensor processor does to interleave or resize images, behind a convolution too."""
    if isinstance(work, ConvWork):
        return None if work.interleave is None else work.oriented(is_transposed).interleave
    if isinstance(work, ResizeWork):
        return work.repeated(is_transposed)
    return work.oriented(is_transposed) if isinstance(work, InterleaveWork | ZoomWork) else None


def _choose_steps(move: InterleaveWork | RepeatWork | ZoomWork, config: NpuConfig) -> Steps | None:
    """The steps that are estimated to take least time; None if that is one."""
    limit = np.inf
    with suppress(GraphError):
        limit = steps_cycles(one_step(move), config)
    return _cheapest_steps(image_forms(move), limit, config)


def _choose_parts(work: ConvWork, steps: Steps, config: NpuConfig) -> Steps | None:
    """The form in which a convolution and what interleaves its outputs work at the same time, if that is estimated to
    take less time than one after the other, in these steps.
    """
    with suppress(GraphError):
        swapped = swap_work(work, config)
        if swapped is not None and swapped.is_faster(tile_work(work, config).cost.cycles):
            return None
        whole = chain((work.num_oc, [work]), *((step.num_bytes, step.works) for step in steps.steps))
        return _cheapest_steps(conv_forms(work), steps_cycles(whole, config), config)
    return None


def _cheapest_steps(forms: Iterable[Steps], limit: float, config: NpuConfig) -> Steps | None:
    """The first of the forms that are estimated to take least time, if that is less than `limit` cycles."""
    best = None
    for steps in forms:
        with suppress(GraphError):
            if (cycles := steps_cycles(steps, config)) < limit:
                best, limit = steps, cycles
    return best


def _choose_split(work: ConvWork, config: NpuConfig) -> SplitConv | CutConv | TurnedConv | Pools | None:
    """None too where the convolution takes less time with its operands swapped."""
    swapped = swap_work(work, config)
    if swapped is None:
        return _split_of(work, config)
    with suppress(GraphError):
        split = _split_of(work, config)
        if split is None or not swapped.is_faster(_form_cycles(split, config)):
            return split
    return None


def _choose_columns(work: ConvWork, split: SplitConv | None, config: NpuConfig) -> SplitConv | None:
    """The split of an image in the order of tensors, in columns, if that takes less time than a copy into planes and
    then `split`.
    """
    wide = in_columns(work)
    if wide is None or is_native(work):
        return None
    ahead = tp_cycles("copy", work.num_in_bytes, work.num_in_bytes, config)
    swapped = swap_work(work, config)
    if split is not None:
        cycles = _split_cycles(split, config)
    elif swapped is not None:
        cycles = swapped.cost.cycles
    else:
        cycles = np.inf
    choices = [split_conv(wide, strides, config) for strides in stride_choices(wide)]
    found = _cheapest(choices, ahead + cycles, config)
    return found and replace(found, is_of_columns=True)


def _form_cycles(split: SplitConv | CutConv | TurnedConv | Pools, config: NpuConfig) -> float:
    """Estimated cycles of a convolution that is split."""
    if isinstance(split, SplitConv):
        return _split_cycles(split, config)
    if isinstance(split, Pools):
        return works_cycles(split.works, config)
    return works_cycles(split.parts if isinstance(split, CutConv) else (split.work,), config)


def _split_of(work: ConvWork, config: NpuConfig) -> SplitConv | CutConv | TurnedConv | Pools | None:
    """A kernel as large as the image may have another form.

    The tensor processor takes a part of native strides only where the NN engine alone is far from its ideal, because
    its windows hold too few pixels.
    """
    if (found := best_sum(work, config)) is not None:
        return found
    choices = stride_choices(work)
    if not is_native(work):
        splits = [split_conv(work, strides, config) for strides in choices]
        return splits[0] if len(splits) == 1 else _cheapest(splits, np.inf, config) or splits[0]
    if len(choices) == 1 or work.is_depthwise:
        return None
    limit = np.inf
    with suppress(GraphError):
        limit = tile_work(work, config).cost.cycles / SPLIT_GAIN
    ideal = np.count_nonzero(work.weights) * work.rows.size_out * work.cols.size_out / config.macs_per_cycle
    if limit < ideal:
        return None
    return _cheapest([split_conv(work, strides, config) for strides in choices[1:]], limit, config)


def _cheapest(splits: Sequence[SplitConv], limit: float, config: NpuConfig) -> SplitConv | None:
    """The first of the splits that are estimated to take least time, if that is less than `limit` cycles."""
    best = None
    for split in splits:
        with suppress(GraphError):
            if (cycles := _split_cycles(split, config)) < limit:
                best, limit = split, cycles
    return best


def _split_cycles(conv: SplitConv, config: NpuConfig) -> float:
    """Estimated cycles of a convolution over phase planes."""
    parts = []
    for part, channels in conv.parts:
        phases, tiling = PhaseWork(conv.split, channels, 0) if channels else None, tile_work(part, config)
        if phases is not None:
            tiling = striped_planes(tiling, part, phases, config)
        parts.append((part, phases, tiling))
    return conv_cycles(parts, config)
