"""Work of the tensor processor cut into blocks that fit half of its buffer: fields of TP descriptors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import inf, prod

import numpy as np

from convoy.driver.graph.graph import GraphError
from convoy.driver.lower.work import Axis, ElementwiseWork, PoolWork
from convoy.driver.plan import fitted
from convoy.driver.plan.blocks import block_sizes
from convoy.driver.plan.cost import run_cycles, table_cycles, tp_copy_bytes, tp_group_bytes
from convoy.driver.plan.orders import Box, CopyWork
from convoy.spec.config import NpuConfig
from convoy.spec.cycles import MAX_WRITES, NUM_TP_LANES
from convoy.spec.isa import TP, TpOp

__all__ = ["BLANK", "copy_blocks", "elementwise_blocks", "flat_blocks", "pool_blocks"]

BLANK = dict.fromkeys(
    TP.fields.keys() - {"opcode", "wait_nn", "wait_tp", "tp_ahead", "reserved", "tag", "buffer_half"}, 0
) | dict.fromkeys(("num_a_runs", "num_0", "num_1", "num_2"), 1)
"""Fields of a TP descriptor, all zero but the counts."""


def elementwise_blocks(
    work: ElementwiseWork, a_addr: int, b_addr: int, out_addr: int, config: NpuConfig
) -> Iterator[dict[str, int]]:
    """An operation on each element of two contiguous tensors with the axes of `work`, where extents of 1 are repeated.

    Raises
    ------
    GraphError
        When the TP buffer cannot hold an element of each.
    """
    if work.is_wide:
        yield from _wide_blocks(work, a_addr, b_addr, out_addr, config)
        return
    sizes, strides = _merged_loops(work)
    limit = config.tp_buffer_bytes // 2

    def num_loaded(counts: list[int]) -> list[int]:
        return [prod(count for count, step in zip(counts, steps, strict=True) if step) for steps in strides]

    level = next(
        n for n in range(3) if sum(num_loaded([1] * (n + 1) + sizes[n + 1 :])) <= limit and (sizes[n] > 1 or n == 2)
    )
    inner = [1] * level + [0] + sizes[level + 1 :]
    fixed, least = (sum(num_loaded([*inner[:level], count, *inner[level + 1 :]])) for count in (0, 1))
    step = min(sizes[level], (limit - fixed) // (least - fixed)) if least > fixed else sizes[level]
    steps = {f"{prefix}step_{n}": strides[operand][n] for operand, prefix in enumerate(("", "b_")) for n in range(3)}
    group = tp_group_bytes([each[2] for each in strides], config)
    walk = 1 / group if level == 2 else prod(sizes[level + 1 : 2]) * -(-sizes[2] // group)
    ramp = block_sizes(
        sizes[level],
        step,
        (least - fixed) / config.port_bytes,
        walk,
        fitted.TP_BLOCK_CYCLES + (0 if work.lut is None else table_cycles(config)),
        config.port_bytes if level == 2 else 1,
    )
    for outer in np.ndindex(*sizes[:level]):
        alike = [min(step, sizes[level] - first) for first in range(0, sizes[level], step)]
        first = 0
        for count in alike if any(outer) else ramp:
            counts = [*inner[:level], count, *inner[level + 1 :]]
            starts = [*(int(index) for index in outer), first, *[0] * (2 - level)]
            first += count
            offsets = [
                sum(start * stride for start, stride in zip(starts, each, strict=True))
                for each in (*strides, [sizes[1] * sizes[2], sizes[2], 1])
            ]
            num_a, num_b = num_loaded(counts)
            yield (
                BLANK
                | work.fields
                | steps
                | {f"num_{n}": count for n, count in enumerate(counts)}
                | {
                    "op": work.op,
                    "a_addr": a_addr + offsets[0],
                    "a_run_bytes": num_a,
                    "b_addr": b_addr + offsets[1],
                    "b_run_bytes": num_b,
                    "num_b_runs": 1,
                    "out_addr": out_addr + offsets[2],
                    "out_run_bytes": int(np.prod(counts)),
                }
            )


def _wide_blocks(
    work: ElementwiseWork, a_addr: int, b_addr: int, out_addr: int, config: NpuConfig
) -> Iterator[dict[str, int]]:
    """The same on int16: planes of low and of high bytes in turn.

    Each block is done twice, for either byte of the results.
    """
    a_shape, b_shape = work.operands
    sizes, strides = _merged_loops(
        replace(work, shape=(*work.shape[:3], 1), operands=((*a_shape[:3], 1), (*b_shape[:3], 1)))
    )
    (_, num_1, num_2), num_c = sizes, work.shape[3]
    planes = [int(np.prod(shape[:3])) for shape in work.operands]
    has_channels = [shape[3] > 1 for shape in work.operands]
    out_plane = num_1 * num_2

    def num_loaded(counts: tuple[int, ...]) -> list[int]:
        """Bytes of a plane, for each operand."""
        return [
            int(np.prod([count for count, step in zip(counts[1:], steps[1:], strict=True) if step]))
            for steps in strides
        ]

    def can_load(*counts: int) -> bool:
        return (
            sum(
                2 * size * (counts[0] if has else 1) for size, has in zip(num_loaded(counts), has_channels, strict=True)
            )
            <= config.tp_buffer_bytes // 2
        )

    tile_c, tile_1, tile_2 = 1, num_1, num_2
    if can_load(1, num_1, num_2):
        tile_c = next(n for n in range(num_c, 0, -1) if can_load(n, num_1, num_2))
    elif can_load(1, 1, num_2):
        tile_1 = next(n for n in range(num_1, 0, -1) if can_load(1, n, num_2))
    else:
        tile_1, tile_2 = 1, next(n for n in range(num_2, 0, -1) if can_load(1, 1, n))
    for c, first_1, first_2 in (
        (c, y, x) for c in range(0, num_c, tile_c) for y in range(0, num_1, tile_1) for x in range(0, num_2, tile_2)
    ):
        counts = min(tile_c, num_c - c), min(tile_1, num_1 - first_1), min(tile_2, num_2 - first_2)
        block = (
            BLANK
            | work.fields
            | {"op": work.op, "is_wide": 1, "num_0": counts[0], "num_1": counts[1], "num_2": counts[2]}
        )
        for n, (name, prefix, addr) in enumerate((("a", "", a_addr), ("b", "b_", b_addr))):
            size, steps = num_loaded(counts)[n], strides[n]
            is_whole = size == planes[n]
            channels = counts[0] if has_channels[n] else 1
            block |= {
                f"{name}_addr": addr + 2 * planes[n] * c * has_channels[n] + first_1 * steps[1] + first_2 * steps[2],
                f"{name}_run_bytes": 2 * size * channels if is_whole else size,
                f"num_{name}_runs": 1 if is_whole else 2,
                f"{name}_pitch_bytes": planes[n],
                f"{name}_high_bytes": size,
                f"{prefix}step_0": 2 * size * has_channels[n],
                f"{prefix}step_1": steps[1],
                f"{prefix}step_2": steps[2],
            }
        num_out = counts[1] * counts[2]
        for is_high in (0, 1):
            yield block | {
                "is_high": is_high,
                "out_addr": out_addr + (2 * c + is_high) * out_plane + first_1 * num_2 + first_2,
                "out_run_bytes": num_out,
                "out_pitch_bytes": 2 * out_plane,
            }


def _merged_loops(work: ElementwiseWork) -> tuple[list[int], list[list[int]]]:
    """Three loops over the result in the order of memory, as long as possible on the inside: extents, and for each
    operand bytes per step or 0.
    """
    axes = [axis + 1 for axis in work.axes]
    order = [work.shape[0], *(work.shape[axis] for axis in axes)]
    loops: list[tuple[int, tuple[int, ...]]] = []
    inner = [1, 1]
    for position in (3, 2, 1, 0):
        size, steps = order[position], []
        for n, shape in enumerate(work.operands):
            extent = shape[axes[position - 1]] if position else shape[0]
            steps.append(inner[n] if extent > 1 else 0)
            inner[n] *= extent
        if size == 1:
            continue
        if loops and all(step == before * loops[0][0] for step, before in zip(steps, loops[0][1], strict=True)):
            loops[0] = size * loops[0][0], loops[0][1]
        else:
            loops.insert(0, (size, tuple(steps)))
    loops = [(1, (0, 0))] * (3 - len(loops)) + loops
    return [size for size, _ in loops], [[steps[n] for _, steps in loops] for n in (0, 1)]


def flat_blocks(num_bytes: int, addr: int, out_addr: int, config: NpuConfig) -> Iterator[dict[str, int]]:
    """A contiguous tensor, element by element in order."""
    most = config.tp_buffer_bytes // 2
    for first in range(0, num_bytes, most):
        size = min(most, num_bytes - first)
        yield BLANK | {
            "op": TpOp.COPY,
            "a_addr": addr + first,
            "a_run_bytes": size,
            "num_2": size,
            "step_2": 1,
            "tile_ih": 1,
            "tile_iw": size,
            "out_addr": out_addr + first,
            "out_run_bytes": size,
        }


def _runs(sizes: tuple[int, ...], box: tuple[tuple[int, int], ...]) -> tuple[int, int, int, int]:
    """`_find_runs` of a box that one level of runs can say.

    Raises
    ------
    ValueError
        When it cannot.
    """
    if (runs := _find_runs(sizes, box)) is None:
        raise ValueError(f"box {box} of {sizes} is not one level of runs")
    return runs


def _find_runs(sizes: tuple[int, ...], box: tuple[tuple[int, int], ...]) -> tuple[int, int, int, int] | None:
    """A box of a contiguous 3D array as (first byte, bytes per run, runs, pitch); None when one level of runs cannot
    say it.

    `sizes` are the array's extents, outermost first; `box` is (first, extent) per axis.
    """
    strides = sizes[1] * sizes[2], sizes[2], 1
    first = sum(start * stride for (start, _), stride in zip(box, strides, strict=True))
    run, count, pitch = 1, 1, 0
    for (_, extent), stride in zip(reversed(box), reversed(strides), strict=True):
        if extent == 1:
            continue
        if count == 1 and stride == run:
            run *= extent
        elif count == 1:
            count, pitch = extent, stride
        elif stride == count * pitch:
            count *= extent
        else:
            return None
    return first, run, count, pitch


def _part_runs(array: Box, order: tuple[int, ...], box: Sequence[tuple[int, int]]) -> tuple[int, int, int, int] | None:
    """`_find_runs` of a box of what `array` says, whose axes lie in this order in memory."""
    return _find_runs(
        tuple(array[axis][0] for axis in order), tuple((array[axis][1] + box[axis][0], box[axis][1]) for axis in order)
    )


_Places = tuple[tuple[int, int], ...]
"""(first, number) along each axis."""


@dataclass(frozen=True)
class _Load:
    """How a box gets into the buffer: runs of the source, and bytes there from one index of each axis to the next."""

    first: int
    run: int
    count: int
    pitch: int
    steps: dict[int, int]

    @property
    def end(self) -> int:
        """The byte of the source behind the last one that is read."""
        return self.first + (self.count - 1) * self.pitch + self.run


def _packed(work: CopyWork, box: Sequence[tuple[int, int]]) -> _Load | None:
    """The bytes of a box one behind the other; None where one level of runs cannot say that."""
    if (runs := _part_runs(work.boxes[0], work.source, box)) is None:
        return None
    outer, middle, inner = work.source
    return _Load(*runs, {inner: 1, middle: box[inner][1], outer: box[inner][1] * box[middle][1]})


def _spread(work: CopyWork, box: Sequence[tuple[int, int]]) -> _Load | None:
    """The same with one byte more, of those that follow, for each index of the innermost axis of the target: so that
    its neighbours lie in different banks.
    """
    place = work.source.index(work.target[2]) + 1
    axes = work.source[place:], work.source[:place]
    inside, around = (
        _part_runs(
            work.boxes[0],
            work.source,
            [(first, extent if axis in kept else 1) for axis, (first, extent) in enumerate(box)],
        )
        for kept in axes
    )
    if inside is None or around is None or inside[2] > 1 or around[1] > 1:
        return None
    steps, step = dict[int, int](), 1
    for axis in reversed(work.source):
        step += axis == work.target[2]
        steps[axis] = step
        step *= box[axis][1]
    return _Load(inside[0], inside[1] + 1, around[2], around[3], steps)


def _copy_box(work: CopyWork, limit: int, config: NpuConfig) -> tuple[tuple[int, int, int], bool]:
    """Extents (h, w, c) of the box that copies fastest among those of at most `limit` bytes that both orders can say
    as runs, and whether it is spread. A row or column less may let neighbours of the result lie in different banks.
    """
    height, width, channels = work.sizes
    candidates: list[tuple[int, int, int]] = [
        (min(height, limit // (width * channels)), width, channels),
        (height, min(width, limit // (height * channels)), channels),
        (height, width, min(channels, limit // (height * width))),
    ]
    counts = [-(-channels // (1 << n)) for n in range(channels.bit_length() + 1)]
    for num_c in dict.fromkeys([*counts, *(min(count | 1, channels) for count in counts)]):
        candidates += [(1, min(width, limit // num_c), num_c), (min(height, limit // num_c), 1, num_c)]
        candidates += [(min(height, limit // (width * num_c)), width, num_c)]
        candidates += [(height, min(width, limit // (height * num_c)), num_c)]
    candidates += [(h - (axis == 0), w - (axis == 1), c - (axis == 2)) for h, w, c in candidates for axis in range(3)]
    candidates = [extents for extents in dict.fromkeys(candidates) if min(extents) >= 1]
    choices = [(extents, False) for extents in candidates]
    # Pixels that become planes are loaded beside a convolution's, which the timing model takes for too fast
    if work.source != (0, 1, 2) or work.target[0] != 2:
        choices += [(extents, True) for each in candidates for extents in _for_spread(work, each)]
    return min(dict.fromkeys(choices), key=lambda choice: _box_cycles(work, choice[0], choice[1], limit, config))


def _for_spread(work: CopyWork, extents: tuple[int, int, int]) -> Iterator[tuple[int, int, int]]:
    """Boxes that take about as many bytes when they are spread: less of one of the axes around what is spread."""
    place = work.source.index(work.target[2]) + 1
    size = prod(extents[axis] for axis in work.source[place:])
    for less in work.source[:place]:
        h, w, c = (extent * size // (size + 1) if axis == less else extent for axis, extent in enumerate(extents))
        if min(h, w, c) >= 1:
            yield h, w, c


def _box_cycles(work: CopyWork, extents: tuple[int, int, int], is_spread: bool, limit: int, config: NpuConfig) -> float:
    """Estimated cycles of a copy in such boxes; infinite where that cannot be."""
    target, box = work.target, [(0, extent) for extent in extents]
    load, made = (_spread if is_spread else _packed)(work, box), _part_runs(work.boxes[1], target, box)
    if load is None or made is None or load.run * load.count > limit:
        return inf
    num_blocks = prod(-(-whole // extent) for whole, extent in zip(work.sizes, extents, strict=True))
    lanes = tp_copy_bytes(load.steps[target[2]], config)
    outer = extents[target[0]] * extents[target[1]]
    elements = outer * -(-extents[target[2]] // lanes)
    loads = run_cycles(load.count, load.run, config.max_reads, config)
    groups = outer * -(-extents[target[2]] // NUM_TP_LANES) + made[2] * (made[1] % NUM_TP_LANES > 0)
    writes = max(run_cycles(made[2], made[1], MAX_WRITES, config), groups)
    total = num_blocks * (max(loads, elements, writes) + fitted.TP_BLOCK_CYCLES)
    if is_spread:
        axis, count = _last_spread(work, extents)
        total += fitted.TP_BLOCK_CYCLES + (elements if axis != target[2] else outer) * count / extents[axis]
    return total


def _last_spread(work: CopyWork, extents: Sequence[int]) -> tuple[int, int]:
    """The axis of a spread box, and how many of its last places, that are left out where there is no byte behind."""
    around = work.source[: work.source.index(work.target[2]) + 1]
    axis = next((axis for axis in around if extents[axis] > 1), work.target[2])
    return axis, min(extents[axis], NUM_TP_LANES if axis == work.target[2] else 1)


def _row_parts(work: CopyWork, ends: Sequence[int], config: NpuConfig) -> Iterator[tuple[int, int]]:
    """(first, number) of the rows of each block of a copy whose rows are read in the steps that end at `ends`."""
    row_bytes, done = prod(work.sizes) // work.sizes[work.target[1]], 0
    most = config.tp_buffer_bytes // 2 // row_bytes
    load, walk = row_bytes / config.port_bytes, row_bytes / NUM_TP_LANES
    for end in [*ends[:-1], work.sizes[work.target[1]]]:
        overhead = inf if done else fitted.TP_BLOCK_CYCLES  # the first step alone waits for what it loads
        for count in block_sizes(end - done, most, load, walk, overhead):
            yield done, count
            done += count


def copy_blocks(
    work: CopyWork, addr: int, out_addr: int, limit: int, config: NpuConfig, row_ends: Sequence[int] = ()
) -> Iterator[dict[str, int]]:
    """A tensor from one order of axes to another, in blocks of at most `limit` bytes. Those of whole rows end at
    `row_ends`, in which steps the rows are read, with fewer bytes or a few more.
    """
    (extents, is_spread), target = _copy_box(work, limit, config), work.target
    parts = [
        [(first, min(extent, size - first)) for first in range(0, size, extent)]
        for size, extent in zip(work.sizes, extents, strict=True)
    ]
    rows = target[1]
    has_rows = row_ends and row_ends[-1] <= work.sizes[rows]  # other axes are in no order of rows
    if has_rows and work.source[0] == rows and [len(part) > 1 for part in parts] == [axis == rows for axis in range(3)]:
        parts[rows] = list(_row_parts(work, row_ends, config))
    for box in product(*parts):
        for part, load in _loads(work, box, is_spread):
            made = _part_runs(work.boxes[1], target, part)
            if load is None or made is None:
                raise ValueError(f"box {part} of {work} is not one level of runs")
            yield (
                BLANK
                | {f"step_{n}": load.steps[axis] for n, axis in enumerate(target)}
                | {f"num_{n}": part[axis][1] for n, axis in enumerate(target)}
                | {
                    "op": TpOp.COPY,
                    "a_addr": addr + load.first,
                    "a_run_bytes": load.run,
                    "num_a_runs": load.count,
                    "a_pitch_bytes": load.pitch,
                    "tile_ih": part[target[1]][1],
                    "tile_iw": part[target[2]][1],
                    "out_addr": out_addr + made[0],
                    "out_run_bytes": made[1],
                    "out_pitch_bytes": made[3],
                }
            )


def _loads(work: CopyWork, box: tuple[tuple[int, int], ...], is_spread: bool) -> list[tuple[_Places, _Load | None]]:
    """A box, or two parts of it, and how each is loaded. What is spread reads a byte behind its last one: where that is
    behind the source, the last part is not spread, or nothing is.
    """
    if not is_spread:
        return [(box, _packed(work, box))]
    if (load := _spread(work, box)) is None or load.end <= prod(size for size, _ in work.boxes[0]):
        return [(box, load)]
    axis, count = _last_spread(work, [extent for _, extent in box])
    first, extent = box[axis]
    parts = [
        (*box[:axis], part, *box[axis + 1 :]) for part in ((first, extent - count), (first + extent - count, count))
    ]
    if extent == count or any(_part_runs(work.boxes[1], work.target, part) is None for part in parts):
        return [(box, _packed(work, box))]
    return [(parts[0], _spread(work, parts[0])), (parts[1], _packed(work, parts[1]))]


def pool_blocks(work: PoolWork, addr: int, out_addr: int, config: NpuConfig) -> Iterator[dict[str, int]]:
    """A pool over a planar tensor.

    Raises
    ------
    GraphError
        When the inputs of one output pixel exceed half of the buffer.
    """
    work = work.flat
    num_bytes, limit = work.value_bytes, config.tp_buffer_bytes // 2
    rows, cols = work.rows, work.cols
    rows_out, cols_out = work.made
    num_c, num_oh, num_ow = _pool_tile(work, limit // num_bytes)
    for c, oy, ox in product(range(0, work.num_ic, num_c), rows_out[::num_oh], cols_out[::num_ow]):
        tile_c, tile_oh, tile_ow = (
            min(num_c, work.num_ic - c),
            min(num_oh, rows_out.stop - oy),
            min(num_ow, cols_out.stop - ox),
        )
        first_y, tile_ih, pad_top = rows.clip(oy, tile_oh)
        first_x, tile_iw, pad_left = cols.clip(ox, tile_ow)
        if num_ow == len(cols_out):
            first_x, tile_iw, pad_left = 0, cols.size_in, cols.pad - ox * cols.stride
        box = (first_y, tile_ih), (first_x, tile_iw)
        load = _find_runs(
            (num_bytes * work.num_ic, rows.size_in, cols.size_in), ((num_bytes * c, num_bytes * tile_c), *box)
        )
        if load is None:
            raise GraphError(
                f"the {rows.kernel} rows of {cols.size_in} int16 of a pooling window exceed half of the TP buffer of 2 "
                f"x {limit} bytes"
            )
        first, run, count, pitch = load
        block = (
            BLANK
            | work.fields
            | {
                "op": work.op,
                "a_addr": addr + first,
                "a_run_bytes": run,
                "num_a_runs": count,
                "a_pitch_bytes": pitch,
                "num_0": tile_c,
                "num_1": tile_oh,
                "num_2": tile_ow,
                "step_0": num_bytes * tile_ih * tile_iw,
                "kernel_h": rows.kernel,
                "kernel_w": cols.kernel,
                "stride_h": rows.stride,
                "stride_w": cols.stride,
                "start_y": -pad_top,
                "start_x": -pad_left,
                "tile_ih": tile_ih,
                "tile_iw": tile_iw,
                "act_min": work.act_min,
                "act_max": work.act_max,
                "is_half_up": int(work.is_half_up),
            }
        )
        out_planes, out_box = (num_bytes * work.num_ic, rows.size_out, cols.size_out), ((oy, tile_oh), (ox, tile_ow))
        if not work.is_wide:
            out_first, out_run, _, out_pitch = _runs(out_planes, ((c, tile_c), *out_box))
            yield block | {"out_addr": out_addr + out_first, "out_run_bytes": out_run, "out_pitch_bytes": out_pitch}
            continue
        for is_high in range(num_bytes):  # blocks of several channels have whole planes
            out_first, out_run, _, out_pitch = _runs(out_planes, ((num_bytes * c + is_high, 1), *out_box))
            yield block | {
                "is_wide": 1,
                "is_high": is_high,
                "a_high_bytes": tile_ih * tile_iw,
                "out_addr": out_addr + out_first,
                "out_run_bytes": out_run,
                "out_pitch_bytes": num_bytes * out_run if tile_c > 1 else out_pitch,
            }


def _pool_tile(work: PoolWork, limit: int) -> tuple[int, int, int]:
    """Channels, output rows and output columns of a block."""
    rows, cols, (rows_out, cols_out) = work.rows, work.cols, work.made
    needed = rows.clip(rows_out.start, len(rows_out))[1] * cols.size_in
    if needed <= limit:
        return min(work.num_ic, limit // needed), len(rows_out), len(cols_out)

    def span(axis: Axis, num_out: int) -> int:
        return min((num_out - 1) * axis.stride + axis.kernel, axis.size_in)

    num_oh = max((n for n in range(1, len(rows_out) + 1) if span(rows, n) * cols.size_in <= limit), default=0)
    if num_oh:
        return 1, num_oh, len(cols_out)
    num_ow = max((n for n in range(1, len(cols_out) + 1) if span(rows, 1) * span(cols, n) <= limit), default=0)
    if not num_ow:
        raise GraphError(
            f"the {span(rows, 1)}x{span(cols, 1)} pixels of a pooling window exceed half of the TP buffer of 2 x "
            f"{limit} bytes"
        )
    return 1, 1, num_ow
