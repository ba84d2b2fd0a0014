"""The rules of an `NN` descriptor that can be checked without looking at memory."""

from __future__ import annotations

from convoy.spec.config import NpuConfig
from convoy.spec.isa import (
    LUT_BYTES,
    MAX_RUN_BITS,
    MAX_SRC_PLANE_BYTES,
    MAX_STEP_KERNELS,
    NN_AT_LEAST_ONE,
    NN_FEATURES,
    NN_INT8,
    NN_RESIDUAL_AT_LEAST_ONE,
    NN_RESIDUAL_INT8,
    NN_SWAPPED_AT_LEAST_ONE,
    NN_TABLES,
    TABLE_ALIGN_BYTES,
    Rounding,
)
from convoy.spec.limits import FusedPool, broken_limit

from .budget import MAX_CHANNELS, MAX_MACS, MAX_OUTPUTS, MAX_STREAM_WEIGHTS, MAX_STREAMS, MAX_WEIGHTS, require_at_most
from .memory import MachineError, PoolError
from .swapped import check_swapped

__all__ = ["check_nn", "check_nn_sizes"]


def check_nn(config: NpuConfig, d: dict[str, int]) -> None:
    """Check one decoded `NN` descriptor against the instruction set and the limits of `config`: the rules that the
    hardware checks too.

    Raises
    ------
    PoolError
        When all is legal but the fused pool.
    MachineError
        Naming the field, its value and what is legal.
    """
    for name in config.absent(NN_FEATURES):
        if name != "pool_size":  # of which `FUSED_POOL_LIMITS` speak
            _require(d[name] == 0, f"{name} = {d[name]}: use 0, this NPU has {NN_FEATURES[name]} = false")
    for name in NN_AT_LEAST_ONE:
        _require(d[name] >= 1, f"{name} = 0: use at least 1")
    for name in NN_TABLES:
        _require(d[name] % TABLE_ALIGN_BYTES == 0, f"{name} = {d[name]:#x}: align it to {TABLE_ALIGN_BYTES} bytes")
    for name in (*NN_INT8, *NN_RESIDUAL_INT8 * d["has_residual"]):
        _require(-128 <= d[name] <= 127, f"{name} = {d[name]}: use -128..127")
    _check_load(config, d)
    _check_compute(config, d)
    _check_drain(config, d)
    if d["is_swapped"]:
        _check_swapped(config, d)
    if d["ring_channels"]:
        _require_single(d, "ring_channels")
    if d["pool_size"]:
        _check_pool(config, d)


def check_nn_sizes(config: NpuConfig, d: dict[str, int]) -> None:
    """Check what the hardware does not of a descriptor that `check_nn` has passed: bytes neither left over nor
    missing, and what the golden model can afford.

    Raises
    ------
    MachineError
        Naming the fields, their product and the limit.
    """
    num_read = d["num_act_outer"] * d["num_act_inner"] * d["act_run_bytes"]
    num_tile = d["num_ic"] * d["tile_ih"] * d["tile_iw"]
    _require(
        num_read == num_tile,
        f"num_act_outer * num_act_inner * act_run_bytes = {num_read}, but num_ic * tile_ih * tile_iw = {num_tile}",
    )
    if d["is_swapped"]:
        check_swapped(config, d)
    require_at_most(
        MAX_WEIGHTS if d["ring_channels"] else 4 * config.stripe_bytes,
        "NN.num_ic * num_phases * tile_rows * tile_cols",
        d["num_ic"] * d["num_phases"] * d["tile_rows"] * d["tile_cols"],
    )
    if d["ring_channels"]:
        num_pixels = d["num_ic"] * d["channel_words"] * config.num_lanes
        require_at_most(MAX_WEIGHTS, "NN.num_ic * channel_words * num_lanes", num_pixels)
    num_positions = (d["num_groups"] - 1) * d["num_pos"] + d["num_pos_last"]
    require_at_most(4 * config.stripe_bytes, "NN.num_groups * num_pos", num_positions)
    require_at_most(MAX_STREAMS, "NN.num_sb * num_cores", d["num_sb"] * config.num_cores)
    num_weights = d["num_taps"] * max(d[f"num_z{suffix}"] * d[f"kernels_per_z{suffix}"] for suffix in ("", "_last"))
    require_at_most(MAX_STREAM_WEIGHTS, "NN.num_z * kernels_per_z * num_taps", num_weights)
    require_at_most(MAX_WEIGHTS, "NN.num_z * kernels_per_z * num_taps * num_cores", num_weights * config.num_cores)
    num_channels = config.num_cores * ((d["num_sb"] - 1) * d["num_kernels"] + d["num_kernels_last"])
    if d["is_swapped"]:
        num_channels = d["tile_iw"]
        require_at_most(MAX_STREAMS, "NN.num_act_outer * num_act_inner", d["num_act_outer"] * d["num_act_inner"])
    require_at_most(MAX_CHANNELS, "NN.num_sb * num_kernels * num_cores", num_channels)
    require_at_most(
        MAX_OUTPUTS, "NN.num_sb * num_kernels * num_cores * num_groups * num_pos", num_channels * num_positions
    )
    num_products = num_channels * num_positions * d["num_taps"] * (1 if d["is_depthwise"] else d["num_ic"])
    require_at_most(
        MAX_MACS, "NN.num_sb * num_kernels * num_cores * num_groups * num_pos * num_taps * num_ic", num_products
    )


