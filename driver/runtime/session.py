"""`Session`: runs a `Plan` on a `Device`, step by step, and says what every layer computed and cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from convoy.driver.emit.program import HostStep, NpuStep, Plan, Program
from convoy.driver.emit.traffic import Traffic, descriptor_traffic
from convoy.driver.graph.graph import GraphError
from convoy.driver.lower.host_ops import HostGroup, host_group
from convoy.driver.lower.onnx_host import OnnxHostGroup
from convoy.driver.plan.macs import dense_macs
from convoy.spec.config import NpuConfig
from convoy.spec.csr import ID, NUM_WINDOWS, REGISTERS, Control, Status, WindowControl, config_values
from convoy.spec.isa import CAUSE_FIELDS, COMPLETION, Cause, Opcode

from .device import Device, DeviceError, MemoryModel, npu_error

__all__ = ["Execution", "LayerCost", "Session", "plan_inputs", "timeout_limit", "watchdog_limit"]

MAX_POLLS = 10_000
"""Reads of STATUS until the driver gives up waiting for the NPU to become idle."""


@dataclass
class LayerCost:
    """What a layer cost: cycles as its completion records say, zero on a device without timing; bytes as its
    descriptors say.
    """

    cycles: int = 0
    tp_cycles: int = 0
    """Part of `cycles` that ended with the completion of a TP descriptor."""
    traffic: Traffic = field(default_factory=Traffic)
    """What its descriptors move, whenever that was: the records cannot tell what has been read ahead."""
    core_cycles: dict[Cause, int] = field(default_factory=lambda: dict.fromkeys(Cause, 0))
    """By cause, summed over the cores: together `cycles` * `num_cores`."""


@dataclass
class Execution:
    """The outcome of one run."""

    tensors: dict[int, np.ndarray] = field(default_factory=dict)
    """Every activation that was read back or computed by the host, and constant outputs, in the graph's shape."""
    costs: dict[int, LayerCost] = field(default_factory=dict)
    """By operator, for those that the NPU executed."""
    cycles: int = 0
    """From doorbell to interrupt, summed over the programs."""
    completions: list[tuple[int, ...]] = field(default_factory=list)
    """Of each program, when its descriptors completed, in program order; cycles since its doorbell."""
    host_remarks: dict[int, str] = field(default_factory=dict)
    """By operator, what is to be said of how the host executed it, if anything."""
    counted: Traffic = field(default_factory=Traffic)
    """Bytes that the NPU has counted, records left out; zero on a device without timing."""
    seconds: float = 0.0
    """Wall-clock time spent waiting for the device."""


def watchdog_limit(config: NpuConfig) -> int:
    """More cycles than a program of this configuration can compute between two movements on the bus, however it is
    made.

    The cores may work on a full weight queue with all accumulators in use; a pool may look at the whole buffer for each
    byte of a burst.
    """
    weights = config.weight_fifo_beats * config.port_bytes * config.num_acc_entries
    pools = config.max_burst_beats * config.port_bytes * config.tp_buffer_bytes
    return min(100_000 + 2 * (weights + pools), 2**32 - 1)


