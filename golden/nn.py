"""What an `NN` descriptor computes: load, windows, compute, drain."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from convoy.spec.config import NpuConfig
from convoy.spec.isa import ADD_SHIFT, PARAM, TAP_BYTES, Rounding

from .budget import BLOCK_ELEMENTS
from .memory import MachineError, MemoryView
from .quant import double_rounding, float32_rounding, half_up_rounding, single_rounding, wrap32
from .stream import read_weights
from .swapped import swapped_sums
from .wide import split_bytes, wide_rounding

__all__ = ["PoolLines", "execute_nn"]


class PoolLines:
    """The line memory of the fused pool: for each channel of an image whose other rows come with the next
    descriptor, the maxima of its last two rows.
    """

    def __init__(self) -> None:
        self.rows: dict[int, np.ndarray] = {}
        """Rows by the channel's number in the descriptor."""


_ROUNDINGS: dict[int, Callable[..., np.ndarray]] = {
    Rounding.DOUBLE: double_rounding,
    Rounding.SINGLE: single_rounding,
    Rounding.HALF_UP: half_up_rounding,
    Rounding.FLOAT: float32_rounding,
}


@dataclass(frozen=True)
class _Positions:
    """The outputs of one channel in the order in which they are drained; arrays of shape (n,)."""

    group_pixel: np.ndarray
    """`g * group_step`."""
    window_pixel: np.ndarray
    """Where the lane reads in the window, without the tap and the remainder of `group_pixel`."""
    out_bytes: np.ndarray
    """Output byte relative to the channel's plane."""


def execute_nn(config: NpuConfig, memory: MemoryView, stripe: np.ndarray, lines: PoolLines, d: dict[str, int]) -> None:
    """Execute one decoded `NN` descriptor that the checks of `nn_check` have passed.

    Parameters
    ----------
    stripe : int8, shape (stripe_bytes,)
        The stripe memory; kept between descriptors.
    lines
        The line memory; kept between the descriptors of a program.

    Raises
    ------
    MachineError
        When a table is malformed, an output depends on a stripe byte that was not loaded, or outputs overlap.
    """
    if d["is_swapped"]:
        _execute_swapped(memory, d)
        lines.rows = {}
        return
    if d["ring_channels"]:  # here the image is whole, in a memory of its own
        num_words = d["num_ic"] * d["channel_words"] + d["phase_words"]
        stripe, d = np.zeros(num_words * config.num_lanes, np.int8), d | {"stripe_word": 0}
    _load(config, memory, stripe, d)
    positions = _positions(config, d)
    acts = _Acts(config, memory, stripe, d, positions)
    kept, lines.rows = lines.rows, {}
    if d["pool_size"]:
        _check_pool_groups(d)
    first_param = 0
    for superblock in range(d["num_sb"]):
        is_last = superblock == d["num_sb"] - 1
        num_params = config.num_cores * d["num_kernels_last" if is_last else "num_kernels"]
        params = _read_params(memory, d["param_addr"] + first_param * PARAM.num_bytes, num_params)
        weights = read_weights(config, memory, d, superblock)
        _check_dead_weights(d, superblock, weights, params)
        if d["pool_is_open"] and first_param + num_params > config.pool_channels:
            raise MachineError(
                f"NN.pool_is_open = 1: {first_param + num_params} channels; rows of {config.pool_channels} "
                "(pool_channels) can be kept"
            )
        for first, sums in _sums(d, superblock, weights, acts):
            block = {name: values[first : first + len(sums[0])] for name, values in params.items()}
            values = _wide_outputs(d, block, *sums) if d["is_wide"] else _outputs(memory, d, block, *sums)
            if d["pool_size"]:
                numbers = range(first_param + first, first_param + first + len(values))
                if d["pool_is_open"]:
                    lines.rows |= dict(
                        zip(numbers, values.reshape(len(values), -1, d["tile_ow"])[:, -2:].max(axis=1), strict=True)
                    )
                _write_pooled(memory, d, block, values, [kept.get(number) for number in numbers])
            else:
                _write(memory, d, block, positions, values)
        first_param += num_params