def _check_swapped(config: NpuConfig, d: dict[str, int]) -> None:
    for name in NN_SWAPPED_AT_LEAST_ONE:
        _require(d[name] >= 1, f"{name} = 0: use at least 1 with is_swapped")
    _require(
        d["src_plane_bytes"] <= MAX_SRC_PLANE_BYTES,
        f"src_plane_bytes = {d['src_plane_bytes']}: use at most {MAX_SRC_PLANE_BYTES}",
    )
    most_channels = d["num_vec"] * config.num_lanes
    _require(d["tile_iw"] <= most_channels, f"tile_iw = {d['tile_iw']}: num_vec has lanes for {most_channels} channels")
    _require_single(d, "is_swapped")
    for name, value in {"num_taps": 1, "is_flat": 1, "run_bits": 0, "pool_size": 0}.items():
        _require(d[name] == value, f"{name} = {d[name]}: use {value} with is_swapped")


def _require_single(d: dict[str, int], what: str) -> None:
    """`what` goes with one group of one superblock, of a convolution of int8."""
    for name, value in {"num_sb": 1, "num_groups": 1, "is_depthwise": 0, "is_wide": 0}.items():
        _require(d[name] == value, f"{name} = {d[name]}: use {value} with {what}")


def _require(is_legal: bool, message: str) -> None:
    if not is_legal:
        raise MachineError(f"NN.{message}")


