"""The compiler's estimate of a layer's cycles: what it minimises, in one place; its numbers are in `fitted.py`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from convoy.spec.config import NpuConfig
from convoy.spec.cycles import MIN_WINDOW_CYCLES, NUM_TP_LANES
from convoy.spec.isa import MAX_RUN_BITS, PARAM

from . import fitted

if TYPE_CHECKING:
    from .geometry import Geometry, GroupShape, Stripe

__all__ = [
    "TilingCost",
    "WeightLoad",
    "block_cycles",
    "least_cycles",
    "tiling_cost",
    "tp_cycles",
    "tp_group_bytes",
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
    """What the superblocks of a layer cost with a shape of groups; arrays of `num_sb`."""

    fill: np.ndarray
    """Cycles to fill the windows of a group."""
    weights: np.ndarray
    """Cycles to read the weights of a group."""
    imbalance: np.ndarray
    """Weights that cores wait for one another."""
    param_beats: np.ndarray
    drain_lanes: float

    @classmethod
    def of(cls, geometry: Geometry, group: GroupShape, load: WeightLoad, config: NpuConfig) -> _SuperblockCosts:
        window_words = geometry.value_bytes * len(geometry.phase_list) * group.seg_words
        window_cycles = max(window_words, MIN_WINDOW_CYCLES)
        return cls(
            load.num_z * window_cycles * (config.num_cores if geometry.is_depthwise else 1),
            _stream_bytes(load, config) / config.port_bytes / fitted.PORT_SHARE,
            _imbalance(load, config) / group.num_slots,
            PARAM.num_bytes / config.port_bytes * config.num_cores * load.kernels,
            (config.residual_lanes if geometry.has_residual else config.post_lanes) / geometry.value_bytes,
        )


def least_cycles(
    geometry: Geometry, group: GroupShape, num_groups: int, num_cols: int, load: WeightLoad, config: NpuConfig
) -> float:
    """Cycles that no tiling of a layer without a pool falls below, if it has `num_groups` whole groups of `num_cols`
    columns, and stripes that cost nothing.
    """
    costs = _SuperblockCosts.of(geometry, group, load, config)
    num_pos, num_vec = group.extent(1 if group.mode == "segment" else group.rows, num_cols)
    time, _ = _group_time(group, load, costs, slice(None), -(-num_pos // costs.drain_lanes), num_vec, geometry, config)
    traffic = fitted.PORT_SHARE * float(costs.weights.sum()) + float(costs.param_beats.sum())
    return num_groups * (float(time.sum()) + fitted.CONTENTION * traffic) + fitted.LAYER_CYCLES


def tiling_cost(
    geometry: Geometry, group: GroupShape, stripes: tuple[Stripe, ...], load: WeightLoad, config: NpuConfig
) -> TilingCost:
    """Estimate of one layer tiled in this way."""
    costs = _SuperblockCosts.of(geometry, group, load, config)
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
    group: GroupShape,
    load: WeightLoad,
    costs: _SuperblockCosts,
    here: slice,
    num_chunks: float,
    num_vec: int,
    geometry: Geometry,
    config: NpuConfig,
) -> tuple[np.ndarray, np.ndarray]:
    """Cycles of a group of `num_vec` vectors and `num_chunks` chunks to drain, for each superblock `here`, and
    (compute, fill, drain) sums.
    """
    hidden = fitted.SLOT_PENALTY.get(group.num_slots, fitted.MANY_SLOTS_PENALTY)
    fill = costs.fill[here]
    compute = (load.nnz_core[here] + costs.imbalance[here]) * geometry.value_bytes * num_vec
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
    for count, num_chunks, (_, num_vec) in zip((stripe.num_groups - 1, 1), chunks, stripe.groups(group), strict=True):
        time, parts = _group_time(group, load, costs, stripe.part.superblocks, num_chunks, num_vec, geometry, config)
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


def _imbalance(load: WeightLoad, config: NpuConfig) -> np.ndarray:
    """Weights of a superblock that cores with one slot would wait for: zeros are taken for random, so those of a
    window vary as a binomial.
    """
    density = load.nnz / (config.num_cores * load.positions)
    deviation = np.sqrt(load.positions / load.num_z * density * (1 - density))
    return fitted.IMBALANCE * load.num_z * deviation * np.sqrt(2 * np.log(config.num_cores))


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
    `num_bytes` (pools: reads pixels).
    """
    return (
        fitted.TP_START_CYCLES
        + fitted.TP_BYTE_CYCLES[kind] * num_bytes
        + fitted.TP_BLOCK_CYCLES * -(-num_loaded_bytes // (config.tp_buffer_bytes // 2))
    )


def tp_group_bytes(steps: Iterable[int], config: NpuConfig) -> int:
    """Elements of 8 bits that the tensor processor walks over in a cycle, with neighbours of each operand so many bytes
    apart: one where that puts lanes into one bank of its buffer.
    """
    return NUM_TP_LANES if all(step == 0 or step % (config.port_bytes // 2) for step in steps) else 1


def block_cycles(block: dict[str, int], config: NpuConfig) -> float:
    """Estimated cycles of a descriptor other than a pool: its load or its elements, whichever are more."""
    load = sum(block[f"num_{name}_runs"] * (-(-block[f"{name}_run_bytes"] // config.port_bytes) + 1) for name in "ab")
    steps = [block["step_2"]] + [block["b_step_2"]] * (block["b_run_bytes"] > 0)
    row = max(2, (1 + block["is_wide"]) * -(-block["num_2"] // tp_group_bytes(steps, config)))
    return max(load, block["num_0"] * block["num_1"] * row) + fitted.TP_BLOCK_CYCLES
