"""When the tensor processor completes a job: docs/tensor-processor.md in recurrences."""

from __future__ import annotations

import numpy as np

from convoy.driver.plan.cost import lut_cycles, tp_copy_bytes, tp_group_bytes, tp_window_cycles
from convoy.driver.runtime.device import MemoryModel
from convoy.spec.config import NpuConfig
from convoy.spec.cycles import (
    ACT_DEPTH_BEATS,
    ARITHMETIC_CYCLES,
    AVERAGE_CYCLES,
    AVERAGE_CYCLES_WIDE,
    BLEND_CYCLES,
    EXTREME_CYCLES,
    GATHER_CYCLES,
    LUT_CYCLES,
    MAX_WRITES,
    MEAN_CYCLES,
    NUM_TP_LANES,
    OPERAND_DEPTH_BYTES,
    POOL_CYCLES,
    SCALE_CYCLES,
)
from convoy.spec.isa import FRACTION_BITS, TP_TWO_OPERANDS, TP_WINDOWS, TpOp

from . import fitted
from .nn import Slice, num_beats, port_cycles
from .port import READ_TRIP_CYCLES, RUN_CYCLES, WRITE_TRIP_CYCLES, SharedPort, Transfer

__all__ = ["TpTimer"]

COPY_CYCLES = 1 + GATHER_CYCLES + 1 + LUT_CYCLES
"""From a group of a copy to its result: a register, the buffer, a register, the lookup table."""
TP_READ_CYCLES = fitted.TP_LOAD_CYCLES + RUN_CYCLES
"""From a job to the first beat of its operands in the buffer, beyond the memory's latency."""


