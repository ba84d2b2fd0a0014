"""Swapped operands: the stripe holds weights, the weight streams are activations that are gathered from the source."""

from __future__ import annotations

import numpy as np

from convoy.spec.config import NpuConfig
from convoy.spec.isa import SRC_PLACE_BITS, TAP_BYTES

from .memory import MachineError, MemoryView

__all__ = ["check_swapped", "swapped_sums"]


def check_swapped(config: NpuConfig, d: dict[str, int]) -> None:
    """Check what the hardware does not of a descriptor with `is_swapped`: that its counts multiply up, and that the
    stripe is one row of weights for each (plane, ky, kx).

    Raises
    ------
    MachineError
        Naming the field, its value and what is legal.
    """
    num_pos, lanes = d["src_oh"] * d["src_ow"], config.num_lanes
    expected = {
        "src_plane_bytes": d["src_ih"] * d["src_iw"],
        "src_bytes": d["num_src_planes"] * d["src_plane_bytes"],
        "src_start_bytes": d["src_start_y"] * d["src_iw"] + d["src_start_x"],
        "src_step_row_bytes": d["src_stride_h"] * d["src_iw"],
        "src_step_tap_bytes": d["src_dilation_h"] * d["src_iw"],
        "num_ic": d["num_src_planes"] * d["src_kernel_h"] * d["src_kernel_w"],
        "num_kernels": -(-num_pos // config.num_cores),
        "num_kernels_last": d["num_kernels"],
        "num_z_last": d["num_z"],
        "num_pos": num_pos,
        "num_pos_last": num_pos,
        "num_vec": -(-d["tile_iw"] // lanes),
        "num_vec_last": d["num_vec"],
        "tile_ih": 1,
        "tile_rows": 1,
        "tile_cols": d["tile_iw"],
        "step_vec_x": lanes if d["num_vec"] > 1 else d["step_vec_x"],
    } | dict.fromkeys(("pad_top", "pad_left", "stride_h_log2", "stride_w_log2"), 0)
    for name, value in expected.items():
        if d[name] != value:
            raise MachineError(f"NN.{name} = {d[name]}: use {value} with these fields and is_swapped")
    if d["seg_words"] < d["num_vec"]:
        raise MachineError(f"NN.seg_words = {d['seg_words']}: use at least num_vec = {d['num_vec']} with is_swapped")


def swapped_sums(memory: MemoryView, d: dict[str, int]) -> np.ndarray:
    """The accumulators of a swapped descriptor that `check_swapped` has passed: int64, shape (tile_iw, num_pos).

    Raises
    ------
    MachineError
        When the tap is not 0.
    """
    tap = int(memory.read("NN.tap_addr", d["tap_addr"], TAP_BYTES).view("<u2")[0])
    if tap:
        raise MachineError(f"NN.tap_addr: the tap is {tap}: use 0 with is_swapped")
    image = _read_image(memory, d)
    tokens = _tokens(memory, d)
    # Products of 9 by 8 bits: sums of them are exact in doubles
    return (image.T.astype(np.float64) @ tokens.astype(np.float64)).astype(np.int64)


def _read_image(memory: MemoryView, d: dict[str, int]) -> np.ndarray:
    """The weights, constants that are loaded without waiting: int8, shape (num_ic, tile_iw)."""
    outer = np.arange(d["num_act_outer"], dtype=np.int64) * d["act_pitch_outer_bytes"]
    inner = np.arange(d["num_act_inner"], dtype=np.int64) * d["act_pitch_inner_bytes"]
    starts = d["act_addr"] + (outer[:, None] + inner).ravel()
    runs = [memory.read("NN.act_addr", int(start), d["act_run_bytes"]) for start in starts]
    return np.concatenate(runs).view(np.int8).reshape(d["num_ic"], d["tile_iw"])


def _tokens(memory: MemoryView, d: dict[str, int]) -> np.ndarray:
    """Activations less their zero point, 0 outside the planes: int16, shape (num_z, num_pos)."""
    source = memory.read_runs("NN.src_addr", d["src_addr"], d["src_bytes"]).astype(np.int16) - d["wgt_zero_point"]
    planes = source.reshape(d["num_src_planes"], d["src_ih"], d["src_iw"])
    y, x = _places(d, "y", "h"), _places(d, "x", "w")
    is_inside = ((y >= 0) & (y < d["src_ih"]))[:, None, :, None] & ((x >= 0) & (x < d["src_iw"]))[:, None, :]
    y, x = np.clip(y, 0, d["src_ih"] - 1), np.clip(x, 0, d["src_iw"] - 1)
    tokens = planes[:, y[:, None, :, None], x[:, None, :]] * is_inside
    return tokens.reshape(d["num_z"], -1)


def _places(d: dict[str, int], axis: str, side: str) -> np.ndarray:
    """Row or column in the source of each tap and each position on an axis, shape (taps, positions)."""
    taps, positions = np.arange(d[f"src_kernel_{side}"])[:, None], np.arange(d[f"src_o{side}"])
    place = d[f"src_start_{axis}"] + taps * d[f"src_dilation_{side}"] + positions * d[f"src_stride_{side}"]
    half = 1 << SRC_PLACE_BITS - 1
    return (place + half) % (2 * half) - half
