"""Hostile jobs on the compiled RTL: an NPU whose programs, tables, registers and memory are not to be trusted,
attacked in random ways.

After each job the NPU must have come to rest, nothing may have been on the bus outside the windows, no byte that no
window lets it write may have changed, and the next correct job must be exact. `python -m convoy.verif.hostile --help`;
`make hostile` runs thousands of them.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.table import Table

from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.devices.native import NativeDevice
from convoy.driver.devices.verilator import native_library, npu_verilog
from convoy.driver.devices.windows import Window, WindowRegisters
from convoy.driver.emit.program import NpuStep, Plan, Program
from convoy.driver.graph.graph import Graph, GraphError
from convoy.driver.runtime.device import Device, DeviceError, MemoryModel
from convoy.driver.runtime.session import Session
from convoy.spec.config import NpuConfig
from convoy.spec.csr import NUM_WINDOWS, REGISTERS, Control, Error, Status, WindowControl
from convoy.spec.isa import DESCRIPTOR_BYTES, NN, TP, Opcode

from .attacks import BEFORE, BEYOND_BYTES, KINDS, Attacker, Event, Job, Target, write_window
from .campaign import RTL_CONFIGS
from .graphs import random_values, run_plan
from .strategies import cut_graphs, fused_pool_graphs, layer_graphs, memory_models, residual_graphs
from .tp_strategies import tp_graphs

__all__ = [
    "CONFIGS",
    "Bench",
    "Breach",
    "Case",
    "Coverage",
    "Outcome",
    "breach_of",
    "campaign",
    "draw_case",
    "run_case",
    "smallest",
]

CONFIGS = {name: RTL_CONFIGS[name] for name in ("small", "wide", "lean")}
"""Far apart; the last one does not check descriptors."""
JOBS_PER_CASE = 50
MAX_CLEAN_CYCLES = 8000
"""Longer programs are no cases: a job is to be cheap."""
SLACK_CYCLES = 200
"""From an expired limit to the interrupt, at most, and what register accesses take meanwhile."""
LONGEST_LIMIT_CYCLES = 50_000
"""Limits above are as good as none."""


class Breach(AssertionError):
    """The NPU did what no job may make it do."""


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


@dataclass(frozen=True)
class Outcome:
    """How a job ended: ERROR and ERROR_ADDR; `is_reset`: nothing else than a soft reset would have ended it."""

    error: Error
    addr: int
    is_reset: bool


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

    def run(self, target: Target, job: Job) -> Outcome:
        """Run a hostile job on the memory that the target's program finds.

        Raises
        ------
        Breach
            When the NPU left its windows, broke the protocol of the bus, did not come to rest or said nothing about it.
        """
        self._forget()
        self._writable, self._expected = np.zeros(len(target.before), bool), bytearray(target.before)
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
        self._forget()
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
            raise Breach(
                f"the next correct job ended with error {self._read('ERROR')} at {self._read('ERROR_ADDR'):#x}"
            )
        found, expected = (
            np.frombuffer(raw, np.uint8).copy() for raw in (device.read_memory(0, len(target.after)), target.after)
        )
        for memory in (found, expected):
            memory[target.records.start : target.records.stop] = 0
        _compare(found, expected, "after the next correct job")

    def _forget(self) -> None:
        self._windows, self._registers, self._is_started = WindowRegisters(), dict.fromkeys(REGISTERS, 0), False
        self._now: list[Window] = []

    def _run(self, target: Target, job: Job) -> Outcome:
        device, clock = self.device, 0
        device.write_memory(0, target.before)
        for name, value in (*set_up(target.program), ("IRQ_ENABLE", 0)):
            self._write(name, value)
        events = sorted(job.events, key=lambda event: event.cycle)
        for event in itertools.takewhile(lambda event: event.cycle == BEFORE, events):
            self._apply(event)
        self._is_started = True
        self._note_windows(self._now)
        self._write("CONTROL", Control.DOORBELL)
        for event in itertools.dropwhile(lambda event: event.cycle == BEFORE, events):
            clock += self._advance(max(0, event.cycle - clock))
            self._apply(event)
        is_reset = self._end(target)
        error, addr, is_told = Error(self._read("ERROR")), self._read("ERROR_ADDR"), self._read("IRQ_STATUS") & 1
        if bool(self._read("STATUS") & Status.ERROR) != (error != Error.NONE):
            raise Breach(f"STATUS and ERROR ({error.name}) do not agree")
        writes = [(event.cycle, event.arguments[0]) for event in events if event.action == "write"]
        may_miss = is_reset or any(
            name == "IRQ_STATUS" or (cycle, name) == (BEFORE, "CONTROL") for cycle, name in writes
        )
        if not is_told and not may_miss:
            raise Breach("the program has ended without an interrupt")
        device.inject_fault(0, 0)
        device.silence()
        self._calm(is_reset)
        _compare(
            np.where(self._writable, 0, np.frombuffer(device.read_memory(0, len(target.before)), np.uint8)),
            np.where(self._writable, 0, np.frombuffer(self._expected, np.uint8)),
            "where no window lets the NPU write",
        )
        return Outcome(error, addr, is_reset)

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
                    raise Breach(
                        f"busy {2 * limit + SLACK_CYCLES} cycles after the last event, although TIMEOUT is {limit}"
                    )
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
                raise Breach(
                    f"not idle {self._stop_cycles} cycles after a soft reset, or after the memory began to answer again"
                )
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
            self._expected[addr : addr + len(data)] = data
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
        register, before = REGISTERS[name], self._registers[name]
        lock = self._registers[register.locked_by] if register.locked_by else 0
        self.device.write32(register.addr, value)
        self._registers[name] = value
        if not register.is_held:
            return
        self._registers[name] = found = self._read(name)
        if found != before and lock & WindowControl.LOCK:
            raise Breach(f"{name} is locked, and has become {found:#x}")
        if self._is_started and found != before and self._read("STATUS") & (Status.BUSY | Status.STOPPING):
            raise Breach(f"{name} has become {found:#x} while the NPU was busy")
        if register.addr in self._windows:
            self._note_windows(self._windows.put(register.addr, found))

    def _note_windows(self, windows: list[Window]) -> None:
        """Once the program runs: what these let the NPU write may change from now on."""
        self._now = windows
        if not self._is_started:
            return
        if not any(window.access for window in windows):
            self._writable[:] = True
        for window in windows:
            if window.access & WindowControl.WRITE:
                self._writable[window.base : window.limit] = True


def set_up(program: Program) -> list[tuple[str, int]]:
    """Register writes for a program, but for the doorbell."""
    writes = [("IRQ_STATUS", 1), ("IRQ_ENABLE", 1), ("WATCHDOG", 0), ("TIMEOUT", 0)]
    for number in range(NUM_WINDOWS):
        writes += write_window(number, 0, 0, 0)
    for number, window in enumerate(program.windows):
        writes += write_window(
            number,
            window.base,
            window.limit,
            WindowControl.READ * window.is_readable | WindowControl.WRITE * window.is_writable,
        )
    return [
        *writes,
        ("PROGRAM_BASE", program.program_addr),
        ("PROGRAM_COUNT", len(program.descriptors)),
        ("RECORD_BASE", program.record_addr),
    ]


def _compare(found: np.ndarray, expected: np.ndarray, where: str) -> None:
    wrong = np.flatnonzero(found != expected)
    if wrong.size:
        raise Breach(
            f"{wrong.size} bytes differ {where}, the first at {wrong[0]:#x}: {found[wrong[0]]}, not "
            f"{expected[wrong[0]]}"
        )


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

    def missing(self, config: NpuConfig) -> list[str]:
        """Kinds that were not drawn and ends that were not seen, of those that the configuration has."""
        never = {Error.OPCODE.name, Error.POOL.name} if not config.has_descriptor_check else set[str]()
        return [name for name in KINDS if not self.kinds[name]] + [
            name for name in (*Error.__members__, "soft reset") if not self.ends[name] and name not in never
        ]

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
    graphs = st.sampled_from(
        [layer_graphs()] * 6 + [cut_graphs(), tp_graphs(), residual_graphs()] + [fused_pool_graphs()] * 2
    ).flatmap(lambda graphs: graphs)

    @seed(seed_text)
    @settings(
        deadline=None, max_examples=4, suppress_health_check=list(HealthCheck), phases=[Phase.generate], database=None
    )
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
    """Draw a case and run hostile jobs on it, after each of them a correct one.

    What goes wrong is made smaller and put down.
    """
    coverage = Coverage()
    case = draw_case(CONFIGS[config_name], f"{config_name} {seed_text}")
    if case is None:
        return coverage
    coverage.num_cases = 1
    rng = np.random.default_rng([*seed_text.encode()])
    device = case.open()
    for number in range(num_jobs):
        target, after = (case.targets[int(rng.integers(len(case.targets)))] for _ in range(2))
        job = Attacker(case.config, target, rng).job()
        is_locked = "locked windows" in job.kinds
        bench = Bench(device)
        try:
            outcome = bench.run(target, job)
            if is_locked and len(job.kinds) > 1:  # perhaps to windows with which nothing works
                device.close()
                device = case.open()
                bench = Bench(device)
            bench.check(target if is_locked else after)
        except Breach as breach:
            coverage.failures.append(
                f"{config_name}, case {seed_text}, job {number} ({', '.join(job.kinds)}): "
                f"{breach}\n{smallest(case, target, job)}"
            )
            is_locked = True
        else:
            coverage.ends["soft reset" if outcome.is_reset else outcome.error.name] += 1
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
        return (
            f"{when}: {event.action} "
            f"{' '.join(f'{each:#x}' if isinstance(each, int) else str(each) for each in event.arguments)}"
        )
    addr, data = event.arguments
    if addr not in target.code or len(data) != DESCRIPTOR_BYTES:
        return f"{when}: {target.before[addr : addr + len(data)].hex()} at {addr:#x} becomes {data.hex()}"
    record = NN if data[0] == Opcode.NN else TP
    old, new = record.decode(target.before[addr : addr + len(data)]), record.decode(data)
    return (
        f"{when}: {record.name} descriptor at {addr:#x}: "
        f"{', '.join(f'{name} {old[name]} -> {new[name]}' for name in old if old[name] != new[name])}"
    )


def campaign(
    config_name: str, num_jobs: int, seed_number: int, num_workers: int, progress: Callable[[str], None]
) -> Coverage:
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
                progress(
                    f"{config_name}: {coverage.num_jobs:,} of {num_jobs:,} jobs, {len(coverage.failures)} breaches, "
                    f"{told - started:.0f} s"
                )
        for part in pending:
            coverage.add(part.result())
    return coverage


def main() -> int:
    """The command: a campaign on each configuration, its table, and exit code 1 after a breach or when something
    never occurred.
    """
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
            coverage = campaign(
                name, -(-options.jobs // len(options.configs)), options.seed, options.workers, console.print
            )
            for missing in coverage.missing(CONFIGS[name]):
                is_good = False
                console.print(f"[bold red]never seen:[/] {missing}")
        for failure in coverage.failures:
            is_good = False
            console.print(failure, highlight=False, markup=False, soft_wrap=True)
        console.print(coverage.table(f"{coverage.num_jobs:,} hostile jobs on configuration {name}"))
        console.print(
            f"{coverage.num_jobs:,} hostile jobs on {coverage.num_cases:,} programs in "
            f"{time.monotonic() - started:.0f} s: {len(coverage.failures)} breaches"
        )
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
