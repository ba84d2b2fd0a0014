"""The compiler's estimate of a layer's cycles: what it minimises, in one place; its numbers are in `fitted.py`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from convoy.spec.config import NpuConfig
from convoy.spec.cycles import AVERAGE_CYCLES_WIDE, LUT_BEAT_CYCLES, MAX_WRITES, MIN_FILL_CYCLES, NUM_TP_LANES
from convoy.spec.isa import LUT_BYTES, MAX_RUN_BITS, PARAM, TpOp
from convoy.spec.limits import missing_unit

from . import fitted

if TYPE_CHECKING:
    from convoy.driver.lower.work import PoolWork

    from .geometry import Geometry, GroupShape, Stripe

__all__ = [
    "TilingCost",
    "WeightLoad",
    "block_cycles",
    "copy_cycles",
    "least_cycles",
    "lut_cycles",
    "pool_cycles",
    "table_cycles",
    "tiling_cost",
    "tp_copy_bytes",
    "tp_cycles",
    "tp_group_bytes",
    "tp_window_cycles",
    "words_per_row",
]


@dataclass(frozen=True)
class WeightLoad:
    """Weights of every superblock; arrays of `num_sb`."""

    nnz_core: np.ndarray
    """Non-zeros of the core that has most."""
    nnz: np.ndarray
    """Non-zeros of all cores."""
    kernels: np.ndarray
    """Kernels per core."""
    num_z: np.ndarray
    """Windows per group."""
    positions: np.ndarray
    """Weights per core, zeros included."""


@dataclass(frozen=True)
class TilingCost:
    """Estimated cycles, and what bounds them."""

    cycles: float
    compute_cycles: float
    fill_cycles: float
    drain_cycles: float
    weight_cycles: float
    load_cycles: float


@dataclass(frozen=True)
class _SuperblockCosts:
    """What the superblocks of a layer cost with a shape of groups; arrays of `num_sb`, or (groups, `num_sb`) for
    several shapes.
    """

    fill: np.ndarray
    """Cycles to fill the windows of a group."""
    weights: np.ndarray
    """Cycles to read the weights of a group."""
    imbalance: np.ndarray
    """Weights that cores wait for one another."""
    param_beats: np.ndarray
    drain_lanes: float

    @classmethod
    def of(
        cls,
        geometry: Geometry,
        seg_words: int | np.ndarray,
        num_slots: int | np.ndarray,
        load: WeightLoad,
        config: NpuConfig,
    ) -> _SuperblockCosts:
        window_words = geometry.value_bytes * len(geometry.phase_list) * seg_words
        window_cycles = np.maximum(window_words, MIN_FILL_CYCLES)
        return cls(
            load.num_z * window_cycles * (config.num_cores if geometry.is_depthwise else 1),
            _stream_bytes(load, config) / config.port_bytes / fitted.PORT_SHARE,
            _imbalance(load, num_slots, config),
            PARAM.num_bytes / config.port_bytes * config.num_cores * load.kernels,
            (config.residual_lanes if geometry.has_residual else config.post_lanes) / geometry.value_bytes,
        )


def least_cycles(
    geometry: Geometry, tile_cols: int, groups: Sequence[GroupShape], load: WeightLoad, config: NpuConfig
) -> np.ndarray:
    """Cycles that no tiling of a layer with these shapes of groups falls below, (groups,); 0 where there is a pool,
    whose groups may overlap.

    What the groups cost does not depend on how they are dealt to stripes, which cost more only.
    """
    if geometry.pool_size or not groups:
        return np.zeros(len(groups))
    facts = np.array([[*_whole_groups(geometry, tile_cols, group), group.num_slots] for group in groups], np.float64)
    seg_words, slots = np.array([[group.seg_words] for group in groups]), facts[:, -1:]
    costs = _SuperblockCosts.of(geometry, seg_words, slots, load, config)
    hidden = np.array([[fitted.SLOT_PENALTY.get(group.num_slots, fitted.MANY_SLOTS_PENALTY)] for group in groups])
    traffic = fitted.PORT_SHARE * costs.weights.sum() + costs.param_beats.sum()
    total = np.full(len(groups), fitted.LAYER_CYCLES + float(fitted.NEXT_STRIPE_CYCLES))
    for count, num_pos, num_vec in (facts[:, :3].T, facts[:, 3:6].T):
        chunks = -(-num_pos[:, None] // costs.drain_lanes)
        time, _ = _group_time(hidden, load, costs, slice(None), chunks, num_vec[:, None], geometry, config)
        total += count * (time.sum(axis=1) + fitted.CONTENTION * traffic)
    return total * (1 - 1e-9)


def _whole_groups(geometry: Geometry, tile_cols: int, group: GroupShape) -> list[int]:
    """Of the groups of a channel part that are as large as they can be, and of those that are less since the rows, or
    the columns of a single row, end: how many, lane positions to drain, lane vectors. Groups of narrower tiles of
    columns are left out.
    """
    is_segment = group.mode == "segment"
    size, step = (geometry.cols.size_out, group.cols) if is_segment else (geometry.rows.size_out, group.rows)
    count, rest = divmod(size, step)
    tiles = 1 if is_segment else geometry.cols.size_out // tile_cols
    found = []
    for number, extent in ((count, step), (1 if rest else 0, max(rest, 1))):
        found += [number * tiles, *(group.extent(1, extent) if is_segment else group.extent(extent, tile_cols))]
    return found


def tiling_cost(
    geometry: Geometry, group: GroupShape, stripes: tuple[Stripe, ...], load: WeightLoad, config: NpuConfig
) -> TilingCost:
    """Estimate of one layer tiled in this way."""
    costs = _SuperblockCosts.of(geometry, group.seg_words, group.num_slots, load, config)
    totals, cycles, loads, traffic, previous = np.zeros(3), 0.0, 0.0, np.zeros(2), None
    known: dict[tuple, tuple] = {}
    for stripe in stripes:
        key = _likeness(geometry, stripe)
        if key not in known:
            here = stripe.part.superblocks
            chunks = _drain_chunks(geometry, stripe, group, costs.drain_lanes, config)
            known[key] = (
                _load_cycles(geometry, group, stripe, config),
                *_stripe_time(stripe, group, load, costs, chunks, geometry, config),
                stripe.num_groups * np.array([costs.weights[here].sum(), costs.param_beats[here].sum()]),
            )
        load_cycles, time, first, parts, moved = known[key]
        loads += load_cycles
        totals += parts
        traffic += moved
        if previous is not None and previous[0] + stripe.num_words <= config.stripe_words:
            cycles += time + fitted.NEXT_STRIPE_CYCLES + max(load_cycles - previous[1], 0.0)
        elif geometry.is_depthwise:  # superblocks follow the loader
            share = 1 / stripe.part.num_sb
            cycles += max(load_cycles + share * time, time + share * load_cycles) + fitted.NEXT_STRIPE_CYCLES
        else:
            cycles += max(load_cycles, first) + time - first + fitted.NEXT_STRIPE_CYCLES
        previous = stripe.num_words, time
    chunks = _drain_chunks(geometry, stripes[-1], group, costs.drain_lanes, config)
    drain_last = load.kernels[-1] * config.num_cores * chunks[1]
    contention = fitted.CONTENTION * float(fitted.PORT_SHARE * traffic[0] + traffic[1])
    compute, fill_cycles, drain = (float(total) for total in totals)
    return TilingCost(
        cycles + contention + fitted.LAYER_CYCLES + float(drain_last),
        compute,
        fill_cycles,
        drain,
        float(traffic[0]),
        loads,
    )


def _likeness(geometry: Geometry, stripe: Stripe) -> tuple:
    """Stripes for which this is equal cost the same."""
    _, tile_ih, _ = geometry.rows.clip(stripe.first_row, stripe.num_rows)
    _, tile_iw, _ = geometry.clip_cols(stripe.first_col, stripe.num_cols)
    sizes = stripe.num_rows, stripe.num_cols, stripe.tile_rows, stripe.tile_cols, stripe.num_groups
    return stripe.part, sizes, tile_ih, tile_iw


def _group_time(
    hidden: float | np.ndarray,
    load: WeightLoad,
    costs: _SuperblockCosts,
    here: slice,
    num_chunks: float | np.ndarray,
    num_vec: int | np.ndarray,
    geometry: Geometry,
    config: NpuConfig,
) -> tuple[np.ndarray, np.ndarray]:
    """Cycles of a group of `num_vec` vectors and `num_chunks` chunks to drain, for each superblock `here`, and
    (compute, fill, drain) sums. Arrays (groups, 1) are those of several shapes, with costs of the same; of the
    shorter of filling and computing the part `hidden` is not hidden.
    """
    fill = costs.fill[..., here]
    compute = (load.nnz_core[here] + costs.imbalance[..., here]) * geometry.value_bytes * num_vec
    drain = load.kernels[here] * config.num_cores * num_chunks + fitted.GROUP_DRAIN_CYCLES
    busy = np.maximum(compute, fill) + hidden * np.minimum(compute, fill)
    time = np.maximum(np.maximum(busy, drain), costs.weights[here]) + fitted.GROUP_CYCLES
    return time, np.array([compute.sum(), fill.sum(), drain.sum()])


def _stripe_time(
    stripe: Stripe,
    group: GroupShape,
    load: WeightLoad,
    costs: _SuperblockCosts,
    chunks: list[float],
    geometry: Geometry,
    config: NpuConfig,
) -> tuple[float, float, np.ndarray]:
    """Cycles of a stripe whose input is there, those of its first group, and (compute, fill, drain) sums; `chunks` as
    from `_drain_chunks`.
    """
    total, sums, first = 0.0, np.zeros(3), 0.0
    hidden = fitted.SLOT_PENALTY.get(group.num_slots, fitted.MANY_SLOTS_PENALTY)
    for count, num_chunks, (_, num_vec) in zip((stripe.num_groups - 1, 1), chunks, stripe.groups(group), strict=True):
        time, parts = _group_time(hidden, load, costs, stripe.part.superblocks, num_chunks, num_vec, geometry, config)
        total += count * float(time.sum())
        sums += count * parts
        first = first or (float(time[0]) if count else 0.0)
    return total, first, sums


def _drain_chunks(
    geometry: Geometry, stripe: Stripe, group: GroupShape, drain_lanes: float, config: NpuConfig
) -> list[float]:
    """Cycles to drain a channel of all groups but the last, and of the last.

    In a pool each row begins a cycle of its own.
    """
    chunks = [-(-num_pos // drain_lanes) for num_pos, _ in stripe.groups(group)]
    if geometry.pool_size:
        lanes = config.pool_lanes // geometry.value_bytes
        chunks = [
            max(count, rows * -(-cols // lanes))
            for count, (rows, cols) in zip(chunks, stripe.group_outputs(group), strict=True)
        ]
    return chunks


def _imbalance(load: WeightLoad, num_slots: int | np.ndarray, config: NpuConfig) -> np.ndarray:
    """Weights of a superblock that cores wait for one another: zeros are taken for random, so those of a window vary
    as a binomial, and channels for dealt as `balance_windows` does it.
    """
    mean = load.nnz / (config.num_cores * load.num_z)
    deviation = np.sqrt(mean * (1 - load.nnz / (config.num_cores * load.positions)))
    lead = (num_slots - 1) * mean / np.maximum(deviation, 1e-9)
    slowest = fitted.IMBALANCE * np.sqrt(2 * np.log(config.num_cores)) * deviation
    return load.num_z * slowest * np.exp(-lead / fitted.LEAD_DEVIATIONS)


def _stream_bytes(load: WeightLoad, config: NpuConfig) -> np.ndarray:
    """Bytes of the streams of each superblock, all cores; zeros are taken for random."""
    positions, nnz = config.num_cores * int(load.positions.sum()), max(int(load.nnz.sum()), 1)
    sizes = [(8 + bits) / 8 * nnz / (1 - (1 - nnz / positions) ** (1 << bits)) for bits in range(MAX_RUN_BITS + 1)]
    return load.positions * config.num_cores * (min(sizes) / positions)


@lru_cache(maxsize=4096)
def words_per_row(num_cols: int, pitch: int, num_lanes: int) -> float:
    """Stripe words that a row of a plane touches, on average over the rows, which start `pitch` pixels apart."""
    starts = np.arange(0, num_lanes, np.gcd(pitch, num_lanes))
    return float(np.mean(-(-(starts + num_cols) // num_lanes)))


def _load_cycles(geometry: Geometry, group: GroupShape, stripe: Stripe, config: NpuConfig) -> float:
    """Cycles to load a stripe: port beats or rows of words, whichever are more."""
    _, tile_ih, _ = geometry.rows.clip(stripe.first_row, stripe.num_rows)
    is_full = stripe.num_cols == geometry.cols.size_out
    _, tile_iw, _ = geometry.clip_cols(stripe.first_col, stripe.num_cols)
    num_channels = stripe.part.num_ic * geometry.value_bytes
    num_bytes = num_channels * tile_ih * tile_iw
    writes = (
        num_channels
        * len(geometry.phase_list)
        * stripe.tile_rows
        * words_per_row(stripe.tile_cols, group.pitch_row, config.num_lanes)
    )
    return max(num_bytes / config.port_bytes, float(writes)) + (0 if is_full else num_channels * tile_ih * 2.0)


def tp_cycles(kind: str, num_bytes: int, num_loaded_bytes: int, config: NpuConfig) -> float:
    """Estimate of a TP task of `kind` (a key of `fitted.TP_BYTE_CYCLES`) that loads `num_loaded_bytes` and makes
    `num_bytes`.
    """
    fewer_lanes = 1 / config.tp_lanes - 1 / NUM_TP_LANES if kind == "add" else 0
    return (
        fitted.TP_START_CYCLES
        + (fitted.TP_BYTE_CYCLES[kind] + fewer_lanes) * num_bytes
        + fitted.TP_BLOCK_CYCLES * -(-num_loaded_bytes // (config.tp_buffer_bytes // 2))
    )


def pool_cycles(work: PoolWork, config: NpuConfig) -> float:
    """Estimated cycles of a pool on the tensor processor: what it loads or its windows, whichever are more, for these
    follow the load; infinite where its buffer does not hold what a window needs, or it has no pools.
    """
    if missing_unit(work.op, config):
        return np.inf
    work, limit = work.flat, config.tp_buffer_bytes // 2
    width = work.cols.size_in if work.is_wide else min(work.cols.kernel, work.cols.size_in)
    if work.value_bytes * min(work.rows.kernel, work.rows.size_in) * width > limit:
        return np.inf
    rows, cols = (
        np.minimum(first + axis.kernel, axis.size_in) - np.maximum(first, 0)
        for axis, made in zip((work.rows, work.cols), work.made, strict=True)
        for first in [np.array(made) * axis.stride - axis.pad]
    )
    windows: float = tp_window_cycles(work.op, work.is_wide, rows, cols, work.cols.kernel)
    if len(cols) < work.cols.size_out:  # runs of a few bytes
        windows = max(windows, float(fitted.TP_RUN_CYCLES * len(rows)))
    # Of int16 each block is loaded and processed twice.
    num_bytes = work.value_bytes * work.rows.clip(work.made[0].start, len(rows))[1] * work.cols.size_in
    most = limit // num_bytes
    num_blocks = -(-work.num_ic // most) if most else -(-work.num_ic * num_bytes // limit)
    table = 0 if work.lut is None else table_cycles(config)
    channel = max(num_bytes / config.port_bytes, windows)
    return fitted.TP_START_CYCLES + work.value_bytes * (
        work.num_ic * channel + (fitted.TP_BLOCK_CYCLES + table) * num_blocks
    )


def table_cycles(config: NpuConfig) -> float:
    """Estimate of what a lookup table costs each descriptor of the tensor processor, which loads it anew."""
    return fitted.TP_BLOCK_CYCLES + lut_cycles(config)


def lut_cycles(config: NpuConfig) -> float:
    """What a lookup table takes, beyond the latency of memory."""
    return min(LUT_BEAT_CYCLES, config.port_bytes // 4) * LUT_BYTES / config.port_bytes


def tp_window_cycles(op: TpOp, is_wide: bool, rows: np.ndarray, cols: np.ndarray, kernel_w: int) -> int:
    """Cycles of windows of so many rows and columns, each with each, of kernels `kernel_w` wide. In pools of int8 both
    gathers read: two rows, where a kernel is no wider than a gather, or twice the columns.
    """
    if is_wide or op == TpOp.BILINEAR:
        cycles = np.outer(rows, -(-cols // NUM_TP_LANES))
    elif kernel_w <= NUM_TP_LANES:
        cycles = np.outer(-(-rows // 2), np.ones_like(cols))
    else:
        cycles = np.outer(rows, -(-cols // (2 * NUM_TP_LANES)))
    return int(np.maximum(cycles, AVERAGE_CYCLES_WIDE if op == TpOp.AVG_POOL and is_wide else 1).sum())


def tp_group_bytes(steps: Iterable[int], config: NpuConfig) -> int:
    """Elements of 8 bits of two operands that the tensor processor walks over in a cycle, with neighbours of each
    operand so many bytes apart: one where that puts lanes into one bank of its buffer.
    """
    lanes = config.tp_lanes
    return lanes if all(step == 0 or step % (2 * config.port_bytes // lanes) for step in steps) else 1


def tp_copy_bytes(step: int, config: NpuConfig) -> int:
    """Elements that a copy walks over in a cycle, with neighbours so many bytes apart: two where all of them are in one
    bank of the buffer, which is read twice in a cycle.
    """
    return NUM_TP_LANES if step == 0 or step % config.port_bytes else 2


def run_cycles(num_runs: int, run_bytes: int, max_flying: int, config: NpuConfig) -> float:
    """Estimated cycles to load or to write runs of so many bytes, with `max_flying` of them on their way at a time."""
    beats = num_runs * (-(-run_bytes // config.port_bytes) + fitted.TP_RUN_BEATS)
    return max(beats, (num_runs - 1) * fitted.TP_TRIP_CYCLES / max_flying)


def block_cycles(block: dict[str, int], config: NpuConfig) -> float:
    """Estimated cycles of a descriptor other than a pool: its load or its elements, whichever are more."""
    load = sum(block[f"num_{name}_runs"] * (-(-block[f"{name}_run_bytes"] // config.port_bytes) + 1) for name in "ab")
    steps = [block["step_2"]] + [block["b_step_2"]] * (block["b_run_bytes"] > 0)
    lanes = tp_copy_bytes(steps[0], config) if block["op"] == TpOp.COPY else tp_group_bytes(steps, config)
    row = (1 + block["is_wide"]) * -(-block["num_2"] // lanes)
    return max(load, block["num_0"] * block["num_1"] * row) + fitted.TP_BLOCK_CYCLES


def copy_cycles(block: dict[str, int], config: NpuConfig) -> float:
    """The same of a `COPY`, the runs of which may be as short as they are."""
    num_out = prod(block[f"num_{n}"] for n in range(3))
    load = run_cycles(block["num_a_runs"], block["a_run_bytes"], config.max_reads, config)
    write = run_cycles(num_out // block["out_run_bytes"], block["out_run_bytes"], MAX_WRITES, config)
    return max(block_cycles(block, config), max(load, write) + fitted.TP_BLOCK_CYCLES)
