"""When the tensor processor completes a job: docs/tensor-processor.md in recurrences."""

from __future__ import annotations

from convoy.spec.config import NpuConfig
from convoy.spec.isa import FRACTION_BITS, LUT_BYTES, TP_TWO_OPERANDS, TpOp

from .device import MemoryModel
from .timing_nn import MAX_WRITES, READ_CYCLES, WRITE_CYCLES, Slice, num_beats, port_cycles

__all__ = ["TpTimer"]

LANES = 4
"""Bytes per operand and cycle."""
START_CYCLES, ARITHMETIC_CYCLES = 12, 14
"""From the buffer to the result queue; and what the arithmetic of two operands takes beyond that."""
DIVIDE_CYCLES, WIDE_DIVIDE_CYCLES = 10, 18


class TpTimer:
    """The engine between jobs; `time` takes it through one more."""

    def __init__(self, config: NpuConfig, memory: MemoryModel):
        self.config, self.latency = config, memory.latency_cycles
        self.read_trip, self.write_trip = memory.latency_cycles + READ_CYCLES, memory.latency_cycles + WRITE_CYCLES
        self.loaded = self.processed = self.processed_before = self.written = self.accepted = 0.0
        self.slices: list[Slice] = []

    def time(self, d: dict[str, int], ready: float) -> tuple[float, float]:
        """(accepted, completed) of a descriptor offered at `ready`."""
        config = self.config
        offered = max(ready, self.accepted) + 1
        loads = [(d[f"num_{name}_runs"], d[f"{name}_run_bytes"], d[f"{name}_addr"], d[f"{name}_pitch_bytes"]) for name in "ab" if d[f"{name}_run_bytes"]]
        load = sum(self._port_cycles(runs, size, addr | pitch * (runs > 1), config.max_reads) for runs, size, addr, pitch in loads)
        load_start = max(offered, self.processed_before)
        self.loaded = max(load_start + self.read_trip + 6, self.loaded) + load
        taken = max(offered, self.processed + 1)
        lut = self.read_trip + LUT_BYTES / config.port_bytes if d["has_lut"] else 0
        started = max(taken + 2 + lut, self.loaded + 3)
        num_bytes = d["num_0"] * d["num_1"] * d["num_2"]
        runs = num_bytes // d["out_run_bytes"]
        output = max(self._groups(d) + runs * (d["out_run_bytes"] % LANES != 0),
                     self._port_cycles(runs, d["out_run_bytes"], d["out_addr"] | d["out_pitch_bytes"] * (runs > 1), MAX_WRITES))
        processed = started + START_CYCLES + ARITHMETIC_CYCLES * (d["op"] in TP_TWO_OPERANDS) + max(self._elements(d), output)
        output_taken = max(offered, self.written)
        self.processed_before, self.processed = self.processed, processed
        self.written = max(processed, output_taken + output) + 6
        self.slices += [Slice("TP load", max(self.loaded - load, load_start), self.loaded), Slice("TP process", started, processed),
                        Slice("TP write", max(started, self.written - output), self.written)]
        self.accepted = max(load_start, taken, output_taken)
        return self.accepted, self.written + self.write_trip

    def _port_cycles(self, num_runs: int, run_bytes: int, addr_bits: int, max_bursts: int) -> float:
        """Cycles of the port for runs whose addresses have these bits set."""
        beats = num_runs * num_beats(run_bytes, addr_bits % self.config.port_bytes == 0, self.config)
        return port_cycles(beats, num_runs, self.latency, max_bursts, self.config)

    def _groups(self, d: dict[str, int]) -> float:
        """Results that the process hands over."""
        outer = d["num_0"] * d["num_1"]
        return outer * (-(-d["num_2"] // LANES) if d["op"] in (TpOp.COPY, *TP_TWO_OPERANDS) else d["num_2"])

    def _elements(self, d: dict[str, int]) -> float:
        """Cycles of the walk."""
        outer = d["num_0"] * d["num_1"]
        if d["op"] in (TpOp.COPY, *TP_TWO_OPERANDS):
            has_groups = d["step_2"] % (self.config.port_bytes // 2) != 0
            return outer * max(2, (1 + d["is_wide"]) * (-(-d["num_2"] // LANES) if has_groups else d["num_2"]))
        least = 2 if d["op"] != TpOp.AVG_POOL else WIDE_DIVIDE_CYCLES if d["is_wide"] else DIVIDE_CYCLES
        rows = [_clipped(_place(d, "y", "h", n), d["kernel_h"], d["tile_ih"]) for n in range(d["num_1"])]
        cols = [-(-_clipped(_place(d, "x", "w", n), d["kernel_w"], d["tile_iw"]) // LANES) for n in range(d["num_2"])]
        return d["num_0"] * sum(max(least, row * col) for row in rows for col in cols)


def _place(d: dict[str, int], axis: str, extent: str, n: int) -> int:
    """Row or column of the image where the n-th window begins."""
    start, step = ((d[name] << FRACTION_BITS) + d[f"{name}_frac"] for name in (f"start_{axis}", f"stride_{extent}"))
    return start + n * step >> FRACTION_BITS


def _clipped(start: int, kernel: int, size: int) -> int:
    """Pixels of a window that are inside the image."""
    return min(start + kernel, size) - max(start, 0)
