"""Shapes of stripes, groups and superblocks for one convolution: every legal choice is enumerated, the cheapest
taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import product
from math import gcd

import numpy as np

from convoy.driver.graph.graph import GraphError
from convoy.driver.lower.work import Axis, ConvWork
from convoy.spec.config import NpuConfig
from convoy.spec.isa import NN, STREAM, TABLE_ALIGN_BYTES

from . import fitted
from .cost import TilingCost, WeightLoad, least_cycles, tiling_cost, words_per_row
from .geometry import ChannelPart, Geometry, GroupShape, Stripe

__all__ = ["Tiling", "deal_channels", "striped_tilings", "tile_conv", "tile_work", "weight_load"]

EQUAL_CYCLES = 0.001
"""Of tilings whose estimates differ by no more than this part the one is taken that reads weights least often: it is
less than what the estimates are wrong by.
"""


@dataclass(frozen=True)
class Tiling:
    """The choice for one layer."""

    geometry: Geometry
    group: GroupShape
    num_kernels: int
    """K: kernels per core and superblock."""
    num_sb: int
    num_kernels_last: int
    """K of the last superblock."""
    stripes: tuple[Stripe, ...]
    cost: TilingCost
    dealt: np.ndarray = field(repr=False, compare=False)
    """Output channels of the kernels, as from `deal_channels`."""

    @property
    def kernels_per_z(self) -> tuple[int, int]:
        """Kernels that use a window, in a superblock and in the last one."""
        if self.geometry.is_depthwise:
            return (self.geometry.num_oc // self.geometry.num_ic,) * 2
        return self.num_kernels, self.num_kernels_last

    def num_kernels_in(self, part: ChannelPart) -> tuple[int, int]:
        """K of a part's superblocks, and of its last one."""
        return self.num_kernels, self.num_kernels_last if part.superblocks.stop == self.num_sb else self.num_kernels

    def num_z_in(self, part: ChannelPart) -> tuple[int, int]:
        """Windows per group, in a part's superblocks and in its last one."""
        if self.geometry.is_depthwise:
            kernels, kernels_last = self.num_kernels_in(part)
            return kernels // self.kernels_per_z[0], kernels_last // self.kernels_per_z[0]
        return (self.geometry.num_ic,) * 2


def deal_channels(geometry: Geometry, nnz: np.ndarray, num_cores: int) -> np.ndarray:
    """Output channel of every kernel of every core, -1 for none; int64 (kernels, num_cores).

    The order is free for a convolution: kernels of unequal numbers of non-zeros (`nnz`, int64 per output channel) are
    sorted and dealt forth and back, so that cores have about the same work. In a depthwise convolution the window
    decides.
    """
    num_units = geometry.num_ic if geometry.is_depthwise else geometry.num_oc
    units = np.concatenate([np.arange(num_units), np.full(-num_units % num_cores, -1)])
    if geometry.is_depthwise:
        multiplier = geometry.num_oc // geometry.num_ic
        outputs = units.reshape(-1, 1, num_cores) * multiplier + np.arange(multiplier)[None, :, None]
        return np.where(units.reshape(-1, 1, num_cores) < 0, -1, outputs).reshape(-1, num_cores)
    if num_units > num_cores and nnz.max() > 1.02 * nnz.mean():
        units[:num_units] = np.argsort(-nnz, kind="stable")
        dealt = units.reshape(-1, num_cores)
        dealt[1::2] = dealt[1::2, ::-1].copy()
        return dealt
    return units.reshape(-1, num_cores)


def weight_load(geometry: Geometry, nnz: np.ndarray, dealt: np.ndarray, num_kernels: int) -> WeightLoad:
    """What superblocks of `num_kernels` kernels per core have to do; `dealt` as from `deal_channels`."""
    starts = np.arange(0, len(dealt), num_kernels)
    per_core = np.add.reduceat(np.append(nnz, 0)[dealt], starts, axis=0)
    kernels = np.diff(np.append(starts, len(dealt)))
    num_z = (
        kernels // (geometry.num_oc // geometry.num_ic)
        if geometry.is_depthwise
        else np.full_like(kernels, geometry.num_ic)
    )
    num_taps = geometry.rows.kernel * geometry.cols.kernel
    positions = kernels * num_taps * (1 if geometry.is_depthwise else geometry.num_ic)
    return WeightLoad(per_core.max(axis=1), per_core.sum(axis=1), kernels, num_z, positions)


