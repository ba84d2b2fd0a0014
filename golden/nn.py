"""What an `NN` descriptor computes: load, windows, compute, drain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from convoy.spec.config import NpuConfig
from convoy.spec.isa import PARAM, TAP_BYTES, Rounding

from .memory import MachineError, MemoryView
from .nn_check import check_nn
from .quant import double_rounding, single_rounding, wrap32
from .stream import read_weights

__all__ = ["execute_nn"]


@dataclass(frozen=True)
class _Positions:
    """The outputs of one channel in the order in which they are drained; arrays of shape (n,)."""

    group_pixel: np.ndarray
    """`g * group_step`."""
    window_pixel: np.ndarray
    """Where the lane reads in the window, without the tap and the remainder of `group_pixel`."""
    out_bytes: np.ndarray
    """Output byte relative to the channel's plane."""


def execute_nn(config: NpuConfig, memory: MemoryView, stripe: np.ndarray, d: dict[str, int]) -> None:
    """Execute one decoded `NN` descriptor.

    Parameters
    ----------
    stripe : int8, shape (stripe_bytes,)
        The stripe memory; kept between descriptors.

    Raises
    ------
    MachineError
        When the descriptor or a table is malformed, or an output depends on a stripe byte that was not loaded.
    """
    check_nn(config, d)
    _load(config, memory, stripe, d)
    positions = _positions(config, d)
    acts = stripe[_stripe_index(config, memory, d, positions)].astype(_exact_float(d))
    first_param = 0
    for superblock in range(d["num_sb"]):
        is_last = superblock == d["num_sb"] - 1
        num_params = config.num_cores * d["num_kernels_last" if is_last else "num_kernels"]
        params = _read_params(memory, d["param_addr"] + first_param * PARAM.num_bytes, num_params)
        first_param += num_params
        weights = read_weights(config, memory, d, superblock)
        acc = _convolve_depthwise(d, superblock, weights, acts) if d["is_depthwise"] else _convolve(weights, acts)
        _check_dead_weights(d, superblock, weights, params)
        _drain(memory, d, params, positions, acc)


def _load(config: NpuConfig, memory: MemoryView, stripe: np.ndarray, d: dict[str, int]) -> None:
    """Pad, split into phase planes and write the stripe memory."""
    loops = (d["num_act_outer"], d["act_pitch_outer_bytes"]), (d["num_act_inner"], d["act_pitch_inner_bytes"])
    tile = memory.read_runs("NN.act_addr", d["act_addr"], d["act_run_bytes"], *loops)
    tile = tile.reshape(d["num_ic"], d["tile_ih"], d["tile_iw"])
    stride_h, stride_w = 1 << d["stride_h_log2"], 1 << d["stride_w_log2"]
    image = np.full((d["num_ic"], stride_h * d["tile_rows"], stride_w * d["tile_cols"]), d["zero_point_in"], np.int8)
    image[:, d["pad_top"] : d["pad_top"] + d["tile_ih"], d["pad_left"] : d["pad_left"] + d["tile_iw"]] = tile
    is_inside = np.zeros(image.shape[1:], bool)
    is_inside[d["pad_top"] : d["pad_top"] + d["tile_ih"], d["pad_left"] : d["pad_left"] + d["tile_iw"]] = True
    pixel = _plane_pixels(d)
    channel = np.arange(d["num_ic"])[:, None] * d["channel_words"]
    for n, (py, px) in enumerate(_phases(d)):
        _check_shared_pads(d, pixel, is_inside[py::stride_h, px::stride_w])
        words = d["stripe_word"] + channel + n * d["phase_words"]
        stripe[words * config.num_lanes + pixel] = image[:, py::stride_h, px::stride_w].reshape(d["num_ic"], -1)


def _phases(d: dict[str, int]) -> list[tuple[int, int]]:
    """The stored phases (py, px) in the order of their planes."""
    return [divmod(bit, 2) for bit in range(4) if d["phase_mask"] >> bit & 1]


def _plane_pixels(d: dict[str, int]) -> np.ndarray:
    """Address within a phase plane of each pixel written to it, in the order of writing."""
    return (np.arange(d["tile_rows"])[:, None] * d["pitch_row"] + np.arange(d["tile_cols"])).ravel()


def _check_shared_pads(d: dict[str, int], pixel: np.ndarray, is_inside: np.ndarray) -> None:
    if d["tile_cols"] > d["pitch_row"] and (np.bincount(pixel)[pixel][is_inside.ravel()] > 1).any():
        raise MachineError(f"NN.pitch_row = {d['pitch_row']}: pixels of the image overlap in the stripe (tile_cols = {d['tile_cols']}), only pads may")


