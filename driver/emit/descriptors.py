"""Tasks with addresses -> descriptors: fields, stripe places, buffer halves and waits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain

from convoy.driver.lower.work import (
    ConvWork,
    ElementwiseWork,
    InterleaveWork,
    LutWork,
    MoveWork,
    PoolWork,
    RepeatWork,
    ZoomWork,
)
from convoy.driver.plan.geometry import Stripe
from convoy.driver.plan.orders import CopyWork
from convoy.driver.plan.schedule import PhaseWork, Task, TpWork
from convoy.driver.plan.swap import SwappedTiling
from convoy.driver.plan.tile import Tiling
from convoy.spec.config import NpuConfig
from convoy.spec.isa import HEADER, NN, NN_SWAPPED, PARAM, STREAM, TP, Opcode

from .swapped import swapped_fields
from .tp_blocks import copy_blocks, elementwise_blocks, flat_blocks, pool_blocks
from .tp_moves import interleave_blocks, move_blocks, repeat_blocks, zoom_blocks
from .tp_phases import split_blocks

__all__ = ["Emitter", "SwappedTables", "Tables", "nn_fields", "phase_blocks", "row_ends", "tp_blocks", "work_blocks"]


MIN_PART_BYTES = 1024
"""Blocks of fewer bytes cost more than they gain by being done earlier."""


NUM_AHEAD = 1
"""TP descriptors that come before a stripe that does not need them: one keeps the tensor processor busy, more would
keep the stripe waiting, for the engine takes a descriptor only when it begins to load for it.
"""


@dataclass(frozen=True)
class Tables:
    """Addresses of a layer's constant tables, and its run length."""

    tap_addr: int
    stream_addr: int
    wgt_addr: int
    param_addr: int
    run_bits: int


@dataclass(frozen=True)
class SwappedTables:
    """Addresses of a swapped layer's constants."""

    tap_addr: int
    image_addr: int
    param_addr: int


def nn_fields(work: ConvWork, tiling: Tiling, stripe: Stripe, in_addr: int, out_addr: int) -> dict[str, int]:
    """The fields of an NN descriptor that the tiling decides; without header, tables, and the place in the stripe
    memory.
    """
    geometry, group = tiling.geometry, tiling.group
    (num_pos, num_vec), (num_pos_last, num_vec_last) = stripe.groups(group)
    width = group.num_lanes >> group.split_log2
    is_segment, is_flat = group.mode == "segment", group.mode != "rows"
    step = 2 if geometry.pool_size else 1
    out_pitch = geometry.cols.size_out // step
    num_phases = len(geometry.phase_list)
    num_kernels, num_kernels_last = tiling.num_kernels_in(stripe.part)
    num_z, num_z_last = tiling.num_z_in(stripe.part)
    return (
        _load_fields(work, tiling, stripe, in_addr)
        | {
            "stride_h_log2": geometry.rows.stride - 1,
            "stride_w_log2": geometry.cols.stride - 1,
            "phase_mask": sum(1 << (2 * py + px) for py, px in geometry.phase_list),
            "zero_point_in": work.zero_point_in,
            "tile_rows": stripe.tile_rows,
            "tile_cols": stripe.tile_cols,
            "pitch_row": group.pitch_row,
            "phase_words": stripe.phase_words,
            "channel_words": num_phases * stripe.phase_words,
            "is_wide": int(work.is_wide),
            "is_depthwise": int(geometry.is_depthwise),
            "num_sb": stripe.part.num_sb,
            "num_groups": stripe.num_groups,
            "num_z": num_z,
            "num_z_last": num_z_last,
            "group_step": group.group_step,
            "num_phases": num_phases,
            "seg_words": group.seg_words,
            "num_slots": group.num_slots,
            "num_vec": num_vec,
            "num_vec_last": num_vec_last,
            "num_vec_x": num_vec if is_flat else group.num_vec_x,
            "step_vec_x": width,
            "step_vec_y": 0 if is_flat else group.pitch_row << group.split_log2,
            "split_log2": group.split_log2,
            "split_words": (group.pitch_row - width) // group.num_lanes if group.split_log2 else 0,
            "num_kernels": num_kernels,
            "num_kernels_last": num_kernels_last,
            "kernels_per_z": tiling.kernels_per_z[0],
            "kernels_per_z_last": tiling.kernels_per_z[1],
            "num_taps": len(geometry.taps),
            "wgt_zero_point": work.wgt_zero_point,
            "out_addr": out_addr + stripe.first_row // step * out_pitch + stripe.first_col // step,
            "out_high_bytes": geometry.rows.size_out // step * out_pitch if work.is_wide else 0,
            "out_group_step_bytes": group.cols if is_segment else group.rows // step * out_pitch,
            "out_pitch_row_bytes": out_pitch,
            "drain_pitch": group.drain_pitch,
            "tile_ow": group.cols if is_segment else stripe.num_cols,
            "num_pos": num_pos,
            "num_pos_last": num_pos_last,
            "is_flat": int(is_flat),
            "zero_point_out": work.zero_point_out,
            "act_min": work.act_min,
            "act_max": work.act_max,
            "rounding": work.rounding,
        }
        | _pool_fields(tiling, stripe)
    )


