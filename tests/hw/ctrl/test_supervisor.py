"""`Supervisor`: how a program starts, and how long the reset at its end takes."""

from __future__ import annotations

import pytest

from convoy.hw.ctrl.supervisor import Supervisor
from convoy.spec.csr import Error
from convoy.verif.pysim import simulate


async def start(ctx, dut):
    ctx.set(dut.doorbell, 1)
    assert ctx.get(dut.start)
    await ctx.tick()
    ctx.set(dut.doorbell, 0)
    assert (ctx.get(dut.is_busy), ctx.get(dut.is_fetching)) == (1, 1)


@pytest.mark.parametrize("reset_stages", [0, 1, 2, 3, 5])
def test_the_reset_reaches_every_unit_and_has_left_it_at_the_end(reset_stages):
    dut = Supervisor(reset_stages)

    async def testbench(ctx):
        for _ in range(2):
            await start(ctx, dut)
            ctx.set(dut.is_drained, 1)
            await ctx.tick()
            for _ in range(3):
                assert (ctx.get(dut.is_stopping), ctx.get(dut.engine_reset), ctx.get(dut.is_busy)) == (1, 0, 1)
                await ctx.tick()
            ctx.set(dut.is_quiet, 1)
            await ctx.tick()
            ctx.set(dut.is_drained, 0)
            held = []
            while ctx.get(dut.is_busy):
                held.append(ctx.get(dut.engine_reset))
                assert (ctx.get(dut.is_stopping), ctx.get(dut.start)) == (1, 0)
                await ctx.tick()
            assert held == [1] * (reset_stages + 1) + [0] * reset_stages
            assert not ctx.get(dut.is_stopping)
            ctx.set(dut.is_quiet, 0)

    simulate(dut, testbench)


def test_a_fault_without_a_program_is_dropped_and_the_first_one_kept():
    dut = Supervisor(1)

    async def fault(ctx, code, addr):
        ctx.set(dut.fault.p, {"code": code, "addr": addr})
        ctx.set(dut.fault.valid, 1)
        await ctx.tick()
        ctx.set(dut.fault.valid, 0)

    async def testbench(ctx):
        await fault(ctx, Error.BUS_READ, 0x10)
        assert ctx.get(dut.error.code) == Error.NONE
        await start(ctx, dut)
        await fault(ctx, Error.MALFORMED, 0x20)
        assert (ctx.get(dut.is_fetching), ctx.get(dut.is_stopping)) == (0, 0)
        await fault(ctx, Error.BUS_WRITE, 0x30)
        assert ctx.get(dut.is_stopping)
        ctx.set(dut.is_quiet, 1)
        ctx.set(dut.clear_error, 1)
        while ctx.get(dut.is_busy):
            assert (ctx.get(dut.error.code), ctx.get(dut.error.addr)) == (Error.MALFORMED, 0x20)
            await ctx.tick()
        ctx.set(dut.clear_error, 0)
        ctx.set(dut.doorbell, 1)
        assert not ctx.get(dut.start)
        ctx.set(dut.doorbell, 0)
        ctx.set(dut.clear_error, 1)
        await ctx.tick()
        ctx.set(dut.clear_error, 0)
        assert ctx.get(dut.error.code) == Error.NONE
        await start(ctx, dut)

    simulate(dut, testbench)