def _positions(config: NpuConfig, d: dict[str, int]) -> _Positions:
    full = _group_positions(config, d, d["num_pos"], d["num_vec"])
    last = _group_positions(config, d, d["num_pos_last"], d["num_vec_last"])
    groups = [full] * (d["num_groups"] - 1) + [last]
    index = np.repeat(np.arange(d["num_groups"]), [len(window_pixel) for window_pixel, _ in groups])
    if d["has_residual"]:
        for (_, out_bytes), suffix in ((full, ""), (last, "_last")):
            _check_residual_runs(d, out_bytes, suffix)
    window_pixel, out_bytes = (np.concatenate(arrays) for arrays in zip(*groups, strict=True))
    return _Positions(index * d["group_step"], window_pixel, out_bytes + index * d["out_group_step_bytes"])


def _group_positions(config: NpuConfig, d: dict[str, int], num_pos: int, num_vec: int) -> tuple[np.ndarray, np.ndarray]:
    """`window_pixel` and `out_bytes` of the valid positions of one group."""
    position = np.arange(num_pos)
    row, col = np.divmod(position, d["drain_pitch"])
    position, row, col = (array[col < d["tile_ow"]] for array in (position, row, col))
    split = 1 << d["split_log2"]
    vector_cols = config.num_lanes // split
    if d["is_flat"]:
        vector, lane = np.divmod(position, config.num_lanes)
        out_bytes = np.arange(len(position))
    else:
        vector_x = col // vector_cols
        if (vector_x >= d["num_vec_x"]).any():
            raise MachineError(f"NN.tile_ow = {d['tile_ow']}: the num_vec_x = {d['num_vec_x']} vectors have {d['num_vec_x'] * vector_cols} columns")
        vector = (row // split) * d["num_vec_x"] + vector_x
        lane = (row % split) * vector_cols + col % vector_cols
        out_bytes = row * d["out_pitch_row_bytes"] + col
    if (vector >= num_vec).any():
        raise MachineError(f"NN.num_pos = {num_pos}: position {position[-1]} is in vector {vector.max()}, but the group has {num_vec}")
    pixel = lane + lane // vector_cols * d["split_words"] * config.num_lanes
    return vector % d["num_vec_x"] * d["step_vec_x"] + vector // d["num_vec_x"] * d["step_vec_y"] + pixel, out_bytes


def _stripe_index(config: NpuConfig, memory: MemoryView, d: dict[str, int], positions: _Positions) -> np.ndarray:
    """Stripe byte that each position reads, shape (num_ic, num_taps, n)."""
    taps = memory.read("NN.tap_addr", d["tap_addr"], d["num_taps"] * TAP_BYTES).copy().view("<u2").astype(np.int64)
    group_word, remainder = np.divmod(positions.group_pixel, config.num_lanes)
    offset = remainder + taps[:, None] + positions.window_pixel
    seg_pixels = d["seg_words"] * config.num_lanes
    phase, pixel = np.divmod(offset, seg_pixels)
    if phase.max() >= d["num_phases"]:
        raise MachineError(f"NN.seg_words = {d['seg_words']}: window offset {offset.max()} is read, the window ends at {d['num_phases'] * seg_pixels}")
    pixel += group_word * config.num_lanes
    is_loaded = np.zeros(max(d["phase_words"] * config.num_lanes, int(pixel.max()) + 1), bool)
    is_loaded[_plane_pixels(d)] = True
    if not is_loaded[pixel].all():
        tap, position = np.argwhere(~is_loaded[pixel])[0]
        raise MachineError(f"NN: output {position} of a channel reads, with tap {tap}, pixel {pixel[tap, position]} of phase plane {phase[tap, position]}, which was not loaded")
    words = d["stripe_word"] + np.arange(d["num_ic"])[:, None, None] * d["channel_words"] + phase * d["phase_words"]
    return words * config.num_lanes + pixel


def _exact_float(d: dict[str, int]) -> type:
    """A float type in which every accumulator, a sum of products of 9 and 8 bits, is exact."""
    num_terms = d["num_taps"] * (1 if d["is_depthwise"] else d["num_ic"])
    return np.float32 if num_terms << 15 <= 1 << 24 else np.float64


def _convolve(weights: np.ndarray, acts: np.ndarray) -> np.ndarray:
    """Weights (core, z, kernel, tap) and floats (channel, tap, n) -> accumulators, int64, (kernel * core, n), kernel first."""
    num_cores, num_z, num_kernels, num_taps = weights.shape
    matrix = weights.transpose(2, 0, 1, 3).reshape(num_kernels * num_cores, num_z * num_taps).astype(acts.dtype)
    return (matrix @ acts.reshape(num_z * num_taps, -1)).astype(np.int64)


def _convolve_depthwise(d: dict[str, int], superblock: int, weights: np.ndarray, acts: np.ndarray) -> np.ndarray:
    """The same with one channel for each (z, core); channels that do not exist are zero."""
    num_cores, num_z, kernels_per_z, _ = weights.shape
    channel = (superblock * d["num_z"] + np.arange(num_z)[:, None]) * num_cores + np.arange(num_cores)
    is_missing = channel >= d["num_ic"]
    if weights.transpose(1, 0, 2, 3)[is_missing].any():
        raise MachineError(f"STREAM of superblock {superblock}: a channel beyond num_ic = {d['num_ic']} has weights that are not zero")
    acc = weights.transpose(1, 0, 2, 3).astype(acts.dtype) @ acts[np.minimum(channel, d["num_ic"] - 1)]
    return acc.transpose(0, 2, 1, 3).reshape(num_z * kernels_per_z * num_cores, -1).astype(np.int64)


def _read_params(memory: MemoryView, addr: int, num_params: int) -> dict[str, np.ndarray]:
    """Fields of consecutive `PARAM` entries, each an int64 array of shape (num_params,)."""
    raw = memory.read("NN.param_addr", addr, num_params * PARAM.num_bytes).tobytes()
    entries = [PARAM.decode(raw[i : i + PARAM.num_bytes]) for i in range(0, len(raw), PARAM.num_bytes)]
    return {name: np.array([entry[name] for entry in entries], np.int64) for name in PARAM.fields}


def _check_dead_weights(d: dict[str, int], superblock: int, weights: np.ndarray, params: dict[str, np.ndarray]) -> None:
    num_cores = len(weights)
    by_kernel = weights.transpose(1, 2, 0, 3) if d["is_depthwise"] else weights.transpose(2, 0, 1, 3)
    has_weights = by_kernel.reshape(-1, num_cores, weights.size // len(params["bias"])).any(axis=2).ravel()
    if (has_weights & (params["is_valid"] == 0)).any():
        kernel, core = divmod(int(np.argmax(has_weights & (params["is_valid"] == 0))), num_cores)
        raise MachineError(f"PARAM.is_valid = 0 in superblock {superblock}, kernel {kernel}, core {core}: its weights are not zero")


def _drain(memory: MemoryView, d: dict[str, int], params: dict[str, np.ndarray], positions: _Positions, acc: np.ndarray) -> None:
    """Requantise the channels that exist and write them."""
    valid = np.flatnonzero(params["is_valid"])
    bias, mult, left, right, offset = (params[name][valid, None] for name in ("bias", "mult", "shift_left", "shift_right", "out_offset_bytes"))
    requantise = single_rounding if d["rounding"] == Rounding.SINGLE else double_rounding
    values = requantise(wrap32(acc[valid] + bias), mult, left, right) + d["zero_point_out"]
    values = memory.look_up("NN.lut_addr", d, np.clip(values, d["act_min"], d["act_max"]))
    if d["has_residual"]:
        values = _add_residual(d, values, memory.gather("NN.res_addr", d["res_addr"] + offset + positions.out_bytes))
    memory.scatter("NN.out_addr", d["out_addr"] + offset + positions.out_bytes, values)


def _check_residual_runs(d: dict[str, int], out_bytes: np.ndarray, suffix: str) -> None:
    """The runs of the second operand are the bytes that a group writes, in order."""
    count, size = d[f"num_res_runs{suffix}"], d[f"res_run_bytes{suffix}"]
    runs = (np.arange(count)[:, None] * d["out_pitch_row_bytes"] + np.arange(size)).ravel()
    if not np.array_equal(runs, out_bytes):
        raise MachineError(f"NN.num_res_runs{suffix}, res_run_bytes{suffix} = {count}, {size}: a group writes {len(out_bytes)} bytes per channel elsewhere")


def _add_residual(d: dict[str, int], a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """TFLite's int8 ADD of outputs and residual."""
    scaled_a = double_rounding((a.astype(np.int64) - d["res_a_zero_point"]) << 20, d["res_a_mult"], 0, d["res_a_shift"])
    scaled_b = double_rounding((b.astype(np.int64) - d["res_b_zero_point"]) << 20, d["res_b_mult"], 0, d["res_b_shift"])
    total = double_rounding(scaled_a + scaled_b, d["res_out_mult"], 0, d["res_out_shift"]) + d["res_zero_point_out"]
    return np.clip(total, d["res_act_min"], d["res_act_max"])