def _check_load(config: NpuConfig, d: dict[str, int]) -> None:
    if d["is_wide"]:
        _require(d["zero_point_in"] == 0, f"zero_point_in = {d['zero_point_in']}: use 0 with is_wide")
        _require(d["num_ic"] % 2 == 0, f"num_ic = {d['num_ic']}: use an even number with is_wide")
    legal_mask = sum(
        1 << (2 * py + px) for py in range(1 << d["stride_h_log2"]) for px in range(1 << d["stride_w_log2"])
    )
    _require(
        d["phase_mask"] != 0 and d["phase_mask"] & ~legal_mask == 0,
        f"phase_mask = {d['phase_mask']:#b}: use a part of {legal_mask:#b}",
    )
    num_phases = d["phase_mask"].bit_count()
    _require(d["num_phases"] == num_phases, f"num_phases = {d['num_phases']}, but phase_mask stores {num_phases}")
    _require(num_phases in (1, 2, 4), f"num_phases = {num_phases}: use 1, 2 or 4")
    rows, cols = (
        -(-(d["pad_top"] + d["tile_ih"]) >> d["stride_h_log2"]),
        -(-(d["pad_left"] + d["tile_iw"]) >> d["stride_w_log2"]),
    )
    _require(d["tile_rows"] >= rows, f"tile_rows = {d['tile_rows']}: use at least {rows}")
    _require(d["tile_cols"] >= cols, f"tile_cols = {d['tile_cols']}: use at least {cols}")
    num_pixels = (d["tile_rows"] - 1) * d["pitch_row"] + d["tile_cols"]
    _require(
        d["phase_words"] * config.num_lanes >= num_pixels,
        f"phase_words = {d['phase_words']}: a phase plane has {num_pixels} pixels",
    )
    _require(
        d["channel_words"] >= num_phases * d["phase_words"],
        (
            f"channel_words = {d['channel_words']}: use at least num_phases * phase_words = "
            f"{num_phases * d['phase_words']}"
        ),
    )
    if d["is_wide"]:
        _require(
            d["channel_words"] == num_phases * d["phase_words"],
            f"channel_words = {d['channel_words']}: use num_phases * phase_words with is_wide",
        )
    num_channels, first = (d["ring_channels"], 0) if d["ring_channels"] else (d["num_ic"], d["stripe_word"])
    end = first + (num_channels - 1) * d["channel_words"] + num_phases * d["phase_words"]
    _require(
        end <= config.stripe_words,
        f"stripe_word: the stripe ends at word {end}, the stripe memory at {config.stripe_words}",
    )


def _check_compute(config: NpuConfig, d: dict[str, int]) -> None:
    num_bytes = 1 + d["is_wide"]
    num_window_words = d["num_slots"] * d["num_phases"] * d["seg_words"] * num_bytes
    _require(
        num_window_words <= config.window_words,
        (
            f"num_slots * num_phases * seg_words * (1 + is_wide) = {num_window_words} exceeds window_words = "
            f"{config.window_words}"
        ),
    )
    _require(d["num_vec_last"] <= d["num_vec"], f"num_vec_last = {d['num_vec_last']} exceeds num_vec = {d['num_vec']}")
    for suffix in ("", "_last"):
        kernels, per_z, num_z = d[f"num_kernels{suffix}"], d[f"kernels_per_z{suffix}"], d[f"num_z{suffix}"]
        needed = d["num_vec"] * kernels * num_bytes
        _require(
            needed <= config.num_acc_entries,
            (
                f"num_vec * num_kernels{suffix} * (1 + is_wide) = {needed} exceeds num_acc_entries = "
                f"{config.num_acc_entries}"
            ),
        )
        if d["is_depthwise"]:
            _require(
                kernels == num_z * per_z,
                f"num_kernels{suffix} = {kernels}: a depthwise layer has num_z * kernels_per_z = {num_z * per_z}",
            )
        else:
            _require(kernels == per_z, f"kernels_per_z{suffix} = {per_z}: a convolution has num_kernels = {kernels}")
            _require(
                num_z * num_bytes == d["num_ic"],
                f"num_z{suffix} = {num_z}: a convolution has num_ic / (1 + is_wide) = {d['num_ic'] / num_bytes:g}",
            )
        limit = d["num_taps"] * min(per_z, MAX_STEP_KERNELS) if d["num_taps"] > 1 else per_z
        _require(
            1 << d["run_bits"] <= limit,
            f"run_bits = {d['run_bits']}: 2**run_bits must not exceed {limit} (num_taps * min(kernels_per_z{suffix}, "
            f"{MAX_STEP_KERNELS}), or kernels_per_z{suffix} if there is one tap)",
        )
    _require(d["run_bits"] <= MAX_RUN_BITS, f"run_bits = {d['run_bits']}: use 0..{MAX_RUN_BITS}")
    _require(d["split_log2"] <= 2, f"split_log2 = {d['split_log2']}: use 0..2")
    if d["split_log2"]:
        pitch = (config.num_lanes >> d["split_log2"]) + d["split_words"] * config.num_lanes
        _require(d["pitch_row"] == pitch, f"pitch_row = {d['pitch_row']}: split_log2 and split_words make it {pitch}")