def tile_work(work: ConvWork, config: NpuConfig) -> Tiling:
    """The cheapest legal tiling of a convolution as stored; equal geometries with equally many non-zero weights are
    tiled once.

    Raises
    ------
    GraphError
        As `tile_conv`.
    """
    nnz = np.count_nonzero(work.weights.reshape(work.num_oc, -1), axis=1)
    return _tile_once(Geometry.of(work), tuple(nnz.tolist()), config)


@lru_cache(maxsize=1024)
def _tile_once(geometry: Geometry, nnz: tuple[int, ...], config: NpuConfig) -> Tiling:
    counts = np.array(nnz, np.int64)
    return tile_conv(geometry, counts, deal_channels(geometry, counts, config.num_cores), config)


def tile_conv(geometry: Geometry, nnz: np.ndarray, dealt: np.ndarray, config: NpuConfig) -> Tiling:
    """The cheapest legal tiling of a convolution whose output channels have `nnz` non-zero weights and are dealt as
    `dealt`.

    Raises
    ------
    GraphError
        When not even one output pixel's inputs fit the stripe memory or the window memory; the message names which.
    """
    found, fits_window, num_taps = list[Tiling](), False, geometry.rows.kernel * geometry.cols.kernel
    if num_taps > NN.fields["num_taps"].max:
        raise GraphError(f"a kernel of {num_taps} taps; the limit is {NN.fields['num_taps'].max}")
    for tile_cols in _column_tiles(geometry.collapsed, config):
        fits_window |= _add_cheap(found, geometry.collapsed, nnz, dealt, config, tile_cols)
        if found and not (geometry.pool_size and tile_cols * geometry.value_bytes > config.pool_line_bytes):
            break
    if found:
        limit = min(tiling.cost.cycles for tiling in found) * (1 + EQUAL_CYCLES)
        cheapest = [tiling for tiling in found if tiling.cost.cycles <= limit]
        return min(cheapest, key=lambda tiling: (round(tiling.cost.weight_cycles), tiling.cost.cycles))
    if fits_window:
        raise GraphError(
            f"{geometry.num_ic} channels of the inputs of one output pixel exceed the stripe memory of "
            f"{config.stripe_bytes} bytes; "
            "a larger stripe_bytes is needed"
        )
    raise GraphError(
        f"the inputs of one output pixel exceed the window memory of {config.window_words} words of {config.num_lanes} "
        "pixels; a larger window_words is needed"
    )


