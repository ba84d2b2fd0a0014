"""Hostile jobs: an NPU whose programs, tables, registers and memory are not to be trusted, attacked in random ways.

After each job the NPU must have come to rest, nothing may have been on the bus outside the windows, no byte that no window lets it write may have
changed, and the next correct job must be exact. `python -m convoy.verif.hostile --help`; `make hostile` runs thousands of them on the compiled RTL.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.table import Table

from convoy.driver.compile import compile_graph
from convoy.driver.device import Device, DeviceError, MemoryModel
from convoy.driver.devices.build import native_library, npu_verilog
from convoy.driver.devices.bus_model import CHANNELS
from convoy.driver.devices.native import NativeDevice
from convoy.driver.devices.windows import Window, WindowRegisters
from convoy.driver.graph import Graph, GraphError
from convoy.driver.program import NpuStep, Plan, Program
from convoy.driver.runtime import Session
from convoy.spec.config import NpuConfig
from convoy.spec.csr import NUM_WINDOWS, REGISTERS, Control, Error, Status, WindowControl
from convoy.spec.isa import COMPLETION, DESCRIPTOR_BYTES, LUT_BYTES, NN, PARAM, STREAM, TAP_BYTES, TP, Opcode
from convoy.spec.record import Field, Record

from .campaign import RTL_CONFIGS
from .graphs import random_values, run_plan
from .strategies import cut_graphs, layer_graphs, memory_models
from .tp_strategies import tp_graphs

__all__ = ["CONFIGS", "KINDS", "Attacker", "Bench", "Breach", "Case", "Coverage", "Event", "Job", "Target", "draw_case", "run_case"]

CONFIGS = {name: RTL_CONFIGS[name] for name in ("small", "wide")}
"""Two that are far apart."""
JOBS_PER_CASE = 40
BEYOND_BYTES = 8192
"""Memory behind that of the plan that must not change."""
MAX_CLEAN_CYCLES = 8000
"""Longer programs are no cases: a job is to be cheap."""
SLACK_CYCLES = 200
"""From an expired limit to the interrupt, at most, and what register accesses take meanwhile."""
LONGEST_LIMIT_CYCLES = 50_000
"""Limits above are as good as none."""
BEFORE = -1
"""The `Event.cycle` of what happens before the doorbell."""
SIZES = 1, 3, 50


class Breach(AssertionError):
    """The NPU did what no job may make it do."""


@dataclass(frozen=True)
class Event:
    """Something that happens `cycle` cycles after the doorbell, or `BEFORE` it.

    `action`: "write" (register, value), "poke" (address, bytes), "fault" (as `inject_fault`) or "silence" (channels).
    """

    cycle: int
    action: str
    arguments: tuple


@dataclass(frozen=True)
class Job:
    """A correct program and what is done to it and to the NPU. `kinds`: keys of `KINDS`."""

    kinds: tuple[str, ...]
    events: tuple[Event, ...]


@dataclass(frozen=True)
class Target:
    """A correct program with the memory that it finds and that it leaves."""

    program: Program
    before: bytes
    after: bytes
    clean_cycles: int

    @property
    def records(self) -> range:
        """The bytes of its completion records, which say when and so differ from run to run."""
        return range(self.program.record_addr, self.program.record_addr + COMPLETION.num_bytes * len(self.program.descriptors))

    @property
    def code(self) -> range:
        """The bytes of its descriptors."""
        return range(self.program.program_addr, self.program.program_addr + DESCRIPTOR_BYTES * len(self.program.descriptors))


@cache
def _library(config: NpuConfig) -> Path:
    return native_library(npu_verilog(config, is_gated=True), config.port_bits)


class _Recorder:
    """A device that notes the memory around each program."""

    def __init__(self, device: Device, num_bytes: int):
        self._device, self._num_bytes = device, num_bytes
        self.config, self.memory_model = device.config, device.memory_model
        self.read32, self.read_memory, self.write_memory = device.read32, device.read_memory, device.write_memory
        self.runs: list[tuple[bytes, bytes, int]] = []

    def write32(self, addr: int, value: int) -> None:
        if addr == REGISTERS["CONTROL"].addr and value & Control.DOORBELL:
            self._before = self.read_memory(0, self._num_bytes)
        self._device.write32(addr, value)

    def wait(self, max_cycles: int, progress: Callable[[int], None] | None = None) -> int:
        cycles = self._device.wait(max_cycles)
        self.runs.append((self._before, self.read_memory(0, self._num_bytes), cycles))
        return cycles


class Case:
    """A compiled graph whose programs have run once on the RTL, every tensor equal to the golden model's.

    Members
    -------
    targets : list of Target
        Its programs.

    Raises
    ------
    GraphError
        When the configuration cannot hold the graph.
    """

    def __init__(self, config: NpuConfig, graph: Graph, model: MemoryModel, seed_number: int):
        self.config, self.model = config, model
        rng = np.random.default_rng(seed_number)
        plan = compile_graph(graph, config, keep_tensors=True)
        inputs = random_values(graph, int(rng.integers(1 << 31)))
        expected = run_plan(plan, dict(inputs))
        device = self.open()
        try:
            device.write_memory(plan.memory_bytes, rng.bytes(BEYOND_BYTES))
            recorder = _Recorder(device, plan.memory_bytes + BEYOND_BYTES)
            found = Session(plan, recorder).run(inputs).tensors
        finally:
            device.close()
        for index, value in found.items():
            np.testing.assert_array_equal(value, expected[index], err_msg=f"tensor {index}")
        self.targets = [Target(program, *run) for program, run in zip(_programs(plan), recorder.runs, strict=True)]

    def open(self) -> NativeDevice:
        """The RTL, just reset."""
        return NativeDevice(self.config, self.model, library=_library(self.config))


def _programs(plan: Plan) -> list[Program]:
    return [step.program for step in plan.steps if isinstance(step, NpuStep) and step.program.descriptors]


# One job


class Bench:
    """Runs jobs on a device, and judges.

    Parameters
    ----------
    device
        Idle; `close` is left to the caller.
    """

    def __init__(self, device: Device):
        self.device = device
        stalls = 100 / (100 - device.memory_model.stall_percent)
        beats = (device.config.max_reads + 20) * device.config.max_burst_beats
        self._stop_cycles = int(2 * stalls * (200 + 2 * device.memory_model.latency_cycles + 2 * beats))

    def run(self, target: Target, job: Job) -> tuple[Error, bool]:
        """Run a hostile job on the memory that the target's program finds; the error that ended it, and whether it took a soft reset.

        Raises
        ------
        Breach
            When the NPU left its windows, broke the protocol of the bus, did not come to rest or said nothing about it.
        """
        self._windows, self._writable, self._expected = WindowRegisters(), None, bytearray(target.before)
        self._registers = dict.fromkeys(REGISTERS, 0)
        try:
            return self._run(target, job)
        except DeviceError as error:
            raise Breach(str(error)) from error
        finally:
            self.device.inject_fault(0, 0)
            self.device.silence()

    def check(self, target: Target) -> None:
        """A correct job is exact.

        Raises
        ------
        Breach
            When it is not.
        """
        device = self.device
        device.write_memory(0, target.before)
        for name, value in set_up(target.program):
            self._write(name, value)
        self._write("CONTROL", Control.DOORBELL)
        stalls = 100 / (100 - device.memory_model.stall_percent)
        try:
            device.wait(int(1000 + 2 * stalls * target.clean_cycles))
        except DeviceError as error:
            raise Breach(f"the next correct job: {error}") from error
        if self._read("ERROR"):
            raise Breach(f"the next correct job ended with error {self._read('ERROR')} at {self._read('ERROR_ADDR'):#x}")
        found, expected = (np.frombuffer(raw, np.uint8).copy() for raw in (device.read_memory(0, len(target.after)), target.after))
        for memory in (found, expected):
            memory[target.records.start:target.records.stop] = 0
        _compare(found, expected, "after the next correct job")

    def _run(self, target: Target, job: Job) -> tuple[Error, bool]:
        device, clock = self.device, 0
        device.write_memory(0, target.before)
        for name, value in (*set_up(target.program), ("IRQ_ENABLE", 0)):
            self._write(name, value)
        events = sorted(job.events, key=lambda event: event.cycle)
        for event in itertools.takewhile(lambda event: event.cycle == BEFORE, events):
            self._apply(event)
        self._writable = np.zeros(len(target.before), bool)
        self._note_windows(self._now)
        self._write("CONTROL", Control.DOORBELL)
        for event in itertools.dropwhile(lambda event: event.cycle == BEFORE, events):
            clock += self._advance(max(0, event.cycle - clock))
            self._apply(event)
        is_reset = self._end(target)
        error, is_told = Error(self._read("ERROR")), self._read("IRQ_STATUS") & 1
        if bool(self._read("STATUS") & Status.ERROR) != (error != Error.NONE):
            raise Breach(f"STATUS and ERROR ({error.name}) do not agree")
        writes = [(event.cycle, event.arguments[0]) for event in events if event.action == "write"]
        may_miss = is_reset or any(name == "IRQ_STATUS" or (cycle, name) == (BEFORE, "CONTROL") for cycle, name in writes)
        if not is_told and not may_miss:
            raise Breach("the program has ended without an interrupt")
        device.inject_fault(0, 0)
        device.silence()
        self._calm(is_reset)
        _compare(np.where(self._writable, 0, np.frombuffer(device.read_memory(0, len(target.before)), np.uint8)),
                 np.where(self._writable, 0, np.frombuffer(self._expected, np.uint8)), "where no window lets the NPU write")
        return error, is_reset

    def _end(self, target: Target) -> bool:
        """Wait until the program has ended; whether only a soft reset will end it."""
        limit = self._registers["TIMEOUT"]
        is_limited = 0 < limit <= LONGEST_LIMIT_CYCLES
        left = 2 * limit + SLACK_CYCLES if is_limited else 2 * target.clean_cycles
        self._write("IRQ_ENABLE", 1)
        while True:
            is_told = self._read("IRQ_STATUS")
            if not self._read("STATUS") & Status.BUSY:
                return False
            if left <= 0:
                if is_limited:
                    raise Breach(f"busy {2 * limit + SLACK_CYCLES} cycles after the last event, although TIMEOUT is {limit}")
                return True
            if is_told:
                self._write("IRQ_STATUS", 1)  # of a program before
            left -= 1 + self._advance(left)

    def _calm(self, is_reset: bool) -> None:
        """The memory answers again: bring the NPU to its initial state."""
        if is_reset:
            self._write("CONTROL", Control.SOFT_RESET)
        left = self._stop_cycles
        self._write("IRQ_ENABLE", 0)
        while self._read("STATUS") & (Status.BUSY | Status.STOPPING):
            if left <= 0:
                raise Breach(f"not idle {self._stop_cycles} cycles after a soft reset, or after the memory began to answer again")
            left -= self._advance(100)
        for name, value in (("CONTROL", Control.CLEAR_ERROR), ("IRQ_STATUS", 1)):
            self._write(name, value)
        for name in ("STATUS", "ERROR", "IRQ_STATUS"):
            if value := self._read(name):
                raise Breach(f"{name} is {value} after CLEAR_ERROR")

    def _apply(self, event: Event) -> None:
        if event.action == "write":
            self._write(*event.arguments)
        elif event.action == "poke":
            addr, data = event.arguments
            self.device.write_memory(addr, data)
            self._expected[addr:addr + len(data)] = data
        elif event.action == "fault":
            self.device.inject_fault(*event.arguments)
        else:
            self.device.silence(*event.arguments)

    def _advance(self, cycles: int) -> int:
        """Let so many cycles pass, or fewer until the interrupt; how many."""
        try:
            return self.device.wait(cycles)
        except DeviceError as error:
            if "no interrupt within" not in str(error):
                raise
            return cycles

    def _read(self, name: str) -> int:
        return self.device.read32(REGISTERS[name].addr)

    def _write(self, name: str, value: int) -> None:
        windows = self._windows.write(REGISTERS[name].addr, value)
        if windows is not None:
            self._note_windows(windows)
        self._registers[name] = value
        self.device.write32(REGISTERS[name].addr, value)

    def _note_windows(self, windows: list[Window]) -> None:
        """Once the program runs: what these let the NPU write may change from now on."""
        self._now = windows
        if self._writable is None:
            return
        if not any(window.access for window in windows):
            self._writable[:] = True
        for window in windows:
            if window.access & WindowControl.WRITE:
                self._writable[window.base:window.limit] = True


def set_up(program: Program) -> list[tuple[str, int]]:
    """Register writes for a program, but for the doorbell."""
    writes = [("IRQ_STATUS", 1), ("IRQ_ENABLE", 1), ("WATCHDOG", 0), ("TIMEOUT", 0)]
    writes += [(f"WINDOW{number}_CONTROL", 0) for number in range(NUM_WINDOWS)]
    for number, window in enumerate(program.windows):
        writes += write_window(number, window.base, window.limit, WindowControl.READ * window.is_readable | WindowControl.WRITE * window.is_writable)
    return [*writes, ("PROGRAM_BASE", program.program_addr), ("PROGRAM_COUNT", len(program.descriptors)), ("RECORD_BASE", program.record_addr)]


def write_window(number: int, base: int, limit: int, control: int) -> list[tuple[str, int]]:
    """Register writes for a window."""
    return [(f"WINDOW{number}_{name}", int(value)) for name, value in (("BASE", base), ("LIMIT", limit), ("CONTROL", control))]


def _compare(found: np.ndarray, expected: np.ndarray, where: str) -> None:
    wrong = np.flatnonzero(found != expected)
    if wrong.size:
        raise Breach(f"{wrong.size} bytes differ {where}, the first at {wrong[0]:#x}: {found[wrong[0]]}, not {expected[wrong[0]]}")


# Attacks


class Attacker:
    """Draws hostile jobs against a target."""

    def __init__(self, case: Case, target: Target, rng: np.random.Generator):
        self.config, self.target, self.rng = case.config, target, rng
        self.program = target.program
        self.tables = _tables(case.config, target)

    def job(self) -> Job:
        """A job of one kind or several."""
        kinds = tuple(str(kind) for kind in self.rng.choice(list(KINDS), size=self.rng.choice([1, 1, 1, 2, 2, 3]), replace=False))
        return self.job_of(*kinds)

    def job_of(self, *kinds: str) -> Job:
        """A job of these kinds; those for which the target offers nothing are left out. Limits end it, most times."""
        rng = self.rng
        timeout = int(rng.choice([0, self.target.clean_cycles + 500] + [self.target.clean_cycles + 2000] * 4))
        watchdog = int(rng.choice([0, 300, 1000, 1000]))
        events = [self.write(BEFORE, "TIMEOUT", timeout), self.write(BEFORE, "WATCHDOG", watchdog)]
        drawn = []
        for kind in kinds:
            found = list(KINDS[kind](self))
            if found:
                drawn.append(kind)
                events += found
        return Job(tuple(drawn), tuple(events))

    # What attacks are made of

    def write(self, cycle: int, name: str, value: int) -> Event:
        """A register write."""
        return Event(cycle, "write", (name, int(value)))

    def poke(self, cycle: int, addr: int, data: bytes) -> Event:
        """Bytes of memory overwritten by the host."""
        return Event(cycle, "poke", (int(addr), bytes(data)))

    def cycle(self) -> int:
        """A time from before the doorbell to a little after the end of a correct run."""
        return int(self.rng.integers(BEFORE, self.target.clean_cycles + 100))

    def pick(self, values):
        """One of these."""
        return values[int(self.rng.integers(len(values)))]

    def bytes_at(self, span: range) -> bytes:
        """Memory as the program finds it."""
        return self.target.before[span.start:span.stop]

    def flipped(self, raw: bytes, count: int) -> bytes:
        """Bytes with some bits inverted."""
        changed = bytearray(raw)
        for bit in self.rng.integers(8 * len(raw), size=count):
            changed[bit // 8] ^= 1 << bit % 8
        return bytes(changed)

    def value(self, bits: int, value: int) -> int:
        """A value of so many bits to take the place of this one: an end of the range, a neighbour, one bit inverted, an address, anything."""
        top = (1 << bits) - 1
        choices = [0, 1, top, top - 1, top >> 1, (top >> 1) + 1, value + 1, value - 1, value * 2, value ^ 1 << int(self.rng.integers(bits)),
                   int.from_bytes(self.rng.bytes(4), "little"), int(self.rng.integers(16))]
        if bits == 32:
            choices += [self.address()] * 4
        return self.pick(choices) & top

    def address(self) -> int:
        """An address of something, or one where something ends."""
        ends = [0, 0x1000, len(self.target.before), 1 << 30, 1 << 31, 1 << 32]
        spans = [self.target.code, self.target.records, *itertools.chain(*self.tables.values())]
        base = self.pick([self.pick(ends), self.pick(spans).start, self.pick(spans).stop, int(self.rng.integers(len(self.target.before)))])
        return (base + self.pick([0, 0, 0, 1, -1, 2, 32, -32, -256, 256, 4096])) % (1 << 32)

    def spoil(self, record: Record, raw: bytes, names: list[str] | None = None) -> bytes:
        """A record with some fields changed, of these or of all."""
        word = int.from_bytes(raw, "little")
        for name in self.rng.choice(names or list(record.fields), size=self.rng.choice([1, 1, 2])):
            lsb, spec = _place(record, str(name))
            mask = (1 << spec.bits) - 1
            word = word & ~(mask << lsb) | self.value(spec.bits, word >> lsb & mask) << lsb
        return word.to_bytes(record.num_bytes, "little")

    def descriptor(self) -> tuple[int, bytes, Record]:
        """One of the program's: address, bytes, what it is."""
        index = int(self.rng.integers(len(self.program.descriptors)))
        raw = self.program.descriptors[index]
        return self.program.program_addr + index * DESCRIPTOR_BYTES, raw, NN if raw[0] == Opcode.NN else TP

    def entry(self, table: str, num_bytes: int) -> range | None:
        """An entry of a table of the program, if it has one."""
        if not self.tables[table]:
            return None
        span = self.pick(self.tables[table])
        start = span.start + num_bytes * int(self.rng.integers(max(1, len(span) // num_bytes)))
        return range(start, start + num_bytes)

    def open_windows(self) -> list[Event]:
        """One window for all of the program's memory, or none at all."""
        writes = [(f"WINDOW{number}_CONTROL", 0) for number in range(NUM_WINDOWS)]
        if self.rng.integers(2):
            writes += write_window(0, 0, len(self.target.before) - BEYOND_BYTES, WindowControl.READ | WindowControl.WRITE)
        return [self.write(BEFORE, name, value) for name, value in writes]

    def windows(self, cycle: int) -> list[Event]:
        """Other windows."""
        writes, number = [], int(self.rng.integers(NUM_WINDOWS))
        choice = int(self.rng.integers(4))
        mine = self.program.windows[number] if number < len(self.program.windows) else None
        if choice == 0 or mine is None:
            writes = write_window(number, self.address(), self.address(), self.rng.integers(4))
        elif choice == 1:
            limit = mine.base + 32 * int(self.rng.integers((mine.limit - mine.base) // 32 + 1))
            writes = [(f"WINDOW{number}_LIMIT", limit)]
        elif choice == 2:
            base = mine.base + 32 * int(self.rng.integers((mine.limit - mine.base) // 32 + 1))
            writes = [(f"WINDOW{number}_BASE", base)]
        else:
            writes = [(f"WINDOW{number}_CONTROL", int(self.rng.integers(4)))]
        return [self.write(cycle, name, value) for name, value in writes]


def _place(record: Record, name: str) -> tuple[int, Field]:
    lsb = 0
    for spec in record.fields.values():
        if spec.name == name:
            return lsb, spec
        lsb += spec.bits
    raise KeyError(name)


def _tables(config: NpuConfig, target: Target) -> dict[str, list[range]]:
    """Where the tables of a program lie."""
    found: dict[str, list[range]] = {"tap": [], "stream": [], "weights": [], "param": [], "lut": []}
    for raw in target.program.descriptors:
        record = NN if raw[0] == Opcode.NN else TP
        d = record.decode(raw)
        if d["has_lut"]:
            found["lut"].append(range(d["lut_addr"], d["lut_addr"] + LUT_BYTES))
        if record is TP:
            continue
        directory = range(d["stream_addr"], d["stream_addr"] + STREAM.num_bytes * d["num_sb"] * config.num_cores)
        num_params = ((d["num_sb"] - 1) * d["num_kernels"] + d["num_kernels_last"]) * config.num_cores
        found["tap"].append(range(d["tap_addr"], d["tap_addr"] + TAP_BYTES * d["num_taps"]))
        found["stream"].append(directory)
        found["param"].append(range(d["param_addr"], d["param_addr"] + PARAM.num_bytes * num_params))
        for addr in directory[::STREAM.num_bytes]:
            entry = STREAM.decode(target.before[addr:addr + STREAM.num_bytes])
            start = d["wgt_addr"] + entry["offset_bytes"]
            found["weights"].append(range(start, start + entry["num_beats"] * config.port_bytes))
    return found


Events = Iterator[Event]


def _descriptor_bits(a: Attacker) -> Events:
    addr, raw, _ = a.descriptor()
    yield a.poke(BEFORE, addr, a.flipped(raw, a.pick(SIZES)))


def _descriptor_fields(a: Attacker) -> Events:
    addr, raw, record = a.descriptor()
    yield a.poke(BEFORE, addr, a.spoil(record, raw))


def _random_descriptor(a: Attacker) -> Events:
    addr, raw, _ = a.descriptor()
    keep = int(a.rng.integers(1, 4))
    yield a.poke(BEFORE, addr, raw[:keep] + a.rng.bytes(DESCRIPTOR_BYTES - keep))


def _table_of_records(table: str, record: Record) -> Callable[[Attacker], Events]:
    def attack(a: Attacker) -> Events:
        if span := a.entry(table, record.num_bytes):
            yield a.poke(BEFORE, span.start, a.spoil(record, a.bytes_at(span)))
    return attack


def _table_of_bytes(table: str, num_bytes: int) -> Callable[[Attacker], Events]:
    def attack(a: Attacker) -> Events:
        if span := a.entry(table, num_bytes):
            raw = a.bytes_at(span)
            yield a.poke(BEFORE, span.start, a.pick([a.flipped(raw, a.pick(SIZES)), a.rng.bytes(num_bytes), bytes(num_bytes), b"\xff" * num_bytes]))
    return attack


def _noise(a: Attacker) -> Events:
    """Random bytes over whatever lies there."""
    for _ in range(a.pick(SIZES)):
        addr, size = int(a.rng.integers(len(a.target.before) - 64)), int(a.rng.integers(1, 64))
        yield a.poke(BEFORE, addr, a.rng.bytes(size))


def _self_writing(a: Attacker) -> Events:
    """A job whose results are the program, its tables, its records."""
    addr, raw, record = a.descriptor()
    lsb, spec = _place(record, a.pick(["out_addr", "out_addr", "act_addr" if record is NN else "a_addr"]))
    word = int.from_bytes(raw, "little") & ~((1 << spec.bits) - 1 << lsb)
    place = a.pick([a.target.code, a.target.code, a.target.records, *itertools.chain(*a.tables.values())])
    yield from a.open_windows()
    yield a.poke(BEFORE, addr, (word | (place.start + int(a.rng.integers(len(place))) & ~31) << lsb).to_bytes(DESCRIPTOR_BYTES, "little"))


def _records(a: Attacker) -> Events:
    """Completion records over the program, its tables, anything."""
    if a.rng.integers(4):
        yield from a.open_windows()
    yield a.write(BEFORE, "RECORD_BASE", a.address())


def _program_base(a: Attacker) -> Events:
    if a.rng.integers(2):
        yield from a.open_windows()
    yield a.write(BEFORE, "PROGRAM_BASE", a.address())


def _program_count(a: Attacker) -> Events:
    if a.rng.integers(2):
        yield from a.open_windows()
    yield a.write(BEFORE, "PROGRAM_COUNT", a.value(a.pick([8, 16, 17, 32]), len(a.program.descriptors)))


def _windows(a: Attacker) -> Events:
    for _ in range(a.pick([1, 1, 3])):
        yield from a.windows(BEFORE)


def _windows_in_run(a: Attacker) -> Events:
    for _ in range(a.pick([1, 1, 3])):
        yield from a.windows(a.cycle())


def _locked_windows(a: Attacker) -> Events:
    """The windows that the program needs are locked: whatever is written to them, it runs as always."""
    used = range(len(a.program.windows))
    for number in used:
        window = a.program.windows[number]
        control = WindowControl.READ * window.is_readable | WindowControl.WRITE * window.is_writable | WindowControl.LOCK
        yield a.write(BEFORE, f"WINDOW{number}_CONTROL", control)
    for number in used:
        for name, value in write_window(number, a.address(), a.address(), a.rng.integers(8)):
            yield a.write(a.cycle(), name, value)


def _register_in_run(a: Attacker) -> Events:
    names = [name for name, register in REGISTERS.items() if name not in ("CONTROL", "IRQ_ENABLE") and not register.locked_by]
    for _ in range(a.pick([1, 1, 3])):
        yield a.write(a.cycle(), a.pick(names), a.value(32, 1))


def _control_in_run(value: Control) -> Callable[[Attacker], Events]:
    def attack(a: Attacker) -> Events:
        for _ in range(a.pick([1, 1, 3])):
            yield a.write(a.cycle(), "CONTROL", value)
    return attack


def _limits(a: Attacker) -> Events:
    """Of the watchdog and of the whole program."""
    for name in ("TIMEOUT", "WATCHDOG"):
        yield a.write(a.pick([BEFORE, a.cycle()]), name, a.pick([0, 1, 2, 16, 100, 1000, 0xFFFFFFFF, int(a.rng.integers(1, a.target.clean_cycles + 1))]))


def _memory_in_run(a: Attacker) -> Events:
    """Someone else writes to the memory of the program."""
    spans = [a.target.code, *itertools.chain(*a.tables.values())]
    for _ in range(a.pick(SIZES[:2])):
        span = a.pick(spans)
        addr = span.start + int(a.rng.integers(len(span)))
        size = min(int(a.rng.integers(1, 33)), span.stop - addr)
        yield a.poke(a.cycle(), addr, a.pick([a.rng.bytes(size), a.flipped(a.bytes_at(range(addr, addr + size)), 1)]))


def _answer(resp: int) -> Callable[[Attacker], Events]:
    def attack(a: Attacker) -> Events:
        spans = [a.target.code, a.target.records, *itertools.chain(*a.tables.values()), *[range(len(a.target.before))] * 3]
        span = a.pick(spans)
        addr, size = span.start + int(a.rng.integers(len(span))), int(a.pick([1, 1, 64, 1 << 20]))
        start = a.cycle()
        yield Event(start, "fault", (addr, size, resp, bool(a.rng.integers(2))))
        if a.rng.integers(2):
            yield Event(max(start, 0) + int(a.rng.integers(1, 600)), "fault", (0, 0))
    return attack


def _silent_channel(a: Attacker) -> Events:
    start = a.cycle()
    yield Event(start, "silence", tuple(str(channel) for channel in a.rng.choice(CHANNELS, size=a.pick([1, 1, 2, 5]), replace=False)))
    if a.rng.integers(2):
        yield Event(max(start, 0) + int(a.rng.integers(1, 600)), "silence", ())


KINDS: dict[str, Callable[[Attacker], Events]] = {
    "bits of a descriptor": _descriptor_bits,
    "fields of a descriptor": _descriptor_fields,
    "a random descriptor": _random_descriptor,
    "tap table": _table_of_bytes("tap", TAP_BYTES),
    "stream directory": _table_of_records("stream", STREAM),
    "weight streams": _table_of_bytes("weights", 32),
    "parameters": _table_of_records("param", PARAM),
    "lookup table": _table_of_bytes("lut", 16),
    "noise": _noise,
    "a program that writes itself": _self_writing,
    "records anywhere": _records,
    "PROGRAM_BASE": _program_base,
    "PROGRAM_COUNT": _program_count,
    "windows": _windows,
    "windows during the run": _windows_in_run,
    "locked windows": _locked_windows,
    "registers during the run": _register_in_run,
    "doorbell during the run": _control_in_run(Control.DOORBELL),
    "CLEAR_ERROR during the run": _control_in_run(Control.CLEAR_ERROR),
    "soft reset": _control_in_run(Control.SOFT_RESET),
    "limits": _limits,
    "memory during the run": _memory_in_run,
    "SLVERR": _answer(2),
    "DECERR": _answer(3),
    "silence at an address": _answer(0),
    "silent channels": _silent_channel,
}
"""Kinds of attacks: each draws events, or none if the target offers nothing to attack."""


# Many jobs


@dataclass
class Coverage:
    """What jobs were run and how they ended."""

    num_jobs: int = 0
    num_cases: int = 0
    kinds: Counter = field(default_factory=Counter)
    ends: Counter = field(default_factory=Counter)
    """By the name of the error; "soft reset": nothing else would have ended it."""
    failures: list[str] = field(default_factory=list)

    def add(self, other: Coverage) -> None:
        """Add what others ran."""
        self.num_jobs += other.num_jobs
        self.num_cases += other.num_cases
        self.kinds += other.kinds
        self.ends += other.ends
        self.failures += other.failures

    def missing(self) -> list[str]:
        """Kinds that were not drawn and ends that were not seen."""
        return [name for name in KINDS if not self.kinds[name]] + [name for name in (*Error.__members__, "soft reset") if not self.ends[name]]

    def table(self, title: str) -> Table:
        """How many jobs had each kind of attack, and each end."""
        table = Table(box=None, header_style="bold", pad_edge=False, title=title, title_justify="left")
        table.add_column("attack")
        table.add_column("jobs", justify="right")
        for name in KINDS:
            table.add_row(name, f"{self.kinds[name]:,}")
        table.add_section()
        for name in (*Error.__members__, "soft reset"):
            table.add_row(f"ended by {name}", f"{self.ends[name]:,}")
        return table


def draw_case(config: NpuConfig, seed_text: str) -> Case | None:
    """A random case, always the same for a seed; None when it is too large."""
    drawn: list[tuple[Graph, MemoryModel, int]] = []
    graphs = st.sampled_from([layer_graphs()] * 6 + [cut_graphs(), tp_graphs()]).flatmap(lambda graphs: graphs)

    @seed(seed_text)
    @settings(deadline=None, max_examples=4, suppress_health_check=list(HealthCheck), phases=[Phase.generate], database=None)
    @given(graphs, memory_models(), st.integers(0, 2**32 - 1))
    def draw(graph: Graph, model: MemoryModel, seed_number: int) -> None:
        drawn.append((graph, model, seed_number))

    draw()
    try:
        case = Case(config, *drawn[-1])
    except GraphError:
        return None
    case.targets = [target for target in case.targets if target.clean_cycles <= MAX_CLEAN_CYCLES]
    return case if case.targets else None


def run_case(config_name: str, seed_text: str, num_jobs: int = JOBS_PER_CASE) -> Coverage:
    """Draw a case and run hostile jobs on it, after each of them a correct one. What goes wrong is made smaller and put down."""
    coverage = Coverage()
    case = draw_case(CONFIGS[config_name], f"{config_name} {seed_text}")
    if case is None:
        return coverage
    coverage.num_cases = 1
    rng = np.random.default_rng([*seed_text.encode()])
    device = case.open()
    for number in range(num_jobs):
        target, after = (case.targets[int(rng.integers(len(case.targets)))] for _ in range(2))
        job = Attacker(case, target, rng).job()
        is_locked = "locked windows" in job.kinds
        bench = Bench(device)
        try:
            error, is_reset = bench.run(target, job)
            bench.check(target if is_locked else after)
        except Breach as breach:
            coverage.failures.append(f"{config_name}, case {seed_text}, job {number} ({', '.join(job.kinds)}): {breach}\n{smallest(case, target, job)}")
            is_locked = True
        else:
            coverage.ends["soft reset" if is_reset else error.name] += 1
        coverage.num_jobs += 1
        coverage.kinds.update(job.kinds)
        if is_locked:  # until the hardware reset
            device.close()
            device = case.open()
    device.close()
    return coverage


def breach_of(case: Case, target: Target, job: Job) -> Breach | None:
    """What a job does to an NPU that has just been reset."""
    device = case.open()
    bench = Bench(device)
    try:
        bench.run(target, job)
        bench.check(target)
    except Breach as breach:
        return breach
    finally:
        device.close()
    return None


def smallest(case: Case, target: Target, job: Job) -> str:
    """The events of a job that are needed for its breach, for people."""
    if breach_of(case, target, job) is None:
        return "  not after a hardware reset: it takes the jobs before"
    for event in job.events:
        fewer = replace(job, events=tuple(each for each in job.events if each is not event))
        if breach_of(case, target, fewer):
            job = fewer
    return "\n".join(f"  {_describe(target, event)}" for event in job.events) + f"\n  {breach_of(case, target, job)}"


def _describe(target: Target, event: Event) -> str:
    when = "before" if event.cycle == BEFORE else f"cycle {event.cycle}"
    if event.action != "poke":
        return f"{when}: {event.action} {' '.join(f'{each:#x}' if isinstance(each, int) else str(each) for each in event.arguments)}"
    addr, data = event.arguments
    if addr not in target.code or len(data) != DESCRIPTOR_BYTES:
        return f"{when}: {target.before[addr:addr + len(data)].hex()} at {addr:#x} becomes {data.hex()}"
    record = NN if data[0] == Opcode.NN else TP
    old, new = record.decode(target.before[addr:addr + len(data)]), record.decode(data)
    return f"{when}: {record.name} descriptor at {addr:#x}: {', '.join(f'{name} {old[name]} -> {new[name]}' for name in old if old[name] != new[name])}"


def campaign(config_name: str, num_jobs: int, seed_number: int, num_workers: int, progress: Callable[[str], None]) -> Coverage:
    """At least `num_jobs` hostile jobs on a configuration, in several processes; reproducible from the seed."""
    coverage, numbers, pending = Coverage(), itertools.count(), set[Future]()
    started = told = time.monotonic()
    with ProcessPoolExecutor(num_workers) as pool:
        while coverage.num_jobs < num_jobs:
            while len(pending) < num_workers:
                pending.add(pool.submit(run_case, config_name, f"{seed_number}/{next(numbers)}"))
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for part in done:
                coverage.add(part.result())
            if time.monotonic() - told > 10 or coverage.num_jobs >= num_jobs:
                told = time.monotonic()
                progress(f"{config_name}: {coverage.num_jobs:,} of {num_jobs:,} jobs, {len(coverage.failures)} breaches, {told - started:.0f} s")
        for part in pending:
            coverage.add(part.result())
    return coverage


def main() -> int:
    """The command: a campaign on each configuration, its table, and exit code 1 after a breach or when something never occurred."""
    parser = argparse.ArgumentParser(prog="hostile", description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=20_000, metavar="N", help="on all configurations together")
    parser.add_argument("--configs", nargs="+", choices=CONFIGS, default=list(CONFIGS))
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="processes")
    parser.add_argument("--case", metavar="SEED/NUMBER", help="run one case again")
    options = parser.parse_args()
    console, is_good = Console(width=160), True
    for name in options.configs:
        console.print(f"{name}: preparing the RTL (compiled once)")
        _library(CONFIGS[name])
        started = time.monotonic()
        if options.case:
            coverage = run_case(name, options.case)
        else:
            coverage = campaign(name, -(-options.jobs // len(options.configs)), options.seed, options.workers, console.print)
            for missing in coverage.missing():
                is_good = False
                console.print(f"[bold red]never seen:[/] {missing}")
        for failure in coverage.failures:
            is_good = False
            console.print(failure, highlight=False, markup=False, soft_wrap=True)
        console.print(coverage.table(f"{coverage.num_jobs:,} hostile jobs on configuration {name}"))
        console.print(f"{coverage.num_jobs:,} hostile jobs on {coverage.num_cases:,} programs in {time.monotonic() - started:.0f} s: {len(coverage.failures)} breaches")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