def timeout_limit(plan: Plan, model: MemoryModel | None, watchdog_cycles: int) -> int:
    """Far more cycles than any step of a plan can take on this memory, so that a hang is told from a long run."""
    macs = sum(dense_macs(plan.graph, op) for op in _plan_ops(plan))
    work = 1_000_000 + 20 * macs // plan.config.macs_per_cycle + 100 * plan.memory_bytes
    if model is not None:
        work = work * (1 + model.latency_cycles // 32) * 100 // max(1, 100 - model.stall_percent)
    return work + watchdog_cycles


def plan_inputs(plan: Plan) -> list[int]:
    """The activations that a plan reads and does not compute, in order of first use: the network's inputs, or those
    of the selected layers.
    """
    made: set[int] = set()
    needed: list[int] = []
    for op in _plan_ops(plan):
        needed += [
            index
            for index in op.inputs
            if index >= 0 and plan.graph.tensors[index].is_activation and index not in made and index not in needed
        ]
        made.update(op.outputs)
    return needed


def _plan_ops(plan: Plan):
    ops = {op.index: op for op in plan.graph.ops}
    for step in plan.steps:
        if isinstance(step, HostStep):
            yield from step.ops
        else:
            yield from (ops[index] for index in step.layers)


class Session:
    """Runs one plan on one device as often as wanted.

    Variables of the network keep their values from run to run, in NPU memory; states of the host's operators do too,
    in LiteRT.

    Parameters
    ----------
    plan, device
        Compiled for the same configuration.
    keep_tensors
        Read every tensor back, not only what the host and the caller need. The plan must have been compiled so too.
    progress
        Called now and then with the cycles simulated so far.
    watchdog_cycles
        The NPU stops a program that has not moved for so long; None: a limit that no program reaches
        (`watchdog_limit`); 0: never.
    timeout_cycles
        The NPU stops a program that has not ended after so long; None: far more than any of the plan can take; 0:
        never.

    Raises
    ------
    DeviceError
        When the device does not identify itself as the configured NPU.
    """

    def __init__(
        self,
        plan: Plan,
        device: Device,
        keep_tensors: bool = True,
        progress: Callable[[int], None] | None = None,
        watchdog_cycles: int | None = None,
        timeout_cycles: int | None = None,
    ):
        self.plan, self.device, self.keep_tensors, self.progress = plan, device, keep_tensors, progress
        self._host_groups: dict[int, HostGroup | OnnxHostGroup] = {}
        """By place of the step."""
        self._traffic: dict[int, list[Traffic]] = {}
        """Of each program's descriptors, by its identity."""
        self._watchdog_cycles = watchdog_limit(plan.config) if watchdog_cycles is None else watchdog_cycles
        self._timeout_cycles = min(self._max_cycles(), 2**32 - 1) if timeout_cycles is None else timeout_cycles
        found = self._read("ID")
        if found != ID:
            raise DeviceError(f"the device identifies itself as {found:#x}, not as a Convoy NPU ({ID:#x})")
        expected = config_values(plan.config)
        if (found := self._read("CONFIG0")) != expected["CONFIG0"]:
            raise DeviceError(
                f"the device's configuration is {found:#010x}, but the plan is for {expected['CONFIG0']:#010x}"
            )
        missing = expected["FEATURES"] & ~self._read("FEATURES")
        if names := [field.name for field in REGISTERS["FEATURES"].fields if missing >> field.lsb & 1]:
            raise DeviceError(
                f"the plan is for an NPU with {', '.join(names)}, which the device lacks: compile for a configuration "
                "in which they are false"
            )
        if plan.memory_bytes:
            device.write_memory(plan.base + plan.memory_bytes - 1, b"\0")
        for step in plan.steps:
            if isinstance(step, NpuStep):
                for addr, data in step.program.image:
                    device.write_memory(addr, data)
        self.reset_state()

    def reset_state(self) -> None:
        """Give every variable of the network, and every state of an operator, the value that it has before the first
        run.

        After a run that failed their values are undefined.
        """
        for keep in self.plan.keeps:
            if keep.initial is not None:
                self.device.write_memory(keep.placement.addr, keep.placement.pack(keep.initial))
        for group in self._host_groups.values():
            group.reset_state()

    def run(self, inputs: Mapping[int, np.ndarray]) -> Execution:
        """Execute the plan once.

        Parameters
        ----------
        inputs
            A value for each of `plan_inputs`, in the graph's shape and dtype.

        Raises
        ------
        GraphError
            When an input is missing or has another shape or dtype, or the host cannot execute an operator on these
            values.
        NpuError
            When the NPU stops with an error: `BusError`, `AccessError`, `WatchdogError`, `ProgramTimeoutError`,
            `MalformedError`. The session may run again.
        DeviceError
            When the device does not answer; `reset` before running again.
        """
        execution = Execution()
        for index in plan_inputs(self.plan):
            tensor = self.plan.graph.tensors[index]
            value = inputs.get(index)
            if value is None or value.shape != tensor.shape or value.dtype != tensor.dtype:
                seen = "nothing" if value is None else f"{value.dtype} {list(value.shape)}"
                raise GraphError(
                    f"tensor {index} ({tensor.name}) must be {tensor.dtype} {list(tensor.shape)}, but got {seen}"
                )
            self._set(execution, index, value)
        constants = {index: self.plan.graph.tensors[index].data for index in self.plan.graph.outputs}
        execution.tensors |= {index: values for index, values in constants.items() if values is not None}
        needed = self._needed_after(-1)
        for keep in self.plan.keeps:
            for index in keep.tensors:
                if self.keep_tensors or index in needed:
                    self._fetch(execution, index)
        for position, step in enumerate(self.plan.steps):
            if isinstance(step, HostStep):
                self._run_host(execution, step, position)
            else:
                self._run_npu(execution, step, position)
        return execution

    def reset(self) -> None:
        """Stop whatever the NPU is doing and bring it back to idle.

        Raises
        ------
        DeviceError
            When the bursts under way do not end.
        """
        self._write("CONTROL", Control.SOFT_RESET)
        self._wait_until_idle()
        self._write("CONTROL", Control.CLEAR_ERROR)
        self._write("IRQ_STATUS", 1)

    def _wait_until_idle(self) -> None:
        for _ in range(MAX_POLLS):
            if not self._read("STATUS") & (Status.BUSY | Status.STOPPING):
                return
        raise DeviceError("the memory does not answer bursts that are under way: reset it and the NPU together")

    def _set(self, execution: Execution, index: int, value: np.ndarray) -> None:
        """A value from outside or from the host; goes to NPU memory if it has a place there."""
        execution.tensors[index] = value
        if index in self.plan.placements:
            placement = self.plan.placements[index]
            self.device.write_memory(placement.addr, placement.pack(value))

    def _run_host(self, execution: Execution, step: HostStep, position: int) -> None:
        """Operators of the host; they stay loaded for the next run."""
        if position not in self._host_groups:
            wanted = self._needed_after(position) | self.plan.placements.keys()
            outputs = [index for index in step.outputs if self.keep_tensors or index in wanted]
            self._host_groups[position] = host_group(self.plan.graph, step.ops, outputs)
        group = self._host_groups[position]
        for index, value in group.run(execution.tensors).items():
            self._set(execution, index, value)
        execution.host_remarks |= group.remarks

    def _run_npu(self, execution: Execution, step: NpuStep, position: int) -> None:
        """One program: doorbell, interrupt, records, results."""
        if step.program.descriptors:
            started = time.perf_counter()
            self._start(step.program)
            self.device.wait(
                2 * max(self._max_cycles(), self._timeout_cycles), self.progress
            )  # the NPU stops by itself before
            execution.seconds += time.perf_counter() - started
            self._check()
            if self.device.memory_model is not None:
                execution.cycles += self._read("CYCLES")
        for index in step.layers:
            execution.costs[index] = LayerCost()
        self._book(execution, step.program)
        ops = {op.index: op for op in self.plan.graph.ops}
        needed = self._needed_after(position)
        for index in step.layers:
            for output in ops[index].outputs:
                is_known = output in execution.tensors or output not in self.plan.placements
                if not is_known and (self.keep_tensors or output in needed):
                    self._fetch(execution, output)

    def _fetch(self, execution: Execution, index: int) -> None:
        """Read a tensor from NPU memory."""
        placement = self.plan.placements[index]
        raw = self.device.read_memory(placement.addr, placement.num_bytes)
        execution.tensors[index] = placement.unpack(raw, self.plan.graph.tensors[index].dtype)

    def _needed_after(self, position: int) -> set[int]:
        """Tensors that the caller or a later step of the host wants."""
        later = (step for step in self.plan.steps[position + 1 :] if isinstance(step, HostStep))
        return {*self.plan.graph.outputs, *(index for step in later for index in step.inputs(self.plan.graph))}

    def _start(self, program: Program) -> None:
        self._wait_until_idle()
        self._write("IRQ_STATUS", 1)
        self._write("IRQ_ENABLE", 1)
        self._write("WATCHDOG", self._watchdog_cycles)
        self._write("TIMEOUT", self._timeout_cycles)
        self._set_windows(program)
        self._write("PROGRAM_BASE", program.program_addr)
        self._write("PROGRAM_COUNT", len(program.descriptors))
        self._write("RECORD_BASE", program.record_addr)
        self._write("CONTROL", Control.DOORBELL)

    def _set_windows(self, program: Program) -> None:
        for number in range(NUM_WINDOWS):
            self._write(f"WINDOW{number}_CONTROL", 0)
        for number, window in enumerate(program.windows):
            self._write(f"WINDOW{number}_BASE", window.base)
            self._write(f"WINDOW{number}_LIMIT", window.limit)
            self._write(
                f"WINDOW{number}_CONTROL",
                WindowControl.READ * window.is_readable | WindowControl.WRITE * window.is_writable,
            )

    def _check(self) -> None:
        status = self._read("STATUS")
        self._write("IRQ_STATUS", 1)
        if status & Status.ERROR:
            error = npu_error(self._read("ERROR"), self._read("ERROR_ADDR"), getattr(self.device, "explanation", ""))
            self._write("CONTROL", Control.CLEAR_ERROR)
            raise error
        if status & Status.BUSY:
            raise DeviceError("the NPU raised its interrupt but is still busy")

    def _book(self, execution: Execution, program: Program) -> None:
        """Give each descriptor its own bytes, and the cycles between the completion before its own and its own."""
        size = COMPLETION.num_bytes
        raw = (
            self.device.read_memory(program.record_addr, size * len(program.descriptors))
            if program.descriptors
            else b""
        )
        records = [COMPLETION.decode(raw[i * size : (i + 1) * size]) for i in range(len(program.descriptors))]
        execution.completions.append(tuple(record["cycle"] for record in records))
        before = dict.fromkeys(COMPLETION.fields, 0)
        if id(program) not in self._traffic:
            self._traffic[id(program)] = [
                descriptor_traffic(program, index, self.plan.config) for index in range(len(records))
            ]
        traffic = self._traffic[id(program)]
        for index in sorted(range(len(records)), key=lambda index: (records[index]["cycle"], index)):
            record, cost = records[index], execution.costs.setdefault(program.ops[index], LayerCost())
            cost.cycles += record["cycle"] - before["cycle"]
            if program.descriptors[index][0] == Opcode.TP:
                cost.tp_cycles += record["cycle"] - before["cycle"]
            cost.traffic += traffic[index]
            for cause, name in CAUSE_FIELDS.items():
                cost.core_cycles[cause] += record[name] - before[name]
            before = record
        execution.counted += Traffic(before["read_bytes"], before["write_bytes"], before["weight_bytes"])

    def _max_cycles(self) -> int:
        return timeout_limit(self.plan, self.device.memory_model, self._watchdog_cycles)

    def _read(self, name: str) -> int:
        return self.device.read32(REGISTERS[name].addr)

    def _write(self, name: str, value: int) -> None:
        self.device.write32(REGISTERS[name].addr, int(value))
