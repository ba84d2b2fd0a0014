"""What a `TP` descriptor computes."""

from __future__ import annotations

import numpy as np

from convoy.spec.config import NpuConfig
from convoy.spec.isa import TP_ADD_AT_LEAST_ONE, TP_AT_LEAST_ONE, TP_POOL_AT_LEAST_ONE, TpOp

from .memory import MachineError, MemoryView
from .quant import double_rounding, round_half_away, round_half_up

__all__ = ["execute_tp"]


def execute_tp(config: NpuConfig, memory: MemoryView, d: dict[str, int]) -> None:
    """Execute one decoded `TP` descriptor.

    Raises
    ------
    MachineError
        When the descriptor is malformed.
    """
    _check(config, d)
    op = TpOp(d["op"])
    buffer = memory.read_runs("TP.a_addr", d["a_addr"], d["a_run_bytes"], (d["num_a_runs"], d["a_pitch_bytes"]))
    num_a_bytes = len(buffer)
    if d["b_run_bytes"]:
        operand = memory.read_runs("TP.b_addr", d["b_addr"], d["b_run_bytes"], (d["num_b_runs"], d["b_pitch_bytes"]))
        buffer = np.concatenate([buffer, operand])
    buffer = buffer.astype(np.int64)
    if op in (TpOp.COPY, TpOp.ADD):
        index, is_inside = _elementwise_index(d, op)
        _check_index("TP.step_0, step_1, step_2", index[is_inside], num_a_bytes)
        values = np.where(is_inside, buffer.take(index, mode="clip"), d["zero_point_out"])
        if op is TpOp.ADD:
            _check_index("TP.step_0, step_1, step_2 in operand B", index + num_a_bytes, len(buffer))
            values = _add(d, values, buffer[index + num_a_bytes])
    else:
        values = _pool(d, op, buffer)
    if op is not TpOp.COPY:
        values = np.clip(values, d["act_min"], d["act_max"])
    values = memory.look_up("TP.lut_addr", d, values)
    num_runs = values.size // d["out_run_bytes"]
    memory.write_runs("TP.out_addr", d["out_addr"], d["out_run_bytes"], num_runs, d["out_pitch_bytes"], values.ravel())


def _check(config: NpuConfig, d: dict[str, int]) -> None:
    if d["op"] not in set(TpOp):
        raise MachineError(f"TP.op = {d['op']} is unknown: use 0..{max(TpOp).value}")
    op = TpOp(d["op"])
    is_pool = op in (TpOp.MAX_POOL, TpOp.AVG_POOL)
    for name in TP_AT_LEAST_ONE + TP_ADD_AT_LEAST_ONE * (op is TpOp.ADD) + TP_POOL_AT_LEAST_ONE * is_pool:
        if d[name] < 1:
            raise MachineError(f"TP.{name} = 0: use at least 1 for {op.name}")
    if op is not TpOp.ADD and d["b_run_bytes"]:
        raise MachineError(f"TP.b_run_bytes = {d['b_run_bytes']}: only ADD has an operand B, use 0 for {op.name}")
    num_bytes = d["a_run_bytes"] * d["num_a_runs"] + d["b_run_bytes"] * d["num_b_runs"]
    if num_bytes > config.tp_buffer_bytes // 2:
        raise MachineError(f"TP.a_run_bytes * num_a_runs + b_run_bytes * num_b_runs = {num_bytes} exceeds half of the TP buffer, {config.tp_buffer_bytes // 2}")
    if d["num_0"] * d["num_1"] * d["num_2"] % d["out_run_bytes"]:
        raise MachineError(f"TP.out_run_bytes = {d['out_run_bytes']} does not divide the {d['num_0'] * d['num_1'] * d['num_2']} output bytes")
    if op is TpOp.COPY and max(d["start_y"], d["start_x"]) > 0:
        raise MachineError(f"TP.start_y, start_x = {d['start_y']}, {d['start_x']}: use at most 0 for COPY")
    if op is TpOp.COPY and not -128 <= d["zero_point_out"] <= 127:
        raise MachineError(f"TP.zero_point_out = {d['zero_point_out']}: use -128..127 for COPY")
    if op is not TpOp.COPY and not -128 <= d["act_min"] <= d["act_max"] <= 127:
        raise MachineError(f"TP.act_min, act_max = {d['act_min']}, {d['act_max']}: use -128 <= act_min <= act_max <= 127")


def _check_index(what: str, index: np.ndarray, limit: int) -> None:
    if index.size and (index.min() < 0 or index.max() >= limit):
        raise MachineError(f"{what}: buffer bytes {index.min()}..{index.max()} are read, but 0..{limit - 1} were loaded")


def _elementwise_index(d: dict[str, int], op: TpOp) -> tuple[np.ndarray, np.ndarray]:
    """Buffer address of every output element, and whether it lies inside the image; shape (num_0, num_1, num_2)."""
    i0, y, x = np.ogrid[: d["num_0"], : d["num_1"], : d["num_2"]]
    is_inside = np.ones((d["num_0"], d["num_1"], d["num_2"]), bool)
    if op is TpOp.COPY:
        y, x = y + d["start_y"], x + d["start_x"]
        is_inside &= (y >= 0) & (y < d["tile_ih"]) & (x >= 0) & (x < d["tile_iw"])
    return i0 * d["step_0"] + y * d["step_1"] + x * d["step_2"], is_inside


def _add(d: dict[str, int], a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """TFLite's int8 ADD before the clamp."""
    scaled_a = double_rounding((a - d["a_zero_point"]) << 20, d["a_mult"], 0, d["a_shift"])
    scaled_b = double_rounding((b - d["b_zero_point"]) << 20, d["b_mult"], 0, d["b_shift"])
    return double_rounding(scaled_a + scaled_b, d["out_mult"], 0, d["out_shift"]) + d["zero_point_out"]


def _pool(d: dict[str, int], op: TpOp, buffer: np.ndarray) -> np.ndarray:
    """Maximum or average over the pixels of each window that lie inside the image; int64, shape (num_0, num_1, num_2)."""
    y = (d["start_y"] + np.arange(d["num_1"]) * d["stride_h"])[:, None] + np.arange(d["kernel_h"])
    x = (d["start_x"] + np.arange(d["num_2"]) * d["stride_w"])[:, None] + np.arange(d["kernel_w"])
    is_in_y, is_in_x = (y >= 0) & (y < d["tile_ih"]), (x >= 0) & (x < d["tile_iw"])
    if not is_in_y.any(axis=1).all() or not is_in_x.any(axis=1).all():
        raise MachineError("TP.start_y, start_x, stride_h, stride_w: a pooling window lies outside the image")
    base = np.arange(d["num_0"]) * d["step_0"]
    last = (y[is_in_y].max()) * d["tile_iw"] + x[is_in_x].max()
    _check_index("TP.step_0, tile_iw", np.array([base.min() + y[is_in_y].min() * d["tile_iw"] + x[is_in_x].min(), base.max() + last]), len(buffer))
    pixel = np.clip(y, 0, d["tile_ih"] - 1)[:, None, :, None] * d["tile_iw"] + np.clip(x, 0, d["tile_iw"] - 1)[None, :, None, :]
    is_in = is_in_y[:, None, :, None] & is_in_x[None, :, None, :]
    values = buffer.take(base[:, None, None, None, None] + pixel, mode="clip")
    if op is TpOp.MAX_POOL:
        return np.where(is_in, values, -128).max(axis=(3, 4))
    return (round_half_up if d["is_half_up"] else round_half_away)((values * is_in).sum(axis=(3, 4)), is_in.sum(axis=(2, 3)))
