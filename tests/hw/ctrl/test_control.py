"""Whole programs through the control blocks, with engines and memory played by the testbench."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convoy.hw.ctrl import control
from convoy.spec.config import FEATURES, PRESETS
from convoy.spec.csr import ID, REGISTERS, Control, Error, Status, WindowControl
from convoy.spec.cycles import INTERRUPT_CYCLES
from convoy.spec.isa import COMPLETION, DESCRIPTOR_BYTES, Opcode
from convoy.verif.axi_lite import AxiLiteManager
from convoy.verif.descriptors import smallest_nn, smallest_tp
from convoy.verif.pysim import ReadPortMemory, WritePortMemory, simulate, sometimes

PROGRAM_BASE, RECORD_BASE = 0x100, 0x3000
CONFIG = PRESETS["Q"]


class Bench:
    """Runs programs; `events` holds ("start" or "done", engine, tag) in the order seen, `dues` by tag how many TP jobs
    each NN job was said to wait for.
    """

    def __init__(self, descriptors, *, stall=0.0, seed=0, max_engine_cycles=30, num_jobs=2):
        self.dut = control.Control(CONFIG)
        self.rng = random.Random(seed)
        self.max_engine_cycles = max_engine_cycles
        self.num_jobs = num_jobs
        self.events, self.dues = [], {}
        self.queues = []
        self.quiet_cycles = 60  # from the order to stop until the reads under way have ended, at most
        self.is_bus_busy = False
        self.cycle = 0
        self.memory = bytearray(0x4000)
        self.go = sometimes(self.rng, 1 - stall)
        for index, raw in enumerate(descriptors):
            addr = PROGRAM_BASE + index * DESCRIPTOR_BYTES
            self.memory[addr : addr + len(raw)] = raw
        self.manager = AxiLiteManager(self.dut.s_axil)

    def run(self, testbench):
        dut = self.dut
        reads = ReadPortMemory(CONFIG, dut.read, self.memory, latency_cycles=5, go=self.go)
        writes = WritePortMemory(CONFIG, dut.write, self.memory, latency_cycles=5, go=self.go)

        async def clock(ctx):
            async for _ in ctx.tick():
                self.cycle += 1

        async def main(ctx):
            ctx.set(dut.guards[1].is_quiet, 1)
            await testbench(ctx, self)

        async def quiet(ctx):
            num_stopped = 0
            while True:
                ctx.set(dut.guards[0].is_quiet, num_stopped >= self.quiet_cycles and not self.is_bus_busy)
                _, _, stop = await ctx.tick().sample(dut.guards[0].stop)
                num_stopped = num_stopped + 1 if stop else 0

        engines = (self.engine("nn", dut.nn, dut.nn_done), self.engine("tp", dut.tp, dut.tp_done))
        simulate(dut, main, background=[reads.process, writes.process, *engines, clock, quiet])

    def abort(self):
        """What the reset of the engines does."""
        for queue in self.queues:
            queue.clear()

    def engine(self, name, job, done):
        queue = []
        self.queues.append(queue)

        async def testbench(ctx):
            while True:
                finishes = bool(queue) and self.cycle >= queue[0][0]
                is_ready = len(queue) < self.num_jobs and self.rng.random() < 0.7
                is_ready &= name == "nn" or ctx.get(self.dut.tp_released)
                ctx.set(job.ready, is_ready)
                ctx.set(done, finishes)
                if finishes:
                    self.events.append(("done", name, queue.pop(0)[1]))
                _, _, valid, tag, due = await ctx.tick().sample(job.valid, job.p.tag, self.dut.nn_due)
                if valid and is_ready:
                    if name == "nn":
                        self.dues[tag] = due
                    after = max([self.cycle, *(until for until, _ in queue)])
                    queue.append((after + self.rng.randint(1, self.max_engine_cycles), tag))
                    self.events.append(("start", name, tag))

        return testbench

    async def start(self, ctx, count):
        for name, value in (
            ("PROGRAM_BASE", PROGRAM_BASE),
            ("PROGRAM_COUNT", count),
            ("RECORD_BASE", RECORD_BASE),
            ("IRQ_ENABLE", 1),
            ("CONTROL", 1),
        ):
            await self.manager.write(ctx, REGISTERS[name].addr, value)

    async def wait(self, ctx, max_cycles=4000):
        for _ in range(max_cycles):
            if ctx.get(self.dut.irq):
                return
            await ctx.tick()
        raise AssertionError("no interrupt")

    async def read(self, ctx, name):
        return (await self.manager.read(ctx, REGISTERS[name].addr))[0]

    def record(self, index):
        addr = RECORD_BASE + COMPLETION.num_bytes * index
        return COMPLETION.decode(bytes(self.memory[addr : addr + COMPLETION.num_bytes]))


def descriptor(opcode, tag, *, wait_nn=0, wait_tp=0, tp_ahead=0):
    smallest = smallest_nn if opcode == Opcode.NN else smallest_tp
    return smallest(wait_nn=wait_nn, wait_tp=wait_tp, tp_ahead=tp_ahead, tag=tag)


def check_order(events, dues, program):
    """Every job started once, per engine in order, and a TP job not before what it waits for; done before the end. An
    NN job is told how many TP jobs it waits for, counting one that is done in this very cycle or not.
    """
    for engine, opcode in (("nn", Opcode.NN), ("tp", Opcode.TP)):
        tags = [tag for tag, (op, *_) in enumerate(program) if op == opcode]
        for kind in ("start", "done"):
            assert [tag for k, e, tag in events if (k, e) == (kind, engine)] == tags
    for tag, (opcode, wait_nn, wait_tp, tp_ahead) in enumerate(program):
        own = "nn" if opcode == Opcode.NN else "tp"
        before = events[: events.index(("start", own, tag))]
        num_awaited = 0
        for earlier, (op, *_) in enumerate(program[:tag]):
            num_later = sum(later == Opcode.TP for later, *_ in program[earlier + 1 : tag])
            if op == Opcode.TP and wait_tp and num_later >= tp_ahead:
                assert opcode == Opcode.NN or ("done", "tp", earlier) in before
                num_awaited += ("done", "tp", earlier) not in before
            if op == Opcode.NN and opcode == Opcode.TP and wait_nn:
                assert ("done", "nn", earlier) in before
        if opcode == Opcode.NN:
            assert dues[tag] - num_awaited in (0, 1)


PROGRAM = st.lists(
    st.tuples(
        st.sampled_from((Opcode.NN, Opcode.TP)), st.integers(0, 1), st.integers(0, 1), st.sampled_from((0, 0, 1, 2, 7))
    ),
    min_size=1,
    max_size=14,
)


@given(PROGRAM, st.sampled_from((0.0, 0.5)), st.integers(0, 2**16), st.sampled_from((2, 40)), st.sampled_from((1, 12)))
@settings(deadline=None, max_examples=10, derandomize=True)
def test_program(program, stall, seed, max_engine_cycles, num_jobs):
    descriptors = [
        descriptor(op, tag, wait_nn=nn, wait_tp=tp, tp_ahead=ahead) for tag, (op, nn, tp, ahead) in enumerate(program)
    ]

    async def testbench(ctx, bench):
        for _ in range(2):
            bench.events.clear()
            bench.memory[RECORD_BASE:] = bytes(len(bench.memory) - RECORD_BASE)
            await bench.start(ctx, len(program))
            await bench.wait(ctx)
            check_order(bench.events, bench.dues, program)
            cycles = await bench.read(ctx, "CYCLES")
            times = {tag: bench.record(tag)["cycle"] for tag in range(len(program))}
            assert all(0 < time <= cycles for time in times.values())
            done = [tag for kind, _, tag in bench.events if kind == "done"]
            assert sorted(done, key=times.get) == done or len(set(times.values())) < len(times)
            assert await bench.read(ctx, "STATUS") == 0
            assert await bench.read(ctx, "CYCLES") == cycles
            await bench.manager.write(ctx, REGISTERS["IRQ_STATUS"].addr, 1)
            await ctx.tick()
            assert not ctx.get(bench.dut.irq)

    Bench(descriptors, stall=stall, seed=seed, max_engine_cycles=max_engine_cycles, num_jobs=num_jobs).run(testbench)


def test_identity():
    async def testbench(ctx, bench):
        assert await bench.read(ctx, "ID") == ID
        assert await bench.read(ctx, "CONFIG0") == 4 | 16 << 8 | 8 << 16 | 8 << 24
        assert await bench.read(ctx, "FEATURES") == (1 << len(FEATURES)) - 1

    Bench([]).run(testbench)


def test_engines_run_side_by_side():
    """A TP job that does not wait starts while the NN engine is at work."""

    async def testbench(ctx, bench):
        await bench.start(ctx, 2)
        await bench.wait(ctx)
        assert bench.events[:2] == [("start", "nn", 0), ("start", "tp", 1)]

    Bench([descriptor(Opcode.NN, 0), descriptor(Opcode.TP, 1)], seed=4, max_engine_cycles=300).run(testbench)


def test_unknown_opcode():
    async def testbench(ctx, bench):
        await bench.start(ctx, 5)
        await bench.wait(ctx)
        assert await bench.read(ctx, "ERROR") == Error.OPCODE
        assert await bench.read(ctx, "ERROR_ADDR") == PROGRAM_BASE + 2 * DESCRIPTOR_BYTES
        assert await bench.read(ctx, "STATUS") == 2
        assert [event for event in bench.events if event[0] == "done"] == [("done", "nn", 0), ("done", "tp", 1)]
        assert bench.record(1)["cycle"] > 0

        # A doorbell is ignored until the error has been cleared; then the NPU works again
        bench.events.clear()
        await bench.manager.write(ctx, REGISTERS["IRQ_STATUS"].addr, 1)
        await bench.start(ctx, 2)
        await ctx.tick().repeat(200)
        assert bench.events == []
        await bench.manager.write(ctx, REGISTERS["CONTROL"].addr, 2)
        assert await bench.read(ctx, "ERROR") == Error.NONE
        await bench.start(ctx, 2)
        await bench.wait(ctx)
        assert await bench.read(ctx, "STATUS") == 0
        assert len(bench.events) == 4

    descriptors = [
        descriptor(Opcode.NN, 0),
        descriptor(Opcode.TP, 1),
        descriptor(Opcode.NN, 2),
        descriptor(Opcode.TP, 3),
        descriptor(Opcode.NN, 4),
    ]
    descriptors[2] = bytes([77]) + descriptors[2][1:]
    Bench(descriptors).run(testbench)


async def strike(ctx, signal, payload=None, value=None):
    """One cycle of a fault."""
    if payload is not None:
        ctx.set(payload, value)
    ctx.set(signal, 1)
    await ctx.tick()
    ctx.set(signal, 0)


async def works_again(ctx, bench):
    """After an error or a soft reset the next program runs."""
    await bench.manager.write(ctx, REGISTERS["IRQ_STATUS"].addr, 1)
    await bench.manager.write(ctx, REGISTERS["CONTROL"].addr, Control.CLEAR_ERROR)
    await bench.start(ctx, 3)
    await bench.wait(ctx)
    assert await bench.read(ctx, "STATUS") == 0
    assert all(bench.record(index)["cycle"] > 0 for index in range(3))


STUCK = {"max_engine_cycles": 10**6, "num_jobs": 1}
THREE = [descriptor(Opcode.NN, tag, wait_tp=1) for tag in range(3)]


@pytest.mark.parametrize("code", [Error.BUS_READ, Error.BUS_WRITE, Error.ACCESS_READ, Error.ACCESS_WRITE])
def test_a_fault_stops_the_program(code):
    """The bus is told to stop in the next cycle; the program ends when it is quiet; the engines are reset; then all
    is well.
    """

    async def testbench(ctx, bench):
        dut = bench.dut
        which = 0 if code in (Error.BUS_READ, Error.ACCESS_READ) else 1
        guard, fault = dut.guards[which], dut.bus_faults[which]
        await bench.start(ctx, 3)
        await ctx.tick().repeat(60)
        bench.is_bus_busy = True
        await ctx.tick()
        if code in (Error.BUS_READ, Error.BUS_WRITE):
            await strike(ctx, fault.valid, fault.payload, {"code": code, "addr": 0xDEAD0000})
        else:
            await strike(ctx, guard.violation, guard.violation_addr, 0xDEAD0000)
        assert ctx.get(dut.guards[0].stop)
        assert ctx.get(dut.guards[1].stop)
        await strike(ctx, fault.valid, fault.payload, {"code": Error.BUS_READ, "addr": 0})
        assert await bench.read(ctx, "STATUS") == Status.BUSY | Status.ERROR | Status.STOPPING
        assert not ctx.get(dut.irq)
        bench.max_engine_cycles = 30
        bench.abort()
        await ctx.tick().repeat(bench.quiet_cycles)
        assert not ctx.get(dut.irq)
        bench.is_bus_busy = False
        await bench.wait(ctx, max_cycles=INTERRUPT_CYCLES)
        assert await bench.read(ctx, "ERROR") == code
        assert await bench.read(ctx, "ERROR_ADDR") == 0xDEAD0000
        assert await bench.read(ctx, "STATUS") == Status.ERROR
        await works_again(ctx, bench)

    Bench(THREE, **STUCK).run(testbench)


def test_malformed():
    """What came before completes, nothing after it starts."""

    async def testbench(ctx, bench):
        await bench.start(ctx, 4)
        await bench.wait(ctx)
        assert await bench.read(ctx, "ERROR") == Error.MALFORMED
        assert await bench.read(ctx, "ERROR_ADDR") == PROGRAM_BASE + 2 * DESCRIPTOR_BYTES
        assert bench.events == [("start", "nn", 0), ("done", "nn", 0), ("start", "tp", 1), ("done", "tp", 1)]
        assert bench.record(1)["cycle"] > 0

    Bench([smallest_nn(tag=0), smallest_tp(tag=1, wait_nn=1), smallest_nn(tag=2, num_vec=0), smallest_tp(tag=3)]).run(
        testbench
    )


@pytest.mark.parametrize("pause", [1, 3, 20, 60, 200])
def test_soft_reset(pause):
    """At any time; without an error; the interrupt comes if a program was running."""

    async def testbench(ctx, bench):
        for is_running in (True, False):
            if is_running:
                await bench.start(ctx, 3)
                await ctx.tick().repeat(pause)
            await bench.manager.write(ctx, REGISTERS["CONTROL"].addr, Control.SOFT_RESET)
            bench.abort()
            await ctx.tick().repeat(bench.quiet_cycles + INTERRUPT_CYCLES)
            assert ctx.get(bench.dut.irq) == is_running
            assert await bench.read(ctx, "STATUS") == 0
            await bench.manager.write(ctx, REGISTERS["IRQ_STATUS"].addr, 1)
        bench.max_engine_cycles = 30
        await works_again(ctx, bench)

    Bench(THREE, **STUCK).run(testbench)


def test_watchdog():
    """Nothing moves: the program is stopped after the limit; with bursts under way it is reported and the stop goes
    on.
    """

    async def testbench(ctx, bench):
        dut = bench.dut
        bench.quiet_cycles = 0
        await bench.manager.write(ctx, REGISTERS["WATCHDOG"].addr, 100)
        for is_bus_hung in (False, True):
            await bench.start(ctx, 3)
            await ctx.tick().repeat(40)
            bench.is_bus_busy = is_bus_hung
            ctx.set(dut.guards[0].oldest_addr, 0x1230)
            await bench.wait(ctx, max_cycles=100 + 15 + INTERRUPT_CYCLES)
            assert await bench.read(ctx, "ERROR") == Error.WATCHDOG
            assert await bench.read(ctx, "ERROR_ADDR") == (0x1230 if is_bus_hung else 0)
            assert await bench.read(ctx, "STATUS") == Status.ERROR | (Status.STOPPING if is_bus_hung else 0)
            await bench.manager.write(ctx, REGISTERS["IRQ_STATUS"].addr, 1)
            await bench.manager.write(ctx, REGISTERS["CONTROL"].addr, Control.CLEAR_ERROR | Control.DOORBELL)
            bench.abort()
            if is_bus_hung:
                assert await bench.read(ctx, "STATUS") == Status.STOPPING
                bench.is_bus_busy = False
                await ctx.tick().repeat(INTERRUPT_CYCLES)
                assert not ctx.get(dut.irq)
            assert await bench.read(ctx, "STATUS") == 0
        bench.max_engine_cycles = 30
        await works_again(ctx, bench)

    Bench(THREE, **STUCK).run(testbench)


@pytest.mark.parametrize("count", [0, 1 << 16, (1 << 16) + 1, 1 << 31])
def test_wrong_count(count):
    """A number of descriptors that is not legal is refused; none is fetched."""

    async def testbench(ctx, bench):
        await bench.start(ctx, count)
        await bench.wait(ctx, max_cycles=100)
        assert await bench.read(ctx, "ERROR") == Error.MALFORMED
        assert await bench.read(ctx, "ERROR_ADDR") == PROGRAM_BASE
        assert not bench.events
        await bench.manager.write(ctx, REGISTERS["CONTROL"].addr, Control.CLEAR_ERROR)
        await bench.manager.write(ctx, REGISTERS["IRQ_STATUS"].addr, 1)
        await works_again(ctx, bench)

    Bench(THREE).run(testbench)


def test_timeout():
    """A program that does not end is stopped after TIMEOUT cycles, though something moves; with bursts under way it
    is reported after twice as many.
    """

    async def testbench(ctx, bench):
        dut, limit = bench.dut, 150
        bench.quiet_cycles = 0
        await bench.manager.write(ctx, REGISTERS["TIMEOUT"].addr, limit)
        await bench.manager.write(ctx, REGISTERS["WATCHDOG"].addr, 100)
        ctx.set(dut.guards[1].moved, 1)
        for is_bus_hung in (False, True):
            await bench.start(ctx, 3)
            await ctx.tick().repeat(40)
            bench.is_bus_busy = is_bus_hung
            await ctx.tick().repeat((2 if is_bus_hung else 1) * limit - 40 - 5)
            assert not ctx.get(dut.irq)
            await bench.wait(ctx, max_cycles=5 + 15 + INTERRUPT_CYCLES)
            assert await bench.read(ctx, "ERROR") == Error.TIMEOUT
            assert await bench.read(ctx, "ERROR_ADDR") == 0
            assert await bench.read(ctx, "STATUS") == Status.ERROR | (Status.STOPPING if is_bus_hung else 0)
            await bench.manager.write(ctx, REGISTERS["IRQ_STATUS"].addr, 1)
            await bench.manager.write(ctx, REGISTERS["CONTROL"].addr, Control.CLEAR_ERROR)
            bench.abort()
            bench.is_bus_busy = False
            await ctx.tick().repeat(INTERRUPT_CYCLES)
            assert await bench.read(ctx, "STATUS") == 0
        await bench.manager.write(ctx, REGISTERS["TIMEOUT"].addr, 2**32 - 1)  # twice of it does not fit in 32 bits
        bench.max_engine_cycles = 30
        await works_again(ctx, bench)
        await bench.manager.write(ctx, REGISTERS["TIMEOUT"].addr, 0)
        await works_again(ctx, bench)

    Bench(THREE, **STUCK).run(testbench)


def test_windows():
    """The registers reach both channels."""

    async def testbench(ctx, bench):
        guards = bench.dut.guards
        assert ctx.get(guards[0].is_open)
        for name, value in (
            ("WINDOW2_BASE", 0x1234_5660),
            ("WINDOW2_LIMIT", 0xFFFF_FFFF),
            ("WINDOW2_CONTROL", WindowControl.WRITE),
        ):
            await bench.manager.write(ctx, REGISTERS[name].addr, int(value))
        await ctx.tick()
        for guard, enable in zip(guards, (0, 1), strict=True):
            assert not ctx.get(guard.is_open)
            assert [ctx.get(window.enable) for window in guard.windows] == [0, 0, enable, 0]
            assert (ctx.get(guard.windows[2].base), ctx.get(guard.windows[2].limit)) == (
                0x1234_5660 >> 5,
                0xFFFF_FFFF >> 5,
            )

    Bench([]).run(testbench)
