"""What a `TP` descriptor computes."""

from __future__ import annotations

import numpy as np

from convoy.spec.config import NpuConfig
from convoy.spec.isa import (
    ADD_SHIFT,
    ADD_SHIFT_WIDE,
    FRACTION_BITS,
    MAX_PRODUCT_SHIFT,
    MAX_PRODUCT_SHIFT_WIDE,
    TP_AT_LEAST_ONE,
    TP_B_AT_LEAST_ONE,
    TP_POOL_AT_LEAST_ONE,
    TP_TWO_OPERANDS,
    TP_WIDE,
    TpOp,
)

from .memory import MachineError, MemoryView
from .quant import double_rounding, round_half_away, round_half_up

__all__ = ["execute_tp"]

_CLAMPED = {TpOp.ADD, TpOp.SUB, TpOp.MUL, TpOp.MAX_POOL, TpOp.AVG_POOL}


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
    if op is TpOp.COPY:
        values = _copy(d, buffer)
    elif op in TP_TWO_OPERANDS:
        values = _elementwise(d, op, buffer[:num_a_bytes], buffer[num_a_bytes:])
    elif op is TpOp.BILINEAR:
        values = _bilinear(d, buffer)
    else:
        values = _pool(d, op, buffer)
    if op in _CLAMPED:
        values = np.clip(values, d["act_min"], d["act_max"])
    if d["is_wide"]:
        values = values >> 8 if d["is_high"] else values & 0xFF
    values = memory.look_up("TP.lut_addr", d, values)
    num_runs = values.size // d["out_run_bytes"]
    memory.write_runs("TP.out_addr", d["out_addr"], d["out_run_bytes"], num_runs, d["out_pitch_bytes"], values.ravel())


def _check(config: NpuConfig, d: dict[str, int]) -> None:
    if d["op"] not in set(TpOp):
        raise MachineError(f"TP.op = {d['op']} is unknown: use 0..{max(TpOp).value}")
    op = TpOp(d["op"])
    has_windows = op in (TpOp.MAX_POOL, TpOp.AVG_POOL, TpOp.BILINEAR)
    for name in TP_AT_LEAST_ONE + TP_B_AT_LEAST_ONE * (op in TP_TWO_OPERANDS) + TP_POOL_AT_LEAST_ONE * has_windows:
        if d[name] < 1:
            raise MachineError(f"TP.{name} = 0: use at least 1 for {op.name}")
    if op not in TP_TWO_OPERANDS and d["b_run_bytes"]:
        raise MachineError(f"TP.b_run_bytes = {d['b_run_bytes']}: {op.name} has no operand B, use 0")
    if op is TpOp.BILINEAR and (d["kernel_h"], d["kernel_w"]) != (2, 2):
        raise MachineError(f"TP.kernel_h, kernel_w = {d['kernel_h']}, {d['kernel_w']}: use 2, 2 for BILINEAR")
    limit = MAX_PRODUCT_SHIFT_WIDE if d["is_wide"] else MAX_PRODUCT_SHIFT
    if op is TpOp.MUL and d["b_shift"] > limit:
        raise MachineError(f"TP.b_shift = {d['b_shift']}: use at most {limit} for MUL{' with is_wide' * d['is_wide']}")
    num_bytes = d["a_run_bytes"] * d["num_a_runs"] + d["b_run_bytes"] * d["num_b_runs"]
    if num_bytes > config.tp_buffer_bytes // 2:
        raise MachineError(f"TP.a_run_bytes * num_a_runs + b_run_bytes * num_b_runs = {num_bytes} exceeds half of the TP buffer, {config.tp_buffer_bytes // 2}")
    if d["num_0"] * d["num_1"] * d["num_2"] % d["out_run_bytes"]:
        raise MachineError(f"TP.out_run_bytes = {d['out_run_bytes']} does not divide the {d['num_0'] * d['num_1'] * d['num_2']} output bytes")
    if op is TpOp.COPY and max(d["start_y"], d["start_x"]) > 0:
        raise MachineError(f"TP.start_y, start_x = {d['start_y']}, {d['start_x']}: use at most 0 for COPY")
    if op is TpOp.COPY and not -128 <= d["zero_point_out"] <= 127:
        raise MachineError(f"TP.zero_point_out = {d['zero_point_out']}: use -128..127 for COPY")
    low = -(1 << 15) if d["is_wide"] else -128
    if op in _CLAMPED and not low <= d["act_min"] <= d["act_max"] < -low:
        raise MachineError(f"TP.act_min, act_max = {d['act_min']}, {d['act_max']}: use {low} <= act_min <= act_max <= {-low - 1}")
    if d["is_wide"] and op not in TP_WIDE:
        raise MachineError(f"TP.is_wide = 1: use 0 for {op.name}")
    if d["is_high"] and not d["is_wide"]:
        raise MachineError("TP.is_high = 1: use 0 without is_wide")
    for name in ("has_lut", "a_zero_point", "b_zero_point", "zero_point_out") * d["is_wide"]:
        if d[name]:
            raise MachineError(f"TP.{name} = {d[name]}: use 0 with is_wide")


