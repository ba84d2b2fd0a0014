"""The rules of a `TP` descriptor that can be checked without looking at memory."""

from __future__ import annotations

from convoy.spec.config import NpuConfig
from convoy.spec.isa import (
    LUT_BYTES,
    MAX_PRODUCT_SHIFT,
    MAX_PRODUCT_SHIFT_WIDE,
    TP_AT_LEAST_ONE,
    TP_B_AT_LEAST_ONE,
    TP_FEATURES,
    TP_INT8,
    TP_POOL_AT_LEAST_ONE,
    TP_TWO_OPERANDS,
    TP_WIDE,
    TP_WINDOWS,
    TpOp,
)

from .budget import MAX_OUTPUTS, require_at_most
from .memory import MachineError

__all__ = ["check_tp", "check_tp_sizes"]


def check_tp(config: NpuConfig, d: dict[str, int]) -> None:
    """Check one decoded `TP` descriptor against the instruction set and the limits of `config`: the rules that the
    hardware checks too.

    Raises
    ------
    MachineError
        Naming the field, its value and what is legal.
    """
    _require(d["op"] in set(TpOp), f"op = {d['op']} is unknown: use 0..{max(TpOp).value}")
    op = TpOp(d["op"])
    for name in config.absent(TP_FEATURES):
        _require(d[name] == 0, f"{name} = {d[name]}: use 0, this NPU has {TP_FEATURES[name]} = false")
    needed = TP_AT_LEAST_ONE + TP_B_AT_LEAST_ONE * (op in TP_TWO_OPERANDS) + TP_POOL_AT_LEAST_ONE * (op in TP_WINDOWS)
    for name in needed:
        _require(d[name] >= 1, f"{name} = 0: use at least 1 for {op.name}")
    _require(
        op in TP_TWO_OPERANDS or not d["b_run_bytes"],
        f"b_run_bytes = {d['b_run_bytes']}: {op.name} has no operand B, use 0",
    )
    _require(
        op is not TpOp.BILINEAR or (d["kernel_h"], d["kernel_w"]) == (2, 2),
        f"kernel_h, kernel_w = {d['kernel_h']}, {d['kernel_w']}: use 2, 2 for BILINEAR",
    )
    num_bytes, limit = (
        d["a_run_bytes"] * d["num_a_runs"] + d["b_run_bytes"] * d["num_b_runs"],
        config.tp_buffer_bytes // 2,
    )
    _require(
        num_bytes <= limit,
        f"a_run_bytes * num_a_runs + b_run_bytes * num_b_runs = {num_bytes} exceeds half of the TP buffer, {limit}",
    )
    _check_arithmetic(op, d)


def check_tp_sizes(d: dict[str, int]) -> None:
    """Check what the hardware does not of a descriptor that `check_tp` has passed: its outputs, where COPY starts,
    and what the golden model can afford.

    Raises
    ------
    MachineError
        Naming the field, its value and what is legal.
    """
    num_outputs, op = d["num_0"] * d["num_1"] * d["num_2"], TpOp(d["op"])
    _require(
        num_outputs % d["out_run_bytes"] == 0,
        f"out_run_bytes = {d['out_run_bytes']} does not divide the {num_outputs} output bytes",
    )
    _require(
        op is not TpOp.COPY or max(d["start_y"], d["start_x"]) <= 0,
        f"start_y, start_x = {d['start_y']}, {d['start_x']}: use at most 0 for COPY",
    )
    require_at_most(MAX_OUTPUTS, "TP.num_0 * num_1 * num_2", num_outputs)


def _require(is_legal: bool, message: str) -> None:
    if not is_legal:
        raise MachineError(f"TP.{message}")


def _check_arithmetic(op: TpOp, d: dict[str, int]) -> None:
    is_wide = bool(d["is_wide"])
    _require(not is_wide or op in TP_WIDE, f"is_wide = 1: use 0 for {op.name}")
    _require(is_wide or not d["is_high"], "is_high = 1: use 0 without is_wide")
    for name in ("has_lut", *TP_INT8) * is_wide:
        _require(d[name] == 0, f"{name} = {d[name]}: use 0 with is_wide")
    for name in TP_INT8:
        _require(-128 <= d[name] <= 127, f"{name} = {d[name]}: use -128..127")
    limit = MAX_PRODUCT_SHIFT_WIDE if is_wide else MAX_PRODUCT_SHIFT
    _require(
        op is not TpOp.MUL or d["b_shift"] <= limit,
        f"b_shift = {d['b_shift']}: use at most {limit} for MUL{' with is_wide' * is_wide}",
    )
    low = -(1 << 15) if is_wide else -128
    _require(
        op is TpOp.COPY or low <= d["act_min"] <= d["act_max"] < -low,
        f"act_min, act_max = {d['act_min']}, {d['act_max']}: use {low} <= act_min <= act_max <= {-low - 1}",
    )
    _require(
        not d["has_lut"] or d["lut_addr"] % LUT_BYTES == 0,
        f"lut_addr = {d['lut_addr']:#x}: align it to {LUT_BYTES} bytes",
    )
