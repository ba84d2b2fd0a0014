"""The NPU between the bus models of cocotbext-axi, an implementation of AXI that is not ours, with back-pressure,
monitors and a scoreboard.

`sim_test` makes a cocotb test of a coroutine that takes an `Environment`. All that is random in it comes from
`Environment.rng`, which is seeded with the run's seed and the test's name: a test alone does what it does among others.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, Event, RisingEdge, SimTimeoutError, with_timeout
from cocotbext.axi import AxiBus, AxiLiteBus, AxiLiteMaster, AxiResp, AxiSlave
from cocotbext.axi.address_space import MemoryInterface

from convoy.driver.emit.program import MemoryWindow
from convoy.spec.config import PAGE_BYTES, NpuConfig
from convoy.spec.csr import NUM_WINDOWS, REGISTERS, Control, Error, Status, WindowControl
from convoy.spec.isa import CAUSE_FIELDS, COMPLETION, Opcode

from .coverage import ERRORS, NN_JOBS, PAUSE_LEVELS, PAUSES, PROGRAMS, TP_BLOCKS, Group, write_coverage
from .programs import MEMORY_BYTES, Job, decode

__all__ = ["SETTINGS", "TESTS", "Environment", "sim_test"]

SETTINGS = "CONVOY_SIM"
"""Environment variable with the file of settings: config, seed, rounds, and the folder for results."""
TESTS: dict[str, list[str]] = {}
"""Names of the tests by module, in order."""
CLOCK_NS = 10
POWER_UP_CYCLES = 4
"""Of the reset before anything else."""
MAX_CYCLES = 50_000
"""Longest wait for an interrupt, and most polls of a register."""
MAX_DRAWS = 200
BURST_INCR = 1


def sim_test(function: Callable[[Environment], Awaitable[None]]):
    """A cocotb test with an environment that has been reset.

    At its end the digest of all that happened on the buses is noted.
    """

    @functools.wraps(function)
    async def run(dut):
        env = Environment(dut, function.__name__)
        try:
            await env.start()
            await function(env)
            await env.finish()
        finally:
            env.note_result()

    TESTS.setdefault(function.__module__, []).append(function.__name__)
    return cocotb.test(run)


class Memory(MemoryInterface):
    """The bytes behind the port, from address 0.

    Beats outside, and the one with `fault_addr` in it, are answered as `Environment.inject_fault` says.
    """

    def __init__(self, beat_bytes: int):
        super().__init__(MEMORY_BYTES)
        self._beat_bytes = beat_bytes
        self.bytes = bytearray(MEMORY_BYTES)
        self.fault_addr: int | None = None
        self.is_hung = False
        self.released = Event()
        self.outside: list[int] = []

    def check_range(self, address, length=0):
        """Note an access outside, then refuse it."""
        if not 0 <= address <= address + length <= MEMORY_BYTES:
            self.outside.append(address)
        super().check_range(address, length)

    async def _meet_fault(self, address):
        if self.fault_addr is not None and self.fault_addr // self._beat_bytes == address // self._beat_bytes:
            if not self.is_hung:
                raise ValueError("fault")
            await self.released.wait()

    async def _read(self, address, length):
        await self._meet_fault(address)
        return bytes(self.bytes[address : address + length])

    async def _write(self, address, data):
        await self._meet_fault(address)
        self.bytes[address : address + len(data)] = data


class _Channel:
    """One channel of a bus: VALID and payload stay until READY (AMBA AXI4 specification, A3.2.1); `on_transfer` gets
    what is handed over.
    """

    def __init__(self, dut, name: str, payload: str, on_transfer: Callable[[dict[str, int]], None] | None = None):
        prefix = name.replace(".", "__")
        self.name, self.on_transfer = name, on_transfer
        self.valid, self.ready = getattr(dut, f"{prefix}valid"), getattr(dut, f"{prefix}ready")
        self.payload = {
            field: getattr(dut, f"{prefix}{field}") for field in payload.split() if hasattr(dut, f"{prefix}{field}")
        }
        self.held: dict[str, int] | None = None

    def step(self) -> dict[str, int] | None:
        """Look at the values before a clock edge; the payload if it is handed over."""
        if not int(self.valid.value):
            assert self.held is None, f"{self.name}: VALID fell before READY"
            return None
        shown = {field: int(signal.value) for field, signal in self.payload.items()}
        assert self.held is None or shown == self.held, (
            f"{self.name} changed before READY: it was {self.held}, is {shown}"
        )
        is_taken = bool(int(self.ready.value))
        self.held = None if is_taken else shown
        if is_taken and self.on_transfer:
            self.on_transfer(shown)
        return shown if is_taken else None


class Monitor:
    """Watches all ten channels in every cycle: the rules of AXI, the memory windows, and the bytes that pass.

    Attributes
    ----------
    windows : those that are open; empty: everything is allowed
    bursts : (is it a write, address, bytes) since `begin`
    read_bytes, write_bytes : since `begin`; completion records are not counted
    records : addresses that are not counted
    """

    def __init__(self, dut, config: NpuConfig):
        self._dut, self._config = dut, config
        address, written = "addr id len size burst prot cache lock", "data strb last"
        self._channels = [
            _Channel(dut, "m_axi.ar", address, functools.partial(self._on_address, is_write=False)),
            _Channel(dut, "m_axi.r", "data resp last id", self._on_read),
            _Channel(dut, "m_axi.aw", address, functools.partial(self._on_address, is_write=True)),
            _Channel(dut, "m_axi.w", written, self._on_write),
            _Channel(dut, "m_axi.b", "resp id"),
            _Channel(dut, "s_axil.aw", "addr prot"),
            _Channel(dut, "s_axil.w", "data strb"),
            _Channel(dut, "s_axil.b", "resp"),
            _Channel(dut, "s_axil.ar", "addr prot"),
            _Channel(dut, "s_axil.r", "data resp"),
        ]
        self._digest = hashlib.sha256()
        self.cycle, self.is_in_reset = 0, False
        self.windows: tuple[MemoryWindow, ...] = ()
        self.begin(range(0))

    def begin(self, records: range) -> None:
        """Count from here."""
        self.bursts: list[tuple[bool, int, int]] = []
        self.read_bytes = self.write_bytes = 0
        self.records = records
        self._open_writes: deque[list[int]] = deque()  # address of the next beat, beats left
        self._early_beats: deque[dict[str, int]] = deque()

    def digest(self) -> str:
        """Of everything that was handed over on any channel, and when."""
        return self._digest.hexdigest()

    async def run(self) -> None:
        """Every cycle, for ever."""
        edge = RisingEdge(self._dut.clk)
        while True:
            await edge
            self.cycle += 1
            for number, channel in enumerate(self._channels):
                if self.is_in_reset:
                    channel.held = None
                elif (taken := channel.step()) is not None:
                    self._digest.update(repr((self.cycle, number, taken)).encode())

    def _on_address(self, taken: dict[str, int], is_write: bool) -> None:
        addr, num_beats, beat_bytes = taken["addr"], taken["len"] + 1, self._config.port_bytes
        num_bytes = num_beats * beat_bytes
        what = f"{'write' if is_write else 'read'} of {num_bytes} bytes at {addr:#x}"
        is_plain = taken["burst"] == BURST_INCR and 1 << taken["size"] == beat_bytes and addr % beat_bytes == 0
        assert is_plain, f"{what}: not INCR, or not of full, aligned beats: {taken}"
        assert num_beats <= self._config.max_burst_beats, (
            f"{what}: longer than max_burst_beats = {self._config.max_burst_beats}"
        )
        assert addr // PAGE_BYTES == (addr + num_bytes - 1) // PAGE_BYTES, f"{what}: crosses a 4 KiB boundary"
        allowed = (window for window in self.windows if (window.is_writable if is_write else window.is_readable))
        assert not self.windows or any(
            window.base <= addr and addr + num_bytes <= window.limit for window in allowed
        ), f"{what}: outside the memory windows"
        self.bursts.append((is_write, addr, num_bytes))
        if is_write:
            self._open_writes.append([addr, num_beats])
            self._match_writes()

    def _on_read(self, _: dict[str, int]) -> None:
        self.read_bytes += self._config.port_bytes

    def _on_write(self, taken: dict[str, int]) -> None:
        self._early_beats.append(taken)
        self._match_writes()

    def _match_writes(self) -> None:
        while self._open_writes and self._early_beats:
            burst, beat = self._open_writes[0], self._early_beats.popleft()
            assert beat["last"] == (burst[1] == 1), (
                f"write at {burst[0]:#x}: WLAST = {beat['last']} with {burst[1]} beats to go"
            )
            if burst[0] not in self.records:
                self.write_bytes += beat["strb"].bit_count()
            burst[0], burst[1] = burst[0] + self._config.port_bytes, burst[1] - 1
            if burst[1] == 0:
                self._open_writes.popleft()

    def is_quiet(self) -> bool:
        """Nothing is offered, and every write has all its beats."""
        return (
            not self._open_writes
            and not self._early_beats
            and not any(int(channel.valid.value) for channel in self._channels)
        )


class Environment:
    """The NPU with a memory, a master of its registers, and a monitor.

    Attributes
    ----------
    rng : the only source of randomness
    config : the NPU's
    rounds : how often a test repeats its random part
    memory, csrs, monitor : the surroundings
    hit : bins of coverage that programs of this test hit
    """

    def __init__(self, dut, name: str):
        self.dut, self.name = dut, name
        settings = json.loads(Path(os.environ[SETTINGS]).read_text())
        self._folder = Path(settings["folder"])
        self.config, self.rounds = NpuConfig(**settings["config"]), settings["rounds"]
        self.rng = random.Random(f"{settings['seed']}/{name}")
        self.memory = Memory(self.config.port_bytes)
        self.bus = AxiSlave(AxiBus.from_prefix(dut, "m_axi_"), dut.clk, dut.rst, target=self.memory)
        self.csrs = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axil_"), dut.clk, dut.rst)
        self.monitor = Monitor(dut, self.config)
        self.hit: set[str] = set()
        self._fault_resp = AxiResp.SLVERR
        reads, writes = self.bus.read_if, self.bus.write_if
        self._answer_with_fault(reads.r_channel, "rresp")
        self._answer_with_fault(writes.b_channel, "bresp")
        self._channels = {
            f"m_axi.{name}": getattr(side, f"{name}_channel")
            for side, names in ((reads, ("ar", "r")), (writes, ("aw", "w", "b")))
            for name in names
        }
        self._channels |= {
            f"s_axil.{name}": getattr(side, f"{name}_channel")
            for side, names in ((self.csrs.read_if, ("ar", "r")), (self.csrs.write_if, ("aw", "w", "b")))
            for name in names
        }

    def _answer_with_fault(self, channel, field: str) -> None:
        """Let the channel answer with `_fault_resp` where the model, which knows no other error, says SLVERR."""
        send = channel.send

        async def send_fault(transaction):
            if getattr(transaction, field) == AxiResp.SLVERR:
                setattr(transaction, field, self._fault_resp)
            await send(transaction)

        channel.send = send_fault

    # Beginning and end

    async def start(self) -> None:
        """Clock, reset, monitor."""
        cocotb.start_soon(Clock(self.dut.clk, CLOCK_NS, unit="ns").start())
        await self.reset()
        cocotb.start_soon(self.monitor.run())

    async def reset(self) -> None:
        """The reset of NPU, memory and master together."""
        self.monitor.is_in_reset = True
        self.dut.rst.value = 1
        await ClockCycles(self.dut.clk, POWER_UP_CYCLES)
        for name in ("m_axi__arvalid", "m_axi__awvalid", "m_axi__wvalid", "s_axil__bvalid", "s_axil__rvalid"):
            assert int(getattr(self.dut, name).value) == 0, f"{name} is high during reset"
        self.dut.rst.value = 0
        self.monitor.is_in_reset = False
        self.monitor.begin(range(0))
        self.monitor.windows = ()
        await ClockCycles(self.dut.clk, 2)

    async def finish(self) -> None:
        """Nothing happens any more, and nothing was outside the memory."""
        self.pause({})
        await ClockCycles(self.dut.clk, 50)
        assert self.monitor.is_quiet(), "the bus is not quiet after the last program"
        assert not self.memory.outside, f"accesses outside the memory: {[hex(addr) for addr in self.memory.outside]}"

    def note_result(self) -> None:
        """One line of `results.jsonl`, and the coverage so far."""
        with open(self._folder / "results.jsonl", "a") as file:
            file.write(
                json.dumps({"test": self.name, "digest": self.monitor.digest(), "cycles": self.monitor.cycle}) + "\n"
            )
        write_coverage(self._folder)

    # Surroundings

    def pause(self, levels: dict[str, str] | None = None) -> None:
        """Back-pressure on every channel: of the level that `levels` gives it, "none" if it gives none; random
        levels if it is None.
        """
        for name, channel in self._channels.items():
            level = self.rng.choice(PAUSE_LEVELS) if levels is None else levels.get(name, "none")
            channel.clear_pause_generator()
            channel.pause = False
            if level != "none":
                channel.set_pause_generator(_pauses(random.Random(self.rng.getrandbits(64)), level))
            PAUSES.sample((name, level))

    def inject_fault(self, addr: int | None, resp: AxiResp | None = AxiResp.SLVERR) -> None:
        """Answer the beat at an address with `resp` from now on; None: not at all. An address of None: no fault."""
        self.memory.fault_addr, self.memory.is_hung = addr, resp is None
        self._fault_resp = AxiResp.SLVERR if resp is None else resp
        if addr is None or resp is not None:
            self.memory.released.set()
        else:
            self.memory.released.clear()

    # Registers

    async def read(self, name: str) -> int:
        """Value of a register."""
        return await self.csrs.read_dword(REGISTERS[name].addr)

    async def write(self, name: str, value: int) -> None:
        """Write a register."""
        await self.csrs.write_dword(REGISTERS[name].addr, int(value))

    async def open_windows(self, windows: tuple[MemoryWindow, ...]) -> None:
        """Let the NPU use these and no others."""
        self.monitor.windows = windows
        for number in range(NUM_WINDOWS):
            await self.write(f"WINDOW{number}_CONTROL", 0)
        for number, window in enumerate(windows):
            await self.write(f"WINDOW{number}_BASE", window.base)
            await self.write(f"WINDOW{number}_LIMIT", window.limit)
            await self.write(
                f"WINDOW{number}_CONTROL",
                WindowControl.READ * window.is_readable | WindowControl.WRITE * window.is_writable,
            )

    # Programs

    async def start_job(self, job: Job, is_polled: bool = False, count: int | None = None) -> None:
        """Memory, registers, doorbell; `count`: another PROGRAM_COUNT than the job's."""
        self.memory.bytes[:] = job.before
        await self.open_windows(job.windows)
        for name, value in (
            ("PROGRAM_BASE", job.program_addr),
            ("PROGRAM_COUNT", len(job.descriptors) if count is None else count),
            ("RECORD_BASE", job.record_addr),
            ("IRQ_ENABLE", not is_polled),
        ):
            await self.write(name, value)
        self.monitor.begin(range(job.record_addr, job.record_addr + len(job.descriptors) * COMPLETION.num_bytes))
        await self.write("CONTROL", Control.DOORBELL)

    async def wait(self, is_polled: bool = False) -> None:
        """Until the program has ended; acknowledge the interrupt."""
        if not is_polled:
            if not int(self.dut.irq.value):
                try:
                    await with_timeout(RisingEdge(self.dut.irq), MAX_CYCLES * CLOCK_NS, "ns")
                except SimTimeoutError:
                    raise AssertionError(f"no interrupt within {MAX_CYCLES} cycles") from None
            assert await self.read("IRQ_STATUS") == 1, "the interrupt line is high, IRQ_STATUS is 0"
        else:
            for _ in range(MAX_CYCLES // 10):
                if await self.read("IRQ_STATUS"):
                    break
            else:
                raise AssertionError("IRQ_STATUS is still 0")
            assert not int(self.dut.irq.value), "the interrupt line is high, IRQ_ENABLE is 0"
        await self.write("IRQ_STATUS", 1)
        assert await self.read("IRQ_STATUS") == 0, "IRQ_STATUS is not cleared by writing 1"
        await ClockCycles(self.dut.clk, 2)
        assert not int(self.dut.irq.value), "the interrupt line is high after IRQ_STATUS was cleared"

    async def run(self, job: Job, is_polled: bool = False) -> None:
        """A program from doorbell to interrupt, and everything that must hold then."""
        await self.start_job(job, is_polled)
        await self.wait(is_polled)
        await self.check(job)
        for group, things in _covered(job, is_polled).items():
            for thing in things:
                group.sample(thing)
                self.hit |= group.bins(thing)

    async def hit_required(self, draw: Callable[[], Job], missing: set[str]) -> None:
        """Run programs that hit one of the bins that this test has not hit yet, of up to `MAX_DRAWS` that are drawn."""
        for _ in range(MAX_DRAWS):
            missing = missing - self.hit
            if not missing:
                return
            job = draw()
            if any(missing & group.bins(thing) for group, things in _covered(job, False).items() for thing in things):
                self.pause()
                await self.run(job)

    async def check(self, job: Job, num_completed: int | None = None) -> None:
        """The scoreboard: memory, completion records and counters after a program of which `num_completed`
        descriptors (None: all, without an error) were executed.
        """
        if num_completed is None:
            code, addr, status = [await self.read(name) for name in ("ERROR", "ERROR_ADDR", "STATUS")]
            assert (code, status) == (Error.NONE, 0), (
                f"ERROR = {code} ({_name(code)}), ERROR_ADDR = {addr:#x}, STATUS = {status:#x}"
            )
            ERRORS.sample({"code": code, "resp": "none"})
            num_completed = len(job.descriptors)
        records = range(job.record_addr, job.record_addr + num_completed * COMPLETION.num_bytes)
        self.compare(job.after, [records])
        await self._check_counters(job, num_completed)

    def compare(self, expected: bytes, ignored: list[range]) -> None:
        """Memory is as expected, but for some ranges."""
        found, wanted = bytearray(self.memory.bytes), bytearray(expected)
        for span in ignored:
            found[span.start : span.stop] = wanted[span.start : span.stop] = bytes(len(span))
        if found != wanted:
            differing = [addr for addr in range(MEMORY_BYTES) if found[addr] != wanted[addr]]
            addr = differing[0]
            raise AssertionError(
                f"memory differs from the golden machine's in {len(differing)} bytes, first at {addr:#x}: "
                f"{found[addr]:#04x} instead of {wanted[addr]:#04x}"
            )

    def check_unwritable(self, job: Job) -> None:
        """After a program that was stopped: nothing changed but what a window lets it write."""
        self.compare(job.before, [range(window.base, window.limit) for window in job.windows if window.is_writable])

    async def _check_counters(self, job: Job, num_completed: int) -> None:
        size = COMPLETION.num_bytes
        raw = self.memory.bytes[job.record_addr : job.record_addr + num_completed * size]
        records = [COMPLETION.decode(bytes(raw[at : at + size])) for at in range(0, len(raw), size)]
        cycles, read_bytes, write_bytes = [await self.read(name) for name in ("CYCLES", "READ_BYTES", "WRITE_BYTES")]
        assert read_bytes == self.monitor.read_bytes, f"READ_BYTES = {read_bytes}, on the bus {self.monitor.read_bytes}"
        assert write_bytes == self.monitor.write_bytes, (
            f"WRITE_BYTES = {write_bytes}, on the bus {self.monitor.write_bytes}"
        )
        for index, record in enumerate(records):
            causes = sum(record[field] for field in CAUSE_FIELDS.values())
            assert causes == self.config.num_cores * record["cycle"], (
                f"record {index}: the causes are {causes} core cycles together, of {record['cycle']} cycles"
            )
            assert 0 < record["cycle"] <= cycles, f"record {index}: cycle {record['cycle']} of {cycles}"
        for opcode in Opcode:
            of_engine = [
                record["cycle"] for record, raw in zip(records, job.descriptors, strict=False) if raw[0] == opcode
            ]
            assert of_engine == sorted(of_engine), f"{opcode.name} descriptors complete out of order: {of_engine}"
        records.sort(key=lambda record: record["cycle"])
        for field in COMPLETION.fields:
            values = [record[field] for record in records]
            assert values == sorted(values), f"records: {field} falls: {values}"
        if len(records) == len(job.descriptors):
            assert records[-1]["write_bytes"] == write_bytes, (
                f"last record: {records[-1]['write_bytes']} bytes written, WRITE_BYTES = {write_bytes}"
            )

    async def expect_error(self, *codes: Error, resp: str = "none") -> int:
        """The program ended with one of these errors; its address. The error is cleared, and the NPU idle."""
        found, addr, status = [await self.read(name) for name in ("ERROR", "ERROR_ADDR", "STATUS")]
        assert found in codes, (
            f"ERROR = {found} ({_name(found)}) at {addr:#x} instead of {' or '.join(code.name for code in codes)}"
        )
        assert status & Status.ERROR, f"STATUS = {status:#x}: ERROR is not shown"
        ERRORS.sample({"code": found, "resp": resp})
        await self.become_idle()
        await self.write("CONTROL", Control.DOORBELL)
        await ClockCycles(self.dut.clk, 20)
        assert await self.read("STATUS") == Status.ERROR, "a doorbell was not ignored while ERROR stood"
        await self.write("CONTROL", Control.CLEAR_ERROR)
        assert await self.read("ERROR") == Error.NONE, "CLEAR_ERROR does not clear ERROR"
        return addr

    async def become_idle(self) -> None:
        """Wait while STATUS shows BUSY or STOPPING."""
        for _ in range(MAX_CYCLES // 10):
            if not await self.read("STATUS") & (Status.BUSY | Status.STOPPING):
                return
        raise AssertionError(f"the NPU is not idle: STATUS = {await self.read('STATUS'):#x}")


def _pauses(rng: random.Random, level: str) -> Iterator[bool]:
    """Whether a channel rests, cycle by cycle."""
    while True:
        if level == "bursts":
            yield from [False] * rng.randint(1, 40)
            yield from [True] * rng.randint(1, 60)
        else:
            yield rng.random() < (0.1 if level == "light" else 0.6)


def _covered(job: Job, is_polled: bool) -> dict[Group, list]:
    """What a program covers, by group."""
    fields = {opcode: [decode(raw) for raw in job.descriptors if raw[0] == opcode] for opcode in Opcode}
    program = {
        "count": len(job.descriptors),
        "parts": job.num_parts,
        "windows": len(job.windows),
        "end": "polled" if is_polled else "interrupt",
        "engines": "+".join(opcode.name for opcode in Opcode if fields[opcode]),
    }
    return {PROGRAMS: [program], NN_JOBS: fields[Opcode.NN], TP_BLOCKS: fields[Opcode.TP]}


def _name(code: int) -> str:
    return Error(code).name if code in set(Error) else "unknown"