class TpTimer:
    """The engine between jobs; `time` takes it through one more."""

    def __init__(self, config: NpuConfig, memory: MemoryModel):
        self.config, self.latency = config, memory.latency_cycles
        self.port = SharedPort(config, self.latency)
        self.read_trip, self.write_trip = (
            memory.latency_cycles + READ_TRIP_CYCLES,
            memory.latency_cycles + WRITE_TRIP_CYCLES,
        )
        self.loaded = self.processed = self.processed_before = self.written = self.accepted = 0.0
        self.slices: list[Slice] = []
        self.loads: list[Transfer] = []
        """What it has read."""
        self.rivals: list[Transfer] = []
        """What the NN engine reads."""

    def time(self, d: dict[str, int], ready: float, released: float) -> tuple[float, float]:
        """(accepted, completed) of a descriptor offered at `ready` that is not loaded before `released`."""
        config = self.config
        offered = max(ready, self.accepted) + 1
        load_start = self._load(d, max(offered, released + 1))
        taken = max(offered, self.processed + 1)
        lut = self.read_trip + lut_cycles(config) if d["has_lut"] else 0
        walked, loaded = taken + fitted.TP_JOB_CYCLES + lut, self.loaded + fitted.TP_LOADED_CYCLES
        if d["op"] in TP_TWO_OPERANDS:
            started = max(walked, loaded) + fitted.TP_WALK_CYCLES
        else:  # the first group waits for its bytes
            there = self.loads[-1].start + fitted.TP_FOLLOW_CYCLES if _is_in_order(d) else loaded
            started = max(walked + fitted.TP_WALK_CYCLES, there)
        num_bytes = d["num_0"] * d["num_1"] * d["num_2"]
        num_runs = num_bytes // d["out_run_bytes"]
        output = max(
            self._groups(d) + num_runs * (d["out_run_bytes"] % NUM_TP_LANES != 0),
            port_cycles(
                num_runs * self._run_beats(d["out_run_bytes"], d["out_addr"] | d["out_pitch_bytes"] * (num_runs > 1)),
                num_runs,
                self.latency,
                MAX_WRITES,
                config,
            ),
        )
        processed = max(started + max(self._elements(d), output), loaded) + COPY_CYCLES + self._arithmetic(d)
        output_taken = max(offered, self.written)
        self.processed_before, self.processed = self.processed, processed
        self.written = max(processed, output_taken + output) + fitted.TP_WRITE_CYCLES
        self.slices += [
            Slice("TP load", self.loads[-1].start, self.loaded),
            Slice("TP process", started, processed),
            Slice("TP write", max(started, self.written - output), self.written),
        ]
        self.accepted = max(load_start, taken, output_taken)
        return self.accepted, self.written + self.write_trip + fitted.TP_END_CYCLES

    def _load(self, d: dict[str, int], offered: float) -> float:
        """Load the operands; when a half of the buffer is free for them."""
        config = self.config
        loads = [
            (d[f"num_{name}_runs"], d[f"{name}_run_bytes"], d[f"{name}_addr"], d[f"{name}_pitch_bytes"])
            for name in "ab"
            if d[f"{name}_run_bytes"]
        ]
        beats = sum(num * self._run_beats(size, addr | pitch * (num > 1)) for num, size, addr, pitch in loads)
        num_bursts = sum(num * -(-size // (config.max_burst_beats * config.port_bytes)) for num, size, _, _ in loads)
        load = self.port.cycles(
            beats, num_bursts, max(2 * config.max_burst_beats, OPERAND_DEPTH_BYTES // config.port_bytes)
        )
        load_start = max(offered, self.processed_before)
        first = max(load_start + self.latency + TP_READ_CYCLES, self.loaded)
        if any(rival.start <= first < rival.end for rival in self.rivals):  # behind what the loader has requested
            first = max(first, load_start + max(ACT_DEPTH_BEATS, 2 * config.max_burst_beats) + TP_READ_CYCLES)
        own = Transfer(first, first + load, beats / load, beats / num_bursts)
        self.loaded = self.port.end(own, self.rivals)
        self.loads.append(own.until(self.loaded))
        return load_start

    def _run_beats(self, run_bytes: int, addr_bits: int) -> float:
        """Beats of a run whose address may have these bits set."""
        return num_beats(run_bytes, addr_bits % self.config.port_bytes == 0, self.config)

    def _arithmetic(self, d: dict[str, int]) -> int:
        """Cycles from the last bytes read to the result, beyond those of a copy."""
        if d["op"] == TpOp.AVG_POOL:
            return POOL_CYCLES + (AVERAGE_CYCLES_WIDE if d["is_wide"] else AVERAGE_CYCLES)
        if d["op"] == TpOp.MEAN:
            return MEAN_CYCLES
        if d["op"] == TpOp.BILINEAR:
            return SCALE_CYCLES + BLEND_CYCLES
        if d["op"] in (TpOp.MAXIMUM, TpOp.MINIMUM):
            return EXTREME_CYCLES
        return POOL_CYCLES if d["op"] == TpOp.MAX_POOL else ARITHMETIC_CYCLES * (d["op"] in TP_TWO_OPERANDS)

    def _copied_rows(self, d: dict[str, int], lanes: int) -> int:
        """Cycles of the rows of a copy, which the edges of its image cut; what is outside it is not read."""
        before = min(-d["start_x"], d["num_2"])
        inside = min(d["tile_iw"], d["num_2"] - before)
        behind = d["num_2"] - before - inside
        groups = -(-before // NUM_TP_LANES) - (-inside // lanes) - (-behind // NUM_TP_LANES)
        num_inside = min(d["num_1"] + d["start_y"], d["tile_ih"])
        return num_inside * groups - (d["num_1"] - num_inside) * (-d["num_2"] // NUM_TP_LANES)

    def _groups(self, d: dict[str, int]) -> float:
        """Results that the process hands over."""
        outer = d["num_0"] * d["num_1"]
        if d["op"] in TP_TWO_OPERANDS:
            return outer * -(-d["num_2"] // self.config.tp_lanes)
        return outer * (-(-d["num_2"] // NUM_TP_LANES) if d["op"] == TpOp.COPY else d["num_2"])

    def _elements(self, d: dict[str, int]) -> float:
        """Cycles of the walk."""
        outer = d["num_0"] * d["num_1"]
        if d["op"] in (TpOp.COPY, *TP_TWO_OPERANDS):
            if d["op"] == TpOp.COPY:
                return d["num_0"] * self._copied_rows(d, tp_copy_bytes(d["step_2"], self.config))
            lanes = tp_group_bytes([d["step_2"], d["b_step_2"]], self.config)
            return outer * (1 + d["is_wide"]) * -(-d["num_2"] // lanes)
        rows, cols = _clipped(d, "y", "h", d["num_1"]), _clipped(d, "x", "w", d["num_2"])
        return d["num_0"] * tp_window_cycles(TpOp(d["op"]), bool(d["is_wide"]), rows, cols, d["kernel_w"])


def _is_in_order(d: dict[str, int]) -> bool:
    """Do groups follow the load, because their bytes are neighbours or one byte?"""
    return d["op"] in TP_WINDOWS or d["step_2"] in (0, 1)


def _clipped(d: dict[str, int], axis: str, extent: str, num: int) -> np.ndarray:
    """Rows or columns of each of `num` windows that are inside the image."""
    start, step = ((d[name] << FRACTION_BITS) + d[f"{name}_frac"] for name in (f"start_{axis}", f"stride_{extent}"))
    first = start + np.arange(num) * step >> FRACTION_BITS
    return np.minimum(first + d[f"kernel_{extent}"], d[f"tile_i{extent}"]) - np.maximum(first, 0)