def _check_index(what: str, index: np.ndarray, limit: int) -> None:
    if index.size and (index.min() < 0 or index.max() >= limit):
        raise MachineError(f"{what}: buffer bytes {index.min()}..{index.max()} are read, but 0..{limit - 1} were loaded")


def _copy(d: dict[str, int], buffer: np.ndarray) -> np.ndarray:
    """The bytes that lie inside the image, and what is outside; int64, shape (num_0, num_1, num_2)."""
    i0, y, x = np.ogrid[: d["num_0"], : d["num_1"], : d["num_2"]]
    y, x = y + d["start_y"], x + d["start_x"]
    is_inside = np.ones((d["num_0"], d["num_1"], d["num_2"]), bool) & (y >= 0) & (y < d["tile_ih"]) & (x >= 0) & (x < d["tile_iw"])
    index = i0 * d["step_0"] + y * d["step_1"] + x * d["step_2"]
    _check_index("TP.step_0, step_1, step_2", index[is_inside], len(buffer))
    return np.where(is_inside, buffer.take(index, mode="clip"), d["zero_point_out"])


def _elements(d: dict[str, int], values: np.ndarray, index: np.ndarray, high_bytes: str) -> np.ndarray:
    """The elements whose (low) bytes are at `index`; their high bytes are `d[high_bytes]` behind."""
    if not d["is_wide"]:
        return values.take(index, mode="clip")
    _check_index(f"TP.{high_bytes}", index + d[high_bytes], len(values))
    return (values.take(index, mode="clip") & 0xFF) + (values.take(index + d[high_bytes], mode="clip") << 8)