def _execute_swapped(memory: MemoryView, d: dict[str, int]) -> None:
    """Channels are the pixels of the stripe's rows, positions follow one another in memory."""
    if d["has_residual"]:
        _check_residual_runs(d, np.arange(d["num_pos"]), "_last")
    params = _read_params(memory, d["param_addr"], d["tile_iw"])
    offsets = np.arange(d["num_pos"])
    _write(
        memory,
        d,
        params,
        _Positions(0 * offsets, 0 * offsets, offsets),
        _outputs(memory, d, params, swapped_sums(memory, d)),
    )


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
        raise MachineError(
            f"NN.pitch_row = {d['pitch_row']}: pixels of the image overlap in the stripe (tile_cols = "
            f"{d['tile_cols']}), only pads may"
        )


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
            raise MachineError(
                f"NN.tile_ow = {d['tile_ow']}: the num_vec_x = {d['num_vec_x']} vectors have "
                f"{d['num_vec_x'] * vector_cols} columns"
            )
        vector = (row // split) * d["num_vec_x"] + vector_x
        lane = (row % split) * vector_cols + col % vector_cols
        out_bytes = row * d["out_pitch_row_bytes"] + col
    if (vector >= num_vec).any():
        raise MachineError(
            f"NN.num_pos = {num_pos}: position {position[-1]} is in vector {vector.max()}, but the group has {num_vec}"
        )
    pixel = lane + lane // vector_cols * d["split_words"] * config.num_lanes
    return vector % d["num_vec_x"] * d["step_vec_x"] + vector // d["num_vec_x"] * d["step_vec_y"] + pixel, out_bytes


class _Acts:
    """What the output positions read, some positions at a time.

    Raises
    ------
    MachineError
        In iteration, when a position reads what was not loaded.
    """

    def __init__(
        self, config: NpuConfig, memory: MemoryView, stripe: np.ndarray, d: dict[str, int], positions: _Positions
    ):
        self._config, self._stripe, self._d, self._positions = config, stripe, d, positions
        self._taps = (
            memory.read("NN.tap_addr", d["tap_addr"], d["num_taps"] * TAP_BYTES).copy().view("<u2").astype(np.int64)
        )
        self._step = max(1, BLOCK_ELEMENTS // (d["num_ic"] * d["num_taps"]))
        self._is_loaded = np.zeros(d["phase_words"] * config.num_lanes, bool)
        self._is_loaded[_plane_pixels(d)] = True
        self._kept: list[np.ndarray] | None = None
        self.num_positions = len(positions.window_pixel)

    def __iter__(self) -> Iterator[tuple[slice, list[np.ndarray]]]:
        """Positions, and the floats that they read, shape (num_channels, num_taps, positions); is_wide: those of low
        bytes and those of high bytes.
        """
        for start in range(0, self.num_positions, self._step):
            which = slice(start, min(start + self._step, self.num_positions))
            parts = self._kept or self._parts(which)
            if self._step >= self.num_positions:
                self._kept = parts
            yield which, parts

    def _parts(self, which: slice) -> list[np.ndarray]:
        d, pixels = self._d, self._pixels(which)
        acts = np.empty((d["num_ic"], *pixels.shape), np.int8)
        num_channels = max(1, BLOCK_ELEMENTS // pixels.size)
        for first in range(0, d["num_ic"], num_channels):
            channels = np.arange(first, min(first + num_channels, d["num_ic"]))
            acts[channels] = self._stripe[
                (d["stripe_word"] + channels[:, None, None] * d["channel_words"]) * self._config.num_lanes + pixels
            ]
        return [part.astype(_exact_float(d)) for part in (split_bytes(acts) if d["is_wide"] else (acts,))]

    def _pixels(self, which: slice) -> np.ndarray:
        """Byte within a channel of the stripe that each position reads, shape (num_taps, positions)."""
        d, num_lanes = self._d, self._config.num_lanes
        group_word, remainder = np.divmod(self._positions.group_pixel[which], num_lanes)
        offset = remainder + self._taps[:, None] + self._positions.window_pixel[which]
        phase, pixel = np.divmod(offset, d["seg_words"] * num_lanes)
        if phase.max() >= d["num_phases"]:
            raise MachineError(
                f"NN.seg_words = {d['seg_words']}: window offset {offset.max()} is read, the window ends at "
                f"{d['num_phases'] * d['seg_words'] * num_lanes}"
            )
        pixel += group_word * num_lanes
        is_loaded = (pixel < len(self._is_loaded)) & self._is_loaded.take(pixel, mode="clip")
        if not is_loaded.all():
            tap, position = np.argwhere(~is_loaded)[0]
            raise MachineError(
                f"NN: output {which.start + position} of a channel reads, with tap {tap}, pixel {pixel[tap, position]} "
                "of phase plane "
                f"{phase[tap, position]}, which was not loaded"
            )
        return phase * d["phase_words"] * num_lanes + pixel


def _exact_float(d: dict[str, int]) -> type:
    """A float type in which every accumulator, a sum of products of 9 bits by 8, is exact."""
    num_terms = d["num_taps"] * (1 if d["is_depthwise"] else d["num_ic"])
    return np.float32 if num_terms << 16 <= 1 << 24 else np.float64


def _sums(
    d: dict[str, int], superblock: int, weights: np.ndarray, acts: _Acts
) -> Iterator[tuple[int, list[np.ndarray]]]:
    """The accumulators of a superblock, some channels at a time: number of the first one, and int64 (channels,
    positions); is_wide: of low and of high bytes.

    `weights`: shape (num_cores, num_z, kernels_per_z, num_taps). Channels are in the order of parameters, kernel first.
    """
    num_cores, num_z, kernels_per_z, _ = weights.shape
    num_steps, size = (num_z, kernels_per_z * num_cores) if d["is_depthwise"] else (kernels_per_z, num_cores)
    step = max(1, BLOCK_ELEMENTS // (size * acts.num_positions))
    if d["is_depthwise"]:
        _check_missing_channels(d, superblock, weights)
    for first in range(0, num_steps, step):
        block = np.arange(first, min(first + step, num_steps))
        sums = [np.empty((len(block) * size, acts.num_positions), np.int64) for _ in range(1 + d["is_wide"])]
        for which, parts in acts:
            for total, part in zip(sums, parts, strict=True):
                total[:, which] = (
                    _convolve_depthwise(d, superblock, weights, block, part)
                    if d["is_depthwise"]
                    else _convolve(weights[:, :, block], part)
                )
        yield first * size, sums


def _convolve(weights: np.ndarray, acts: np.ndarray) -> np.ndarray:
    """Weights (core, z, kernel, tap) and floats (channel, tap, n) -> accumulators (kernel * core, n), kernel first."""
    num_cores, num_z, num_kernels, num_taps = weights.shape
    matrix = weights.transpose(2, 0, 1, 3).reshape(num_kernels * num_cores, num_z * num_taps).astype(acts.dtype)
    return matrix @ acts.reshape(num_z * num_taps, -1)


def _depthwise_channels(d: dict[str, int], superblock: int, z: np.ndarray, num_cores: int) -> np.ndarray:
    """The input channel of each (z, core)."""
    return (superblock * d["num_z"] + z[:, None]) * num_cores + np.arange(num_cores)


def _check_missing_channels(d: dict[str, int], superblock: int, weights: np.ndarray) -> None:
    channels = _depthwise_channels(d, superblock, np.arange(weights.shape[1]), weights.shape[0])
    if weights.transpose(1, 0, 2, 3)[channels >= d["num_ic"] >> d["is_wide"]].any():
        raise MachineError(
            f"STREAM of superblock {superblock}: a channel beyond num_ic = {d['num_ic']} has weights that are not zero"
        )


def _convolve_depthwise(
    d: dict[str, int], superblock: int, weights: np.ndarray, z: np.ndarray, acts: np.ndarray
) -> np.ndarray:
    """The same with one channel for each (z, core), for some z; channels that do not exist are zero."""
    channels = _depthwise_channels(d, superblock, z, weights.shape[0])
    acc = weights[:, z].transpose(1, 0, 2, 3).astype(acts.dtype) @ acts[np.minimum(channels, len(acts) - 1)]
    return acc.transpose(0, 2, 1, 3).reshape(-1, acts.shape[2])


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
        raise MachineError(
            f"PARAM.is_valid = 0 in superblock {superblock}, kernel {kernel}, core {core}: its weights are not zero"
        )


def _outputs(memory: MemoryView, d: dict[str, int], params: dict[str, np.ndarray], acc: np.ndarray) -> np.ndarray:
    """Requantise, clamp, look up; (channels, n), rubbish for those that do not exist."""
    bias, mult, left, right = (params[name][:, None] for name in ("bias", "mult", "shift_left", "shift_right"))
    values = _ROUNDINGS[d["rounding"]](wrap32(acc + bias), mult, left, right) + d["zero_point_out"]
    return memory.look_up("NN.lut_addr", d, np.clip(values, d["act_min"], d["act_max"]))


def _wide_outputs(d: dict[str, int], params: dict[str, np.ndarray], low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The same of int16, from the sums of low and of high bytes."""
    bias, bias_low, mult, left, right = (
        params[name][:, None] for name in ("bias", "bias_low", "mult", "shift_left", "shift_right")
    )
    values = (
        wide_rounding(Rounding(d["rounding"]), low + bias_low, high + bias, mult, left, right) + d["zero_point_out"]
    )
    return np.clip(values, d["act_min"], d["act_max"])


def _valid(params: dict[str, np.ndarray]) -> np.ndarray:
    """The channels that exist, in the order of their places in memory."""
    valid = np.flatnonzero(params["is_valid"])
    return valid[np.argsort(params["out_offset_bytes"][valid], kind="stable")]


def _write(
    memory: MemoryView, d: dict[str, int], params: dict[str, np.ndarray], positions: _Positions, values: np.ndarray
) -> None:
    """Add the residual, and write the channels that exist."""
    valid = _valid(params)
    values, addrs = values[valid], params["out_offset_bytes"][valid, None] + positions.out_bytes
    if d["has_residual"]:
        values = _add_residual(d, values, memory.gather("NN.res_addr", d["res_addr"] + addrs))
    _scatter(memory, d, addrs, values)


def _scatter(memory: MemoryView, d: dict[str, int], addrs: np.ndarray, values: np.ndarray) -> None:
    """Write outputs to `addrs`, relative to `out_addr`; with is_wide low bytes there and high bytes `out_high_bytes`
    further.
    """
    addrs = d["out_addr"] + addrs
    memory.scatter("NN.out_addr", addrs, values)
    if d["is_wide"]:
        memory.scatter("NN.out_high_bytes", addrs + d["out_high_bytes"], values >> 8)


def _check_pool_groups(d: dict[str, int]) -> None:
    """Groups drain the rows that they say, and a group's rows are where the one before ends."""
    for suffix in ("", "_last") if d["num_groups"] > 1 else ("_last",):
        num_pos = (d[f"pool_rows{suffix}"] - 1) * d["drain_pitch"] + d["tile_ow"]
        if d[f"num_pos{suffix}"] != num_pos:
            raise MachineError(
                f"NN.num_pos{suffix} = {d[f'num_pos{suffix}']}: pool_rows{suffix} = {d[f'pool_rows{suffix}']} rows "
                f"have {num_pos} positions"
            )
    step = d["pool_rows"] // 2 * d["out_pitch_row_bytes"]
    if d["num_groups"] > 1 and d["out_group_step_bytes"] != step:
        raise MachineError(f"NN.out_group_step_bytes = {d['out_group_step_bytes']}: a group makes rows of {step} bytes")


def _write_pooled(
    memory: MemoryView,
    d: dict[str, int],
    params: dict[str, np.ndarray],
    values: np.ndarray,
    kept: list[np.ndarray | None],
) -> None:
    """Write the maxima of the channels that exist. `kept`: what a descriptor that continues has of the rows before."""
    size, valid = d["pool_size"], _valid(params)
    image, first_row = values.reshape(len(values), -1, d["tile_ow"])[valid], 0
    if d["pool_continues"]:
        above = [kept[channel] for channel in valid]
        if any(row is None or len(row) != d["tile_ow"] for row in above):
            raise MachineError(
                f"NN.pool_continues = 1: the descriptor before has left no rows of {d['tile_ow']} outputs of these "
                "channels"
            )
        image, first_row = np.concatenate([np.repeat(np.array(above)[:, None], 2, axis=1), image], axis=1), -1
    if image.shape[1] < size:  # no window is complete; the descriptor that continues finds these rows
        return
    num_cols = (image.shape[2] - size) // 2 + 1
    columns = np.max([image[:, :, x : x + 2 * num_cols - 1 : 2] for x in range(size)], axis=0)
    num_rows = (columns.shape[1] - size) // 2 + 1
    peaks = np.max([columns[:, y : y + 2 * num_rows - 1 : 2] for y in range(size)], axis=0)
    rows = np.arange(first_row, first_row + num_rows)[:, None] * d["out_pitch_row_bytes"]
    addrs = params["out_offset_bytes"][valid, None] + (rows + np.arange(num_cols)).ravel()
    _scatter(memory, d, addrs, peaks.reshape(len(valid), -1))


def _check_residual_runs(d: dict[str, int], out_bytes: np.ndarray, suffix: str) -> None:
    """The runs of the second operand are the bytes that a group writes, in order."""
    count, size = d[f"num_res_runs{suffix}"], d[f"res_run_bytes{suffix}"]
    runs = (np.arange(count)[:, None] * d["out_pitch_row_bytes"] + np.arange(size)).ravel()
    if not np.array_equal(runs, out_bytes):
        raise MachineError(
            f"NN.num_res_runs{suffix}, res_run_bytes{suffix} = {count}, {size}: a group writes {len(out_bytes)} bytes "
            "per channel elsewhere"
        )


def _add_residual(d: dict[str, int], a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """TFLite's int8 ADD of outputs and residual."""
    scaled_a = double_rounding(
        (a.astype(np.int64) - d["res_a_zero_point"]) << ADD_SHIFT, d["res_a_mult"], 0, d["res_a_shift"]
    )
    scaled_b = double_rounding(
        (b.astype(np.int64) - d["res_b_zero_point"]) << ADD_SHIFT, d["res_b_mult"], 0, d["res_b_shift"]
    )
    total = double_rounding(scaled_a + scaled_b, d["res_out_mult"], 0, d["res_out_shift"]) + d["res_zero_point_out"]
    return np.clip(total, d["res_act_min"], d["res_act_max"])