def _check_drain(config: NpuConfig, d: dict[str, int]) -> None:
    _require(
        d["rounding"] != Rounding.FLOAT or not d["is_wide"],
        f"rounding = {d['rounding']}: use 0..{Rounding.FLOAT - 1} with is_wide",
    )
    low = -(1 << 15) if d["is_wide"] else -128
    _require(
        low <= d["act_min"] <= d["act_max"] < -low,
        f"act_min, act_max = {d['act_min']}, {d['act_max']}: use {low} <= act_min <= act_max <= {-low - 1}",
    )
    for name in ("has_lut", "has_residual"):
        _require(not d["is_wide"] or not d[name], f"{name} = {d[name]}: use 0 with is_wide")
    if d["has_lut"]:
        _require(d["lut_addr"] % LUT_BYTES == 0, f"lut_addr = {d['lut_addr']:#x}: align it to {LUT_BYTES} bytes")
    if d["has_residual"]:
        for name in NN_RESIDUAL_AT_LEAST_ONE:
            _require(d[name] >= 1, f"{name} = 0: use at least 1 with has_residual")
        _require(
            d["res_act_min"] <= d["res_act_max"],
            (
                f"res_act_min, res_act_max = {d['res_act_min']}, {d['res_act_max']}: use -128 <= res_act_min <= "
                "res_act_max <= 127"
            ),
        )
    _require(d["tile_ow"] <= d["drain_pitch"], f"tile_ow = {d['tile_ow']} exceeds drain_pitch = {d['drain_pitch']}")
    if d["is_flat"]:
        _require(d["split_log2"] == 0, f"split_log2 = {d['split_log2']}: use 0 with is_flat")
        _require(
            d["num_vec_x"] == d["num_vec"], f"num_vec_x = {d['num_vec_x']}: use num_vec = {d['num_vec']} with is_flat"
        )


def _check_pool(config: NpuConfig, d: dict[str, int]) -> None:
    def require(is_legal: bool, message: str) -> None:
        if not is_legal:
            raise PoolError(f"NN.{message}")

    size, is_single, is_part = d["pool_size"], d["num_groups"] == 1, d["pool_continues"] or d["pool_is_open"]
    num_rows = (d["num_groups"] - 1) * d["pool_rows"] + d["pool_rows_last"]
    whole_rows = (
        num_rows + d["pool_is_open"] + 2 * d["pool_continues"]
    )  # as many rows of an image, even or odd as it is, as there must be
    element_bytes = 1 + d["is_wide"]
    row_bytes = d["tile_ow"] * element_bytes
    pool = FusedPool((size, size), (2, 2), False, (whole_rows, d["tile_ow"]), element_bytes)
    obstacle = broken_limit(pool, config)
    require(obstacle is None, f"pool_size = {size}: {obstacle}")
    require(not is_part or size == 3, "pool_continues, pool_is_open: use 0 with a 2x2 pool")
    require(is_single or d["pool_rows"] > 0, "pool_rows = 0: use at least 1, or one group")
    require(d["pool_rows_last"] > 0, "pool_rows_last = 0: use at least 1")
    require(not d["has_residual"], f"pool_size = {size}: a pool cannot follow a residual")
    if is_part or (not is_single and (size == 3 or d["pool_rows"] % 2)):
        num_channels = config.num_cores * max(d["num_kernels"], d["num_kernels_last"])
        require(
            num_channels <= config.pool_channels,
            (
                f"num_kernels: superblocks of {num_channels} channels; rows of {config.pool_channels} (pool_channels) "
                "can be kept"
            ),
        )
        require(
            row_bytes <= config.pool_line_bytes,
            (
                f"tile_ow = {d['tile_ow']}: rows of {config.pool_line_bytes} bytes (pool_line_bytes) can be kept; use "
                "even groups"
            ),
        )
    require(
        row_bytes <= config.pool_max_row_bytes,
        f"tile_ow = {d['tile_ow']}: the widest row of a pool has {config.pool_max_row_bytes} bytes",
    )