def _elementwise(d: dict[str, int], op: TpOp, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """An operation of `TP_TWO_OPERANDS` on the bytes of A and B, before the clamp; int64, shape (num_0, num_1, num_2)."""
    loops = np.ogrid[: d["num_0"], : d["num_1"], : d["num_2"]]
    operands = []
    for prefix, values in (("", a), ("b_", b)):
        index = sum(loop * d[f"{prefix}step_{n}"] for n, loop in enumerate(loops))
        _check_index(f"TP.{prefix}step_0, {prefix}step_1, {prefix}step_2", index, len(values))
        operands.append(_elements(d, values, index, f"{prefix or 'a_'}high_bytes"))
    a, b = operands
    if op is TpOp.MAXIMUM:
        return np.maximum(a, b)
    if op is TpOp.MINIMUM:
        return np.minimum(a, b)
    a, b = a - d["a_zero_point"], b - d["b_zero_point"]
    if op is TpOp.MUL:
        return double_rounding(a * b, d["out_mult"], d["b_shift"], d["out_shift"]) + d["zero_point_out"]
    shift = ADD_SHIFT_WIDE if d["is_wide"] else ADD_SHIFT
    a = double_rounding(a << shift, d["a_mult"], 0, d["a_shift"])
    b = double_rounding(b << shift, d["b_mult"], 0, d["b_shift"])
    return double_rounding(a + b if op is TpOp.ADD else a - b, d["out_mult"], 0, d["out_shift"]) + d["zero_point_out"]


def _places(d: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """Where the windows of the middle and of the inner loop begin, in units of 2**-FRACTION_BITS; int64 (num_1,) and (num_2,)."""
    starts, strides = (tuple((d[name] << FRACTION_BITS) + d[f"{name}_frac"] for name in names) for names in (("start_y", "start_x"), ("stride_h", "stride_w")))
    return tuple(start + np.arange(d[name]) * stride for start, stride, name in zip(starts, strides, ("num_1", "num_2"), strict=True))


def _neighbours(place: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each place: the pixel before it, the one behind it, and how far it is from the first one to the second, in 2**-FRACTION_BITS."""
    pixel = place >> FRACTION_BITS
    if (pixel < -1).any() or (pixel >= size).any():
        raise MachineError("TP.start_y, start_x, stride_h, stride_w: a window lies outside the image")
    low, high = np.maximum(pixel, 0), np.minimum(pixel + 1, size - 1)
    return low, high, np.where(high > low, place & ((1 << FRACTION_BITS) - 1), 0)


def _bilinear(d: dict[str, int], buffer: np.ndarray) -> np.ndarray:
    """BILINEAR; int64, shape (num_0, num_1, num_2)."""
    places = _places(d)
    y0, y1, dy = (axis[:, None] for axis in _neighbours(places[0], d["tile_ih"]))
    x0, x1, dx = _neighbours(places[1], d["tile_iw"])
    base = (np.arange(d["num_0"]) * d["step_0"])[:, None, None]
    _check_index("TP.step_0, tile_iw", base + np.array([y0.min() * d["tile_iw"] + x0.min(), y1.max() * d["tile_iw"] + x1.max()]), len(buffer))

    def pixel(y: np.ndarray, x: np.ndarray) -> np.ndarray:
        return buffer[base + y * d["tile_iw"] + x]

    one = 1 << FRACTION_BITS
    total = (one - dy) * ((one - dx) * pixel(y0, x0) + dx * pixel(y0, x1)) + dy * ((one - dx) * pixel(y1, x0) + dx * pixel(y1, x1))
    return round_half_away(total, one * one)


def _pool(d: dict[str, int], op: TpOp, buffer: np.ndarray) -> np.ndarray:
    """Maximum or average over the pixels of each window that lie inside the image; int64, shape (num_0, num_1, num_2)."""
    y, x = ((place >> FRACTION_BITS)[:, None] + np.arange(d[name]) for place, name in zip(_places(d), ("kernel_h", "kernel_w"), strict=True))
    is_in_y, is_in_x = (y >= 0) & (y < d["tile_ih"]), (x >= 0) & (x < d["tile_iw"])
    if not is_in_y.any(axis=1).all() or not is_in_x.any(axis=1).all():
        raise MachineError("TP.start_y, start_x, stride_h, stride_w: a pooling window lies outside the image")
    base = np.arange(d["num_0"]) * d["step_0"]
    last = (y[is_in_y].max()) * d["tile_iw"] + x[is_in_x].max()
    _check_index("TP.step_0, tile_iw", np.array([base.min() + y[is_in_y].min() * d["tile_iw"] + x[is_in_x].min(), base.max() + last]), len(buffer))
    pixel = np.clip(y, 0, d["tile_ih"] - 1)[:, None, :, None] * d["tile_iw"] + np.clip(x, 0, d["tile_iw"] - 1)[None, :, None, :]
    is_in = is_in_y[:, None, :, None] & is_in_x[None, :, None, :]
    values = _elements(d, buffer, base[:, None, None, None, None] + pixel, "a_high_bytes")
    if op is TpOp.MAX_POOL:
        return np.where(is_in, values, -(1 << 15)).max(axis=(3, 4))
    average = round_half_up if d["is_half_up"] else round_half_away
    return average((values * is_in).sum(axis=(3, 4)), is_in.sum(axis=(2, 3)))
