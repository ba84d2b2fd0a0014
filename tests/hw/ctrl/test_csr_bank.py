"""The register bank: every register by its kind, handshakes in any order, unmapped addresses."""

import pytest
from amaranth.hdl import Cat
from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st

from convoy.hw.bus.axi import Resp
from convoy.hw.ctrl.csr_bank import CsrBank
from convoy.spec.csr import REGISTERS, WindowControl
from convoy.verif.axi_lite import AxiLiteManager


def simulate(bench, *, stall=0.0, seed=0):
    dut = CsrBank()
    manager = AxiLiteManager(dut.bus, stall=stall, seed=seed)

    async def testbench(ctx):
        await bench(ctx, dut, manager)

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(testbench)
    sim.run()


def of(access):
    return [register for register in REGISTERS.values() if register.access == access]


def test_read_only():
    async def bench(ctx, dut, manager):
        for register in of("ro"):
            ctx.set(getattr(dut, register.name.lower()), 0xA5000000 | register.addr)
        for register in of("ro"):
            assert await manager.write(ctx, register.addr, 0xFFFFFFFF) == Resp.OKAY
            assert await manager.read(ctx, register.addr) == (0xA5000000 | register.addr, Resp.OKAY)

    simulate(bench)


def test_write_only_is_a_strobe():
    dut = CsrBank()
    manager = AxiLiteManager(dut.bus)
    seen = []

    async def monitor(ctx):
        async for _, _, value in ctx.tick().sample(dut.control):
            seen.append(value)

    async def testbench(ctx):
        await manager.write(ctx, REGISTERS["CONTROL"].addr, 0x80000003)
        await ctx.tick().repeat(3)
        await manager.write(ctx, REGISTERS["CONTROL"].addr, 0xFFFFFFFF, strobe=0b0100)
        assert await manager.read(ctx, REGISTERS["CONTROL"].addr) == (0, Resp.OKAY)

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(testbench)
    sim.add_testbench(monitor, background=True)
    sim.run()
    assert [value for value in seen if value] == [0x80000003, 0x00FF0000]


def test_write_one_to_clear():
    addr = REGISTERS["IRQ_STATUS"].addr

    async def bench(ctx, dut, manager):
        ctx.set(dut.irq_status_set, 5)
        await ctx.tick()
        ctx.set(dut.irq_status_set, 0)
        assert await manager.read(ctx, addr) == (5, Resp.OKAY)
        await manager.write(ctx, addr, 1)
        assert await manager.read(ctx, addr) == (4, Resp.OKAY)
        ctx.set(dut.irq_status_set, 4)
        await manager.write(ctx, addr, 4)
        assert ctx.get(dut.irq_status) == 4

    simulate(bench)


@pytest.mark.parametrize("addr", [0x4C, 0x7C, 0x84, 0x80C, 0xFFC])
def test_unmapped(addr):
    async def bench(ctx, dut, manager):
        before = ctx.get(Cat(getattr(dut, register.name.lower()) for register in of("rw")))
        assert await manager.write(ctx, addr, 0xFFFFFFFF) == Resp.SLVERR
        assert await manager.read(ctx, addr) == (0, Resp.SLVERR)
        assert ctx.get(Cat(getattr(dut, register.name.lower()) for register in of("rw"))) == before

    simulate(bench)


ACCESS = st.tuples(
    st.sampled_from(of("rw")),
    st.integers(0, 2**32 - 1),
    st.integers(0, 15),
    st.sampled_from(("addr", "data", "both")),
    st.booleans(),
)


@given(st.lists(ACCESS, min_size=1, max_size=12), st.sampled_from((0.0, 0.5)), st.integers(0, 2**16))
@settings(deadline=None, max_examples=25, derandomize=True)
def test_read_write(accesses, stall, seed):
    async def bench(ctx, dut, manager):
        model = {register.name: 0 for register in of("rw")}
        for register, value, strobe, order, is_busy in accesses:
            ctx.set(dut.is_busy, is_busy)
            assert await manager.write(ctx, register.addr, value, strobe=strobe, order=order) == Resp.OKAY
            if (register.locked_by and model[register.locked_by] & WindowControl.LOCK) or (
                register.is_held and is_busy
            ):
                continue
            mask = sum(0xFF << 8 * i for i in range(4) if strobe >> i & 1)
            model[register.name] = model[register.name] & ~mask | value & mask
        for name, value in model.items():
            assert await manager.read(ctx, REGISTERS[name].addr) == (value, Resp.OKAY)
            assert ctx.get(getattr(dut, name.lower())) == value

    simulate(bench, stall=stall, seed=seed)


def test_what_a_program_works_with_is_held_while_busy():
    async def bench(ctx, dut, manager):
        held = [register for register in of("rw") if register.is_held]
        assert {"WINDOW0_BASE", "WINDOW3_CONTROL", "RECORD_BASE", "PROGRAM_BASE", "PROGRAM_COUNT"} <= {
            register.name for register in held
        }
        for is_busy, expected in ((1, 0), (0, 3), (1, 3)):
            ctx.set(dut.is_busy, is_busy)
            for register in held:
                assert await manager.write(ctx, register.addr, 3 if expected == 0 or not is_busy else 1) == Resp.OKAY
                assert await manager.read(ctx, register.addr) == (expected, Resp.OKAY)

    simulate(bench)


def test_a_lock_holds_for_its_window_only():
    async def bench(ctx, dut, manager):
        for name, value in (("WINDOW1_BASE", 64), ("WINDOW1_CONTROL", WindowControl.READ | WindowControl.LOCK)):
            await manager.write(ctx, REGISTERS[name].addr, int(value))
        for name in ("WINDOW1_BASE", "WINDOW1_LIMIT", "WINDOW1_CONTROL", "WINDOW2_BASE"):
            await manager.write(ctx, REGISTERS[name].addr, 0x1000)
        for name, value in (
            ("WINDOW1_BASE", 64),
            ("WINDOW1_LIMIT", 0),
            ("WINDOW1_CONTROL", 5),
            ("WINDOW2_BASE", 0x1000),
        ):
            assert await manager.read(ctx, REGISTERS[name].addr) == (value, Resp.OKAY)

    simulate(bench)