def striped_tilings(tiling: Tiling, work: ConvWork, counts: Sequence[int], config: NpuConfig) -> Iterator[Tiling]:
    """Tilings of a convolution in about so many stripes of whole rows, the first of which may be shorter, with any
    groups and superblocks; none where the stripes of `tiling` are not whole rows of all channels.
    """
    geometry, part, width = tiling.geometry, tiling.stripes[0].part, tiling.geometry.cols.size_out
    is_whole = tiling.group.mode == "segment" or all(stripe.num_cols == width for stripe in tiling.stripes)
    if geometry.pool_size or not is_whole or any(stripe.part != part for stripe in tiling.stripes):
        return
    nnz = np.count_nonzero(work.weights.reshape(work.num_oc, -1), axis=1)
    for num_kernels in _kernel_counts(geometry, config):
        load = weight_load(geometry, nnz, tiling.dealt, num_kernels)
        all_channels = ChannelPart(0, len(load.kernels), 0, geometry.num_ic)
        num_entries = config.num_acc_entries // num_kernels // geometry.value_bytes
        for group in _groups(geometry, width, num_entries, config):
            is_segment = group.mode == "segment"
            size, unit = (width, group.cols) if is_segment else (geometry.rows.size_out, group.rows)
            for step in sorted({-(-size // (count * unit)) * unit for count in counts}):
                for first in sorted({step, size % step or step, -(-step // (2 * unit)) * unit}):
                    parts = [(0, first), *((first + n, count) for n, count in _overlapping(size - first, step, 0))]
                    places = [(0, 1, *part) if is_segment else (*part, 0, width) for part in parts]
                    stripes = tuple(_stripe(geometry, group, all_channels, *place, config) for place in places)
                    if all(_is_legal(stripe, geometry, config) for stripe in stripes):
                        cost = tiling_cost(geometry, group, stripes, load, config)
                        kernels_last = int(load.kernels[-1])
                        yield replace(
                            tiling,
                            group=group,
                            num_kernels=num_kernels,
                            num_sb=len(load.kernels),
                            num_kernels_last=kernels_last,
                            stripes=stripes,
                            cost=cost,
                        )


def _add_cheap(
    found: list[Tiling], geometry: Geometry, nnz: np.ndarray, dealt: np.ndarray, config: NpuConfig, tile_cols: int
) -> bool:
    """Add the tilings with columns cut into tiles of `tile_cols` that may be the cheapest of all; does any group shape
    fit the window memory? Shapes of groups are tried in the order of what they cost at least, as long as that is less
    than the cheapest found.
    """
    choices = []
    for num_kernels in _kernel_counts(geometry, config):
        max_vec = config.num_acc_entries // num_kernels // geometry.value_bytes
        if groups := list(_groups(geometry, tile_cols, max_vec, config)):
            load = weight_load(geometry, nnz, dealt, num_kernels)
            least = least_cycles(geometry, tile_cols, groups, load, config)
            choices += [
                (cycles, num_kernels, load, group) for cycles, group in zip(least.tolist(), groups, strict=True)
            ]
    choices.sort(key=lambda choice: choice[0])
    limit = min((tiling.cost.cycles for tiling in found), default=np.inf)
    for least_of_group, num_kernels, load, group in choices:
        spare = limit * (1 + EQUAL_CYCLES) - least_of_group
        if spare < 0:
            break
        max_stripes = None if geometry.pool_size or limit == np.inf else 1 + int(spare / fitted.NEXT_STRIPE_CYCLES)
        lines = _lines(geometry, tile_cols, num_kernels, len(dealt), config)
        num_sb = len(load.kernels)
        for stripes in _stripings(geometry, tile_cols, group, lines, num_kernels, num_sb, config, max_stripes):
            cost = tiling_cost(geometry, group, stripes, load, config)
            limit = min(limit, cost.cycles)
            found.append(Tiling(geometry, group, num_kernels, num_sb, int(load.kernels[-1]), stripes, cost, dealt))
    return bool(choices)


def _column_tiles(geometry: Geometry, config: NpuConfig) -> Iterator[int]:
    """Widths of column tiles to try, the full width first; the next is taken only when nothing fits, or a pool
    cannot keep rows. With a pool those of whole results.
    """
    step, overlap = _pool_step(geometry)
    width = (geometry.cols.size_out - overlap) // step
    row_bytes = {2: config.pool_max_row_bytes, 3: config.pool_line_bytes - 1}
    limit = row_bytes[geometry.pool_size] // geometry.value_bytes if geometry.pool_size else geometry.cols.size_out
    while True:
        if width * step + overlap <= limit:
            yield width * step + overlap
        if width == 1:
            break
        width = -(-width // 2)


def _pool_step(geometry: Geometry) -> tuple[int, int]:
    """Rows (columns) of outputs from one row (column) of results to the next, and how many more a window has."""
    return (2, geometry.pool_size - 2) if geometry.pool_size else (1, 0)


def _kernel_counts(geometry: Geometry, config: NpuConfig) -> list[int]:
    """Candidates for K that deal the kernels evenly to superblocks."""
    multiple = geometry.num_oc // geometry.num_ic if geometry.is_depthwise else 1
    units = -(-(geometry.num_ic if geometry.is_depthwise else geometry.num_oc) // config.num_cores)
    num_entries = config.num_acc_entries // geometry.value_bytes
    limit = min(num_entries // multiple, units, (1 << 9) - 1)
    if limit < 1:
        raise GraphError(
            f"depth multiplier {multiple} exceeds the {num_entries} sums that the accumulators of a core hold"
        )
    return sorted({-(-units // num_sb) * multiple for num_sb in range(-(-units // limit), units + 1)}, reverse=True)


def _pitch(geometry: Geometry, tile_cols: int) -> int:
    """Smallest legal row pitch: rows may share their pads when whole rows are loaded."""
    cols = geometry.cols
    written = _written_cols(cols, tile_cols)
    if tile_cols < cols.size_out:
        return written
    counts = [
        (-(-(cols.pad - px) // cols.stride), -(-(cols.pad + cols.size_in - px) // cols.stride)) for px in cols.phases
    ]
    return max(max(image_end, written - max(left, 0)) for left, image_end in counts)


def _written_cols(cols: Axis, tile_cols: int) -> int:
    """Columns of a phase plane that are written: those that taps read, and all that are loaded. Stripes of pads only
    begin or end the image, and load a pixel behind them.
    """
    if tile_cols == cols.size_out:
        loads = [(cols.size_in, cols.pad)]
    else:
        loads = [cols.clip(first, tile_cols)[1:] for first in (0, cols.size_out - tile_cols)]
    return max(tile_cols + cols.max_shift, *(-(-(before + count) // cols.stride) for count, before in loads))


def _groups(geometry: Geometry, tile_cols: int, max_vec: int, config: NpuConfig) -> Iterator[GroupShape]:
    """Every group shape of at most `max_vec` vectors whose window fits the window memory."""
    lanes, num_rows, pitch = config.num_lanes, geometry.rows.size_out, _pitch(geometry, tile_cols)
    if num_rows == 1:
        for num_vec in {min(max_vec, -(-tile_cols // lanes)), *(1 << n for n in range(max_vec.bit_length()))}:
            if num_vec <= max_vec and num_vec * lanes < tile_cols + lanes:
                cols = num_vec * lanes
                yield from _fitted(
                    geometry, config, GroupShape("segment", 1, cols, num_vec, num_vec, 0, pitch, cols, lanes)
                )
    if tile_cols == geometry.cols.size_out:
        for flat_pitch in _flat_pitches(geometry, max(pitch, tile_cols), config):
            for rows in _group_rows(geometry, (max_vec * lanes - tile_cols) // flat_pitch + 1):
                num_vec = -(-((rows - 1) * flat_pitch + tile_cols) // lanes)
                yield from _fitted(
                    geometry,
                    config,
                    GroupShape("flat", rows, tile_cols, num_vec, num_vec, 0, flat_pitch, flat_pitch, lanes),
                )
    for split in (0, 1, 2):
        width = lanes >> split
        num_vec_x = -(-tile_cols // width)
        split_pitch = pitch + (width - pitch) % lanes if split else pitch
        if width < config.post_lanes:
            continue
        step = config.post_lanes
        for rows in _group_rows(geometry, (max_vec // num_vec_x) << split):
            num_vec = num_vec_x * -(-rows // (1 << split))
            drain_pitch = -(-tile_cols // step) * step
            yield from _fitted(
                geometry,
                config,
                GroupShape("rows", rows, tile_cols, num_vec, num_vec_x, split, split_pitch, drain_pitch, lanes),
            )


def _flat_pitches(geometry: Geometry, pitch: int, config: NpuConfig) -> list[int]:
    """The pitch itself and, where the loader rather than the port would be the limit, the next one with which rows
    begin at words.
    """
    cols = _written_cols(geometry.cols, geometry.cols.size_out)
    num_words = len(geometry.cols.phases) * words_per_row(cols, pitch, config.num_lanes)
    aligned = -(-pitch // config.num_lanes) * config.num_lanes
    return [pitch] if aligned == pitch or num_words * config.port_bytes <= geometry.cols.size_in else [pitch, aligned]


def _group_rows(geometry: Geometry, max_rows: int) -> list[int]:
    """Rows per group that deal the rows evenly to groups; with a pool some more."""
    num_rows = geometry.rows.size_out
    if max_rows < 1:
        return []
    dealt = {-(-num_rows // count) for count in range(-(-num_rows // max_rows), num_rows + 1)}
    if geometry.pool_size:  # even ones may be the only legal ones; in a stripe of its own a group of a 3x3 pool is odd
        most = min(max_rows, num_rows)
        dealt |= {rows + rows % 2 for rows in dealt if rows < most} | {3 if most >= 3 else 1, most - (most + 1) % 2}
    return sorted(dealt, reverse=True)


def _fitted(geometry: Geometry, config: NpuConfig, group: GroupShape) -> Iterator[GroupShape]:
    """The group shape with its window's size, if the window memory and the descriptor's fields hold it."""
    lanes = config.num_lanes
    width, num_vec_y = lanes >> group.split_log2, group.num_vec // group.num_vec_x
    remainder = 0 if group.group_step % lanes == 0 else lanes - gcd(group.group_step, lanes)
    tap = geometry.rows.max_shift * group.pitch_row + geometry.cols.max_shift
    vector = (group.num_vec_x - 1) * width + (num_vec_y - 1) * (group.pitch_row << group.split_log2)
    lane = lanes - 1 + ((1 << group.split_log2) - 1) * (group.pitch_row - width if group.split_log2 else 0)
    seg_words = int(remainder + tap + vector + lane) // lanes + 1
    num_slots = config.window_words // (seg_words * len(geometry.phase_list) * geometry.value_bytes)
    legal = (
        num_slots >= 1
        and seg_words <= NN.fields["seg_words"].max
        and group.num_vec <= NN.fields["num_vec"].max
        and group.pitch_row << group.split_log2 <= NN.fields["step_vec_y"].max
        and group.group_step <= NN.fields["group_step"].max
    )
    split_words, num_pos = (group.pitch_row - width) // lanes, group.drain_pitch * group.rows
    if legal and num_pos <= NN.fields["num_pos"].max and split_words <= NN.fields["split_words"].max:
        yield replace(group, seg_words=seg_words, num_slots=num_slots)


@dataclass(frozen=True)
class _Lines:
    """What the line memory of the fused pool can keep; all True without a pool."""

    in_stripe: bool
    """Rows of a group for the next one."""
    between_stripes: bool
    """Rows of a stripe for the next one."""


def _lines(geometry: Geometry, tile_cols: int, num_kernels: int, num_all_kernels: int, config: NpuConfig) -> _Lines:
    """For superblocks of `num_kernels` of the `num_all_kernels` kernels per core."""
    if not geometry.pool_size:
        return _Lines(True, True)
    max_kernels = (
        config.pool_channels // config.num_cores if tile_cols * geometry.value_bytes <= config.pool_line_bytes else 0
    )
    return _Lines(num_kernels <= max_kernels, num_all_kernels <= max_kernels and tile_cols == geometry.cols.size_out)


def _row_parts(geometry: Geometry, num_rows: int, unit: int, lines: _Lines) -> list[tuple[int, int]] | None:
    """(first, number) of the rows of each stripe of about `num_rows` rows in groups of `unit`; None where the pool
    does not allow it.

    Stripes begin with an even row. Those of a 3x3 pool continue one another, or share a row, which each computes.
    """
    size, overlap, has_next = geometry.rows.size_out, _pool_step(geometry)[1], unit < num_rows
    if not lines.in_stripe and has_next and (overlap or unit % 2) and unit < size:
        return None
    if not geometry.pool_size or num_rows >= size or (num_rows % 2 == 0 and (not overlap or lines.between_stripes)):
        return _overlapping(size, num_rows, 0)
    if not overlap:
        return None
    odd = num_rows - (num_rows + 1) % 2
    return _overlapping(size, odd - 1, 1)


def _stripings(
    geometry: Geometry,
    tile_cols: int,
    group: GroupShape,
    lines: _Lines,
    num_kernels: int,
    num_sb: int,
    config: NpuConfig,
    max_stripes: int | None,
) -> Iterator[tuple[Stripe, ...]]:
    """Ways to cut the output into at most `max_stripes` stripes that fit the stripe memory.

    Channels are cut only as far as two stripes fit at a time, and then into as few stripes as possible.
    """
    is_segment, overlap = group.mode == "segment", _pool_step(geometry)[1]
    size, unit = (geometry.cols.size_out, group.cols) if is_segment else (geometry.rows.size_out, group.rows)
    num_units = -(-size // unit)
    counts = {
        num_units,
        *(1 << n for n in range(num_units.bit_length())),
        *(-(-num_units // n) for n in (2, 3, 4, 6, 8)),
    }
    for channels in _channel_parts(geometry, num_kernels, num_sb, config):
        stripes: list[Stripe] = []
        for count in sorted(counts, reverse=True):
            step = count * unit
            if is_segment and tile_cols < size and step > tile_cols:
                continue
            stripes = []
            if max_stripes is not None and len(channels) * -(-num_units // count) > max_stripes:
                continue
            parts = _overlapping(size, step, 0) if is_segment else _row_parts(geometry, step, unit, lines)
            for part, (first, num) in product(channels, parts or ()):
                if is_segment:
                    stripes.append(_stripe(geometry, group, part, 0, 1, first, num, config))
                else:
                    stripes += [
                        _stripe(geometry, group, part, first, num, col, num_cols, config)
                        for col, num_cols in _overlapping(geometry.cols.size_out, tile_cols - overlap, overlap)
                    ]
                if stripes[-1].num_words > config.stripe_words:
                    break
            if not stripes or not all(_is_legal(stripe, geometry, config) for stripe in stripes):
                continue
            yield tuple(stripes)
            if len(channels) > 1:
                break
        if stripes and len(channels) == len(stripes) and 2 * stripes[0].num_words <= config.stripe_words:
            return


def _overlapping(size: int, step: int, overlap: int) -> list[tuple[int, int]]:
    """(first, number) of parts of `size` that begin `step` apart and share `overlap`; none if they make no step."""
    return [(first, min(step + overlap, size - first)) for first in range(0, size - overlap, step)] if step > 0 else []


def _channel_parts(geometry: Geometry, num_kernels: int, num_sb: int, config: NpuConfig) -> Iterator[list[ChannelPart]]:
    """Ways to cut the channels, fewest parts first: a depthwise convolution without a pool may be done in parts, whose
    tables begin at legal addresses."""
    yield [ChannelPart(0, num_sb, 0, geometry.num_ic)]
    if not geometry.is_depthwise or geometry.pool_size:
        return
    sb_channels = num_kernels * geometry.num_ic // geometry.num_oc * config.num_cores
    unit = max(1, TABLE_ALIGN_BYTES // (STREAM.num_bytes * config.num_cores))
    num_units = -(-num_sb // unit)
    for step in sorted({-(-num_units // (1 << n)) * unit for n in range(1, num_units.bit_length())}, reverse=True):
        yield [
            ChannelPart(
                first,
                min(step, num_sb - first),
                first * sb_channels,
                min(step * sb_channels, geometry.num_ic - first * sb_channels),
            )
            for first in range(0, num_sb, step)
        ]


def _stripe(
    geometry: Geometry,
    group: GroupShape,
    part: ChannelPart,
    first_row: int,
    num_rows: int,
    first_col: int,
    num_cols: int,
    config: NpuConfig,
) -> Stripe:
    rows, cols = geometry.rows, geometry.cols
    _, tile_ih, pad_top = rows.clip(first_row, num_rows)
    tile_rows = max(num_rows + rows.max_shift, -(-(pad_top + tile_ih) // rows.stride))
    _, tile_iw, pad_left = geometry.clip_cols(first_col, num_cols)
    tile_cols = max(num_cols + cols.max_shift, -(-(pad_left + tile_iw) // cols.stride))
    num_phases, lanes = len(geometry.phase_list), config.num_lanes
    phase_words = -(-((tile_rows - 1) * group.pitch_row + tile_cols) // lanes)
    num_groups = -(
        -(num_cols if group.mode == "segment" else num_rows) // (group.cols if group.mode == "segment" else group.rows)
    )
    last_word = ((num_groups - 1) * group.group_step) // lanes + group.seg_words
    channel_words = num_phases * phase_words
    num_words = (
        (part.num_ic * geometry.value_bytes - 1) * channel_words
        + (num_phases - 1) * phase_words
        + max(phase_words, last_word)
    )
    return Stripe(
        part, first_row, num_rows, first_col, num_cols, tile_rows, tile_cols, phase_words, num_groups, num_words
    )


def _is_legal(stripe: Stripe, geometry: Geometry, config: NpuConfig) -> bool:
    """It fits the stripe memory and the descriptor's fields."""
    limit = 1 << NN.fields["num_ic"].bits
    words = stripe.phase_words * len(geometry.phase_list)
    return (
        stripe.num_words <= config.stripe_words
        and max(words, stripe.tile_cols, stripe.tile_rows, stripe.num_groups) < limit
        and geometry.num_ic * geometry.value_bytes < limit
        and (geometry.cols.size_in < limit or stripe.num_cols < geometry.cols.size_out)
    )