def _pool_fields(tiling: Tiling, stripe: Stripe) -> dict[str, int]:
    """The fused pool and the rows that it gets."""
    size = tiling.geometry.pool_size
    if not size:
        return dict.fromkeys(("pool_size", "pool_rows", "pool_rows_last", "pool_continues", "pool_is_open"), 0)
    (rows, _), (rows_last, _) = stripe.group_outputs(tiling.group)
    continues = size == 3 and any(before.first_row + before.num_rows == stripe.first_row for before in tiling.stripes)
    is_open = size == 3 and stripe.num_rows % 2 == 0
    return {
        "pool_size": size,
        "pool_rows": rows,
        "pool_rows_last": rows_last,
        "pool_continues": int(continues),
        "pool_is_open": int(is_open),
    }


def residual_fields(work: ConvWork, tiling: Tiling, stripe: Stripe, res_addr: int) -> dict[str, int]:
    """The fields of a stripe that belong to the second operand, which starts at `res_addr`."""
    names = [name for name in NN.fields if name.startswith(("res_", "num_res_"))]
    if work.residual is None:
        return dict.fromkeys(names, 0) | {"has_residual": 0}
    out_pitch = tiling.geometry.cols.size_out
    fields = {"has_residual": 1, "res_addr": res_addr + stripe.first_row * out_pitch + stripe.first_col}
    for suffix, (rows, cols) in zip(("", "_last"), stripe.group_outputs(tiling.group), strict=True):
        num_runs = rows if tiling.group.mode == "rows" and cols < out_pitch else 1
        fields |= {f"num_res_runs{suffix}": num_runs, f"res_run_bytes{suffix}": rows * cols // num_runs}
    return fields | {f"res_{name}": value for name, value in work.residual.fields.items()}


def _load_fields(work: ConvWork, tiling: Tiling, stripe: Stripe, in_addr: int) -> dict[str, int]:
    """What the loader reads: contiguous runs as long as possible."""
    geometry = tiling.geometry
    rows, cols = geometry.rows, geometry.cols
    first_y, tile_ih, pad_top = rows.clip(stripe.first_row, stripe.num_rows)
    first_x, tile_iw, pad_left = geometry.clip_cols(stripe.first_col, stripe.num_cols)
    plane, channels = rows.size_in * cols.size_in, stripe.part.num_ic * geometry.value_bytes
    run, inner, pitch, outer = tile_ih * tile_iw, channels, plane, 1
    if run == plane:
        run, inner = run * channels, 1
    elif tile_iw < cols.size_in and tile_ih > 1:
        run, inner, pitch, outer = tile_iw, tile_ih, cols.size_in, channels
    outer_pitch = plane
    if work.pieces is not None:
        inner = work.pieces.num_channels * geometry.value_bytes
        run, pitch, outer, outer_pitch = tile_iw, work.pieces.plane, channels // inner, work.pieces.pitch
    return {
        "act_addr": in_addr + stripe.part.first_ic * geometry.value_bytes * plane + first_y * cols.size_in + first_x,
        "act_run_bytes": run,
        "act_pitch_inner_bytes": pitch,
        "act_pitch_outer_bytes": outer_pitch,
        "num_act_inner": inner,
        "num_act_outer": outer,
        "num_ic": channels,
        "tile_ih": tile_ih,
        "tile_iw": tile_iw,
        "pad_top": pad_top,
        "pad_left": pad_left,
    }


def tp_blocks(
    task: Task,
    addrs: list[int],
    num_bytes: int,
    config: NpuConfig,
    constant_addr: int = 0,
    row_ends: Sequence[int] = (),
) -> list[dict[str, int]]:
    """`work_blocks` of a task; `addrs` of all buffers, `num_bytes` of the target."""
    if task.target is None:
        raise ValueError(f"{type(task.work).__name__} has no target: it makes no TP descriptors")
    sources = [addrs[index] for index in task.sources]
    return work_blocks(task.work, sources, addrs[task.target], num_bytes, config, constant_addr, row_ends)


def work_blocks(
    work: TpWork | ConvWork,
    sources: Sequence[int],
    target: int,
    num_bytes: int,
    config: NpuConfig,
    constant_addr: int = 0,
    row_ends: Sequence[int] = (),
) -> list[dict[str, int]]:
    """TP descriptors' fields of a work, without header and buffer half, from addresses of what it reads to that of the
    `num_bytes` that it makes.

    `constant_addr`: of the operand that is constant, in the order of the work's axes. `row_ends`: what is read of the
    target, step by step, as from the function of this name; a copy has at least about as many blocks.
    """
    if isinstance(work, CopyWork):
        limit = min(config.tp_buffer_bytes // 2, max(MIN_PART_BYTES, -(-num_bytes // max(1, len(row_ends)))))
        return list(copy_blocks(work, sources[0], target, limit, config, row_ends))
    if isinstance(work, LutWork):
        return list(flat_blocks(num_bytes, sources[0], target, config))
    if isinstance(work, ElementwiseWork):
        operands = iter(sources)
        a_addr, b_addr = (next(operands) if values is None else constant_addr for values in work.constants)
        return list(elementwise_blocks(work, a_addr, b_addr, target, config))
    if isinstance(work, MoveWork):
        return list(move_blocks(work, sources[0], target, config))
    if isinstance(work, InterleaveWork):
        return list(interleave_blocks(work, sources[0], target, config))
    if isinstance(work, ZoomWork):
        return list(zoom_blocks(work, sources[0], target, config))
    if isinstance(work, RepeatWork):
        return list(repeat_blocks(work, sources[0], target, config))
    if isinstance(work, PoolWork):
        return list(pool_blocks(work, sources[0], target, config))
    raise ValueError(f"{type(work).__name__} is no work of the tensor processor")


def row_ends(work: ConvWork, tiling: Tiling) -> list[int]:
    """Rows of its input that each stripe of a convolution and those before it read."""
    if tiling.geometry.rows == work.rows:
        ends = [sum(work.rows.clip(stripe.first_row, stripe.num_rows)[:2]) for stripe in tiling.stripes]
    else:  # the plane as one row
        ends = [-(-(stripe.first_col + stripe.num_cols) // work.cols.size_in) for stripe in tiling.stripes]
    return list(accumulate(ends, max))


def phase_blocks(
    phases: PhaseWork | None, work: ConvWork, tiling: Tiling, addr: int, out_addr: int, config: NpuConfig
) -> list[list[dict[str, int]]]:
    """For each stripe of a convolution the TP descriptors' fields that make the phase planes which it needs and
    those before it do not.

    A stripe's rows are made just before it, hence while the one before it is computed. The addresses are those of the
    whole image and of all planes.
    """
    if phases is None:
        return [[] for _ in tiling.stripes]
    split = phases.split
    blocks, done = [], 0
    is_whole = len(phases.channels) < split.num_ic
    for end in [split.rows.size] * len(tiling.stripes) if is_whole else row_ends(work, tiling):
        rows, done = range(done, end), end
        blocks.append(split_blocks(split, phases.channels, rows, addr, out_addr, config) if rows else [])
    return blocks


_GATHER = "gather"
"""What waits of a job with swapped operands, whose loader reads constants."""
_Waiter = Opcode | str


class Emitter:
    """Descriptors of one program, in order.

    A task waits for the other engine when it touches what that wrote or writes what that touches, and for its own
    engine when it reads what that wrote (one engine's writes, and its reads against later writes, are in order anyway).
    The wait is on the first descriptor.

    The tensor processor takes a block when it is done with the one before, and what is behind that has to wait: a
    convolution that has nothing to do with the blocks before it comes behind the first of them.
    """

    def __init__(self, config: NpuConfig):
        self.config = config
        self.descriptors: list[bytes] = []
        self.ops: list[int] = []
        self._half = 0
        self._held: list[tuple[Task, dict[str, int]]] = []
        """Blocks of the tensor processor that nothing has had to wait for."""
        self._stripes: list[range] = []
        """Words that the descriptor before may still read when the next one is loaded."""
        self._is_high = False
        self._pending: dict[tuple[_Waiter, Opcode], list[tuple[range, bool]]] = {
            (waiter, other): [] for waiter in (*Opcode, _GATHER) for other in Opcode
        }

    def add_nn(
        self,
        task: Task,
        tiling: Tiling,
        tables: Tables,
        lut: dict[str, int],
        reads: list[range],
        writes: range,
        blocks: list[list[dict[str, int]]],
        block_reads: list[range],
        block_writes: range,
        block_task: Task,
    ) -> None:
        """Append the stripes of a convolution, before each of them its TP `blocks`: those that make pixels which it
        is the first to read, for `block_task`. One for a later stripe goes before it too, so that the tensor
        processor always has work.

        `lut` has the fields of its lookup table. The ranges are those of all addresses that the convolution (input,
        residual; output) and the blocks read and write. Only the first block waits for what went before the layer: the
        others write pixels that no stripe before them reads.
        """
        work = task.work
        if not isinstance(work, ConvWork):
            raise ValueError(f"{type(work).__name__} is no work of the NN engine")
        in_addr, out_addr, res_addr = reads[0].start, writes.start, reads[-1].start
        tp_waits = self._waits(Opcode.TP, block_reads, block_writes) if any(blocks) else {}
        waits = self._waits(Opcode.NN, reads, writes)
        if tp_waits or any(blocks) or "wait_tp" in waits:
            self.flush()
        all_blocks, num_needed, num_added = list(chain(*blocks)), 0, 0
        for stripe, before in zip(tiling.stripes, blocks, strict=True):
            num_needed += len(before)
            for block in all_blocks[num_added : num_needed + NUM_AHEAD]:
                self._append_tp(block_task, block, tp_waits)
                num_added, tp_waits = num_added + 1, {}
            if before:
                waits |= {"wait_tp": 1}
            if "wait_tp" in waits:
                waits |= {"tp_ahead": num_added - num_needed}
            fields = nn_fields(work, tiling, stripe, in_addr, out_addr) | residual_fields(
                work, tiling, stripe, res_addr
            )
            first_core = stripe.part.first_sb * self.config.num_cores
            constants = {
                "tap_addr": tables.tap_addr,
                "stream_addr": tables.stream_addr + first_core * STREAM.num_bytes,
                "wgt_addr": tables.wgt_addr,
                "param_addr": tables.param_addr + first_core * tiling.num_kernels * PARAM.num_bytes,
                "run_bits": tables.run_bits,
            } | dict.fromkeys((*NN_SWAPPED, "ring_channels"), 0)
            self._append(
                task,
                NN.encode(
                    **self._header(Opcode.NN, task, waits), **constants, **fields, **lut, **self._stripe_place(stripe)
                ),
            )
            self.flush()
            waits = {}

    def add_swapped(
        self,
        task: Task,
        tiling: SwappedTiling,
        tables: SwappedTables,
        lut: dict[str, int],
        reads: list[range],
        writes: range,
    ) -> None:
        """Append the jobs of a convolution with swapped operands; the rest as in `add_nn`."""
        work = task.work
        if not isinstance(work, ConvWork):
            raise ValueError(f"{type(work).__name__} is no work of the NN engine")
        waits = self._waits(_GATHER, reads, writes)
        if "wait_tp" in waits:
            self.flush()
        for job in tiling.jobs:
            fields = swapped_fields(
                work,
                tiling,
                job,
                reads[0].start,
                tables.image_addr,
                tables.param_addr,
                writes.start,
                reads[-1].start,
                self.config,
            )
            place = self._ring_place(tiling.num_z, fields["channel_words"])
            header = self._header(Opcode.NN, task, waits)
            self._append(task, NN.encode(**header, tap_addr=tables.tap_addr, **fields, **lut, **place))
            self.flush()
            waits = {}

    def add_tp(self, task: Task, blocks: list[dict[str, int]], reads: list[range], writes: range) -> None:
        """Append the blocks of a TP task, the first of them at once."""
        self.flush()
        self._append_tp(task, blocks[0], self._waits(Opcode.TP, reads, writes))
        self._held = [(task, fields) for fields in blocks[1:]]

    def flush(self) -> None:
        """Append the blocks that are still to be appended."""
        for task, fields in self._held:
            self._append_tp(task, fields, {})
        self._held = []

    def _append_tp(self, task: Task, fields: dict[str, int], waits: dict[str, int]) -> None:
        self._append(task, TP.encode(**self._header(Opcode.TP, task, waits), **fields, buffer_half=self._half))
        self._half ^= 1

    def _append(self, task: Task, raw: bytes) -> None:
        self.descriptors.append(raw)
        self.ops.append(task.op.index)

    @staticmethod
    def _header(opcode: Opcode, task: Task, waits: dict[str, int]) -> dict[str, int]:
        return {
            "opcode": opcode,
            "wait_nn": 0,
            "wait_tp": 0,
            "tp_ahead": 0,
            "reserved": 0,
            "tag": task.op.index & HEADER.fields["tag"].max,
        } | waits

    def _stripe_place(self, stripe: Stripe) -> dict[str, int]:
        """Stripes lie at the bottom and the top of the memory in turn; behind a ring, where they do not overlap it."""
        num_words, high = stripe.num_words, self.config.stripe_words - stripe.num_words
        low_place, high_place = range(num_words), range(high, high + num_words)
        place, other = (high_place, low_place) if self._is_high else (low_place, high_place)
        if overlaps := self._overlaps([place]):
            overlaps = self._overlaps([other])
            if not overlaps:
                place, self._is_high = other, not self._is_high
        self._is_high, self._stripes = not self._is_high, [place]
        return {"stripe_word": place.start, "load_after_fill": int(overlaps)}

    def _ring_place(self, num_channels: int, channel_words: int) -> dict[str, int]:
        """A ring in half of the memory at most goes round the whole of it: it begins behind the stripe before, and the
        next one behind its own end, so that the loader need not wait between them.
        """
        num_words = self.config.stripe_words
        ring = min(num_channels, num_words // 2 // channel_words)
        first = self._stripes[-1].stop % num_words if self._stripes else 0
        overlaps = self._overlaps(self._wrapped(first, ring * channel_words))
        self._stripes = self._wrapped(first + (num_channels - ring) * channel_words, ring * channel_words)
        return {"stripe_word": first, "load_after_fill": int(overlaps), "ring_channels": ring}

    def _wrapped(self, first: int, count: int) -> list[range]:
        """Words from `first` on, which go on at the start of the memory behind its end."""
        num_words = self.config.stripe_words
        first %= num_words
        behind = max(0, first + count - num_words)
        return [range(first, first + count - behind)] + [range(behind)] * (behind > 0)

    def _overlaps(self, places: list[range]) -> bool:
        """Does the descriptor before still read some of these words?"""
        return any(place.start < other.stop and other.start < place.stop for place in places for other in self._stripes)

    def _waits(self, waiter: _Waiter, reads: list[range], writes: range) -> dict[str, int]:
        waits, engine = {}, Opcode.TP if waiter == Opcode.TP else Opcode.NN
        accesses = [(span, False) for span in reads] + [(writes, True)]
        for other in Opcode:
            pending = self._pending[waiter, other]
            conflicts = (
                span.start < earlier.stop
                and earlier.start < span.stop
                and (was_write and not is_write if other == engine else was_write or is_write)
                for span, is_write in accesses
                for earlier, was_write in pending
            )
            if any(conflicts):
                waits[f"wait_{other.name.lower()}"] = 1
                pending.clear()
        for each in (*Opcode, _GATHER):
            self._pending[each, engine] += accesses
        return waits
